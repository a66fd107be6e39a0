//! Asking a person at the terminal: may this run, may it go on so, and what is the answer (security K2, H4)?
//!
//! Owns the terminal and what of the question is on it; refuses to know who asked, and what the letters mean, which is
//! `form`'s. Invariants: the question goes to the terminal itself, never to stdin; what was typed before it was asked does
//! not count; no answer, an empty one and a terminal that goes away all mean no; the payload is shown whole before yes can
//! be said; and since every line of it is framed and none can wrap, no payload can look like the question.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};

use clawd_protocol::text::visible_line;
use rustix::termios::{QueueSelector, tcflush, tcgetwinsize};
use serde_json::Value;

use crate::render::style::Style;
use crate::wire::ToolCall;
pub(super) use ask::{Answers, Ask};
use form::{Form, Reply};
pub(super) use form::{Offer, Word};

mod ask;
mod form;
mod layout;

/// Lines of a payload that are shown at once.
const LINES_AT_ONCE: usize = 40;

/// A question that is on the screen.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) tool_call: String,
    /// What it is about, fit to be shown.
    pub(super) name: String,
    risk: String,
    input: Value,
    form: Form,
    terminal: File,
    lines: Vec<String>,
    /// So many of `lines` have been shown.
    shown: usize,
    typed: Vec<u8>,
    style: Style,
}

impl Question {
    /// Puts the question; `None` if there is no terminal to put it to.
    pub(super) fn put(call: &ToolCall, offer: Offer, style: Style) -> Option<Self> {
        let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty").ok()?;
        let form = Form::of(call, offer);
        let mut question = Self {
            tool_call: call.id.clone(),
            name: form.name(call),
            risk: match (&form, call.risk_level.as_str()) {
                (Form::Tool(_), risk) if !risk.is_empty() => {
                    format!("   risk: {}", visible_line(risk))
                }
                (Form::Tool(_) | Form::Plan | Form::Asks { .. }, _) => String::new(),
            },
            input: call.input.clone(),
            form,
            terminal,
            lines: Vec::new(),
            shown: 0,
            typed: Vec::new(),
            style,
        };
        question.begin().ok()?;
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
        if !self.typed.ends_with(b"\n") && self.typed.len() <= self.form.line_bytes_max() {
            return None;
        }
        let typed = std::mem::take(&mut self.typed);
        let is_whole = self.is_whole();
        let asked = match self.form.reply(&typed, is_whole) {
            Reply::Word(word) => return Some(word),
            Reply::Next => self.begin(),
            Reply::More if is_whole => return self.again(self.form.meaning()),
            Reply::More => self.show_more().and_then(|()| self.prompt()),
            Reply::Again(why) => return self.again(&why),
        };
        asked.err().map(|_| Word::Deny)
    }

    /// Asks once more, with a word on why.
    pub(super) fn again(&mut self, why: &str) -> Option<Word> {
        self.write(why).and_then(|()| self.prompt()).err().map(|_| Word::Deny)
    }

    /// Says that somebody else has decided.
    pub(super) fn withdraw(mut self, why: &str) {
        let _ = self.write(&format!("\n{why}\n"));
    }

    /// Shows what is asked about, or the next of several questions, and asks.
    fn begin(&mut self) -> io::Result<()> {
        let columns = tcgetwinsize(&self.terminal).map_or(80, |size| usize::from(size.ws_col));
        self.lines = self.form.lines(&self.input, columns.max(24) - 4);
        self.shown = 0;
        let title = self.form.title(&self.style.bold(&self.name));
        self.write(&format!("\n{title}{}\n", self.risk))?;
        self.show_more()?;
        self.prompt()
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
            self.form.letters()
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
