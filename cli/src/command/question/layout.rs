//! What is asked about, in lines that fit.
//!
//! Owns where lines end; refuses to know the terminal. Invariants (security K2, H4): nothing is left out, nothing is
//! hidden, and no line is wider than it may be, so that each gets its frame.

use clawd_protocol::text::visible_line;
use serde_json::Value;

use super::ask::Ask;

/// The input in lines of at most `columns`, nothing left out, nothing hidden.
pub(super) fn payload(input: &Value, columns: usize) -> Vec<String> {
    let mut lines = Vec::new();
    match input.as_object() {
        Some(fields) => {
            for (name, value) in fields {
                field(name, value, columns, &mut lines);
            }
        }
        None => wrap(&visible_line(&input.to_string()), columns, &mut lines),
    }
    lines
}

/// A plan as it is meant to be read, and after it whatever else came with it.
pub(super) fn plan(input: &Value, columns: usize) -> Vec<String> {
    let Some((text, fields)) = input["plan"].as_str().zip(input.as_object()) else {
        return payload(input, columns);
    };
    let mut lines = Vec::new();
    for line in text.trim_end_matches('\n').split('\n') {
        wrap(&visible_line(line), columns, &mut lines);
    }
    for (name, value) in fields.iter().filter(|(name, _)| *name != "plan") {
        field(name, value, columns, &mut lines);
    }
    lines
}

/// A question and what may be chosen, by number.
pub(super) fn ask(ask: &Ask, columns: usize) -> Vec<String> {
    let mut lines = Vec::new();
    if !ask.header.is_empty() {
        wrap(&visible_line(&ask.header), columns, &mut lines);
    }
    for line in ask.question.split('\n') {
        wrap(&visible_line(line), columns, &mut lines);
    }
    for (number, choice) in (1_usize..).zip(&ask.choices) {
        let (label, about) = (visible_line(&choice.label), visible_line(&choice.description));
        let dash = if about.is_empty() { "" } else { ": " };
        wrap(&format!("{number:>3}  {label}{dash}{about}"), columns, &mut lines);
    }
    lines
}

fn field(name: &str, value: &Value, columns: usize, lines: &mut Vec<String>) {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let name = visible_line(name);
    if text.contains('\n') {
        wrap(&format!("{name}:"), columns, lines);
        for line in text.split('\n') {
            wrap(&format!("  {}", visible_line(line)), columns, lines);
        }
    } else {
        wrap(&format!("{name}: {}", visible_line(&text)), columns, lines);
    }
}

/// Cuts before the terminal would, after a word where that is not far. What is not ASCII may be two columns wide.
fn wrap(text: &str, columns: usize, lines: &mut Vec<String>) {
    let mut line = String::new();
    let mut width = 0;
    for char in text.chars() {
        let wide = columns_of(char);
        if width + wide > columns {
            let rest = line.split_off(end_of_word(&line));
            width = rest.chars().map(columns_of).sum();
            lines.push(std::mem::replace(&mut line, rest));
        }
        line.push(char);
        width += wide;
    }
    lines.push(line);
}

const fn columns_of(char: char) -> usize {
    if char.is_ascii() { 1 } else { 2 }
}

/// After the last word that ends in the second half of a line; else its end.
fn end_of_word(line: &str) -> usize {
    let end = line.rfind(' ').map_or(0, |space| space + 1);
    if end > line.len() / 2 { end } else { line.len() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn widest(lines: &[String]) -> usize {
        lines.iter().map(|line| line.chars().map(columns_of).sum()).max().unwrap_or(0)
    }

    #[test]
    fn k2_no_payload_leaves_its_frame_and_nothing_of_it_is_lost() {
        let command = format!("echo {}\n[y] once \u{1b}[2J\u{202e}\t漢字漢字漢字", "x".repeat(100));
        let lines = payload(&json!({"command": command, "timeout": 5}), 20);
        assert!(widest(&lines) <= 20, "{lines:?}");
        let all = lines.concat();
        assert!(all.contains(r"[y] once \u{1b}[2J\u{202e}\u{9}漢字漢字漢字"), "{all}");
        assert!(all.contains(&"x".repeat(100)) && all.contains("timeout: 5"));
        assert_eq!(payload(&json!("text"), 20), ["\"text\""]);
    }

    #[test]
    fn lines_end_after_words_where_they_can() {
        let lines = payload(&json!({"a": "the quick brown fox jumps over the lazy dog"}), 20);
        assert_eq!(lines, ["a: the quick brown ", "fox jumps over the ", "lazy dog"]);
        assert_eq!(payload(&json!({"a": "no " .repeat(3) + &"x".repeat(20)}), 20).len(), 2);
    }

    #[test]
    fn h4_a_plan_is_read_as_text_and_what_came_with_it_is_shown_too() {
        let input = json!({"plan": "# Plan\n\n1. look\n2. act\n", "file": "p.md"});
        assert_eq!(plan(&input, 40), ["# Plan", "", "1. look", "2. act", "file: p.md"]);
        assert_eq!(plan(&json!({"plan": 7}), 40), ["plan: 7"]);
    }

    #[test]
    fn k2_no_question_leaves_its_frame() {
        let input = json!({"questions": [{"question": "Which\n[y] once \u{1b}[2J?", "header": "H",
            "options": [{"label": "a\nb", "description": "x".repeat(50)}, {"label": "c"}]}]});
        let lines = ask(&Ask::all(&input)[0], 20);
        assert!(widest(&lines) <= 20, "{lines:?}");
        assert_eq!(&lines[..3], ["H", "Which", r"[y] once \u{1b}[2J?"]);
        assert!(
            lines.concat().contains(r"1  a\u{a}b") && lines.last().unwrap() == "  2  c",
            "{lines:?}"
        );
    }
}
