//! The relay: two byte streams are introduced to each other, and copied.
//!
//! Owns what is said to a relay and who may meet whom at one; refuses to know bytes, sockets and TLS. What flows between
//! the two is TLS to the daemon's own key, so a relay never sees any of it.
//!
//! ```text
//! daemon ──wss──▶ /v1/host/<daemonId>             control: JSON text messages
//! client ──wss──▶ /v1/connect/<daemonId>          one text message, `connected` or `error`; then binary ones, a byte stream
//! daemon ──wss──▶ /v1/accept/<daemonId>/<ticket>  binary messages, the other end of it
//! ```

pub mod control;
pub mod pin;
pub mod rendezvous;
mod url;

pub use url::{NoRelayUrl, RelayUrl};
