//! A connection before it is anybody: accepted, asked what for, upgraded or answered and closed.
//!
//! Owns what follows the verdict on a request head, the deadlines of connections and broken rules of framing; refuses to
//! know tokens and calls.

use alloc::string::String;

use super::Access;
use super::ctx::Ctx;
use super::entry::unauthorized;
use super::limiter::{Key, When};
use super::peers::{Phase, Secured, close};
use super::token::Secret;
use super::witness::Doubt;
use crate::contract::effect::{Effect, Response};
use crate::contract::error::{HeadFault, MessageFault};
use crate::contract::id::ConnId;
use crate::contract::input::{Head, Source};
use crate::engine::Timer;
use crate::wire::http::{self, Site, Verdict};

/// Numbers for `/health` and `/metrics`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Gauges {
    pub(crate) active_sessions: usize,
    pub(crate) total_sessions: usize,
    pub(crate) pending_approvals: usize,
    pub(crate) agents: usize,
}

impl Access {
    pub(crate) fn on_opened(&mut self, cx: &mut Ctx<'_>, conn: ConnId, source: Source) {
        let now = cx.engine.now.mono;
        let limits = &cx.engine.config.limits;
        let connections_max = match source {
            Source::Unix => limits.connections_max,
            Source::Tcp(_) | Source::Relay(_) => {
                limits.connections_max.saturating_sub(limits.connections_reserved)
            }
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

    /// The connection is TLS to our own key.
    pub(crate) fn on_secured(&mut self, cx: &mut Ctx<'_>, conn: ConnId, secured: Secured) {
        if let Some(peer) = cx.peers.peer_mut(conn).filter(|peer| peer.phase == Phase::Head) {
            peer.secured = Some(secured);
        }
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
        if !peer.is_secret() {
            return self.respond(cx, conn, http::upgrade_required());
        }
        let config = &cx.engine.config;
        let site = Site {
            port: cx.engine.port,
            host_names: &config.host_names,
            origins: &config.origins,
            address: peer.secured.as_ref().and_then(|secured| secured.local),
            daemon_id: peer.secured.as_ref().map(|_| self.daemon_id.as_str()),
        };
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
        if bearer.as_ref().and_then(|token| self.judge(cx, conn, token)).is_some() {
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
        self.doubt(cx, conn, Doubt::about(bearer.as_ref()));
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
            None => {
                let doubt = Doubt::about(Some(&token));
                self.turn_away_for(cx, conn, unauthorized("null"), doubt);
            }
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
}
