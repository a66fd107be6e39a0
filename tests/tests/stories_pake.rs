//! Pairing by a PIN that is never shown to anybody: runs, guesses, and what a stranger can see of them.

use std::time::Duration;

use clawd_protocol::{Fingerprint, Limits, Source};
use clawd_tests::client::request;
use clawd_tests::phone::Begun;
use clawd_tests::wish::wrong;
use clawd_tests::{Client, Crash, LOOPBACK, Phone, RpcError, World};
use serde_json::{Value, json};

const PHONE: Option<&[u8]> = Some(b"the phone's key");

const fn lan(last: u8) -> Source {
    Source::Tcp(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 1, last)))
}

fn pair(world: &mut World, last: u8, pin: &str) -> Result<Value, RpcError> {
    world.phone(lan(last), PHONE).pair(world, pin)
}

fn is_refused(outcome: &Result<Value, RpcError>) -> bool {
    outcome
        .as_ref()
        .is_err_and(|error| (error.code, error.kind.as_str()) == (-32021, "pairing_refused"))
}

#[test]
fn d6_a_device_pairs_by_pin_and_the_pin_never_crosses_the_wire() {
    for guess_by in [0, 1] {
        let mut world = World::default();
        let owner = world.owner();
        let pin = world.pin_window(owner);
        let phone = world.phone(lan(7), PHONE);
        let run = phone.begin(&mut world, &wrong(&pin, guess_by)).expect("begun");
        run.finish(&mut world);
        world.settle();
        let heard = world.frames(phone.client).concat();
        assert_eq!(heard.contains("device_token"), guess_by == 0, "{heard}");
        let said = format!("{} {} {heard}", run.message, run.params());
        for guess in [&pin, &wrong(&pin, guess_by)] {
            // SHA-256, in base32 and in hexadecimal.
            let hash = Fingerprint::of(guess.as_bytes());
            let hex: String = hash.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
            assert!(!said.contains(&hash.to_string()) && !said.contains(&hex), "{said}");
            assert!(!said.contains(guess.as_str()), "{said}");
        }
    }
}

#[test]
fn e6_a_device_that_shows_a_key_is_bound_to_it() {
    let mut world = World::default();
    let owner = world.owner();
    let pin = world.pin_window(owner);
    let paired = pair(&mut world, 7, &pin).expect("paired");
    assert_eq!(paired["daemon_id"], clawd_tests::phone::daemon_key().to_string());
    let (_, device) = world.store.db.devices.first_key_value().expect("a device");
    assert_eq!(device.key, PHONE.map(Fingerprint::of));
    assert_eq!(device.last_via, "lan");
}

#[test]
fn d6_somebody_in_between_burns_one_guess() {
    let mut world = World::default();
    let owner = world.owner();
    let pin = world.pin_window(owner);
    let evil = Fingerprint::of(b"in between");
    // The phone sees the key of the one in between; he passes on what it says, with a key of his own or none.
    for (last, key) in [(7, Some(&b"his key"[..])), (8, None)] {
        let between = world.phone(lan(last), key);
        let victim = Phone { key: PHONE.map(Fingerprint::of), sees: evil, ..between };
        assert!(is_refused(&victim.pair(&mut world, &pin)));
    }
    pair(&mut world, 9, &pin).expect("two guesses are gone, one is left");
    let pin = world.pin_window(owner);
    // Also if only the phone was fooled, or only the daemon.
    for phone in [
        Phone { sees: evil, ..world.phone(lan(10), PHONE) },
        Phone { key: Some(evil), ..world.phone(lan(11), PHONE) },
        Phone { key: None, ..world.phone(lan(12), PHONE) },
    ] {
        assert!(is_refused(&phone.pair(&mut world, &pin)));
    }
    assert!(is_refused(&pair(&mut world, 13, &pin)), "three guesses are gone");
}

/// What came before: the PIN that somebody tries.
type Before<'a> = &'a dyn Fn(&mut World, Client) -> String;

