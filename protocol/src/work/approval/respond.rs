//! The methods by which people decide: `approval.respond`, `tool.approve`, `tool.reject`, `approval.list`.
//!
//! Owns how a decision is asked for and answered; refuses to know what becomes of it. All of them act on one object: a
//! call may be named by its session and id, or by its approval's id, which is bound to exactly what was shown.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Serialize;
use serde_json::value::RawValue;

use super::super::session::session_param;
use super::super::{Asked, Work, raw};
use super::OpenCall;
use super::ask::is_for_people;
use super::carry::Revival;
use super::decide::{Verdict, decided, is_allow};
use crate::access::ctx::Ctx;
use crate::access::peers::{Call, Caller};
use crate::agent::claude;
use crate::contract::effect::Question;
use crate::contract::id::{ApprovalId, SessionId, ToolCallId};
use crate::contract::input::Answer;
use crate::contract::record::{AskKind, Decision, DecisionKind, ToolCallRecord};
use crate::wire::params::Params;
use crate::wire::rpc::RpcError;
use crate::wire::view::ApprovalView;

/// Who is answered, and in which form.
#[derive(Debug)]
pub(super) struct Asker {
    call: Call,
    /// It asked by this id.
    by_id: Option<ApprovalId>,
}

impl Asker {
    pub(super) fn refuse(self, cx: &mut Ctx<'_>, error: &RpcError) {
        cx.refuse(self.call, error);
    }

    pub(super) fn answer(self, cx: &mut Ctx<'_>, is_allow: bool) {
        let (call, result) = self.into_answer(is_allow);
        cx.answer(call, &result);
    }

    pub(super) fn into_answer(self, is_allow: bool) -> (Call, Box<RawValue>) {
        #[derive(Serialize)]
        #[serde(untagged)]
        enum Result {
            ById { approval_id: ApprovalId, decision: &'static str },
            Approved { approved: bool },
            Rejected { rejected: bool },
        }
        let result = match (self.by_id, is_allow) {
            (Some(approval_id), true) => Result::ById { approval_id, decision: GRANT },
            (Some(approval_id), false) => Result::ById { approval_id, decision: DENY },
            (None, true) => Result::Approved { approved: true },
            (None, false) => Result::Rejected { rejected: true },
        };
        (self.call, raw(&result))
    }

    /// Itself, if it may still have it done; else it is refused.
    pub(super) fn still_welcome(mut self, cx: &mut Ctx<'_>) -> Option<Self> {
        self.call = cx.still_welcome(self.call)?;
        Some(self)
    }
}

/// A decision on a call that is not open: what was decided is looked up.
#[derive(Debug)]
pub(in crate::work) struct Late {
    asker: Asker,
    is_allow: bool,
}

/// What somebody wants to be decided.
struct Wish {
    caller: Caller,
    kind: DecisionKind,
    reason: Option<String>,
    answers: Option<Vec<(String, String)>>,
}

/// On what.
#[derive(Clone, Copy)]
enum Subject {
    Call(SessionId, ToolCallId),
    Approval(ApprovalId),
}

#[derive(Serialize)]
struct ApprovalsView<'a> {
    approvals: Vec<ApprovalView<'a>>,
    /// So many more wait.
    more: usize,
}

const GRANT: &str = "grant";
const DENY: &str = "deny";

impl Work {
    pub(crate) fn on_respond(
        &mut self,
        cx: &mut Ctx<'_>,
        call: Call,
        caller: Caller,
        params: &Params<'_>,
    ) {
        let read = params.need_word("approval_id", "an approval's id").and_then(|id| {
            let decision = params.need_text("decision")?;
            let wish = match decision.as_str() {
                GRANT => grant(cx, caller, params)?,
                DENY => deny(cx, caller, params)?,
                _ => return Err(RpcError::bad_params("decision", "must be `grant` or `deny`")),
            };
            Ok((id, wish))
        });
        match read {
            Ok((id, wish)) => {
                let asker = Asker { call, by_id: Some(id) };
                self.on_wish(cx, asker, Subject::Approval(id), wish);
            }
            Err(error) => cx.refuse(call, &error),
        }
    }

    pub(crate) fn on_approve(
        &mut self,
        cx: &mut Ctx<'_>,
        call: Call,
        caller: Caller,
        params: &Params<'_>,
    ) {
        let wish = grant(cx, caller, params);
        self.on_wish_for_call(cx, call, params, wish);
    }

