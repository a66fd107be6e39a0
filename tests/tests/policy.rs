//! The approval policy from outside: `policy.test` says what would happen, `clawd policy` says the same with and without a
//! daemon, and a rule that is none is an error with a place.

use std::time::{Duration, Instant};

use clawd_protocol::policy::Mode;
use clawd_protocol::{Config, Limits};
use clawd_tests::daemon::Site;
use clawd_tests::policy::generous;
use clawd_tests::{LOOPBACK, World};
use serde_json::{Value, json};

#[test]
fn policy_test_says_what_would_happen_to_everybody_who_may_read() {
    let config = Config {
        policy: generous(Mode::Destructive),
        limits: Limits::default(),
        ..Config::default()
    };
    let mut world = World::with_config(config);
    let owner = world.owner();
    let device = world.pair(owner, "read", "phone").client;
    let session = world.call(owner, "session.create", json!({"repoPath": "/repo"})).expect("one");
    let bash = |line: &str| json!({"tool": "Bash", "input": {"command": line}, "sessionId": session["id"]});
    let said =
        |world: &mut World, params: Value| world.call(device, "policy.test", params).expect("said");
    let allowed = said(&mut world, bash("ls -la"));
    assert_eq!(
        allowed,
        json!({"decision": "allow", "rule": "Bash(ls *)", "why": "a rule allows it"})
    );
    assert_eq!(said(&mut world, bash("rm x"))["decision"], "deny");
    assert_eq!(said(&mut world, bash("rm x"))["rule"], "Bash(rm *)");
    assert_eq!(said(&mut world, bash("cargo build"))["rule"], Value::Null);
    let read = json!({"tool": "Read", "input": {"file_path": "a"}});
    assert_eq!(said(&mut world, read)["decision"], "allow");
    for (params, field) in [
        (json!({"input": {}}), "tool"),
        (json!({"tool": "Bash"}), "input"),
        (json!({"tool": "Bash", "input": "ls"}), "input"),
        (json!({"tool": "Bash", "input": {}, "sessionId": 5}), "sessionId"),
    ] {
        let error = world.call(device, "policy.test", params).expect_err("refused");
        assert_eq!((error.code, error.data["field"].as_str()), (-32602, Some(field)));
    }
    let nowhere =
        json!({"tool": "Bash", "input": {}, "sessionId": "00000000-0000-4000-8000-000000000000"});
    assert_eq!(world.call(device, "policy.test", nowhere).expect_err("refused").code, -32001);
    let stranger = world.stranger(LOOPBACK);
    assert!(world.call(stranger, "policy.test", json!({})).is_err());
}

const SETTINGS: &str = "[approvals]\ntimeout_secs = 2\nwhen_nobody_listens = \"wait\"\n\
    deny = [\"Bash(rm *)\"]\nallow = [\"Bash(git status)\", \"Edit(src/**)\"]\n";

#[test]
fn the_command_says_the_same_with_and_without_a_daemon() {
    let site = Site::new();
    site.configure(SETTINGS);
    let repo = site.repo();
    let repo = repo.to_str().expect("UTF-8");
    let calls = [
        (["Bash(git status)", "-C", repo], 0, "allow", json!("Bash(git status)")),
        (["Bash(rm -rf target)", "-C", repo], 7, "deny", json!("Bash(rm *)")),
        (["Bash(git status; ls)", "-C", repo], 7, "ask", json!(null)),
        (["Edit(src/main.rs)", "-C", repo], 0, "allow", json!("Edit(src/**)")),
        (["Edit(/etc/passwd)", "-C", repo], 7, "ask", json!(null)),
        (["Read(/etc/passwd)", "-C", repo], 0, "allow", json!(null)),
    ];
    let check = |site: &Site| {
        for (args, code, decision, rule) in &calls {
            let (ended, answer, _) = site.run(&[&["policy", "test", "--json"], &args[..]].concat());
            let answer: Value = serde_json::from_str(&answer).expect("JSON");
            assert_eq!((ended, &answer["decision"]), (Some(*code), &json!(decision)), "{args:?}");
            assert_eq!(&answer["rule"], rule, "{args:?}");
        }
        let (code, answer, _) = site.run(&["policy", "list", "--json"]);
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        assert_eq!((code, &answer["timeoutSecs"]), (Some(0), &json!(2)));
        assert_eq!(answer["rules"][0], json!({"decision": "deny", "rule": "Bash(rm *)"}));
    };
    check(&site);
    let daemon = site.start();
    check(&site);
    let (code, answer, _) = site.run(&["policy", "test", "Bash(rm x)"]);
    assert_eq!((code, answer.as_str()), (Some(7), "deny: a rule denies it\n  rule: Bash(rm *)\n"));
    let (code, _, complaint) = site.run(&["policy", "test", "WebFetch", "x"]);
    assert_eq!(code, Some(2), "{complaint}");
    drop(daemon);
}

#[test]
fn a_timeout_in_the_settings_is_how_long_an_approval_waits() {
    let site = Site::new();
    site.configure(SETTINGS);
    let daemon = site.start();
    let mut owner = daemon.owner();
    let session = owner.create_session(&site.repo());
    owner.prompt(&session, "tool touch made").expect("the prompt is taken");
    let asked = Instant::now();
    owner.wait_event("tool.approvalRequested", |_| true);
    let resolved = owner.wait_event("tool.approvalResolved", |_| true);
    assert_eq!(resolved["kind"], "expired");
    assert!(asked.elapsed() >= Duration::from_secs(2), "{:?}", asked.elapsed());
    owner.wait_idle(&session);
    assert!(!site.repo().join("made").exists());
}

#[test]
fn a_rule_that_is_none_keeps_the_daemon_from_starting() {
    let site = Site::new();
    site.configure("[approvals]\nallow = [\"Bash(sudo *)\"]\n");
    let (code, _, complaint) = site.run(&["start"]);
    assert_eq!(code, Some(2));
    assert!(complaint.contains("config.toml:2:16: in the rule `Bash(sudo *)`"), "{complaint}");
    assert!(complaint.contains("^^^^"), "{complaint}");
}
