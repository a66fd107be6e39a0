//! One claude process: one conversation, opened by its arguments.
//!
//! Owns the numbers of our own requests; refuses to know more of the process than its lane. What nobody here can answer is
//! refused at once, because claude waits for an answer for ever.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{parse, speak};
use crate::agent::dialect::{Dialect, Hear, Say};
use crate::agent::event::AgentEvent;
use crate::agent::lane::{Lane, Opening};

/// See the module.
#[derive(Debug, Default)]
pub struct Claude {
    lane: Option<Lane>,
    requests: u64,
}

impl Claude {
    /// A process that has not been spoken with.
    #[must_use]
    pub const fn new() -> Self {
        Self { lane: None, requests: 0 }
    }

    fn request(&mut self) -> String {
        self.requests = self.requests.saturating_add(1);
        format!("clawd-{}", self.requests)
    }
}

impl Dialect for Claude {
    fn hello(&mut self) -> Vec<u8> {
        speak::initialize(&self.request())
    }

    fn open(&mut self, lane: Lane, _: &Opening<'_>) -> Vec<u8> {
        self.lane = Some(lane);
        Vec::new()
    }

    fn say(&mut self, say: Say) -> Vec<u8> {
        match say {
            Say::Prompt { text, id, .. } => speak::user_message(&text, &id),
            Say::Interrupt(_) => speak::interrupt(&self.request()),
            Say::MustAsk { request } => speak::must_ask(&request),
            Say::MayDecide { request } => speak::may_decide(&request),
            Say::Allow { request, input } => speak::allow(&request, &input),
            Say::Deny { request, message } => speak::deny(&request, &message, false),
            Say::Close(_) => Vec::new(),
        }
    }

    fn hear(&mut self, line: &[u8], out: &mut Vec<u8>, tell: Hear<'_>) {
        let lane = self.lane;
        parse(line, &mut |event| {
            if let AgentEvent::UnknownRequest { request, why } = event {
                out.extend(speak::error_reply(request, why));
            }
            tell(lane, event);
        });
    }
}
