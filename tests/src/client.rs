//! A comfortable client: requests, answers and events on one link.
//!
//! Owns the envelope as a client sees it (wire.md §2); refuses to know any method beyond what it takes to get in.

use clawd_protocol::{ConnId, Fingerprint, Source};
use serde_json::{Value, json};

use crate::link::Stage;
use crate::world::{LOOPBACK, PORT, World};

/// A client: its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Client {
    /// The connection.
    pub conn: ConnId,
}

/// A request under way: its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked(String);

/// An error of a call.
#[derive(Debug, Clone, PartialEq)]
pub struct RpcError {
    /// The number.
    pub code: i64,
    /// The word in `data.kind`.
    pub kind: String,
    /// The text.
    pub message: String,
    /// Everything beside.
    pub data: Value,
}

/// A notification.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its method.
    pub name: String,
    /// Its parameters.
    pub params: Value,
}

/// A device that was paired, and its connection.
#[derive(Debug, Clone)]
pub struct Paired {
    /// The connection over which it was paired.
    pub client: Client,
    /// Its id.
    pub id: String,
    /// Its token.
    pub token: String,
}

/// The headers of a plain upgrade.
#[must_use]
pub fn upgrade_headers() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("Host", format!("127.0.0.1:{PORT}").into_bytes()),
        ("Upgrade", b"websocket".to_vec()),
        ("Connection", b"Upgrade".to_vec()),
        ("Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ==".to_vec()),
        ("Sec-WebSocket-Version", b"13".to_vec()),
    ]
}

/// The text of a request.
#[must_use]
pub fn request(id: &str, method: &str, params: &Value) -> String {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string()
}

/// Coming in.
impl World {
    /// Somebody connects and speaks WebSocket; a stranger still.
    pub fn stranger(&mut self, source: Source) -> Client {
        self.connect(source, &[])
    }

    /// Somebody connects with these headers beside the usual ones.
    pub fn connect(&mut self, source: Source, extra: &[(&'static str, &str)]) -> Client {
        let conn = self.open(source);
        self.upgrade_with(conn, extra)
    }

    /// Somebody connects with TLS, having shown this key, and speaks WebSocket; a stranger still.
    pub fn secured(&mut self, source: Source, key: Option<Fingerprint>) -> Client {
        let conn = self.open_secured(source, key, None);
        self.upgrade(conn)
    }

    /// A connection that is there speaks WebSocket from now on.
    pub fn upgrade(&mut self, conn: ConnId) -> Client {
        self.upgrade_with(conn, &[])
    }

    fn upgrade_with(&mut self, conn: ConnId, extra: &[(&'static str, &str)]) -> Client {
        let mut headers = upgrade_headers();
        headers.extend(extra.iter().map(|(name, value)| (*name, value.as_bytes().to_vec())));
        let borrowed: Vec<(&str, &[u8])> =
            headers.iter().map(|(name, value)| (*name, value.as_slice())).collect();
        self.head(conn, "/", &borrowed);
        self.settle();
        Client { conn }
    }

    /// The owner, over loopback.
    pub fn owner(&mut self) -> Client {
        self.owner_on(LOOPBACK)
    }

    /// The owner, coming from there.
    pub fn owner_on(&mut self, source: Source) -> Client {
        let client = self.stranger(source);
        let token = self.token();
        self.auth(client, &token).expect("the owner gets in");
        client
    }

    /// The local token.
    #[must_use]
    pub fn token(&self) -> String {
        self.store.token().expose().to_owned()
    }

    /// Authenticates.
    ///
    /// # Errors
    ///
    /// The daemon's refusal.
    pub fn auth(&mut self, client: Client, token: &str) -> Result<Value, RpcError> {
        self.call(client, "daemon.auth", json!({ "token": token }))
    }

    /// A device that comes back with its token.
    pub fn device_again(&mut self, token: &str) -> Client {
        let client = self.stranger(LOOPBACK);
        self.auth(client, token).expect("the device gets in");
        client
    }

    /// Pairs a device that may do this much; nobody is asked.
    pub fn pair(&mut self, owner: Client, role: &str, name: &str) -> Paired {
        let params = json!({"role": role, "confirm": false});
        let window = self.call(owner, "daemon.pairPin", params).expect("a pairing window");
        let client = self.stranger(LOOPBACK);
        let params = json!({"pin": window["pin"], "name": name, "platform": "android"});
        let device = self.call(client, "device.pair", params).expect("pairing");
        let text = |key: &str| device[key].as_str().expect("text").to_owned();
        Paired { client, id: text("device_id"), token: text("device_token") }
    }
}

/// Talking.
impl World {
    /// Sends a request and does not wait.
    pub fn ask(&mut self, client: Client, method: &str, params: Value) -> Asked {
        let id = format!("q{}", self.fresh_name());
        self.text(client.conn, &request(&id, method, &params));
        Asked(id)
    }

    /// The answer to a request, if it has come. It can be taken once.
    pub fn answer(&mut self, client: Client, asked: &Asked) -> Option<Result<Value, RpcError>> {
        let inbox = &mut self.link_mut(client.conn).inbox;
        let is_it = |text: &String| parse(text)["id"] == json!(asked.0);
        let at = inbox.iter().position(is_it)?;
        let answer = parse(&inbox.remove(at)?);
        Some(outcome(&answer))
    }

    /// Calls and waits, without letting time pass.
    ///
    /// # Errors
    ///
    /// The daemon's refusal.
    pub fn call(&mut self, client: Client, method: &str, params: Value) -> Result<Value, RpcError> {
        let asked = self.ask(client, method, params);
        self.settle();
        match self.answer(client, &asked) {
            Some(outcome) => outcome,
            None => self.fail(&format!("{method} has no answer")),
        }
    }

    /// Takes the events that have come, in order.
    pub fn events(&mut self, client: Client) -> Vec<Event> {
        let inbox = &mut self.link_mut(client.conn).inbox;
        let (events, rest) =
            std::mem::take(inbox).into_iter().partition::<std::collections::VecDeque<_>, _>(
                |text| parse(text)["method"].is_string(),
            );
        *inbox = rest;
        let event = |text: &String| {
            let mut value = parse(text);
            let name = value["method"].as_str().unwrap_or_default().to_owned();
            Event { name, params: value["params"].take() }
        };
        events.iter().map(event).collect()
    }

    /// Takes everything that has come, as it came.
    pub fn frames(&mut self, client: Client) -> Vec<String> {
        std::mem::take(&mut self.link_mut(client.conn).inbox).into()
    }

    /// With which code the connection was closed, if the daemon closed it.
    #[must_use]
    pub fn close_code(&self, client: Client) -> Option<u16> {
        match self.link(client.conn).stage {
            Stage::Gone(close) => close.map(|(code, _)| code),
            Stage::Fresh | Stage::Answered(_) | Stage::Upgraded => None,
        }
    }
}

/// The names of events, in order.
#[must_use]
pub fn names(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.name.as_str()).collect()
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}

fn outcome(answer: &Value) -> Result<Value, RpcError> {
    let error = &answer["error"];
    if error.is_null() {
        return Ok(answer["result"].clone());
    }
    Err(RpcError {
        code: error["code"].as_i64().unwrap_or_default(),
        kind: error["data"]["kind"].as_str().unwrap_or_default().to_owned(),
        message: error["message"].as_str().unwrap_or_default().to_owned(),
        data: error["data"].clone(),
    })
}
