//! How a command ends: the exit codes, all of them, and errors in three parts.
//!
//! Owns the numbers that scripts rely on and the shape of a failure (what failed, why, what to type next); refuses to
//! know where either is printed. A code that is not in [`Exit`] is never returned.

use std::process::ExitCode;

use clawd_protocol::client::RpcError;
use serde_json::{Map, Value};

/// Every way to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Ok = 0,
    Failure = 1,
    Usage = 2,
    PortTaken = 3,
    Database = 4,
    Token = 5,
    NotRunning = 6,
    Turn = 7,
    Provider = 8,
    NotFound = 9,
    Interrupted = 130,
}

impl Exit {
    /// All of them, for the help topic.
    pub(crate) const ALL: [Self; 11] = [
        Self::Ok,
        Self::Failure,
        Self::Usage,
        Self::PortTaken,
        Self::Database,
        Self::Token,
        Self::NotRunning,
        Self::Turn,
        Self::Provider,
        Self::NotFound,
        Self::Interrupted,
    ];

    pub(crate) const fn code(self) -> u8 {
        self as u8
    }

    /// The exit that a child of ours ended with.
    pub(crate) fn from_code(code: i32) -> Self {
        Self::ALL.into_iter().find(|exit| i32::from(exit.code()) == code).unwrap_or(Self::Failure)
    }

    pub(crate) const fn meaning(self) -> &'static str {
        match self {
            Self::Ok => "all went well",
            Self::Failure => "something failed; also `clawd status --json` when nothing runs",
            Self::Usage => "wrong usage or configuration",
            Self::PortTaken => "the port or the data directory is in use",
            Self::Database => "the database cannot be used (gh uses 4 for auth; here that is 5)",
            Self::Token => "the token is missing, unsafe or refused",
            Self::NotRunning => "the daemon is not running or cannot be reached",
            Self::Turn => {
                "the turn failed, or a tool call was denied because nobody could be asked; also \
                 `clawd approve` when the answer was no, and `clawd policy test` when a call would \
                 not simply run"
            }
            Self::Provider => "the provider is missing or not logged in",
            Self::NotFound => "no such thing, or already decided",
            Self::Interrupted => "interrupted with Ctrl-C",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command did not do what it was asked to.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// One word for programs; the RPC's where it came from there.
    pub(crate) kind: String,
    /// What failed, and why.
    pub(crate) message: String,
    /// Lines that show the place, such as a line of the configuration.
    pub(crate) excerpt: Option<Box<str>>,
    /// What to type next.
    pub(crate) hint: Option<String>,
    /// The JSON-RPC code, shown with `-v`.
    pub(crate) rpc_code: Option<i64>,
    pub(crate) details: Box<Map<String, Value>>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, kind: &str, message: impl Into<String>) -> Self {
        Self {
            exit,
            kind: kind.to_owned(),
            message: without_os_error(message.into()),
            excerpt: None,
            hint: None,
            rpc_code: None,
            details: Box::default(),
        }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, "usage", message)
    }

    pub(crate) fn io(what: &str, error: &std::io::Error) -> Self {
        Self::new(Exit::Failure, "io", format!("{what}: {error}"))
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn detail(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.details.insert(key.to_owned(), value.into());
        self
    }

    /// As scripts get it on stderr under `--json`.
    pub(crate) fn to_json(&self) -> Value {
        serde_json::json!({"error": {
            "code": self.kind,
            "message": self.message,
            "hint": self.hint,
            "details": self.details,
        }})
    }

    /// The other way: a child's failure, told by itself.
    pub(crate) fn from_json(exit: Exit, value: &Value) -> Option<Self> {
        let error = value.get("error")?;
        let text = |key| error.get(key).and_then(Value::as_str).map(str::to_owned);
        let mut failure = Self::new(exit, &text("code")?, text("message")?);
        failure.hint = text("hint");
        let details = error.get("details").and_then(Value::as_object);
        failure.details = Box::new(details.cloned().unwrap_or_default());
        Some(failure)
    }
}

/// The system's words without its number, which Rust adds and nobody types anywhere.
pub(crate) fn without_os_error(message: String) -> String {
    match message.rsplit_once(" (os error ") {
        Some((words, number)) if number.trim_end_matches(')').parse::<i32>().is_ok() => {
            words.to_owned()
        }
        Some(_) | None => message,
    }
}

impl From<RpcError> for Failure {
    fn from(error: RpcError) -> Self {
        let kind = error.kind.unwrap_or_else(|| kind_of_code(error.code).to_owned());
        let exit = match kind.as_str() {
            "unauthorized" | "role" => Exit::Token,
            "session_not_found" | "device_not_found" | "repo_not_found" | "already_decided"
            | "not_pending" | "not_found" => Exit::NotFound,
            "provider_not_available" => Exit::Provider,
            "tool_blocked" => Exit::Turn,
            "bad_params" | "invalid_params" => Exit::Usage,
            _ => Exit::Failure,
        };
        let mut details = error
            .data
            .and_then(|data| serde_json::from_str::<Map<String, Value>>(data.get()).ok())
            .unwrap_or_default();
        details.retain(|key, _| key != "kind" && key != "hint");
        let hint = to_type(&kind).map(str::to_owned).or(error.hint);
        Self {
            exit,
            kind,
            message: error.message,
            excerpt: None,
            hint,
            rpc_code: Some(error.code),
            details: Box::new(details),
        }
    }
}

/// What to type here, where the daemon's hint names what a program would call.
fn to_type(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "session_paused" => "let it go on with `clawd resume ID`",
        "session_busy" => "wait for it, see what it asks (`clawd approvals`), or `clawd stop ID`",
        "session_not_found" => "see `clawd session list`",
        "device_not_found" => "see `clawd device list`",
        "not_pending" => "see `clawd approvals`",
        _ => return None,
    })
}

/// For answers that carry only a number.
const fn kind_of_code(code: i64) -> &'static str {
    match code {
        -32001 => "session_not_found",
        -32002 => "provider_not_available",
        -32004 => "unauthorized",
        -32005 => "repo_not_found",
        -32020 => "device_not_found",
        -32028 => "tool_blocked",
        -32029 => "rate_limited",
        -32601 => "method_not_found",
        -32602 => "invalid_params",
        _ => "internal",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rpc(code: i64, kind: Option<&str>) -> Failure {
        Failure::from(RpcError {
            code,
            message: "no".to_owned(),
            kind: kind.map(str::to_owned),
            hint: Some("try".to_owned()),
            data: None,
        })
    }

    #[test]
    fn refusals_have_their_exit_codes() {
        for (code, kind, exit) in [
            (-32004, Some("unauthorized"), 5),
            (-32004, None, 5),
            (-32002, Some("provider_not_available"), 8),
            (-32002, Some("session_busy"), 1),
            (-32001, None, 9),
            (-32602, Some("already_decided"), 9),
            (-32602, Some("bad_params"), 2),
            (-32603, None, 1),
        ] {
            assert_eq!(rpc(code, kind).exit.code(), exit, "{code} {kind:?}");
        }
    }

    #[test]
    fn a_failure_survives_the_way_from_child_to_parent() {
        let failure =
            Failure::new(Exit::PortTaken, "port_in_use", "taken").hint("h").detail("pid", 7);
        let back = Failure::from_json(Exit::from_code(3), &failure.to_json()).unwrap();
        assert_eq!(back.to_json(), failure.to_json());
        assert_eq!(back.exit, Exit::PortTaken);
        assert_eq!(Exit::from_code(77), Exit::Failure);
    }
}
