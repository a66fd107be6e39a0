//! The verdict where nobody has to be asked for it.
//!
//! Owns the order in which policy, grants and circumstances are looked at; refuses to know how a rule is read (`policy`
//! does). What the policy denies is denied whatever else is granted, when it is asked for and again when it is told to
//! the agent (security H6).
//!
//! ```text
//! it cannot be shown ─▶ deny      a rule denies it ─▶ deny      a grant from before the restart ─▶ as granted
//! the policy allows it ─▶ allow   granted for this session ─▶ allow   nobody listens ─▶ as configured   else ─▶ people
//! ```

use alloc::format;
use alloc::string::String;

use super::super::Work;
use super::ask::{Ask, is_for_people};
use super::bind::fingerprint;
use super::decide::Verdict;
use crate::access::ctx::Ctx;
use crate::agent::event::UNREADABLE_INPUT;
use crate::contract::id::{SessionId, ToolCallId};
use crate::contract::record::{DecisionKind, Role};
use crate::policy::{Judgement, Verdict as Word, WhenNobodyListens};
use crate::text::visible_line;
use crate::work::turn::cut;

/// How decisions of the owner's rules are signed.
pub(super) const POLICY: &str = "policy";
/// So much of an agent's own reason is kept.
const REASON_BYTES_MAX: usize = 512;

impl Work {
    /// What becomes of this ask if no person is asked. Why one is, is noted with the call.
    pub(super) fn judge(
        &mut self,
        cx: &Ctx<'_>,
        id: SessionId,
        tool: ToolCallId,
        ask: Ask<'_>,
    ) -> Option<Verdict> {
        if let Some(why) = unshowable(ask.input, cx.engine.config.limits.tool_input_max) {
            return Some(Verdict::ours(DecisionKind::Deny, &why));
        }
        let session = self.sessions.get_mut(&id)?;
        let cwd = &session.record.repo_path;
        let judgement = cx.engine.config.policy.judge(ask.name, ask.input, cwd);
        let record = &mut session.calls.get_mut(&tool)?.record;
        record.rule = judgement.rule.map(|rule| rule_text(rule.verdict(), rule.text()));
        record.reason = Some(reason(&judgement, ask.reason));
        if judgement.verdict == Word::Deny {
            return Some(denied(&judgement));
        }
        let wanted = fingerprint(record, cwd);
        if judgement.verdict == Word::Allow && !is_for_people(record.kind) {
            record.requires_approval = false;
            return Some(Verdict::by(POLICY, DecisionKind::AllowOnce, ""));
        }
        if let Some(verdict) = session.carried_verdict(tool) {
            return Some(verdict);
        }
        if let Some(by) = session.grants.get(&wanted) {
            return Some(Verdict::by(by, DecisionKind::AllowSession, ""));
        }
        let must_listen = cx.engine.config.policy.when_nobody_listens == WhenNobodyListens::Deny;
        let is_heard = || cx.peers.known().any(|(_, caller)| caller.role >= Role::Approve);
        (must_listen && !is_heard()).then(|| {
            let why = "Nobody is connected who could allow this, so it is denied at once.";
            Verdict::ours(DecisionKind::Deny, why)
        })
    }

    /// The policy's word against this call, if it has one: looked for again before anything is allowed.
    pub(super) fn objection(
        &self,
        cx: &Ctx<'_>,
        id: SessionId,
        tool: ToolCallId,
    ) -> Option<Verdict> {
        let session = self.sessions.get(&id)?;
        let record = &session.calls.get(&tool)?.record;
        let policy = &cx.engine.config.policy;
        let judgement = policy.judge(&record.name, &record.input, &session.record.repo_path);
        (judgement.verdict == Word::Deny).then(|| denied(&judgement))
    }

    /// Whether the agent may use this tool by its own rules: it only looks, and nothing is against it.
    pub(in crate::work) fn may_pass(
        &self,
        cx: &Ctx<'_>,
        id: SessionId,
        tool: &str,
        input: &str,
    ) -> bool {
        let policy = &cx.engine.config.policy;
        let session = self.sessions.get(&id);
        session.is_some_and(|it| policy.may_pass_unasked(tool, input, &it.record.repo_path))
    }
}

/// Why nobody could be shown what they allow.
fn unshowable(input: &str, bytes_max: usize) -> Option<String> {
    if input.len() > bytes_max {
        let len = input.len();
        return Some(format!(
            "The input has {len} bytes, more than the {bytes_max} that a person can be shown."
        ));
    }
    let why = "The input is not an object, or nested too deeply to be shown to a person.";
    (input == UNREADABLE_INPUT).then(|| String::from(why))
}

fn denied(judgement: &Judgement<'_>) -> Verdict {
    let rule = judgement.rule.map_or("its mode", |rule| rule.text());
    let why = format!("The owner's policy denies this ({rule}): {}.", judgement.why);
    Verdict::by(POLICY, DecisionKind::Deny, &why)
}

fn rule_text(verdict: Word, text: &str) -> String {
    format!("{} {text}", verdict.as_str())
}

/// Why it is asked, in our words; the agent's own are no more than a remark.
fn reason(judgement: &Judgement<'_>, said: Option<&str>) -> String {
    match said {
        Some(said) => {
            let said = visible_line(cut(said, REASON_BYTES_MAX));
            format!("{} (the agent says: {said})", judgement.why)
        }
        None => String::from(&*judgement.why),
    }
}
