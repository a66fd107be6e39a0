//! What a peer hears of the durable events: all of them, once, in order, from where it asked to go on.
//!
//! Owns a log of everything durable, made from what the disk was told and forgetting nothing that the daemon prunes;
//! refuses to know how the daemon keeps track. It holds for every connection, and the next connection goes on where one
//! ended; so it holds for what a client hears over all of its connections.

use std::collections::{BTreeMap, BTreeSet};

use clawd_protocol::record::{EventRecord, Role};
use clawd_protocol::{Change, ConnId};
use serde_json::Value;

use super::{Invariants, Peer, Verdict, ensure};
use crate::store::Store;

/// Every durable event that stands to this day, by its number.
pub(super) type Log = BTreeMap<u64, EventRecord>;

/// From where a request wants to go on.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    after: u64,
    journal: Option<String>,
}

impl Wish {
    pub(super) fn of(params: &Value) -> Option<Self> {
        let journal = params["journal"].as_str().map(str::to_owned);
        params["after"].as_u64().map(|after| Self { after, journal })
    }
}

impl Invariants {
    /// Numbers rise from one operation to the next: what is told in that order is told by rising numbers.
    pub(super) fn log_stored(&mut self, changes: &[Change]) -> Verdict {
        for change in changes {
            if let Change::PutEvent(event) = change {
                let last = self.log.keys().next_back().copied().unwrap_or(0);
                ensure(event.seq > last, || format!("event {} is stored after {last}", event.seq))?;
                on_tool_call(&mut self.announced, event)?;
                self.log.insert(event.seq, event.clone());
            } else if let Change::DeleteSession(id) = change {
                self.log.retain(|_, event| event.session != Some(*id));
            }
        }
        Ok(())
    }

    /// What the disk has is what was; events that a loss of power took were never there.
    pub(super) fn log_restored(&mut self, store: &Store) {
        self.log.retain(|seq, _| *seq <= store.db.forgotten);
        self.log.extend(store.db.events.iter().map(|event| (event.seq, event.clone())));
        let calls = self.log.values().filter_map(created_call);
        self.announced = calls.collect();
    }

    /// An event is sent: it is the next one, or says no more than was sent already.
    pub(super) fn hear(&mut self, conn: ConnId, event: &Value, store: &Store) -> Verdict {
        let params = &event["params"];
        let seq = params["seq"].as_u64().ok_or_else(|| format!("no seq: {event}"))?;
        let log = std::mem::take(&mut self.log);
        let verdict = self.peer(conn).and_then(|peer| match event["method"].as_str() {
            Some("events.gap") => on_gap(peer, params, &log),
            Some("events.reset") => on_reset(peer, params, &log, store),
            _ => on_event(peer, seq, &log),
        });
        self.log = log;
        verdict.map_err(|violation| format!("{violation}: {event}"))
    }

    /// The number of the durable event that is sent like this.
    pub(crate) fn number_of(&self, text: &str) -> Option<u64> {
        let params: Value = serde_json::from_str(text).ok()?;
        let seq = params["params"]["seq"].as_u64()?;
        self.log.get(&seq).filter(|event| event.text == text).map(|event| event.seq)
    }

    /// All that was told after `from` was heard, in order; what was heard and is no more was about sessions that are no
    /// more, or went with the power.
    pub(crate) fn compare(&self, from: u64, heard: &[(u64, String)]) -> Verdict {
        let is_in_order = heard.is_sorted_by(|(a, _), (b, _)| a < b);
        ensure(is_in_order, || format!("heard out of order: {heard:?}"))?;
        let heard: BTreeMap<_, _> = heard.iter().map(|(seq, text)| (*seq, text)).collect();
        for (seq, event) in self.log.range(from + 1..) {
            ensure(heard.get(seq) == Some(&&event.text), || format!("never heard {event:?}"))?;
        }
        Ok(())
    }

    /// When nothing is under way and nobody is stalled, everybody has heard everything.
    pub(super) fn check_heard(&self) -> Verdict {
        let last = self.log.keys().next_back().copied().unwrap_or(0);
        for (conn, peer) in self.peers.iter().filter(|(_, peer)| !peer.is_over) {
            if let Some(heard) = peer.heard.filter(|_| peer.identity.is_some()) {
                ensure(heard >= last, || format!("{conn:?} heard up to {heard} of {last}"))?;
            }
        }
        Ok(())
    }
}

