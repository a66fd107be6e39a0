//! A scripted agent: what the real one does with its standard input and output, one act after another. It speaks as claude
//! does; a process that was started as codex is, speaks as `codex` has it.
//!
//! Owns the course of turns, the questions and the count of what its tools really did; refuses to know the daemon. A
//! tool that asks does its work once, after `allow`, and never otherwise.
//!
//! ```text
//! script     what it is to do        dialect    how claude says so, as it was recorded from the real program
//! codex      all of that, for the other one
//! ```

mod codex;
mod dialect;
mod script;

use std::collections::{BTreeSet, VecDeque};

use clawd_protocol::{Command, Instant, Stream};
use serde_json::{Value, json};

use codex::Codex;
pub use script::{Act, Script};

/// Something that the agent did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// It wrote.
    Wrote(Stream, Vec<u8>),
    /// It ended.
    Exited(Option<i32>),
}

/// A question that waits for the daemon's answer.
#[derive(Debug, Clone)]
struct Asked {
    request: String,
    tool: String,
    input: Value,
}

/// One agent process.
#[derive(Debug)]
pub struct Child {
    /// How it was started.
    pub command: Command,
    /// Everything it was fed.
    pub fed: Vec<u8>,
    /// What its tools really did: tool-use id and input, in order.
    pub done: Vec<(String, Value)>,
    /// It was told to end.
    pub is_killed: bool,
    /// Its input was closed.
    pub is_finished: bool,
    /// It has ended.
    pub is_gone: bool,
    line: Vec<u8>,
    script: VecDeque<Vec<Act>>,
    turn: Option<VecDeque<Act>>,
    queued_turns: usize,
    asked: Option<Asked>,
    /// Every answer to a question: the request's id.
    pub answers: Vec<String>,
    is_hung: bool,
    wake_at: Option<Instant>,
    session: String,
    ids: u64,
    turns: u64,
    deeds: Vec<Deed>,
    /// It is a codex, and this is all that it is.
    codex: Option<Codex>,
}

impl Child {
    /// A process that will follow `script`; `number` makes its ids unlike another's, and these conversations were written
    /// down before it.
    #[must_use]
    pub fn new(
        command: Command,
        script: Script,
        number: u64,
        conversations: &BTreeSet<String>,
    ) -> Self {
        let after = |flag: &str| {
            let at = command.args.iter().position(|arg| arg == flag)?;
            command.args.get(at + 1).cloned()
        };
        let session = after("--session-id").or_else(|| after("--resume")).unwrap_or_default();
        let is_codex = command.args.first().is_some_and(|arg| arg == "app-server");
        let codex = is_codex.then(|| Codex::new(script.clone(), number, conversations.clone()));
        Self {
            command,
            fed: Vec::new(),
            done: Vec::new(),
            is_killed: false,
            is_finished: false,
            is_gone: false,
            line: Vec::new(),
            script: script.into(),
            turn: None,
            queued_turns: 0,
            asked: None,
            answers: Vec::new(),
            is_hung: false,
            wake_at: None,
            session,
            ids: number * 1_000,
            turns: 0,
            deeds: Vec::new(),
            codex,
        }
    }

    /// It speaks as codex does.
    #[must_use]
    pub const fn is_codex(&self) -> bool {
        self.codex.is_some()
    }

    /// Conversations that it has written down since the last time.
    pub fn begun(&mut self) -> Vec<String> {
        let news = self.codex.as_mut().map(|codex| &mut codex.news);
        news.map(|news| std::mem::take(&mut news.begun)).unwrap_or_default()
    }

    /// What a codex did has been done by the process.
    fn take_news(&mut self) {
        let Some(codex) = &mut self.codex else { return };
        let news = &mut codex.news;
        self.done.append(&mut news.done);
        self.answers.append(&mut news.answers);
        let (written, exit) = (std::mem::take(&mut news.written), news.exit);
        self.wake_at = codex.wake_at();
        for (stream, bytes) in written {
            self.write(stream, bytes);
        }
        if let Some(code) = exit {
            self.exit(Some(code));
        }
    }

    /// The conversation's id, as the daemon chose it.
    #[must_use]
    pub fn session(&self) -> &str {
        &self.session
    }

    /// The id of the request that waits for an answer.
    #[must_use]
    pub fn asks(&self) -> Option<String> {
        let asks = self.codex.as_ref().and_then(Codex::asks).map(|request| request.to_string());
        asks.or_else(|| self.asked.as_ref().map(|asked| asked.request.clone()))
    }

