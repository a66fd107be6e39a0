//! What people read when a relay does not do what it should: at the daemon's machine, and at a device's.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use clawd_tests::authority::{Authority, Vouched};
use clawd_tests::daemon::{Client, Daemon, PATIENCE, Process, Site, wait_until};
use clawd_tests::relay::Relay;
use rustix::process::Signal;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use tungstenite::protocol::Role;
use tungstenite::{Message, WebSocket};

type Answer = fn(TcpStream);

/// Something that answers as no relay does, to each that connects, until the test is over.
fn something(answer: impl Fn(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("it is bound").port();
    thread::spawn(move || listener.incoming().flatten().for_each(answer));
    port
}

/// Says this once it was asked for something.
fn say(mut tcp: impl Read + Write, answer: &[u8]) {
    let mut asked = Vec::new();
    let mut byte = [0];
    while !asked.ends_with(b"\r\n\r\n") && matches!(tcp.read(&mut byte), Ok(1)) {
        asked.extend(byte);
    }
    let _ = tcp.write_all(answer);
}

/// The daemon's machine and its daemon.
struct Desk {
    site: Site,
    daemon: Daemon,
}

/// A desk, a relay, and another machine that has become a device through it and knows no other way.
struct Away {
    desk: Desk,
    owner: Client,
    relay: Relay,
    laptop: Site,
}

impl Away {
    fn new() -> Self {
        let (desk, relay, laptop) = (Desk::new(&[]), Relay::start(&[]), Site::new());
        let url = format!("ws://127.0.0.1:{}", relay.port);
        let (code, _, err) = desk.site.run(&["relay", "enable", "--url", &url]);
        assert!(code == Some(0) && err.contains("connected"), "{err}");
        let mut owner = desk.daemon.owner();
        let window = owner.call("daemon.pairPin", json!({"confirm": false})).expect("a window");
        let shown = window["qrPayload"].as_str().expect("a code");
        let (code, _, err) = laptop.run(&["remote", "pair", shown, "--as", "desk"]);
        assert_eq!(code, Some(0), "{err}");
        Self { desk, owner, relay, laptop }
    }

    /// Another relay in its place, once the daemon has missed it.
    fn replace_relay(&mut self) {
        self.kill_relay();
        self.relay = Relay::start_on(self.relay.port, &[]);
    }

    /// `kill -9`.
    fn kill_relay(&mut self) {
        self.relay.process.signal(Signal::KILL);
        self.relay.process.wait();
        let owner = &mut self.owner;
        wait_until("the daemon has missed the relay", PATIENCE, || {
            let status = owner.call("daemon.status", json!({})).expect("a status");
            status["relay"]["state"] != "registered"
        });
    }
}

impl Desk {
    fn new(env: &[(&str, &Path)]) -> Self {
        let mut site = Site::new();
        let env = env.iter().map(|(name, path)| ((*name).to_owned(), path.display().to_string()));
        site.env.extend(env);
        let daemon = site.start();
        Self { site, daemon }
    }

    /// What `relay enable`, `relay status` and `relay test` say of the relay at this address.
    fn says_of(&self, url: &str) -> [String; 3] {
        [&["relay", "enable", "--url", url][..], &["relay", "status"], &["relay", "test"]].map(
            |args| {
                let (code, out, err) = self.site.run(args);
                let expected = if args[1] == "test" { 1 } else { 0 };
                assert_eq!(code, Some(expected), "{args:?}: {out}{err}");
                out + &err
            },
        )
    }
}

#[test]
fn g7_what_is_wrong_with_a_relay_is_named_with_what_to_do() {
    let desk = Desk::new(&[]);
    let redirect: Answer = |tcp| {
        let head =
            b"HTTP/1.1 302 Found\r\nLocation: ws://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";
        say(tcp, head);
    };
    let forbid: Answer = |tcp| say(tcp, b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    let busy: Answer = |tcp| say(tcp, b"HTTP/1.1 503 Too much\r\nContent-Length: 0\r\n\r\n");
    let page: Answer = |tcp| say(tcp, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    let noise: Answer = |tcp| say(tcp, b"SSH-2.0-OpenSSH_9.9 \x1b[2J\xff\xfe\r\n\r\n");
    for (answer, cause, hint, step) in [
        (redirect, "leads elsewhere", "address that the relay really has", "go elsewhere"),
        (forbid, "HTTP 403", "who may use it", "status 403"),
        (busy, "HTTP 503", "tried again by itself", "status 503"),
        (page, "HTTP 200", "a relay runs at this address", "status 200"),
        (noise, "is no relay", "check the relay's address", "no WebSocket"),
    ] {
        let url = format!("ws://127.0.0.1:{}", something(answer));
        let [enabled, status, test] = desk.says_of(&url);
        for said in [&enabled, &status] {
            assert!(said.contains(cause) && said.contains(hint), "{cause}: {said}");
            assert!(said.contains(&url), "{cause}: {said}");
        }
        assert!(test.contains(step) && test.contains(hint), "{step}: {test}");
        assert!(!format!("{enabled}{status}{test}").contains('\u{1b}'), "{test}");
    }
}

#[test]
fn a_relay_that_opens_and_then_talks_nonsense_or_hangs_up_is_named() {
    let desk = Desk::new(&[]);
    for (text, cause) in [
        (Some("{\"type\":\"registered\",\"pingSecs\":30}"), "said something that no relay says"),
        (Some("\u{1b}[2J not JSON"), "said something that no relay says"),
        (
            Some("{\"type\":\"error\",\"code\":\"refused\",\"message\":\"\\u001b[2J ha\"}"),
            "does not take this daemon",
        ),
        (None, "connection to the relay was lost"),
    ] {
        let port = something(move |tcp| {
            let Ok(mut socket) = tungstenite::accept(tcp) else { return };
            if let Some(text) = text {
                let _ = socket.send(Message::text(text));
            }
            let _ = socket.close(None);
            while socket.read().is_ok() {}
        });
        let [enabled, status, _] = desk.says_of(&format!("ws://127.0.0.1:{port}"));
        for said in [enabled, status] {
            assert!(said.contains(cause) && said.contains("hint: "), "{cause}: {said}");
            assert!(!said.contains('\u{1b}') && !said.contains("ha\n"), "{cause}: {said}");
        }
    }
}

/// Answers nothing but the TLS handshake.
fn tls_server(Vouched { certificate, key }: &Vouched) -> u16 {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let chain = vec![CertificateDer::clone(certificate.der())];
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key);
    let config = Arc::new(config.expect("a certificate of this key"));
    something(move |tcp| {
        let session = ServerConnection::new(Arc::clone(&config)).expect("a session");
        say(StreamOwned::new(session, tcp), b"");
    })
}

/// A relay with this certificate for 127.0.0.1, and its address.
fn tls_relay(dir: &Path, vouched: &Vouched) -> (Relay, String) {
    let [chain, private] = vouched.write(dir);
    let [chain, private] = [&chain, &private].map(|path| path.to_str().expect("a path"));
    let relay = Relay::start(&["--tls-cert", chain, "--tls-key", private, "--host", "127.0.0.1"]);
    let url = format!("wss://127.0.0.1:{}", relay.port);
    (relay, url)
}

#[test]
fn g7_an_authority_that_is_not_known_is_named_with_the_way_to_make_it_known() {
    let dir = tempfile::tempdir().expect("a directory");
    let (authority, path) = Authority::new(dir.path());
    let (_relay, url) = tls_relay(dir.path(), &authority.vouch([2020, 3000]));
    let mut desk = Desk::new(&[]);
    for said in desk.says_of(&url) {
        assert!(said.contains("SSL_CERT_FILE") && said.contains("this system's"), "{said}");
        assert!(said.contains("`clawd logs` says what TLS said"), "{said}");
    }
    // What the hint says helps, and one who tries the way without it is told so.
    desk.daemon.stop();
    let env = ("SSL_CERT_FILE".to_owned(), path.display().to_string());
    desk.site.env.push(env);
    desk.daemon = desk.site.start();
    let (code, _, err) = desk.site.run(&["relay", "enable", "--url", &url]);
    assert!(code == Some(0) && err.contains("✓ connected"), "{err}");
    let (code, _, err) = desk.site.run(&["relay", "test"]);
    assert_eq!(code, Some(0), "{err}");
    desk.site.env.clear();
    let (code, _, err) = desk.site.run(&["relay", "test"]);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("the daemon itself is connected: set SSL_CERT_FILE"), "{err}");
}

/// OpenSSL's server with nothing newer than TLS 1.2, and its port.
fn old_tls_server(dir: &Path, vouched: &Vouched) -> (Process, u16) {
    let [cert, private] = vouched.write(dir);
    let mut command = Command::new("openssl");
    command.args(["s_server", "-accept", "127.0.0.1:0", "-tls1_2"]);
    command.arg("-cert").arg(cert).arg("-key").arg(private).stdin(Stdio::piped());
    let mut server = Process::spawn(&mut command);
    let port = server.wait_for(|said| {
        let (_, rest) = said.split_once("ACCEPT 127.0.0.1:")?;
        rest.split_once('\n')?.0.trim().parse().ok()
    });
    (server, port.expect("it says where it listens"))
}

#[test]
fn g7_old_tls_and_a_clock_that_is_wrong_are_named_at_both_ends() {
    let dir = tempfile::tempdir().expect("a directory");
    let (authority, path) = Authority::new(dir.path());
    let desk = Desk::new(&[("SSL_CERT_FILE", &path)]);
    let (_old, old_port) = old_tls_server(dir.path(), &authority.vouch([2020, 3000]));
    for (port, cause, hint, step) in [
        (
            old_port,
            "does not speak TLS 1.3",
            "TLS 1.3 has to be enabled",
            "nothing newer than TLS 1.2",
        ),
        (
            tls_server(&authority.vouch([3000, 3001])),
            "certificate is not valid yet",
            "check this machine's clock",
            "certificate is not valid yet",
        ),
        (
            tls_server(&authority.vouch([2020, 2021])),
            "certificate has expired",
            "check this machine's clock",
            "certificate has expired",
        ),
    ] {
        let [enabled, status, test] = desk.says_of(&format!("wss://127.0.0.1:{port}"));
        for said in [&enabled, &status] {
            assert!(said.contains(cause) && said.contains(hint), "{cause}: {said}");
        }
        assert!(test.contains(step) && test.contains(hint), "{step}: {test}");
    }
}

#[test]
fn a_daemon_that_is_not_at_its_relay_and_a_relay_that_is_gone_are_told_apart() {
    let mut away = Away::new();
    let (code, out, err) = away.laptop.run(&["-R", "desk", "status"]);
    assert!(code == Some(0) && out.contains("relay"), "{out}{err}");
    let url = format!("the relay ws://127.0.0.1:{}", away.relay.port);
    away.kill_relay();
    let (code, _, err) = away.laptop.run(&["-R", "desk", "status"]);
    assert_eq!(code, Some(6), "{err}");
    assert!(err.contains("cannot reach desk") && err.contains(&url), "{err}");
    assert!(err.contains("refused") && err.contains("hint: "), "{err}");
    away.relay = Relay::start_on(away.relay.port, &[]);
    away.desk.daemon.stop();
    let (code, _, err) = away.laptop.run(&["-R", "desk", "status"]);
    assert_eq!(code, Some(6), "{err}");
    assert!(err.contains(&format!("{url}: it is not connected to the relay")), "{err}");
    assert!(err.contains("does clawd run there") && err.contains("relay status"), "{err}");
}

/// A relay that brings whoever comes to this port, whomever they have asked for.
fn impostor_relay(port: u16, to: u16) {
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
    thread::spawn(move || {
        for tcp in listener.incoming().flatten() {
            let Ok(mut socket) = tungstenite::accept(tcp.try_clone().expect("a clone")) else {
                return;
            };
            let _ = socket.send(Message::text(r#"{"type":"connected"}"#));
            let mut there = TcpStream::connect(("127.0.0.1", to)).expect("somebody is there");
            let mut answers = there.try_clone().expect("a clone");
            thread::spawn(move || {
                let mut socket = WebSocket::from_raw_socket(tcp, Role::Server, None);
                let mut bytes = [0; 4096];
                while let Ok(read @ 1..) = answers.read(&mut bytes) {
                    let _ = socket.send(Message::binary(bytes[..read].to_vec()));
                }
                let _ = socket.close(None);
            });
            while let Ok(Message::Binary(bytes)) = socket.read() {
                let _ = there.write_all(&bytes);
            }
        }
    });
}

#[test]
fn g3_a_relay_that_answers_in_the_daemons_place_is_found_out() {
    let mut away = Away::new();
    away.kill_relay();
    let elsewhere = Site::new();
    let other = elsewhere.start();
    impostor_relay(away.relay.port, other.port);
    let (code, _, err) = away.laptop.run(&["-R", "desk", "status"]);
    assert_eq!(code, Some(6), "{err}");
    assert!(err.contains(&format!("has another key: {}", other.key())), "{err}");
    assert!(err.contains("nothing was said to others") && err.contains("identity"), "{err}");
}

/// All events that a `tail --json` has printed, by number.
fn numbers_in(said: &str) -> Vec<u64> {
    let events = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.filter_map(|event| event["seq"].as_u64()).collect()
}

#[test]
fn a_relay_that_is_killed_in_the_middle_of_a_turn_costs_nothing_of_it() {
    let mut away = Away::new();
    let mut tail = Process::spawn(&mut away.laptop.command(&["-R", "desk", "tail", "--json"]));
    let repo = away.desk.site.repo();
    let prompt = "slow 150\nstream 40";
    let args = ["-R", "desk", "run", "-C", repo.to_str().expect("a path"), prompt];
    let mut turn = Process::spawn(&mut away.laptop.command(&args));
    for word in ["word3", "word20"] {
        turn.wait_for(|said| said.contains(word).then_some(())).expect("it goes on");
        away.replace_relay();
    }
    let (status, said) = turn.end();
    assert!(status.success(), "{said}");
    for n in 0..40 {
        assert_eq!(said.matches(&format!("word{n} ")).count(), 1, "word{n} in {said}");
    }
    assert!(said.contains("reconnecting"), "{said}");
    // Who only listens has heard what was written down, in order.
    let subscribed = away.owner.call("events.subscribe", json!({})).expect("a cursor");
    let last = subscribed["cursor"].as_u64().expect("a number");
    let heard = tail.wait_for(|said| {
        let numbers = numbers_in(said);
        numbers.last().is_some_and(|number| *number >= last).then_some(numbers)
    });
    let mut heard = heard.expect("all of it");
    assert!(heard.is_sorted(), "out of order: {heard:?}");
    heard.dedup();
    let first = *heard.first().expect("some");
    away.owner.call("events.subscribe", json!({"after": first - 1})).expect("a replay");
    let mut written = Vec::new();
    while written.last().is_none_or(|seq| *seq < last) {
        let deadline = Instant::now() + PATIENCE;
        let event = away.owner.next(deadline).expect("it stays").expect("an event");
        written.extend(event["params"]["seq"].as_u64().filter(|seq| *seq >= first));
    }
    for seq in written {
        assert!(heard.binary_search(&seq).is_ok(), "{seq} was not heard: {heard:?}");
    }
}
