//! Approvals that outlive the agent that asked: the daemon ended while they waited, and the agent can be resumed.
//!
//! Owns what is carried from one life of the daemon into the next, and how a grant is taken up there; refuses to know how
//! an agent is started. Invariants (security H1): a grant is good for one ask of the same tool with the same input; that
//! it is used up is on disk, in one operation with the decision on that ask, before the agent hears of it; so however
//! often the daemon ends, nothing is done twice.
//!
//! ```text
//! pending ──daemon ends──▶ carried ──grant──▶ granted ──prompt, same ask──▶ spent
//!                             └─deny, timeout, cancel─▶ error    └─other turn's end, timeout, cancel─▶ lapsed
//! ```

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::super::provider::Waiter;
use super::super::send::Opening;
use super::super::session::Session;
use super::super::{After, Work};
use super::bind::fingerprint;
use super::decide::{Verdict, is_allow};
use super::respond::{Asker, answer_again};
use super::{End, Fate, OpenCall, end_call};
use crate::access::ctx::Ctx;
use crate::contract::effect::{Change, Sync};
use crate::contract::id::{ProcId, SessionId, ToolCallId};
use crate::contract::record::{Author, DecisionKind, Progress, SessionStatus, ToolCallRecord};
use crate::contract::time::Unix;
use crate::engine::Timer;
use crate::text::visible_line;
use crate::wire::rpc::RpcError;

const NOT_TAKEN_UP: &str = "the agent did not ask for it again";
const NOT_RESUMABLE: &str = "the agent that asked ended and cannot be resumed";

/// A session whose agent is to be resumed, since a decision was made or is about to be.
#[derive(Debug)]
pub(in crate::work) struct Revival {
    session: SessionId,
    /// What is decided if the agent can be resumed at all.
    decision: Option<(ToolCallId, Verdict, Asker)>,
}

impl Revival {
    pub(super) const fn with(
        session: SessionId,
        tool: ToolCallId,
        verdict: Verdict,
        asker: Asker,
    ) -> Self {
        Self { session, decision: Some((tool, verdict, asker)) }
    }
}

impl OpenCall {
    /// A call that the last life of the daemon left open.
    pub(in crate::work) fn left_open(record: ToolCallRecord, is_void: bool) -> Self {
        Self { is_void, ..Self::new(record) }
    }

    /// Allowed, and waiting for the agent to ask again.
    fn is_granted(&self) -> bool {
        let decision = self.record.decision.as_ref();
        self.record.is_carried
            && self.spent_by.is_none()
            && decision.is_some_and(|decision| is_allow(decision.kind))
    }
}

impl Session {
    /// Something waits, for a decision or for the agent, that the last life of the daemon left.
    pub(in crate::work) fn is_carrying(&self) -> bool {
        self.calls.values().any(|call| call.record.is_carried)
    }

    pub(super) fn fingerprint_of(&self, tool: ToolCallId) -> Option<[u8; 32]> {
        self.calls.get(&tool).map(|call| fingerprint(&call.record, &self.record.repo_path))
    }

    /// The grant that this live call would use up.
    fn grant_for(&self, tool: ToolCallId) -> Option<ToolCallId> {
        let live = self.calls.get(&tool).filter(|call| !call.record.is_carried)?;
        let wanted = fingerprint(&live.record, &self.record.repo_path);
        let is_it = |call: &&OpenCall| {
            call.is_granted() && fingerprint(&call.record, &self.record.repo_path) == wanted
        };
        self.calls.values().find(is_it).map(|call| call.record.id)
    }

    /// What was decided on this call before the daemon ended.
    pub(super) fn carried_verdict(&self, tool: ToolCallId) -> Option<Verdict> {
        let granted = self.calls.get(&self.grant_for(tool)?)?;
        let decision = granted.record.decision.as_ref()?;
        let answers = granted.record.answers.clone();
        Some(Verdict { answers, ..Verdict::by(&decision.by, decision.kind, "") })
    }

    /// Whatever is decided on this call, it uses up the grant for it: the record that says so.
    pub(super) fn spend(&mut self, tool: ToolCallId, at: Unix) -> Option<ToolCallRecord> {
        let granted = self.calls.get_mut(&self.grant_for(tool)?)?;
        granted.spent_by = Some(tool);
        Some(ToolCallRecord {
            status: Progress::Error,
            output: Some(format!("asked for again, as tool call {tool}")),
            expires_at: None,
            completed_at: Some(at),
            is_carried: false,
            ..granted.record.clone()
        })
    }

    /// That could not be stored: the grant is as it was.
    pub(super) fn unspend(&mut self, tool: ToolCallId) {
        for call in self.calls.values_mut() {
            if call.spent_by == Some(tool) {
                call.spent_by = None;
            }
        }
    }

