//! The connections: who each one is, what it still waits for, how much is queued for it.
//!
//! Owns the table of peers, every answer on its way out, and back-pressure (security C5, C6); refuses to know tokens and
//! sessions, and leaves events to `hearing`. Invariants: an accepted request gets one answer or its connection closes; a peer that is
//! closing is sent nothing more.
//!
//! | phase | may go to | on |
//! |---|---|---|
//! | `Head` | `Stranger`, `Known`, `Closing` | request head |
//! | `Stranger` | `Known`, `Waiting`, `Closing` | first messages, deadline |
//! | `Waiting` | `Known`, `Closing` | storage, penalty |
//! | `Known` | `Closing` | revocation, lag, violation, shutdown |
//! | `Closing` | – | until the runtime says that it is gone |

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use serde::Serialize;

use super::hearing::{Hearing, PageOf};
use crate::contract::effect::{Effect, Effects};
use crate::contract::fingerprint::Fingerprint;
use crate::contract::id::{AskId, ConnId, DeviceId};
use crate::contract::input::Source;
use crate::contract::limits::Limits;
use crate::contract::record::Role;
use crate::contract::time::Instant;
use crate::engine::pending::Pending;
use crate::wire::rpc::{self, RpcError, RpcId};

/// Who somebody is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Owner,
    Device(DeviceId),
}

/// A caller: who it is and what it may do. Only our own records say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) who: Who,
    pub(crate) role: Role,
}

impl Caller {
    /// As decisions and logs name it.
    pub(crate) fn name(&self) -> String {
        match self.who {
            Who::Owner => String::from("owner"),
            Who::Device(id) => String::from(id.as_str()),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No request head yet.
    Head,
    /// Speaks WebSocket, and has shown nothing.
    Stranger,
    /// A stranger whose answer is on its way: nothing more is heard from it until then.
    Waiting,
    /// Authenticated.
    Known(Caller),
    /// On its way out.
    Closing,
}

/// A request that was accepted and has no answer yet. Not `Clone`: it is answered once.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) conn: ConnId,
    /// `None` for a notification, which is never answered.
    id: Option<RpcId>,
    batch: Option<u64>,
    /// The role without which it is not gone on with.
    needs: Role,
}

impl Call {
    /// Whoever asked must still have this role when the world has answered.
    pub(crate) const fn needing(mut self, role: Role) -> Self {
        self.needs = role;
        self
    }

    pub(crate) const fn needs(&self) -> Role {
        self.needs
    }

    /// A refusal of this call, for those who send it themselves.
    pub(crate) fn refusal_text(&self, error: &RpcError) -> Option<String> {
        self.id.as_ref().map(|id| rpc::error(Some(id), error))
    }
}

#[derive(Debug)]
struct Batch {
    open: usize,
    answers: Vec<String>,
}

/// What TLS says of a peer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Secured {
    /// Its own key, if it has shown one and proved that it has it.
    pub(crate) key: Option<Fingerprint>,
    /// The address of ours that it connected to.
    pub(crate) local: Option<IpAddr>,
}

#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) source: Source,
    pub(crate) opened: Instant,
    pub(crate) phase: Phase,
    /// It speaks TLS to our own key.
    pub(crate) secured: Option<Secured>,
    /// It came with a proxy's headers: not local, whatever its address (security B5).
    pub(crate) is_proxied: bool,
    /// Messages that it sent as a stranger.
    pub(crate) strange_messages: u8,
    pub(super) queued_bytes: usize,
    pub(super) hearing: Hearing,
    /// It wants what is new of a streaming text, rather than all of it each time.
    pub(crate) wants_deltas: bool,
    /// A page of the journal was asked for; there is one at a time.
    pub(super) has_page_coming: bool,
    in_flight: Vec<(Option<RpcId>, Option<u64>)>,
    batches: BTreeMap<u64, Batch>,
    /// Costly calls: when the last of its burst will have been paid back.
    costly_until: Instant,
}

impl Peer {
    pub(crate) fn caller(&self) -> Option<Caller> {
        match self.phase {
            Phase::Known(caller) => Some(caller),
            Phase::Head | Phase::Stranger | Phase::Waiting | Phase::Closing => None,
        }
    }

