//! Paired devices: their life from pairing to revocation.

use std::time::Duration;

use clawd_protocol::StoreFault;
use clawd_tests::client::{Asked, names};
use clawd_tests::{Act, Client, Crash, LOOPBACK, World};
use serde_json::{Value, json};

const DAY_MS: i64 = 86_400_000;

#[test]
fn a_device_is_paired_listed_renamed_and_comes_back() {
    let mut world = World::default();
    let owner = world.owner();
    world.events(owner);
    let device = world.pair(owner, "full", "phone");
    let events = world.events(owner);
    let paired = events.iter().find(|event| event.name == "device.paired").expect("announced");
    assert_eq!(paired.params["device_id"], json!(device.id));
    assert_eq!(paired.params["name"], "phone");
    let list = world.call(owner, "device.list", json!({})).expect("a list");
    assert_eq!(list[0]["id"], json!(device.id));
    assert_eq!(list[0]["role"], "full");
    assert_eq!(list[0]["platform"], "android");
    assert_eq!(list[0]["revoked"], false);
    assert!(list[0]["created_at"].is_u64(), "device times are epoch seconds: {list}");
    let params = json!({"id": device.id, "name": "tablet"});
    assert_eq!(world.call(owner, "device.rename", params).expect("renamed")["ok"], true);
    assert!(names(&world.events(device.client)).contains(&"device.updated"));
    world.hang_up(device.client.conn);
    world.settle();
    let again = world.stranger(LOOPBACK);
    let told = world.auth(again, &device.token).expect("in");
    assert_eq!(told["role"], "full");
    assert_eq!(told["deviceId"], json!(device.id));
    let list = world.call(owner, "device.list", json!({})).expect("a list");
    assert_eq!(list[0]["name"], "tablet");
    assert_eq!(list[0]["connected"], true);
}

#[test]
fn e1_only_the_digest_of_a_token_is_stored() {
    let mut world = World::default();
    let owner = world.owner();
    let device = world.pair(owner, "full", "phone");
    let secret = &device.token[17..];
    assert!(!format!("{:?}", world.store.db).contains(secret));
    let list = world.call(owner, "device.list", json!({})).expect("a list");
    assert!(!list.to_string().contains(secret));
}

#[test]
fn e2_a_device_is_seen_at_most_once_a_minute() {
    let mut world = World::default();
    let owner = world.owner();
    let device = world.pair(owner, "full", "phone");
    let seen = |world: &World| world.store.db.devices.values().next().map(|d| d.last_seen_at);
    let before = seen(&world);
    world.advance(Duration::from_secs(120));
    let client = world.device_again(&device.token);
    world.call(client, "daemon.ping", json!({})).expect("a pong");
    world.settle();
    let after = seen(&world);
    assert!(after > before, "{before:?} {after:?}");
    world.advance(Duration::from_secs(5));
    world.device_again(&device.token);
    assert_eq!(seen(&world), after);
}

#[test]
fn e3_tokens_expire_also_on_open_connections() {
    let mut world = World::default();
    let owner = world.owner();
    let device = world.pair(owner, "full", "phone");
    world.skew(181 * DAY_MS);
    world.advance(Duration::from_secs(60));
    assert_eq!(world.close_code(device.client), Some(1008));
    let late = world.stranger(LOOPBACK);
    assert_eq!(world.auth(late, &device.token).expect_err("expired").code, -32004);
}

#[test]
fn e3_tokens_that_are_not_used_expire() {
    let mut world = World::default();
    let owner = world.owner();
    let device = world.pair(owner, "full", "phone");
    world.hang_up(device.client.conn);
    world.skew(46 * DAY_MS);
    world.advance(Duration::from_secs(1));
    let late = world.stranger(LOOPBACK);
    assert_eq!(world.auth(late, &device.token).expect_err("idle").code, -32004);
}

