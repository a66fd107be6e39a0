//! Sessions and turns: from the first word to the last, and everything that can go wrong between.

use std::time::Duration;

use clawd_protocol::Stream;
use clawd_tests::client::{Event, names};
use clawd_tests::{Act, Claude, Client, Crash, World};
use serde_json::{Value, json};

/// A world whose next agent does this, its owner, and a session.
fn session_with(turns: Vec<Vec<Act>>) -> (World, Client, String) {
    let mut world = World::default();
    world.machine.scripts.push_back(turns);
    let owner = world.owner();
    let session = create(&mut world, owner);
    world.events(owner);
    (world, owner, session)
}

fn create(world: &mut World, client: Client) -> String {
    let session = world.call(client, "session.create", json!({"repoPath": "/repo"}));
    session.expect("a session")["id"].as_str().expect("an id").to_owned()
}

fn say(world: &mut World, client: Client, session: &str, content: &str) -> Value {
    let params = json!({"sessionId": session, "content": content});
    let message = world.call(client, "session.sendMessage", params).expect("taken");
    world.settle();
    message
}

fn status(world: &mut World, client: Client, session: &str) -> String {
    let got = world.call(client, "session.get", json!({"sessionId": session})).expect("a session");
    got["status"].as_str().expect("a status").to_owned()
}

fn messages(world: &mut World, client: Client, session: &str) -> Vec<Value> {
    let params = json!({"sessionId": session});
    let page = world.call(client, "session.getMessages", params).expect("a page");
    page.as_array().expect("an array").clone()
}

fn statuses(events: &[Event]) -> Vec<&str> {
    let changes = events.iter().filter(|event| event.name == "session.statusChanged");
    changes.filter_map(|event| event.params["status"].as_str()).collect()
}

#[test]
fn a_session_is_made_in_the_real_directory() {
    let mut world = World::default();
    let owner = world.owner();
    let params = json!({"repoPath": "/link", "title": "work"});
    let session = world.call(owner, "session.create", params).expect("a session");
    assert_eq!(session["repoPath"], "/repo");
    assert_eq!(session["title"], "work");
    assert_eq!(session["provider"], "claude");
    assert_eq!(session["status"], "idle");
    assert_eq!(session["messageCount"], 0);
    assert_eq!(session["waitingFor"], Value::Null);
    assert!(session["createdAt"].as_str().is_some_and(|at| at.ends_with('Z')), "{session}");
    assert!(names(&world.events(owner)).contains(&"session.created"));
    let list = world.call(owner, "session.list", json!({})).expect("a list");
    assert_eq!(list[0]["id"], session["id"]);
}

#[test]
fn paths_that_cannot_be_worked_in_are_refused() {
    let mut world = World::default();
    let owner = world.owner();
    for path in ["/none", "/file"] {
        let refused = world.call(owner, "session.create", json!({ "repoPath": path }));
        assert_eq!(refused.expect_err(path).code, -32005, "{path}");
    }
    let inside = "/home/dev/.ssh/keys";
    world.machine.directories.insert(inside.to_owned(), Ok(inside.to_owned()));
    for path in ["/home/dev/.ssh", inside, "/", "relative", "", "/locked"] {
        world.call(owner, "session.create", json!({ "repoPath": path })).expect_err(path);
    }
    assert!(world.store.db.sessions.is_empty());
}

