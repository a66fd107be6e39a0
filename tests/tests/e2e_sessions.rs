//! Sessions of the real daemon with a real child process that plays the agent.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use clawd_tests::daemon::{Client, PATIENCE, Site, wait_until, write_private};
use serde_json::{Value, json};

/// Sends a prompt that makes the agent ask for a tool; the call that waits for a decision.
fn ask(client: &mut Client, session: &str, command: &str) -> Value {
    client.prompt(session, &format!("tool {command}")).expect("the prompt is taken");
    let event = client.wait_event("session.toolCallCreated", |event| {
        event["sessionId"] == session && event["toolCall"]["status"] == "pending"
    });
    event["toolCall"].clone()
}

fn status_of(client: &mut Client, session: &str) -> String {
    let session = client.call("session.get", json!({"sessionId": session})).unwrap();
    session["status"].as_str().unwrap().to_owned()
}

#[test]
fn a_first_turn_tells_its_story_in_order() {
    let site = Site::new();
    let daemon = site.start();
    let mut owner = daemon.owner();
    let session = owner.create_session(&site.repo());
    owner.wait_event("session.created", |_| true);
    owner.take_events();
    let message = owner.prompt(&session, "say hello there").unwrap();
    assert_eq!(
        (&message["role"], &message["content"]),
        (&json!("user"), &json!("say hello there"))
    );
    owner.wait_event("session.statusChanged", |event| event["status"] == "completed");
    let mut story = Vec::new();
    let mut last_seq = 0;
    for event in owner.take_events() {
        let params = &event["params"];
        let seq = params["seq"].as_u64().expect("every event has a number");
        assert!(seq >= last_seq, "{event}");
        last_seq = seq;
        let told = match event["method"].as_str().unwrap() {
            "session.messageCreated" => format!("created {}", params["message"]["role"]),
            "session.statusChanged" => format!("status {}", params["status"]),
            "session.messageUpdated" => format!("updated {}", params["status"]),
            _ => continue,
        };
        if story.last() != Some(&told) {
            story.push(told);
        }
    }
    story.retain(|told| told != "updated \"streaming\"");
    let expected =
        ["created \"user\"", "status \"running\"", "created \"assistant\"", "updated \"done\""];
    assert_eq!(story, expected);
    owner.wait_idle(&session);
    let history = owner.call("session.getMessages", json!({"sessionId": session})).unwrap();
    let texts: Vec<&str> =
        history.as_array().unwrap().iter().filter_map(|m| m["content"].as_str()).collect();
    assert_eq!(texts, ["say hello there", "hello there"]);
    daemon.kill();
    let daemon = site.start();
    let kept = daemon.owner().call("session.getMessages", json!({"sessionId": session})).unwrap();
    assert_eq!(kept, history, "a restart changes nothing of it");
    assert_eq!(daemon.owner().turn(&session, "say again"), "again");
}

#[test]
fn one_prompt_sent_twice_is_one_turn() {
    let site = Site::new();
    let daemon = site.start();
    let mut owner = daemon.owner();
    let session = owner.create_session(&site.repo());
    let params = json!({"sessionId": session, "content": "say once", "clientMessageId": "c1"});
    let first = owner.call("session.sendMessage", params.clone()).unwrap();
    owner.wait_idle(&session);
    let second = owner.call("session.sendMessage", params).unwrap();
    assert_eq!(first["id"], second["id"]);
    let history = owner.call("session.getMessages", json!({"sessionId": session})).unwrap();
    assert_eq!(history.as_array().unwrap().len(), 2);
}

