//! How an agent process is spoken with: one interface, one implementation for each dialect.
//!
//! Owns the words in which an agent is told what to do, as [`AgentEvent`] owns those in which it is understood; refuses to
//! know sessions and processes. A dialect keeps what one process has to be remembered for, and does no more than turn
//! words into bytes and lines into events.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::event::AgentEvent;
use super::lane::{Lane, Opening};

/// Something to be said to an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Say {
    /// A person's message.
    Prompt {
        /// In which conversation.
        lane: Lane,
        /// What the person wrote.
        text: String,
        /// Names it in the agent's own history, where the agent keeps such names.
        id: String,
    },
    /// Stop the turn in progress, and what runs in it.
    Interrupt(Lane),
    /// It has to ask before it uses the tool, whatever its own rules say.
    MustAsk {
        /// The request of [`AgentEvent::AboutToUse`].
        request: String,
    },
    /// Its own rules decide whether it has to ask before it uses the tool.
    MayDecide {
        /// The request of [`AgentEvent::AboutToUse`].
        request: String,
    },
    /// The tool may run with this input: the very text of [`AgentEvent::Asked`] (security H3).
    Allow {
        /// The request of [`AgentEvent::Asked`].
        request: String,
        /// A JSON object.
        input: String,
    },
    /// The tool may not run.
    Deny {
        /// The request of [`AgentEvent::Asked`].
        request: String,
        /// Why, for the model.
        message: String,
    },
    /// The conversation is not needed any more in this process.
    Close(Lane),
}

/// What one process is spoken with.
pub trait Dialect: fmt::Debug {
    /// What to say first of all.
    fn hello(&mut self) -> Vec<u8>;

    /// Opens a conversation on this lane.
    fn open(&mut self, lane: Lane, opening: &Opening<'_>) -> Vec<u8>;

    /// Says this; nothing if it cannot be said, or not yet.
    fn say(&mut self, say: Say) -> Vec<u8>;

    /// Hears one line of its output: tells what it means, and adds to `out` what has to be said at once. An event without
    /// a lane is about the whole process.
    fn hear(&mut self, line: &[u8], out: &mut Vec<u8>, tell: Hear<'_>);
}

/// Who is told what a line means.
pub type Hear<'t> = &'t mut dyn FnMut(Option<Lane>, AgentEvent<'_>);

/// A dialect of any kind.
pub type AnyDialect = Box<dyn Dialect>;
