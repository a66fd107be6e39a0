//! What is decided on a tool call, and how the daemon is told.
//!
//! Owns the calls about approvals, so that nobody else knows their names; refuses to know who decides and what is shown.

use serde_json::{Value, json};

use super::typed;
use crate::connection::Connection;
use crate::exit::Failure;
use crate::wire::Approval;

/// A decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision<'a> {
    /// It may run, once.
    Once,
    /// It may run, and the very same call again in this session.
    Session,
    /// It must not, and this is what the agent is told.
    Deny(&'a str),
}

/// All that waits for a decision: as the daemon says it, and as a type.
pub(super) fn pending(daemon: &mut Connection) -> Result<(Value, Vec<Approval>), Failure> {
    let mut answer = daemon.call("approval.list", json!({}))?;
    let listed = answer.get_mut("approvals").map(Value::take).unwrap_or_default();
    let approvals = typed(&listed)?;
    Ok((listed, approvals))
}

/// Tells the daemon and waits until the agent has taken it.
pub(super) fn tell(
    daemon: &mut Connection,
    session: &str,
    tool_call: &str,
    decision: Decision<'_>,
) -> Result<Value, Failure> {
    let (method, params) = request(session, tool_call, decision);
    daemon.call(method, params)
}

/// Tells the daemon and does not wait.
pub(super) fn start(
    daemon: &mut Connection,
    session: &str,
    tool_call: &str,
    decision: Decision<'_>,
) -> Result<(), Failure> {
    let (method, params) = request(session, tool_call, decision);
    daemon.start(method, params).map(drop)
}

fn request(session: &str, tool_call: &str, decision: Decision<'_>) -> (&'static str, Value) {
    let mut params = json!({"sessionId": session, "toolCallId": tool_call});
    let method = match decision {
        Decision::Once => {
            params["scope"] = "once".into();
            "tool.approve"
        }
        Decision::Session => {
            params["scope"] = "session".into();
            "tool.approve"
        }
        Decision::Deny(reason) => {
            params["reason"] = reason.into();
            "tool.reject"
        }
    };
    (method, params)
}
