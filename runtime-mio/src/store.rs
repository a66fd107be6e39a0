//! The store: what must outlive the daemon.
//!
//! Owns the database, the tombstone file, the audit log and the token file as one durable whole; refuses to know what any of it is for.
//! Opening checks before it writes, and refuses what it cannot read in full (security J2). A turn of the loop is one
//! transaction.

mod audit;
mod history;
mod journal;
mod open;
mod rows;
mod tombstones;
mod turn;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use clawd_protocol::access::token::TokenDigest;
use clawd_protocol::record::PairingHistory;
use clawd_protocol::{Answer, Change, OpId, Question, Snapshot, StoreFault, Sync, Unix};
use rusqlite::{Connection, ErrorCode, OptionalExtension};

use crate::files::{DataDir, FileError, load_or_make_identity, load_relay};
use audit::AuditLog;
pub use audit::AuditReader;
use tombstones::Tombstones;
use turn::Writer;

/// Why the store cannot be opened. Nothing was changed.
#[derive(Debug)]
pub enum StoreError {
    /// A file of the data directory cannot be used.
    File(FileError),
    /// The database is damaged.
    Corrupt {
        /// Its path.
        path: PathBuf,
        /// What SQLite found.
        reason: String,
    },
    /// The database was written by a newer clawd.
    Newer {
        /// Its path.
        path: PathBuf,
        /// Its version.
        version: usize,
        /// The newest version that this clawd knows.
        known: usize,
    },
    /// The database is another program's.
    Foreign {
        /// Its path.
        path: PathBuf,
    },
    /// A line of the tombstone file is no device's id.
    Tombstone {
        /// Its path.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// The tombstone file cannot be read.
    Tombstones {
        /// Its path.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// SQLite could not do it.
    Failed {
        /// The database's path.
        path: PathBuf,
        /// What it said.
        reason: String,
    },
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::Corrupt { path, reason } => write!(
                f,
                "the database {0} is damaged ({reason}) and was not touched; stop here, move \
                 {0}, {0}-wal and {0}-shm away, and put a backup in their place, or start without \
                 one: revoked devices stay revoked, all others must be paired again",
                path.display()
            ),
            Self::Newer { path, version, known } => write!(
                f,
                "the database {} was written by a newer clawd (version {version}; this one knows \
                 {known}); install that clawd again",
                path.display()
            ),
            Self::Foreign { path } => write!(
                f,
                "{} is not a database of this clawd; choose another directory with --data-dir, or \
                 move the file away",
                path.display()
            ),
            Self::Tombstone { path, line } => write!(
                f,
                "line {line} of {} is not a device's id: it cannot be known who was revoked; \
                 restore the file from a backup, or mend the line",
                path.display()
            ),
            Self::Tombstones { path, source } => {
                write!(f, "could not read {}: {source}", path.display())
            }
            Self::Failed { path, reason } => {
                write!(f, "could not open the database {}: {reason}", path.display())
            }
        }
    }
}

impl std::error::Error for StoreError {}

impl From<FileError> for StoreError {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

impl StoreError {
    fn sqlite(path: &Path) -> impl FnOnce(rusqlite::Error) -> Self {
        let path = path.to_owned();
        move |error| {
            let reason = error.to_string();
            // A row that is no record was changed by something else than us.
            let is_unreadable = matches!(error, rusqlite::Error::FromSqlConversionFailure(..));
            if is_unreadable || open::is_corrupt(&error) {
                Self::Corrupt { path, reason }
            } else {
                Self::Failed { path, reason }
            }
        }
    }
}

/// The store.
#[derive(Debug)]
pub struct Store {
    writer: Writer,
}

impl Store {
    /// Opens the store, checks it, brings it up to date, and loads what the core needs at start.
    ///
    /// # Errors
    /// Whatever cannot be read in full stops the start.
    pub fn open(dir: &DataDir) -> Result<(Self, Snapshot), StoreError> {
        let token = dir.load_or_make_token()?;
        let identity = load_or_make_identity(dir.private())?.public_key().to_vec();
        let tombstones = Tombstones::open(dir.private())?;
        let db = open::open(dir.private())?;
        let path = dir.path().join(open::DATABASE_FILE);
        let mut snapshot = Snapshot::empty(TokenDigest::of(token.expose()), identity);
        snapshot.relay = load_relay(dir.private())?;
        snapshot.tombstones = tombstones.all();
        load(&db, &mut snapshot).map_err(StoreError::sqlite(&path))?;
        let anchor = audit::remembered(&db).map_err(StoreError::sqlite(&path))?;
        let audit = AuditLog::open(dir.private(), anchor)?;
        let dir = dir.private().clone();
        Ok((Self { writer: Writer { db, dir, tombstones, audit, sync: Sync::Process } }, snapshot))
    }

    /// Does the operations of one turn of the loop, in one transaction if possible. One result for each, in order.
    pub fn execute(
        &mut self,
        turn: Vec<(OpId, Vec<Change>, Sync)>,
    ) -> Vec<(OpId, Result<(), StoreFault>)> {
        self.writer.execute(&turn)
    }

    /// Answers a question about stored history; [`Answer::Failed`] for every other question.
    pub fn answer(&mut self, question: &Question) -> Answer {
        history::answer(&self.writer.db, question)
    }
}

fn load(db: &Connection, snapshot: &mut Snapshot) -> rusqlite::Result<()> {
    let meta = "SELECT name, seq, unix_high FROM meta";
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
    let (name, seq, unix_high) = match db.query_row(meta, (), read).optional()? {
        Some(found) => found,
        None => {
            db.execute("INSERT INTO meta (one) VALUES (1)", ())?;
            (None, 0, 0)
        }
    };
    snapshot.name = name;
    snapshot.seq = seq;
    snapshot.unix_high = Unix::from_millis(unix_high);
    snapshot.chapters = journal::chapters(db)?;
    let windows = "SELECT at FROM failed_window ORDER BY n";
    let failed_windows = rows::all(db, windows, (), |row| row.get(0).map(Unix::from_millis))?;
    snapshot.pairing = PairingHistory { failed_windows };
    snapshot.devices = rows::all(db, rows::DEVICES, (), rows::device)?;
    snapshot.sessions = rows::all(db, rows::SESSIONS, (), rows::session)?;
    snapshot.open_messages = rows::all(db, rows::OPEN_MESSAGES, (), rows::message)?;
    snapshot.open_tool_calls = rows::all(db, rows::OPEN_TOOL_CALLS, (), rows::tool_call)?;
    Ok(())
}

fn fault(error: &rusqlite::Error) -> StoreFault {
    if error.sqlite_error_code() == Some(ErrorCode::DiskFull) {
        return StoreFault::Full;
    }
    StoreFault::Failed(error.to_string())
}

#[cfg(test)]
mod tests;
