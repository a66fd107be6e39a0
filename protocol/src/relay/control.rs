//! What is said over a control connection: JSON text messages, one object each.
//!
//! Owns the words and what is signed; refuses to know when they are said.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::access::token::Secret;
use crate::contract::fingerprint::Fingerprint;

/// The relay to the daemon, on its control connection; and the first message to a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum FromRelay {
    /// The first message to a daemon: sign this.
    Challenge {
        /// Fresh and unguessable; 43 characters of base64url.
        nonce: String,
    },
    /// The daemon can be reached from now on.
    Registered {
        /// It should send `ping` this often; it is given up after three times as long.
        ping_secs: u64,
    },
    /// Somebody wants to talk to the daemon: `accept` within 10 s.
    Invite {
        /// What names the stream, once.
        ticket: String,
        /// The client's address.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<String>,
    },
    /// The answer to `ping`.
    Pong,
    /// To a client: binary messages from here on.
    Connected,
    /// The last message.
    Error {
        /// Why, for programs.
        code: Refusal,
        /// Why, for people.
        message: String,
    },
}

/// The daemon to the relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum FromHost {
    /// The answer to `challenge`.
    Register {
        /// Which daemon: the fingerprint of the key.
        daemon_id: Fingerprint,
        /// The key: DER of a `SubjectPublicKeyInfo` in base64url without padding.
        public_key: String,
        /// Its signature over [`signed`]: ECDSA, P-256, SHA-256, ASN.1 DER, in base64url without padding.
        signature: String,
        /// What the relay's owner wants to see, if anything.
        #[serde(default, skip_serializing_if = "Option::is_none", with = "shown")]
        access_token: Option<Secret>,
    },
    /// Still there?
    Ping,
}

/// Why a relay does not do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The daemon is not here.
    Offline,
    /// Too many at once.
    Busy,
    /// Not allowed: a wrong signature, another's id, a wrong access token, a ticket that is none.
    Refused,
    /// A newer registration of the same key has taken its place.
    Replaced,
    /// The relay is being stopped.
    GoingAway,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Offline => "offline",
            Self::Busy => "busy",
            Self::Refused => "refused",
            Self::Replaced => "replaced",
            Self::GoingAway => "going_away",
        })
    }
}

/// What a registration signs. The relay's own host is in it, so that another relay cannot use it (security G5).
///
/// Each part but the last is followed by a zero byte, which occurs in none of them.
#[must_use]
pub fn signed(nonce: &str, relay_host: &str, daemon_id: &Fingerprint) -> Vec<u8> {
    alloc::format!("clawd-relay-register-v1\0{nonce}\0{relay_host}\0{daemon_id}").into_bytes()
}

/// A secret that is shown in this one message.
mod shown {
    use super::{Secret, String};
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        secret: &Option<Secret>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match secret {
            Some(secret) => to.serialize_some(secret.expose()),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Secret>, D::Error> {
        Ok(Option::<String>::deserialize(from)?.map(Secret::new))
    }
}
