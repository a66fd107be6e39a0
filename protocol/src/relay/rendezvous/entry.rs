//! The first request of a connection: as whose it counts, and where it is led.
//!
//! Owns that one step; refuses to know registrations and tickets.

use alloc::string::ToString;
use core::net::IpAddr;

use super::contract::{Effect, Effects};
use super::stats::Sizes;
use super::target::{self, Asked, Wanted};
use super::{Key, Rendezvous, Source, Stage};
use crate::contract::effect::Response;
use crate::contract::error::HeadFault;
use crate::contract::id::ConnId;
use crate::contract::input::Head;
use crate::contract::time::Instant;

impl Rendezvous {
    pub(super) fn on_requested(
        &mut self,
        conn: ConnId,
        head: Result<Head<'_>, HeadFault>,
        now: Instant,
        effects: &mut Effects,
    ) {
        let is_asking = self.peers.get(&conn).is_some_and(|it| matches!(it.stage, Stage::Head));
        if !is_asking {
            return;
        }
        let asked = match target::judge(head, &self.config.prefix) {
            Ok(asked) => asked,
            Err(response) => return self.respond(conn, response, now, effects),
        };
        if !self.count_as(conn, asked.forwarded_for, now) {
            self.stats.turned_away += 1;
            return self.respond(conn, target::too_many(), now, effects);
        }
        let Asked { wanted, key, is_proxied, .. } = asked;
        match wanted {
            Wanted::Health => {
                let health = target::ok("application/json", r#"{"status":"ok"}"#.to_string());
                self.respond(conn, health, now, effects);
            }
            Wanted::Metrics => {
                let metrics = self.metrics(conn, is_proxied);
                self.respond(conn, metrics, now, effects);
            }
            Wanted::Host(daemon) => self.on_host(conn, key, daemon, now, effects),
            Wanted::Connect(daemon) => self.on_connect(conn, key, daemon, now, effects),
            Wanted::Accept(daemon, ticket) => {
                self.on_accept(conn, key, (daemon, ticket), now, effects);
            }
        }
    }

    pub(super) fn respond(
        &mut self,
        conn: ConnId,
        response: Response,
        now: Instant,
        effects: &mut Effects,
    ) {
        effects.push(Effect::Respond { conn, response });
        self.leave_stage(conn, now, effects);
    }

    /// Behind a proxy that is believed, a connection counts as whoever it says; one that says nobody is this machine's.
    fn count_as(&mut self, conn: ConnId, forwarded_for: Option<IpAddr>, now: Instant) -> bool {
        let Some(peer) = self.peers.get_mut(&conn) else { return false };
        if peer.key != Key::Unix {
            return true;
        }
        if let Some(address) = forwarded_for {
            peer.address = address;
        }
        let key = Key::of(Source::Tcp(peer.address));
        let is_in = self.addresses.enter(key, now, &self.config.limits);
        if is_in {
            peer.key = key;
        }
        is_in
    }

    /// For programs on this machine that came straight here: numbers say how busy people are, which is nobody's business.
    fn metrics(&self, conn: ConnId, is_proxied: bool) -> Response {
        let key = self.peers.get(&conn).map(|peer| peer.key);
        if is_proxied || key != Some(Key::Loopback) {
            return target::hidden();
        }
        let sizes = Sizes {
            connections: self.peers.len(),
            daemons: self.registered,
            invites: self.invites.len(),
        };
        target::ok("text/plain; version=0.0.4", self.stats.text(&sizes))
    }
}
