//! The request head: who may knock at all, and what for (security B1–B5).
//!
//! Owns the verdict on every request head, as a pure function; refuses to know connections, tokens' owners and what
//! happens behind the door. Invariants: a head is either one of three questions or refused with one fixed answer; an
//! upgrade has a `Host` from the list and no foreign `Origin`; no answer repeats a byte that the peer sent, and none
//! has a CORS header.
//!
//! Order of the checks: form of the head (RFC 9112), `Host`, `Origin`, method, target, body, and only then what is
//! asked. So a page of another origin learns nothing, not even which paths there are.

use alloc::borrow::Cow;
use alloc::string::{String, ToString};
use core::net::{IpAddr, SocketAddr};

use serde::Serialize;

use crate::access::token::Secret;
use crate::contract::effect::Response;
use crate::contract::error::HeadFault;
use crate::contract::input::{Head, Source};

pub(crate) mod fields;

use fields::Fields;

/// What this daemon is called.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Site<'a> {
    /// The TCP port that was bound.
    pub(crate) port: u16,
    /// Further values of `Host`, with or without a port, as the owner wrote them.
    pub(crate) host_names: &'a [String],
    /// Values of `Origin` that may come in.
    pub(crate) origins: &'a [String],
    /// The address of ours that the peer connected to with TLS.
    pub(crate) address: Option<IpAddr>,
    /// Our id, for a peer with TLS: at a relay there is no other name.
    pub(crate) daemon_id: Option<&'a str>,
}

/// What a request head comes to. A bearer that is no well-formed one is an empty secret: it fails later, where all
/// wrong ones fail alike, instead of being taken for none.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Answer this and close.
    Refuse(Response),
    /// `GET /health`.
    Health,
    /// `GET /metrics`.
    Metrics {
        /// `Authorization: Bearer …`.
        bearer: Option<Secret>,
        /// A proxy's header was there: the peer is remote, wherever it connected from.
        proxied: bool,
    },
    /// A WebSocket handshake (RFC 6455, section 4.2.1).
    Upgrade {
        /// `Sec-WebSocket-Key`.
        key: String,
        /// `Authorization: Bearer …`.
        bearer: Option<Secret>,
        /// A proxy's header was there: the peer is remote, wherever it connected from.
        proxied: bool,
    },
}

/// Judges a request head.
pub(crate) fn judge(head: Result<Head<'_>, HeadFault>, source: Source, site: &Site<'_>) -> Verdict {
    weigh(head, source, site).unwrap_or_else(Verdict::Refuse)
}

fn weigh(
    head: Result<Head<'_>, HeadFault>,
    source: Source,
    site: &Site<'_>,
) -> Result<Verdict, Response> {
    let (head, fields) = readable(head)?;
    check_host(&fields, source, site)?;
    check_origin(&fields, site)?;
    if head.method != "GET" {
        return Err(Response {
            header: Some(("Allow", "GET")),
            ..refusal(
                405,
                "Method Not Allowed",
                "only GET is answered here; everything else is said over the WebSocket\n",
            )
        });
    }
    let path = check_target(head.target)?;
    if fields.has_body {
        return Err(bad_request(
            "a GET has no body here; leave out Content-Length, Transfer-Encoding and Expect\n",
        ));
    }
    let (bearer, proxied) = (fields.bearer(), fields.is_proxied);
    if fields.wants_upgrade() {
        return Ok(Verdict::Upgrade { key: fields.handshake_key()?, bearer, proxied });
    }
    match path {
        "/health" => Ok(Verdict::Health),
        "/metrics" => Ok(Verdict::Metrics { bearer, proxied }),
        _ => Err(refusal(
            404,
            "Not Found",
            "nothing is here; open a WebSocket, or GET /health or /metrics\n",
        )),
    }
}

