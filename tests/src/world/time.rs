//! Both clocks: the one that only goes forward, and the one on the wall.
//!
//! Owns the passing of time, from deadline to deadline; refuses to look at a real clock.

use std::time::Duration;

use clawd_protocol::{Input, Instant, Now, Unix};

use super::World;
use super::due::TURNS_MAX;
use crate::child::Child;

/// The wall clock at the start of every run: 2026-11-22T10:40:00Z.
const EPOCH_MS: u64 = 1_795_344_000_000;

impl World {
    /// Both clocks.
    #[must_use]
    pub fn now(&self) -> Now {
        let true_ms = EPOCH_MS + self.mono.as_micros() / 1_000;
        Now {
            mono: self.mono,
            unix: Unix::from_millis(true_ms.saturating_add_signed(self.skew_ms)),
        }
    }

    /// Sets the wall clock forward or back; the other clock does not notice.
    pub const fn skew(&mut self, by_ms: i64) {
        self.skew_ms = self.skew_ms.saturating_add(by_ms);
    }

    /// When the daemon wants to be called next.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        if self.is_stopped { None } else { self.daemon.poll_timeout() }
    }

    /// Lets time pass, jumping from deadline to deadline, and everything happen that falls into it.
    pub fn advance(&mut self, by: Duration) {
        let until = self.mono + by;
        for _ in 0..TURNS_MAX {
            self.settle();
            let wake = self.children.values().filter_map(Child::wake_at).min();
            let next = [self.deadline(), wake].into_iter().flatten().min();
            match next.filter(|at| *at <= until) {
                Some(at) => self.jump(at),
                None => {
                    self.jump(until);
                    return self.settle();
                }
            }
        }
        self.fail("deadlines without end");
    }

    /// Jumps to the daemon's next deadline, if it has one.
    pub fn advance_to_deadline(&mut self) {
        self.settle();
        if let Some(at) = self.deadline() {
            self.advance(at.since(self.mono));
        }
    }

    fn jump(&mut self, at: Instant) {
        self.mono = self.mono.max(at);
        self.input(Input::Tick);
        let now = self.mono;
        self.children.values_mut().for_each(|child| child.wake(now));
    }
}
