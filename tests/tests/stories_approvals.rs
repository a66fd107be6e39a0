//! Approvals: the agent's tools do their work after leave was given, once, and never otherwise (security H1).

use std::time::Duration;

use clawd_protocol::{Limits, StoreFault};
use clawd_tests::client::names;
use clawd_tests::story::{Story, about_to_use, asks, line};
use clawd_tests::{Act, Crash, LOOPBACK, World};
use serde_json::json;

/// A tool call waits for a decision.
fn story() -> Story {
    Story::with(vec![vec![Act::bash("make"), Act::say("made")]])
}

#[test]
fn h1_a_pending_call_does_nothing() {
    let mut story = story();
    story.later(590);
    assert_eq!(story.deeds(), 0);
    let waiting = story.waiting();
    assert_eq!(waiting[0]["tool"], "Bash");
    assert_eq!(waiting[0]["input"], json!({"command": "make"}));
    assert_eq!(waiting[0]["risk"], "high");
    let params = json!({"sessionId": story.session});
    let session = story.world.call(story.owner, "session.get", params).expect("a session");
    assert_eq!(session["waitingFor"], "approval");
    let names = story.world.events(story.owner);
    assert!(names.iter().any(|event| event.name == "tool.approvalRequested"));
}

#[test]
fn h1_an_approved_call_is_done_once() {
    let mut story = story();
    let answer = story.world.call(story.owner, "tool.approve", story.params()).expect("approved");
    assert_eq!(answer["approved"], true);
    story.later(5);
    assert_eq!(story.deeds(), 1);
    let again = story.world.call(story.owner, "tool.approve", story.params()).expect("the same");
    assert_eq!(again["approved"], true);
    story.later(5);
    assert_eq!(story.deeds(), 1);
    let stored = story.stored();
    assert_eq!(stored["status"], "done");
    assert_eq!(stored["decision"]["by"], "owner");
    assert!(names(&story.world.events(story.owner)).contains(&"tool.approvalResolved"));
}

#[test]
fn h1_a_denied_call_is_not_done() {
    let mut story = story();
    let mut params = story.params();
    params["reason"] = json!("not now");
    let answer = story.world.call(story.owner, "tool.reject", params).expect("rejected");
    assert_eq!(answer["rejected"], true);
    story.later(5);
    assert_eq!(story.deeds(), 0);
    let child = story.world.children().next().expect("an agent");
    assert!(String::from_utf8_lossy(&child.fed).contains("not now"));
    let late = story.world.call(story.owner, "tool.approve", story.params()).expect_err("decided");
    assert_eq!(late.code, -32602);
    assert_eq!(story.deeds(), 0);
}

#[test]
fn h1_after_ten_minutes_without_a_decision_it_is_denied() {
    let mut story = story();
    story.later(601);
    assert_eq!(story.deeds(), 0);
    assert!(story.waiting().is_empty());
    story.world.call(story.owner, "tool.approve", story.params()).expect_err("too late");
    story.later(5);
    assert_eq!(story.deeds(), 0);
    assert_eq!(story.stored()["status"], "error");
}

#[test]
fn h1_when_everybody_has_left_nothing_is_allowed() {
    let mut story = story();
    story.world.hang_up(story.owner.conn);
    story.later(1200);
    assert_eq!(story.deeds(), 0);
}

#[test]
fn h1_when_the_daemon_dies_nothing_is_allowed() {
    for how in [Crash::Lost, Crash::Done, Crash::Power] {
        let mut story = story();
        story.world.hold_store();
        story.world.ask(story.owner, "tool.approve", story.params());
        story.world.crash(how);
        story.later(10);
        assert_eq!(story.deeds(), 0);
    }
}

#[test]
fn h1_a_decision_that_cannot_be_stored_allows_nothing() {
    let mut story = story();
    story.world.fail_store(Some(StoreFault::Full));
    story.world.call(story.owner, "tool.approve", story.params()).expect_err("not stored");
    story.later(5);
    assert_eq!(story.deeds(), 0);
    story.world.fail_store(None);
    story.later(700);
    assert_eq!(story.deeds(), 0);
}

#[test]
fn h6_the_first_decision_wins() {
    let mut story = story();
    let phone = story.world.pair(story.owner, "approve", "phone");
    story.world.hold_store();
    let deny = story.world.ask(phone.client, "tool.reject", story.params());
    let allow = story.world.ask(story.owner, "tool.approve", story.params());
    story.world.release_store();
    story.later(1);
    story.world.answer(phone.client, &deny).expect("an answer").expect("rejected");
    story.world.answer(story.owner, &allow).expect("an answer").expect_err("already decided");
    assert_eq!(story.deeds(), 0);
    assert_eq!(story.stored()["decision"]["by"], json!(phone.id));
}

