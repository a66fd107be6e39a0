//! One claude process: one conversation, opened by its arguments.
//!
//! Owns the numbers of our own requests, and what is kept back until the hook is in place; refuses to know more of the
//! process than its lane. What nobody here can answer is refused at once, because claude waits for an answer for ever.
//! Invariant: claude hears no prompt before it has agreed to our hook, or its owner's own rules would let tools run that
//! nobody is asked about (security H1).

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
    /// The request for the hook, until it is granted.
    hello: Option<String>,
    /// The one prompt that is said once it is.
    held: Vec<u8>,
    /// That prompt is to be interrupted.
    is_held_interrupted: bool,
}

impl Claude {
    /// A process that has not been spoken with.
    #[must_use]
    pub const fn new() -> Self {
        Self { lane: None, requests: 0, hello: None, held: Vec::new(), is_held_interrupted: false }
    }

    fn request(&mut self) -> String {
        self.requests = self.requests.saturating_add(1);
        format!("clawd-{}", self.requests)
    }
}

impl Dialect for Claude {
    fn hello(&mut self) -> Vec<u8> {
        let request = self.request();
        let hello = speak::initialize(&request);
        self.hello = Some(request);
        hello
    }

    fn open(&mut self, lane: Lane, _: &Opening<'_>) -> Vec<u8> {
        self.lane = Some(lane);
        Vec::new()
    }

    fn say(&mut self, say: Say) -> Vec<u8> {
        if self.hello.is_none() {
            return self.bytes_of(say);
        }
        match say {
            Say::Prompt { .. } => {
                self.held = self.bytes_of(say);
                self.is_held_interrupted = false;
                Vec::new()
            }
            Say::Interrupt(_) => {
                self.is_held_interrupted = !self.held.is_empty();
                Vec::new()
            }
            // Answers begin nothing, and it may wait for them.
            Say::MustAsk { .. }
            | Say::MayDecide { .. }
            | Say::Allow { .. }
            | Say::Deny { .. }
            | Say::Close(_) => self.bytes_of(say),
        }
    }

    fn hear(&mut self, line: &[u8], out: &mut Vec<u8>, tell: Hear<'_>) {
        let lane = self.lane;
        parse(line, &mut |event| {
            if let AgentEvent::UnknownRequest { request, why } = event {
                out.extend(speak::error_reply(request, why));
            }
            if let AgentEvent::Replied { request, error } = event
                && self.hello.as_deref() == Some(request)
            {
                if let Some(why) = error {
                    return tell(lane, AgentEvent::Unruly { why });
                }
                self.hello = None;
                out.append(&mut self.held);
                if core::mem::take(&mut self.is_held_interrupted) {
                    out.extend(speak::interrupt(&self.request()));
                }
            }
            tell(lane, event);
        });
    }
}

impl Claude {
    fn bytes_of(&mut self, say: Say) -> Vec<u8> {
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn prompt() -> Say {
        Say::Prompt { lane: Lane(0), text: "hi".to_string(), id: "u1".to_string() }
    }

    /// What it says to a line, and whether it calls the process unruly.
    fn hear(claude: &mut Claude, line: &str) -> (Vec<u8>, bool) {
        let (mut out, mut is_unruly) = (Vec::new(), false);
        claude.hear(line.as_bytes(), &mut out, &mut |_, event| {
            is_unruly |= matches!(event, AgentEvent::Unruly { .. });
        });
        (out, is_unruly)
    }

    #[test]
    fn h1_claude_hears_no_prompt_before_it_has_agreed_to_be_asked() {
        let mut claude = Claude::new();
        claude.hello();
        assert!(claude.say(prompt()).is_empty());
        for _ in 0..100 {
            assert!(claude.say(Say::Interrupt(Lane(0))).is_empty(), "and keeps one of them");
        }
        let other =
            r#"{"type":"control_response","response":{"subtype":"success","request_id":"x"}}"#;
        assert!(hear(&mut claude, other).0.is_empty(), "that was another answer");
        let yes = r#"{"type":"control_response","response":{"subtype":"success","request_id":"clawd-1","response":{}}}"#;
        let (said, is_unruly) = hear(&mut claude, yes);
        let said = String::from_utf8(said).unwrap();
        assert!(!is_unruly && said.lines().count() == 2 && said.contains("\"hi\""), "{said}");
        assert!(!claude.say(prompt()).is_empty(), "from now on nothing is held back");
    }

    #[test]
    fn h1_a_claude_that_refuses_our_hook_is_not_used() {
        let mut claude = Claude::new();
        claude.hello();
        claude.say(prompt());
        let no = r#"{"type":"control_response","response":{"subtype":"error","request_id":"clawd-1","error":"no hooks here"}}"#;
        assert_eq!(hear(&mut claude, no), (Vec::new(), true));
        assert!(claude.say(prompt()).is_empty());
    }
}