/// A head of HTTP/1.1 and its fields, whoever it is meant for.
pub(crate) fn readable<'a>(
    head: Result<Head<'a>, HeadFault>,
) -> Result<(Head<'a>, Fields<'a>), Response> {
    let head = head.map_err(|fault| match fault {
        HeadFault::Malformed => {
            bad_request("this is not an HTTP/1.1 request; open a WebSocket here\n")
        }
        HeadFault::TooLarge => refusal(
            431,
            "Request Header Fields Too Large",
            "the request head is too large; send fewer or shorter headers\n",
        ),
    })?;
    if head.minor != 1 {
        return Err(refusal(505, "HTTP Version Not Supported", "only HTTP/1.1 is spoken here\n"));
    }
    let fields = Fields::of(head.headers)?;
    Ok((head, fields))
}

/// B1: an exact name, against DNS rebinding. Host names have no case (RFC 9110, section 4.2.3).
fn check_host(fields: &Fields<'_>, source: Source, site: &Site<'_>) -> Result<(), Response> {
    let Some(host) = fields.host else {
        return Err(bad_request("there must be exactly one Host header\n"));
    };
    let has_port = |text: &[u8]| core::str::from_utf8(text).is_ok_and(|it| it == digits(site.port));
    let is_ours = ["127.0.0.1", "localhost", "[::1]"].iter().any(|name| {
        host.split_at_checked(name.len()).is_some_and(|(start, rest)| {
            start.eq_ignore_ascii_case(name.as_bytes())
                && rest.strip_prefix(b":").is_some_and(has_port)
        })
    });
    let is_configured =
        || site.host_names.iter().any(|it| host.eq_ignore_ascii_case(it.as_bytes()));
    let is_address = || site.address.is_some_and(|address| is_address(host, address, site.port));
    let is_id = || site.daemon_id.is_some_and(|id| host.eq_ignore_ascii_case(id.as_bytes()));
    let is_unix = || source == Source::Unix && host.eq_ignore_ascii_case(b"localhost");
    if is_ours || is_configured() || is_address() || is_id() || is_unix() {
        return Ok(());
    }
    Err(forbidden(
        "this Host is not on the list; use 127.0.0.1 or localhost with the port, \
         or add the name to host_names in config.toml\n",
    ))
}

/// A rebinding page has a name in `Host`, never the address that it made the name mean.
fn is_address(host: &[u8], address: IpAddr, port: u16) -> bool {
    let host = core::str::from_utf8(host).ok().and_then(|host| host.parse::<SocketAddr>().ok());
    host.is_some_and(|host| host.ip() == address.to_canonical() && host.port() == port)
}

fn digits(port: u16) -> String {
    port.to_string()
}

/// B2: browsers always say who asks. `null` stands for anybody, so it is never on the list.
fn check_origin(fields: &Fields<'_>, site: &Site<'_>) -> Result<(), Response> {
    let Some(origin) = fields.origin else { return Ok(()) };
    let is_listed = site.origins.iter().any(|it| it.as_bytes() == origin);
    if is_listed && !origin.eq_ignore_ascii_case(b"null") {
        return Ok(());
    }
    Err(forbidden(
        "this Origin is not on the list; add it to origins in config.toml if you trust the page\n",
    ))
}

/// Origin-form only (RFC 9112, section 3.2.1), and no credentials in it (B3). Answers the path.
fn check_target(target: &str) -> Result<&str, Response> {
    let is_plain = target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if !target.starts_with('/') || !is_plain {
        return Err(bad_request("the request target must be a path such as /health\n"));
    }
    if has_credentials(target) {
        return Err(bad_request(
            "a URL must not carry credentials: URLs end up in logs and histories; \
             send the token in daemon.auth or as Authorization: Bearer\n",
        ));
    }
    Ok(target.split_once('?').map_or(target, |(path, _)| path))
}

/// Names of query parameters that hold credentials, without their punctuation.
const CREDENTIAL_NAMES: [&str; 31] = [
    "accesskey",
    "accesstoken",
    "apikey",
    "apitoken",
    "auth",
    "authkey",
    "authorization",
    "authtoken",
    "bearer",
    "bearertoken",
    "clawdtoken",
    "clientsecret",
    "code",
    "credential",
    "credentials",
    "devicetoken",
    "idtoken",
    "jwt",
    "key",
    "pass",
    "passphrase",
    "passwd",
    "password",
    "pin",
    "pwd",
    "refreshtoken",
    "secret",
    "sessiontoken",
    "ticket",
    "token",
    "xapikey",
];

