//! Somebody is asked before a device is let in: by PIN always, and through a relay (security D5).

use std::time::Duration;

use clawd_protocol::pake::comparison_code;
use clawd_protocol::{Fingerprint, Source};
use clawd_tests::client::{Asked, Paired, names};
use clawd_tests::phone::daemon_key;
use clawd_tests::{Client, Crash, LOOPBACK, Phone, RpcError, World};
use serde_json::{Value, json};

const PHONE: Option<&[u8]> = Some(b"the phone's key");
const LAN: Source = Source::Tcp(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 1, 7)));
const RELAYED: Source =
    Source::Relay(Some(std::net::IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 9))));

/// A device that has proved that it knows the PIN, and waits.
struct Waiting {
    world: World,
    owner: Client,
    phone: Phone,
    /// Its name for the run.
    run: String,
    asked: Asked,
    pin: String,
    /// What the owner was told.
    told: Value,
}

fn window(world: &mut World, opener: Client, params: Value) -> Value {
    world.call(opener, "daemon.pairPin", params).expect("a window")
}

fn told(world: &mut World, client: Client) -> Value {
    let events = world.events(client);
    let mut events = events.into_iter().filter(|event| event.name == "pairing.progress");
    events.next_back().map(|event| event.params).unwrap_or_default()
}

fn waiting_in(mut world: World, owner: Client, opener: Client, params: Value) -> Waiting {
    let opened = window(&mut world, opener, params);
    assert_eq!(opened["confirm"], true);
    let pin = opened["pin"].as_str().expect("a PIN").to_owned();
    let phone = world.phone(LAN, PHONE);
    let run = phone.begin(&mut world, &pin).expect("begun");
    let asked = run.finish(&mut world);
    world.settle();
    assert_eq!(world.answer(phone.client, &asked), None, "it waits");
    let told = told(&mut world, owner);
    assert_eq!(told["state"], "confirm");
    assert_eq!(told["pairingId"], opened["pairingId"]);
    Waiting { world, owner, phone, run: run.id, asked, pin, told }
}

fn waiting() -> Waiting {
    let mut world = World::default();
    let owner = world.owner();
    waiting_in(world, owner, owner, json!({}))
}

impl Waiting {
    fn say(&mut self, client: Client, accept: bool) -> Result<Value, RpcError> {
        let params = json!({"pairingId": self.told["pairingId"], "accept": accept});
        self.world.call(client, "daemon.pairConfirm", params)
    }

    fn outcome(&mut self) -> Result<Value, RpcError> {
        self.world.answer(self.phone.client, &self.asked).expect("an answer")
    }

    /// Nothing has come of it, and nothing will.
    fn ends_out(mut self, how: &str) {
        let refused = self.outcome().expect_err(how);
        assert_eq!((refused.code, refused.kind.as_str()), (-32021, "pairing_refused"), "{how}");
        assert_eq!(self.world.close_code(self.phone.client), Some(1008), "{how}");
        self.left_no_trace(how);
    }

    fn left_no_trace(&mut self, how: &str) {
        let late = self.say(self.owner, true).expect_err(how);
        assert_eq!(late.kind, "not_pending", "{how}");
        assert!(self.world.store.db.devices.is_empty(), "{how}");
        assert!(!names(&self.world.events(self.owner)).contains(&"device.paired"), "{how}");
        let audit = self.world.store.audit.concat();
        assert!(audit.contains("\"pairing_declined\"") && !audit.contains("\"paired\""), "{audit}");
        let again = Phone { client: self.world.secured(LAN, self.phone.key), ..self.phone };
        again.pair(&mut self.world, &self.pin).expect_err("the window is used up");
    }
}

