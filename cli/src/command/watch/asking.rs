//! What the turn asks, and how it is decided here.
//!
//! Owns which question is open and which wait; refuses to know how one is put.

use clawd_protocol::text::visible_line;

use super::super::decision::{self, Decision};
use super::super::question::{Offer, Question, Word};
use super::Watch;
use crate::exit::Failure;
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
        let decision = match &word {
            Word::Deny => {
                self.screen.note(Mark::Fail, &format!("{} denied", question.name));
                Decision::Deny("denied by the person at the terminal")
            }
            Word::Once => Decision::Once,
            Word::Session => Decision::Session,
            Word::Answers(answers) => Decision::Answered(answers),
        };
        decision::start(&mut self.daemon, &self.turn.session, &question.tool_call, decision)
    }

    fn deny(&mut self, tool_call: &str, reason: &str) -> Result<(), Failure> {
        let decision = Decision::Deny(reason);
        decision::start(&mut self.daemon, &self.turn.session, tool_call, decision)
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