#[test]
fn e3_a_clock_set_back_revives_nobody() {
    let mut world = World::default();
    let owner = world.owner();
    let device = world.pair(owner, "full", "phone");
    world.skew(181 * DAY_MS);
    world.advance(Duration::from_secs(61));
    world.call(owner, "daemon.setName", json!({"name": "something to store"})).expect("stored");
    world.skew(-181 * DAY_MS);
    let late = world.stranger(LOOPBACK);
    assert_eq!(world.auth(late, &device.token).expect_err("still expired").code, -32004);
    world.crash(Crash::Lost);
    let late = world.stranger(LOOPBACK);
    assert_eq!(world.auth(late, &device.token).expect_err("after a restart").code, -32004);
}

#[test]
fn e4_a_revoked_device_is_out_at_once_with_what_it_had_under_way() {
    let mut world = World::default();
    let owner = world.owner();
    let device = world.pair(owner, "full", "phone");
    world.hold_questions();
    let stuck = world.ask(device.client, "session.create", json!({"repoPath": "/repo"}));
    world.settle();
    world.events(device.client);
    world.hold_store();
    world.ask(owner, "device.revoke", json!({"id": device.id}));
    assert_eq!(world.close_code(device.client), Some(1008), "before the disk has answered");
    let outcome = world.answer(device.client, &stuck).expect("answered before the close");
    assert_eq!(outcome.expect_err("revoked").code, -32004);
    let late = world.stranger(LOOPBACK);
    let asked = world.ask(late, "daemon.auth", json!({"token": device.token}));
    world.settle();
    let outcome = world.answer(late, &asked).expect("refused, before the disk has answered");
    assert_eq!(outcome.expect_err("revoked").code, -32004);
    world.release_store();
    world.release_questions();
    assert!(world.store.db.sessions.is_empty(), "what it had begun is not done");
    assert!(names(&world.events(owner)).contains(&"device.revoked"));
    world.crash(Crash::Power);
    let late = world.stranger(LOOPBACK);
    assert_eq!(world.auth(late, &device.token).expect_err("durable").code, -32004);
}

#[test]
fn e4_the_answer_to_a_revocation_waits_for_the_disk() {
    let mut world = World::default();
    let owner = world.owner();
    let device = world.pair(owner, "full", "phone");
    world.hold_store();
    let asked = world.ask(owner, "device.revoke", json!({"id": device.id}));
    world.settle();
    assert_eq!(world.answer(owner, &asked), None);
    world.release_store();
    let answer = world.answer(owner, &asked).expect("an answer").expect("revoked");
    assert_eq!(answer["revoked"], true);
}

#[test]
fn e4_a_revocation_counts_even_if_the_disk_is_full() {
    let mut world = World::default();
    let owner = world.owner();
    let device = world.pair(owner, "full", "phone");
    world.fail_store(Some(StoreFault::Full));
    world.call(owner, "device.revoke", json!({"id": device.id})).expect_err("not durable");
    assert_eq!(world.close_code(device.client), Some(1008));
    let late = world.stranger(LOOPBACK);
    assert_eq!(world.auth(late, &device.token).expect_err("out").code, -32004);
}

#[test]
fn e4_unknown_devices_cannot_be_revoked() {
    let mut world = World::default();
    let owner = world.owner();
    let refused = world.call(owner, "device.revoke", json!({"id": "AAAAAAAA"}));
    assert_eq!(refused.expect_err("nobody").code, -32020);
}

#[test]
fn a_device_may_revoke_itself() {
    let mut world = World::default();
    let owner = world.owner();
    let device = world.pair(owner, "read", "phone");
    world.ask(device.client, "device.revoke", json!({"id": device.id}));
    world.settle();
    assert_eq!(world.close_code(device.client), Some(1008));
    let late = world.stranger(LOOPBACK);
    assert_eq!(world.auth(late, &device.token).expect_err("out").code, -32004);
}

