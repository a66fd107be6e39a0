//! TLS on the daemon's own listener, end to end: who gets in, with what, and what the way there shows.

use std::io::{Read, Write};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use clawd_runtime_mio::tls::Identity;
use clawd_tests::daemon::records::Middle;
use clawd_tests::daemon::{Client, Daemon, Failure, PATIENCE, Raw, Site, skip, tls};
use serde_json::{Value, json};
use tungstenite::Message;

const SECOND: Duration = Duration::from_secs(1);

/// The refusal that everybody gets who may not come in.
fn unauthorized(client: &mut Client, token: &str) -> Value {
    match client.auth(token) {
        Err(Failure::Refused { code: -32004, error, .. }) => {
            assert_eq!(client.wait_close(PATIENCE), Some(1008));
            error
        }
        other => panic!("it came to {other:?}"),
    }
}

#[test]
fn f1_a_device_pairs_and_works_over_tls() {
    let site = Site::new();
    let daemon = site.start();
    let mut owner = daemon.owner();
    let mut tablet = daemon.connect_tls(None).unwrap();
    let (id, token) = tablet.pair_by_ticket(&mut owner, "full");
    tablet.call("session.list", json!({})).expect("the connection is the device's now");
    let mut again = daemon.connect_tls(None).unwrap();
    assert_eq!(again.auth(&token).unwrap()["deviceId"], *id);
    let session = again.create_session(&site.repo());
    assert!(!again.turn(&session, "stream 300").is_empty());
    owner.call("device.revoke", json!({"id": id})).unwrap();
    for client in [&mut tablet, &mut again] {
        assert_eq!(client.wait_close(SECOND), Some(1008));
    }
}

#[test]
fn f2_the_local_token_is_worth_nothing_over_tls() {
    let site = Site::new();
    let daemon = site.start();
    let local = site.token();
    let by_nobody = unauthorized(&mut daemon.connect_tls(None).unwrap(), "clawd_l_wrong");
    let own = Identity::generate().unwrap();
    for own in [None, Some(&own)] {
        assert_eq!(unauthorized(&mut daemon.connect_tls(own).unwrap(), &local), by_nobody);
    }
    daemon.connect().auth(&local).expect("and in clear on loopback it is");
}

#[test]
fn e6_a_token_that_was_given_to_a_key_works_with_that_key_alone() {
    let site = Site::new();
    let daemon = site.start();
    let mut owner = daemon.owner();
    let (own, thief) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let paired = &mut daemon.connect_tls(Some(&own)).unwrap();
    let (_, token) = paired.pair_by_ticket(&mut owner, "full");
    daemon.connect_tls(Some(&own)).unwrap().auth(&token).expect("the device itself");
    let mut refusals = vec![
        unauthorized(&mut daemon.connect_tls(Some(&thief)).unwrap(), &token),
        unauthorized(&mut daemon.connect_tls(None).unwrap(), &token),
        unauthorized(&mut daemon.connect(), &token),
        unauthorized(&mut daemon.connect_unix(), &token),
    ];
    refusals.dedup();
    assert_eq!(refusals.len(), 1, "{refusals:#?}");
    daemon.kill();
    let daemon = site.start();
    unauthorized(&mut daemon.connect_tls(Some(&thief)).unwrap(), &token);
    daemon.connect_tls(Some(&own)).unwrap().auth(&token).expect("the device itself");
}

#[test]
fn g1_our_client_does_not_talk_to_a_daemon_with_another_key() {
    let (site, other) = (Site::new(), Site::new());
    let (daemon, other) = (site.start(), other.start());
    let mut stream = tls(other.port, daemon.key(), None).unwrap();
    let error = stream.write_all(b"GET /health HTTP/1.1\r\n\r\n").unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn f1_no_json_no_token_and_nothing_of_what_was_said_is_on_the_wire() {
    let site = Site::new();
    let daemon = site.start();
    let mut owner = daemon.owner();
    let (_, token) = daemon.connect_tls(None).unwrap().pair_by_ticket(&mut owner, "full");
    let middle = Middle::start(daemon.port, None);
    let stream = tls(middle.port, daemon.key(), None).unwrap();
    let url = format!("ws://127.0.0.1:{}/", daemon.port);
    let (mut socket, _) = tungstenite::client(url, stream).unwrap();
    let canary = "canary-5d1f08";
    for (id, method, params) in [
        (1, "daemon.auth", json!({"token": token})),
        (2, "session.create", json!({"repoPath": site.repo(), "title": canary})),
    ] {
        let call = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        socket.send(Message::text(call.to_string())).unwrap();
    }
    let is_answer = |text: &str| text.contains(canary) && text.contains("\"id\":2");
    while !socket.read().unwrap().into_text().is_ok_and(|text| is_answer(&text)) {}
    drop(socket);
    let seen = middle.end();
    assert!(seen.client.len() > 3 && seen.daemon.len() > 3);
    for (side, records) in [("client", seen.client), ("daemon", seen.daemon)] {
        let bytes = records.concat();
        let repo = site.repo();
        // Nothing short: two bytes of JSON occur by chance in any ciphertext.
        let clear = [&token, canary, "jsonrpc", "HTTP/1.1", repo.to_str().unwrap()];
        for part in clear {
            assert!(!contains(&bytes, part.as_bytes()), "{part} was said in clear by the {side}");
        }
        // All that is left in clear are the two hellos (RFC 8446, 5.1 and 5.2).
        let clear = records.iter().filter(|record| record[0] != 23).count();
        assert_eq!(clear, 1, "by the {side}");
    }
}

#[test]
fn g2_nothing_in_clear_is_understood_after_tls_has_begun() {
    let site = Site::new();
    let daemon = site.start();
    let request = format!("GET /health HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\r\n", daemon.port);
    let mut stream = tls(daemon.port, daemon.key(), None).unwrap();
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock).unwrap();
    }
    let mut raw = Raw(stream.sock);
    raw.send(request.as_bytes());
    let answer = raw.read_to_end(PATIENCE).expect("the daemon ends the connection");
    assert!(!contains(&answer, b"HTTP"), "{answer:?}");
    assert!(Raw::exchange(daemon.port, request.as_bytes()).starts_with("HTTP/1.1 200"));
}

