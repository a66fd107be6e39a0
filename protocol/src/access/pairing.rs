//! The pairing window: a short time in which one new device may come in (security D1–D4).
//!
//! Owns the window, its PIN and ticket, and how many guesses are left; refuses to know who may open one, how the
//! device's answer looks and when a token is issued. The window is in memory only, so a restart closes it; only the
//! history of failed windows is stored.
//!
//! ```text
//! closed ──open──▶ open ──right guess──▶ closed (Matched: it is used up, whatever happens to the answer)
//!    ▲               ├──wrong guess──▶ open (Refused), or closed at the third (RefusedAndClosed: one failed window)
//!    └──cancel, open, expiry─┘
//! ```
//!
//! A guess is a text that is compared, or a *run* of [`pake`](crate::pake), which begins with one message and ends with
//! another, or with its connection. A run without a window is answered too, with a PIN that nobody knows: until it is
//! refused it looks like all others, so nobody learns whether a window is open, or why a run failed.
//!
//! Invariants: at most one window is open. A guess is counted before it is compared, and a run before it is answered; per
//! window and not per peer, so parallel guesses are three like all others. A connection has one run at most. Once ten
//! windows have failed within a day nothing opens until the owner says so: neither time nor a clock that is set back or
//! forth changes that, nor a restart.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use core::time::Duration;

use data_encoding::BASE64URL_NOPAD;

use crate::access::peers::Who;
use crate::access::token::Secret;
use crate::contract::fingerprint::Fingerprint;
use crate::contract::id::ConnId;
use crate::contract::limits::Limits;
use crate::contract::record::{PairingHistory, Role};
use crate::contract::time::{Instant, Now, Unix};
use crate::engine::entropy::Entropy;
use crate::pake::{Host, Message};

const PIN_BOUND: u32 = 1_000_000;
/// 71 bits: nobody meets one twice by chance.
const ID_LEN: usize = 12;

/// What the opener wants. Whether it may is decided before.
#[derive(Debug)]
pub(crate) struct Opening {
    /// Who opens. Only the owner can unlock.
    pub(crate) by: Who,
    /// What the new device may do.
    pub(crate) role: Role,
    /// The new device's name, if the opener chose one.
    pub(crate) name: Option<String>,
    /// Forget the failed windows first.
    pub(crate) unlock: bool,
    /// Somebody is asked before the device is let in, where that is due.
    pub(crate) confirm: bool,
}

/// An open window.
#[derive(Debug)]
pub(crate) struct Window {
    /// Its name; no secret.
    pub(crate) pairing_id: String,
    /// Who opened it: it does not outlive his right to.
    pub(crate) by: Who,
    /// Six digits, for typing.
    pub(crate) pin: Secret,
    /// 256 bits in base64url, for the QR code.
    pub(crate) ticket: Secret,
    /// What the new device may do.
    pub(crate) role: Role,
    /// The new device's name, if the opener chose one.
    pub(crate) name: Option<String>,
    /// Somebody is asked before the device is let in, where that is due.
    pub(crate) confirm: bool,
    /// When it closes.
    pub(crate) expires: Instant,
    /// The same for people.
    pub(crate) expires_at: Unix,
    runs_left: u32,
}

/// Too many windows have failed. The owner has to open one with `unlock`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Locked;

/// What came of a guess. The peer must not see the difference between the last two.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Right. This was the window; it is closed. And what the daemon proves in return, after a run.
    Matched(Window, Option<String>),
    /// Wrong, or there is no such window.
    Refused,
    /// Wrong for the last time. [`Pairing::history`] has grown: store it before answering.
    RefusedAndClosed,
}

/// Both keys as the daemon saw them in the handshake.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keys {
    pub(crate) device: Option<Fingerprint>,
    pub(crate) daemon: Fingerprint,
}

/// A run that was answered and is not over.
#[derive(Debug)]
struct Run {
    id: String,
    host: Host,
    /// The window at which it is a guess, if there was one.
    window: Option<String>,
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Pairing {
    window: Option<Window>,
    runs: BTreeMap<ConnId, Run>,
    history: PairingHistory,
    runs_max: u32,
    open_for: Duration,
    failures_max: usize,
    lock_span: Duration,
}

impl Pairing {
    pub(crate) fn new(history: PairingHistory, limits: &Limits) -> Self {
        Self {
            window: None,
            runs: BTreeMap::new(),
            history,
            runs_max: limits.pairing_runs,
            open_for: limits.pairing_window,
            failures_max: limits.pairing_failures_max,
            lock_span: limits.pairing_lock_span,
        }
    }

    /// Opens a window and closes the one before. After unlocking, store [`Self::history`]; until then a crash locks
    /// again.
    pub(crate) fn open(
        &mut self,
        now: Now,
        opening: Opening,
        entropy: &mut Entropy,
    ) -> Result<&Window, Locked> {
        if opening.unlock && opening.by == Who::Owner {
            self.history.failed_windows.clear();
        }
        if self.is_locked() {
            return Err(Locked);
        }
        Ok(self.window.insert(Window {
            pairing_id: entropy.base62(ID_LEN),
            by: opening.by,
            pin: new_pin(entropy),
            ticket: Secret::new(BASE64URL_NOPAD.encode(&entropy.bytes::<32>())),
            role: opening.role,
            name: opening.name,
            confirm: opening.confirm,
            expires: now.mono + self.open_for,
            expires_at: now.unix + self.open_for,
            runs_left: self.runs_max,
        }))
    }

    /// Closes the window; whether there was one.
    pub(crate) fn cancel(&mut self) -> bool {
        self.window.take().is_some()
    }

