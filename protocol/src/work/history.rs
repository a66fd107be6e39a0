//! Pages of the past.
//!
//! Owns `session.getMessages` and `session.toolCalls`; refuses to know where histories are kept.

use alloc::vec::Vec;

use super::session::session_param;
use super::{Asked, Work};
use crate::access::ctx::Ctx;
use crate::access::peers::Call;
use crate::contract::effect::Question;
use crate::contract::input::Answer;
use crate::wire::params::Params;
use crate::wire::rpc::RpcError;
use crate::wire::view::{MessageView, ToolCallView};

const PAGE_DEFAULT: u64 = 50;

impl Work {
    pub(crate) fn on_messages(&mut self, cx: &mut Ctx<'_>, call: Call, params: &Params<'_>) {
        let question = session_param(params).and_then(|session| {
            self.session_mut(session)?;
            Ok(Question::Messages {
                session,
                before: params.word("before", "a message's id")?,
                after: params.word("after", "a message's id")?,
                limit: page(cx, params)?,
                bytes_max: cx.engine.config.limits.page_bytes_max,
            })
        });
        match question {
            Ok(question) => {
                let ask = cx.ask(question);
                self.asked.await_(ask, Asked::Messages(call));
            }
            Err(error) => cx.refuse(call, &error),
        }
    }

    pub(crate) fn on_tool_calls(&mut self, cx: &mut Ctx<'_>, call: Call, params: &Params<'_>) {
        let question = session_param(params).and_then(|session| {
            self.session_mut(session)?;
            let before = params.word("before", "a tool call's id")?;
            let bytes_max = cx.engine.config.limits.page_bytes_max;
            Ok(Question::ToolCalls { session, before, limit: page(cx, params)?, bytes_max })
        });
        match question {
            Ok(question) => {
                let ask = cx.ask(question);
                self.asked.await_(ask, Asked::ToolCalls(call));
            }
            Err(error) => cx.refuse(call, &error),
        }
    }
}

pub(super) fn page(cx: &Ctx<'_>, params: &Params<'_>) -> Result<usize, RpcError> {
    let page_max = cx.engine.config.limits.page_max;
    let limit = params.count("limit")?.unwrap_or(PAGE_DEFAULT);
    if limit == 0 {
        return Err(RpcError::bad_params("limit", "must be 1 or more"));
    }
    Ok(usize::try_from(limit).unwrap_or(page_max).min(page_max))
}

pub(super) fn on_messages(cx: &mut Ctx<'_>, call: Call, answer: Answer) {
    match answer.messages() {
        Ok(records) => {
            let views: Vec<MessageView<'_>> = records.iter().map(Into::into).collect();
            cx.answer(call, &views);
        }
        Err(fault) => cx.refuse(call, &RpcError::storage(&fault)),
    }
}

pub(super) fn on_tool_calls(cx: &mut Ctx<'_>, call: Call, answer: Answer) {
    match answer.tool_calls() {
        Ok(records) => {
            let views: Vec<ToolCallView<'_>> = records.iter().map(Into::into).collect();
            cx.answer(call, &views);
        }
        Err(fault) => cx.refuse(call, &RpcError::storage(&fault)),
    }
}
