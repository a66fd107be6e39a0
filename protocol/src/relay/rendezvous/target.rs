//! What a request head asks of a relay.
//!
//! Owns the paths and the refusals; refuses to know whether it is granted. Invariants: each thing has one spelling, since a
//! balancer in front hashes the path; no refusal repeats a byte that the peer sent; `Host` must be there, and what it
//! says is used for nothing.

use alloc::borrow::Cow;
use alloc::string::String;
use core::net::IpAddr;

use super::Ticket;
use crate::contract::effect::Response;
use crate::contract::error::HeadFault;
use crate::contract::fingerprint::Fingerprint;
use crate::contract::input::Head;
use crate::wire::http::{bad_request, readable, refusal};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Health,
    Metrics,
    Host(Fingerprint),
    Connect(Fingerprint),
    Accept(Fingerprint, Ticket),
}

/// A head that is right.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) wanted: Wanted,
    /// `Sec-WebSocket-Key`; there is one with all but the first two of [`Wanted`].
    pub(super) key: String,
    /// The last entry of `X-Forwarded-For`.
    pub(super) forwarded_for: Option<IpAddr>,
    /// Something in between has left its mark.
    pub(super) is_proxied: bool,
}

/// Judges a head.
pub(super) fn judge(head: Result<Head<'_>, HeadFault>, prefix: &str) -> Result<Asked, Response> {
    let (head, fields) = readable(head)?;
    if fields.host.is_none() {
        return Err(bad_request("there must be exactly one Host header\n"));
    }
    if head.method != "GET" {
        return Err(Response {
            header: Some(("Allow", "GET")),
            ..refusal(405, "Method Not Allowed", "only GET is answered here\n")
        });
    }
    if fields.has_body {
        return Err(bad_request("a GET has no body here\n"));
    }
    let wanted = target(head.target, prefix).ok_or_else(not_found)?;
    let key = match wanted {
        Wanted::Health | Wanted::Metrics if fields.wants_upgrade() => return Err(not_found()),
        Wanted::Health | Wanted::Metrics => String::new(),
        Wanted::Host(_) | Wanted::Connect(_) | Wanted::Accept(..) => {
            if !fields.wants_upgrade() {
                return Err(upgrade_required());
            }
            fields.handshake_key()?
        }
    };
    let forwarded_for = forwarded_for(head.headers);
    Ok(Asked { wanted, key, forwarded_for, is_proxied: fields.is_proxied })
}

fn target(target: &str, prefix: &str) -> Option<Wanted> {
    // A balancer's own question need not know the prefix.
    let path = match target {
        "/health" | "/metrics" => target,
        _ => target.strip_prefix(prefix)?,
    };
    let mut parts = path.strip_prefix('/')?.split('/');
    let wanted = match (parts.next()?, parts.next()) {
        ("health", None) => Wanted::Health,
        ("metrics", None) => Wanted::Metrics,
        ("v1", Some("host")) => Wanted::Host(id(parts.next()?)?),
        ("v1", Some("connect")) => Wanted::Connect(id(parts.next()?)?),
        ("v1", Some("accept")) => Wanted::Accept(id(parts.next()?)?, Ticket::read(parts.next()?)?),
        _ => return None,
    };
    parts.next().is_none().then_some(wanted)
}

/// Not the spelling for people: it would be another path.
fn id(text: &str) -> Option<Fingerprint> {
    if text.contains('-') {
        return None;
    }
    text.parse().ok()
}

/// Each proxy appends whom it was reached by; what stands before the last entry anybody may have written.
fn forwarded_for(headers: &[(&str, &[u8])]) -> Option<IpAddr> {
    let is_it = |name: &str| name.eq_ignore_ascii_case("x-forwarded-for");
    let (_, value) = headers.iter().rev().find(|(name, _)| is_it(name))?;
    let last = core::str::from_utf8(value).ok()?.rsplit(',').next()?;
    last.trim().parse().ok()
}

fn not_found() -> Response {
    refusal(
        404,
        "Not Found",
        "nothing is here; this is a relay: /v1/host, /v1/connect, /v1/accept, or GET /health\n",
    )
}

fn upgrade_required() -> Response {
    Response {
        header: Some(("Upgrade", "websocket")),
        ..refusal(426, "Upgrade Required", "only WebSocket (RFC 6455) is spoken here\n")
    }
}

/// The one answer to everybody whose ticket is not good, whatever is wrong with it.
pub(super) fn no_ticket() -> Response {
    refusal(403, "Forbidden", "this ticket is not good, or no longer\n")
}

pub(super) fn too_many() -> Response {
    Response {
        header: Some(("Retry-After", "60")),
        ..refusal(429, "Too Many Requests", "too many for now; wait a minute\n")
    }
}

pub(super) fn hidden() -> Response {
    not_found()
}

pub(super) fn ok(content_type: &'static str, body: String) -> Response {
    Response { status: 200, reason: "OK", content_type, header: None, body: Cow::Owned(body) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::ToString;

    #[test]
    fn each_thing_has_one_spelling() {
        let id = Fingerprint::of(b"a key");
        let (ticket, _) = Ticket::mint([7; 32]);
        assert_eq!(target("/health", "/relay"), Some(Wanted::Health));
        assert_eq!(target("/relay/metrics", "/relay"), Some(Wanted::Metrics));
        assert_eq!(target(&format!("/v1/host/{id}"), ""), Some(Wanted::Host(id)));
        assert_eq!(target(&format!("/r/v1/connect/{id}"), "/r"), Some(Wanted::Connect(id)));
        let accept = target(&format!("/v1/accept/{id}/{ticket}"), "");
        assert_eq!(accept, Some(Wanted::Accept(id, Ticket::read(&ticket).unwrap())));
        for wrong in [
            "/".to_owned(),
            String::new(),
            format!("/v1/host/{id}/"),
            format!("/v1/host/{id}/x"),
            format!("/v1/host/{}", id.grouped()),
            format!("/v1/host/{id}?x"),
            format!("//v1/host/{id}"),
            format!("/v1//host/{id}"),
            format!("/v2/host/{id}"),
            format!("/v1/HOST/{id}"),
            format!("/v1/host/{}", format!("{id}").to_uppercase()),
            format!("/v1/accept/{id}"),
            format!("/v1/accept/{id}/{ticket}="),
            format!("/v1/accept/{id}/{}", ticket.get(1..).unwrap()),
            format!("/v1/connect/%61{}", id.to_string().get(1..).unwrap()),
            format!("http://relay/v1/host/{id}"),
        ] {
            assert_eq!(target(&wrong, ""), None, "{wrong}");
        }
        assert_eq!(target(&format!("/v1/host/{id}"), "/relay"), None);
    }

    #[test]
    fn only_the_last_proxy_is_believed() {
        let of = |headers: &[(&str, &[u8])]| forwarded_for(headers);
        assert_eq!(of(&[("X-Forwarded-For", b"1.1.1.1, 2.2.2.2")]), Some([2, 2, 2, 2].into()));
        let two: &[(&str, &[u8])] = &[("x-forwarded-for", b"1.1.1.1"), ("X-FORWARDED-FOR", b"::1")];
        assert_eq!(of(two), Some(core::net::Ipv6Addr::LOCALHOST.into()));
        for none in [&b"1.1.1.1, unknown"[..], b"", b"2.2.2.2:80", b"\xff"] {
            assert_eq!(of(&[("X-Forwarded-For", none)]), None);
        }
        assert_eq!(of(&[]), None);
    }
}
