//! The pure core of clawd: JSON-RPC, authentication, devices, pairing, sessions and agents as one state machine.
//!
//! Nothing here does input or output, reads a clock, or draws entropy. A *runtime* tells the [`Daemon`] what happened
//! ([`Input`]) and carries out what it wants ([`Effect`]); everything that is decided is decided in between. So the same
//! core runs on mio, on threads, on tokio, in a simulated world of tests, and under a fuzzer.
//!
//! ```text
//! clients ──bytes──▶ runtime ──Input──▶ Daemon ──Effect──▶ runtime ──▶ sockets, storage, child processes
//! ```
//!
//! # The contract
//!
//! What a runtime promises and may rely on:
//!
//! 1. **One owner.** A [`Daemon`] is a value; whoever has it calls it. It has no hidden state and no globals.
//! 2. **One way in, one way out.** [`Daemon::handle`] takes one input and pushes effects into the caller's [`Effects`].
//!    It never blocks and never fails.
//! 3. **Drain fully.** After each `handle`, all effects are carried out, in order, before the next input about anything
//!    they touch.
//! 4. **Sleep no longer than [`Daemon::poll_timeout`].** Then call `handle` with [`Input::Tick`], or with anything else:
//!    what is due is done first. A `Tick` at any other time changes nothing.
//! 5. **Time is an argument.** [`Now::mono`] never goes back; [`Now::unix`] may.
//! 6. **Names are not reused.** Whoever makes a thing names it: the runtime names connections, the core names
//!    operations, questions and children. The core ignores inputs about names that it does not know, and the runtime
//!    ignores effects on what is gone.
//! 7. **The first input is [`Input::Started`]**, once the listeners are up; the last effect is [`Effect::Stop`].
//! 8. **A connection** is `Opened`, then `Secured` if it is TLS to our own key, which it must be unless it came from this
//!    machine itself; then `Requested` once, then (if it was upgraded) brings `Text`; it is `Closed` once, also when the
//!    core closed it. After [`Effect::Close`] or [`Effect::Respond`] nothing more of it is told but that.
//! 9. **Each [`Effect::Store`] is answered by one [`Input::Stored`]**, in order, after all of it is durable or nothing of
//!    it was done. Each [`Effect::Ask`] is answered by one [`Input::Answered`], in any order; a question sees the effects
//!    of every `Store` before it.
//! 10. **Each byte of text that is sent ends in [`Input::Flushed`] or in `Closed`**, each byte fed to a child in
//!     [`Input::Fed`] or in `Exited`. That is the credit by which the core holds its queues to their limits.
//! 11. **A child** is `Spawned` once; if that went well it is `Exited` once, after all its output.
//! 12. **A leg** that is [dialled](Effect::Dial) is `Dialed` once, no later than its timeout, also when it was hung up
//!     meanwhile. A control leg that is there brings `Heard`, and is `HungUp` once, also when the core hung up. A tunnel
//!     that is there is `Opened` right after, as a connection from [`Source::Relay`], and its leg is no more; one that was
//!     hung up before never is.
//! 13. **The runtime decides nothing.** It turns bytes into request heads and text messages, and carries out effects.
//!
//! # Embedding
//!
//! ```
//! use clawd_protocol::access::token::{TokenDigest, mint_local};
//! use clawd_protocol::{Config, ConnId, Daemon, Effect, Effects, Head, Input, Now, Snapshot, Source};
//!
//! let token = mint_local([7; 32]); // from the operating system, in production
//! let identity = b"a public key in DER".to_vec();
//! let restored = Snapshot::empty(TokenDigest::of(token.expose()), identity);
//! let mut daemon = Daemon::new(Config::default(), [9; 32], restored);
//! let mut effects = Effects::new();
//! let now = Now::default();
//!
//! daemon.handle(now, Input::Started { port: 4300 }, &mut effects);
//! daemon.handle(now, Input::Opened { conn: ConnId(1), source: Source::Unix }, &mut effects);
//! let headers: &[(&str, &[u8])] = &[("Host", b"localhost")];
//! let head = Head { method: "GET", target: "/health", minor: 1, headers };
//! daemon.handle(now, Input::Requested { conn: ConnId(1), head: Ok(head) }, &mut effects);
//!
//! let answer = effects.drain().last();
//! assert!(matches!(answer, Some(Effect::Respond { response, .. }) if response.status == 200));
//! ```
//!
//! `examples/threads.rs` and `examples/tokio.rs` are whole runtimes in under 150 lines each.
//!
//! # Where things are
//!
//! | module | owns |
//! |---|---|
//! | [`contract`] | all that a runtime sees: inputs, effects, records, limits |
//! | `daemon` | `new`, `handle`, `poll_timeout`: dispatch only |
//! | `wire` | what bytes mean: request heads, the RPC envelope, methods, events; all leniency towards clients |
//! | [`access`] | who may come in, and do what: tokens, devices, pairing, limits on strangers, connections |
//! | `work` | what they came for: sessions, turns, approvals |
//! | `link` | the daemon's own registration at a relay |
//! | [`agent`] | what agent CLIs say, as one vocabulary |
//! | [`policy`] | what may run without a person being asked |
//! | `engine` | deadlines, chance, operations in flight |
//! | [`audit`] | the lines of the audit log, and whether they still say what was written |
//! | [`client`] | the other end of the same protocol |
//! | [`invitation`] | what a QR code says |
//! | [`pake`] | a PIN that never crosses the wire |
//! | [`relay`] | who may meet whom at a relay, and what is said to it |
//! | [`text`] | making untrusted text safe to show |
//! | [`wire_reference`] | the methods, errors and events, for authors of clients |
//!
//! Imports go one way: `daemon → work, link → access → engine → wire → agent, policy, audit → contract`; `work` and `link` do
//! not know each other. Leaves that everybody may use, `contract` too, are `access::token`, the addresses, pins and words of
//! `relay`, the settings of `policy`, and `text`.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod access;
pub mod agent;
pub mod audit;
pub mod client;
pub mod contract;
mod daemon;
mod engine;
pub mod invitation;
mod link;
pub mod pake;
pub mod policy;
pub mod relay;
pub mod text;
#[doc = include_str!("../WIRE.md")]
pub mod wire_reference {}
mod wire;
mod work;

pub use contract::config::{Config, ProviderConfig};
pub use contract::effect::{
    Change, Command, Dial, Effect, Effects, Env, Program, Purpose, Question, Response, Sync, To,
};
pub use contract::error::{
    DialFault, HeadFault, MessageFault, PathFault, ProgramFault, StoreFault,
};
pub use contract::fingerprint::{Fingerprint, NoFingerprint};
pub use contract::id::{
    ApprovalId, AskId, ConnId, DeviceId, LegId, MessageId, OpId, ProcId, SessionId, ToolCallId,
};
pub use contract::input::{Answer, Head, Input, Probe, Run, Source, Stream};
pub use contract::limits::Limits;
pub use contract::note::Note;
pub use contract::record;
pub use contract::snapshot::Snapshot;
pub use contract::time::{Instant, Now, Unix};
pub use daemon::Daemon;
