//! Who may do what: the role matrix of wire.md §4, method by method.

use std::time::Duration;

use clawd_tests::{Act, Client, LOOPBACK, RpcError, World};
use serde_json::{Value, json};

const ROLES: [&str; 5] = ["read", "approve", "full", "admin", "owner"];

/// Each method with the least role that may call it.
const TABLE: &[(&str, &str)] = &[
    ("daemon.status", "read"),
    ("daemon.providers", "read"),
    ("daemon.checkProvider", "read"),
    ("daemon.addresses", "read"),
    ("daemon.setName", "admin"),
    ("daemon.pairPin", "admin"),
    ("daemon.pairCancel", "admin"),
    ("daemon.pairConfirm", "admin"),
    ("daemon.rotateToken", "owner"),
    ("daemon.setRelay", "owner"),
    ("daemon.resetIdentity", "owner"),
    ("daemon.shutdown", "owner"),
    ("device.list", "read"),
    ("device.revoke", "admin"),
    ("device.rename", "admin"),
    ("device.setRole", "owner"),
    ("session.create", "full"),
    ("session.list", "read"),
    ("session.get", "read"),
    ("session.rename", "full"),
    ("session.delete", "full"),
    ("session.sendMessage", "full"),
    ("session.getMessages", "read"),
    ("session.pause", "full"),
    ("session.resume", "full"),
    ("session.cancel", "full"),
    ("session.setModel", "full"),
    ("session.toolCalls", "read"),
    ("tool.approve", "approve"),
    ("tool.reject", "approve"),
    ("approval.list", "read"),
];

/// A world in which a tool call waits, another device is paired, and `role` is connected.
fn world_for(role: &str) -> (World, Client, Value) {
    let mut world = World::default();
    let owner = world.owner();
    world.machine.scripts.push_back(vec![vec![Act::bash("make")]]);
    let other = world.pair(owner, "read", "other");
    let client = if role == "owner" { world.owner() } else { world.pair(owner, role, "me").client };
    let params = json!({"repoPath": "/repo", "initialMessage": "build it"});
    let session = world.call(owner, "session.create", params).expect("a session");
    world.settle();
    let list = world.call(owner, "approval.list", json!({})).expect("a list");
    let waiting = &list["approvals"][0];
    let params = json!({
        "sessionId": session["id"], "toolCallId": waiting["toolCallId"],
        "approval_id": waiting["approval_id"], "decision": "deny", "provider": "claude",
        "name": "new", "title": "new", "id": other.id, "repoPath": "/repo", "content": "hi",
        "model": "opus", "tool": "Bash", "input": {"command": "ls"},
    });
    (world, client, params)
}

fn is_role_refusal(outcome: &Result<Value, RpcError>) -> bool {
    outcome.as_ref().is_err_and(|error| error.code == -32002 && error.kind == "role")
}

/// Outcomes after which the connection ends count as allowed.
fn attempt(world: &mut World, client: Client, method: &str, params: Value) -> bool {
    let asked = world.ask(client, method, params);
    world.settle();
    match world.answer(client, &asked) {
        Some(outcome) => {
            let is_unknown = outcome.as_ref().is_err_and(|error| error.code == -32601);
            assert!(!is_unknown, "{method} is not there");
            !is_role_refusal(&outcome)
        }
        None => world.is_stopped() || world.close_code(client).is_some(),
    }
}

