//! The store: SQLite and the files beside it.

use clawd_protocol::{Answer, Change, OpId, Question, Snapshot, StoreFault, Sync};

use crate::files::{DataDir, FileError};

/// Why the store cannot be opened.
#[derive(Debug)]
pub enum StoreError {
    /// A file of the data directory cannot be used.
    File(FileError),
}

/// The store.
#[derive(Debug)]
pub struct Store;

impl Store {
    /// Opens the store, checks it, brings it up to date, and loads what the core needs at start.
    pub fn open(dir: &DataDir) -> Result<(Self, Snapshot), StoreError> {
        let _ = dir;
        unimplemented!()
    }

    /// Does the operations of one turn of the loop, if possible in one transaction. One result for each, in order.
    pub fn execute(
        &mut self,
        turn: Vec<(OpId, Vec<Change>, Sync)>,
    ) -> Vec<(OpId, Result<(), StoreFault>)> {
        let _ = turn;
        unimplemented!()
    }

    /// Answers a question about stored history; [`Answer::Failed`] for every other question.
    pub fn answer(&mut self, question: &Question) -> Answer {
        let _ = question;
        unimplemented!()
    }
}
