//! Codex under the real daemon: one process for many conversations, and asks of every kind, of which only those run that
//! somebody allowed. The adapter alone is tested where it is; the real codex is in `real-agents.sh`.

use std::fs;
use std::path::PathBuf;

use clawd_tests::daemon::{Client, Daemon, Site, scripted_codex};
use serde_json::{Value, json};

struct Desk {
    site: Site,
    daemon: Daemon,
    owner: Client,
}

impl Desk {
    fn new(section: &str) -> Self {
        let site = Site::new();
        let path = scripted_codex().display();
        site.configure(&format!("{section}\n[provider.codex]\npath = \"{path}\"\n"));
        let daemon = site.start();
        let owner = daemon.owner();
        Self { site, daemon, owner }
    }

    fn session(&mut self) -> String {
        let params = json!({"repoPath": self.site.repo(), "provider": "codex"});
        let session = self.owner.call("session.create", params).expect("a session");
        session["id"].as_str().expect("an id").to_owned()
    }

    fn mark(&self) -> PathBuf {
        self.site.repo().join("mark")
    }

    fn wait_asked(&mut self, session: &str) -> Value {
        self.owner.wait_event("tool.approvalRequested", |event| event["sessionId"] == session)
    }

    fn decide(&mut self, asked: &Value, decision: &str) {
        let params = json!({"approval_id": asked["approval_id"], "decision": decision});
        self.owner.call("approval.respond", params).expect("decided");
    }

    fn waiting(&mut self) -> usize {
        let list = self.owner.call("approval.list", json!({})).expect("a list");
        list["approvals"].as_array().expect("an array").len()
    }
}

#[test]
fn h1_codex_does_what_was_allowed_once_and_in_that_conversation_only() {
    let mut desk = Desk::new("");
    let (one, two) = (desk.session(), desk.session());
    let process = desk.owner.turn(&one, "who");
    assert_eq!(desk.owner.turn(&two, "who"), process, "one process for both");
    let prompt = |n: u8| format!("tool echo {n} >> mark\nsay done");
    for (session, n) in [(&one, 1), (&two, 2)] {
        desk.owner.prompt(session, &prompt(n)).expect("taken");
    }
    let (first, second) = (desk.wait_asked(&one), desk.wait_asked(&two));
    assert_eq!(first["toolCall"]["input"]["command"], "echo 1 >> mark");
    assert!(!desk.mark().exists(), "nothing runs before the decision");
    let crossed = json!({"sessionId": one, "toolCallId": second["toolCallId"]});
    assert!(desk.owner.call("tool.approve", crossed).is_err(), "another session's call");
    desk.decide(&second, "grant");
    desk.owner.wait_idle(&two);
    assert_eq!(fs::read_to_string(desk.mark()).expect("it ran"), "2\n");
    desk.decide(&second, "grant");
    desk.decide(&first, "deny");
    desk.owner.wait_idle(&one);
    assert_eq!(
        fs::read_to_string(desk.mark()).expect("it ran"),
        "2\n",
        "once, and only the second"
    );
    let (code, _, complaint) = desk.site.run(&["audit", "verify"]);
    assert_eq!(code, Some(0), "{complaint}");
    assert!(desk.daemon.stop().success());
}

#[test]
fn h1_no_ask_of_codex_that_is_malformed_is_allowed_by_anybody() {
    // With the first two nobody would be asked if they were sound.
    for (mode, step) in [("none", "ask-more"), ("none", "ask-unnamed"), ("all", "ask-twice")] {
        let mut desk = Desk::new(&format!("[approvals]\nmode = \"{mode}\""));
        let session = desk.session();
        desk.owner.prompt(&session, &format!("{step} touch mark")).expect("taken");
        desk.owner.wait_idle(&session);
        assert_eq!(desk.waiting(), 0, "{step}");
        let ids: Vec<String> = desk.owner.take_events().iter().filter_map(approval).collect();
        for id in ids {
            let params = json!({"approval_id": id, "decision": "grant"});
            assert!(desk.owner.call("approval.respond", params).is_err(), "{step}: too late");
        }
        assert_eq!(desk.owner.turn(&session, "say well"), "well", "{step}");
        let left = || fs::read_dir(desk.site.repo()).expect("a directory").count();
        assert_eq!(left(), 0, "{step}: a side effect");
    }
}

fn approval(event: &Value) -> Option<String> {
    event["params"]["approval_id"].as_str().map(str::to_owned)
}

#[test]
fn h6_what_codex_asks_for_after_a_cancel_is_refused() {
    let mut desk = Desk::new("[approvals]\nmode = \"none\"");
    let session = desk.session();
    desk.owner.prompt(&session, "say before\nask-late touch mark").expect("taken");
    desk.owner.wait_event("session.messageUpdated", |event| event["content"] == "before");
    desk.owner.call("session.cancel", json!({"sessionId": session})).expect("cancelled");
    desk.owner.wait_idle(&session);
    assert_eq!(desk.owner.turn(&session, "say after"), "after");
    assert_eq!(desk.waiting(), 0);
    assert!(!desk.mark().exists(), "it ran though it was cancelled");
}

#[test]
fn h1_a_codex_that_dies_between_ask_and_answer_does_nothing_and_all_its_sessions_go_on() {
    let mut desk = Desk::new("");
    let (one, two) = (desk.session(), desk.session());
    let process = desk.owner.turn(&two, "who");
    desk.owner.prompt(&one, "ask-die touch mark").expect("taken");
    let asked = desk.wait_asked(&one);
    desk.owner.wait_event("session.statusChanged", |event| {
        event["sessionId"] == *one && event["status"] == "error"
    });
    let params = json!({"approval_id": asked["approval_id"], "decision": "grant"});
    assert!(desk.owner.call("approval.respond", params).is_err(), "nobody is there to take it");
    assert_ne!(desk.owner.turn(&two, "who"), process, "another process");
    desk.owner.call("session.resume", json!({"sessionId": one})).expect("resumed");
    assert_eq!(desk.owner.turn(&one, "say well"), "well");
    assert!(!desk.mark().exists());
}
