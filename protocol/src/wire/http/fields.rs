//! The headers of one request, each looked at once.
//!
//! Owns which headers mean something and how often each may come; refuses to know which values are welcome, except for
//! the WebSocket handshake's own (RFC 6455, section 4.2.1). Invariant: whatever is in [`Fields`] came exactly once.

use alloc::borrow::ToOwned;
use alloc::string::String;

use super::{bad_request, refusal};
use crate::access::token::Secret;
use crate::contract::effect::Response;

/// What matters of the headers.
#[derive(Debug, Default)]
pub(crate) struct Fields<'a> {
    pub(crate) host: Option<&'a [u8]>,
    pub(super) origin: Option<&'a [u8]>,
    /// A body, or the wish to send one.
    pub(crate) has_body: bool,
    pub(crate) is_proxied: bool,
    authorization: Option<&'a [u8]>,
    upgrade: Option<&'a [u8]>,
    key: Option<&'a [u8]>,
    version: Option<&'a [u8]>,
    extensions: Option<&'a [u8]>,
    protocol: Option<&'a [u8]>,
    connection_has_upgrade: bool,
}

impl<'a> Fields<'a> {
    /// Sorts the headers. Refused are malformed ones and those that came twice and must not: where two parsers could
    /// disagree about which one counts, somebody can hide one behind the other (B4).
    pub(crate) fn of(headers: &[(&'a str, &'a [u8])]) -> Result<Self, Response> {
        let mut fields = Self::default();
        for (name, value) in headers {
            if name.is_empty() || !name.bytes().all(is_token) || !value.iter().all(is_text) {
                return Err(bad_request("a header is malformed\n"));
            }
            fields.take(&name.to_ascii_lowercase(), value.trim_ascii())?;
        }
        Ok(fields)
    }

    fn take(&mut self, name: &str, value: &'a [u8]) -> Result<(), Response> {
        let slot = match name {
            "host" => &mut self.host,
            "origin" => &mut self.origin,
            "authorization" => &mut self.authorization,
            "upgrade" => &mut self.upgrade,
            "sec-websocket-key" => &mut self.key,
            "sec-websocket-version" => &mut self.version,
            "sec-websocket-extensions" => &mut self.extensions,
            "sec-websocket-protocol" => &mut self.protocol,
            "connection" => {
                let mut options = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
                self.connection_has_upgrade |=
                    options.any(|option| option.eq_ignore_ascii_case(b"upgrade"));
                return Ok(());
            }
            "content-length" | "transfer-encoding" | "expect" => {
                self.has_body = true;
                return Ok(());
            }
            "http2-settings" => return Err(bad_request(ONLY_WEBSOCKET)),
            _ => {
                self.is_proxied |= is_of_a_proxy(name);
                return Ok(());
            }
        };
        match slot.replace(value) {
            None => Ok(()),
            Some(_) => Err(bad_request(
                "a header came twice that may come once only (Host, Origin, Authorization, \
                 Upgrade and Sec-WebSocket-* are such)\n",
            )),
        }
    }

    /// Half a handshake is one too, and refused as such rather than taken for a plain GET.
    pub(crate) fn wants_upgrade(&self) -> bool {
        self.upgrade.is_some()
            || self.connection_has_upgrade
            || self.key.is_some()
            || self.version.is_some()
    }

    /// The key of a complete handshake.
    pub(crate) fn handshake_key(&self) -> Result<String, Response> {
        let is_websocket =
            self.upgrade.is_some_and(|value| value.eq_ignore_ascii_case(b"websocket"));
        if !is_websocket || !self.connection_has_upgrade {
            return Err(bad_request(ONLY_WEBSOCKET));
        }
        if self.version != Some(b"13") {
            return Err(Response {
                header: Some(("Sec-WebSocket-Version", "13")),
                ..refusal(
                    426,
                    "Upgrade Required",
                    "only version 13 of WebSocket (RFC 6455) is spoken here\n",
                )
            });
        }
        self.key
            .filter(|key| is_key(key))
            .and_then(|key| core::str::from_utf8(key).ok())
            .map(ToOwned::to_owned)
            .ok_or_else(|| {
                bad_request("Sec-WebSocket-Key must be there once: 16 bytes in Base64\n")
            })
    }

    /// The bearer token (RFC 6750, section 2.1). Anything else in `Authorization` is an empty one, which never fits.
    pub(super) fn bearer(&self) -> Option<Secret> {
        let value = core::str::from_utf8(self.authorization?).unwrap_or_default();
        let token = value
            .split_once(' ')
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim_start_matches(' '))
            .filter(|token| token.bytes().all(|byte| byte.is_ascii_graphic()));
        Some(Secret::new(token.unwrap_or_default().to_owned()))
    }
}

const ONLY_WEBSOCKET: &str = "the only upgrade here is a WebSocket handshake (RFC 6455): \
    Connection: Upgrade, Upgrade: websocket, Sec-WebSocket-Version: 13, Sec-WebSocket-Key\n";

/// RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// RFC 9110, section 5.5: no control characters, so no line of one's own either (obs-fold).
fn is_text(byte: &u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

/// Base64 (RFC 4648) of 16 bytes: 22 digits and `==`; the last digit has four bits that must be zero.
fn is_key(key: &[u8]) -> bool {
    let Some(([digits @ .., last], b"==")) = key.split_last_chunk::<2>() else { return false };
    digits.len() == 21
        && digits.iter().all(|it| it.is_ascii_alphanumeric() || matches!(it, b'+' | b'/'))
        && matches!(last, b'A' | b'Q' | b'g' | b'w')
}

/// B5: headers that only something in between adds. `name` is in lower case.
fn is_of_a_proxy(name: &str) -> bool {
    const PREFIXES: [&str; 5] =
        ["x-forwarded", "forwarded", "cf-", "x-original-forwarded", "tailscale-"];
    const NAMES: [&str; 14] = [
        "cdn-loop",
        "client-ip",
        "fastly-client-ip",
        "fly-client-ip",
        "proxy-connection",
        "true-client-ip",
        "via",
        "x-azure-clientip",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-envoy-external-address",
        "x-proxyuser-ip",
        "x-real-ip",
        "x-remote-ip",
    ];
    PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || NAMES.contains(&name)
}
