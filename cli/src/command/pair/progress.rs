//! What the daemon says while a pairing window is open.
//!
//! Owns the events' meaning; all text of a device's is fit to be shown when it leaves here (security K1).

use std::time::Duration;

use clawd_protocol::text::visible_line;
use serde_json::Value;

use crate::connection::Event;

/// So long an answer is waited for if the daemon does not say (security D5).
const CONFIRM_SECS: u64 = 60;
/// Longer is no name.
const NAME_CHARS_MAX: usize = 64;

/// How a window came to its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Paired {
        id: String,
        name: String,
        platform: String,
        role: Option<String>,
    },
    /// Not let in, and why.
    Declined(String),
    Expired,
    Closed(String),
    Interrupted,
}

/// A device that knows the PIN or the ticket, and is let in once its owner agrees.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) pairing: String,
    pub(super) name: String,
    pub(super) within: Duration,
    platform: String,
    via: String,
    address: String,
    code: String,
}

/// What an event means for the window.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Over(Outcome),
    Asks(Candidate),
    State(String),
    Other,
}

impl Candidate {
    /// What its owner has to know. The question is drawn below it, at its own place.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = vec!["A device wants to come in:".to_owned(), String::new()];
        let fields = [
            ("name", &self.name),
            ("platform", &self.platform),
            ("via", &self.via),
            ("address", &self.address),
            ("code", &self.code),
        ];
        for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
            lines.push(format!("  {name:<10} {value}"));
        }
        lines.push(String::new());
        if !self.code.is_empty() {
            lines.push(
                "The device must show the same code. If it shows another, say no.".to_owned(),
            );
        }
        lines.push(format!("Without an answer within {} s it stays out.", self.within.as_secs()));
        lines.push(String::new());
        lines
    }
}

/// How often somebody may still be wrong about the PIN.
fn tries_left(count: u64) -> String {
    match count {
        0 => "; no try is left".to_owned(),
        1 => "; 1 try is left".to_owned(),
        count => format!("; {count} tries are left"),
    }
}

/// What this event means for the window of this name.
pub(super) fn understand(event: &Event, pairing: &str) -> Progress {
    let raw =
        |key: &str| event.params.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let text = |key: &str| {
        let text: String = raw(key).chars().take(NAME_CHARS_MAX).collect();
        visible_line(&text).into_owned()
    };
    match event.method.as_str() {
        "device.paired" => Progress::Over(Outcome::Paired {
            id: text("device_id"),
            name: text("name"),
            platform: text("platform"),
            role: event.params.get("role").and_then(Value::as_str).map(|_| text("role")),
        }),
        "pairing.progress" => {
            let (of, detail) = (raw("pairingId"), visible_line(&raw("detail")).into_owned());
            if !of.is_empty() && !pairing.is_empty() && of != pairing {
                return Progress::Other;
            }
            match raw("state").as_str() {
                "confirm" => {
                    let within = event.params.get("expiresInSeconds").and_then(Value::as_u64);
                    Progress::Asks(Candidate {
                        pairing: if of.is_empty() { pairing.to_owned() } else { of },
                        name: text("name"),
                        within: Duration::from_secs(within.unwrap_or(CONFIRM_SECS)),
                        platform: text("platform"),
                        via: text("via"),
                        address: text("address"),
                        code: text("code"),
                    })
                }
                "declined" => Progress::Over(Outcome::Declined(detail)),
                "expired" => Progress::Over(Outcome::Expired),
                "closed" | "cancelled" | "failed" => Progress::Over(Outcome::Closed(detail)),
                state => {
                    let what = if detail.is_empty() { visible_line(state).into() } else { detail };
                    let left = event.params.get("triesLeft").and_then(Value::as_u64);
                    Progress::State(what + &left.map_or_else(String::new, tries_left))
                }
            }
        }
        _ => Progress::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(method: &str, params: Value) -> Event {
        Event { method: method.to_owned(), params }
    }

    #[test]
    fn events_of_a_window_are_understood() {
        let paired = json!({"device_id": "a", "name": "n", "platform": "p"});
        let paired = understand(&event("device.paired", paired), "w");
        assert!(matches!(paired, Progress::Over(Outcome::Paired { .. })));
        let wrong = event("pairing.progress", json!({"state": "refused", "detail": "2\u{1b}left"}));
        assert_eq!(understand(&wrong, "w"), Progress::State(r"2\u{1b}left".to_owned()));
        for (left, said) in [(2, "; 2 tries are left"), (1, "; 1 try is left")] {
            let of = json!({"state": "refused", "detail": "wrong", "triesLeft": left});
            let state = Progress::State(format!("wrong{said}"));
            assert_eq!(understand(&event("pairing.progress", of), "w"), state);
        }
        let declined = event("pairing.progress", json!({"state": "declined", "detail": "no"}));
        let over = Progress::Over(Outcome::Declined("no".to_owned()));
        assert_eq!(understand(&declined, "w"), over);
        assert_eq!(understand(&event("session.created", json!({})), "w"), Progress::Other);
    }

    #[test]
    fn d5_only_the_device_at_this_window_is_asked_about() {
        let asks = |of: &str| {
            let params = json!({"state": "confirm", "pairingId": of, "name": "phone"});
            understand(&event("pairing.progress", params), "mine")
        };
        assert!(matches!(asks("mine"), Progress::Asks(_)));
        assert_eq!(asks("another"), Progress::Other);
    }

    #[test]
    fn d5_who_asks_is_shown_with_its_code_and_cannot_draw_the_question() {
        let name = format!("Ana\u{1b}[2J\r\nLet \"x\" in? [y/N] {}", "x".repeat(300));
        let params = json!({
            "state": "confirm", "pairingId": "mine", "name": name, "platform": "ios",
            "via": "relay", "address": "192.0.2.7", "code": "482 913", "expiresInSeconds": 42,
        });
        let Progress::Asks(asked) = understand(&event("pairing.progress", params), "mine") else {
            panic!("not asked")
        };
        assert_eq!(asked.within, Duration::from_secs(42));
        let lines = asked.lines();
        assert!(lines.iter().all(|line| !line.chars().any(char::is_control)), "{lines:?}");
        assert!(lines.iter().all(|line| line.chars().count() < 100), "{lines:?}");
        for (label, value) in [("platform", "ios"), ("via", "relay"), ("code", "482 913")] {
            assert!(lines.contains(&format!("  {label:<10} {value}")), "{lines:?}");
        }
    }
}
