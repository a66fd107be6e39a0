//! What bytes mean. Leniency towards clients lives only here.

pub(crate) mod http;
