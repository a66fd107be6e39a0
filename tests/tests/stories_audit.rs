//! The audit log: who did what is written down, or it is not done.

use std::time::Duration;

use clawd_protocol::audit::Verifier;
use clawd_protocol::{Limits, Source};
use clawd_tests::{Act, Client, Crash, LOOPBACK, World};
use serde_json::{Value, json};

/// The whole log, oldest first.
fn log(world: &World) -> Vec<Value> {
    let lines = world.store.audit.iter();
    lines.map(|line| serde_json::from_str(line).expect("a JSON object")).collect()
}

/// Those of one kind.
fn of_kind(world: &World, kind: &str) -> Vec<Value> {
    log(world).into_iter().filter(|record| record["kind"] == kind).collect()
}

fn kinds(world: &World) -> Vec<String> {
    log(world).iter().map(|record| record["kind"].as_str().expect("a kind").to_owned()).collect()
}

/// A session whose agent wants to run this command.
fn session(world: &mut World, owner: Client, command: &str) -> Value {
    world.machine.scripts.push_back(vec![vec![Act::bash(command), Act::say("done")]]);
    let params = json!({"repoPath": "/repo", "initialMessage": "hi"});
    let session = world.call(owner, "session.create", params).expect("a session");
    world.settle();
    session["id"].clone()
}

fn waiting(world: &mut World, owner: Client) -> Value {
    let list = world.call(owner, "approval.list", json!({})).expect("a list");
    list["approvals"][0]["toolCallId"].clone()
}

#[test]
fn h8_a_tool_call_is_written_down_from_its_request_to_its_end() {
    let mut world = World::default();
    let owner = world.owner();
    let id = session(&mut world, owner, "make install");
    let tool = waiting(&mut world, owner);
    let params = json!({"sessionId": id, "toolCallId": tool});
    world.call(owner, "tool.approve", params.clone()).expect("approved");
    world.settle();
    assert_eq!(kinds(&world), ["started", "requested", "decided", "executed"]);
    let [_, requested, decided, executed] = &log(&world)[..] else { panic!("four records") };
    for record in [requested, decided, executed] {
        assert_eq!(record["sessionId"], id);
        assert_eq!(record["toolCallId"], tool);
        assert_eq!(record["tool"], "Bash");
        assert_eq!(record["provider"], "claude");
        assert!(record["input"].as_str().expect("an input").contains("make install"));
    }
    assert_eq!(requested["actor"], "agent");
    assert_eq!((&decided["actor"], &decided["via"]), (&json!("owner"), &json!("loopback")));
    assert_eq!(decided["decision"], "allow_once");
    // The same input, and the hash of exactly what ran.
    assert_eq!(decided["inputSha256"], executed["inputSha256"]);
    let page =
        world.call(owner, "session.toolCallAudit", json!({"sessionId": id})).expect("a page");
    assert_eq!((&page["count"], &page["events"][0]), (&json!(3), executed));
    let before = json!({"before": executed["n"], "limit": 1});
    let page = world.call(owner, "audit.list", before).expect("a page");
    assert_eq!(page["events"], json!([decided]));
}

#[test]
fn h8_a_denial_and_the_end_of_time_are_decisions_too() {
    let mut world = World::default();
    let owner = world.owner();
    let id = session(&mut world, owner, "one");
    let tool = waiting(&mut world, owner);
    world.call(owner, "tool.reject", json!({"sessionId": id, "toolCallId": tool})).expect("denied");
    world.settle();
    session(&mut world, owner, "two");
    world.advance(Duration::from_secs(700));
    let decided = of_kind(&world, "decided");
    let said = |record: &Value| (record["actor"].clone(), record["decision"].clone());
    let expected = [(json!("owner"), json!("deny")), (json!("daemon"), json!("expired"))];
    assert_eq!(decided.iter().map(said).collect::<Vec<_>>(), expected);
    assert_eq!(of_kind(&world, "executed"), [] as [Value; 0], "nothing was");
}

#[test]
fn h8_a_deleted_session_leaves_no_open_end() {
    let mut world = World::default();
    let owner = world.owner();
    let id = session(&mut world, owner, "one");
    waiting(&mut world, owner);
    world.call(owner, "session.delete", json!({"sessionId": id})).expect("deleted");
    world.settle();
    assert_eq!(kinds(&world), ["started", "requested", "decided"]);
}

