//! The way in: from a stranger's first words to a known caller, or out.
//!
//! Owns the one gate that every listener, route and upgrade goes through (security A5, B7) and the refusal that all
//! failures share; refuses to know what a known caller may do.

use alloc::string::String;

use serde::Serialize;

use super::Access;
use super::ctx::Ctx;
use super::hearing::From;
use super::limiter::{Key, When};
use super::peers::{Caller, Peer, Phase, Who, close};
use super::token::Secret;
use super::witness::Doubt;
use crate::contract::effect::Effect;
use crate::contract::id::{ConnId, DeviceId};
use crate::contract::input::Source;
use crate::contract::record::Role;
use crate::engine::Timer;
use crate::relay::RelayUrl;
use crate::wire::event::Event;
use crate::wire::method::Method;
use crate::wire::params::Params;
use crate::wire::rpc::{self, Envelope, Request, RpcError, RpcId};

/// Messages of one stranger before it must be somebody.
const STRANGE_MESSAGES_MAX: u8 = 16;
/// Longest nonce that is proved.
const NONCE_BYTES_MAX: usize = 256;

/// The result of `daemon.auth`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Welcome<'a> {
    authenticated: bool,
    role: Role,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_id: Option<DeviceId>,
    daemon_id: &'a str,
    /// The relay at which we are found, so that a device learns of one that came after it.
    relay_url: Option<&'a RelayUrl>,
    version: &'a str,
    protocol_version: u32,
    cursor: u64,
    journal: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    replayed: Option<bool>,
}

/// The result of `daemon.ping`.
#[derive(Serialize)]
struct Pong<'a> {
    pong: bool,
    version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<String>,
}

impl Access {
    /// A stranger's message: it may greet, show a token, or pair; anything else is the end (security A5).
    pub(crate) fn on_stranger_text(&mut self, cx: &mut Ctx<'_>, conn: ConnId, text: &str) {
        let Some(peer) = cx.peers.peer_mut(conn) else { return };
        peer.strange_messages = peer.strange_messages.saturating_add(1);
        let is_talkative = peer.strange_messages > STRANGE_MESSAGES_MAX;
        let limits = &cx.engine.config.limits;
        let request = match rpc::read(text, limits.json_depth_max, limits.batch_max) {
            Ok(Envelope::One(Ok(request))) if !is_talkative => request,
            Ok(Envelope::One(Ok(Request { id, .. }))) => {
                return self.turn_away(cx, conn, unauthorized(id.unwrap_or("null")));
            }
            Ok(Envelope::One(Err(invalid))) => {
                return self.turn_away(cx, conn, unauthorized(invalid.id.unwrap_or("null")));
            }
            Ok(Envelope::Batch(_)) | Err(_) => {
                return self.turn_away(cx, conn, unauthorized("null"));
            }
        };
        match Method::from_name(&request.method) {
            Some(Method::Ping) => self.on_strange_ping(cx, conn, &request),
            Some(Method::Auth) => self.on_auth(cx, conn, &request),
            Some(Method::Pair) => self.on_pair(cx, conn, &request),
            Some(Method::PairStart) => self.on_pair_start(cx, conn, &request),
            Some(Method::PairFinish) => self.on_pair_finish(cx, conn, &request),
            Some(_) | None => {
                self.turn_away(cx, conn, unauthorized(request.id.unwrap_or("null")));
            }
        }
    }

    fn on_strange_ping(&mut self, cx: &mut Ctx<'_>, conn: ConnId, request: &Request<'_>) {
        let Some(id) = request.id.map(RpcId::new) else { return };
        let text = rpc::result(&id, &self.pong(cx, conn, request));
        cx.peers.send(conn, text, cx.fx);
    }

    /// The whole answer to a ping, without waiting for anything.
    pub(crate) fn ping_text(
        &self,
        cx: &Ctx<'_>,
        conn: ConnId,
        id: &str,
        request: &Request<'_>,
    ) -> String {
        if request.params.is_none() {
            return rpc::result_text(id, &cx.engine.pong_body);
        }
        let body = serde_json::to_string(&self.pong(cx, conn, request)).unwrap_or_default();
        rpc::result_text(id, &body)
    }

