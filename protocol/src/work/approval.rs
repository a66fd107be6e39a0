//! A tool waits for a person.
//!
//! Owns tool calls from their first mention to their result; the decision on them is [`decide`]'s. Refuses to know what
//! a tool does. Invariants (security H1, H3, H6): the agent is told "allow" only after that decision is on disk; it is
//! given back exactly the input that was shown; a decision is made once, and for a call of that session only.
//!
//! ```text
//! ToolUsed ─▶ running ──Asked──▶ pending ──allow──▶ running ──ToolEnded──▶ done | error
//!                                   └──deny, timeout, cancel, agent gone──▶ error
//! ```

mod decide;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use sha2::{Digest, Sha256};

use super::session::Session;
use super::turn::cut;
use super::{After, Work, status_changed};
use crate::access::ctx::Ctx;
use crate::access::peers::Call;
use crate::agent::Say;
use crate::contract::effect::{Change, Sync};
use crate::contract::id::{SessionId, ToolCallId};
use crate::contract::record::{Decision, DecisionKind, Progress, ToolCallRecord};
use crate::contract::time::Unix;
use crate::engine::Timer;
use crate::policy::READ_ONLY;
use crate::wire::event::{Event, Notice};
use crate::wire::view::ToolCallView;
pub(super) use decide::{Late, on_late};
use decide::{Verdict, no_longer};

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
    /// Whoever decided is no longer trusted.
    is_void: bool,
}

impl OpenCall {
    /// A person has to decide.
    pub(super) const fn is_waiting(&self) -> bool {
        self.request.is_some() && self.record.decision.is_none()
    }
}

impl Work {
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

    /// Adds an open call; `None` if there is no turn, there are too many, or its name is none.
    fn open_call(
        &mut self,
        cx: &mut Ctx<'_>,
        id: SessionId,
        provider_id: &str,
        name: &str,
        input: &str,
    ) -> Option<ToolCallId> {
        let limits = &cx.engine.config.limits;
        if name.len() > limits.tool_name_max || provider_id.len() > limits.tool_name_max {
            return None;
        }
        let session = self.sessions.get_mut(&id)?;
        let message = session.turn.as_ref()?.message.id;
        if session.calls.len() >= limits.tool_calls_open_max {
            let why = "the agent has begun too many tool calls at once";
            self.fail_turn(cx, id, "agent_failed", why, "send the message again");
            self.abandon(cx, id);
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
            is_void: false,
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
            let verdict = Verdict { kind, by, message: String::new() };
            return self.decide(cx, (id, tool), verdict, None);
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
        let message = String::from("this cannot be shown to a person, so nobody can allow it");
        if let Some(proc) = self.sessions.get(&id).and_then(Session::process) {
            self.say(cx, proc, Say::Deny { request: request.to_string(), message });
        }
    }

    pub(super) fn on_ask_withdrawn(&mut self, cx: &mut Ctx<'_>, id: SessionId, request: &str) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let is_it = |call: &&mut OpenCall| call.request.as_deref() == Some(request);
        let Some(call) = session.calls.values_mut().find(is_it) else { return };
        call.request = None;
        let tool = call.record.id;
        if call.record.decision.is_none() {
            self.decide(cx, (id, tool), Verdict::ours(DecisionKind::Cancelled, ""), None);
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
