//! Questions and plans: tools of claude that are no deeds, but asks to a person.
//!
//! Owns which tools they are, what a question asks and how its answers are given back; refuses to know who answers.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::agent::json::{Raw, each, object, text};
use crate::contract::record::AskKind;

/// The member of a question's input that holds its answers.
const ANSWERS: &str = "answers";

/// What a call of this tool asks for.
#[must_use]
pub fn ask_kind(tool: &str) -> AskKind {
    match tool {
        "AskUserQuestion" => AskKind::Question,
        "ExitPlanMode" => AskKind::Plan,
        _ => AskKind::Tool,
    }
}

/// The questions in the input of one, in order.
#[must_use]
pub fn questions(input: &str) -> Vec<String> {
    #[derive(Deserialize)]
    struct Input<'a> {
        #[serde(borrow)]
        questions: Raw<'a>,
    }
    #[derive(Deserialize)]
    struct Question<'a> {
        #[serde(borrow)]
        question: Raw<'a>,
    }
    let input = object::<Input<'_>>(serde_json::from_str(input).ok());
    let mut questions = Vec::new();
    each(input.and_then(|input| input.questions), &mut |question| {
        let question = object::<Question<'_>>(Some(question));
        if let Some(question) = question.and_then(|it| text(it.question)) {
            questions.push(question.into_owned());
        }
    });
    questions
}

/// The input as it was asked for, with these answers (a JSON object) in it and nothing else changed.
#[must_use]
pub fn with_answers(input: &str, answers: &str) -> String {
    let members = serde_json::Deserializer::from_str(input).deserialize_map(MembersVisitor);
    let answers = serde_json::from_str::<&RawValue>(answers);
    match (members, answers) {
        (Ok(members), Ok(answers)) => {
            let input = Answered { members, answers };
            serde_json::to_string(&input).unwrap_or_default()
        }
        // Not what was asked for: it is no JSON, and nothing is allowed with that.
        (Err(_), _) | (_, Err(_)) => String::new(),
    }
}

struct Answered<'a> {
    members: Vec<(String, &'a RawValue)>,
    answers: &'a RawValue,
}

impl Serialize for Answered<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        for (name, value) in self.members.iter().filter(|(name, _)| name != ANSWERS) {
            map.serialize_entry(name, value)?;
        }
        map.serialize_entry(ANSWERS, self.answers)?;
        map.end()
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INPUT: &str = r#"{"questions":[{"question":"Which color?","header":"Color","options":[{"label":"Blue","description":""}],"multiSelect":false},{"question":"How \u006dany?"},{"header":"x"},7],"n":1.50}"#;

    #[test]
    fn the_questions_are_found() {
        assert_eq!(questions(INPUT), ["Which color?", "How many?"]);
        for none in ["", "[]", "{}", r#"{"questions":7}"#] {
            assert_eq!(questions(none), [""; 0], "{none}");
        }
    }

    #[test]
    fn h3_answers_are_added_and_nothing_else_is_changed() {
        let answered = with_answers(INPUT, r#"{"Which color?":"Blue"}"#);
        let start = INPUT.trim_end_matches('}');
        assert_eq!(answered, format!(r#"{start},"answers":{{"Which color?":"Blue"}}}}"#));
        assert_eq!(with_answers(r#"{"answers":{"a":"no"}}"#, "{}"), r#"{"answers":{}}"#);
        assert_eq!(with_answers("[]", "{}"), "");
        assert_eq!(with_answers("{}", "x"), "");
    }
}
