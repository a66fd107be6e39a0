//! What must be true after each step, whatever the step was.
//!
//! Owns an independent idea of who is who and what was asked, built only from what crosses the daemon's border; refuses
//! to look inside the daemon. The list is the one of the architecture: strangers, secrets, answers, limits, approvals,
//! revocations, durability, deadlines, and the contract with the runtime.

use std::collections::{BTreeMap, BTreeSet};

use clawd_protocol::access::token::{TokenDigest, TokenKind, kind_of};
use clawd_protocol::record::{Decision, DecisionKind, DeviceRecord, Role, ToolCallRecord};
use clawd_protocol::{
    AskId, Change, Command, ConnId, DeviceId, Effect, Head, Input, Instant, Limits, Now, OpId,
    ProcId, Source, To, ToolCallId, Unix,
};
use serde_json::Value;

use crate::child::Child;
use crate::link::{Link, Stage};
use crate::machine::CLAUDE;
use crate::store::Store;

/// What a check says.
pub type Verdict = Result<(), String>;

/// Who a connection turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Identity {
    Owner,
    Device(DeviceId),
}

/// What is known about one connection.
#[derive(Debug)]
struct Peer {
    source: Source,
    is_upgraded: bool,
    /// The daemon ended it, or was told that it ended.
    is_over: bool,
    identity: Option<Identity>,
    /// The request head carried a credential that is good.
    bearer: Option<Identity>,
    /// Accepted requests without an answer: id and method.
    open: BTreeMap<String, String>,
    answered: BTreeSet<String>,
    seq: u64,
}

/// The checks, and what they remember.
#[derive(Debug)]
pub struct Invariants {
    limits: Limits,
    peers: BTreeMap<ConnId, Peer>,
    ops: BTreeSet<OpId>,
    asks: BTreeSet<AskId>,
    procs: BTreeMap<ProcId, bool>,
    revoked: BTreeSet<DeviceId>,
    /// Tokens that were handed out, and to which connection.
    issued: BTreeMap<String, ConnId>,
    decided: BTreeMap<ToolCallId, Decision>,
    checked_deeds: BTreeMap<ProcId, usize>,
    /// The latest wall-clock time of this life.
    unix_high: Unix,
    /// Devices stored when it was last looked.
    devices: usize,
    is_stopped: bool,
}

fn ensure(is_true: bool, otherwise: impl FnOnce() -> String) -> Verdict {
    if is_true { Ok(()) } else { Err(otherwise()) }
}

impl Invariants {
    pub(crate) const fn new(limits: Limits) -> Self {
        Self {
            limits,
            peers: BTreeMap::new(),
            ops: BTreeSet::new(),
            asks: BTreeSet::new(),
            procs: BTreeMap::new(),
            revoked: BTreeSet::new(),
            issued: BTreeMap::new(),
            decided: BTreeMap::new(),
            checked_deeds: BTreeMap::new(),
            unix_high: Unix::from_millis(0),
            devices: 0,
            is_stopped: false,
        }
    }

    /// The next life of a daemon begins: its names start anew, what is stored stays.
    pub(crate) fn on_restart(&mut self) {
        self.peers.clear();
        self.ops.clear();
        self.asks.clear();
        self.procs.clear();
        self.checked_deeds.clear();
        self.unix_high = Unix::default();
        self.is_stopped = false;
    }

    /// A message is given to the daemon. Requests as [`crate::client`] makes them are due an answer.
    pub(crate) fn on_text(&mut self, conn: ConnId, text: &str) {
        let Ok(value) = serde_json::from_str::<Value>(text) else { return };
        let (Some(id), Some(method)) = (value["id"].as_str(), value["method"].as_str()) else {
            return;
        };
        if let Some(peer) = self.peers.get_mut(&conn).filter(|_| id.starts_with('q')) {
            peer.open.insert(id.to_owned(), method.to_owned());
        }
    }

