//! The few calls that are answered before anybody is let in: pairing.
//!
//! Owns ids and answers; refuses to know what is asked for.

use std::time::{Duration, Instant};

use clawd_protocol::Fingerprint;
use clawd_protocol::client::RpcError;
use serde_json::{Value, json};

use super::link::Link;
use super::secure::Secure;
use super::socket::{Heard, Socket};
use super::{HANDSHAKE_TIMEOUT, lost};
use crate::exit::Failure;

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
            message: text(&error["message"]).unwrap_or_default(),
            kind: text(&error["data"]["kind"]),
            hint: text(&error["data"]["hint"]),
            data: None,
        }));
    }
    message.get_mut("result").filter(|_| is_ours).map(|result| Ok(result.take()))
}
