//! What peers ask of the daemon, from good requests to bytes that are none.
//!
//! Owns the methods, their parameters and the nasty texts; refuses to know who may ask what, which is for the daemon.

use serde_json::{Value, json};

use super::Run;
use super::dice::Dice;
use crate::client::Client;

/// All methods of wire.md §4, and two that there are not.
const METHODS: &[&str] = &[
    "daemon.ping",
    "daemon.auth",
    "daemon.status",
    "daemon.providers",
    "daemon.checkProvider",
    "daemon.setName",
    "daemon.pairPin",
    "daemon.pairCancel",
    "daemon.pairConfirm",
    "daemon.rotateToken",
    "daemon.setRelay",
    "daemon.addresses",
    "device.pair",
    "device.pairStart",
    "device.pairFinish",
    "device.list",
    "device.revoke",
    "device.rename",
    "device.rotate",
    "device.setRole",
    "session.create",
    "session.list",
    "session.get",
    "session.rename",
    "session.delete",
    "session.sendMessage",
    "session.getMessages",
    "session.pause",
    "session.resume",
    "session.cancel",
    "session.setModel",
    "session.toolCalls",
    "tool.approve",
    "tool.reject",
    "approval.list",
    "approval.respond",
    "session.toolCallAudit",
    "audit.list",
    "policy.test",
    "events.subscribe",
    "daemon.nothing",
    "",
];

const NASTY: &[&str] = &[
    "",
    " ",
    "null",
    "[]",
    "{}",
    "[[]]",
    "{\"jsonrpc\":\"2.0\"}",
    "[1,2,3]",
    "\"\u{0}\"",
    "{\"jsonrpc\":\"2.0\",\"id\":null,\"method\":\"daemon.ping\"}",
    "{\"jsonrpc\":\"2.0\",\"id\":1,\"id\":2,\"method\":\"daemon.ping\"}",
    "{\"jsonrpc\":\"2.0\",\"id\":1.5,\"method\":\"daemon.ping\"}",
    "{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"daemon.ping\"}",
    "{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"daemon.ping\"}",
    "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"daemon.status\",\"params\":[1]}",
    "{\"jsonrpc\":\"2.0\",\"method\":\"session.list\"}",
    "{\"jsonrpc\":\"2.0\",\"id\":9,\"method\":\"daemon.ping\"} trailing",
    "[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"daemon.ping\"},{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"session.list\"}]",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]",
];

impl Run<'_> {
    pub(super) fn wrong_token(&mut self) {
        let Some(client) = self.client() else { return };
        let token = match self.dice.below(4) {
            0 => Value::Null,
            1 => json!("clawd_l_guess"),
            2 => json!(clawd_protocol::access::token::mint_local([99; 32]).expose()),
            _ => json!(String::from_utf8_lossy(self.dice.take(20))),
        };
        self.world.ask(client, "daemon.auth", json!({ "token": token }));
    }

    pub(super) fn call(&mut self) {
        let Some(client) = self.client() else { return };
        let method = self.dice.one_of(METHODS).unwrap_or_default();
        let params = self.params();
        self.world.ask(client, method, params);
    }

    /// One bag of parameters for all methods: each takes what it knows.
    fn params(&mut self) -> Value {
        let text = |options: &[String], dice: &mut Dice<'_>| match dice.one_of(options) {
            Some(option) if !dice.is_rare() => json!(option),
            _ => json!("00000000-0000-4000-8000-000000000000"),
        };
        let paths =
            ["/repo", "/repo", "/repo", "/file", "/none", "/home/dev/.ssh", "relative", "/"];
        let roles = ["read", "approve", "full", "admin", "owner", "king"];
        let (sessions, devices) = (self.sessions.clone(), self.devices.clone());
        let session = text(&sessions, &mut self.dice);
        let (_, tool) = self.dice.one_of(&self.tools.clone()).unwrap_or_default();
        json!({
            "sessionId": session, "id": text(&devices, &mut self.dice), "toolCallId": tool,
            "approval_id": text(&self.approvals.clone(), &mut self.dice), "repoPath": self.dice.one_of(&paths),
            "role": self.dice.one_of(&roles), "name": "n", "title": "t", "platform": "ios",
            "content": "hello", "clientMessageId": format!("c{}", self.dice.below(6)),
            "pin": self.pins.last().cloned().unwrap_or_else(|| "000000".to_owned()),
            "provider": self.provider(), "model": null, "limit": self.dice.below(12),
            "decision": if self.dice.below(2) == 0 { "grant" } else { "deny" },
            "scope": if self.dice.below(3) == 0 { "session" } else { "once" },
            "tool": "Bash", "input": {"command": "ls"}, "deltas": self.dice.below(2) == 0,
            "enabled": !self.sessions.len().is_multiple_of(3), "url": "wss://relay.example.org",
            "after": self.dice.below(200), "token": "clawd_l_guess",
        })
    }

    /// Claude, or codex. Not a choice of its own: runs that were found before there was one go on as they did.
    pub(super) const fn provider(&self) -> &'static str {
        if self.dice.0.len().is_multiple_of(2) { "codex" } else { "claude" }
    }

    pub(super) fn decide(&mut self) {
        let (Some(client), Some((session, tool))) =
            (self.client(), self.dice.one_of(&self.tools.clone()))
        else {
            return;
        };
        let scope = if self.dice.is_rare() { "session" } else { "once" };
        let is_deny = self.dice.below(3) == 0;
        if self.dice.below(2) == 0
            && let Some(approval) = self.dice.one_of(&self.approvals)
        {
            let decision = if is_deny { "deny" } else { "grant" };
            let params = json!({"approval_id": approval, "decision": decision, "scope": scope,
                "answers": {"Which color?": "Blue"}});
            self.world.ask(client, "approval.respond", params);
            return;
        }
        let method = if is_deny { "tool.reject" } else { "tool.approve" };
        let params = json!({"sessionId": session, "toolCallId": tool, "scope": scope});
        self.world.ask(client, method, params);
    }

    /// Somebody decides on what waits.
    pub(super) fn decide_on_what_waits(&mut self, client: Client) {
        let list = self.world.call(client, "approval.list", json!({})).unwrap_or_default();
        let waiting = list["approvals"].as_array().cloned().unwrap_or_default();
        for approval in waiting {
            let decision = if self.dice.below(4) == 0 { "deny" } else { "grant" };
            let params = json!({"approval_id": approval["approval_id"], "decision": decision,
                "answers": if approval["kind"] == "question" { json!({"Which color?": "Blue"}) }
                    else { Value::Null }});
            self.world.ask(client, "approval.respond", params);
            for _ in 0..self.dice.below(12) {
                self.world.settle_one(0);
            }
        }
    }

    pub(super) fn talk(&mut self) {
        let Some(client) = self.client() else { return };
        if self.sessions.is_empty() {
            let params = json!({"repoPath": "/repo", "provider": self.provider()});
            self.world.ask(client, "session.create", params);
        } else if let Some(session) = self.dice.one_of(&self.sessions) {
            let params = json!({"sessionId": session, "content": "go on"});
            self.world.ask(client, "session.sendMessage", params);
        }
        self.world.settle();
    }

    pub(super) fn raw(&mut self) {
        let Some(client) = self.client() else { return };
        if self.dice.below(3) == 0 {
            let len = usize::from(self.dice.byte());
            let text = String::from_utf8_lossy(self.dice.take(len)).into_owned();
            self.world.text(client.conn, &text);
        } else if let Some(text) = self.dice.one_of(NASTY) {
            self.world.text(client.conn, text);
        }
    }
}
