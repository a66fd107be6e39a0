//! A scripted codex: what the real `codex app-server` does with its standard input and output.
//!
//! Owns its conversations and the form of its lines, as they were recorded from the real program; refuses to know the
//! daemon. Each turn, in whichever conversation, takes the next list of acts. A command asks, always, and does its work
//! once, after `accept`, and never otherwise.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use clawd_protocol::{Instant, Stream};
use serde_json::{Value, json};

use super::script::{Act, Script};

/// What a process of codex remembers.
#[derive(Debug)]
pub(super) struct Codex {
    script: VecDeque<Vec<Act>>,
    threads: BTreeMap<String, Thread>,
    /// Conversations that were written down, by it or before it.
    known: BTreeSet<String>,
    ids: u64,
    requests: u64,
    is_hung: bool,
    /// What it did since it was last looked at.
    pub(super) news: News,
}

/// What a process did.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) written: Vec<(Stream, Vec<u8>)>,
    /// Calls that did their work, with their inputs.
    pub(super) done: Vec<(String, Value)>,
    /// Requests that were answered.
    pub(super) answers: Vec<String>,
    /// Conversations that were written down.
    pub(super) begun: Vec<String>,
    pub(super) exit: Option<i32>,
}

#[derive(Debug, Default)]
struct Thread {
    turn: Option<Turn>,
    turns: u64,
}

#[derive(Debug)]
struct Turn {
    id: String,
    acts: VecDeque<Act>,
    asked: Option<Asked>,
    wake_at: Option<Instant>,
}

/// A question that waits for the daemon's answer.
#[derive(Debug, Clone)]
struct Asked {
    request: u64,
    item: Value,
    input: Value,
}

impl Codex {
    /// A process that will follow `script`; `number` makes its ids unlike another's.
    pub(super) fn new(script: Script, number: u64, known: BTreeSet<String>) -> Self {
        Self {
            script: script.into(),
            threads: BTreeMap::new(),
            known,
            ids: number * 1_000,
            requests: 0,
            is_hung: false,
            news: News::default(),
        }
    }

