//! Whether a daemon that says nothing is there still.
//!
//! A network that is gone says so to nobody: packets vanish, and a wait would not end. Any byte is a sign of life, so that an
//! answer behind a long one on a slow line is not missed.

use std::time::{Duration, Instant};

use clawd_protocol::client::{CallId, Happening};

/// So long nothing needs to come before it is asked; and so long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The asking.
#[derive(Debug, Default)]
pub(super) struct Pulse(Option<(CallId, Instant)>);

impl Pulse {
    pub(super) fn asked(call: CallId) -> Self {
        Self(Some((call, Instant::now())))
    }

    pub(super) const fn is_asked(&self) -> bool {
        self.0.is_some()
    }

    /// When something must be done, if bytes came at `heard` the last time.
    pub(super) fn due(&self, heard: Instant) -> Instant {
        self.0.map_or(heard, |(_, asked)| heard.max(asked)) + PATIENCE
    }

    /// Whether this is the answer, which nobody else needs to see.
    pub(super) fn takes(&mut self, happening: &Happening) -> bool {
        let Happening::Answer { call, .. } = happening else { return false };
        self.0.take_if(|(asked, _)| asked == call).is_some()
    }
}
