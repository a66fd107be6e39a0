//! What makes a daemon reachable from afar: its identity's key, and what its owner wants of a relay.
//!
//! Owns these two files' content; refuses to know TLS and relays. The access token of a relay is a secret, so the wish is kept
//! here and not in the database.

use std::io;

use clawd_protocol::access::token::Secret;
use clawd_protocol::record::RelaySettings;
use serde_json::{Value, json};

use super::private::{PrivateDir, Staged, quoted};
use super::{FileError, Inspection};
use crate::tls::Identity;

pub(super) const IDENTITY_FILE: &str = "identity.key";
pub(super) const RELAY_FILE: &str = "relay.json";
const BYTES_MAX: usize = 4096;

impl Inspection {
    /// The daemon's identity; `None` before the first start.
    ///
    /// # Errors
    /// The file is unsafe or no key.
    pub fn identity(&self) -> Result<Option<Identity>, FileError> {
        load_identity(&self.dir)
    }
}

fn load_identity(dir: &PrivateDir) -> Result<Option<Identity>, FileError> {
    let Some(bytes) = dir.read(IDENTITY_FILE, BYTES_MAX)? else { return Ok(None) };
    let path = dir.path().join(IDENTITY_FILE);
    Identity::from_pkcs8(&bytes).map(Some).map_err(|error| {
        // Whoever starts without the file gets a new identity, and no device knows it.
        FileError::refused(&path, error.to_string(), format!("rm {}", quoted(&path)))
    })
}

/// The daemon's identity; made if there is none (security A2, A3).
pub(crate) fn load_or_make_identity(dir: &PrivateDir) -> Result<Identity, FileError> {
    if let Some(identity) = load_identity(dir)? {
        return Ok(identity);
    }
    stage_new_identity(dir)?.create()?;
    let path = dir.path().join(IDENTITY_FILE);
    load_identity(dir)?.ok_or_else(|| {
        FileError::failed("keep", &path)(io::Error::new(io::ErrorKind::NotFound, "it was removed"))
    })
}

/// Writes a new identity beside the old one's file; [`Staged::replace`] then puts it in its place.
pub(crate) fn stage_new_identity(dir: &PrivateDir) -> Result<Staged, FileError> {
    let path = dir.path().join(IDENTITY_FILE);
    let identity = Identity::generate()
        .map_err(|error| FileError::failed("make", &path)(io::Error::other(error)))?;
    dir.stage(IDENTITY_FILE, &[identity.pkcs8()])
}

/// What the owner wants of a relay, if anything.
pub(crate) fn load_relay(dir: &PrivateDir) -> Result<Option<RelaySettings>, FileError> {
    let Some(bytes) = dir.read(RELAY_FILE, BYTES_MAX)? else { return Ok(None) };
    let path = dir.path().join(RELAY_FILE);
    let read = || -> Option<RelaySettings> {
        let value: Value = serde_json::from_slice(&bytes).ok()?;
        let text = |name: &str| value.get(name).and_then(Value::as_str);
        Some(RelaySettings {
            enabled: value.get("enabled")?.as_bool()?,
            url: text("url")?.parse().ok()?,
            pin: match text("pin") {
                Some(pin) => Some(pin.parse().ok()?),
                None => None,
            },
            access_token: text("accessToken").map(|token| Secret::new(token.to_owned())),
        })
    };
    read().map(Some).ok_or_else(|| {
        let fix = format!("rm {} and type: clawd relay enable", quoted(&path));
        FileError::refused(&path, "it says nothing about a relay that can be understood", fix)
    })
}

/// Writes it beside the old file.
pub(crate) fn stage_relay(dir: &PrivateDir, wanted: &RelaySettings) -> Result<Staged, FileError> {
    let text = json!({
        "enabled": wanted.enabled,
        "url": wanted.url.to_string(),
        "pin": wanted.pin.map(|pin| pin.to_string()),
        "accessToken": wanted.access_token.as_ref().map(Secret::expose),
    });
    dir.stage(RELAY_FILE, &[text.to_string().as_bytes(), b"\n"])
}
