//! What is under way between the daemon and its surroundings.
//!
//! Owns what the daemon is owed and the order in which it comes: in order from each origin, in any order among them,
//! and not at all while it is held. Refuses to let time pass.

use std::collections::VecDeque;

use clawd_protocol::{
    Answer, AskId, Change, ConnId, DialFault, Input, LegId, OpId, ProcId, Question, StoreFault,
    Stream, Sync,
};

use super::World;
use super::legs::signature;

/// More turns than this at one moment, and the daemon is running in circles.
pub(super) const TURNS_MAX: usize = 200_000;

/// From whom the daemon is owed something. Each is heard in order; they are heard in any order among each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    Store,
    Ask(AskId),
    Link(ConnId),
    Child(ProcId),
    Leg(LegId),
}

/// Something that the daemon will be told.
#[derive(Debug)]
pub(super) enum Due {
    Flushed(ConnId, usize),
    Closed(ConnId),
    Done(OpId, Vec<Change>, Sync),
    Look(AskId, Question),
    Spawned(ProcId),
    Fed(ProcId, usize),
    Output(ProcId, Stream, Vec<u8>),
    Exited(ProcId, Option<i32>),
    Dialed(LegId, Result<(), DialFault>),
    HungUp(LegId),
}

impl World {
    /// Operations and questions about stored things wait until they are released.
    pub const fn hold_store(&mut self) {
        self.is_store_held = true;
    }

    /// They are done now, in order.
    pub fn release_store(&mut self) {
        self.is_store_held = false;
        self.settle();
    }

    /// Questions about directories and programs wait until they are released.
    pub const fn hold_questions(&mut self) {
        self.are_questions_held = true;
    }

    /// So many of them wait.
    #[must_use]
    pub fn questions(&self) -> usize {
        self.due.keys().filter(|origin| matches!(origin, Origin::Ask(_))).count()
    }

    /// They are answered now.
    pub fn release_questions(&mut self) {
        self.are_questions_held = false;
        self.settle();
    }

    /// The disk ends operations like this from now on; `None` heals it.
    pub fn fail_store(&mut self, fault: Option<StoreFault>) {
        self.store.set_fault(fault);
    }

    /// Lets everything happen that takes no time.
    pub fn settle(&mut self) {
        for _ in 0..TURNS_MAX {
            if !self.settle_one(0) {
                return;
            }
        }
        self.fail("the daemon keeps itself busy for ever at one moment");
    }

    /// Tells the daemon one thing that it is owed: the oldest, or when `skip` is not 0 another one of those that may
    /// come first. Returns whether there was one.
    pub fn settle_one(&mut self, skip: usize) -> bool {
        self.listen_to_children();
        let mut fronts: Vec<(u64, Origin)> = self
            .due
            .iter()
            .filter(|(origin, _)| !self.is_held(**origin))
            .filter_map(|(origin, queue)| Some((queue.front()?.0, *origin)))
            .collect();
        fronts.sort_unstable();
        let Some((_, origin)) = fronts.get(skip % fronts.len().max(1)) else { return false };
        let Some(due) = self.due.get_mut(origin).and_then(VecDeque::pop_front) else {
            return false;
        };
        self.due.retain(|_, queue| !queue.is_empty());
        self.tell(due.1);
        true
    }

    const fn is_held(&self, origin: Origin) -> bool {
        match origin {
            Origin::Store => self.is_store_held,
            Origin::Ask(_) => self.are_questions_held,
            Origin::Link(_) | Origin::Child(_) | Origin::Leg(_) => false,
        }
    }

    pub(super) fn owe(&mut self, origin: Origin, due: Due) {
        self.dues_ever += 1;
        self.due.entry(origin).or_default().push_back((self.dues_ever, due));
    }

    fn tell(&mut self, due: Due) {
        match due {
            Due::Flushed(conn, 0) => self.read(conn),
            Due::Flushed(conn, bytes) => self.input(Input::Flushed { conn, bytes }),
            Due::Closed(conn) => self.input(Input::Closed { conn }),
            Due::Done(op, changes, sync) => {
                let result = self.store.apply(&changes, sync);
                if result.is_ok() {
                    let verdict = self.invariants.on_stored(&changes, &self.store);
                    self.judge(verdict);
                }
                self.input(Input::Stored { op, result });
            }
            Due::Look(ask, question) => {
                let answer = self.look(&question);
                self.input(Input::Answered { ask, answer });
            }
            Due::Spawned(proc) => {
                let pid = u32::try_from(proc.0).unwrap_or(0) + 10_000;
                self.input(Input::Spawned { proc, result: Ok(pid) });
            }
            Due::Fed(proc, bytes) => self.input(Input::Fed { proc, bytes }),
            Due::Output(proc, stream, bytes) => {
                self.input(Input::Output { proc, stream, bytes: &bytes });
            }
            Due::Exited(proc, code) => self.input(Input::Exited { proc, code }),
            Due::Dialed(leg, result) => self.input(Input::Dialed { leg, result }),
            Due::HungUp(leg) => self.input(Input::HungUp { leg }),
        }
    }

    fn look(&self, question: &Question) -> Answer {
        match question {
            Question::Directory { path } => Answer::Directory(self.machine.directory(path)),
            Question::Sign { message } => Answer::Signature(signature(message)),
            Question::Addresses => Answer::Addresses(self.machine.addresses.clone()),
            Question::Probe { runs, .. } => Answer::Probe(self.machine.probe(runs)),
            Question::Messages { .. }
            | Question::MessageByClientId { .. }
            | Question::ToolCalls { .. }
            | Question::ToolCall { .. }
            | Question::Approval { .. }
            | Question::Audit { .. }
            | Question::Events { .. } => {
                self.store.answer(question).unwrap_or(Answer::Failed(StoreFault::Full))
            }
        }
    }
}