#[test]
fn d5_the_owner_sees_who_wants_in_and_the_same_code_as_the_device() {
    let mut it = waiting();
    let key = it.phone.key;
    let code = comparison_code(&daemon_key(), key.as_ref(), &it.run);
    for (field, expected) in [
        ("name", json!("phone")),
        ("platform", json!("ios")),
        ("via", json!("lan")),
        ("address", json!("192.168.1.7")),
        ("code", json!(code)),
        ("expiresInSeconds", json!(60)),
    ] {
        assert_eq!(it.told[field], expected, "{field}");
    }
    let evil = Fingerprint::of(b"in between");
    assert_ne!(it.told["code"], comparison_code(&evil, key.as_ref(), &it.run));
    assert!(it.world.store.db.devices.is_empty(), "no row before the yes");
    it.say(it.owner, true).expect("said");
    let paired = it.outcome().expect("paired");
    assert!(paired["device_token"].is_string() && paired["confirm"].is_string());
    assert!(it.world.store.audit.concat().contains("confirmed by owner"));
    assert_eq!(it.say(it.owner, true).expect_err("once").kind, "not_pending");
    assert_eq!(it.world.store.db.devices.len(), 1);
}

#[test]
fn d5_no_is_no() {
    let mut it = waiting();
    let said = it.say(it.owner, false).expect("said");
    assert_eq!(said, json!({"pairingId": it.told["pairingId"], "accepted": false}));
    let told = told(&mut it.world, it.owner);
    assert_eq!(told["state"], "declined");
    it.ends_out("no");
}

#[test]
fn d5_silence_is_no() {
    let mut it = waiting();
    it.world.advance(Duration::from_secs(59));
    assert_eq!(it.world.answer(it.phone.client, &it.asked), None, "it waits");
    it.world.advance(Duration::from_secs(2));
    assert_eq!(told(&mut it.world, it.owner)["state"], "declined");
    it.ends_out("silence");
}

#[test]
fn d5_a_yes_after_the_machine_has_slept_is_too_late() {
    let mut it = waiting();
    it.world.skew(61_000);
    assert_eq!(it.say(it.owner, true).expect_err("late").kind, "not_pending");
    it.ends_out("slept");
}

#[test]
fn d1_whoever_closes_a_window_that_was_replaced_closes_no_other() {
    let mut world = World::default();
    let owner = world.owner();
    let first = window(&mut world, owner, json!({}));
    let second = window(&mut world, owner, json!({}));
    let replaced = told(&mut world, owner);
    assert_eq!(
        (&replaced["state"], &replaced["pairingId"]),
        (&json!("cancelled"), &first["pairingId"])
    );
    let cancel = |world: &mut World, of: &Value| {
        let params = json!({"pairingId": of["pairingId"]});
        world.call(owner, "daemon.pairCancel", params).expect("said");
        told(world, owner)
    };
    assert_eq!(cancel(&mut world, &first), Value::Null, "it is no window any more");
    assert_eq!(cancel(&mut world, &second)["state"], "cancelled");
}

#[test]
fn d5_a_device_that_has_left_is_not_let_in() {
    let mut it = waiting();
    it.world.hang_up(it.phone.client.conn);
    it.world.settle();
    assert_eq!(told(&mut it.world, it.owner)["state"], "declined");
    it.left_no_trace("left");
}

#[test]
fn d5_a_crash_while_somebody_is_asked_leaves_nothing() {
    for how in [Crash::Lost, Crash::Done, Crash::Power] {
        let mut it = waiting();
        it.world.crash(how);
        it.owner = it.world.owner();
        assert_eq!(it.say(it.owner, true).expect_err("gone").kind, "not_pending");
        assert!(it.world.store.db.devices.is_empty());
        let again = it.world.phone(LAN, PHONE);
        again.pair(&mut it.world, &it.pin).expect_err("the window is gone too");
    }
}

#[test]
fn d4_a_crash_after_the_yes_leaves_a_device_or_none() {
    for how in [Crash::Lost, Crash::Done, Crash::Power] {
        let mut it = waiting();
        it.world.hold_store();
        it.say(it.owner, true).expect("said");
        assert_eq!(it.world.answer(it.phone.client, &it.asked), None, "not before it is stored");
        it.world.crash(how);
        assert_eq!(it.world.store.db.devices.len(), usize::from(how == Crash::Done));
    }
}

#[test]
fn d4_while_somebody_is_asked_nobody_else_comes_in() {
    let mut it = waiting();
    let other = it.world.phone(LAN, None);
    other.pair(&mut it.world, &it.pin).expect_err("used up");
    it.say(it.owner, true).expect("said");
    it.outcome().expect("paired");
    assert_eq!(it.world.store.db.devices.len(), 1);
}

