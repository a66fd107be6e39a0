//! Who may come in, and do what.

pub mod token;
