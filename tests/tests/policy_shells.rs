//! A real shell reads allowed lines as the policy does (security H5).
//!
//! Alone in its program: it starts thousands of shells, and each that ends interrupts the reading of all other tests.

use std::process::Command;

use clawd_protocol::policy::{Mode, Verdict};
use clawd_tests::daemon::skip;
use clawd_tests::policy::{generous, is_allowed, verdict};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;

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
