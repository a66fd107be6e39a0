//! `run`: one prompt, from the question to the end of the turn.
//!
//! Owns the loop that waits for the daemon, for Ctrl-C and for the person at the terminal at the same time; what is shown
//! of the turn is `turn`'s. Ctrl-C once interrupts the turn and keeps the session; twice, it leaves.

use std::collections::VecDeque;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;

use serde_json::{Value, json};
use signal_hook::consts::{SIGHUP, SIGINT};

use super::approve::{Question, Word};
use super::{session, typed};
use crate::args::Run as Args;
use crate::connection::{Connection, Event, Woken};
use crate::exit::{Exit, Failure};
use crate::home::Home;
use crate::interrupts::Interrupts;
use crate::render::Screen;
use crate::render::style::Mark;
use crate::wire::{Session, ToolCall};
use turn::{Outcome, Seen, Turn};

mod turn;

/// More than this the daemon would refuse anyway.
const PROMPT_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Long enough to know a session again by.
const TITLE_CHARS_MAX: usize = 60;

/// `run`.
pub(super) fn run(home: &Home, screen: &Screen, args: &Args) -> Result<Exit, Failure> {
    let prompt = prompt(&args.prompt)?;
    let mut daemon = home.connect()?;
    let title = Some(title(&prompt));
    let asked = [("provider", &args.provider), ("model", &args.model), ("title", &title)];
    let created: Session = typed(&session::create(&mut daemon, args.dir.as_deref(), &asked)?)?;
    let mut signals =
        Signals { interrupt: Interrupts::catch(&[SIGINT])?, hangup: Interrupts::catch(&[SIGHUP])? };
    let content = json!({"sessionId": created.id, "content": prompt});
    if let Err(failure) = daemon.call("session.sendMessage", content) {
        // Nothing was said in it: an empty session would only be in the way.
        let _ = daemon.call("session.delete", json!({"sessionId": created.id}));
        return Err(failure);
    }
    let mut conversation = Conversation {
        turn: Turn::new(screen, created.id.clone()),
        home,
        screen,
        daemon,
        waiting: VecDeque::new(),
        question: None,
        denied_unasked: false,
        interrupts: 0,
    };
    let outcome = conversation.listen(&mut signals)?;
    conversation.finish(outcome)
}

struct Signals {
    interrupt: Interrupts,
    hangup: Interrupts,
}

struct Conversation<'a> {
    turn: Turn<'a>,
    home: &'a Home,
    screen: &'a Screen,
    daemon: Connection,
    /// Tool calls that somebody must decide on, after the one that is asked about.
    waiting: VecDeque<ToolCall>,
    question: Option<Question>,
    /// A tool call was denied because there was nobody to ask.
    denied_unasked: bool,
    interrupts: usize,
}

