//! Peers from beyond this machine: what they are told in a code, where they may knock, and which token they may use.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use clawd_protocol::invitation::Invitation;
use clawd_protocol::record::RelaySettings;
use clawd_protocol::{Fingerprint, Source};
use clawd_tests::client::upgrade_headers;
use clawd_tests::phone::daemon_key;
use clawd_tests::{Client, Crash, LOOPBACK, Stage, World};
use serde_json::{Value, json};

const PHONE: Option<&[u8]> = Some(b"the phone's key");
const OURS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 23));
const LAN: Source = Source::Tcp(IpAddr::V4(Ipv4Addr::new(192, 168, 1, 7)));
const CONTAINER: Source = Source::Tcp(IpAddr::V4(Ipv4Addr::new(172, 17, 0, 1)));

fn window(world: &mut World, owner: Client) -> Value {
    world.call(owner, "daemon.pairPin", json!({})).expect("a window")
}

fn payload(window: &Value) -> (String, Invitation) {
    let text = window["qrPayload"].as_str().expect("a payload").to_owned();
    let invitation = Invitation::read(&text).expect("an invitation");
    (text, invitation)
}

// --- what a code says ----------------------------------------------------------------------------------------------

#[test]
fn d7_a_code_holds_a_ticket_for_one_and_nothing_that_lives_longer() {
    let mut world = World::default();
    world.machine.addresses = vec![OURS, "2001:db8::17".parse().expect("an address")];
    let owner = world.owner();
    let device = world.pair(owner, "admin", "laptop");
    let opened = window(&mut world, owner);
    let (text, code) = payload(&opened);
    for secret in [&world.token(), &device.token] {
        assert!(!text.contains(secret.as_str()) && !opened.to_string().contains(secret.as_str()));
    }
    assert!(!text.contains("clawd_l_") && !text.contains("clawd_d_"), "{text}");
    assert!(!text.contains(opened["pin"].as_str().expect("a PIN")), "{text}");
    assert_eq!(code.daemon_id, daemon_key());
    assert_eq!(code.pairing_id, opened["pairingId"]);
    assert_eq!(code.exp, opened["expiresAt"]);
    let url = code.url.as_deref();
    assert_eq!((url, code.ticket.len()), (Some("wss://192.168.1.23:4300"), 43));
    assert!(text.len() < 300, "{} bytes: {text}", text.len());

    let params = json!({"ticket": code.ticket, "pairingId": code.pairing_id, "name": "n"});
    let first = world.phone(LAN, PHONE).client;
    world.call(first, "device.pair", params.clone()).expect("paired");
    let second = world.phone(LAN, PHONE).client;
    assert_eq!(world.call(second, "device.pair", params).expect_err("used").code, -32021);
}

#[test]
fn d7_a_code_of_yesterday_opens_nothing() {
    for by_wall_clock in [false, true] {
        let mut world = World::default();
        let owner = world.owner();
        let (_, code) = payload(&window(&mut world, owner));
        if by_wall_clock {
            world.skew(301_000);
        } else {
            world.advance(Duration::from_secs(301));
        }
        let params = json!({"ticket": code.ticket, "pairingId": code.pairing_id, "name": "n"});
        let phone = world.phone(LAN, PHONE).client;
        assert_eq!(world.call(phone, "device.pair", params).expect_err("late").code, -32021);
    }
}

#[test]
fn d7_a_code_for_the_relay_alone_names_no_place_on_the_scanners_own_machine() {
    let mut world = World::default();
    let owner = world.owner();
    let relay = json!({"url": "wss://relay.example.org", "enabled": true});
    world.call(owner, "daemon.setRelay", relay).expect("set");
    let (text, code) = payload(&window(&mut world, owner));
    assert!(code.relay.is_some() && code.url.is_none() && !text.contains("127.0.0.1"), "{text}");
}

