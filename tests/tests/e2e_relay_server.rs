//! The real relay: daemons register, clients connect, bytes flow, and nobody is in anybody's way.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use clawd_runtime_mio::tls::Identity;
use clawd_tests::authority::Authority;
use clawd_tests::daemon::{PATIENCE, Raw, Site, Tls, wait_until, write_private};
use clawd_tests::relay::{Host, Leg, NAME, Relay, registration};
use data_encoding::BASE64URL_NOPAD;
use rustix::process::Signal;
use serde_json::{Value, json};

fn identity() -> Identity {
    Identity::generate().expect("randomness")
}

/// Bytes that are not all alike, the same for the same seed.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    (0..len)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect()
}

/// Sends `bytes` in messages of many sizes.
fn pour(leg: &mut impl Write, bytes: &[u8]) {
    let sizes = [1, 125, 126, 7, 4096, 65_535, 65_536, 3, 200_000, 1000];
    let (mut rest, mut sizes) = (bytes, sizes.iter().cycle());
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.len().min(*sizes.next().expect("a cycle")));
        leg.write_all(piece).expect("the leg is up");
        rest = after;
    }
}

fn take(leg: &mut impl Read, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    leg.read_exact(&mut bytes).expect("so much comes");
    bytes
}

fn get(relay: &Relay, target: &str) -> String {
    Raw::exchange(relay.port, format!("GET {target} HTTP/1.1\r\nHost: relay\r\n\r\n").as_bytes())
}

#[test]
fn bytes_flow_both_ways_whatever_their_sizes() {
    let relay = Relay::start(&[]);
    let mut host = Host::register(relay.port, &identity()).expect("registered");
    let (mut client, mut daemon) = host.meet();
    client.send(b"hello").unwrap();
    assert_eq!(take(&mut daemon, 5), b"hello");
    let (up, down) = (noise(1, 9_000_000), noise(2, 7_000_000));
    thread::scope(|scope| {
        let reader = scope.spawn(|| take(&mut daemon, up.len()));
        pour(&mut client, &up);
        assert!(reader.join().unwrap() == up);
    });
    thread::scope(|scope| {
        let reader = scope.spawn(|| take(&mut client, down.len()));
        pour(&mut daemon, &down);
        assert!(reader.join().unwrap() == down);
    });
    // The last bytes before a close arrive, and then the close.
    let last = noise(3, 200_000);
    client.send(&last).unwrap();
    client.close();
    assert!(take(&mut daemon, last.len()) == last);
    assert_eq!(daemon.read(&mut [0]).unwrap(), 0);
    wait_until("the stream is over", PATIENCE, || relay.metric("streams") == 0);
    assert_eq!(relay.metric("daemons"), 1);
    assert!(relay.metric("bytes_total") >= 16_000_000);
}

#[test]
fn both_ways_at_once() {
    let relay = Relay::start(&[]);
    let mut host = Host::register(relay.port, &identity()).expect("registered");
    let (client, daemon) = host.meet();
    let echo = thread::spawn(move || {
        let mut daemon = daemon;
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(len @ 1..) = daemon.read(&mut buffer) {
            if daemon.write_all(&buffer[..len]).is_err() {
                break;
            }
        }
    });
    let mut client = client;
    for round in 0..200 {
        let bytes = noise(round, 1 + usize::try_from(round * 997).unwrap());
        client.send(&bytes).unwrap();
        assert!(take(&mut client, bytes.len()) == bytes, "round {round}");
    }
    client.close();
    echo.join().unwrap();
}

