//! The agent asks.
//!
//! Owns what becomes of an ask, and the one place where a request to people is recorded; refuses to know how people
//! decide. Whatever cannot be shown to a person is denied at once, and on record (security H4).

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::super::session::Session;
use super::super::{After, Work, status_changed};
use super::bind::{approval_id, fingerprint};
use super::decide::Verdict;
use super::{End, OpenCall, end_call, risk, shown};
use crate::access::ctx::Ctx;
use crate::agent::{Say, claude};
use crate::contract::effect::{Change, Sync};
use crate::contract::id::{SessionId, ToolCallId};
use crate::contract::record::{AskKind, DecisionKind, Progress};
use crate::engine::Timer;
use crate::wire::event::{Event, Notice};
use crate::wire::view::ApprovalView;

/// One ask, as the agent said it.
#[derive(Clone, Copy)]
pub(in crate::work) struct Ask<'a> {
    pub(in crate::work) request: &'a str,
    pub(in crate::work) provider_id: &'a str,
    pub(in crate::work) name: &'a str,
    pub(in crate::work) input: &'a str,
    pub(in crate::work) reason: Option<&'a str>,
}

impl Work {
    /// May it?
    pub(in crate::work) fn on_asked(&mut self, cx: &mut Ctx<'_>, id: SessionId, ask: Ask<'_>) {
        if self.is_asked(id, ask.request) {
            // Told twice; one answer is for both.
            return;
        }
        let is_repeated = self.is_repeated(id, ask);
        let known = self.sessions.get(&id).and_then(|session| {
            let is_it = |call: &&OpenCall| {
                call.record.provider_id == ask.provider_id
                    && call.request.is_none()
                    && call.record.decision.is_none()
                    && !call.record.is_carried
            };
            session.calls.values().find(is_it).map(|call| call.record.id)
        });
        let tool = known.or_else(|| self.open_call(cx, id, ask.provider_id, ask.name, ask.input));
        let Some(tool) = tool else { return self.deny_unseen(cx, id, ask.request) };
        self.take_down(cx, id, tool, ask);
        let verdict = if is_repeated {
            let why = "This call is asked for already, and is decided on once.";
            Some(Verdict::ours(DecisionKind::Deny, why))
        } else {
            self.judge(cx, id, tool, ask)
        };
        match verdict {
            Some(verdict) => self.decide(cx, (id, tool), verdict, None),
            None => self.request(cx, id, tool),
        }
    }

    /// This very request waits already.
    fn is_asked(&self, id: SessionId, request: &str) -> bool {
        let session = self.sessions.get(&id);
        let is_it = |call: &OpenCall| call.request.as_deref() == Some(request);
        session.is_some_and(|session| session.calls.values().any(is_it))
    }

    /// The same call waits already, under another request.
    fn is_repeated(&self, id: SessionId, ask: Ask<'_>) -> bool {
        let session = self.sessions.get(&id);
        let is_it = |call: &OpenCall| {
            call.request.is_some()
                && call.record.decision.is_none()
                && call.record.provider_id == ask.provider_id
                && call.record.name == ask.name
                && call.record.input == ask.input
        };
        session.is_some_and(|session| session.calls.values().any(is_it))
    }

    /// What will run is what is asked for, whatever was mentioned before (security H3).
    fn take_down(&mut self, cx: &Ctx<'_>, id: SessionId, tool: ToolCallId, ask: Ask<'_>) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(call) = session.calls.get_mut(&tool) else { return };
        call.request = Some(ask.request.to_string());
        let record = &mut call.record;
        record.name = ask.name.to_string();
        record.input = shown(ask.input, cx.engine.config.limits.tool_input_max);
        record.risk = String::from(risk(ask.name));
        record.kind = claude::ask_kind(ask.name);
        record.requires_approval = true;
        record.approval = Some(approval_id(record, &session.record.repo_path));
    }

    /// The one place where a request to people is recorded.
    fn request(&mut self, cx: &mut Ctx<'_>, id: SessionId, tool: ToolCallId) {
        let timeout = cx.engine.config.limits.approval_timeout;
        let (mut changes, mut notices) = (Vec::new(), Vec::new());
        self.supersede(cx, id, tool, &mut changes, &mut notices);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(call) = session.calls.get_mut(&tool) else { return };
        call.record.status = Progress::Pending;
        call.record.expires_at = Some(cx.engine.now.unix + timeout);
        cx.engine.timers.disarm(Timer::Announce(id, tool));
        cx.engine.timers.arm(Timer::Approval(id, tool), cx.engine.now.mono + timeout);
        notices.push(call.news(cx));
        let event = requested(&session.record.title, call);
        notices.push(cx.engine.number(&event));
        changes.push(Change::PutToolCall(call.record.clone()));
        let previous = session.record.status;
        let waiting = session.waiting_for();
        notices.push(status_changed(cx, &session.record, previous, waiting, None));
        let after = After { session: Some(id), notices, ..After::default() };
        self.store(cx, changes, Sync::Process, after);
    }

    /// What was carried over and waits is asked for again by itself: it waits in the new ask from now on.
    fn supersede(
        &mut self,
        cx: &mut Ctx<'_>,
        id: SessionId,
        tool: ToolCallId,
        changes: &mut Vec<Change>,
        notices: &mut Vec<Notice>,
    ) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(wanted) = session.fingerprint_of(tool) else { return };
        let cwd = &session.record.repo_path;
        let is_it = |call: &OpenCall| {
            call.record.is_carried
                && call.record.decision.is_none()
                && fingerprint(&call.record, cwd) == wanted
        };
        let before: Vec<_> = session.calls.extract_if(.., |_, call| is_it(call)).collect();
        for (_, call) in before {
            let why = "the agent has asked for it again";
            let end = End { undecided: DecisionKind::Cancelled, ..End::because(why) };
            end_call(cx, call, end, changes, notices);
        }
    }

    /// There is nothing to put on record: no turn, or no name that could be shown.
    fn deny_unseen(&mut self, cx: &mut Ctx<'_>, id: SessionId, request: &str) {
        let message = String::from("this cannot be shown to a person, so nobody can allow it");
        if let Some(proc) = self.sessions.get(&id).and_then(Session::process) {
            self.say(cx, proc, Say::Deny { request: request.to_string(), message });
        }
    }

    pub(in crate::work) fn on_ask_withdrawn(
        &mut self,
        cx: &mut Ctx<'_>,
        id: SessionId,
        request: &str,
    ) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let is_it = |call: &&mut OpenCall| call.request.as_deref() == Some(request);
        let Some(call) = session.calls.values_mut().find(is_it) else { return };
        call.request = None;
        let tool = call.record.id;
        if call.record.decision.is_none() {
            self.decide(cx, (id, tool), Verdict::ours(DecisionKind::Cancelled, ""), None);
        }
    }
}

/// Somebody has to decide on this call.
pub(super) fn requested<'a>(title: &'a str, call: &'a OpenCall) -> Event<'a> {
    Event::ApprovalRequested {
        approval: ApprovalView::new(title, &call.record),
        tool_call: (&call.record).into(),
    }
}

/// No rule and no grant answers for a person here.
pub(super) const fn is_for_people(kind: AskKind) -> bool {
    match kind {
        AskKind::Question | AskKind::Plan => true,
        AskKind::Tool => false,
    }
}
