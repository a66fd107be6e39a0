//! The name of a key: of the daemon's identity, or of a device.
//!
//! Owns the hash and its two spellings; refuses to know keys, certificates and handshakes. A name is a fingerprint at once:
//! whoever has it can tell whether a TLS peer is the one, and needs nobody else to say so.

use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use sha2::{Digest, Sha256};

/// SHA-256 over a public key as DER of a `SubjectPublicKeyInfo` (RFC 5280, section 4.1.2.7).
///
/// ```
/// use clawd_protocol::Fingerprint;
/// let id = Fingerprint::of(b"a key");
/// assert_eq!(id.to_string().len(), 52);
/// assert_eq!(id.grouped().len(), 8 * 7 + 7);
/// assert_eq!(id.to_string().parse(), Ok(id));
/// assert_eq!(id.grouped().parse(), Ok(id));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const LENGTH: usize = 52;
/// Digits that share a check digit, and digits that are shown together.
const CHECKED: usize = 13;
const GROUP: usize = 7;

impl Fingerprint {
    /// The fingerprint of a key in DER.
    #[must_use]
    pub fn of(spki: &[u8]) -> Self {
        Self(Sha256::digest(spki).into())
    }

    /// From the hash itself.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The hash itself.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 32] {
        self.0
    }

    /// For people: eight groups of seven, the last of every fourteen digits a check digit (Luhn's, modulo 32). It reads back
    /// as the same fingerprint, and not at all with a digit that is wrong.
    #[must_use]
    pub fn grouped(&self) -> String {
        let plain = alloc::format!("{self}");
        let mut checked = String::with_capacity(LENGTH + LENGTH / CHECKED);
        for block in plain.as_bytes().chunks(CHECKED) {
            checked.extend(block.iter().copied().chain([check_digit(block)]).map(char::from));
        }
        let mut text = String::with_capacity(checked.len() * 8 / GROUP);
        for (at, digit) in checked.chars().enumerate() {
            if at > 0 && at % GROUP == 0 {
                text.push('-');
            }
            text.push(digit);
        }
        text
    }
}

/// Lower-case base32 (RFC 4648, section 6) without padding: a `daemonId`.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for block in self.0.chunks(5) {
            let bits = block.iter().fold(0_u64, |bits, &byte| bits << 8 | u64::from(byte));
            let bits = bits << (40 - 8 * block.len());
            for digit in 0..(block.len() * 8).div_ceil(5) {
                let value = usize::try_from(bits >> (35 - 5 * digit) & 31).unwrap_or_default();
                f.write_str(char::from(digit_of(value)).encode_utf8(&mut [0; 4]))?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Fingerprint {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Fingerprint {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <alloc::borrow::Cow<'_, str>>::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Not a fingerprint in either spelling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoFingerprint;

impl fmt::Display for NoFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "not the id of a daemon: it has 52 letters and digits, or 8 groups of 7 of them",
        )
    }
}

impl core::error::Error for NoFingerprint {}

impl FromStr for Fingerprint {
    type Err = NoFingerprint;

    fn from_str(text: &str) -> Result<Self, NoFingerprint> {
        if text.len() == LENGTH {
            return from_plain(text.as_bytes());
        }
        let is_grouped = text.len() == LENGTH / CHECKED * 2 * (GROUP + 1) - 1;
        let groups = || text.split('-');
        if !is_grouped || groups().any(|group| group.len() != GROUP) {
            return Err(NoFingerprint);
        }
        let digits: alloc::vec::Vec<u8> = groups().flat_map(str::bytes).collect();
        let mut plain = alloc::vec::Vec::with_capacity(LENGTH);
        for block in digits.chunks(CHECKED + 1) {
            let Some((check, block)) = block.split_last() else { return Err(NoFingerprint) };
            if check_digit(block) != *check {
                return Err(NoFingerprint);
            }
            plain.extend_from_slice(block);
        }
        from_plain(&plain)
    }
}

fn from_plain(digits: &[u8]) -> Result<Fingerprint, NoFingerprint> {
    let mut bytes = [0; 32];
    let mut to = bytes.iter_mut();
    let (mut bits, mut held) = (0_u32, 0);
    for digit in digits {
        bits = bits << 5 | value_of(*digit).ok_or(NoFingerprint)?;
        held += 5;
        if held >= 8 {
            held -= 8;
            let byte = u8::try_from(bits >> held & 255).map_err(|_| NoFingerprint)?;
            *to.next().ok_or(NoFingerprint)? = byte;
            bits &= (1 << held) - 1;
        }
    }
    // One spelling each: what is left of the last digit is zero.
    if digits.len() != LENGTH || bits != 0 {
        return Err(NoFingerprint);
    }
    Ok(Fingerprint(bytes))
}

fn digit_of(value: usize) -> u8 {
    DIGITS.get(value).copied().unwrap_or(b'a')
}

fn value_of(digit: u8) -> Option<u32> {
    let at = DIGITS.iter().position(|known| *known == digit)?;
    u32::try_from(at).ok()
}

fn check_digit(block: &[u8]) -> u8 {
    let mut sum = 0;
    for (at, digit) in block.iter().rev().enumerate() {
        let value = value_of(*digit).unwrap_or_default();
        let factor = if at % 2 == 0 { 2 } else { 1 };
        sum += value * factor / 32 + value * factor % 32;
    }
    digit_of(usize::try_from((32 - sum % 32) % 32).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use proptest::prelude::*;

    #[test]
    fn it_is_base32_as_others_write_it() {
        let zero = Fingerprint::from_bytes([0; 32]).to_string();
        assert_eq!(zero, "a".repeat(52));
        let ones = Fingerprint::from_bytes([255; 32]).to_string();
        assert_eq!(ones, "7".repeat(51) + "q");
    }

    proptest! {
        #[test]
        fn both_spellings_read_back(bytes: [u8; 32]) {
            let id = Fingerprint::from_bytes(bytes);
            prop_assert_eq!(id.to_string().parse(), Ok(id));
            prop_assert_eq!(id.grouped().parse(), Ok(id));
        }

        #[test]
        fn one_wrong_digit_is_noticed(bytes: [u8; 32], at in 0..63_usize, other in 0..32_usize) {
            let right = Fingerprint::from_bytes(bytes).grouped();
            let mut wrong = right.clone().into_bytes();
            prop_assume!(wrong[at] != b'-' && wrong[at] != DIGITS[other]);
            wrong[at] = DIGITS[other];
            let wrong = alloc::string::String::from_utf8(wrong).unwrap();
            prop_assert_eq!(wrong.parse::<Fingerprint>(), Err(NoFingerprint));
        }

        #[test]
        fn what_is_none_is_refused(text in "[a-z0-9-]{0,70}") {
            if let Ok(id) = text.parse::<Fingerprint>() {
                prop_assert!(id.to_string() == text || id.grouped() == text);
            }
        }
    }
}
