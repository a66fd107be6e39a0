//! Events: what every authenticated connection is told without asking.
//!
//! Owns their names, forms and the least role that gets each (security B8); refuses to know when they happen. An event
//! is serialised once, whoever gets it.

use alloc::string::String;

use serde::Serialize;

use super::view::{ApprovalView, DeviceEventView, MessageView, SessionView, ToolCallView};
use crate::contract::id::{ApprovalId, MessageId, SessionId, ToolCallId};
use crate::contract::record::{DecisionKind, Progress, Role, SessionStatus};

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
            Self::ToolCallCreated { .. } => "session.toolCallCreated",
            Self::ToolCallUpdated { .. } => "session.toolCallUpdated",
            Self::ApprovalRequested { .. } => "tool.approvalRequested",
            Self::ApprovalResolved { .. } => "tool.approvalResolved",
            Self::DevicePaired(_) => "device.paired",
            Self::DeviceRevoked(_) => "device.revoked",
            Self::DeviceUpdated(_) => "device.updated",
            Self::PairingProgress { .. } => "pairing.progress",
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
            | Self::ToolCallCreated { .. }
            | Self::ToolCallUpdated { .. }
            | Self::ApprovalRequested { .. }
            | Self::ApprovalResolved { .. }
            | Self::DevicePaired(_)
            | Self::DeviceRevoked(_)
            | Self::DeviceUpdated(_) => Role::Read,
        }
    }

    /// The notification, with the event's number.
    pub(crate) fn text(&self, seq: u64) -> String {
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
    pub(crate) text: String,
}
