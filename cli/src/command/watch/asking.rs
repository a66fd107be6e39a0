//! What the turn asks, and how it is decided here.
//!
//! Owns which question is open and which wait; refuses to know how one is put.

use clawd_protocol::text::visible_line;
use serde_json::json;

use super::super::decision::{self, Decision};
use super::super::question::{Offer, Question, Word};
use super::{Told, Watch};
use crate::exit::{Exit, Failure};
use crate::render::style::Mark;

impl Watch<'_> {
    /// Puts the next open question; without a terminal, answers it with no.
    pub(super) fn ask_next(&mut self) -> Result<(), Failure> {
        while self.question.is_none() && self.interrupts == 0 {
            let Some(call) = self.waiting.pop_front() else { return Ok(()) };
            self.turn.break_line();
            match Question::put(&call, Offer::Any, self.screen.err) {
                Some(question) => self.question = Some(question),
                None => {
                    self.denied_unasked = true;
                    let name = visible_line(&call.name).into_owned();
                    let why = "denied: there is no terminal to ask on";
                    self.screen.note(Mark::Fail, &format!("{name} {why}"));
                    self.deny(&call.id, "the person who runs this cannot be asked")?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn decide(&mut self, word: Word) -> Result<(), Failure> {
        let Some(question) = self.question.take() else { return Ok(()) };
        if word == Word::Deny {
            self.screen.note(Mark::Fail, &format!("{} denied", question.name));
        }
        self.tell(&question.tool_call, (word, "denied by the person at the terminal"))
    }

    fn deny(&mut self, tool_call: &str, reason: &'static str) -> Result<(), Failure> {
        self.tell(tool_call, (Word::Deny, reason))
    }

    /// Kept until the daemon says that it is decided.
    fn tell(&mut self, tool_call: &str, told: Told) -> Result<(), Failure> {
        let said = self.say(tool_call, &told);
        self.told.insert(tool_call.to_owned(), told);
        match said {
            // The next wait finds that out, and says it again.
            Err(failure) if failure.exit == Exit::NotRunning => Ok(()),
            said => said,
        }
    }

    fn say(&mut self, tool_call: &str, (word, reason): &Told) -> Result<(), Failure> {
        let decision = match word {
            Word::Deny => Decision::Deny(reason),
            Word::Once => Decision::Once,
            Word::Session => Decision::Session,
            Word::Answers(answers) => Decision::Answered(answers),
        };
        decision::start(&mut self.daemon, &self.turn.session, tool_call, decision)
    }

    /// After a lost connection: what was decided here and waits there still was never heard.
    pub(super) fn tell_again(&mut self) -> Result<(), Failure> {
        if self.told.is_empty() {
            return Ok(());
        }
        let calls = self.look("session.toolCalls", &json!({"sessionId": self.turn.session}))?;
        let waits = |id: &String| {
            let mut calls = calls.as_array().into_iter().flatten();
            calls.any(|call| call["id"] == id.as_str() && call["status"] == "pending")
        };
        self.told.retain(|id, _| waits(id));
        for (id, told) in self.told.clone() {
            self.say(&id, &told)?;
        }
        Ok(())
    }

    /// The terminal has gone, and with it whoever could have said yes to what is asked about, and to all that waits.
    pub(in crate::command) fn deny_all(&mut self) -> Result<(), Failure> {
        self.deny_question()?;
        for call in std::mem::take(&mut self.waiting) {
            self.deny(&call.id, "the person who runs this has gone")?;
        }
        Ok(())
    }

    /// The terminal has gone in the middle of a question: no answer is a no.
    pub(in crate::command) fn deny_question(&mut self) -> Result<(), Failure> {
        match self.question.take() {
            Some(question) => self.deny(&question.tool_call, "the person who runs this has gone"),
            None => Ok(()),
        }
    }

    /// Somebody else was quicker, or time was up.
    pub(super) fn on_decided(&mut self, id: &str) {
        self.waiting.retain(|call| call.id != id);
        self.told.remove(id);
        if let Some(question) = self.question.take_if(|question| question.tool_call == id) {
            question.withdraw("this was decided elsewhere");
        }
    }

    pub(super) fn ask_again(&mut self) -> Result<(), Failure> {
        match self.question.as_mut().and_then(|question| question.again("")) {
            Some(word) => self.decide(word),
            None => Ok(()),
        }
    }
}
