//! Where a relay is.
//!
//! Owns the reading of a relay's address; refuses to know DNS. `wss` everywhere; `ws` to this machine only, for tests and
//! for a relay behind a proxy on it (security G7).

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use core::fmt;
use core::net::IpAddr;
use core::str::FromStr;

use crate::contract::fingerprint::Fingerprint;

/// A relay's address: `wss://relay.example.org`, with a port and a path if it has them.
///
/// ```
/// use clawd_protocol::relay::RelayUrl;
/// let url: RelayUrl = "wss://relay.example.org/clawd/".parse().unwrap();
/// assert_eq!((url.host(), url.port()), ("relay.example.org", 443));
/// assert_eq!(url.to_string(), "wss://relay.example.org/clawd");
/// assert!("ws://relay.example.org".parse::<RelayUrl>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayUrl {
    is_secure: bool,
    host: String,
    port: u16,
    path: String,
}

/// Not a relay's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRelayUrl {
    /// It begins with something else than `wss://`.
    Scheme,
    /// `ws://` to another machine: everybody on the way could read who talks to whom, and change it.
    Plain,
    /// It has a user, a query, a fragment, or characters that no address has.
    Form,
}

impl fmt::Display for NoRelayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheme => "a relay's address begins with wss://",
            Self::Plain => "ws:// is for a relay on this machine only; use wss://",
            Self::Form => "a relay's address is wss://HOST, wss://HOST:PORT or wss://HOST/PATH",
        })
    }
}

impl core::error::Error for NoRelayUrl {}

const CHARS_MAX: usize = 255;

impl RelayUrl {
    /// Over TLS.
    #[must_use]
    pub const fn is_secure(&self) -> bool {
        self.is_secure
    }

    /// Its name or address; an IPv6 address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its TCP port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// What stands in `Host`: with the port only if it is not the scheme's own.
    #[must_use]
    pub fn authority(&self) -> String {
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == default_port(self.is_secure) {
            host
        } else {
            format!("{host}:{}", self.port)
        }
    }

    /// The request target of a daemon's control connection.
    #[must_use]
    pub fn host_target(&self, daemon: &Fingerprint) -> String {
        format!("{}/v1/host/{daemon}", self.path)
    }

    /// The request target of a client that wants to talk to this daemon.
    #[must_use]
    pub fn connect_target(&self, daemon: &Fingerprint) -> String {
        format!("{}/v1/connect/{daemon}", self.path)
    }

    /// The request target of a daemon that answers an invitation.
    #[must_use]
    pub fn accept_target(&self, daemon: &Fingerprint, ticket: &str) -> String {
        format!("{}/v1/accept/{daemon}/{ticket}", self.path)
    }
}

const fn default_port(is_secure: bool) -> u16 {
    if is_secure { 443 } else { 80 }
}

impl fmt::Display for RelayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_secure { "wss" } else { "ws" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

impl FromStr for RelayUrl {
    type Err = NoRelayUrl;

    fn from_str(text: &str) -> Result<Self, NoRelayUrl> {
        let (is_secure, rest) = match (text.strip_prefix("wss://"), text.strip_prefix("ws://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err(NoRelayUrl::Scheme),
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let path = path.trim_end_matches('/');
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
        if text.len() > CHARS_MAX || !path.bytes().all(is_plain) || path.contains("//") {
            return Err(NoRelayUrl::Form);
        }
        let (host, port) = split_authority(authority).ok_or(NoRelayUrl::Form)?;
        let port = match port {
            Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or(NoRelayUrl::Form)?,
            None => default_port(is_secure),
        };
        let address: Option<IpAddr> = host.parse().ok();
        let is_here = address.map_or(host == "localhost", |address| address.is_loopback());
        if !is_secure && !is_here {
            return Err(NoRelayUrl::Plain);
        }
        Ok(Self { is_secure, host: host.to_ascii_lowercase(), port, path: path.to_owned() })
    }
}

/// Host and port, the brackets of an IPv6 address taken off.
fn split_authority(authority: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        let is_v6 = host.parse::<core::net::Ipv6Addr>().is_ok();
        let port = if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) };
        return is_v6.then_some((host, port));
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let is_name = !host.is_empty()
        && host.len() <= 253
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
        && host.split('.').all(|label| !label.is_empty() && !label.starts_with('-'));
    is_name.then_some((host, port))
}

impl serde::Serialize for RelayUrl {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for RelayUrl {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <alloc::borrow::Cow<'_, str>>::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn g7_a_relay_elsewhere_is_reached_by_wss_only() {
        for text in ["ws://relay.example.org", "ws://192.168.1.2:80", "ws://localhost.evil.org"] {
            assert_eq!(text.parse::<RelayUrl>(), Err(NoRelayUrl::Plain), "{text}");
        }
        for text in ["http://a", "https://a", "relay.example.org", "", "WSS://a", " wss://a"] {
            assert_eq!(text.parse::<RelayUrl>(), Err(NoRelayUrl::Scheme), "{text}");
        }
        for text in ["ws://127.0.0.1:4400", "ws://localhost:1", "ws://[::1]:9"] {
            assert!(text.parse::<RelayUrl>().is_ok(), "{text}");
        }
    }

    #[test]
    fn what_no_address_has_is_refused() {
        for text in [
            "wss://",
            "wss://:443",
            "wss://a:",
            "wss://a:0",
            "wss://a:65536",
            "wss://u@a",
            "wss://u:p@a",
            "wss://a?b",
            "wss://a/b?c",
            "wss://a#b",
            "wss://a b",
            "wss://a/b c",
            "wss://a/%41",
            "wss://a//b",
            "wss://[::1",
            "wss://[a]",
            "wss://[::1]x",
            "wss://a..b",
            "wss://-a",
            "wss://a\r\nHost: b",
            "wss://a\\b",
        ] {
            assert_eq!(text.parse::<RelayUrl>(), Err(NoRelayUrl::Form), "{text}");
        }
        assert!(format!("wss://{}", "a".repeat(300)).parse::<RelayUrl>().is_err());
    }

    #[test]
    fn it_is_written_as_it_is_read() {
        for (text, shown, authority) in [
            ("wss://A.example/", "wss://a.example", "a.example"),
            ("wss://a:443/x/", "wss://a/x", "a"),
            ("wss://[2001:db8::1]:8443", "wss://[2001:db8::1]:8443", "[2001:db8::1]:8443"),
            ("ws://localhost:4400/r", "ws://localhost:4400/r", "localhost:4400"),
        ] {
            let url: RelayUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(url.authority(), authority);
            assert_eq!(shown.parse(), Ok(url));
        }
    }
}