    /// The window's name, if one is open.
    pub(crate) fn name(&self) -> Option<&str> {
        self.window.as_ref().map(|window| window.pairing_id.as_str())
    }

    /// So many guesses are left, if a window is open.
    pub(crate) fn tries_left(&self) -> Option<u32> {
        self.window.as_ref().map(|window| window.runs_left)
    }

    /// Who opened the window, if one is open.
    pub(crate) fn opener(&self) -> Option<Who> {
        self.window.as_ref().map(|window| window.by)
    }

    /// A guess at the PIN. What is not six digits is a guess like any other.
    pub(crate) fn attempt_pin(&mut self, now: Now, pin: &str) -> Outcome {
        self.attempt(now, |window| window.pin == Secret::new(pin.to_owned()))
    }

    /// A guess at the ticket. With another window's id it is none at this one: whoever scans an old code burns nothing.
    pub(crate) fn attempt_ticket(&mut self, now: Now, pairing_id: &str, ticket: &str) -> Outcome {
        if self.window.as_ref().is_none_or(|window| window.pairing_id != pairing_id) {
            return Outcome::Refused;
        }
        self.attempt(now, |window| window.ticket == Secret::new(ticket.to_owned()))
    }

    fn attempt(&mut self, now: Now, is_right: impl FnOnce(&Window) -> bool) -> Outcome {
        self.expire(now);
        let Some(window) = self.window.as_mut().filter(|window| window.runs_left > 0) else {
            return Outcome::Refused;
        };
        window.runs_left = window.runs_left.saturating_sub(1);
        match self.window.take_if(|window| is_right(window)) {
            Some(window) => Outcome::Matched(window, None),
            None => self.on_wrong(now),
        }
    }

    /// Answers the first message of a run: its id, and the message for the device. `None` if this connection has one already.
    pub(crate) fn start(
        &mut self,
        now: Now,
        conn: ConnId,
        message: &Message,
        keys: Keys,
        entropy: &mut Entropy,
    ) -> Option<(String, String)> {
        if self.runs.contains_key(&conn) {
            return None;
        }
        self.expire(now);
        let id = entropy.base62(ID_LEN);
        // Drawn whether or not it is used: what happens does not depend on there being a window.
        let nobodys = new_pin(entropy);
        let open = self.window.as_mut().filter(|window| window.runs_left > 0);
        let (pin, window) = match open {
            Some(window) => {
                window.runs_left = window.runs_left.saturating_sub(1);
                (window.pin.clone(), Some(window.pairing_id.clone()))
            }
            None => (nobodys, None),
        };
        let answer = Host::answer(pin.expose(), keys.device, keys.daemon, message, entropy.bytes());
        let (host, reply) = answer.ok()?;
        self.runs.insert(conn, Run { id: id.clone(), host, window });
        Some((id, reply))
    }

    /// The last message of a run.
    pub(crate) fn finish(&mut self, now: Now, conn: ConnId, id: &str, confirm: &str) -> Outcome {
        self.expire(now);
        let Some(run) = self.runs.remove(&conn) else { return Outcome::Refused };
        // Looked at in every case, as above.
        let proof = run.host.check(confirm).filter(|_| run.id == id);
        if !self.is_at(run.window.as_deref()) {
            return Outcome::Refused;
        }
        let Some(proof) = proof else { return self.on_wrong(now) };
        match self.window.take() {
            Some(window) => Outcome::Matched(window, Some(proof)),
            None => Outcome::Refused,
        }
    }

    /// The connection is gone, and its run with it; `None` if it had none. Whether that has closed the window as failed:
    /// store [`Self::history`].
    pub(crate) fn abandon(&mut self, now: Now, conn: ConnId) -> Option<bool> {
        self.expire(now);
        let run = self.runs.remove(&conn)?;
        let is_guess = self.is_at(run.window.as_deref());
        Some(is_guess && matches!(self.on_wrong(now), Outcome::RefusedAndClosed))
    }

    fn is_at(&self, window: Option<&str>) -> bool {
        let open = self.window.as_ref().map(|window| window.pairing_id.as_str());
        open.is_some() && open == window
    }

    /// A guess was wrong. The window has failed when no other is left and none is under way.
    fn on_wrong(&mut self, now: Now) -> Outcome {
        let has_more = self.window.as_ref().is_some_and(|window| window.runs_left > 0);
        if has_more || self.runs.values().any(|run| self.is_at(run.window.as_deref())) {
            return Outcome::Refused;
        }
        self.window = None;
        self.on_failed_window(now.unix);
        Outcome::RefusedAndClosed
    }

    /// Only here old failures are forgotten: a lock, once there, has no time limit.
    fn on_failed_window(&mut self, now: Unix) {
        let failed = &mut self.history.failed_windows;
        failed.retain(|at| now.since(*at) < self.lock_span);
        failed.push(now);
    }

    /// Closes the window if its time is over; whether it did. By either clock: the monotonic one may stand still while
    /// the machine sleeps.
    pub(crate) fn expire(&mut self, now: Now) -> bool {
        let is_over =
            |window: &mut Window| now.mono >= window.expires || now.unix >= window.expires_at;
        self.window.take_if(is_over).is_some()
    }

    /// No window opens without `unlock`.
    pub(crate) fn is_locked(&self) -> bool {
        self.history.failed_windows.len() >= self.failures_max
    }

    /// To be stored whenever it changed.
    pub(crate) const fn history(&self) -> &PairingHistory {
        &self.history
    }
}

fn new_pin(entropy: &mut Entropy) -> Secret {
    Secret::new(format!("{:06}", entropy.below(PIN_BOUND)))
}

#[cfg(test)]
mod tests;
