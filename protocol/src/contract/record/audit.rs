//! What is written down for good: one record for each thing that somebody may have to answer for (security H8).
//!
//! Owns what a record says; refuses to know how it looks as a line and how lines hold together (`audit` does).
//! Invariant: no record holds a secret: free text is redacted before it becomes a line.

use alloc::string::String;

use super::{DecisionKind, Role};
use crate::contract::id::{DeviceId, SessionId, ToolCallId};
use crate::contract::time::Unix;

words!(
    /// What happened.
    AuditKind {
        /// The daemon began to serve.
        Started = "started",
        /// The daemon was told to end.
        Stopped = "stopped",
        /// An agent named a tool that it is going to use.
        Requested = "requested",
        /// It was decided whether it may.
        Decided = "decided",
        /// The tool's result came.
        Executed = "executed",
        /// The tool call ended without a result.
        Abandoned = "abandoned",
        /// Somebody could not say who he is.
        AuthFailed = "auth_failed",
        /// A PIN was issued.
        PairingOpened = "pairing_opened",
        /// Wrong guesses have closed a pairing window.
        PairingClosed = "pairing_closed",
        /// So many windows have failed that none opens any more.
        PairingLocked = "pairing_locked",
        /// The owner has allowed pairing again.
        PairingUnlocked = "pairing_unlocked",
        /// A device knew the PIN or had the ticket, and was not let in.
        PairingDeclined = "pairing_declined",
        /// A device was paired.
        Paired = "paired",
        /// A device was revoked.
        Revoked = "revoked",
        /// A device may do more or less than before.
        RoleChanged = "role_changed",
        /// A token was replaced: the device's, or without a device the local one.
        Rotated = "rotated",
        /// The owner has changed what is wanted of a relay.
        RelayChanged = "relay_changed",
        /// The identity was replaced, and every device with it.
        IdentityReset = "identity_reset",
        /// A new file begins: the last one was full. Written by the log itself.
        Continued = "continued",
        /// The log was mended after a crash or a loss of power. Written by the log itself.
        Recovered = "recovered",
        /// The log was found changed. Written by the log itself.
        Damaged = "damaged",
    }
);

/// One record of the audit log. What does not apply is absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRecord {
    /// When it happened, by the wall clock.
    pub at: Unix,
    /// What happened.
    pub kind: AuditKind,
    /// Who did it: `owner`, a device's id, `agent`, `stranger`, or `daemon`.
    pub actor: String,
    /// How the actor came: `unix`, `loopback`, …; for strangers with their address.
    pub via: Option<String>,
    /// In which session.
    pub session: Option<SessionId>,
    /// About which tool call.
    pub tool_call: Option<ToolCallId>,
    /// Which agent: `claude`, ….
    pub provider: Option<String>,
    /// The tool's name.
    pub tool: Option<String>,
    /// SHA-256 of the tool's exact input: what was decided on is what ran.
    pub input_sha256: Option<[u8; 32]>,
    /// The beginning of that input, redacted.
    pub input: Option<String>,
    /// How it was decided.
    pub decision: Option<DecisionKind>,
    /// The rule that decided, if none of us did.
    pub rule: Option<String>,
    /// About which device.
    pub device: Option<DeviceId>,
    /// The role that the device was given.
    pub role: Option<Role>,
    /// The oldest line that is still kept, in [`AuditKind::Continued`].
    pub first: Option<u64>,
    /// How many times, or how many lines.
    pub count: Option<u64>,
    /// Why, in a few words for people.
    pub note: Option<String>,
}

impl AuditRecord {
    /// A record with nothing but when, what and who.
    #[must_use]
    pub fn new(at: Unix, kind: AuditKind, actor: &str) -> Self {
        Self {
            at,
            kind,
            actor: String::from(actor),
            via: None,
            session: None,
            tool_call: None,
            provider: None,
            tool: None,
            input_sha256: None,
            input: None,
            decision: None,
            rule: None,
            device: None,
            role: None,
            first: None,
            count: None,
            note: None,
        }
    }
}
