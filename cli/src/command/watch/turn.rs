//! One turn as it is seen: text to stdout as it streams, tools to stderr.
//!
//! Owns what was printed already; refuses to know connections and questions. The daemon sends the full text so far, so
//! only what is new is printed; a text that was replaced is printed again.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write as _};
use std::time::Instant;

use clawd_protocol::text::{visible, visible_line};
use serde_json::{Value, json};

use super::super::summary;
use crate::connection::Event;
use crate::exit::Failure;
use crate::render::Screen;
use crate::render::time;
use crate::wire::{Message, ToolCall};

/// What an event meant to the turn.
#[derive(Debug)]
pub(super) enum Seen {
    Nothing,
    /// This tool call waits for somebody.
    Asks(Box<ToolCall>),
    /// It waits no more.
    Decided(String),
    Over(Outcome),
}

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::command) enum Outcome {
    Ended,
    Failed(String),
    /// The whole session was deleted.
    Deleted,
    /// We went away and left it.
    Left,
}

/// What is known of the turn.
#[derive(Debug)]
pub(in crate::command) struct Turn<'a> {
    screen: &'a Screen,
    pub(in crate::command) session: String,
    started: Instant,
    is_running: bool,
    /// The answer ended as an error.
    is_broken: bool,
    /// The message that is being written, and what of it is on the screen.
    message: Option<(String, String)>,
    /// The cursor is somewhere in a line of text.
    is_in_line: bool,
    /// The person was asked for a prompt, on a line that is open still.
    is_prompted: bool,
    calls: BTreeMap<String, ToolCall>,
    asked: BTreeSet<String>,
    /// Messages that need not be shown any more.
    known: BTreeSet<String>,
    /// What was sent from here, by the names we gave it.
    own: BTreeSet<String>,
    /// Until our own message comes by, events are about an earlier turn.
    is_early: bool,
}

impl<'a> Turn<'a> {
    pub(super) fn new(screen: &'a Screen, session: String) -> Self {
        Self {
            screen,
            session,
            started: Instant::now(),
            is_running: false,
            is_broken: false,
            message: None,
            is_in_line: false,
            is_prompted: false,
            calls: BTreeMap::new(),
            asked: BTreeSet::new(),
            known: BTreeSet::new(),
            own: BTreeSet::new(),
            is_early: false,
        }
    }

    pub(in crate::command) fn took(&self) -> String {
        time::span(self.started.elapsed().as_secs())
    }

    /// There is a turn, whether or not its beginning will be told.
    pub(in crate::command) fn join(&mut self) {
        if !std::mem::replace(&mut self.is_running, true) {
            self.started = Instant::now();
        }
    }

    /// There is no turn any more; whether there was one.
    pub(super) fn leave(&mut self) -> Result<bool, Failure> {
        let was_running = self.is_running;
        self.end().map(|()| was_running)
    }

    /// Whether there is a turn.
    pub(in crate::command) const fn is_running(&self) -> bool {
        self.is_running
    }

    /// This message is on the screen already.
    pub(in crate::command) fn skip(&mut self, message: &str) {
        self.known.insert(message.to_owned());
    }

    /// A message is sent from here under this name.
    pub(super) fn own(&mut self, client_id: &str) {
        self.own.insert(client_id.to_owned());
    }

    /// Only what comes after our own message counts.
    pub(super) const fn wait_for_own(&mut self) {
        self.is_early = true;
    }

    /// All that comes from here on counts.
    pub(super) const fn wait_no_more(&mut self) {
        self.is_early = false;
    }

    /// Asks for a prompt.
    pub(in crate::command) fn prompt(&mut self) {
        self.break_line();
        let _ = write!(io::stderr().lock(), "> ");
        self.is_prompted = true;
    }

    /// What was typed has ended the line.
    pub(in crate::command) const fn on_typed(&mut self) {
        self.is_prompted = false;
    }

    pub(super) fn on_event(&mut self, event: &Event) -> Result<Seen, Failure> {
        let text = |key: &str| event.params.get(key).and_then(Value::as_str).unwrap_or_default();
        let message = event.params.get("message");
        let session = match message {
            Some(message) if text("sessionId").is_empty() => {
                message.get("sessionId").and_then(Value::as_str).unwrap_or_default()
            }
            Some(_) | None => text("sessionId"),
        };
        if session != self.session {
            return Ok(Seen::Nothing);
        }
        if self.is_before_ours(event) {
            return Ok(Seen::Nothing);
        }
        self.print_json(event)?;
        match event.method.as_str() {
            "session.messageCreated" => self.on_message(&parse(message))?,
            "session.messageUpdated" => {
                self.is_broken |= text("status") == "error";
                self.on_text(text("messageId"), text("content"))?;
            }
            "session.toolCallCreated" => {
                return Ok(self.on_tool_call(parse(event.params.get("toolCall"))));
            }
            "session.toolCallUpdated" => {
                return Ok(self.on_tool_status(text("toolCallId"), text("status")));
            }
            "tool.approvalRequested" => return Ok(self.on_asked(&event.params)),
            "tool.approvalResolved" => return Ok(Seen::Decided(text("toolCallId").to_owned())),
            "session.statusChanged" => return Ok(self.on_status(text("status"), text("reason"))),
            "session.deleted" => return Ok(Seen::Over(Outcome::Deleted)),
            _ => {}
        }
        Ok(Seen::Nothing)
    }

    fn is_before_ours(&mut self, event: &Event) -> bool {
        let name = event.params.pointer("/message/clientMessageId").and_then(Value::as_str);
        if name.is_some_and(|name| self.own.contains(name)) || event.method == "session.deleted" {
            self.is_early = false;
        }
        self.is_early
    }