#[test]
fn the_order_of_one_turn() {
    let (mut world, owner, session) = session_with(vec![vec![
        Act::say("I look. "),
        Act::Use { name: "Read".to_owned(), input: json!({"file_path": "/repo/a"}) },
        Act::say("Done."),
    ]]);
    let message = say(&mut world, owner, &session, "look at a");
    assert_eq!(message["role"], "user");
    assert_eq!(message["content"], "look at a");
    world.advance(Duration::from_secs(2));
    let events = world.events(owner);
    let mut order = names(&events);
    order.retain(|name| *name != "session.updated" && *name != "session.messageDelta");
    order.dedup();
    assert_eq!(
        order[..3],
        ["session.messageCreated", "session.statusChanged", "session.messageCreated",]
    );
    assert_eq!(events[0].params["message"]["role"], "user");
    let created = events.iter().filter(|event| event.name == "session.messageCreated");
    let assistant =
        created.map(|event| &event.params["message"]).find(|m| m["role"] == "assistant");
    let assistant = assistant.expect("the assistant's message");
    assert_eq!((&assistant["status"], &assistant["content"]), (&json!("streaming"), &json!("")));
    assert_eq!(statuses(&events), ["running", "completed", "idle"]);
    let at = |name: &str| order.iter().position(|n| *n == name).expect("it happened");
    assert!(at("session.toolCallCreated") < at("session.toolCallUpdated"));
    let last = events.iter().rev().find(|event| event.name == "session.messageUpdated");
    assert_eq!(last.expect("an update").params["status"], "done");
    assert_eq!(order.last(), Some(&"session.statusChanged"));
    assert_eq!(status(&mut world, owner, &session), "idle");
    let all = messages(&mut world, owner, &session);
    assert_eq!(all[0]["content"], "look at a");
    assert!(
        all.iter().any(|message| message["content"].as_str().is_some_and(|t| t.contains("Done.")))
    );
    let calls =
        world.call(owner, "session.toolCalls", json!({"sessionId": session})).expect("calls");
    assert_eq!((&calls[0]["name"], &calls[0]["status"]), (&json!("Read"), &json!("done")));
}

#[test]
fn the_answer_to_a_message_comes_before_its_events() {
    let (mut world, owner, session) = session_with(Vec::new());
    world.ask(owner, "session.sendMessage", json!({"sessionId": session, "content": "hi"}));
    world.settle();
    let frames = world.frames(owner);
    let answer = frames.iter().position(|text| text.contains("\"result\"")).expect("an answer");
    let event = frames.iter().position(|text| text.contains("messageCreated")).expect("an event");
    assert!(answer < event, "{frames:?}");
}

#[test]
fn nothing_is_answered_or_announced_before_it_is_on_disk() {
    let (mut world, owner, session) = session_with(Vec::new());
    world.hold_store();
    let params = json!({"sessionId": session, "content": "hi"});
    let asked = world.ask(owner, "session.sendMessage", params);
    world.settle();
    assert_eq!(world.answer(owner, &asked), None);
    assert!(world.events(owner).is_empty());
    world.release_store();
    world.answer(owner, &asked).expect("an answer").expect("taken");
}

#[test]
fn text_streams_to_everybody_in_any_pieces_alike() {
    let run = |pieces: &[usize]| {
        let mut world = World::default();
        world.cut_output(pieces);
        let script = vec![Act::say("schöne Grüße an alle"), Act::bash("make"), Act::say("bye")];
        world.machine.scripts.push_back(vec![script]);
        let (owner, viewer) = (world.owner(), world.owner());
        let session = create(&mut world, owner);
        say(&mut world, owner, &session, "hi");
        let list = world.call(owner, "approval.list", json!({})).expect("a list");
        let call = list["approvals"][0]["toolCallId"].clone();
        let params = json!({"sessionId": session, "toolCallId": call});
        world.call(owner, "tool.approve", params).expect("approved");
        world.advance(Duration::from_secs(2));
        let fed: Vec<_> = world.children().map(|child| child.fed.clone()).collect();
        (world.frames(owner), world.frames(viewer), world.store.db.clone(), fed)
    };
    let whole = run(&[]);
    assert!(whole.1.len() > 8, "{:?}", whole.1);
    for pieces in [&[1][..], &[2, 7, 1], &[64], &[4096]] {
        assert_eq!(run(pieces), whole, "pieces of {pieces:?}");
    }
}

