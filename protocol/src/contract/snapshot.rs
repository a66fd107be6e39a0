//! What the store knew at start: everything small, loaded once.
//!
//! Owns the shape of restored state; refuses to know where it came from. Long histories are not here: they are asked
//! for a page at a time with [`Question`](crate::Question).

use alloc::string::String;
use alloc::vec::Vec;

use super::id::DeviceId;
use super::record::{
    Chapter, DeviceRecord, MessageRecord, PairingHistory, RelaySettings, SessionRecord,
    ToolCallRecord,
};
use super::time::Unix;
use crate::access::token::TokenDigest;

/// Restored state, an argument of [`Daemon::new`](crate::Daemon::new).
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Digest of the local token. There is no daemon without one (security A4).
    pub local_token: TokenDigest,
    /// The public key of the daemon's identity, as DER of a `SubjectPublicKeyInfo`. Its fingerprint is the daemon's id.
    pub identity: Vec<u8>,
    /// The name its owner gave it.
    pub name: Option<String>,
    /// The last chapters of the journal, oldest first.
    pub chapters: Vec<Chapter>,
    /// The last event number that was used.
    pub seq: u64,
    /// The latest wall-clock time ever stored: a clock set back revives nobody (E3).
    pub unix_high: Unix,
    /// All devices, also revoked ones.
    pub devices: Vec<DeviceRecord>,
    /// Revocations from the append-only tombstone file: they outlive a restored database (J3).
    pub tombstones: Vec<DeviceId>,
    /// Failed pairing windows.
    pub pairing: PairingHistory,
    /// What the owner wants of a relay, if anything.
    pub relay: Option<RelaySettings>,
    /// All sessions, without their histories.
    pub sessions: Vec<SessionRecord>,
    /// Messages that were being written when the daemon ended.
    pub open_messages: Vec<MessageRecord>,
    /// Tool calls that had no result when the daemon ended.
    pub open_tool_calls: Vec<ToolCallRecord>,
}

impl Snapshot {
    /// The state of a first start.
    #[must_use]
    pub fn empty(local_token: TokenDigest, identity: Vec<u8>) -> Self {
        Self {
            local_token,
            identity,
            name: None,
            chapters: Vec::new(),
            seq: 0,
            unix_high: Unix::default(),
            devices: Vec::new(),
            tombstones: Vec::new(),
            pairing: PairingHistory::default(),
            relay: None,
            sessions: Vec::new(),
            open_messages: Vec::new(),
            open_tool_calls: Vec::new(),
        }
    }
}
