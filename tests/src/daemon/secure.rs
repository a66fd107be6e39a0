//! A device's TLS to the daemon, as our own client makes it.
//!
//! Owns pinned connections and pairing over them; refuses to know what is said.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpStream};

use clawd_protocol::Fingerprint;
use clawd_runtime_mio::tls::{Identity, Trusted, client_config, server_name};
use rustls::{ClientConnection, StreamOwned};
use serde_json::{Value, json};

use super::client::Stream;
use super::{Client, Daemon, PATIENCE};

/// A TLS connection.
pub type Tls = StreamOwned<ClientConnection, TcpStream>;

/// Connects to a port on loopback, to this key and no other, and shows our own if there is one.
///
/// # Errors
/// Nobody accepts.
///
/// # Panics
/// If TLS cannot be configured at all.
pub fn tls(port: u16, key: Fingerprint, own: Option<&Identity>) -> io::Result<Tls> {
    tls_to(port, Trusted::Key(key), own)
}

/// As [`tls`], to whom one likes.
///
/// # Errors
/// Nobody accepts.
///
/// # Panics
/// If TLS cannot be configured at all.
pub fn tls_to(port: u16, trusted: Trusted, own: Option<&Identity>) -> io::Result<Tls> {
    let config = client_config(trusted, own).expect("a configuration");
    let session = ClientConnection::new(config, server_name()).expect("a session");
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(StreamOwned::new(session, stream))
}

impl Daemon {
    /// What its identity is known by.
    ///
    /// # Panics
    /// If it has none.
    #[must_use]
    pub fn key(&self) -> Fingerprint {
        let pkcs8 = fs::read(self.data.join("identity.key")).expect("an identity");
        Identity::from_pkcs8(&pkcs8).expect("a key").fingerprint()
    }

    /// A stranger's connection over TLS, with or without a key of its own.
    ///
    /// # Errors
    /// What the socket or one of the handshakes came to.
    pub fn connect_tls(&self, own: Option<&Identity>) -> io::Result<Client> {
        let tls = tls(self.port, self.key(), own)?;
        Client::over(Stream::Tls(Box::new(tls)), self.port, "")
    }
}

impl Client {
    /// Pairs as a device with this role, by what `owner` would show as a QR code; id and token.
    ///
    /// # Panics
    /// If it is refused.
    pub fn pair_by_ticket(&mut self, owner: &mut Self, role: &str) -> (String, String) {
        // It is scanned by one who sees the screen.
        let asked = json!({"role": role, "confirm": false});
        let window = owner.call("daemon.pairPin", asked).expect("a window");
        let shown = window["qrPayload"].as_str().expect("a QR code");
        let shown: Value = serde_json::from_str(shown).expect("JSON");
        let params = json!({
            "pairingId": shown["pairingId"],
            "ticket": shown["ticket"],
            "name": "tablet",
            "platform": "ios",
        });
        let device = self.call("device.pair", params).expect("paired");
        let text = |key: &str| device[key].as_str().expect("a text").to_owned();
        (text("device_id"), text("device_token"))
    }
}