    /// How it came, in a word.
    pub(crate) fn via(&self) -> &'static str {
        match self.source {
            Source::Unix => "unix",
            Source::Tcp(_) if self.is_proxied => "proxy",
            Source::Tcp(_) if self.is_from_here() => "loopback",
            Source::Tcp(_) => "lan",
            Source::Relay(_) => "relay",
        }
    }

    fn is_from_here(&self) -> bool {
        match self.source {
            Source::Unix => true,
            Source::Tcp(address) => address.to_canonical().is_loopback(),
            Source::Relay(_) => false,
        }
    }

    /// On this machine, as this user, with nobody in between (security B5, F2). Who speaks TLS may be anywhere: a forwarded
    /// port looks like this machine.
    pub(crate) fn is_local(&self) -> bool {
        self.is_from_here() && !self.is_proxied && self.secured.is_none()
    }

    /// Nobody on the way can read what is said, because there is no way or because it is TLS (security F1, G2).
    pub(crate) fn is_secret(&self) -> bool {
        self.secured.is_some() || self.is_from_here()
    }

    /// The key that it proved to have.
    pub(crate) fn key(&self) -> Option<Fingerprint> {
        self.secured.and_then(|secured| secured.key)
    }
}

/// RFC 6455, section 7.4.1, and the IANA registry.
pub(crate) mod close {
    pub(crate) const GOING_AWAY: u16 = 1001;
    pub(crate) const PROTOCOL: u16 = 1002;
    pub(crate) const UNSUPPORTED: u16 = 1003;
    pub(crate) const INVALID_TEXT: u16 = 1007;
    pub(crate) const POLICY: u16 = 1008;
    pub(crate) const TOO_LARGE: u16 = 1009;
    pub(crate) const TRY_AGAIN_LATER: u16 = 1013;
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Peers {
    pub(super) table: BTreeMap<ConnId, Peer>,
    /// Pages of the journal that were asked for.
    pub(super) pages: Pending<AskId, PageOf>,
    /// Who has just gone live: what streams is shown to them.
    pub(super) caught_up: Vec<ConnId>,
    /// Devices that have just been revoked, or may do less than before: what they allowed is looked at again.
    distrusted: Vec<DeviceId>,
    next_batch: u64,
    /// Whose message is being handled.
    speaker: Option<ConnId>,
    queue_bytes_max: usize,
}

impl Peers {
    pub(crate) const fn new(queue_bytes_max: usize) -> Self {
        Self {
            table: BTreeMap::new(),
            pages: Pending::new(),
            caught_up: Vec::new(),
            distrusted: Vec::new(),
            next_batch: 0,
            speaker: None,
            queue_bytes_max,
        }
    }

    pub(crate) fn open(&mut self, conn: ConnId, source: Source, now: Instant) {
        let peer = Peer {
            source,
            opened: now,
            phase: Phase::Head,
            secured: None,
            is_proxied: false,
            strange_messages: 0,
            queued_bytes: 0,
            hearing: Hearing::Live,
            wants_deltas: false,
            has_page_coming: false,
            in_flight: Vec::new(),
            batches: BTreeMap::new(),
            costly_until: Instant::ZERO,
        };
        self.table.insert(conn, peer);
    }

    pub(crate) fn remove(&mut self, conn: ConnId) -> Option<Peer> {
        self.table.remove(&conn)
    }

    pub(crate) fn peer(&self, conn: ConnId) -> Option<&Peer> {
        self.table.get(&conn)
    }

    pub(crate) fn peer_mut(&mut self, conn: ConnId) -> Option<&mut Peer> {
        self.table.get_mut(&conn)
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn caller(&self, conn: ConnId) -> Option<Caller> {
        self.peer(conn).and_then(Peer::caller)
    }

    /// Authenticated connections.
    pub(crate) fn known(&self) -> impl Iterator<Item = (ConnId, Caller)> {
        self.table.iter().filter_map(|(conn, peer)| Some((*conn, peer.caller()?)))
    }

    /// From now on this one's message is handled; or nobody's.
    pub(crate) const fn listen_to(&mut self, conn: Option<ConnId>) {
        self.speaker = conn;
    }

    /// How the one came whose message is handled, if it is known by this name.
    pub(crate) fn via_of_speaker(&self, name: &str) -> Option<&'static str> {
        let peer = self.peer(self.speaker?)?;
        (peer.caller()?.name() == name).then(|| peer.via())
    }

    // --- requests -----------------------------------------------------------------------------------------------

