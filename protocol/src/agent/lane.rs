//! Conversations of one agent process.
//!
//! Owns how a conversation is named and opened; refuses to know whose it is. A claude process carries one, a codex
//! process many: so each thing said to an agent, and each thing heard of it, is about a lane.

/// One of the conversations of an agent process. Whoever opens it chooses the number, and never reuses it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane(pub u32);

/// How a conversation is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening<'a> {
    /// The agent's id for the conversation: claude takes one of our choice, codex gives its own.
    pub conversation: &'a str,
    /// The conversation exists: continue it.
    pub resume: bool,
    /// The canonical directory in which it works.
    pub cwd: &'a str,
    /// The model that the owner asked for.
    pub model: Option<&'a str>,
}