#[test]
fn h8_a_tool_that_nobody_is_asked_about_is_written_down() {
    let mut world = World::default();
    let owner = world.owner();
    let read = Act::Use { name: "Read".to_owned(), input: json!({"file_path": "/repo/a"}) };
    world.machine.scripts.push_back(vec![vec![read, Act::say("done")]]);
    let params = json!({"repoPath": "/repo", "initialMessage": "hi"});
    world.call(owner, "session.create", params).expect("a session");
    world.settle();
    assert_eq!(kinds(&world), ["started", "requested", "executed"]);
}

#[test]
fn h8_what_cannot_be_written_down_is_not_done() {
    let mut world = World::default();
    let owner = world.owner();
    let id = session(&mut world, owner, "rm -rf build");
    let tool = waiting(&mut world, owner);
    let params = json!({"sessionId": id, "toolCallId": tool});
    world.store.set_audit_full(true);
    let refused = world.call(owner, "tool.approve", params.clone()).expect_err("not written down");
    assert_eq!((refused.code, refused.kind.as_str()), (-32603, "storage_failed"));
    world.advance(Duration::from_secs(5));
    assert!(world.children().all(|child| child.done.is_empty()), "no side effect");
    assert_eq!(waiting(&mut world, owner), tool, "it waits still");
    let pin = world.call(owner, "daemon.pairPin", json!({"confirm": false})).expect("a window");
    let stranger = world.stranger(LOOPBACK);
    let pair = json!({"pin": pin["pin"], "name": "phone", "platform": "ios"});
    assert!(world.call(stranger, "device.pair", pair).is_err(), "no device without its record");
    assert!(world.store.db.devices.is_empty());
    world.store.set_audit_full(false);
    world.call(owner, "tool.approve", params).expect("approved");
    world.settle();
    assert_eq!(world.children().map(|child| child.done.len()).sum::<usize>(), 1);
    assert_eq!(of_kind(&world, "decided").len(), 1);
}

#[test]
fn h8_a_call_that_cannot_be_written_down_at_all_ends_its_turn() {
    let mut world = World::default();
    let owner = world.owner();
    world.store.set_audit_full(true);
    session(&mut world, owner, "make");
    world.advance(Duration::from_secs(700));
    assert!(world.children().all(|child| child.done.is_empty()));
    world.store.set_audit_full(false);
    world.advance(Duration::from_secs(60));
    assert!(world.children().all(|child| child.done.is_empty()));
}

#[test]
fn h8_secrets_in_a_command_are_not_written_down() {
    let mut world = World::default();
    let owner = world.owner();
    let token = "AKIAIOSFODNN7EXAMPLE";
    let secret = "ghp_aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1dE3fG5";
    session(&mut world, owner, &format!("curl -H 'Authorization: Bearer {token}' -u x:{secret}"));
    let text = world.store.audit.concat();
    assert!(!text.contains(token) && !text.contains(secret), "{text}");
    assert!(text.contains("[redacted ghp]"), "{text}");
}

#[test]
fn h8_who_comes_and_who_changes_what_is_written_down() {
    let mut world = World::default();
    let owner = world.owner();
    let phone = world.pair(owner, "full", "phone");
    let id = &phone.id;
    world.call(owner, "device.setRole", json!({"id": id, "role": "read"})).expect("demoted");
    world.call(phone.client, "device.rotate", json!({})).expect("rotated");
    world.call(owner, "device.revoke", json!({"id": id})).expect("revoked");
    world.call(owner, "daemon.rotateToken", json!({"graceSecs": 60})).expect("rotated");
    let expected =
        ["started", "pairing_opened", "paired", "role_changed", "rotated", "revoked", "rotated"];
    assert_eq!(kinds(&world), expected);
    let log = log(&world);
    assert_eq!(log[2]["actor"], "stranger");
    assert_eq!((&log[3]["deviceId"], &log[3]["role"]), (&json!(id), &json!("read")));
    assert_eq!((&log[4]["actor"], &log[4]["deviceId"]), (&json!(id), &json!(id)));
    assert_eq!((&log[5]["actor"], &log[5]["deviceId"]), (&json!("owner"), &json!(id)));
    assert_eq!(log[6].get("deviceId"), None, "the local token");
    world.call(owner, "daemon.shutdown", json!({})).expect("told to end");
    world.settle();
    assert_eq!(kinds(&world).last().map(String::as_str), Some("stopped"));
    assert!(world.is_stopped());
}

