//! Deadlines: one ordered set, so that the next one is known without looking at anything else.
//!
//! Owns when what is due; refuses to know what happens then. A timer is named by what it is for, so arming it again
//! moves it and disarming needs no handle.

use alloc::collections::{BTreeMap, BTreeSet};

use crate::contract::time::Instant;

/// Armed deadlines, each for one `T`.
#[derive(Debug)]
pub(crate) struct Timers<T> {
    by_time: BTreeSet<(Instant, T)>,
    by_name: BTreeMap<T, Instant>,
}

impl<T: Copy + Ord> Timers<T> {
    pub(crate) const fn new() -> Self {
        Self { by_time: BTreeSet::new(), by_name: BTreeMap::new() }
    }

    /// Arms `timer`, or moves it if it is armed.
    pub(crate) fn arm(&mut self, timer: T, at: Instant) {
        if let Some(before) = self.by_name.insert(timer, at) {
            self.by_time.remove(&(before, timer));
        }
        self.by_time.insert((at, timer));
    }

    /// Arms `timer` unless it is armed already.
    pub(crate) fn arm_once(&mut self, timer: T, at: Instant) {
        if !self.is_armed(timer) {
            self.arm(timer, at);
        }
    }

    pub(crate) fn is_armed(&self, timer: T) -> bool {
        self.by_name.contains_key(&timer)
    }

    pub(crate) fn disarm(&mut self, timer: T) {
        if let Some(at) = self.by_name.remove(&timer) {
            self.by_time.remove(&(at, timer));
        }
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes the earliest timer that is due.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<T> {
        let (at, timer) = *self.by_time.first()?;
        if at > now {
            return None;
        }
        self.disarm(timer);
        Some(timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_expire_in_order_and_move() {
        let at = Instant::from_micros;
        let mut timers = Timers::new();
        timers.arm("a", at(30));
        timers.arm("b", at(20));
        timers.arm("a", at(10));
        timers.arm_once("b", at(1));
        timers.arm("c", at(5));
        timers.disarm("c");
        assert_eq!(timers.next(), Some(at(10)));
        assert_eq!(timers.expire(at(9)), None);
        assert_eq!(timers.expire(at(25)), Some("a"));
        assert_eq!(timers.expire(at(25)), Some("b"));
        assert_eq!(timers.expire(at(25)), None);
        assert_eq!(timers.next(), None);
    }
}
