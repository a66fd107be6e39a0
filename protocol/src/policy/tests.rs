//! Judgements: the order of rules and modes, names of tools (H2), paths. Lines for the shell are in `commands`.

use alloc::format;
use alloc::string::String;
use alloc::vec;

use serde_json::json;

use super::*;

mod commands;

/// A policy of these rules, each with its verdict before it: `deny Bash(rm *)`.
fn policy(mode: Mode, rules: &[&str]) -> Policy {
    let parse = |line: &&str| {
        let (verdict, rule) = line.split_once(' ').unwrap();
        let verdict = match verdict {
            "allow" => Verdict::Allow,
            "ask" => Verdict::Ask,
            "deny" => Verdict::Deny,
            other => panic!("no verdict: {other}"),
        };
        Rule::parse(verdict, rule).unwrap_or_else(|fault| panic!("{rule}: {fault:?}"))
    };
    let rules = rules.iter().map(parse).collect();
    Policy { mode, rules, home: Some("/home/me".into()), ..Policy::default() }
}

fn file(policy: &Policy, tool: &str, path: &str) -> Verdict {
    let key = if tool.starts_with("Notebook") { "notebook_path" } else { "file_path" };
    policy.judge(tool, &json!({ key: path }).to_string(), "/repo").verdict
}

fn patch(policy: &Policy, changes: serde_json::Value) -> Verdict {
    policy.judge("ApplyPatch", &json!({ "changes": changes }).to_string(), "/repo").verdict
}

/// Two hundred names that are on no list, most of them near one that is.
fn names_that_may_change_something() -> Vec<String> {
    let mut names: Vec<String> = [
        "Bash",
        "Edit",
        "Write",
        "MultiEdit",
        "NotebookEdit",
        "ApplyPatch",
        "WebFetch",
        "WebSearch",
        "Task",
        "Agent",
        "TodoWrite",
        "KillShell",
        "BashOutput",
        "Skill",
        "SlashCommand",
        "AskUserQuestion",
        "ExitPlanMode",
        "",
        " ",
        "*",
        "Read*",
        "Read|Bash",
        "Read,Bash",
        "Read;Bash",
        "Read\nBash",
        "Read\0",
        "Read()",
        "Read(/etc/**)",
        "mcp__x__read_and_delete",
        "mcp__x__read",
        "mcp__x__Read",
        "mcp__Read__Read",
        "mcp__fs__list_directory",
        "mcp__Grep__x",
        "Readme",
        "ReadWrite",
        "ReadFile",
        "read_file",
        "PreRead",
        "UnRead",
        "Thread",
        "Spread",
        "Globe",
        "GlobalDelete",
        "Grepper",
        "LSD",
        "LSX",
        "TodoReader",
        "NotebookReader",
        "NotebookRead2",
        "__Read",
        "Read__",
        "_Read",
        "Read_",
        "Read.",
        "./Read",
        "Read/",
        "Ｒead",
        "Reаd",
        "Rеad",
        "Rеаd",
        "Ꮢead",
        "𝐑ead",
        "Read\u{200b}",
        "\u{feff}Read",
        "Re\u{ad}ad",
        "Read\u{202e}",
        "R\u{65}\u{301}ad",
        "Ｇrep",
        "Grер",
        "Gŀob",
        "GIob",
        "G1ob",
        "1S",
        "IS",
        "ʟꜱ",
        "ＬＳ",
        "ĻS",
        "TоdoRead",
        "NоtebookRead",
        "NotebookＲead",
    ]
    .map(String::from)
    .to_vec();
    for tool in READ_ONLY {
        names.extend([tool.to_lowercase(), tool.to_uppercase(), tool.chars().rev().collect()]);
        for wrap in [
            "{} ",
            " {}",
            "{}\t",
            "{}\n",
            "{}\r",
            "{}{}",
            "{}s",
            "{}AndDelete",
            "x{}",
            "mcp__{}",
            "{}-write",
            "{}\u{a0}",
            "\"{}\"",
            "{}=1",
            "{}:Bash",
            "mcp__a__{}",
            "{}#",
            "Bash{}",
        ] {
            names.push(wrap.replace("{}", tool));
        }
    }
    names.retain(|name| !READ_ONLY.contains(&name.as_str()));
    names.sort();
    names.dedup();
    names
}

