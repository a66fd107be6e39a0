//! Tunnels that are being made: somebody was announced, and the relay is dialled once more for them.
//!
//! Owns their number; refuses to know what becomes of them. One that is there is a connection, and no longer ours: it
//! lives on when the control connection does not.

use core::time::Duration;

use super::{Link, may_note};
use crate::access::ctx::Ctx;
use crate::contract::effect::{Dial, Effect, Purpose};
use crate::contract::error::DialFault;
use crate::contract::note::Note;

const MINUTE: Duration = Duration::from_secs(60);

impl Link {
    /// Somebody wants to talk to us. The relay may say what it wants, so only so many are taken at once.
    pub(super) fn accept(&mut self, cx: &mut Ctx<'_>, ticket: &str, from: Option<&str>) {
        let limits = &cx.engine.config.limits;
        let timeout = limits.relay_accept_timeout;
        if self.tunnels.len() >= limits.relay_accepts_max {
            return self.note_loss(cx, "too many come at once");
        }
        let begun = self.accepts.take(cx.engine.now.mono, limits.relay_accepts_per_minute, MINUTE);
        if begun.is_none() {
            return self.note_loss(cx, "too many have come in a minute");
        }
        let Some(wanted) = &cx.engine.relay else { return };
        let (relay, pin) = (wanted.url.clone(), wanted.pin);
        let target = relay.accept_target(&self.daemon, ticket);
        // What is no address is none: it only counts failures.
        let from = from.and_then(|text| text.parse().ok());
        let leg = cx.engine.leg_id();
        let dial = Dial { relay, target, pin, purpose: Purpose::Tunnel { from }, timeout };
        cx.fx.push(Effect::Dial { leg, dial });
        self.tunnels.insert(leg);
    }

    /// A tunnel is there, and a connection from now on; or it will never be.
    pub(super) fn on_tunnel_dialed(&mut self, cx: &mut Ctx<'_>, result: Result<(), DialFault>) {
        if let Err(fault) = result {
            let why = match fault {
                DialFault::TimedOut => "the relay did not answer in time",
                DialFault::Busy => "there was no room for one more connection",
                // Whoever it was has gone, or came too late.
                DialFault::Rejected(_) => "the relay no longer knows of it",
                DialFault::Unresolved
                | DialFault::Unreachable(_)
                | DialFault::TooOld
                | DialFault::NotYetValid
                | DialFault::Expired
                | DialFault::Tls(_)
                | DialFault::WrongPin
                | DialFault::Redirected
                | DialFault::NotWebSocket => "the relay could not be reached",
            };
            self.note_loss(cx, why);
        }
    }

    fn note_loss(&mut self, cx: &mut Ctx<'_>, why: &'static str) {
        if let Some(unnoted) = may_note(cx, &mut self.losses_noted) {
            cx.note(Note::InviteLost { why, unnoted });
        }
    }
}
