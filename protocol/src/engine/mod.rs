//! What every machine here needs: deadlines, chance, and names for operations in flight.
//!
//! Owns the clock of the present input, the generator, all timers, event numbers and the counters behind ids; refuses to
//! know what any of them is for.

pub(crate) mod entropy;
pub(crate) mod pending;
pub(crate) mod quota;
pub(crate) mod timers;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::contract::config::Config;
use crate::contract::effect::{Change, Effect, Effects, Question, Sync};
use crate::contract::id::{AskId, ConnId, OpId, ProcId, SessionId, ToolCallId};
use crate::contract::time::{Now, Unix};
use crate::wire::event::{Event, Notice};
use entropy::Entropy;
use quota::Quota;
use timers::Timers;

/// What can fall due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// A stranger has not finished its request head or `daemon.auth`.
    Stranger(ConnId),
    /// The answer to a failure may go out.
    Penalty(ConnId),
    /// A message has begun and not ended.
    Message(ConnId),
    /// Connected devices are looked at for expiry.
    Expiry,
    /// The pairing window closes.
    Pairing,
    /// The local token before the last rotation ends.
    OldToken,
    /// Streaming text may be sent again.
    Stream(SessionId),
    /// A tool call is announced as running, since no ask came.
    Announce(SessionId, ToolCallId),
    /// Nobody has decided.
    Approval(SessionId, ToolCallId),
    /// The agent has not obeyed an interrupt.
    Interrupt(SessionId),
    /// The agent has had no turn for long.
    AgentIdle(SessionId),
    /// The agent has not ended after its input did.
    AgentExit(ProcId),
    /// The world has not answered a question.
    Ask(AskId),
    /// The minute is over for which failures of strangers were counted.
    Witness,
    /// The daemon has waited long enough for its agents.
    Shutdown,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) config: Config,
    pub(crate) now: Now,
    pub(crate) entropy: Entropy,
    pub(crate) timers: Timers<Timer>,
    pub(crate) port: u16,
    pub(crate) started: Now,
    /// The result of a plain `daemon.ping`, which is asked for far more often than anything else.
    pub(crate) pong_body: String,
    /// Lines in the log about strangers.
    pub(crate) refusals_noted: Quota,
    /// Lines in the log about the store.
    pub(crate) store_faults_noted: Quota,
    unix_high: Unix,
    /// The last number given to an event.
    seq: u64,
    /// The last number that was told: those after it wait for the disk.
    cursor: u64,
    last_id: u64,
}

impl Engine {
    pub(crate) fn new(config: Config, seed: [u8; 32], seq: u64, unix_high: Unix) -> Self {
        let version = serde_json::to_string(&config.version).unwrap_or_default();
        Self {
            pong_body: format!("{{\"pong\":true,\"version\":{version}}}"),
            config,
            now: Now::default(),
            entropy: Entropy::new(seed),
            timers: Timers::new(),
            port: 0,
            started: Now::default(),
            refusals_noted: Quota::default(),
            store_faults_noted: Quota::default(),
            unix_high,
            seq,
            cursor: seq,
            last_id: 0,
        }
    }

    /// Takes the time of an input. The wall clock's high water only rises: a clock set back revives nothing (E3).
    pub(crate) fn advance(&mut self, now: Now) {
        self.now = Now { mono: self.now.mono.max(now.mono), unix: now.unix };
        self.unix_high = self.unix_high.max(now.unix);
    }

    /// The latest wall-clock time ever seen: what expiry is judged by.
    pub(crate) const fn unix_high(&self) -> Unix {
        self.unix_high
    }

    /// The number of the last event that was told: everything up to it is durable.
    pub(crate) const fn cursor(&self) -> u64 {
        self.cursor
    }

    /// An event is being told.
    pub(crate) fn on_told(&mut self, notice: &Notice) {
        self.cursor = self.cursor.max(notice.seq);
    }

    /// Serialises an event under the next number. It may be sent once the number is stored.
    pub(crate) fn number(&mut self, event: &Event<'_>) -> Notice {
        self.seq = self.seq.saturating_add(1);
        Notice { seq: self.seq, least_role: event.least_role(), text: event.text(self.seq) }
    }

    /// Serialises an event that is not kept: it carries the number of the last one that was told.
    pub(crate) fn passing(&self, event: &Event<'_>) -> Notice {
        Notice { seq: self.cursor, least_role: event.least_role(), text: event.text(self.cursor) }
    }

    /// Asks for these changes, and that the event numbers used so far stay used.
    pub(crate) fn store(&mut self, mut changes: Vec<Change>, sync: Sync, fx: &mut Effects) -> OpId {
        changes.push(Change::Advance { seq: self.seq, unix: self.unix_high });
        let op = OpId(self.next_id());
        fx.push(Effect::Store { op, changes, sync });
        op
    }

    pub(crate) fn ask(&mut self, question: Question, fx: &mut Effects) -> AskId {
        let ask = AskId(self.next_id());
        fx.push(Effect::Ask { ask, question });
        ask
    }

    pub(crate) const fn proc_id(&mut self) -> ProcId {
        ProcId(self.next_id())
    }

    const fn next_id(&mut self) -> u64 {
        self.last_id = self.last_id.saturating_add(1);
        self.last_id
    }
}