#[test]
fn h2_only_listed_names_pass_silently() {
    let names = names_that_may_change_something();
    assert!(names.len() >= 190, "{}", names.len());
    let input = r#"{"file_path":"a","notebook_path":"a","path":".","pattern":"x","command":"ls"}"#;
    let destructive = Policy::default();
    for name in &names {
        let judgement = destructive.judge(name, input, "/repo");
        assert_eq!(judgement.verdict, Verdict::Ask, "{name:?}");
        assert!(!destructive.may_pass_unasked(name, input, "/repo"), "{name:?}");
    }
    for name in READ_ONLY {
        assert_eq!(destructive.judge(name, input, "/repo").verdict, Verdict::Allow, "{name}");
        assert!(destructive.may_pass_unasked(name, input, "/repo"), "{name}");
    }
}

#[test]
fn h2_a_rule_on_a_name_allows_that_name_only() {
    let policy =
        policy(Mode::Destructive, &["allow WebFetch", "allow mcp__gh__get", "allow mcp__docs__*"]);
    let verdict = |name: &str| policy.judge(name, "{}", "/repo").verdict;
    for name in ["WebFetch", "mcp__gh__get", "mcp__docs__read", "mcp__docs__a__b"] {
        assert_eq!(verdict(name), Verdict::Allow, "{name}");
        assert!(
            !policy.may_pass_unasked(name, "{}", "/repo"),
            "{name}: the daemon says so, not the agent"
        );
    }
    for name in [
        "webfetch",
        "WebFetch2",
        "mcp__gh__get_x",
        "mcp__gh__",
        "mcp__docs__",
        "mcp__docs",
        "mcp__docs2__x",
        "xmcp__docs__x",
        "MCP__docs__x",
        "WebFetсh",
    ] {
        assert_eq!(verdict(name), Verdict::Ask, "{name}");
    }
}

#[test]
fn the_stronger_verdict_counts_whatever_the_order() {
    let mut rules = ["allow Edit(src/**)", "ask Edit(src/main.rs)", "deny Edit(src/secret/**)"];
    for _ in 0..3 {
        rules.rotate_left(1);
        let policy = policy(Mode::None, &rules);
        assert_eq!(file(&policy, "Edit", "src/lib.rs"), Verdict::Allow);
        assert_eq!(file(&policy, "Edit", "src/main.rs"), Verdict::Ask);
        assert_eq!(file(&policy, "Edit", "src/secret/key"), Verdict::Deny);
    }
    let policy = policy(Mode::Destructive, &["deny WebFetch", "deny WebFetch"]);
    let judgement = policy.judge("WebFetch", "{}", "/repo");
    assert!(core::ptr::eq(judgement.rule.unwrap(), &policy.rules[0]), "the first of them is named");
}

#[test]
fn modes_decide_where_no_rule_does() {
    for (mode, look, change) in [
        (Mode::All, Verdict::Ask, Verdict::Ask),
        (Mode::Destructive, Verdict::Allow, Verdict::Ask),
        (Mode::None, Verdict::Allow, Verdict::Allow),
    ] {
        let policy = policy(mode, &[]);
        assert_eq!(file(&policy, "Read", "a"), look, "{mode:?}");
        assert_eq!(file(&policy, "Write", "a"), change, "{mode:?}");
        let input = r#"{"file_path":"a"}"#;
        assert_eq!(policy.may_pass_unasked("Read", input, "/repo"), mode != Mode::All);
        assert!(!policy.may_pass_unasked("Write", input, "/repo"));
        for question in ["AskUserQuestion", "ExitPlanMode"] {
            assert_eq!(policy.judge(question, "{}", "/repo").verdict, Verdict::Ask, "{question}");
        }
    }
}

#[test]
fn h5_an_input_that_cannot_be_read_asks() {
    let policy = policy(Mode::None, &["allow Bash(ls *)", "allow Edit", "allow ApplyPatch(**)"]);
    for (tool, input) in [
        ("Bash", ""),
        ("Bash", "null"),
        ("Bash", "[]"),
        ("Bash", "{}"),
        ("Bash", "\"ls\""),
        ("Bash", "{\"command\":1}"),
        ("Bash", "{\"command\":\"ls\"} x"),
        ("Bash", "{\"command\":\"ls\",\"command\":\"rm x\"}"),
        ("Bash", "{\"command\":\"ls\",\"comm\\u0061nd\":\"rm x\"}"),
        ("Bash", "{\"command\":\"\\ud800\"}"),
        ("Edit", "{\"file_path\":[\"a\"]}"),
        ("Edit", "{\"path\":\"a\"}"),
        ("Edit", "{\"file_path\":\"a\",\"path\":1}"),
        ("ApplyPatch", "{}"),
        ("ApplyPatch", "{\"changes\":[]}"),
        ("ApplyPatch", "{\"changes\":{}}"),
        ("ApplyPatch", "{\"changes\":[{\"kind\":\"add\"}]}"),
        ("ApplyPatch", "{\"changes\":[{\"path\":\"a\"},1]}"),
        ("ApplyPatch", "{\"changes\":[{\"path\":\"a\",\"kind\":[]}]}"),
        ("ApplyPatch", "{\"changes\":[{\"path\":\"a\",\"kind\":{\"move_path\":1}}]}"),
        ("WebFetch", "{"),
    ] {
        assert_eq!(policy.judge(tool, input, "/repo").verdict, Verdict::Ask, "{tool} {input}");
    }
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(policy.judge("Bash", &deep, "/repo").verdict, Verdict::Ask);
}

