//! The decision on a tool call: made once, stored, then told to the agent.
//!
//! Owns the one place where a decision is made, and its way to the agent; refuses to know how calls come about. Invariant:
//! the agent hears "allow" after that decision is on disk, and whoever made it hears of it after the agent has taken it
//! (security H1, H6).

use alloc::format;
use alloc::string::String;
use alloc::vec;

use super::super::{After, Then, Work, status_changed};
use super::ask::requested;
use super::bind::fingerprint;
use super::respond::Asker;
use super::{forget_timers, resolved, updated};
use crate::access::ctx::Ctx;
use crate::agent::{Say, claude};
use crate::contract::effect::{Change, Sync};
use crate::contract::id::{DeviceId, SessionId, ToolCallId};
use crate::contract::record::{Decision, DecisionKind, Progress};
use crate::engine::Timer;
use crate::wire::rpc::RpcError;

/// What was decided, by whom, and what goes with it.
#[derive(Debug)]
pub(in crate::work) struct Verdict {
    pub(super) kind: DecisionKind,
    pub(super) by: String,
    /// What the agent is told if it is no.
    pub(super) message: String,
    /// The answers to a question, if it is yes.
    pub(super) answers: Option<String>,
}

impl Verdict {
    pub(super) fn by(by: &str, kind: DecisionKind, message: &str) -> Self {
        Self { kind, by: String::from(by), message: String::from(message), answers: None }
    }

    /// The daemon's own.
    pub(super) fn ours(kind: DecisionKind, message: &str) -> Self {
        Self::by("daemon", kind, message)
    }
}

impl Work {
    pub(crate) fn on_approval_late(&mut self, cx: &mut Ctx<'_>, id: SessionId, tool: ToolCallId) {
        if self.open(id, tool).is_some_and(|call| call.record.decision.is_some()) {
            return self.lapse(cx, id, tool, "nobody asked again in time");
        }
        let message = "Nobody allowed this in time.";
        self.decide(cx, (id, tool), Verdict::ours(DecisionKind::Expired, message), None);
    }

    /// The one place where a decision is made. It is on disk before the agent hears of it.
    pub(super) fn decide(
        &mut self,
        cx: &mut Ctx<'_>,
        (id, tool): (SessionId, ToolCallId),
        verdict: Verdict,
        asker: Option<Asker>,
    ) {
        let Verdict { kind, by, message, answers } = verdict;
        let at = cx.engine.now.unix;
        if self.open(id, tool).is_none_or(|call| call.record.decision.is_some()) {
            return;
        }
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let spent = session.spend(tool, at);
        let Some(call) = session.calls.get_mut(&tool) else { return };
        let was_pending = call.record.status == Progress::Pending;
        let is_granted = call.record.is_carried && is_allow(kind);
        if !is_granted {
            // A grant that is to be taken up ends when the request would have ended.
            forget_timers(cx, id, tool);
            call.record.expires_at = None;
        }
        call.record.decision = Some(Decision { by, at, kind });
        call.record.status = if is_allow(kind) { Progress::Running } else { Progress::Error };
        call.record.answers = answers;
        call.asker = asker;
        call.message = message;
        let is_first = !call.record.is_announced;
        let mut notices = vec![call.news(cx)];
        let mut record = call.record.clone();
        if was_pending {
            notices.extend(resolved(&record).map(|event| cx.engine.number(&event)));
            let waiting_for = session.waiting_for();
            let previous = session.record.status;
            notices.push(status_changed(cx, &session.record, previous, waiting_for, None));
        }
        if record.is_carried && !is_granted {
            // Nobody is left to be told.
            record.is_carried = false;
            record.completed_at = Some(at);
        }
        let mut changes = vec![Change::PutToolCall(record)];
        if let Some(spent) = spent {
            notices.push(cx.engine.number(&updated(&spent)));
            changes.push(Change::PutToolCall(spent));
        }
        let then = Then::Deliver { session: id, tool, is_first };
        let after = After { session: Some(id), reply: None, notices, then };
        self.store(cx, changes, Sync::Disk, after);
    }