    pub(crate) fn on_input(&mut self, input: &Input<'_>, store: &Store) -> Verdict {
        match input {
            Input::Opened { conn, source } => {
                let peer = Peer {
                    source: *source,
                    is_upgraded: false,
                    is_over: false,
                    identity: None,
                    bearer: None,
                    open: BTreeMap::new(),
                    answered: BTreeSet::new(),
                    seq: 0,
                };
                self.peers.insert(*conn, peer);
            }
            Input::Requested { conn, head: Ok(head) } => {
                if let Some(peer) = self.peers.get_mut(conn) {
                    peer.bearer = bearer(head, store);
                }
            }
            Input::Closed { conn } => {
                self.peers.remove(conn);
            }
            Input::Exited { proc, .. } => {
                self.procs.insert(*proc, false);
            }
            Input::Started { .. }
            | Input::Requested { .. }
            | Input::Began { .. }
            | Input::Text { .. }
            | Input::Broke { .. }
            | Input::Flushed { .. }
            | Input::Stored { .. }
            | Input::Answered { .. }
            | Input::Spawned { .. }
            | Input::Fed { .. }
            | Input::Output { .. }
            | Input::Tick
            | Input::Shutdown => {}
        }
        Ok(())
    }

    pub(crate) fn on_effect(
        &mut self,
        effect: &Effect,
        store: &Store,
        children: &BTreeMap<ProcId, Child>,
    ) -> Verdict {
        ensure(!self.is_stopped, || format!("after Stop came {effect:?}"))?;
        match effect {
            Effect::Respond { conn, response } => {
                no_token(&response.body, "an HTTP answer")?;
                let peer = self.peer(*conn)?;
                ensure(!peer.is_upgraded, || "an HTTP answer over WebSocket".to_owned())?;
                peer.is_over = true;
            }
            Effect::Upgrade { conn, .. } => {
                let peer = self.peer(*conn)?;
                ensure(!peer.is_upgraded, || "upgraded twice".to_owned())?;
                peer.is_upgraded = true;
                peer.identity.clone_from(&peer.bearer);
            }
            Effect::Send { to: To::One(conn), text } => self.on_send(*conn, text, store)?,
            Effect::Send { to: To::Many(conns), text } => {
                let unique: BTreeSet<_> = conns.iter().collect();
                ensure(unique.len() == conns.len(), || "sent to one peer twice".to_owned())?;
                conns.iter().try_for_each(|conn| self.on_send(*conn, text, store))?;
            }
            Effect::Close { conn, .. } => self.peer(*conn)?.is_over = true,
            Effect::Admit { conn, .. } | Effect::Pause { conn } | Effect::Resume { conn } => {
                self.peer(*conn)?;
            }
            Effect::Store { op, changes, .. } => {
                ensure(self.ops.insert(*op), || format!("{op:?} used twice"))?;
                ensure(!changes.is_empty(), || "a store of nothing".to_owned())?;
                self.on_revocations(changes);
            }
            Effect::Ask { ask, .. } => {
                ensure(self.asks.insert(*ask), || format!("{ask:?} used twice"))?;
            }
            Effect::Spawn { proc, command } => {
                let before = self.procs.insert(*proc, true);
                ensure(before.is_none(), || format!("{proc:?} used twice"))?;
                self.on_spawn(command)?;
            }
            Effect::Feed { proc, bytes } => {
                let is_finished = children.get(proc).is_some_and(|child| child.is_finished);
                ensure(!is_finished, || format!("{proc:?} fed after its input was closed"))?;
                no_token(&String::from_utf8_lossy(bytes), "an agent's input")?;
                self.alive(*proc)?;
            }
            Effect::Finish { proc } | Effect::Kill { proc } => self.alive(*proc)?,
            Effect::Stop => self.is_stopped = true,
        }
        Ok(())
    }

    fn peer(&mut self, conn: ConnId) -> Result<&mut Peer, String> {
        let peer = self.peers.get_mut(&conn).filter(|peer| !peer.is_over);
        peer.ok_or_else(|| format!("an effect for {conn:?}, which is over"))
    }

    fn alive(&self, proc: ProcId) -> Verdict {
        let is_alive = self.procs.get(&proc).copied().unwrap_or(false);
        ensure(is_alive, || format!("an effect for {proc:?}, which is over"))
    }

    fn on_revocations(&mut self, changes: &[Change]) {
        for change in changes {
            if let Change::Bury(id) = change {
                self.revoked.insert(*id);
            }
        }
    }

    /// No prompt, no secret and no leave to skip asking is ever an argument (security A8, H1, I1).
    fn on_spawn(&self, command: &Command) -> Verdict {
        ensure(command.program == CLAUDE, || format!("started {}", command.program))?;
        for arg in &command.args {
            no_token(arg, "an argument")?;
            ensure(!arg.contains("skip-permissions"), || format!("argument {arg}"))?;
        }
        Ok(())
    }

