//! The dialect of `claude -p --input-format stream-json --output-format stream-json`.
//!
//! Owns how claude is found usable, how it is started, what its lines mean and how it is spoken to; refuses to know what
//! a session makes of that. Checked against claude 2.1.197 and 2.1.330.
//!
//! Invariants: dispatch is on `type` and `subtype`, wherever in the line they stand · unknown types and fields are
//! ignored, unknown *requests* are told, because claude waits for an answer to them for ever · a tool runs with exactly
//! the input it was asked for with.

mod dialect;
mod launch;
mod parse;
mod probe;
mod question;
mod speak;

pub use dialect::Claude;
pub use launch::{INHERIT, LaunchFault, NAME, SET, knows_conversation, launch};
pub use parse::parse;
pub use probe::{probe_runs, read_probe};
pub use question::{ask_kind, questions, with_answers};
pub use speak::{
    allow, deny, error_reply, initialize, interrupt, may_decide, must_ask, set_model, user_message,
};
