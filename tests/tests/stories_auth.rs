//! Who gets in, and what everybody else is told: nothing, and all of them the same.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use clawd_protocol::access::token::mint_local;
use clawd_protocol::{HeadFault, MessageFault, Source};
use clawd_tests::client::{names, request, upgrade_headers};
use clawd_tests::{Act, LOOPBACK, Stage, World};
use serde_json::{Value, json};

/// What a stranger gets who begins like this: the frames, and the close code.
fn begin_with(text: &str) -> (Vec<String>, Option<u16>) {
    let mut world = World::default();
    let stranger = world.stranger(LOOPBACK);
    world.text(stranger.conn, text);
    world.settle();
    (world.frames(stranger), world.close_code(stranger))
}

fn error_of(frame: &str) -> Value {
    serde_json::from_str::<Value>(frame).expect("JSON")["error"].clone()
}

#[test]
fn a5_every_bad_beginning_gets_the_same_error_and_is_closed() {
    let unknown = mint_local([200; 32]);
    let device = format!("clawd_d_AAAAAAAA_{}", "B".repeat(49));
    let bad = [
        request("1", "daemon.auth", &json!({ "token": unknown.expose() })),
        request("1", "daemon.auth", &json!({ "token": device })),
        request("1", "daemon.auth", &json!({"token": "wrong"})),
        request("1", "daemon.auth", &json!({"token": ""})),
        request("1", "daemon.auth", &json!({"token": null})),
        request("1", "daemon.auth", &json!({"token": 7})),
        request("1", "daemon.auth", &json!({})),
        request("1", "daemon.auth", &json!([])),
        request("1", "daemon.auth", &json!({"token": "wrong", "role": "owner"})),
        request("1", "daemon.status", &json!({})),
        request("1", "session.list", &json!({})),
        request("1", "no.such.method", &json!({})),
        request("1", "", &json!({})),
    ];
    let (expected, code) = begin_with(&bad[0]);
    assert_eq!((expected.len(), code), (1, Some(1008)));
    assert_eq!(error_of(&expected[0])["code"], -32004);
    assert_eq!(error_of(&expected[0])["data"]["kind"], "unauthorized");
    for text in &bad {
        assert_eq!(begin_with(text), (expected.clone(), code), "{text}");
    }
    // What has no id that could be echoed gets the same error with id null.
    let nameless =
        ["", "hello", "{", "null", "[]", "{}", "{\"jsonrpc\":\"2.0\",\"id\":{}}", "[[1]]"];
    for text in nameless {
        let (frames, code) = begin_with(text);
        assert_eq!(code, Some(1008), "{text}");
        assert_eq!(frames.len(), 1, "{text}");
        assert_eq!(error_of(&frames[0]), error_of(&expected[0]), "{text}");
    }
}

#[test]
fn a5_revoked_and_expired_tokens_look_like_unknown_ones() {
    let told = |text: &str, world: &mut World| {
        let stranger = world.stranger(LOOPBACK);
        world.text(stranger.conn, text);
        world.settle();
        (world.frames(stranger), world.close_code(stranger))
    };
    let mut world = World::default();
    let owner = world.owner();
    let device = world.pair(owner, "full", "phone");
    let lost = world.pair(owner, "full", "lost phone");
    world.call(owner, "device.revoke", json!({"id": lost.id})).expect("revoked");
    let auth = |token: &str| request("1", "daemon.auth", &json!({ "token": token }));
    let unknown = mint_local([200; 32]);
    let expected = told(&auth(unknown.expose()), &mut world);
    assert_eq!(told(&auth(&lost.token), &mut world), expected, "revoked");
    world.skew(181 * 86_400_000);
    assert_eq!(told(&auth(&device.token), &mut world), expected, "expired");
}