    fn has_news(&self) -> bool {
        self.calls.values().any(|call| call.is_granted() && !call.is_prompted)
    }
}

/// Whether a call waits on after this; if not, it has ended.
pub(super) fn goes_on(call: &OpenCall, fate: Fate, is_resumable: bool) -> bool {
    let is_known = call.record.approval.is_some() && !call.is_void;
    is_resumable
        && is_known
        && match fate {
            Fate::SessionGone => false,
            Fate::DaemonStops => call.is_waiting() || call.is_granted(),
            Fate::TurnEnded => {
                let is_next = call.is_granted() && !call.is_prompted;
                call.record.is_carried && (call.is_waiting() || is_next)
            }
        }
}

/// How a call ends that does not go on.
pub(super) fn end_of(call: &OpenCall) -> End {
    match (call.record.is_carried, &call.record.decision) {
        (true, None) => End::because(NOT_RESUMABLE),
        (true, Some(_)) => End::because(NOT_TAKEN_UP),
        (false, _) => End::gone(),
    }
}

impl Work {
    // --- from one life to the next ------------------------------------------------------------------------------

    /// Goes through what the last life left open: what can still be decided waits on, the rest has ended.
    pub(in crate::work) fn take_up(&mut self, cx: &mut Ctx<'_>) {
        let (mut changes, mut notices, mut granted) = (Vec::new(), Vec::new(), Vec::new());
        // A clock set back gives nobody more time.
        let now = cx.engine.unix_high().max(cx.engine.now.unix);
        for session in self.sessions.values_mut().filter(|session| !session.calls.is_empty()) {
            let id = session.record.id;
            for (tool, mut call) in core::mem::take(&mut session.calls) {
                let was_carried = call.record.is_carried;
                call.record.is_carried |= call.record.status == Progress::Pending;
                let left = call.record.expires_at.map(|at| at.since(now)).unwrap_or_default();
                let is_resumable = session.record.agent_resumable;
                if left.is_zero() || !goes_on(&call, Fate::DaemonStops, is_resumable) {
                    let end = end_of(&call);
                    end_call(cx, call, end, &mut changes, &mut notices);
                    continue;
                }
                if !was_carried {
                    changes.push(Change::PutToolCall(call.record.clone()));
                }
                cx.engine.timers.arm(Timer::Approval(id, tool), cx.engine.now.mono + left);
                session.calls.insert(tool, call);
            }
            if session.has_news() {
                granted.push(id);
            }
        }
        if !changes.is_empty() {
            self.store(cx, changes, Sync::Process, After { notices, ..After::default() });
        }
        for id in granted {
            self.revive(cx, id);
        }
    }

    // --- taking up a grant --------------------------------------------------------------------------------------

    /// Resumes the agent if there is a grant that it has not been told of.
    pub(in crate::work) fn revive(&mut self, cx: &mut Ctx<'_>, id: SessionId) {
        if !self.is_ending && self.sessions.get(&id).is_some_and(Session::has_news) {
            self.with_revival(cx, Revival { session: id, decision: None });
        }
    }

    /// Goes on once it is known whether the agent can be resumed.
    pub(super) fn with_revival(&mut self, cx: &mut Ctx<'_>, revival: Revival) {
        let session = self.sessions.get(&revival.session);
        match session.and_then(|session| session.provider) {
            Some(provider) => self.with_provider(cx, provider, Waiter::Revive(revival.into())),
            None => {
                let why = "this daemon does not know the agent of this session";
                let error = RpcError::new(-32002, "provider_not_available", why);
                self.revive_ready(cx, revival, Err(error));
            }
        }
    }

    /// The provider has answered. Nothing is decided that could not be carried out.
    pub(in crate::work) fn revive_ready(
        &mut self,
        cx: &mut Ctx<'_>,
        revival: Revival,
        ready: Result<(), RpcError>,
    ) {
        let id = revival.session;
        let ready = ready.and_then(|()| self.check_revival(cx, id));
        match (ready, revival.decision) {
            (Ok(()), None) => self.begin_revival(cx, id),
            (Err(error), None) => self.lapse_all(cx, id, &error),
            (Err(error), Some((_, _, asker))) => asker.refuse(cx, &error),
            (Ok(()), Some((tool, verdict, asker))) => {
                let Some(asker) = asker.still_welcome(cx) else { return };
                match self.open(id, tool) {
                    Some(open) if open.is_waiting() => {
                        self.decide(cx, (id, tool), verdict, Some(asker));
                    }
                    Some(open) => {
                        answer_again(cx, asker, open.record.decision.as_ref(), true);
                    }
                    None => asker.refuse(cx, &super::decide::no_longer()),
                }
            }
        }
    }