#[test]
fn j3_a_restored_database_brings_no_revoked_device_back() {
    let mut world = World::default();
    let owner = world.owner();
    let device = world.pair(owner, "full", "phone");
    let backup = world.store.db.clone();
    world.call(owner, "device.revoke", json!({"id": device.id})).expect("revoked");
    world.store.restore(backup);
    world.restart();
    let late = world.stranger(LOOPBACK);
    assert_eq!(world.auth(late, &device.token).expect_err("still revoked").code, -32004);
    let owner = world.owner();
    let list = world.call(owner, "device.list", json!({"includeRevoked": true})).expect("a list");
    assert_eq!(list[0]["revoked"], true, "{list}");
}

#[test]
fn e5_a_rotated_token_dies_at_first_use_of_the_new_one() {
    let mut world = World::default();
    let owner = world.owner();
    let device = world.pair(owner, "full", "phone");
    let rotated = world.call(device.client, "device.rotate", json!({})).expect("rotated");
    let fresh = rotated["device_token"].as_str().expect("a token").to_owned();
    assert_ne!(fresh, device.token);
    world.device_again(&device.token);
    world.device_again(&fresh);
    let late = world.stranger(LOOPBACK);
    assert_eq!(world.auth(late, &device.token).expect_err("the old one").code, -32004);
    world.crash(Crash::Lost);
    let late = world.stranger(LOOPBACK);
    assert_eq!(world.auth(late, &device.token).expect_err("and stays dead").code, -32004);
    world.device_again(&fresh);
}

#[test]
fn e5_a_rotated_token_dies_after_ten_minutes() {
    let mut world = World::default();
    let owner = world.owner();
    let device = world.pair(owner, "full", "phone");
    world.call(device.client, "device.rotate", json!({})).expect("rotated");
    world.advance(Duration::from_secs(601));
    let late = world.stranger(LOOPBACK);
    assert_eq!(world.auth(late, &device.token).expect_err("the old one").code, -32004);
}

#[test]
fn e5_rotation_widens_nothing() {
    let mut world = World::default();
    let owner = world.owner();
    let device = world.pair(owner, "read", "phone");
    let other = world.pair(owner, "full", "other");
    let params = json!({"id": other.id, "role": "owner"});
    let outcome = world.call(device.client, "device.rotate", params);
    world.device_again(&other.token);
    if let Ok(rotated) = outcome {
        let fresh = rotated["device_token"].as_str().expect("a token").to_owned();
        let client = world.stranger(LOOPBACK);
        let told = world.auth(client, &fresh).expect("in");
        assert_eq!((&told["role"], &told["deviceId"]), (&json!("read"), &json!(device.id)));
    }
    world.call(owner, "device.rotate", json!({})).expect_err("the owner is no device");
}

#[test]
fn e4_what_a_revoked_device_streamed_goes_to_others_only() {
    let mut world = World::default();
    let owner = world.owner();
    let device = world.pair(owner, "full", "phone");
    let wait = Act::Wait(Duration::from_secs(1));
    let script = vec![Act::say("one"), wait.clone(), Act::say("two"), wait, Act::say("three")];
    world.machine.scripts.push_back(vec![script]);
    let params = json!({"repoPath": "/repo", "initialMessage": "count"});
    world.call(device.client, "session.create", params).expect("a session");
    world.advance(Duration::from_millis(500));
    world.call(owner, "device.revoke", json!({"id": device.id})).expect("revoked");
    world.frames(device.client);
    world.events(owner);
    world.advance(Duration::from_secs(5));
    assert!(world.frames(device.client).is_empty());
    assert!(!world.events(owner).is_empty(), "the owner still sees the turn");
}

#[test]
fn e4_a_device_that_revokes_itself_is_given_no_token_any_more() {
    let mut world = World::default();
    let owner = world.owner();
    let device = world.pair(owner, "read", "phone");
    world.hold_store();
    let rotate = world.ask(device.client, "device.rotate", json!({}));
    world.ask(device.client, "device.revoke", json!({"id": device.id}));
    world.release_store();
    let refused = world.answer(device.client, &rotate).expect("an answer");
    assert_eq!(refused.expect_err("revoked").code, -32004);
}