#[test]
fn a5_ten_seconds_of_silence_end_a_connection() {
    let mut world = World::default();
    let stranger = world.stranger(LOOPBACK);
    world.advance(Duration::from_millis(9_900));
    assert_eq!(world.link(stranger.conn).stage, Stage::Upgraded);
    world.call(stranger, "daemon.ping", json!({})).expect("a pong does not prolong it");
    world.advance(Duration::from_millis(200));
    assert_eq!(world.close_code(stranger), Some(1008));
    for frame in world.frames(stranger) {
        assert_eq!(error_of(&frame)["code"], -32004, "{frame}");
    }
}

#[test]
fn a5_a_stranger_receives_no_event() {
    let mut world = World::default();
    let owner = world.owner();
    let stranger = world.stranger(LOOPBACK);
    world.machine.scripts.push_back(vec![vec![Act::say("hello there")]]);
    let params = json!({"repoPath": "/repo", "initialMessage": "hello"});
    world.call(owner, "session.create", params).expect("a session");
    world.settle();
    assert!(names(&world.events(owner)).contains(&"session.created"));
    assert_eq!(world.frames(stranger), Vec::<String>::new());
}

#[test]
fn a5_nobody_changes_into_somebody_else() {
    let mut world = World::default();
    let owner = world.owner();
    let device = world.pair(owner, "read", "phone");
    let token = world.token();
    world.auth(owner, &token).expect("the same identity again is fine");
    world.auth(device.client, &device.token).expect("so it is for a device");
    let refused = world.auth(device.client, &token).expect_err("another identity");
    assert_eq!(refused.code, -32004);
    assert_eq!(world.close_code(device.client), Some(1008));
}

#[test]
fn the_owner_is_told_who_he_is_and_that_the_daemon_is_ready() {
    let mut world = World::default();
    let owner = world.stranger(LOOPBACK);
    let token = world.token();
    let told = world.auth(owner, &token).expect("in");
    assert_eq!(told["authenticated"], true);
    assert_eq!(told["role"], "owner");
    assert_eq!(told["protocolVersion"], 1);
    let id = clawd_protocol::Fingerprint::of(clawd_tests::world::IDENTITY);
    assert_eq!(told["daemonId"], id.to_string());
    assert!(told["cursor"].is_u64() || told["cursor"].is_string(), "{told}");
    let events = world.events(owner);
    assert_eq!(names(&events), ["daemon.ready"]);
    assert_eq!(events[0].params["port"], clawd_tests::world::PORT);
}

#[test]
fn a_token_in_the_request_head_is_as_good() {
    let mut world = World::default();
    let value = format!("Bearer {}", world.token());
    let client = world.connect(LOOPBACK, &[("Authorization", &value)]);
    world.call(client, "daemon.status", json!({})).expect("authenticated from the start");
}

#[test]
fn a7_the_daemon_proves_itself_before_it_is_trusted() {
    let mut world = World::default();
    let stranger = world.stranger(LOOPBACK);
    let pong = world.call(stranger, "daemon.ping", json!({"nonce": "n1"})).expect("a pong");
    let digest = clawd_protocol::access::token::TokenDigest::of(&world.token());
    let proof = pong["proof"].as_str().expect("a proof");
    assert!(digest.is_proved_by("n1", 4300, proof));
}

#[test]
fn a6_rotating_the_local_token_closes_everybody_who_used_the_old_one() {
    let mut world = World::default();
    let old = world.token();
    let clients = [world.owner(), world.owner(), world.owner_on(Source::Unix)];
    let device = world.pair(clients[0], "read", "phone");
    world.ask(clients[0], "daemon.rotateToken", json!({}));
    world.advance(Duration::from_secs(1));
    for client in clients {
        assert_eq!(world.close_code(client), Some(1008));
    }
    assert_ne!(world.token(), old);
    let late = world.stranger(LOOPBACK);
    assert_eq!(world.auth(late, &old).expect_err("the old token").code, -32004);
    world.call(device.client, "daemon.status", json!({})).expect("devices stay");
    world.owner();
}

