//! The place of a mistake in `config.toml`, as it is shown.
//!
//! Owns line, column and caret; refuses to know what the mistake is.

use std::ops::Range;

use clawd_protocol::text;

use crate::exit::{Exit, Failure};

/// What is wrong, and where.
#[derive(Debug)]
pub(super) struct Mistake<'a> {
    /// Bytes of the file.
    pub(super) span: Range<usize>,
    pub(super) what: String,
    /// What was probably meant.
    pub(super) near: Option<&'a str>,
    /// The value must not be shown (security A8).
    pub(super) is_secret: bool,
}

/// A line of the file.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) line: &'a str,
    /// Where the line begins.
    pub(super) start: usize,
    number: usize,
    column: usize,
}

impl<'a> Place<'a> {
    pub(super) fn of(source: &'a str, at: usize) -> Self {
        let before = source.get(..at).unwrap_or(source);
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = source.get(start..).unwrap_or_default().lines().next().unwrap_or_default();
        let number = before.matches('\n').count() + 1;
        let column = before.get(start..).unwrap_or_default().chars().count() + 1;
        Self { line, start, number, column }
    }

    fn without_value(&self) -> String {
        match self.line.split_once('=') {
            Some((name, _)) => format!("{name}= …"),
            None => "…".to_owned(),
        }
    }
}

/// The mistake as a failure, with its line and a caret below it.
pub(super) fn show(source: &str, shown: &str, mistake: &Mistake<'_>) -> Failure {
    let place = Place::of(source, mistake.span.start);
    let advice = mistake.near.map(|name| format!(" did you mean `{name}`?"));
    let line = if mistake.is_secret { place.without_value() } else { place.line.to_owned() };
    let indent = place.line.chars().take(place.column - 1);
    let indent: String = indent.map(|char| if char == '\t' { '\t' } else { ' ' }).collect();
    let width = source
        .get(mistake.span.clone())
        .map_or(1, |marked| marked.lines().next().unwrap_or_default().chars().count())
        .clamp(1, line.chars().count().saturating_sub(place.column - 1).max(1));
    let number = place.number;
    let gutter = " ".repeat(number.to_string().len());
    let message = format!("{shown}:{number}:{}: {}", place.column, mistake.what);
    let mut failure = Failure::new(Exit::Usage, "config", message);
    let excerpt = format!(
        "    {number} | {}\n    {gutter} | {indent}{}{}",
        text::visible(&line),
        "^".repeat(width),
        advice.unwrap_or_default(),
    );
    failure.excerpt = Some(excerpt.into());
    failure.hint = Some("settings are listed by `clawd help files`".to_owned());
    failure.detail("line", number).detail("column", place.column)
}
