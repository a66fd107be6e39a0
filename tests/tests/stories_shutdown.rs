//! The end of a daemon: everybody is told, nobody is left behind.

use std::time::Duration;

use clawd_protocol::StoreFault;
use clawd_tests::{Act, LOOPBACK, World};
use serde_json::json;

fn busy_world() -> (World, clawd_tests::Client) {
    let mut world = World::default();
    world.machine.scripts.push_back(vec![vec![Act::say("one "), Act::bash("make")]]);
    let owner = world.owner();
    let params = json!({"repoPath": "/repo", "initialMessage": "build"});
    world.call(owner, "session.create", params).expect("a session");
    world.settle();
    (world, owner)
}

#[test]
fn shutdown_says_goodbye_ends_agents_and_stops() {
    let (mut world, owner) = busy_world();
    let stranger = world.stranger(LOOPBACK);
    world.shut_down();
    world.advance(Duration::from_secs(30));
    assert!(world.is_stopped());
    assert_eq!(world.close_code(owner), Some(1001));
    assert_eq!(world.close_code(stranger), Some(1001));
    assert!(world.children().all(|child| child.is_gone && child.done.is_empty()));
}

#[test]
fn shutdown_stops_also_when_the_agent_does_not_and_the_disk_fails() {
    let mut world = World::default();
    world.machine.scripts.push_back(vec![vec![Act::Hang]]);
    let owner = world.owner();
    let params = json!({"repoPath": "/repo", "initialMessage": "build"});
    world.call(owner, "session.create", params).expect("a session");
    world.settle();
    world.fail_store(Some(StoreFault::Full));
    world.shut_down();
    world.advance(Duration::from_secs(60));
    assert!(world.is_stopped());
}

#[test]
fn shutdown_stops_also_when_the_disk_never_answers() {
    let (mut world, _) = busy_world();
    world.hold_store();
    world.shut_down();
    world.advance(Duration::from_secs(120));
    assert!(world.is_stopped());
}

#[test]
fn the_owner_may_end_it() {
    let mut world = World::default();
    let owner = world.owner();
    world.ask(owner, "daemon.shutdown", json!({}));
    world.advance(Duration::from_secs(30));
    assert!(world.is_stopped());
}

#[test]
fn while_it_ends_nobody_comes_in() {
    let (mut world, _) = busy_world();
    world.hold_store();
    world.shut_down();
    if !world.is_stopped() {
        let late = world.open(LOOPBACK);
        assert!(!world.link(late).is_open(), "a new connection is refused");
    }
}

#[test]
fn after_a_restart_no_turn_runs_and_what_was_asked_still_waits() {
    let (mut world, _) = busy_world();
    world.shut_down();
    world.advance(Duration::from_secs(30));
    world.restart();
    let owner = world.owner();
    let list = world.call(owner, "session.list", json!({})).expect("a list");
    assert_ne!(list[0]["status"], "running");
    assert_eq!(list[0]["waitingFor"], "approval");
    let waiting = world.call(owner, "approval.list", json!({})).expect("a list");
    assert_eq!(waiting["approvals"].as_array().map(Vec::len), Some(1), "{waiting}");
    assert!(world.children().all(|child| child.done.is_empty()), "and nothing was done");
}

#[test]
fn shutdown_ends_agents_first_and_then_waits_for_the_disk() {
    let (mut world, owner) = busy_world();
    world.hold_store();
    world.shut_down();
    assert!(world.children().all(|child| child.is_killed), "whatever the disk does");
    world.settle();
    assert!(!world.is_stopped(), "the turn's end is not written down");
    let refused = world.call(owner, "session.create", json!({"repoPath": "/repo"}));
    assert_eq!(refused.expect_err("too late").kind, "shutting_down");
    world.release_store();
    assert!(world.is_stopped());
    let mut messages = world.store.db.messages.values();
    assert!(messages.any(|message| message.metadata.contains("interrupted")), "it is written down");
}
