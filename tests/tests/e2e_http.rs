//! What the real daemon answers to request heads, over raw TCP.

use std::time::Duration;

use clawd_tests::daemon::{Client, Daemon, Failure, PATIENCE, Raw, Site};
use serde_json::json;

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";

/// A request head with this first line and these headers.
fn head(first: &str, headers: &[&str]) -> Vec<u8> {
    format!("{first}\r\n{}\r\n", headers.iter().map(|h| format!("{h}\r\n")).collect::<String>())
        .into_bytes()
}

/// An upgrade that is right, with `more` headers.
fn upgrade(daemon: &Daemon, more: &str) -> Vec<u8> {
    let port = daemon.port;
    format!(
        "GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{KEY}{more}\r\n"
    )
    .into_bytes()
}

fn status(answer: &str) -> u16 {
    let code = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
    code.and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("no answer: {answer:?}"))
}

/// How many answers begin in this text.
fn answers_in(text: &str) -> usize {
    text.lines().filter(|line| line.starts_with("HTTP/1.1 ")).count()
}

/// The status of the one answer, after which the connection ends and nothing else comes.
fn refused(daemon: &Daemon, request: &[u8]) -> u16 {
    let answer = Raw::exchange(daemon.port, request);
    let shown = String::from_utf8_lossy(request);
    assert_eq!(answers_in(&answer), 1, "{shown:?} got {answer:?}");
    assert!(!answer.to_lowercase().contains("access-control"), "{answer}");
    assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
    status(&answer)
}

/// The status of the answer to an upgrade; a connection that is upgraded stays open.
fn upgraded(daemon: &Daemon, request: &[u8]) -> u16 {
    let mut raw = Raw::connect(daemon.port);
    raw.send(request);
    let answer = raw.read_head(PATIENCE);
    status(&answer)
}

#[test]
fn b1_only_our_own_names_may_stand_in_host() {
    let site = Site::new();
    let daemon = site.start();
    let port = daemon.port;
    for good in [format!("127.0.0.1:{port}"), format!("localhost:{port}"), format!("[::1]:{port}")]
    {
        let health = head("GET /health HTTP/1.1", &[&format!("Host: {good}")]);
        assert_eq!(refused(&daemon, &health), 200, "{good}");
    }
    let bad = [
        "evil.example".to_owned(),
        format!("evil.example:{port}"),
        format!("localhost.evil:{port}"),
        format!("evil.localhost:{port}"),
        format!("localhost.:{port}"),
        format!("127.0.0.1.:{port}"),
        "127.0.0.1:9".to_owned(),
        "127.0.0.1".to_owned(),
        "localhost".to_owned(),
        format!("0.0.0.0:{port}"),
        format!("127.1:{port}"),
        format!("2130706433:{port}"),
        format!("127.0.0.1:0{port}"),
        format!("user@127.0.0.1:{port}"),
        format!("127.0.0.1:{port}, evil.example"),
        String::new(),
    ];
    for host in bad {
        for path in ["/", "/health", "/metrics"] {
            let host = format!("Host: {host}");
            let plain = head(&format!("GET {path} HTTP/1.1"), &[&host]);
            assert!([400, 403].contains(&refused(&daemon, &plain)), "{host}");
        }
        let text = String::from_utf8(upgrade(&daemon, "")).unwrap();
        let text = text.replace(&format!("127.0.0.1:{port}"), &host);
        assert!([400, 403].contains(&refused(&daemon, text.as_bytes())), "{host}");
    }
    let ours = format!("Host: 127.0.0.1:{port}");
    for hosts in [vec![], vec![&*ours, &*ours], vec![&*ours, "Host: evil.example"]] {
        assert_eq!(refused(&daemon, &head("GET /health HTTP/1.1", &hosts)), 400, "{hosts:?}");
    }
}

#[test]
fn b2_no_origin_but_those_on_the_list() {
    let site = Site::new();
    site.configure("origins = [\"https://app.example\"]");
    let daemon = site.start();
    for bad in [
        "http://evil.example",
        "null",
        "",
        "https://app.example.evil",
        "https://app.example:444",
        "http://app.example",
        "https://app.example/",
        "file://",
    ] {
        let request = upgrade(&daemon, &format!("Origin: {bad}\r\n"));
        assert!([400, 403].contains(&refused(&daemon, &request)), "{bad}");
    }
    let twice = upgrade(&daemon, "Origin: https://app.example\r\nOrigin: https://app.example\r\n");
    assert!([400, 403].contains(&refused(&daemon, &twice)));
    assert_eq!(upgraded(&daemon, &upgrade(&daemon, "Origin: https://app.example\r\n")), 101);
    assert_eq!(upgraded(&daemon, &upgrade(&daemon, "")), 101);
    let own = format!("Origin: http://127.0.0.1:{}\r\n", daemon.port);
    assert_eq!(refused(&daemon, &upgrade(&daemon, &own)), 403, "our own port is no origin either");
}

