//! The words of a question, and what a typed line means (security K2).
//!
//! Owns the letters; refuses to know the terminal. Invariant: only what is on offer, with all of it shown, is a yes.

use clawd_protocol::text::visible_line;
use serde_json::Value;

use super::ask::{Answers, Ask};
use super::layout;
use crate::wire::ToolCall;

/// Which kinds of yes are on offer for a tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::command) enum Offer {
    /// Once, or for the session.
    Any,
    /// For the session, which is what was asked for.
    Session,
}

/// What the person said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::command) enum Word {
    Once,
    Session,
    /// To all that was asked, by the questions' own texts.
    Answers(Answers),
    Deny,
}

/// What kind of ask it is, and how far its answers have come.
#[derive(Debug)]
pub(super) enum Form {
    /// May this run?
    Tool(Offer),
    /// May it go on with this?
    Plan,
    /// Each has its answer, up to so many; what is asked first is asked first.
    Asks { asks: Vec<Ask>, answers: Answers, answered: usize },
}

/// What a typed line means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Word(Word),
    /// Go on with the next of several questions.
    Next,
    More,
    Again(String),
}

impl Form {
    pub(super) fn of(call: &ToolCall, offer: Offer) -> Self {
        match call.kind.as_str() {
            "question" => {
                let asks = Ask::all(&call.input);
                Self::Asks { asks, answers: Answers::new(), answered: 0 }
            }
            "plan" => Self::Plan,
            _ => Self::Tool(offer),
        }
    }

    /// How it is called afterwards.
    pub(super) fn name(&self, call: &ToolCall) -> String {
        match self {
            Self::Tool(_) => visible_line(&call.name).into_owned(),
            Self::Plan => "plan".to_owned(),
            Self::Asks { .. } => "question".to_owned(),
        }
    }

    /// The line above what is asked about; `name` is fit to be shown.
    pub(super) fn title(&self, name: &str) -> String {
        match self {
            Self::Tool(_) => format!("May {name} run?"),
            Self::Plan => "May the agent go on with this plan?".to_owned(),
            Self::Asks { asks, answered, .. } if asks.len() > 1 => {
                format!("The agent asks ({} of {})", answered + 1, asks.len())
            }
            Self::Asks { .. } => "The agent asks".to_owned(),
        }
    }

    pub(super) fn lines(&self, input: &Value, columns: usize) -> Vec<String> {
        match self {
            Self::Tool(_) => layout::payload(input, columns),
            Self::Plan => layout::plan(input, columns),
            Self::Asks { asks, answered, .. } => match asks.get(*answered) {
                Some(ask) => layout::ask(ask, columns),
                None => layout::payload(input, columns),
            },
        }
    }

    /// What may be typed. All end alike.
    pub(super) fn letters(&self) -> String {
        let letters = match self {
            Self::Tool(Offer::Any) => "[y] once  [s] session  ".to_owned(),
            Self::Tool(Offer::Session) => "[s] session  ".to_owned(),
            Self::Plan => "[y] go on  ".to_owned(),
            Self::Asks { asks, answered, .. } => match asks.get(*answered) {
                None => String::new(),
                Some(ask) if ask.choices.is_empty() => "type an answer  ".to_owned(),
                Some(Ask { choices, is_multiple, .. }) => {
                    let some = if *is_multiple { "some" } else { "one" };
                    format!("[1-{}] choose {some}, or type an answer  ", choices.len())
                }
            },
        };
        format!("{letters}[n] deny  [?] help (Enter alone denies):")
    }

    /// What the letters stand for.
    pub(super) const fn meaning(&self) -> &'static str {
        match self {
            Self::Tool(Offer::Any) => {
                "  \
  y  let this call run, once
  s  let it run, and the very same call again while this session lasts
  n  do not let it run; the agent is told so and goes on
"
            }
            Self::Tool(Offer::Session) => {
                "  \
  s  let it run, and the very same call again while this session lasts
  n  do not let it run; the agent is told so and goes on
"
            }
            Self::Plan => {
                "  \
  y  let the agent go on; its tools are asked about as ever
  n  do not let it; the agent is told so and goes on planning
"
            }
            Self::Asks { .. } => {
                "  \
  a number stands for the choice beside it; where several may be taken, write 1,3
  any other text is the answer itself
  n  do not answer; the agent is told so and goes on
"
            }
        }
    }

    /// How long a line may be.
    pub(super) const fn line_bytes_max(&self) -> usize {
        match self {
            Self::Tool(_) | Self::Plan => 64,
            // As long as a terminal lets a line be.
            Self::Asks { .. } => 4096,
        }
    }

    /// What a typed line means. Only a letter and Enter, with all of the payload shown, is a yes.
    pub(super) fn reply(&mut self, typed: &[u8], is_whole: bool) -> Reply {
        let unclear = || Reply::Again("only one of these letters is an answer\n".to_owned());
        match (typed.trim_ascii(), is_whole, &mut *self) {
            (b"?", _, _) => Reply::More,
            (b"" | b"n", _, _) => Reply::Word(Word::Deny),
            (b"y", true, Self::Tool(Offer::Any) | Self::Plan) => Reply::Word(Word::Once),
            (b"s", true, Self::Tool(_)) => Reply::Word(Word::Session),
            (text, true, Self::Asks { asks, answers, answered }) => match str::from_utf8(text) {
                Ok(text) => take(text, asks, answers, answered).unwrap_or_else(unclear),
                Err(_) => Reply::Again("that was not UTF-8\n".to_owned()),
            },
            (_, false, Self::Asks { .. }) => {
                Reply::Again("it is asked in full first: `?` shows the rest\n".to_owned())
            }
            (_, _, Self::Tool(_) | Self::Plan) => unclear(),
        }
    }
}

