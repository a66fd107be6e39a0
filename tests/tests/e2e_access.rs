//! Who gets into the real daemon, who is thrown out, and what strangers cost.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clawd_tests::daemon::{
    Client, Daemon, Failure, PATIENCE, Raw, Site, wait_until, write_private,
};
use serde_json::{Value, json};

const SECOND: Duration = Duration::from_secs(1);

/// The refusal that everybody gets who may not come in.
fn unauthorized(client: &mut Client, method: &str, params: Value) -> Value {
    match client.call(method, params) {
        Err(Failure::Refused { code: -32004, error, .. }) => {
            assert_eq!(client.wait_close(SECOND), Some(1008));
            error
        }
        other => panic!("{method} came to {other:?}"),
    }
}

#[test]
fn a5_every_wrong_beginning_gets_the_same_refusal() {
    let site = Site::new();
    let daemon = site.start();
    let mut owner = daemon.owner();
    let (id, revoked) = daemon.connect().pair(&mut owner, "full");
    owner.call("device.revoke", json!({"id": id})).unwrap();
    let good = site.token();
    let mut flipped = good.clone().into_bytes();
    flipped[20] ^= 1;
    let flipped = String::from_utf8(flipped).unwrap();
    let begin = |token: Value| ("daemon.auth", json!({"token": token}));
    let variants = [
        begin(json!(flipped)),
        begin(json!(revoked)),
        begin(json!("clawd_l_wrong")),
        begin(json!("")),
        begin(json!("x".repeat(10_000))),
        begin(json!(null)),
        begin(json!(12)),
        begin(json!([good])),
        ("daemon.auth", json!({})),
        ("daemon.auth", json!({"token": "wrong", "role": "owner", "deviceId": "x"})),
        ("daemon.status", json!({})),
        ("session.list", json!({})),
        ("session.create", json!({"repoPath": site.repo(), "token": good})),
        ("events.subscribe", json!({})),
        ("device.list", json!({})),
        ("no.such.method", json!({})),
    ];
    // Over the Unix socket, where failures are not delayed.
    let refusals: Vec<Value> = variants
        .iter()
        .map(|(method, params)| {
            let mut client = daemon.connect_unix();
            let refusal = unauthorized(&mut client, method, params.clone());
            assert!(client.take_events().is_empty(), "{method}: a stranger was told something");
            refusal
        })
        .collect();
    assert!(refusals.iter().all(|refusal| *refusal == refusals[0]), "{refusals:#?}");
}

#[test]
fn a5_a_stranger_may_ping_and_hears_nothing_else() {
    let site = Site::new();
    let daemon = site.start();
    let mut stranger = daemon.connect();
    assert_eq!(stranger.call("daemon.ping", json!({})).unwrap()["pong"], true);
    let mut owner = daemon.owner();
    let session = owner.create_session(&site.repo());
    owner.turn(&session, "say hello");
    assert!(stranger.call("daemon.ping", json!({})).is_ok());
    assert!(stranger.take_events().is_empty());
}

#[test]
fn a6_rotation_ends_every_connection_of_the_old_token() {
    let site = Site::new();
    let daemon = site.start();
    let old = site.token();
    let mut three = [daemon.owner(), daemon.owner(), daemon.connect_unix()];
    three[2].auth(&old).unwrap();
    let mut owner = daemon.owner();
    let started = Instant::now();
    let rotated = owner.call("daemon.rotateToken", json!({}));
    assert!(matches!(rotated, Ok(_) | Err(Failure::Closed(_))), "{rotated:?}");
    for client in &mut three {
        assert_eq!(client.wait_close(SECOND), Some(1008));
    }
    assert!(started.elapsed() < 2 * SECOND);
    let new = site.token();
    assert_ne!(old, new);
    unauthorized(&mut daemon.connect_unix(), "daemon.auth", json!({"token": old}));
    daemon.connect_unix().auth(&new).expect("the new one is in the file");
    drop(daemon);
    let daemon = site.start();
    unauthorized(&mut daemon.connect_unix(), "daemon.auth", json!({"token": old}));
    daemon.connect_unix().auth(&new).expect("and it is still the one after a restart");
}