#[test]
fn the_same_message_sent_again_is_one_message() {
    let (mut world, owner, session) = session_with(Vec::new());
    let params = json!({"sessionId": session, "content": "hi", "clientMessageId": "c1"});
    let first = world.call(owner, "session.sendMessage", params.clone()).expect("taken");
    world.advance(Duration::from_secs(2));
    let again = world.call(owner, "session.sendMessage", params.clone()).expect("the same");
    assert_eq!(first["id"], again["id"]);
    world.crash(Crash::Lost);
    let owner = world.owner();
    let again = world.call(owner, "session.sendMessage", params).expect("after a restart too");
    assert_eq!(first["id"], again["id"]);
    let all = messages(&mut world, owner, &session);
    assert_eq!(all.iter().filter(|message| message["role"] == "user").count(), 1);
    assert_eq!(world.children().count(), 1, "no second turn");
}

#[test]
fn the_same_message_sent_twice_at_once_is_one_message() {
    let (mut world, owner, session) = session_with(Vec::new());
    let params = json!({"sessionId": session, "content": "hi", "clientMessageId": "c1"});
    let asked = [(); 2].map(|()| world.ask(owner, "session.sendMessage", params.clone()));
    world.settle();
    let outcomes = asked.map(|asked| world.answer(owner, &asked).expect("an answer"));
    let first = outcomes[0].as_ref().expect("taken")["id"].clone();
    // The second came before the first was stored: it is the same message, or it is told to try again.
    match &outcomes[1] {
        Ok(second) => assert_eq!(second["id"], first),
        Err(error) => assert_eq!(error.data["retryable"], true, "{error:?}"),
    }
    let again = world.call(owner, "session.sendMessage", params).expect("now it is the same");
    assert_eq!(again["id"], first);
    let all = messages(&mut world, owner, &session);
    assert_eq!(all.iter().filter(|message| message["role"] == "user").count(), 1);
}

#[test]
fn a_busy_session_takes_no_second_message() {
    let (mut world, owner, session) = session_with(vec![vec![Act::bash("make")]]);
    say(&mut world, owner, &session, "build");
    let params = json!({"sessionId": session, "content": "and?"});
    let refused = world.call(owner, "session.sendMessage", params).expect_err("busy");
    assert_eq!((refused.code, &*refused.kind), (-32002, "session_busy"));
}

#[test]
fn a_session_that_is_not_there() {
    let mut world = World::default();
    let owner = world.owner();
    let params = json!({"sessionId": "00000000-0000-4000-8000-000000000000", "content": "x"});
    for method in ["session.get", "session.sendMessage", "session.delete", "session.cancel"] {
        assert_eq!(world.call(owner, method, params.clone()).expect_err(method).code, -32001);
    }
}

#[test]
fn a_paused_session_takes_messages_again_after_resume() {
    let (mut world, owner, session) = session_with(Vec::new());
    let id = json!({"sessionId": session});
    world.call(owner, "session.pause", id.clone()).expect("paused");
    assert_eq!(status(&mut world, owner, &session), "paused");
    let params = json!({"sessionId": session, "content": "hi"});
    let refused = world.call(owner, "session.sendMessage", params).expect_err("paused");
    assert_eq!((refused.code, &*refused.kind), (-32006, "session_paused"));
    world.crash(Crash::Lost);
    let owner = world.owner();
    assert_eq!(status(&mut world, owner, &session), "paused");
    world.call(owner, "session.resume", id).expect("resumed");
    say(&mut world, owner, &session, "hi");
    world.advance(Duration::from_secs(2));
    assert_eq!(status(&mut world, owner, &session), "idle");
}

#[test]
fn a_deleted_session_is_gone_with_its_agent() {
    let (mut world, owner, session) = session_with(vec![vec![Act::bash("make")]]);
    say(&mut world, owner, &session, "build");
    world.call(owner, "session.delete", json!({"sessionId": session})).expect("deleted");
    world.advance(Duration::from_secs(20));
    assert!(names(&world.events(owner)).contains(&"session.deleted"));
    assert!(world.children().all(|child| child.is_gone));
    assert!(world.children().all(|child| child.done.is_empty()));
    assert!(world.store.db.messages.is_empty() && world.store.db.tool_calls.is_empty());
    assert_eq!(
        world.call(owner, "approval.list", json!({})).expect("a list")["approvals"],
        json!([])
    );
}