#[test]
fn g5_wrong_registrations_are_refused() {
    let relay = Relay::start(&[]);
    let (one, other) = (identity(), identity());
    let owner = Host::register(relay.port, &one).expect("registered");
    let refused = |what: &str, change: &dyn Fn(&str, Value) -> Value| {
        let answer = Host::register_as(relay.port, &one, change).expect_err(what);
        assert_eq!(answer["code"], "refused", "{what}: {answer}");
    };
    refused("another's key", &|_, mut message| {
        message["publicKey"] = registration(&other, "", NAME)["publicKey"].take();
        message
    });
    refused("another's signature", &|nonce, mut message| {
        let text = format!("clawd-relay-register-v1\0{nonce}\0{NAME}\0{}", one.fingerprint());
        message["signature"] = json!(BASE64URL_NOPAD.encode(&other.sign(text.as_bytes()).unwrap()));
        message
    });
    refused("replayed", &|_, _| registration(&one, "another nonce", NAME));
    refused("for another relay", &|nonce, _| registration(&one, nonce, "evil.example.org"));
    refused("another id", &|nonce, _| registration(&other, nonce, NAME));
    refused("out of turn", &|_, _| json!({"type": "ping"}));
    refused("nothing of the kind", &|_, _| json!("register"));
    for path in ["/v1/accept/ID/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "/v1/accept/ID/x"] {
        let status = Leg::open(relay.port, &path.replace("ID", owner.id())).expect_err("no ticket");
        assert!(matches!(status, 403 | 404), "{status}");
    }
    assert_eq!(relay.metric("daemons"), 1);
}

#[test]
fn g5_a_ticket_is_good_once() {
    let relay = Relay::start(&[]);
    let mut host = Host::register(relay.port, &identity()).expect("registered");
    let _client = Leg::open(relay.port, &format!("/v1/connect/{}", host.id())).expect("upgraded");
    let ticket = host.ticket().expect("an invitation");
    let target = format!("/v1/accept/{}/{ticket}", host.id());
    let _daemon = Leg::open(relay.port, &target).expect("good");
    assert_eq!(Leg::open(relay.port, &target).err(), Some(403));
}

#[test]
fn the_newest_registration_wins() {
    let relay = Relay::start(&[]);
    let key = identity();
    let mut old = Host::register(relay.port, &key).expect("registered");
    let mut new = Host::register(relay.port, &key).expect("registered");
    assert_eq!(old.control.text().expect("a word")["code"], "replaced");
    assert_eq!(old.control.text(), None);
    new.meet();
    drop(new);
    wait_until("it is known to be gone", PATIENCE, || relay.metric("daemons") == 0);
    let mut client = Leg::open(relay.port, &format!("/v1/connect/{}", key.fingerprint())).unwrap();
    assert_eq!(client.text().expect("a word")["code"], "offline");
}

#[test]
fn only_what_belongs_there_is_said() {
    let relay = Relay::start(&[]);
    let mut host = Host::register(relay.port, &identity()).expect("registered");
    host.control.say(&json!({"type": "ping"}));
    assert_eq!(host.control.text(), Some(json!({"type": "pong"})));
    // Bytes before the splice.
    let mut early = Leg::open(relay.port, &format!("/v1/connect/{}", host.id())).expect("upgraded");
    early.send(b"too early").unwrap();
    assert_eq!(early.text(), None);
    assert!(host.ticket().is_some());
    // Text after it.
    let (mut client, mut daemon) = host.meet();
    client.say(&json!("text"));
    assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
    assert_eq!(daemon.read(&mut [0]).unwrap_or(0), 0);
    // Bytes on a control connection.
    host.control.send(b"bytes").unwrap();
    assert_eq!(host.control.text(), None);
}

#[test]
fn g6_a_stalled_stream_and_a_cut_one_do_not_touch_the_others() {
    let relay = Relay::start(&[]);
    let mut host = Host::register(relay.port, &identity()).expect("registered");
    let (stalled_client, _stalled_daemon) = host.meet();
    let (cut_client, mut cut_daemon) = host.meet();
    let (mut client, mut daemon) = host.meet();
    let before = relay.memory();
    // One pours into a stream that nobody reads.
    let (stop, stopped) = mpsc::channel();
    let mut stalled = stalled_client;
    let pouring = thread::spawn(move || {
        stalled.stream().set_write_timeout(Some(Duration::from_millis(200))).unwrap();
        let piece = vec![7; 64 * 1024];
        let mut poured = 0_u64;
        while stalled.send(&piece).is_ok() {
            poured += 64 * 1024;
        }
        stopped.recv().unwrap();
        poured
    });
    // Another is cut in the middle of a message.
    let mut raw = cut_client.into_stream();
    raw.write_all(&[0x82, 0xfe, 0x10, 0x00, 1, 2, 3, 4, 5]).unwrap();
    raw.shutdown(Shutdown::Both).unwrap();
    drop(raw);
    let started = Instant::now();
    let bytes = noise(4, 20_000_000);
    thread::scope(|scope| {
        let reader = scope.spawn(|| take(&mut daemon, bytes.len()));
        pour(&mut client, &bytes);
        assert!(reader.join().unwrap() == bytes);
    });
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    let mut rest = Vec::new();
    let _ = cut_daemon.read_to_end(&mut rest);
    assert!(rest.len() <= 1, "what was cut ends: {} bytes", rest.len());
    let grown = relay.memory().saturating_sub(before);
    assert!(grown < 2_000_000, "a stream that nobody reads costs {grown} bytes");
    stop.send(()).unwrap();
    assert!(pouring.join().unwrap() > 0);
    assert_eq!(relay.metric("daemons"), 1);
}