#[test]
fn e4_an_earlier_change_that_fails_does_not_undo_a_revocation() {
    let mut world = World::default();
    let owner = world.owner();
    let device = world.pair(owner, "full", "phone");
    world.hold_store();
    world.ask(owner, "device.rename", json!({"id": device.id, "name": "tablet"}));
    world.ask(owner, "device.revoke", json!({"id": device.id}));
    world.fail_store(Some(StoreFault::Full));
    world.release_store();
    world.fail_store(None);
    let late = world.stranger(LOOPBACK);
    assert_eq!(world.auth(late, &device.token).expect_err("still revoked").code, -32004);
}

/// Lets the store answer these calls in turn, this one with a full disk; what comes after them is stored.
fn store_all_but(world: &mut World, calls: &[(Client, Asked)], failing: usize) {
    for (n, (client, asked)) in calls.iter().enumerate() {
        world.fail_store((n == failing).then_some(StoreFault::Full));
        let outcome = loop {
            if let Some(outcome) = world.answer(*client, asked) {
                break outcome;
            }
            assert!(world.settle_one(0), "call {n} has no answer");
        };
        assert_eq!(outcome.is_err(), n == failing, "call {n}: {outcome:?}");
    }
    world.fail_store(None);
    world.settle();
}

fn one_device(world: &mut World, owner: Client) -> Value {
    world.call(owner, "device.list", json!({})).expect("a list")[0].clone()
}

#[test]
fn j2_a_change_that_fails_undoes_no_other_change() {
    for failing in [0, 1] {
        let mut world = World::default();
        let owner = world.owner();
        let device = world.pair(owner, "full", "phone");
        let params = [
            ("device.rename", json!({"id": device.id, "name": "tablet"})),
            ("device.setRole", json!({"id": device.id, "role": "admin"})),
        ];
        let calls = params.map(|(method, params)| (owner, world.ask(owner, method, params)));
        store_all_but(&mut world, &calls, failing);
        let expected = [("phone", "admin"), ("tablet", "full")][failing];
        let shown = one_device(&mut world, owner);
        assert_eq!((&shown["name"], &shown["role"]), (&json!(expected.0), &json!(expected.1)));
        world.crash(Crash::Power);
        let owner = world.owner();
        let shown = one_device(&mut world, owner);
        assert_eq!((&shown["name"], &shown["role"]), (&json!(expected.0), &json!(expected.1)));
    }
}

#[test]
fn j2_of_two_names_the_one_that_was_stored_stays() {
    for failing in [0, 1] {
        let mut world = World::default();
        let owner = world.owner();
        let device = world.pair(owner, "full", "phone");
        let calls = ["first", "second"].map(|name| {
            let params = json!({"id": device.id, "name": name});
            (owner, world.ask(owner, "device.rename", params))
        });
        store_all_but(&mut world, &calls, failing);
        let expected = json!(["second", "first"][failing]);
        assert_eq!(one_device(&mut world, owner)["name"], expected);
        world.crash(Crash::Power);
        let owner = world.owner();
        assert_eq!(one_device(&mut world, owner)["name"], expected);
    }
}

#[test]
fn j2_of_two_raises_each_counts_once_it_is_stored() {
    let mut world = World::default();
    let owner = world.owner();
    let device = world.pair(owner, "read", "phone");
    let calls = ["full", "admin"].map(|role| {
        let params = json!({"id": device.id, "role": role});
        (owner, world.ask(owner, "device.setRole", params))
    });
    while world.answer(owner, &calls[0].1).is_none() {
        assert!(world.settle_one(0), "the first has no answer");
    }
    let asked = world.ask(device.client, "daemon.setName", json!({"name": "desk"}));
    let outcome = world.answer(device.client, &asked).expect("refused at once");
    assert_eq!(outcome.expect_err("no admin yet").kind, "role");
    store_all_but(&mut world, &calls[1..], 0);
    world.call(device.client, "daemon.setName", json!({"name": "desk"})).expect_err("never stored");
    assert_eq!(one_device(&mut world, owner)["role"], "full");
}

