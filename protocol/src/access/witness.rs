//! What of access is written into the audit log, and how much of it (security H8).
//!
//! Owns the records of this room; refuses to know how a line looks. What somebody known does is a record in the
//! operation that does it, each time. What strangers try is bounded, or a flood of them would fill the disk: so many
//! failures of one source and of all are each written down, the others of that minute are counted, and the count is one
//! record at its end.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec;

use super::ctx::Ctx;
use super::limiter::Key;
use super::peers::{Caller, Peer};
use super::token::{Secret, TokenKind, kind_of};
use super::{Access, After};
use crate::contract::effect::{Change, Sync};
use crate::contract::id::{ConnId, DeviceId};
use crate::contract::input::Source;
use crate::contract::limits::Limits;
use crate::contract::record::{AuditKind, AuditRecord};
use crate::engine::Timer;

/// What speaks against somebody.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Doubt {
    note: &'static str,
    /// The device that the token names, whoever shows it.
    device: Option<DeviceId>,
}

impl Doubt {
    pub(super) const fn new(note: &'static str) -> Self {
        Self { note, device: None }
    }

    /// A token was shown, or none.
    pub(super) fn about(token: Option<&Secret>) -> Self {
        let Some(token) = token else { return Self::new("no token") };
        match kind_of(token.expose()) {
            None => Self::new("no token of ours"),
            Some(TokenKind::Local) => Self::new("a wrong local token, or not from this machine"),
            Some(TokenKind::Device(id)) => {
                let note = "a wrong, expired or revoked device token";
                Self { note, device: Some(id) }
            }
        }
    }
}

/// Failures of the present minute. Invariant: no more sources than failures that are written down.
#[derive(Debug)]
pub(crate) struct Witness {
    told: BTreeMap<Key, u32>,
    untold: u64,
    per_source: u32,
    total_max: u32,
}

impl Witness {
    pub(crate) const fn new(limits: &Limits) -> Self {
        Self {
            told: BTreeMap::new(),
            untold: 0,
            per_source: limits.audit_failures_per_source,
            total_max: limits.audit_failures_max,
        }
    }

    /// Counts a failure; whether it is written down.
    fn has_room_for(&mut self, key: Key) -> bool {
        let total: u32 = self.told.values().sum();
        let of_source = self.told.get(&key).copied().unwrap_or(0);
        if total >= self.total_max || of_source >= self.per_source {
            self.untold = self.untold.saturating_add(1);
            return false;
        }
        self.told.insert(key, of_source.saturating_add(1));
        true
    }

    /// The minute is over: how many were not written down.
    fn forget(&mut self) -> u64 {
        self.told.clear();
        core::mem::take(&mut self.untold)
    }
}

impl Access {
    /// A stranger failed.
    pub(super) fn doubt(&mut self, cx: &mut Ctx<'_>, conn: ConnId, doubt: Doubt) {
        let Some(peer) = cx.peers.peer(conn) else { return };
        let end = cx.engine.now.mono + cx.engine.config.limits.audit_failures_span;
        cx.engine.timers.arm_once(Timer::Witness, end);
        if self.witness.has_room_for(Key::of(peer.source)) {
            let mut record = of_stranger(cx, AuditKind::AuthFailed, conn);
            record.note = Some(String::from(doubt.note));
            record.device = doubt.device;
            self.note(cx, record, Sync::Process);
        }
    }

    pub(crate) fn on_witness_due(&mut self, cx: &mut Ctx<'_>) {
        let untold = self.witness.forget();
        if untold > 0 {
            let mut record =
                AuditRecord::new(cx.engine.now.unix, AuditKind::AuthFailed, "stranger");
            record.count = Some(untold);
            record.note = Some(String::from("more of them in a minute than are each written down"));
            self.note(cx, record, Sync::Process);
        }
    }

    /// Writes down what changes nothing.
    pub(crate) fn note(&mut self, cx: &mut Ctx<'_>, record: AuditRecord, sync: Sync) {
        let op = cx.store(vec![Change::Audit(record)], sync);
        self.pending.await_(op, After::Noted);
    }
}

/// Somebody known did this.
pub(crate) fn of_caller(
    cx: &Ctx<'_>,
    kind: AuditKind,
    caller: Caller,
    conn: ConnId,
) -> AuditRecord {
    let mut record = AuditRecord::new(cx.engine.now.unix, kind, &caller.name());
    record.via = cx.peers.peer(conn).map(|peer| String::from(peer.via()));
    record
}

/// Somebody who is nobody did this, or is nobody yet.
pub(super) fn of_stranger(cx: &Ctx<'_>, kind: AuditKind, conn: ConnId) -> AuditRecord {
    let mut record = AuditRecord::new(cx.engine.now.unix, kind, "stranger");
    record.via = cx.peers.peer(conn).map(origin);
    record
}

fn origin(peer: &Peer) -> String {
    match peer.source {
        Source::Unix | Source::Relay(None) => String::from(peer.via()),
        Source::Tcp(address) | Source::Relay(Some(address)) => {
            format!("{} {address}", peer.via())
        }
    }
}
