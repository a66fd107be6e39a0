//! A session watched from a terminal, while others may drive it too.
//!
//! Owns the loop that waits for the daemon, for Ctrl-C and for the person at the terminal at the same time, the questions
//! about tools, and the way back after a lost connection; what is shown of a turn is `turn`'s. Refuses to know when to
//! end: [`Watch::next`] says what happened, and `run`, `send --wait` and `attach` each draw their own conclusion.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd as _, BorrowedFd};

use clawd_protocol::text::visible;
use serde_json::{Value, json};
use signal_hook::consts::{SIGHUP, SIGINT};

use super::question::{Question, Word};
use super::send::Outgoing;
use super::{session, typed};
use crate::connection::{Connection, Event, Woken};
use crate::exit::{Exit, Failure};
use crate::home::Home;
use crate::interrupts::Interrupts;
use crate::render::Screen;
use crate::render::style::Mark;
use crate::wire::{Session, ToolCall};
use turn::{Seen, Turn};

pub(super) use turn::Outcome;

mod asking;
mod turn;

/// So many connections in a row may be lost in the middle of one call.
const REDIALS_MAX: usize = 3;

/// A decision, and what the agent is told if it is a no.
type Told = (Word, &'static str);

/// What waiting came to.
#[derive(Debug)]
pub(super) enum Step {
    /// The turn is over.
    Over(Outcome),
    /// Ctrl-C.
    Interrupt,
    /// The terminal has gone.
    HungUp,
    /// There is something to read from the person.
    Typed,
}

/// One session and its watcher.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    pub(super) turn: Turn<'a>,
    pub(super) daemon: Connection,
    /// Ctrl-C so many times since the turn began.
    pub(super) interrupts: usize,
    home: &'a Home,
    screen: &'a Screen,
    /// Tool calls that somebody must decide on, after the one that is asked about.
    waiting: VecDeque<ToolCall>,
    question: Option<Question>,
    /// What was decided here and not confirmed, by tool call: on a lost connection it may be lost too.
    told: BTreeMap<String, Told>,
    /// A tool call was denied because there was nobody to ask.
    denied_unasked: bool,
    interrupt: Interrupts,
    hangup: Interrupts,
}

impl<'a> Watch<'a> {
    /// From now on Ctrl-C is ours to hear.
    pub(super) fn new(
        home: &'a Home,
        screen: &'a Screen,
        daemon: Connection,
        session: &str,
    ) -> Result<Self, Failure> {
        Ok(Self {
            turn: Turn::new(screen, session.to_owned()),
            daemon,
            interrupts: 0,
            home,
            screen,
            waiting: VecDeque::new(),
            question: None,
            told: BTreeMap::new(),
            denied_unasked: false,
            interrupt: Interrupts::catch(&[SIGINT])?,
            hangup: Interrupts::catch(&[SIGHUP])?,
        })
    }

