//! What the daemon says to peers: every frame, who may hear it, and that each request has one answer.
//!
//! Owns the reading of frames and who a peer turned out to be by them; refuses to judge what is stored.

use clawd_protocol::{ConnId, DeviceId};
use serde_json::Value;

use super::heard::{Wish, on_granted};
use super::secrets::no_token;
use super::{Identity, Invariants, Peer, Verdict, ensure};
use crate::store::Store;

impl Invariants {
    /// A message is given to the daemon. Requests as [`crate::client`] makes them are due an answer.
    pub(super) fn on_text(&mut self, conn: ConnId, text: &str, store: &Store) {
        let Ok(value) = serde_json::from_str::<Value>(text) else { return };
        let Some(method) = value["method"].as_str() else { return };
        if value["id"].is_string() {
            self.on_allowing(method, &value["params"], store);
        }
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        let goes_on = matches!(method, "daemon.auth" | "events.subscribe");
        if let Some(wish) = Wish::of(&value["params"]).filter(|_| goes_on) {
            peer.wishes.insert(value["id"].to_string(), wish);
        }
        if let Some(id) = value["id"].as_str().filter(|id| id.starts_with('q')) {
            peer.open.insert(id.to_owned(), method.to_owned());
        }
    }

    pub(super) fn on_send(&mut self, conn: ConnId, text: &str, store: &Store) -> Verdict {
        ensure(self.peer(conn)?.is_upgraded, || "a message before the upgrade".to_owned())?;
        let value: Value =
            serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
        let single = std::slice::from_ref(&value);
        for frame in value.as_array().map_or(single, Vec::as_slice) {
            ensure(frame["jsonrpc"] == "2.0", || format!("not JSON-RPC 2.0: {frame}"))?;
            if frame["method"].is_string() {
                self.on_event(conn, frame, store)?;
            } else {
                self.on_response(conn, frame, store)?;
            }
        }
        Ok(())
    }

    fn on_event(&mut self, conn: ConnId, event: &Value, store: &Store) -> Verdict {
        no_token(&event.to_string(), "an event")?;
        announced_is_stored(event, store)?;
        let revoked = self.revoked.clone();
        let peer = self.peer(conn)?;
        let Some(identity) = &peer.identity else {
            return Err(format!("a stranger got an event: {event}"));
        };
        if let Identity::Device(id) = identity {
            ensure(!revoked.contains(id), || format!("revoked device {id} got {event}"))?;
        }
        let params = &event["params"];
        ensure(params.is_object(), || format!("params are no object: {event}"))?;
        self.hear(conn, event, store)
    }

    fn on_response(&mut self, conn: ConnId, response: &Value, store: &Store) -> Verdict {
        let (result, error) = (response.get("result"), response.get("error"));
        ensure(result.is_some() != error.is_some(), || format!("result and error: {response}"))?;
        ensure(response.get("id").is_some(), || format!("a response without id: {response}"))?;
        if let Some(error) = error {
            let is_whole = error["code"].is_i64()
                && error["message"].is_string()
                && error["data"]["kind"].is_string();
            ensure(is_whole, || format!("an error that is not one: {response}"))?;
            no_token(&response.to_string(), "an error")?;
        }
        let peer = self.peer(conn)?;
        if let (Some(wish), Some(result)) =
            (peer.wishes.remove(&response["id"].to_string()), result)
        {
            on_granted(peer, wish, result)?;
        }
        let mut method = String::new();
        if let Some(id) = response["id"].as_str().filter(|id| id.starts_with('q')) {
            method = peer.open.remove(id).unwrap_or_default();
            let is_first = peer.answered.insert(id.to_owned());
            ensure(is_first, || format!("answered twice: {response}"))?;
        }
        match result {
            Some(result) => self.on_result(conn, &method, result, store),
            None => Ok(()),
        }
    }

    fn on_result(&mut self, conn: ConnId, method: &str, result: &Value, store: &Store) -> Verdict {
        self.on_secret(conn, result, store)?;
        let revoked = self.revoked.clone();
        let peer = self.peer(conn)?;
        let is_welcome = result["protocolVersion"].is_u64();
        if is_welcome || (result["device_token"].is_string() && result["device_id"].is_string()) {
            return on_identity(peer, result);
        }
        match &peer.identity {
            None => {
                let is_ping = result["pong"] == true || method.starts_with("device.pair");
                ensure(is_ping, || format!("a stranger got the answer {result}"))
            }
            Some(Identity::Device(id)) if revoked.contains(id) => {
                let is_own_end = result["revoked"] == true;
                ensure(is_own_end, || format!("revoked device {id} got {result}"))
            }
            Some(_) => Ok(()),
        }
    }

    /// When nothing is under way and no wait is left, every request has its answer.
    pub(crate) fn on_quiet(&self) -> Verdict {
        for (conn, peer) in self.peers.iter().filter(|(_, peer)| !peer.is_over) {
            ensure(peer.open.is_empty(), || format!("{conn:?} waits for {:?}", peer.open))?;
        }
        self.check_heard()
    }
}

fn on_identity(peer: &mut Peer, result: &Value) -> Verdict {
    let id = ["deviceId", "device_id"].iter().find_map(|key| result[*key].as_str());
    let identity = match id {
        Some(id) => Identity::Device(id.parse().map_err(|_| format!("device id {id}"))?),
        None => Identity::Owner,
    };
    let is_same = peer.identity.as_ref().is_none_or(|before| *before == identity);
    ensure(is_same, || format!("{:?} became {identity:?}", peer.identity))?;
    peer.identity = Some(identity);
    Ok(())
}

/// What an event says to exist does exist on disk.
fn announced_is_stored(event: &Value, store: &Store) -> Verdict {
    let params = &event["params"];
    let uuid = |value: &Value| value["id"].as_str().map(str::to_owned);
    let is_stored = match event["method"].as_str() {
        Some("session.messageCreated") => uuid(&params["message"])
            .and_then(|id| id.parse().ok())
            .is_some_and(|id| store.db.messages.contains_key(&id)),
        Some("session.toolCallCreated") => uuid(&params["toolCall"])
            .and_then(|id| id.parse().ok())
            .is_some_and(|id| store.db.tool_calls.contains_key(&id)),
        Some("device.paired") => params["device_id"]
            .as_str()
            .and_then(|id| id.parse().ok())
            .is_some_and(|id: DeviceId| store.db.devices.contains_key(&id)),
        _ => true,
    };
    ensure(is_stored, || format!("announced before it is durable: {event}"))
}
