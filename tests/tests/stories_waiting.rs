//! While the world is being asked, others act: what waits is looked at again before it goes on (security C6, E4, H6).

use clawd_protocol::{Config, Limits, StoreFault};
use clawd_tests::{Act, Client, World};
use serde_json::{Value, json};

/// A session whose provider must be asked again before it can run.
fn cold_session(script: Vec<Vec<Act>>) -> (World, Client, Value) {
    let mut world = World::default();
    world.machine.scripts.push_back(script);
    let owner = world.owner();
    let params = json!({"repoPath": "/repo"});
    let session = world.call(owner, "session.create", params).expect("a session")["id"].clone();
    world.advance(std::time::Duration::from_secs(61));
    (world, owner, session)
}

fn message(session: &Value, client_id: &str) -> Value {
    json!({"sessionId": session, "content": "go", "clientMessageId": client_id})
}

fn started(world: &World) -> usize {
    world.children().count()
}

#[test]
fn a_cancel_overtakes_a_message_that_waits_for_claude() {
    let (mut world, owner, session) = cold_session(Vec::new());
    world.hold_questions();
    let params = json!({"sessionId": session, "content": "go"});
    let sent = world.ask(owner, "session.sendMessage", params);
    world.ask(owner, "session.cancel", json!({"sessionId": session}));
    world.release_questions();
    world.settle();
    let refusal = world.answer(owner, &sent).expect("an answer").expect_err("cancelled");
    assert_eq!(refusal.kind, "cancelled");
    assert_eq!(started(&world), 0);
}

#[test]
fn a_pause_overtakes_a_message_that_waits_for_claude() {
    let (mut world, owner, session) = cold_session(Vec::new());
    world.hold_questions();
    let sent = world.ask(owner, "session.sendMessage", message(&session, "m"));
    world.ask(owner, "session.pause", json!({"sessionId": session}));
    world.release_questions();
    world.settle();
    let refusal = world.answer(owner, &sent).expect("an answer").expect_err("paused");
    assert_eq!(refusal.kind, "session_paused");
    let session = world.call(owner, "session.get", json!({"sessionId": session})).expect("it");
    assert_eq!(session["status"], "paused");
}

#[test]
fn a_deleted_session_answers_everybody_who_waits_for_it() {
    let (mut world, owner, session) = cold_session(Vec::new());
    world.hold_questions();
    let calls = [(); 2].map(|()| world.ask(owner, "session.sendMessage", message(&session, "m")));
    let deleted = world.ask(owner, "session.delete", json!({"sessionId": session}));
    world.release_questions();
    world.settle();
    assert!(world.answer(owner, &deleted).expect("an answer").is_ok());
    for call in calls {
        let refusal = world.answer(owner, &call).expect("an answer").expect_err("it is gone");
        assert_eq!(refusal.kind, "session_not_found");
    }
}

#[test]
fn c6_sessions_that_begin_together_keep_to_the_limit_of_agents() {
    let limits = Limits { agents_max: 2, ..Limits::default() };
    let mut world = World::with_config(Config { limits, ..Config::default() });
    let owner = world.owner();
    world.machine.scripts.extend((0..5).map(|_| vec![vec![Act::Hang]]));
    let sessions: Vec<_> = (0..5)
        .map(|_| {
            let params = json!({"repoPath": "/repo"});
            world.call(owner, "session.create", params).expect("a session")["id"].clone()
        })
        .collect();
    world.hold_store();
    let sent: Vec<_> = sessions
        .iter()
        .map(|session| world.ask(owner, "session.sendMessage", message(session, "m")))
        .collect();
    world.release_store();
    world.settle();
    let outcomes: Vec<_> = sent
        .iter()
        .map(|sent| world.answer(owner, sent).expect("an answer").map_err(|error| error.kind))
        .collect();
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 2, "{outcomes:?}");
    assert_eq!(started(&world), 2);
}

