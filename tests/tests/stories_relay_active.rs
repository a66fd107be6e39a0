//! A relay that comes as a device itself, and says whatever it likes about who that is: it gets what any stranger gets
//! (security G3).

use std::net::IpAddr;
use std::time::Duration;

use clawd_protocol::{LegId, Source};
use clawd_tests::client::upgrade_headers;
use clawd_tests::phone::daemon_key;
use clawd_tests::wish::{TICKET, wanting};
use clawd_tests::{Client, LOOPBACK, Phone, Stage, World};
use serde_json::{Value, json};

const ELSEWHERE: &str = "198.51.100.7";
/// What a relay may say about where somebody comes from: nothing of it is known to be true.
const LIES: [&str; 10] = [
    "127.0.0.1",
    "::1",
    "::ffff:127.0.0.1",
    "127.8.8.8",
    "0.0.0.0",
    "192.168.1.7",
    "unix",
    "",
    "\u{1b}[2Jowner",
    "127.0.0.1, 198.51.100.7",
];

/// A daemon that is registered at a relay.
fn registered() -> (World, Client, LegId) {
    let (mut world, owner) = wanting();
    let leg = world.relay_registers();
    (world, owner, leg)
}

/// The relay invites itself and opens the tunnel: whoever is there now is the relay.
fn intruder(world: &mut World, leg: LegId, from: &str) -> Client {
    world.relay_invites(leg, TICKET, from);
    let tunnel = *world.tunnels().first().expect("the daemon comes");
    let conn = world.tunnel_opens(tunnel).expect("a connection");
    world.upgrade(conn)
}

#[test]
fn g3_a_relay_that_invites_itself_may_do_what_a_stranger_may() {
    for method in [
        "daemon.status",
        "daemon.pairPin",
        "daemon.pairConfirm",
        "daemon.setRelay",
        "daemon.resetIdentity",
        "daemon.shutdown",
        "device.list",
        "device.revoke",
        "session.create",
        "session.sendMessage",
        "session.getMessages",
        "events.subscribe",
        "tool.approve",
        "approval.list",
        "no.such.method",
    ] {
        let (mut world, _, leg) = registered();
        let guest = intruder(&mut world, leg, ELSEWHERE);
        let params = json!({"role": "owner", "repoPath": "/repo"});
        let refused = world.call(guest, method, params).expect_err(method);
        assert_eq!(refused.code, -32004, "{method}");
        assert_eq!(world.close_code(guest), Some(1008), "{method}");
        assert!(world.store.db.sessions.is_empty(), "{method}");
    }
    let (mut world, owner, leg) = registered();
    let guests = [ELSEWHERE, "203.0.113.9"].map(|from| intruder(&mut world, leg, from));
    let params = json!({"repoPath": "/repo", "initialMessage": "hello"});
    world.call(owner, "session.create", params).expect("a session");
    assert!(!world.events(owner).is_empty(), "something goes on");
    for guest in guests {
        assert!(world.frames(guest).is_empty(), "it hears nothing of it");
    }
}

#[test]
fn g3_nothing_that_a_relay_says_of_where_somebody_is_opens_anything() {
    for from in LIES {
        let (mut world, owner, leg) = registered();
        let local = world.token();
        let guest = intruder(&mut world, leg, from);
        let refused = world.auth(guest, &local).expect_err(from);
        assert_eq!((refused.code, world.close_code(guest)), (-32004, Some(1008)), "{from:?}");
        // A PIN in clear is for this machine only.
        let window = world.call(owner, "daemon.pairPin", json!({})).expect("a window");
        let pin = window["pin"].as_str().expect("a PIN").to_owned();
        let guest = intruder(&mut world, leg, from);
        let params = json!({"pin": pin, "name": "n", "platform": "ios"});
        let refused = world.call(guest, "device.pair", params).expect_err(from);
        assert_eq!(refused.code, -32021, "{from:?}");
        // Who has seen the code on the screen is asked about, though on a LAN nobody would be.
        let shown = window["qrPayload"].as_str().expect("a code");
        let shown: Value = serde_json::from_str(shown).expect("JSON");
        let params = json!({
            "ticket": shown["ticket"],
            "pairingId": shown["pairingId"],
            "name": "n",
            "platform": "ios",
        });
        let guest = intruder(&mut world, leg, from);
        let asked = world.ask(guest, "device.pair", params);
        world.settle();
        assert!(world.answer(guest, &asked).is_none(), "{from:?}: the owner has not said yes");
        assert!(world.store.db.devices.is_empty(), "{from:?}");
        let asking = world.events(owner).into_iter().rev().find(|it| it.name == "pairing.progress");
        let asking = asking.expect("the owner is asked").params.to_string();
        assert!(asking.contains("relay") && !asking.contains('\u{1b}'), "{from:?}: {asking}");
    }
}

