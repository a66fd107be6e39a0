//! So many in a span of time; the others are counted.
//!
//! Owns one count; refuses to know of what.

use core::time::Duration;

use crate::contract::time::Instant;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Quota {
    span_ends: Instant,
    taken: u32,
    left_out: u32,
}

impl Quota {
    /// Takes one of `max` in `span`. `None` if there is none left; else how many went without since the last.
    pub(crate) fn take(&mut self, now: Instant, max: u32, span: Duration) -> Option<u32> {
        if now >= self.span_ends {
            self.span_ends = now + span;
            self.taken = 0;
        }
        if self.taken >= max {
            self.left_out = self.left_out.saturating_add(1);
            return None;
        }
        self.taken = self.taken.saturating_add(1);
        Some(core::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_are_given_and_the_others_counted() {
        let span = Duration::from_secs(60);
        let mut quota = Quota::default();
        let start = Instant::ZERO + Duration::from_secs(9);
        let mut take = |secs| quota.take(start + Duration::from_secs(secs), 2, span);
        assert_eq!([take(0), take(0), take(1), take(59)], [Some(0), Some(0), None, None]);
        assert_eq!([take(60), take(61), take(62)], [Some(2), Some(0), None]);
        assert_eq!(take(200), Some(1));
    }
}
