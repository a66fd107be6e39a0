//! Daemons register: nobody but the holder of a key has its id (security G5).
//!
//! Owns the way from `challenge` to `registered`, and `ping`; refuses to know who wants to talk to them. Invariant: of each
//! id one connection at most is the registered one, the one that proved itself last.

use alloc::string::String;
use alloc::vec::Vec;

use data_encoding::BASE64URL_NOPAD;

use super::contract::{Effect, Effects, Speech};
use super::{Rendezvous, Stage, send, target};
use crate::access::token::{Secret, TokenDigest};
use crate::contract::fingerprint::Fingerprint;
use crate::contract::id::ConnId;
use crate::contract::time::Instant;
use crate::relay::control::{FromHost, FromRelay, Refusal, signed};

/// A registration as it was said.
struct Claim {
    daemon: Fingerprint,
    public_key: Vec<u8>,
    signature: Vec<u8>,
    access_token: Option<Secret>,
}

impl Claim {
    /// `None`: it is no registration.
    fn read(text: &str) -> Option<Self> {
        let message: FromHost = serde_json::from_str(text).ok()?;
        let FromHost::Register { daemon_id, public_key, signature, access_token } = message else {
            return None;
        };
        Some(Self {
            daemon: daemon_id,
            public_key: BASE64URL_NOPAD.decode(public_key.as_bytes()).ok()?,
            signature: BASE64URL_NOPAD.decode(signature.as_bytes()).ok()?,
            access_token,
        })
    }
}

impl Rendezvous {
    pub(super) fn on_host(
        &mut self,
        conn: ConnId,
        key: String,
        daemon: Fingerprint,
        now: Instant,
        effects: &mut Effects,
    ) {
        let limits = &self.config.limits;
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        if !self.addresses.may_register(peer.key, now, limits) {
            self.stats.turned_away += 1;
            return self.respond(conn, target::too_many(), now, effects);
        }
        let nonce = BASE64URL_NOPAD.encode(&self.chance.bytes::<32>());
        let speech = Speech::Text { bytes_max: limits.control_bytes_max };
        effects.push(Effect::Upgrade { conn, key, speech });
        send(conn, &FromRelay::Challenge { nonce: nonce.clone() }, effects);
        peer.stage = Stage::Challenged { daemon, nonce };
        self.deadlines.arm(conn, now + limits.register_timeout);
    }

    pub(super) fn on_text(
        &mut self,
        conn: ConnId,
        text: &str,
        now: Instant,
        effects: &mut Effects,
    ) {
        let Some(peer) = self.peers.get(&conn) else { return };
        match &peer.stage {
            Stage::Challenged { daemon, nonce } => match self.weigh(*daemon, nonce, text) {
                Some((claim, messages)) => {
                    let daemon = claim.daemon;
                    let Claim { public_key, signature, .. } = claim;
                    effects.push(Effect::Verify { conn, public_key, messages, signature });
                    if let Some(peer) = self.peers.get_mut(&conn) {
                        peer.stage = Stage::Verifying { daemon };
                    }
                }
                None => self.refuse(conn, Refusal::Refused, now, effects),
            },
            Stage::Host { .. } => match serde_json::from_str(text) {
                Ok(FromHost::Ping) => {
                    self.deadlines.arm(conn, now + self.config.limits.ping_every * 3);
                    send(conn, &FromRelay::Pong, effects);
                }
                Ok(FromHost::Register { .. }) | Err(_) => {
                    self.refuse(conn, Refusal::Refused, now, effects);
                }
            },
            // Nobody else has anything to say.
            Stage::Head
            | Stage::Verifying { .. }
            | Stage::Waiting { .. }
            | Stage::Spliced { .. } => self.refuse(conn, Refusal::Refused, now, effects),
            Stage::Done => {}
        }
    }

    /// Everything about a registration but its signature, which costs most and is looked at last. Answers what it may be
    /// of: it is the relay's name that is signed, and a relay may have several.
    fn weigh(&self, daemon: Fingerprint, nonce: &str, text: &str) -> Option<(Claim, Vec<Vec<u8>>)> {
        let claim = Claim::read(text)?;
        let is_own = claim.daemon == daemon && Fingerprint::of(&claim.public_key) == daemon;
        let allowed = &self.config.allowed;
        let is_allowed = allowed.is_empty() || allowed.contains(&daemon);
        if !is_own || !is_allowed || !self.has_access(claim.access_token.as_ref()) {
            return None;
        }
        let hosts = self.config.hosts.iter();
        let messages = hosts.map(|host| signed(nonce, host, &daemon)).collect();
        Some((claim, messages))
    }

    /// All are compared, each in constant time: how long it takes says nothing.
    fn has_access(&self, shown: Option<&Secret>) -> bool {
        let known = &self.config.access_tokens;
        let digest = TokenDigest::of(shown.map_or("", Secret::expose));
        let fits = known.iter().fold(false, |fits, token| fits | token.matches(&digest));
        known.is_empty() || fits && shown.is_some()
    }

    pub(super) fn on_verified(
        &mut self,
        conn: ConnId,
        is_right: bool,
        now: Instant,
        effects: &mut Effects,
    ) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        let Stage::Verifying { daemon } = peer.stage else { return };
        if !is_right {
            return self.refuse(conn, Refusal::Refused, now, effects);
        }
        let before = self.daemons.get(&daemon).and_then(|daemon| daemon.host);
        if before.is_none() && self.registered >= self.config.limits.registrations_max {
            self.stats.turned_away += 1;
            return self.refuse(conn, Refusal::Busy, now, effects);
        }
        peer.stage = Stage::Host { daemon };
        self.handshakes.remove(&conn);
        self.stats.registered += 1;
        self.registered += 1;
        self.change(daemon, |it| it.host = Some(conn));
        if let Some(before) = before {
            self.refuse(before, Refusal::Replaced, now, effects);
        }
        let limits = &self.config.limits;
        self.deadlines.arm(conn, now + limits.ping_every * 3);
        let ping_secs = limits.ping_every.as_secs();
        send(conn, &FromRelay::Registered { ping_secs }, effects);
    }

    /// A registered connection is over. If no newer one has its place, those who wait for the daemon wait in vain.
    pub(super) fn unregister(
        &mut self,
        conn: ConnId,
        daemon: Fingerprint,
        now: Instant,
        effects: &mut Effects,
    ) {
        self.registered = self.registered.saturating_sub(1);
        let host = self.daemons.get(&daemon).and_then(|it| it.host);
        if host != Some(conn) {
            return;
        }
        self.change(daemon, |it| it.host = None);
        let of_it = self.invites.values().filter(|invite| invite.daemon == daemon);
        let waiting: Vec<ConnId> = of_it.map(|invite| invite.client).collect();
        let code = if self.is_stopping { Refusal::GoingAway } else { Refusal::Offline };
        for client in waiting {
            self.refuse(client, code, now, effects);
        }
    }
}
