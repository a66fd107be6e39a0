//! One agent process: who sits in it, what it was given and has taken, what it has half said.
//!
//! Owns the counters and buffers of a process; refuses to know the sessions in its seats, and when it is started or ended.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use serde_json::value::RawValue;

use crate::access::peers::Call;
use crate::agent::lines::Lines;
use crate::agent::{AnyDialect, Lane, Opening, Provider, Say};
use crate::contract::id::SessionId;
use crate::contract::limits::Limits;
use crate::contract::record::Usage;

/// The last of what an agent wrote to standard error, for the report when it dies.
const COMPLAINT_BYTES_MAX: usize = 2048;

/// A process.
#[derive(Debug)]
pub(in crate::work) struct Agent {
    pub(in crate::work) provider: Provider,
    /// Whose conversations it carries.
    pub(in crate::work) seats: BTreeMap<Lane, Seat>,
    lanes_ever: u32,
    /// Away while it listens.
    pub(super) dialect: Option<AnyDialect>,
    /// To be said when it has listened.
    pub(super) unsaid: Vec<Say>,
    pub(super) lines: Lines,
    complaint: Vec<u8>,
    /// It was told to end: nothing more is given to it.
    pub(in crate::work) is_ending: bool,
    /// Lines in this turn that were not in its language.
    pub(in crate::work) garbage: u32,
    fed: u64,
    taken: u64,
    /// Calls that are answered once the process has taken so many bytes.
    deliveries: VecDeque<(u64, Call, Box<RawValue>)>,
}

/// A session's place in a process.
#[derive(Debug)]
pub(in crate::work) struct Seat {
    pub(in crate::work) session: SessionId,
    /// What the session had used when it took the seat.
    usage_before: Usage,
    /// Whether the process counts from zero; known with its first count.
    counts_anew: Option<bool>,
}

impl Seat {
    /// The session's use so far, from what this process has counted. Some versions of claude go on counting when they
    /// resume a conversation, others begin at zero; never is anything summed twice.
    pub(in crate::work) fn usage(&mut self, counted: Usage) -> Usage {
        let before = self.usage_before;
        let is_less = counted.input_tokens < before.input_tokens
            || counted.output_tokens < before.output_tokens;
        if !*self.counts_anew.get_or_insert(is_less) {
            return counted;
        }
        let sum = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (None, None) => None,
            (a, b) => Some(a.unwrap_or(0).saturating_add(b.unwrap_or(0))),
        };
        Usage {
            input_tokens: before.input_tokens.saturating_add(counted.input_tokens),
            output_tokens: before.output_tokens.saturating_add(counted.output_tokens),
            cost_micro_usd: sum(before.cost_micro_usd, counted.cost_micro_usd),
        }
    }
}

impl Agent {
    pub(super) fn new(provider: Provider, limits: &Limits) -> Self {
        Self {
            provider,
            seats: BTreeMap::new(),
            lanes_ever: 0,
            dialect: Some(provider.dialect(limits)),
            unsaid: Vec::new(),
            lines: Lines::new(limits.agent_line_bytes_max),
            complaint: Vec::new(),
            is_ending: false,
            garbage: 0,
            fed: 0,
            taken: 0,
            deliveries: VecDeque::new(),
        }
    }

    /// Gives a session a seat.
    pub(super) fn seat(&mut self, session: SessionId, usage_before: Usage) -> Lane {
        let lane = Lane(self.lanes_ever);
        self.lanes_ever = self.lanes_ever.saturating_add(1);
        self.seats.insert(lane, Seat { session, usage_before, counts_anew: None });
        lane
    }

    pub(super) fn sessions(&self) -> Vec<SessionId> {
        self.seats.values().map(|seat| seat.session).collect()
    }

    // --- what is said to it -------------------------------------------------------------------------------------

    pub(super) fn hello(&mut self) -> Vec<u8> {
        self.dialect.as_mut().map(|dialect| dialect.hello()).unwrap_or_default()
    }

    pub(super) fn open(&mut self, lane: Lane, opening: &Opening<'_>) -> Vec<u8> {
        self.dialect.as_mut().map(|dialect| dialect.open(lane, opening)).unwrap_or_default()
    }

    /// The bytes of it; `None` if it follows later.
    pub(super) fn say(&mut self, say: Say) -> Option<Vec<u8>> {
        match &mut self.dialect {
            Some(dialect) => Some(dialect.say(say)),
            None => {
                self.unsaid.push(say);
                None
            }
        }
    }

    /// Counts what it is given; says how much of all that it has not taken.
    pub(super) fn on_fed(&mut self, bytes: usize) -> usize {
        self.fed = self.fed.saturating_add(wide(bytes));
        usize::try_from(self.fed.saturating_sub(self.taken)).unwrap_or(usize::MAX)
    }

    /// This call is answered once everything given so far was taken.
    pub(super) fn deliver(&mut self, call: Call, result: Box<RawValue>) {
        self.deliveries.push_back((self.fed, call, result));
    }

    /// It has taken so much more: these calls are answered.
    pub(super) fn on_taken(&mut self, bytes: usize) -> Vec<(Call, Box<RawValue>)> {
        self.taken = self.taken.saturating_add(wide(bytes));
        let mut due = Vec::new();
        while let Some((_, call, result)) =
            self.deliveries.pop_front_if(|(at, _, _)| *at <= self.taken)
        {
            due.push((call, result));
        }
        due
    }

    /// It is gone: these calls will never be.
    pub(super) fn undelivered(&mut self) -> impl Iterator<Item = Call> {
        self.deliveries.drain(..).map(|(_, call, _)| call)
    }

    // --- what it complains of -----------------------------------------------------------------------------------

    pub(super) fn complain(&mut self, bytes: &[u8]) {
        self.complaint.extend_from_slice(bytes);
        let excess = self.complaint.len().saturating_sub(COMPLAINT_BYTES_MAX);
        self.complaint.drain(..excess);
    }

    pub(super) fn complaint(&self) -> String {
        String::from_utf8_lossy(&self.complaint).into_owned()
    }
}

fn wide(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
