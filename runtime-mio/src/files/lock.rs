//! One daemon per data directory.
//!
//! Owns the lock file: locked with `flock` while its daemon lives, by the kernel's word, and so free after a crash. What
//! is written in it is for people and decides nothing.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::IpAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clawd_protocol::Unix;
use rustix::fs::{FlockOperation, OFlags, flock};
use serde_json::{Value, json};

use super::{FileError, PrivateDir};

const LOCK_FILE: &str = "clawd.lock";
const LOCK_BYTES_MAX: u64 = 4096;

/// Who holds a data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its process; 0 if it did not say.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// When it was started, RFC 3339.
    pub since: String,
    /// Its TCP port, once it listens.
    pub port: Option<u16>,
    /// The addresses that it listens on; none if it did not say.
    pub addresses: Vec<IpAddr>,
}

#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    holder: Holder,
}

impl Lock {
    pub(super) fn take(dir: &PrivateDir) -> Result<Self, FileError> {
        let path = dir.path().join(LOCK_FILE);
        let file = dir.open_or_make_file(LOCK_FILE, OFlags::RDWR)?;
        if !try_lock(&file, &path)? {
            let Holder { pid, version, since, port, .. } = read(&file);
            return Err(FileError::Locked { pid, version, since, port });
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let since = Unix::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        let holder = Holder {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            since: since.to_string(),
            port: None,
            addresses: Vec::new(),
        };
        let mut lock = Self { file, holder };
        lock.write().map_err(FileError::failed("write", &path))?;
        Ok(lock)
    }

    pub(super) fn note_listening(&mut self, port: u16, addresses: Vec<IpAddr>) {
        self.holder.port = Some(port);
        self.holder.addresses = addresses;
        let _ = self.write();
    }

    fn write(&mut self) -> io::Result<()> {
        let Holder { pid, version, since, port, addresses } = &self.holder;
        let text = json!({
            "pid": pid, "version": version, "startedAt": since, "port": port, "addresses": addresses,
        });
        // Padded, so that a reader never sees the tail of a longer text: no moment without content.
        let text = format!("{:<255}\n", text.to_string());
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(text.as_bytes())?;
        self.file.set_len(u64::try_from(text.len()).unwrap_or(LOCK_BYTES_MAX))
    }
}

/// Who holds the directory; `None` if nobody does.
pub(super) fn holder(dir: &PrivateDir) -> Result<Option<Holder>, FileError> {
    let Some(file) = dir.open_file(LOCK_FILE, OFlags::RDONLY)? else { return Ok(None) };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(None),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(Some(read(&file))),
        Err(error) => Err(FileError::failed("lock", &dir.path().join(LOCK_FILE))(error.into())),
    }
}

/// Tries a few times: whoever only looks ([`holder`]) holds the lock for a moment too.
fn try_lock(file: &File, path: &Path) -> Result<bool, FileError> {
    for _ in 0..5 {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => thread::sleep(Duration::from_millis(10)),
            Err(error) => return Err(FileError::failed("lock", path)(error.into())),
        }
    }
    Ok(false)
}

fn read(file: &File) -> Holder {
    let mut text = String::new();
    let _ = file.take(LOCK_BYTES_MAX).read_to_string(&mut text);
    let said: Value = serde_json::from_str(text.trim_end()).unwrap_or_default();
    let word = |key: &str| said.get(key).and_then(Value::as_str).unwrap_or("?").to_owned();
    let number = |key: &str| said.get(key).and_then(Value::as_u64);
    let addresses = said.get("addresses").and_then(Value::as_array).into_iter().flatten();
    Holder {
        pid: number("pid").and_then(|pid| pid.try_into().ok()).unwrap_or_default(),
        version: word("version"),
        since: word("startedAt"),
        port: number("port").and_then(|port| port.try_into().ok()),
        addresses: addresses.filter_map(|one| one.as_str()?.parse().ok()).collect(),
    }
}