#[test]
fn a_window_says_where_it_is_reached() {
    let mut world = World::default();
    let owner = world.owner();
    let opened = window(&mut world, owner);
    assert_eq!((&opened["urls"], &opened["reachable"]), (&json!([]), &json!(false)));
    assert_eq!(
        (&opened["url"], &opened["relayUrl"]),
        (&json!("ws://127.0.0.1:4300"), &Value::Null)
    );
    assert_eq!(payload(&opened).1.urls, Vec::<String>::new());

    let texts =
        ["2001:db8::17", "fe80::1", "192.168.1.23", "10.0.0.5", "::1", "10.0.0.6", "10.0.0.7"];
    world.machine.addresses = texts.iter().map(|it| it.parse().expect("an address")).collect();
    let opened = window(&mut world, owner);
    let urls = ["192.168.1.23", "10.0.0.5", "10.0.0.6", "10.0.0.7", "[2001:db8::17]"];
    let urls = urls.map(|address| format!("wss://{address}:4300"));
    assert_eq!((&opened["urls"], &opened["reachable"]), (&json!(urls), &json!(true)));
    assert_eq!(opened["url"], urls[0]);
    assert_eq!(payload(&opened).1.urls, urls[..4], "four at most, or it cannot be scanned");
}

#[test]
fn a_window_opens_without_an_answer_to_where_we_are() {
    let mut world = World::default();
    world.machine.addresses = vec![OURS];
    let owner = world.owner();
    world.hold_questions();
    let asked = world.ask(owner, "daemon.pairPin", json!({}));
    world.settle();
    assert_eq!(world.answer(owner, &asked), None);
    world.advance(Duration::from_secs(4));
    let opened = world.answer(owner, &asked).expect("an answer").expect("a window");
    assert_eq!((&opened["urls"], &opened["reachable"]), (&json!([]), &json!(false)));
    let pin = opened["pin"].clone();
    world.release_questions();
    let asked = world.ask(owner, "daemon.status", json!({}));
    world.settle();
    world.answer(owner, &asked).expect("an answer").expect("a late answer changes nothing");
    let client = world.stranger(Source::Unix);
    world.ask(client, "device.pair", json!({"pin": pin, "name": "n"}));
    world.settle();
    let params = json!({"pairingId": opened["pairingId"], "accept": true});
    world.call(owner, "daemon.pairConfirm", params).expect("the same window");
}

#[test]
fn d1_no_window_opens_for_one_who_lost_the_right_while_the_world_was_asked() {
    let mut world = World::default();
    let owner = world.owner();
    let admin = world.pair(owner, "admin", "laptop");
    world.hold_questions();
    let asked = world.ask(admin.client, "daemon.pairPin", json!({}));
    world.call(owner, "device.setRole", json!({"id": admin.id, "role": "full"})).expect("demoted");
    world.release_questions();
    let refused = world.answer(admin.client, &asked).expect("an answer").expect_err("demoted");
    assert_eq!(refused.kind, "role");
}

#[test]
fn a_device_learns_where_the_daemon_is_now() {
    let mut world = World::default();
    let owner = world.owner();
    let device = world.pair(owner, "read", "phone");
    let phone = device.client;
    let asked = |world: &mut World| world.call(phone, "daemon.addresses", json!({}));
    assert_eq!(asked(&mut world), Ok(json!({"urls": []})));
    world.machine.addresses = vec!["fe80::1".parse().expect("an address"), OURS];
    assert_eq!(asked(&mut world), Ok(json!({"urls": ["wss://192.168.1.23:4300"]})));
    // Not to know is no answer: a device would forget what it knew.
    world.hold_questions();
    let late = world.ask(phone, "daemon.addresses", json!({}));
    world.advance(Duration::from_secs(4));
    let refused = world.answer(phone, &late).expect("an answer").expect_err("too late");
    assert_eq!((refused.code, refused.kind.as_str()), (-32603, "internal"));
    let cut = world.ask(phone, "daemon.addresses", json!({}));
    world.call(owner, "device.revoke", json!({"id": device.id})).expect("revoked");
    world.release_questions();
    let refused = world.answer(phone, &cut).expect("an answer").expect_err("sent away");
    assert_eq!(refused.code, -32004);
}

