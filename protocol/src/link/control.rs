//! What is heard and said on the control connection.
//!
//! Owns the reading of a relay's messages, and which of them may come when; refuses to know what a tunnel is. A message
//! that comes out of turn is as bad as one that is none: there is nothing a relay needs to say twice.

use alloc::borrow::Cow;

use data_encoding::BASE64URL_NOPAD;
use serde::Deserialize;

use super::trouble::Trouble;
use super::{Link, State, may_note};
use crate::access::ctx::Ctx;
use crate::contract::effect::{Effect, Question};
use crate::contract::id::{AskId, LegId};
use crate::contract::input::Answer;
use crate::contract::limits::Limits;
use crate::contract::note::Note;
use crate::engine::Timer;
use crate::relay::control::{FromHost, FromRelay, signed};
use crate::wire::event::Event;
use crate::wire::json;

/// A relay's messages are flat.
const DEPTH_MAX: usize = 4;
/// A nonce is 32 bytes.
const NONCE_BYTES: usize = 32;
/// A ticket is 128 bits at least, or it could be guessed, and no more than a request target has room for.
const TICKET_CHARS: core::ops::RangeInclusive<usize> = 22..=128;

impl Link {
    pub(crate) fn on_heard(&mut self, cx: &mut Ctx<'_>, leg: LegId, text: &str) {
        if self.state.leg() != Some(leg) {
            return;
        }
        match read(text, &cx.engine.config.limits) {
            Ok(Some(message)) => self.on_message(cx, leg, message),
            Ok(None) => {}
            Err(trouble) => self.fail(cx, trouble),
        }
    }

    fn on_message(&mut self, cx: &mut Ctx<'_>, leg: LegId, message: FromRelay) {
        match (self.state, message) {
            (State::Greeted { .. }, FromRelay::Challenge { nonce }) if is_nonce(&nonce) => {
                let Some(wanted) = &cx.engine.relay else { return };
                let message = signed(&nonce, wanted.url.host(), &self.daemon);
                let ask = cx.ask(Question::Sign { message });
                self.state = State::Signing { leg, ask };
            }
            (State::Registering { .. }, FromRelay::Registered { ping_secs }) => {
                self.on_registered(cx, leg, ping_secs);
            }
            (State::Registered { .. }, FromRelay::Invite { ticket, from })
                if is_ticket(&ticket) =>
            {
                self.accept(cx, &ticket, from.as_deref());
            }
            (State::Registered { since, every, pinged: Some(at), .. }, FromRelay::Pong) => {
                let now = cx.engine.now.mono;
                let rtt = Some(now.since(at));
                self.state = State::Registered { leg, since, every, pinged: None, rtt };
                cx.engine.timers.arm(Timer::Link, now + every);
            }
            (_, FromRelay::Error { code, .. }) => self.fail(cx, Trouble::Refused(Some(code))),
            (
                _,
                FromRelay::Challenge { .. }
                | FromRelay::Registered { .. }
                | FromRelay::Invite { .. }
                | FromRelay::Pong
                | FromRelay::Connected,
            ) => self.fail(cx, Trouble::Garbled),
        }
    }

    /// The signature, if this answer is one of ours; else it is given back.
    pub(crate) fn on_answered(
        &mut self,
        cx: &mut Ctx<'_>,
        ask: AskId,
        answer: Answer,
    ) -> Option<Answer> {
        let State::Signing { leg, ask: asked } = self.state else { return Some(answer) };
        if ask != asked {
            return Some(answer);
        }
        match answer.signature() {
            Ok(signature) => {
                self.state = State::Registering { leg };
                let access_token = cx.engine.relay.as_ref().and_then(|it| it.access_token.clone());
                let register = FromHost::Register {
                    daemon_id: self.daemon,
                    public_key: self.public_key.clone(),
                    signature: BASE64URL_NOPAD.encode(&signature),
                    access_token,
                };
                say(cx, leg, &register);
            }
            Err(_) => self.fail(cx, Trouble::NotSigned),
        }
        None
    }

    fn on_registered(&mut self, cx: &mut Ctx<'_>, leg: LegId, ping_secs: u64) {
        let limits = &cx.engine.config.limits;
        let wished = core::time::Duration::from_secs(ping_secs);
        let every = wished.clamp(limits.relay_ping_min, limits.relay_ping_max);
        let since = cx.engine.now.unix;
        self.state = State::Registered { leg, since, every, pinged: None, rtt: None };
        self.failures = 0;
        self.trouble = None;
        let Some(url) = cx.engine.relay.as_ref().map(|it| it.url.clone()) else { return };
        cx.tell_in_passing(&Event::RelayConnected { url: &url });
        if let Some(unnoted) = may_note(cx, &mut self.noted) {
            cx.note(Note::RelayReached { url, unnoted });
        }
        // At once: so it is known how long the way is, and that it goes both ways.
        self.ping(cx);
    }

