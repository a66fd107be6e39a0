//! Who may meet whom at a relay, as one state machine without input or output, like the [`Daemon`](crate::Daemon).
//!
//! Owns registrations, invitations, tickets, deadlines and limits; refuses to know sockets, keys and what flows. A *runtime*
//! tells the [`Rendezvous`] what happened ([`Input`]) and carries out what it wants ([`Effect`]).
//!
//! ```text
//! daemon  Requested /v1/host/ID     ─▶ Upgrade, Send challenge
//!         Text register             ─▶ Verify ─▶ Verified ─▶ Send registered
//! client  Requested /v1/connect/ID  ─▶ Upgrade; to the daemon: Send invite, with a ticket
//! daemon  Requested /v1/accept/ID/T ─▶ Upgrade; to the client: Send connected; Splice
//! ```
//!
//! # The contract
//!
//! 1. **One way in, one way out**, as with the daemon: [`Rendezvous::handle`] takes one input and pushes effects, which are
//!    carried out in order before the next input. It never blocks and never fails.
//! 2. **Sleep no longer than [`Rendezvous::poll_timeout`]**; then say [`Input::Tick`].
//! 3. **A connection** is `Opened`, then `Requested` once, then (if it was upgraded) brings `Text` or, once it is spliced,
//!    `Moved`; it is `Closed` once, also when it was closed from here. After [`Effect::Respond`] and [`Effect::Close`]
//!    nothing more of it is told but that, and what is told is ignored. Names are not used again.
//! 4. **A splice** ends with either of its legs: the other is closed once all that came before has been written to it. While
//!    more than `queue_bytes_max` waits for one leg, the other is not read.
//! 5. Each [`Effect::Verify`] is answered by one [`Input::Verified`].
//!
//! # What holds
//!
//! - Nobody registers an id but the holder of its key, just now, at this relay (security G5): the signature is over a nonce
//!   that was made for this connection, one of this relay's names, and the id, which is the key's own fingerprint.
//! - A ticket is 256 bits of chance, holds for one id, once, for `invite_timeout`. It is kept as a hash, so that looking
//!   for it takes a time that says nothing.
//! - A splice is of one `connect` and one `accept` of the same id, and no connection is in two.
//! - Everything that is kept has a number in [`RelayLimits`].
//! - A client learns of a daemon that it is offline or busy and nothing else; all else that is wrong is `refused`.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use core::net::IpAddr;

use data_encoding::BASE64URL_NOPAD;
use sha2::{Digest, Sha256};

use super::control::{FromRelay, Refusal};
use crate::access::limiter::Key;
use crate::contract::fingerprint::Fingerprint;
use crate::contract::id::ConnId;
use crate::contract::input::Source;
use crate::contract::time::{Instant, Now};
use crate::engine::entropy::Entropy;
use crate::engine::timers::Timers;
use addresses::Addresses;
use stats::Stats;

mod addresses;
mod contract;
mod entry;
mod limits;
mod meeting;
mod registration;
mod stats;
mod target;

pub use contract::{Effect, Effects, Input, RelayConfig, Speech};
pub use limits::RelayLimits;

/// RFC 6455, section 7.4.1; the last is registered with IANA.
const NORMAL: u16 = 1000;
const GOING_AWAY: u16 = 1001;
const PROTOCOL_ERROR: u16 = 1002;
const POLICY: u16 = 1008;
const TRY_LATER: u16 = 1013;

/// A ticket as it is kept: its SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Ticket([u8; 32]);

impl Ticket {
    /// Its text and what is kept of it.
    fn mint(chance: [u8; 32]) -> (String, Self) {
        let text = BASE64URL_NOPAD.encode(&chance);
        let kept = Self(Sha256::digest(text.as_bytes()).into());
        (text, kept)
    }

    /// From a path: 43 characters of base64url, or it is none.
    fn read(text: &str) -> Option<Self> {
        let is_one = BASE64URL_NOPAD.decode(text.as_bytes()).is_ok_and(|bytes| bytes.len() == 32);
        is_one.then(|| Self(Sha256::digest(text.as_bytes()).into()))
    }
}

/// The machine. See the module.
#[derive(Debug)]
pub struct Rendezvous {
    config: RelayConfig,
    chance: Entropy,
    peers: BTreeMap<ConnId, Peer>,
    /// Those whose stage is a handshake.
    handshakes: BTreeSet<ConnId>,
    /// Daemons that are registered, invited or spliced.
    daemons: BTreeMap<Fingerprint, Daemon>,
    registered: usize,
    invites: BTreeMap<Ticket, Invite>,
    addresses: Addresses,
    /// Each connection has one deadline at most, by its stage.
    deadlines: Timers<ConnId>,
    stats: Stats,
    is_stopping: bool,
}

