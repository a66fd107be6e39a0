//! Lines written by hand after what codex was seen to say, and a codex of the tests' own that answers to them.

mod anything;
mod leaving;
mod opening;
mod tools;
mod turns;

use super::Codex;
use crate::agent::dialect::{Dialect, Say};
use crate::agent::event::{AgentEvent, Outcome, TurnEnd};
use crate::agent::lane::{Lane, Opening};
use crate::contract::limits::Limits;
use crate::contract::record::Usage;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;
use serde_json::{Value, json};

const LANE: Lane = Lane(0);

/// A process, and what was said to it and told of it.
struct Desk {
    codex: Codex,
    said: Vec<Value>,
    told: Vec<(Option<Lane>, String)>,
}

impl Desk {
    fn new() -> Self {
        let mut desk =
            Self { codex: Codex::new(&Limits::default()), said: Vec::new(), told: Vec::new() };
        let hello = desk.codex.hello();
        desk.note(&hello);
        desk
    }

    /// A conversation `t1` that is open.
    fn open() -> Self {
        let mut desk = Self::new();
        desk.begin(LANE, None);
        desk.greet();
        desk.vet();
        desk.opened("t1");
        desk.clear();
        desk
    }

    /// A turn `u1` that is under way in it.
    fn turn() -> Self {
        let mut desk = Self::open();
        desk.prompt(LANE, "do it");
        desk.reply("turn/start", &json!({"turn": {"id": "u1"}}));
        desk.notify("turn/started", json!({"turn": {"id": "u1"}}));
        desk.clear();
        desk
    }

    fn note(&mut self, bytes: &[u8]) {
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.said.push(serde_json::from_slice(line).unwrap());
        }
    }

    fn clear(&mut self) {
        self.told.clear();
    }

    fn begin(&mut self, lane: Lane, resume: Option<&str>) {
        let opening = Opening {
            conversation: resume.unwrap_or_default(),
            resume: resume.is_some(),
            cwd: "/repo",
            model: None,
        };
        let bytes = self.codex.open(lane, &opening);
        self.note(&bytes);
    }

    fn say(&mut self, say: Say) {
        let bytes = self.codex.say(say);
        self.note(&bytes);
    }

    fn prompt(&mut self, lane: Lane, text: &str) {
        self.say(Say::Prompt { lane, text: text.into(), id: "m1".into() });
    }

    fn hear(&mut self, line: &Value) {
        self.hear_bytes(line.to_string().as_bytes());
    }

    fn hear_bytes(&mut self, line: &[u8]) {
        let mut out = Vec::new();
        let told = &mut self.told;
        self.codex.hear(line, &mut out, &mut |lane, event| told.push((lane, format!("{event:?}"))));
        self.note(&out);
    }

    /// The number of the last request of this method.
    fn asked(&self, method: &str) -> Value {
        let found = self.said.iter().rev().find(|line| line["method"] == method);
        found.unwrap_or_else(|| panic!("{method} was not said: {:?}", self.said))["id"].clone()
    }

    fn reply(&mut self, method: &str, result: &Value) {
        let id = self.asked(method);
        self.hear(&json!({"id": id, "result": result}));
    }

    fn refuse(&mut self, method: &str, why: &str) {
        let id = self.asked(method);
        self.hear(&json!({"error": {"code": -32600, "message": why}, "id": id}));
    }

    fn notify(&mut self, method: &str, mut params: Value) {
        params["threadId"] = json!("t1");
        self.hear(&json!({"method": method, "params": params}));
    }

    fn item(&mut self, what: &str, item: &Value) {
        self.notify(&format!("item/{what}"), json!({"item": item, "turnId": "u1"}));
    }

    fn request(&mut self, id: &Value, method: &str, mut params: Value) {
        params["threadId"] = json!("t1");
        self.hear(&json!({"method": method, "id": id, "params": params}));
    }

    fn greet(&mut self) {
        let agent = "clawd/0.169.0 (Debian 12.0.0; x86_64) dumb (clawd; 0.1.0)";
        self.reply("initialize", &json!({"codexHome": "/h", "userAgent": agent}));
    }

    /// Answers that nothing stands in the way.
    fn vet(&mut self) {
        self.reply("account/read", &json!({"account": {"type": "apiKey"}}));
        self.reply("config/read", &json!({"config": {"projects": {"/trusted": {}}}}));
        let missing = "No such file or directory (os error 2)";
        let asked = self.said.iter().filter(|line| line["method"] == "fs/readDirectory");
        let ids: Vec<Value> = asked.map(|line| line["id"].clone()).collect();
        for id in ids {
            self.hear(&json!({"error": {"code": -32603, "message": missing}, "id": id}));
        }
    }

    fn opened(&mut self, thread: &str) {
        let method = if self.said.iter().any(|line| line["method"] == "thread/resume") {
            "thread/resume"
        } else {
            "thread/start"
        };
        self.reply(method, &agreed(thread));
    }

    fn last(&self) -> &Value {
        self.said.last().unwrap()
    }

    /// The methods that were said since, in order.
    fn methods(&mut self) -> Vec<String> {
        let name = |line: Value| line["method"].as_str().unwrap_or("answer").to_string();
        self.said.drain(..).map(name).collect()
    }

    #[track_caller]
    fn tells(&mut self, expected: &[AgentEvent<'_>]) {
        let told: Vec<_> = self.told.drain(..).map(|(_, event)| event).collect();
        let told: Vec<_> = told.into_iter().filter(|event| event != "Ignored").collect();
        let expected: Vec<_> = expected.iter().map(|event| format!("{event:?}")).collect();
        assert_eq!(told, expected);
    }
}

fn agreed(thread: &str) -> Value {
    json!({"thread": {"id": thread}, "model": "gpt-5.5", "approvalPolicy": "untrusted",
        "approvalsReviewer": "user", "sandbox": {"type": "readOnly"}})
}

fn ended(outcome: Outcome, error: &'static str) -> AgentEvent<'static> {
    AgentEvent::TurnEnded(end(outcome, error))
}

fn end(outcome: Outcome, error: &'static str) -> TurnEnd<'static> {
    TurnEnd {
        outcome,
        api_status: None,
        retry_after_ms: None,
        error,
        usage: None,
        is_not_found: false,
        is_not_logged_in: false,
    }
}

fn command(id: &str, line: &str) -> Value {
    json!({"type": "commandExecution", "id": id, "command": line, "cwd": "/repo",
        "status": "inProgress", "aggregatedOutput": null, "exitCode": null})
}

const LS: &str = r#"{"command":"ls","cwd":"/repo","shell":"/bin/bash -lc"}"#;

fn ask_for_ls(desk: &mut Desk, id: &Value) {
    let params = json!({"kind": "command", "itemId": "c1", "environmentId": "local",
        "command": "/bin/bash -lc ls", "cwd": "/repo", "reason": "to look"});
    desk.request(id, "item/commandExecution/requestApproval", params);
}
