//! The decision on a tool call: made once, stored, then told to the agent.
//!
//! Owns `tool.approve`, `tool.reject` and `approval.list`, the one place where a decision is made, and its way to the
//! agent; refuses to know how calls come about. Invariant: the agent hears "allow" after that decision is on disk, and
//! whoever made it hears of it after the agent has taken it (security H1, H6).

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use serde::Serialize;

use super::super::session::session_param;
use super::super::{After, Asked, Then, Work, status_changed};
use super::{created, fingerprint, forget_timers, updated};
use crate::access::ctx::Ctx;
use crate::access::peers::{Call, Caller};
use crate::agent::Say;
use crate::contract::effect::{Change, Question, Sync};
use crate::contract::id::{DeviceId, SessionId, ToolCallId};
use crate::contract::input::Answer;
use crate::contract::record::{Decision, DecisionKind, Progress};
use crate::contract::time::Unix;
use crate::engine::Timer;
use crate::wire::event::Event;
use crate::wire::params::Params;
use crate::wire::rpc::RpcError;
use crate::wire::view::Object;

/// A decision on a call that is not open: what was decided is looked up.
#[derive(Debug)]
pub(in crate::work) struct Late {
    call: Call,
    is_allow: bool,
}

/// What was decided, by whom, and what the agent is told if it is no.
pub(super) struct Verdict {
    pub(super) kind: DecisionKind,
    pub(super) by: String,
    pub(super) message: String,
}

impl Verdict {
    /// The daemon's own.
    pub(super) fn ours(kind: DecisionKind, message: &str) -> Self {
        Self { kind, by: String::from("daemon"), message: String::from(message) }
    }
}

#[derive(Serialize)]
struct ApprovalsView<'a> {
    approvals: Vec<ApprovalView<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ApprovalView<'a> {
    #[serde(rename = "approval_id")]
    approval_id: ToolCallId,
    session_id: SessionId,
    tool_call_id: ToolCallId,
    tool: &'a str,
    input: Object<'a>,
    risk: &'a str,
    #[serde(rename = "requested_at")]
    requested_at: Unix,
    #[serde(rename = "expires_at")]
    expires_at: Option<Unix>,
}

const APPROVED: &str = "{\"approved\":true}";
const REJECTED: &str = "{\"rejected\":true}";

impl Work {
    pub(crate) fn on_approve(
        &mut self,
        cx: &mut Ctx<'_>,
        call: Call,
        caller: Caller,
        params: &Params<'_>,
    ) {
        let kind = match params.text("scope") {
            Ok(None) => DecisionKind::AllowOnce,
            Ok(Some(scope)) if scope == "once" => DecisionKind::AllowOnce,
            Ok(Some(scope)) if scope == "session" => DecisionKind::AllowSession,
            Ok(Some(_)) => {
                let error = RpcError::bad_params("scope", "must be `once` or `session`");
                return cx.refuse(call, &error);
            }
            Err(error) => return cx.refuse(call, &error),
        };
        self.on_decision(cx, call, caller, params, kind, String::new());
    }

    pub(crate) fn on_reject(
        &mut self,
        cx: &mut Ctx<'_>,
        call: Call,
        caller: Caller,
        params: &Params<'_>,
    ) {
        let message = match params.text("reason") {
            Ok(Some(reason)) => format!("The user denied this: {reason}"),
            Ok(None) => String::from("The user denied this."),
            Err(error) => return cx.refuse(call, &error),
        };
        self.on_decision(cx, call, caller, params, DecisionKind::Deny, message);
    }

    fn on_decision(
        &mut self,
        cx: &mut Ctx<'_>,
        call: Call,
        caller: Caller,
        params: &Params<'_>,
        kind: DecisionKind,
        message: String,
    ) {
        let subject = session_param(params).and_then(|id| {
            self.session_mut(id)?;
            Ok((id, params.need_word::<ToolCallId>("toolCallId", "a tool call's id")?))
        });
        let (id, tool) = match subject {
            Ok(subject) => subject,
            Err(error) => return cx.refuse(call, &error),
        };
        let is_allow = is_allow(kind);
        match self.open(id, tool) {
            Some(open) if open.is_waiting() => {
                let verdict = Verdict { kind, by: caller.name(), message };
                self.decide(cx, (id, tool), verdict, Some(call));
            }
            Some(open) => match &open.record.decision {
                Some(decision) => answer_decided(cx, call, decision, is_allow),
                None => cx.refuse(call, &not_asked()),
            },
            None => {
                let ask = cx.ask(Question::ToolCall { session: id, id: tool });
                self.asked.await_(ask, Asked::ToolCall(Late { call, is_allow }));
            }
        }
    }

