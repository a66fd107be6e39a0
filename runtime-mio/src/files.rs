//! The private data directory.

use std::path::Path;

use clawd_protocol::access::token::Secret;

/// Why a file of the data directory cannot be used.
#[derive(Debug)]
pub enum FileError {
    /// Another daemon holds the directory.
    Locked {
        /// Its process.
        pid: u32,
        /// Its version.
        version: String,
        /// When it was started, RFC 3339.
        since: String,
        /// Its TCP port, once it listens.
        port: Option<u16>,
    },
}

/// The data directory, locked for this process.
#[derive(Debug)]
pub struct DataDir;

impl DataDir {
    /// Makes the directory if there is none, verifies it, and locks it for as long as the value lives.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let _ = path;
        unimplemented!()
    }

    /// Looks into the directory of a daemon that may or may not run.
    pub fn inspect(path: &Path) -> Result<Inspection, FileError> {
        let _ = path;
        unimplemented!()
    }

    /// The canonical path.
    #[must_use]
    pub fn path(&self) -> &Path {
        unimplemented!()
    }

    /// The local token; made if there is none.
    pub fn load_or_make_token(&self) -> Result<Secret, FileError> {
        unimplemented!()
    }

    /// Replaces the local token.
    pub fn replace_token(&self, token: &Secret) -> Result<(), FileError> {
        let _ = token;
        unimplemented!()
    }

    /// Writes the port into the lock file, for those who find the directory locked.
    pub fn note_port(&mut self, port: u16) {
        let _ = port;
    }
}

/// A data directory that is looked at and not touched.
#[derive(Debug)]
pub struct Inspection;

/// Who holds a data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its process.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// When it was started, RFC 3339.
    pub since: String,
    /// Its TCP port, once it listens.
    pub port: Option<u16>,
}

impl Inspection {
    /// The canonical path.
    #[must_use]
    pub fn path(&self) -> &Path {
        unimplemented!()
    }

    /// The local token, if there is one.
    pub fn token(&self) -> Result<Option<Secret>, FileError> {
        unimplemented!()
    }

    /// Who holds the directory, if anybody does.
    pub fn holder(&self) -> Result<Option<Holder>, FileError> {
        unimplemented!()
    }
}

/// Reads a private file of the owner's (security A3), such as the configuration; `None` if there is none.
pub fn read_private(path: &Path, bytes_max: usize) -> Result<Option<Vec<u8>>, FileError> {
    let _ = (path, bytes_max);
    unimplemented!()
}

/// Makes this process keep to itself: umask 077, no core files, not dumpable (security A2, A8). Call it first in `main`.
pub fn harden() {}