#[test]
fn cancel_ends_a_turn_and_the_next_one_works() {
    let (mut world, owner, session) = session_with(vec![
        vec![Act::say("one "), Act::Wait(Duration::from_secs(60)), Act::say("two")],
        vec![Act::say("fresh")],
    ]);
    say(&mut world, owner, &session, "count");
    world.advance(Duration::from_secs(1));
    world.call(owner, "session.cancel", json!({"sessionId": session})).expect("cancelled");
    world.advance(Duration::from_secs(2));
    assert_eq!(status(&mut world, owner, &session), "idle");
    say(&mut world, owner, &session, "again");
    world.advance(Duration::from_secs(2));
    let all = messages(&mut world, owner, &session);
    assert_eq!(all.last().expect("a message")["content"], "fresh");
    assert!(all.iter().all(|message| message["status"] != "streaming"), "{all:?}");
}

#[test]
fn an_agent_that_ignores_an_interrupt_is_ended() {
    let (mut world, owner, session) = session_with(vec![vec![Act::say("one "), Act::Hang]]);
    say(&mut world, owner, &session, "count");
    world.call(owner, "session.cancel", json!({"sessionId": session})).expect("cancelled");
    world.advance(Duration::from_secs(30));
    assert!(world.children().all(|child| child.is_killed));
    assert_ne!(status(&mut world, owner, &session), "running");
    world.call(owner, "session.resume", json!({"sessionId": session})).ok();
    say(&mut world, owner, &session, "again");
    world.advance(Duration::from_secs(2));
    assert_eq!(status(&mut world, owner, &session), "idle");
}

#[test]
fn an_agent_that_crashes_leaves_an_error_and_no_open_end() {
    for (n, act) in
        [Act::Crash(1), Act::Crash(0), Act::Fail("overloaded".to_owned())].into_iter().enumerate()
    {
        let (mut world, owner, session) = session_with(vec![vec![Act::say("I "), act]]);
        say(&mut world, owner, &session, "hi");
        world.advance(Duration::from_secs(10));
        assert_eq!(status(&mut world, owner, &session), "error", "case {n}");
        let all = messages(&mut world, owner, &session);
        assert!(all.iter().all(|m| m["status"] == "done" || m["status"] == "error"), "{all:?}");
        world.call(owner, "session.resume", json!({"sessionId": session})).expect("resumed");
        assert_eq!(status(&mut world, owner, &session), "idle");
        say(&mut world, owner, &session, "again");
        world.advance(Duration::from_secs(2));
        assert_eq!(status(&mut world, owner, &session), "idle", "case {n}");
    }
}

#[test]
fn an_agent_that_crashes_while_it_asks_takes_its_question_along() {
    let ask = json!({"type": "control_request", "request_id": "ask_x", "request": {
        "subtype": "can_use_tool", "tool_name": "Bash", "display_name": "Bash",
        "input": {"command": "make"}, "tool_use_id": "toolu_x"}});
    let ask = Act::Write(Stream::Out, format!("{ask}\n").into_bytes());
    let (mut world, owner, session) = session_with(vec![vec![ask, Act::Crash(1)]]);
    say(&mut world, owner, &session, "build");
    world.advance(Duration::from_secs(1));
    let list = world.call(owner, "approval.list", json!({})).expect("a list");
    assert_eq!(list["approvals"], json!([]));
    let calls =
        world.call(owner, "session.toolCalls", json!({"sessionId": session})).expect("calls");
    assert_eq!(calls[0]["status"], "error", "{calls}");
    assert_ne!(status(&mut world, owner, &session), "running");
    assert!(world.children().all(|child| child.done.is_empty()));
}

