//! A client and a daemon meet.
//!
//! Owns invitations and their tickets (security G5); refuses to know how daemons register. Invariant: a ticket leads to one
//! splice at most, of the client it was made for and a leg that names the same id.

use alloc::string::{String, ToString};

use super::contract::{Effect, Effects, Speech};
use super::{Daemon, Invite, Peer, Rendezvous, Stage, Ticket, send, target};
use crate::contract::fingerprint::Fingerprint;
use crate::contract::id::ConnId;
use crate::contract::time::Instant;
use crate::relay::control::{FromRelay, Refusal};

impl Rendezvous {
    pub(super) fn on_connect(
        &mut self,
        conn: ConnId,
        key: String,
        daemon: Fingerprint,
        now: Instant,
        effects: &mut Effects,
    ) {
        let limits = &self.config.limits;
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        if !self.addresses.may_connect(peer.key, now, limits) {
            self.stats.turned_away += 1;
            return self.respond(conn, target::too_many(), now, effects);
        }
        effects.push(Effect::Upgrade { conn, key, speech: Speech::Bytes });
        let Some(&Daemon { host: Some(host), invites, streams }) = self.daemons.get(&daemon) else {
            return self.refuse(conn, Refusal::Offline, now, effects);
        };
        let is_free = self.invites.len() < limits.invites_max
            && invites < limits.invites_per_id
            && invites.saturating_add(streams) < limits.streams_per_id;
        if !is_free || !self.addresses.invite(peer.key, limits) {
            self.stats.turned_away += 1;
            return self.refuse(conn, Refusal::Busy, now, effects);
        }
        let (text, ticket) = Ticket::mint(self.chance.bytes());
        let from = Some(peer.address.to_canonical().to_string());
        peer.stage = Stage::Waiting { daemon, ticket };
        self.handshakes.remove(&conn);
        self.deadlines.arm(conn, now + limits.invite_timeout);
        self.invites.insert(ticket, Invite { daemon, client: conn });
        self.change(daemon, |it| it.invites += 1);
        send(host, &FromRelay::Invite { ticket: text, from }, effects);
    }

    pub(super) fn on_accept(
        &mut self,
        conn: ConnId,
        key: String,
        (daemon, ticket): (Fingerprint, Ticket),
        now: Instant,
        effects: &mut Effects,
    ) {
        let invite = self.invites.get(&ticket).filter(|invite| invite.daemon == daemon);
        let Some(client) = invite.map(|invite| invite.client) else {
            self.stats.refused += 1;
            return self.respond(conn, target::no_ticket(), now, effects);
        };
        // The ticket goes with this: the client no longer waits.
        let Some(peer) = self.peers.get_mut(&client) else { return };
        let stage = Stage::Spliced { daemon, other: conn, moved_at: now };
        let waited = core::mem::replace(&mut peer.stage, stage);
        let key_of_client = peer.key;
        debug_assert!(matches!(waited, Stage::Waiting { .. }), "an invitation is of one who waits");
        self.invites.remove(&ticket);
        self.addresses.invite_is_over(key_of_client);
        self.change(daemon, |it| {
            it.streams += 1;
            it.invites = it.invites.saturating_sub(1);
        });
        if let Some(Peer { stage, .. }) = self.peers.get_mut(&conn) {
            *stage = Stage::Spliced { daemon, other: client, moved_at: now };
        }
        self.handshakes.remove(&conn);
        self.deadlines.disarm(conn);
        // One of the two watches over both.
        self.deadlines.arm(client, now + self.config.limits.stream_idle);
        self.stats.streams += 1;
        self.stats.spliced += 1;
        effects.push(Effect::Upgrade { conn, key, speech: Speech::Bytes });
        send(client, &FromRelay::Connected, effects);
        effects.push(Effect::Splice { client, daemon: conn });
    }
}
