//! TLS 1.3 to a key and not to a name: the one secure channel there is, on the LAN and through a relay.
//!
//! Owns keys, certificates and what each side demands of the other; refuses to know sockets and what is said. There is no
//! older TLS, no early data and no resumption, so each connection proves its keys anew (security G1, G2): revoking has
//! nothing left over to think of.

mod identity;
mod stream;
mod trust;

pub use identity::{Identity, NoIdentity, verify};
pub use stream::TlsStream;
pub(crate) use trust::Acceptor;
pub use trust::{
    Trusted, WrongKey, client_config, peer_key, relay_config, relay_config_with, server_config,
    server_name,
};
