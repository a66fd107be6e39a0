//! What an agent asks a person in words, and what a typed answer to it means.
//!
//! Owns the choices and their numbers; refuses to know terminals and the daemon, which decides what is an answer.

use serde::Deserialize;
use serde_json::{Map, Value};

/// One of its questions.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(in crate::command) struct Ask {
    pub(in crate::command) question: String,
    pub(super) header: String,
    #[serde(rename = "options")]
    pub(super) choices: Vec<Choice>,
    /// Several choices may be taken.
    #[serde(rename = "multiSelect")]
    pub(super) is_multiple: bool,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Choice {
    pub(super) label: String,
    pub(super) description: String,
}

impl Ask {
    /// The questions in this input, in order; what is no question is left out, as the daemon leaves it out.
    pub(in crate::command) fn all(input: &Value) -> Vec<Self> {
        let questions = input["questions"].as_array().into_iter().flatten();
        let asks = questions.filter_map(|it| {
            let question = it["question"].as_str()?.to_owned();
            // With choices that cannot be read it is a question still.
            let ask: Self = serde_json::from_value(it.clone()).unwrap_or_default();
            Some(Self { question, ..ask })
        });
        asks.collect()
    }

    /// What somebody has typed: the number of a choice, several where several may be taken, or a text.
    pub(in crate::command) fn answer(&self, typed: &str) -> Result<String, String> {
        let typed = typed.trim();
        let is_label = self.choices.iter().any(|choice| choice.label == typed);
        let words: Vec<&str> = match self.is_multiple {
            true => typed.split([',', ' ']).filter(|word| !word.is_empty()).collect(),
            false => vec![typed],
        };
        let numbers: Option<Vec<usize>> = words.iter().map(|word| word.parse().ok()).collect();
        let Some(numbers) = numbers.filter(|_| !self.choices.is_empty()) else {
            return Ok(typed.to_owned());
        };
        let chosen = numbers.into_iter().map(|number| {
            let choice = number.checked_sub(1).and_then(|index| self.choices.get(index));
            choice.map(|choice| choice.label.clone()).ok_or(number)
        });
        match chosen.collect::<Result<Vec<String>, usize>>() {
            Ok(labels) => Ok(labels.join(", ")),
            Err(_) if is_label => Ok(typed.to_owned()),
            Err(number) => {
                let count = self.choices.len();
                Err(format!("there is no choice {number}; they go from 1 to {count}"))
            }
        }
    }
}

/// The answers, each by its question's own text.
pub(in crate::command) type Answers = Map<String, Value>;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ask(is_multiple: bool, labels: &[&str]) -> Ask {
        let options: Vec<Value> = labels.iter().map(|label| json!({ "label": label })).collect();
        let input = json!({"questions": [
            {"question": "Which?", "multiSelect": is_multiple, "options": options},
        ]});
        Ask::all(&input).remove(0)
    }

    #[test]
    fn a_number_is_a_choice_and_all_else_is_a_text() {
        let one = ask(false, &["Red", "Dark blue"]);
        assert_eq!(one.answer(" 2 \n").unwrap(), "Dark blue");
        assert_eq!(one.answer("Green, with 2 dots").unwrap(), "Green, with 2 dots");
        assert!(one.answer("0").is_err());
        assert!(one.answer("3").unwrap_err().contains("from 1 to 2"));
        assert_eq!(ask(false, &[]).answer("7").unwrap(), "7");
        let numbers = ask(false, &["10", "20"]);
        assert_eq!(numbers.answer("20").unwrap(), "20");
        assert_eq!(numbers.answer("2").unwrap(), "20");
    }

    #[test]
    fn several_choices_are_taken_where_that_is_allowed() {
        let several = ask(true, &["a", "b", "c"]);
        assert_eq!(several.answer("1,3").unwrap(), "a, c");
        assert_eq!(several.answer("3 1").unwrap(), "c, a");
        assert!(several.answer("1,4").is_err());
        assert_eq!(several.answer("1 and 3").unwrap(), "1 and 3");
        assert_eq!(ask(false, &["a", "b"]).answer("1,2").unwrap(), "1,2");
    }

    #[test]
    fn what_cannot_be_read_is_left_out_or_asked_without_choices() {
        let input = json!({"questions": [
            7, {"header": "x"}, {"question": 7}, {"question": "Q?", "options": "many"},
        ]});
        let asks = Ask::all(&input);
        assert_eq!(asks, [Ask { question: "Q?".to_owned(), ..Ask::default() }]);
        assert_eq!(Ask::all(&json!("text")), []);
    }
}