fn has_credentials(target: &str) -> bool {
    let decoded = percent_decoded(target);
    if decoded.contains("clawd_l_") || decoded.contains("clawd_d_") {
        return true;
    }
    let Some((_, query)) = target.split_once('?') else { return false };
    query.split(['&', ';', '?']).any(|pair| {
        let name = pair.split_once('=').map_or(pair, |(name, _)| name);
        let mut bare = percent_decoded(name);
        bare.retain(|char| char.is_ascii_alphanumeric());
        CREDENTIAL_NAMES.contains(&bare.as_str())
    })
}

/// Lower case, each `%41` replaced by what it stands for. Only for looking: other text than ASCII comes out mangled.
fn percent_decoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let mut ahead = rest.clone();
        let decoded = if byte == b'%' {
            let (high, low) = (ahead.next().and_then(nibble), ahead.next().and_then(nibble));
            high.zip(low).map(|(high, low)| high << 4 | low)
        } else {
            None
        };
        if decoded.is_some() {
            rest = ahead;
        }
        out.push(char::from(decoded.unwrap_or(byte)).to_ascii_lowercase());
    }
    out
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// The answer to [`Verdict::Health`].
pub(crate) fn health(
    version: &str,
    uptime_secs: u64,
    active_sessions: usize,
    port: u16,
) -> Response {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Health<'a> {
        status: &'static str,
        ok: bool,
        version: &'a str,
        uptime: u64,
        active_sessions: usize,
        port: u16,
    }
    let health =
        Health { status: "ok", ok: true, version, uptime: uptime_secs, active_sessions, port };
    Response {
        status: 200,
        reason: "OK",
        content_type: "application/json",
        header: None,
        // A struct of texts and numbers always serialises.
        body: Cow::Owned(serde_json::to_string(&health).unwrap_or_default()),
    }
}

/// The answer to [`Verdict::Metrics`]: the Prometheus text format, version 0.0.4.
pub(crate) fn metrics(gauges: &[(&str, usize)]) -> Response {
    use core::fmt::Write as _;
    let mut body = String::new();
    for (name, value) in gauges {
        let _ = write!(body, "# TYPE clawd_{name} gauge\nclawd_{name} {value}\n");
    }
    Response {
        status: 200,
        reason: "OK",
        content_type: "text/plain; version=0.0.4",
        header: None,
        body: Cow::Owned(body),
    }
}

/// The answer to whoever speaks plainly from beyond this machine, whatever was asked (security F1).
pub(crate) fn upgrade_required() -> Response {
    Response {
        header: Some(("Upgrade", "TLS/1.3, HTTP/1.1")),
        ..refusal(426, "Upgrade Required", "only wss:// is spoken beyond this machine\n")
    }
}

/// The answer to [`Verdict::Metrics`] without a bearer, and to one that is wrong, revoked, expired or remote.
pub(crate) fn unauthorized() -> Response {
    Response {
        header: Some(("WWW-Authenticate", "Bearer")),
        ..refusal(
            401,
            "Unauthorized",
            "a valid token is needed; send it as Authorization: Bearer (clawd token show)\n",
        )
    }
}

pub(crate) fn bad_request(body: &'static str) -> Response {
    refusal(400, "Bad Request", body)
}

fn forbidden(body: &'static str) -> Response {
    refusal(403, "Forbidden", body)
}

/// Refusals are fixed texts, so that nothing of a peer's can come back in one.
pub(crate) fn refusal(status: u16, reason: &'static str, body: &'static str) -> Response {
    Response {
        status,
        reason,
        content_type: "text/plain; charset=utf-8",
        header: None,
        body: Cow::Borrowed(body),
    }
}

#[cfg(test)]
mod tests;
