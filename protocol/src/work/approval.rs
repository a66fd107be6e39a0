//! A tool waits for a person.
//!
//! Owns tool calls from their first mention to their result, and the decision on each; refuses to know which tools are
//! harmless. Invariants (security H1, H3, H6): the agent is told "allow" only after that decision is on disk; it is
//! given back exactly the input that was shown; a decision is made once, and for a call of that session only.
//!
//! ```text
//! ToolUsed ─▶ running ──Asked──▶ pending ──allow──▶ running ──ToolEnded──▶ done | error
//!                                   └──deny, timeout, cancel, agent gone──▶ error
//! ```

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::session::{Session, session_param};
use super::turn::cut;
use super::{After, Asked, Then, Work, status_changed};
use crate::access::ctx::Ctx;
use crate::access::peers::{Call, Caller};
use crate::agent::claude;
use crate::contract::effect::{Change, Question, Sync};
use crate::contract::error::StoreFault;
use crate::contract::id::{SessionId, ToolCallId};
use crate::contract::input::Answer;
use crate::contract::record::{Decision, DecisionKind, Progress, ToolCallRecord};
use crate::contract::time::Unix;
use crate::engine::Timer;
use crate::wire::event::{Event, Notice};
use crate::wire::params::Params;
use crate::wire::rpc::RpcError;
use crate::wire::view::ToolCallView;

/// Tools that only look. Every other name, and every name not known, may change something (security H2).
pub(super) const READ_ONLY: &[&str] = &["Glob", "Grep", "LS", "NotebookRead", "Read", "TodoRead"];

/// A tool call without a result.
#[derive(Debug)]
pub(super) struct OpenCall {
    record: ToolCallRecord,
    /// The agent waits for an answer under this id.
    request: Option<String>,
    is_announced: bool,
    /// Who is answered once the agent has taken the decision.
    waiting: Option<Call>,
    /// What the agent is told when it was denied.
    message: String,
}

impl OpenCall {
    /// A person has to decide.
    pub(super) const fn is_waiting(&self) -> bool {
        self.request.is_some() && self.record.decision.is_none()
    }
}

/// A decision on a call that is not open: what was decided is looked up.
#[derive(Debug)]
pub(super) struct Late {
    call: Call,
    is_allow: bool,
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
    input: crate::wire::view::Object<'a>,
    risk: &'a str,
    #[serde(rename = "requested_at")]
    requested_at: Unix,
    #[serde(rename = "expires_at")]
    expires_at: Option<Unix>,
}

const APPROVED: &str = "{\"approved\":true}";
const REJECTED: &str = "{\"rejected\":true}";

impl Work {
    // --- the agent's side ---------------------------------------------------------------------------------------

    /// A tool call is mentioned. It is recorded at once and announced in a moment: mostly the ask follows, and clients
    /// then meet it as pending.
    pub(super) fn on_tool_used(
        &mut self,
        cx: &mut Ctx<'_>,
        id: SessionId,
        provider_id: &str,
        name: &str,
        input: &str,
    ) {
        let Some(tool) = self.open_call(cx, id, provider_id, name, input) else { return };
        let at = cx.engine.now.mono + cx.engine.config.limits.tool_announce_after;
        cx.engine.timers.arm(Timer::Announce(id, tool), at);
        let Some(call) = self.open(id, tool) else { return };
        let changes = vec![Change::PutToolCall(call.record.clone())];
        let after = After { session: Some(id), ..After::default() };
        self.store(cx, changes, Sync::Process, after);
    }

    /// Adds an open call; `None` if there is no turn, or there are too many.
    fn open_call(
        &mut self,
        cx: &mut Ctx<'_>,
        id: SessionId,
        provider_id: &str,
        name: &str,
        input: &str,
    ) -> Option<ToolCallId> {
        let limits = &cx.engine.config.limits;
        let session = self.sessions.get_mut(&id)?;
        let message = session.turn.as_ref()?.message.id;
        if session.calls.len() >= limits.tool_calls_open_max {
            let proc = session.agent;
            let why = "claude has begun too many tool calls at once";
            self.fail_turn(cx, id, "agent_failed", why, "send the message again");
            if let Some(proc) = proc {
                self.kill_agent(cx, proc);
            }
            return None;
        }
        let is_too_large = input.len() > limits.tool_input_max;
        let input = if is_too_large { "{\"unreadable\":\"too large\"}" } else { input };
        let tool = ToolCallId(cx.engine.entropy.uuid());
        let record = ToolCallRecord {
            id: tool,
            session: id,
            message,
            provider_id: provider_id.to_string(),
            name: name.to_string(),
            input: input.to_string(),
            status: Progress::Running,
            risk: String::from(if READ_ONLY.contains(&name) { "low" } else { "high" }),
            created_at: cx.engine.now.unix,
            completed_at: None,
            requires_approval: false,
            expires_at: None,
            decision: None,
            output: None,
        };
        let call = OpenCall {
            record,
            request: None,
            is_announced: false,
            waiting: None,
            message: String::new(),
        };
        session.calls.insert(tool, call);
        Some(tool)
    }

