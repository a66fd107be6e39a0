//! What has to be known before a conversation is opened: whether codex would ask.
//!
//! Owns the questions about the owner's own configuration; refuses to open anything. Codex runs what a rule of its owner
//! allows without asking, and outside of its sandbox: with such a rule no approval would be a real gate, so no
//! conversation is opened (security H1). Which directories the owner trusts and which servers of tools are set up is found
//! out here too, so that all of them can be switched off.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::fault::Fault;
use crate::agent::json::{Raw, each, is_true, object, read, text};

/// Where the rules of the whole machine are.
pub(super) const MACHINE_RULES: &str = "/etc/codex/rules";
/// Files of rules that are read before it is given up.
const RULE_FILES_MAX: usize = 64;
/// Decisions of rules that run nothing unasked.
const LIMITS: &[&str] = &[
    r#"decision="prompt""#,
    r#"decision="forbidden""#,
    "decision='prompt'",
    "decision='forbidden'",
];

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Question {
    /// Who is logged in.
    Account,
    /// How codex is configured.
    Config,
    /// Which rules there are in this directory.
    Rules(String),
    /// What a file of rules says.
    Rule(String),
}

/// What is known so far.
#[derive(Debug, Default)]
pub(super) struct Vetting {
    /// Questions without an answer.
    left: usize,
    files: usize,
    pub(super) projects: Vec<String>,
    pub(super) servers: Vec<String>,
    fault: Option<Fault>,
}

#[derive(Deserialize)]
struct AccountRead<'a> {
    #[serde(borrow)]
    account: Raw<'a>,
    #[serde(borrow, rename = "requiresOpenaiAuth")]
    is_required: Raw<'a>,
}

#[derive(Deserialize)]
struct ConfigRead<'a> {
    #[serde(borrow)]
    config: Raw<'a>,
}

#[derive(Deserialize)]
struct Config<'a> {
    #[serde(borrow)]
    projects: Raw<'a>,
    #[serde(borrow)]
    mcp_servers: Raw<'a>,
}

#[derive(Deserialize)]
struct Directory<'a> {
    #[serde(borrow)]
    entries: Raw<'a>,
}

#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow, rename = "fileName")]
    name: Raw<'a>,
}

#[derive(Deserialize)]
struct File<'a> {
    #[serde(borrow, rename = "dataBase64")]
    data: Raw<'a>,
}

impl Vetting {
    /// What to ask first. `home` is codex's own directory.
    pub(super) fn questions(home: &str) -> [Question; 4] {
        [
            Question::Account,
            Question::Config,
            Question::Rules(format!("{home}/rules")),
            Question::Rules(MACHINE_RULES.to_string()),
        ]
    }

    /// So much more was asked.
    pub(super) fn ask(&mut self, count: usize) {
        self.left = self.left.saturating_add(count);
    }

    /// The answer to a question, and what to ask next.
    pub(super) fn hear(
        &mut self,
        question: &Question,
        answer: Result<Raw<'_>, Raw<'_>>,
    ) -> Vec<Question> {
        self.left = self.left.saturating_sub(1);
        match (question, answer) {
            (Question::Account, Ok(answer)) => self.on_account(answer),
            // Whether anybody is logged in shows when the model is asked.
            (Question::Account, Err(_)) => {}
            (Question::Config, Ok(answer)) => self.on_config(answer),
            (Question::Rules(path), Ok(answer)) => return self.on_rules(path, answer),
            (Question::Rule(path), Ok(answer)) => self.on_rule(path, answer),
            (Question::Rules(_) | Question::Rule(_), Err(error)) if is_missing(error) => {}
            (Question::Config | Question::Rules(_) | Question::Rule(_), Err(error)) => {
                let why = Fault::of_answer(error).text;
                self.fail(Fault::new(format!("codex cannot say how it is configured: {why}")));
            }
        }
        Vec::new()
    }

    /// Whether a conversation may be opened; `None` while something is not known.
    pub(super) fn verdict(&mut self) -> Option<Result<(), Fault>> {
        if self.left > 0 {
            return None;
        }
        Some(self.fault.take().map_or(Ok(()), Err))
    }

    fn fail(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
    }

    fn on_account(&mut self, answer: Raw<'_>) {
        let Some(answer) = object::<AccountRead<'_>>(answer) else { return };
        if answer.account.is_none() && is_true(answer.is_required) {
            self.fail(Fault::not_logged_in());
        }
    }