/// A connection.
#[derive(Debug)]
struct Peer {
    /// Where it is from, as far as one knows.
    address: IpAddr,
    /// As whose it is counted.
    key: Key,
    stage: Stage,
}

/// What a connection is there for.
#[derive(Debug)]
enum Stage {
    /// It has not said so.
    Head,
    /// It wants to register this id, and shall sign this nonce.
    Challenged { daemon: Fingerprint, nonce: String },
    /// It has, and the signature is being looked at.
    Verifying { daemon: Fingerprint },
    /// It is the registered one of this id.
    Host { daemon: Fingerprint },
    /// A client; the daemon is invited.
    Waiting { daemon: Fingerprint, ticket: Ticket },
    /// A leg of a splice.
    Spliced { daemon: Fingerprint, other: ConnId, moved_at: Instant },
    /// It was answered or closed.
    Done,
}

/// What is known of an id.
#[derive(Debug, Default)]
struct Daemon {
    host: Option<ConnId>,
    invites: usize,
    streams: usize,
}

#[derive(Debug)]
struct Invite {
    daemon: Fingerprint,
    client: ConnId,
}

impl Rendezvous {
    /// A relay nobody has come to. `entropy` is from the operating system: all nonces and tickets come of it.
    #[must_use]
    pub fn new(config: RelayConfig, entropy: [u8; 32]) -> Self {
        Self {
            config,
            chance: Entropy::new(entropy),
            peers: BTreeMap::new(),
            handshakes: BTreeSet::new(),
            daemons: BTreeMap::new(),
            registered: 0,
            invites: BTreeMap::new(),
            addresses: Addresses::new(),
            deadlines: Timers::new(),
            stats: Stats::default(),
            is_stopping: false,
        }
    }

    /// When to call [`Self::handle`] again even if nothing happens.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// Advances by one input.
    pub fn handle(&mut self, now: Now, input: Input<'_>, effects: &mut Effects) {
        let now = now.mono;
        while let Some(conn) = self.deadlines.expire(now) {
            self.on_deadline(conn, now, effects);
        }
        match input {
            Input::Opened { conn, address } => self.on_opened(conn, address, now, effects),
            Input::Requested { conn, head } => self.on_requested(conn, head, now, effects),
            Input::Text { conn, text } => self.on_text(conn, text, now, effects),
            Input::Broke { conn } => self.close(conn, PROTOCOL_ERROR, now, effects),
            Input::Verified { conn, is_right } => self.on_verified(conn, is_right, now, effects),
            Input::Moved { conn, bytes } => {
                self.stats.bytes = self.stats.bytes.saturating_add(bytes);
                if let Some(Peer { stage: Stage::Spliced { moved_at, .. }, .. }) =
                    self.peers.get_mut(&conn)
                {
                    *moved_at = now;
                }
            }
            Input::Closed { conn } => self.on_closed(conn, now, effects),
            Input::Tick => {}
            Input::Shutdown => self.on_shutdown(now, effects),
        }
    }

    fn on_opened(&mut self, conn: ConnId, address: IpAddr, now: Instant, effects: &mut Effects) {
        let key = Key::of(Source::Tcp(address));
        // A proxy is counted when it has said for whom it asks.
        let key = if self.is_proxy(key) { Key::Unix } else { key };
        let limits = &self.config.limits;
        let is_full = self.peers.len() >= limits.connections_max || self.is_stopping;
        let is_in = !is_full && (key == Key::Unix || self.addresses.enter(key, now, limits));
        if !is_in {
            self.stats.turned_away += 1;
            // It is not known here, so that what it costs is the runtime's alone.
            return effects.push(Effect::Close { conn, code: TRY_LATER });
        }
        self.deadlines.arm(conn, now + limits.head_timeout);
        if self.handshakes.len() >= limits.handshakes_max {
            let count = u32::try_from(self.handshakes.len()).unwrap_or(u32::MAX);
            let nth = usize::try_from(self.chance.below(count)).unwrap_or_default();
            if let Some(victim) = self.handshakes.iter().nth(nth).copied() {
                self.stats.turned_away += 1;
                self.close(victim, TRY_LATER, now, effects);
            }
        }
        self.handshakes.insert(conn);
        self.peers.insert(conn, Peer { address, key, stage: Stage::Head });
    }

    /// Whether a connection from there is another's.
    fn is_proxy(&self, key: Key) -> bool {
        self.config.trusts_proxy && key == Key::Loopback
    }

