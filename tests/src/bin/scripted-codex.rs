//! `scripted-codex`: stands in for `codex app-server` in end-to-end tests, on machines that have no npm and no key.
//!
//! It speaks the same lines in the same order as codex was seen to do, one process for many conversations. What it does is
//! scripted by the prompt: each line of it is one step. It runs a command whenever it hears `accept`, however often and
//! whatever for: keeping it from that is the daemon's part.
//!
//! | step | what it does |
//! |---|---|
//! | `say TEXT` | answers TEXT |
//! | `tool CMD` | asks to run CMD and waits; runs it by `sh -c` if allowed |
//! | `ask-twice CMD` | asks for CMD and for another command, both under one id |
//! | `ask-more CMD` | asks for CMD and for rights beyond it |
//! | `ask-unnamed CMD` | asks for CMD without saying which call that is |
//! | `ask-late CMD` | is silent until interrupted, ends the turn, and asks for CMD then |
//! | `ask-die CMD` | asks to run CMD, and ends before any answer |
//! | `who` | says its process id |
#![cfg(unix)]

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, BufRead, Write};
use std::process::{Command, ExitCode, Stdio};

use serde_json::{Value, json};

/// A conversation.
#[derive(Debug, Default)]
struct Thread {
    cwd: String,
    turn: String,
    steps: VecDeque<String>,
    /// What is asked for once the turn was interrupted.
    late: Option<String>,
}

/// What was asked for, and by whom.
#[derive(Debug)]
struct Ask {
    thread: String,
    item: String,
    command: String,
    /// The turn goes on when it is answered.
    is_awaited: bool,
}

#[derive(Debug, Default)]
struct Codex {
    threads: BTreeMap<String, Thread>,
    asks: BTreeMap<u64, Ask>,
    count: u64,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match *words {
        ["--version"] => writeln!(io::stdout(), "codex-cli 0.170.0"),
        ["login", "status"] => Ok(()),
        ["app-server", ..] => Codex::default().serve(),
        _ => return ExitCode::from(2),
    };
    ExitCode::from(u8::from(done.is_err()))
}