#[test]
fn e4_what_a_revoked_device_has_just_allowed_does_not_run() {
    let mut world = World::default();
    world.machine.scripts.push_back(vec![vec![Act::bash("make"), Act::say("done")]]);
    let owner = world.owner();
    let phone = world.pair(owner, "full", "phone");
    let params = json!({"repoPath": "/repo", "initialMessage": "build"});
    let session = world.call(owner, "session.create", params).expect("a session")["id"].clone();
    world.settle();
    let list = world.call(owner, "approval.list", json!({})).expect("a list");
    let tool = list["approvals"][0]["toolCallId"].clone();
    world.hold_store();
    world.ask(phone.client, "tool.approve", json!({"sessionId": session, "toolCallId": tool}));
    world.ask(owner, "device.revoke", json!({"id": phone.id}));
    world.release_store();
    world.settle();
    assert_eq!(world.children().map(|child| child.done.len()).sum::<usize>(), 0);
}

#[test]
fn e4_what_a_device_allowed_for_the_session_ends_with_it() {
    let mut world = World::default();
    let turns = vec![vec![Act::bash("make")], vec![Act::bash("make")]];
    world.machine.scripts.push_back(turns);
    let owner = world.owner();
    let phone = world.pair(owner, "full", "phone");
    let params = json!({"repoPath": "/repo", "initialMessage": "build"});
    let session = world.call(owner, "session.create", params).expect("a session")["id"].clone();
    world.settle();
    let list = world.call(owner, "approval.list", json!({})).expect("a list");
    let tool = list["approvals"][0]["toolCallId"].clone();
    let allow = json!({"sessionId": session, "toolCallId": tool, "scope": "session"});
    world.call(phone.client, "tool.approve", allow).expect("allowed");
    world.settle();
    assert_eq!(world.children().map(|child| child.done.len()).sum::<usize>(), 1);
    world.call(owner, "device.revoke", json!({"id": phone.id})).expect("revoked");
    world.call(owner, "session.sendMessage", message(&session, "again")).expect("sent");
    world.settle();
    let list = world.call(owner, "approval.list", json!({})).expect("a list");
    assert_eq!(list["approvals"].as_array().map(Vec::len), Some(1), "somebody is asked again");
    assert_eq!(world.children().map(|child| child.done.len()).sum::<usize>(), 1);
}

#[test]
fn a_deletion_that_is_not_stored_deletes_nothing() {
    let (mut world, owner, session) = cold_session(Vec::new());
    world.fail_store(Some(StoreFault::Full));
    let refusal = world.call(owner, "session.delete", json!({"sessionId": session}));
    assert_eq!(refusal.expect_err("the disk is full").kind, "storage_failed");
    world.fail_store(None);
    let found = world.call(owner, "session.get", json!({"sessionId": session}));
    assert_eq!(found.expect("still there")["id"], session);
}

#[test]
fn nothing_begins_while_the_daemon_ends() {
    let (mut world, owner, session) = cold_session(Vec::new());
    world.hold_questions();
    world.hold_store();
    // The disk has something to do, and the daemon waits for it.
    world.ask(owner, "daemon.setName", json!({"name": "desk"}));
    let params = json!({"sessionId": session, "content": "go"});
    let sent = world.ask(owner, "session.sendMessage", params);
    world.shut_down();
    world.release_questions();
    let refusal = world.answer(owner, &sent).expect("an answer").expect_err("too late");
    assert_eq!(refusal.kind, "shutting_down");
    world.release_store();
    assert_eq!(started(&world), 0);
    assert!(world.is_stopped());
}

#[test]
fn c6_only_so_many_copies_of_one_message_wait() {
    let (mut world, owner, session) = cold_session(Vec::new());
    world.hold_questions();
    let sent: Vec<_> =
        (0..20).map(|_| world.ask(owner, "session.sendMessage", message(&session, "m"))).collect();
    world.settle();
    let refused = sent
        .iter()
        .filter_map(|sent| world.answer(owner, sent)?.err())
        .filter(|error| error.kind == "session_busy")
        .count();
    assert_eq!(refused, 20 - 1 - 16);
    world.release_questions();
    world.settle();
    let same = sent.iter().filter_map(|sent| world.answer(owner, sent)?.ok()).count();
    assert_eq!(same, 1 + 16);
}
