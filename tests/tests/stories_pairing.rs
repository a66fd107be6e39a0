//! Pairing by PIN: one window, three guesses, one device.

use std::time::Duration;

use clawd_protocol::StoreFault;
use clawd_tests::client::{Event, Paired, names};
use clawd_tests::wish::wrong;
use clawd_tests::{Client, Crash, LOOPBACK, RpcError, World};
use serde_json::{Value, json};

fn pair(world: &mut World, pin: &str) -> Result<Value, RpcError> {
    let client = world.stranger(clawd_protocol::Source::Unix);
    world.call(client, "device.pair", json!({"pin": pin, "name": "n", "platform": "ios"}))
}

/// What the owner has heard since of guesses that are left.
fn tries_left(world: &mut World, owner: Client) -> Vec<u64> {
    let refused = |event: &Event| event.params["state"] == "refused";
    let events = world.events(owner).into_iter().filter(refused);
    events.filter_map(|event| event.params["triesLeft"].as_u64()).collect()
}

#[test]
fn d1_a_window_is_open_for_five_minutes() {
    let mut world = World::default();
    let owner = world.owner();
    let window = world.call(owner, "daemon.pairPin", json!({"role": "read"})).expect("a window");
    assert_eq!(window["expires_in_seconds"], 300);
    let pin = window["pin"].as_str().expect("a PIN").to_owned();
    world.advance(Duration::from_secs(301));
    assert_eq!(pair(&mut world, &pin).expect_err("too late").code, -32021);
}

#[test]
fn d1_without_a_window_nobody_is_paired() {
    let mut world = World::default();
    for pin in ["000000", "123456", "", "999999"] {
        assert_eq!(pair(&mut world, pin).expect_err("closed").code, -32021);
    }
}

#[test]
fn d1_a_second_window_ends_the_first() {
    let mut world = World::default();
    let owner = world.owner();
    let first = world.pin_window(owner);
    let second = world.pin_window(owner);
    assert_ne!(first, second, "a window of its own");
    assert_eq!(pair(&mut world, &first).expect_err("dead").code, -32021);
    pair(&mut world, &second).expect("paired");
}

#[test]
fn d1_cancel_and_restart_close_the_window() {
    let mut world = World::default();
    let owner = world.owner();
    let pin = world.pin_window(owner);
    world.call(owner, "daemon.pairCancel", json!({})).expect("cancelled");
    assert_eq!(pair(&mut world, &pin).expect_err("cancelled").code, -32021);
    let pin = world.pin_window(owner);
    world.crash(Crash::Lost);
    assert_eq!(pair(&mut world, &pin).expect_err("restarted").code, -32021);
}

#[test]
fn d2_three_wrong_guesses_close_the_window() {
    let mut world = World::default();
    let owner = world.owner();
    let pin = world.pin_window(owner);
    for _ in 0..3 {
        assert_eq!(pair(&mut world, &wrong(&pin, 1)).expect_err("wrong").code, -32021);
    }
    assert_eq!(pair(&mut world, &pin).expect_err("closed").code, -32021);
    assert!(world.store.db.devices.is_empty());
    assert!(names(&world.events(owner)).contains(&"pairing.progress"), "the owner is told");
}

#[test]
fn d2_two_wrong_guesses_leave_one() {
    let mut world = World::default();
    let owner = world.owner();
    let pin = world.pin_window(owner);
    for left in [2, 1] {
        pair(&mut world, &wrong(&pin, 1)).expect_err("wrong");
        assert_eq!(tries_left(&mut world, owner), [left], "the owner is told");
    }
    pair(&mut world, &pin).expect("the third is right");
}

#[test]
fn d2_ten_failed_windows_turn_pairing_off_also_over_a_restart() {
    let mut world = World::default();
    for _ in 0..10 {
        let owner = world.owner();
        let pin = world.pin_window(owner);
        for _ in 0..3 {
            pair(&mut world, &wrong(&pin, 1)).expect_err("wrong");
        }
        world.advance(Duration::from_secs(30));
    }
    world.crash(Crash::Power);
    let owner = world.owner();
    let paired = match world.call(owner, "daemon.pairPin", json!({})) {
        Ok(window) => pair(&mut world, window["pin"].as_str().expect("a PIN")),
        Err(refused) => Err(refused),
    };
    paired.expect_err("pairing is off");
    world.advance(Duration::from_secs(25 * 3600));
    let owner = world.owner();
    let params = json!({"unlock": true, "confirm": false});
    let window = world.call(owner, "daemon.pairPin", params).expect("the owner may unlock");
    pair(&mut world, window["pin"].as_str().expect("a PIN")).expect("and it is on again");
}

