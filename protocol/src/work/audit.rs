//! Pages of the audit log.
//!
//! Owns `audit.list` and `session.toolCallAudit`; refuses to know where the log is kept and what its lines say: they are
//! handed on as they were written.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Serialize;
use serde_json::value::RawValue;

use super::session::session_param;
use super::{Asked, Work, history};
use crate::access::ctx::Ctx;
use crate::access::peers::Call;
use crate::contract::effect::Question;
use crate::contract::id::SessionId;
use crate::contract::input::Answer;
use crate::wire::params::Params;
use crate::wire::rpc::RpcError;

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
                let ask = cx.ask(question);
                self.asked.await_(ask, Asked::Audit(call));
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
