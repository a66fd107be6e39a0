//! How much strangers may cost: answers to their failures come ever later (security C1, C2), and only so many of them
//! may be here at once (C3).
//!
//! Owns who failed how often and who is not authenticated yet; refuses to know what they tried: whether a credential
//! is right is decided elsewhere, and a well-formed token is always looked at. Invariants: both tables are within their
//! limits; the Unix socket, which only the owner can open, is in neither; nothing is waited for here, a caller is told
//! *when*.

use alloc::collections::BTreeMap;
use core::net::{IpAddr, Ipv6Addr};
use core::time::Duration;

use crate::contract::id::ConnId;
use crate::contract::input::Source;
use crate::contract::limits::Limits;
use crate::contract::time::Instant;
use crate::engine::entropy::Entropy;
use crate::engine::timers::Timers;

/// Whose failures are counted together: everybody who could as well have come from the other address (C2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    /// Not limited.
    Unix,
    /// This machine. All of `127.0.0.0/8` and `::1`: a local process may connect from any of these sixteen million.
    Loopback,
    /// An IPv4 address, also where it came mapped into IPv6.
    V4([u8; 4]),
    /// The /64 of an IPv6 address: a single machine commonly has all of it.
    V6([u16; 4]),
    /// Somebody behind a relay, by the address that the relay says. A relay that lies about it gains what somebody with
    /// many addresses has: neither gets near a token, and a PIN counts its guesses itself.
    Relay(Option<u64>),
}

impl Key {
    pub(crate) fn of(source: Source) -> Self {
        match source {
            Source::Unix => Self::Unix,
            Source::Tcp(address) => match address.to_canonical() {
                IpAddr::V4(v4) if v4.is_loopback() => Self::Loopback,
                IpAddr::V4(v4) => Self::V4(v4.octets()),
                IpAddr::V6(Ipv6Addr::LOCALHOST) => Self::Loopback,
                IpAddr::V6(v6) => {
                    let [a, b, c, d, ..] = v6.segments();
                    Self::V6([a, b, c, d])
                }
            },
            Source::Relay(from) => Self::Relay(from.map(|address| match address.to_canonical() {
                IpAddr::V4(v4) => u64::from(v4.to_bits()),
                // The /64. One whose first half is zero is none that anybody has.
                IpAddr::V6(v6) => u64::try_from(v6.to_bits() >> 64).unwrap_or(u64::MAX),
            })),
        }
    }
}

/// When to answer a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// At once.
    Now,
    /// Not before this.
    At(Instant),
    /// Never: close without a word. Answers are queued up to the longest delay and no further, or waiting sockets
    /// would pile up.
    Drop,
}

/// Shortest time between two answers to one source once its free failures are used up; it doubles each time.
const GAP_MIN: Duration = Duration::from_secs(1);

/// Failures, source by source.
///
/// A source is forgotten `failure_decay` after its *last* failure, and by nothing else: a success says nothing about
/// another process at the same address. When the table is full, the source that has not failed for the longest time is
/// forgotten early; to be forgotten, an attacker would need `sources_max` other sources that fail, and with those he
/// could have guessed.
#[derive(Debug)]
pub(crate) struct Failures {
    sources: BTreeMap<Key, Record>,
    decay: Timers<Key>,
    limits: Limits,
}

#[derive(Debug, Clone, Copy, Default)]
struct Record {
    failures: u32,
    /// When the last answer is due that was promised.
    slot: Instant,
}

