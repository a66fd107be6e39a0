//! What agent CLIs say, as one vocabulary, and what is said to them.
//!
//! Owns the cutting of output into lines, the events that every agent is understood as, and the dialect of each agent;
//! refuses to know sessions, approvals and policy: `work` decides what an event means.
//!
//! Everything read here was written by a program that a stranger's repository can influence: nothing in it can make a
//! parser fail, recurse without bound, or keep more than a line in memory.

pub mod claude;
pub mod codex;
pub mod demo;
pub mod dialect;
pub mod event;
pub(crate) mod json;
pub mod lane;
pub mod lines;
pub mod provider;
mod release;

pub use dialect::{AnyDialect, Dialect, Say};
pub use event::{AgentEvent, Outcome, ProviderState, TurnEnd};
pub use lane::{Lane, Opening, is_model};
pub use lines::{Line, Lines};
pub use provider::Provider;
