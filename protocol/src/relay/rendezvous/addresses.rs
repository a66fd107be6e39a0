//! How much of the relay each address takes.
//!
//! Owns the counts of each address; refuses to know what is done for it. Invariant: an address without a connection is
//! remembered for one span at most, and no more than `addresses_max` of them are.

use alloc::collections::BTreeMap;

use super::limits::RelayLimits;
use crate::access::limiter::Key;
use crate::contract::time::Instant;
use crate::engine::quota::Quota;
use crate::engine::timers::Timers;

/// See the module.
#[derive(Debug)]
pub(super) struct Addresses {
    table: BTreeMap<Key, Address>,
    /// Those without a connection, and when they are forgotten.
    absent: Timers<Key>,
    absent_count: usize,
}

#[derive(Debug, Default)]
struct Address {
    connections: u32,
    invites: u32,
    registers: Quota,
    connects: Quota,
}

impl Addresses {
    pub(super) const fn new() -> Self {
        Self { table: BTreeMap::new(), absent: Timers::new(), absent_count: 0 }
    }

    /// Counts a connection, if there may be one more.
    pub(super) fn enter(&mut self, key: Key, now: Instant, limits: &RelayLimits) -> bool {
        self.forget_until(now);
        let address = self.table.entry(key).or_default();
        if address.connections >= limits.connections_per_address {
            return false;
        }
        address.connections += 1;
        if self.absent.is_armed(key) {
            self.absent.disarm(key);
            self.absent_count = self.absent_count.saturating_sub(1);
        }
        true
    }

    /// A connection that was counted is gone.
    pub(super) fn leave(&mut self, key: Key, now: Instant, limits: &RelayLimits) {
        let Some(address) = self.table.get_mut(&key) else { return };
        address.connections = address.connections.saturating_sub(1);
        if address.connections > 0 {
            return;
        }
        if self.absent_count >= limits.addresses_max {
            self.forget_until(self.absent.next().unwrap_or(now));
        }
        self.absent.arm(key, now + limits.rate_span);
        self.absent_count += 1;
    }

    pub(super) fn may_register(&mut self, key: Key, now: Instant, limits: &RelayLimits) -> bool {
        let Some(address) = self.table.get_mut(&key) else { return false };
        address.registers.take(now, limits.registers_per_span, limits.rate_span).is_some()
    }

    pub(super) fn may_connect(&mut self, key: Key, now: Instant, limits: &RelayLimits) -> bool {
        let Some(address) = self.table.get_mut(&key) else { return false };
        address.connects.take(now, limits.connects_per_span, limits.rate_span).is_some()
    }

    /// Counts an invitation, if there may be one more.
    pub(super) fn invite(&mut self, key: Key, limits: &RelayLimits) -> bool {
        let Some(address) = self.table.get_mut(&key) else { return false };
        let is_free = address.invites < limits.invites_per_address;
        address.invites += u32::from(is_free);
        is_free
    }

    /// An invitation that was counted is over. Its client may not be counted any more; then neither is this.
    pub(super) fn invite_is_over(&mut self, key: Key) {
        if let Some(address) = self.table.get_mut(&key) {
            address.invites = address.invites.saturating_sub(1);
        }
    }

    fn forget_until(&mut self, now: Instant) {
        while let Some(key) = self.absent.expire(now) {
            self.absent_count = self.absent_count.saturating_sub(1);
            self.table.remove(&key);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }
}
