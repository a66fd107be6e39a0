//! How peers come, misbehave and go.
//!
//! Owns where they come from and with which heads and credentials; refuses to know what they ask for once they are in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use clawd_protocol::{HeadFault, MessageFault, Source};
use serde_json::json;

use super::Run;
use crate::client::{Client, upgrade_headers};
use crate::world::LOOPBACK;

const SOURCES: &[Source] = &[
    LOOPBACK,
    Source::Unix,
    LOOPBACK,
    Source::Tcp(IpAddr::V6(Ipv6Addr::LOCALHOST)),
    Source::Tcp(IpAddr::V4(Ipv4Addr::new(192, 168, 1, 7))),
    Source::Tcp(IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0x7f00, 1))),
];

impl Run<'_> {
    pub(super) fn open(&mut self) {
        let source = self.dice.one_of(SOURCES).unwrap_or(LOOPBACK);
        let client = self.world.stranger(source);
        self.clients.push(client);
    }

    /// Somebody comes with a good token, or one that was good once.
    pub(super) fn come_in(&mut self) {
        let source = self.dice.one_of(SOURCES).unwrap_or(LOOPBACK);
        let local = self.world.token();
        let token = if self.dice.below(3) > 0 { None } else { self.dice.one_of(&self.tokens) };
        let token = token.unwrap_or(local);
        if self.dice.is_rare() {
            let value = format!("Bearer {token}");
            let client = self.world.connect(source, &[("Authorization", &value)]);
            return self.clients.push(client);
        }
        let client = self.world.stranger(source);
        self.world.ask(client, "daemon.auth", json!({ "token": token }));
        self.world.settle();
        self.clients.push(client);
    }

    pub(super) fn pair(&mut self) {
        let source = LOOPBACK;
        let owner = self.world.stranger(source);
        let token = self.world.token();
        self.world.ask(owner, "daemon.auth", json!({ "token": token }));
        let role = self.dice.one_of(&["read", "approve", "full", "admin"]);
        let params = json!({"role": role, "confirm": false});
        self.world.ask(owner, "daemon.pairPin", params);
        self.world.settle();
        self.clients.push(owner);
        self.learn();
        let device = self.world.stranger(source);
        let pin = self.pins.last().cloned();
        let params = json!({"pin": pin, "name": "phone", "platform": "android"});
        self.world.ask(device, "device.pair", params);
        self.clients.push(device);
    }

    /// Heads as they should not be.
    pub(super) fn odd_head(&mut self) {
        let source = self.dice.one_of(SOURCES).unwrap_or(LOOPBACK);
        let conn = self.world.open(source);
        match self.dice.below(4) {
            0 => self.world.request(conn, Err(HeadFault::Malformed)),
            1 => self.world.request(conn, Err(HeadFault::TooLarge)),
            2 => {}
            _ => {
                let names = ["Host", "Origin", "Upgrade", "X-Forwarded-For", "Authorization"];
                let values = ["127.0.0.1:4300", "http://evil.example", "websocket", "Bearer x", ""];
                let mut headers = upgrade_headers();
                let at = self.dice.below(headers.len());
                if self.dice.below(2) == 0 {
                    headers.remove(at);
                }
                let name = self.dice.one_of(&names).unwrap_or("Host");
                let value = self.dice.one_of(&values).unwrap_or("");
                headers.insert(at.min(headers.len()), (name, value.as_bytes().to_vec()));
                let headers: Vec<(&str, &[u8])> =
                    headers.iter().map(|(name, value)| (*name, value.as_slice())).collect();
                let target = self.dice.one_of(&["/", "/health", "/metrics", "/?token=x", "*"]);
                self.world.head(conn, target.unwrap_or("/"), &headers);
            }
        }
        self.clients.push(Client { conn });
    }

    pub(super) fn misbehave(&mut self) {
        let Some(client) = self.client() else { return };
        let faults = [
            MessageFault::Binary,
            MessageFault::TooLarge,
            MessageFault::NotUtf8,
            MessageFault::Framing,
        ];
        match self.dice.below(6) {
            0 => self.world.begin(client.conn),
            1 => {
                let fault = self.dice.one_of(&faults).unwrap_or(MessageFault::Framing);
                self.world.break_rules(client.conn, fault);
            }
            2 => self.world.hang_up(client.conn),
            3 | 4 => self.world.stall(client.conn),
            _ => self.world.unstall(client.conn),
        }
    }
}