/// What a stranger sees of a run with the PIN that `prepare` leaves it with, and how it ends.
fn seen(prepare: Before<'_>) -> (Vec<String>, Option<u16>, Vec<usize>) {
    let mut world = World::default();
    let owner = world.owner();
    let pin = prepare(&mut world, owner);
    let phone = world.phone(lan(200), PHONE);
    let run = phone.begin(&mut world, &pin).expect("always begun");
    let text = request("1", "device.pairFinish", &run.params());
    world.text(phone.client.conn, &text);
    world.settle();
    let lengths = vec![run.id.len(), run.message.len(), run.confirm.len()];
    (world.frames(phone.client), world.close_code(phone.client), lengths)
}

#[test]
fn d6_all_runs_look_the_same_until_they_are_refused_and_then_too() {
    let none = seen(&|_, _| "000000".to_owned());
    assert_eq!((none.0.len(), none.1), (1, Some(1008)));
    let cases: [(&str, Before<'_>); 6] = [
        ("wrong", &|world, owner| wrong(&world.pin_window(owner), 1)),
        ("expired", &|world, owner| {
            let pin = world.pin_window(owner);
            world.advance(Duration::from_secs(301));
            pin
        }),
        ("used", &|world, owner| {
            let pin = world.pin_window(owner);
            pair(world, 1, &pin).expect("paired");
            pin
        }),
        ("spent", &|world, owner| {
            let pin = world.pin_window(owner);
            for last in 1..4 {
                assert!(is_refused(&pair(world, last, &wrong(&pin, 1))));
            }
            pin
        }),
        ("locked", &|world, _| lock(world)),
        ("cancelled", &|world, owner| {
            let pin = world.pin_window(owner);
            world.call(owner, "daemon.pairCancel", json!({})).expect("cancelled");
            pin
        }),
    ];
    for (name, prepare) in cases {
        assert_eq!(seen(prepare), none, "{name}");
    }
}

#[test]
fn d6_the_name_of_a_run_does_not_say_whether_a_window_is_open() {
    for is_open in [false, true] {
        let mut world = World::default();
        let owner = world.owner();
        if is_open {
            world.pin_window(owner);
        }
        let first = world.phone(lan(1), None).begin(&mut world, "000000").expect("begun");
        let second = world.phone(lan(2), None).begin(&mut world, "000000").expect("begun");
        assert_ne!(first.id, second.id);
    }
}

#[test]
fn d6_a_pin_in_clear_from_afar_is_refused_unseen_and_costs_nothing() {
    let mut world = World::default();
    let owner = world.owner();
    let pin = world.pin_window(owner);
    let params = json!({"pin": pin, "name": "n", "platform": "ios"});
    for _ in 0..2 {
        let afar = [
            world.secured(lan(7), None),
            world.secured(LOOPBACK, None),
            world.secured(Source::Relay(None), None),
            world.connect(LOOPBACK, &[("X-Forwarded-For", "1.2.3.4")]),
        ];
        for client in afar {
            assert!(is_refused(&world.call(client, "device.pair", params.clone())));
        }
    }
    let local = world.stranger(Source::Unix);
    world.call(local, "device.pair", params).expect("no guess was spent");
}

#[test]
fn d6_what_is_no_message_is_named_and_costs_nothing() {
    let mut world = World::default();
    let owner = world.owner();
    let pin = world.pin_window(owner);
    let phone = world.phone(lan(7), PHONE);
    let neutral = "QQEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    for message in [json!(""), json!("QQ"), json!(neutral), json!(7), Value::Null] {
        let params = json!({"message": message});
        let refused = world.call(phone.client, "device.pairStart", params).expect_err("none");
        assert_eq!((refused.code, &refused.data["field"]), (-32602, &json!("message")));
    }
    phone.pair(&mut world, &pin).expect("on the same connection");
}