    fn open(&self, id: SessionId, tool: ToolCallId) -> Option<&OpenCall> {
        self.sessions.get(&id)?.calls.get(&tool)
    }

    fn open_mut(&mut self, id: SessionId, tool: ToolCallId) -> Option<&mut OpenCall> {
        self.sessions.get_mut(&id)?.calls.get_mut(&tool)
    }

    /// No ask came: the agent runs it without asking, as its owner's own settings allow.
    pub(crate) fn on_announce_due(&mut self, cx: &mut Ctx<'_>, id: SessionId, tool: ToolCallId) {
        let Some(call) = self.open_mut(id, tool).filter(|call| !call.is_announced) else { return };
        call.is_announced = true;
        let notice = cx.engine.number(&created(&call.record));
        let after = After { session: Some(id), notices: vec![notice], ..After::default() };
        self.store(cx, Vec::new(), Sync::Process, after);
    }

    /// May it? Nobody but a person, or what a person allowed for this session, says yes.
    pub(super) fn on_asked(
        &mut self,
        cx: &mut Ctx<'_>,
        id: SessionId,
        request: &str,
        provider_id: &str,
        name: &str,
        input: &str,
    ) {
        let known = self.sessions.get(&id).and_then(|session| {
            let is_it = |call: &&OpenCall| {
                call.record.provider_id == provider_id
                    && call.request.is_none()
                    && call.record.decision.is_none()
            };
            session.calls.values().find(is_it).map(|call| call.record.id)
        });
        let tool = known.or_else(|| self.open_call(cx, id, provider_id, name, input));
        let input_max = cx.engine.config.limits.tool_input_max;
        let Some(tool) = tool.filter(|_| input.len() <= input_max) else {
            return self.deny_unseen(cx, id, request);
        };
        let timeout = cx.engine.config.limits.approval_timeout;
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(call) = session.calls.get_mut(&tool) else { return };
        // What will run is what is asked for, whatever was mentioned before (security H3).
        call.record.name = name.to_string();
        call.record.input = input.to_string();
        call.record.risk = String::from(if READ_ONLY.contains(&name) { "low" } else { "high" });
        call.record.requires_approval = true;
        call.request = Some(request.to_string());
        let granted = session.grants.get(&fingerprint(&call.record)).cloned();
        if let Some(by) = granted {
            let kind = DecisionKind::AllowSession;
            return self.decide(cx, id, tool, kind, &by, String::new(), None);
        }
        let Some(call) = session.calls.get_mut(&tool) else { return };
        call.record.status = Progress::Pending;
        call.record.expires_at = Some(cx.engine.now.unix + timeout);
        cx.engine.timers.disarm(Timer::Announce(id, tool));
        cx.engine.timers.arm(Timer::Approval(id, tool), cx.engine.now.mono + timeout);
        let first = if call.is_announced { updated(&call.record) } else { created(&call.record) };
        let mut notices = vec![cx.engine.number(&first)];
        call.is_announced = true;
        let view = ToolCallView::from(&call.record);
        notices
            .push(cx.engine.number(&Event::ApprovalRequested { session_id: id, tool_call: view }));
        let changes = vec![Change::PutToolCall(call.record.clone())];
        let previous = session.record.status;
        let waiting = session.waiting_for();
        notices.push(status_changed(cx, &session.record, previous, waiting, None));
        let after = After { session: Some(id), notices, ..After::default() };
        self.store(cx, changes, Sync::Process, after);
    }

    fn deny_unseen(&mut self, cx: &mut Ctx<'_>, id: SessionId, request: &str) {
        let why = "this cannot be shown to a person, so nobody can allow it";
        if let Some(proc) = self.sessions.get(&id).and_then(|session| session.agent) {
            self.feed(cx, proc, claude::deny(request, why, false));
        }
    }