#[test]
fn a6_the_end_of_the_grace_ends_exactly_those_who_came_with_the_old_token() {
    let mut world = World::default();
    let old = world.token();
    let [before, careful] = [world.owner(), world.owner()];
    world.call(before, "daemon.rotateToken", json!({"graceSecs": 60})).expect("rotated");
    let token = world.token();
    let late = world.stranger(LOOPBACK);
    world.auth(late, &old).expect("the grace lasts");
    world.auth(careful, &token).expect("it shows the new one");
    let fresh = world.owner();
    world.advance(Duration::from_secs(59));
    for client in [before, late, careful, fresh] {
        world.call(client, "daemon.status", json!({})).expect("the grace lasts");
    }
    world.advance(Duration::from_secs(2));
    assert_eq!((world.close_code(before), world.close_code(late)), (Some(1008), Some(1008)));
    for client in [careful, fresh] {
        world.call(client, "daemon.status", json!({})).expect("it has the new token");
    }
    let late = world.stranger(LOOPBACK);
    assert_eq!(world.auth(late, &old).expect_err("the grace is over").code, -32004);
}

#[test]
fn a6_a_second_rotation_ends_the_grace_of_the_first() {
    for grace in [0, 60] {
        let mut world = World::default();
        let first = world.token();
        let old = world.owner();
        world.call(old, "daemon.rotateToken", json!({"graceSecs": 100})).expect("rotated");
        let second = world.token();
        let fresh = world.owner();
        world.advance(Duration::from_secs(50));
        world.ask(fresh, "daemon.rotateToken", json!({"graceSecs": grace}));
        world.settle();
        assert_eq!(world.close_code(old), Some(1008), "grace {grace}");
        assert_eq!(world.link(fresh.conn).is_open(), grace > 0, "grace {grace}");
        let late = world.stranger(LOOPBACK);
        assert_eq!(world.auth(late, &first).expect_err("dead").code, -32004, "grace {grace}");
        let late = world.stranger(LOOPBACK);
        assert_eq!(world.auth(late, &second).is_ok(), grace > 0, "grace {grace}");
        // The end of the first grace, had it lasted, ends nobody.
        let newest = world.owner();
        world.advance(Duration::from_secs(55));
        world.call(newest, "daemon.status", json!({})).expect("it has the newest token");
        assert_eq!(world.link(fresh.conn).is_open(), grace > 0, "grace {grace}");
        world.advance(Duration::from_secs(6));
        assert!(!world.link(fresh.conn).is_open());
        world.call(newest, "daemon.status", json!({})).expect("it has the newest token");
    }
}

/// The status of the answer to `GET /metrics` with this token; `None` if the connection was closed without one.
fn metrics(world: &mut World, source: Source, token: &str) -> Option<u16> {
    let conn = world.open(source);
    let bearer = format!("Bearer {token}");
    let headers = [("Host", &b"127.0.0.1:4300"[..]), ("Authorization", bearer.as_bytes())];
    world.head(conn, "/metrics", &headers);
    match &world.link(conn).stage {
        Stage::Answered(response) => Some(response.status),
        Stage::Gone(_) => None,
        stage @ (Stage::Fresh | Stage::Upgraded) => panic!("{stage:?}"),
    }
}

#[test]
fn c1_wrong_tokens_for_metrics_are_answered_like_all_others() {
    let mut world = World::default();
    let free = usize::try_from(clawd_protocol::Limits::default().failures_free).expect("small");
    let wrong = mint_local([200; 32]);
    let told: Vec<_> =
        (0..free + 20).map(|_| metrics(&mut world, LOOPBACK, wrong.expose())).collect();
    assert!(told[..free].iter().all(|status| *status == Some(401)), "{told:?}");
    assert!(told[free + 1..].iter().all(Option::is_none), "{told:?}");
    let token = world.token();
    assert_eq!(metrics(&mut world, LOOPBACK, &token), Some(200), "the owner is never locked out");
    assert_eq!(metrics(&mut world, Source::Unix, wrong.expose()), Some(401));
}

