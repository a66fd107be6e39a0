//! The approval policy from outside: a real shell reads allowed lines as the policy does, `policy.test` says what would
//! happen, and `clawd policy` says the same with and without a daemon.

use std::process::Command;
use std::time::{Duration, Instant};

use clawd_protocol::policy::{Mode, Verdict};
use clawd_protocol::{Config, Limits};
use clawd_tests::daemon::{Site, skip};
use clawd_tests::policy::{generous, is_allowed, verdict};
use clawd_tests::{LOOPBACK, World};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use serde_json::{Value, json};

/// Lets a shell run a line in which every program that is allowed is a function that tells its words, and no other
/// program can be found.
fn run(shell: &str, line: &str) -> Option<Vec<Vec<String>>> {
    const PROGRAMS: &[&str] = &["git", "ls", "cat", "echo", "find", "cargo", "make"];
    let mut script = String::from("PATH=/nonexistent; ");
    for name in PROGRAMS {
        // In one piece, so that those in a pipe do not come between each other.
        script.push_str(&format!("{name}() {{ printf '%s\\1' {name} \"$@\" \u{2} >&2; }}; "));
    }
    // Without globs: the directory is not what is tested.
    let script = format!("{script} set -f; eval \"$1\"");
    let output = Command::new(shell).args(["-c", &script, "-", line]).output().ok()?;
    let told = String::from_utf8(output.stderr).expect("UTF-8");
    let (told, rest) = told.rsplit_once("\u{1}\u{2}\u{1}")?;
    assert_eq!(rest, "", "{shell} complains about {line:?}");
    let words = |command: &str| command.split('\u{1}').map(str::to_owned).collect();
    Some(told.split("\u{1}\u{2}\u{1}").map(words).collect())
}

/// The shells of this machine.
fn shells() -> Vec<&'static str> {
    let is_here = |shell: &&str| Command::new(shell).args(["-c", ":"]).output().is_ok();
    ["bash", "dash", "zsh", "sh"].into_iter().filter(is_here).collect()
}

fn lines() -> impl Strategy<Value = String> {
    const PIECES: &str = "git status,git log,ls,cat,echo,find .,cargo test,make test,-a,--x=y,a b,'a  b',\"c;d\",'$x',\
        HEAD~1,HEAD^,a'b'c,'',/x/y.rs,-name '*.rs',a*,x?,;,&&,||,|,&,$x,`x`,>,#,\\,!,{a},(,),\n";
    let pieces: Vec<&str> = PIECES.split(',').chain([","]).collect();
    let spaced = prop_oneof![4 => Just(" "), 1 => Just(""), 1 => Just("  ")];
    let piece =
        (proptest::sample::select(pieces), spaced).prop_map(|(piece, gap)| [piece, gap].concat());
    proptest::collection::vec(piece, 1..8).prop_map(|pieces| pieces.concat())
}

#[test]
fn h5_a_real_shell_runs_what_was_allowed_and_nothing_else() {
    let shells = shells();
    if shells.is_empty() {
        return skip("policy", "there is no shell here");
    }
    let policy = generous(Mode::Destructive);
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut allowed = 0;
    for _ in 0..3000 {
        let line = lines().new_tree(&mut runner).expect("a line").current();
        if verdict(&policy, &line) != Verdict::Allow {
            continue;
        }
        allowed += 1;
        for shell in &shells {
            let commands =
                run(shell, &line).unwrap_or_else(|| panic!("{shell} ran nothing: {line:?}"));
            for command in commands {
                assert!(is_allowed(&command), "{shell} ran {command:?} for {line:?}");
            }
        }
    }
    assert!(allowed > 40, "only {allowed} lines were allowed: that proves little");
}

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
