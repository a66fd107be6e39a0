//! Somebody is asked before a device is let in (security D5).
//!
//! Owns `daemon.pairConfirm` and the one device that waits for it; refuses to know how the device proved that it was invited.
//!
//! ```text
//! Matched ──due──▶ asking ──yes──▶ let in (row, then token)
//!                    └──no · nobody in time · the device is gone · the window's opener has lost the right──▶ out
//! ```
//!
//! Invariants: one device waits at most, since the window through which it came is used up and the next one ends the wait.
//! Nothing of it is stored and no token made before the yes; silence is a no.

use alloc::boxed::Box;
use alloc::string::{String, ToString};

use serde::Serialize;

use super::Access;
use super::ctx::Ctx;
use super::pairing_calls::Guest;
use super::pairing_window::check_grant;
use super::peers::{Call, Caller, Peer, Phase, Who};
use super::witness::of_stranger;
use crate::contract::effect::{Effect, Sync};
use crate::contract::id::ConnId;
use crate::contract::input::Source;
use crate::contract::record::AuditKind;
use crate::contract::time::{Instant, Unix};
use crate::engine::Timer;
use crate::pake::comparison_code;
use crate::wire::event::Event;
use crate::wire::params::Params;
use crate::wire::rpc::RpcError;
use crate::wire::view::GuestView;

/// A device that waits, and until when.
#[derive(Debug)]
pub(super) struct Asking {
    guest: Guest,
    expires: Instant,
    /// By the other clock, which goes on while the machine sleeps.
    expires_at: Unix,
}

impl Asking {
    /// The name of the window through which it came.
    pub(super) fn name(&self) -> &str {
        &self.guest.window.pairing_id
    }

    pub(super) const fn opener(&self) -> Who {
        self.guest.window.by
    }
}

/// The result of `daemon.pairConfirm`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Confirmed<'a> {
    pairing_id: &'a str,
    accepted: bool,
}

impl Access {
    /// Asks whoever may pair. The device waits, and hears nothing until then.
    pub(super) fn ask_about(&mut self, cx: &mut Ctx<'_>, guest: Guest) {
        let Some(peer) = cx.peers.peer(guest.call.conn) else { return };
        let code = comparison_code(&self.fingerprint(), peer.key().as_ref(), &guest.run_id);
        let (via, address) = (peer.via(), address(peer));
        let (now, wait) = (self.clock(cx), cx.engine.config.limits.pairing_confirm);
        let expires = now.mono + wait;
        cx.engine.timers.arm(Timer::PairingConfirm, expires);
        cx.tell_in_passing(&Event::PairingProgress {
            state: "confirm",
            detail: "a device wants to come in; is it yours?",
            pairing_id: None,
            tries_left: None,
            guest: Some(GuestView {
                pairing_id: &guest.window.pairing_id,
                name: &guest.name,
                platform: &guest.platform,
                via,
                address,
                code: &code,
                expires_in_seconds: wait.as_secs(),
            }),
        });
        // It is read again, not to hear it, but to see it leave: nobody is let in who has gone.
        cx.fx.push(Effect::Resume { conn: guest.call.conn });
        let expires_at = now.unix + wait;
        self.asking = Some(Box::new(Asking { guest, expires, expires_at }));
    }

    pub(crate) fn on_pair_confirm(
        &mut self,
        cx: &mut Ctx<'_>,
        call: Call,
        caller: Caller,
        params: &Params<'_>,
    ) {
        let (id, accept) = match read_decision(params) {
            Ok(decision) => decision,
            Err(error) => return cx.refuse(call, &error),
        };
        self.close_window_without_standing(cx);
        let now = self.clock(cx);
        let is_over = |asking: &Asking| now.mono >= asking.expires || now.unix >= asking.expires_at;
        if self.asking.as_ref().is_some_and(|asking| is_over(asking)) {
            self.on_confirm_late(cx);
        }
        let waiting = self.asking.as_ref().filter(|asking| is_about(cx, asking, &id));
        let Some(asking) = waiting else { return cx.refuse(call, &not_pending()) };
        if accept && let Err(error) = check_grant(caller, asking.guest.window.role) {
            return cx.refuse(call, &error);
        }
        cx.answer(call, &Confirmed { pairing_id: &id, accepted: accept });
        if !accept {
            self.decline(cx, "declined", "somebody said no");
            return;
        }
        cx.engine.timers.disarm(Timer::PairingConfirm);
        if let Some(asking) = self.asking.take() {
            cx.fx.push(Effect::Pause { conn: asking.guest.call.conn });
            let note = String::from("confirmed by ") + &caller.name();
            self.let_in(cx, asking.guest, Some(note));
        }
    }

    pub(crate) fn on_confirm_late(&mut self, cx: &mut Ctx<'_>) {
        self.decline(cx, "declined", "nobody answered in time");
    }

    /// The device is not let in, if one waits; whether one did.
    pub(super) fn decline(&mut self, cx: &mut Ctx<'_>, state: &str, detail: &str) -> bool {
        let call = self.end_wait(cx, state, detail);
        call.map(|call| self.turn_away_guest(cx, call)).is_some()
    }

    fn end_wait(&mut self, cx: &mut Ctx<'_>, state: &str, detail: &str) -> Option<Call> {
        let Guest { call, window, .. } = self.asking.take()?.guest;
        let id = window.pairing_id.clone();
        cx.engine.timers.disarm(Timer::PairingConfirm);
        let mut audit = of_stranger(cx, AuditKind::PairingDeclined, call.conn);
        audit.note = Some(detail.to_string());
        audit.role = Some(window.role);
        self.note(cx, audit, Sync::Disk);
        self.progress_of(cx, &id, state, detail);
        Some(call)
    }

    /// A connection is gone: what it had begun ends with it.
    pub(super) fn on_guest_gone(&mut self, cx: &mut Ctx<'_>, conn: ConnId) {
        if self.asking.as_ref().is_some_and(|asking| asking.guest.call.conn == conn) {
            self.end_wait(cx, "declined", "the device has left");
        }
        self.abandon_run(cx, conn);
    }
}

/// It is this one that waits, and it is still there.
fn is_about(cx: &Ctx<'_>, asking: &Asking, id: &str) -> bool {
    let peer = cx.peers.peer(asking.guest.call.conn);
    asking.guest.window.pairing_id == id && peer.is_some_and(|peer| peer.phase == Phase::Waiting)
}

fn read_decision(params: &Params<'_>) -> Result<(String, bool), RpcError> {
    let id = params.need_text("pairingId")?;
    let accept = params.maybe_flag("accept")?;
    Ok((id, accept.ok_or_else(|| RpcError::bad_params("accept", "is missing"))?))
}

fn address(peer: &Peer) -> Option<core::net::IpAddr> {
    match peer.source {
        Source::Unix | Source::Relay(None) => None,
        Source::Tcp(address) | Source::Relay(Some(address)) => Some(address),
    }
}

fn not_pending() -> RpcError {
    RpcError::new(-32602, "not_pending", "no device waits for this")
        .hint("it may have left, or waited too long; open a new window with `clawd pair`")
}