#[test]
fn d5_only_a_yes_to_this_device_counts() {
    let mut it = waiting();
    let id = it.told["pairingId"].clone();
    for (params, kind) in [
        (json!({"pairingId": "another", "accept": true}), "not_pending"),
        (json!({"pairingId": it.run, "accept": true}), "not_pending"),
        (json!({"pairingId": id}), "bad_params"),
        (json!({"pairingId": id, "accept": "true"}), "bad_params"),
        (json!({"pairingId": id, "accept": null}), "bad_params"),
        (json!({"accept": true}), "bad_params"),
    ] {
        let refused = it.world.call(it.owner, "daemon.pairConfirm", params.clone());
        assert_eq!(refused.expect_err("no").kind, kind, "{params}");
    }
    assert_eq!(it.world.answer(it.phone.client, &it.asked), None, "it still waits");
    assert!(it.world.store.db.devices.is_empty());
}

#[test]
fn d5_a_pin_in_clear_on_this_machine_is_asked_about_too() {
    for source in [LOOPBACK, Source::Unix] {
        let mut world = World::default();
        let owner = world.owner();
        let opened = window(&mut world, owner, json!({}));
        let client = world.stranger(source);
        let params = json!({"pin": opened["pin"], "name": "n"});
        let asked = world.ask(client, "device.pair", params);
        world.settle();
        assert_eq!(world.answer(client, &asked), None);
        let params = json!({"pairingId": opened["pairingId"], "accept": true});
        world.call(owner, "daemon.pairConfirm", params).expect("said");
        world.answer(client, &asked).expect("an answer").expect("paired");
    }
}

#[test]
fn d5_a_ticket_is_asked_about_through_a_relay_only() {
    for (source, confirm, is_asked) in [
        (LAN, true, false),
        (LOOPBACK, true, false),
        (RELAYED, true, true),
        (Source::Relay(None), true, true),
        (RELAYED, false, false),
    ] {
        let mut world = World::default();
        let owner = world.owner();
        let opened = window(&mut world, owner, json!({"confirm": confirm}));
        let payload = opened["qrPayload"].as_str().expect("a payload");
        let payload: Value = serde_json::from_str(payload).expect("JSON");
        let client = world.secured(source, PHONE.map(Fingerprint::of));
        let params = json!({"ticket": payload["ticket"], "pairingId": payload["pairingId"],
            "name": "n"});
        let asked = world.ask(client, "device.pair", params);
        world.settle();
        let answer = world.answer(client, &asked);
        assert_eq!(answer.is_none(), is_asked, "{source:?} {confirm}");
        assert_eq!(world.store.db.devices.is_empty(), is_asked);
        if is_asked {
            let told = told(&mut world, owner);
            assert_eq!((&told["state"], &told["via"]), (&json!("confirm"), &json!("relay")));
            // Here the device knows the window's id, from the code that it scanned.
            let key = PHONE.map(Fingerprint::of);
            let id = opened["pairingId"].as_str().expect("an id");
            assert_eq!(told["code"], comparison_code(&daemon_key(), key.as_ref(), id));
        }
    }
}

#[test]
fn d5_whoever_opened_the_window_may_say_that_nobody_is_asked() {
    let mut world = World::default();
    let owner = world.owner();
    let opened = window(&mut world, owner, json!({"confirm": false}));
    assert_eq!(opened["confirm"], false);
    let phone = world.phone(LAN, PHONE);
    phone.pair(&mut world, opened["pin"].as_str().expect("a PIN")).expect("paired");
}

/// A device waits that came through the window of an admin.
fn waiting_for_admin() -> (Waiting, Paired) {
    let mut world = World::default();
    let owner = world.owner();
    let admin = world.pair(owner, "admin", "laptop");
    let client = admin.client;
    (waiting_in(world, owner, client, json!({"role": "full"})), admin)
}

