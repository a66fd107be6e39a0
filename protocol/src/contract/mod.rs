//! All that a runtime sees: what goes in, what comes out, and the values in both.
//!
//! Owns the vocabulary; refuses to know any behaviour.

pub mod config;
pub mod effect;
pub mod error;
pub mod fingerprint;
pub mod id;
pub mod input;
pub mod limits;
pub mod note;
pub mod record;
pub mod snapshot;
pub mod time;
