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

/// Longest name of a model, in bytes.
const MODEL_BYTES_MAX: usize = 200;

/// Whether this can be the name of a model, and not an option. As they are seen: `opus`, `claude-opus-5-5[1m]`,
/// `us.anthropic.claude-…-v1:0`, `arn:aws:bedrock:…/…`, `gpt-5.5`.
#[must_use]
pub fn is_model(name: &str) -> bool {
    name.len() <= MODEL_BYTES_MAX
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:/@[]".contains(c))
}
