//! Codex: many sessions in one process, which names their conversations and is asked to ask.

use std::time::Duration;

use clawd_protocol::Stream;
use clawd_tests::client::RpcError;
use clawd_tests::{Act, Claude, Client, Crash, World};
use serde_json::{Value, json};

/// A world with codex, whose first process does this.
fn world_with(turns: Vec<Vec<Act>>) -> (World, Client) {
    let mut world = World::default();
    world.machine.has_codex = true;
    world.machine.scripts.push_back(turns);
    let owner = world.owner();
    (world, owner)
}

fn create(world: &mut World, owner: Client) -> String {
    let params = json!({"repoPath": "/repo", "provider": "codex"});
    let session = world.call(owner, "session.create", params).expect("a session");
    session["id"].as_str().expect("an id").to_owned()
}

fn send(world: &mut World, owner: Client, session: &str) -> Result<Value, RpcError> {
    let params = json!({"sessionId": session, "content": "do it"});
    let sent = world.call(owner, "session.sendMessage", params);
    world.settle();
    sent
}

/// A session whose turn has begun.
fn begin(world: &mut World, owner: Client) -> String {
    let session = create(world, owner);
    send(world, owner, &session).expect("taken");
    session
}

fn view(world: &mut World, owner: Client, session: &str) -> Value {
    world.call(owner, "session.get", json!({"sessionId": session})).expect("a session")
}

fn answer(world: &mut World, owner: Client, session: &str) -> Value {
    let page = world.call(owner, "session.getMessages", json!({"sessionId": session}));
    let page = page.expect("a page");
    page.as_array().and_then(|page| page.last()).expect("a message").clone()
}

fn calls(world: &mut World, owner: Client, session: &str) -> Vec<Value> {
    let calls = world.call(owner, "session.toolCalls", json!({"sessionId": session}));
    calls.expect("calls").as_array().expect("an array").clone()
}

fn decide(world: &mut World, owner: Client, session: &str, method: &str) {
    let call = calls(world, owner, session).pop().expect("a call");
    assert_eq!(call["status"], "pending", "{call}");
    let params = json!({"sessionId": session, "toolCallId": call["id"]});
    world.call(owner, method, params).expect("decided");
    world.settle();
}

/// What tools have really done, by all processes ever.
fn deeds(world: &World) -> Vec<Value> {
    world.children().flat_map(|child| &child.done).map(|(_, input)| input.clone()).collect()
}

/// The requests of this method that the last process was fed.
fn fed(world: &World, method: &str) -> Vec<Value> {
    let child = world.children().next_back().expect("an agent");
    let lines = child.fed.split(|byte| *byte == b'\n');
    let lines = lines.filter_map(|line| serde_json::from_slice(line).ok());
    lines.filter(|line: &Value| line["method"] == method).collect()
}

#[test]
fn a_turn_streams_and_counts_its_tokens() {
    let (mut world, owner) = world_with(vec![vec![Act::say("I look. "), Act::say("Done.")]]);
    let session = begin(&mut world, owner);
    let message = answer(&mut world, owner, &session);
    assert_eq!(message["status"], "done", "{message}");
    assert!(message["content"].as_str().is_some_and(|text| text.contains("Done.")), "{message}");
    let view = view(&mut world, owner, &session);
    assert_eq!((&view["status"], &view["model"]), (&json!("idle"), &json!("gpt-5.5")));
    assert_eq!(view["usage"]["inputTokens"], 100, "{view}");
    assert!(view["agentSession"].as_str().is_some_and(|name| name.starts_with("thread_")));
}

#[test]
fn h1_a_command_runs_once_and_only_after_leave() {
    for (method, ran) in [("tool.approve", 1), ("tool.reject", 0)] {
        let (mut world, owner) = world_with(vec![vec![Act::bash("make it's"), Act::say("done")]]);
        let session = begin(&mut world, owner);
        let call = calls(&mut world, owner, &session).pop().expect("a call");
        assert_eq!(call["name"], "Bash");
        let input = json!({"command": "make it's", "cwd": "/repo", "shell": "/bin/bash -lc"});
        assert_eq!(call["input"], input);
        assert!(deeds(&world).is_empty());
        decide(&mut world, owner, &session, method);
        assert_eq!(deeds(&world).len(), ran, "{method}");
        assert_eq!(view(&mut world, owner, &session)["status"], "idle");
        let call = calls(&mut world, owner, &session).pop().expect("a call");
        assert_eq!(call["status"], if ran == 1 { "done" } else { "error" });
    }
}