#[test]
fn h1_an_approved_tool_runs_exactly_once() {
    let site = Site::new();
    let daemon = site.start();
    let mut owner = daemon.owner();
    let session = owner.create_session(&site.repo());
    let file = site.repo().join("effect");
    let call = ask(&mut owner, &session, &format!("echo ran >> {}", file.display()));
    assert_eq!(
        owner.call("session.get", json!({"sessionId": session})).unwrap()["waitingFor"],
        "approval"
    );
    assert!(!file.exists(), "nothing runs before the decision");
    let ids = json!({"sessionId": session, "toolCallId": call["id"]});
    assert_eq!(owner.call("tool.approve", ids.clone()).unwrap()["approved"], true);
    owner.wait_idle(&session);
    assert_eq!(fs::read_to_string(&file).unwrap(), "ran\n");
    assert_eq!(owner.call("tool.approve", ids.clone()).unwrap()["approved"], true);
    assert_eq!(owner.call("tool.reject", ids).unwrap_err().code(), Some(-32602));
    assert_eq!(fs::read_to_string(&file).unwrap(), "ran\n", "deciding again runs nothing");
    let calls = owner.call("session.toolCalls", json!({"sessionId": session})).unwrap();
    assert_eq!(calls[0]["status"], "done");
}

#[test]
fn h1_a_denied_tool_does_not_run() {
    let site = Site::new();
    let daemon = site.start();
    let mut owner = daemon.owner();
    let session = owner.create_session(&site.repo());
    let file = site.repo().join("effect");
    let call = ask(&mut owner, &session, &format!("touch {}", file.display()));
    let ids = json!({"sessionId": session, "toolCallId": call["id"], "reason": "not today"});
    assert_eq!(owner.call("tool.reject", ids).unwrap()["rejected"], true);
    owner.wait_idle(&session);
    assert!(!file.exists());
    let calls = owner.call("session.toolCalls", json!({"sessionId": session})).unwrap();
    assert_eq!(calls[0]["decision"]["kind"], "deny");
}

#[test]
fn h1_cancelling_denies_what_waits() {
    let site = Site::new();
    let daemon = site.start();
    let mut owner = daemon.owner();
    let session = owner.create_session(&site.repo());
    let file = site.repo().join("effect");
    let call = ask(&mut owner, &session, &format!("touch {}", file.display()));
    owner.call("session.cancel", json!({"sessionId": session})).unwrap();
    owner.wait_event("session.statusChanged", |e| {
        e["sessionId"] == session && e["status"] != "running"
    });
    let ids = json!({"sessionId": session, "toolCallId": call["id"]});
    assert!(owner.call("tool.approve", ids).is_err());
    assert!(!file.exists());
    assert_eq!(owner.turn(&session, "say still here"), "still here");
}

#[test]
fn h6_a_call_belongs_to_its_session_and_readers_decide_nothing() {
    let site = Site::new();
    let daemon = site.start();
    let mut owner = daemon.owner();
    let (one, two) = (owner.create_session(&site.repo()), owner.create_session(&site.repo()));
    let file = site.repo().join("effect");
    let call = ask(&mut owner, &one, &format!("touch {}", file.display()));
    let crossed = json!({"sessionId": two, "toolCallId": call["id"]});
    assert!(owner.call("tool.approve", crossed).is_err());
    let mut reader = daemon.connect();
    reader.pair(&mut owner, "read");
    let ids = json!({"sessionId": one, "toolCallId": call["id"]});
    assert_eq!(reader.call("tool.approve", ids.clone()).unwrap_err().code(), Some(-32002));
    assert!(!file.exists());
    let mut approver = daemon.connect();
    approver.pair(&mut owner, "approve");
    approver.call("tool.approve", ids).expect("an approver may");
    owner.wait_idle(&one);
    assert!(file.exists());
}

#[test]
fn streaming_reaches_every_viewer_and_ends_with_the_whole_text() {
    let site = Site::new();
    let daemon = site.start();
    let (mut owner, mut viewer) = (daemon.owner(), daemon.owner());
    let session = owner.create_session(&site.repo());
    owner.prompt(&session, "stream 50").unwrap();
    owner.wait_idle(&session);
    let last = viewer.wait_event("session.messageUpdated", |event| event["status"] == "done");
    let history = owner.call("session.getMessages", json!({"sessionId": session})).unwrap();
    assert_eq!(history[1]["content"], last["content"]);
    assert!(!last["content"].as_str().unwrap().is_empty());
}

