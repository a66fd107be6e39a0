//! The demo: a scripted agent inside clawd itself, which speaks claude's dialect.
//!
//! Owns how it is found and started; refuses to know what it says. It needs no account and no network, and runs as a
//! child like any other agent, so that a machine with nothing installed sees a whole turn.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use super::claude::{self, LaunchFault};
use super::event::{Problem, ProviderState};
use super::lane::Opening;
use crate::contract::error::ProgramFault;
use crate::contract::input::Probe;

/// The program's name in `PATH`, if its path is not known.
pub const PROGRAM: &str = "clawd";

/// The subcommand of clawd that is the demo.
pub const SUBCOMMAND: &str = "demo-agent";

/// The run that [`read_probe`] reads: it prints `VERSION (clawd demo)`.
#[must_use]
pub fn probe_runs() -> Vec<Vec<String>> {
    vec![vec![SUBCOMMAND.to_string(), "--version".to_string()]]
}

/// What the run shows. There is nothing to log in to.
#[must_use]
pub fn read_probe(probe: &Result<Probe, ProgramFault>) -> ProviderState {
    let broken = |why: &str| ProviderState {
        problem: Some(Problem {
            text: format!("the demo cannot be run: {why}"),
            hint: "start the daemon with the installed `clawd`".to_string(),
        }),
        ..ProviderState::default()
    };
    let probe = match probe {
        Ok(probe) => probe,
        Err(ProgramFault::Missing) => return broken("clawd is not where it was"),
        Err(ProgramFault::Unsafe(why) | ProgramFault::Failed(why)) => return broken(why),
    };
    let stdout = probe.runs.first().map(|run| run.stdout.trim_end());
    let Some(version) = stdout.and_then(|line| line.strip_suffix(" (clawd demo)")) else {
        return broken("another program has its name");
    };
    ProviderState {
        path: Some(probe.path.clone()),
        version: Some(version.to_string()),
        is_authenticated: true,
        problem: None,
    }
}

/// The arguments: the subcommand, then those of claude.
///
/// # Errors
/// A value cannot be passed on safely.
pub fn launch(opening: &Opening<'_>) -> Result<Vec<String>, LaunchFault> {
    let mut args = claude::launch(opening)?;
    args.insert(0, SUBCOMMAND.to_string());
    Ok(args)
}