    pub(super) fn ping(&mut self, cx: &mut Ctx<'_>) {
        let State::Registered { leg, pinged, .. } = &mut self.state else { return };
        let now = cx.engine.now.mono;
        *pinged = Some(now);
        cx.engine.timers.arm(Timer::Link, now + cx.engine.config.limits.relay_pong_timeout);
        say(cx, *leg, &FromHost::Ping);
    }
}

fn say(cx: &mut Ctx<'_>, leg: LegId, message: &FromHost) {
    let text = serde_json::to_string(message).unwrap_or_default();
    cx.fx.push(Effect::Say { leg, text });
}

/// One message; `None` if it is of a type that this daemon does not know.
fn read(text: &str, limits: &Limits) -> Result<Option<FromRelay>, Trouble> {
    #[derive(Deserialize)]
    struct Typed<'a> {
        #[serde(rename = "type", borrow)]
        kind: Cow<'a, str>,
    }
    if text.len() > limits.relay_message_bytes_max || json::check(text, DEPTH_MAX).is_err() {
        return Err(Trouble::Garbled);
    }
    if let Ok(message) = serde_json::from_str(text) {
        return Ok(Some(message));
    }
    let Typed { kind } = serde_json::from_str(text).map_err(|_| Trouble::Garbled)?;
    match &*kind {
        "challenge" | "registered" | "invite" | "pong" | "connected" => Err(Trouble::Garbled),
        // Refused, for a reason that this daemon does not know.
        "error" => Err(Trouble::Refused(None)),
        _ => Ok(None),
    }
}

/// It goes into what the identity signs: nothing but what a nonce can be.
fn is_nonce(text: &str) -> bool {
    BASE64URL_NOPAD.decode(text.as_bytes()).is_ok_and(|bytes| bytes.len() == NONCE_BYTES)
}

/// It goes into the target of a request.
fn is_ticket(text: &str) -> bool {
    TICKET_CHARS.contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::control::Refusal;
    use alloc::format;

    #[test]
    fn what_a_relay_says_is_read_or_the_end() {
        let limits = Limits::default();
        let read = |text: &str| read(text, &limits);
        assert_eq!(read(r#"{"type":"pong"}"#), Ok(Some(FromRelay::Pong)));
        assert_eq!(read(r#"{"type":"pong","more":{"x":[1]}}"#), Ok(Some(FromRelay::Pong)));
        assert_eq!(read(r#"{"type":"weather","rain":true}"#), Ok(None));
        let refused = r#"{"type":"error","code":"replaced","message":"m"}"#;
        let error = FromRelay::Error { code: Refusal::Replaced, message: "m".into() };
        assert_eq!(read(refused), Ok(Some(error)));
        let unknown = r#"{"type":"error","code":"tired","message":"m"}"#;
        assert_eq!(read(unknown), Err(Trouble::Refused(None)));
        let long = format!(r#"{{"type":"pong","x":"{}"}}"#, "a".repeat(16 * 1024));
        for text in [
            "",
            "pong",
            "null",
            "[]",
            r#""pong""#,
            "{}",
            r#"{"type":7}"#,
            r#"{"type":"pong"} "#.trim_end_matches(' ').trim_end_matches('}'),
            r#"{"type":"pong"}x"#,
            r#"{"type":"pong","type":"pong"}"#,
            r#"{"type":"pong","x":[[[[[]]]]]}"#,
            r#"{"type":"registered"}"#,
            r#"{"type":"registered","pingSecs":-1}"#,
            r#"{"type":"invite","ticket":null}"#,
            r#"{"type":"challenge","nonce":["a"]}"#,
            &long,
        ] {
            assert_eq!(read(text), Err(Trouble::Garbled), "{text}");
        }
    }

    #[test]
    fn g5_a_ticket_and_a_nonce_are_what_they_can_be_and_nothing_else() {
        assert!(is_ticket("AZaz09-_AZaz09-_AZaz09"));
        assert!(is_ticket(&"a".repeat(128)));
        for wrong in ["", "short", "../../../../../../../x", "AAAAAAAAAAAAAAAAAAAAAA\r\nHost: x"] {
            assert!(!is_ticket(wrong), "{wrong}");
        }
        assert!(!is_ticket(&"a".repeat(129)));
        assert!(!is_ticket(&"ä".repeat(20)));
        assert!(is_nonce(&BASE64URL_NOPAD.encode(&[7; 32])));
        assert!(!is_nonce(&BASE64URL_NOPAD.encode(&[7; 31])));
        assert!(!is_nonce(&"a\0".repeat(21)));
        assert!(!is_nonce(""));
    }
}