    pub(super) fn on_ask_withdrawn(&mut self, cx: &mut Ctx<'_>, id: SessionId, request: &str) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let is_it = |call: &&mut OpenCall| call.request.as_deref() == Some(request);
        let Some(call) = session.calls.values_mut().find(is_it) else { return };
        call.request = None;
        let tool = call.record.id;
        if call.record.decision.is_none() {
            let kind = DecisionKind::Cancelled;
            self.decide(cx, id, tool, kind, "daemon", String::new(), None);
        }
    }

    pub(super) fn on_tool_ended(
        &mut self,
        cx: &mut Ctx<'_>,
        id: SessionId,
        provider_id: &str,
        output: &str,
        is_error: bool,
    ) {
        let output_max = cx.engine.config.limits.tool_output_max;
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let is_it = |call: &&OpenCall| call.record.provider_id == provider_id;
        let Some(tool) = session.calls.values().find(is_it).map(|call| call.record.id) else {
            return;
        };
        let Some(mut call) = session.calls.remove(&tool) else { return };
        forget_timers(cx, id, tool);
        call.record.status = if is_error { Progress::Error } else { Progress::Done };
        call.record.completed_at = Some(cx.engine.now.unix);
        let fits = cut(output, output_max);
        call.record.output = Some(match output.len().saturating_sub(fits.len()) {
            0 => fits.to_string(),
            more => format!("{fits}\n[{more} more bytes]"),
        });
        let mut notices = Vec::new();
        if !call.is_announced {
            notices.push(cx.engine.number(&created(&call.record)));
        }
        notices.push(cx.engine.number(&updated(&call.record)));
        let reply = call.waiting.take();
        let changes = vec![Change::PutToolCall(call.record)];
        let after = After { session: Some(id), notices, ..After::default() };
        self.store(cx, changes, Sync::Process, after);
        if let Some(reply) = reply {
            cx.refuse(reply, &no_longer());
        }
    }

    // --- the person's side --------------------------------------------------------------------------------------

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
                self.decide(cx, id, tool, kind, &caller.name(), message, Some(call));
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
        let message = String::from("Nobody allowed this in time.");
        self.decide(cx, id, tool, DecisionKind::Expired, "daemon", message, None);
    }

    /// The one place where a decision is made. It is on disk before the agent hears of it.
    #[expect(clippy::too_many_arguments, reason = "what, on which, by whom, and who waits for it")]
    fn decide(
        &mut self,
        cx: &mut Ctx<'_>,
        id: SessionId,
        tool: ToolCallId,
        kind: DecisionKind,
        by: &str,
        message: String,
        waiting: Option<Call>,
    ) {
        let at = cx.engine.now.unix;
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(call) = session.calls.get_mut(&tool) else { return };
        if call.record.decision.is_some() {
            return;
        }
        forget_timers(cx, id, tool);
        call.record.decision = Some(Decision { by: by.to_string(), at, kind });
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
            by,
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
    pub(super) fn deliver(&mut self, cx: &mut Ctx<'_>, id: SessionId, tool: ToolCallId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let proc = session.agent;
        let Some(call) = session.calls.get_mut(&tool) else { return };
        let waiting = call.waiting.take();
        let Some(decision) = &call.record.decision else { return };
        let (Some(proc), Some(request)) = (proc, call.request.take()) else {
            if let Some(waiting) = waiting {
                cx.refuse(waiting, &no_longer());
            }
            return;
        };
        let is_allow = is_allow(decision.kind);
        if decision.kind == DecisionKind::AllowSession {
            session.grants.insert(fingerprint(&call.record), decision.by.clone());
        }
        let line = if is_allow {
            claude::allow(&request, &call.record.input)
        } else {
            claude::deny(&request, &call.message, false)
        };
        self.feed(cx, proc, line);
        if let Some(waiting) = waiting {
            let result = if is_allow { APPROVED } else { REJECTED };
            self.answer_when_taken(cx, proc, waiting, result);
        }
    }

    /// The decision could not be stored: nothing was decided, unless it was to be denied anyway.
    pub(super) fn undo_decision(
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
            cx.engine.timers.arm(Timer::Approval(id, tool), cx.engine.now.mono + timeout);
        }
        if let Some(waiting) = waiting {
            cx.refuse(waiting, error);
        }
        if !was_allow {
            self.deliver(cx, id, tool);
        }
    }

    pub(crate) fn on_approvals(&self, cx: &mut Ctx<'_>, call: Call) {
        let calls = self.sessions.values().flat_map(|session| session.calls.values());
        let approvals = calls
            .filter(|open| open.is_waiting())
            .map(|open| ApprovalView {
                approval_id: open.record.id,
                session_id: open.record.session,
                tool_call_id: open.record.id,
                tool: &open.record.name,
                input: crate::wire::view::Object(&open.record.input),
                risk: &open.record.risk,
                requested_at: open.record.created_at,
                expires_at: open.record.expires_at,
            })
            .collect();
        cx.answer(call, &ApprovalsView { approvals });
    }
}

