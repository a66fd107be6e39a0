//! Steps decoded from bytes: the seeds of `cargo test`, proptest and the fuzzer all drive the world through here.
//!
//! Owns the decoder, the cast of a run and its end; refuses to judge, which is the invariants' part. The same bytes are
//! the same run, and every byte string is a run. At its end everything is released, everybody leaves, time passes, and
//! nothing may be left.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use clawd_protocol::{HeadFault, Limits, MessageFault, Source, StoreFault, Stream};
use serde_json::{Value, json};

use crate::child::Act;
use crate::client::{Client, upgrade_headers};
use crate::machine::Claude;
use crate::world::{Crash, LOOPBACK, World};

/// Who takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cast {
    /// The owner, devices and strangers.
    Everybody,
    /// Nobody who has any right; nothing may come of it.
    Strangers,
}

/// How a run is set up.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Who takes part.
    pub cast: Cast,
    /// The daemon's limits.
    pub limits: Limits,
    /// A tick comes before every input.
    pub has_extra_ticks: bool,
    /// Children's output is cut into pieces of these sizes.
    pub pieces: Vec<usize>,
}

impl Setup {
    /// Everybody, with these limits.
    #[must_use]
    pub const fn everybody(limits: Limits) -> Self {
        Self { cast: Cast::Everybody, limits, has_extra_ticks: false, pieces: Vec::new() }
    }
}

/// Bytes to run for a seed (SplitMix64).
#[must_use]
pub fn bytes_of_seed(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (word ^ (word >> 31)).to_le_bytes()
    };
    std::iter::repeat_with(&mut next).flatten().take(len).collect()
}

/// Runs the steps in `bytes`; panics with the trace when an invariant is violated.
#[must_use]
pub fn run(bytes: &[u8], setup: &Setup) -> World {
    let mut world = World::new(setup.limits.clone());
    if setup.has_extra_ticks {
        world.tick_before_each_input();
    }
    world.cut_output(&setup.pieces);
    let mut run = Run::new(world, Dice(bytes));
    while !run.dice.0.is_empty() {
        match setup.cast {
            Cast::Everybody => run.step(),
            Cast::Strangers => run.strangers_step(),
        }
        run.learn();
    }
    if setup.cast == Cast::Strangers {
        run.nothing_came_of_it();
    }
    run.wind_down();
    run.world
}

/// The bytes that are left; used up, it says 0 for ever.
#[derive(Debug)]
struct Dice<'a>(&'a [u8]);

impl<'a> Dice<'a> {
    const fn byte(&mut self) -> u8 {
        match self.0 {
            [first, rest @ ..] => {
                self.0 = rest;
                *first
            }
            [] => 0,
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound.max(1)
    }

    fn one_of<T: Clone>(&mut self, all: &[T]) -> Option<T> {
        let at = self.below(all.len());
        all.get(at).cloned()
    }

    fn is_rare(&mut self) -> bool {
        self.byte() < 16
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// A run under way: the world, and what its cast has learnt.
#[derive(Debug)]
struct Run<'a> {
    world: World,
    dice: Dice<'a>,
    clients: Vec<Client>,
    sessions: Vec<String>,
    tools: Vec<(String, String)>,
    devices: Vec<String>,
    tokens: Vec<String>,
    pins: Vec<String>,
    is_held: bool,
    is_failing: bool,
}

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
    "daemon.rotateToken",
    "daemon.doctor",
    "device.pair",
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

const SOURCES: &[Source] = &[
    LOOPBACK,
    Source::Unix,
    LOOPBACK,
    Source::Tcp(IpAddr::V6(Ipv6Addr::LOCALHOST)),
    Source::Tcp(IpAddr::V4(Ipv4Addr::new(192, 168, 1, 7))),
    Source::Tcp(IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0x7f00, 1))),
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

impl<'a> Run<'a> {
    const fn new(world: World, dice: Dice<'a>) -> Self {
        Self {
            world,
            dice,
            clients: Vec::new(),
            sessions: Vec::new(),
            tools: Vec::new(),
            devices: Vec::new(),
            tokens: Vec::new(),
            pins: Vec::new(),
            is_held: false,
            is_failing: false,
        }
    }

    fn step(&mut self) {
        match self.dice.below(24) {
            0 => self.open(),
            1 | 2 => self.come_in(),
            3..=9 => self.call(),
            10 => self.decide(),
            11 => self.talk(),
            12 => self.raw(),
            13 => self.misbehave(),
            14 => self.script(),
            15 => {
                let millis = u64::from(self.dice.byte()) * 8;
                self.world.advance(Duration::from_millis(millis));
            }
            16 => self.world.advance_to_deadline(),
            17 => {
                let skip = self.dice.below(8);
                self.world.settle_one(skip);
            }
            18 | 19 => self.world.settle(),
            20 => self.hold_or_release(),
            21 => self.pair(),
            _ if self.dice.is_rare() => self.disaster(),
            _ => self.world.settle(),
        }
    }

