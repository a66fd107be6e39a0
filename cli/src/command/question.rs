//! Asking whether a tool may run (security K2, H4).
//!
//! Owns the words, the layout and the reading of the answer; refuses to know who asked. Invariants: the question goes to
//! the terminal itself, never to stdin; what was typed before it was asked does not count; no answer, an empty one and a
//! terminal that goes away all mean no; the payload is shown whole before yes can be said; and since every line of it is
//! framed and none can wrap, no payload can look like the question.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};

use clawd_protocol::text::visible_line;
use rustix::termios::{QueueSelector, tcflush, tcgetwinsize};
use serde_json::Value;

use crate::render::style::Style;
use crate::wire::ToolCall;

/// Lines of a payload that are shown at once.
const LINES_AT_ONCE: usize = 40;
/// More on one line is no answer.
const ANSWER_BYTES_MAX: usize = 64;

/// What the letters stand for.
const MEANING: &str = "  \
  y  let this call run, once
  s  let it run, and the very same call again while this session lasts
  n  do not let it run; the agent is told so and goes on
";

/// Which kinds of yes are on offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offer {
    /// Once, or for the session.
    Any,
    /// For the session, which is what was asked for.
    Session,
}

impl Offer {
    const fn letters(self) -> &'static str {
        match self {
            Self::Any => "[y] once  [s] session  [n] deny  [?] help (Enter alone denies):",
            Self::Session => "[s] session  [n] deny  [?] help (Enter alone denies):",
        }
    }
}

/// What the person said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    Once,
    Session,
    Deny,
}

/// A question that is on the screen.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) tool_call: String,
    /// The tool's name, fit to be shown.
    pub(super) tool: String,
    terminal: File,
    lines: Vec<String>,
    /// So many of `lines` have been shown.
    shown: usize,
    typed: Vec<u8>,
    offer: Offer,
    style: Style,
}

impl Question {
    /// Puts the question; `None` if there is no terminal to put it to.
    pub(super) fn put(call: &ToolCall, offer: Offer, style: Style) -> Option<Self> {
        let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty").ok()?;
        let columns = tcgetwinsize(&terminal).map_or(80, |size| usize::from(size.ws_col)).max(24);
        let lines = payload(&call.input, columns - 4);
        let tool = visible_line(&call.name).into_owned();
        let mut question = Self {
            tool_call: call.id.clone(),
            tool: tool.clone(),
            terminal,
            lines,
            shown: 0,
            typed: Vec::new(),
            offer,
            style,
        };
        let risk = if call.risk_level.is_empty() {
            String::new()
        } else {
            format!("   risk: {}", visible_line(&call.risk_level))
        };
        question.write(&format!("\nMay {} run?{risk}\n", style.bold(&tool))).ok()?;
        question.show_more().ok()?;
        question.prompt().ok()?;
        Some(question)
    }

    /// Reads what was typed; `None` while there is no answer yet.
    pub(super) fn read(&mut self) -> Option<Word> {
        let mut buffer = [0; 256];
        let length = match self.terminal.read(&mut buffer) {
            Ok(0) => return Some(Word::Deny),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return None,
            Err(_) => return Some(Word::Deny),
        };
        self.typed.extend_from_slice(buffer.get(..length).unwrap_or_default());
        if !self.typed.ends_with(b"\n") && self.typed.len() <= ANSWER_BYTES_MAX {
            return None;
        }
        let typed = std::mem::take(&mut self.typed);
        match answer(&typed, self.is_whole(), self.offer) {
            Reply::Word(word) => Some(word),
            Reply::More if self.is_whole() => self.again(MEANING),
            Reply::More => self.show_more().and_then(|()| self.prompt()).err().map(|_| Word::Deny),
            Reply::Again => self.again("only one of these letters is an answer\n"),
        }
    }

    /// Asks once more, with a word on why.
    pub(super) fn again(&mut self, why: &str) -> Option<Word> {
        self.write(why).and_then(|()| self.prompt()).err().map(|_| Word::Deny)
    }

    /// Says that somebody else has decided.
    pub(super) fn withdraw(mut self, why: &str) {
        let _ = self.write(&format!("\n{why}\n"));
    }

    const fn is_whole(&self) -> bool {
        self.shown >= self.lines.len()
    }

    fn show_more(&mut self) -> io::Result<()> {
        let until = if self.shown == 0 { LINES_AT_ONCE } else { usize::MAX };
        let frame = self.style.dim(if self.style.utf8 { "│" } else { "|" });
        let more: Vec<String> = self.lines.iter().skip(self.shown).take(until).cloned().collect();
        self.shown += more.len();
        for line in more {
            self.write(&format!("  {frame} {line}\n"))?;
        }
        Ok(())
    }