#[test]
fn b3_asking_for_metrics_completes_no_rotation() {
    let mut world = World::default();
    let owner = world.owner();
    let device = world.pair(owner, "read", "phone");
    let rotated = world.call(device.client, "device.rotate", json!({})).expect("rotated");
    let fresh = rotated["device_token"].as_str().expect("a token").to_owned();
    let before = world.store.db.clone();
    assert_eq!(metrics(&mut world, LOOPBACK, &fresh), Some(200));
    world.settle();
    assert_eq!(format!("{:?}", world.store.db), format!("{before:?}"));
    world.device_again(&device.token);
}

#[test]
fn b1_b2_only_our_hosts_and_no_foreign_origin() {
    let answered = |header: (&'static str, &str)| {
        let mut world = World::default();
        let conn = world.open(LOOPBACK);
        let mut headers = upgrade_headers();
        headers.retain(|(name, _)| *name != header.0);
        headers.push((header.0, header.1.as_bytes().to_vec()));
        let headers: Vec<(&str, &[u8])> =
            headers.iter().map(|(name, value)| (*name, value.as_slice())).collect();
        world.head(conn, "/", &headers);
        match &world.link(conn).stage {
            Stage::Answered(response) => response.status,
            Stage::Upgraded => 101,
            stage @ (Stage::Fresh | Stage::Gone(_)) => panic!("{stage:?}"),
        }
    };
    for host in ["127.0.0.1:4300", "localhost:4300", "[::1]:4300"] {
        assert_eq!(answered(("Host", host)), 101, "{host}");
    }
    for host in ["evil.example", "localhost.evil:4300", "127.0.0.1:9", "localhost.:4300", ""] {
        assert!([400, 403].contains(&answered(("Host", host))), "{host}");
    }
    for origin in ["http://evil.example", "null", "http://127.0.0.1:4300", ""] {
        assert_eq!(answered(("Origin", origin)), 403, "{origin}");
    }
}

#[test]
fn b3_credentials_in_a_url_are_refused() {
    let mut world = World::default();
    let conn = world.open(LOOPBACK);
    let target = format!("/?token={}", world.token());
    let headers = upgrade_headers();
    let headers: Vec<(&str, &[u8])> =
        headers.iter().map(|(name, value)| (*name, value.as_slice())).collect();
    world.head(conn, &target, &headers);
    let Stage::Answered(response) = &world.link(conn).stage else { panic!("not refused") };
    assert_eq!(response.status, 400);
}

#[test]
fn f2_b5_the_local_token_is_local() {
    let lan = Source::Tcp(IpAddr::V4(Ipv4Addr::new(172, 17, 0, 1)));
    let mut world = World::default();
    let token = world.token();
    let conn = world.open(lan);
    let headers = upgrade_headers();
    let headers: Vec<(&str, &[u8])> =
        headers.iter().map(|(name, value)| (*name, value.as_slice())).collect();
    world.head(conn, "/", &headers);
    if world.link(conn).stage == Stage::Upgraded {
        let client = clawd_tests::Client { conn };
        assert_eq!(world.auth(client, &token).expect_err("from the LAN").code, -32004);
    }
    let proxied = world.connect(LOOPBACK, &[("X-Forwarded-For", "127.0.0.1")]);
    if world.link(proxied.conn).stage == Stage::Upgraded {
        assert_eq!(world.auth(proxied, &token).expect_err("through a proxy").code, -32004);
    }
}

#[test]
fn b6_broken_framing_is_closed_with_its_code() {
    for (fault, codes) in [
        (MessageFault::Binary, [1003, 1003]),
        (MessageFault::TooLarge, [1009, 1009]),
        (MessageFault::NotUtf8, [1007, 1002]),
        (MessageFault::Framing, [1002, 1002]),
    ] {
        for is_owner in [false, true] {
            let mut world = World::default();
            let client = if is_owner { world.owner() } else { world.stranger(LOOPBACK) };
            world.break_rules(client.conn, fault);
            let code = world.close_code(client).expect("closed");
            assert!(codes.contains(&code), "{fault:?}: {code}");
        }
    }
}

