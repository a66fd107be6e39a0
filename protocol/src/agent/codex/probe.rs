//! Whether codex is here, which one, and logged in: found out without any network.
//!
//! Owns the questions and the reading of their answers; refuses to judge whether the credentials are still good, which
//! shows only when they are used. One that is not logged in is usable all the same: the owner may have set up a provider of
//! models that needs no login. Where one is needed, the first turn says so at once.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use crate::agent::event::{Problem, ProviderState};
use crate::contract::error::ProgramFault;
use crate::contract::input::Probe;

/// The oldest version that this dialect was checked against. An older one may speak differently, and a next major one
/// certainly may: both are refused rather than guessed at (security H1).
const OLDEST: (u32, u32, u32) = (0, 169, 0);

/// The runs that [`read_probe`] reads.
#[must_use]
pub fn probe_runs() -> Vec<Vec<String>> {
    vec![vec!["--version".to_string()], vec!["login".to_string(), "status".to_string()]]
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
    // The words, with a part of the key, go to standard error.
    state.is_authenticated = probe.runs.get(1).is_some_and(|run| run.code == Some(0));
    state
}

fn problem_of(fault: &ProgramFault) -> Problem {
    let (text, hint) = match fault {
        ProgramFault::Missing => (
            "codex is not installed, or not in the daemon's PATH".to_string(),
            "run `npm install -g @openai/codex`, or set provider.codex.path",
        ),
        ProgramFault::Unsafe(why) => (
            format!("codex was found, but must not be trusted: {why}"),
            "correct its owner or mode, or set provider.codex.path to another one",
        ),
        ProgramFault::Failed(why) => {
            (format!("codex does not start: {why}"), "run `codex --version` and see what it says")
        }
    };
    Problem { text, hint: hint.to_string() }
}

fn unsupported(version: Option<&str>) -> Problem {
    let (major, minor, patch) = OLDEST;
    let text = match version {
        Some(version) => format!(
            "codex {version} is not supported: it must be {major}.{minor}.{patch} or newer, and below {}",
            major.saturating_add(1)
        ),
        None => "codex did not say its version in the way it is known to".to_string(),
    };
    Problem { text, hint: "run `npm install -g @openai/codex`".to_string() }
}

/// `codex-cli 0.169.0`, and nothing else on the first line.
fn version(stdout: &str) -> Option<&str> {
    let version = stdout.lines().next()?.strip_prefix("codex-cli ")?;
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
