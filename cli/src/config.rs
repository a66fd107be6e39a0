//! `config.toml`: what its owner may set, and errors that show the place.
//!
//! Owns the file's schema and the words for its mistakes; refuses to know how the file is opened safely (`daemon` does).
//! Invariant: nothing that stands in an `env` table is ever shown, also not in an error (security A8).

use std::collections::BTreeMap;

use clawd_protocol::access::token::Secret;
use clawd_protocol::text;
use serde::Deserialize;

use crate::exit::{Exit, Failure};

/// The file's name in the data directory.
pub(crate) const FILE: &str = "config.toml";

/// Everything that may be set. A key that is not here is an error.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ConfigFile {
    /// The machine's name, as devices see it.
    pub(crate) name: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) bind: Option<String>,
    /// Names beside localhost that may stand in `Host`.
    pub(crate) hosts: Vec<String>,
    /// Web origins that may connect.
    pub(crate) origins: Vec<String>,
    pub(crate) provider: Providers,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Providers {
    pub(crate) claude: Provider,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Provider {
    /// The program's absolute path.
    pub(crate) path: Option<String>,
    /// Added to its environment.
    pub(crate) env: BTreeMap<String, SecretValue>,
}

/// A value that may be an API key.
#[derive(Debug)]
pub(crate) struct SecretValue(pub(crate) Secret);

impl<'de> Deserialize<'de> for SecretValue {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(|text| Self(Secret::new(text)))
    }
}

/// Reads the text of a `config.toml`; `shown` is how the file is called in errors.
pub(crate) fn parse(source: &str, shown: &str) -> Result<ConfigFile, Failure> {
    let config: ConfigFile =
        toml::from_str(source).map_err(|error| explain(source, shown, &error))?;
    match config.provider.claude.path.as_deref() {
        Some(path) if !path.starts_with('/') => Err(Failure::new(
            Exit::Usage,
            "config",
            format!("{shown}: provider.claude.path is not absolute: `{path}`"),
        )
        .hint("write the whole path, as `command -v claude` prints it")),
        Some(_) | None => Ok(config),
    }
}

fn explain(source: &str, shown: &str, error: &toml::de::Error) -> Failure {
    let span = error.span().unwrap_or(0..0);
    let place = Place::of(source, span.start);
    let is_secret = place.is_in_env(source);
    let unknown = unknown_key(error.message());
    let what = match &unknown {
        Some((key, _)) => format!("unknown key `{key}`"),
        None if is_secret => "a value here must be a text in quotes".to_owned(),
        None => error.message().lines().next().unwrap_or("not TOML").to_owned(),
    };
    let advice = unknown.and_then(|(key, known)| {
        nearest(&key, &known).map(|name| format!(" did you mean `{name}`?"))
    });
    let line = if is_secret { place.without_value() } else { place.line.to_owned() };
    let indent = place.line.chars().take(place.column - 1);
    let indent: String = indent.map(|char| if char == '\t' { '\t' } else { ' ' }).collect();
    let width = source
        .get(span)
        .map_or(1, |marked| marked.lines().next().unwrap_or_default().chars().count())
        .clamp(1, line.chars().count().saturating_sub(place.column - 1).max(1));
    let number = place.number;
    let gutter = " ".repeat(number.to_string().len());
    let mut failure =
        Failure::new(Exit::Usage, "config", format!("{shown}:{number}:{}: {what}", place.column));
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

struct Place<'a> {
    line: &'a str,
    /// Where the line begins.
    start: usize,
    number: usize,
    column: usize,
}

impl<'a> Place<'a> {
    fn of(source: &'a str, at: usize) -> Self {
        let before = source.get(..at).unwrap_or(source);
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = source.get(start..).unwrap_or_default().lines().next().unwrap_or_default();
        let number = before.matches('\n').count() + 1;
        let column = before.get(start..).unwrap_or_default().chars().count() + 1;
        Self { line, start, number, column }
    }