#[test]
fn c6_however_many_ask_where_we_are_the_world_is_asked_once() {
    let mut world = World::default();
    world.machine.addresses = vec![OURS];
    let owner = world.owner();
    let phone = world.pair(owner, "read", "phone").client;
    world.hold_questions();
    let before = world.questions();
    let calls: Vec<_> = (0..20).map(|_| world.ask(phone, "daemon.addresses", json!({}))).collect();
    let asked = world.ask(owner, "daemon.pairPin", json!({}));
    world.settle();
    assert_eq!(world.questions(), before + 1);
    world.release_questions();
    for call in calls {
        let answer = world.answer(phone, &call).expect("an answer");
        assert_eq!(answer, Ok(json!({"urls": ["wss://192.168.1.23:4300"]})));
    }
    let opened = world.answer(owner, &asked).expect("an answer").expect("a window");
    assert_eq!(opened["reachable"], true);
    // The next is asked anew.
    world.machine.addresses.clear();
    assert_eq!(world.call(phone, "daemon.addresses", json!({})), Ok(json!({"urls": []})));
}

#[test]
fn a_relay_is_in_the_code_while_it_is_used() {
    for enabled in [false, true] {
        let mut world = World::default();
        let url = "wss://relay.example.org".parse().expect("an address");
        let relay = RelaySettings { enabled, url, pin: None, access_token: None };
        world.store.relay = Some(relay);
        world.crash(Crash::Done);
        let owner = world.owner();
        let opened = window(&mut world, owner);
        let expected = if enabled { json!("wss://relay.example.org") } else { Value::Null };
        for key in ["relayUrl", "relay_url"] {
            assert_eq!(opened[key], expected, "{key}");
        }
        assert_eq!(opened["reachable"], enabled);
        let (text, code) = payload(&opened);
        assert_eq!(code.relay.is_some(), enabled);
        assert!(text.len() < 300, "{} bytes", text.len());
        let params = json!({"ticket": code.ticket, "pairingId": code.pairing_id, "name": "n"});
        let phone = world.phone(LAN, PHONE).client;
        let paired = world.call(phone, "device.pair", params).expect("paired");
        assert_eq!(paired["relay_url"], expected);
    }
}

// --- tokens --------------------------------------------------------------------------------------------------------

/// What somebody sees who shows this token.
fn shown(world: &mut World, client: Client, token: &str) -> (Vec<String>, Option<u16>) {
    let params = json!({ "token": token });
    let text = clawd_tests::client::request("1", "daemon.auth", &params);
    world.text(client.conn, &text);
    world.settle();
    (world.frames(client), world.close_code(client))
}

#[test]
fn e6_a_stolen_token_is_worth_nothing_without_the_key() {
    let mut world = World::default();
    let owner = world.owner();
    let (_, code) = payload(&window(&mut world, owner));
    let params = json!({"ticket": code.ticket, "pairingId": code.pairing_id, "name": "n"});
    let phone = world.phone(LAN, PHONE).client;
    let paired = world.call(phone, "device.pair", params).expect("paired");
    let (token, id) = (&paired["device_token"], &paired["device_id"]);
    let token = token.as_str().expect("a token");
    let nobody = world.secured(LAN, None);
    let wrong = shown(&mut world, nobody, "clawd_d_nobodys");
    assert_eq!(wrong.1, Some(1008));
    let thieves = [
        ("another key", world.secured(LAN, Some(Fingerprint::of(b"another key")))),
        ("no key", world.secured(LAN, None)),
        ("plain loopback", world.stranger(LOOPBACK)),
        ("the Unix socket", world.stranger(Source::Unix)),
        ("a relay", world.secured(Source::Relay(None), None)),
    ];
    for (how, thief) in thieves {
        let before = world.store.audit.len();
        assert_eq!(shown(&mut world, thief, token), wrong, "{how}");
        let audit = world.store.audit[before..].concat();
        assert!(audit.contains("\"auth_failed\""), "{how}: {audit}");
        assert!(audit.contains(id.as_str().expect("an id")), "{how}: {audit}");
    }
    let phone = world.phone(LAN, PHONE).client;
    world.auth(phone, token).expect("with its key");
}