    /// Accepts a request, or answers that there are too many (security C6).
    pub(crate) fn accept(
        &mut self,
        conn: ConnId,
        id: Option<RpcId>,
        batch: Option<u64>,
        limits: &Limits,
        fx: &mut Effects,
    ) -> Option<Call> {
        let peer = self.table.get_mut(&conn)?;
        let is_full = peer.in_flight.len() >= limits.in_flight_max;
        peer.in_flight.push((id.clone(), batch));
        let call = Call { conn, id, batch, needs: Role::Read };
        if is_full {
            let error = RpcError::new(-32029, "rate_limited", "too many requests are waiting")
                .hint("wait for answers before you send more")
                .retry_after(core::time::Duration::from_millis(100));
            self.refuse(call, &error, fx);
            return None;
        }
        Some(call)
    }

    /// Counts a costly call; says how long to wait if the burst is used up. A leaky bucket in one number.
    pub(crate) fn pay(
        &mut self,
        conn: ConnId,
        now: Instant,
        limits: &Limits,
    ) -> Result<(), core::time::Duration> {
        let Some(peer) = self.table.get_mut(&conn) else { return Ok(()) };
        let paid = peer.costly_until.max(now) + limits.costly_every;
        let depth = limits.costly_every.saturating_mul(limits.costly_burst);
        match paid.since(now).checked_sub(depth) {
            Some(over) if !over.is_zero() => Err(over),
            _ => {
                peer.costly_until = paid;
                Ok(())
            }
        }
    }

    /// Opens a batch of that many requests; its answers leave together.
    pub(crate) fn batch(&mut self, conn: ConnId, open: usize) -> u64 {
        self.next_batch = self.next_batch.saturating_add(1);
        if let Some(peer) = self.table.get_mut(&conn) {
            peer.batches.insert(self.next_batch, Batch { open, answers: Vec::new() });
        }
        self.next_batch
    }

    // --- answers ------------------------------------------------------------------------------------------------

    pub(crate) fn answer(&mut self, call: Call, result: &impl Serialize, fx: &mut Effects) {
        let text = call.id.as_ref().map(|id| rpc::result(id, result));
        self.settle(call, text, fx);
    }

    pub(crate) fn refuse(&mut self, call: Call, error: &RpcError, fx: &mut Effects) {
        let text = call.id.as_ref().map(|id| rpc::error(Some(id), error));
        self.settle(call, text, fx);
    }

    pub(crate) fn reply<R: Serialize>(
        &mut self,
        call: Call,
        result: Result<R, RpcError>,
        fx: &mut Effects,
    ) {
        match result {
            Ok(result) => self.answer(call, &result, fx),
            Err(error) => self.refuse(call, &error, fx),
        }
    }

    fn settle(&mut self, call: Call, text: Option<String>, fx: &mut Effects) {
        let Call { conn, id, batch, .. } = call;
        let Some(peer) = self.table.get_mut(&conn) else { return };
        let entry = (id, batch);
        // Not among them: it was refused when its caller lost its rights.
        let Some(at) = peer.in_flight.iter().position(|open| *open == entry) else { return };
        peer.in_flight.swap_remove(at);
        let Some(batch) = batch else {
            if let Some(text) = text {
                self.send(conn, text, fx);
            }
            return;
        };
        self.settle_in_batch(conn, batch, text, fx);
    }

    /// Adds an answer to its batch; the last one sends the batch.
    pub(crate) fn settle_in_batch(
        &mut self,
        conn: ConnId,
        batch: u64,
        text: Option<String>,
        fx: &mut Effects,
    ) {
        let Some(peer) = self.table.get_mut(&conn) else { return };
        let Some(open) = peer.batches.get_mut(&batch) else { return };
        open.answers.extend(text);
        open.open = open.open.saturating_sub(1);
        if open.open > 0 {
            return;
        }
        // A batch of notifications only is not answered at all.
        let done = peer.batches.remove(&batch).filter(|done| !done.answers.is_empty());
        if let Some(done) = done {
            let mut text = String::from("[");
            text.push_str(&done.answers.join(","));
            text.push(']');
            self.send(conn, text, fx);
        }
    }

    /// Sends one text to one peer, whatever its phase, unless it is closing. One who asks and asks and reads no answer
    /// is closed (security C5).
    pub(crate) fn send(&mut self, conn: ConnId, text: String, fx: &mut Effects) {
        let queue_bytes_max = self.queue_bytes_max;
        let Some(peer) = self.table.get_mut(&conn) else { return };
        if peer.phase == Phase::Closing {
            return;
        }
        let queued = peer.queued_bytes.saturating_add(text.len());
        // One message larger than the bound may pass an empty queue, or it could never be told.
        if queued > queue_bytes_max && peer.queued_bytes > 0 {
            return self.close(conn, close::TRY_AGAIN_LATER, "lagging", fx);
        }
        peer.queued_bytes = queued;
        fx.send(conn, text);
    }