    fn strangers_step(&mut self) {
        match self.dice.below(12) {
            0 | 1 => self.open(),
            2 => self.odd_head(),
            3 => self.wrong_token(),
            4..=6 => self.call(),
            7 => self.raw(),
            8 => self.misbehave(),
            9 => {
                let millis = u64::from(self.dice.byte()) * 16;
                self.world.advance(Duration::from_millis(millis));
            }
            10 => {
                let skip = self.dice.below(8);
                self.world.settle_one(skip);
            }
            _ => self.world.advance_to_deadline(),
        }
    }

    fn client(&mut self) -> Option<Client> {
        let open = self.world.open_links();
        self.clients.retain(|client| open.contains(&client.conn));
        self.dice.one_of(&self.clients)
    }

    fn open(&mut self) {
        let source = self.dice.one_of(SOURCES).unwrap_or(LOOPBACK);
        let client = self.world.stranger(source);
        self.clients.push(client);
    }

    /// Somebody comes with a good token, or one that was good once.
    fn come_in(&mut self) {
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

    fn wrong_token(&mut self) {
        let Some(client) = self.client() else { return };
        let token = match self.dice.below(4) {
            0 => Value::Null,
            1 => json!("clawd_l_guess"),
            2 => json!(clawd_protocol::access::token::mint_local([99; 32]).expose()),
            _ => json!(String::from_utf8_lossy(self.dice.take(20))),
        };
        self.world.ask(client, "daemon.auth", json!({ "token": token }));
    }

    fn call(&mut self) {
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
            "approval_id": tool, "repoPath": self.dice.one_of(&paths),
            "role": self.dice.one_of(&roles), "name": "n", "title": "t", "platform": "ios",
            "content": "hello", "clientMessageId": format!("c{}", self.dice.below(6)),
            "pin": self.pins.last().cloned().unwrap_or_else(|| "000000".to_owned()),
            "provider": "claude", "model": null, "limit": self.dice.below(12),
            "decision": if self.dice.below(2) == 0 { "grant" } else { "deny" },
            "scope": if self.dice.below(3) == 0 { "session" } else { "once" },
            "tool": "Bash", "input": {"command": "ls"}, "deltas": self.dice.below(2) == 0,
            "after": self.dice.below(200), "token": "clawd_l_guess",
        })
    }

    fn decide(&mut self) {
        let (Some(client), Some((session, tool))) =
            (self.client(), self.dice.one_of(&self.tools.clone()))
        else {
            return;
        };
        let method = if self.dice.below(3) == 0 { "tool.reject" } else { "tool.approve" };
        let scope = if self.dice.is_rare() { "session" } else { "once" };
        let params = json!({"sessionId": session, "toolCallId": tool, "scope": scope});
        self.world.ask(client, method, params);
    }

    fn talk(&mut self) {
        let Some(client) = self.client() else { return };
        if self.sessions.is_empty() {
            self.world.ask(client, "session.create", json!({"repoPath": "/repo"}));
        } else if let Some(session) = self.dice.one_of(&self.sessions) {
            let params = json!({"sessionId": session, "content": "go on"});
            self.world.ask(client, "session.sendMessage", params);
        }
        self.world.settle();
    }

    fn pair(&mut self) {
        let source = LOOPBACK;
        let owner = self.world.stranger(source);
        let token = self.world.token();
        self.world.ask(owner, "daemon.auth", json!({ "token": token }));
        let role = self.dice.one_of(&["read", "approve", "full", "admin"]);
        self.world.ask(owner, "daemon.pairPin", json!({ "role": role }));
        self.world.settle();
        self.clients.push(owner);
        self.learn();
        let device = self.world.stranger(source);
        let pin = self.pins.last().cloned();
        let params = json!({"pin": pin, "name": "phone", "platform": "android"});
        self.world.ask(device, "device.pair", params);
        self.clients.push(device);
    }

    fn raw(&mut self) {
        let Some(client) = self.client() else { return };
        if self.dice.below(3) == 0 {
            let len = usize::from(self.dice.byte());
            let text = String::from_utf8_lossy(self.dice.take(len)).into_owned();
            self.world.text(client.conn, &text);
        } else if let Some(text) = self.dice.one_of(NASTY) {
            self.world.text(client.conn, text);
        }
    }