    /// When it will do something by itself.
    #[must_use]
    pub const fn wake_at(&self) -> Option<Instant> {
        self.wake_at
    }

    /// Takes what it did since the last time.
    pub fn deeds(&mut self) -> Vec<Deed> {
        std::mem::take(&mut self.deeds)
    }

    /// Ends at once, having written `message` to standard error.
    pub fn refuse(&mut self, message: &str) {
        self.write(Stream::Err, message.as_bytes().to_vec());
        self.exit(Some(1));
    }

    /// Reads its input.
    pub fn feed(&mut self, now: Instant, bytes: &[u8]) {
        self.fed.extend_from_slice(bytes);
        for byte in bytes {
            if *byte != b'\n' {
                self.line.push(*byte);
                continue;
            }
            let line = std::mem::take(&mut self.line);
            match serde_json::from_slice::<Value>(&line) {
                Ok(value) => match &mut self.codex {
                    Some(codex) => codex.hear(now, &value),
                    None => self.hear(&value),
                },
                Err(_) if line.is_empty() => {}
                Err(_) => self.refuse("Error parsing streaming input line\n"),
            }
        }
        self.run(now);
        self.take_news();
    }

    /// Its input ended.
    pub fn finish(&mut self, now: Instant) {
        self.is_finished = true;
        if let Some(codex) = &mut self.codex {
            codex.finish();
            return self.take_news();
        }
        if let Some(asked) = self.asked.take() {
            self.tool_result(&asked.tool, true, "Tool permission stream closed");
        }
        self.run(now);
    }

    /// It is killed, politely or not.
    pub fn kill(&mut self) {
        self.is_killed = true;
        self.exit(None);
    }

    /// Time has passed.
    pub fn wake(&mut self, now: Instant) {
        if self.wake_at.is_some_and(|at| at <= now) {
            self.wake_at = None;
            match &mut self.codex {
                Some(codex) => codex.wake(now),
                None => self.run(now),
            }
            self.take_news();
        }
    }

    fn hear(&mut self, message: &Value) {
        if self.is_hung || self.is_gone {
            return;
        }
        match message["type"].as_str() {
            Some("user") => self.queued_turns += 1,
            Some("control_request") => self.on_control(message),
            Some("control_response") => self.on_answer(&message["response"]),
            _ => {}
        }
    }

    fn on_control(&mut self, message: &Value) {
        let id = &message["request_id"];
        let response = json!({"subtype": "success", "request_id": id, "response": {}});
        self.say(&json!({"type": "control_response", "response": response}));
        if message["request"]["subtype"] == "interrupt" && self.turn.is_some() {
            if let Some(asked) = self.asked.take() {
                self.say(&json!({"type": "control_cancel_request", "request_id": asked.request}));
                self.tool_result(&asked.tool, true, "interrupted");
            }
            self.turn = None;
            self.wake_at = None;
            self.result(&json!({"subtype": "error_during_execution", "is_error": true,
                "terminal_reason": "aborted_streaming", "errors": ["interrupted"]}));
        }
    }

    fn on_answer(&mut self, response: &Value) {
        let request = response["request_id"].as_str().unwrap_or_default();
        self.answers.push(request.to_owned());
        let Some(asked) = self.asked.take_if(|asked| asked.request == request) else { return };
        let verdict = &response["response"];
        if response["subtype"] == "success" && verdict["behavior"] == "allow" {
            let input = verdict.get("updatedInput").unwrap_or(&asked.input).clone();
            self.done.push((asked.tool.clone(), input));
            self.tool_result(&asked.tool, false, "done");
        } else {
            let why = verdict["message"].as_str().unwrap_or("denied").to_owned();
            self.tool_result(&asked.tool, true, &why);
        }
    }

    fn run(&mut self, now: Instant) {
        while self.codex.is_none()
            && !self.is_gone
            && !self.is_hung
            && self.asked.is_none()
            && self.wake_at.is_none()
        {
            if let Some(turn) = &mut self.turn {
                match turn.pop_front() {
                    Some(act) => self.act(now, act),
                    None => self.end_turn(),
                }
            } else if self.queued_turns > 0 {
                self.begin_turn();
            } else {
                if self.is_finished {
                    self.exit(Some(0));
                }
                return;
            }
        }
    }

