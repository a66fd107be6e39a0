//! What an owner wishes for, in stories: a relay, and a window for a device that types a PIN.
//!
//! Owns the wishes and the words of their answers; refuses to know what a story makes of them.

use serde_json::{Value, json};

use crate::client::{Client, RpcError};
use crate::world::{NONCE, World};

/// The relay that is wished for.
pub const RELAY: &str = "wss://relay.example.org/clawd";
/// A ticket as a relay makes them.
pub const TICKET: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB";

/// A daemon whose owner wants a relay.
#[must_use]
pub fn wanting() -> (World, Client) {
    let mut world = World::default();
    let owner = world.owner();
    world.wish_relay(owner, json!({"url": RELAY, "enabled": true})).expect("set");
    (world, owner)
}

/// What a relay says first.
#[must_use]
pub fn challenge() -> String {
    json!({"type": "challenge", "nonce": NONCE}).to_string()
}

/// Another PIN than this one: so many further.
#[must_use]
pub fn wrong(pin: &str, by: u32) -> String {
    let number: u32 = pin.parse().expect("digits");
    format!("{:06}", (number + by) % 1_000_000)
}

impl World {
    /// `daemon.setRelay`.
    ///
    /// # Errors
    ///
    /// The daemon's refusal.
    pub fn wish_relay(&mut self, owner: Client, params: Value) -> Result<Value, RpcError> {
        self.call(owner, "daemon.setRelay", params)
    }

    /// What `daemon.status` says of the relay.
    pub fn relay(&mut self, client: Client) -> Value {
        self.call(client, "daemon.status", json!({})).expect("a status")["relay"].clone()
    }

    /// A window in which nobody is asked: its PIN.
    pub fn pin_window(&mut self, owner: Client) -> String {
        let params = json!({"confirm": false});
        let window = self.call(owner, "daemon.pairPin", params).expect("a window");
        let pin = window["pin"].as_str().expect("a PIN").to_owned();
        assert!(pin.len() == 6 && pin.bytes().all(|byte| byte.is_ascii_digit()), "{pin}");
        pin
    }
}
