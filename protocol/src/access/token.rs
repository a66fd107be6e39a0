//! Tokens: how they look, how they are made, how they are compared.
//!
//! Owns the two token formats (security A1, E1) and the types that keep secrets from being printed; refuses to know who
//! holds a token. Nobody keeps a token in memory to compare with: only its SHA-256.
//!
//! ```text
//! clawd_l_ + 43 Base62 (256 bit) + 6 Base62 CRC-32              the local token
//! clawd_d_ + 8 selector + _ + 43 Base62 + 6 Base62 CRC-32       a device's token
//! ```
//!
//! The prefix lets secret scanners find a leaked token; the checksum only catches typing mistakes.

use alloc::string::{String, ToString};
use core::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::contract::id::DeviceId;
use crate::engine::entropy::{Entropy, base62_of_u32};

const LOCAL_PREFIX: &str = "clawd_l_";
const DEVICE_PREFIX: &str = "clawd_d_";
const SECRET_CHARS: usize = 43;
const CHECK_CHARS: usize = 6;

/// A text that must not be printed: `Debug` hides it, memory is wiped when it is dropped, equality takes the same time
/// wherever two secrets differ.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Hides a text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself, for the one place that must have it. Never log it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Eq for Secret {}

/// SHA-256 of a token. Tokens have 256 bits of entropy, so a plain hash cannot be searched.
#[derive(Clone, Copy)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    /// The digest of a token's text.
    #[must_use]
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// From a stored digest.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// To be stored.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 32] {
        self.0
    }

    /// Compares in constant time.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }

    /// What only a holder of the token can say about `nonce`: lets a client test who listens on a port before it shows
    /// the token there (security A7). HMAC-SHA256 (RFC 2104) in hexadecimal. It holds for one `port` (0: the Unix
    /// socket), or a program on ours could have it from the daemon on another.
    #[must_use]
    pub fn proof(&self, nonce: &str, port: u16) -> String {
        use core::fmt::Write as _;
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return String::new() };
        mac.update(b"clawd-ping-v1\0");
        mac.update(&port.to_be_bytes());
        mac.update(nonce.as_bytes());
        let mut hex = String::with_capacity(64);
        for byte in mac.finalize().into_bytes() {
            let _ = write!(hex, "{byte:02x}");
        }
        hex
    }

    /// Whether `proof` is what [`Self::proof`] gives for `nonce` on `port`; in constant time.
    #[must_use]
    pub fn is_proved_by(&self, nonce: &str, port: u16, proof: &str) -> bool {
        self.proof(nonce, port).as_bytes().ct_eq(proof.as_bytes()).into()
    }
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenDigest(…)")
    }
}

/// A token's kind and, for a device, its selector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// The local token.
    Local,
    /// A device's token.
    Device(DeviceId),
}

/// What a text is that should be a token; `None` if its form or checksum is wrong.
///
/// ```
/// use clawd_protocol::access::token::{TokenKind, kind_of, mint_local};
/// let token = mint_local([1; 32]);
/// assert_eq!(kind_of(token.expose()), Some(TokenKind::Local));
/// assert_eq!(kind_of("clawd_l_guess"), None);
/// ```
#[must_use]
pub fn kind_of(text: &str) -> Option<TokenKind> {
    let (body, check) = text.split_at_checked(text.len().checked_sub(CHECK_CHARS)?)?;
    if check.as_bytes() != base62_of_u32(crc32fast::hash(body.as_bytes())) {
        return None;
    }
    let is_secret = |secret: &str| {
        secret.len() == SECRET_CHARS && secret.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    if let Some(secret) = body.strip_prefix(LOCAL_PREFIX) {
        return is_secret(secret).then_some(TokenKind::Local);
    }
    let (selector, secret) = body.strip_prefix(DEVICE_PREFIX)?.split_once('_')?;
    is_secret(secret).then_some(())?;
    selector.parse().ok().map(TokenKind::Device)
}

/// Makes a local token from 32 bytes of the operating system's entropy; for the first start.
#[must_use]
pub fn mint_local(entropy: [u8; 32]) -> Secret {
    local(&mut Entropy::new(entropy))
}

pub(crate) fn local(entropy: &mut Entropy) -> Secret {
    finish(LOCAL_PREFIX.to_string(), entropy)
}

pub(crate) fn device(id: DeviceId, entropy: &mut Entropy) -> Secret {
    let mut text = String::from(DEVICE_PREFIX);
    text.push_str(id.as_str());
    text.push('_');
    finish(text, entropy)
}

fn finish(mut text: String, entropy: &mut Entropy) -> Secret {
    // Room for all at once: growing would leave unwiped copies behind.
    text.reserve_exact(SECRET_CHARS + CHECK_CHARS);
    let secret = Zeroizing::new(entropy.base62(SECRET_CHARS));
    text.push_str(&secret);
    for digit in base62_of_u32(crc32fast::hash(text.as_bytes())) {
        text.push(char::from(digit));
    }
    Secret::new(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use alloc::format;

    #[test]
    fn a1_tokens_have_their_form_their_checksum_and_never_repeat() {
        let mut entropy = Entropy::new([3; 32]);
        let mut seen = BTreeSet::new();
        for _ in 0..10_000 {
            let token = local(&mut entropy);
            assert_eq!(kind_of(token.expose()), Some(TokenKind::Local));
            assert_eq!(token.expose().len(), 8 + 43 + 6);
            assert!(seen.insert(token.expose().to_string()));
        }
    }

    #[test]
    fn a1_secrets_do_not_print() {
        let token = mint_local([9; 32]);
        let digest = TokenDigest::of(token.expose());
        assert_eq!(format!("{token:?} {digest:?}"), "Secret(…) TokenDigest(…)");
    }

    #[test]
    fn e1_device_tokens_carry_their_selector() {
        let mut entropy = Entropy::new([4; 32]);
        let id = entropy.device_id();
        let token = device(id, &mut entropy);
        assert_eq!(kind_of(token.expose()), Some(TokenKind::Device(id)));
    }

    #[test]
    fn a_changed_character_is_noticed() {
        let token = mint_local([5; 32]);
        for at in 0..token.expose().len() {
            let mut text = token.expose().to_string().into_bytes();
            text[at] = if text[at] == b'a' { b'b' } else { b'a' };
            assert_eq!(kind_of(core::str::from_utf8(&text).unwrap()), None, "at {at}");
        }
        assert_eq!(kind_of(""), None);
        assert_eq!(kind_of("é"), None);
        assert_eq!(kind_of("€€€€€€€"), None);
    }

    #[test]
    fn a7_only_the_holder_can_prove() {
        let ours = TokenDigest::of(mint_local([1; 32]).expose());
        let theirs = TokenDigest::of(mint_local([2; 32]).expose());
        let proof = ours.proof("nonce", 4300);
        assert_eq!(proof.len(), 64);
        assert!(ours.is_proved_by("nonce", 4300, &proof));
        assert!(!ours.is_proved_by("other", 4300, &proof));
        assert!(!theirs.is_proved_by("nonce", 4300, &proof));
        assert!(!ours.is_proved_by("nonce", 4300, ""));
        assert!(!ours.is_proved_by("nonce", 4301, &proof), "another daemon of ours");
    }
}
