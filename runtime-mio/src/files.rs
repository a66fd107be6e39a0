//! The data directory: one private place, one owner at a time.
//!
//! Owns how private files are opened, made and replaced (security A2, A3), the lock that keeps a second daemon out, and
//! the files of the local token, the identity and the relay; refuses to know what a token may do.
//!
//! | file | what |
//! |---|---|
//! | `auth_token` | the local token and a newline |
//! | `identity.key` | the identity's private key, PKCS#8 |
//! | `relay.json` | what the owner wants of a relay |
//! | `clawd.lock` | locked while a daemon lives; says who, as JSON |
//! | `clawd.db`, `-wal`, `-shm` | the store |
//! | `audit.log`, `audit.log.1`, … | the audit log |
//! | `revoked` | tombstones, one device id a line |
//! | `child_mark` | what the environments of this directory's children have in common |
//!
//! Invariants: every file is made with mode 0600 and every directory with 0700, whatever the umask; a file is looked at
//! through the descriptor that is then read; what breaks a rule is named and left as it is.

mod documents;
mod lock;
mod private;
mod remote;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::store::AuditReader;
use clawd_protocol::access::token::{Secret, TokenKind, kind_of, mint_local};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::process::Mark;

pub use documents::{Changing, Documents};
pub use lock::Holder;
use lock::Lock;
pub(crate) use private::{PrivateDir, Staged, check_parents};
pub(crate) use remote::{load_or_make_identity, load_relay, stage_new_identity, stage_relay};

const TOKEN_FILE: &str = "auth_token";
const TOKEN_FILE_BYTES_MAX: usize = 4096;
const MARK_FILE: &str = "child_mark";
const MARK_BYTES: usize = 16;

/// Why a file cannot be used.
#[derive(Debug)]
pub enum FileError {
    /// Another daemon holds the directory.
    Locked {
        /// Its process; 0 if it did not say.
        pid: u32,
        /// Its version.
        version: String,
        /// When it was started, RFC 3339.
        since: String,
        /// Its TCP port, once it listens.
        port: Option<u16>,
    },
    /// The file is not as private, or not what, it must be. It was not touched.
    Unsafe {
        /// Which file or directory.
        path: PathBuf,
        /// The rule that it breaks.
        reason: String,
        /// A command that mends it.
        fix: String,
    },
    /// The operating system refused.
    Failed {
        /// What was tried.
        action: &'static str,
        /// With which file or directory.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked { pid, version, since, port } => {
                write!(f, "clawd {version} runs already: process {pid}, since {since}")?;
                match port {
                    Some(port) => write!(f, ", on port {port}; to see more, type: clawd status"),
                    None => f.write_str("; to see more, type: clawd status"),
                }
            }
            Self::Unsafe { path, reason, fix } => {
                write!(f, "refused to use {}: {reason}; to mend it, type: {fix}", path.display())
            }
            Self::Failed { action, path, source } => {
                write!(f, "could not {action} {}: {source}", path.display())
            }
        }
    }
}

impl std::error::Error for FileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Failed { source, .. } => Some(source),
            Self::Locked { .. } | Self::Unsafe { .. } => None,
        }
    }
}

impl FileError {
    pub(crate) fn failed(
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_path_buf();
        move |source| Self::Failed { action, path, source }
    }

    fn refused(path: &Path, reason: impl Into<String>, fix: String) -> Self {
        Self::Unsafe { path: path.to_path_buf(), reason: reason.into(), fix }
    }
}

/// The data directory, locked for this process as long as the value lives.
#[derive(Debug)]
pub struct DataDir {
    dir: PrivateDir,
    lock: Lock,
}

impl DataDir {
    /// Makes the directory if there is none, verifies it and its parents, and locks it.
    ///
    /// # Errors
    /// [`FileError::Locked`] if another daemon is at work here; anything unsafe is named and left as it is.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let dir = PrivateDir::open_or_make(path)?;
        let lock = Lock::take(&dir)?;
        dir.sweep(TOKEN_FILE)?;
        dir.sweep(MARK_FILE)?;
        dir.sweep(remote::IDENTITY_FILE)?;
        dir.sweep(remote::RELAY_FILE)?;
        Ok(Self { dir, lock })
    }

    /// Looks into the directory of a daemon that may or may not run; makes and locks nothing.
    ///
    /// # Errors
    /// The directory is missing or unsafe.
    pub fn inspect(path: &Path) -> Result<Inspection, FileError> {
        Ok(Inspection { dir: PrivateDir::open(path)? })
    }

    /// The canonical path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The local token; made if there is none (security A2, A3, A4).
    ///
    /// # Errors
    /// The file is unsafe, is not a token, or cannot be made.
    pub fn load_or_make_token(&self) -> Result<Secret, FileError> {
        load_or_make_token(&self.dir)
    }

    /// Replaces the local token: whoever looks sees the old file or the new one, whole.
    ///
    /// # Errors
    /// The file cannot be written; the old token is still in force.
    pub fn replace_token(&self, token: &Secret) -> Result<(), FileError> {
        stage_token(&self.dir, token)?.replace()
    }

    /// The mark of this directory's children; made if there is none that can be read.
    ///
    /// # Errors
    /// The file is unsafe or cannot be made.
    pub fn child_mark(&self) -> Result<Mark, FileError> {
        let found = self.dir.read(MARK_FILE, TOKEN_FILE_BYTES_MAX)?.and_then(|bytes| {
            let line = String::from_utf8(bytes).ok()?;
            let mark = line.trim_end();
            let is_mark =
                mark.len() == 2 * MARK_BYTES && mark.bytes().all(|b| b.is_ascii_hexdigit());
            is_mark.then(|| mark.to_owned())
        });
        let path = self.dir.path();
        let random = match found {
            Some(random) => random,
            None => {
                let mut bytes = [0; MARK_BYTES];
                getrandom::fill(&mut bytes).map_err(|error| {
                    FileError::failed("find randomness for", &path.join(MARK_FILE))(error.into())
                })?;
                let random: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                self.dir.stage(MARK_FILE, &[random.as_bytes(), b"\n"])?.replace()?;
                random
            }
        };
        let dir = self.dir.metadata().map_err(FileError::failed("look at", path))?;
        Ok(Mark::new(&random, &dir))
    }

    /// Writes into the lock file where this daemon listens, for those who find the directory locked. That is a courtesy:
    /// failing to is no reason not to serve.
    pub fn note_listening(&mut self, port: u16, addresses: Vec<IpAddr>) {
        self.lock.note_listening(port, addresses);
    }

    pub(crate) fn private(&self) -> &PrivateDir {
        &self.dir
    }
}

