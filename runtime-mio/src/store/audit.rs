//! The audit log on disk: lines at the end of a private file.
//!
//! Owns `audit.log`, the full files before it (`audit.log.1` is the youngest of them) and the end of the chain, because
//! only here is known what was really written; refuses to know what a record means. What a line looks like, and how a
//! log goes on after a crash, is decided in [`clawd_protocol::audit`].
//!
//! Invariants (security H8): a record is written before the transaction that it came with commits, and synced if that
//! is; if either fails, the file is cut back to the last good line, so the chain stays whole. While it cannot be cut
//! back nothing more is written, and every operation that carries a record fails. The oldest file goes only when there
//! are eight, and the next one says which line is the oldest that was kept.

mod read;

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;

use clawd_protocol::audit::{Anchor, Chain, Found, Line, Link, Verifier, resume};
use clawd_protocol::record::{AuditKind, AuditRecord};
use clawd_protocol::{StoreFault, Sync};
use rusqlite::Connection;
use rustix::fs::OFlags;

use super::turn::{file_fault, io_fault};
use crate::clock::Clock;
use crate::files::{FileError, PrivateDir};
pub use read::AuditReader;

/// A file that is longer than this is full.
const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Files that are kept, the present one included.
const FILES_MAX: usize = 8;
/// How much of the end is looked at when the daemon starts.
const TAIL_BYTES: u64 = 256 * 1024;
/// No line is longer.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// The name of a file by its age; the present one is 0.
fn name(age: usize) -> String {
    if age == 0 { "audit.log".to_owned() } else { format!("audit.log.{age}") }
}

/// See the module.
#[derive(Debug)]
pub(super) struct AuditLog {
    dir: PrivateDir,
    /// `None` until there is something to write.
    file: Option<File>,
    /// What the file holds, and the chain has, when all went well.
    good: State,
    /// The same before the last write, which is not committed yet.
    before: Option<State>,
    /// The file may hold more than what is good.
    is_ragged: bool,
    file_bytes_max: u64,
}

#[derive(Debug, Clone)]
struct State {
    len: u64,
    anchor: Anchor,
    /// The file is a new one, and nothing in it says so yet.
    is_continuing: bool,
    /// What was found at start, to be said first.
    owed: Option<AuditRecord>,
}

impl AuditLog {
    /// Looks at the end of the log and decides how it goes on. Writes nothing, but cuts half a line off.
    pub(super) fn open(dir: &PrivateDir, anchor: Anchor) -> Result<Self, FileError> {
        let failed = |action, age| FileError::failed(action, &dir.path().join(name(age)));
        let file = dir.open_file(&name(0), OFlags::RDWR | OFlags::APPEND)?;
        let tail = file.as_ref().map(Tail::read).transpose().map_err(failed("read", 0))?;
        let mut tail = tail.unwrap_or_default();
        if tail.is_torn
            && let Some(file) = &file
        {
            file.set_len(tail.whole).map_err(failed("mend", 0))?;
        }
        let (len, is_torn) = (tail.whole, tail.is_torn);
        if len == 0
            && let Some(older) = dir.open_file(&name(1), OFlags::RDONLY)?
        {
            tail = Tail::read(&older).map_err(failed("read", 1))?;
        }
        let found = Found { is_torn, ..tail.found(&anchor) };
        let resumed = resume(&found, &anchor, Clock::start().read().unix);
        let is_damaged =
            resumed.record.as_ref().is_some_and(|record| record.kind == AuditKind::Damaged);
        let good = State {
            len,
            anchor: Anchor { chain: resumed.chain, synced: anchor.synced },
            is_continuing: len == 0 && resumed.chain.n > 0 && !is_damaged,
            owed: resumed.record,
        };
        let dir = dir.clone();
        let file_bytes_max = FILE_BYTES_MAX;
        Ok(Self { dir, file, good, before: None, is_ragged: false, file_bytes_max })
    }

