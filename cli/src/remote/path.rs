//! The ways to a daemon: straight to it, and through its relay.
//!
//! Owns the addresses' form and the order in which they are tried; refuses to know what is done with a way.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use clawd_protocol::relay::{NoRelayUrl, RelayUrl};
use serde::{Deserialize, Serialize};

use super::Remote;

/// A daemon's port, where nobody says another.
const PORT: u16 = 4300;
/// So many addresses are tried before the relay: each has its head start over the next.
const DIRECT_MAX: usize = 6;

/// Where a daemon may be reached directly: `wss://HOST:PORT`. There is nothing unencrypted (security G2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct DirectUrl(RelayUrl);

impl DirectUrl {
    pub(crate) fn host(&self) -> &str {
        self.0.host()
    }

    pub(crate) const fn port(&self) -> u16 {
        self.0.port()
    }

    /// An address at which another machine could be.
    pub(crate) fn is_elsewhere(&self) -> bool {
        let address = self.host().parse::<IpAddr>().map(|it| it.to_canonical());
        address.is_ok_and(|it| !it.is_loopback() && !it.is_unspecified() && !it.is_multicast())
    }
}

impl fmt::Display for DirectUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Not where a daemon may be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoDirectUrl;

impl fmt::Display for NoDirectUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a daemon's address is wss://HOST:PORT, HOST:PORT or HOST")
    }
}

impl FromStr for DirectUrl {
    type Err = NoDirectUrl;

    fn from_str(text: &str) -> Result<Self, NoDirectUrl> {
        let authority = text.strip_prefix("wss://").unwrap_or(text).trim_end_matches('/');
        if authority.contains('/') {
            return Err(NoDirectUrl);
        }
        let is_bare_v6 = authority.parse::<std::net::Ipv6Addr>().is_ok();
        let authority = if is_bare_v6 { format!("[{authority}]") } else { authority.to_owned() };
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
        let port = if has_port { String::new() } else { format!(":{PORT}") };
        let url: Result<RelayUrl, NoRelayUrl> = format!("wss://{authority}{port}").parse();
        url.map(Self).map_err(|_| NoDirectUrl)
    }
}

/// One way to a daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Way {
    Direct(DirectUrl),
    Relay(RelayUrl),
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(url) => fmt::Display::fmt(url, f),
            Self::Relay(url) => write!(f, "the relay {url}"),
        }
    }
}

/// All ways to a daemon at these places: straight ones first, since a relay is slower and knows who talks to whom.
pub(crate) fn ways(urls: &[DirectUrl], relay: Option<&RelayUrl>) -> Vec<Way> {
    let direct = urls.iter().take(DIRECT_MAX).cloned().map(Way::Direct);
    direct.chain(relay.cloned().map(Way::Relay)).collect()
}

impl Remote {
    /// All ways to it.
    pub(crate) fn ways(&self) -> Vec<Way> {
        ways(&self.urls, self.relay.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g2_a_daemon_elsewhere_is_reached_by_tls_only() {
        for text in ["ws://192.168.1.2:4300", "ws://127.0.0.1:4300", "http://a", "https://a:1"] {
            assert_eq!(text.parse::<DirectUrl>(), Err(NoDirectUrl), "{text}");
        }
    }

    #[test]
    fn an_address_may_be_typed_short() {
        for (text, url) in [
            ("desk", "wss://desk:4300"),
            ("desk.local:4301", "wss://desk.local:4301"),
            ("wss://192.168.1.2:4300/", "wss://192.168.1.2:4300"),
            ("wss://desk", "wss://desk:4300"),
            ("fe80::1", "wss://[fe80::1]:4300"),
            ("[fe80::1]", "wss://[fe80::1]:4300"),
            ("wss://[fe80::1]:9", "wss://[fe80::1]:9"),
        ] {
            assert_eq!(text.parse::<DirectUrl>().unwrap().to_string(), url, "{text}");
        }
        for text in ["", "a b", "a/b", "wss://", "a:0", "a:65536", "u@a", "a?b", ":1", "\u{1b}a"] {
            assert_eq!(text.parse::<DirectUrl>(), Err(NoDirectUrl), "{text}");
        }
    }

    #[test]
    fn only_an_address_of_another_machine_is_elsewhere() {
        for (url, is_elsewhere) in [
            ("10.0.0.2", true),
            ("[fd00::1]", true),
            ("127.0.0.1", false),
            ("[::1]", false),
            ("[::ffff:127.0.0.1]", false),
            ("0.0.0.0", false),
            ("224.0.0.1", false),
            ("desk.local", false),
        ] {
            assert_eq!(url.parse::<DirectUrl>().unwrap().is_elsewhere(), is_elsewhere, "{url}");
        }
    }

    #[test]
    fn straight_ways_come_first_and_the_relay_last() {
        let urls: Vec<DirectUrl> =
            (1..10).map(|n| format!("192.168.1.{n}").parse().unwrap()).collect();
        let relay: RelayUrl = "wss://relay.example.org".parse().unwrap();
        let all = ways(&urls, Some(&relay));
        assert_eq!(all.len(), DIRECT_MAX + 1);
        assert_eq!(all[0], Way::Direct(urls[0].clone()));
        assert_eq!(all.last(), Some(&Way::Relay(relay)));
        assert_eq!(ways(&urls[..1], None), [Way::Direct(urls[0].clone())]);
    }
}