#[test]
fn g3_nothing_plain_is_heard_wherever_a_relay_says_it_comes_from() {
    for from in [None, Some("127.0.0.1"), Some("::1"), Some("::ffff:127.0.0.1")] {
        let (mut world, ..) = registered();
        let from = from.map(|it| it.parse::<IpAddr>().expect("an address"));
        let conn = world.open_plain(Source::Relay(from));
        let mut headers = upgrade_headers();
        headers.push(("Authorization", format!("Bearer {}", world.token()).into_bytes()));
        let headers: Vec<(&str, &[u8])> = headers.iter().map(|(n, v)| (*n, v.as_slice())).collect();
        world.head(conn, "/", &headers);
        let Stage::Answered(answer) = &world.link(conn).stage else { panic!("{from:?}") };
        assert_eq!(answer.status, 426, "{from:?}");
    }
}

#[test]
fn g3_guesses_of_a_relay_are_answered_ever_later() {
    let (mut world, _, leg) = registered();
    let wrong = format!("clawd_l_{}", "A".repeat(49));
    let mut answered = 0;
    for _ in 0..100 {
        let guest = intruder(&mut world, leg, ELSEWHERE);
        world.ask(guest, "daemon.auth", json!({ "token": wrong }));
        world.settle();
        answered += usize::from(!world.frames(guest).is_empty());
        world.advance(Duration::from_millis(30));
    }
    let free = usize::try_from(world.limits().failures_free).expect("small");
    assert!((free..=free + 4).contains(&answered), "{answered} answers in 3 s");
}

#[test]
fn g3_a_relay_that_says_this_machine_slows_nobody_here_down() {
    let (mut world, owner, leg) = registered();
    for from in ["127.0.0.1", "::1"].into_iter().cycle().take(60) {
        let guest = intruder(&mut world, leg, from);
        world.ask(guest, "daemon.auth", json!({ "token": "clawd_l_wrong" }));
        world.settle();
    }
    let stranger = world.stranger(LOOPBACK);
    world.ask(stranger, "daemon.auth", json!({ "token": "clawd_l_wrong" }));
    world.settle();
    assert_eq!(world.frames(stranger).len(), 1, "answered at once: it has not failed before");
    let phone = world.pair(owner, "full", "phone");
    world.call(phone.client, "daemon.status", json!({})).expect("paired on this machine");
}

#[test]
fn g3_a_pin_counts_its_guesses_however_many_addresses_a_relay_makes_up() {
    let (mut world, owner, leg) = registered();
    let asked = json!({"confirm": false});
    let window = world.call(owner, "daemon.pairPin", asked).expect("a window");
    let pin = window["pin"].as_str().expect("a PIN").to_owned();
    let number: u32 = pin.parse().expect("digits");
    for at in 1..=20_u8 {
        let from = IpAddr::from([203, 0, 113, at]).to_string();
        let client = intruder(&mut world, leg, &from);
        let phone = Phone { client, key: None, sees: daemon_key() };
        let guess = format!("{:06}", (number + u32::from(at)) % 1_000_000);
        let refused = phone.pair(&mut world, &guess).expect_err("it is wrong");
        assert_eq!(refused.code, -32021);
    }
    let client = intruder(&mut world, leg, "203.0.113.200");
    let phone = Phone { client, key: None, sees: daemon_key() };
    let refused = phone.pair(&mut world, &pin).expect_err("three guesses were all it had");
    assert_eq!(refused.code, -32021);
    assert!(world.store.db.devices.is_empty());
    assert_eq!(world.store.db.pairing.failed_windows.len(), 1);
}
