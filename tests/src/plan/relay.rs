//! What a relay does, well and badly, and what the owner wants of it.
//!
//! Owns the relay's side of a run; refuses to judge what the daemon makes of it.

use std::time::Duration;

use clawd_protocol::{DialFault, LegId, Source};
use serde_json::json;

use super::Run;
use crate::client::Client;
use crate::world::{LegStage, NONCE};

/// What a relay may say, in no order.
const SAYINGS: &[&str] = &[
    r#"{"type":"pong"}"#,
    r#"{"type":"registered","pingSecs":30}"#,
    r#"{"type":"registered","pingSecs":18446744073709551615}"#,
    r#"{"type":"invite","ticket":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#,
    r#"{"type":"invite","ticket":"../../../../../../../../../../../x","from":"::1"}"#,
    r#"{"type":"error","code":"replaced","message":"\u001b[2J"}"#,
    r#"{"type":"error","code":"busy","message":""}"#,
    r#"{"type":"error","code":"tired","message":""}"#,
    r#"{"type":"challenge","nonce":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#,
    r#"{"type":"challenge","nonce":""}"#,
    r#"{"type":"connected"}"#,
    r#"{"type":"weather"}"#,
    "{}",
    "",
];

impl Run<'_> {
    pub(super) fn relay(&mut self) {
        match self.dice.below(8) {
            0 => self.wish(),
            1 => self.dial_fails(),
            2 => self.relay_says(),
            3 => {
                if let Some(leg) = self.world.control() {
                    self.world.relay_hangs_up(leg);
                }
            }
            4 if self.dice.is_rare() => self.reset(),
            _ => (0..=self.dice.below(4)).for_each(|_| self.relay_goes_on()),
        }
    }

    /// What a good relay does next; more often than not it gets far.
    fn relay_goes_on(&mut self) {
        let Some(leg) = self.world.control() else { return self.wish() };
        if self.world.legs()[&leg].stage == LegStage::Dialing {
            self.world.relay_registers();
            return;
        }
        if let Some(tunnel) = self.world.tunnels().first() {
            return self.tunnel_opens(*tunnel);
        }
        let ticket = format!("{NONCE}{}", self.dice.byte());
        self.world.relay_invites(leg, &ticket, "198.51.100.7");
    }

    fn tunnel_opens(&mut self, tunnel: LegId) {
        let Some(conn) = self.world.tunnel_opens(tunnel) else { return };
        let client = self.world.upgrade(conn);
        let token = self.dice.one_of(&self.tokens);
        if let Some(token) = token.filter(|_| self.world.link(conn).is_open()) {
            self.world.ask(client, "daemon.auth", json!({ "token": token }));
        }
        self.clients.push(client);
    }

    fn relay_says(&mut self) {
        let Some(leg) = self.world.control() else { return };
        if self.dice.below(3) > 0 {
            let text = self.dice.one_of(SAYINGS).unwrap_or_default();
            return self.world.relay_says(leg, text);
        }
        let len = usize::from(self.dice.byte());
        let text = String::from_utf8_lossy(self.dice.take(len)).into_owned();
        self.world.relay_says(leg, &text);
    }

    fn dial_fails(&mut self) {
        let faults = [
            DialFault::Unresolved,
            DialFault::Unreachable("no route".to_owned()),
            DialFault::TimedOut,
            DialFault::Tls("expired".to_owned()),
            DialFault::WrongPin,
            DialFault::Redirected,
            DialFault::Rejected(404),
            DialFault::NotWebSocket,
            DialFault::Busy,
        ];
        let fault = self.dice.one_of(&faults).unwrap_or(DialFault::Busy);
        let tunnel = self.world.tunnels().first().copied();
        if let Some(leg) = tunnel.or_else(|| self.world.control()) {
            self.world.dial_fails(leg, fault);
        }
    }

    fn owner(&mut self) -> Option<Client> {
        let owner = self.world.stranger(Source::Unix);
        let token = self.world.token();
        // There may be no room for one more.
        self.world.link(owner.conn).is_open().then(|| {
            self.world.ask(owner, "daemon.auth", json!({ "token": token }));
            self.clients.push(owner);
            owner
        })
    }

    fn wish(&mut self) {
        let Some(owner) = self.owner() else { return };
        let urls = ["wss://relay.example.org", "wss://other.example.org/r", "ws://127.0.0.1:4400"];
        let odd = ["ws://relay.example.org", "", "wss://"];
        let url =
            if self.dice.is_rare() { self.dice.one_of(&odd) } else { self.dice.one_of(&urls) };
        let tokens = [json!("open sesame"), json!(null), json!("another")];
        let params = json!({
            "url": url, "enabled": self.dice.below(4) > 0, "accessToken": self.dice.one_of(&tokens),
        });
        self.world.ask(owner, "daemon.setRelay", params);
        self.world.settle();
    }

    /// Another key, and nobody who knew the old one.
    fn reset(&mut self) {
        let Some(owner) = self.owner() else { return };
        self.world.ask(owner, "daemon.resetIdentity", json!({}));
        self.world.advance(Duration::from_secs(60));
    }

    /// A daemon that has ended, as it does with its identity, is started again.
    pub(super) fn start_again(&mut self) {
        if self.world.is_stopped() {
            self.world.restart();
            self.is_held = false;
        }
    }
}