    fn check_revival(&mut self, cx: &mut Ctx<'_>, id: SessionId) -> Result<(), RpcError> {
        if self.is_ending {
            return Err(RpcError::new(-32603, "shutting_down", "the daemon is shutting down"));
        }
        let session = self.session_mut(id)?;
        if session.record.status == SessionStatus::Paused {
            return Err(super::super::send::paused());
        }
        if session.turn.is_some() {
            return Ok(());
        }
        if let Some(provider) = session.provider {
            self.providers.rested(cx, provider)?;
        }
        self.make_room(cx, id)
    }

    /// A decision on what was carried is on disk: a grant is taken up, everything else has ended with it.
    pub(super) fn carry_out(&mut self, cx: &mut Ctx<'_>, id: SessionId, tool: ToolCallId) {
        if self.open(id, tool).is_some_and(OpenCall::is_granted) {
            return match self.check_revival(cx, id) {
                Ok(()) => self.begin_revival(cx, id),
                Err(error) => self.lapse_all(cx, id, &error),
            };
        }
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(mut call) = session.calls.remove(&tool) else { return };
        if let Some(asker) = call.asker.take() {
            asker.answer(cx, false);
        }
    }

    /// Tells the agent to ask again, in a turn that the daemon begins. While another one runs, that comes first.
    fn begin_revival(&mut self, cx: &mut Ctx<'_>, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if !session.has_news() || session.turn.is_some() || session.is_starting {
            return;
        }
        let mut content = String::from(
            "The daemon that runs you was restarted while you waited for leave. It has now been given for:\n",
        );
        for call in session.calls.values_mut().filter(|call| call.is_granted()) {
            call.is_prompted = true;
            let name = visible_line(&call.record.name);
            content.push_str(&format!("- {name} (call {})\n", call.record.provider_id));
        }
        content.push_str("Make each of these calls again, with exactly the same input, and go on.");
        let opening = Opening { author: Author::System, content, client_id: None, call: None };
        self.open_turn(cx, id, opening);
    }

    /// The agent has been given that prompt: whoever allowed hears of it once it was taken.
    pub(in crate::work) fn on_prompt_fed(&mut self, cx: &mut Ctx<'_>, id: SessionId, proc: ProcId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let prompted = session.calls.values_mut().filter(|call| call.is_prompted);
        let askers: Vec<_> = prompted.filter_map(|call| call.asker.take()).collect();
        for asker in askers {
            let (call, result) = asker.into_answer(true);
            self.answer_when_taken(cx, proc, call, result);
        }
    }

    /// The ask that used up a grant was decided: the grant is no more.
    pub(super) fn forget_spent(&mut self, cx: &mut Ctx<'_>, id: SessionId, by: ToolCallId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let is_it = |call: &OpenCall| call.spent_by == Some(by);
        let spent: Vec<_> = session.calls.extract_if(.., |_, call| is_it(call)).collect();
        for (tool, mut call) in spent {
            super::forget_timers(cx, id, tool);
            if let Some(asker) = call.asker.take() {
                asker.answer(cx, true);
            }
        }
    }

    // --- when it is not taken up --------------------------------------------------------------------------------

    /// A carried call ends; the decision, if there is one, stands as it was made.
    pub(super) fn lapse(&mut self, cx: &mut Ctx<'_>, id: SessionId, tool: ToolCallId, why: &str) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(call) = session.calls.remove(&tool) else { return };
        let (mut changes, mut notices) = (Vec::new(), Vec::new());
        end_call(cx, call, End::because(why), &mut changes, &mut notices);
        self.store(cx, changes, Sync::Disk, After { notices, ..After::default() });
    }

    fn lapse_all(&mut self, cx: &mut Ctx<'_>, id: SessionId, error: &RpcError) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let granted = session.calls.values_mut().filter(|call| call.is_granted());
        let granted: Vec<_> = granted.map(|call| (call.record.id, call.asker.take())).collect();
        for (tool, asker) in granted {
            if let Some(asker) = asker {
                asker.refuse(cx, error);
            }
            self.lapse(cx, id, tool, &error.message);
        }
    }

    /// Somebody cancels: nothing that was carried waits on.
    pub(in crate::work) fn cancel_carried(&mut self, cx: &mut Ctx<'_>, id: SessionId) {
        let Some(session) = self.sessions.get(&id) else { return };
        let carried = session.calls.values().filter(|call| call.record.is_carried);
        let carried: Vec<_> = carried.map(|call| (call.record.id, call.is_waiting())).collect();
        for (tool, is_waiting) in carried {
            if is_waiting {
                let verdict = Verdict::ours(DecisionKind::Cancelled, "");
                self.decide(cx, (id, tool), verdict, None);
            } else if self.open(id, tool).is_some_and(OpenCall::is_granted) {
                self.lapse(cx, id, tool, "cancelled");
            }
        }
    }
}
