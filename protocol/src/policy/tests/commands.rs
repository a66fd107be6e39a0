//! Lines for the shell (H5): what is allowed, what never is, and what is denied however it is dressed up.

use proptest::prelude::*;

use super::*;

/// More generous than most owners.
const ALLOWED: &[&str] = &[
    "allow Bash(git status)",
    "allow Bash(git log *)",
    "allow Bash(git diff *)",
    "allow Bash(ls *)",
    "allow Bash(cat *)",
    "allow Bash(echo *)",
    "allow Bash(npm run test:*)",
    "allow Bash(cargo test *)",
    "allow Bash(find . *)",
    "allow Bash(grep *)",
    "allow Bash(rg *)",
    "allow Bash(sort *)",
    "allow Bash(go test *)",
    "allow Bash(python scripts/gen.py *)",
    "allow Bash(python -m pytest *)",
    "allow Bash(make test)",
    "allow Bash(sed -n 1,10p src/lib.rs)",
    "allow Bash(./scripts/check.sh)",
    "allow Bash(true)",
    "allow Bash(rm a)",
];

fn line(policy: &Policy, command: &str) -> Verdict {
    policy.judge("Bash", &json!({ "command": command }).to_string(), "/repo").verdict
}

#[test]
fn lines_of_allowed_commands_are_allowed() {
    let policy = policy(Mode::Destructive, ALLOWED);
    for command in [
        "git status",
        "  git   status ",
        "git status && git log",
        "git log --oneline -5 HEAD~3",
        "git log -p",
        "git diff HEAD^ -- src",
        "ls",
        "ls -la src/*.rs",
        "cat 'a b' \"c d\"",
        "echo 'rm -rf $(x) `y` > z; w'",
        "npm run test",
        "npm run test unit",
        "cargo test -p x --release",
        "find . -name '*.rs' -type f -o -name x",
        "grep -rn 'a|b' src | sort -u | cat",
        "rg --pretty x",
        "go test -race ./...",
        "python scripts/gen.py --out x",
        "python -m pytest -k x",
        "make test",
        "sed -n 1,10p src/lib.rs",
        "./scripts/check.sh; true || ls",
    ] {
        assert_eq!(line(&policy, command), Verdict::Allow, "{command}");
    }
    let input =
        json!({"command": "ls", "description": "look", "timeout": 5, "run_in_background": false});
    assert_eq!(policy.judge("Bash", &input.to_string(), "/repo").verdict, Verdict::Allow);
}

/// Ways around a list of allowed commands, as they are known from other tools. The file has one on each line.
const BYPASSES: &str = include_str!("bypasses.txt");
/// Those that cannot be seen in a file.
const UNSEEN: &[&str] = &[
    "git status\r\nrm x",
    "ls && ",
    "ls\u{b}rm x",
    "ls\u{c}rm x",
    "ls\u{85}rm x",
    "ls\u{2028}rm x",
    "ls\u{a0}x",
    "ls \u{ff1b} x",
    "ls\0rm x",
    "git\u{200b} status",
    "\u{ff47}it status",
    "ls \u{1b}[2K",
    "ls \u{202e}x",
    "",
    " ",
    "\t",
];

fn bypasses() -> Vec<String> {
    let lines =
        BYPASSES.lines().skip(1).filter(|line| !line.is_empty() && !line.starts_with("## "));
    let lines = lines.map(|line| line.replace('⏎', "\n"));
    lines.chain(UNSEEN.iter().copied().map(String::from)).collect()
}

#[test]
fn h5_no_known_bypass_is_allowed() {
    let policy = policy(Mode::Destructive, ALLOWED);
    let bypasses = bypasses();
    assert!(bypasses.len() > 250, "{}", bypasses.len());
    for bypass in &bypasses {
        assert_eq!(line(&policy, bypass), Verdict::Ask, "{bypass:?}");
    }
    assert_eq!(line(&policy, &"ls;".repeat(5000)), Verdict::Ask);
    assert_eq!(line(&policy, &format!("ls {}", "a".repeat(5000))), Verdict::Ask);
}