    pub(crate) fn on_reject(
        &mut self,
        cx: &mut Ctx<'_>,
        call: Call,
        caller: Caller,
        params: &Params<'_>,
    ) {
        let wish = deny(cx, caller, params);
        self.on_wish_for_call(cx, call, params, wish);
    }

    fn on_wish_for_call(
        &mut self,
        cx: &mut Ctx<'_>,
        call: Call,
        params: &Params<'_>,
        wish: Result<Wish, RpcError>,
    ) {
        let read = wish.and_then(|wish| {
            let id = session_param(params)?;
            self.session_mut(id)?;
            let tool = params.need_word("toolCallId", "a tool call's id")?;
            Ok((Subject::Call(id, tool), wish))
        });
        match read {
            Ok((subject, wish)) => {
                self.on_wish(cx, Asker { call, by_id: None }, subject, wish);
            }
            Err(error) => cx.refuse(call, &error),
        }
    }

    fn on_wish(&mut self, cx: &mut Ctx<'_>, asker: Asker, subject: Subject, wish: Wish) {
        let is_allow = is_allow(wish.kind);
        let Some(open) = self.find(subject) else {
            let ask = cx.ask(match subject {
                Subject::Call(session, id) => Question::ToolCall { session, id },
                Subject::Approval(id) => Question::Approval { id },
            });
            self.asked.await_(ask, Asked::ToolCall(Late { asker, is_allow }));
            return;
        };
        if !open.is_waiting() {
            return answer_again(cx, asker, open.record.decision.as_ref(), is_allow);
        }
        let (id, tool) = (open.record.session, open.record.id);
        let is_carried = open.record.is_carried;
        if is_allow && let Some(objection) = self.objection(cx, id, tool) {
            asker.refuse(cx, &blocked(&objection));
            return self.decide(cx, (id, tool), objection, None);
        }
        match verdict(&open.record, wish) {
            Ok(verdict) if is_carried && is_allow => {
                let revival = Revival::with(id, tool, verdict, asker);
                self.with_revival(cx, revival);
            }
            Ok(verdict) => self.decide(cx, (id, tool), verdict, Some(asker)),
            Err(error) => asker.refuse(cx, &error),
        }
    }

    fn find(&self, subject: Subject) -> Option<&OpenCall> {
        match subject {
            Subject::Call(id, tool) => self.open(id, tool),
            Subject::Approval(id) => {
                let mut calls = self.sessions.values().flat_map(|session| session.calls.values());
                calls.find(|call| call.record.approval == Some(id))
            }
        }
    }

    pub(crate) fn on_approvals(&self, cx: &mut Ctx<'_>, call: Call) {
        let all = self.sessions.values().flat_map(|session| {
            let waiting = session.calls.values().filter(|open| open.is_waiting());
            waiting.map(|open| (session.record.title.as_str(), &open.record))
        });
        let mut all: Vec<_> = all.collect();
        all.sort_by_key(|(_, record)| (record.created_at, record.id));
        let mut room = cx.engine.config.limits.page_bytes_max;
        let mut approvals = Vec::new();
        for (title, record) in &all {
            if room == 0 {
                break;
            }
            room = room.saturating_sub(record.input.len());
            approvals.push(ApprovalView::new(title, record).with_input(record));
        }
        let more = all.len().saturating_sub(approvals.len());
        cx.answer(call, &ApprovalsView { approvals, more });
    }
}

// --- reading ----------------------------------------------------------------------------------------------------

fn grant(cx: &Ctx<'_>, caller: Caller, params: &Params<'_>) -> Result<Wish, RpcError> {
    let scope = params.text("scope")?;
    let kind = match scope.as_deref() {
        None | Some("once") => DecisionKind::AllowOnce,
        Some("session") => DecisionKind::AllowSession,
        Some(_) => return Err(RpcError::bad_params("scope", "must be `once` or `session`")),
    };
    let answers = params.texts("answers")?;
    let bytes_max = cx.engine.config.limits.answer_bytes_max;
    if answers.iter().flatten().any(|(_, answer)| answer.len() > bytes_max) {
        let why = format!("must have {bytes_max} bytes or fewer in each answer");
        return Err(RpcError::bad_params("answers", &why));
    }
    Ok(Wish { caller, kind, reason: None, answers })
}

