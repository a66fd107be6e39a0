//! Records as clients see them.
//!
//! Owns the field names of the wire, which existing clients parse: adding a key is safe, renaming one is not. Refuses to
//! know where a record comes from.

use alloc::string::String;
use core::fmt::Write as _;

use serde::Serialize;
use serde::ser::SerializeStruct as _;
use serde_json::value::RawValue;

use crate::contract::id::{ApprovalId, DeviceId, MessageId, SessionId, ToolCallId};
use crate::contract::record::{
    AskKind, Author, Decision, DecisionKind, DeviceRecord, MessageRecord, Progress, Role,
    SessionRecord, SessionStatus, ToolCallRecord, Usage,
};
use crate::contract::time::Unix;
use crate::text::visible_line;

/// JSON text that is an object; `{}` if it should not be one.
#[derive(Debug)]
pub(crate) struct Object<'a>(pub(crate) &'a str);

impl Serialize for Object<'_> {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match serde_json::from_str::<&RawValue>(self.0) {
            Ok(raw) if raw.get().starts_with('{') => raw.serialize(to),
            Ok(_) | Err(_) => to.serialize_struct("Empty", 0)?.end(),
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct UsageView {
    input_tokens: u64,
    output_tokens: u64,
    cost_micro_usd: Option<u64>,
}

impl From<Usage> for UsageView {
    fn from(usage: Usage) -> Self {
        Self {
            input_tokens: usage.input_tokens,
            output_tokens: usage.output_tokens,
            cost_micro_usd: usage.cost_micro_usd,
        }
    }
}

/// A session.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SessionView<'a> {
    id: SessionId,
    repo_path: &'a str,
    title: &'a str,
    provider: &'a str,
    status: SessionStatus,
    created_at: Unix,
    updated_at: Unix,
    message_count: u64,
    model: Option<&'a str>,
    model_override: Option<&'a str>,
    waiting_for: Option<&'static str>,
    agent_session: Option<&'a str>,
    usage: UsageView,
}

impl<'a> SessionView<'a> {
    pub(crate) fn new(record: &'a SessionRecord, waiting_for: Option<&'static str>) -> Self {
        Self {
            id: record.id,
            repo_path: &record.repo_path,
            title: &record.title,
            provider: &record.provider,
            status: record.status,
            created_at: record.created_at,
            updated_at: record.updated_at,
            message_count: record.message_count,
            model: record.model.as_deref(),
            model_override: record.model_override.as_deref(),
            waiting_for,
            agent_session: record.agent_resumable.then_some(record.agent_session.as_str()),
            usage: record.usage.into(),
        }
    }

    pub(crate) const fn id(&self) -> SessionId {
        self.id
    }
}

/// A message.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MessageView<'a> {
    id: MessageId,
    session_id: SessionId,
    role: Author,
    content: &'a str,
    status: Progress,
    created_at: Unix,
    metadata: Object<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_message_id: Option<&'a str>,
}

impl<'a> From<&'a MessageRecord> for MessageView<'a> {
    fn from(record: &'a MessageRecord) -> Self {
        Self {
            id: record.id,
            session_id: record.session,
            role: record.author,
            content: &record.content,
            status: record.status,
            created_at: record.created_at,
            metadata: Object(&record.metadata),
            client_message_id: record.client_id.as_deref(),
        }
    }
}

/// Who decided, when and how.
#[derive(Debug, Serialize)]
pub(crate) struct DecisionView<'a> {
    by: &'a str,
    at: Unix,
    kind: DecisionKind,
}

impl<'a> From<&'a Decision> for DecisionView<'a> {
    fn from(decision: &'a Decision) -> Self {
        Self { by: &decision.by, at: decision.at, kind: decision.kind }
    }
}

/// A tool call. `name` and `toolName` are the same: clients differ in which they read.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ToolCallView<'a> {
    id: ToolCallId,
    session_id: SessionId,
    message_id: MessageId,
    name: &'a str,
    tool_name: &'a str,
    input: Object<'a>,
    status: Progress,
    risk_level: &'a str,
    created_at: Unix,
    completed_at: Option<Unix>,
    requires_approval: bool,
    expires_at: Option<Unix>,
    decision: Option<DecisionView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<&'a str>,
    kind: AskKind,
    approval_id: Option<ApprovalId>,
    rule: Option<&'a str>,
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answers: Option<Object<'a>>,
}

