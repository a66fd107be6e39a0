//! What every room may use while one input is handled: time and chance, the connections, and the way out.
//!
//! Owns nothing; it borrows for the length of one `handle`. Refuses to know any room.

use alloc::vec::Vec;

use serde::Serialize;

use super::peers::{Call, Peers};
use crate::contract::effect::{Change, Effect, Effects, Question, Sync};
use crate::contract::error::StoreFault;
use crate::contract::id::{AskId, OpId};
use crate::contract::input::Source;
use crate::contract::note::Note;
use crate::engine::{Engine, Entry};
use crate::wire::event::Notice;
use crate::wire::rpc::RpcError;

/// See the module.
#[derive(Debug)]
pub(crate) struct Ctx<'a> {
    pub(crate) engine: &'a mut Engine,
    pub(crate) peers: &'a mut Peers,
    pub(crate) fx: &'a mut Effects,
}

impl Ctx<'_> {
    pub(crate) fn store(&mut self, changes: Vec<Change>, sync: Sync) -> OpId {
        self.store_telling(changes, Vec::new(), sync).0
    }

    /// Stores changes and the events that tell of them.
    pub(crate) fn store_telling(
        &mut self,
        changes: Vec<Change>,
        notices: Vec<Notice>,
        sync: Sync,
    ) -> (OpId, Vec<Entry>) {
        self.engine.store(changes, notices, sync, self.fx)
    }

    pub(crate) fn ask(&mut self, question: Question) -> AskId {
        self.engine.ask(question, self.fx)
    }

    /// Writes a line into the owner's log.
    pub(crate) fn note(&mut self, note: Note) {
        self.fx.push(Effect::Log { note });
    }

    /// Notes that somebody was turned away, as often as the log should hear of it.
    pub(crate) fn note_refused(&mut self, source: Source) {
        let Engine { now, config, refusals_noted, .. } = &mut *self.engine;
        let (max, span) = (config.limits.notes_max, config.limits.notes_span);
        if let Some(unnoted) = refusals_noted.take(now.mono, max, span) {
            self.note(Note::Refused { source, unnoted });
        }
    }

    /// Notes that the store failed, as often as the log should hear of it.
    pub(crate) fn note_store_failed(&mut self, fault: &StoreFault) {
        let Engine { now, config, store_faults_noted, .. } = &mut *self.engine;
        let (max, span) = (config.limits.notes_max, config.limits.notes_span);
        if let Some(unnoted) = store_faults_noted.take(now.mono, max, span) {
            self.note(Note::StoreFailed { fault: fault.clone(), unnoted });
        }
    }

    pub(crate) fn answer(&mut self, call: Call, result: &impl Serialize) {
        self.peers.answer(call, result, self.fx);
    }

    pub(crate) fn refuse(&mut self, call: Call, error: &RpcError) {
        self.peers.refuse(call, error, self.fx);
    }

    /// The call, if whoever made it may still have it done now that the world has answered; else it is refused.
    pub(crate) fn still_welcome(&mut self, call: Call) -> Option<Call> {
        if self.peers.is_welcome(&call) {
            return Some(call);
        }
        let error = RpcError::role(call.needs().as_str());
        self.refuse(call, &error);
        None
    }

    pub(crate) fn reply<R: Serialize>(&mut self, call: Call, result: Result<R, RpcError>) {
        self.peers.reply(call, result, self.fx);
    }
}