/// The beginning of a ClientHello.
fn half_a_hello(daemon: &Daemon) -> Vec<u8> {
    let mut session = tls(daemon.port, daemon.key(), None).unwrap().conn;
    let mut hello = Vec::new();
    session.write_tls(&mut hello).unwrap();
    hello.truncate(hello.len() / 2);
    hello
}

#[test]
fn c3_500_half_handshakes_do_not_keep_the_owner_out() {
    let site = Site::new();
    let daemon = site.start();
    let half = half_a_hello(&daemon);
    let silent: Vec<Raw> = (0..500).map(|_| Raw::connect(daemon.port)).collect();
    let silent: Vec<Raw> = silent
        .into_iter()
        .map(|mut raw| {
            // Who was sent away before cannot send.
            raw.send(&half);
            raw
        })
        .collect();
    let began = Instant::now();
    daemon.connect_unix().auth(&site.token()).expect("the Unix socket has its own room");
    daemon.owner_under_load();
    assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
    drop(silent);
}

#[test]
fn c4_a_handshake_that_does_not_go_on_is_cut_off_on_time() {
    let site = Site::new();
    let daemon = site.start();
    let half = half_a_hello(&daemon);
    // The first byte alone, half a hello, and one byte a second.
    std::thread::scope(|scope| {
        for (at_once, drips) in [(1, false), (half.len(), false), (1, true)] {
            let (daemon, half) = (&daemon, &half);
            scope.spawn(move || {
                let began = Instant::now();
                let mut raw = Raw::connect(daemon.port);
                raw.send(&half[..at_once]);
                let mut rest = half[at_once..].chunks(1);
                while raw.read_to_end(SECOND).is_none() && began.elapsed() < 2 * PATIENCE {
                    if let Some(byte) = rest.next().filter(|_| drips) {
                        raw.send(byte);
                    }
                }
                let lasted = began.elapsed();
                assert!(lasted > 4 * SECOND && lasted < 7 * SECOND, "{lasted:?}");
            });
        }
    });
}

/// Runs OpenSSL's own client against the daemon; nothing where there is none.
fn openssl(daemon: &Daemon, args: &[&str], input: &str) -> Option<Output> {
    let mut child = Command::new("openssl")
        .args(["s_client", "-connect", &format!("127.0.0.1:{}", daemon.port)])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    let mut stdin = child.stdin.take().unwrap();
    // Who is refused does not read it.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    Some(child.wait_with_output().unwrap())
}

#[test]
fn g2_openssl_gets_tls_13_and_no_older_and_nothing_to_resume_with() {
    let site = Site::new();
    let daemon = site.start();
    let request = format!("GET /health HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\r\n", daemon.port);
    let session = site.home().join("session");
    let session = session.to_str().unwrap();
    let args = ["-tls1_3", "-ign_eof", "-sess_out", session];
    let Some(output) = openssl(&daemon, &args, &request) else {
        return skip("g2_openssl…", "there is no openssl");
    };
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("HTTP/1.1 200 OK") && said.contains("\"ok\""), "{said}");
    assert!(said.contains("TLSv1.3") && !said.contains("Post-Handshake New Session"), "{said}");
    assert!(said.contains("Max Early Data: 0") || !said.contains("Max Early Data"), "{said}");
    assert!(std::fs::metadata(session).map_or(0, |file| file.len()) == 0, "a session to resume");
    for old in [["-tls1_2", "-ign_eof"], ["-tls1_1", "-ign_eof"]] {
        let output = openssl(&daemon, &old, &request).unwrap();
        assert!(!output.status.success(), "{old:?}");
        assert!(!contains(&output.stdout, b"200 OK"), "{old:?}");
    }
    let mut health = tls(daemon.port, daemon.key(), None).unwrap();
    health.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    health.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "the daemon goes on: {answer}");
}