#[test]
fn d5_an_opener_that_loses_the_right_to_open_takes_the_wait_along() {
    type Loss = fn(&mut Waiting, &Paired);
    let losses: [(&str, Loss); 2] = [
        ("revoked", |it, admin| {
            it.world.call(it.owner, "device.revoke", json!({"id": admin.id})).expect("revoked");
        }),
        ("demoted", |it, admin| {
            let params = json!({"id": admin.id, "role": "full"});
            it.world.call(it.owner, "device.setRole", params).expect("demoted");
        }),
    ];
    for (how, lose) in losses {
        let (mut it, admin) = waiting_for_admin();
        lose(&mut it, &admin);
        assert_eq!(it.outcome().expect_err(how).code, -32021);
        assert_eq!(it.say(it.owner, true).expect_err(how).kind, "not_pending");
        assert_eq!(it.world.store.db.devices.len(), 1, "{how}: the admin alone");
    }
    let mut it = waiting();
    it.world.call(it.owner, "daemon.rotateToken", json!({"graceSecs": 60})).expect("rotated");
    it.ends_out("rotated");
}

#[test]
fn d5_a_yes_counts_for_nothing_once_the_openers_time_is_over() {
    const DAY_MS: i64 = 86_400_000;
    let mut world = World::default();
    let owner = world.owner();
    let admin = world.pair(owner, "admin", "laptop");
    for _ in 0..4 {
        world.skew(40 * DAY_MS);
        world.call(admin.client, "daemon.status", json!({})).expect("used often enough");
    }
    world.skew(20 * DAY_MS - 30_000);
    let mut it = waiting_in(world, owner, admin.client, json!({"role": "full"}));
    // The machine sleeps: no timer of its is over, but the admin's time is.
    it.world.skew(31_000);
    assert_eq!(it.say(owner, true).expect_err("too late").kind, "not_pending");
    assert_eq!(it.outcome().expect_err("out").code, -32021);
    assert_eq!(it.world.store.db.devices.len(), 1, "the admin alone");
}

#[test]
fn d5_cancel_and_another_window_end_the_wait() {
    let mut it = waiting();
    it.world.call(it.owner, "daemon.pairCancel", json!({})).expect("cancelled");
    assert_eq!(told(&mut it.world, it.owner)["state"], "cancelled");
    it.ends_out("cancelled");
    let mut it = waiting();
    window(&mut it.world, it.owner, json!({}));
    it.ends_out("another window");
}

#[test]
fn b8_only_the_owner_lets_an_admin_in() {
    let mut world = World::default();
    let owner = world.owner();
    let admin = world.pair(owner, "admin", "laptop").client;
    let full = world.pair(owner, "full", "tablet").client;
    let mut it = waiting_in(world, owner, owner, json!({"role": "admin"}));
    for client in [admin, full] {
        assert_eq!(it.say(client, true).expect_err("no").kind, "role");
    }
    it.say(owner, true).expect("said");
    assert_eq!(it.outcome().expect("paired")["role"], "admin");
}

#[test]
fn b8_an_admin_says_no_to_whomever_it_likes_and_yes_to_lesser_ones() {
    for accept in [false, true] {
        let mut world = World::default();
        let owner = world.owner();
        let admin = world.pair(owner, "admin", "laptop").client;
        let mut it = waiting_in(world, owner, owner, json!({"role": "full"}));
        it.say(admin, accept).expect("said");
        assert_eq!(it.outcome().is_ok(), accept);
    }
}

#[test]
fn c6_a_device_for_which_there_is_no_room_is_not_asked_about() {
    let limits = clawd_protocol::Limits { devices_max: 1, ..clawd_protocol::Limits::default() };
    let mut world = World::new(limits);
    let owner = world.owner();
    world.pair(owner, "read", "first");
    let opened = window(&mut world, owner, json!({}));
    let phone = world.phone(LAN, PHONE);
    let pin = opened["pin"].as_str().expect("a PIN");
    assert_eq!(phone.pair(&mut world, pin).expect_err("no room").code, -32021);
    assert_eq!(told(&mut world, owner)["state"], "failed");
}

#[test]
fn a_full_disk_after_the_yes_issues_no_token() {
    let mut it = waiting();
    it.world.fail_store(Some(clawd_protocol::StoreFault::Full));
    it.say(it.owner, true).expect("said");
    assert_eq!(it.outcome().expect_err("not stored").kind, "storage_failed");
    assert!(it.world.store.db.devices.is_empty());
}
