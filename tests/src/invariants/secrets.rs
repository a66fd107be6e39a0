//! Tokens: in no frame but the one that hands one out, and good only for whom they were made.
//!
//! Owns what a token looks like and to whom each went; refuses to know what it opens.

use clawd_protocol::access::token::{TokenDigest, TokenKind, kind_of};
use clawd_protocol::{ConnId, Head};
use serde_json::Value;

use super::{Identity, Invariants, Verdict, ensure};
use crate::store::Store;

impl Invariants {
    /// A token is in no frame but the one that hands it out, and there only once it is durable.
    pub(super) fn on_secret(&mut self, conn: ConnId, result: &Value, store: &Store) -> Verdict {
        let mut rest = result.clone();
        for key in ["device_token", "deviceToken"] {
            let Some(Value::String(token)) = rest.get_mut(key).map(Value::take) else { continue };
            let digest = TokenDigest::of(&token).to_bytes();
            ensure(store.has_digest(digest), || "a token before it is durable".to_owned())?;
            let to = *self.issued.entry(token).or_insert(conn);
            ensure(to == conn, || "one token for two peers".to_owned())?;
        }
        no_token(&rest.to_string(), "a result")
    }
}

/// Who the credential in a request head is good for, if it is.
pub(super) fn bearer(head: &Head<'_>, store: &Store) -> Option<Identity> {
    let (_, value) =
        head.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("authorization"))?;
    let token = std::str::from_utf8(value).ok()?.split_once(' ')?.1.trim();
    match kind_of(token)? {
        TokenKind::Local => (token == store.token().expose()).then_some(Identity::Owner),
        TokenKind::Device(id) => {
            let is_known = store.has_digest(TokenDigest::of(token).to_bytes());
            is_known.then_some(Identity::Device(id))
        }
    }
}

/// No text but a token has eight plus forty-three such characters in a row.
pub(super) fn no_token(text: &str, place: &str) -> Verdict {
    for prefix in ["clawd_l_", "clawd_d_"] {
        for (at, _) in text.match_indices(prefix) {
            let body = text.get(at + prefix.len()..).unwrap_or_default();
            let is_secret = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
            let length = body.bytes().take_while(|byte| is_secret(byte)).count();
            ensure(length < 43, || format!("a token in {place}"))?;
        }
    }
    Ok(())
}