#[test]
fn h5_a_command_with_more_to_it_is_not_allowed() {
    let policy = policy(Mode::Destructive, ALLOWED);
    for more in [
        json!({"run_in_background": true}),
        json!({"dangerouslyDisableSandbox": true}),
        json!({"env": {"PATH": "."}}),
        json!({"cwd": "/etc"}),
        json!({"cwd": ".."}),
        json!({"cwd": "/repo/../x"}),
        json!({"run_in_background": "no"}),
        json!({"stdin": "x"}),
        json!({"shell": "fish"}),
    ] {
        let mut input = more.clone();
        input["command"] = json!("ls");
        let judgement = policy.judge("Bash", &input.to_string(), "/repo");
        assert_eq!(judgement.verdict, Verdict::Ask, "{more}");
    }
    // As codex asks: it names the directory and the shell.
    let here = json!({"command": "ls", "cwd": "/repo", "shell": "/bin/bash -lc"});
    assert_eq!(policy.judge("Bash", &here.to_string(), "/repo").verdict, Verdict::Allow);
    let below = json!({"command": "ls", "cwd": "/repo/vendor", "shell": "/bin/bash -lc"});
    assert_eq!(policy.judge("Bash", &below.to_string(), "/repo").verdict, Verdict::Ask);
}

#[test]
fn h5_a_denied_command_is_denied_however_it_is_dressed() {
    let policy = policy(
        Mode::None,
        &["deny Bash(rm *)", "deny Bash(git push --force)", "allow Bash(echo *)"],
    );
    for command in [
        "rm x",
        "rm",
        "/bin/rm x",
        "RM x",
        "./rm x",
        "ls; rm x",
        "ls && rm x",
        "ls | rm",
        "sudo rm x",
        "env A=b rm x",
        "sh -c 'rm x'",
        "bash -c \"rm x\"",
        "xargs rm",
        "echo $(rm x)",
        "echo `rm x`",
        "(rm x)",
        "{ rm x; }",
        "r\\m x",
        "r\"\"m x",
        "'rm' x",
        "\"r\"m x",
        "A=b rm x",
        "if true; then rm x; fi",
        "ls\nrm x",
        "ls & rm x",
        "find . -exec rm x +",
        "timeout 5 rm x",
        "git push --force",
        "git push origin main --force",
        "git -C x push --force",
        "git 'push' --force",
        "python -c 'os.system(\"rm x\")'",
        "nohup rm x &",
        "{rm,x}",
        "! rm x",
        "time rm x",
        "command rm x",
        "git push --force=x",
        "x=rm; $x y",
    ] {
        assert_eq!(line(&policy, command), Verdict::Deny, "{command:?}");
    }
    // What may be it asks, also where nothing else would.
    for command in [
        "r$x x",
        "$(echo r)m x",
        "r?m x",
        "echo cm0= | base64 -d | sh",
        "sh x",
        "python x.py",
        "eval \"$x\"",
        "r{m,} x",
        "echo a > b",
        "echo rm",
        "git push -*",
        "git push x*",
        "git push $x",
        "r\\\nm x",
        "myrunner rm x",
    ] {
        assert_eq!(line(&policy, command), Verdict::Ask, "{command:?}");
    }
    for command in ["ls", "git push origin main", "git status", "echo hello", "cat a && ls b"] {
        assert_eq!(line(&policy, command), Verdict::Allow, "{command:?}");
    }
    let bundled = super::policy(Mode::None, &["deny Bash(rm -rf)"]);
    for command in ["rm -rf x", "rm -fr x", "rm -r -f x", "rm x -rvf", "rm -rfv"] {
        assert_eq!(line(&bundled, command), Verdict::Deny, "{command}");
    }
    assert_eq!(line(&bundled, "rm -r x"), Verdict::Allow);
}

#[test]
fn h5_a_line_of_a_megabyte_is_judged_at_once() {
    let policy = policy(Mode::None, &["deny Bash(rm -x y)", "deny Read(**/a/**/a/**/b)"]);
    assert_eq!(line(&policy, &"rm ".repeat(700_000)), Verdict::Ask);
    assert_eq!(line(&policy, &["rm ".repeat(700_000), "y -x".into()].concat()), Verdict::Deny);
    assert_eq!(file(&policy, "Read", &"a/".repeat(700_000)), Verdict::Ask);
}

#[test]
fn h5_an_ask_goes_before_an_allow() {
    let policy =
        policy(Mode::Destructive, &["allow Bash(git push *)", "ask Bash(git push origin main)"]);
    assert_eq!(line(&policy, "git push origin dev"), Verdict::Allow);
    assert_eq!(line(&policy, "git push origin main"), Verdict::Ask);
    assert_eq!(line(&policy, "git push -v origin main"), Verdict::Ask);
}