    fn on_message(&mut self, message: &Message) -> Result<(), Failure> {
        let is_own = message.client_message_id.as_ref().is_some_and(|id| self.own.contains(id));
        match message.role.as_str() {
            "assistant" => self.on_text(&message.id, &message.content)?,
            "system" if !self.known.contains(&message.id) => self.on_remark(&message.content),
            "user" if !is_own && !self.known.contains(&message.id) => {
                self.on_remark(&format!("> {}", message.content));
            }
            _ => {}
        }
        Ok(())
    }

    fn print_json(&self, event: &Event) -> Result<(), Failure> {
        if !self.screen.is_json() {
            return Ok(());
        }
        let mut line = json!({"event": event.method});
        if let (Some(line), Some(params)) = (line.as_object_mut(), event.params.as_object()) {
            line.extend(params.clone());
        }
        self.screen.json_line(&line)
    }

    fn on_text(&mut self, id: &str, content: &str) -> Result<(), Failure> {
        if self.screen.is_json() || self.known.contains(id) {
            return Ok(());
        }
        let is_same = self.message.as_ref().is_some_and(|(message, _)| message == id);
        if !is_same {
            self.end_text()?;
            self.message = Some((id.to_owned(), String::new()));
        }
        let Some((_, printed)) = &mut self.message else { return Ok(()) };
        let addition = match content.strip_prefix(printed.as_str()) {
            Some(addition) => visible(addition).into_owned(),
            // An event that we were ahead of.
            None if printed.starts_with(content) => return Ok(()),
            None => format!("\n{}", visible(content)),
        };
        content.clone_into(printed);
        if !addition.is_empty() {
            self.leave_prompt();
            self.is_in_line = !addition.ends_with('\n');
            self.screen.print(&addition)?;
        }
        Ok(())
    }

    /// Text always ends with a newline, also in a pipe.
    fn end_text(&mut self) -> Result<(), Failure> {
        let has_text = self.message.take().is_some_and(|(_, printed)| !printed.is_empty());
        if has_text && std::mem::take(&mut self.is_in_line) {
            self.screen.print("\n")?;
        }
        Ok(())
    }

    /// Before anything else is shown. The newline belongs to the text only once it is over; until then it is for the eye.
    pub(in crate::command) fn break_line(&mut self) {
        self.leave_prompt();
        // A stdout that cannot be written to has said so already.
        let _ = if self.screen.is_tty && self.is_in_line && !self.screen.is_json() {
            self.is_in_line = false;
            self.screen.print("\n")
        } else {
            Ok(())
        };
    }

    fn leave_prompt(&mut self) {
        if std::mem::take(&mut self.is_prompted) {
            let _ = writeln!(io::stderr().lock());
        }
    }

    /// The turn is over: its text is whole, and what it asked is settled.
    fn end(&mut self) -> Result<(), Failure> {
        self.is_running = false;
        self.is_broken = false;
        if let Some((id, _)) = &self.message {
            self.known.insert(id.clone());
        }
        self.calls.clear();
        self.asked.clear();
        self.end_text()
    }

    fn on_remark(&mut self, content: &str) {
        self.break_line();
        self.screen.say(&self.screen.err.dim(&visible(content)));
    }

    fn on_tool_call(&mut self, call: ToolCall) -> Seen {
        let id = call.id.clone();
        let is_pending = call.status == "pending";
        self.calls.insert(id.clone(), call.clone());
        if is_pending {
            return self.ask(call);
        }
        self.show_call(&call);
        Seen::Nothing
    }

    fn on_tool_status(&mut self, id: &str, status: &str) -> Seen {
        match (status, self.calls.get(id).cloned()) {
            ("pending", Some(call)) => self.ask(call),
            ("running", Some(call)) if self.asked.contains(id) => {
                self.show_call(&call);
                Seen::Decided(id.to_owned())
            }
            ("done" | "error", _) => Seen::Decided(id.to_owned()),
            _ => Seen::Nothing,
        }
    }

    fn on_asked(&mut self, params: &Value) -> Seen {
        let call: ToolCall = parse(params.get("toolCall"));
        if call.id.is_empty() {
            return Seen::Nothing;
        }
        self.calls.insert(call.id.clone(), call.clone());
        self.ask(call)
    }

    /// Several events may say that the same call waits; it is asked about once.
    fn ask(&mut self, call: ToolCall) -> Seen {
        if self.asked.insert(call.id.clone()) { Seen::Asks(call.into()) } else { Seen::Nothing }
    }

    fn show_call(&mut self, call: &ToolCall) {
        self.break_line();
        let sign = if self.screen.err.utf8 { "⏺" } else { "*" };
        let line = format!("{sign} {} {}", visible_line(&call.name), summary(&call.input));
        self.screen.say(&self.screen.err.dim(line.trim_end()));
    }

    /// The turn has ended, or it failed for this reason.
    fn over(&mut self, failed: Option<&str>) -> Seen {
        let outcome = match failed {
            None => Outcome::Ended,
            Some("") => Outcome::Failed("the agent did not say why".to_owned()),
            Some(reason) => Outcome::Failed(reason.to_owned()),
        };
        Seen::Over(self.end().map_or(Outcome::Left, |()| outcome))
    }

    fn on_status(&mut self, status: &str, reason: &str) -> Seen {
        match status {
            "running" => self.join(),
            "error" => return self.over(Some(reason)),
            "idle" | "paused" if self.is_running => {
                let is_broken = self.is_broken;
                return self.over(is_broken.then_some(reason));
            }
            _ => {}
        }
        Seen::Nothing
    }
}

fn parse<T: Default + serde::de::DeserializeOwned>(value: Option<&Value>) -> T {
    value.and_then(|value| serde_json::from_value(value.clone()).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