#[test]
fn h6_only_those_who_may_decide_and_only_for_its_session() {
    let mut story = story();
    let reader = story.world.pair(story.owner, "read", "tv");
    story.world.call(reader.client, "tool.approve", story.params()).expect_err("role");
    let other = story.world.call(story.owner, "session.create", json!({"repoPath": "/repo"}));
    let mut params = story.params();
    params["sessionId"] = other.expect("a session")["id"].clone();
    story.world.call(story.owner, "tool.approve", params).expect_err("another session's");
    let stranger = story.world.stranger(LOOPBACK);
    story.world.call(stranger, "tool.approve", story.params()).expect_err("a stranger");
    story.later(5);
    assert_eq!(story.deeds(), 0);
    let phone = story.world.pair(story.owner, "approve", "phone");
    story.world.call(phone.client, "tool.approve", story.params()).expect("approved");
    story.later(1);
    assert_eq!(story.deeds(), 1);
}

#[test]
fn h3_what_runs_is_what_was_shown_not_what_the_approver_sent() {
    let mut story = story();
    let mut params = story.params();
    params["input"] = json!({"command": "rm -rf /"});
    params["updatedInput"] = json!({"command": "rm -rf /"});
    story.world.call(story.owner, "tool.approve", params).expect("approved");
    story.later(1);
    let done: Vec<_> = story.world.children().flat_map(|c| c.done.clone()).collect();
    assert_eq!(done[0].1, json!({"command": "make"}));
}

#[test]
fn an_approval_may_hold_for_the_session() {
    let mut story =
        Story::with(vec![vec![Act::bash("make"), Act::bash("make")], vec![Act::bash("make")]]);
    let mut params = story.params();
    params["scope"] = json!("session");
    story.world.call(story.owner, "tool.approve", params).expect("approved");
    story.later(1);
    assert!(story.waiting().is_empty(), "the second is not asked for");
    assert_eq!(story.deeds(), 2);
}

#[test]
fn an_approval_once_does_not_hold_for_the_next_call() {
    let mut story = Story::with(vec![vec![Act::bash("make"), Act::bash("make")]]);
    story.world.call(story.owner, "tool.approve", story.params()).expect("approved");
    story.later(1);
    assert_eq!((story.deeds(), story.waiting().len()), (1, 1));
}

#[test]
fn cancel_denies_what_waits() {
    let mut story = story();
    let params = json!({"sessionId": story.session});
    story.world.call(story.owner, "session.cancel", params).expect("cancelled");
    story.later(1);
    assert!(story.waiting().is_empty());
    story.world.call(story.owner, "tool.approve", story.params()).expect_err("cancelled");
    story.later(20);
    assert_eq!(story.deeds(), 0);
}

#[test]
fn h2_only_listed_tools_pass_in_silence() {
    for name in ["mcp__x__read_and_delete", "Reader", "read", "Write", "Edit", "WebFetch", "Task"] {
        let ask = Act::Ask { name: name.to_owned(), input: json!({"x": 1}) };
        let mut story = Story::with(vec![vec![ask]]);
        story.later(5);
        assert_eq!((story.deeds(), story.waiting().len()), (0, 1), "{name}");
        assert_eq!(story.waiting()[0]["risk"], "high", "{name}");
    }
}

#[test]
fn e4_a_revoked_devices_undurable_decision_does_not_count() {
    let mut story = story();
    let phone = story.world.pair(story.owner, "approve", "phone");
    story.world.hold_store();
    story.world.ask(story.owner, "device.revoke", json!({"id": phone.id}));
    if story.world.link(phone.client.conn).is_open() {
        story.world.ask(phone.client, "tool.approve", story.params());
    }
    story.world.release_store();
    story.later(5);
    assert_eq!(story.deeds(), 0);
}

#[test]
fn h1_what_was_allowed_is_on_record_even_if_the_power_goes() {
    let mut story = story();
    story.world.call(story.owner, "tool.approve", story.params()).expect("approved");
    assert_eq!(story.deeds(), 1);
    story.world.crash(Crash::Power);
    story.owner = story.world.owner();
    assert_eq!(story.stored()["decision"]["by"], "owner");
}

/// The agent asks for leave to run `command`.
fn ask(command: &str) -> Act {
    asks("ask_x", "toolu_x", command)
}

#[test]
fn h3_what_is_shown_is_what_is_asked_for_not_what_was_mentioned_before() {
    let mentioned =
        line(&json!({"type": "assistant", "parent_tool_use_id": null, "session_id": "s",
        "message": {"id": "msg_x", "type": "message", "role": "assistant", "model": "m",
            "content": [{"type": "tool_use", "id": "toolu_x", "name": "Read",
                "input": {"file_path": "/repo/a"}}], "stop_reason": null}}));
    let wait = Act::Wait(Duration::from_secs(60));
    let mut story = Story::with(vec![vec![mentioned, ask("rm -rf /"), wait]]);
    let waiting = story.waiting();
    assert_eq!(waiting.len(), 1);
    assert_eq!(waiting[0]["tool"], "Bash");
    assert_eq!(waiting[0]["risk"], "high");
    assert_eq!(waiting[0]["input"], json!({"command": "rm -rf /"}));
}

