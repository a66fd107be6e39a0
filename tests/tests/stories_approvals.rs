//! Approvals: the agent's tools do their work after leave was given, once, and never otherwise (security H1).

use std::time::Duration;

use clawd_protocol::StoreFault;
use clawd_tests::client::names;
use clawd_tests::{Act, Client, Crash, LOOPBACK, World};
use serde_json::{Value, json};

struct Story {
    world: World,
    owner: Client,
    session: String,
    call: Value,
}

impl Story {
    /// A tool call waits for a decision.
    fn new() -> Self {
        Self::with(vec![vec![Act::bash("make"), Act::say("made")]])
    }

    fn with(script: Vec<Vec<Act>>) -> Self {
        let mut world = World::default();
        world.machine.scripts.push_back(script);
        let owner = world.owner();
        let params = json!({"repoPath": "/repo", "initialMessage": "build"});
        let session = world.call(owner, "session.create", params).expect("a session");
        let session = session["id"].as_str().expect("an id").to_owned();
        world.settle();
        let mut story = Self { world, owner, session, call: Value::Null };
        story.call = story.waiting()[0]["toolCallId"].clone();
        assert!(story.call.is_string(), "nothing waits for a decision");
        story
    }

    fn waiting(&mut self) -> Vec<Value> {
        let list = self.world.call(self.owner, "approval.list", json!({})).expect("a list");
        list["approvals"].as_array().expect("an array").clone()
    }

    fn params(&self) -> Value {
        json!({"sessionId": self.session, "toolCallId": self.call})
    }

    fn deeds(&self) -> usize {
        self.world.children().map(|child| child.done.len()).sum()
    }

    fn later(&mut self, secs: u64) {
        self.world.advance(Duration::from_secs(secs));
    }

    fn stored(&mut self) -> Value {
        let params = json!({"sessionId": self.session});
        self.world.call(self.owner, "session.toolCalls", params).expect("calls")[0].clone()
    }
}

#[test]
fn h1_a_pending_call_does_nothing() {
    let mut story = Story::new();
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
    let mut story = Story::new();
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
    let mut story = Story::new();
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
    let mut story = Story::new();
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
    let mut story = Story::new();
    story.world.hang_up(story.owner.conn);
    story.later(1200);
    assert_eq!(story.deeds(), 0);
}

#[test]
fn h1_when_the_daemon_dies_nothing_is_allowed() {
    for how in [Crash::Lost, Crash::Done, Crash::Power] {
        let mut story = Story::new();
        story.world.hold_store();
        story.world.ask(story.owner, "tool.approve", story.params());
        story.world.crash(how);
        story.later(10);
        assert_eq!(story.deeds(), 0);
    }
}

#[test]
fn h1_a_decision_that_cannot_be_stored_allows_nothing() {
    let mut story = Story::new();
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
    let mut story = Story::new();
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
    let mut story = Story::new();
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
    let mut story = Story::new();
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
    let mut story = Story::new();
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
    let mut story = Story::new();
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
