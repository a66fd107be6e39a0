//! `relay serve`: a relay of one's own in the foreground.

use std::net::{IpAddr, SocketAddr};

use clawd_protocol::relay::RelayUrl;

use crate::args::RelayServe;
use crate::daemon;
use crate::exit::{Exit, Failure};
use crate::render::Screen;

const PORT: u16 = 4400;
/// What this machine is called by itself.
const OWN_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// Each costs a verification when somebody registers.
const HOSTS_MAX: usize = 8;

/// Runs a relay until it is told to stop.
pub(super) fn serve(screen: &Screen, args: &RelayServe) -> Result<Exit, Failure> {
    let bind = address(args.bind.as_deref())?;
    let is_here = bind.ip().is_loopback();
    if args.tls_cert.is_none() && !is_here && !args.plain {
        return Err(Failure::usage(format!("{bind} is beyond this machine, and there is no TLS"))
            .hint(
                "give `--tls-cert` and `--tls-key`; or `--bind 127.0.0.1:4400` behind a proxy that has \
                 them; or `--plain` if the proxy is on another machine",
            ));
    }
    let hosts = hosts(args, is_here)?;
    if !is_path(&args.prefix) {
        return Err(Failure::usage(format!("`{}` is no path", args.prefix))
            .hint("such as `--prefix /relay`, without a slash at the end"));
    }
    daemon::harden();
    let scheme = if args.tls_cert.is_some() { "wss" } else { "ws" };
    let names = hosts.join(", ");
    daemon::serve_relay(bind, hosts, args, |address| {
        let version = env!("CARGO_PKG_VERSION");
        screen.say(&format!("clawd {version} relay listens on {address} ({scheme}) for {names}"));
    })?;
    screen.say("the relay has stopped");
    Ok(Exit::Ok)
}

/// An address with a port, or without.
fn address(text: Option<&str>) -> Result<SocketAddr, Failure> {
    let Some(text) = text else { return Ok(([127, 0, 0, 1], PORT).into()) };
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let alone = || bare.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, PORT));
    text.parse().ok().or_else(alone).ok_or_else(|| {
        Failure::usage(format!("`{text}` is no address to listen on"))
            .hint("such as `--bind 0.0.0.0:443` or `--bind [::]:443`")
    })
}

/// The names that registrations are signed for: what was given and, on loopback, what every machine calls itself.
fn hosts(args: &RelayServe, is_here: bool) -> Result<Vec<String>, Failure> {
    let mut hosts = Vec::new();
    for name in &args.hosts {
        let in_brackets = if name.contains(':') { format!("[{name}]") } else { name.clone() };
        let url: Option<RelayUrl> = format!("wss://{in_brackets}").parse().ok();
        let host =
            url.map(|url| url.host().to_owned()).filter(|host| host.eq_ignore_ascii_case(name));
        let host = host.ok_or_else(|| {
            Failure::usage(format!("`{name}` is no name of a machine"))
                .hint("such as `--host relay.example.org`, without wss:// and without a port")
        })?;
        hosts.push(host);
    }
    if hosts.is_empty() && !is_here {
        return Err(Failure::usage("by which name do daemons reach this relay?").hint(
            "say it with `--host relay.example.org`: what a daemon signs to register holds for \
             this name only",
        ));
    }
    if hosts.len() > HOSTS_MAX {
        return Err(Failure::usage(format!("more than {HOSTS_MAX} names")));
    }
    // With a name of its own it is not for this machine alone: a relay on somebody's machine, posing as his `localhost`,
    // must not have registrations there to pass on.
    if is_here && hosts.is_empty() {
        hosts.extend(OWN_NAMES.map(str::to_owned));
    }
    Ok(hosts)
}

/// Nothing, or parts that each begin with a slash.
fn is_path(text: &str) -> bool {
    let is_plain = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
    };
    text.is_empty() || text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(is_plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_port_or_get_one() {
        let read = |text| address(Some(text)).ok().map(|it| it.to_string());
        for (text, expected) in [
            ("127.0.0.1:1", Some("127.0.0.1:1")),
            ("0.0.0.0", Some("0.0.0.0:4400")),
            ("::1", Some("[::1]:4400")),
            ("[::1]", Some("[::1]:4400")),
            ("[::]:443", Some("[::]:443")),
            ("localhost:1", None),
            ("", None),
            ("1.2.3.4:99999", None),
        ] {
            assert_eq!(read(text).as_deref(), expected, "{text}");
        }
        assert_eq!(address(None).unwrap().to_string(), "127.0.0.1:4400");
    }

    #[test]
    fn prefixes_are_paths() {
        for good in ["", "/relay", "/a/b"] {
            assert!(is_path(good), "{good}");
        }
        for bad in ["/", "relay", "/a/", "//a", "/a b", "/a?b", "/%41"] {
            assert!(!is_path(bad), "{bad}");
        }
    }
}