    pub(crate) fn on_approval_late(&mut self, cx: &mut Ctx<'_>, id: SessionId, tool: ToolCallId) {
        let message = "Nobody allowed this in time.";
        self.decide(cx, (id, tool), Verdict::ours(DecisionKind::Expired, message), None);
    }

    /// The one place where a decision is made. It is on disk before the agent hears of it.
    pub(super) fn decide(
        &mut self,
        cx: &mut Ctx<'_>,
        (id, tool): (SessionId, ToolCallId),
        verdict: Verdict,
        waiting: Option<Call>,
    ) {
        let Verdict { kind, by, message } = verdict;
        let at = cx.engine.now.unix;
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(call) = session.calls.get_mut(&tool) else { return };
        if call.record.decision.is_some() {
            return;
        }
        forget_timers(cx, id, tool);
        call.record.decision = Some(Decision { by: by.clone(), at, kind });
        call.record.expires_at = None;
        call.record.status = if is_allow(kind) { Progress::Running } else { Progress::Error };
        call.waiting = waiting;
        call.message = message;
        let first = if call.is_announced { updated(&call.record) } else { created(&call.record) };
        let mut notices = vec![cx.engine.number(&first)];
        call.is_announced = true;
        notices.push(cx.engine.number(&Event::ApprovalResolved {
            session_id: id,
            tool_call_id: tool,
            kind,
            by: &by,
        }));
        let changes = vec![Change::PutToolCall(call.record.clone())];
        let waiting_for = session.waiting_for();
        let previous = session.record.status;
        notices.push(status_changed(cx, &session.record, previous, waiting_for, None));
        let then = Then::Deliver(id, tool);
        let after = After { session: Some(id), reply: None, notices, then };
        self.store(cx, changes, Sync::Disk, after);
    }

    /// The decision is on disk: now the agent hears of it, and whoever made it hears that it did.
    pub(in crate::work) fn deliver(&mut self, cx: &mut Ctx<'_>, id: SessionId, tool: ToolCallId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let proc = session.process();
        let Some(call) = session.calls.get_mut(&tool) else { return };
        let waiting = call.waiting.take();
        let Some(decision) = &call.record.decision else { return };
        let (Some(proc), Some(request)) = (proc, call.request.take()) else {
            if let Some(waiting) = waiting {
                cx.refuse(waiting, &no_longer());
            }
            return;
        };
        let is_allow = is_allow(decision.kind) && !call.is_void;
        if is_allow && decision.kind == DecisionKind::AllowSession {
            session.grants.insert(fingerprint(&call.record), decision.by.clone());
        }
        let say = if is_allow {
            Say::Allow { request, input: call.record.input.clone() }
        } else if call.is_void {
            let message = String::from("The device that allowed this is no longer trusted.");
            Say::Deny { request, message }
        } else {
            Say::Deny { request, message: call.message.clone() }
        };
        self.say(cx, proc, say);
        if let Some(waiting) = waiting {
            let result = if is_allow { APPROVED } else { REJECTED };
            self.answer_when_taken(cx, proc, waiting, result);
        }
    }