#[test]
fn b6_a_strangers_message_is_short_and_the_owners_may_be_long() {
    let long = request("1", "daemon.ping", &json!({"x": "y".repeat(17 * 1024)}));
    assert_eq!(begin_with(&long).1, Some(1009));
    let mut world = World::default();
    let owner = world.owner();
    world.call(owner, "daemon.ping", json!({"x": "y".repeat(1024 * 1024)})).expect("a pong");
    let endless = json!({"x": "y".repeat(5 * 1024 * 1024)});
    world.ask(owner, "daemon.ping", endless);
    assert_eq!(world.close_code(owner), Some(1009));
}

#[test]
fn b6_messages_that_are_no_requests_get_the_standard_errors() {
    let deep = format!("{}{}", "[".repeat(65), "]".repeat(65));
    let batch = format!("[{}]", vec![request("1", "daemon.ping", &json!({})); 33].join(","));
    for (text, code) in [
        ("{".to_owned(), -32700),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"daemon.ping\"} x".to_owned(), -32700),
        (deep, -32700),
        ("[]".to_owned(), -32600),
        ("7".to_owned(), -32600),
        (batch, -32600),
        ("{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"daemon.ping\"}".to_owned(), -32600),
        ("{\"jsonrpc\":\"2.0\",\"id\":1.5,\"method\":\"daemon.ping\"}".to_owned(), -32600),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":7}".to_owned(), -32600),
        (request("1", "no.such", &json!({})), -32601),
        (request("1", "session.get", &json!({"sessionId": 7})), -32602),
        (request("1", "session.get", &json!([1])), -32602),
    ] {
        let mut world = World::default();
        let owner = world.owner();
        world.events(owner);
        world.text(owner.conn, &text);
        world.settle();
        let frames = world.frames(owner);
        assert_eq!(frames.len(), 1, "{text}: {frames:?}");
        let shown: String = text.chars().take(100).collect();
        let got = serde_json::from_str::<Value>(&frames[0]).expect("JSON");
        let got = got.as_array().map_or(got.clone(), |all| all[0].clone());
        assert_eq!(got["error"]["code"], code, "{shown}: {got}");
        world.call(owner, "daemon.ping", json!({})).expect("the connection stays usable");
    }
}

#[test]
fn b6_duplicate_keys_are_refused() {
    let mut world = World::default();
    let owner = world.owner();
    world.events(owner);
    for text in [
        r#"{"jsonrpc":"2.0","id":1,"method":"daemon.ping","method":"daemon.status"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"daemon.ping","x":1,"x":2}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"daemon.ping","params":{"nonce":"a","nonce":"b"}}"#,
    ] {
        world.text(owner.conn, text);
        world.settle();
        let code = error_of(&world.frames(owner)[0])["code"].as_i64();
        assert!(matches!(code, Some(-32700 | -32600)), "{text}: {code:?}");
    }
}

#[test]
fn c4_a_connection_without_a_whole_head_ends_after_five_seconds() {
    let mut world = World::default();
    let conn = world.open(LOOPBACK);
    world.advance(Duration::from_millis(4_900));
    assert_eq!(world.link(conn).stage, Stage::Fresh);
    world.advance(Duration::from_millis(200));
    assert!(!world.link(conn).is_open());
}

#[test]
fn c4_a_message_that_never_ends_ends_the_connection() {
    let mut world = World::default();
    let owner = world.owner();
    world.begin(owner.conn);
    world.advance(Duration::from_millis(29_900));
    assert!(world.link(owner.conn).is_open());
    world.advance(Duration::from_millis(200));
    assert!(!world.link(owner.conn).is_open());
}

