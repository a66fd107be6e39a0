//! Both clocks, read in one place.
//!
//! Owns the monotonic clock's zero; refuses to know what time is used for. Read once per turn and after anything that
//! may have taken long, never per message: a message costs less than a look at the clock would.

use std::time::{Duration, Instant as Monotonic, SystemTime, UNIX_EPOCH};

use clawd_protocol::{Instant, Now, Unix};

/// The runtime's clocks.
#[derive(Debug)]
pub(crate) struct Clock {
    zero: Monotonic,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { zero: Monotonic::now() }
    }

    pub(crate) fn read(&self) -> Now {
        let mono = u64::try_from(self.zero.elapsed().as_micros()).unwrap_or(u64::MAX);
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix = u64::try_from(unix.as_millis()).unwrap_or(u64::MAX);
        Now { mono: Instant::from_micros(mono), unix: Unix::from_millis(unix) }
    }
}

/// Longer sleeps are cut here: the system counts milliseconds in 32 bits.
const SLEEP_MILLIS_MAX: u64 = 3_600_000;

/// How long to sleep until `deadline`: whole milliseconds, rounded up and at least one, so that the sleeper never wakes
/// before its time and a deadline that has passed never becomes a busy loop.
pub(crate) fn sleep_until(deadline: Instant, now: Instant) -> Duration {
    let millis = deadline.since(now).as_micros().div_ceil(1000);
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX).clamp(1, SLEEP_MILLIS_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleeping_is_rounded_up_and_never_nothing() {
        let at = Instant::from_micros;
        for (deadline, now, millis) in [
            (0, 0, 1),
            (0, 5, 1),
            (1, 0, 1),
            (1000, 0, 1),
            (1001, 0, 2),
            (u64::MAX, 0, SLEEP_MILLIS_MAX),
        ] {
            assert_eq!(sleep_until(at(deadline), at(now)), Duration::from_millis(millis));
        }
    }
}