/// A tool call is announced once, and before anything else is told of it.
fn on_tool_call(announced: &mut BTreeSet<String>, event: &EventRecord) -> Verdict {
    if let Some(call) = created_call(event) {
        let is_first = announced.insert(call);
        return ensure(is_first, || format!("announced twice: {event:?}"));
    }
    match named(event, "session.toolCallUpdated") {
        Some(params) => {
            let is_known = params["toolCallId"].as_str().is_some_and(|id| announced.contains(id));
            ensure(is_known, || format!("a tool call that was never announced: {event:?}"))
        }
        None => Ok(()),
    }
}

/// The tool call that this event announces.
fn created_call(event: &EventRecord) -> Option<String> {
    let params = named(event, "session.toolCallCreated")?;
    params["toolCall"]["id"].as_str().map(str::to_owned)
}

/// What the event says, if it is this one.
fn named(event: &EventRecord, method: &str) -> Option<Value> {
    // Most are not: only those that may be are read.
    if !event.text.contains(method) {
        return None;
    }
    let mut value: Value = serde_json::from_str(&event.text).ok()?;
    (value["method"] == method).then(|| value["params"].take())
}

/// A request to go on from somewhere was granted, or it was not and a reset follows.
pub(super) fn on_granted(peer: &mut Peer, wish: Wish, result: &Value) -> Verdict {
    match result["replayed"].as_bool() {
        Some(true) => peer.heard = Some(wish.after),
        Some(false) => {}
        None => return Err(format!("{wish:?} has no answer in {result}")),
    }
    peer.wish = Some(wish);
    Ok(())
}

fn on_event(peer: &mut Peer, seq: u64, log: &Log) -> Verdict {
    let Some(heard) = peer.heard.replace(seq) else { return Ok(()) };
    ensure(seq >= heard, || format!("went back from {heard}"))?;
    nothing_between(heard, seq, log)
}

fn on_gap(peer: &mut Peer, params: &Value, log: &Log) -> Verdict {
    let (from, to) = (number(params, "from"), number(params, "to"));
    ensure(from < to, || "a gap of nothing".to_owned())?;
    if let Some(heard) = peer.heard.replace(to) {
        ensure(heard <= from, || format!("a gap in what was heard, up to {heard}"))?;
        nothing_between(heard, from + 1, log)?;
    }
    Ok(())
}

fn on_reset(peer: &mut Peer, params: &Value, log: &Log, store: &Store) -> Verdict {
    let cursor = number(params, "cursor");
    let last = log.keys().next_back().copied().unwrap_or(0);
    ensure(cursor >= last, || format!("reset to before {last}"))?;
    let heard = peer.heard.replace(cursor).unwrap_or(0);
    let is_right = match (params["reason"].as_str(), &peer.wish) {
        (Some("forgotten"), _) => heard < store.db.forgotten,
        (Some("unknown"), Some(wish)) => !is_known(wish, cursor, store),
        (Some("storage_failed"), _) => true,
        _ => false,
    };
    ensure(is_right, || format!("no reason to reset {heard}"))
}

/// Whether what was told under this number in that life of the daemon stands to this day.
fn is_known(wish: &Wish, cursor: u64, store: &Store) -> bool {
    let Some(journal) = &wish.journal else { return wish.after <= cursor };
    let chapters = &store.db.chapters;
    chapters.iter().position(|chapter| chapter.id == *journal).is_some_and(|at| {
        let end = chapters.get(at + 1).map_or(cursor, |next| next.start);
        wish.after <= end
    })
}

fn nothing_between(heard: u64, seq: u64, log: &Log) -> Verdict {
    let between = log.range(heard + 1..seq.max(heard + 1));
    // What is not for everybody is the stories' to judge.
    let missed = between.into_iter().find(|(_, event)| event.least_role == Role::Read);
    ensure(missed.is_none(), || format!("heard {heard}, not {missed:?}, then {seq}"))
}

fn number(params: &Value, key: &str) -> u64 {
    params[key].as_u64().unwrap_or(0)
}