    fn misbehave(&mut self) {
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

    /// Heads as they should not be.
    fn odd_head(&mut self) {
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

    fn script(&mut self) {
        let turns = 1 + self.dice.below(3);
        let script = (0..turns).map(|_| {
            let acts = 1 + self.dice.below(4);
            (0..acts).map(|_| self.act()).collect()
        });
        let script = script.collect();
        self.world.machine.scripts.push_back(script);
    }

    fn act(&mut self) -> Act {
        match self.dice.below(12) {
            0..=2 => Act::say("some words of an answer"),
            3..=6 => Act::bash("make"),
            7 => Act::Use { name: "Read".to_owned(), input: json!({"file_path": "/repo/a"}) },
            8 => Act::Wait(Duration::from_millis(u64::from(self.dice.byte()) * 20)),
            9 => {
                let len = usize::from(self.dice.byte());
                let mut bytes = self.dice.take(len).to_vec();
                bytes.push(b'\n');
                Act::Write(if len % 4 == 0 { Stream::Err } else { Stream::Out }, bytes)
            }
            10 => Act::Fail("overloaded".to_owned()),
            _ if self.dice.below(2) == 0 => Act::Hang,
            _ => Act::Crash(i32::from(self.dice.byte())),
        }
    }

    fn hold_or_release(&mut self) {
        self.is_held = !self.is_held;
        if self.is_held {
            self.world.hold_store();
        } else {
            self.world.release_store();
        }
    }

    fn disaster(&mut self) {
        match self.dice.below(8) {
            0 => {
                self.is_failing = !self.is_failing;
                self.world.fail_store(self.is_failing.then_some(StoreFault::Full));
            }
            1 => {
                let by = i64::from(self.dice.byte()) * 86_400_000;
                let sign = if self.dice.below(2) == 0 { 1 } else { -1 };
                self.world.skew(by * sign);
            }
            2 => self.world.advance(Duration::from_secs(60 * u64::from(self.dice.byte()))),
            3 => {
                let all = [Claude::Ready, Claude::LoggedOut, Claude::Missing, Claude::Unsafe];
                self.world.machine.claude = self.dice.one_of(&all).unwrap_or(Claude::Ready);
            }
            4 => {
                self.world.shut_down();
                self.world.advance(Duration::from_secs(60));
                self.world.restart();
            }
            _ => {
                let ways = [Crash::Lost, Crash::Done, Crash::Power];
                let how = self.dice.one_of(&ways).unwrap_or(Crash::Lost);
                self.world.crash(how);
                self.is_held = false;
            }
        }
    }

    /// The cast reads what came.
    fn learn(&mut self) {
        let clients = self.clients.clone();
        for client in clients {
            for frame in self.world.frames(client) {
                let value: Value = serde_json::from_str(&frame).unwrap_or_default();
                self.learn_from(&value);
            }
        }
    }

    fn learn_from(&mut self, frame: &Value) {
        let (result, params) = (&frame["result"], &frame["params"]);
        let text = |value: &Value| value.as_str().map(str::to_owned);
        if result["repoPath"].is_string() {
            self.sessions.extend(text(&result["id"]));
        }
        self.pins.extend(text(&result["pin"]));
        self.tokens.extend(text(&result["device_token"]));
        self.devices.extend(text(&result["device_id"]));
        if frame["method"] == "session.toolCallCreated" {
            let call = (text(&params["sessionId"]), text(&params["toolCall"]["id"]));
            if let (Some(session), Some(tool)) = call {
                self.tools.push((session, tool));
            }
        }
    }

    fn nothing_came_of_it(&mut self) {
        self.world.settle();
        if self.world.invariants().authenticated() > 0 {
            self.world.fail("a stranger got in");
        }
        if !self.world.store.db.devices.is_empty() || !self.world.store.db.sessions.is_empty() {
            self.world.fail("strangers changed what is stored");
        }
    }

    /// Everything is released and healed, everybody leaves, and nothing is left.
    fn wind_down(&mut self) {
        let world = &mut self.world;
        world.machine.claude = Claude::Ready;
        world.fail_store(None);
        world.release_questions();
        world.release_store();
        let room = world.limits().connections_max - 1;
        for (at, conn) in world.open_links().into_iter().enumerate() {
            if at < room {
                world.unstall(conn);
            } else {
                world.hang_up(conn);
            }
        }
        world.settle();
        let owner = world.owner_on(Source::Unix);
        for session in list(world, owner, "session.list") {
            let _ = world.call(owner, "session.cancel", json!({"sessionId": session["id"]}));
        }
        world.advance(Duration::from_secs(900));
        world.quiet();
        for conn in world.open_links() {
            world.hang_up(conn);
        }
        world.advance(Duration::from_secs(900));
        if world.children().any(|child| !child.is_gone) {
            world.fail("an agent outlived everybody");
        }
        let owner = world.owner_on(Source::Unix);
        let status = world.call(owner, "daemon.status", json!({})).unwrap_or_default();
        for (key, value) in [("connections", 1), ("pendingApprovals", 0), ("activeSessions", 0)] {
            if status[key] != value {
                world.fail(&format!("{key} should be {value} in the end: {status}"));
            }
        }
    }
}

fn list(world: &mut World, client: Client, method: &str) -> Vec<Value> {
    let all = world.call(client, method, json!({})).unwrap_or_default();
    all.as_array().cloned().unwrap_or_default()
}