    fn on_config(&mut self, answer: Raw<'_>) {
        let config =
            object::<ConfigRead<'_>>(answer).and_then(|it| object::<Config<'_>>(it.config));
        let names = config.and_then(|it| Some((names(it.projects)?, names(it.mcp_servers)?)));
        match names {
            Some(names) => (self.projects, self.servers) = names,
            None => self.fail(Fault::new("codex did not say how it is configured")),
        }
    }

    fn on_rules(&mut self, path: &str, answer: Raw<'_>) -> Vec<Question> {
        let Some(directory) = object::<Directory<'_>>(answer) else {
            self.fail(Fault::new(format!("codex did not say what is in {path}")));
            return Vec::new();
        };
        let mut files = Vec::new();
        let mut is_odd = directory.entries.is_none();
        each(directory.entries, &mut |entry| match object::<Entry<'_>>(Some(entry))
            .and_then(|entry| text(entry.name))
        {
            Some(name) if name.ends_with(".rules") => {
                files.push(Question::Rule(format!("{path}/{name}")));
            }
            Some(_) => {}
            None => is_odd = true,
        });
        self.files = self.files.saturating_add(files.len());
        if is_odd || self.files > RULE_FILES_MAX {
            self.fail(Fault::new(format!("nobody can tell what the rules in {path} allow")));
            return Vec::new();
        }
        files
    }

    fn on_rule(&mut self, path: &str, answer: Raw<'_>) {
        let data = object::<File<'_>>(answer).and_then(|file| text(file.data));
        let rules = data.and_then(|data| from_base64(&data));
        if rules.is_none_or(|rules| may_allow(&String::from_utf8_lossy(&rules))) {
            self.fail(Fault::new(format!(
                "codex would run commands without asking, because its own rules in {path} allow some: \
                 move that file away, and let clawd's policy say what may run"
            )));
        }
    }
}

fn is_missing(error: Raw<'_>) -> bool {
    Fault::of_answer(error).text.contains("No such file or directory")
}

/// The names in a table that may be absent; `None` if it is no table.
fn names(table: Raw<'_>) -> Option<Vec<String>> {
    if table.is_none() {
        return Some(Vec::new());
    }
    let table: BTreeMap<String, IgnoredAny> = read(table)?;
    let names: BTreeSet<String> = table.into_keys().collect();
    Some(names.into_iter().collect())
}

/// Whether rules could allow a command. Harmless are comments, and rules that plainly forbid or have codex ask: a decision
/// that is left out allows.
fn may_allow(rules: &str) -> bool {
    let code: String = rules
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(str::chars)
        .filter(|c| !c.is_whitespace())
        .collect();
    let count = |what: &str| code.matches(what).count();
    let limits: usize = LIMITS.iter().map(|limit| count(limit)).sum();
    let rules = count("prefix_rule");
    let is_plain = rules == count("prefix_rule(") && rules <= limits && !code.contains("allow");
    rules > 0 && !is_plain
}

