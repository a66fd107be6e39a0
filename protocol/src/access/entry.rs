//! The way in: from an accepted connection to a known caller, or out.
//!
//! Owns the one gate that every listener, route and upgrade goes through (security A5, B7), the deadlines of strangers
//! (C4) and the refusal that all failures share; refuses to know what a known caller may do.

use alloc::string::String;

use serde::Serialize;

use super::ctx::Ctx;
use super::devices::{self, Good};
use super::limiter::{Key, When};
use super::peers::{Caller, Peer, Phase, Who, close};
use super::token::{Secret, TokenDigest, TokenKind, kind_of};
use super::{Access, After};
use crate::contract::effect::{Change, Effect, Response, Sync};
use crate::contract::error::{HeadFault, MessageFault};
use crate::contract::id::{ConnId, DeviceId};
use crate::contract::input::{Head, Source};
use crate::contract::record::Role;
use crate::engine::Timer;
use crate::wire::event::Event;
use crate::wire::http::{self, Site, Verdict};
use crate::wire::method::Method;
use crate::wire::params::Params;
use crate::wire::rpc::{self, Envelope, Request, RpcError, RpcId};

/// Messages of one stranger before it must be somebody.
const STRANGE_MESSAGES_MAX: u8 = 16;
/// Connected devices are looked at for expiry at least this often: a machine may have slept.
const EXPIRY_EVERY: core::time::Duration = core::time::Duration::from_secs(60);
/// Longest nonce that is proved.
const NONCE_BYTES_MAX: usize = 256;

/// Numbers for `/health` and `/metrics`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Gauges {
    pub(crate) active_sessions: usize,
    pub(crate) total_sessions: usize,
    pub(crate) pending_approvals: usize,
    pub(crate) agents: usize,
}

