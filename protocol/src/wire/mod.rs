//! What bytes mean. Leniency towards clients lives here and nowhere else.

pub(crate) mod event;
pub(crate) mod http;
pub(crate) mod json;
pub(crate) mod method;
pub(crate) mod params;
pub(crate) mod rpc;
pub(crate) mod view;
