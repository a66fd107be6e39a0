//! The eyes and hands of clawd: sockets, SQLite and child processes on one mio loop.
//!
//! Owns everything that touches the machine; refuses to know who may do what and what a message means: that is
//! [`clawd_protocol`], which this crate tells what happened and whose effects it carries out.
//!
//! | module | owns |
//! |---|---|
//! | [`files`] | the private data directory, the token's file |
//! | [`store`] | SQLite |
//! | [`process`], [`guard`] | children and their descendants |
//! | `kin` | who comes of whom, and who carries a child's mark |
//! | [`tls`] | keys, and TLS to them |
//! | [`tunnel`] | a byte stream inside of a WebSocket |
//! | [`dial`] | connections to a relay |
//! | [`relay`] | another loop: a relay, which needs nothing of the rest |
//! | [`worker`] | questions that block |
//! | `event_loop` | the order of things in a turn |
//! | `execute`, `hands` | effects |
//! | `listener`, `stream`, `connection` | sockets |
//! | `intake`, `head`, `websocket`, `outbox` | bytes |
//! | `legs` | connections to a relay, once they are dialled |
//! | `clock`, `signal` | time, signals |
//!
//! Everything is on one thread but the questions of [`worker`].

pub mod dial;
pub mod files;
pub mod guard;
pub mod process;
pub mod relay;
pub mod store;
pub mod tls;
pub mod tunnel;
pub mod worker;

mod clock;
mod connection;
mod event_loop;
mod execute;
mod hands;
mod head;
mod intake;
mod kin;
mod legs;
mod listener;
mod outbox;
mod signal;
mod start;
mod stream;
mod websocket;

pub use start::{OnReady, Options, Ready, RunError, run};

/// Who is who in mio's events: connections have their slot's number, all others are far above.
mod tokens {
    use std::ops::Range;

    pub(crate) const LEGS: Range<usize> = 1 << 27..1 << 28;
    pub(crate) const CHILDREN: Range<usize> = 1 << 28..1 << 29;
    pub(crate) const LISTENERS: usize = 1 << 29;
    pub(crate) const WAKER: usize = 1 << 30;
    pub(crate) const SHUTDOWN: usize = WAKER + 1;
    pub(crate) const CHILD: usize = WAKER + 2;
}
