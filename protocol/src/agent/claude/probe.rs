//! Whether claude is here, which one, and logged in: found out without any network.
//!
//! Owns the questions and the reading of their answers; refuses to judge whether the credentials are still good, which
//! shows only when they are used.

use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use serde::Deserialize;

use crate::agent::event::{Problem, ProviderState};
use crate::agent::json::{Raw, is_true, object};
use crate::agent::release::Release;
use crate::contract::error::ProgramFault;
use crate::contract::input::Probe;

/// `2.1.330 (Claude Code)`.
const RELEASE: Release = Release {
    name: super::NAME,
    package: "@anthropic-ai/claude-code",
    oldest: (2, 1, 197),
    version: |line| line.strip_suffix(" (Claude Code)"),
};

/// The runs that [`read_probe`] reads.
#[must_use]
pub fn probe_runs() -> Vec<Vec<String>> {
    vec![vec!["--version".to_string()], vec!["auth".to_string(), "status".to_string()]]
}

/// What the runs show.
#[must_use]
pub fn read_probe(probe: &Result<Probe, ProgramFault>) -> ProviderState {
    let (mut state, probe) = match RELEASE.read(probe) {
        Ok(read) => read,
        Err(state) => return state,
    };
    state.is_authenticated = probe.runs.get(1).is_some_and(|run| is_logged_in(&run.stdout));
    if !state.is_authenticated {
        state.problem = Some(Problem {
            text: "claude is not logged in".to_string(),
            hint: "run `claude auth login`".to_string(),
        });
    }
    state
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