    /// The decision could not be stored: nothing was decided, unless it was to be denied anyway.
    pub(in crate::work) fn undo_decision(
        &mut self,
        cx: &mut Ctx<'_>,
        id: SessionId,
        tool: ToolCallId,
        error: &RpcError,
    ) {
        let Some(call) = self.open_mut(id, tool) else { return };
        let waiting = call.waiting.take();
        let was_allow = call.record.decision.as_ref().is_some_and(|it| is_allow(it.kind));
        if was_allow {
            call.record.decision = None;
            call.record.status = Progress::Pending;
            let timeout = cx.engine.config.limits.approval_timeout;
            call.record.expires_at = Some(cx.engine.now.unix + timeout);
            cx.engine.timers.arm(Timer::Approval(id, tool), cx.engine.now.mono + timeout);
            let tool_call = (&call.record).into();
            cx.tell_in_passing(&Event::ApprovalRequested { session_id: id, tool_call });
        }
        if let Some(waiting) = waiting {
            cx.refuse(waiting, error);
        }
        if !was_allow {
            self.deliver(cx, id, tool);
        }
    }

    /// This device was revoked, or may do less than before: what it allowed for whole sessions is void, and what it has
    /// just allowed is not told to the agent any more (security E4, H6). The decision itself stands as it was made.
    pub(crate) fn on_distrusted(&mut self, device: DeviceId) {
        let by = device.as_str();
        for session in self.sessions.values_mut() {
            session.grants.retain(|_, granter| granter != by);
            for call in session.calls.values_mut() {
                let decision = call.record.decision.as_ref();
                call.is_void |= decision.is_some_and(|decision| decision.by == by);
            }
        }
    }

    pub(crate) fn on_approvals(&self, cx: &mut Ctx<'_>, call: Call) {
        let calls = self.sessions.values().flat_map(|session| session.calls.values());
        let mut room = cx.engine.config.limits.page_bytes_max;
        let approvals = calls
            .filter(|open| open.is_waiting())
            .take_while(|open| {
                let fits = room > 0;
                room = room.saturating_sub(open.record.input.len());
                fits
            })
            .map(|open| ApprovalView {
                approval_id: open.record.id,
                session_id: open.record.session,
                tool_call_id: open.record.id,
                tool: &open.record.name,
                input: Object(&open.record.input),
                risk: &open.record.risk,
                requested_at: open.record.created_at,
                expires_at: open.record.expires_at,
            })
            .collect();
        cx.answer(call, &ApprovalsView { approvals });
    }
}

/// A decision on a call that has its result already.
pub(in crate::work) fn on_late(cx: &mut Ctx<'_>, late: Late, answer: Answer) {
    match answer.tool_call() {
        Ok(Some(record)) => match &record.decision {
            Some(decision) => answer_decided(cx, late.call, decision, late.is_allow),
            None => cx.refuse(late.call, &not_asked()),
        },
        Ok(None) => {
            let error = RpcError::bad_params("toolCallId", "is not a tool call of this session");
            cx.refuse(late.call, &error);
        }
        Err(fault) => cx.refuse(late.call, &RpcError::storage(&fault)),
    }
}

/// The same decision gets the same answer; the opposite one is told who was first (wire.md §4).
fn answer_decided(cx: &mut Ctx<'_>, call: Call, decision: &Decision, is_now_allow: bool) {
    if is_allow(decision.kind) == is_now_allow && decision.kind != DecisionKind::Expired {
        let result = if is_now_allow { APPROVED } else { REJECTED };
        let raw: Result<&serde_json::value::RawValue, _> = serde_json::from_str(result);
        return cx.answer(call, &raw.ok());
    }
    let why = format!("this was decided at {} by {}", decision.at, decision.by);
    let error = RpcError::new(-32602, "already_decided", why)
        .detail("by", &decision.by)
        .detail("at", decision.at)
        .hint("the first decision holds; `session.toolCalls` shows it");
    cx.refuse(call, &error);
}

pub(super) const fn is_allow(kind: DecisionKind) -> bool {
    match kind {
        DecisionKind::AllowOnce | DecisionKind::AllowSession => true,
        DecisionKind::Deny | DecisionKind::Expired | DecisionKind::Cancelled => false,
    }
}

pub(super) fn no_longer() -> RpcError {
    RpcError::new(-32602, "already_decided", "the agent no longer waits for this")
        .hint("`session.toolCalls` shows what became of it")
}

fn not_asked() -> RpcError {
    RpcError::new(-32602, "not_pending", "nobody was asked about this tool call")
        .hint("`approval.list` shows what waits")
}