    /// The request that waits for an answer.
    pub(super) fn asks(&self) -> Option<u64> {
        self.threads.values().find_map(|it| Some(it.turn.as_ref()?.asked.as_ref()?.request))
    }

    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.threads.values().filter_map(|it| it.turn.as_ref()?.wake_at).min()
    }

    /// Its input ended: so does it, even in the middle of a turn.
    pub(super) const fn finish(&mut self) {
        if !self.is_hung {
            self.news.exit = Some(0);
        }
    }

    /// Time has passed.
    pub(super) fn wake(&mut self, now: Instant) {
        for turn in self.threads.values_mut().filter_map(|thread| thread.turn.as_mut()) {
            turn.wake_at = turn.wake_at.filter(|at| *at > now);
        }
        self.run(now);
    }

    /// One line of its input.
    pub(super) fn hear(&mut self, now: Instant, message: &Value) {
        if self.is_hung || self.news.exit.is_some() {
            return;
        }
        match message["method"].as_str() {
            Some(method) if message["id"].is_u64() => {
                match self.on_request(method, &message["params"]) {
                    Ok(result) => self.say(&json!({"id": message["id"], "result": result})),
                    Err(why) => {
                        let error = json!({"code": -32600, "message": why});
                        self.say(&json!({"error": error, "id": message["id"]}));
                    }
                }
            }
            Some(_) => {}
            None => self.on_answer(message),
        }
        self.run(now);
    }

    fn on_request(&mut self, method: &str, params: &Value) -> Result<Value, String> {
        let thread = params["threadId"].as_str().unwrap_or_default().to_owned();
        match method {
            "initialize" => Ok(json!({"userAgent": "clawd/0.169.0 (Debian 12.0.0; x86_64) dumb",
                "codexHome": "/home/dev/.codex", "platformFamily": "unix", "platformOs": "linux"})),
            "account/read" => {
                Ok(json!({"account": {"type": "apiKey"}, "requiresOpenaiAuth": true}))
            }
            "config/read" => Ok(json!({"config": {"projects": null, "mcp_servers": {}}})),
            "thread/start" => {
                let id = self.id("thread");
                Ok(self.open(&id, params))
            }
            "thread/resume" if self.known.contains(&thread) => Ok(self.open(&thread, params)),
            "thread/resume" => Err(format!("no rollout found for thread id {thread}")),
            "turn/start" => self.start(&thread),
            "turn/interrupt" => self.interrupt(&thread, &params["turnId"]),
            "thread/backgroundTerminals/clean" | "thread/unsubscribe" => Ok(json!({})),
            _ => Err("No such file or directory (os error 2)".to_owned()),
        }
    }

    fn open(&mut self, id: &str, params: &Value) -> Value {
        self.threads.entry(id.to_owned()).or_default();
        json!({"thread": {"id": id, "status": {"type": "idle"}, "turns": []}, "model": "gpt-5.5",
            "approvalPolicy": params["approvalPolicy"],
            "approvalsReviewer": params["approvalsReviewer"],
            "sandbox": {"type": "readOnly", "networkAccess": false}})
    }

    fn start(&mut self, id: &str) -> Result<Value, String> {
        let turn = self.id("turn");
        let thread = self.threads.get_mut(id).ok_or_else(|| format!("thread not found: {id}"))?;
        if let Some(turn) = &thread.turn {
            return Ok(json!({"turn": {"id": turn.id, "status": "inProgress"}}));
        }
        thread.turns += 1;
        let acts = self.script.pop_front().unwrap_or_else(|| vec![Act::say("ok")]).into();
        thread.turn = Some(Turn { id: turn.clone(), acts, asked: None, wake_at: None });
        self.known.insert(id.to_owned());
        self.news.begun.push(id.to_owned());
        self.tell(id, "turn/started", json!({"turn": {"id": turn, "status": "inProgress"}}));
        Ok(json!({"turn": {"id": turn, "status": "inProgress", "error": null}}))
    }

    fn interrupt(&mut self, id: &str, turn: &Value) -> Result<Value, String> {
        let thread = self.threads.get_mut(id).ok_or("thread not found")?;
        let ended = thread.turn.take_if(|it| *turn == *it.id);
        let ended = ended.ok_or("no active turn to interrupt")?;
        self.completed(id, &ended.id, "interrupted", &Value::Null);
        if let Some(asked) = ended.asked {
            self.tell(id, "serverRequest/resolved", json!({"requestId": asked.request}));
        }
        Ok(json!({}))
    }

    fn on_answer(&mut self, message: &Value) {
        let Some(request) = message["id"].as_u64() else { return };
        self.news.answers.push(request.to_string());
        let found = self.threads.iter_mut().find_map(|(id, thread)| {
            let turn = thread.turn.as_mut()?;
            let asked = turn.asked.take_if(|asked| asked.request == request)?;
            Some((id.clone(), asked))
        });
        let Some((id, mut asked)) = found else { return };
        self.tell(&id, "serverRequest/resolved", json!({"requestId": request}));
        let is_accepted = message["result"]["decision"] == "accept";
        if is_accepted {
            let call = asked.item["id"].as_str().unwrap_or_default().to_owned();
            self.news.done.push((call, asked.input));
            asked.item["status"] = json!("completed");
            asked.item["exitCode"] = json!(0);
            asked.item["aggregatedOutput"] = json!("done");
        } else {
            let is_refused = message["error"].is_object();
            asked.item["status"] = json!(if is_refused { "failed" } else { "declined" });
        }
        self.tell(&id, "item/completed", json!({ "item": asked.item }));
    }

    fn run(&mut self, now: Instant) {
        loop {
            let is_free = |turn: &Turn| turn.asked.is_none() && turn.wake_at.is_none();
            let mut free = self.threads.iter_mut().filter_map(|(id, thread)| {
                let turn = thread.turn.as_mut().filter(|turn| is_free(turn))?;
                Some((id.clone(), turn.acts.pop_front()))
            });
            if self.is_hung || self.news.exit.is_some() {
                return;
            }
            let Some((id, act)) = free.next() else { return };
            match act {
                Some(act) => self.act(now, &id, act),
                None => self.end(&id, "completed", &Value::Null),
            }
        }
    }

    fn act(&mut self, now: Instant, id: &str, act: Act) {
        match act {
            Act::Say(text) => self.speak(id, &text),
            Act::Ask { name, input } => self.ask(id, &name, &input),
            Act::Use { input, .. } => {
                let mut item = json!({"type": "imageView", "id": self.id("call")});
                item["path"] = input["file_path"].clone();
                self.tell(id, "item/started", json!({ "item": item }));
                self.tell(id, "item/completed", json!({ "item": item }));
            }
            Act::Write(stream, bytes) => self.news.written.push((stream, bytes)),
            Act::Wait(time) => {
                let turn = self.threads.get_mut(id).and_then(|thread| thread.turn.as_mut());
                if let Some(turn) = turn {
                    turn.wake_at = Some(now + time);
                }
            }
            Act::Fail(text) => {
                let error = json!({"message": text, "codexErrorInfo": "serverOverloaded"});
                self.tell(id, "error", json!({"error": error, "willRetry": false}));
                self.end(id, "failed", &error);
            }
            Act::Hang => self.is_hung = true,
            Act::Crash(code) => self.news.exit = Some(code),
        }
    }

    fn speak(&mut self, id: &str, text: &str) {
        let mut item = json!({"type": "agentMessage", "id": self.id("msg"), "text": ""});
        self.tell(id, "item/started", json!({ "item": item }));
        for word in text.split_inclusive(' ') {
            let delta = json!({"itemId": item["id"], "delta": word});
            self.tell(id, "item/agentMessage/delta", delta);
        }
        item["text"] = json!(text);
        self.tell(id, "item/completed", json!({ "item": item }));
    }

    /// Commands and patches ask for leave, anything else is a question.
    fn ask(&mut self, id: &str, name: &str, input: &Value) {
        let (call, cwd) = (self.id("call"), "/repo");
        let (method, item, params, input) = match name {
            "Bash" => {
                let script = input["command"].as_str().unwrap_or_default();
                let line = format!("/bin/bash -lc '{}'", script.replace('\'', "'\"'\"'"));
                let item = json!({"type": "commandExecution", "id": call, "command": line,
                    "cwd": cwd, "status": "inProgress", "aggregatedOutput": null, "exitCode": null});
                let params = json!({"kind": "command", "itemId": call, "command": line, "cwd": cwd,
                    "environmentId": "local"});
                let input = json!({"command": script, "cwd": cwd, "shell": "/bin/bash -lc"});
                ("item/commandExecution/requestApproval", item, params, input)
            }
            "ApplyPatch" => {
                let changes = &input["changes"];
                let item = json!({"type": "fileChange", "id": call, "changes": changes,
                    "status": "inProgress"});
                let params = json!({"itemId": call, "reason": null, "grantRoot": null});
                ("item/fileChange/requestApproval", item, params, input.clone())
            }
            _ => {
                let params = json!({"itemId": call, "questions": [], "isBlocking": true});
                (
                    "item/tool/requestUserInput",
                    json!({"type": "plan", "id": call}),
                    params,
                    json!({}),
                )
            }
        };
        self.tell(id, "item/started", json!({ "item": item }));
        let request = self.requests;
        self.requests += 1;
        let mut params = params;
        params["threadId"] = json!(id);
        self.say(&json!({"method": method, "id": request, "params": params}));
        if let Some(turn) = self.threads.get_mut(id).and_then(|thread| thread.turn.as_mut()) {
            turn.asked = Some(Asked { request, item, input });
        }
    }

    /// Usage is the conversation's.
    fn end(&mut self, id: &str, status: &str, error: &Value) {
        let Some(thread) = self.threads.get_mut(id) else { return };
        let Some(turn) = thread.turn.take() else { return };
        let total = json!({"totalTokens": 120 * thread.turns, "inputTokens": 100 * thread.turns,
            "outputTokens": 20 * thread.turns});
        let usage = json!({"tokenUsage": {"total": total, "modelContextWindow": 258_400}});
        self.tell(id, "thread/tokenUsage/updated", usage);
        self.completed(id, &turn.id, status, error);
    }

    fn completed(&mut self, id: &str, turn: &str, status: &str, error: &Value) {
        self.tell(id, "thread/status/changed", json!({"status": {"type": "idle"}}));
        let turn = json!({"id": turn, "items": [], "status": status, "error": error});
        self.tell(id, "turn/completed", json!({ "turn": turn }));
    }

    fn tell(&mut self, id: &str, method: &str, mut params: Value) {
        params["threadId"] = json!(id);
        self.say(&json!({"method": method, "params": params}));
    }

    fn say(&mut self, line: &Value) {
        self.news.written.push((Stream::Out, format!("{line}\n").into_bytes()));
    }

    fn id(&mut self, prefix: &str) -> String {
        self.ids += 1;
        format!("{prefix}_{}", self.ids)
    }
}