/// Base64 (RFC 4648), with or without padding.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0_u32, 0_u32);
    for byte in text.trim_end_matches('=').bytes() {
        let digit = match byte {
            b'A'..=b'Z' => byte.wrapping_sub(b'A'),
            b'a'..=b'z' => byte.wrapping_sub(b'a').wrapping_add(26),
            b'0'..=b'9' => byte.wrapping_sub(b'0').wrapping_add(52),
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(digit);
        count = count.wrapping_add(6);
        if count >= 8 {
            count = count.wrapping_sub(8);
            bytes.push(u8::try_from((bits >> count) & 0xff).ok()?);
            bits &= (1_u32 << count).wrapping_sub(1);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use serde_json::value::RawValue;

    fn raw(json: &str) -> &RawValue {
        serde_json::from_str(json).unwrap()
    }

    /// Answers the four questions, the owner's rules with these files.
    fn vet(account: &str, config: &str, files: &[&str]) -> Result<Vetting, Fault> {
        let mut vetting = Vetting::default();
        let [who, how, own, machine] = Vetting::questions("/h");
        vetting.ask(4);
        assert_eq!(vetting.hear(&who, Ok(Some(raw(account)))), []);
        assert_eq!(vetting.hear(&how, Ok(Some(raw(config)))), []);
        let missing = raw(r#"{"code":-32603,"message":"No such file or directory (os error 2)"}"#);
        assert_eq!(vetting.hear(&machine, Err(Some(missing))), []);
        let entries: Vec<_> = (0..files.len())
            .map(|n| format!(r#"{{"fileName":"{n}.rules","isFile":true}}"#))
            .chain([r#"{"fileName":"README"}"#.to_string()])
            .collect();
        let listed = format!(r#"{{"entries":[{}]}}"#, entries.join(","));
        let asked = vetting.hear(&own, Ok(Some(raw(&listed))));
        let paths: Vec<_> =
            (0..files.len()).map(|n| Question::Rule(format!("/h/rules/{n}.rules"))).collect();
        assert_eq!(asked, paths);
        vetting.ask(asked.len());
        for (question, file) in asked.iter().zip(files) {
            assert!(vetting.verdict().is_none());
            vetting.hear(question, Ok(Some(raw(&format!(r#"{{"dataBase64":"{file}"}}"#)))));
        }
        vetting.verdict().unwrap().map(|()| vetting)
    }

    const IN: &str = r#"{"account":{"type":"apiKey"},"requiresOpenaiAuth":true}"#;
    const EMPTY: &str = r#"{"config":{"projects":null,"mcp_servers":{}}}"#;

    #[test]
    fn an_empty_configuration_is_good() {
        let vetting = vet(IN, EMPTY, &[]).unwrap();
        assert!(vetting.projects.is_empty() && vetting.servers.is_empty());
        // A provider of the owner's own needs no account.
        assert!(vet(r#"{"account":null,"requiresOpenaiAuth":false}"#, EMPTY, &[]).is_ok());
    }

    #[test]
    fn h7_what_the_owner_trusts_and_has_set_up_is_found() {
        let config = r#"{"config":{"projects":{"/b":{"trust_level":"trusted"},"/a.b":{}},"mcp_servers":{"s":{"command":"x"}}}}"#;
        let vetting = vet(IN, config, &[]).unwrap();
        assert_eq!(vetting.projects, ["/a.b", "/b"]);
        assert_eq!(vetting.servers, ["s"]);
        for odd in ["{}", "[]", r#"{"config":{"projects":[]}}"#, r#"{"config":{"mcp_servers":1}}"#]
        {
            assert!(vet(IN, odd, &[]).is_err(), "{odd}");
        }
    }

    #[test]
    fn nobody_logged_in_is_said_at_once() {
        let fault = vet(r#"{"account":null,"requiresOpenaiAuth":true}"#, EMPTY, &[]).unwrap_err();
        assert!(fault.end().is_not_logged_in);
    }

    #[test]
    fn h1_rules_that_allow_keep_codex_out() {
        // prefix_rule(pattern=['touch'])
        let fault =
            vet(IN, EMPTY, &["", "cHJlZml4X3J1bGUocGF0dGVybj1bJ3RvdWNoJ10pCg=="]).unwrap_err();
        assert!(fault.text.contains("/h/rules/1.rules"), "{}", fault.text);
        assert!(vet(IN, EMPTY, &["", "IyBoZWxsbwo="]).is_ok());
        assert!(vet(IN, EMPTY, &["not base64!"]).is_err());
    }

    #[test]
    fn h1_what_cannot_be_known_keeps_codex_out() {
        for question in
            [Question::Config, Question::Rules("/r".into()), Question::Rule("/r/x".into())]
        {
            let mut vetting = Vetting::default();
            vetting.ask(1);
            vetting.hear(&question, Err(Some(raw(r#"{"message":"Permission denied"}"#))));
            assert!(vetting.verdict().unwrap().is_err(), "{question:?}");
            let mut vetting = Vetting::default();
            vetting.ask(1);
            vetting.hear(&question, Ok(None));
            assert!(vetting.verdict().unwrap().is_err(), "{question:?}");
        }
        let mut vetting = Vetting::default();
        let many = vec![r#"{"fileName":"x.rules"}"#; RULE_FILES_MAX + 1].join(",");
        vetting.ask(1);
        let answer = format!(r#"{{"entries":[{many}]}}"#);
        assert_eq!(vetting.hear(&Question::Rules("/r".into()), Ok(Some(raw(&answer)))), []);
        assert!(vetting.verdict().unwrap().is_err());
    }

    #[test]
    fn h1_only_rules_that_plainly_ask_or_forbid_are_harmless() {
        for harmless in [
            "",
            "# prefix_rule(pattern=['x'], decision='allow')",
            "prefix_rule(pattern = ['rm'], decision = 'forbidden')",
            "prefix_rule(\n  pattern=[\"git\"],\n  decision=\"prompt\",\n)\nprefix_rule(pattern=['x'],decision='prompt')",
            "network_rule(host='x', decision='allow')",
        ] {
            assert!(!may_allow(harmless), "{harmless}");
        }
        for allowing in [
            "prefix_rule(pattern=['x'])",
            "prefix_rule(['x'], 'allow')",
            "prefix_rule(pattern=['x'], decision=\"allow\")",
            "prefix_rule(pattern=['x'], decision='prompt')\nprefix_rule(pattern=['y'])",
            "d='al'\nprefix_rule(pattern=['x'], decision=d+'low')",
            "p=prefix_rule\np(pattern=['x'],decision='prompt')\np(pattern=['y'])",
            " prefix_rule (pattern=['x'])",
        ] {
            assert!(may_allow(allowing), "{allowing}");
        }
    }

    #[test]
    fn base64_is_as_rfc_4648_has_it() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("Zg==", b"f"),
            ("Zm8=", b"fo"),
            ("Zm9v", b"foo"),
            ("Zm9vYg", b"foob"),
            ("+/+/", &[0xfb, 0xff, 0xbf]),
        ] {
            assert_eq!(from_base64(text).as_deref(), Some(bytes), "{text}");
        }
        assert_eq!(from_base64("a-b"), None);
    }
}
