//! Operations in flight: what to do once the world has answered.
//!
//! Owns the table from names to continuations; refuses to know what a continuation is. Each is taken once.

use alloc::collections::BTreeMap;

/// Continuations of type `T` under ids of type `K`.
#[derive(Debug)]
pub(crate) struct Pending<K, T>(BTreeMap<K, T>);

impl<K: Ord, T> Pending<K, T> {
    pub(crate) const fn new() -> Self {
        Self(BTreeMap::new())
    }

    pub(crate) fn await_(&mut self, id: K, then: T) {
        self.0.insert(id, then);
    }

    pub(crate) fn take(&mut self, id: &K) -> Option<T> {
        self.0.remove(id)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.0.values()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
