//! The log: where a daemon in the background talks to, and how it is read.
//!
//! Owns the file, its length and its mode; refuses to know what is in it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;

use crate::exit::Failure;
use crate::home::shorten;

/// Its name in the data directory.
pub(crate) const FILE: &str = "clawd.log";
/// A longer log is set aside when a daemon starts, in the place of the one set aside before.
const BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The log at `path`, to be read; `None` if there is none.
pub(crate) fn open(path: &Path) -> Result<Option<File>, Failure> {
    let failed = |error: io::Error| Failure::io(&format!("cannot read {}", shorten(path)), &error);
    // A FIFO that somebody put there must not hold us.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    match OpenOptions::new().read(true).custom_flags(bits(flags)).open(path) {
        Ok(file) if file.metadata().map_err(failed)?.is_file() => Ok(Some(file)),
        Ok(_) => Err(failed(io::Error::other("it is no file"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// The log at `path`, to be written; for its owner only.
pub(crate) fn make(path: &Path) -> Result<File, Failure> {
    let failed = |error: io::Error| Failure::io(&format!("cannot write {}", shorten(path)), &error);
    if path.symlink_metadata().is_ok_and(|found| found.len() > BYTES_MAX) {
        std::fs::rename(path, path.with_extension("log.1")).map_err(failed)?;
    }
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(bits(OFlags::NOFOLLOW))
        .open(path)
        .map_err(failed)
}

fn bits(flags: OFlags) -> i32 {
    i32::try_from(flags.bits()).unwrap_or_default()
}

/// Stderr of a daemon. What nobody reads is left out: a full pipe must not hold up everybody else.
#[derive(Debug)]
pub(crate) struct Talk;

impl Write for Talk {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let stderr = io::stderr();
        let mut fds = [PollFd::new(&stderr, PollFlags::OUT)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        if poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0) {
            return stderr.lock().write(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
