//! What the user sees: stdout is data, stderr is talk.
//!
//! Owns the two streams, colour, marks and `--json`; refuses to know what is said. Invariant: text of others that gets
//! here has passed `clawd_protocol::text`; JSON passes it on the way out.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write as _};

use clawd_protocol::text::{is_hidden, visible};
use serde_json::{Map, Value};

use crate::args::{Color, Global};
use crate::exit::Failure;

pub(crate) mod style;
pub(crate) mod table;
pub(crate) mod time;

use style::{Mark, Style};

/// Where output goes and how it looks.
#[derive(Debug)]
pub(crate) struct Screen {
    /// `Some` under `--json`; the names are the fields to show, all if there are none.
    json: Option<Vec<String>>,
    /// How stdout looks.
    pub(crate) out: Style,
    /// How stderr looks.
    pub(crate) err: Style,
    /// Stdout is a terminal.
    pub(crate) is_tty: bool,
    verbose: u8,
    quiet: bool,
}

impl Screen {
    pub(crate) fn new(global: &Global) -> Self {
        let json = global.json.as_ref().map(|fields| {
            fields.iter().filter(|field| !field.is_empty()).cloned().collect::<Vec<_>>()
        });
        Self {
            json,
            out: Style::of(global.color, io::stdout().is_terminal()),
            err: Style::of(global.color, io::stderr().is_terminal()),
            is_tty: io::stdout().is_terminal(),
            verbose: global.verbose,
            quiet: global.quiet,
        }
    }

    /// For what fails before the command line is understood.
    pub(crate) fn bare(is_json: bool) -> Self {
        Self {
            json: is_json.then(Vec::new),
            out: Style::of(Color::Auto, io::stdout().is_terminal()),
            err: Style::of(Color::Auto, io::stderr().is_terminal()),
            is_tty: io::stdout().is_terminal(),
            verbose: 0,
            quiet: false,
        }
    }

    pub(crate) const fn is_json(&self) -> bool {
        self.json.is_some()
    }

    pub(crate) const fn is_verbose(&self) -> bool {
        self.verbose > 0
    }

    pub(crate) const fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// There is somebody to ask: a terminal to read from and one to ask on.
    pub(crate) fn can_ask() -> bool {
        io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Data, exactly as it is. A reader that has gone away is no failure of ours.
    pub(crate) fn print(&self, data: &str) -> Result<(), Failure> {
        self.write(data).map(drop)
    }

    /// One line of a stream that ends with its reader: `false` if that has gone away.
    pub(crate) fn stream_line(&self, line: &str) -> Result<bool, Failure> {
        self.write(&format!("{line}\n"))
    }

    /// The same under `--json`.
    pub(crate) fn stream_json(&self, value: &Value) -> Result<bool, Failure> {
        self.stream_line(&visible_json(&value.to_string()))
    }

    fn write(&self, data: &str) -> Result<bool, Failure> {
        let mut out = io::stdout().lock();
        match out.write_all(data.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(Failure::io("cannot write to stdout", &error)),
        }
    }

    pub(crate) fn line(&self, data: &str) -> Result<(), Failure> {
        self.print(&format!("{data}\n"))
    }

    /// Talk. Nobody can be told if stderr is gone, so that is ignored.
    pub(crate) fn say(&self, talk: &str) {
        if !self.quiet {
            let _ = writeln!(io::stderr().lock(), "{talk}");
        }
    }

    /// Talk that is one step of progress.
    pub(crate) fn note(&self, mark: Mark, talk: &str) {
        self.say(&format!("{} {talk}", self.err.mark(mark)));
    }

    /// A value as `--json` wants it: the chosen fields, one object or array.
    pub(crate) fn json(&self, value: &Value) -> Result<(), Failure> {
        let fields = self.json.as_deref().unwrap_or_default();
        let chosen = if fields.is_empty() { value.clone() } else { choose(value, fields)? };
        let text = if self.is_tty {
            serde_json::to_string_pretty(&chosen)
        } else {
            serde_json::to_string(&chosen)
        };
        self.line(&visible_json(&text.unwrap_or_default()))
    }

    /// One line of a stream under `--json`.
    pub(crate) fn json_line(&self, value: &Value) -> Result<(), Failure> {
        self.line(&visible_json(&value.to_string()))
    }

    /// A failure, in its three parts.
    pub(crate) fn fail(&self, failure: &Failure) {
        let mut err = io::stderr().lock();
        if self.is_json() {
            let _ = writeln!(err, "{}", visible_json(&failure.to_json().to_string()));
            return;
        }
        let message = safe(&failure.message);
        let _ = writeln!(err, "{} {message}", self.err.red("error:"));
        if let Some(excerpt) = &failure.excerpt {
            let _ = writeln!(err, "{}", safe(excerpt));
        }
        if let Some(hint) = &failure.hint {
            let hint = safe(hint);
            let _ = writeln!(err, "  {} {hint}", self.err.dim("hint:"));
        }
        if let (Some(code), true) = (failure.rpc_code, self.is_verbose()) {
            let _ = writeln!(err, "  {} {} ({code})", self.err.dim("code:"), failure.kind);
        }
    }
}

/// The last look at an error's text. Most of it was escaped where it was put together, and must not be so twice.
fn safe(text: &str) -> Cow<'_, str> {
    let is_unsafe = |char| !matches!(char, '\n' | '\t') && is_hidden(char);
    if text.chars().any(is_unsafe) { visible(text) } else { Cow::Borrowed(text) }
}

/// Only these fields of an object, or of each object of an array.
fn choose(value: &Value, fields: &[String]) -> Result<Value, Failure> {
    let object = |object: &Map<String, Value>| {
        let mut chosen = Map::new();
        for field in fields {
            let Some(value) = object.get(field) else {
                let valid: Vec<&str> = object.keys().map(String::as_str).collect();
                return Err(Failure::usage(format!("unknown field `{field}`"))
                    .hint(format!("there are {}", valid.join(", "))));
            };
            chosen.insert(field.clone(), value.clone());
        }
        Ok(Value::Object(chosen))
    };
    match value {
        Value::Array(rows) => rows
            .iter()
            .map(|row| row.as_object().map_or_else(|| Ok(row.clone()), object))
            .collect::<Result<Vec<_>, _>>()
            .map(Value::Array),
        Value::Object(one) => object(one),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(value.clone()),
    }
}

/// JSON that a terminal cannot act on. Such characters stand only inside strings, where JSON has an escape for them.
fn visible_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for char in json.chars() {
        if char != '\n' && is_hidden(char) {
            for unit in char.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            out.push(char);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_chosen_and_unknown_ones_named() {
        let rows = json!([{"id": "a", "status": "idle"}, {"id": "b", "status": "running"}]);
        let fields = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        assert_eq!(choose(&rows, &fields(&["id"])).unwrap(), json!([{"id": "a"}, {"id": "b"}]));
        let failure = choose(&rows[0], &fields(&["ids"])).unwrap_err();
        assert_eq!(failure.exit.code(), 2);
        assert_eq!(failure.hint.unwrap(), "there are id, status");
    }

    #[test]
    fn k1_json_is_safe_to_look_at_and_means_the_same() {
        let value = json!({"a": "\u{1b}[2J \u{9b}1m \u{202e} \u{e0041} ok"});
        let shown = visible_json(&value.to_string());
        assert!(!shown.chars().any(is_hidden), "{shown}");
        assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), value);
    }
}