#[test]
fn a8_no_secret_is_anywhere_but_in_its_own_place() {
    let site = Site::new();
    let canary = "canary-3f9b1c77d2";
    let config = format!(
        "[provider.claude]\npath = \"{}\"\n[provider.claude.env]\nANTHROPIC_API_KEY = \"{canary}\"\n",
        clawd_tests::daemon::scripted_claude().display()
    );
    write_private(&site.data().join("config.toml"), config.as_bytes());
    let daemon = site.start();
    let mut owner = daemon.owner();
    owner.frames = Some(Vec::new());
    let mut phone = daemon.connect();
    let window = owner.call("daemon.pairPin", json!({"confirm": false})).unwrap();
    let pin = window["pin"].as_str().unwrap().to_owned();
    let device = phone.call("device.pair", json!({"pin": pin, "name": "phone", "platform": "ios"}));
    let device_token = device.unwrap()["device_token"].as_str().unwrap().to_owned();
    let local_token = site.token();
    let session = owner.create_session(&site.repo());
    owner.turn(&session, "say hello");
    for wrong in ["clawd_l_wrong", &local_token[..30]] {
        unauthorized(&mut daemon.connect_unix(), "daemon.auth", json!({"token": wrong}));
    }
    owner.call("daemon.status", json!({})).unwrap();
    owner.call("device.list", json!({})).unwrap();
    let secrets = [&local_token, &device_token, &canary.to_owned()];
    // The agent runs and has its key; nobody else has.
    for pid in descendants(daemon.process.pid()) {
        let read = |what: &str| fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
        let (args, env) = (read("cmdline"), read("environ"));
        let is_agent = args.windows(15).any(|part| part == b"scripted-claude");
        for secret in &secrets {
            assert!(!contains(&args, secret), "a secret is in the arguments of {pid}");
            let may_have = is_agent && **secret == canary;
            assert!(may_have || !contains(&env, secret), "a secret is in the environment of {pid}");
        }
    }
    for frame in owner.frames.take().unwrap() {
        assert!(!secrets.iter().any(|secret| frame.contains(secret.as_str())), "{frame}");
    }
    let output = daemon.process.output();
    daemon.stop();
    let holders = ["auth_token", "config.toml"];
    each_file(&site.data(), &mut |path, bytes| {
        let is_holder = holders.iter().any(|name| path.ends_with(name));
        for secret in &secrets {
            assert!(is_holder || !contains(bytes, secret), "a secret is in {}", path.display());
        }
    });
    assert!(
        !secrets.iter().any(|secret| output.contains(secret.as_str())),
        "a secret is in the log"
    );
    assert!(!output.contains(&pin), "the PIN is in the log");
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|part| part == text.as_bytes())
}

fn each_file(dir: &Path, act: &mut dyn FnMut(&Path, &[u8])) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            each_file(&path, act);
        } else if let Ok(bytes) = fs::read(&path) {
            act(&path, &bytes);
        }
    }
}

/// A process and all that it has started.
fn descendants(pid: u32) -> Vec<u32> {
    let children =
        fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children = children.split_whitespace().filter_map(|child| child.parse().ok());
    std::iter::once(pid).chain(children.flat_map(descendants)).collect()
}

#[test]
fn pairing_by_pin_makes_a_device_and_revoking_throws_it_out_within_a_second() {
    let site = Site::new();
    let daemon = site.start();
    let mut owner = daemon.owner();
    let mut phone = daemon.connect();
    let (id, token) = phone.pair(&mut owner, "full");
    assert_eq!(owner.wait_event("device.paired", |_| true)["device_id"], *id);
    phone.call("session.list", json!({})).expect("the connection is the device's now");
    let mut again = daemon.connect();
    let auth = again.auth(&token).unwrap();
    assert_eq!((&auth["role"], &auth["deviceId"]), (&json!("full"), &json!(id)));
    let listed = owner.call("device.list", json!({})).unwrap();
    assert_eq!(listed[0]["connected"], true);
    assert!(!listed.to_string().contains(&token));
    let revoked = Instant::now();
    owner.call("device.revoke", json!({"id": id})).unwrap();
    for client in [&mut phone, &mut again] {
        assert_eq!(client.wait_close(SECOND), Some(1008));
    }
    assert!(revoked.elapsed() < SECOND, "E4");
    unauthorized(&mut daemon.connect_unix(), "daemon.auth", json!({"token": token}));
    daemon.kill();
    let daemon = site.start();
    unauthorized(&mut daemon.connect_unix(), "daemon.auth", json!({"token": token}));
}

#[test]
fn d2_three_wrong_pins_close_the_window_for_the_right_one_too() {
    let site = Site::new();
    let daemon = site.start();
    let mut owner = daemon.owner();
    let window = owner.call("daemon.pairPin", json!({"confirm": false})).unwrap();
    let right = window["pin"].as_str().unwrap().to_owned();
    let pair = |pin: &str| {
        let params = json!({"pin": pin, "name": "x", "platform": "ios"});
        match daemon.connect_unix().call("device.pair", params) {
            Err(Failure::Refused { code, error, .. }) => (code, error.to_string()),
            other => panic!("{other:?}"),
        }
    };
    let wrong = if right == "000000" { "000001" } else { "000000" };
    let refusals = [pair(wrong), pair(wrong), pair(wrong), pair(&right)];
    assert_eq!(refusals[0].0, -32021);
    assert!(refusals.iter().all(|refusal| *refusal == refusals[0]), "D6: {refusals:?}");
    let devices = owner.call("device.list", json!({})).unwrap();
    assert_eq!(devices, json!([]));
}