#[test]
fn what_runs_other_programs_can_be_allowed_beside_a_deny() {
    let rules = ["allow Bash(make test)", "allow Bash(python gen.py *)", "deny Bash(rm *)"];
    let policy = policy(Mode::None, &rules);
    for command in ["make test", "python gen.py --out x", "make test && python gen.py"] {
        assert_eq!(line(&policy, command), Verdict::Allow, "{command}");
    }
    for command in ["make", "python x.py", "make test; make", "python gen.py $x", "make test | sh"]
    {
        assert_eq!(line(&policy, command), Verdict::Ask, "{command}");
    }
    assert_eq!(line(&policy, "python gen.py rm x"), Verdict::Deny);
}

#[test]
fn the_rule_that_speaks_is_named() {
    let policy = policy(
        Mode::Destructive,
        &["allow Bash(ls *)", "allow Bash(git status)", "deny Bash(rm *)"],
    );
    let named = |command: &str| {
        let input = json!({ "command": command }).to_string();
        policy.judge("Bash", &input, "/repo").rule.map(|rule| String::from(rule.text()))
    };
    assert_eq!(named("git status && ls").as_deref(), Some("Bash(git status)"));
    assert_eq!(named("ls; rm x").as_deref(), Some("Bash(rm *)"));
    assert_eq!(named("cat x"), None);
    let input = json!({"command": "ls > x"}).to_string();
    let why = policy.judge("Bash", &input, "/repo").why;
    assert!(why.contains("nobody can tell"), "{why}");
}

fn spice() -> impl Strategy<Value = String> {
    const PIECES: &str = "rm x,; ,&,|,&&,||,$(rm x),`rm x`,$x,',\",\\,(,),{,},>,<,#,!,*,?,[,],~,=,ls,git status,-exec,\
        --output=x,env,sh -c,é,a,-,--,echo,cat,^,:,%";
    let pieces: Vec<&str> = PIECES.split(',').chain([" ", "\n", "\t", "\0", ","]).collect();
    proptest::collection::vec(proptest::sample::select(pieces), 1..8).prop_map(|all| all.concat())
}

proptest! {
    // What was found becomes a line of the file.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn h5_variations_of_bypasses_are_never_allowed(
        bypass in proptest::sample::select(bypasses()),
        before in proptest::sample::select(vec!["", " ", "\t", "ls; ", "git status && ", "true || ", "cat a | "]),
        after in proptest::sample::select(vec!["", " ", "; ls", " && git status", " || true", " | cat", "\n", " #"]),
    ) {
        prop_assume!(!bypass.trim().is_empty());
        let policy = policy(Mode::Destructive, ALLOWED);
        let varied = format!("{before}{bypass}{after}");
        prop_assert_eq!(line(&policy, &varied), Verdict::Ask, "{:?}", varied);
    }

    #[test]
    fn h5_what_is_allowed_has_nothing_dangerous_outside_of_quotes(
        spiced in spice(),
    ) {
        let policy = policy(Mode::Destructive, ALLOWED);
        if line(&policy, &spiced) == Verdict::Allow {
            let mut quote = None;
            for char in spiced.chars() {
                match (quote, char) {
                    (None, '\'' | '"') => quote = Some(char),
                    (Some(open), char) if open == char => quote = None,
                    (None, char) => {
                        let is_plain = char.is_ascii() && !"$`<>(){}[]\\#!\n\r".contains(char);
                        prop_assert!(is_plain, "{:?}", spiced);
                    }
                    (Some('"'), char) => prop_assert!(!"$`\\!".contains(char), "{:?}", spiced),
                    (Some(_), _) => {}
                }
            }
            prop_assert_eq!(quote, None);
        }
    }

    #[test]
    fn any_rule_and_any_call_end_in_a_verdict(rule in "\\PC{0,24}", tool in "[A-Za-z_]{0,8}", input in "\\PC{0,40}") {
        for verdict in [Verdict::Allow, Verdict::Ask, Verdict::Deny] {
            match Rule::parse(verdict, &rule) {
                Ok(rule) => {
                    let policy = Policy { rules: vec![rule], ..Policy::default() };
                    let _ = policy.judge(&tool, &input, "/repo");
                    let _ = line(&policy, &input);
                }
                Err(fault) => prop_assert!(fault.at <= rule.len() && fault.len > 0),
            }
        }
    }
}