#[test]
fn d3_guesses_count_per_pin_however_many_connections_guess() {
    let mut world = World::default();
    let owner = world.owner();
    let pin = world.pin_window(owner);
    world.hold_store();
    let mut asked = Vec::new();
    for n in 0..100_u8 {
        let source = clawd_protocol::Source::Tcp([127, 0, 0, n].into());
        let client = world.stranger(source);
        if world.link(client.conn).is_open() {
            let params = json!({"pin": wrong(&pin, 1), "name": "n", "platform": "ios"});
            asked.push((client, world.ask(client, "device.pair", params)));
        }
    }
    let client = world.stranger(clawd_protocol::Source::Unix);
    let params = json!({"pin": pin, "name": "n", "platform": "ios"});
    let right = world.ask(client, "device.pair", params);
    world.release_store();
    world.advance(Duration::from_secs(20));
    let outcome = world.answer(client, &right).expect("an answer");
    assert_eq!(outcome.expect_err("three were looked at before").code, -32021);
    assert!(world.store.db.devices.is_empty());
    assert!(asked.len() > 3);
}

#[test]
fn d4_two_devices_with_the_right_pin_and_one_is_paired() {
    let mut world = World::default();
    let owner = world.owner();
    let pin = world.pin_window(owner);
    world.hold_store();
    let asked: Vec<_> = (0..2)
        .map(|_| {
            let client = world.stranger(LOOPBACK);
            let params = json!({"pin": pin, "name": "n", "platform": "ios"});
            (client, world.ask(client, "device.pair", params))
        })
        .collect();
    world.release_store();
    world.advance(Duration::from_secs(11));
    let outcomes: Vec<_> = asked
        .iter()
        .map(|(client, asked)| world.answer(*client, asked).expect("an answer"))
        .collect();
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
    assert_eq!(world.store.db.devices.len(), 1);
    assert_eq!(pair(&mut world, &pin).expect_err("a replay").code, -32021);
}

#[test]
fn d6_all_refusals_look_the_same() {
    let refusal = |prepare: &dyn Fn(&mut World, Client) -> String| {
        let mut world = World::default();
        let owner = world.owner();
        let pin = prepare(&mut world, owner);
        let client = world.stranger(LOOPBACK);
        let params = json!({"pin": pin, "name": "n", "platform": "ios"});
        let text = clawd_tests::client::request("1", "device.pair", &params);
        world.text(client.conn, &text);
        world.settle();
        (world.frames(client), world.close_code(client))
    };
    let none = refusal(&|_, _| "000000".to_owned());
    assert_eq!(none.0.len(), 1);
    let is_wrong = refusal(&|world, owner| {
        let pin = world.pin_window(owner);
        wrong(&pin, 1)
    });
    let expired = refusal(&|world, owner| {
        let pin = world.pin_window(owner);
        world.advance(Duration::from_secs(301));
        pin
    });
    let used = refusal(&|world, owner| {
        let pin = world.pin_window(owner);
        pair(world, &pin).expect("paired");
        pin
    });
    let locked = refusal(&|world, owner| {
        let pin = world.pin_window(owner);
        for _ in 0..3 {
            pair(world, &wrong(&pin, 1)).expect_err("wrong");
        }
        pin
    });
    for (name, other) in
        [("wrong", is_wrong), ("expired", expired), ("used", used), ("locked", locked)]
    {
        assert_eq!(other, none, "{name}");
    }
}

#[test]
fn a_full_disk_issues_no_token_and_announces_nothing() {
    let mut world = World::default();
    let owner = world.owner();
    let pin = world.pin_window(owner);
    world.events(owner);
    world.fail_store(Some(StoreFault::Full));
    let refused = pair(&mut world, &pin).expect_err("nothing can be stored");
    assert!(!format!("{refused:?}").contains("clawd_d_"));
    assert!(!names(&world.events(owner)).contains(&"device.paired"));
    assert!(world.store.db.devices.is_empty());
    world.fail_store(None);
    let list = world.call(owner, "device.list", json!({})).expect("a list");
    assert_eq!(list, json!([]));
}