#[test]
fn a_hanging_agent_can_be_cancelled_and_pinged_past() {
    let site = Site::new();
    let daemon = site.start();
    let mut owner = daemon.owner();
    let session = owner.create_session(&site.repo());
    owner.prompt(&session, "hang").unwrap();
    owner.wait_event("session.statusChanged", |event| event["status"] == "running");
    assert_eq!(owner.prompt(&session, "say no").unwrap_err().code(), Some(-32002), "busy");
    owner.call("daemon.ping", json!({})).expect("C6: a busy session blocks nothing");
    owner.call("session.cancel", json!({"sessionId": session})).unwrap();
    owner.wait_event("session.statusChanged", |event| event["previous"] == "running");
    wait_until("the session can be used again", PATIENCE, || {
        status_of(&mut owner, &session) != "running"
    });
}

#[test]
fn an_agent_that_crashes_or_talks_nonsense_ends_its_turn_and_no_more() {
    let site = Site::new();
    let daemon = site.start();
    let mut owner = daemon.owner();
    for word in ["crash", "garbage"] {
        let session = owner.create_session(&site.repo());
        owner.prompt(&session, word).unwrap();
        owner.wait_event("session.statusChanged", |event| {
            event["sessionId"] == *session && event["status"] != "running"
        });
        if status_of(&mut owner, &session) == "error" {
            owner.call("session.resume", json!({"sessionId": session})).unwrap();
        }
        assert_eq!(owner.turn(&session, "say well"), "well", "after {word}");
    }
}

#[test]
fn i1_neither_prompts_nor_secrets_are_arguments() {
    let site = Site::new();
    let daemon = site.start();
    let mut owner = daemon.owner();
    let session = owner.create_session(&site.repo());
    let hostile = "--mcp-config=/tmp/x";
    owner.prompt(&session, &format!("say {hostile}\nhang")).unwrap();
    owner.wait_event("session.statusChanged", |event| event["status"] == "running");
    let agents = || -> Vec<String> {
        let all = fs::read_dir("/proc").unwrap().filter_map(|entry| {
            let args = fs::read(entry.ok()?.path().join("cmdline")).ok()?;
            Some(String::from_utf8_lossy(&args).replace('\0', " "))
        });
        all.filter(|args| args.contains("stream-json") && args.contains("scripted-claude"))
            .collect()
    };
    wait_until("the agent runs", PATIENCE, || !agents().is_empty());
    for args in agents() {
        assert!(!args.contains(hostile) && !args.contains("hang"), "{args}");
        assert!(args.contains("--permission-prompt-tool stdio"), "H1: {args}");
        assert!(!args.contains("dangerously"), "H1: {args}");
    }
    owner.call("session.cancel", json!({"sessionId": session})).unwrap();
}

#[test]
fn i3_the_agents_environment_is_made_of_what_it_needs() {
    let mut site = Site::new();
    site.configure("");
    let hostile = [
        "LD_PRELOAD_CANARY",
        "NODE_OPTIONS",
        "BASH_ENV",
        "GIT_SSH_COMMAND",
        "ANTHROPIC_BASE_URL",
        "CLAWD_CANARY",
        "PYTHONPATH",
        "AWS_SECRET_ACCESS_KEY",
    ];
    site.env = hostile.iter().map(|name| ((*name).to_owned(), "canary-env".to_owned())).collect();
    let daemon = site.start();
    let mut owner = daemon.owner();
    let session = owner.create_session(&site.repo());
    let text = owner.turn(&session, "env");
    assert!(text.contains("HOME") && text.contains("PATH"), "{text}");
    for name in hostile {
        assert!(!text.contains(name), "{name} reached the agent: {text}");
    }
    assert!(!text.contains("canary-env"), "{text}");
}