#[test]
fn d2_a_run_counts_when_it_is_answered_also_if_it_never_ends() {
    let mut world = World::default();
    let owner = world.owner();
    let pin = world.pin_window(owner);
    for last in 1..4 {
        let phone = world.phone(lan(last), PHONE);
        phone.begin(&mut world, &wrong(&pin, 1)).expect("begun");
        assert!(world.store.db.pairing.failed_windows.is_empty());
        world.hang_up(phone.client.conn);
        world.settle();
        let told = world.events(owner).pop().expect("the owner is told");
        let left = (last < 3).then_some(3 - last);
        assert_eq!(told.params["triesLeft"].as_u64(), left.map(u64::from), "{told:?}");
    }
    assert_eq!(world.store.db.pairing.failed_windows.len(), 1, "and the window has failed");
    assert!(is_refused(&pair(&mut world, 4, &pin)));
}

#[test]
fn d2_two_runs_that_never_end_leave_one() {
    let mut world = World::default();
    let owner = world.owner();
    let pin = world.pin_window(owner);
    for last in 1..3 {
        world.phone(lan(last), PHONE).begin(&mut world, &pin).expect("begun");
    }
    pair(&mut world, 3, &pin).expect("the third");
}

#[test]
fn d2_a_run_under_way_keeps_a_spent_window_and_may_still_be_right() {
    let mut world = World::default();
    let owner = world.owner();
    let pin = world.pin_window(owner);
    let phone = world.phone(lan(1), PHONE);
    let run = phone.begin(&mut world, &pin).expect("begun");
    for last in 2..4 {
        assert!(is_refused(&pair(&mut world, last, &wrong(&pin, 1))));
    }
    assert!(is_refused(&pair(&mut world, 4, &pin)), "no more guesses");
    world.call(phone.client, "device.pairFinish", run.params()).expect("it was counted before");
    assert!(world.store.db.pairing.failed_windows.is_empty());
}

#[test]
fn d2_the_last_wrong_run_is_answered_once_it_is_written_down() {
    let mut world = World::default();
    let owner = world.owner();
    let pin = world.pin_window(owner);
    for last in 1..3 {
        assert!(is_refused(&pair(&mut world, last, &wrong(&pin, 1))));
    }
    let phone = world.phone(lan(3), PHONE);
    let run = phone.begin(&mut world, &wrong(&pin, 1)).expect("begun");
    world.hold_store();
    let asked = run.finish(&mut world);
    world.settle();
    assert_eq!(world.answer(phone.client, &asked), None);
    world.release_store();
    assert!(is_refused(&world.answer(phone.client, &asked).expect("an answer")));
    assert_eq!(world.store.db.pairing.failed_windows.len(), 1);
}

/// Ten windows fail; the PIN of the last.
fn lock(world: &mut World) -> String {
    let mut pin = String::new();
    for round in 0..10 {
        let owner = world.owner();
        pin = world.pin_window(owner);
        for guess in 0..3 {
            assert!(is_refused(&pair(world, 1 + round * 3 + guess, &wrong(&pin, 1))));
        }
    }
    pin
}

#[test]
fn d2_ten_failed_windows_turn_pairing_off_over_a_restart_until_the_owner_turns_it_on() {
    let mut world = World::default();
    lock(&mut world);
    world.crash(Crash::Power);
    let owner = world.owner();
    let refused = world.call(owner, "daemon.pairPin", json!({})).expect_err("off");
    assert_eq!(refused.kind, "pairing_locked");
    let params = json!({"unlock": true, "confirm": false});
    let opened = world.call(owner, "daemon.pairPin", params).expect("on again");
    pair(&mut world, 99, opened["pin"].as_str().expect("a PIN")).expect("paired");
}

#[test]
fn d2_kill_between_runs_leaves_no_window() {
    for how in [Crash::Lost, Crash::Done, Crash::Power] {
        let mut world = World::default();
        let owner = world.owner();
        let pin = world.pin_window(owner);
        for last in 1..3 {
            assert!(is_refused(&pair(&mut world, last, &wrong(&pin, 1))));
        }
        let run = world.phone(lan(3), PHONE).begin(&mut world, &pin).expect("begun");
        world.crash(how);
        let again = world.phone(lan(3), PHONE);
        assert!(is_refused(&world.call(again.client, "device.pairFinish", run.params())));
        assert!(is_refused(&pair(&mut world, 4, &pin)));
        assert!(world.store.db.devices.is_empty());
    }
}