    /// Asks, always in the same words and place, and forgets what was typed before.
    fn prompt(&mut self) -> io::Result<()> {
        let rest = self.lines.get(self.shown..).unwrap_or_default();
        let prompt = if rest.is_empty() {
            self.offer.letters().to_owned()
        } else {
            let bytes: usize = rest.iter().map(String::len).sum();
            format!("{bytes} more bytes  [?] show them  [n] deny (Enter alone denies):")
        };
        self.write(&prompt)?;
        self.typed.clear();
        tcflush(&self.terminal, QueueSelector::IFlush)?;
        // Whoever sees this last character knows that the terminal listens now.
        self.write(" ")
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        self.terminal.write_all(text.as_bytes())
    }
}

impl AsFd for Question {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.terminal.as_fd()
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Reply {
    Word(Word),
    More,
    Again,
}

/// What a typed line means. Only a letter and Enter, with all of the payload shown, is a yes.
fn answer(typed: &[u8], is_whole: bool, offer: Offer) -> Reply {
    match (typed.trim_ascii(), is_whole) {
        (b"y", true) if offer == Offer::Any => Reply::Word(Word::Once),
        (b"s", true) => Reply::Word(Word::Session),
        (b"?", _) => Reply::More,
        (b"" | b"n", _) => Reply::Word(Word::Deny),
        (_, _) => Reply::Again,
    }
}

/// The input in lines of at most `columns`, nothing left out, nothing hidden.
fn payload(input: &Value, columns: usize) -> Vec<String> {
    let mut lines = Vec::new();
    match input.as_object() {
        Some(fields) => {
            for (name, value) in fields {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let name = visible_line(name);
                if text.contains('\n') {
                    wrap(&format!("{name}:"), columns, &mut lines);
                    for line in text.split('\n') {
                        wrap(&format!("  {}", visible_line(line)), columns, &mut lines);
                    }
                } else {
                    wrap(&format!("{name}: {}", visible_line(&text)), columns, &mut lines);
                }
            }
        }
        None => wrap(&visible_line(&input.to_string()), columns, &mut lines),
    }
    lines
}

/// Cuts before the terminal would. What is not ASCII may be two columns wide.
fn wrap(text: &str, columns: usize, lines: &mut Vec<String>) {
    let mut line = String::new();
    let mut width = 0;
    for char in text.chars() {
        let wide = if char.is_ascii() { 1 } else { 2 };
        if width + wide > columns {
            lines.push(std::mem::take(&mut line));
            width = 0;
        }
        line.push(char);
        width += wide;
    }
    lines.push(line);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn k2_only_a_letter_and_enter_is_a_yes() {
        assert_eq!(answer(b"y\n", true, Offer::Any), Reply::Word(Word::Once));
        assert_eq!(answer(b"s\n", true, Offer::Any), Reply::Word(Word::Session));
        assert_eq!(answer(b"y\n", true, Offer::Session), Reply::Again);
        assert_eq!(answer(b"s\n", true, Offer::Session), Reply::Word(Word::Session));
        for no in [&b"\n"[..], b"", b"n\n", b"  \n"] {
            assert_eq!(answer(no, true, Offer::Any), Reply::Word(Word::Deny));
        }
        for unclear in [&b"yes\n"[..], b"Y\n", b"yy\n", b"ok\n", b"\x1b[A\n", b"y y\n"] {
            assert_eq!(answer(unclear, true, Offer::Any), Reply::Again);
        }
    }

    #[test]
    fn h4_yes_can_be_said_only_when_all_was_shown() {
        assert_eq!(answer(b"y\n", false, Offer::Any), Reply::Again);
        assert_eq!(answer(b"s\n", false, Offer::Any), Reply::Again);
        assert_eq!(answer(b"?\n", false, Offer::Any), Reply::More);
        assert_eq!(answer(b"n\n", false, Offer::Any), Reply::Word(Word::Deny));
    }

    #[test]
    fn k2_no_payload_leaves_its_frame_and_nothing_of_it_is_lost() {
        let command = format!("echo {}\n[y] once \u{1b}[2J\u{202e}\t漢字漢字漢字", "x".repeat(100));
        let lines = payload(&json!({"command": command, "timeout": 5}), 20);
        assert!(lines.iter().all(|line| {
            line.chars().map(|char| if char.is_ascii() { 1 } else { 2 }).sum::<usize>() <= 20
        }));
        let all = lines.concat();
        assert!(all.contains(r"[y] once \u{1b}[2J\u{202e}\u{9}漢字漢字漢字"), "{all}");
        assert!(all.contains(&"x".repeat(100)) && all.contains("timeout: 5"));
        assert_eq!(payload(&json!("text"), 20), ["\"text\""]);
    }
}