/// A data directory that is looked at and not touched.
#[derive(Debug)]
pub struct Inspection {
    dir: PrivateDir,
}

impl Inspection {
    /// The canonical path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The local token; `None` before the first start.
    ///
    /// # Errors
    /// The file is unsafe or not a token.
    pub fn token(&self) -> Result<Option<Secret>, FileError> {
        load_token(&self.dir)
    }

    /// The audit log.
    #[must_use]
    pub fn audit(&self) -> AuditReader {
        AuditReader::new(self.dir.clone())
    }

    /// Who holds the directory, if anybody does.
    ///
    /// # Errors
    /// The lock file is unsafe.
    pub fn holder(&self) -> Result<Option<Holder>, FileError> {
        lock::holder(&self.dir)
    }
}

/// Reads a private file of the owner's (security A3), such as the configuration; `None` if there is none.
///
/// # Errors
/// The file or a parent is unsafe, or the file is longer than `bytes_max`.
pub fn read_private(path: &Path, bytes_max: usize) -> Result<Option<Vec<u8>>, FileError> {
    private::read(path, bytes_max)
}

/// Makes this process keep to itself: umask 077, no core files, no memory for others (security A2, A8), and nothing open
/// but the standard streams (I4). Call it before anything is opened. Agents get the user's own umask back: the files they write are the user's.
pub fn harden() {
    let users = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    // The first one counts: a second call would find our own.
    let _ = USERS_UMASK.set(users);
    close_inherited();
    seal();
}

/// Closes all but the standard streams: whoever started us may have left open what is not ours, such as a lock that we
/// would hold for ever, and our children would inherit it.
pub(crate) fn close_inherited() {
    let entries = std::fs::read_dir("/dev/fd").into_iter().flatten().flatten();
    let open: Vec<i32> =
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for fd in open.into_iter().filter(|fd| *fd > 2) {
        // One of them was the directory's own, which is closed already.
        let _ = nix::unistd::close(fd);
    }
}

static USERS_UMASK: OnceLock<rustix::fs::Mode> = OnceLock::new();

/// The umask that [`harden`] found; `None` if it was not called, and ours is still the user's.
pub(crate) fn users_umask() -> Option<rustix::fs::Mode> {
    USERS_UMASK.get().copied()
}

/// No core files, and on Linux no `/proc/self/{mem,environ}` for other processes of the user.
pub(crate) fn seal() {
    // Lowering one's own limits cannot fail, and if it could, there would be nothing better to do than to go on.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

fn load_token(dir: &PrivateDir) -> Result<Option<Secret>, FileError> {
    let Some(bytes) = dir.read(TOKEN_FILE, TOKEN_FILE_BYTES_MAX)? else { return Ok(None) };
    let path = dir.path().join(TOKEN_FILE);
    let not_a_token = |reason: &str| {
        // Whoever lost the token gets a new one by starting without the file.
        FileError::refused(&path, reason, format!("rm {}", private::quoted(&path)))
    };
    let text = String::from_utf8(bytes).map(Secret::new);
    let text = text.map_err(|_| not_a_token("it holds no token"))?;
    let line = text.expose().strip_suffix('\n').unwrap_or(text.expose());
    match kind_of(line) {
        Some(TokenKind::Local) => Ok(Some(Secret::new(line.to_owned()))),
        Some(TokenKind::Device(_)) => Err(not_a_token("it holds a device's token")),
        None if line.is_empty() => Err(not_a_token("it is empty")),
        None => Err(not_a_token("it holds no token, or a damaged one")),
    }
}

fn load_or_make_token(dir: &PrivateDir) -> Result<Secret, FileError> {
    if let Some(token) = load_token(dir)? {
        return Ok(token);
    }
    let path = dir.path().join(TOKEN_FILE);
    let mut entropy = [0; 32];
    getrandom::fill(&mut entropy)
        .map_err(|error| FileError::failed("find randomness for", &path)(error.into()))?;
    // Whoever links first has made the token; the other finds it made.
    stage_token(dir, &mint_local(entropy))?.create()?;
    load_token(dir)?.ok_or_else(|| {
        FileError::failed("keep", &path)(io::Error::new(io::ErrorKind::NotFound, "it was removed"))
    })
}

/// Writes a token beside the token's file; [`Staged::replace`] then puts it in its place.
pub(crate) fn stage_token(dir: &PrivateDir, token: &Secret) -> Result<Staged, FileError> {
    dir.stage(TOKEN_FILE, &[token.expose().as_bytes(), b"\n"])
}

#[cfg(test)]
mod tests;