#[test]
fn b4_heads_that_are_none_are_answered_once() {
    for fault in [HeadFault::Malformed, HeadFault::TooLarge] {
        let mut world = World::default();
        let conn = world.open(LOOPBACK);
        world.request(conn, Err(fault));
        let Stage::Answered(response) = &world.link(conn).stage else { panic!("not answered") };
        assert!((400..500).contains(&response.status), "{response:?}");
    }
}

#[test]
fn a5_a_stranger_who_only_chats_is_sent_away() {
    let mut world = World::default();
    let stranger = world.stranger(LOOPBACK);
    for _ in 0..16 {
        world.call(stranger, "daemon.ping", json!({})).expect("a pong");
    }
    let refused = world.call(stranger, "daemon.ping", json!({})).expect_err("too many words");
    assert_eq!(refused.code, -32004);
    assert_eq!(world.close_code(stranger), Some(1008));
}

#[test]
fn c4_the_ten_seconds_to_authenticate_begin_with_the_connection() {
    let mut world = World::default();
    let conn = world.open(LOOPBACK);
    world.advance(Duration::from_millis(4_900));
    let headers = clawd_tests::client::upgrade_headers();
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, &value[..])).collect();
    world.head(conn, "/", &headers);
    world.advance(Duration::from_millis(5_000));
    assert!(world.link(conn).is_open());
    world.advance(Duration::from_millis(200));
    assert!(!world.link(conn).is_open(), "a late request head buys no time");
}

#[test]
fn a7_a_proof_is_for_one_nonce_and_one_port() {
    let mut world = World::default();
    let digest = clawd_protocol::access::token::TokenDigest::of(&world.token());
    for (source, port) in [(LOOPBACK, 4300), (Source::Unix, 0)] {
        let stranger = world.stranger(source);
        let mut proof = |nonce: &str| {
            let pong = world.call(stranger, "daemon.ping", json!({"nonce": nonce}));
            pong.expect("a pong")["proof"].as_str().map(str::to_owned)
        };
        let said = proof("n1").expect("a proof");
        assert!(digest.is_proved_by("n1", port, &said));
        for (nonce, other) in [("n2", port), ("n1", 4300 - port), ("n1", 4301)] {
            assert!(!digest.is_proved_by(nonce, other, &said), "{nonce} on {other}");
        }
        assert_ne!(proof("n2").expect("a proof"), said);
        assert_eq!(proof(&"n".repeat(257)), None, "nobody's signing machine");
    }
}

#[test]
fn a7_who_may_not_show_the_local_token_is_shown_no_proof_of_it() {
    let mut world = World::default();
    let lan = Source::Tcp([192, 168, 1, 2].into());
    let proxied = world.connect(LOOPBACK, &[("X-Forwarded-For", "192.0.2.1")]);
    let others = [LOOPBACK, lan, Source::Relay(None)].map(|source| world.secured(source, None));
    for stranger in others.into_iter().chain([proxied]) {
        let pong = world.call(stranger, "daemon.ping", json!({"nonce": "n1"})).expect("a pong");
        assert_eq!((pong["pong"].as_bool(), pong.get("proof")), (Some(true), None));
    }
}

#[test]
fn a6_a_grace_has_an_end_whatever_was_asked_for() {
    let mut world = World::default();
    let old = world.owner();
    world.call(old, "daemon.rotateToken", json!({"graceSecs": 1_000_000})).expect("rotated");
    world.advance(Duration::from_secs(3_599));
    assert!(world.link(old.conn).is_open());
    world.advance(Duration::from_secs(2));
    assert_eq!(world.close_code(old), Some(1008));
}

#[test]
fn f2_b5_behind_a_proxy_the_unix_socket_is_not_the_owners() {
    let mut world = World::default();
    let token = world.token();
    let client = world.connect(Source::Unix, &[("X-Forwarded-For", "10.0.0.1")]);
    assert_eq!(world.auth(client, &token).expect_err("somebody remote").code, -32004);
}