fn deny(cx: &Ctx<'_>, caller: Caller, params: &Params<'_>) -> Result<Wish, RpcError> {
    let reason = params.text("reason")?;
    let bytes_max = cx.engine.config.limits.answer_bytes_max;
    if reason.as_ref().is_some_and(|reason| reason.len() > bytes_max) {
        let why = format!("must have {bytes_max} bytes or fewer");
        return Err(RpcError::bad_params("reason", &why));
    }
    Ok(Wish { caller, kind: DecisionKind::Deny, reason, answers: None })
}

/// The verdict that somebody wishes for, if it is one on this call.
fn verdict(record: &ToolCallRecord, wish: Wish) -> Result<Verdict, RpcError> {
    let Wish { caller, kind, reason, answers } = wish;
    if kind == DecisionKind::AllowSession && is_for_people(record.kind) {
        let why = format!("must be `once`: each {} is asked anew", record.kind.as_str());
        return Err(RpcError::bad_params("scope", &why));
    }
    let answers = match (is_allow(kind), record.kind, answers) {
        (true, AskKind::Question, answers) => Some(checked_answers(record, answers)?),
        (true, AskKind::Tool | AskKind::Plan, Some(_)) => {
            return Err(RpcError::bad_params("answers", "are for questions; this is none"));
        }
        (true, AskKind::Tool | AskKind::Plan, None) | (false, ..) => None,
    };
    let message = match reason {
        Some(reason) => format!("The user denied this: {reason}"),
        None => String::from("The user denied this."),
    };
    Ok(Verdict { kind, by: caller.name(), message, answers })
}

/// Each question has its answer, and nothing else is answered: nothing more can be slipped to the agent (security H3).
fn checked_answers(
    record: &ToolCallRecord,
    answers: Option<Vec<(String, String)>>,
) -> Result<String, RpcError> {
    let bad = |why: &str| RpcError::bad_params("answers", why);
    let answers = answers.ok_or_else(|| bad("is missing: a question needs its answers"))?;
    let questions = claude::questions(&record.input);
    if answers.iter().any(|(question, _)| !questions.contains(question)) {
        return Err(bad("has an answer to what was not asked"));
    }
    let has_answer = |question: &String| {
        answers.iter().any(|(name, answer)| name == question && !answer.trim().is_empty())
    };
    if !questions.iter().all(has_answer) {
        return Err(bad("lacks an answer: each question needs one, by its own text"));
    }
    let answers: BTreeMap<String, String> = answers.into_iter().collect();
    Ok(String::from(raw(&answers).get()))
}

// --- decisions that come late -----------------------------------------------------------------------------------

/// A decision on a call that has its result already.
pub(in crate::work) fn on_late(cx: &mut Ctx<'_>, late: Late, answer: Answer) {
    let Late { asker, is_allow } = late;
    match answer.tool_call() {
        Ok(Some(record)) => answer_again(cx, asker, record.decision.as_ref(), is_allow),
        Ok(None) if asker.by_id.is_some() => asker.refuse(cx, &not_asked()),
        Ok(None) => {
            let error = RpcError::bad_params("toolCallId", "is not a tool call of this session");
            asker.refuse(cx, &error);
        }
        Err(fault) => asker.refuse(cx, &RpcError::storage(&fault)),
    }
}

/// The same decision gets the same answer; the opposite one is told who was first.
pub(super) fn answer_again(
    cx: &mut Ctx<'_>,
    asker: Asker,
    decision: Option<&Decision>,
    is_now_allow: bool,
) {
    match decision {
        Some(decision)
            if is_allow(decision.kind) == is_now_allow
                && decision.kind != DecisionKind::Expired =>
        {
            asker.answer(cx, is_now_allow);
        }
        Some(decision) => asker.refuse(cx, &decided(decision)),
        None => asker.refuse(cx, &not_asked()),
    }
}

fn blocked(objection: &Verdict) -> RpcError {
    RpcError::new(-32028, "tool_blocked", objection.message.clone())
        .hint("`clawd policy list` shows the rules; they stand in the daemon's configuration")
}

fn not_asked() -> RpcError {
    RpcError::new(-32602, "not_pending", "nobody was asked about this tool call")
        .hint("`approval.list` shows what waits")
}