/// Puts a program called claude into the repository, which notes its arguments; the file it notes them in.
fn plant(site: &Site) -> PathBuf {
    let (notes, fake) = (site.home().join("notes"), site.repo().join("claude"));
    let script = format!("#!/bin/sh\necho \"ran $*\" >> {}\n", notes.display());
    fs::write(&fake, script).unwrap();
    fs::set_permissions(&fake, fs::Permissions::from_mode(0o755)).unwrap();
    notes
}

#[test]
fn i2_a_program_in_the_working_directory_never_runs() {
    let mut site = Site::new();
    let notes = plant(&site);
    write_private(&site.data().join("config.toml"), b"");
    site.env = vec![("PATH".to_owned(), ".::repo:/usr/bin:/bin".to_owned())];
    site.before = Some("cd repo".to_owned());
    let daemon = site.start();
    let mut owner = daemon.owner();
    let params = json!({"repoPath": site.repo(), "provider": "claude"});
    if let Ok(session) = owner.call("session.create", params) {
        let refused = owner.prompt(session["id"].as_str().unwrap(), "say x").unwrap_err();
        assert_eq!(refused.code(), Some(-32002));
    }
    let claude = owner.call("daemon.checkProvider", json!({"provider": "claude"})).unwrap();
    assert_eq!(claude["available"], false, "{claude}");
    assert!(!notes.exists(), "it ran");
}

#[test]
fn i2_a_program_never_works_in_the_repository_that_it_lies_in() {
    let site = Site::new();
    let notes = plant(&site);
    let toml = format!("[provider.claude]\npath = \"{}\"\n", site.repo().join("claude").display());
    write_private(&site.data().join("config.toml"), toml.as_bytes());
    let daemon = site.start();
    let mut owner = daemon.owner();
    let params = json!({"repoPath": site.repo(), "provider": "claude"});
    if let Ok(session) = owner.call("session.create", params) {
        let id = session["id"].as_str().unwrap();
        if owner.prompt(id, "say x").is_ok() {
            owner.wait_event("session.statusChanged", |event| event["status"] == "error");
        }
    }
    let noted = fs::read_to_string(&notes).unwrap_or_default();
    assert!(!noted.contains("stream-json"), "it was given a session: {noted}");
}

#[test]
fn j4_no_session_works_where_secrets_are() {
    let site = Site::new();
    for dir in [".ssh", ".claude", ".codex"] {
        fs::create_dir(site.home().join(dir)).unwrap();
    }
    let link = site.repo().join("link");
    std::os::unix::fs::symlink(site.data(), &link).unwrap();
    let daemon = site.start();
    let mut owner = daemon.owner();
    let dotted = site.repo().join("../data");
    for path in [
        site.data(),
        link,
        dotted,
        site.home().join(".ssh"),
        site.home().join(".claude"),
        "/".into(),
    ] {
        let params = json!({"repoPath": path, "provider": "claude"});
        assert!(owner.call("session.create", params).is_err(), "{}", path.display());
    }
    let missing = json!({"repoPath": site.repo().join("none"), "provider": "claude"});
    assert_eq!(owner.call("session.create", missing).unwrap_err().code(), Some(-32005));
}

#[test]
fn a_session_is_renamed_paused_and_deleted_for_everybody() {
    let site = Site::new();
    let daemon = site.start();
    let (mut owner, mut viewer) = (daemon.owner(), daemon.owner());
    let session = owner.create_session(&site.repo());
    let id = json!({"sessionId": session});
    owner.call("session.rename", json!({"sessionId": session, "title": "new"})).unwrap();
    viewer.wait_event("session.updated", |event| event.to_string().contains("new"));
    owner.call("session.pause", id.clone()).unwrap();
    assert_eq!(owner.prompt(&session, "say x").unwrap_err().code(), Some(-32006));
    owner.call("session.resume", id.clone()).unwrap();
    owner.turn(&session, "say x");
    owner.call("session.delete", id.clone()).unwrap();
    viewer.wait_event("session.deleted", |_| true);
    assert_eq!(owner.call("session.get", id).unwrap_err().code(), Some(-32001));
    assert_eq!(owner.call("session.list", json!({})).unwrap(), json!([]));
}