/// The result of `daemon.auth`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Welcome<'a> {
    authenticated: bool,
    role: Role,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_id: Option<DeviceId>,
    daemon_id: &'a str,
    version: &'a str,
    protocol_version: u32,
    cursor: u64,
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
    // --- connections --------------------------------------------------------------------------------------------

    pub(crate) fn on_opened(&mut self, cx: &mut Ctx<'_>, conn: ConnId, source: Source) {
        let now = cx.engine.now.mono;
        let limits = &cx.engine.config.limits;
        let connections_max = match source {
            Source::Unix => limits.connections_max,
            Source::Tcp(_) => limits.connections_max.saturating_sub(limits.connections_reserved),
        };
        let is_full = cx.peers.len() >= connections_max;
        cx.peers.open(conn, source, now);
        if is_full {
            cx.peers.close(conn, close::TRY_AGAIN_LATER, "too many connections", cx.fx);
            return;
        }
        let victim = self.strangers.admit(conn, Key::of(source), &mut cx.engine.entropy);
        if let Some(victim) = victim {
            self.strangers.leave(victim);
            self.forget_timers(cx, victim);
            cx.peers.close(victim, close::TRY_AGAIN_LATER, "too many strangers", cx.fx);
        }
        let deadline = now + cx.engine.config.limits.head_timeout;
        cx.engine.timers.arm(Timer::Stranger(conn), deadline);
    }

    /// The connection is gone, or as good as gone.
    pub(crate) fn forget_timers(&mut self, cx: &mut Ctx<'_>, conn: ConnId) {
        for timer in [Timer::Stranger(conn), Timer::Penalty(conn), Timer::Message(conn)] {
            cx.engine.timers.disarm(timer);
        }
        self.refusals.remove(&conn);
    }

    pub(crate) fn on_requested(
        &mut self,
        cx: &mut Ctx<'_>,
        conn: ConnId,
        head: Result<Head<'_>, HeadFault>,
        gauges: Gauges,
    ) {
        let Some(peer) = cx.peers.peer(conn).filter(|peer| peer.phase == Phase::Head) else {
            return;
        };
        let config = &cx.engine.config;
        let site =
            Site { port: cx.engine.port, host_names: &config.host_names, origins: &config.origins };
        match http::judge(head, peer.source, &site) {
            Verdict::Refuse(response) => self.respond(cx, conn, response),
            Verdict::Health => {
                let uptime = cx.engine.now.mono.since(cx.engine.started.mono).as_secs();
                let response =
                    http::health(&config.version, uptime, gauges.active_sessions, cx.engine.port);
                self.respond(cx, conn, response);
            }
            Verdict::Metrics { bearer, proxied } => {
                self.mark_proxied(cx, conn, proxied);
                self.on_metrics(cx, conn, bearer, gauges);
            }
            Verdict::Upgrade { key, bearer, proxied } => {
                self.mark_proxied(cx, conn, proxied);
                self.on_upgrade(cx, conn, key, bearer);
            }
        }
    }

    fn respond(&mut self, cx: &mut Ctx<'_>, conn: ConnId, response: Response) {
        self.forget_timers(cx, conn);
        if let Some(peer) = cx.peers.peer_mut(conn) {
            peer.phase = Phase::Closing;
            cx.fx.push(Effect::Respond { conn, response });
        }
    }

    fn mark_proxied(&self, cx: &mut Ctx<'_>, conn: ConnId, is_proxied: bool) {
        if let Some(peer) = cx.peers.peer_mut(conn) {
            peer.is_proxied = is_proxied;
        }
    }

    fn on_metrics(
        &mut self,
        cx: &mut Ctx<'_>,
        conn: ConnId,
        bearer: Option<Secret>,
        gauges: Gauges,
    ) {
        // Judged and not received: a GET changes nothing.
        if bearer.and_then(|token| self.judge(cx, conn, &token)).is_some() {
            let uptime = cx.engine.now.mono.since(cx.engine.started.mono).as_secs();
            let response = http::metrics(&[
                ("uptime_seconds", usize::try_from(uptime).unwrap_or(usize::MAX)),
                ("connections", cx.peers.len()),
                ("sessions", gauges.total_sessions),
                ("sessions_active", gauges.active_sessions),
                ("agents", gauges.agents),
                ("approvals_pending", gauges.pending_approvals),
            ]);
            self.respond(cx, conn, response);
            return;
        }
        let Some(peer) = cx.peers.peer(conn) else { return };
        match self.failures.failed(Key::of(peer.source), cx.engine.now.mono) {
            When::Now => self.respond(cx, conn, http::unauthorized()),
            // An HTTP answer cannot wait without a table of its own, and nobody who has a token needs it.
            When::At(_) | When::Drop => {
                self.forget_timers(cx, conn);
                cx.peers.close(conn, close::POLICY, "unauthorized", cx.fx);
            }
        }
    }

    fn on_upgrade(&mut self, cx: &mut Ctx<'_>, conn: ConnId, key: String, bearer: Option<Secret>) {
        let Some(peer) = cx.peers.peer_mut(conn) else { return };
        peer.phase = Phase::Stranger;
        let deadline = peer.opened + cx.engine.config.limits.auth_timeout;
        let message_bytes_max = cx.engine.config.limits.message_bytes_stranger;
        cx.engine.timers.arm(Timer::Stranger(conn), deadline);
        cx.fx.push(Effect::Upgrade { conn, key, message_bytes_max });
        let Some(token) = bearer else { return };
        match self.recognise(cx, conn, &token) {
            Some(caller) => {
                self.welcome(cx, conn, caller);
                self.greet(cx, conn);
            }
            None => self.turn_away(cx, conn, unauthorized("null")),
        }
    }

    pub(crate) fn on_broke(&mut self, cx: &mut Ctx<'_>, conn: ConnId, fault: MessageFault) {
        let (code, reason) = match fault {
            MessageFault::Binary => (close::UNSUPPORTED, "text frames only"),
            MessageFault::TooLarge => (close::TOO_LARGE, "message too large"),
            MessageFault::NotUtf8 => (close::INVALID_TEXT, "not UTF-8"),
            MessageFault::Framing => (close::PROTOCOL, "not RFC 6455"),
        };
        self.forget_timers(cx, conn);
        cx.peers.close(conn, code, reason, cx.fx);
    }

    pub(crate) fn on_began(&mut self, cx: &mut Ctx<'_>, conn: ConnId) {
        let deadline = cx.engine.now.mono + cx.engine.config.limits.message_timeout;
        if cx.peers.caller(conn).is_some() {
            cx.engine.timers.arm_once(Timer::Message(conn), deadline);
        }
    }

    pub(crate) fn on_message_late(&mut self, cx: &mut Ctx<'_>, conn: ConnId) {
        self.forget_timers(cx, conn);
        cx.peers.close(conn, close::POLICY, "message took too long", cx.fx);
    }

    // --- strangers ----------------------------------------------------------------------------------------------

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
            Some(_) | None => {
                self.turn_away(cx, conn, unauthorized(request.id.unwrap_or("null")));
            }
        }
    }

    fn on_strange_ping(&mut self, cx: &mut Ctx<'_>, conn: ConnId, request: &Request<'_>) {
        let Some(id) = request.id.map(RpcId::new) else { return };
        let text = rpc::result(&id, &self.pong(cx, request));
        cx.peers.send(conn, text, cx.fx);
    }

    /// The whole answer to a ping, without waiting for anything.
    pub(crate) fn ping_text(&self, cx: &Ctx<'_>, id: &str, request: &Request<'_>) -> String {
        if request.params.is_none() {
            return rpc::result_text(id, &cx.engine.pong_body);
        }
        let body = serde_json::to_string(&self.pong(cx, request)).unwrap_or_default();
        rpc::result_text(id, &body)
    }

    /// The result of a ping, with a proof that we know the local token if one is asked for (security A7).
    pub(crate) fn ping(&self, cx: &Ctx<'_>, request: &Request<'_>) -> impl Serialize + use<> {
        let pong = self.pong(cx, request);
        serde_json::value::to_raw_value(&pong).ok()
    }

    fn pong<'a>(&self, cx: &'a Ctx<'_>, request: &Request<'_>) -> Pong<'a> {
        let nonce = Params::read(request.params).and_then(|params| params.text("nonce"));
        let nonce = nonce.ok().flatten().filter(|nonce| nonce.len() <= NONCE_BYTES_MAX);
        let proof = nonce.map(|nonce| self.local.proof(&nonce));
        Pong { pong: true, version: &cx.engine.config.version, proof }
    }

    fn on_auth(&mut self, cx: &mut Ctx<'_>, conn: ConnId, request: &Request<'_>) {
        let caller = presented(request).and_then(|token| self.recognise(cx, conn, &token));
        let Some(caller) = caller else {
            return self.turn_away(cx, conn, unauthorized(request.id.unwrap_or("null")));
        };
        // Known first, answered second: no event falls in between.
        self.welcome(cx, conn, caller);
        if let Some(id) = request.id.map(RpcId::new) {
            let text = rpc::result(&id, &self.welcome_view(cx, caller));
            cx.peers.send(conn, text, cx.fx);
        }
        self.greet(cx, conn);
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
            Some(again) if again.who == caller.who => {
                let view = serde_json::value::to_raw_value(&self.welcome_view(cx, caller)).ok();
                cx.answer(call, &view);
            }
            Some(_) | None => cx.peers.kick(conn, cx.fx),
        }
    }

    fn welcome_view<'a>(&'a self, cx: &'a Ctx<'_>, caller: Caller) -> Welcome<'a> {
        Welcome {
            authenticated: true,
            role: caller.role,
            device_id: match caller.who {
                Who::Owner => None,
                Who::Device(id) => Some(id),
            },
            daemon_id: &self.daemon_id,
            version: &cx.engine.config.version,
            protocol_version: 1,
            cursor: cx.engine.cursor(),
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
        let ready = Event::Ready { version: &cx.engine.config.version, port: cx.engine.port };
        let notice = cx.engine.passing(&ready);
        cx.peers.send(conn, notice.text, cx.fx);
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
        let Some(peer) = cx.peers.peer_mut(conn) else { return };
        let now = cx.engine.now.mono;
        let when = self.failures.failed(Key::of(peer.source), now);
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

    // --- tokens -------------------------------------------------------------------------------------------------

    /// Who comes with this token, if it may be used from there; from now on the token counts as used.
    fn recognise(&mut self, cx: &mut Ctx<'_>, conn: ConnId, token: &Secret) -> Option<Caller> {
        let (caller, good) = self.judge(cx, conn, token)?;
        match (caller.who, good) {
            (Who::Device(id), Good::Next) => self.on_rotation_used(cx, id),
            (Who::Owner, _) => self.on_local_shown(cx, conn, good),
            (Who::Device(_), Good::Current | Good::Old) => {}
        }
        Some(caller)
    }

    /// Notes who is here by the old local token alone: shown by one who came with the new one, it changes nothing.
    fn on_local_shown(&mut self, cx: &Ctx<'_>, conn: ConnId, good: Good) {
        let Some(old) = &mut self.old_local else { return };
        if good == Good::Current {
            old.conns.remove(&conn);
        } else if cx.peers.caller(conn).is_none() {
            old.conns.insert(conn);
        }
    }

    /// Who holds this token, if it may be used from there. Only looks.
    fn judge(&self, cx: &Ctx<'_>, conn: ConnId, token: &Secret) -> Option<(Caller, Good)> {
        let is_local = cx.peers.peer(conn).is_some_and(is_local);
        let digest = TokenDigest::of(token.expose());
        match kind_of(token.expose())? {
            TokenKind::Local => {
                let is_old = self.old_local.as_ref().is_some_and(|old| old.digest.matches(&digest));
                let is_current = self.local.matches(&digest);
                let good = if is_current { Good::Current } else { Good::Old };
                let caller = Caller { who: Who::Owner, role: Role::Owner };
                ((is_current || is_old) && is_local).then_some((caller, good))
            }
            TokenKind::Device(id) => {
                let now = cx.engine.unix_high();
                let good = self.devices.judge(id, &digest, now, &cx.engine.config.limits)?;
                let caller = Caller { who: Who::Device(id), role: self.role(id)? };
                Some((caller, good))
            }
        }
    }

    /// The new token was used: the old one is dead from now on (security E5).
    fn on_rotation_used(&mut self, cx: &mut Ctx<'_>, id: DeviceId) {
        let Some(record) = self.devices.find_mut(id) else { return };
        if let Some(next) = record.next_token_sha256.take() {
            record.token_sha256 = next;
            record.rotated_at = None;
            self.write_down(cx, id);
        }
    }

    // --- devices that are connected -----------------------------------------------------------------------------

    /// Notes that a device was here, at most once a minute (security E2).
    pub(crate) fn touch(&mut self, cx: &mut Ctx<'_>, conn: ConnId, id: DeviceId) {
        let Some(record) = self.devices.find_mut(id) else { return };
        let via = cx.peers.peer(conn).map_or("", Peer::via);
        let at = cx.engine.unix_high();
        let is_fresh = at.since(record.last_seen_at) < cx.engine.config.limits.last_seen_every;
        if is_fresh && record.last_via == via {
            return;
        }
        record.last_seen_at = at;
        record.last_via = String::from(via);
        let op = cx.store(alloc::vec![Change::TouchDevice { id, at, via }], Sync::Process);
        self.pending.await_(op, After::Noted);
    }

    fn watch_expiry(&self, cx: &mut Ctx<'_>) {
        let now = cx.engine.unix_high();
        let soonest = cx
            .peers
            .known()
            .filter_map(|(_, caller)| match caller.who {
                Who::Device(id) => self.devices.find(id),
                Who::Owner => None,
            })
            .map(|record| devices::remaining(record, now).unwrap_or(EXPIRY_EVERY))
            .min();
        if let Some(soonest) = soonest {
            let at = cx.engine.now.mono + soonest.min(EXPIRY_EVERY);
            cx.engine.timers.arm(Timer::Expiry, at);
        }
    }

    pub(crate) fn on_expiry_due(&mut self, cx: &mut Ctx<'_>) {
        let living = self.devices.living(cx.engine.unix_high(), &cx.engine.config.limits);
        let is_out = |who| matches!(who, Who::Device(id) if !living.contains(&id));
        cx.peers.kick_all(is_out, cx.fx);
        self.close_window_without_standing(cx);
        self.watch_expiry(cx);
    }
}

/// On this machine, as this user, with nobody in between (security B5, F2).
fn is_local(peer: &Peer) -> bool {
    match peer.source {
        Source::Unix => !peer.is_proxied,
        Source::Tcp(address) => address.to_canonical().is_loopback() && !peer.is_proxied,
    }
}

fn presented(request: &Request<'_>) -> Option<Secret> {
    Params::read(request.params).ok()?.text("token").ok()?.map(Secret::new)
}

fn unauthorized(id: &str) -> String {
    rpc::error_text(id, &RpcError::unauthorized())
}
