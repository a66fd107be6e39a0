//! The pure core of clawd: one value that is told what happened and says what to do.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod access;
pub mod agent;
pub mod client;
pub mod contract;
mod daemon;
mod engine;
pub mod text;
mod wire;
mod work;

pub use contract::config::{Config, ProviderConfig};
pub use contract::effect::{
    Change, Command, Effect, Effects, Env, Program, Question, Response, Sync, To,
};
pub use contract::error::{HeadFault, MessageFault, PathFault, ProgramFault, StoreFault};
pub use contract::id::{AskId, ConnId, DeviceId, MessageId, OpId, ProcId, SessionId, ToolCallId};
pub use contract::input::{Answer, Head, Input, Probe, Run, Source, Stream};
pub use contract::limits::Limits;
pub use contract::record;
pub use contract::snapshot::Snapshot;
pub use contract::time::{Instant, Now, Unix};
pub use daemon::Daemon;
