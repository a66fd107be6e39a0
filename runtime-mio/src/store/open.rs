//! Opening the database: privately, checked, brought up to date.
//!
//! Owns the order of a start (security J1, J2): private file, read-only check, settings, migrations. Refuses to know
//! what the tables mean.

use std::path::Path;

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use rustix::fs::OFlags;

use super::StoreError;
use crate::files::PrivateDir;

pub(super) const DATABASE_FILE: &str = "clawd.db";

/// Marks a database as ours: "clwd" in ASCII. Another program's `clawd.db` is not touched.
const APPLICATION_ID: i32 = 0x636c_7764;

/// One script for each version, run in order; never changed once released.
const MIGRATIONS: &[&str] = &[
    include_str!("../schema/0001_first.sql"),
    include_str!("../schema/0002_journal.sql"),
    include_str!("../schema/0003_approvals.sql"),
    include_str!("../schema/0004_audit.sql"),
    include_str!("../schema/0005_remote.sql"),
    include_str!("../schema/0006_announced.sql"),
];

pub(super) fn open(dir: &PrivateDir) -> Result<Connection, StoreError> {
    for name in [DATABASE_FILE, "clawd.db-wal", "clawd.db-shm"] {
        dir.open_file(name, OFlags::RDONLY)?;
    }
    // Made by us with mode 0600; SQLite gives the files beside it the same mode.
    let made = dir.open_or_make_file(DATABASE_FILE, OFlags::RDWR)?;
    let is_new = made.metadata().is_ok_and(|found| found.len() == 0);
    drop(made);
    let path = dir.path().join(DATABASE_FILE);
    if !is_new {
        check(&path)?;
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let mut db = Connection::open_with_flags(&path, flags).map_err(StoreError::sqlite(&path))?;
    prepare(&mut db).map_err(StoreError::sqlite(&path))?;
    Ok(db)
}

/// Reads the whole file before anything may write to it.
fn check(path: &Path) -> Result<(), StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let read = || -> rusqlite::Result<(i32, usize, String)> {
        let db = Connection::open_with_flags(path, flags)?;
        let verdict = db.query_row("PRAGMA quick_check(1)", (), |row| row.get(0))?;
        let owner = db.query_row("PRAGMA application_id", (), |row| row.get(0))?;
        let version = db.query_row("PRAGMA user_version", (), |row| row.get(0))?;
        Ok((owner, version, verdict))
    };
    match read() {
        Ok((_, _, verdict)) if verdict != "ok" => {
            Err(StoreError::Corrupt { path: path.to_owned(), reason: verdict })
        }
        // All zero: a crash before the first migration was committed.
        Ok((0, 0, _)) if is_empty(path) => Ok(()),
        Ok((APPLICATION_ID, version, _)) if version > MIGRATIONS.len() => {
            Err(StoreError::Newer { path: path.to_owned(), version, known: MIGRATIONS.len() })
        }
        Ok((APPLICATION_ID, ..)) => Ok(()),
        Ok(_) => Err(StoreError::Foreign { path: path.to_owned() }),
        Err(error) => Err(StoreError::sqlite(path)(error)),
    }
}

fn is_empty(path: &Path) -> bool {
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .and_then(|db| db.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0)))
        .is_ok_and(|tables: i64| tables == 0)
}

fn prepare(db: &mut Connection) -> rusqlite::Result<()> {
    // A small cache, since the history is read a page at a time; no temporary files, which would need a private place;
    // deleted text is overwritten, since it is the user's code.
    db.execute_batch(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA journal_size_limit = 8388608;
         PRAGMA cache_size = -512;
         PRAGMA temp_store = MEMORY;
         PRAGMA mmap_size = 0;
         PRAGMA foreign_keys = ON;
         PRAGMA secure_delete = ON;
         PRAGMA trusted_schema = OFF;",
    )?;
    db.set_prepared_statement_cache_capacity(32);
    migrate(db)?;
    db.execute_batch("PRAGMA synchronous = NORMAL")
}

fn migrate(db: &mut Connection) -> rusqlite::Result<()> {
    let version: usize = db.query_row("PRAGMA user_version", (), |row| row.get(0))?;
    for (from, script) in MIGRATIONS.iter().enumerate().skip(version) {
        let migration = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        migration.execute_batch(script)?;
        migration.pragma_update(None, "application_id", APPLICATION_ID)?;
        migration.pragma_update(None, "user_version", from + 1)?;
        migration.commit()?;
    }
    Ok(())
}

pub(super) fn is_corrupt(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(code, Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}
