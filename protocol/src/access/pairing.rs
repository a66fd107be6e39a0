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
//! Invariants: at most one window is open. A guess is counted before it is compared, per window and not per peer, so
//! parallel guesses are three like all others. Once ten windows have failed within a day nothing opens until the owner
//! says so: neither time nor a clock that is set back or forth changes that, nor a restart.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use core::time::Duration;

use crate::access::peers::Who;
use crate::access::token::Secret;
use crate::contract::limits::Limits;
use crate::contract::record::{PairingHistory, Role};
use crate::contract::time::{Instant, Now, Unix};
use crate::engine::entropy::Entropy;

const PIN_BOUND: u32 = 1_000_000;

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
    /// Right. This was the window; it is closed.
    Matched(Window),
    /// Wrong, or there is no such window.
    Refused,
    /// Wrong for the last time. [`Pairing::history`] has grown: store it before answering.
    RefusedAndClosed,
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Pairing {
    window: Option<Window>,
    history: PairingHistory,
    runs: u32,
    open_for: Duration,
    failures_max: usize,
    lock_span: Duration,
}

impl Pairing {
    pub(crate) fn new(history: PairingHistory, limits: &Limits) -> Self {
        Self {
            window: None,
            history,
            runs: limits.pairing_runs,
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
            pairing_id: entropy.base62(12),
            by: opening.by,
            pin: Secret::new(format!("{:06}", entropy.below(PIN_BOUND))),
            ticket: Secret::new(base64url(&entropy.bytes())),
            role: opening.role,
            name: opening.name,
            expires: now.mono + self.open_for,
            expires_at: now.unix + self.open_for,
            runs_left: self.runs,
        }))
    }

    /// Closes the window; whether there was one.
    pub(crate) fn cancel(&mut self) -> bool {
        self.window.take().is_some()
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
        let Some(mut window) = self.window.take() else { return Outcome::Refused };
        window.runs_left = window.runs_left.saturating_sub(1);
        if is_right(&window) {
            return Outcome::Matched(window);
        }
        if window.runs_left > 0 {
            self.window = Some(window);
            return Outcome::Refused;
        }
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

/// RFC 4648, section 5, without padding.
fn base64url(bytes: &[u8; 32]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::with_capacity(43);
    for chunk in bytes.chunks(3) {
        let mut group = [0; 4];
        for (to, from) in group.iter_mut().skip(1).zip(chunk) {
            *to = *from;
        }
        let bits = u32::from_be_bytes(group);
        for shift in [18, 12, 6, 0].into_iter().take(chunk.len() + 1) {
            let index = usize::try_from(bits >> shift & 63).unwrap_or_default();
            out.push(char::from(DIGITS.get(index).copied().unwrap_or(b'A')));
        }
    }
    out
}

#[cfg(test)]
mod tests;