#[test]
fn what_a_slow_reader_has_not_read_is_kept_until_it_has() {
    let relay = Relay::start(&[]);
    let mut host = Host::register(relay.port, &identity()).expect("registered");
    let (mut client, mut daemon) = host.meet();
    let bytes = noise(5, 12_000_000);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            pour(&mut client, &bytes);
            client.close();
        });
        let mut got = Vec::new();
        while got.len() < bytes.len() {
            let piece = 1_000_000.min(bytes.len() - got.len());
            got.extend(take(&mut daemon, piece));
            // Not a wait for anything: this is how slow it is.
            thread::sleep(Duration::from_millis(20));
        }
        assert!(got == bytes);
        assert_eq!(daemon.read(&mut [0]).unwrap(), 0);
        writer.join().unwrap();
    });
}

#[test]
fn it_says_how_it_is_and_nothing_else() {
    let relay = Relay::start(&["--prefix", "/relay"]);
    assert!(get(&relay, "/health").ends_with("{\"status\":\"ok\"}"));
    assert!(get(&relay, "/relay/health").starts_with("HTTP/1.1 200 "));
    let metrics = get(&relay, "/metrics");
    assert!(metrics.contains("# TYPE clawd_relay_streams gauge\n"), "{metrics}");
    let id = identity().fingerprint();
    for (target, status) in [
        (format!("/relay/v1/host/{id}"), 426),
        (format!("/relay/v1/connect/{id}"), 426),
        (format!("/v1/connect/{id}"), 404),
        ("/".to_owned(), 404),
        ("/relay".to_owned(), 404),
        ("/v1/host/nobody".to_owned(), 404),
    ] {
        let answer = get(&relay, &target);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{target}: {answer}");
    }
    let answer = Raw::exchange(relay.port, b"POST /health HTTP/1.1\r\nHost: relay\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    assert!(Raw::exchange(relay.port, b"\x16\x03\x01\x02\x00").starts_with("HTTP/1.1 400 "));
}

#[test]
fn access_tokens_and_the_list_keep_strangers_out() {
    let site = Site::new();
    let path = site.data().join("tokens");
    write_private(&path, b"one-token-that-is-long-enough\n\nanother-token-that-is-as-long\n");
    let key = identity();
    let id = key.fingerprint().to_string();
    let relay = Relay::start(&["--access-token-file", path.to_str().unwrap(), "--allow", &id]);
    let with = |token: &'static str| {
        move |_: &str, mut message: Value| {
            message["accessToken"] = json!(token);
            message
        }
    };
    assert!(Host::register(relay.port, &key).is_err());
    assert!(Host::register_as(relay.port, &key, with("wrong-token-that-is-long-enough")).is_err());
    assert!(Host::register_as(relay.port, &key, with("another-token-that-is-as-long")).is_ok());
    let stranger = identity();
    assert!(
        Host::register_as(relay.port, &stranger, with("one-token-that-is-long-enough")).is_err()
    );
}