#[test]
fn a_token_is_handed_out_only_when_it_is_on_disk() {
    let mut world = World::default();
    let owner = world.owner();
    let pin = world.pin_window(owner);
    world.hold_store();
    let client = world.stranger(LOOPBACK);
    let params = json!({"pin": pin, "name": "n", "platform": "ios"});
    let asked = world.ask(client, "device.pair", params);
    world.settle();
    assert_eq!(world.answer(client, &asked), None);
    world.release_store();
    world.answer(client, &asked).expect("an answer").expect("a device");
    world.crash(Crash::Power);
    assert_eq!(world.store.db.devices.len(), 1);
}

#[test]
fn c1_under_penalty_a_pin_is_not_even_looked_at() {
    let mut world = World::default();
    let owner = world.owner();
    for _ in 0..20 {
        let client = world.stranger(LOOPBACK);
        if world.link(client.conn).is_open() {
            world.ask(client, "daemon.auth", json!({"token": "wrong"}));
        }
        world.settle();
    }
    let pin = world.pin_window(owner);
    let client = world.stranger(LOOPBACK);
    let params = json!({"pin": pin, "name": "n", "platform": "ios"});
    world.ask(client, "device.pair", params);
    world.advance(Duration::from_secs(11));
    assert!(world.store.db.devices.is_empty(), "the source is under penalty");
    pair(&mut world, &pin).expect("from elsewhere the window is still good");
}

/// A window that an admin has opened: the admin, and the PIN.
fn window_of_an_admin(world: &mut World, owner: Client) -> (Paired, String) {
    let admin = world.pair(owner, "admin", "admin");
    let pin = world.pin_window(admin.client);
    world.events(owner);
    (admin, pin)
}

fn was_cancelled(world: &mut World, owner: Client) -> bool {
    let is_it =
        |event: &Event| event.name == "pairing.progress" && event.params["state"] == "cancelled";
    world.events(owner).iter().any(is_it)
}

#[test]
fn d1_e4_a_window_closes_when_its_opener_is_revoked() {
    let mut world = World::default();
    let owner = world.owner();
    let (admin, pin) = window_of_an_admin(&mut world, owner);
    world.hold_store();
    world.ask(owner, "device.revoke", json!({"id": admin.id}));
    assert!(was_cancelled(&mut world, owner), "before the disk has answered");
    world.release_store();
    assert_eq!(pair(&mut world, &pin).expect_err("cancelled").code, -32021);
    world.advance(Duration::from_secs(301));
    let late = world.events(owner);
    assert!(late.iter().all(|event| event.params["state"] != "expired"), "{late:?}");
}

#[test]
fn d1_a_window_closes_when_its_opener_is_an_admin_no_more() {
    let mut world = World::default();
    let owner = world.owner();
    let (admin, pin) = window_of_an_admin(&mut world, owner);
    let params = json!({"id": admin.id, "role": "full"});
    world.call(owner, "device.setRole", params).expect("demoted");
    assert!(was_cancelled(&mut world, owner));
    assert_eq!(pair(&mut world, &pin).expect_err("cancelled").code, -32021);
}

#[test]
fn d1_a_window_closes_when_its_opener_has_expired() {
    const DAY_MS: i64 = 86_400_000;
    let mut world = World::default();
    let owner = world.owner();
    let admin = world.pair(owner, "admin", "admin");
    for days in [40, 80, 120, 160] {
        world.skew(40 * DAY_MS);
        world.call(admin.client, "daemon.status", json!({})).unwrap_or_else(|_| panic!("{days}"));
    }
    world.skew(20 * DAY_MS - 60_000);
    let pin = world.pin_window(admin.client);
    world.hang_up(admin.client.conn);
    world.advance(Duration::from_secs(90));
    assert_eq!(pair(&mut world, &pin).expect_err("the admin is none any more").code, -32021);
}

#[test]
fn d1_others_windows_stay_open_when_a_device_is_revoked() {
    let mut world = World::default();
    let owner = world.owner();
    let admin = world.pair(owner, "admin", "admin");
    let pin = world.pin_window(owner);
    world.call(owner, "device.revoke", json!({"id": admin.id})).expect("revoked");
    pair(&mut world, &pin).expect("the owner's window");
}

