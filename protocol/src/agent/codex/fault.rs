//! What went wrong, in codex's words, as a turn's end.
//!
//! Owns the names of its errors; refuses to know turns. Codex says the HTTP status of the model's provider where there was
//! one, and a name of its own otherwise.

use alloc::borrow::Cow;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};

use serde::Deserialize;

use crate::agent::event::{Outcome, TurnEnd};
use crate::agent::json::{Raw, object, read, text};

/// Why a turn failed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Fault {
    pub(super) text: String,
    pub(super) status: Option<u16>,
    pub(super) retry_after_ms: Option<u64>,
    pub(super) is_not_found: bool,
    pub(super) is_not_logged_in: bool,
    /// The model's provider was at fault.
    is_api: bool,
}

#[derive(Deserialize)]
struct Words<'a> {
    #[serde(borrow)]
    message: Raw<'a>,
    #[serde(borrow, rename = "codexErrorInfo")]
    info: Raw<'a>,
    #[serde(borrow, rename = "additionalDetails")]
    details: Raw<'a>,
}

#[derive(Deserialize)]
struct Info<'a> {
    #[serde(borrow, rename = "httpStatusCode")]
    status: Raw<'a>,
}

impl Fault {
    /// In our own words.
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// Nobody has logged in.
    pub(super) fn not_logged_in() -> Self {
        Self { is_not_logged_in: true, is_api: true, ..Self::new("codex is not logged in") }
    }

    /// The error of a turn, or the one after which it tries again.
    pub(super) fn of_turn(error: Raw<'_>) -> Self {
        let Some(words) = object::<Words<'_>>(error) else {
            return Self::new("codex did not say what went wrong");
        };
        let mut fault = Self::new(text(words.message).unwrap_or_default());
        if let Some(details) = text(words.details).filter(|it| !fault.text.contains(&**it)) {
            fault.text = format!("{}: {details}", fault.text);
        }
        let (name, status) = named(words.info);
        fault.status = status.or(match &*name {
            "usageLimitExceeded" | "rateLimitExceeded" => Some(429),
            "unauthorized" => Some(401),
            "internalServerError" => Some(500),
            "serverOverloaded" => Some(503),
            "modelNotFound" => Some(404),
            _ => None,
        });
        fault.is_api = fault.status.is_some()
            || matches!(
                &*name,
                "httpConnectionFailed"
                    | "responseStreamConnectionFailed"
                    | "responseStreamDisconnected"
                    | "responseTooManyFailedAttempts"
                    | "contextWindowExceeded"
                    | "badRequest"
                    | "flexUnavailable"
            );
        fault.is_not_logged_in = fault.status == Some(401);
        if fault.status == Some(429) {
            fault.retry_after_ms = wait_ms(&fault.text);
        }
        fault
    }

    /// The error in the answer to a request.
    pub(super) fn of_answer(error: Raw<'_>) -> Self {
        let message = object::<Words<'_>>(error).and_then(|words| text(words.message));
        let mut fault = Self::new(message.unwrap_or(Cow::Borrowed("codex gave no reason")));
        fault.is_not_found = fault.text.contains("no rollout found");
        fault
    }

    /// As the end of a turn.
    pub(super) fn end(&self) -> TurnEnd<'_> {
        TurnEnd {
            outcome: if self.is_api { Outcome::ApiError } else { Outcome::Failed },
            api_status: self.status,
            retry_after_ms: self.retry_after_ms,
            error: &self.text,
            usage: None,
            is_not_found: self.is_not_found,
            is_not_logged_in: self.is_not_logged_in,
        }
    }
}

/// The name of an error and its status: `"usageLimitExceeded"`, `{"httpConnectionFailed":{"httpStatusCode":401}}`.
fn named(info: Raw<'_>) -> (Cow<'_, str>, Option<u16>) {
    if let Some(name) = text(info) {
        return (name, None);
    }
    let known: Option<BTreeMap<String, &serde_json::value::RawValue>> = read(info);
    let Some((name, about)) = known.and_then(|known| known.into_iter().next()) else {
        return (Cow::Borrowed(""), None);
    };
    let status = object::<Info<'_>>(Some(about)).and_then(|about| read(about.status));
    (Cow::Owned(name), status)
}