#[test]
fn h8_wrong_tokens_and_wrong_codes_are_written_down() {
    let mut world = World::default();
    let owner = world.owner();
    world.call(owner, "daemon.pairPin", json!({})).expect("a window");
    let device = "clawd_d_AbCdEfGh_";
    for token in ["nonsense", device] {
        let stranger = world.stranger(LOOPBACK);
        world.auth(stranger, token).expect_err("refused");
    }
    let failed = of_kind(&world, "auth_failed");
    assert_eq!(failed.len(), 2);
    assert_eq!(
        (&failed[0]["actor"], &failed[0]["via"]),
        (&json!("stranger"), &json!("loopback 127.0.0.1"))
    );
    for number in 0..3 {
        let stranger = world.stranger(Source::Unix);
        let guess = json!({"pin": format!("x{number}"), "name": "n", "platform": "p"});
        world.call(stranger, "device.pair", guess).expect_err("wrong");
    }
    assert_eq!(of_kind(&world, "pairing_closed").len(), 1);
}

#[test]
fn h8_a_flood_of_strangers_fills_no_disk() {
    let limits = Limits { strangers_per_source: 64, ..Limits::default() };
    let most = usize::try_from(limits.audit_failures_max).expect("few");
    let each = usize::try_from(limits.audit_failures_per_source).expect("few");
    let mut world = World::new(limits);
    for host in 1..=40_u8 {
        for _ in 0..each + 5 {
            let stranger = world.stranger(Source::Tcp([192, 0, 2, host].into()));
            world.text(stranger.conn, "garbage");
            world.settle();
        }
    }
    let told = of_kind(&world, "auth_failed");
    assert_eq!(told.len(), most);
    world.advance(Duration::from_secs(61));
    let told = of_kind(&world, "auth_failed");
    let rest = told.last().expect("the rest");
    assert_eq!(rest["count"], 40 * (each + 5) - most);
    let stranger = world.stranger(LOOPBACK);
    world.auth(stranger, "x").expect_err("refused");
    assert_eq!(of_kind(&world, "auth_failed").len(), most + 2, "the next minute is a new one");
}

#[test]
fn h8_only_admins_read_the_log_and_everybody_his_sessions() {
    let mut world = World::default();
    let owner = world.owner();
    let id = session(&mut world, owner, "make");
    let reader = world.pair(owner, "read", "tablet");
    let refused = world.call(reader.client, "audit.list", json!({})).expect_err("a reader");
    assert_eq!(refused.kind, "role");
    let params = json!({"sessionId": id});
    let page = world.call(reader.client, "session.toolCallAudit", params).expect("a page");
    assert_eq!(page["count"], 1);
    let unknown = json!({"sessionId": "00000000-0000-4000-8000-000000000009"});
    let refused = world.call(reader.client, "session.toolCallAudit", unknown).expect_err("none");
    assert_eq!(refused.code, -32001);
    for (params, field) in [
        (json!({"limit": 0}), "limit"),
        (json!({"before": "x"}), "before"),
        (json!({"sessionId": "x"}), "sessionId"),
    ] {
        let refused = world.call(owner, "audit.list", params).expect_err("bad");
        assert!(refused.message.contains(field), "{}", refused.message);
    }
}

#[test]
fn h8_the_chain_holds_over_crashes() {
    for how in [Crash::Lost, Crash::Done] {
        let mut world = World::default();
        let owner = world.owner();
        session(&mut world, owner, "make");
        world.crash(how);
        let owner = world.owner();
        session(&mut world, owner, "make again");
        let mut verifier = Verifier::new(None);
        for (line, number) in world.store.audit.iter().zip(1..) {
            verifier.line("audit.log", number, line.as_bytes());
        }
        assert_eq!(verifier.finish().findings, []);
        assert_eq!(of_kind(&world, "started").len(), 2);
        let abandoned = of_kind(&world, "abandoned");
        assert!(abandoned.len() <= 1, "told once: {abandoned:?}");
    }
}