    /// The decision is on disk: now the agent hears of it, and whoever made it hears that it did.
    pub(in crate::work) fn deliver(&mut self, cx: &mut Ctx<'_>, id: SessionId, tool: ToolCallId) {
        self.forget_spent(cx, id, tool);
        let objection = self.objection(cx, id, tool);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let proc = session.process();
        let Some(call) = session.calls.get_mut(&tool) else { return };
        if call.record.is_carried {
            return self.carry_out(cx, id, tool);
        }
        let asker = call.asker.take();
        let Some(decision) = &call.record.decision else { return };
        let (Some(proc), Some(request)) = (proc, call.request.take()) else {
            if let Some(asker) = asker {
                asker.refuse(cx, &no_longer());
            }
            return;
        };
        let is_allow = is_allow(decision.kind) && !call.is_void && objection.is_none();
        if is_allow && decision.kind == DecisionKind::AllowSession {
            let granted = fingerprint(&call.record, &session.record.repo_path);
            session.grants.insert(granted, decision.by.clone());
        }
        let say = if is_allow {
            let input = match &call.record.answers {
                Some(answers) => claude::with_answers(&call.record.input, answers),
                None => call.record.input.clone(),
            };
            Say::Allow { request, input }
        } else if call.is_void {
            let message = String::from("The device that allowed this is no longer trusted.");
            Say::Deny { request, message }
        } else {
            let message = objection.map_or_else(|| call.message.clone(), |it| it.message);
            Say::Deny { request, message }
        };
        self.say(cx, proc, say);
        if let Some(asker) = asker {
            let (call, result) = asker.into_answer(is_allow);
            self.answer_when_taken(cx, proc, call, result);
        }
    }

    /// The decision could not be stored: nothing was decided, unless it was to be denied anyway.
    pub(in crate::work) fn undo_decision(
        &mut self,
        cx: &mut Ctx<'_>,
        id: SessionId,
        tool: ToolCallId,
        is_first: bool,
        error: &RpcError,
    ) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.unspend(tool);
        let Some(call) = session.calls.get_mut(&tool) else { return };
        // Nor was the call announced, if that was to be told with it.
        call.record.is_announced &= !is_first;
        let asker = call.asker.take();
        let was_allow = call.record.decision.as_ref().is_some_and(|it| is_allow(it.kind));
        let is_open_again = was_allow || call.record.is_carried;
        if is_open_again {
            call.record.decision = None;
            call.record.answers = None;
            call.record.requires_approval = true;
            call.record.status = Progress::Pending;
            let timeout = cx.engine.config.limits.approval_timeout;
            call.record.expires_at = Some(cx.engine.now.unix + timeout);
            cx.engine.timers.arm(Timer::Approval(id, tool), cx.engine.now.mono + timeout);
            cx.tell_in_passing(&requested(&session.record.title, call));
        }
        if let Some(asker) = asker {
            asker.refuse(cx, error);
        }
        if !is_open_again {
            self.deliver(cx, id, tool);
        }
    }

    /// This device was revoked, or may do less than before: what it allowed for whole sessions is void, and what it has
    /// just allowed is not told to the agent any more (security E4, H6). The decision itself stands as it was made.
    pub(crate) fn on_distrusted(&mut self, cx: &mut Ctx<'_>, device: DeviceId) {
        let by = device.as_str();
        let mut lapsed = vec![];
        for session in self.sessions.values_mut() {
            session.grants.retain(|_, granter| granter != by);
            for call in session.calls.values_mut() {
                let decision = call.record.decision.as_ref();
                call.is_void |= decision.is_some_and(|decision| decision.by == by);
                if call.is_void && call.record.is_carried {
                    lapsed.push((call.record.session, call.record.id));
                }
            }
        }
        for (id, tool) in lapsed {
            self.lapse(cx, id, tool, "the device that allowed this is no longer trusted");
        }
    }
}

pub(in crate::work) const fn is_allow(kind: DecisionKind) -> bool {
    match kind {
        DecisionKind::AllowOnce | DecisionKind::AllowSession => true,
        DecisionKind::Deny | DecisionKind::Expired | DecisionKind::Cancelled => false,
    }
}

pub(super) fn no_longer() -> RpcError {
    RpcError::new(-32602, "already_decided", "the agent no longer waits for this")
        .hint("`session.toolCalls` shows what became of it")
}

/// Who decided, and when.
pub(super) fn decided(decision: &Decision) -> RpcError {
    let why = format!("this was decided at {} by {}", decision.at, decision.by);
    RpcError::new(-32602, "already_decided", why)
        .detail("by", &decision.by)
        .detail("at", decision.at)
        .detail("decision", decision.kind.as_str())
        .hint("the first decision holds; `session.toolCalls` shows it")
}