    /// Appends these records with one write, and syncs them if asked to. On an error the log is as it was.
    pub(super) fn write(&mut self, records: &[&AuditRecord], sync: Sync) -> Result<(), StoreFault> {
        self.before = None;
        let Some(first) = records.first() else { return Ok(()) };
        self.mend().map_err(|error| io_fault(&error))?;
        if self.good.len > self.file_bytes_max {
            self.turn_over().map_err(file_fault)?;
        }
        if self.file.is_none() {
            let file = self.dir.open_or_make_file(&name(0), OFlags::RDWR | OFlags::APPEND);
            self.file = Some(file.map_err(file_fault)?);
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut state = self.good.clone();
        let mut lines = String::new();
        let chain = &mut state.anchor.chain;
        if state.is_continuing {
            let mut record = AuditRecord::new(first.at, AuditKind::Continued, "daemon");
            record.first = Some(oldest_kept(&self.dir).map_err(file_fault)?);
            lines.push_str(&chain.append(&record));
            state.is_continuing = false;
        }
        for record in state.owed.take().iter().chain(records.iter().copied()) {
            lines.push_str(&chain.append(record));
        }
        let written = file
            .write_all(lines.as_bytes())
            .and_then(|()| if sync == Sync::Disk { file.sync_data() } else { Ok(()) });
        if let Err(error) = written {
            self.cut_back();
            return Err(io_fault(&error));
        }
        state.len += u64::try_from(lines.len()).unwrap_or_default();
        if sync == Sync::Disk {
            state.anchor.synced = state.anchor.chain.n;
        }
        self.before = Some(std::mem::replace(&mut self.good, state));
        Ok(())
    }

    /// The transaction of the last write was not committed: what it tells of did not happen.
    pub(super) fn take_back(&mut self) {
        if let Some(before) = self.before.take() {
            self.good = before;
            self.cut_back();
        }
    }

    /// What the database is to remember, if anything was written since.
    pub(super) fn anchor(&self) -> Option<Anchor> {
        self.before.as_ref().map(|_| self.good.anchor)
    }

    fn cut_back(&mut self) {
        // Should it fail, nothing is written before it went well.
        self.is_ragged = true;
        let _ = self.mend();
    }

    fn mend(&mut self) -> io::Result<()> {
        if self.is_ragged
            && let Some(file) = &self.file
        {
            file.set_len(self.good.len)?;
            self.is_ragged = false;
        }
        Ok(())
    }

    /// The file is full: it becomes the youngest of the old ones.
    fn turn_over(&mut self) -> Result<(), FileError> {
        let failed = || FileError::failed("sync", &self.dir.path().join(name(0)));
        if let Some(file) = &self.file {
            file.sync_data().map_err(failed())?;
        }
        // Those before the first gap move up by one; without a gap the oldest is overwritten.
        let mut gap = 1;
        while gap < FILES_MAX - 1 && self.dir.open_file(&name(gap), OFlags::RDONLY)?.is_some() {
            gap += 1;
        }
        for age in (0..gap).rev() {
            self.dir.rename(&name(age), &name(age + 1))?;
        }
        self.file = None;
        self.good.len = 0;
        self.good.is_continuing = true;
        self.dir.sync()
    }
}

/// The oldest line that was kept: as the last file said, until the oldest file of all is one that we have kept longest.
fn oldest_kept(dir: &PrivateDir) -> Result<u64, FileError> {
    let first_line = |age| -> Result<Option<Vec<u8>>, FileError> {
        let Some(file) = dir.open_file(&name(age), OFlags::RDONLY)? else { return Ok(None) };
        let mut bytes = vec![0; LINE_BYTES_MAX];
        let read = file.read_at(&mut bytes, 0);
        let read = read.map_err(FileError::failed("read", &dir.path().join(name(age))))?;
        bytes.truncate(read);
        Ok(bytes.split(|&byte| byte == b'\n').next().map(<[u8]>::to_vec))
    };
    // Without a word about it nothing was ever let go of.
    let said = first_line(1)?;
    let said = said.as_deref().and_then(Line::read).filter(|line| line.is(AuditKind::Continued));
    let said = said.and_then(|line| line.first()).unwrap_or(1);
    let oldest = first_line(FILES_MAX - 1)?;
    let oldest = oldest.as_deref().and_then(Line::read).map_or(0, |line| line.n);
    Ok(said.max(oldest))
}

/// The end of a file.
#[derive(Debug, Default)]
struct Tail {
    /// Whole lines.
    text: Vec<u8>,
    /// The file's length without half a line at its end.
    whole: u64,
    is_torn: bool,
}

impl Tail {
    fn read(file: &File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        let from = len.saturating_sub(TAIL_BYTES);
        let mut text = vec![0; usize::try_from(len - from).unwrap_or_default()];
        file.read_exact_at(&mut text, from)?;
        let end = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let is_torn = end < text.len();
        text.truncate(end);
        // Half a line at the beginning, since the file is longer.
        if from > 0 {
            let begin = text.iter().position(|&byte| byte == b'\n').map_or(0, |at| at + 1);
            text.drain(..begin);
        }
        let whole = from + u64::try_from(end).unwrap_or_default();
        Ok(Self { text, whole, is_torn })
    }

    fn lines(&self) -> Vec<&[u8]> {
        let lines = self.text.split_inclusive(|&byte| byte == b'\n');
        lines.map(|line| line.strip_suffix(b"\n").unwrap_or(line)).collect()
    }

    /// What stands there. What was found broken before, and said so, is not found again.
    fn found(&self, anchor: &Anchor) -> Found<'_> {
        let lines = self.lines();
        let mut verifier = Verifier::of_tail();
        let mut at_anchor: Option<Link> = None;
        for (line, number) in lines.iter().zip(1..) {
            if let Some(line) = Line::read(line) {
                if line.is(AuditKind::Damaged) {
                    verifier = Verifier::of_tail();
                }
                if line.n == anchor.chain.n {
                    at_anchor = Some(line.hash);
                }
            }
            verifier.line("", number, line);
        }
        let is_broken = !verifier.finish().findings.is_empty();
        Found { last: lines.last().copied(), at_anchor, is_torn: self.is_torn, is_broken }
    }
}

/// What the database remembers of the log.
pub(super) fn remembered(db: &Connection) -> rusqlite::Result<Anchor> {
    db.query_row("SELECT n, head, synced FROM audit", (), |row| {
        let chain = Chain { n: row.get(0)?, head: Link::from_bytes(row.get(1)?) };
        Ok(Anchor { chain, synced: row.get(2)? })
    })
}

/// Remembers where the log ends, in the transaction that its last lines tell of.
pub(super) fn remember(db: &Connection, anchor: &Anchor) -> rusqlite::Result<()> {
    let Anchor { chain, synced } = anchor;
    db.prepare_cached("UPDATE audit SET n = ?1, head = ?2, synced = ?3")?
        .execute((chain.n, chain.head.to_bytes(), synced))
        .map(drop)
}

#[cfg(test)]
mod tests;
