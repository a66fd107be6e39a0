//! What a bad disk does.

use std::time::Duration;

use clawd_protocol::StoreFault;
use clawd_protocol::policy::{Policy, Verdict};
use clawd_tests::client::names;
use clawd_tests::story::{Story, asks};
use clawd_tests::{Act, Crash, World};
use serde_json::json;

#[test]
fn a_full_disk_is_an_error_and_not_an_event() {
    let mut world = World::default();
    let owner = world.owner();
    world.events(owner);
    world.fail_store(Some(StoreFault::Full));
    let refused = world.call(owner, "session.create", json!({"repoPath": "/repo"}));
    assert_eq!(refused.expect_err("not stored").code, -32603);
    assert!(!names(&world.events(owner)).contains(&"session.created"));
    assert_eq!(world.call(owner, "session.list", json!({})).expect("a list"), json!([]));
    world.fail_store(None);
    world.call(owner, "session.create", json!({"repoPath": "/repo"})).expect("healed");
}

#[test]
fn details_of_a_fault_stay_in_the_house() {
    let mut world = World::default();
    let owner = world.owner();
    world.fail_store(Some(StoreFault::Failed("/home/dev/secret.db is broken".to_owned())));
    let refused = world.call(owner, "daemon.setName", json!({"name": "x"})).expect_err("failed");
    assert_eq!(refused.code, -32603);
    assert!(!format!("{refused:?}").contains("secret"));
}

#[test]
fn a_disk_that_fills_up_during_a_turn_leaves_no_open_end() {
    let mut world = World::default();
    let script = vec![Act::say("one"), Act::Wait(Duration::from_secs(1)), Act::bash("make")];
    world.machine.scripts.push_back(vec![script]);
    let owner = world.owner();
    let params = json!({"repoPath": "/repo", "initialMessage": "hi"});
    let session = world.call(owner, "session.create", params).expect("a session");
    world.settle();
    world.fail_store(Some(StoreFault::Full));
    world.advance(Duration::from_secs(5));
    assert!(world.children().all(|child| child.is_killed), "nobody could see what it does");
    world.advance(Duration::from_secs(700));
    world.fail_store(None);
    world.advance(Duration::from_secs(60));
    assert!(world.children().all(|child| child.done.is_empty()));
    let params = json!({"sessionId": session["id"]});
    world.call(owner, "session.cancel", params.clone()).ok();
    world.advance(Duration::from_secs(30));
    let got = world.call(owner, "session.get", params).expect("a session");
    assert_ne!(got["status"], "running");
}

#[test]
fn a_call_whose_decision_was_not_stored_is_announced_with_the_one_that_is() {
    let second = Duration::from_secs(1);
    let script = vec![vec![Act::Wait(second), asks("ask_a", "toolu_a", "make"), Act::Hang]];
    let mut story = Story::under(Policy::default(), &[(Verdict::Allow, "Bash(make)")], script);
    story.world.fail_store(Some(StoreFault::Full));
    story.later(1);
    story.world.fail_store(None);
    assert!(!names(&story.world.events(story.owner)).contains(&"session.toolCallCreated"));
    story.respond("grant").expect("it waits for people");
    let heard = story.world.events(story.owner);
    let mut told = names(&heard);
    told.retain(|name| name.starts_with("session.toolCall"));
    assert_eq!(told, ["session.toolCallCreated"]);
    assert!(story.fed().contains("\"allow\""), "{}", story.fed());
}

#[test]
fn what_was_answered_survives_a_crash() {
    for how in [Crash::Lost, Crash::Done] {
        let mut world = World::default();
        let owner = world.owner();
        let session = world.call(owner, "session.create", json!({"repoPath": "/repo"}));
        let session = session.expect("a session");
        world.call(owner, "daemon.setName", json!({"name": "desk"})).expect("named");
        world.crash(how);
        let owner = world.owner();
        let list = world.call(owner, "session.list", json!({})).expect("a list");
        assert_eq!(list[0]["id"], session["id"]);
    }
}

#[test]
fn event_numbers_go_on_after_a_crash() {
    let mut world = World::default();
    let owner = world.owner();
    for _ in 0..5 {
        world.call(owner, "session.create", json!({"repoPath": "/repo"})).expect("a session");
    }
    let last = |events: &[clawd_tests::Event]| {
        events.iter().filter_map(|event| event.params["seq"].as_u64()).max().expect("events")
    };
    let before = last(&world.events(owner));
    world.crash(Crash::Lost);
    let owner = world.owner();
    world.events(owner);
    world.call(owner, "session.create", json!({"repoPath": "/repo"})).expect("a session");
    let events = world.events(owner);
    let first = events.iter().filter_map(|event| event.params["seq"].as_u64()).min();
    assert!(first > Some(before), "{first:?} after {before}");
}
