//! The audit log, as text: what a line says, how lines hold together, and how to see that somebody has changed them
//! (security H8).
//!
//! Owns the form of a line, the redaction of what goes into it, the chain of hashes, and its verification; refuses to
//! know files, and what is worth a record: the rooms of the core decide that, and put the record into the same operation
//! as the change that it tells of.
//!
//! | file | idea |
//! |---|---|
//! | `chain` | a record becomes a line that carries the hash of the line before it |
//! | `redact` | no secret gets in |
//! | `verify` | which line was edited, removed, moved; what is missing at the end |
//! | `resume` | how a log goes on after a crash, a loss of power, or a hand that was in it |
//!
//! # What it proves, and what not
//!
//! Whoever edits, removes or moves lines with an editor is found out: each line has its own hash and that of the line
//! before, and the daemon's database remembers the last one, so that lines missing at the end are missed too. The log
//! does not stop a program that runs with the user's own rights, knows how clawd works, and writes a whole new chain
//! together with a new row in the database: nothing on the same machine under the same account could. Who needs that
//! sends `clawd audit export` to another machine from time to time and compares the hashes.

mod chain;
mod redact;
mod resume;
mod verify;

pub use chain::{Chain, Line, Link};
pub use redact::{redact, summary};
pub use resume::{Anchor, Found, Resumed, resume};
pub use verify::{Fault, Finding, Report, Verifier};
