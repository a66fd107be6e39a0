use super::*;
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};
use proptest::prelude::*;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const TCP: Source = Source::Tcp(IpAddr::V4(Ipv4Addr::LOCALHOST));

type Line<'a> = (&'a str, &'a [u8]);

fn head<'a>(method: &'a str, target: &'a str, minor: u8, headers: &'a [Line<'a>]) -> Head<'a> {
    Head { method, target, minor, headers }
}

fn judge_at(source: Source, head: Head<'_>) -> Verdict {
    let names = [String::from("devbox:4300"), String::from("bare.example")];
    let origins = [String::from("http://localhost:3000"), String::from("null")];
    judge(
        Ok(head),
        source,
        &Site { port: 4300, host_names: &names, origins: &origins, address: None, daemon_id: None },
    )
}

fn get(target: &str, headers: &[(&str, &str)]) -> Verdict {
    let mut lines: Vec<Line<'_>> = vec![("Host", b"127.0.0.1:4300")];
    lines.extend(headers.iter().map(|(name, value)| (*name, value.as_bytes())));
    judge_at(TCP, head("GET", target, 1, &lines))
}

/// A good handshake with some headers replaced (`None` removes) and some added.
fn handshake(replaced: &[(&str, Option<&str>)], added: &[(&str, &str)]) -> Verdict {
    let mut lines = vec![
        ("Host", "127.0.0.1:4300"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", KEY),
    ];
    lines.retain(|(name, _)| replaced.iter().all(|(other, _)| other != name));
    lines.extend(replaced.iter().filter_map(|(name, value)| value.map(|value| (*name, value))));
    lines.extend(added);
    let lines: Vec<Line<'_>> =
        lines.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    judge_at(TCP, head("GET", "/", 1, &lines))
}

fn status(verdict: &Verdict) -> u16 {
    match verdict {
        Verdict::Refuse(response) => response.status,
        Verdict::Health => 200,
        Verdict::Metrics { .. } => 299,
        Verdict::Upgrade { .. } => 101,
    }
}

fn with_host(source: Source, hosts: &[&str]) -> u16 {
    let lines: Vec<Line<'_>> = hosts.iter().map(|host| ("hOsT", host.as_bytes())).collect();
    status(&judge_at(source, head("GET", "/health", 1, &lines)))
}

#[test]
fn b1_only_exact_hosts_are_served() {
    for host in [
        "127.0.0.1:4300",
        "localhost:4300",
        "LocalHost:4300",
        "[::1]:4300",
        "devbox:4300",
        "DEVBOX:4300",
        "bare.example",
    ] {
        assert_eq!(with_host(TCP, &[host]), 200, "{host}");
    }
    for host in [
        "evil.example",
        "localhost.evil",
        "localhost.evil:4300",
        "evil.localhost:4300",
        "127.0.0.1:9",
        "127.0.0.1",
        "localhost",
        "127.0.0.1.:4300",
        "localhost.:4300",
        "127.0.0.1:4300.",
        "127.0.0.1:04300",
        "127.0.0.1:43000",
        "127.0.0.1:+4300",
        "127.0.0.1:",
        "127.0.0.1:4300:4300",
        "user@127.0.0.1:4300",
        "127.0.0.1:4300, evil.example",
        "0.0.0.0:4300",
        "127.1:4300",
        "2130706433:4300",
        "::1:4300",
        "[::]:4300",
        "[0:0:0:0:0:0:0:1]:4300",
        "devbox",
        "bare.example:4300",
        "xdevbox:4300",
        "",
    ] {
        assert_eq!(with_host(TCP, &[host]), 403, "{host}");
    }
    assert_eq!(with_host(TCP, &[]), 400);
    assert_eq!(with_host(TCP, &["127.0.0.1:4300", "127.0.0.1:4300"]), 400);
    assert_eq!(with_host(TCP, &["127.0.0.1:4300", "evil.example"]), 400);
}

#[test]
fn b1_the_unix_socket_is_called_localhost_too() {
    assert_eq!(with_host(Source::Unix, &["localhost"]), 200);
    assert_eq!(with_host(Source::Unix, &["localhost:4300"]), 200);
    assert_eq!(with_host(Source::Unix, &["evil.example"]), 403);
}

#[test]
fn b1_and_b2_stay_on_for_every_path_and_method() {
    for target in ["/", "/health", "/metrics", "/nowhere", "/?token=x", "*"] {
        for method in ["GET", "POST", "OPTIONS", "CONNECT"] {
            let evil = [("Host", b"evil.example".as_slice())];
            assert_eq!(status(&judge_at(TCP, head(method, target, 1, &evil))), 403);
            let page: [Line<'_>; 2] =
                [("Host", b"127.0.0.1:4300"), ("Origin", b"http://evil.example")];
            assert_eq!(status(&judge_at(TCP, head(method, target, 1, &page))), 403);
        }
    }
}

#[test]
fn b2_only_listed_origins_may_upgrade() {
    assert_eq!(status(&handshake(&[], &[])), 101);
    assert_eq!(status(&handshake(&[], &[("Origin", "http://localhost:3000")])), 101);
    for origin in [
        "http://evil.example",
        "null",
        "NULL",
        "",
        "http://localhost:3000/",
        "http://localhost:3000.evil.example",
        "https://localhost:3000",
        "http://localhost:30000",
        "HTTP://localhost:3000",
        "http://127.0.0.1:4300",
        "http://localhost:3000 http://evil.example",
    ] {
        assert_eq!(status(&handshake(&[], &[("Origin", origin)])), 403, "{origin}");
    }
    let both = [("Origin", "http://localhost:3000"), ("Origin", "http://localhost:3000")];
    assert_eq!(status(&handshake(&[], &both)), 400);
}

#[test]
fn b3_gets_answer_health_metrics_and_nothing_else() {
    assert_eq!(get("/health", &[]), Verdict::Health);
    assert_eq!(get("/health?verbose=1", &[]), Verdict::Health);
    assert_eq!(get("/metrics", &[]), Verdict::Metrics { bearer: None, proxied: false });
    for target in ["/", "/Health", "/health/", "//health", "/sessions", "/metrics/x", "/../health"]
    {
        assert_eq!(status(&get(target, &[])), 404, "{target}");
    }
}

#[test]
fn b3_credentials_in_urls_are_refused_and_not_repeated() {
    for target in [
        "/?token=s3cr3t",
        "/?TOKEN=s3cr3t",
        "/health?token=s3cr3t",
        "/metrics?x=1&access_token=s3cr3t",
        "/?x=1;api_key=s3cr3t",
        "/?api-key=s3cr3t",
        "/?apiKey=s3cr3t",
        "/?key=s3cr3t",
        "/?auth=s3cr3t",
        "/?authorization=s3cr3t",
        "/?Bearer=s3cr3t",
        "/?password=s3cr3t",
        "/?%74oken=s3cr3t",
        "/?t%6Fken=s3cr3t",
        "/?token",
        "/?token[]=s3cr3t",
        "/?x?token=s3cr3t",
        "/?pin=000000",
        "/clawd_l_s3cr3t",
        "/?anything=clawd_l_s3cr3t",
        "/?anything=clawd%5Fd%5fs3cr3t",
        "/?clawd_d_s3cr3t",
    ] {
        let Verdict::Refuse(response) = get(target, &[]) else { panic!("{target}") };
        assert_eq!(response.status, 400, "{target}");
        assert!(!response.body.contains("s3cr3t") && response.body.contains("daemon.auth"));
    }
    for target in ["/?tokenizer=x", "/?keyboard=1", "/?v=100%", "/?v=%zz%4", "/?a=token"] {
        assert_eq!(status(&get(target, &[])), 404, "{target}");
    }
}

/// A head that is refused: what it is, the refusal, and how it is sent.
type Case = (&'static str, u16, fn() -> Verdict);

fn raw(method: &str, target: &str, minor: u8) -> Verdict {
    judge_at(TCP, head(method, target, minor, &[("Host", b"127.0.0.1:4300")]))
}

fn bytes(name: &str, value: &[u8]) -> Verdict {
    judge_at(TCP, head("GET", "/health", 1, &[("Host", b"127.0.0.1:4300"), (name, value)]))
}

#[rustfmt::skip]
const CASES: [Case; 65] = [
    ("HTTP/1.0", 505, || raw("GET", "/health", 0)),
    ("HTTP/1.9", 505, || raw("GET", "/health", 9)),
    ("POST", 405, || raw("POST", "/", 1)),
    ("HEAD", 405, || raw("HEAD", "/health", 1)),
    ("OPTIONS", 405, || raw("OPTIONS", "/", 1)),
    ("CONNECT", 405, || raw("CONNECT", "127.0.0.1:4300", 1)),
    ("HTTP/2 preface", 405, || raw("PRI", "*", 1)),
    ("lower-case method", 405, || raw("get", "/", 1)),
    ("no method", 405, || raw("", "/", 1)),
    ("absolute-form", 400, || raw("GET", "http://127.0.0.1:4300/health", 1)),
    ("absolute-form of another", 400, || raw("GET", "http://evil.example/", 1)),
    ("asterisk-form", 400, || raw("GET", "*", 1)),
    ("authority-form", 400, || raw("GET", "127.0.0.1:4300", 1)),
    ("empty target", 400, || raw("GET", "", 1)),
    ("target without slash", 400, || raw("GET", "health", 1)),
    ("fragment", 400, || raw("GET", "/health#x", 1)),
    ("space in target", 400, || raw("GET", "/health HTTP/1.1", 1)),
    ("line in target", 400, || raw("GET", "/\r\nHost: x", 1)),
    ("not ASCII in target", 400, || raw("GET", "/é", 1)),
    ("Content-Length", 400, || get("/health", &[("Content-Length", "5")])),
    ("Content-Length: 0", 400, || get("/health", &[("Content-Length", "0")])),
    ("Content-Length twice", 400, || get("/", &[("Content-Length", "5"), ("Content-Length", "6")])),
    ("Transfer-Encoding", 400, || get("/health", &[("Transfer-Encoding", "chunked")])),
    ("Transfer-Encoding: identity", 400, || get("/", &[("tRANSFER-eNCODING", "identity")])),
    ("TE and CL", 400, || get("/", &[("Transfer-Encoding", "chunked"), ("Content-Length", "5")])),
    ("Expect", 400, || get("/health", &[("Expect", "100-continue")])),
    ("space before the colon", 400, || bytes("Content-Length ", b"5")),
    ("space before the name", 400, || bytes(" X", b"5")),
    ("empty name", 400, || bytes("", b"5")),
    ("not ASCII in a name", 400, || bytes("Høst", b"evil")),
    ("obs-fold", 400, || bytes("X", b"a\r\n b")),
    ("a line within a value", 400, || bytes("X", b"a\r\nHost: evil")),
    ("bare line feed", 400, || bytes("X", b"a\nb")),
    ("bare carriage return", 400, || bytes("X", b"a\rb")),
    ("NUL in a value", 400, || bytes("X", b"a\0b")),
    ("DEL in a value", 400, || bytes("X", b"a\x7fb")),
    ("escape in a value", 400, || bytes("X", b"\x1b[2J")),
    ("Authorization twice", 400, || get("/metrics", &[("Authorization", "Bearer a"), ("Authorization", "Bearer b")])),
    ("body on an upgrade", 400, || handshake(&[], &[("Content-Length", "5")])),
    ("empty body on an upgrade", 400, || handshake(&[], &[("Content-Length", "0")])),
    ("chunks on an upgrade", 400, || handshake(&[], &[("Transfer-Encoding", "chunked")])),
    ("no Host on an upgrade", 400, || handshake(&[("Host", None)], &[])),
    ("two Hosts on an upgrade", 400, || handshake(&[], &[("host", "127.0.0.1:4300")])),
    ("Upgrade twice", 400, || handshake(&[], &[("Upgrade", "websocket")])),
    ("Upgrade: h2c", 400, || handshake(&[("Upgrade", Some("h2c"))], &[])),
    ("Upgrade: h2c behind", 400, || handshake(&[], &[("Upgrade", "h2c")])),
    ("several upgrades", 400, || handshake(&[("Upgrade", Some("websocket, h2c"))], &[])),
    ("Upgrade with a version", 400, || handshake(&[("Upgrade", Some("websocket/13"))], &[])),
    ("HTTP2-Settings", 400, || handshake(&[], &[("HTTP2-Settings", "AAMAAABk")])),
    ("no Upgrade", 400, || handshake(&[("Upgrade", None)], &[])),
    ("no Connection", 400, || handshake(&[("Connection", None)], &[])),
    ("Connection: close", 400, || handshake(&[("Connection", Some("close"))], &[])),
    ("Connection: upgraded", 400, || handshake(&[("Connection", Some("upgraded"))], &[])),
    ("no version", 426, || handshake(&[("Sec-WebSocket-Version", None)], &[])),
    ("version 8", 426, || handshake(&[("Sec-WebSocket-Version", Some("8"))], &[])),
    ("versions 13, 8", 426, || handshake(&[("Sec-WebSocket-Version", Some("13, 8"))], &[])),
    ("version twice", 400, || handshake(&[], &[("Sec-WebSocket-Version", "13")])),
    ("no key", 400, || handshake(&[("Sec-WebSocket-Key", None)], &[])),
    ("key twice", 400, || handshake(&[], &[("sec-websocket-key", KEY)])),
    ("short key", 400, || handshake(&[("Sec-WebSocket-Key", Some("Zm9v"))], &[])),
    ("long key", 400, || handshake(&[("Sec-WebSocket-Key", Some("AAAAdGhlIHNhbXBsZSBub25jZQ=="))], &[])),
    ("key of other letters", 400, || handshake(&[("Sec-WebSocket-Key", Some("dGhlIHNhbXBsZSBub25-ZQ=="))], &[])),
    ("key with bits to spare", 400, || handshake(&[("Sec-WebSocket-Key", Some("dGhlIHNhbXBsZSBub25jZR=="))], &[])),
    ("extensions twice", 400, || handshake(&[], &[("Sec-WebSocket-Extensions", "a"), ("Sec-WebSocket-Extensions", "b")])),
    ("protocols twice", 400, || handshake(&[], &[("Sec-WebSocket-Protocol", "a"), ("Sec-WebSocket-Protocol", "b")])),
];

#[test]
fn b4_what_could_be_read_in_two_ways_is_refused_once() {
    for (what, expected, send) in CASES {
        let verdict = send();
        assert_eq!(status(&verdict), expected, "{what}: {verdict:?}");
        let Verdict::Refuse(response) = verdict else { panic!("{what}") };
        assert!(!response.body.is_empty() && response.body.is_ascii(), "{what}");
        let is_cors = |name: &str| name.to_ascii_lowercase().starts_with("access-control");
        assert!(response.header.is_none_or(|(name, _)| !is_cors(name)), "{what}");
    }
}

#[test]
fn b4_heads_that_are_none_are_refused() {
    let site = Site { port: 4300, host_names: &[], origins: &[], address: None, daemon_id: None };
    assert_eq!(status(&judge(Err(HeadFault::Malformed), TCP, &site)), 400);
    assert_eq!(status(&judge(Err(HeadFault::TooLarge), TCP, &site)), 431);
}

#[test]
fn b4_refusals_name_the_alternative() {
    let Verdict::Refuse(method) = raw("POST", "/", 1) else { panic!() };
    assert_eq!(method.header, Some(("Allow", "GET")));
    let Verdict::Refuse(version) = handshake(&[("Sec-WebSocket-Version", Some("8"))], &[]) else {
        panic!()
    };
    assert_eq!(version.header, Some(("Sec-WebSocket-Version", "13")));
}

#[test]
fn handshakes_of_real_clients_are_taken() {
    let upgrade = |bearer: Option<&str>| Verdict::Upgrade {
        key: KEY.to_string(),
        bearer: bearer.map(|text| Secret::new(text.to_string())),
        proxied: false,
    };
    assert_eq!(handshake(&[], &[]), upgrade(None));
    assert_eq!(
        handshake(
            &[("Connection", Some("keep-alive, uPGRADE")), ("Upgrade", Some("WebSocket"))],
            &[
                ("User-Agent", "Dart/3.5 (dart:io)"),
                ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits"),
                ("Cache-Control", "no-cache"),
                ("Connection", "close"),
            ]
        ),
        upgrade(None)
    );
    assert_eq!(handshake(&[], &[("authorization", "bearer  abc")]), upgrade(Some("abc")));
    // Not ignored: they fail later, as every wrong token does.
    for wrong in ["Basic YTpi", "Bearer", "abc", "", "Bearer a b", "Bearer\tabc"] {
        assert_eq!(handshake(&[], &[("Authorization", wrong)]), upgrade(Some("")), "{wrong}");
    }
}

#[test]
fn b5_proxy_headers_are_noticed_on_every_question() {
    for name in [
        "X-Forwarded-For",
        "x-forwarded-proto",
        "X-Forwarded-Host",
        "Forwarded",
        "X-Real-IP",
        "Via",
        "CF-Connecting-IP",
        "CF-Ray",
        "True-Client-IP",
        "X-Client-IP",
        "X-Cluster-Client-IP",
        "Fastly-Client-IP",
        "Tailscale-User-Login",
    ] {
        let header = [(name, "127.0.0.1")];
        let Verdict::Upgrade { proxied, .. } = handshake(&[], &header) else { panic!("{name}") };
        assert!(proxied, "{name}");
        let Verdict::Metrics { proxied, .. } = get("/metrics", &header) else { panic!("{name}") };
        assert!(proxied, "{name}");
    }
    let Verdict::Upgrade { proxied, .. } = handshake(&[], &[("Accept", "*/*")]) else { panic!() };
    assert!(!proxied);
    // And they do not open the door: Host is looked at, not what a proxy says of it.
    let lines: [Line<'_>; 2] = [("Host", b"evil.example"), ("X-Forwarded-Host", b"127.0.0.1:4300")];
    assert_eq!(status(&judge_at(TCP, head("GET", "/health", 1, &lines))), 403);
}

#[test]
fn health_says_what_clients_parse() {
    let response = health("1.2.3", 7, 2, 4300);
    assert_eq!(response.status, 200);
    assert_eq!(
        response.body,
        r#"{"status":"ok","ok":true,"version":"1.2.3","uptime":7,"activeSessions":2,"port":4300}"#
    );
    assert_eq!(unauthorized().header, Some(("WWW-Authenticate", "Bearer")));
}

fn any_header() -> impl Strategy<Value = (String, Vec<u8>)> {
    let name = prop_oneof![
        prop::sample::select(vec![
            "Host",
            "Origin",
            "Upgrade",
            "Connection",
            "Sec-WebSocket-Key",
            "Sec-WebSocket-Version",
            "Authorization",
            "Content-Length",
            "X-Forwarded-For",
        ])
        .prop_map(String::from),
        "\\PC{0,8}",
    ];
    let value = prop_oneof![
        prop::sample::select(vec![
            "127.0.0.1:4300",
            "evil.example",
            "http://localhost:3000",
            "websocket",
            "Upgrade",
            "13",
            KEY,
            "Bearer abc",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..12),
    ];
    (name, value)
}

proptest! {
    #[test]
    fn b1_b2_whatever_is_let_in_has_our_host_and_no_foreign_origin(
        method in prop_oneof![4 => Just(String::from("GET")), 1 => "[A-Za-z]{0,7}"],
        target in prop_oneof![3 => "/[!-~]{0,12}", 1 => "\\PC{0,12}"],
        minor in prop_oneof![8 => Just(1_u8), 1 => any::<u8>()],
        is_whole in any::<bool>(),
        mut headers in prop::collection::vec(any_header(), 0..5),
        turn in 0_usize..8,
    ) {
        if is_whole {
            for (name, value) in [
                ("Host", "127.0.0.1:4300"),
                ("Upgrade", "websocket"),
                ("Connection", "Upgrade"),
                ("Sec-WebSocket-Version", "13"),
                ("Sec-WebSocket-Key", KEY),
            ] {
                headers.push((name.into(), value.into()));
            }
        }
        let len = headers.len();
        headers.rotate_left(if len == 0 { 0 } else { turn % len });
        let lines: Vec<Line<'_>> =
            headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        let verdict = judge_at(TCP, head(&method, &target, minor, &lines));
        let all = |name: &str| -> Vec<&[u8]> {
            lines.iter().filter(|(it, _)| it.eq_ignore_ascii_case(name)).map(|(_, it)| *it).collect()
        };
        if let Verdict::Refuse(response) = &verdict {
            prop_assert!(response.status >= 400);
        } else {
            prop_assert_eq!(all("Host"), vec![b"127.0.0.1:4300".as_slice()]);
            let origins = all("Origin");
            let listed = b"http://localhost:3000".as_slice();
            prop_assert!(origins.is_empty() || origins == vec![listed], "{:?}", origins);
            prop_assert!(all("Content-Length").is_empty());
            prop_assert!(minor == 1 && method == "GET" && target.starts_with('/'));
        }
        if let Verdict::Upgrade { key, bearer, proxied } = verdict {
            prop_assert_eq!(all("Sec-WebSocket-Key"), vec![key.as_bytes()]);
            prop_assert_eq!(bearer.is_some(), !all("Authorization").is_empty());
            prop_assert_eq!(proxied, !all("X-Forwarded-For").is_empty());
        }
    }
}

#[test]
fn hosts_follow_the_port() {
    let lines: [Line<'_>; 1] = [("Host", b"127.0.0.1:4300")];
    let site = Site { port: 9, host_names: &[], origins: &[], address: None, daemon_id: None };
    assert_eq!(status(&judge(Ok(head("GET", "/health", 1, &lines)), TCP, &site)), 403);
    let host = format!("[::1]:{}", site.port);
    let lines: [Line<'_>; 1] = [("Host", host.as_bytes())];
    assert_eq!(judge(Ok(head("GET", "/health", 1, &lines)), TCP, &site), Verdict::Health);
}