#[test]
fn b3_gets_change_nothing_and_no_url_carries_a_token() {
    let site = Site::new();
    let daemon = site.start();
    let host = format!("Host: 127.0.0.1:{}", daemon.port);
    let get = |path: &str, more: &[&str]| {
        let headers: Vec<&str> = std::iter::once(&*host).chain(more.iter().copied()).collect();
        refused(&daemon, &head(&format!("GET {path} HTTP/1.1"), &headers))
    };
    let token = site.token();
    for key in ["token", "access_token", "auth", "TOKEN"] {
        assert_eq!(get(&format!("/?{key}={token}"), &[]), 400, "{key}");
        assert_eq!(get(&format!("/health?{key}={token}"), &[]), 400, "{key}");
    }
    let request = upgrade(&daemon, "");
    let with_token =
        String::from_utf8(request).unwrap().replace("GET / ", &format!("GET /?token={token} "));
    assert_eq!(refused(&daemon, with_token.as_bytes()), 400);
    for path in ["/nothing", "/shutdown", "/rpc", "/health/x", "/../health", "//health", "/Health"]
    {
        assert!([400, 404].contains(&get(path, &[])), "{path}");
    }
    assert_eq!(get("/metrics", &[]), 401);
    assert_eq!(get("/metrics", &["Authorization: Bearer wrong"]), 401);
    assert_eq!(get("/metrics", &[&format!("Authorization: Bearer {token}")]), 200);
    let health = Raw::exchange(daemon.port, &head("GET /health HTTP/1.1", &[&host]));
    let (_, body) = health.split_once("\r\n\r\n").unwrap();
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!((&body["status"], &body["ok"]), (&json!("ok"), &json!(true)));
    assert_eq!(body["port"], daemon.port);
    assert!(!daemon.process.output().contains(&token), "a token is in the log");
}

