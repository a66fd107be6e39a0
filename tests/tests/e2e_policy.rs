//! What the settings say about approvals, held by the real daemon: each mode, nobody who listens, and rules that are none.

use std::fs;
use std::process::Command;

use clawd_tests::daemon::{Client, Daemon, PATIENCE, Site, wait_until};
use serde_json::{Value, json};

fn site(section: &str) -> Site {
    let site = Site::new();
    site.configure(&format!("[approvals]\n{section}\n"));
    site
}

fn calls(client: &mut Client, session: &str) -> Value {
    client.call("session.toolCalls", json!({"sessionId": session})).expect("calls")
}

fn decide(client: &mut Client, asked: &Value, decision: &str) {
    let params = json!({"approval_id": asked["approval_id"], "decision": decision});
    client.call("approval.respond", params).expect("decided");
}

#[test]
fn h2_in_mode_all_even_looking_is_asked_for() {
    let site = site("mode = \"all\"");
    let secret = site.repo().join("secret");
    fs::write(&secret, "canary").expect("written");
    let daemon = site.start();
    let mut owner = daemon.owner();
    let session = owner.create_session(&site.repo());
    for (decision, is_told) in [("deny", false), ("grant", true)] {
        owner.prompt(&session, &format!("read {}", secret.display())).expect("taken");
        let asked = owner.wait_event("tool.approvalRequested", |_| true);
        assert_eq!(asked["tool"], "Read");
        decide(&mut owner, &asked, decision);
        owner.wait_idle(&session);
        assert_eq!(calls(&mut owner, &session).to_string().contains("canary"), is_told);
    }
}

#[test]
fn h2_in_mode_none_nobody_is_asked_and_all_is_on_record() {
    let site = site("mode = \"none\"\ndeny = [\"Bash(rm)\"]");
    let kept = site.repo().join("kept");
    let daemon = site.start();
    let mut owner = daemon.owner();
    let session = owner.create_session(&site.repo());
    owner.turn(&session, &format!("tool touch {}", kept.display()));
    assert!(kept.exists(), "it ran without a question");
    owner.turn(&session, &format!("tool rm {}", kept.display()));
    assert!(kept.exists(), "what a rule denies is denied in every mode");
    assert!(owner.take_events().iter().all(|event| event["method"] != "tool.approvalRequested"));
    let calls = calls(&mut owner, &session);
    let decided =
        |n: usize| (calls[n]["decision"]["by"].clone(), calls[n]["decision"]["kind"].clone());
    assert_eq!(decided(0), (json!("policy"), json!("allow_once")));
    assert_eq!(decided(1), (json!("policy"), json!("deny")));
    let (_, log, _) = site.run(&["audit", "export"]);
    assert_eq!(log.matches("\"kind\":\"executed\"").count(), 1, "{log}");
    assert_eq!(log.matches("\"kind\":\"decided\"").count(), 2, "{log}");
}

/// A session whose agent reads from a pipe, so that it waits, and then asks; what opens the pipe.
fn held_back(daemon: &Daemon, site: &Site) -> (String, impl FnOnce()) {
    let pipe = site.repo().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
    let mut owner = daemon.owner();
    let session = owner.create_session(&site.repo());
    let mark = site.repo().join("mark");
    let prompt = format!("read {}\ntool touch {}", pipe.display(), mark.display());
    owner.prompt(&session, &prompt).expect("taken");
    owner.wait_event("session.toolCallCreated", |event| event["toolCall"]["name"] == "Read");
    (session, move || fs::write(&pipe, "go").expect("somebody reads it"))
}

#[test]
fn h1_where_nobody_listens_it_is_denied_at_once_if_the_owner_says_so() {
    for (when, waits) in [("deny", false), ("wait", true)] {
        let site = site(&format!("when_nobody_listens = \"{when}\""));
        let daemon = site.start();
        let mut reader = daemon.connect();
        reader.pair(&mut daemon.owner(), "read");
        let (session, go_on) = held_back(&daemon, &site);
        wait_until("only one who may not decide is left", PATIENCE, || {
            reader.call("daemon.status", json!({})).expect("a status")["connections"] == 1
        });
        go_on();
        let is_bash = |event: &Value| event["toolCall"]["name"] == "Bash";
        reader.wait_event("session.toolCallCreated", is_bash);
        let mut owner = daemon.owner();
        if waits {
            let list = owner.call("approval.list", json!({})).expect("a list");
            decide(&mut owner, &list["approvals"][0], "grant");
        }
        reader.wait_idle(&session);
        assert_eq!(site.repo().join("mark").exists(), waits, "{when}");
        let decision = calls(&mut owner, &session)[1]["decision"].clone();
        let by = if waits { ("owner", "allow_once") } else { ("daemon", "deny") };
        assert_eq!((decision["by"].as_str(), decision["kind"].as_str()), (Some(by.0), Some(by.1)));
    }
}

#[test]
fn h1_what_nobody_decides_in_time_is_denied_and_cannot_be_allowed_later() {
    let site = site("timeout_secs = 1");
    let daemon = site.start();
    let mut owner = daemon.owner();
    let session = owner.create_session(&site.repo());
    let mark = site.repo().join("mark");
    owner.prompt(&session, &format!("tool touch {}", mark.display())).expect("taken");
    let asked = owner.wait_event("tool.approvalRequested", |_| true);
    owner.wait_idle(&session);
    let id = asked["approval_id"].as_str().expect("an id");
    let (code, _, complaint) = site.run(&["approve", id, "--yes"]);
    assert_eq!(code, Some(9), "{complaint}");
    assert!(complaint.contains("expired"), "{complaint}");
    assert!(!mark.exists());
    let (_, log, _) = site.run(&["audit", "export"]);
    assert!(log.contains("expired") && !log.contains("\"kind\":\"executed\""), "{log}");
}

#[test]
fn a_mistake_in_a_rule_is_shown_by_every_command_that_reads_it() {
    for (section, place, says) in [
        (
            "allow = [\n  \"Bash(ls)\",\n  \"Bsah(ls)\",\n]",
            "config.toml:4:4: ",
            "did you mean `Bash`?",
        ),
        ("alow = [\"Bash(ls)\"]", "config.toml:2:1: ", "did you mean `allow`?"),
        ("deny = [\"Read(src/../a)\"]", "config.toml:2:19: ", "this can never match"),
        ("deny = [\"Bash(ls; rm x)\"]", "config.toml:2:", "in the rule `Bash(ls; rm x)`"),
        ("mode = \"nnone\"", "config.toml:2:8: ", "did you mean `none`?"),
    ] {
        let site = site(section);
        for args in [&["policy", "list"][..], &["policy", "test", "Bash(ls)"], &["status"]] {
            let (code, out, complaint) = site.run(args);
            assert_eq!((code, out.as_str()), (Some(2), ""), "{args:?}: {complaint}");
            assert!(complaint.contains(place) && complaint.contains(says), "{args:?}: {complaint}");
        }
        let (status, complaint) = site.try_start(0).expect_err("no daemon under such rules");
        assert_eq!(status.code(), Some(2), "{complaint}");
        assert!(complaint.contains(place) && complaint.contains(says), "serve: {complaint}");
        assert!(!site.token_path().exists(), "nothing was begun");
    }
}
