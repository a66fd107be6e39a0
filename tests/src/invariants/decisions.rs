//! Approvals: a tool does its work only after a durable decision of somebody who may decide, and once.
//!
//! Owns the decisions as they became durable, and what agents' tools really did; refuses to know how they were asked
//! for.

use std::collections::{BTreeMap, BTreeSet};

use clawd_protocol::audit::Line;
use clawd_protocol::policy::Policy;
use clawd_protocol::record::{AuditKind, DecisionKind, Role, ToolCallRecord};
use clawd_protocol::{Change, DeviceId, ProcId, SessionId};
use serde_json::Value;

use super::secrets::no_token;
use super::{Invariants, Verdict, ensure};
use crate::child::Child;
use crate::store::Store;

impl Invariants {
    /// Changes have become durable.
    pub(crate) fn on_stored(&mut self, changes: &[Change], store: &Store) -> Verdict {
        self.log_stored(changes)?;
        for change in changes {
            if let Change::PutToolCall(call) = change {
                self.on_decision(call, store)?;
            }
        }
        for line in &store.audit[self.audited.min(store.audit.len())..] {
            no_token(line, "the audit log")?;
        }
        self.audited = store.audit.len();
        Ok(())
    }

    fn on_decision(&mut self, call: &ToolCallRecord, store: &Store) -> Verdict {
        let Some(decision) = &call.decision else {
            let known = self.decided.contains_key(&call.id);
            return ensure(!known, || format!("the decision on {} was taken back", call.id));
        };
        let first = self.decided.entry(call.id).or_insert_with(|| decision.clone());
        ensure(first == decision, || format!("{} was decided twice", call.id))?;
        let allows = matches!(decision.kind, DecisionKind::AllowOnce | DecisionKind::AllowSession);
        let may = match decision.by.as_str() {
            "owner" => true,
            "policy" => !allows || self.is_allowed_by_policy(call, store),
            "daemon" => !allows,
            id => id.parse().is_ok_and(|id: DeviceId| {
                store.db.devices.get(&id).is_some_and(|device| device.role >= Role::Approve)
            }),
        };
        ensure(may, || format!("{} was decided by {}", call.id, decision.by))
    }

    /// Somebody asks for a call to be allowed: that is good for one deed of this kind, however often it is asked for.
    pub(super) fn on_allowing(&mut self, method: &str, params: &Value, store: &Store) {
        let mut calls = store.db.tool_calls.values().map(|(_, call)| call);
        let wanted = |key: &str| params[key].as_str().unwrap_or_default().to_owned();
        let call = match method {
            "tool.approve" => calls.find(|call| call.id.to_string() == wanted("toolCallId")),
            "approval.respond" if params["decision"] == "grant" => calls.find(|call| {
                call.approval.is_some_and(|id| id.to_string() == wanted("approval_id"))
            }),
            _ => None,
        };
        if let Some(call) = call {
            self.allowed.entry(deed(call)).or_default().insert(call.id);
        }
    }

    /// The owner writes other rules.
    pub(crate) fn change_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    fn is_allowed_by_policy(&self, call: &ToolCallRecord, store: &Store) -> bool {
        let cwd = store.db.sessions.get(&call.session).map_or("", |it| it.repo_path.as_str());
        let judgement = self.policy.judge(&call.name, &call.input, cwd);
        judgement.verdict == clawd_protocol::policy::Verdict::Allow
    }

    /// A tool did its work only after a durable decision that allows exactly this (H1, H3), and once.
    pub(super) fn check_deeds(
        &mut self,
        children: &BTreeMap<ProcId, Child>,
        store: &Store,
    ) -> Verdict {
        for (proc, child) in children {
            let checked = self.checked_deeds.get(proc).copied().unwrap_or_default();
            for (tool, input) in child.done.iter().skip(checked) {
                let mut calls = store.db.tool_calls.values().map(|(_, call)| call);
                let call = calls.find(|call| call.provider_id == *tool);
                let call = call.ok_or_else(|| format!("{tool} ran and is not stored"))?;
                let mut stored: Value = serde_json::from_str(&call.input).unwrap_or_default();
                if let Some(answers) = &call.answers {
                    stored["answers"] = serde_json::from_str(answers).unwrap_or_default();
                }
                ensure(stored == *input, || format!("{tool} ran with {input}, not {stored}"))?;
                let kind = call.decision.as_ref().map(|decision| decision.kind);
                let is_allowed =
                    matches!(kind, Some(DecisionKind::AllowOnce | DecisionKind::AllowSession));
                let is_session_allowed = is_session_allowed(call, store);
                let is_fine = is_allowed || is_session_allowed;
                ensure(is_fine, || format!("{tool} ran, and its decision is {kind:?}"))?;
                if !is_session_allowed && !self.is_allowed_by_policy(call, store) {
                    let key = deed(call);
                    let allowed = self.allowed.get(&key).map_or(0, BTreeSet::len);
                    let done = self.deeds.entry(key).or_default();
                    *done += 1;
                    let done = *done;
                    ensure(done <= allowed, || format!("{tool} ran as deed {done} of {allowed}"))?;
                }
                let is_audited = audited(call, store);
                ensure(is_audited, || format!("{tool} ran, and the audit log does not say so"))?;
            }
            self.checked_deeds.insert(*proc, child.done.len());
            let unique: BTreeSet<_> = child.answers.iter().collect();
            let is_once = unique.len() == child.answers.len();
            ensure(is_once, || format!("{proc:?} was answered twice"))?;
        }
        Ok(())
    }
}

/// What a call would do.
pub(super) type Deed = (SessionId, String, String);

fn deed(call: &ToolCallRecord) -> Deed {
    (call.session, call.name.clone(), call.input.clone())
}

/// Before a tool runs, the audit log says that it was asked for, and, if somebody was asked, what was decided (H8).
fn audited(call: &ToolCallRecord, store: &Store) -> bool {
    let id = format!("\"toolCallId\":\"{}\"", call.id);
    let is_said = |kind: AuditKind, word: &str| {
        store.audit.iter().any(|line| {
            let of_kind = Line::read(line.as_bytes()).is_some_and(|line| line.is(kind));
            of_kind && line.contains(&id) && line.contains(word)
        })
    };
    is_said(AuditKind::Requested, "")
        && call
            .decision
            .as_ref()
            .is_none_or(|it| is_said(AuditKind::Decided, &format!("\"{}\"", it.kind.as_str())))
}

/// Another call of the same tool in this session was allowed for the whole session.
fn is_session_allowed(call: &ToolCallRecord, store: &Store) -> bool {
    store.db.tool_calls.values().any(|(_, other)| {
        other.session == call.session
            && other.name == call.name
            && other.decision.as_ref().is_some_and(|d| d.kind == DecisionKind::AllowSession)
    })
}