/// Requests that are refused: each with what is wrong with it.
fn malformed(daemon: &Daemon) -> Vec<(&'static str, Vec<u8>)> {
    let host = format!("Host: 127.0.0.1:{}", daemon.port);
    let plain = |first: &str, more: &[&str]| {
        head(first, &std::iter::once(&*host).chain(more.iter().copied()).collect::<Vec<_>>())
    };
    let up = |more: &str| upgrade(daemon, more);
    let changed = |from: &str, to: &str| {
        let text = String::from_utf8(upgrade(daemon, "")).unwrap();
        assert!(text.contains(from), "{from}");
        text.replace(from, to).into_bytes()
    };
    let many: String = (0..80).map(|i| format!("X-{i}: 1\r\n")).collect();
    let long = format!("X-Long: {}\r\n", "a".repeat(9000));
    let with_body = |mut head: Vec<u8>, body: &str| {
        head.extend_from_slice(body.as_bytes());
        head
    };
    vec![
        ("POST", plain("POST / HTTP/1.1", &["Content-Length: 0"])),
        ("PUT", plain("PUT /health HTTP/1.1", &["Content-Length: 0"])),
        ("DELETE", plain("DELETE / HTTP/1.1", &[])),
        ("OPTIONS", plain("OPTIONS * HTTP/1.1", &[])),
        ("CONNECT", plain("CONNECT 127.0.0.1:22 HTTP/1.1", &[])),
        ("TRACE", plain("TRACE / HTTP/1.1", &[])),
        ("HEAD upgrade", changed("GET ", "HEAD ")),
        ("POST upgrade", changed("GET ", "POST ")),
        ("lower-case method", changed("GET ", "get ")),
        ("HTTP/1.0 upgrade", changed("HTTP/1.1", "HTTP/1.0")),
        ("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        (
            "h2c",
            plain(
                "GET / HTTP/1.1",
                &[
                    "Connection: Upgrade, HTTP2-Settings",
                    "Upgrade: h2c",
                    "HTTP2-Settings: AAMAAABk",
                ],
            ),
        ),
        ("h2c beside websocket", changed("Upgrade: websocket", "Upgrade: websocket, h2c")),
        ("absolute form", changed("GET / ", &format!("GET http://127.0.0.1:{}/ ", daemon.port))),
        ("absolute form elsewhere", changed("GET / ", "GET http://evil.example/ ")),
        ("no slash", changed("GET / ", "GET health ")),
        ("Content-Length on upgrade", with_body(up("Content-Length: 5\r\n"), "GET /")),
        ("Content-Length 0 on upgrade", up("Content-Length: 0\r\n")),
        (
            "Transfer-Encoding on upgrade",
            with_body(up("Transfer-Encoding: chunked\r\n"), "0\r\n\r\n"),
        ),
        (
            "both lengths",
            with_body(up("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n"), "0\r\n\r\n"),
        ),
        (
            "body on GET",
            with_body(
                plain("GET /nothing HTTP/1.1", &["Content-Length: 40"]),
                "GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
            ),
        ),
        (
            "pipelined after a refusal",
            with_body(
                plain("GET /nothing HTTP/1.1", &[]),
                &format!("GET /health HTTP/1.1\r\n{host}\r\n\r\n"),
            ),
        ),
        (
            "pipelined after health",
            with_body(
                plain("GET /nowhere HTTP/1.1", &["Connection: keep-alive"]),
                &format!("GET /health HTTP/1.1\r\n{host}\r\n\r\n"),
            ),
        ),
        ("obs-fold", up("X-Folded: a\r\n b\r\n")),
        ("obs-fold with a tab", up("X-Folded: a\r\n\tb\r\n")),
        ("two Upgrade", up("Upgrade: websocket\r\n")),
        ("two keys", up("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n")),
        ("two versions", up("Sec-WebSocket-Version: 13\r\n")),
        ("no key", changed(KEY, "Sec-WebSocket-Version: 13\r\n")),
        ("short key", changed("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ=")),
        ("key that is no base64", changed("dGhlIHNhbXBsZSBub25jZQ==", "!!!!!!!!!!!!!!!!!!!!!!==")),
        ("version 8", changed("Version: 13", "Version: 8")),
        ("no version", changed("Sec-WebSocket-Version: 13\r\n", "")),
        ("Connection: close with Upgrade", changed("Connection: Upgrade", "Connection: close")),
        ("space before the colon", up("X-Space : a\r\n")),
        ("space in a name", up("X Space: a\r\n")),
        ("no colon", up("nonsense\r\n")),
        ("NUL in a value", up("X-Nul: a\0b\r\n")),
        ("bare CR in a value", up("X-Cr: a\rb\r\n")),
        ("too many headers", up(&many)),
        ("too long", up(&long)),
        ("long target", changed("GET / ", &format!("GET /{} ", "a".repeat(9000)))),
        ("no version in the first line", b"GET /\r\n\r\n".to_vec()),
        ("spaces in the first line", changed("GET / HTTP", "GET  / HTTP")),
        ("not HTTP", b"\x15\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec()),
        ("JSON", b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"daemon.ping\"}\r\n\r\n".to_vec()),
        ("no Host", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
    ]
}

#[test]
fn b4_each_malformed_request_gets_one_refusal_and_the_end() {
    let site = Site::new();
    let daemon = site.start();
    for (name, request) in malformed(&daemon) {
        let code = refused(&daemon, &request);
        assert!((400..=505).contains(&code), "{name}: {code}");
    }
    let owner = daemon.owner().call("daemon.ping", json!({}));
    assert!(owner.is_ok(), "and the daemon is well");
}

#[test]
fn b4_what_follows_a_refused_upgrade_is_never_read() {
    let site = Site::new();
    let daemon = site.start();
    let mut request = upgrade(&daemon, "Origin: http://evil.example\r\n");
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "daemon.auth", "params": {"token": site.token()}});
    let body = body.to_string().into_bytes();
    // A masked text frame, with a mask of zeros.
    request.extend_from_slice(&[0x81, 0xfe, 0, u8::try_from(body.len()).unwrap(), 0, 0, 0, 0]);
    request.extend_from_slice(&body);
    assert_eq!(refused(&daemon, &request), 403);
}

#[test]
fn b5_proxy_headers_make_a_peer_remote() {
    let site = Site::new();
    let daemon = site.start();
    let token = site.token();
    for header in [
        "X-Forwarded-For: 127.0.0.1",
        "X-Forwarded-Host: localhost",
        "X-Forwarded-Proto: https",
        "Forwarded: for=127.0.0.1",
        "X-Real-IP: 127.0.0.1",
        "Via: 1.1 proxy",
        "CF-Connecting-IP: 127.0.0.1",
        "x-forwarded-for: 127.0.0.1",
    ] {
        // Over the Unix socket, so that the failures of one header do not delay the next.
        let mut client = Client::unix_with(&site.data().join("clawd.sock"), daemon.port, header);
        match &mut client {
            Ok(client) => {
                let failure = client.auth(&token).expect_err(header);
                assert_eq!(failure.code(), Some(-32004), "{header}");
            }
            Err(refused) => assert!(refused.to_string().contains("40"), "{header}: {refused}"),
        }
    }
    let answer = upgraded(
        &daemon,
        &upgrade(&daemon, &format!("Via: 1.1 x\r\nAuthorization: Bearer {token}\r\n")),
    );
    assert!(answer == 401 || answer == 101, "{answer}");
    let mut remote = Client::tcp_with(daemon.port, "X-Forwarded-For: 10.0.0.1").unwrap();
    assert_eq!(remote.auth(&token).unwrap_err().code(), Some(-32004));
}

