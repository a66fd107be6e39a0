//! Times for people: `3m ago`, `1m 48s`. Programs get RFC 3339 from the daemon unchanged.

use std::time::{SystemTime, UNIX_EPOCH};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A length of time, in its two largest units.
pub(crate) fn span(secs: u64) -> String {
    let two = |big: u64, unit: &str, small: u64, part: &str| match small {
        0 => format!("{big}{unit}"),
        _ => format!("{big}{unit} {small}{part}"),
    };
    match secs {
        0..MINUTE => format!("{secs}s"),
        MINUTE..HOUR => two(secs / MINUTE, "m", secs % MINUTE, "s"),
        HOUR..DAY => two(secs / HOUR, "h", secs % HOUR / MINUTE, "m"),
        DAY.. => two(secs / DAY, "d", secs % DAY / HOUR, "h"),
    }
}

/// How long before `now` this was, in one unit.
pub(crate) fn ago(then: u64, now: u64) -> String {
    match now.saturating_sub(then) {
        0..5 => "just now".to_owned(),
        secs => format!("{} ago", coarse(secs)),
    }
}

/// A length of time in its largest unit.
pub(crate) fn coarse(secs: u64) -> String {
    match secs {
        0..MINUTE => format!("{secs}s"),
        MINUTE..HOUR => format!("{}m", secs / MINUTE),
        HOUR..DAY => format!("{}h", secs / HOUR),
        DAY.. => format!("{}d", secs / DAY),
    }
}

/// Seconds since 1970 of an RFC 3339 time in UTC, as the daemon writes them.
pub(crate) fn parse(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<u64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let mut time = time.split('.').next()?.splitn(3, ':').map(|part| part.parse::<u64>().ok());
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Years that begin in March, so that the leap day is their last; 719 468 days from 0000-03-01 to 1970-01-01.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    Some((days - 719_468) * DAY + hour * HOUR + minute * MINUTE + second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clawd_protocol::Unix;

    #[test]
    fn what_the_daemon_writes_is_read() {
        for secs in [0, 951_782_399, 951_782_400, 4_107_542_400, 1_795_344_000, 1_709_164_800] {
            assert_eq!(parse(&Unix::from_millis(secs * 1000).to_string()), Some(secs));
        }
        for text in ["", "Z", "2026-11-22", "2026-13-01T00:00:00Z", "x-1-1T0:0:0Z"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn spans_are_short() {
        assert_eq!(span(9), "9s");
        assert_eq!(span(108), "1m 48s");
        assert_eq!(span(11_520), "3h 12m");
        assert_eq!(span(DAY), "1d");
        assert_eq!(ago(100, 100), "just now");
        assert_eq!(ago(100, 280), "3m ago");
        assert_eq!(ago(200, 100), "just now");
    }
}