#[test]
fn h3_what_is_too_large_to_be_shown_is_denied() {
    let limits = Limits { tool_input_max: 100, ..Limits::default() };
    let mut world = World::new(limits);
    let script = vec![Act::bash(&"x".repeat(200)), Act::bash("make")];
    world.machine.scripts.push_back(vec![script]);
    let owner = world.owner();
    let params = json!({"repoPath": "/repo", "initialMessage": "build"});
    world.call(owner, "session.create", params).expect("a session");
    world.settle();
    let list = world.call(owner, "approval.list", json!({})).expect("a list");
    assert_eq!(list["approvals"].as_array().map(Vec::len), Some(1), "the second only");
    assert_eq!(list["approvals"][0]["input"], json!({"command": "make"}));
}

#[test]
fn h6_an_approval_for_the_session_is_for_one_tool_with_one_input() {
    let other = Act::Ask { name: "Shell".to_owned(), input: json!({"command": "make"}) };
    for second in [Act::bash("make install"), other] {
        let mut story = Story::with(vec![vec![Act::bash("make"), second]]);
        let mut params = story.params();
        params["scope"] = json!("session");
        story.world.call(story.owner, "tool.approve", params).expect("approved");
        story.later(1);
        assert_eq!((story.deeds(), story.waiting().len()), (1, 1), "somebody is asked again");
    }
}

#[test]
fn h6_a_question_that_the_agent_takes_back_is_answered_by_nobody() {
    let withdrawn = line(&json!({"type": "control_cancel_request", "request_id": "ask_x"}));
    let wait = |secs| Act::Wait(Duration::from_secs(secs));
    let mut story = Story::with(vec![vec![ask("make"), wait(1), withdrawn, wait(60)]]);
    story.later(2);
    assert!(story.waiting().is_empty());
    assert_eq!(story.stored()["decision"]["kind"], "cancelled");
    story.world.call(story.owner, "tool.approve", story.params()).expect_err("too late");
    assert!(!story.fed().contains("ask_x"), "{}", story.fed());
}

#[test]
fn h2_the_agent_must_ask_for_every_tool_that_may_change_something() {
    for (tool, must_ask) in [("Bash", true), ("Write", true), ("mcp__x__y", true), ("Read", false)]
    {
        let hook = about_to_use(tool, &json!({"file_path": "/repo/a"}));
        let story = Story::with(vec![vec![hook, Act::bash("make")]]);
        let fed = story.fed();
        let answer = fed.lines().find(|line| line.contains("hook_x")).expect("an answer");
        let is_success = answer.contains("\"success\"");
        let is_ask = answer.contains("\"permissionDecision\":\"ask\"");
        assert_eq!((is_success, is_ask), (true, must_ask), "{tool}: {answer}");
    }
}

#[test]
fn c6_an_agent_that_begins_too_many_calls_at_once_is_ended() {
    let limits = Limits::tiny();
    let asks = (0..=limits.tool_calls_open_max).map(|n| {
        line(&json!({"type": "control_request", "request_id": format!("ask_{n}"), "request": {
            "subtype": "can_use_tool", "tool_name": "Bash", "display_name": "Bash",
            "input": {"command": "make"}, "tool_use_id": format!("toolu_{n}")}}))
    });
    let script = asks.chain([Act::Hang]).collect();
    let mut world = World::new(limits);
    world.machine.scripts.push_back(vec![script]);
    let owner = world.owner();
    let params = json!({"repoPath": "/repo", "initialMessage": "build"});
    let session = world.call(owner, "session.create", params).expect("a session")["id"].clone();
    world.settle();
    assert!(world.children().all(|child| child.is_killed));
    let session = world.call(owner, "session.get", json!({"sessionId": session})).expect("it");
    assert_eq!(session["status"], "error");
}

#[test]
fn h1_whoever_allows_is_answered_once_the_agent_has_taken_it() {
    let mut story = story();
    let asked = story.world.ask(story.owner, "tool.approve", story.params());
    while story.deeds() == 0 {
        assert!(story.world.settle_one(0), "it is never done");
    }
    assert_eq!(story.world.answer(story.owner, &asked), None, "nobody knows yet that it was taken");
    story.world.settle();
    let answer = story.world.answer(story.owner, &asked).expect("an answer").expect("approved");
    assert_eq!(answer["approved"], true);
}