/// Ends every open call of a session whose turn ends.
pub(super) fn end_calls(
    cx: &mut Ctx<'_>,
    session: &mut Session,
    changes: &mut Vec<Change>,
    notices: &mut Vec<Notice>,
) {
    for (tool, mut call) in core::mem::take(&mut session.calls) {
        let id = session.record.id;
        forget_timers(cx, id, tool);
        if let Some(waiting) = call.waiting.take() {
            cx.refuse(waiting, &no_longer());
        }
        end_record(&mut call.record, cx.engine.now.unix);
        if !call.is_announced {
            notices.push(cx.engine.number(&created(&call.record)));
        }
        notices.push(cx.engine.number(&updated(&call.record)));
        changes.push(Change::PutToolCall(call.record));
    }
}

/// Ends a record whose agent is gone: what nobody had decided has expired.
pub(super) fn end_record(record: &mut ToolCallRecord, at: Unix) {
    if record.requires_approval && record.decision.is_none() {
        let kind = DecisionKind::Expired;
        record.decision = Some(Decision { by: String::from("daemon"), at, kind });
    }
    record.status = Progress::Error;
    record.expires_at = None;
    record.completed_at = Some(at);
}

/// A decision on a call that has its result already.
pub(super) fn on_late(cx: &mut Ctx<'_>, late: Late, answer: Answer) {
    match answer {
        Answer::ToolCall(Some(record)) => match &record.decision {
            Some(decision) => answer_decided(cx, late.call, decision, late.is_allow),
            None => cx.refuse(late.call, &not_asked()),
        },
        Answer::ToolCall(None) => {
            let error = RpcError::bad_params("toolCallId", "is not a tool call of this session");
            cx.refuse(late.call, &error);
        }
        Answer::Failed(fault) => {
            cx.refuse(late.call, &RpcError::storage(fault == StoreFault::Full));
        }
        Answer::Directory(_)
        | Answer::Messages(_)
        | Answer::Message(_)
        | Answer::ToolCalls(_)
        | Answer::Probe(_) => cx.refuse(late.call, &RpcError::storage(false)),
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
    let error = RpcError::new(-32602, "already_decided", why).detail("by", &decision.by);
    cx.refuse(call, &error);
}

const fn is_allow(kind: DecisionKind) -> bool {
    match kind {
        DecisionKind::AllowOnce | DecisionKind::AllowSession => true,
        DecisionKind::Deny | DecisionKind::Expired | DecisionKind::Cancelled => false,
    }
}

fn forget_timers(cx: &mut Ctx<'_>, id: SessionId, tool: ToolCallId) {
    cx.engine.timers.disarm(Timer::Announce(id, tool));
    cx.engine.timers.disarm(Timer::Approval(id, tool));
}

/// What a grant for the session is bound to: this tool with exactly this input.
fn fingerprint(record: &ToolCallRecord) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(record.name.as_bytes());
    hash.update([0]);
    hash.update(record.input.as_bytes());
    hash.finalize().into()
}

fn created(record: &ToolCallRecord) -> Event<'_> {
    Event::ToolCallCreated { session_id: record.session, tool_call: record.into() }
}

fn updated(record: &ToolCallRecord) -> Event<'_> {
    Event::ToolCallUpdated {
        session_id: record.session,
        tool_call_id: record.id,
        status: record.status,
        decision: record.decision.as_ref().map(Into::into),
        output: record.output.as_deref(),
    }
}

fn no_longer() -> RpcError {
    RpcError::new(-32602, "already_decided", "the agent no longer waits for this")
}

fn not_asked() -> RpcError {
    RpcError::new(-32602, "not_pending", "nobody was asked about this tool call")
}