/// Which attempt of how many an error is about.
pub(super) fn attempt(error: Raw<'_>) -> Option<(u32, u32)> {
    counted(&text(object::<Words<'_>>(error)?.message)?)
}

/// `Reconnecting... 2/5`.
fn counted(message: &str) -> Option<(u32, u32)> {
    let (before, after) = message.rsplit_once('/')?;
    let attempt = before.rsplit(|c: char| !c.is_ascii_digit()).next()?;
    let max = after.split(|c: char| !c.is_ascii_digit()).next()?;
    Some((attempt.parse().ok()?, max.parse().ok()?))
}

/// How long the provider wants to be left alone: `try again in 3 hours 12 minutes`, `try again in 1.5s`.
fn wait_ms(text: &str) -> Option<u64> {
    let text = text.to_ascii_lowercase();
    let (_, wait) = text.split_once("try again in ")?;
    let mut total: Option<u64> = None;
    let mut words = wait.split([' ', ',']).filter(|word| !word.is_empty() && *word != "and");
    while let Some(word) = words.next() {
        let end = word.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(word.len());
        let (number, unit) = word.split_at_checked(end)?;
        let Some(thousandths) = thousandths(number) else { break };
        let unit = if unit.is_empty() { words.next().unwrap_or_default() } else { unit };
        let Some(unit_ms) = unit_ms(unit) else { break };
        let ms = thousandths.saturating_mul(unit_ms).saturating_div(1000);
        total = Some(total.unwrap_or(0).saturating_add(ms));
        if unit.ends_with('.') {
            break;
        }
    }
    total
}

fn unit_ms(unit: &str) -> Option<u64> {
    match unit.trim_end_matches(['.', ';', ')']) {
        "ms" => Some(1),
        "s" | "sec" | "secs" | "second" | "seconds" => Some(1000),
        "m" | "min" | "mins" | "minute" | "minutes" => Some(60_000),
        "h" | "hour" | "hours" => Some(3_600_000),
        "d" | "day" | "days" => Some(86_400_000),
        _ => None,
    }
}

/// `1.5` as 1500.
fn thousandths(number: &str) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let fraction: String = fraction.chars().chain("000".chars()).take(3).collect();
    let whole: u64 = whole.parse().ok()?;
    Some(whole.saturating_mul(1000).saturating_add(fraction.to_string().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of_turn(json: &str) -> Fault {
        Fault::of_turn(Some(serde_json::from_str(json).unwrap()))
    }

    #[test]
    fn errors_are_told_by_name_and_status() {
        for (info, status, outcome, is_not_logged_in) in [
            (
                r#"{"httpConnectionFailed":{"httpStatusCode":401}}"#,
                Some(401),
                Outcome::ApiError,
                true,
            ),
            (r#"{"httpConnectionFailed":{"httpStatusCode":null}}"#, None, Outcome::ApiError, false),
            (
                r#"{"responseTooManyFailedAttempts":{"httpStatusCode":429}}"#,
                Some(429),
                Outcome::ApiError,
                false,
            ),
            (r#""usageLimitExceeded""#, Some(429), Outcome::ApiError, false),
            (r#""unauthorized""#, Some(401), Outcome::ApiError, true),
            (r#""serverOverloaded""#, Some(503), Outcome::ApiError, false),
            (r#""contextWindowExceeded""#, None, Outcome::ApiError, false),
            (r#""other""#, None, Outcome::Failed, false),
            (r#"{"somethingNew":[1]}"#, None, Outcome::Failed, false),
            ("{}", None, Outcome::Failed, false),
            ("null", None, Outcome::Failed, false),
            ("7", None, Outcome::Failed, false),
        ] {
            let fault = of_turn(&format!(r#"{{"message":"bad","codexErrorInfo":{info}}}"#));
            let end = fault.end();
            let told = (end.api_status, end.outcome, end.is_not_logged_in);
            assert_eq!(told, (status, outcome, is_not_logged_in), "{info}");
            assert_eq!(end.error, "bad");
        }
    }

    #[test]
    fn details_are_told_once() {
        let json = r#"{"message":"it broke: at once","additionalDetails":"at once"}"#;
        assert_eq!(of_turn(json).text, "it broke: at once");
        assert_eq!(of_turn(r#"{"message":"a","additionalDetails":"b"}"#).text, "a: b");
        assert!(!Fault::of_turn(None).text.is_empty());
    }

    #[test]
    fn attempts_are_counted() {
        for (message, numbers) in [
            ("Reconnecting... 1/5", Some((1, 5))),
            ("Reconnecting... 12/30 (waiting)", Some((12, 30))),
            ("Reconnecting... waiting for network", None),
            ("a/b", None),
            ("9999999999/1", None),
        ] {
            assert_eq!(counted(message), numbers, "{message}");
        }
    }

    #[test]
    fn waits_are_read() {
        for (text, wait) in [
            ("Rate limit reached. Please try again in 1.5s. See the docs.", Some(1500)),
            ("You've hit your usage limit. Try again in 3 hours 12 minutes.", Some(11_520_000)),
            ("try again in 2 days, 1 hour and 5 minutes", Some(176_700_000)),
            ("try again in 28ms", Some(28)),
            ("Try again in 5 minutes. Then 6 hours pass.", Some(300_000)),
            ("try again in a moment", None),
            ("try again at 3:05 PM", None),
            ("", None),
        ] {
            assert_eq!(wait_ms(text), wait, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_message_is_read(message in "(try again in )?[0-9a-z./ ,é]{0,30}") {
            let _ = wait_ms(&message);
            let _ = counted(&message);
        }
    }
}