    fn on_send(&mut self, conn: ConnId, text: &str, store: &Store) -> Verdict {
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
        let seq = params["seq"].as_u64().ok_or_else(|| format!("no seq: {event}"))?;
        ensure(seq >= peer.seq, || format!("seq went back from {}: {event}", peer.seq))?;
        peer.seq = seq;
        Ok(())
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

    /// A token is in no frame but the one that hands it out, and there only once it is durable.
    fn on_secret(&mut self, conn: ConnId, result: &Value, store: &Store) -> Verdict {
        let mut rest = result.clone();
        for key in ["device_token", "deviceToken"] {
            let Some(Value::String(token)) = rest.get_mut(key).map(Value::take) else { continue };
            let digest = TokenDigest::of(&token).to_bytes();
            ensure(store.has_digest(digest), || "a token before it is durable".to_owned())?;
            let to = *self.issued.entry(token).or_insert(conn);
            ensure(to == conn, || "one token for two peers".to_owned())?;
        }
        no_token(&rest.to_string(), "a result")
    }

    /// Changes have become durable.
    pub(crate) fn on_stored(&mut self, changes: &[Change], store: &Store) -> Verdict {
        for change in changes {
            if let Change::PutToolCall(call) = change {
                self.on_decision(call, store)?;
            }
        }
        Ok(())
    }

    fn on_decision(&mut self, call: &ToolCallRecord, store: &Store) -> Verdict {
        let Some(decision) = &call.decision else {
            let known = self.decided.contains_key(&call.id);
            return ensure(!known, || format!("the decision on {} was taken back", call.id));
        };
        let first = self.decided.entry(call.id).or_insert_with(|| decision.clone());
        ensure(first == decision, || format!("{} was decided twice", call.id))?;
        let allows = matches!(decision.kind, DecisionKind::AllowOnce | DecisionKind::AllowSession);
        let may = match decision.by.as_str() {
            "owner" => true,
            "daemon" => !allows || call.risk == "low" || is_session_allowed(call, store),
            id => id.parse().is_ok_and(|id: DeviceId| {
                store.db.devices.get(&id).is_some_and(|device| device.role >= Role::Approve)
            }),
        };
        ensure(may, || format!("{} was decided by {}", call.id, decision.by))
    }

    /// After everything that the daemon said was done.
    pub(crate) fn on_turn(
        &mut self,
        now: Now,
        deadline: Option<Instant>,
        links: &BTreeMap<ConnId, Link>,
        children: &BTreeMap<ProcId, Child>,
        store: &Store,
    ) -> Verdict {
        if let Some(at) = deadline {
            ensure(at > now.mono, || format!("the deadline {at:?} is not after {now:?}"))?;
        }
        self.check_links(links)?;
        let is_alive = |child: &&Child| !child.is_gone && !child.is_killed;
        within("agents", children.values().filter(is_alive).count(), self.limits.agents_max)?;
        within("sessions", store.db.sessions.len(), self.limits.sessions_max)?;
        self.check_devices(now.unix, store)?;
        self.check_deeds(children, store)
    }

    /// A device more is paired only where there is room among those that still can come in.
    fn check_devices(&mut self, unix: Unix, store: &Store) -> Verdict {
        self.unix_high = self.unix_high.max(unix).max(store.db.unix_high);
        let before = std::mem::replace(&mut self.devices, store.db.devices.len());
        let (now, idle) = (self.unix_high, self.limits.device_idle_expiry);
        let is_living = |device: &&DeviceRecord| {
            device.revoked_at.is_none()
                && device.expires_at.is_none_or(|at| at > now)
                && device.last_seen_at + idle > now
        };
        let living = store.db.devices.values().filter(is_living).count();
        let max = if self.devices > before { self.limits.devices_max } else { usize::MAX };
        within("devices", living, max)
    }

    fn check_links(&self, links: &BTreeMap<ConnId, Link>) -> Verdict {
        let mut strangers: BTreeMap<Source, usize> = BTreeMap::new();
        let mut open = 0;
        for (conn, peer) in self.peers.iter().filter(|(_, peer)| !peer.is_over) {
            let Some(link) = links.get(conn).filter(|link| link.is_open()) else { continue };
            open += 1;
            if peer.identity.is_none() && peer.source != Source::Unix {
                *strangers.entry(canonical(peer.source)).or_default() += 1;
            }
            if link.stage == Stage::Upgraded {
                let bytes = link.queued_bytes().saturating_sub(link.longest_queued());
                within("queued bytes", bytes, self.limits.queue_bytes_max)?;
                within("open requests", peer.open.len(), self.limits.in_flight_max)?;
            }
        }
        within("connections", open, self.limits.connections_max)?;
        within("strangers", strangers.values().sum(), self.limits.strangers_max)?;
        let of_one = strangers.values().copied().max().unwrap_or(0);
        within("strangers of one source", of_one, self.limits.strangers_per_source)
    }

    /// A tool did its work only after a durable decision that allows exactly this (H1, H3), and once.
    fn check_deeds(&mut self, children: &BTreeMap<ProcId, Child>, store: &Store) -> Verdict {
        for (proc, child) in children {
            let checked = self.checked_deeds.entry(*proc).or_default();
            for (tool, input) in child.done.iter().skip(*checked) {
                let mut calls = store.db.tool_calls.values().map(|(_, call)| call);
                let call = calls.find(|call| call.provider_id == *tool);
                let call = call.ok_or_else(|| format!("{tool} ran and is not stored"))?;
                let stored: Value = serde_json::from_str(&call.input).unwrap_or_default();
                ensure(stored == *input, || format!("{tool} ran with {input}, not {stored}"))?;
                let kind = call.decision.as_ref().map(|decision| decision.kind);
                let is_allowed =
                    matches!(kind, Some(DecisionKind::AllowOnce | DecisionKind::AllowSession));
                let is_fine = is_allowed || is_session_allowed(call, store) || call.risk == "low";
                ensure(is_fine, || format!("{tool} ran, and its decision is {kind:?}"))?;
            }
            *checked = child.done.len();
            let unique: BTreeSet<_> = child.answers.iter().collect();
            let is_once = unique.len() == child.answers.len();
            ensure(is_once, || format!("{proc:?} was answered twice"))?;
        }
        Ok(())
    }

    /// When nothing is under way and no wait is left, every request has its answer.
    pub(crate) fn on_quiet(&self) -> Verdict {
        for (conn, peer) in self.peers.iter().filter(|(_, peer)| !peer.is_over) {
            ensure(peer.open.is_empty(), || format!("{conn:?} waits for {:?}", peer.open))?;
        }
        Ok(())
    }

    /// How many connections of this life have been authenticated and still stand.
    #[must_use]
    pub fn authenticated(&self) -> usize {
        let is_in = |peer: &&Peer| peer.identity.is_some() && !peer.is_over;
        self.peers.values().filter(is_in).count()
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

/// Another call of the same tool in this session was allowed for the whole session.
fn is_session_allowed(call: &ToolCallRecord, store: &Store) -> bool {
    store.db.tool_calls.values().any(|(_, other)| {
        other.session == call.session
            && other.name == call.name
            && other.decision.as_ref().is_some_and(|d| d.kind == DecisionKind::AllowSession)
    })
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

/// Who the credential in a request head is good for, if it is.
fn bearer(head: &Head<'_>, store: &Store) -> Option<Identity> {
    let (_, value) =
        head.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("authorization"))?;
    let token = std::str::from_utf8(value).ok()?.split_once(' ')?.1.trim();
    match kind_of(token)? {
        TokenKind::Local => (token == store.token().expose()).then_some(Identity::Owner),
        TokenKind::Device(id) => {
            let is_known = store.has_digest(TokenDigest::of(token).to_bytes());
            is_known.then_some(Identity::Device(id))
        }
    }
}

/// No text but a token has eight plus forty-three such characters in a row.
fn no_token(text: &str, place: &str) -> Verdict {
    for prefix in ["clawd_l_", "clawd_d_"] {
        for (at, _) in text.match_indices(prefix) {
            let body = text.get(at + prefix.len()..).unwrap_or_default();
            let is_secret = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
            let length = body.bytes().take_while(|byte| is_secret(byte)).count();
            ensure(length < 43, || format!("a token in {place}"))?;
        }
    }
    Ok(())
}

fn within(what: &str, is: usize, max: usize) -> Verdict {
    ensure(is <= max, || format!("{what}: {is} where {max} is the limit"))
}

/// One bucket for what is one source (security C2).
fn canonical(source: Source) -> Source {
    use std::net::{IpAddr, Ipv6Addr};
    match source {
        Source::Tcp(IpAddr::V6(v6)) => match v6.to_ipv4_mapped() {
            Some(v4) => Source::Tcp(IpAddr::V4(v4)),
            None => {
                let [a, b, c, d, ..] = v6.segments();
                Source::Tcp(IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0)))
            }
        },
        Source::Unix | Source::Tcp(_) => source,
    }
}