#[test]
fn d1_a6_the_owners_window_closes_when_the_local_token_is_rotated() {
    for grace in [0, 60] {
        let mut world = World::default();
        let owner = world.owner();
        let witness = world.pair(owner, "admin", "witness").client;
        let pin = world.pin_window(owner);
        world.events(witness);
        world.ask(owner, "daemon.rotateToken", json!({"graceSecs": grace}));
        world.settle();
        assert!(was_cancelled(&mut world, witness), "grace {grace}");
        assert_eq!(pair(&mut world, &pin).expect_err("cancelled").code, -32021, "grace {grace}");
    }
}

#[test]
fn d1_a_window_closes_by_the_wall_clock_too() {
    let mut world = World::default();
    let owner = world.owner();
    let pin = world.pin_window(owner);
    // The machine slept: the other clock stood still.
    world.skew(301_000);
    assert_eq!(pair(&mut world, &pin).expect_err("too late").code, -32021);
}

#[test]
fn d1_the_owner_is_told_that_nobody_came() {
    let mut world = World::default();
    let owner = world.owner();
    world.pin_window(owner);
    world.advance(Duration::from_secs(301));
    let events = world.events(owner);
    assert!(events.iter().any(|event| event.params["state"] == "expired"), "{events:?}");
}

#[test]
fn d2_the_last_wrong_guess_is_answered_once_it_is_written_down() {
    let mut world = World::default();
    let owner = world.owner();
    let pin = world.pin_window(owner);
    for _ in 0..2 {
        pair(&mut world, &wrong(&pin, 1)).expect_err("wrong");
    }
    world.hold_store();
    let client = world.stranger(clawd_protocol::Source::Unix);
    let params = json!({"pin": wrong(&pin, 1), "name": "n", "platform": "ios"});
    let asked = world.ask(client, "device.pair", params);
    world.settle();
    assert_eq!(world.answer(client, &asked), None);
    world.release_store();
    let refused = world.answer(client, &asked).expect("an answer").expect_err("wrong");
    assert_eq!(refused.code, -32021);
    assert_eq!(world.store.db.pairing.failed_windows.len(), 1);
}

/// Turns pairing off by ten failed windows.
fn lock(world: &mut World) {
    for _ in 0..10 {
        let owner = world.owner();
        let pin = world.pin_window(owner);
        for _ in 0..3 {
            pair(world, &wrong(&pin, 1)).expect_err("wrong");
        }
        world.advance(Duration::from_secs(30));
    }
}

#[test]
fn d2_an_admin_cannot_turn_pairing_on_again_and_the_owner_does_for_good() {
    let mut world = World::default();
    let owner = world.owner();
    let admin = world.pair(owner, "admin", "laptop");
    lock(&mut world);
    let unlock = json!({"unlock": true});
    let refused = world.call(admin.client, "daemon.pairPin", unlock.clone());
    assert_eq!(refused.expect_err("not the owner").kind, "pairing_locked");
    world.call(owner, "daemon.pairPin", unlock).expect("the owner may unlock");
    world.crash(Crash::Power);
    let owner = world.owner();
    world.call(owner, "daemon.pairPin", json!({})).expect("it stays on after a restart");
}

#[test]
fn c6_devices_that_are_paired_at_once_keep_to_their_limit() {
    let limits = clawd_protocol::Limits { devices_max: 2, ..clawd_protocol::Limits::default() };
    let mut world = World::new(limits);
    let owner = world.owner();
    world.pair(owner, "read", "first");
    world.hold_store();
    let asked: Vec<_> = (0..2)
        .map(|_| {
            let pin = world.pin_window(owner);
            let client = world.stranger(clawd_protocol::Source::Unix);
            let params = json!({"pin": pin, "name": "n", "platform": "ios"});
            (client, world.ask(client, "device.pair", params))
        })
        .collect();
    world.release_store();
    let outcomes: Vec<_> = asked
        .iter()
        .map(|(client, asked)| world.answer(*client, asked).expect("an answer").is_ok())
        .collect();
    assert_eq!(outcomes, [true, false]);
    let pin = world.pin_window(owner);
    assert_eq!(pair(&mut world, &pin).expect_err("one too many").code, -32021);
}