    /// Waits for something that the caller must know. `typing` is not read while a question is open: then the keys are
    /// its answer (security K2).
    pub(super) fn next(&mut self, typing: Option<BorrowedFd<'_>>) -> Result<Step, Failure> {
        loop {
            self.ask_next()?;
            let mut others = vec![self.interrupt.as_fd(), self.hangup.as_fd()];
            others.extend(self.question.as_ref().map_or(typing, |question| Some(question.as_fd())));
            let woken = match self.daemon.wait(&others, None) {
                Ok(woken) => woken,
                Err(failure) if failure.exit == Exit::NotRunning => {
                    self.reconnect()?;
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            match woken {
                Woken::Event(event) => {
                    if let Some(outcome) = self.on_event(&event)? {
                        return Ok(Step::Over(outcome));
                    }
                }
                Woken::Answer(Err(error)) => {
                    let failure = Failure::from(error);
                    self.screen.note(Mark::Warn, &visible(&failure.message));
                }
                Woken::Answer(Ok(())) | Woken::Timeout => {}
                Woken::Other(0) => {
                    self.interrupts += self.interrupt.take();
                    return Ok(Step::Interrupt);
                }
                Woken::Other(1) => {
                    self.hangup.take();
                    return Ok(Step::HungUp);
                }
                Woken::Other(_) => match self.question.as_mut() {
                    None => return Ok(Step::Typed),
                    Some(question) => {
                        if let Some(word) = question.read() {
                            self.decide(word)?;
                        }
                    }
                },
            }
        }
    }

    fn on_event(&mut self, event: &Event) -> Result<Option<Outcome>, Failure> {
        if event.method == "events.reset" {
            return self.rejoin();
        }
        match self.turn.on_event(event)? {
            Seen::Nothing => {}
            Seen::Asks(call) => self.waiting.push_back(*call),
            Seen::Decided(id) => self.on_decided(&id),
            Seen::Over(outcome) => return Ok(Some(outcome)),
        }
        Ok(None)
    }

    /// Ends the turn, and what it asks.
    pub(super) fn cancel(&mut self, next: &str) -> Result<(), Failure> {
        self.waiting.clear();
        if let Some(question) = self.question.take() {
            question.withdraw("not decided");
        }
        self.turn.break_line();
        self.screen.say(&format!("interrupting the turn; Ctrl-C again to {next}"));
        self.daemon.start("session.cancel", json!({"sessionId": self.turn.session}))?;
        Ok(())
    }

    /// Says something in the session. Sent again after a lost connection it is still one message.
    pub(super) fn deliver(&mut self, content: &str) -> Result<(), Failure> {
        let message = Outgoing::new(&self.turn.session, content)?;
        self.turn.own(&message.client_id);
        self.insist(|daemon| message.send(daemon))?;
        self.turn.join();
        Ok(())
    }

    /// Makes a call that may be made twice: if the connection is lost meanwhile, on the next one again.
    fn insist(
        &mut self,
        call: impl Fn(&mut Connection) -> Result<Value, Failure>,
    ) -> Result<Value, Failure> {
        for _ in 0..REDIALS_MAX {
            match call(&mut self.daemon) {
                Err(failure) if failure.exit == Exit::NotRunning => self.dial()?,
                answer => return answer,
            }
        }
        call(&mut self.daemon)
    }

    fn look(&mut self, method: &str, params: &Value) -> Result<Value, Failure> {
        self.insist(|daemon| daemon.call(method, params))
    }

    /// Carries on after the last event.
    fn reconnect(&mut self) -> Result<(), Failure> {
        self.dial()?;
        self.tell_again()?;
        if self.interrupts > 0 && self.turn.is_running() {
            self.daemon.start("session.cancel", json!({"sessionId": self.turn.session}))?;
        }
        self.ask_again()
    }

    fn dial(&mut self) -> Result<(), Failure> {
        self.turn.break_line();
        let dots = if self.screen.err.utf8 { "…" } else { "..." };
        let newline = if self.question.is_some() { "\n" } else { "" };
        self.screen.say(&format!("{newline}{dots} reconnecting (event {})", self.daemon.seq()));
        let from = self.daemon.bookmark();
        let found = match &self.home.away {
            None => self.home.resume(from).map(Some),
            // A network that has gone may come back, or another one lead there.
            Some(_) => self.home.resume_patiently(from.as_ref(), &mut self.interrupt),
        };
        let Some(mut daemon) = found.map_err(|failure| self.lost(failure))? else {
            let id = self.short_id();
            return Err(Failure::new(Exit::Interrupted, "interrupted", "left it to itself")
                .hint(format!("see `clawd session show {id}`")));
        };
        daemon.follow(&mut self.daemon);
        self.daemon = daemon;
        Ok(())
    }

    /// The daemon cannot tell what was missed: the present is read instead. If the turn has ended meanwhile, says how.
    fn rejoin(&mut self) -> Result<Option<Outcome>, Failure> {
        self.turn.wait_no_more();
        let id = json!({"sessionId": self.turn.session});
        let now: Session = typed(&self.look("session.get", &id)?)?;
        let ended = self.catch_up()?;
        if now.status != "running" {
            let was_running = self.turn.leave()?;
            return Ok(was_running.then(|| ended.unwrap_or(Outcome::Ended)));
        }
        self.turn.join();
        self.ask_again()?;
        Ok(None)
    }

    /// What was said and asked while we were away: the last message has the full text so far. Says how the turn ended,
    /// if it ended badly.
    pub(super) fn catch_up(&mut self) -> Result<Option<Outcome>, Failure> {
        let session = self.turn.session.clone();
        let page = json!({"sessionId": session, "limit": 1});
        let page = self.look("session.getMessages", &page)?;
        let message = page.get(0).unwrap_or(&Value::Null);
        let params = json!({
            "sessionId": session, "messageId": message["id"], "content": message["content"],
        });
        if message["role"] == "assistant" {
            self.see("session.messageUpdated", params)?;
        }
        let calls = self.look("session.toolCalls", &json!({"sessionId": session}))?;
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
                self.waiting.push_back(*call);
            }
        }
        Ok(())
    }