#[test]
fn b8_every_method_asks_for_its_role() {
    let mut wrong = Vec::new();
    for (method, least) in TABLE {
        for (rank, role) in ROLES.iter().enumerate() {
            let (mut world, client, mut params) = world_for(role);
            params["role"] = json!("read");
            let should = ROLES.iter().position(|r| r == least).expect("a role") <= rank;
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                attempt(&mut world, client, method, params)
            }));
            if outcome.as_ref().ok() != Some(&should) {
                wrong.push(format!("{method} by {role}: {outcome:?}, should be {should}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn b8_what_a_client_says_of_itself_changes_nothing() {
    let (mut world, client, mut params) = world_for("read");
    params["role"] = json!("owner");
    params["scope"] = json!("owner");
    params["deviceId"] = json!("owner");
    for (method, _) in TABLE.iter().filter(|(_, least)| *least != "read") {
        let outcome = world.call(client, method, params.clone());
        assert!(is_role_refusal(&outcome), "{method}: {outcome:?}");
    }
}

#[test]
fn b7_a_stranger_may_call_nothing_but_ping_auth_and_pairing() {
    for (method, _) in TABLE {
        let mut world = World::default();
        let stranger = world.stranger(LOOPBACK);
        let refused = world.call(stranger, method, json!({"role": "owner"})).expect_err(method);
        assert_eq!(refused.code, -32004, "{method}");
        assert_eq!(world.close_code(stranger), Some(1008), "{method}");
    }
}

#[test]
fn b8_a_device_below_admin_looks_after_itself_only() {
    let mut world = World::default();
    let owner = world.owner();
    let me = world.pair(owner, "full", "me");
    let other = world.pair(owner, "read", "other");
    let list = world.call(me.client, "device.list", json!({})).expect("a list");
    assert_eq!(list.as_array().map(Vec::len), Some(1), "{list}");
    assert_eq!(list[0]["id"], json!(me.id));
    for method in ["device.rename", "device.revoke"] {
        let params = json!({"id": other.id, "name": "mine now"});
        let outcome = world.call(me.client, method, params);
        assert!(is_role_refusal(&outcome), "{method}: {outcome:?}");
    }
    let params = json!({"id": me.id, "name": "renamed"});
    world.call(me.client, "device.rename", params).expect("its own name");
    let list = world.call(owner, "device.list", json!({})).expect("a list");
    assert_eq!(list.as_array().map(Vec::len), Some(2), "{list}");
}

#[test]
fn b8_nobody_but_the_owner_makes_an_admin() {
    let mut world = World::default();
    let owner = world.owner();
    let admin = world.pair(owner, "admin", "admin");
    let other = world.pair(owner, "read", "other");
    for role in ["admin", "owner"] {
        let params = json!({"id": other.id, "role": role});
        world.call(admin.client, "device.setRole", params).expect_err(role);
        world.call(admin.client, "daemon.pairPin", json!({ "role": role })).expect_err(role);
    }
    let params = json!({"id": admin.id, "role": "owner"});
    world.call(owner, "device.setRole", params).expect_err("nobody is made owner");
    let params = json!({"id": other.id, "role": "admin"});
    world.call(owner, "device.setRole", params).expect("the owner may");
    let outcome = world.call(other.client, "daemon.setName", json!({"name": "desk"}));
    outcome.expect("and it counts at once");
}

#[test]
fn b8_a_refusal_says_what_to_do() {
    let mut world = World::default();
    let owner = world.owner();
    let device = world.pair(owner, "read", "phone");
    let mut hint = |client, method| {
        let refused = world.call(client, method, json!({})).expect_err(method);
        assert_eq!(refused.kind, "role", "{method}");
        refused.data["hint"].as_str().unwrap_or_default().to_owned()
    };
    assert!(hint(device.client, "session.create").contains("`clawd device role`"));
    assert!(hint(device.client, "daemon.shutdown").contains("on the machine itself"));
    assert!(hint(owner, "device.rotate").contains("`clawd token rotate`"));
}

#[test]
fn b8_a_device_that_loses_rights_loses_them_at_once() {
    let mut world = World::default();
    let owner = world.owner();
    let device = world.pair(owner, "full", "phone");
    world.hold_store();
    world.ask(owner, "device.setRole", json!({"id": device.id, "role": "read"}));
    let asked = world.ask(device.client, "session.create", json!({"repoPath": "/repo"}));
    world.release_store();
    let outcome = world.answer(device.client, &asked).expect("an answer");
    assert!(is_role_refusal(&outcome), "{outcome:?}");
}

#[test]
fn h6_what_a_device_allowed_for_the_session_ends_when_it_may_do_less() {
    for (role, allowed) in [("read", 1), ("full", 2)] {
        let mut world = World::default();
        let owner = world.owner();
        let turns = vec![vec![Act::bash("make")], vec![Act::bash("make")]];
        world.machine.scripts.push_back(turns);
        let phone = world.pair(owner, "approve", "phone");
        let params = json!({"repoPath": "/repo", "initialMessage": "build"});
        let session = world.call(owner, "session.create", params).expect("a session")["id"].clone();
        world.settle();
        let list = world.call(owner, "approval.list", json!({})).expect("a list");
        let tool = list["approvals"][0]["toolCallId"].clone();
        let allow = json!({"sessionId": session, "toolCallId": tool, "scope": "session"});
        world.call(phone.client, "tool.approve", allow).expect("allowed");
        let params = json!({"id": phone.id, "role": role});
        world.call(owner, "device.setRole", params).expect("changed");
        let params = json!({"sessionId": session, "content": "again"});
        world.call(owner, "session.sendMessage", params).expect("sent");
        world.settle();
        let done = world.children().map(|child| child.done.len()).sum::<usize>();
        assert_eq!(done, allowed, "{role}");
    }
}

#[test]
fn b8_the_progress_of_a_pairing_is_told_to_those_who_may_pair() {
    let mut world = World::default();
    let owner = world.owner();
    let reader = world.pair(owner, "full", "phone");
    let admin = world.pair(owner, "admin", "laptop");
    world.events(reader.client);
    world.events(admin.client);
    world.call(owner, "daemon.pairPin", json!({})).expect("a window");
    world.call(owner, "daemon.pairCancel", json!({})).expect("closed");
    let is_told = |world: &mut World, client| {
        world.events(client).iter().any(|event| event.name == "pairing.progress")
    };
    assert!(is_told(&mut world, admin.client));
    assert!(!is_told(&mut world, reader.client));
}

#[test]
fn h6_what_a_device_asked_for_is_not_done_when_it_may_do_less_by_then() {
    let mut world = World::default();
    let owner = world.owner();
    let phone = world.pair(owner, "full", "phone");
    let params = json!({"repoPath": "/repo"});
    let session = world.call(owner, "session.create", params.clone()).expect("a session");
    // By then what is known of claude is old, and it is looked at again.
    world.advance(Duration::from_secs(61));
    world.hold_questions();
    let message = json!({"sessionId": session["id"], "content": "go"});
    world.ask(phone.client, "session.sendMessage", message);
    world.ask(phone.client, "session.create", params);
    world.call(owner, "device.setRole", json!({"id": phone.id, "role": "read"})).expect("changed");
    world.release_questions();
    assert_eq!(world.store.db.sessions.len(), 1);
    assert_eq!(world.children().count(), 0);
}
