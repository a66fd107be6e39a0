//! A relay's key, as people write it down.
//!
//! Owns one spelling, that of HTTP's public key pins (RFC 7469, section 2.1.1), which `openssl` prints with three commands;
//! refuses to know who compares it with what.

use alloc::format;
use alloc::string::String;
use core::fmt;

use data_encoding::BASE64;

use crate::contract::fingerprint::Fingerprint;

const PREFIX: &str = "sha256/";

/// Not a pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoPin;

impl fmt::Display for NoPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a pin is sha256/ and 44 characters of base64, the last of them =")
    }
}

impl core::error::Error for NoPin {}

/// Reads `sha256/…`: the base64 of SHA-256 over the key as DER of a `SubjectPublicKeyInfo`, with its padding.
///
/// ```
/// use clawd_protocol::relay::pin;
/// let key = clawd_protocol::Fingerprint::of(b"a key");
/// let text = pin::format(&key);
/// assert_eq!(text.len(), 51);
/// assert_eq!(pin::parse(&text), Ok(key));
/// assert!(pin::parse("sha256/AAAA").is_err());
/// ```
///
/// # Errors
///
/// When it is anything else.
pub fn parse(text: &str) -> Result<Fingerprint, NoPin> {
    let digits = text.strip_prefix(PREFIX).ok_or(NoPin)?;
    let bytes = BASE64.decode(digits.as_bytes()).map_err(|_| NoPin)?;
    bytes.try_into().map(Fingerprint::from_bytes).map_err(|_| NoPin)
}

/// Writes it as [`parse`] reads it.
#[must_use]
pub fn format(key: &Fingerprint) -> String {
    format!("{PREFIX}{}", BASE64.encode(&key.to_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_read_in_one_spelling_only() {
        // SHA-256 of nothing, as `openssl dgst -sha256 -binary </dev/null | openssl enc -base64` prints it.
        let text = "sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        let key = Fingerprint::of(b"");
        assert_eq!(parse(text), Ok(key));
        assert_eq!(format(&key), text);
        for wrong in [
            "",
            "sha256/",
            "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
            "SHA256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
            "sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU",
            "sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFV=",
            "sha256/47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU=",
            "sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU= ",
            "sha256/AAAA",
        ] {
            assert_eq!(parse(wrong), Err(NoPin), "{wrong}");
        }
    }
}