impl Conversation<'_> {
    fn listen(&mut self, signals: &mut Signals) -> Result<Outcome, Failure> {
        loop {
            self.ask_next()?;
            let mut others = vec![signals.interrupt.as_fd(), signals.hangup.as_fd()];
            others.extend(self.question.as_ref().map(Question::as_fd));
            let woken = match self.daemon.wait(&others, None) {
                Ok(woken) => woken,
                Err(failure) if failure.exit == Exit::NotRunning => {
                    if let Some(outcome) = self.reconnect()? {
                        return Ok(outcome);
                    }
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            match woken {
                Woken::Event(event) => match self.turn.on_event(&event)? {
                    Seen::Nothing => {}
                    Seen::Asks(call) => self.waiting.push_back(call),
                    Seen::Decided(id) => self.on_decided(&id),
                    Seen::Over(outcome) => return Ok(outcome),
                },
                Woken::Answer(Err(error)) => {
                    let failure = Failure::from(error);
                    self.screen.note(Mark::Warn, &clawd_protocol::text::visible(&failure.message));
                }
                Woken::Answer(Ok(())) | Woken::Timeout => {}
                Woken::Other(0) => {
                    self.interrupts += signals.interrupt.take();
                    if self.interrupts > 1 {
                        return Ok(Outcome::Left);
                    }
                    self.interrupt()?;
                }
                Woken::Other(1) => {
                    self.deny_all()?;
                    return Ok(Outcome::Left);
                }
                Woken::Other(_) => {
                    if let Some(word) = self.question.as_mut().and_then(Question::read) {
                        self.decide(word)?;
                    }
                }
            }
        }
    }

    /// Puts the next open question; without a terminal, answers it with no.
    fn ask_next(&mut self) -> Result<(), Failure> {
        while self.question.is_none() && self.interrupts == 0 {
            let Some(call) = self.waiting.pop_front() else { return Ok(()) };
            self.turn.break_line();
            match Question::put(&call, self.screen.err) {
                Some(question) => self.question = Some(question),
                None => {
                    self.denied_unasked = true;
                    let name = clawd_protocol::text::visible_line(&call.name).into_owned();
                    let why = "denied: there is no terminal to ask on";
                    self.screen.note(Mark::Fail, &format!("{name} {why}"));
                    self.reject(&call.id, "the person who runs this cannot be asked")?;
                }
            }
        }
        Ok(())
    }

    fn decide(&mut self, word: Word) -> Result<(), Failure> {
        let Some(question) = self.question.take() else { return Ok(()) };
        let scope = match word {
            Word::Deny => {
                self.screen.note(Mark::Fail, &format!("{} denied", question.tool));
                return self.reject(&question.tool_call, "denied by the person at the terminal");
            }
            Word::Once => "once",
            Word::Session => "session",
        };
        self.daemon.start(
            "tool.approve",
            json!({
                "sessionId": self.turn.session,
                "toolCallId": question.tool_call,
                "scope": scope,
            }),
        )?;
        Ok(())
    }

    fn reject(&mut self, tool_call: &str, reason: &str) -> Result<(), Failure> {
        self.daemon.start(
            "tool.reject",
            json!({"sessionId": self.turn.session, "toolCallId": tool_call, "reason": reason}),
        )?;
        Ok(())
    }

    /// The terminal has gone, and with it whoever could have said yes.
    fn deny_all(&mut self) -> Result<(), Failure> {
        let asked = self.question.take().map(|question| question.tool_call);
        let waiting = std::mem::take(&mut self.waiting).into_iter().map(|call| call.id);
        for call in asked.into_iter().chain(waiting) {
            self.reject(&call, "the person who runs this has gone")?;
        }
        Ok(())
    }

    /// Somebody else was quicker, or time was up.
    fn on_decided(&mut self, id: &str) {
        self.waiting.retain(|call| call.id != id);
        if let Some(question) = self.question.take_if(|question| question.tool_call == id) {
            question.withdraw("this was decided elsewhere");
        }
    }

    fn interrupt(&mut self) -> Result<(), Failure> {
        self.waiting.clear();
        if let Some(question) = self.question.take() {
            question.withdraw("not decided");
        }
        self.turn.break_line();
        self.screen.say("interrupting the turn; Ctrl-C again to leave");
        self.daemon.start("session.cancel", json!({"sessionId": self.turn.session}))?;
        Ok(())
    }

    /// Carries on from the last event. If the turn ended meanwhile, that is the outcome.
    fn reconnect(&mut self) -> Result<Option<Outcome>, Failure> {
        self.turn.break_line();
        let dots = if self.screen.err.utf8 { "…" } else { "..." };
        let newline = if self.question.is_some() { "\n" } else { "" };
        self.screen.say(&format!("{newline}{dots} reconnecting (event {})", self.turn.seq));
        self.daemon = self.home.connect().map_err(|failure| self.lost(failure))?;
        let id = json!({"sessionId": self.turn.session});
        let now: Session = typed(&self.daemon.call("session.get", id)?)?;
        let ended = self.catch_up()?;
        if now.status != "running" {
            return Ok(Some(ended.unwrap_or(Outcome::Ended)));
        }
        self.ask_again()?;
        Ok(None)
    }

    /// What was said and asked while we were away: the last message has the full text so far. Says how the turn ended,
    /// if it ended badly.
    fn catch_up(&mut self) -> Result<Option<Outcome>, Failure> {
        let session = self.turn.session.clone();
        let page = json!({"sessionId": session, "limit": 1});
        let page = self.daemon.call("session.getMessages", page)?;
        let message = page.get(0).unwrap_or(&Value::Null);
        let params = json!({
            "sessionId": session, "messageId": message["id"], "content": message["content"],
        });
        if message["role"] == "assistant" {
            self.see("session.messageUpdated", params)?;
        }
        let calls = self.daemon.call("session.toolCalls", json!({"sessionId": session}))?;
        for call in calls.as_array().into_iter().flatten().filter(|it| it["status"] == "pending") {
            let params = json!({"sessionId": session, "toolCall": call});
            self.see("tool.approvalRequested", params)?;
        }
        let why = message["metadata"]["error"]["message"].as_str();
        Ok(why.map(|why| Outcome::Failed(why.to_owned())))
    }

    /// Takes something for an event that was missed.
    fn see(&mut self, method: &str, params: Value) -> Result<(), Failure> {
        let event = Event { method: method.to_owned(), params };
        if let Seen::Asks(call) = self.turn.on_event(&event)? {
            let asked = self.question.as_ref().map(|question| question.tool_call.clone());
            let waits = self.waiting.iter().any(|other| other.id == call.id);
            if !waits && asked.as_ref() != Some(&call.id) {
                self.waiting.push_back(call);
            }
        }
        Ok(())
    }

    fn ask_again(&mut self) -> Result<(), Failure> {
        match self.question.as_mut().and_then(|question| question.again("")) {
            Some(word) => self.decide(word),
            None => Ok(()),
        }
    }

    /// The daemon has gone in the middle of the turn.
    fn lost(&self, failure: Failure) -> Failure {
        if failure.kind != "not_running" {
            return failure;
        }
        let id = self.short_id();
        Failure::new(failure.exit, "not_running", "the daemon has ended in the middle of the turn")
            .hint(format!("start it with `clawd up`, then see `clawd session show {id}`"))
            .detail("sessionId", self.turn.session.as_str())
    }

    fn short_id(&self) -> String {
        self.turn.session.chars().take(8).collect()
    }

    fn finish(mut self, outcome: Outcome) -> Result<Exit, Failure> {
        self.turn.break_line();
        let id = self.short_id();
        let exit = match &outcome {
            Outcome::Left => Exit::Interrupted,
            Outcome::Ended if self.interrupts > 0 => Exit::Interrupted,
            Outcome::Failed(_) if self.interrupts > 0 => Exit::Interrupted,
            Outcome::Failed(_) => Exit::Turn,
            Outcome::Ended if self.denied_unasked => Exit::Turn,
            Outcome::Ended => Exit::Ok,
        };
        if let (Outcome::Failed(reason), Exit::Turn) = (&outcome, exit) {
            return Err(Failure::new(
                Exit::Turn,
                "turn_failed",
                format!("the turn failed: {reason}"),
            )
            .hint(format!("see `clawd session show {id}`"))
            .detail("sessionId", self.turn.session.as_str()));
        }
        if matches!(outcome, Outcome::Left) {
            self.screen.say(&format!("left it to itself; see `clawd session show {id}`"));
            return Ok(exit);
        }
        let answer = self.daemon.call("session.get", json!({"sessionId": self.turn.session}))?;
        let session: Session = typed(&answer)?;
        if self.screen.is_json() {
            let result = json!({"event": "result", "exit": exit.code(), "session": answer});
            self.screen.json_line(&result)?;
        }
        let dot = self.screen.err.dot();
        let (mark, word) = if exit == Exit::Interrupted {
            (Mark::Warn, "interrupted after")
        } else if self.denied_unasked {
            (Mark::Warn, "ended without what was denied, after")
        } else {
            (Mark::Ok, "done in")
        };
        self.screen.note(
            mark,
            &format!(
                "{word} {} {dot} {} {dot} session {id}",
                self.turn.took(),
                session::used(&session.usage, self.screen.err)
            ),
        );
        Ok(exit)
    }
}

/// The words of the command line; `-` alone is what stdin says.
fn prompt(words: &[String]) -> Result<String, Failure> {
    let prompt = match words {
        [dash] if dash == "-" => {
            let mut text = String::new();
            io::stdin()
                .take(PROMPT_BYTES_MAX)
                .read_to_string(&mut text)
                .map_err(|error| Failure::io("cannot read the prompt from stdin", &error))?;
            text
        }
        words => words.join(" "),
    };
    if prompt.trim().is_empty() {
        return Err(Failure::usage("the prompt is empty").hint("clawd run \"explain this repo\""));
    }
    Ok(prompt)
}

/// A session is called what was asked in it.
fn title(prompt: &str) -> String {
    let line = prompt.trim().lines().next().unwrap_or_default().trim();
    let cut: String = line.chars().take(TITLE_CHARS_MAX).collect();
    if cut.len() < line.len() { format!("{}…", cut.trim_end()) } else { cut }
}

/// A short word on a tool's input.
pub(super) fn summary(input: &Value) -> String {
    let key = ["command", "file_path", "path", "pattern", "url", "query", "description", "prompt"]
        .into_iter()
        .find_map(|key| input.get(key).and_then(Value::as_str));
    let text = match key {
        Some(text) => text.to_owned(),
        None if input.as_object().is_none_or(serde_json::Map::is_empty) => String::new(),
        None => input.to_string(),
    };
    let line: String = text.lines().next().unwrap_or_default().chars().take(100).collect();
    let more = if line.len() < text.len() { " …" } else { "" };
    format!("{}{more}", clawd_protocol::text::visible_line(&line))
}