#[test]
fn a_change_of_files_shows_its_diff() {
    let input = json!({"changes": [
        {"path": "/repo/a", "kind": {"type": "add"}, "diff": "hello\n"}]});
    let ask = Act::Ask { name: "ApplyPatch".to_owned(), input: input.clone() };
    let (mut world, owner) = world_with(vec![vec![ask]]);
    let session = begin(&mut world, owner);
    let call = calls(&mut world, owner, &session).pop().expect("a call");
    assert_eq!((&call["name"], &call["input"]), (&json!("ApplyPatch"), &input));
    decide(&mut world, owner, &session, "tool.approve");
    assert_eq!(deeds(&world), [input]);
}

#[test]
fn what_only_codex_could_be_asked_is_refused_and_the_turn_goes_on() {
    let ask = Act::Ask { name: "AskUserQuestion".to_owned(), input: json!({}) };
    let (mut world, owner) = world_with(vec![vec![ask, Act::say("then not")]]);
    let session = begin(&mut world, owner);
    assert_eq!(answer(&mut world, owner, &session)["content"], "then not");
}

#[test]
fn a_cancelled_turn_ends_and_so_do_its_commands() {
    let (mut world, owner) = world_with(vec![vec![Act::bash("make"), Act::say("done")]]);
    let session = begin(&mut world, owner);
    world.call(owner, "session.cancel", json!({"sessionId": session})).expect("taken");
    world.settle();
    assert_eq!(view(&mut world, owner, &session)["status"], "idle");
    assert!(!fed(&world, "thread/backgroundTerminals/clean").is_empty());
    assert!(deeds(&world).is_empty());
    send(&mut world, owner, &session).expect("it can go on");
    assert_eq!(answer(&mut world, owner, &session)["content"], "ok");
    assert_eq!(world.children().count(), 1, "in the same process");
}

#[test]
fn two_sessions_share_a_process_and_nothing_else() {
    let ask = |what: &str| vec![Act::bash(what), Act::say(what)];
    let (mut world, owner) = world_with(vec![ask("first"), ask("second")]);
    let first = begin(&mut world, owner);
    let second = begin(&mut world, owner);
    assert_eq!(world.children().count(), 1);
    decide(&mut world, owner, &second, "tool.approve");
    assert_eq!(answer(&mut world, owner, &second)["content"], "second");
    assert_eq!(view(&mut world, owner, &first)["status"], "running");
    world.call(owner, "session.cancel", json!({"sessionId": second})).expect("nothing to cancel");
    world.settle();
    decide(&mut world, owner, &first, "tool.approve");
    assert_eq!(answer(&mut world, owner, &first)["content"], "first");
    assert_eq!(deeds(&world).len(), 2);
}

#[test]
fn i4_a_session_that_is_deleted_leaves_nothing_running() {
    let ask = |what: &str| vec![Act::bash(what), Act::say(what)];
    let (mut world, owner) = world_with(vec![ask("first"), ask("second")]);
    let first = begin(&mut world, owner);
    let second = begin(&mut world, owner);
    world.call(owner, "session.delete", json!({"sessionId": first})).expect("deleted");
    world.settle();
    assert_eq!(fed(&world, "turn/interrupt").len(), 1);
    assert_eq!(fed(&world, "thread/unsubscribe").len(), 1);
    decide(&mut world, owner, &second, "tool.approve");
    assert_eq!(answer(&mut world, owner, &second)["content"], "second");
    assert_eq!(deeds(&world).len(), 1, "only the second");
    // The last one takes the process along.
    world.call(owner, "session.delete", json!({"sessionId": second})).expect("deleted");
    world.advance(Duration::from_secs(60));
    assert!(world.children().all(|child| child.is_gone));
}

#[test]
fn a_process_that_dies_fails_the_turns_in_it_and_the_next_goes_on() {
    let (mut world, owner) =
        world_with(vec![vec![Act::bash("first")], vec![Act::say("x"), Act::Crash(3)]]);
    let first = begin(&mut world, owner);
    let second = begin(&mut world, owner);
    for session in [&first, &second] {
        assert_eq!(view(&mut world, owner, session)["status"], "error");
    }
    let name = view(&mut world, owner, &first)["agentSession"].clone();
    send(&mut world, owner, &first).expect("taken");
    assert_eq!(answer(&mut world, owner, &first)["content"], "ok");
    assert_eq!(fed(&world, "thread/resume")[0]["params"]["threadId"], name);
}

