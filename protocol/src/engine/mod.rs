//! What every machine here needs: deadlines, chance, and names for operations in flight.
//!
//! Owns the clock of the present input, the generator, all timers, event numbers and the counters behind ids; refuses to
//! know what any of them is for. Invariant: an [`Entry`] is in the journal by the time its operation is stored. Only
//! entries are told, and only [`Engine::store`] makes them, so nothing durable is told that cannot be told again.

pub(crate) mod entropy;
pub(crate) mod pending;
pub(crate) mod quota;
pub(crate) mod timers;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::mem;

use crate::contract::config::Config;
use crate::contract::effect::{Change, Effect, Effects, Question, Sync};
use crate::contract::id::{AskId, ConnId, LegId, OpId, ProcId, SessionId, ToolCallId};
use crate::contract::record::{Chapter, RelaySettings};
use crate::contract::snapshot::Snapshot;
use crate::contract::time::{Now, Unix};
use crate::wire::event::{Event, Notice};
use entropy::Entropy;
use quota::Quota;
use timers::Timers;

/// 71 bits: nobody meets one twice by chance.
const CHAPTER_ID_LEN: usize = 12;

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
    /// Nobody has said whether a device may come in.
    PairingConfirm,
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
    /// Events are held back from a peer that does not read.
    Lag(ConnId),
    /// The journal may hold what is too old.
    Prune,
    /// The link to the relay: the next attempt, or something that the relay owes.
    Link,
    /// The daemon has waited long enough for its agents.
    Shutdown,
}

/// An event with its place in the journal.
#[derive(Debug)]
pub(crate) struct Entry(Notice);

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
    /// What the owner wants of a relay.
    pub(crate) relay: Option<RelaySettings>,
    /// The chapter of the journal that this life writes.
    chapter: Chapter,
    /// Those before it, each with its last number.
    former_chapters: Vec<(String, u64)>,
    unix_high: Unix,
    /// The last number given to an event.
    seq: u64,
    /// The last number that was told: those after it wait for the disk.
    cursor: u64,
    /// Events since the journal was last pruned.
    unpruned: u32,
    last_id: u64,
}

impl Engine {
    pub(crate) fn new(config: Config, seed: [u8; 32], restored: &mut Snapshot) -> Self {
        let seq = restored.seq;
        let mut entropy = Entropy::new(seed);
        let version = serde_json::to_string(&config.version).unwrap_or_default();
        Self {
            pong_body: format!("{{\"pong\":true,\"version\":{version}}}"),
            config,
            now: Now::default(),
            timers: Timers::new(),
            port: 0,
            started: Now::default(),
            refusals_noted: Quota::default(),
            store_faults_noted: Quota::default(),
            relay: restored.relay.take(),
            chapter: Chapter { id: entropy.base62(CHAPTER_ID_LEN), start: seq },
            former_chapters: ends_of(mem::take(&mut restored.chapters), seq),
            entropy,
            unix_high: restored.unix_high,
            seq,
            cursor: seq,
            unpruned: 0,
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

    /// The id of the chapter that this life writes.
    pub(crate) fn chapter(&self) -> &str {
        &self.chapter.id
    }

    /// Whether this number, told in this chapter, stands for the same event to this day. Without a chapter it is taken as
    /// one of ours.
    pub(crate) fn is_known(&self, seq: u64, chapter: Option<&str>) -> bool {
        let Some(chapter) = chapter.filter(|id| *id != self.chapter.id) else {
            return seq <= self.cursor;
        };
        self.former_chapters.iter().any(|(id, end)| id == chapter && seq <= *end)
    }

    /// What begins this life's chapter.
    pub(crate) fn begin_chapter(&self) -> Change {
        let count_max = self.config.limits.journal_chapters_max;
        Change::BeginChapter { chapter: self.chapter.clone(), count_max }
    }

    /// An event is being told.
    pub(crate) fn on_told(&mut self, entry: Entry) -> Notice {
        let Entry(notice) = entry;
        self.cursor = self.cursor.max(notice.seq);
        notice
    }

    /// Serialises an event under the next number. It may be told once it is stored.
    pub(crate) fn number(&mut self, event: &Event<'_>) -> Notice {
        self.seq = self.seq.saturating_add(1);
        Notice::new(event, self.seq)
    }

    /// Serialises an event that is not kept: it carries the number of the last one that was told.
    pub(crate) fn passing(&self, event: &Event<'_>) -> Notice {
        Notice::new(event, self.cursor)
    }

    /// Asks for these changes, for a place in the journal for what tells of them, and that the event numbers used so far
    /// stay used.
    pub(crate) fn store(
        &mut self,
        mut changes: Vec<Change>,
        notices: Vec<Notice>,
        sync: Sync,
        fx: &mut Effects,
    ) -> (OpId, Vec<Entry>) {
        let at = self.unix_high;
        changes.extend(notices.iter().map(|notice| Change::PutEvent(notice.record(at))));
        let count = u32::try_from(notices.len()).unwrap_or(u32::MAX);
        self.unpruned = self.unpruned.saturating_add(count);
        if self.unpruned >= self.config.limits.prune_after {
            changes.push(self.prune());
        }
        changes.push(Change::Advance { seq: self.seq, unix: self.unix_high });
        let op = OpId(self.next_id());
        fx.push(Effect::Store { op, changes, sync });
        (op, notices.into_iter().map(Entry).collect())
    }

    /// What makes the journal as small as it must be; it is due again after a while.
    pub(crate) fn prune(&mut self) -> Change {
        let limits = &self.config.limits;
        self.unpruned = 0;
        self.timers.arm(Timer::Prune, self.now.mono + limits.prune_every);
        Change::PruneEvents {
            before: Unix::default() + self.unix_high.since(Unix::default() + limits.journal_age),
            count_max: limits.journal_events_max,
            bytes_max: limits.journal_bytes_max,
        }
    }

    pub(crate) fn ask(&mut self, question: Question, fx: &mut Effects) -> AskId {
        let ask = AskId(self.next_id());
        fx.push(Effect::Ask { ask, question });
        ask
    }

    pub(crate) const fn proc_id(&mut self) -> ProcId {
        ProcId(self.next_id())
    }

    pub(crate) const fn leg_id(&mut self) -> LegId {
        LegId(self.next_id())
    }

    const fn next_id(&mut self) -> u64 {
        self.last_id = self.last_id.saturating_add(1);
        self.last_id
    }
}

/// Each chapter's id and last number: where the next one starts.
fn ends_of(chapters: Vec<Chapter>, seq: u64) -> Vec<(String, u64)> {
    let ends: Vec<_> = chapters.iter().skip(1).map(|next| next.start).chain([seq]).collect();
    chapters.into_iter().map(|chapter| chapter.id).zip(ends).collect()
}
