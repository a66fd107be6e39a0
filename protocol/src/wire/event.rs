//! Events: what every authenticated connection is told without asking.
//!
//! Owns their names, forms and the least role that gets each (security B8); refuses to know when they happen. An event
//! is serialised once, whoever gets it.

use alloc::string::String;

use serde::Serialize;

use super::view::{ApprovalView, DeviceEventView, MessageView, SessionView, ToolCallView};
use crate::contract::id::{ApprovalId, MessageId, SessionId, ToolCallId};
use crate::contract::record::{DecisionKind, EventRecord, Progress, Role, SessionStatus};
use crate::contract::time::Unix;
use crate::relay::RelayUrl;

/// One event, borrowed from what it tells of.
#[derive(Debug, Serialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
pub(crate) enum Event<'a> {
    Ready {
        version: &'a str,
        port: u16,
    },
    SessionCreated {
        session: SessionView<'a>,
    },
    SessionUpdated {
        session: SessionView<'a>,
    },
    SessionDeleted {
        session_id: SessionId,
    },
    StatusChanged {
        session_id: SessionId,
        status: SessionStatus,
        previous: SessionStatus,
        waiting_for: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'a str>,
    },
    MessageCreated {
        session_id: SessionId,
        message: MessageView<'a>,
    },
    MessageUpdated {
        session_id: SessionId,
        message_id: MessageId,
        content: &'a str,
        status: Progress,
    },
    /// Instead of `MessageUpdated` for those who asked: keep the first `offset` bytes, add `text`.
    MessageDelta {
        session_id: SessionId,
        message_id: MessageId,
        offset: usize,
        text: &'a str,
    },
    ToolCallCreated {
        session_id: SessionId,
        tool_call: ToolCallView<'a>,
    },
    ToolCallUpdated {
        session_id: SessionId,
        tool_call_id: ToolCallId,
        status: Progress,
        #[serde(skip_serializing_if = "Option::is_none")]
        decision: Option<super::view::DecisionView<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        output: Option<&'a str>,
    },
    ApprovalRequested {
        #[serde(flatten)]
        approval: ApprovalView<'a>,
        tool_call: ToolCallView<'a>,
    },
    ApprovalResolved {
        session_id: SessionId,
        tool_call_id: ToolCallId,
        #[serde(rename = "approval_id")]
        approval_id: Option<ApprovalId>,
        kind: DecisionKind,
        by: &'a str,
    },
    DevicePaired(DeviceEventView<'a>),
    DeviceRevoked(DeviceEventView<'a>),
    DeviceUpdated(DeviceEventView<'a>),
    PairingProgress {
        state: &'a str,
        detail: &'a str,
        /// Of which window, where another may have been opened since.
        #[serde(rename = "pairingId", skip_serializing_if = "Option::is_none")]
        pairing_id: Option<&'a str>,
        /// With the state `refused`: how many guesses the open window has left.
        #[serde(skip_serializing_if = "Option::is_none")]
        tries_left: Option<u32>,
        /// With the state `confirm`: who wants to come in.
        #[serde(flatten)]
        guest: Option<super::view::GuestView<'a>>,
    },
    RelayConnected {
        url: &'a RelayUrl,
    },
    RelayDisconnected {
        url: &'a RelayUrl,
        kind: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_in_secs: Option<u64>,
    },
    /// Events after `from`, up to `to`, were not sent to one who did not read.
    Gap {
        from: u64,
        to: u64,
    },
    /// What was missed cannot be told: it goes on after `cursor`.
    Reset {
        reason: &'static str,
        cursor: u64,
    },
}

impl Event<'_> {
    const fn name(&self) -> &'static str {
        match self {
            Self::Ready { .. } => "daemon.ready",
            Self::SessionCreated { .. } => "session.created",
            Self::SessionUpdated { .. } => "session.updated",
            Self::SessionDeleted { .. } => "session.deleted",
            Self::StatusChanged { .. } => "session.statusChanged",
            Self::MessageCreated { .. } => "session.messageCreated",
            Self::MessageUpdated { .. } => "session.messageUpdated",
            Self::MessageDelta { .. } => "session.messageDelta",
            Self::ToolCallCreated { .. } => "session.toolCallCreated",
            Self::ToolCallUpdated { .. } => "session.toolCallUpdated",
            Self::ApprovalRequested { .. } => "tool.approvalRequested",
            Self::ApprovalResolved { .. } => "tool.approvalResolved",
            Self::DevicePaired(_) => "device.paired",
            Self::DeviceRevoked(_) => "device.revoked",
            Self::DeviceUpdated(_) => "device.updated",
            Self::PairingProgress { .. } => "pairing.progress",
            Self::RelayConnected { .. } => "relay.connected",
            Self::RelayDisconnected { .. } => "relay.disconnected",
            Self::Gap { .. } => "events.gap",
            Self::Reset { .. } => "events.reset",
        }
    }

    /// The least role that is told.
    pub(crate) const fn least_role(&self) -> Role {
        match self {
            Self::PairingProgress { .. } => Role::Admin,
            Self::Ready { .. }
            | Self::SessionCreated { .. }
            | Self::SessionUpdated { .. }
            | Self::SessionDeleted { .. }
            | Self::StatusChanged { .. }
            | Self::MessageCreated { .. }
            | Self::MessageUpdated { .. }
            | Self::MessageDelta { .. }
            | Self::ToolCallCreated { .. }
            | Self::ToolCallUpdated { .. }
            | Self::ApprovalRequested { .. }
            | Self::ApprovalResolved { .. }
            | Self::DevicePaired(_)
            | Self::DeviceRevoked(_)
            | Self::DeviceUpdated(_)
            | Self::RelayConnected { .. }
            | Self::RelayDisconnected { .. }
            | Self::Gap { .. }
            | Self::Reset { .. } => Role::Read,
        }
    }

    /// The session with which it is forgotten. That a session was deleted is not.
    const fn session(&self) -> Option<SessionId> {
        match self {
            Self::SessionCreated { session } | Self::SessionUpdated { session } => {
                Some(session.id())
            }
            Self::StatusChanged { session_id, .. }
            | Self::MessageCreated { session_id, .. }
            | Self::MessageUpdated { session_id, .. }
            | Self::MessageDelta { session_id, .. }
            | Self::ToolCallCreated { session_id, .. }
            | Self::ToolCallUpdated { session_id, .. }
            | Self::ApprovalResolved { session_id, .. } => Some(*session_id),
            Self::ApprovalRequested { approval, .. } => Some(approval.session_id()),
            Self::Ready { .. }
            | Self::SessionDeleted { .. }
            | Self::DevicePaired(_)
            | Self::DeviceRevoked(_)
            | Self::DeviceUpdated(_)
            | Self::PairingProgress { .. }
            | Self::RelayConnected { .. }
            | Self::RelayDisconnected { .. }
            | Self::Gap { .. }
            | Self::Reset { .. } => None,
        }
    }

    /// The notification, with the event's number.
    fn text(&self, seq: u64) -> String {
        #[derive(Serialize)]
        struct Numbered<'a, T> {
            #[serde(flatten)]
            body: &'a T,
            seq: u64,
        }
        #[derive(Serialize)]
        struct Notification<'a, T> {
            jsonrpc: &'a str,
            method: &'a str,
            params: Numbered<'a, T>,
        }
        let params = Numbered { body: self, seq };
        let note = Notification { jsonrpc: "2.0", method: self.name(), params };
        serde_json::to_string(&note).unwrap_or_default()
    }
}

/// A serialised event on its way to those who may have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Notice {
    pub(crate) seq: u64,
    pub(crate) least_role: Role,
    pub(crate) session: Option<SessionId>,
    pub(crate) text: String,
}

impl Notice {
    pub(crate) fn new(event: &Event<'_>, seq: u64) -> Self {
        Self {
            seq,
            least_role: event.least_role(),
            session: event.session(),
            text: event.text(seq),
        }
    }

    /// As it is kept.
    pub(crate) fn record(&self, at: Unix) -> EventRecord {
        EventRecord {
            seq: self.seq,
            at,
            least_role: self.least_role,
            session: self.session,
            text: self.text.clone(),
        }
    }
}