/// One line on standard output, at once.
fn write(line: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

fn tell(method: &str, thread: &str, mut params: Value) -> io::Result<()> {
    params["threadId"] = json!(thread);
    write(&json!({"method": method, "params": params}))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl Codex {
    fn serve(&mut self) -> io::Result<()> {
        for line in io::stdin().lock().lines() {
            let line: Value = serde_json::from_str(&line?)?;
            match (line["method"].as_str(), line["id"].as_u64()) {
                (Some(method), Some(id)) => self.on_request(method, id, &line["params"])?,
                (None, Some(id)) => self.on_answer(id, &line)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn name(&mut self, kind: &str) -> String {
        self.count += 1;
        format!("{kind}_{}_{}", std::process::id(), self.count)
    }

    fn on_request(&mut self, method: &str, id: u64, params: &Value) -> io::Result<()> {
        let result = match method {
            "initialize" => json!({"codexHome": "/nowhere",
                "userAgent": "clawd/0.170.0 (Debian 12.0.0; x86_64) dumb (clawd; 0.1.0)"}),
            "account/read" => json!({"account": {"type": "apiKey"}}),
            "config/read" => json!({"config": {}}),
            "fs/readDirectory" => {
                let why = "No such file or directory (os error 2)";
                return write(&json!({"id": id, "error": {"code": -32603, "message": why}}));
            }
            "thread/start" | "thread/resume" => {
                let old = params["threadId"].as_str().map(str::to_owned);
                let name = old.unwrap_or_else(|| self.name("thread"));
                let thread = Thread { cwd: text(&params["cwd"]), ..Thread::default() };
                self.threads.insert(name.clone(), thread);
                json!({"thread": {"id": name}, "model": "gpt-5.5", "approvalPolicy": "untrusted",
                    "approvalsReviewer": "user", "sandbox": {"type": "readOnly"}})
            }
            "turn/start" => {
                let (name, turn) = (text(&params["threadId"]), self.name("turn"));
                write(&json!({"id": id, "result": {"turn": {"id": turn}}}))?;
                tell("turn/started", &name, json!({"turn": {"id": turn}}))?;
                let thread = self.threads.entry(name.clone()).or_default();
                let prompt = text(&params["input"][0]["text"]);
                thread.steps = prompt.lines().map(str::to_owned).collect();
                thread.turn = turn;
                return self.go_on(&name);
            }
            "turn/interrupt" => {
                write(&json!({"id": id, "result": {}}))?;
                return self.interrupt(&text(&params["threadId"]));
            }
            _ => json!({}),
        };
        write(&json!({"id": id, "result": result}))
    }

    /// Plays steps until one has to wait, or the turn is over.
    fn go_on(&mut self, name: &str) -> io::Result<()> {
        loop {
            let Some(thread) = self.threads.get_mut(name) else { return Ok(()) };
            let Some(step) = thread.steps.pop_front() else { break };
            let (word, rest) = step.split_once(' ').unwrap_or((&step, ""));
            match word {
                "say" => self.say(name, rest)?,
                "who" => self.say(name, &std::process::id().to_string())?,
                "tool" => return self.ask(name, rest, true, &json!({})).map(drop),
                "ask-twice" => return self.ask_twice(name, rest),
                "ask-more" => {
                    let more = json!({"additionalPermissions": {"network": {"enabled": true}}});
                    return self.ask(name, rest, true, &more).map(drop);
                }
                "ask-unnamed" => {
                    return self.ask(name, rest, true, &json!({"itemId": null})).map(drop);
                }
                "ask-late" => {
                    thread.late = Some(rest.to_owned());
                    return Ok(());
                }
                "ask-die" => {
                    self.ask(name, rest, true, &json!({}))?;
                    std::process::exit(1);
                }
                _ => self.say(name, &format!("you said: {step}"))?,
            }
        }
        self.end(name, "completed")
    }

    fn say(&mut self, name: &str, text: &str) -> io::Result<()> {
        let id = self.name("said");
        tell("item/agentMessage/delta", name, json!({"itemId": id, "delta": text}))?;
        let item = json!({"type": "agentMessage", "id": id, "text": text});
        tell("item/completed", name, json!({"item": item}))
    }

    fn end(&mut self, name: &str, status: &str) -> io::Result<()> {
        let turn = self.threads.get(name).map_or(Value::Null, |thread| json!(thread.turn));
        tell("turn/completed", name, json!({"turn": {"id": turn, "status": status, "error": null}}))
    }

    /// Asks for `command`; the id under which it does.
    fn ask(
        &mut self,
        name: &str,
        command: &str,
        is_awaited: bool,
        more: &Value,
    ) -> io::Result<u64> {
        let item = self.name("call");
        self.count += 1;
        let id = self.count;
        let ask = Ask {
            thread: name.to_owned(),
            item: item.clone(),
            command: command.to_owned(),
            is_awaited,
        };
        self.asks.insert(id, ask);
        self.ask_as(id, name, &item, command, more)?;
        Ok(id)
    }

    fn ask_as(
        &self,
        id: u64,
        name: &str,
        item: &str,
        command: &str,
        more: &Value,
    ) -> io::Result<()> {
        let Some(thread) = self.threads.get(name) else { return Ok(()) };
        let line = format!("/bin/bash -lc '{command}'");
        tell("item/started", name, json!({"item": call(item, &line, &thread.cwd, "inProgress")}))?;
        let mut params = json!({"kind": "command", "threadId": name, "turnId": thread.turn,
            "itemId": item, "environmentId": "local", "command": line, "cwd": thread.cwd});
        for (key, value) in more.as_object().into_iter().flatten() {
            params[key] = value.clone();
        }
        let method = "item/commandExecution/requestApproval";
        write(&json!({"method": method, "id": id, "params": params}))
    }

    fn ask_twice(&mut self, name: &str, command: &str) -> io::Result<()> {
        let id = self.ask(name, command, true, &json!({}))?;
        let other = self.name("call");
        self.ask_as(id, name, &other, &format!("{command}-too"), &json!({}))
    }

    fn on_answer(&mut self, id: u64, line: &Value) -> io::Result<()> {
        let Some(ask) = self.asks.get_mut(&id) else { return Ok(()) };
        let is_awaited = std::mem::take(&mut ask.is_awaited);
        let (name, item) = (ask.thread.clone(), ask.item.clone());
        let (command, decision) = (ask.command.clone(), &line["result"]["decision"]);
        let cwd = self.threads.get(&name).map(|thread| thread.cwd.clone()).unwrap_or_default();
        tell("serverRequest/resolved", &name, json!({"requestId": id}))?;
        let status = if decision == "accept" {
            let mut shell = Command::new("/bin/sh");
            shell.args(["-c", &command]).current_dir(&cwd).stdin(Stdio::null());
            shell.stdout(Stdio::null()).status()?;
            "completed"
        } else {
            "declined"
        };
        tell("item/completed", &name, json!({"item": call(&item, &command, &cwd, status)}))?;
        if is_awaited { self.go_on(&name) } else { Ok(()) }
    }

    fn interrupt(&mut self, name: &str) -> io::Result<()> {
        let Some(thread) = self.threads.get_mut(name) else { return Ok(()) };
        thread.steps.clear();
        let late = thread.late.take();
        for ask in self.asks.values_mut().filter(|ask| ask.thread == name) {
            ask.is_awaited = false;
        }
        self.end(name, "interrupted")?;
        late.map_or(Ok(()), |command| self.ask(name, &command, false, &json!({})).map(drop))
    }
}

fn call(item: &str, line: &str, cwd: &str, status: &str) -> Value {
    let code = if status == "completed" { json!(0) } else { Value::Null };
    json!({"type": "commandExecution", "id": item, "command": line, "cwd": cwd, "status": status,
        "aggregatedOutput": null, "exitCode": code})
}