#[test]
fn e5_a_change_that_fails_does_not_revive_the_old_token() {
    let mut world = World::default();
    let owner = world.owner();
    let device = world.pair(owner, "full", "phone");
    let rotated = world.call(device.client, "device.rotate", json!({})).expect("rotated");
    let fresh = rotated["device_token"].as_str().expect("a token").to_owned();
    let client = world.stranger(LOOPBACK);
    let params = json!({"id": device.id, "name": "tablet"});
    let rename = world.ask(owner, "device.rename", params);
    let auth = world.ask(client, "daemon.auth", json!({"token": fresh}));
    store_all_but(&mut world, &[(owner, rename)], 0);
    world.answer(client, &auth).expect("an answer").expect("the new token is good");
    let late = world.stranger(LOOPBACK);
    assert_eq!(world.auth(late, &device.token).expect_err("the old one").code, -32004);
    world.device_again(&fresh);
}

#[test]
fn e5_a_second_rotation_that_fails_leaves_the_first() {
    let mut world = World::default();
    let owner = world.owner();
    let device = world.pair(owner, "full", "phone");
    let rotated = world.call(device.client, "device.rotate", json!({})).expect("rotated");
    let fresh = rotated["device_token"].as_str().expect("a token").to_owned();
    let client = world.stranger(LOOPBACK);
    let again = world.ask(device.client, "device.rotate", json!({}));
    let auth = world.ask(client, "daemon.auth", json!({"token": fresh}));
    store_all_but(&mut world, &[(device.client, again)], 0);
    world.answer(client, &auth).expect("an answer").expect("the first new token is good");
    let late = world.stranger(LOOPBACK);
    assert_eq!(world.auth(late, &device.token).expect_err("the old one").code, -32004);
    world.crash(Crash::Power);
    world.device_again(&fresh);
}

#[test]
fn a_revoked_device_cannot_be_changed_and_one_is_told_what_to_do() {
    let mut world = World::default();
    let owner = world.owner();
    let device = world.pair(owner, "full", "phone");
    world.call(owner, "device.revoke", json!({"id": device.id})).expect("revoked");
    let params = json!({"id": device.id, "name": "tablet"});
    let refused = world.call(owner, "device.rename", params).expect_err("revoked");
    assert_eq!(refused.code, -32020);
    assert_eq!(refused.data["hint"], "pair it again with `clawd pair`");
}

#[test]
fn e3_what_a_device_allowed_for_the_session_ends_when_it_expires() {
    let mut world = World::default();
    let turns = vec![vec![Act::bash("make")], vec![Act::bash("make")]];
    world.machine.scripts.push_back(turns);
    let owner = world.owner();
    let phone = world.pair(owner, "approve", "phone");
    let params = json!({"repoPath": "/repo", "initialMessage": "build"});
    let session = world.call(owner, "session.create", params).expect("a session")["id"].clone();
    world.settle();
    let list = world.call(owner, "approval.list", json!({})).expect("a list");
    let tool = list["approvals"][0]["toolCallId"].clone();
    let allow = json!({"sessionId": session, "toolCallId": tool, "scope": "session"});
    world.call(phone.client, "tool.approve", allow).expect("allowed");
    world.skew(181 * DAY_MS);
    world.advance(Duration::from_secs(61));
    let params = json!({"sessionId": session, "content": "again"});
    world.call(owner, "session.sendMessage", params).expect("sent");
    world.settle();
    assert_eq!(world.children().map(|child| child.done.len()).sum::<usize>(), 1);
}