#[test]
fn d1_a_second_window_ends_the_first_and_a_restart_ends_both() {
    let site = Site::new();
    let daemon = site.start();
    let mut owner = daemon.owner();
    let pin = |owner: &mut Client| {
        owner.call("daemon.pairPin", json!({"confirm": false})).unwrap()["pin"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let (first, second) = (pin(&mut owner), pin(&mut owner));
    let pair = |daemon: &Daemon, pin: &str| {
        let params = json!({"pin": pin, "name": "x", "platform": "ios"});
        daemon.connect_unix().call("device.pair", params)
    };
    if first != second {
        assert_eq!(pair(&daemon, &first).unwrap_err().code(), Some(-32021));
    }
    pair(&daemon, &second).expect("the second is open");
    assert_eq!(pair(&daemon, &second).unwrap_err().code(), Some(-32021), "D4: once");
    let third = pin(&mut owner);
    daemon.kill();
    let daemon = site.start();
    assert_eq!(pair(&daemon, &third).unwrap_err().code(), Some(-32021));
}

#[test]
fn b8_a_device_can_do_what_its_role_allows_and_no_more() {
    let site = Site::new();
    let daemon = site.start();
    let mut owner = daemon.owner();
    let mut reader = daemon.connect();
    let (id, _) = reader.pair(&mut owner, "read");
    reader.call("session.list", json!({})).expect("reading is what it may");
    for (method, params) in [
        ("session.create", json!({"repoPath": site.repo(), "role": "owner"})),
        ("tool.approve", json!({"sessionId": "x", "toolCallId": "y"})),
        ("daemon.pairPin", json!({"role": "owner"})),
        ("daemon.rotateToken", json!({})),
        ("daemon.shutdown", json!({})),
        ("device.setRole", json!({"id": id, "role": "admin"})),
    ] {
        match reader.call(method, params) {
            Err(Failure::Refused { code: -32002, kind, .. }) if kind == "role" => {}
            other => panic!("{method} came to {other:?}"),
        }
    }
    reader.call("daemon.ping", json!({})).expect("a refusal by role does not end the connection");
}

#[test]
fn e5_a_rotated_device_token_dies_when_the_new_one_is_used() {
    let site = Site::new();
    let daemon = site.start();
    let mut owner = daemon.owner();
    let mut phone = daemon.connect();
    let (_, old) = phone.pair(&mut owner, "approve");
    let new = phone.call("device.rotate", json!({})).unwrap()["device_token"].clone();
    let new = new.as_str().unwrap();
    daemon.connect_unix().auth(&old).expect("until the new one is used");
    let auth = daemon.connect_unix().auth(new).unwrap();
    assert_eq!(auth["role"], "approve");
    unauthorized(&mut daemon.connect_unix(), "daemon.auth", json!({"token": old}));
}

#[test]
fn c1_a_thousand_wrong_tokens_do_not_keep_the_right_one_out() {
    let site = Site::new();
    let daemon = site.start();
    let stop = AtomicBool::new(false);
    let began = Instant::now();
    let answered: usize = std::thread::scope(|scope| {
        let (stop, port) = (&stop, daemon.port);
        let flood: Vec<_> =
            (0..8).map(|seed| scope.spawn(move || guess(port, seed, stop))).collect();
        std::thread::sleep(2 * SECOND);
        for _ in 0..5 {
            let began = Instant::now();
            daemon.owner_under_load();
            assert!(began.elapsed() < SECOND, "the owner waited {:?}", began.elapsed());
        }
        stop.store(true, Ordering::Relaxed);
        flood.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    // Five at once, then at most one a second.
    let most = 5.0 + began.elapsed().as_secs_f64() + 1.0;
    assert!(answered as f64 <= most, "{answered} wrong tokens were answered, not {most}");
}

/// Tries 125 wrong tokens as fast as it can, each on a socket of its own; how many were answered until `stop`.
fn guess(port: u16, seed: u8, stop: &AtomicBool) -> usize {
    let mut waiting = Vec::new();
    let mut answered = 0;
    let mut guesses = 0..125;
    while !stop.load(Ordering::Relaxed) {
        if let Some(i) = guesses.next()
            && let Ok(mut client) = Client::tcp(port)
        {
            let token = format!("clawd_l_{seed}{i}");
            client.begin("daemon.auth", &json!({"token": token, "role": "owner", "pin": i}));
            waiting.push(client);
        }
        waiting.retain_mut(|client| {
            let heard = client.next(Instant::now());
            answered += usize::from(matches!(heard, Ok(Some(_))));
            matches!(heard, Ok(None))
        });
    }
    answered
}

#[test]
fn c3_500_silent_sockets_do_not_keep_the_owner_out() {
    let site = Site::new();
    let daemon = site.start();
    let silent: Vec<Raw> = (0..500).map(|_| Raw::connect(daemon.port)).collect();
    let began = Instant::now();
    daemon.connect_unix().auth(&site.token()).expect("the Unix socket has its own room");
    daemon.owner_under_load();
    assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
    let open = fs::read_dir(format!("/proc/{}/fd", daemon.process.pid())).unwrap().count();
    assert!(open < 64 + 40, "{open} descriptors are open");
    drop(silent);
}

#[test]
fn c4_slow_peers_are_cut_off_on_time_at_each_phase() {
    let site = Site::new();
    let daemon = site.start();
    let port = daemon.port;
    let upgrade = format!(
        "GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    // A text frame of 200 bytes, of which the rest comes a byte a second.
    let frame = [&[0x81, 0xfe, 0, 200, 0, 0, 0, 0][..], &[b' '; 200]].concat();
    let seconds = |s: u64| Duration::from_secs(s);
    let phases: [(&str, Vec<u8>, usize, Duration); 4] = [
        ("nothing at all", Vec::new(), 0, seconds(5)),
        ("a slow head", upgrade.clone().into_bytes(), 0, seconds(5)),
        ("no auth", upgrade.clone().into_bytes(), upgrade.len(), seconds(10)),
        ("slow auth", [upgrade.as_bytes(), &frame].concat(), upgrade.len() + 4, seconds(10)),
    ];
    std::thread::scope(|scope| {
        for (name, bytes, at_once, limit) in &phases {
            scope.spawn(move || {
                let lasted = drip(port, bytes, *at_once, *limit + seconds(3));
                let is_on_time = lasted > *limit - seconds(1) && lasted < *limit + seconds(2);
                assert!(is_on_time, "{name} lasted {lasted:?}, not {limit:?}");
            });
        }
    });
}

/// Sends the first bytes at once and the others one a second; how long the connection lasted.
fn drip(port: u16, bytes: &[u8], at_once: usize, most: Duration) -> Duration {
    let began = Instant::now();
    let mut raw = Raw::connect(port);
    raw.send(&bytes[..at_once]);
    let mut rest = bytes[at_once..].chunks(1);
    while began.elapsed() < most {
        // Waiting for the end is also the second between two bytes.
        if raw.read_to_end(SECOND).is_some() {
            return began.elapsed();
        }
        if let Some(byte) = rest.next()
            && !raw.send(byte)
        {
            return began.elapsed();
        }
    }
    began.elapsed()
}

#[test]
fn c5_a_client_that_stops_reading_is_closed_and_others_lose_nothing() {
    let site = Site::new();
    let daemon = site.start();
    let mut owner = daemon.owner();
    let session = owner.create_session(&site.repo());
    let mut viewer = daemon.owner();
    let mut stalled = daemon.owner();
    stalled.call("daemon.ping", json!({})).unwrap();
    let before = rss_kib(&daemon);
    // Each prompt is told to everybody: together far more than the sockets and the queue of one client hold.
    let padding = "p".repeat(700 * 1024);
    for round in 0..40 {
        owner.prompt(&session, &format!("say {round} {padding}")).expect("taken");
        owner.wait_idle(&session);
        viewer.wait_event("session.messageCreated", |event| {
            let text = event["message"]["content"].as_str().unwrap_or_default();
            event["message"]["role"] == "user" && text.starts_with(&format!("say {round} "))
        });
        viewer.wait_idle(&session);
        owner.take_events();
        viewer.take_events();
    }
    // Nothing more was queued for it from the first event on that it had no room for; after 30 s it is closed.
    wait_until("the stalled client is closed", 2 * PATIENCE, || {
        let status = owner.call("daemon.status", json!({})).unwrap();
        status["connections"] == 2
    });
    let grown = rss_kib(&daemon).saturating_sub(before);
    assert!(grown < 32 * 1024, "{grown} KiB more than before");
    let code = stalled.wait_close(PATIENCE);
    assert!(code.is_none() || code == Some(1013), "{code:?}");
}

fn rss_kib(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.process.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
