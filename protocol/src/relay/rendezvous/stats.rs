//! What `/metrics` says: counts and bytes, never an id or an address.
//!
//! Owns the numbers' names; refuses to know who scrapes them.

use alloc::string::String;
use core::fmt::Write as _;

/// What is counted beside the tables.
#[derive(Debug, Default)]
pub(super) struct Stats {
    /// Streams now.
    pub(super) streams: u64,
    /// Streams ever.
    pub(super) spliced: u64,
    /// Registrations ever.
    pub(super) registered: u64,
    /// Refusals ever, of registrations and of tickets.
    pub(super) refused: u64,
    /// Turned away ever because of a limit.
    pub(super) turned_away: u64,
    /// Invitations ever that nobody accepted.
    pub(super) unaccepted: u64,
    /// Bytes ever.
    pub(super) bytes: u64,
}

/// What the tables hold now.
#[derive(Debug)]
pub(super) struct Sizes {
    pub(super) connections: usize,
    pub(super) daemons: usize,
    pub(super) invites: usize,
}

impl Stats {
    /// The Prometheus text format, version 0.0.4.
    pub(super) fn text(&self, sizes: &Sizes) -> String {
        let size = |size| u64::try_from(size).unwrap_or(u64::MAX);
        let mut text = String::new();
        for (name, kind, value) in [
            ("connections", "gauge", size(sizes.connections)),
            ("daemons", "gauge", size(sizes.daemons)),
            ("invitations", "gauge", size(sizes.invites)),
            ("streams", "gauge", self.streams),
            ("streams_total", "counter", self.spliced),
            ("registrations_total", "counter", self.registered),
            ("refused_total", "counter", self.refused),
            ("turned_away_total", "counter", self.turned_away),
            ("unaccepted_total", "counter", self.unaccepted),
            ("bytes_total", "counter", self.bytes),
        ] {
            let _ = write!(text, "# TYPE clawd_relay_{name} {kind}\nclawd_relay_{name} {value}\n");
        }
        text
    }
}