#[test]
fn d3_of_a_thousand_guesses_over_a_hundred_connections_three_count() {
    let limits = Limits { strangers_max: 200, strangers_early_drop: 200, ..Limits::default() };
    let mut world = World::new(limits);
    let owner = world.owner();
    let pin = world.pin_window(owner);
    let phones: Vec<Phone> = (0..100).map(|last| world.phone(lan(last), PHONE)).collect();
    // The first three are wrong, all others would be right.
    let runs: Vec<Begun> = phones
        .iter()
        .zip(0_u32..)
        .map(|(phone, n)| {
            let guess = if n < 3 { wrong(&pin, n + 1) } else { pin.clone() };
            phone.begin(&mut world, &guess).expect("all are answered")
        })
        .collect();
    world.hold_store();
    for attempt in 0..9 {
        for (phone, run) in phones.iter().zip(&runs) {
            if attempt == 4 {
                run.finish(&mut world);
            } else {
                let params = json!({"pin": pin, "name": "n", "platform": "ios"});
                let method = if attempt < 4 { "daemon.ping" } else { "device.pair" };
                world.ask(phone.client, method, params);
            }
        }
    }
    world.release_store();
    assert!(world.store.db.devices.is_empty());
    assert_eq!(world.store.db.pairing.failed_windows.len(), 1);
}

#[test]
fn d4_two_devices_that_finish_at_once_and_one_is_paired() {
    let mut world = World::default();
    let owner = world.owner();
    let pin = world.pin_window(owner);
    let phones = [world.phone(lan(1), PHONE), world.phone(lan(2), None)];
    let runs = phones.map(|phone| phone.begin(&mut world, &pin).expect("begun"));
    world.hold_store();
    let asked = [runs[0].finish(&mut world), runs[1].finish(&mut world)];
    world.release_store();
    let outcomes: Vec<_> = phones
        .iter()
        .zip(&asked)
        .map(|(phone, asked)| world.answer(phone.client, asked).expect("an answer"))
        .collect();
    assert!(outcomes[0].is_ok() && is_refused(&outcomes[1]), "{outcomes:?}");
    assert_eq!(world.store.db.devices.len(), 1);
}

#[test]
fn d4_two_devices_with_one_ticket_and_one_is_paired() {
    let mut world = World::default();
    let owner = world.owner();
    let window = world.call(owner, "daemon.pairPin", json!({})).expect("a window");
    let payload = window["qrPayload"].as_str().expect("a payload");
    let payload: Value = serde_json::from_str(payload).expect("JSON");
    let params = json!({"ticket": payload["ticket"], "pairingId": payload["pairingId"],
        "name": "n", "platform": "ios"});
    world.hold_store();
    let asked: Vec<_> = (1..4)
        .map(|last| {
            let client = world.phone(lan(last), PHONE).client;
            (client, world.ask(client, "device.pair", params.clone()))
        })
        .collect();
    world.release_store();
    let outcomes: Vec<_> = asked
        .iter()
        .map(|(client, asked)| world.answer(*client, asked).expect("an answer").is_ok())
        .collect();
    assert_eq!(outcomes, [true, false, false]);
    assert_eq!(world.store.db.devices.len(), 1);
}

#[test]
fn d4_a_replayed_transcript_fails() {
    let mut world = World::default();
    let owner = world.owner();
    let pin = world.pin_window(owner);
    let phone = world.phone(lan(1), PHONE);
    let run = phone.begin(&mut world, &pin).expect("begun");
    world.call(phone.client, "device.pairFinish", run.params()).expect("paired");
    for has_window in [false, true] {
        if has_window {
            world.pin_window(owner);
        }
        let thief = world.phone(lan(2), PHONE).client;
        let message = json!({"message": run.message});
        let answer = world.call(thief, "device.pairStart", message).expect("answered");
        let mut params = run.params();
        params["pairingId"] = answer["pairingId"].clone();
        assert!(is_refused(&world.call(thief, "device.pairFinish", params)));
    }
    assert_eq!(world.store.db.devices.len(), 1);
}

