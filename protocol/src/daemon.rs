//! The daemon: one value, two functions.

use crate::{Config, Effects, Input, Instant, Now, Snapshot};

/// The daemon.
#[derive(Debug)]
pub struct Daemon {}

impl Daemon {
    /// Makes it.
    #[must_use]
    pub fn new(config: Config, entropy: [u8; 32], restored: Snapshot) -> Self {
        let _ = (config, entropy, restored);
        Self {}
    }

    /// Advances the machine by one input.
    pub fn handle(&mut self, now: Now, input: Input<'_>, effects: &mut Effects) {
        let _ = (now, input, effects);
    }

    /// When `handle` must be called again even if nothing happens.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}