#[test]
fn h5_an_allow_holds_only_for_plain_paths() {
    let policy =
        policy(Mode::Destructive, &["allow Edit(src/**)", "allow Write", "allow Edit(/srv/x/*)"]);
    for path in ["src/a.rs", "/repo/src/a/b.rs", "./src/a", "src//a", "/srv/x/y"] {
        assert_eq!(file(&policy, "Edit", path), Verdict::Allow, "{path}");
        assert_eq!(file(&policy, "MultiEdit", path), Verdict::Allow, "{path}");
    }
    for path in [
        "src/../x",
        "../repo/src/a",
        "src/../src/a",
        "SRC/a",
        "src2/a",
        "/src/a",
        "/repo2/src/a",
        "~/src/a",
        "src/a\nb",
        "src/a\u{202e}b",
        " src/a",
        "src/a ",
        "src/.git/hooks/pre-commit",
        "src/.claude/settings.json",
        "src/.GIT/config",
        "/srv/x/y/z",
        "/srv/x",
        "src\\a",
        "",
        "/",
        "src/.vscode/tasks.json",
    ] {
        assert_eq!(file(&policy, "Edit", path), Verdict::Ask, "{path:?}");
    }
    assert_eq!(file(&policy, "Write", "a"), Verdict::Allow);
    for path in ["/etc/passwd", "../a", "/repo/../etc/x", "/repos/a", ".mcp.json", ".git/config"] {
        assert_eq!(file(&policy, "Write", path), Verdict::Ask, "outside of the session: {path}");
    }
    let nowhere = r#"{"file_path":"src/a"}"#;
    for cwd in ["", "repo", "~", "/repo/../x", "."] {
        assert_eq!(policy.judge("Edit", nowhere, cwd).verdict, Verdict::Ask, "{cwd:?}");
    }
}