#[test]
fn after_a_restart_the_conversation_goes_on() {
    let (mut world, owner, session) = session_with(vec![vec![Act::say("first")]]);
    say(&mut world, owner, &session, "hi");
    world.advance(Duration::from_secs(2));
    world.crash(Crash::Lost);
    let owner = world.owner();
    say(&mut world, owner, &session, "go on");
    world.advance(Duration::from_secs(2));
    assert_eq!(status(&mut world, owner, &session), "idle");
    let last = world.children().last().expect("an agent");
    assert!(last.command.args.iter().any(|arg| arg == "--resume"), "{:?}", last.command.args);
    let contents: Vec<_> =
        messages(&mut world, owner, &session).iter().map(|m| m["content"].clone()).collect();
    assert_eq!(contents, ["hi", "first", "go on", "ok"]);
}

#[test]
fn garbage_and_floods_of_an_agent_harm_nobody() {
    let endless = vec![b'x'; 9 * 1024 * 1024];
    let nasty: Vec<Vec<u8>> = vec![
        b"not json\n".to_vec(),
        b"{\"type\":\"assistant\"}\n{\"type\":7}\n[]\nnull\n\n".to_vec(),
        b"\xff\xfe\n".to_vec(),
        format!("{}\n", "[".repeat(10_000)).into_bytes(),
        b"{\"type\":\"result\"}\n".to_vec(),
        b"{\"type\":\"control_request\",\"request_id\":\"x\",\"request\":{\"subtype\":\"new\"}}\n"
            .to_vec(),
        endless,
    ];
    for (n, bytes) in nasty.into_iter().enumerate() {
        let script = vec![Act::Write(Stream::Out, bytes.clone()), Act::Write(Stream::Err, bytes)];
        let (mut world, owner, session) = session_with(vec![script]);
        world.cut_output(&[64 * 1024]);
        say(&mut world, owner, &session, "hi");
        world.advance(Duration::from_secs(30));
        world.call(owner, "daemon.ping", json!({})).expect("a pong");
        assert_ne!(status(&mut world, owner, &session), "running", "case {n}");
    }
}

#[test]
fn idle_agents_are_stopped_and_started_again_when_needed() {
    let (mut world, owner, session) = session_with(Vec::new());
    say(&mut world, owner, &session, "hi");
    world.advance(Duration::from_secs(700));
    assert!(world.children().all(|child| child.is_gone));
    assert_eq!(status(&mut world, owner, &session), "idle");
    say(&mut world, owner, &session, "hello again");
    world.advance(Duration::from_secs(2));
    assert_eq!(messages(&mut world, owner, &session).len(), 4);
}

#[test]
fn a_provider_that_cannot_work_is_named() {
    for (claude, word) in
        [(Claude::Missing, "install"), (Claude::LoggedOut, "log"), (Claude::Unsafe, "")]
    {
        let mut world = World::default();
        world.machine.claude = claude;
        let owner = world.owner();
        let refused = match world.call(owner, "session.create", json!({"repoPath": "/repo"})) {
            Err(refused) => refused,
            Ok(session) => {
                let params = json!({"sessionId": session["id"], "content": "hi"});
                world.call(owner, "session.sendMessage", params).expect_err("no provider")
            }
        };
        assert_eq!((refused.code, &*refused.kind), (-32002, "provider_not_available"));
        assert!(format!("{refused:?}").to_lowercase().contains(word), "{refused:?}");
        assert!(world.children().next().is_none());
    }
}

#[test]
fn a_model_that_was_chosen_reaches_the_agent() {
    let (mut world, owner, session) = session_with(Vec::new());
    let params = json!({"sessionId": session, "model": "claude-haiku-4-5"});
    let set = world.call(owner, "session.setModel", params).expect("set");
    assert_eq!(set["modelOverride"], "claude-haiku-4-5");
    say(&mut world, owner, &session, "hi");
    let child = world.children().next().expect("an agent");
    let fed = String::from_utf8_lossy(&child.fed).into_owned();
    let args = child.command.args.join(" ");
    assert!(format!("{args} {fed}").contains("claude-haiku-4-5"), "{args}\n{fed}");
}

