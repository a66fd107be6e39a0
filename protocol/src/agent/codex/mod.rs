//! The dialect of `codex app-server`: JSON-RPC on lines, one process for many conversations.
//!
//! Owns how codex is found usable, how it is started, what its lines mean and how it is spoken to; refuses to know what a
//! session makes of that. Checked against codex 0.169.0.
//!
//! | a conversation | waits for | then |
//! |---|---|---|
//! | `Waiting` | the answer to `initialize` | is vetted: `vet` |
//! | `Vetting` | what the owner's configuration allows | `thread/start` or `thread/resume` |
//! | `Opening` | its id, and that codex agreed to ask | the prompt that was kept back |
//! | `Open` | prompts | `turn/start` |
//! | `Closed` | the next prompt | is vetted again |
//!
//! Invariants: every command and every change of a file is asked for, and what was asked for runs once and unchanged or
//! not at all · dispatch is on `method`; a message with both `method` and `id` is codex's own request, whose numbers are
//! its own · what nobody here can answer is refused at once, because codex waits for an answer for ever · a conversation
//! that is left is interrupted, and its commands are ended, even if what has to be known for that comes later.
//!
//! What was found out about asking, with the policy `untrusted`: every command asks, `ls` as well, also from within a
//! script of a model's own ("code mode"), and whatever the sandbox; so does every patch, and every text written into a
//! running command. What is denied does not run. What is allowed is tried in the sandbox first, if there is one, so turns
//! have none. What does *not* ask: what a rule in `$CODEX_HOME/rules` allows (so `vet` refuses those), tools of MCP
//! servers that call themselves read-only (so no such server is started), a hook that answers in our place, agents that
//! codex starts itself and searches of the web (so all three are off). Pictures are looked at unasked, which changes nothing.

mod answer;
mod ask;
mod fault;
mod hear;
mod item;
mod launch;
mod probe;
mod process;
mod shell;
mod speak;
mod thread;
mod vet;

#[cfg(test)]
mod tests;

pub use launch::{BEHIND, INHERIT, NAME, SET, launch};
pub use probe::{probe_runs, read_probe};
pub use process::Codex;