impl Failures {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { sources: BTreeMap::new(), decay: Timers::new(), limits: limits.clone() }
    }

    /// Counts a failure and tells when it may be answered. Every answer has a time slot of its own, so it does not help
    /// to ask over many connections.
    pub(crate) fn failed(&mut self, key: Key, now: Instant) -> When {
        if key == Key::Unix {
            return When::Now;
        }
        self.forget_until(now);
        if !self.sources.contains_key(&key) && self.sources.len() >= self.limits.sources_max {
            self.forget_until(self.decay.next().unwrap_or(now));
        }
        self.decay.arm(key, now + self.limits.failure_decay);
        let record = self.sources.entry(key).or_default();
        record.failures = record.failures.saturating_add(1);
        let Some(beyond) = record.failures.checked_sub(self.limits.failures_free.saturating_add(1))
        else {
            return When::Now;
        };
        let slot = record.slot.max(now) + gap(beyond, self.limits.failure_delay_max);
        if slot > now + self.limits.failure_delay_max {
            return When::Drop;
        }
        record.slot = slot;
        When::At(slot)
    }

    /// An answer to this source is still held back. A PIN or ticket is not even looked at then.
    pub(crate) fn is_penalised(&self, key: Key, now: Instant) -> bool {
        self.sources.get(&key).is_some_and(|record| record.slot > now)
    }

    fn forget_until(&mut self, now: Instant) {
        while let Some(key) = self.decay.expire(now) {
            self.sources.remove(&key);
        }
    }
}

/// One second, two, four, … up to the limit.
fn gap(beyond: u32, max: Duration) -> Duration {
    let factor = 1_u32.checked_shl(beyond).unwrap_or(u32::MAX);
    GAP_MIN.saturating_mul(factor).min(max)
}

/// Connections that have not authenticated yet.
///
/// For a newcomer that is one too many, a random one of those *already here* goes, never the newcomer: an owner's
/// client authenticates within milliseconds of connecting and is then no stranger any more, so it is almost never the
/// one, whereas silent sockets stay and pile up. Turning newcomers away would let sixteen silent sockets lock it out.
#[derive(Debug)]
pub(crate) struct Strangers {
    keys: BTreeMap<ConnId, Key>,
    total_max: usize,
    per_source: usize,
    early_drop: usize,
}

impl Strangers {
    pub(crate) const fn new(limits: &Limits) -> Self {
        Self {
            keys: BTreeMap::new(),
            total_max: limits.strangers_max,
            per_source: limits.strangers_per_source,
            early_drop: limits.strangers_early_drop,
        }
    }

    /// Lets a newcomer in and tells who has to leave for it; that one counts no longer and must be closed.
    pub(crate) fn admit(&mut self, conn: ConnId, key: Key, chance: &mut Entropy) -> Option<ConnId> {
        if key == Key::Unix {
            return None;
        }
        let of_source = self.keys.values().filter(|other| **other == key).count();
        let victim = if of_source >= self.per_source {
            self.any(chance, of_source, |other| other == key)
        } else if self.is_crowded(chance) {
            self.any(chance, self.keys.len(), |_| true)
        } else {
            None
        };
        if let Some(victim) = victim {
            self.keys.remove(&victim);
        }
        self.keys.insert(conn, key);
        victim
    }

    /// It authenticated or went away.
    pub(crate) fn leave(&mut self, conn: ConnId) {
        self.keys.remove(&conn);
    }

    /// Random early drop: never below the threshold, always at the maximum, evenly rising in between.
    fn is_crowded(&self, chance: &mut Entropy) -> bool {
        let Some(above) = self.keys.len().checked_sub(self.early_drop) else { return false };
        let room = self.total_max.saturating_sub(self.early_drop);
        draw(chance, room + 1) <= above
    }

    /// A random one of the `count` strangers that fit.
    fn any(
        &self,
        chance: &mut Entropy,
        count: usize,
        fits: impl Fn(Key) -> bool,
    ) -> Option<ConnId> {
        let mut fitting = self.keys.iter().filter(|(_, key)| fits(**key));
        fitting.nth(draw(chance, count)).map(|(conn, _)| *conn)
    }
}

/// Uniform in `0..bound`.
fn draw(chance: &mut Entropy, bound: usize) -> usize {
    let drawn = chance.below(u32::try_from(bound).unwrap_or(u32::MAX));
    usize::try_from(drawn).unwrap_or_default()
}

#[cfg(test)]
mod tests;
