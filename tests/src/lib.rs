//! The simulated world, and the means to tell stories in it.
//!
//! ```text
//! world      one daemon and all that it can touch; the clocks; the runtime's side of the contract
//!   link       a connection, from the peer's end         store      the disk, and its faults
//!   child      a scripted agent                          machine    directories and programs
//! client     a comfortable JSON-RPC client on a link
//! invariants what must be true after each step           trace      what happened, for people and for comparing
//! daemon     the real binary with real sockets on a real disk, for end-to-end tests
//! policy     what an allowed command must be, read a second time
//! relay      the real relay, and those who meet there       authority  certificates for it
//! phone      a device that pairs by PIN             wish       what an owner asks for: a relay, a window
//! plan       steps decoded from bytes: seeds, proptest and the fuzzer drive the same world
//! ```
//!
//! Nothing but `daemon` waits, and nothing else is random: a run is a function of its steps.

pub mod authority;
pub mod child;
pub mod client;
pub mod daemon;
pub mod invariants;
pub mod link;
pub mod machine;
pub mod net;
pub mod phone;
pub mod plan;
pub mod policy;
pub mod relay;
pub mod store;
pub mod story;
pub mod trace;
pub mod wish;
pub mod world;

pub use child::{Act, Child, Script};
pub use client::{Client, Event, RpcError};
pub use link::{Link, Stage};
pub use machine::{CLAUDE, Claude, Machine};
pub use phone::Phone;
pub use world::{Crash, LOOPBACK, LegStage, NONCE, World, signature};
