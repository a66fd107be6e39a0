//! One turn as it is seen: text to stdout as it streams, tools to stderr.
//!
//! Owns what was printed already; refuses to know connections and questions. The daemon sends the full text so far, so
//! only what is new is printed; a text that was replaced is printed again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use clawd_protocol::text::{visible, visible_line};
use serde_json::{Value, json};

use super::summary;
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
    Asks(ToolCall),
    /// It waits no more.
    Decided(String),
    Over(Outcome),
}

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Ended,
    Failed(String),
    /// We went away and left it.
    Left,
}

/// What is known of the turn.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    screen: &'a Screen,
    pub(super) session: String,
    /// The last event's number.
    pub(super) seq: u64,
    started: Instant,
    is_running: bool,
    /// The message that is being written, and what of it is on the screen.
    message: Option<(String, String)>,
    /// The cursor is somewhere in a line of text.
    is_in_line: bool,
    calls: BTreeMap<String, ToolCall>,
    asked: BTreeSet<String>,
}

impl<'a> Turn<'a> {
    pub(super) fn new(screen: &'a Screen, session: String) -> Self {
        Self {
            screen,
            session,
            seq: 0,
            started: Instant::now(),
            is_running: false,
            message: None,
            is_in_line: false,
            calls: BTreeMap::new(),
            asked: BTreeSet::new(),
        }
    }

    pub(super) fn took(&self) -> String {
        time::span(self.started.elapsed().as_secs())
    }

    pub(super) fn on_event(&mut self, event: &Event) -> Result<Seen, Failure> {
        if let Some(seq) = event.params.get("seq").and_then(Value::as_u64) {
            self.seq = self.seq.max(seq);
        }
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
        self.print_json(event)?;
        match event.method.as_str() {
            "session.messageCreated" => {
                let message: Message = parse(message);
                match message.role.as_str() {
                    "assistant" => self.on_text(&message.id, &message.content)?,
                    "system" => self.on_remark(&message.content),
                    _ => {}
                }
            }
            "session.messageUpdated" => self.on_text(text("messageId"), text("content"))?,
            "session.toolCallCreated" => {
                return Ok(self.on_tool_call(parse(event.params.get("toolCall"))));
            }
            "session.toolCallUpdated" => {
                return Ok(self.on_tool_status(text("toolCallId"), text("status")));
            }
            "tool.approvalRequested" => return Ok(self.on_asked(&event.params)),
            "tool.approvalResolved" => return Ok(Seen::Decided(text("toolCallId").to_owned())),
            "session.statusChanged" => return Ok(self.on_status(text("status"), text("reason"))),
            "session.deleted" => {
                return Ok(Seen::Over(Outcome::Failed("the session was deleted".to_owned())));
            }
            _ => {}
        }
        Ok(Seen::Nothing)
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
        if self.screen.is_json() {
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
            None => format!("\n{}", visible(content)),
        };
        content.clone_into(printed);
        if !addition.is_empty() {
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
    pub(super) fn break_line(&mut self) {
        // A stdout that cannot be written to has said so already.
        let _ = if self.screen.is_tty && self.is_in_line && !self.screen.is_json() {
            self.is_in_line = false;
            self.screen.print("\n")
        } else {
            Ok(())
        };
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
        if self.asked.insert(call.id.clone()) { Seen::Asks(call) } else { Seen::Nothing }
    }

    fn show_call(&mut self, call: &ToolCall) {
        self.break_line();
        let sign = if self.screen.err.utf8 { "⏺" } else { "*" };
        let line = format!("{sign} {} {}", visible_line(&call.name), summary(&call.input));
        self.screen.say(&self.screen.err.dim(line.trim_end()));
    }

    fn on_status(&mut self, status: &str, reason: &str) -> Seen {
        match status {
            "running" => self.is_running = true,
            "error" => {
                let reason = if reason.is_empty() { "the agent did not say why" } else { reason };
                return Seen::Over(Outcome::Failed(reason.to_owned()));
            }
            "idle" | "paused" if self.is_running => {
                let ended = self.end_text();
                return Seen::Over(ended.map_or(Outcome::Left, |()| Outcome::Ended));
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
mod tests {
    use super::*;

    fn event(method: &str, params: Value) -> Event {
        Event { method: method.to_owned(), params }
    }

    fn tool_call(status: &str) -> Value {
        json!({"id": "t1", "name": "Bash", "input": {"command": "ls"}, "status": status})
    }

    #[test]
    fn a_call_that_waits_is_asked_about_once_and_withdrawn_when_decided() {
        let screen = Screen::bare(true);
        let mut turn = Turn::new(&screen, "s".to_owned());
        let created = event(
            "session.toolCallCreated",
            json!({"seq": 3, "sessionId": "s", "toolCall": tool_call("pending")}),
        );
        let asked = event(
            "tool.approvalRequested",
            json!({"seq": 4, "sessionId": "s", "toolCall": tool_call("pending")}),
        );
        assert!(matches!(turn.on_event(&created).unwrap(), Seen::Asks(call) if call.id == "t1"));
        assert!(matches!(turn.on_event(&asked).unwrap(), Seen::Nothing));
        let resolved =
            event("tool.approvalResolved", json!({"sessionId": "s", "toolCallId": "t1"}));
        assert!(matches!(turn.on_event(&resolved).unwrap(), Seen::Decided(id) if id == "t1"));
        assert_eq!(turn.seq, 4);
    }

    #[test]
    fn a_call_that_ran_already_may_still_come_to_wait() {
        let screen = Screen::bare(true);
        let mut turn = Turn::new(&screen, "s".to_owned());
        let params = json!({"sessionId": "s", "toolCall": tool_call("running")});
        assert!(matches!(
            turn.on_event(&event("session.toolCallCreated", params)).unwrap(),
            Seen::Nothing
        ));
        let params = json!({"sessionId": "s", "toolCall": tool_call("pending")});
        let seen = turn.on_event(&event("tool.approvalRequested", params)).unwrap();
        assert!(matches!(seen, Seen::Asks(call) if call.name == "Bash"));
    }

    #[test]
    fn the_turn_is_over_when_its_own_session_is_idle_again_or_in_error() {
        let screen = Screen::bare(true);
        let mut turn = Turn::new(&screen, "s".to_owned());
        let mut status = |session: &str, status: &str| {
            let params = json!({"sessionId": session, "status": status, "reason": "401"});
            turn.on_event(&event("session.statusChanged", params)).unwrap()
        };
        assert!(matches!(status("s", "idle"), Seen::Nothing), "it has not begun");
        assert!(matches!(status("s", "running"), Seen::Nothing));
        assert!(matches!(status("other", "idle"), Seen::Nothing));
        assert!(matches!(status("s", "completed"), Seen::Nothing));
        assert!(matches!(status("s", "idle"), Seen::Over(Outcome::Ended)));
        assert!(matches!(status("s", "error"), Seen::Over(Outcome::Failed(why)) if why == "401"));
    }
}