    /// The result of a ping, with a proof that we know the local token if one is asked for (security A7).
    pub(crate) fn ping(
        &self,
        cx: &Ctx<'_>,
        conn: ConnId,
        request: &Request<'_>,
    ) -> impl Serialize + use<> {
        let pong = self.pong(cx, conn, request);
        serde_json::value::to_raw_value(&pong).ok()
    }

    fn pong<'a>(&self, cx: &'a Ctx<'_>, conn: ConnId, request: &Request<'_>) -> Pong<'a> {
        let nonce = Params::read(request.params).and_then(|params| params.text("nonce"));
        let nonce = nonce.ok().flatten().filter(|nonce| nonce.len() <= NONCE_BYTES_MAX);
        let peer = cx.peers.peer(conn);
        // Only where the local token may be shown: a program on this machine that pretends to be us could else fetch the
        // proof from us by another way, over TLS or through a relay.
        let nonce = nonce.filter(|_| peer.is_some_and(Peer::is_local));
        let is_unix = peer.is_some_and(|peer| peer.source == Source::Unix);
        let port = if is_unix { 0 } else { cx.engine.port };
        let proof = nonce.map(|nonce| self.local.proof(&nonce, port));
        Pong { pong: true, version: &cx.engine.config.version, proof }
    }

    fn on_auth(&mut self, cx: &mut Ctx<'_>, conn: ConnId, request: &Request<'_>) {
        let token = presented(request);
        let caller = token.as_ref().and_then(|token| self.recognise(cx, conn, token));
        let Some(caller) = caller else {
            let refusal = unauthorized(request.id.unwrap_or("null"));
            return self.turn_away_for(cx, conn, refusal, Doubt::about(token.as_ref()));
        };
        let id = request.id.map(RpcId::new);
        let from = match From::read(request) {
            Ok(from) => from,
            Err(error) => return cx.peers.send(conn, rpc::error(id.as_ref(), &error), cx.fx),
        };
        // Known first, answered second: no event falls in between.
        self.welcome(cx, conn, caller);
        let known = cx.hear_from(conn, from.as_ref());
        if let Some(id) = id {
            let replayed = from.map(|_| known.is_ok());
            let text = rpc::result(&id, &self.welcome_view(cx, caller, replayed));
            cx.peers.send(conn, text, cx.fx);
        }
        self.greet(cx, conn);
        cx.go_on(conn, known);
    }

    /// `daemon.auth` of somebody known: fine with the same identity, the end with any other (security A5).
    pub(crate) fn on_auth_again(
        &mut self,
        cx: &mut Ctx<'_>,
        call: super::Call,
        caller: Caller,
        request: &Request<'_>,
    ) {
        let conn = call.conn;
        match presented(request).and_then(|token| self.recognise(cx, conn, &token)) {
            Some(again) if again.who == caller.who => match From::read(request) {
                Ok(from) => {
                    let known = cx.hear_from(conn, from.as_ref());
                    let replayed = from.map(|_| known.is_ok());
                    let view = self.welcome_view(cx, caller, replayed);
                    let view = serde_json::value::to_raw_value(&view).ok();
                    cx.answer(call, &view);
                    cx.go_on(conn, known);
                }
                Err(error) => cx.refuse(call, &error),
            },
            Some(_) | None => cx.peers.kick(conn, cx.fx),
        }
    }

    fn welcome_view<'a>(
        &'a self,
        cx: &'a Ctx<'_>,
        caller: Caller,
        replayed: Option<bool>,
    ) -> Welcome<'a> {
        Welcome {
            authenticated: true,
            role: caller.role,
            device_id: match caller.who {
                Who::Owner => None,
                Who::Device(id) => Some(id),
            },
            daemon_id: &self.daemon_id,
            relay_url: cx.engine.relay.as_ref().filter(|it| it.enabled).map(|it| &it.url),
            version: &cx.engine.config.version,
            protocol_version: 1,
            cursor: cx.engine.cursor(),
            journal: cx.engine.chapter(),
            replayed,
        }
    }

    /// From here on it is somebody.
    pub(super) fn welcome(&mut self, cx: &mut Ctx<'_>, conn: ConnId, caller: Caller) {
        self.forget_timers(cx, conn);
        self.strangers.leave(conn);
        let Some(peer) = cx.peers.peer_mut(conn) else { return };
        peer.phase = Phase::Known(caller);
        let message_bytes_max = cx.engine.config.limits.message_bytes_max;
        cx.fx.push(Effect::Admit { conn, message_bytes_max });
        if let Who::Device(id) = caller.who {
            self.touch(cx, conn, id);
            self.watch_expiry(cx);
        }
    }

    /// `daemon.ready`, once, to the one who has just come in.
    pub(super) fn greet(&self, cx: &mut Ctx<'_>, conn: ConnId) {
        let version = cx.engine.config.version.clone();
        cx.tell_one(conn, &Event::Ready { version: &version, port: cx.engine.port });
    }

    /// The silence of a stranger has lasted too long.
    pub(crate) fn on_stranger_late(&mut self, cx: &mut Ctx<'_>, conn: ConnId) {
        let Some(peer) = cx.peers.peer(conn) else { return };
        if peer.phase == Phase::Stranger {
            cx.peers.send(conn, unauthorized("null"), cx.fx);
        }
        self.forget_timers(cx, conn);
        cx.peers.close(conn, close::POLICY, "unauthorized", cx.fx);
    }

    // --- refusals -----------------------------------------------------------------------------------------------

    /// Refuses and closes: at once for the first failures of a source, ever later for the next (security C1).
    pub(super) fn turn_away(&mut self, cx: &mut Ctx<'_>, conn: ConnId, refusal: String) {
        self.turn_away_for(cx, conn, refusal, Doubt::new("no handshake"));
    }

    /// As [`Self::turn_away`], for the reason that the audit log is told.
    pub(super) fn turn_away_for(
        &mut self,
        cx: &mut Ctx<'_>,
        conn: ConnId,
        refusal: String,
        doubt: Doubt,
    ) {
        self.doubt(cx, conn, doubt);
        let Some(source) = cx.peers.peer(conn).map(|peer| peer.source) else { return };
        cx.note_refused(source);
        let Some(peer) = cx.peers.peer_mut(conn) else { return };
        let now = cx.engine.now.mono;
        let when = self.failures.failed(Key::of(source), now);
        cx.engine.timers.disarm(Timer::Stranger(conn));
        match when {
            When::Now => self.send_away(cx, conn, refusal),
            When::At(at) => {
                peer.phase = Phase::Waiting;
                self.refusals.insert(conn, refusal);
                cx.engine.timers.arm(Timer::Penalty(conn), at);
                cx.fx.push(Effect::Pause { conn });
            }
            When::Drop => {
                self.forget_timers(cx, conn);
                cx.peers.close(conn, close::POLICY, "unauthorized", cx.fx);
            }
        }
    }

    pub(crate) fn on_penalty_over(&mut self, cx: &mut Ctx<'_>, conn: ConnId) {
        if let Some(refusal) = self.refusals.remove(&conn) {
            self.send_away(cx, conn, refusal);
        }
    }

    fn send_away(&mut self, cx: &mut Ctx<'_>, conn: ConnId, refusal: String) {
        self.forget_timers(cx, conn);
        cx.peers.send(conn, refusal, cx.fx);
        cx.peers.close(conn, close::POLICY, "unauthorized", cx.fx);
    }

    /// Whether this peer's guesses are not even looked at (security C1).
    pub(super) fn is_penalised(&self, cx: &Ctx<'_>, conn: ConnId) -> bool {
        let now = cx.engine.now.mono;
        cx.peers
            .peer(conn)
            .is_some_and(|peer| self.failures.is_penalised(Key::of(peer.source), now))
    }
}

fn presented(request: &Request<'_>) -> Option<Secret> {
    Params::read(request.params).ok()?.text("token").ok()?.map(Secret::new)
}

pub(super) fn unauthorized(id: &str) -> String {
    rpc::error_text(id, &RpcError::unauthorized())
}