#[test]
fn i1_no_prompt_is_an_argument() {
    let (mut world, owner, session) = session_with(Vec::new());
    say(&mut world, owner, &session, "--mcp-config=/tmp/x");
    let child = world.children().next().expect("an agent");
    assert!(!child.command.args.iter().any(|arg| arg.contains("mcp-config=/tmp")));
    assert!(String::from_utf8_lossy(&child.fed).contains("--mcp-config=/tmp/x"));
    assert_eq!(child.command.cwd, "/repo");
}

#[test]
fn pages_of_messages_are_complete_and_in_order() {
    let (mut world, owner, session) = session_with(Vec::new());
    for n in 0..6 {
        say(&mut world, owner, &session, &format!("m{n}"));
        world.advance(Duration::from_secs(2));
    }
    let page = |world: &mut World, params: Value| {
        world
            .call(owner, "session.getMessages", params)
            .expect("a page")
            .as_array()
            .cloned()
            .expect("an array")
    };
    let all = page(&mut world, json!({"sessionId": session}));
    assert_eq!(all.len(), 12);
    let last = page(&mut world, json!({"sessionId": session, "limit": 4}));
    assert_eq!(last, all[8..]);
    let before =
        page(&mut world, json!({"sessionId": session, "limit": 4, "before": last[0]["id"]}));
    assert_eq!(before, all[4..8]);
    let after = page(&mut world, json!({"sessionId": session, "limit": 3, "after": all[1]["id"]}));
    assert_eq!(after, all[2..5]);
}

#[test]
fn text_waits_for_what_was_told_before_it() {
    let read = Act::Use { name: "Read".to_owned(), input: json!({"file_path": "/repo/a"}) };
    let script = vec![Act::Wait(Duration::from_secs(1)), read, Act::say("after"), Act::Hang];
    let (mut world, owner, session) = session_with(vec![script]);
    say(&mut world, owner, &session, "hi");
    world.events(owner);
    world.hold_store();
    world.advance(Duration::from_secs(2));
    assert_eq!(names(&world.events(owner)), Vec::<&str>::new(), "the tool is not on disk yet");
    world.release_store();
    world.advance(Duration::from_secs(1));
    let events = world.events(owner);
    let order = names(&events);
    assert_eq!(order.first(), Some(&"session.toolCallCreated"), "{order:?}");
    assert_eq!(order.last(), Some(&"session.messageUpdated"), "{order:?}");
}

#[test]
fn a_program_that_prints_anything_but_stream_json_is_ended() {
    let prose = b"welcome to my shell\n".repeat(40);
    let (mut world, owner, session) =
        session_with(vec![vec![Act::Write(Stream::Out, prose), Act::Hang]]);
    say(&mut world, owner, &session, "hi");
    assert!(world.children().all(|child| child.is_killed));
    assert_eq!(status(&mut world, owner, &session), "error");
}

#[test]
fn after_a_crash_no_message_stays_unfinished() {
    let wait = Act::Wait(Duration::from_secs(60));
    let (mut world, owner, session) = session_with(vec![vec![Act::say("one"), wait]]);
    say(&mut world, owner, &session, "count");
    world.crash(Crash::Lost);
    let owner = world.owner();
    let all = messages(&mut world, owner, &session);
    assert_eq!(all[1]["status"], "error", "{all:?}");
    assert_eq!(all[1]["metadata"]["error"]["kind"], "interrupted", "{all:?}");
}

#[test]
fn the_same_message_sent_again_while_it_is_written_down_is_one_message() {
    let (mut world, owner, session) = session_with(Vec::new());
    let params = json!({"sessionId": session, "content": "hi", "clientMessageId": "c1"});
    world.hold_store();
    let asked = [(); 2].map(|()| {
        let asked = world.ask(owner, "session.sendMessage", params.clone());
        world.settle();
        asked
    });
    world.release_store();
    let [first, again] =
        asked.map(|asked| world.answer(owner, &asked).expect("an answer").expect("taken"));
    assert_eq!(first["id"], again["id"]);
}
