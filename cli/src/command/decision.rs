//! What is decided on a tool call, and how the daemon is told.
//!
//! Owns the calls about approvals, so that nobody else knows their names; refuses to know who decides and what is shown.

use clawd_protocol::text::visible_line;
use serde_json::{Value, json};

use super::question::Answers;
use super::typed;
use crate::connection::{Connection, Event};
use crate::exit::Failure;
use crate::wire::{Approval, Device, Session, ToolCall};

/// Decisions are looked for in so many sessions, the newest first.
const SESSIONS_SEARCHED_MAX: usize = 50;
/// As many as the daemon gives at once.
const TOOL_CALLS: u16 = 200;

/// A decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision<'a> {
    /// It may run, once.
    Once,
    /// It may run, and the very same call again in this session.
    Session,
    /// It was a question, and these are its answers.
    Answered(&'a Answers),
    /// It must not, and this is what the agent is told.
    Deny(&'a str),
}

impl Decision<'_> {
    const fn is_yes(self) -> bool {
        !matches!(self, Self::Deny(_))
    }

    /// What there is to say beside yes and no.
    fn write(self, params: &mut Value) {
        match self {
            Self::Once => params["scope"] = "once".into(),
            Self::Session => params["scope"] = "session".into(),
            Self::Answered(answers) => params["answers"] = answers.clone().into(),
            Self::Deny(reason) => params["reason"] = reason.into(),
        }
    }
}

/// All that waits for a decision: as the daemon says it, and as a type.
pub(super) fn pending(daemon: &mut Connection) -> Result<(Value, Vec<Approval>), Failure> {
    let mut answer = daemon.call("approval.list", json!({}))?;
    let listed = answer.get_mut("approvals").map(Value::take).unwrap_or_default();
    let approvals = typed(&listed)?;
    Ok((listed, approvals))
}

/// What an event says about approvals.
#[derive(Debug)]
pub(super) enum News {
    /// Somebody must decide on this: as `approval.list` says it.
    Asked(Value),
    /// This one is decided.
    Resolved { id: String, kind: String, by: String },
}

/// What this event says about approvals, if anything.
pub(super) fn news(event: &Event) -> Option<News> {
    let text = |key| event.params.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    match event.method.as_str() {
        "tool.approvalRequested" => {
            let mut approval = event.params.clone();
            let fields = approval.as_object_mut()?;
            fields.remove("seq");
            let call = fields.remove("toolCall")?;
            fields.insert("input".to_owned(), call["input"].clone());
            Some(News::Asked(approval))
        }
        "tool.approvalResolved" => {
            Some(News::Resolved { id: text("approval_id"), kind: text("kind"), by: text("by") })
        }
        _ => None,
    }
}

/// How a decision of this kind is told.
pub(super) fn participle(kind: &str) -> String {
    match kind {
        "allow_once" => "allowed once".to_owned(),
        "allow_session" => "allowed for the session".to_owned(),
        "deny" => "denied".to_owned(),
        other => visible_line(other).into_owned(),
    }
}

/// A tool call that was decided already, whose approval is called so; in one session, or in any. The latest of several.
pub(super) fn decided(
    daemon: &mut Connection,
    prefix: &str,
    session: Option<&str>,
) -> Result<Option<ToolCall>, Failure> {
    let sessions = match session {
        Some(session) => vec![session.to_owned()],
        None => {
            let listed: Vec<Session> = typed(&daemon.call("session.list", json!({}))?)?;
            listed.into_iter().take(SESSIONS_SEARCHED_MAX).map(|session| session.id).collect()
        }
    };
    let mut latest: Option<(String, ToolCall)> = None;
    for session in sessions {
        let page = json!({"sessionId": session, "limit": TOOL_CALLS});
        let calls: Vec<ToolCall> = typed(&daemon.call("session.toolCalls", page)?)?;
        let is_it = |call: &ToolCall| call.id == prefix || call.asked_as().starts_with(prefix);
        for call in calls.into_iter().filter(is_it) {
            let Some(at) = call.decision.as_ref().map(|decision| decision.at.clone()) else {
                continue;
            };
            if latest.as_ref().is_none_or(|(latest, _)| *latest < at) {
                latest = Some((at, call));
            }
        }
    }
    Ok(latest.map(|(_, call)| call))
}

/// Whoever decided, by name.
pub(super) fn who(daemon: &mut Connection, by: &str) -> Result<String, Failure> {
    if matches!(by, "owner" | "daemon") {
        return Ok(format!("the {by}"));
    }
    let answer = daemon.call("device.list", json!({"includeRevoked": true}))?;
    let devices: Vec<Device> = typed(&answer)?;
    let device = devices.into_iter().find(|device| device.id == by);
    Ok(device.map_or_else(
        || visible_line(by).into_owned(),
        |device| format!("\"{}\"", visible_line(&device.name)),
    ))
}

/// Tells the daemon and waits until the agent has taken it.
pub(super) fn tell(
    daemon: &mut Connection,
    approval: &str,
    decision: Decision<'_>,
) -> Result<Value, Failure> {
    let mut params = match decision.is_yes() {
        true => json!({"decision": "grant"}),
        false => json!({"decision": "deny"}),
    };
    params["approval_id"] = approval.into();
    decision.write(&mut params);
    daemon.call("approval.respond", params)
}

/// Tells the daemon about a call that is watched, and does not wait.
pub(super) fn start(
    daemon: &mut Connection,
    session: &str,
    tool_call: &str,
    decision: Decision<'_>,
) -> Result<(), Failure> {
    let mut params = json!({"sessionId": session, "toolCallId": tool_call});
    decision.write(&mut params);
    let method = if decision.is_yes() { "tool.approve" } else { "tool.reject" };
    daemon.start(method, params).map(drop)
}