#[test]
fn a_signal_ends_it_and_everybody_is_told() {
    let mut relay = Relay::start(&[]);
    let mut host = Host::register(relay.port, &identity()).expect("registered");
    let (mut client, mut daemon) = host.meet();
    relay.process.signal(Signal::TERM);
    assert_eq!(host.control.text().expect("a word")["code"], "going_away");
    assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
    assert_eq!(daemon.read(&mut [0]).unwrap_or(0), 0);
    let (status, output) = relay.process.end();
    assert!(status.success(), "{output}");
    assert!(output.contains("the relay has stopped"), "{output}");
}

#[test]
fn mistakes_are_explained() {
    let site = Site::new();
    let missing = site.data().join("missing.pem");
    let missing = missing.to_str().unwrap();
    for (args, code, words) in [
        (&["--bind", "0.0.0.0:0"][..], 2, "there is no TLS"),
        (&["--bind", "0.0.0.0:0", "--plain"], 2, "by which name"),
        (&["--bind", "nowhere"], 2, "no address"),
        (&["--host", "wss://relay"], 2, "no name of a machine"),
        (&["--prefix", "relay"], 2, "no path"),
        (&["--tls-cert", missing], 2, "--tls-key"),
        (&["--tls-cert", missing, "--tls-key", missing], 2, "missing.pem"),
        (&["--access-token-file", missing], 2, "no such file"),
        (&["--allow", "nobody"], 2, "not the id of a daemon"),
    ] {
        let args = [&["relay", "serve"], args].concat();
        let (exit, _, said) = site.run(&args);
        assert_eq!(exit, Some(code), "{args:?}: {said}");
        assert!(said.contains(words), "{args:?}: {said}");
    }
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let bind = holder.local_addr().unwrap().to_string();
    let (exit, _, said) = site.run(&["relay", "serve", "--bind", &bind]);
    assert_eq!(exit, Some(3), "{said}");
    assert!(said.contains("the port is taken"), "{said}");
}

#[test]
fn an_idle_socket_without_a_request_is_closed() {
    let relay = Relay::start(&[]);
    let mut silent = TcpStream::connect(("127.0.0.1", relay.port)).unwrap();
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(silent.read(&mut [0]).unwrap_or(0), 0);
}

#[test]
fn with_a_certificate_everything_is_the_same_and_nothing_is_plain() {
    let site = Site::new();
    let (authority, _) = Authority::new(&site.data());
    let [chain, private] = authority.vouch([2020, 3000]).write(&site.data());
    let flags = ["--tls-cert", chain.to_str().unwrap(), "--tls-key", private.to_str().unwrap()];
    let relay = Relay::start(&flags);
    let daemon = identity();
    let id = daemon.fingerprint();
    let secure = |path: &str| Leg::<Tls>::open_with(relay.port, path, &[]).expect("an upgrade");
    let mut control = secure(&format!("/v1/host/{id}"));
    let nonce = control.text().expect("a challenge")["nonce"].as_str().unwrap().to_owned();
    control.say(&registration(&daemon, &nonce, "localhost"));
    assert_eq!(control.text().expect("an answer")["type"], "registered");
    let mut client = secure(&format!("/v1/connect/{id}"));
    let invitation = control.text().expect("an invitation");
    let ticket = invitation["ticket"].as_str().unwrap();
    assert_eq!(invitation["from"], "127.0.0.1");
    let mut leg = secure(&format!("/v1/accept/{id}/{ticket}"));
    assert_eq!(client.text(), Some(json!({"type": "connected"})));
    let bytes = noise(6, 3_000_000);
    thread::scope(|scope| {
        let reader = scope.spawn(|| take(&mut leg, bytes.len()));
        pour(&mut client, &bytes);
        assert!(reader.join().unwrap() == bytes);
    });
    leg.send(b"and back").unwrap();
    assert_eq!(take(&mut client, 8), b"and back");
    client.close();
    assert_eq!(leg.read(&mut [0]).unwrap(), 0);
    assert!(!get(&relay, "/health").contains("HTTP/1.1"), "plain");
    let mut flags = flags;
    flags[3] = chain.to_str().unwrap();
    let (exit, _, said) = site.run(&[&["relay", "serve"][..], &flags].concat());
    assert_eq!(exit, Some(2), "{said}");
    assert!(said.contains("chain.pem"), "no key in it: {said}");
}