/// Takes an answer to the question that is open; `None` if none is.
fn take(text: &str, asks: &[Ask], answers: &mut Answers, answered: &mut usize) -> Option<Reply> {
    let ask = asks.get(*answered)?;
    match ask.answer(text) {
        Err(why) => return Some(Reply::Again(format!("{why}\n"))),
        Ok(answer) => answers.insert(ask.question.clone(), answer.into()),
    };
    *answered += 1;
    Some(if *answered < asks.len() {
        Reply::Next
    } else {
        Reply::Word(Word::Answers(std::mem::take(answers)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn asks() -> Form {
        let input = json!({"questions": [
            {"question": "Which color?", "options": [{"label": "Blue"}, {"label": "Red"}]},
            {"question": "How many?"},
        ]});
        Form::of(
            &ToolCall { kind: "question".to_owned(), input, ..ToolCall::default() },
            Offer::Any,
        )
    }

    #[test]
    fn k2_only_a_letter_and_enter_is_a_yes() {
        let (mut any, mut session) = (Form::Tool(Offer::Any), Form::Tool(Offer::Session));
        assert_eq!(any.reply(b"y\n", true), Reply::Word(Word::Once));
        assert_eq!(any.reply(b"s\n", true), Reply::Word(Word::Session));
        assert!(matches!(session.reply(b"y\n", true), Reply::Again(_)));
        assert_eq!(session.reply(b"s\n", true), Reply::Word(Word::Session));
        assert_eq!(Form::Plan.reply(b"y\n", true), Reply::Word(Word::Once));
        assert!(matches!(Form::Plan.reply(b"s\n", true), Reply::Again(_)));
        for no in [&b"\n"[..], b"", b"n\n", b"  \n"] {
            assert_eq!(any.reply(no, true), Reply::Word(Word::Deny));
            assert_eq!(asks().reply(no, true), Reply::Word(Word::Deny));
        }
        for unclear in [&b"yes\n"[..], b"Y\n", b"yy\n", b"ok\n", b"\x1b[A\n", b"y y\n"] {
            assert!(matches!(any.reply(unclear, true), Reply::Again(_)));
            assert!(matches!(Form::Plan.reply(unclear, true), Reply::Again(_)));
        }
    }

    #[test]
    fn h4_yes_can_be_said_only_when_all_was_shown() {
        for form in [&mut Form::Tool(Offer::Any), &mut Form::Plan, &mut asks()] {
            assert!(matches!(form.reply(b"y\n", false), Reply::Again(_)));
            assert!(matches!(form.reply(b"s\n", false), Reply::Again(_)));
            assert!(matches!(form.reply(b"1\n", false), Reply::Again(_)));
            assert_eq!(form.reply(b"?\n", false), Reply::More);
            assert_eq!(form.reply(b"n\n", false), Reply::Word(Word::Deny));
        }
    }

    #[test]
    fn questions_are_answered_one_after_another() {
        let mut form = asks();
        assert!(
            form.title("x").contains("1 of 2") && form.letters().starts_with("[1-2] choose one")
        );
        assert!(matches!(form.reply(b"3\n", true), Reply::Again(_)));
        assert_eq!(form.reply(b"2\n", true), Reply::Next);
        assert!(form.title("x").contains("2 of 2") && form.letters().starts_with("type an answer"));
        let Reply::Word(Word::Answers(answers)) = form.reply(b"7 or so\n", true) else {
            panic!("not answered")
        };
        assert_eq!(Value::from(answers), json!({"Which color?": "Red", "How many?": "7 or so"}));
    }

    #[test]
    fn a_question_that_asks_nothing_can_only_be_denied() {
        let mut form = Form::Asks { asks: Vec::new(), answers: Answers::new(), answered: 0 };
        assert!(form.letters().starts_with("[n] deny"));
        assert!(matches!(form.reply(b"y\n", true), Reply::Again(_)));
        assert_eq!(form.reply(b"n\n", true), Reply::Word(Word::Deny));
    }
}
