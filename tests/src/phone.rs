//! A device that pairs by PIN, as clients do it.
//!
//! Owns one run of SPAKE2 at a time over one connection; refuses to know what the daemon makes of it.

use clawd_protocol::pake::{Confirming, Device};
use clawd_protocol::{Fingerprint, Source};
use serde_json::{Value, json};

use crate::client::{Asked, Client, RpcError};
use crate::world::{IDENTITY, World};

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Phone {
    /// Its connection.
    pub client: Client,
    /// The key that it has shown.
    pub key: Option<Fingerprint>,
    /// The daemon's key as it saw it.
    pub sees: Fingerprint,
}

/// A run that the daemon has answered.
#[derive(Debug)]
pub struct Begun {
    client: Client,
    /// Its name.
    pub id: String,
    /// What the phone has said first.
    pub message: String,
    /// What the phone proves.
    pub confirm: String,
    rest: Confirming,
}

/// The key of the daemon of every world.
#[must_use]
pub fn daemon_key() -> Fingerprint {
    Fingerprint::of(IDENTITY)
}

impl World {
    /// A phone connects with TLS and shows this key.
    pub fn phone(&mut self, source: Source, key: Option<&[u8]>) -> Phone {
        let key = key.map(Fingerprint::of);
        Phone { client: self.secured(source, key), key, sees: daemon_key() }
    }
}

impl Phone {
    /// Begins a run with this PIN.
    ///
    /// # Errors
    ///
    /// The daemon's refusal.
    ///
    /// # Panics
    ///
    /// If the daemon's answer is none.
    pub fn begin(&self, world: &mut World, pin: &str) -> Result<Begun, RpcError> {
        let (device, message) = self.device(pin);
        let answer = world.call(self.client, "device.pairStart", json!({ "message": message }))?;
        Ok(self.begun(device, message, &answer))
    }

    fn device(&self, pin: &str) -> (Device, String) {
        let mut entropy = [0; 32];
        entropy[..8].copy_from_slice(&self.client.conn.0.to_le_bytes());
        Device::start(pin, self.key, self.sees, entropy)
    }

    fn begun(&self, device: Device, message: String, answer: &Value) -> Begun {
        let reply = answer["message"].as_str().expect("a message");
        let (rest, confirm) = device.finish(reply).expect("a good message");
        let id = answer["pairingId"].as_str().expect("an id").to_owned();
        Begun { client: self.client, id, message, confirm, rest }
    }

    /// Begins a run with this PIN, if the daemon answers at once.
    pub fn try_begin(&self, world: &mut World, pin: &str) -> Option<Begun> {
        let (device, message) = self.device(pin);
        let asked = world.ask(self.client, "device.pairStart", json!({ "message": message }));
        world.settle();
        let answer = world.answer(self.client, &asked)?.ok()?;
        Some(self.begun(device, message, &answer))
    }

    /// A whole run with this PIN, if nobody is asked.
    ///
    /// # Errors
    ///
    /// The daemon's refusal.
    ///
    /// # Panics
    ///
    /// If the daemon has not proved that it knows the PIN.
    pub fn pair(&self, world: &mut World, pin: &str) -> Result<Value, RpcError> {
        let run = self.begin(world, pin)?;
        let paired = world.call(self.client, "device.pairFinish", run.params())?;
        assert!(run.believes(&paired), "the daemon's proof");
        Ok(paired)
    }
}

impl Begun {
    /// The parameters of its end.
    #[must_use]
    pub fn params(&self) -> Value {
        let Self { id, confirm, .. } = self;
        json!({"pairingId": id, "confirm": confirm, "name": "phone", "platform": "ios"})
    }

    /// Ends the run and does not wait.
    pub fn finish(&self, world: &mut World) -> Asked {
        world.ask(self.client, "device.pairFinish", self.params())
    }

    /// Whether the daemon has proved that it knows the PIN.
    #[must_use]
    pub fn believes(&self, paired: &Value) -> bool {
        paired["confirm"].as_str().is_some_and(|confirm| self.rest.check(confirm))
    }
}
