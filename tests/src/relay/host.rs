//! A daemon that only meets clients at a relay.
//!
//! Owns a registration with a real identity, and taking invitations; refuses to know what a daemon says on a stream.

use std::net::TcpStream;

use clawd_protocol::relay::control::signed;
use clawd_runtime_mio::tls::Identity;
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

use super::{Leg, NAME, Wire};

/// A simulated daemon at a relay.
#[derive(Debug)]
pub struct Host<S = TcpStream> {
    /// Its control connection.
    pub control: Leg<S>,
    id: String,
    port: u16,
}

impl Host {
    /// Registers in clear; the whole answer if that is refused.
    ///
    /// # Errors
    /// What the relay said, or null.
    pub fn register(port: u16, identity: &Identity) -> Result<Self, Value> {
        Self::register_as(port, identity, |_, message| message)
    }

    /// Registers in clear with a message that was changed before it is sent, by somebody who knows the nonce.
    ///
    /// # Errors
    /// What the relay said, or null.
    pub fn register_as(
        port: u16,
        identity: &Identity,
        change: impl FnOnce(&str, Value) -> Value,
    ) -> Result<Self, Value> {
        Self::register_over(port, identity, change)
    }
}

impl<S: Wire> Host<S> {
    /// As [`Host::register_as`], in clear or in TLS.
    ///
    /// # Errors
    /// What the relay said, or null.
    ///
    /// # Panics
    /// If the system has no randomness.
    pub fn register_over(
        port: u16,
        identity: &Identity,
        change: impl FnOnce(&str, Value) -> Value,
    ) -> Result<Self, Value> {
        let daemon = identity.fingerprint();
        let id = daemon.to_string();
        let control = Leg::open_with(port, &format!("/v1/host/{id}"), &[]);
        let mut control = control.map_err(|status| json!({ "status": status }))?;
        let challenge = control.text().ok_or(Value::Null)?;
        let nonce = challenge["nonce"].as_str().unwrap_or_default();
        control.say(&change(nonce, registration(identity, nonce, NAME)));
        let answer = control.text().ok_or(Value::Null)?;
        if answer["type"] == "registered" { Ok(Self { control, id, port }) } else { Err(answer) }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// A stream from a client to this daemon: the client's end, and the daemon's.
    ///
    /// # Panics
    /// If the relay does not bring them together.
    pub fn meet(&mut self) -> (Leg<S>, Leg<S>) {
        self.meet_with(&[])
    }

    /// As [`Self::meet`], with more headers of both.
    ///
    /// # Panics
    /// If the relay does not bring them together.
    pub fn meet_with(&mut self, headers: &[(&str, &str)]) -> (Leg<S>, Leg<S>) {
        let path = format!("/v1/connect/{}", self.id);
        let mut client = Leg::<S>::open_with(self.port, &path, headers).expect("an upgrade");
        let daemon = self.accept_with(headers).expect("an invitation that is good");
        let answer = client.text();
        assert_eq!(answer, Some(json!({"type": "connected"})));
        (client, daemon)
    }

    /// Waits for an invitation and takes it.
    ///
    /// # Errors
    /// The HTTP status of the refusal.
    pub fn accept(&mut self) -> Result<Leg<S>, u16> {
        self.accept_with(&[])
    }

    fn accept_with(&mut self, headers: &[(&str, &str)]) -> Result<Leg<S>, u16> {
        let ticket = self.ticket().ok_or(0_u16)?;
        Leg::open_with(self.port, &format!("/v1/accept/{}/{ticket}", self.id), headers)
    }

    /// Waits for an invitation.
    pub fn ticket(&mut self) -> Option<String> {
        loop {
            let message = self.control.text()?;
            if message["type"] == "invite" {
                return message["ticket"].as_str().map(str::to_owned);
            }
        }
    }
}

/// A `register` message, signed for a relay of this name.
///
/// # Panics
/// If the system has no randomness.
#[must_use]
pub fn registration(identity: &Identity, nonce: &str, name: &str) -> Value {
    let daemon = identity.fingerprint();
    let signature = identity.sign(&signed(nonce, name, &daemon)).expect("randomness");
    json!({
        "type": "register",
        "daemonId": daemon.to_string(),
        "publicKey": BASE64URL_NOPAD.encode(identity.public_key()),
        "signature": BASE64URL_NOPAD.encode(&signature),
    })
}