    /// The daemon has gone in the middle of the turn.
    fn lost(&self, failure: Failure) -> Failure {
        // One that is just going away may still take a connection, to drop it.
        if self.home.away.is_some() || !matches!(&*failure.kind, "not_running" | "unreachable") {
            return failure.detail("sessionId", self.turn.session.as_str());
        }
        let id = self.short_id();
        Failure::new(failure.exit, "not_running", "the daemon has ended in the middle of the turn")
            .hint(format!("start it with `clawd up`, then see `clawd session show {id}`"))
            .detail("sessionId", self.turn.session.as_str())
    }

    /// Enough of the session's id to type.
    pub(super) fn short_id(&self) -> String {
        self.turn.session.chars().take(8).collect()
    }

    /// Says something and watches the turn that comes of it to its end. Ctrl-C once ends the turn and keeps the session; twice, it leaves.
    pub(super) fn one_turn(mut self, content: &str) -> Result<Exit, Failure> {
        self.turn.wait_for_own();
        self.deliver(content)?;
        let outcome = loop {
            match self.next(None)? {
                Step::Over(outcome) => break outcome,
                Step::Interrupt if self.interrupts > 1 => break Outcome::Left,
                Step::Interrupt => self.cancel("leave")?,
                Step::HungUp => {
                    self.deny_all()?;
                    break Outcome::Left;
                }
                Step::Typed => {}
            }
        };
        self.finish(&outcome)
    }

    fn finish(mut self, outcome: &Outcome) -> Result<Exit, Failure> {
        self.turn.break_line();
        let id = self.short_id();
        let exit = match outcome {
            Outcome::Left => Exit::Interrupted,
            Outcome::Deleted => Exit::Turn,
            Outcome::Ended | Outcome::Failed(_) if self.interrupts > 0 => Exit::Interrupted,
            Outcome::Failed(_) => Exit::Turn,
            Outcome::Ended if self.denied_unasked => Exit::Turn,
            Outcome::Ended => Exit::Ok,
        };
        let failed =
            |why: &str| Failure::new(Exit::Turn, "turn_failed", format!("the turn failed: {why}"));
        match (outcome, exit) {
            (Outcome::Deleted, _) => return Err(failed("the session was deleted")),
            (Outcome::Failed(reason), Exit::Turn) => {
                return Err(failed(reason)
                    .hint(format!("see `clawd session show {id}`"))
                    .detail("sessionId", self.turn.session.as_str()));
            }
            (Outcome::Left, _) => {
                self.screen.say(&format!("left it to itself; see `clawd session show {id}`"));
                return Ok(exit);
            }
            (Outcome::Failed(_) | Outcome::Ended, _) => {}
        }
        let answer = self.look("session.get", &json!({"sessionId": self.turn.session}))?;
        if self.screen.is_json() {
            let result = json!({"event": "result", "exit": exit.code(), "session": answer});
            self.screen.json_line(&result)?;
        }
        let (mark, word) = if exit == Exit::Interrupted {
            (Mark::Warn, "interrupted after")
        } else if self.denied_unasked {
            (Mark::Warn, "ended without what was denied, after")
        } else {
            (Mark::Ok, "done in")
        };
        self.say_use(mark, word, &typed(&answer)?);
        Ok(exit)
    }

    /// `✓ done in 3s · 31k tokens · session 7f3a11b2`.
    pub(super) fn say_use(&self, mark: Mark, word: &str, session: &Session) {
        let dot = self.screen.err.dot();
        let (took, used) = (self.turn.took(), session::used(&session.usage, self.screen.err));
        let id = self.short_id();
        self.screen.note(mark, &format!("{word} {took} {dot} {used} {dot} session {id}"));
    }
}