#[test]
fn f2_the_local_token_is_good_on_this_machine_only() {
    let mut world = World::default();
    let token = world.token();
    let nobody = world.secured(LAN, None);
    let wrong = shown(&mut world, nobody, "clawd_l_nobodys");
    assert_eq!(wrong.1, Some(1008));
    for source in [LAN, CONTAINER, LOOPBACK, Source::Relay(None)] {
        let client = world.secured(source, None);
        assert_eq!(shown(&mut world, client, &token), wrong, "{source:?}");
    }
    let proxied = world.connect(LOOPBACK, &[("X-Forwarded-For", "127.0.0.1")]);
    assert_eq!(shown(&mut world, proxied, &token), wrong, "through a proxy");
    world.owner_on(LOOPBACK);
    world.owner_on(Source::Unix);
}

// --- heads ---------------------------------------------------------------------------------------------------------

/// What a request head with this host comes to; none: it is spoken to.
fn refusal(world: &mut World, conn: clawd_protocol::ConnId, host: &str) -> Option<u16> {
    let mut headers = upgrade_headers();
    headers[0].1 = host.as_bytes().to_vec();
    let headers: Vec<(&str, &[u8])> = headers.iter().map(|(n, v)| (*n, v.as_slice())).collect();
    world.head(conn, "/", &headers);
    match &world.link(conn).stage {
        Stage::Answered(response) => Some(response.status),
        Stage::Fresh | Stage::Upgraded | Stage::Gone(_) => None,
    }
}

#[test]
fn f1_from_beyond_only_tls_is_spoken_and_nothing_else_is_looked_at() {
    let mut world = World::default();
    world.settle();
    let audited = world.store.audit.len();
    for source in [LAN, CONTAINER, Source::Relay(None)] {
        let mut answers = Vec::new();
        for (host, path) in
            [("127.0.0.1:4300", "/"), ("evil.example", "/health"), ("", "/?token=x")]
        {
            let conn = world.open_plain(source);
            let mut headers = upgrade_headers();
            headers[0].1 = host.as_bytes().to_vec();
            headers.push(("Authorization", format!("Bearer {}", world.token()).into_bytes()));
            let headers: Vec<(&str, &[u8])> =
                headers.iter().map(|(n, v)| (*n, v.as_slice())).collect();
            world.head(conn, path, &headers);
            answers.push(world.link(conn).stage.clone());
            world.text(conn, &clawd_tests::client::request("1", "daemon.ping", &json!({})));
            world.settle();
        }
        let Stage::Answered(first) = &answers[0] else { panic!("{answers:?}") };
        assert_eq!(first.status, 426);
        assert!(answers.iter().all(|it| *it == answers[0]), "{answers:?}");
    }
    assert_eq!(world.store.audit.len(), audited, "nobody's token was judged");
}

#[test]
fn b1_a_secured_peer_calls_us_by_our_address_or_our_id_and_by_no_other_name() {
    let id = daemon_key().to_string();
    for (host, is_ours) in [
        ("192.168.1.23:4300", true),
        (id.as_str(), true),
        ("127.0.0.1:4300", true),
        ("192.168.1.23:4301", false),
        ("192.168.1.23", false),
        ("192.168.1.24:4300", false),
        ("rebound.example:4300", false),
        ("192.168.1.23.rebound.example:4300", false),
        ("192.168.1.23:4300.rebound.example", false),
    ] {
        let mut world = World::default();
        let conn = world.open_secured(LAN, None, Some(OURS));
        let expected = if is_ours { None } else { Some(403) };
        assert_eq!(refusal(&mut world, conn, host), expected, "{host}");
    }
    // Without TLS neither name is ours.
    for host in ["192.168.1.23:4300", id.as_str()] {
        let mut world = World::default();
        let conn = world.open_plain(LOOPBACK);
        assert_eq!(refusal(&mut world, conn, host), Some(403), "{host}");
    }
}
