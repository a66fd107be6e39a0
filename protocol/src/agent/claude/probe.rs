//! Whether claude is here, which one, and logged in: found out without any network.
//!
//! Owns the questions and the reading of their answers; refuses to judge whether the credentials are still good, which
//! shows only when they are used.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use serde::Deserialize;

use crate::agent::event::{Problem, ProviderState};
use crate::agent::json::{Raw, is_true, object};
use crate::contract::error::ProgramFault;
use crate::contract::input::Probe;

/// The oldest version that this dialect was checked against. An older one may speak differently, and a next major one
/// certainly may: both are refused rather than guessed at (security H1).
const OLDEST: (u32, u32, u32) = (2, 1, 197);

/// The runs that [`read_probe`] reads.
#[must_use]
pub fn probe_runs() -> Vec<Vec<String>> {
    vec![vec!["--version".to_string()], vec!["auth".to_string(), "status".to_string()]]
}

/// What the runs show.
#[must_use]
pub fn read_probe(probe: &Result<Probe, ProgramFault>) -> ProviderState {
    let probe = match probe {
        Ok(probe) => probe,
        Err(fault) => {
            return ProviderState { problem: Some(problem_of(fault)), ..ProviderState::default() };
        }
    };
    let mut state = ProviderState { path: Some(probe.path.clone()), ..ProviderState::default() };
    let version = probe.runs.first().and_then(|run| version(&run.stdout));
    state.version = version.map(ToString::to_string);
    if !version.and_then(numbers).is_some_and(is_supported) {
        state.problem = Some(unsupported(version));
        return state;
    }
    state.is_authenticated = probe.runs.get(1).is_some_and(|run| is_logged_in(&run.stdout));
    if !state.is_authenticated {
        state.problem = Some(Problem {
            text: "claude is not logged in".to_string(),
            hint: "run `claude auth login`".to_string(),
        });
    }
    state
}

fn problem_of(fault: &ProgramFault) -> Problem {
    let (text, hint) = match fault {
        ProgramFault::Missing => (
            "claude is not installed, or not in the daemon's PATH".to_string(),
            "run `npm install -g @anthropic-ai/claude-code`, or set provider.claude.path",
        ),
        ProgramFault::Unsafe(why) => (
            format!("claude was found, but must not be trusted: {why}"),
            "correct its owner or mode, or set provider.claude.path to another one",
        ),
        ProgramFault::Failed(why) => {
            (format!("claude does not start: {why}"), "run `claude --version` and see what it says")
        }
    };
    Problem { text, hint: hint.to_string() }
}

fn unsupported(version: Option<&str>) -> Problem {
    let (major, minor, patch) = OLDEST;
    let text = match version {
        Some(version) => format!(
            "claude {version} is not supported: it must be {major}.{minor}.{patch} or newer, and below {}",
            major.saturating_add(1)
        ),
        None => "claude did not say its version in the way it is known to".to_string(),
    };
    Problem { text, hint: "run `npm install -g @anthropic-ai/claude-code`".to_string() }
}

/// `2.1.330 (Claude Code)`, and nothing else on the first line.
fn version(stdout: &str) -> Option<&str> {
    let version = stdout.lines().next()?.strip_suffix(" (Claude Code)")?;
    (!version.is_empty() && !version.contains(char::is_whitespace)).then_some(version)
}

/// Exactly three numbers: a version with anything else in it is not one that was released.
fn numbers(version: &str) -> Option<(u32, u32, u32)> {
    let mut parts = version.split('.').map(|part| part.parse().ok());
    let numbers = (parts.next()??, parts.next()??, parts.next()??);
    parts.next().is_none().then_some(numbers)
}

fn is_supported(version: (u32, u32, u32)) -> bool {
    version >= OLDEST && version.0 == OLDEST.0
}

fn is_logged_in(stdout: &str) -> bool {
    #[derive(Deserialize)]
    struct Status<'a> {
        #[serde(borrow, rename = "loggedIn")]
        logged_in: Raw<'a>,
    }
    let raw = serde_json::from_str(stdout).ok();
    object::<Status<'_>>(raw).is_some_and(|status| is_true(status.logged_in))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::input::Run;

    fn probe(version: &str, status: &str) -> ProviderState {
        let run =
            |stdout: &str| Run { code: Some(0), stdout: stdout.to_string(), stderr: String::new() };
        let runs = vec![run(version), run(status)];
        read_probe(&Ok(Probe { path: "/usr/bin/claude".to_string(), runs }))
    }

    const IN: &str = "{\n  \"loggedIn\": true,\n  \"authMethod\": \"api_key\",\n  \"apiProvider\": \"firstParty\"\n}\n";
    const OUT: &str = r#"{"loggedIn": false, "authMethod": "none"}"#;

    #[test]
    fn a_supported_claude_with_credentials_is_available() {
        let state = probe("2.1.330 (Claude Code)\n", IN);
        assert!(state.is_available() && state.is_authenticated);
        assert_eq!(state.version.as_deref(), Some("2.1.330"));
        assert_eq!(state.path.as_deref(), Some("/usr/bin/claude"));
    }

    #[test]
    fn without_credentials_the_hint_says_what_to_type() {
        for status in [OUT, "", "not json", "[]", r#"{"loggedIn":"true"}"#] {
            let state = probe("2.1.197 (Claude Code)\n", status);
            assert!(!state.is_available() && !state.is_authenticated, "{status}");
            assert_eq!(state.problem.unwrap().hint, "run `claude auth login`");
        }
    }

    #[test]
    fn h1_unknown_versions_are_refused() {
        for version in [
            "",
            "2.1.330",
            "(Claude Code)",
            " (Claude Code)",
            "2.1.196 (Claude Code)",
            "1.9.999 (Claude Code)",
            "3.0.0 (Claude Code)",
            "2.1 (Claude Code)",
            "2.1.330.1 (Claude Code)",
            "2.1.330-beta (Claude Code)",
            "x 2.1.330 (Claude Code)",
            "warning\n2.1.330 (Claude Code)",
        ] {
            let state = probe(version, IN);
            assert!(!state.is_available(), "{version}");
            assert!(!state.is_authenticated, "{version}");
        }
        for version in ["2.1.197 (Claude Code)", "2.2.0 (Claude Code)", "2.10.3 (Claude Code)\n"] {
            assert!(probe(version, IN).is_available(), "{version}");
        }
    }

    #[test]
    fn a_program_that_cannot_be_run_is_explained() {
        let missing = read_probe(&Err(ProgramFault::Missing)).problem.unwrap();
        assert!(missing.hint.contains("npm install -g @anthropic-ai/claude-code"));
        let text = "it may be written by others".to_string();
        let unsafe_one = read_probe(&Err(ProgramFault::Unsafe(text))).problem.unwrap();
        assert!(unsafe_one.text.contains("it may be written by others"));
        let failed = read_probe(&Err(ProgramFault::Failed("ENOEXEC".to_string())));
        assert!(failed.problem.unwrap().text.contains("ENOEXEC"));
    }
}
