//! One turn of the loop, written down.
//!
//! Owns the order in which a turn's changes reach the disk; refuses to know why they are made.
//!
//! | step | why then |
//! |---|---|
//! | 1. tombstones are appended and synced | a tombstone whose row does not follow keeps a device out: the safe side |
//! | 2. a new token, identity or wish for a relay is written and synced beside the old one | a full disk shows before anything is decided |
//! | 3. audit records are appended, and synced if the turn is | what cannot be written down does not happen (security H8) |
//! | 4. the transaction commits; if not, the records are taken back | |
//! | 5. the new file takes the old one's place, by a rename | never a token in force that the rest of the operation lacks |
//!
//! Should 5 fail, the operation is reported as failed and the old file is in force, which is what its holder knows.

use clawd_protocol::record::{AuditRecord, PairingHistory};
use clawd_protocol::{Change, OpId, StoreFault, Sync, Unix};
use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::audit::{self, AuditLog};
use super::tombstones::Tombstones;
use super::{fault, journal, rows};
use crate::files::{FileError, PrivateDir, Staged, stage_new_identity, stage_relay, stage_token};

pub(super) type Op = (OpId, Vec<Change>, Sync);

/// What a turn writes to.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) db: Connection,
    pub(super) dir: PrivateDir,
    pub(super) tombstones: Tombstones,
    pub(super) audit: AuditLog,
    /// What `PRAGMA synchronous` is set to.
    pub(super) sync: Sync,
}

impl Writer {
    /// All operations in one transaction; if that fails, each in its own, so that a bad one fails alone.
    pub(super) fn execute(&mut self, turn: &[Op]) -> Vec<(OpId, Result<(), StoreFault>)> {
        if turn.len() > 1 && self.commit(turn).is_ok() {
            return turn.iter().map(|(op, ..)| (*op, Ok(()))).collect();
        }
        turn.iter().map(|one| (one.0, self.commit(std::slice::from_ref(one)))).collect()
    }

    fn commit(&mut self, ops: &[Op]) -> Result<(), StoreFault> {
        let sync = ops.iter().map(|(.., sync)| *sync).max().unwrap_or(Sync::Process);
        let mut staged: Vec<Staged> = Vec::new();
        for change in ops.iter().flat_map(|(_, changes, _)| changes) {
            if let Change::Bury(device) = change {
                self.tombstones.bury(*device).map_err(|error| io_fault(&error))?;
            } else if let Some(file) = stage(&self.dir, change) {
                staged.push(file.map_err(file_fault)?);
            }
        }
        let changes = ops.iter().flat_map(|(_, changes, _)| changes);
        let records: Vec<&AuditRecord> = changes
            .filter_map(
                |change| if let Change::Audit(record) = change { Some(record) } else { None },
            )
            .collect();
        self.audit.write(&records, sync)?;
        if let Err(error) = self.commit_rows(ops, sync) {
            self.audit.take_back();
            return Err(fault(&error));
        }
        staged.into_iter().try_for_each(Staged::replace).map_err(file_fault)
    }

    fn commit_rows(&mut self, ops: &[Op], sync: Sync) -> rusqlite::Result<()> {
        if sync != self.sync {
            // Takes effect outside a transaction only. FULL syncs the log at commit, and with it all before.
            self.db.execute_batch(match sync {
                Sync::Process => "PRAGMA synchronous = NORMAL",
                Sync::Disk => "PRAGMA synchronous = FULL",
            })?;
            self.sync = sync;
        }
        let transaction = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut advance: Option<(u64, Unix)> = None;
        for change in ops.iter().flat_map(|(_, changes, _)| changes) {
            if let Change::Advance { seq, unix } = change {
                let (seq_high, unix_high) = advance.unwrap_or_default();
                advance = Some((seq_high.max(*seq), unix_high.max(*unix)));
            } else {
                apply(&transaction, change)?;
            }
        }
        if let Some((seq, unix)) = advance {
            transaction
                .prepare_cached(
                    "UPDATE meta SET seq = max(seq, ?1), unix_high = max(unix_high, ?2)",
                )?
                .execute((seq, unix.as_millis()))?;
        }
        if let Some(anchor) = self.audit.anchor() {
            audit::remember(&transaction, &anchor)?;
        }
        transaction.commit()
    }
}

/// The file that a change writes, if it is one that does.
fn stage(dir: &PrivateDir, change: &Change) -> Option<Result<Staged, FileError>> {
    if let Change::PutLocalToken(secret) = change {
        return Some(stage_token(dir, secret));
    }
    if let Change::PutRelay(wanted) = change {
        return Some(stage_relay(dir, wanted));
    }
    matches!(change, Change::ResetIdentity).then(|| stage_new_identity(dir))
}

fn apply(db: &Transaction<'_>, change: &Change) -> rusqlite::Result<()> {
    match change {
        Change::PutDevice(device) => rows::put_device(db, device),
        Change::TouchDevice { id, at, via } => db
            .prepare_cached("UPDATE device SET last_seen_at = ?2, last_via = ?3 WHERE id = ?1")?
            .execute((id.as_str(), at.as_millis(), via))
            .map(drop),
        Change::PutName(name) => {
            db.prepare_cached("UPDATE meta SET name = ?1")?.execute((name,)).map(drop)
        }
        Change::PutPairing(history) => put_pairing(db, history),
        Change::PutSession(session) => rows::put_session(db, session),
        Change::DeleteSession(id) => {
            rows::delete_session(db, *id)?;
            journal::forget_session(db, *id)
        }
        Change::PutMessage(message) => rows::put_message(db, message),
        Change::PutToolCall(call) => rows::put_tool_call(db, call),
        Change::BeginChapter { chapter, count_max } => journal::begin(db, chapter, *count_max),
        Change::PutEvent(event) => journal::put(db, event),
        Change::PruneEvents { before, count_max, bytes_max } => {
            journal::prune(db, *before, *count_max, *bytes_max)
        }
        // Not rows: done before and after the transaction.
        Change::Bury(_)
        | Change::PutLocalToken(_)
        | Change::PutRelay(_)
        | Change::ResetIdentity
        | Change::Audit(_)
        | Change::Advance { .. } => Ok(()),
    }
}

fn put_pairing(db: &Transaction<'_>, history: &PairingHistory) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM failed_window")?.execute(())?;
    let mut insert = db.prepare_cached("INSERT INTO failed_window (at) VALUES (?1)")?;
    for at in &history.failed_windows {
        insert.execute((at.as_millis(),))?;
    }
    Ok(())
}

pub(super) fn file_fault(error: FileError) -> StoreFault {
    match &error {
        FileError::Failed { source, .. } if is_full(source) => StoreFault::Full,
        FileError::Failed { .. } | FileError::Unsafe { .. } | FileError::Locked { .. } => {
            StoreFault::Failed(error.to_string())
        }
    }
}

pub(super) fn io_fault(error: &std::io::Error) -> StoreFault {
    if is_full(error) { StoreFault::Full } else { StoreFault::Failed(error.to_string()) }
}

fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}