    /// Under a header that ends in `env`, or on a line that speaks of it.
    fn is_in_env(&self, source: &str) -> bool {
        let header = source
            .get(..self.start)
            .unwrap_or_default()
            .lines()
            .rev()
            .find(|line| line.trim_start().starts_with('['));
        header.is_some_and(|header| header.contains("env")) || self.line.contains("env")
    }

    fn without_value(&self) -> String {
        match self.line.split_once('=') {
            Some((name, _)) => format!("{name}= …"),
            None => "…".to_owned(),
        }
    }
}

/// The key and those that it could have been, out of serde's message.
fn unknown_key(message: &str) -> Option<(String, Vec<String>)> {
    let mut names = message.strip_prefix("unknown field ")?.split('`').skip(1).step_by(2);
    Some((names.next()?.to_owned(), names.map(str::to_owned).collect()))
}

/// The known word that is nearest to `word`, if it is near.
fn nearest<'a>(word: &str, known: &'a [String]) -> Option<&'a String> {
    known
        .iter()
        .map(|name| (distance(word, name), name))
        .filter(|(distance, name)| *distance <= name.len().div_ceil(3))
        .min()
        .map(|(_, name)| name)
}

/// Levenshtein's: how many letters to insert, delete or change.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(source: &str) -> Failure {
        parse(source, "config.toml").unwrap_err()
    }

    #[test]
    fn everything_that_may_be_set_is_read() {
        let config = parse(
            "port = 4301\nname = \"desk\"\nhosts = [\"desk.lan\"]\norigins = []\n\
             [provider.claude]\npath = \"/opt/claude\"\n[provider.claude.env]\nKEY = \"value\"\n",
            "config.toml",
        )
        .unwrap();
        assert_eq!(config.port, Some(4301));
        assert_eq!(config.provider.claude.path.as_deref(), Some("/opt/claude"));
        assert_eq!(config.provider.claude.env["KEY"].0.expose(), "value");
        assert!(parse("", "config.toml").is_ok());
    }

    #[test]
    fn an_unknown_key_is_shown_in_its_place_with_the_nearest_one() {
        let failure = failure("# mine\n\n  prot = 20\n");
        assert_eq!(failure.exit, Exit::Usage);
        assert_eq!(failure.message, "config.toml:3:3: unknown key `prot`");
        assert_eq!(
            &*failure.excerpt.unwrap(),
            "    3 |   prot = 20\n      |   ^^^^ did you mean `port`?"
        );
    }

    #[test]
    fn a_key_that_is_near_nothing_gets_no_advice() {
        let failure = failure("zzzzzzzz = 1\n");
        assert!(failure.excerpt.unwrap().ends_with("^^^^^^^^"));
    }

    #[test]
    fn wrong_types_and_broken_syntax_show_line_and_column() {
        assert!(failure("port = \"x\"").message.starts_with("config.toml:1:8: invalid type"));
        assert!(failure("port = 99999").message.starts_with("config.toml:1:8: "));
        assert!(failure("a = 1\nb = [1,\n").message.starts_with("config.toml:"));
        assert!(failure("[provider.claude]\npath = \"claude\"").message.contains("not absolute"));
    }

    #[test]
    fn a8_errors_near_secrets_do_not_show_them() {
        for source in [
            "[provider.claude.env]\nKEY = 12345678\n",
            "[provider.claude.env]\nKEY = \"12345678\n",
            "[provider.claude.env]\nKEY = 12345678 # mine\nOTHER = \"x\"\n",
            "[provider.claude]\nenv = { KEY = 12345678 }\n",
            "[provider.claude]\nenv.KEY = 12345678\n",
            "[provider.claude]\nenv = \"12345678\"\n",
        ] {
            let failure = failure(source);
            let shown = format!("{} {:?}", failure.message, failure.excerpt);
            assert!(!shown.contains("12345678"), "{shown}");
            assert!(shown.contains("config.toml:2:"), "{shown}");
        }
    }
}
