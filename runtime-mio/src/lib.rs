//! The eyes and hands of clawd.

pub mod files;
pub mod guard;
pub mod process;
pub mod store;
pub mod worker;

mod clock;
mod head;
mod websocket;
