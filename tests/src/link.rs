//! One connection, seen from the peer's end: what it received, and whether it is reading.
//!
//! Owns the frames on their way and those that arrived; refuses to know what they say. Each byte sent is told flushed
//! once, or the link is gone.

use clawd_protocol::{Response, Source};
use std::collections::VecDeque;

/// How far a connection has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// No request head yet.
    Fresh,
    /// It was answered with this and ends.
    Answered(Response),
    /// It speaks WebSocket.
    Upgraded,
    /// It ended: with this close code and reason, or none if the peer left.
    Gone(Option<(u16, &'static str)>),
}

/// One connection.
#[derive(Debug)]
pub struct Link {
    /// Where it came from.
    pub source: Source,
    /// How far it has come.
    pub stage: Stage,
    /// Longest message it may send.
    pub message_bytes_max: usize,
    /// The daemon wants to hear nothing from it.
    pub is_paused: bool,
    /// The peer broke the rules; nothing more is read from it.
    pub(crate) is_broken: bool,
    /// Sent by the peer and not read by the daemon.
    pub(crate) unread: VecDeque<String>,
    /// The peer reads nothing.
    is_stalled: bool,
    /// Sent and not read.
    queue: VecDeque<String>,
    /// Read by the peer, and not looked at by the test.
    pub inbox: VecDeque<String>,
}

impl Link {
    pub(crate) const fn new(source: Source) -> Self {
        Self {
            source,
            stage: Stage::Fresh,
            message_bytes_max: 0,
            is_paused: false,
            is_broken: false,
            unread: VecDeque::new(),
            is_stalled: false,
            queue: VecDeque::new(),
            inbox: VecDeque::new(),
        }
    }

    /// Whether the connection still stands.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Fresh | Stage::Upgraded)
    }

    /// Whether the daemon reads from it.
    pub(crate) fn reads(&self) -> bool {
        self.stage == Stage::Upgraded && !self.is_paused && !self.is_broken
    }

    /// Bytes of the longest message that is sent and not read.
    pub(crate) fn longest_queued(&self) -> usize {
        self.queue.iter().map(String::len).max().unwrap_or(0)
    }

    /// Bytes sent that the peer has not read.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.queue.iter().map(String::len).sum()
    }

    /// The peer stops reading, or goes on.
    pub(crate) const fn set_stalled(&mut self, is_stalled: bool) {
        self.is_stalled = is_stalled;
    }

    pub(crate) fn push(&mut self, text: String) {
        self.queue.push_back(text);
    }

    /// Moves what the peer reads now; how many bytes that were.
    pub(crate) fn flush(&mut self) -> usize {
        if self.is_stalled {
            return 0;
        }
        let bytes = self.queued_bytes();
        self.inbox.append(&mut self.queue);
        bytes
    }

    pub(crate) fn end(&mut self, close: Option<(u16, &'static str)>) {
        self.flush();
        self.queue.clear();
        self.stage = Stage::Gone(close);
    }
}
