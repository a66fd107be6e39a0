//! Providers: which agent a session gets, and what its model's provider answers.

use std::time::Duration;

use clawd_protocol::Stream;
use clawd_tests::client::RpcError;
use clawd_tests::{Act, Claude, Client, World};
use serde_json::{Value, json};

fn create(world: &mut World, owner: Client) -> String {
    let session = world.call(owner, "session.create", json!({"repoPath": "/repo"}));
    session.expect("a session")["id"].as_str().expect("an id").to_owned()
}

fn send(world: &mut World, owner: Client, session: &str) -> Result<Value, RpcError> {
    let params = json!({"sessionId": session, "content": "hello"});
    let sent = world.call(owner, "session.sendMessage", params);
    world.settle();
    sent
}

fn line(value: &Value) -> Act {
    Act::Write(Stream::Out, format!("{value}\n").into_bytes())
}

fn retry(status: u16, delay_ms: u64) -> Act {
    line(&json!({"type": "system", "subtype": "api_retry", "attempt": 1, "max_retries": 10,
        "retry_delay_ms": delay_ms, "error_status": status, "error": "scripted"}))
}

fn last_error(world: &mut World, owner: Client, session: &str) -> Value {
    let page = world.call(owner, "session.getMessages", json!({"sessionId": session}));
    let page = page.expect("a page");
    page.as_array().and_then(|page| page.last()).expect("a message")["metadata"]["error"].clone()
}

#[test]
fn a_session_gets_the_agent_that_its_maker_names() {
    let mut world = World::default();
    let owner = world.owner();
    world.machine.claude = Claude::Missing;
    let params = json!({"repoPath": "/repo", "provider": "demo"});
    let session = world.call(owner, "session.create", params).expect("the demo needs no claude");
    assert_eq!(session["provider"], "demo");
    let refused = world.call(owner, "session.create", json!({"repoPath": "/repo"}));
    assert_eq!(refused.expect_err("claude is missing").code, -32002);
    let params = json!({"repoPath": "/repo", "provider": "gpt"});
    let refused = world.call(owner, "session.create", params).expect_err("no such agent");
    assert_eq!((refused.code, &refused.data["field"]), (-32602, &json!("provider")));
    assert!(refused.message.contains("`claude`") && refused.message.contains("`demo`"));
}

#[test]
fn the_demo_is_called_a_demo() {
    let mut world = World::default();
    world.machine.has_codex = true;
    let owner = world.owner();
    let listed = world.call(owner, "daemon.providers", json!({})).expect("a list");
    for provider in listed.as_array().expect("an array") {
        assert_eq!(provider["demo"], json!(provider["name"] == "demo"), "{provider}");
    }
    let demo = world.call(owner, "daemon.checkProvider", json!({"provider": "demo"}));
    assert_eq!(demo.expect("it is there")["available"], true);
}

#[test]
fn a_provider_that_nobody_has_looked_for_is_not_said_to_be_missing() {
    let mut world = World::default();
    let owner = world.owner();
    for is_checked in [false, true] {
        let status = world.call(owner, "daemon.status", json!({})).expect("a status");
        for provider in status["providers"].as_array().expect("an array") {
            assert_eq!(provider["checked"], is_checked, "{provider}");
        }
        world.call(owner, "daemon.providers", json!({})).expect("a list");
    }
}

#[test]
fn refused_credentials_end_the_turn_instead_of_being_tried_for_minutes() {
    let mut world = World::default();
    let forever = Act::Wait(Duration::from_secs(170));
    world.machine.scripts.push_back(vec![vec![retry(401, 500), retry(401, 900), forever]]);
    let owner = world.owner();
    let session = create(&mut world, owner);
    send(&mut world, owner, &session).expect("taken");
    let error = last_error(&mut world, owner, &session);
    assert_eq!(error["kind"], "provider_not_available");
    assert!(
        error["hint"].as_str().is_some_and(|hint| hint.contains("claude auth login")),
        "{error}"
    );
}

#[test]
fn a_provider_that_was_asked_too_much_is_left_alone_for_as_long_as_it_says() {
    let mut world = World::default();
    let end = line(&json!({"type": "result", "subtype": "success", "is_error": true,
        "terminal_reason": "api_error", "api_error_status": 429, "result": "rate limited"}));
    world.machine.scripts.push_back(vec![vec![retry(429, 30_000), end]]);
    let owner = world.owner();
    let session = create(&mut world, owner);
    send(&mut world, owner, &session).expect("taken");
    assert_eq!(last_error(&mut world, owner, &session)["kind"], "provider_rate_limited");
    world.advance(Duration::from_secs(10));
    let refused = send(&mut world, owner, &session).expect_err("it rests");
    assert_eq!((refused.code, &refused.data["kind"]), (-32003, &json!("provider_rate_limited")));
    assert_eq!(refused.data["retryAfterMs"], 20_000);
    world.advance(Duration::from_secs(20));
    send(&mut world, owner, &session).expect("it has rested");
}
