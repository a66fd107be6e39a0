//! Tool calls in the audit log, and pages of it.
//!
//! Owns what of a tool call is a record (security H8), `audit.list` and `session.toolCallAudit`; refuses to know where the
//! log is kept.
//!
//! The records are drawn from the changes themselves, in the one place through which all of them go: whoever stores a tool
//! call stores what there is to say of it in the same operation, and cannot forget to. So no decision is on disk without
//! its record, and none that is not on disk reaches an agent.
//!
//! | what a stored tool call says | record |
//! |---|---|
//! | it is there | `requested`, also for calls that nobody is asked about |
//! | another decision than was told of | `decided` |
//! | it has a result, or one in spite of a denial | `executed` |
//! | it has ended without one | `abandoned` |

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Serialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::approval::is_allow;
use super::session::session_param;
use super::{Asked, Work, history};
use crate::access::ctx::Ctx;
use crate::access::peers::Call;
use crate::audit::summary;
use crate::contract::effect::{Change, Question};
use crate::contract::id::{SessionId, ToolCallId};
use crate::contract::input::Answer;
use crate::contract::record::{AuditKind, AuditRecord, DecisionKind, Progress, ToolCallRecord};
use crate::wire::params::Params;
use crate::wire::rpc::RpcError;

/// What was told of a tool call that has not ended.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Told {
    is_requested: bool,
    decision: Option<DecisionKind>,
    /// It waits on after its agent: whatever ends it, no tool of its own has run.
    is_carried: bool,
}

/// What was told of all of them.
#[derive(Debug, Default)]
pub(super) struct Audited(BTreeMap<ToolCallId, Told>);

/// What was told before, for the case that it is not stored.
pub(super) type Untold = Vec<(ToolCallId, Option<Told>)>;

impl Audited {
    /// Those of the last life were told of when they were stored.
    pub(super) fn restored(calls: &[ToolCallRecord]) -> Self {
        let told = |call: &ToolCallRecord| Told {
            is_requested: true,
            decision: call.decision.as_ref().map(|decision| decision.kind),
            is_carried: call.is_carried,
        };
        Self(calls.iter().map(|call| (call.id, told(call))).collect())
    }

    /// Adds to the changes what there is to say of the tool calls among them.
    pub(super) fn add_records(
        &mut self,
        cx: &Ctx<'_>,
        changes: &mut Vec<Change>,
        provider: impl Fn(SessionId) -> Option<String>,
    ) -> Untold {
        let mut before = Vec::new();
        let mut records = Vec::new();
        for change in changes.iter() {
            if let Change::PutToolCall(call) = change {
                before.push((call.id, self.0.get(&call.id).copied()));
                let about = || about(cx, call, provider(call.session));
                records.extend(self.news(cx, call, about).into_iter().map(Change::Audit));
            }
        }
        changes.append(&mut records);
        before
    }

    /// It was not stored, so it was not told.
    pub(super) fn take_back(&mut self, before: Untold) {
        for (id, told) in before {
            match told {
                Some(told) => self.0.insert(id, told),
                None => self.0.remove(&id),
            };
        }
    }

    fn news(
        &mut self,
        cx: &Ctx<'_>,
        call: &ToolCallRecord,
        about: impl Fn() -> AuditRecord,
    ) -> Vec<AuditRecord> {
        let mut news = Vec::new();
        let told = self.0.entry(call.id).or_default();
        if !told.is_requested {
            told.is_requested = true;
            news.push(AuditRecord { kind: AuditKind::Requested, at: call.created_at, ..about() });
        }
        told.is_carried |= call.is_carried;
        let has_run = call.output.is_some() && !told.is_carried;
        let decision = call.decision.as_ref();
        if let Some(decision) = decision.filter(|it| told.decision != Some(it.kind)) {
            told.decision = Some(decision.kind);
            news.push(AuditRecord {
                kind: AuditKind::Decided,
                at: decision.at,
                actor: decision.by.clone(),
                via: cx.peers.via_of_speaker(&decision.by).map(String::from),
                decision: Some(decision.kind),
                ..about()
            });
        }
        if let Some(at) = call.completed_at {
            self.0.remove(&call.id);
            let has_failed = call.status == Progress::Error;
            // Its error says no more than the denial does; that it went well in spite of one is said.
            if has_failed && decision.is_some_and(|decision| !is_allow(decision.kind)) {
                return news;
            }
            let kind = if has_run { AuditKind::Executed } else { AuditKind::Abandoned };
            let note = (has_run && has_failed).then(|| String::from("not well"));
            news.push(AuditRecord { kind, at, note, ..about() });
        }
        news
    }
}

/// All that is said of a tool call whatever happens to it.
fn about(cx: &Ctx<'_>, call: &ToolCallRecord, provider: Option<String>) -> AuditRecord {
    AuditRecord {
        session: Some(call.session),
        tool_call: Some(call.id),
        provider,
        tool: Some(call.name.clone()),
        input_sha256: Some(Sha256::digest(call.input.as_bytes()).into()),
        input: Some(summary(&call.input)),
        rule: call.rule.clone(),
        ..AuditRecord::new(cx.engine.now.unix, AuditKind::Requested, "agent")
    }
}

#[derive(Serialize)]
struct PageView {
    events: Vec<Box<RawValue>>,
    count: usize,
}

impl Work {
    pub(crate) fn on_audit_list(&mut self, cx: &mut Ctx<'_>, call: Call, params: &Params<'_>) {
        let session = params.word("sessionId", "a session's id");
        self.ask_audit(cx, call, params, session);
    }

    pub(crate) fn on_tool_call_audit(&mut self, cx: &mut Ctx<'_>, call: Call, params: &Params<'_>) {
        let session = session_param(params).and_then(|id| self.session_mut(id).map(|_| Some(id)));
        self.ask_audit(cx, call, params, session);
    }

    fn ask_audit(
        &mut self,
        cx: &mut Ctx<'_>,
        call: Call,
        params: &Params<'_>,
        session: Result<Option<SessionId>, RpcError>,
    ) {
        let question = session.and_then(|session| {
            Ok(Question::Audit {
                session,
                before: params.count("before")?,
                limit: history::page(cx, params)?,
                bytes_max: cx.engine.config.limits.page_bytes_max,
            })
        });
        match question {
            Ok(question) => {
                let timeout = cx.engine.config.limits.audit_read_timeout;
                self.ask(cx, question, timeout, Asked::Audit(call));
            }
            Err(error) => cx.refuse(call, &error),
        }
    }
}

pub(super) fn on_audit(cx: &mut Ctx<'_>, call: Call, answer: Answer) {
    match answer.audit() {
        Ok(lines) => {
            let events: Vec<_> = lines.into_iter().map(event).collect();
            cx.answer(call, &PageView { count: events.len(), events });
        }
        Err(fault) => cx.refuse(call, &RpcError::storage(&fault)),
    }
}

/// A line that somebody has damaged must not make the rest unreadable, nor be passed over.
fn event(line: String) -> Box<RawValue> {
    let unreadable = || RawValue::from_string(String::from("{\"kind\":\"unreadable\"}"));
    RawValue::from_string(line).or_else(|_| unreadable()).unwrap_or_default()
}
