//! A PIN that never crosses the wire: SPAKE2 between a device that was told it and the daemon that made it up (security D6).
//!
//! Owns both halves of a run, what their messages may be, and the short code by which people recognise a device; refuses to
//! know windows, guesses and who may try. Texts in, texts out: base64url without padding, as they stand on the wire.
//!
//! ```text
//! device                                     daemon
//! Device::start   ── message ──────────────▶ Host::answer
//!                 ◀────────────── message ──
//! Device::finish  ── confirm ──────────────▶ Host::check
//! Confirming::check ◀──────────── confirm ──
//! ```
//!
//! Both keys, as each side saw them in the handshake of TLS, are part of what is agreed on: somebody in between has another
//! key, so the run fails and has cost one guess. Neither side says anything that a guess could be tested with before the
//! other has proved that it has the same key; the device proves first.
//!
//! The crate that does the arithmetic takes any point of the curve, our own included. Here only points of the large
//! subgroup come in, in their one encoding, never the neutral one and never the one that we have just sent.
//!
//! ```
//! use clawd_protocol::Fingerprint;
//! use clawd_protocol::pake::{Device, Host, Message};
//!
//! let (phone, desk) = (Fingerprint::of(b"the phone's key"), Fingerprint::of(b"the daemon's key"));
//! let (device, message) = Device::start("482913", Some(phone), desk, [1; 32]);
//! let message = Message::of_device(&message).unwrap();
//! let (host, reply) = Host::answer("482913", Some(phone), desk, &message, [2; 32]).unwrap();
//! let (device, confirm) = device.finish(&reply).unwrap();
//! let confirm = host.check(&confirm).unwrap();
//! assert!(device.check(&confirm));
//! ```

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, KeyInit, Mac};
use rand_core::{CryptoRng, RngCore};
use sha2::{Digest, Sha256};
use spake2::{Ed25519Group, Group, Identity, Password, Spake2};
use zeroize::Zeroizing;

use crate::contract::fingerprint::Fingerprint;
use crate::engine::entropy::Entropy;

const DEVICE_ID: &[u8] = b"clawd-device-v1";
const DAEMON_ID: &[u8] = b"clawd-daemon-v1";
const DEVICE_CONFIRMS: &[u8] = b"clawd-pair-device-confirms-v1\0";
const DAEMON_CONFIRMS: &[u8] = b"clawd-pair-daemon-confirms-v1\0";
const CODE_LABEL: &[u8] = b"clawd-pair-code-v1\0";
/// The side, and a point.
const MESSAGE_BYTES: usize = 33;
const CODE_DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// The first byte of a message.
const DEVICE_SIDE: u8 = b'A';
const DAEMON_SIDE: u8 = b'B';

/// No message of a run: not 33 bytes in base64url, of the other side, our own, or no point that a message may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoMessage;

impl fmt::Display for NoMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a message of pairing by PIN")
    }
}

impl core::error::Error for NoMessage {}

/// A message whose form was checked. That says nothing about the PIN behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message([u8; MESSAGE_BYTES]);

impl Message {
    /// Reads what a device says first.
    ///
    /// # Errors
    /// It can be none.
    pub fn of_device(text: &str) -> Result<Self, NoMessage> {
        Self::read(text, DEVICE_SIDE)
    }

    fn read(text: &str, side: u8) -> Result<Self, NoMessage> {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| NoMessage)?;
        let bytes: [u8; MESSAGE_BYTES] = bytes.try_into().map_err(|_| NoMessage)?;
        let message = Self(bytes);
        let is_fit = bytes.first() == Some(&side) && is_fit(message.point());
        if is_fit { Ok(message) } else { Err(NoMessage) }
    }

    fn point(&self) -> &[u8] {
        self.0.get(1..).unwrap_or_default()
    }
}

/// A point of the large subgroup, but the neutral one, in the one encoding that it has.
fn is_fit(bytes: &[u8]) -> bool {
    Ed25519Group::bytes_to_element(bytes).is_some_and(|point| {
        !point.is_small_order()
            && point.is_torsion_free()
            && Ed25519Group::element_to_bytes(&point) == bytes
    })
}

/// The device's half, until the daemon has answered.
pub struct Device(Half);

impl Device {
    /// Begins a run with the PIN that somebody typed: the run, and the message for the daemon. `own` is the key that the
    /// device has shown, if it has shown one; `daemon` the one that it has seen. `entropy` must be fresh.
    #[must_use]
    pub fn start(
        pin: &str,
        own: Option<Fingerprint>,
        daemon: Fingerprint,
        entropy: [u8; 32],
    ) -> (Self, String) {
        let half = Half::start(Spake2::start_a_with_rng, pin, own, daemon, entropy);
        let text = BASE64URL_NOPAD.encode(&half.own);
        (Self(half), text)
    }

    /// The daemon has answered: what the device proves, and what it waits for.
    ///
    /// # Errors
    /// It was no answer.
    pub fn finish(self, reply: &str) -> Result<(Confirming, String), NoMessage> {
        let reply = Message::read(reply, DAEMON_SIDE)?;
        let own = self.0.own.clone();
        let key = self.0.finish(&reply)?;
        let confirm = proof(&key, DEVICE_CONFIRMS, &own, &reply.0).map(|mac| encode(&mac));
        Ok((Confirming { key, device: own, daemon: reply.0 }, confirm.ok_or(NoMessage)?))
    }
}

/// The device's half, until the daemon has proved that it knows the PIN too.
pub struct Confirming {
    key: Zeroizing<Vec<u8>>,
    device: Vec<u8>,
    daemon: [u8; MESSAGE_BYTES],
}

