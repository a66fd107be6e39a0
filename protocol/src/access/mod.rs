//! Who may come in, and do what.

pub(crate) mod limiter;
pub mod token;
