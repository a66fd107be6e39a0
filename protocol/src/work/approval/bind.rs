//! What an approval and a grant are bound to (security H3).
//!
//! Owns the two digests; refuses to know what they are compared with. Both are SHA-256 over a JSON object without
//! spaces, its names in alphabetical order, the tool's input exactly as the agent sent it: whatever is asked for
//! differently is something else.

use serde::Serialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::contract::id::{ApprovalId, SessionId, ToolCallId};
use crate::contract::record::{AskKind, ToolCallRecord};

#[derive(Serialize)]
struct Bound<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    call: Option<ToolCallId>,
    cwd: &'a str,
    input: Option<&'a RawValue>,
    kind: AskKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider_call: Option<&'a str>,
    session: SessionId,
    tool: &'a str,
}

impl<'a> Bound<'a> {
    fn new(record: &'a ToolCallRecord, cwd: &'a str) -> Self {
        Self {
            call: None,
            cwd,
            input: serde_json::from_str(&record.input).ok(),
            kind: record.kind,
            provider_call: None,
            session: record.session,
            tool: &record.name,
        }
    }

    fn digest(&self) -> [u8; 32] {
        // Strings, options and raw JSON cannot fail to be written.
        Sha256::digest(serde_json::to_vec(self).unwrap_or_default()).into()
    }
}

/// What one approval is bound to: this very ask, so that an answer to another one never hits it.
pub(super) fn approval_id(record: &ToolCallRecord, cwd: &str) -> ApprovalId {
    let provider_call = Some(record.provider_id.as_str());
    let bound = Bound { call: Some(record.id), provider_call, ..Bound::new(record, cwd) };
    ApprovalId(bound.digest())
}

/// What a grant is bound to: this tool with exactly this input, in this session, however often it is asked for.
pub(super) fn fingerprint(record: &ToolCallRecord, cwd: &str) -> [u8; 32] {
    Bound::new(record, cwd).digest()
}