impl<'a> From<&'a ToolCallRecord> for ToolCallView<'a> {
    fn from(record: &'a ToolCallRecord) -> Self {
        Self {
            id: record.id,
            session_id: record.session,
            message_id: record.message,
            name: &record.name,
            tool_name: &record.name,
            input: Object(&record.input),
            status: record.status,
            risk_level: &record.risk,
            created_at: record.created_at,
            completed_at: record.completed_at,
            requires_approval: record.requires_approval,
            expires_at: record.expires_at,
            decision: record.decision.as_ref().map(Into::into),
            output: record.output.as_deref(),
            kind: record.kind,
            approval_id: record.approval,
            rule: record.rule.as_deref(),
            reason: record.reason.as_deref(),
            answers: record.answers.as_deref().map(Object),
        }
    }
}

/// What waits for somebody to decide. Its input is here in lists only: an event has it in the tool call beside it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ApprovalView<'a> {
    #[serde(rename = "approval_id")]
    approval_id: Option<ApprovalId>,
    session_id: SessionId,
    session_title: &'a str,
    tool_call_id: ToolCallId,
    kind: AskKind,
    tool: &'a str,
    #[serde(rename = "args_summary")]
    args_summary: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<Object<'a>>,
    risk: &'a str,
    rule: Option<&'a str>,
    reason: Option<&'a str>,
    #[serde(rename = "requested_at")]
    requested_at: Unix,
    #[serde(rename = "expires_at")]
    expires_at: Option<Unix>,
}

impl<'a> ApprovalView<'a> {
    pub(crate) const fn session_id(&self) -> SessionId {
        self.session_id
    }

    pub(crate) fn new(session_title: &'a str, record: &'a ToolCallRecord) -> Self {
        Self {
            approval_id: record.approval,
            session_id: record.session,
            session_title,
            tool_call_id: record.id,
            kind: record.kind,
            tool: &record.name,
            args_summary: summary(&record.input),
            input: None,
            risk: &record.risk,
            rule: record.rule.as_deref(),
            reason: record.reason.as_deref(),
            requested_at: record.created_at,
            expires_at: record.expires_at,
        }
    }

    pub(crate) fn with_input(mut self, record: &'a ToolCallRecord) -> Self {
        self.input = Some(Object(&record.input));
        self
    }
}

/// Characters of an input that its summary shows.
const SUMMARY_CHARS: usize = 120;

/// An input in one line, fit to be shown: its beginning, and how much more there is (security H4).
fn summary(input: &str) -> String {
    let cut = input.char_indices().nth(SUMMARY_CHARS).map_or(input.len(), |(at, _)| at);
    let (start, rest) = input.split_at_checked(cut).unwrap_or((input, ""));
    let mut summary = visible_line(start).into_owned();
    if !rest.is_empty() {
        // Writing to a string cannot fail.
        let _ = write!(summary, " … {} more bytes", rest.len());
    }
    summary
}

/// A device in a list. Times are epoch seconds, and there is never a token.
#[derive(Debug, Serialize)]
pub(crate) struct DeviceView<'a> {
    id: DeviceId,
    name: &'a str,
    platform: &'a str,
    role: Role,
    created_at: u64,
    last_seen_at: u64,
    expires_at: Option<u64>,
    revoked: bool,
    current: bool,
    connected: bool,
    via: &'a str,
}

impl<'a> DeviceView<'a> {
    pub(crate) fn new(record: &'a DeviceRecord, current: bool, connected: bool) -> Self {
        Self {
            id: record.id,
            name: &record.name,
            platform: &record.platform,
            role: record.role,
            created_at: record.created_at.as_secs(),
            last_seen_at: record.last_seen_at.as_secs(),
            expires_at: record.expires_at.map(Unix::as_secs),
            revoked: record.revoked_at.is_some(),
            current,
            connected,
            via: &record.last_via,
        }
    }
}

/// A device in an event.
#[derive(Debug, Serialize)]
pub(crate) struct DeviceEventView<'a> {
    device_id: DeviceId,
    name: &'a str,
    platform: &'a str,
    role: Role,
}

impl<'a> From<&'a DeviceRecord> for DeviceEventView<'a> {
    fn from(record: &'a DeviceRecord) -> Self {
        Self {
            device_id: record.id,
            name: &record.name,
            platform: &record.platform,
            role: record.role,
        }
    }
}

/// A device that knew the PIN or had the ticket, for those who say whether it may come in.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GuestView<'a> {
    pub(crate) pairing_id: &'a str,
    pub(crate) name: &'a str,
    pub(crate) platform: &'a str,
    pub(crate) via: &'a str,
    pub(crate) address: Option<core::net::IpAddr>,
    pub(crate) code: &'a str,
    pub(crate) expires_in_seconds: u64,
}