#[test]
fn d4_a_connection_has_one_run_and_the_run_one_name() {
    let mut world = World::default();
    let owner = world.owner();
    let pin = world.pin_window(owner);
    let phone = world.phone(lan(1), PHONE);
    phone.begin(&mut world, &pin).expect("begun");
    assert_eq!(phone.begin(&mut world, &pin).expect_err("a second").code, -32021);
    let phone = world.phone(lan(2), PHONE);
    let run = phone.begin(&mut world, &pin).expect("begun");
    let mut params = run.params();
    params["pairingId"] = json!("another");
    assert!(is_refused(&world.call(phone.client, "device.pairFinish", params)));
    let other = world.phone(lan(3), PHONE).client;
    assert!(is_refused(&world.call(other, "device.pairFinish", run.params())), "without a run");
}

#[test]
fn d1_a_run_ends_with_its_window() {
    type End = fn(&mut World, Client);
    let ends: [(&str, End); 4] = [
        // The one clock, then the other: a machine may sleep.
        ("expired", |world, _| world.skew(301_000)),
        ("cancelled", |world, owner| {
            world.call(owner, "daemon.pairCancel", json!({})).expect("cancelled");
        }),
        ("another", |world, owner| drop(world.pin_window(owner))),
        ("rotated", |world, owner| {
            world.call(owner, "daemon.rotateToken", json!({"graceSecs": 60})).expect("rotated");
        }),
    ];
    for (how, end) in ends {
        let mut world = World::default();
        let owner = world.owner();
        let pin = world.pin_window(owner);
        let phone = world.phone(lan(1), PHONE);
        let run = phone.begin(&mut world, &pin).expect("begun");
        end(&mut world, owner);
        let outcome = world.call(phone.client, "device.pairFinish", run.params());
        assert!(is_refused(&outcome), "{how}");
        assert!(world.store.db.devices.is_empty(), "{how}");
    }
}

#[test]
fn d1_a_run_ends_when_the_window_does_by_the_steady_clock() {
    let mut world = World::default();
    let owner = world.owner();
    let pin = world.pin_window(owner);
    world.advance(Duration::from_secs(299));
    let phone = world.phone(lan(1), PHONE);
    let run = phone.begin(&mut world, &pin).expect("begun");
    world.skew(-100_000);
    world.advance(Duration::from_secs(2));
    assert!(is_refused(&world.call(phone.client, "device.pairFinish", run.params())));
}

#[test]
fn a_token_by_pin_is_handed_out_only_when_it_is_on_disk() {
    let mut world = World::default();
    let owner = world.owner();
    let pin = world.pin_window(owner);
    let phone = world.phone(lan(1), PHONE);
    let run = phone.begin(&mut world, &pin).expect("begun");
    world.hold_store();
    let asked = run.finish(&mut world);
    world.settle();
    assert_eq!(world.answer(phone.client, &asked), None);
    world.crash(Crash::Lost);
    assert!(world.store.db.devices.is_empty());
    assert!(is_refused(&pair(&mut world, 2, &pin)));
}

#[test]
fn c1_whoever_hangs_up_instead_of_guessing_is_under_penalty_too() {
    let mut world = World::default();
    let owner = world.owner();
    let free = Limits::default().failures_free;
    for _ in 0..=free {
        let phone = world.phone(lan(1), PHONE);
        phone.begin(&mut world, "000000").expect("answered, as always");
        world.hang_up(phone.client.conn);
        world.settle();
    }
    let pin = world.pin_window(owner);
    let phone = world.phone(lan(1), PHONE);
    assert!(phone.try_begin(&mut world, &pin).is_none(), "it is not looked at");
    pair(&mut world, 2, &pin).expect("from elsewhere the window is as good as new");
}