    // --- the end ------------------------------------------------------------------------------------------------

    pub(crate) fn close(
        &mut self,
        conn: ConnId,
        code: u16,
        reason: &'static str,
        fx: &mut Effects,
    ) {
        let Some(peer) = self.table.get_mut(&conn) else { return };
        if peer.phase == Phase::Closing {
            return;
        }
        peer.phase = Phase::Closing;
        peer.batches.clear();
        peer.in_flight.clear();
        fx.push(Effect::Close { conn, code, reason });
    }

    /// Ends an authenticated connection that is no longer welcome: what it waits for is refused first (wire.md §3).
    pub(crate) fn kick(&mut self, conn: ConnId, fx: &mut Effects) {
        let Some(peer) = self.table.get_mut(&conn) else { return };
        let mut open: Vec<_> = peer.in_flight.drain(..).filter_map(|(id, _)| id).collect();
        open.dedup();
        for id in open {
            self.send(conn, rpc::error(Some(&id), &RpcError::unauthorized()), fx);
        }
        self.close(conn, close::POLICY, "unauthorized", fx);
    }

    /// Refuses what a peer waits for beside this: it is no longer welcome, and only this answer is still owed to it.
    pub(crate) fn refuse_all_but(&mut self, call: &Call, fx: &mut Effects) {
        let Some(peer) = self.table.get_mut(&call.conn) else { return };
        let kept = (call.id.clone(), call.batch);
        let (kept, open): (Vec<_>, Vec<_>) =
            peer.in_flight.drain(..).partition(|open| *open == kept);
        peer.in_flight = kept;
        for (id, _) in open {
            if let Some(id) = id {
                self.send(call.conn, rpc::error(Some(&id), &RpcError::unauthorized()), fx);
            }
        }
    }

    /// Kicks everybody for whom `is_out` holds.
    pub(crate) fn kick_all(&mut self, is_out: impl Fn(Who) -> bool, fx: &mut Effects) {
        let out: Vec<_> =
            self.known().filter(|(_, caller)| is_out(caller.who)).map(|(conn, _)| conn).collect();
        for conn in out {
            self.kick(conn, fx);
        }
    }

    pub(crate) fn close_all(&mut self, code: u16, reason: &'static str, fx: &mut Effects) {
        let all: Vec<_> = self.table.keys().copied().collect();
        for conn in all {
            self.close(conn, code, reason, fx);
        }
    }

    /// Closes whatever came through a relay.
    pub(crate) fn close_through_relay(
        &mut self,
        code: u16,
        reason: &'static str,
        fx: &mut Effects,
    ) {
        let is_it = |peer: &Peer| matches!(peer.source, Source::Relay(_));
        let all: Vec<_> =
            self.table.iter().filter(|(_, it)| is_it(it)).map(|(conn, _)| *conn).collect();
        for conn in all {
            self.close(conn, code, reason, fx);
        }
    }

    /// Connections that came through a relay and are not on their way out.
    pub(crate) fn through_relay(&self) -> usize {
        let is_it =
            |peer: &&Peer| matches!(peer.source, Source::Relay(_)) && peer.phase != Phase::Closing;
        self.table.values().filter(is_it).count()
    }

    /// This device was revoked, or may do less than before.
    pub(crate) fn distrust(&mut self, device: DeviceId) {
        self.distrusted.push(device);
    }

    /// Takes the devices that were distrusted since the last time.
    pub(crate) fn take_distrusted(&mut self) -> Vec<DeviceId> {
        core::mem::take(&mut self.distrusted)
    }

    /// Gives everybody of this device its new role.
    pub(crate) fn set_role(&mut self, device: DeviceId, role: Role) {
        for peer in self.table.values_mut() {
            if let Phase::Known(caller) = &mut peer.phase
                && caller.who == Who::Device(device)
            {
                caller.role = role;
            }
        }
    }

    /// Whether whoever called is still let in, and may still do it.
    pub(crate) fn is_welcome(&self, call: &Call) -> bool {
        self.caller(call.conn).is_some_and(|caller| caller.role >= call.needs)
    }

    pub(crate) fn is_connected(&self, device: DeviceId) -> bool {
        self.known().any(|(_, caller)| caller.who == Who::Device(device))
    }
}