#[test]
fn a_conversation_goes_on_after_the_daemon_died() {
    for how in [Crash::Lost, Crash::Done] {
        let (mut world, owner) = world_with(vec![vec![Act::say("42")]]);
        let session = begin(&mut world, owner);
        let name = view(&mut world, owner, &session)["agentSession"].clone();
        world.crash(how);
        let owner = world.owner();
        send(&mut world, owner, &session).expect("taken");
        assert_eq!(answer(&mut world, owner, &session)["content"], "ok", "{how:?}");
        let resumed = fed(&world, "thread/resume");
        assert_eq!(resumed[0]["params"]["threadId"], name, "{how:?}");
        assert_eq!(resumed[0]["params"]["approvalPolicy"], "untrusted", "{how:?}");
        let view = view(&mut world, owner, &session);
        assert_eq!(view["agentSession"], name);
    }
}

#[test]
fn h1_what_waited_when_the_daemon_died_is_done_once_when_it_is_granted() {
    for how in [Crash::Lost, Crash::Done] {
        let (mut world, owner) = world_with(vec![vec![Act::bash("make")]]);
        let session = begin(&mut world, owner);
        let name = view(&mut world, owner, &session)["agentSession"].clone();
        world.machine.scripts.push_back(vec![vec![Act::bash("make"), Act::say("made")]]);
        world.crash(how);
        let owner = world.owner();
        decide(&mut world, owner, &session, "tool.approve");
        world.advance(Duration::from_secs(1));
        assert_eq!(deeds(&world).len(), 1, "{how:?}");
        assert_eq!(fed(&world, "thread/resume")[0]["params"]["threadId"], name, "{how:?}");
        assert_eq!(view(&mut world, owner, &session)["status"], "idle");
    }
}

#[test]
fn a_conversation_that_codex_has_lost_is_begun_anew() {
    let (mut world, owner) = world_with(vec![vec![Act::say("42")]]);
    let session = begin(&mut world, owner);
    world.machine.forget_conversations();
    world.crash(Crash::Done);
    let owner = world.owner();
    send(&mut world, owner, &session).expect("taken");
    assert_eq!(view(&mut world, owner, &session)["status"], "error");
    send(&mut world, owner, &session).expect("taken");
    assert_eq!(answer(&mut world, owner, &session)["content"], "ok");
    assert_eq!(fed(&world, "thread/start").len(), 1);
}

#[test]
fn errors_of_the_model_are_told() {
    let (mut world, owner) = world_with(vec![vec![Act::Fail("overloaded".to_owned())]]);
    let session = begin(&mut world, owner);
    let error = answer(&mut world, owner, &session)["metadata"]["error"].clone();
    assert!(error["message"].as_str().is_some_and(|text| text.contains("overloaded")), "{error}");
}

#[test]
fn garbage_is_passed_over_until_it_is_too_much() {
    let noise = |count: usize| Act::Write(Stream::Out, b"what is this\n".repeat(count));
    let (mut world, owner) = world_with(vec![vec![noise(3), Act::say("fine")], vec![noise(99)]]);
    let session = begin(&mut world, owner);
    assert_eq!(answer(&mut world, owner, &session)["content"], "fine");
    send(&mut world, owner, &session).expect("taken");
    assert_eq!(view(&mut world, owner, &session)["status"], "error");
    assert!(world.children().all(|child| child.is_gone));
}

#[test]
fn codex_is_used_where_there_is_no_claude() {
    let (mut world, owner) = world_with(Vec::new());
    world.machine.claude = Claude::Missing;
    let session = world.call(owner, "session.create", json!({"repoPath": "/repo"}));
    assert_eq!(session.expect("a session")["provider"], "codex");
}

#[test]
fn i2_its_program_is_not_in_a_repository_that_it_works_in() {
    let (mut world, owner) = world_with(Vec::new());
    let path = "/opt/codex";
    world.machine.directories.insert(path.to_owned(), Ok(path.to_owned()));
    let params = json!({"repoPath": path, "provider": "codex"});
    let session = world.call(owner, "session.create", params).expect("a session");
    let session = session["id"].as_str().expect("an id").to_owned();
    send(&mut world, owner, &session).expect("taken");
    let error = answer(&mut world, owner, &session)["metadata"]["error"].clone();
    assert_eq!(error["kind"], "provider_not_available", "{error}");
    assert_eq!(world.children().count(), 0);
}