    fn on_deadline(&mut self, conn: ConnId, now: Instant, effects: &mut Effects) {
        let Some(peer) = self.peers.get(&conn) else { return };
        match peer.stage {
            Stage::Head
            | Stage::Challenged { .. }
            | Stage::Verifying { .. }
            | Stage::Host { .. } => {
                self.close(conn, POLICY, now, effects);
            }
            Stage::Waiting { .. } => {
                self.stats.unaccepted += 1;
                self.refuse(conn, Refusal::Offline, now, effects);
            }
            Stage::Spliced { other, moved_at, .. } => {
                let other_moved_at = match self.peers.get(&other).map(|peer| &peer.stage) {
                    Some(Stage::Spliced { moved_at, .. }) => *moved_at,
                    Some(_) | None => moved_at,
                };
                let idle_at = moved_at.max(other_moved_at) + self.config.limits.stream_idle;
                if idle_at > now {
                    self.deadlines.arm(conn, idle_at);
                } else {
                    self.close(conn, NORMAL, now, effects);
                }
            }
            Stage::Done => {}
        }
    }

    fn on_closed(&mut self, conn: ConnId, now: Instant, effects: &mut Effects) {
        self.leave_stage(conn, now, effects);
        if let Some(peer) = self.peers.remove(&conn)
            && peer.key != Key::Unix
        {
            self.addresses.leave(peer.key, now, &self.config.limits);
        }
    }

    /// Says why not, and ends it.
    fn refuse(&mut self, conn: ConnId, code: Refusal, now: Instant, effects: &mut Effects) {
        let (message, close) = match code {
            Refusal::Offline => ("this daemon is not here", TRY_LATER),
            Refusal::Busy => ("too many for now", TRY_LATER),
            Refusal::Refused => ("not allowed here", POLICY),
            Refusal::Replaced => ("the same daemon has registered again", NORMAL),
            Refusal::GoingAway => ("this relay is being stopped", GOING_AWAY),
        };
        if matches!(code, Refusal::Refused) {
            self.stats.refused += 1;
        }
        send(conn, &FromRelay::Error { code, message: message.to_string() }, effects);
        self.close(conn, close, now, effects);
    }

    fn close(&mut self, conn: ConnId, code: u16, now: Instant, effects: &mut Effects) {
        let is_here = self.peers.get(&conn).is_some_and(|it| !matches!(it.stage, Stage::Done));
        if is_here {
            effects.push(Effect::Close { conn, code });
            self.leave_stage(conn, now, effects);
        }
    }

    /// It is no longer what it was there for: everything that counted on it is told. Afterwards it is `Done`.
    fn leave_stage(&mut self, conn: ConnId, now: Instant, effects: &mut Effects) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        let key = peer.key;
        self.deadlines.disarm(conn);
        self.handshakes.remove(&conn);
        match core::mem::replace(&mut peer.stage, Stage::Done) {
            Stage::Head | Stage::Challenged { .. } | Stage::Verifying { .. } | Stage::Done => {}
            Stage::Host { daemon } => self.unregister(conn, daemon, now, effects),
            Stage::Waiting { daemon, ticket } => {
                self.invites.remove(&ticket);
                self.addresses.invite_is_over(key);
                self.change(daemon, |it| it.invites = it.invites.saturating_sub(1));
            }
            Stage::Spliced { daemon, other, .. } => {
                // Its own turn to leave finds this one gone; the stream is counted once, here or there.
                let is_first = matches!(
                    self.peers.get(&other).map(|peer| &peer.stage),
                    Some(Stage::Spliced { .. })
                );
                if is_first {
                    self.change(daemon, |it| it.streams = it.streams.saturating_sub(1));
                    self.stats.streams = self.stats.streams.saturating_sub(1);
                    self.close(other, NORMAL, now, effects);
                }
            }
        }
    }

    /// Changes what is known of an id, which is forgotten when that is nothing.
    fn change(&mut self, daemon: Fingerprint, change: impl FnOnce(&mut Daemon)) {
        let entry = self.daemons.entry(daemon).or_default();
        change(entry);
        if entry.host.is_none() && entry.invites == 0 && entry.streams == 0 {
            self.daemons.remove(&daemon);
        }
    }

    fn on_shutdown(&mut self, now: Instant, effects: &mut Effects) {
        if core::mem::replace(&mut self.is_stopping, true) {
            return;
        }
        let conns: alloc::vec::Vec<ConnId> = self.peers.keys().copied().collect();
        for conn in conns {
            match self.peers.get(&conn).map(|peer| &peer.stage) {
                Some(
                    Stage::Challenged { .. }
                    | Stage::Verifying { .. }
                    | Stage::Host { .. }
                    | Stage::Waiting { .. },
                ) => self.refuse(conn, Refusal::GoingAway, now, effects),
                Some(Stage::Head | Stage::Spliced { .. }) => {
                    self.close(conn, GOING_AWAY, now, effects);
                }
                Some(Stage::Done) | None => {}
            }
        }
        effects.push(Effect::Stop);
    }
}

fn send(conn: ConnId, message: &FromRelay, effects: &mut Effects) {
    // A struct of texts and numbers always serialises.
    let text = serde_json::to_string(message).unwrap_or_default();
    effects.push(Effect::Send { conn, text });
}

#[cfg(test)]
mod tests;
