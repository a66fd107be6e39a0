//! What a QR code says: where a daemon is, how to know it, and a ticket that lets one device in, once.
//!
//! Owns the payload's shape; refuses to know windows and tickets' lives. Nothing in it lives longer than the window
//! (security D7): no local token and no device token has a place here.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::contract::fingerprint::Fingerprint;
use crate::relay::RelayUrl;

/// The payload of a pairing code, JSON in the code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Invitation {
    /// The payload's version: 1.
    pub v: u32,
    /// The daemon's name, for people.
    pub host: String,
    /// Where it is most likely reached: `wss://192.168.1.23:4300`. Absent where only a relay leads to it: a device that
    /// tried the daemon's loopback would offer the ticket to whatever listens on its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// All the places where it may be reached directly; none if [`Self::url`] is the only one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// The relay at which it is, if it uses one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<RelayUrl>,
    /// Its id: the one key that may answer.
    pub daemon_id: Fingerprint,
    /// The window's name.
    pub pairing_id: String,
    /// What opens it, once: 32 random bytes in base64url.
    pub ticket: String,
    /// When it closes, in seconds since 1970.
    pub exp: u64,
}

/// Not a payload of a pairing code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoInvitation {
    /// It is no JSON object with the fields of one; which, and why.
    Malformed(String),
    /// It has a version that this clawd does not know.
    Version(u32),
}

impl fmt::Display for NoInvitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(why) => write!(f, "not the content of a pairing code: {why}"),
            Self::Version(v) => write!(f, "the pairing code has version {v}, this clawd reads 1"),
        }
    }
}

impl core::error::Error for NoInvitation {}

/// Longer is none: codes of that size cannot be scanned.
const BYTES_MAX: usize = 2048;

impl Invitation {
    /// Reads the content of a code.
    ///
    /// # Errors
    /// What is missing or wrong, by the field's name. The ticket is never part of it.
    pub fn read(text: &str) -> Result<Self, NoInvitation> {
        #[derive(Deserialize)]
        struct Version {
            v: u32,
        }
        if text.len() > BYTES_MAX {
            return Err(NoInvitation::Malformed("it is too long".to_string()));
        }
        let malformed = |error: serde_json::Error| NoInvitation::Malformed(error.to_string());
        let Version { v } = serde_json::from_str(text).map_err(malformed)?;
        if v != 1 {
            return Err(NoInvitation::Version(v));
        }
        serde_json::from_str(text).map_err(malformed)
    }
}