    fn begin_turn(&mut self) {
        self.queued_turns -= 1;
        self.turns += 1;
        self.turn = Some(self.script.pop_front().unwrap_or_else(|| vec![Act::say("ok")]).into());
        self.say(&json!({"type": "system", "subtype": "init", "cwd": self.command.cwd.clone(),
            "session_id": self.session.clone(), "tools": ["Bash", "Read"], "model": "claude-opus-5-5",
            "permissionMode": "default", "claude_code_version": "2.1.330",
            "apiKeySource": "ANTHROPIC_API_KEY"}));
    }

    fn end_turn(&mut self) {
        self.turn = None;
        self.result(&json!({"subtype": "success", "is_error": false,
            "terminal_reason": "completed", "result": "ok"}));
    }

    fn act(&mut self, now: Instant, act: Act) {
        match act {
            Act::Say(text) => self.speak(&text),
            Act::Ask { name, input } => {
                let tool = self.tool_use(&name, &input);
                let request = self.id("ask");
                self.say(&json!({"type": "control_request", "request_id": request,
                    "request": {"subtype": "can_use_tool", "tool_name": name,
                        "display_name": name, "input": input, "tool_use_id": tool}}));
                self.asked = Some(Asked { request, tool, input });
            }
            Act::Use { name, input } => {
                let tool = self.tool_use(&name, &input);
                self.tool_result(&tool, false, "contents");
            }
            Act::Write(stream, bytes) => self.write(stream, bytes),
            Act::Wait(time) => self.wake_at = Some(now + time),
            Act::Fail(text) => {
                self.turn = None;
                self.result(&json!({"subtype": "success", "is_error": true,
                    "terminal_reason": "api_error", "result": text, "api_error_status": 529}));
            }
            Act::Hang => self.is_hung = true,
            Act::Crash(code) => self.exit(Some(code)),
        }
    }

    fn write(&mut self, stream: Stream, bytes: Vec<u8>) {
        if !self.is_gone {
            self.deeds.push(Deed::Wrote(stream, bytes));
        }
    }

    fn exit(&mut self, code: Option<i32>) {
        if !self.is_gone {
            self.is_gone = true;
            self.deeds.push(Deed::Exited(code));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clawd_protocol::Env;

    fn child(turns: Script) -> Child {
        let args = ["--session-id", "s1"].map(str::to_owned).to_vec();
        let env = Env { inherit: &[], set: Vec::new() };
        let cwd = "/repo".to_owned();
        let repository = Some(cwd.clone());
        let command = Command { program: "claude".to_owned(), args, cwd, repository, env };
        Child::new(command, turns, 1, &BTreeSet::new())
    }

    fn said(child: &mut Child) -> Vec<Value> {
        let wrote = |deed: Deed| match deed {
            Deed::Wrote(_, bytes) => serde_json::from_slice(&bytes).ok(),
            Deed::Exited(_) => None,
        };
        child.deeds().into_iter().filter_map(wrote).collect()
    }

    fn feed(child: &mut Child, line: &Value) {
        child.feed(Instant::ZERO, format!("{line}\n").as_bytes());
    }

    #[test]
    fn a_tool_that_asks_works_once_and_only_after_leave() {
        for (behavior, deeds) in [("allow", 1), ("deny", 0), ("alow", 0)] {
            let mut child = child(vec![vec![Act::bash("make")]]);
            feed(&mut child, &json!({"type": "user"}));
            let asked = said(&mut child).pop().expect("it asks");
            assert_eq!(asked["request"]["subtype"], "can_use_tool");
            let response = json!({"subtype": "success", "request_id": asked["request_id"],
                "response": {"behavior": behavior}});
            for _ in 0..2 {
                feed(&mut child, &json!({"type": "control_response", "response": response}));
            }
            assert_eq!(child.done.len(), deeds, "{behavior}");
            assert_eq!(said(&mut child).pop().expect("it ends")["type"], "result");
        }
    }

    #[test]
    fn the_end_of_its_input_denies_what_it_asked_for() {
        let mut child = child(vec![vec![Act::bash("make")]]);
        feed(&mut child, &json!({"type": "user"}));
        child.finish(Instant::ZERO);
        assert!(child.done.is_empty() && child.is_gone);
    }

    #[test]
    fn a_hanging_agent_ends_only_when_it_is_killed() {
        let mut child = child(vec![vec![Act::Hang]]);
        feed(&mut child, &json!({"type": "user"}));
        child.finish(Instant::ZERO);
        assert!(!child.is_gone);
        child.kill();
        assert!(child.is_gone);
    }
}
