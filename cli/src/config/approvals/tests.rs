use clawd_protocol::policy::{Mode, Verdict, WhenNobodyListens};

use super::*;
use crate::config::parse;
use crate::exit::Failure;

fn failure(section: &str) -> Failure {
    parse(&format!("[approvals]\n{section}\n"), "config.toml").unwrap_err()
}

#[test]
fn rules_are_read_in_their_order_and_a_timeout_is_one() {
    let config = parse(
        "[approvals]\nmode = \"all\"\ntimeout_secs = 30\non_timeout = \"deny\"\n\
         when_nobody_listens = \"deny\"\nallow = [\"Bash(git status)\", 'Edit(src/**)']\n\
         deny = [\"Read(~/.ssh/**)\"]\n",
        "config.toml",
    )
    .unwrap();
    let policy = config.approvals.policy(Some("/home/me".to_owned()));
    let rules: Vec<_> = policy.rules.iter().map(|rule| (rule.verdict(), rule.text())).collect();
    let expected = [
        (Verdict::Deny, "Read(~/.ssh/**)"),
        (Verdict::Allow, "Bash(git status)"),
        (Verdict::Allow, "Edit(src/**)"),
    ];
    assert_eq!(rules, expected);
    assert_eq!(policy.mode, Mode::All);
    assert_eq!(policy.when_nobody_listens, WhenNobodyListens::Deny);
    assert_eq!(config.approvals.timeout(), Some(Duration::from_secs(30)));
    let empty = parse("", "config.toml").unwrap().approvals;
    assert_eq!(empty.policy(None).mode, Mode::Destructive);
    assert_eq!(empty.timeout(), None);
}

#[test]
fn a_mistake_in_a_rule_is_shown_in_its_place() {
    let failure = failure("allow = [\"Bash(git status)\",\n  \"Bsah(env)\"]");
    assert_eq!(
        failure.message,
        "config.toml:3:4: in the rule `Bsah(env)`: no tool is called `Bsah`; did you mean `Bash`?"
    );
    assert_eq!(&*failure.excerpt.unwrap(), "    3 |   \"Bsah(env)\"]\n      |    ^^^^");
}

#[test]
fn every_mistake_has_its_column() {
    for (line, column) in [
        ("allow = ['Bash(sudo ls)']", 16),
        ("allow = ['''Bash(ls; rm x)''']", 20),
        ("deny = [\"Read(../a)\"]", 15),
        ("deny = [\"Bash(ls \\u0024x)\"]", 9),
        ("ask = ['WebFetch(x)']", 18),
        ("allow = ['Bash']", 11),
        ("modes = 'all'", 1),
        ("mode = 'destructve'", 8),
        ("when_nobody_listens = 'allow'", 23),
        ("timeout_secs = 0", 16),
        ("timeout_secs = 99999999", 16),
        ("timeout_secs = '5'", 16),
        ("on_timeout = 'allow'", 14),
        ("allow = 'Bash(ls)'", 9),
    ] {
        let message = failure(line).message;
        assert!(message.starts_with(&format!("config.toml:2:{column}: ")), "{line}: {message}");
    }
}

#[test]
fn a_mistake_says_what_was_meant() {
    for (line, meant) in [
        ("mode = 'destructve'", "did you mean `destructive`?"),
        ("alow = []", "did you mean `allow`?"),
    ] {
        assert!(failure(line).excerpt.unwrap().ends_with(meant), "{line}");
    }
    assert!(failure("on_timeout = 'allow'").message.contains("can only be \"deny\""));
    assert!(failure("allow = ['Bash(env FOO=1 ls)']").excerpt.unwrap().contains("env FOO=1"));
}
