//! How a log goes on after a crash, a loss of power, or a hand that was in it.
//!
//! Owns the decision which line the next one ties on to, and what is said about it in the log; refuses to know files.
//! The daemon always starts: an owner who cannot start it cannot look at what happened. What looks like a crash is
//! mended and told; what does not look like one is never mended: the next line ties on to what the daemon remembers, so
//! that the gap stays a gap for every verifier to come.
//!
//! | the log ends … | that is | the next line ties on to |
//! |---|---|---|
//! | where the daemon remembers | fine | that |
//! | in half a line | a crash while it was written: cut off, told | the line before |
//! | later than the daemon remembers | a crash before the change itself was stored: told | the last line |
//! | earlier, but nothing is missing that had reached the disk | a loss of power: told | the last line |
//! | earlier than what had reached the disk | damage: told | what the daemon remembers |
//! | in a line that was edited, or is not the one remembered | damage: told | what the daemon remembers |

use alloc::format;
use alloc::string::String;

use super::chain::{Chain, Line, Link};
use crate::contract::record::{AuditKind, AuditRecord};
use crate::contract::time::Unix;

/// What the daemon remembers of its log, outside of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Anchor {
    /// The last line.
    pub chain: Chain,
    /// The last line that had surely reached the disk.
    pub synced: u64,
}

/// What is found at the end of a log.
#[derive(Debug, Clone, Copy, Default)]
pub struct Found<'a> {
    /// The last whole line.
    pub last: Option<&'a [u8]>,
    /// The hash of the line that the daemon remembers, if that is among the last ones.
    pub at_anchor: Option<Link>,
    /// There was half a line after it, which is cut off.
    pub is_torn: bool,
    /// What a [`Verifier`](super::Verifier) says about the last lines, if they do not hold together.
    pub is_broken: bool,
}

/// How to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resumed {
    /// What the next line ties on to.
    pub chain: Chain,
    /// What to say first.
    pub record: Option<AuditRecord>,
}

/// Decides how a log goes on that ends like this.
#[must_use]
pub fn resume(found: &Found<'_>, anchor: &Anchor, at: Unix) -> Resumed {
    let say = |kind, count, note: String| {
        let mut record = AuditRecord::new(at, kind, "daemon");
        record.count = count;
        record.note = Some(note);
        Some(record)
    };
    let remembered = anchor.chain;
    let line = found.last.and_then(Line::read).filter(|line| line.is_genuine);
    let last = line.map_or_else(Chain::default, |line| Chain { n: line.n, head: line.hash });
    let is_edited = found.last.is_some() && line.is_none();
    let is_another = found.at_anchor.is_some_and(|hash| hash != remembered.head);
    let furthest = if last.n > remembered.n { last } else { remembered };
    if is_edited || is_another || found.is_broken {
        let note =
            String::from("the last lines are not what was written; see `clawd audit verify`");
        return Resumed { chain: furthest, record: say(AuditKind::Damaged, None, note) };
    }
    if last.n < anchor.synced {
        let count = remembered.n.saturating_sub(last.n);
        let note = format!("records {} to {} are missing", last.n.saturating_add(1), remembered.n);
        return Resumed { chain: furthest, record: say(AuditKind::Damaged, Some(count), note) };
    }
    let record = if last.n < remembered.n {
        let note = "the last records had not reached the disk when the power went";
        let count = remembered.n.saturating_sub(last.n);
        say(AuditKind::Recovered, Some(count), String::from(note))
    } else if last.n > remembered.n && remembered.n > 0 {
        let note = "the last records tell of what was not stored any more: the daemon was ended";
        let count = last.n.saturating_sub(remembered.n);
        say(AuditKind::Recovered, Some(count), String::from(note))
    } else if found.is_torn {
        let note = "half a record was cut off: the daemon was ended while it was written";
        say(AuditKind::Recovered, None, String::from(note))
    } else {
        None
    };
    Resumed { chain: last, record }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec::Vec;

    fn log(count: usize) -> Vec<(String, Chain)> {
        let mut chain = Chain::default();
        let record = AuditRecord::new(Unix::default(), AuditKind::Paired, "owner");
        let line = |_| (chain.append(&record).trim_end().to_string(), chain);
        (0..count).map(line).collect()
    }

    fn kind(resumed: &Resumed) -> Option<AuditKind> {
        resumed.record.as_ref().map(|record| record.kind)
    }

    #[test]
    fn h8_a_log_goes_on_where_it_ended() {
        let log = log(5);
        let (line, end) = &log[4];
        let found =
            Found { last: Some(line.as_bytes()), at_anchor: Some(end.head), ..Found::default() };
        let anchor = Anchor { chain: *end, synced: 5 };
        let resumed = resume(&found, &anchor, Unix::default());
        assert_eq!(resumed, Resumed { chain: *end, record: None });
        let torn = resume(&Found { is_torn: true, ..found }, &anchor, Unix::default());
        assert_eq!((torn.chain, kind(&torn)), (*end, Some(AuditKind::Recovered)));
        let first = resume(&Found::default(), &Anchor::default(), Unix::default());
        assert_eq!(first, Resumed { chain: Chain::default(), record: None });
    }

    #[test]
    fn h8_a_crash_is_mended_and_told() {
        let log = log(5);
        let at = |n: usize, anchor: usize| Found {
            last: log.get(n - 1).map(|(line, _)| line.as_bytes()),
            at_anchor: (anchor <= n).then(|| log[anchor - 1].1.head),
            ..Found::default()
        };
        let ahead = Anchor { chain: log[2].1, synced: 3 };
        let resumed = resume(&at(5, 3), &ahead, Unix::default());
        assert_eq!((resumed.chain, kind(&resumed)), (log[4].1, Some(AuditKind::Recovered)));
        let behind = Anchor { chain: log[4].1, synced: 3 };
        let resumed = resume(&at(3, 5), &behind, Unix::default());
        assert_eq!((resumed.chain, kind(&resumed)), (log[2].1, Some(AuditKind::Recovered)));
        assert_eq!(resumed.record.unwrap().count, Some(2));
    }

    #[test]
    fn h8_what_is_no_crash_is_never_mended() {
        let log = log(5);
        let end = log[4].1;
        let anchor = Anchor { chain: end, synced: 4 };
        let damaged = |found: Found<'_>| {
            let resumed = resume(&found, &anchor, Unix::default());
            assert_eq!((resumed.chain, kind(&resumed)), (end, Some(AuditKind::Damaged)));
        };
        damaged(Found::default());
        damaged(Found { last: Some(log[2].0.as_bytes()), ..Found::default() });
        damaged(Found { last: Some(b"garbage"), ..Found::default() });
        let edited = log[4].0.replace("owner", "other");
        damaged(Found { last: Some(edited.as_bytes()), ..Found::default() });
        let other = Found {
            last: Some(log[4].0.as_bytes()),
            at_anchor: Some(log[3].1.head),
            ..Found::default()
        };
        damaged(other);
        damaged(Found { last: Some(log[4].0.as_bytes()), is_broken: true, ..Found::default() });
    }
}