#[test]
fn h5_a_denied_path_is_denied_however_it_is_written() {
    let policy =
        policy(Mode::None, &["deny Read(~/.ssh/**)", "deny Edit(/etc/**)", "ask Read(**/.env)"]);
    for path in [
        "/home/me/.ssh/id_rsa",
        "/home/me//.ssh/./id_rsa",
        "/HOME/me/.SSH/id_rsa",
        "~/.ssh/id_rsa",
        "../home/me/.ssh/id_rsa",
        "/home/me/.\u{17f}sh/id_rsa",
        "/home/me/x/../.ssh/id_rsa",
        "/home/me/.ssh",
    ] {
        assert_eq!(file(&policy, "Read", path), Verdict::Deny, "{path}");
    }
    assert_eq!(file(&policy, "Write", "/etc/passwd"), Verdict::Deny);
    assert_eq!(file(&policy, "Write", "a/../../etc/passwd"), Verdict::Deny);
    for path in ["a/.env", ".ENV", "x/../y", "~other/x", "a\u{200b}", " a"] {
        assert_eq!(file(&policy, "Read", path), Verdict::Ask, "{path:?}");
    }
    assert_eq!(file(&policy, "Read", "/usr/share/doc"), Verdict::Allow);
    assert!(!policy.may_pass_unasked("Read", r#"{"file_path":".env"}"#, "/repo"));
}

#[test]
fn h5_a_search_above_a_denied_path_asks() {
    let policy = policy(Mode::Destructive, &["deny Read(secret/**)"]);
    let search = |tool: &str, input: serde_json::Value| {
        policy.judge(tool, &input.to_string(), "/repo").verdict
    };
    assert_eq!(search("Grep", json!({"pattern": "x", "path": "secret"})), Verdict::Deny);
    assert_eq!(search("Grep", json!({"pattern": "x"})), Verdict::Ask);
    assert_eq!(search("LS", json!({"path": "/"})), Verdict::Ask);
    assert_eq!(
        search("Grep", json!({"pattern": "../secret", "path": "/repo/src"})),
        Verdict::Allow
    );
    assert_eq!(
        search("Glob", json!({"pattern": "../secret/*", "path": "/repo/src"})),
        Verdict::Deny
    );
    assert_eq!(
        search("Glob", json!({"pattern": "/repo/secret/*", "path": "/repo/src"})),
        Verdict::Deny
    );
    assert_eq!(search("Glob", json!({"pattern": "*.rs", "path": "/repo/src"})), Verdict::Allow);
}

#[test]
fn a_patch_is_allowed_only_if_all_of_it_is() {
    let policy = policy(
        Mode::Destructive,
        &["allow Edit(src/**)", "allow Edit(docs/*)", "deny Edit(src/x/**)"],
    );
    let to = |path: &str| json!({"path": path, "kind": "update", "diff": "x"});
    assert_eq!(patch(&policy, json!([to("src/a"), to("docs/b")])), Verdict::Allow);
    assert_eq!(patch(&policy, json!([to("src/a"), to("c")])), Verdict::Ask);
    assert_eq!(patch(&policy, json!([to("src/a"), to("src/x/a")])), Verdict::Deny);
    let moved = |to: &str| json!([{"path": "src/a", "kind": {"type": "update", "move_path": to}}]);
    assert_eq!(patch(&policy, moved("src/b")), Verdict::Allow);
    assert_eq!(patch(&policy, moved("/etc/cron.d/b")), Verdict::Ask);
    assert_eq!(patch(&policy, moved("src/x/b")), Verdict::Deny);
}

#[test]
fn a_rule_with_a_fault_says_where() {
    let fault = |verdict, text: &str| {
        let fault = Rule::parse(verdict, text).unwrap_err();
        (fault.at, fault.len, fault.nearest)
    };
    let near = |name: &str| Some(String::from(name));
    for (text, expected) in [
        ("", (0, 1, None)),
        ("Bash(ls", (7, 1, None)),
        ("Bash()", (5, 1, None)),
        ("Bash(*)", (5, 1, None)),
        ("Bash(ls; rm)", (7, 1, None)),
        ("Bash(ls $(x))", (8, 1, None)),
        ("Bash(ls\nrm)", (7, 1, None)),
        ("Bash(ls * x)", (8, 1, None)),
        ("bash(ls)", (0, 4, near("Bash"))),
        ("Reed(a)", (0, 4, near("Read"))),
        ("Read(../a)", (5, 1, None)),
        ("Read(a//b)", (7, 1, None)),
        ("WebFetch(a)", (9, 1, None)),
        ("mcp__x", (0, 6, near("mcp__x__*"))),
        ("mcp__x__*(a)", (10, 1, None)),
        ("mcp__*", (0, 6, None)),
        ("Web*", (3, 1, None)),
        ("*", (0, 1, None)),
        ("Bash ", (4, 1, None)),
        ("Bаsh", (1, 2, None)),
    ] {
        assert_eq!(fault(Verdict::Deny, text), expected, "{text}");
        assert!(Rule::parse(Verdict::Allow, text).is_err(), "{text}");
    }
    let long = vec!["a"; 2000].concat();
    assert!(Rule::parse(Verdict::Deny, &long).is_err());
}

#[test]
fn h5_what_would_allow_anything_is_no_rule() {
    for text in [
        "Bash",
        "Bash(sudo *)",
        "Bash(sudo ls)",
        "Bash(env *)",
        "Bash(sh -c ls)",
        "Bash(/bin/bash x)",
        "Bash(xargs rm)",
        "Bash(git *)",
        "Bash(git -C x *)",
        "Bash(git config *)",
        "Bash(python *)",
        "Bash(python)",
        "Bash(python3 -c *)",
        "Bash(node -)",
        "Bash(awk *)",
        "Bash(make *)",
        "Bash(npm *)",
        "Bash(npm exec *)",
        "Bash(cargo *)",
        "Bash(cd *)",
        "Bash(eval *)",
        "Bash(time *)",
        "Bash(if *)",
        "AskUserQuestion",
        "ExitPlanMode",
    ] {
        assert!(Rule::parse(Verdict::Allow, text).is_err(), "{text}");
        assert!(Rule::parse(Verdict::Deny, text).is_ok(), "{text}");
    }
}