#[test]
fn a_bearer_header_is_the_same_gate() {
    let site = Site::new();
    let daemon = site.start();
    let bearer = format!("Authorization: Bearer {}", site.token());
    let mut client = Client::tcp_with(daemon.port, &bearer).unwrap();
    client.call("daemon.status", json!({})).expect("authenticated from the start");
    match Client::tcp_with(daemon.port, "Authorization: Bearer clawd_l_wrong") {
        Err(refused) => assert!(refused.to_string().contains("401"), "{refused}"),
        Ok(mut client) => {
            let failure = client.call("daemon.status", json!({})).unwrap_err();
            assert!(
                matches!(failure, Failure::Closed(Some(1008))) || failure.code() == Some(-32004)
            );
        }
    }
}

#[test]
fn b6_frames_that_break_the_rules_end_the_connection() {
    use tungstenite::Message;
    let site = Site::new();
    let daemon = site.start();
    let mut binary = daemon.owner();
    binary.send_message(Message::binary(vec![1, 2, 3]));
    assert_eq!(binary.wait_close(Duration::from_secs(2)), Some(1003));
    let mut large = daemon.connect();
    large.send(&format!("\"{}\"", "a".repeat(17 * 1024)));
    assert_eq!(large.wait_close(Duration::from_secs(2)), Some(1009));
    let mut largest = daemon.owner();
    let padding = "a".repeat(3 * 1024 * 1024);
    largest.call("daemon.ping", json!({"padding": padding})).expect("3 MiB are fine");
    largest.send(&format!("\"{}\"", "a".repeat(4 * 1024 * 1024)));
    assert_eq!(largest.wait_close(Duration::from_secs(2)), Some(1009));
    let mut raw = Raw::connect(daemon.port);
    raw.send(&upgrade(&daemon, ""));
    assert_eq!(status(&raw.read_head(PATIENCE)), 101);
    raw.send(&[0x81, 0x02, b'{', b'}']); // not masked
    let end = raw.read_to_end(Duration::from_secs(2)).expect("closed");
    assert_eq!(end.get(..4), Some(&[0x88, u8::try_from(end.len() - 2).unwrap(), 0x03, 0xea][..]));
}

#[test]
fn b6_json_that_breaks_the_rules_is_an_error_or_the_end() {
    let site = Site::new();
    let daemon = site.start();
    let mut client = daemon.owner();
    let deep = format!("{}{}", "[".repeat(70), "]".repeat(70));
    let code = |client: &mut Client, text: &str| {
        client.send(text);
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            let message = client.next(deadline).expect("open").expect("answered");
            if message.get("method").is_none() {
                return message["error"]["code"].as_i64().unwrap();
            }
        }
    };
    assert_eq!(code(&mut client, "{"), -32700);
    assert_eq!(code(&mut client, "{} {}"), -32700);
    assert_eq!(code(&mut client, "[]"), -32600);
    assert_eq!(code(&mut client, "{\"id\":1}"), -32600);
    assert_eq!(code(&mut client, r#"{"jsonrpc":"1.0","id":1,"method":"daemon.ping"}"#), -32600);
    assert_eq!(code(&mut client, r#"{"jsonrpc":"2.0","id":1.5,"method":"daemon.ping"}"#), -32600);
    assert_eq!(code(&mut client, r#"{"jsonrpc":"2.0","id":1,"method":"no.such"}"#), -32601);
    let deep =
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"daemon.ping","params":{{"x":{deep}}}}}"#);
    assert!([-32600, -32700].contains(&code(&mut client, &deep)));
    let twice = r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"daemon.ping"}"#;
    assert!([-32600, -32700].contains(&code(&mut client, twice)));
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"daemon.ping"}"#;
    let batch = format!("[{}]", vec![ping; 33].join(","));
    assert_eq!(code(&mut client, &batch), -32600);
    assert!(client.call("daemon.ping", json!({})).is_ok());
}