impl Confirming {
    /// Whether the daemon knows the PIN and saw the same keys. Only then anything else that it said may be believed.
    #[must_use]
    pub fn check(&self, confirm: &str) -> bool {
        is_proved(&self.key, DAEMON_CONFIRMS, &self.device, &self.daemon, confirm)
    }
}

/// The daemon's half, until the device has proved that it knows the PIN.
pub struct Host {
    key: Zeroizing<Vec<u8>>,
    device: Message,
    own: Vec<u8>,
}

impl Host {
    /// Answers a device's message: the run, and the message for the device. `device` is the key that the device has shown, if
    /// it has shown one; `own` the daemon's. `entropy` must be fresh.
    ///
    /// # Errors
    /// The message is the daemon's own.
    pub fn answer(
        pin: &str,
        device: Option<Fingerprint>,
        own: Fingerprint,
        message: &Message,
        entropy: [u8; 32],
    ) -> Result<(Self, String), NoMessage> {
        let half = Half::start(Spake2::start_b_with_rng, pin, device, own, entropy);
        let own = half.own.clone();
        let text = BASE64URL_NOPAD.encode(&own);
        let key = half.finish(message)?;
        Ok((Self { key, device: message.clone(), own }, text))
    }

    /// What the daemon proves in return, if the device has proved that it knows the PIN. This is the one guess of a run.
    #[must_use]
    pub fn check(self, confirm: &str) -> Option<String> {
        let device = &self.device.0;
        if !is_proved(&self.key, DEVICE_CONFIRMS, device, &self.own, confirm) {
            return None;
        }
        proof(&self.key, DAEMON_CONFIRMS, device, &self.own).map(|mac| encode(&mac))
    }
}

macro_rules! silent {
    ($($name:ident),+) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        }
    )+};
}

silent!(Device, Confirming, Host);

/// What both halves have in common.
struct Half {
    run: Spake2<Ed25519Group>,
    own: Vec<u8>,
}

type Begin = fn(&Password, &Identity, &Identity, Chance) -> (Spake2<Ed25519Group>, Vec<u8>);

impl Half {
    fn start(
        begin: Begin,
        pin: &str,
        device: Option<Fingerprint>,
        daemon: Fingerprint,
        entropy: [u8; 32],
    ) -> Self {
        let mut device_id = DEVICE_ID.to_vec();
        device_id.extend(device.map(Fingerprint::to_bytes).into_iter().flatten());
        let mut daemon_id = DAEMON_ID.to_vec();
        daemon_id.extend(daemon.to_bytes());
        let (device_id, daemon_id) = (Identity::new(&device_id), Identity::new(&daemon_id));
        let chance = Chance(Entropy::new(entropy));
        let (run, own) = begin(&Password::new(pin), &device_id, &daemon_id, chance);
        Self { run, own }
    }

    fn finish(self, theirs: &Message) -> Result<Zeroizing<Vec<u8>>, NoMessage> {
        if self.own.get(1..) == Some(theirs.point()) {
            return Err(NoMessage);
        }
        self.run.finish(&theirs.0).map(Zeroizing::new).map_err(|_| NoMessage)
    }
}

/// Our generator, as the crate wants one.
struct Chance(Entropy);

impl RngCore for Chance {
    fn next_u32(&mut self) -> u32 {
        u32::from_le_bytes(self.0.bytes())
    }

    fn next_u64(&mut self) -> u64 {
        u64::from_le_bytes(self.0.bytes())
    }

    fn fill_bytes(&mut self, to: &mut [u8]) {
        self.0.fill(to);
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), rand_core::Error> {
        self.0.fill(to);
        Ok(())
    }
}

impl CryptoRng for Chance {}

fn mac(key: &[u8], label: &[u8], device: &[u8], daemon: &[u8]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    for part in [label, device, daemon] {
        mac.update(part);
    }
    Some(mac)
}

fn proof(key: &[u8], label: &[u8], device: &[u8], daemon: &[u8]) -> Option<[u8; 32]> {
    mac(key, label, device, daemon).map(|mac| mac.finalize().into_bytes().into())
}

/// In constant time, but for its length.
fn is_proved(key: &[u8], label: &[u8], device: &[u8], daemon: &[u8], confirm: &str) -> bool {
    let Ok(confirm) = BASE64URL_NOPAD.decode(confirm.as_bytes()) else { return false };
    mac(key, label, device, daemon).is_some_and(|mac| mac.verify_slice(&confirm).is_ok())
}

fn encode(mac: &[u8]) -> String {
    BASE64URL_NOPAD.encode(mac)
}

/// A code by which people see that the device at their desk is the one in their hand: `k4m2-7qxd`, the same on both screens.
/// Each side puts in the keys that it saw, so with somebody in between the two differ. It has 40 bits and no secret: it
/// is for eyes, beside what the PIN or the ticket proves, and never instead of it.
#[must_use]
pub fn comparison_code(
    daemon: &Fingerprint,
    device: Option<&Fingerprint>,
    pairing_id: &str,
) -> String {
    let mut hash = Sha256::new();
    hash.update(CODE_LABEL);
    hash.update(daemon.to_bytes());
    match device {
        Some(device) => {
            hash.update([1]);
            hash.update(device.to_bytes());
        }
        None => hash.update([0]),
    }
    hash.update(pairing_id.as_bytes());
    let mut code = String::with_capacity(9);
    for (at, byte) in hash.finalize().iter().take(8).enumerate() {
        if at == 4 {
            code.push('-');
        }
        let digit = CODE_DIGITS.get(usize::from(byte % 32)).copied().unwrap_or(b'a');
        code.push(char::from(digit));
    }
    code
}

#[cfg(test)]
mod tests;
