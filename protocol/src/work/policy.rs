//! What would happen, if.
//!
//! Owns `policy.test`; refuses to decide anything: the same judgement is made again when a tool really asks.

use alloc::string::String;

use serde::Serialize;

use super::Work;
use super::session::not_found;
use crate::access::ctx::Ctx;
use crate::access::peers::Call;
use crate::policy::{Judgement, Rule};
use crate::wire::params::Params;
use crate::wire::rpc::RpcError;

#[derive(Serialize)]
struct JudgementView<'a> {
    decision: &'static str,
    rule: Option<&'a str>,
    why: &'a str,
}

impl<'a> From<&'a Judgement<'_>> for JudgementView<'a> {
    fn from(judgement: &'a Judgement<'_>) -> Self {
        Self {
            decision: judgement.verdict.as_str(),
            rule: judgement.rule.map(Rule::text),
            why: &judgement.why,
        }
    }
}

impl Work {
    pub(crate) fn on_policy_test(&self, cx: &mut Ctx<'_>, call: Call, params: &Params<'_>) {
        let (tool, input, cwd) = match self.policy_params(params) {
            Ok(asked) => asked,
            Err(error) => return cx.refuse(call, &error),
        };
        let policy = &cx.engine.config.policy;
        let judgement = policy.judge(&tool, input, &cwd);
        cx.peers.answer(call, &JudgementView::from(&judgement), cx.fx);
    }

    /// The tool, its input, and where it would run.
    fn policy_params<'a>(
        &self,
        params: &Params<'a>,
    ) -> Result<(String, &'a str, String), RpcError> {
        let tool = params.need_text("tool")?;
        let input = params.need_raw("input")?;
        if !input.starts_with('{') {
            return Err(RpcError::bad_params("input", "must be an object"));
        }
        let cwd = params.text("cwd")?;
        let cwd = match params.word("sessionId", "a session's id")? {
            Some(id) => self.sessions.get(&id).ok_or_else(not_found)?.record.repo_path.clone(),
            None => cwd.unwrap_or_default(),
        };
        Ok((tool, input, cwd))
    }
}
