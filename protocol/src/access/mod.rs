//! Who may come in, and do what.

pub(crate) mod limiter;
pub(crate) mod pairing;
pub mod token;
