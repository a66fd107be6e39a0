//! Whether codex is here, which one, and logged in: found out without any network.
//!
//! Owns the questions and the reading of their answers; refuses to judge whether the credentials are still good, which
//! shows only when they are used. One that is not logged in is usable all the same: the owner may have set up a provider of
//! models that needs no login. Where one is needed, the first turn says so at once.

use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use crate::agent::event::ProviderState;
use crate::agent::release::Release;
use crate::contract::error::ProgramFault;
use crate::contract::input::Probe;

/// `codex-cli 0.169.0`.
const RELEASE: Release = Release {
    name: super::NAME,
    package: "@openai/codex",
    oldest: (0, 169, 0),
    version: |line| line.strip_prefix("codex-cli "),
};

/// The runs that [`read_probe`] reads.
#[must_use]
pub fn probe_runs() -> Vec<Vec<String>> {
    vec![vec!["--version".to_string()], vec!["login".to_string(), "status".to_string()]]
}

/// What the runs show.
#[must_use]
pub fn read_probe(probe: &Result<Probe, ProgramFault>) -> ProviderState {
    let (mut state, probe) = match RELEASE.read(probe) {
        Ok(read) => read,
        Err(state) => return state,
    };
    // The words, with a part of the key, go to standard error.
    state.is_authenticated = probe.runs.get(1).is_some_and(|run| run.code == Some(0));
    state
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::input::Run;

    fn probe(version: &str, code: i32) -> ProviderState {
        let run = |stdout: &str, code| Run {
            code: Some(code),
            stdout: stdout.to_string(),
            stderr: "Not logged in\n".to_string(),
        };
        let runs = vec![run(version, 0), run("", code)];
        read_probe(&Ok(Probe { path: "/usr/bin/codex".to_string(), runs }))
    }

    #[test]
    fn a_supported_codex_is_available_with_or_without_a_login() {
        let state = probe("codex-cli 0.169.0\n", 0);
        assert!(state.is_available() && state.is_authenticated);
        assert_eq!(state.version.as_deref(), Some("0.169.0"));
        assert_eq!(state.path.as_deref(), Some("/usr/bin/codex"));
        let state = probe("codex-cli 0.200.1\n", 1);
        assert!(state.is_available() && !state.is_authenticated);
    }

    #[test]
    fn h1_unknown_versions_are_refused() {
        for version in [
            "",
            "0.169.0",
            "codex-cli ",
            "codex-cli 0.168.9",
            "codex-cli 1.0.0",
            "codex-cli 0.169",
            "codex-cli 0.170.0-alpha.1",
            "codex 0.169.0",
            "x codex-cli 0.169.0",
            "warning\ncodex-cli 0.169.0",
        ] {
            let state = probe(version, 0);
            assert!(!state.is_available() && !state.is_authenticated, "{version}");
        }
    }

    #[test]
    fn a_program_that_cannot_be_run_is_explained() {
        let missing = read_probe(&Err(ProgramFault::Missing)).problem.unwrap();
        assert!(missing.hint.contains("npm install -g @openai/codex"));
        let text = "it may be written by others".to_string();
        let unsafe_one = read_probe(&Err(ProgramFault::Unsafe(text))).problem.unwrap();
        assert!(unsafe_one.text.contains("it may be written by others"));
        let failed = read_probe(&Err(ProgramFault::Failed("ENOEXEC".to_string())));
        assert!(failed.problem.unwrap().text.contains("ENOEXEC"));
    }
}
