//! A private directory that is no daemon's: a program's own documents, each read and replaced whole.
//!
//! Owns that two programs do not undo each other's changes; refuses to know what is in a document.

use std::fs::File;
use std::path::Path;

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use super::{FileError, PrivateDir};

const LOCK_FILE: &str = "lock";

/// A private directory of documents.
#[derive(Debug)]
pub struct Documents {
    dir: PrivateDir,
}

/// Documents that nobody else changes while this lives.
#[derive(Debug)]
pub struct Changing<'a> {
    documents: &'a Documents,
    /// Unlocked when it is closed, also after a crash.
    _lock: File,
}

impl Documents {
    /// Makes the directory if there is none, and verifies it and its parents. A daemon's lock is neither looked at nor taken.
    ///
    /// # Errors
    /// Anything unsafe is named and left as it is.
    pub fn open_or_make(path: &Path) -> Result<Self, FileError> {
        PrivateDir::open_or_make(path).map(|dir| Self { dir })
    }

    /// Opens a directory that is there; `None` if it is not.
    ///
    /// # Errors
    /// The directory or a parent is unsafe.
    pub fn open(path: &Path) -> Result<Option<Self>, FileError> {
        if path.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
        {
            return Ok(None);
        }
        PrivateDir::open(path).map(|dir| Some(Self { dir }))
    }

    /// The canonical path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// All of a document; `None` if there is none.
    ///
    /// # Errors
    /// The file is unsafe, or longer than `bytes_max`.
    pub fn read(&self, name: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, FileError> {
        self.dir.read(name, bytes_max)
    }

    /// Waits until nobody else changes the documents. Whoever does is soon done: nobody holds this while waiting for a peer.
    ///
    /// # Errors
    /// The lock file is unsafe or cannot be made.
    pub fn change(&self) -> Result<Changing<'_>, FileError> {
        let lock = self.dir.open_or_make_file(LOCK_FILE, OFlags::RDWR)?;
        loop {
            match flock(&lock, FlockOperation::LockExclusive) {
                Ok(()) => return Ok(Changing { documents: self, _lock: lock }),
                Err(Errno::INTR) => {}
                Err(error) => {
                    let path = self.path().join(LOCK_FILE);
                    return Err(FileError::failed("lock", &path)(error.into()));
                }
            }
        }
    }
}

impl Changing<'_> {
    /// Replaces a document: whoever looks sees the old one or the new one, whole, also after a loss of power.
    ///
    /// # Errors
    /// It cannot be written; the old one is still there.
    pub fn replace(&self, name: &'static str, bytes: &[u8]) -> Result<(), FileError> {
        let dir = &self.documents.dir;
        dir.sweep(name)?;
        dir.stage(name, &[bytes])?.replace()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::thread;

    use super::*;

    #[test]
    fn a2_documents_are_private_and_no_change_is_lost() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("data/mine");
        assert!(Documents::open(&path).unwrap().is_none());
        let documents = Documents::open_or_make(&path).unwrap();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10 {
                        let changing = documents.change().unwrap();
                        let mut bytes = documents.read("list", 100).unwrap().unwrap_or_default();
                        bytes.push(b'x');
                        changing.replace("list", &bytes).unwrap();
                    }
                });
            }
        });
        assert_eq!(documents.read("list", 100).unwrap().unwrap().len(), 40);
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&path.join("list"))), (0o700, 0o600));
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 2, "the document and the lock");
    }

    #[test]
    fn a3_a_document_that_others_may_read_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let documents = Documents::open_or_make(&home.path().join("mine")).unwrap();
        documents.change().unwrap().replace("list", b"x").unwrap();
        let file = documents.path().join("list");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = documents.read("list", 100).unwrap_err();
        assert!(matches!(error, FileError::Unsafe { .. }), "{error}");
    }
}
