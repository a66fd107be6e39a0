//! Whether a program that was found is a release whose dialect is spoken here.
//!
//! Owns the reading of versions and the words for what is wrong with a program; refuses to know logins. An older release may
//! speak otherwise, and a next major one certainly may: both are refused rather than guessed at (security H1).

use alloc::format;
use alloc::string::String;

use super::event::{Problem, ProviderState};
use crate::contract::error::ProgramFault;
use crate::contract::input::Probe;

/// An agent CLI from npm.
#[derive(Debug)]
pub(super) struct Release {
    /// The program's name, and its section in the settings.
    pub(super) name: &'static str,
    /// The package that brings it.
    pub(super) package: &'static str,
    /// The oldest release that the dialect was checked against.
    pub(super) oldest: (u32, u32, u32),
    /// Takes the version out of the first line of what `--version` prints.
    pub(super) version: fn(&str) -> Option<&str>,
}

impl Release {
    /// What the first run shows, without a word on logins; an error is a state with its problem.
    pub(super) fn read<'p>(
        &self,
        probe: &'p Result<Probe, ProgramFault>,
    ) -> Result<(ProviderState, &'p Probe), ProviderState> {
        let broken = |problem| ProviderState { problem: Some(problem), ..ProviderState::default() };
        let probe = probe.as_ref().map_err(|fault| broken(self.problem_of(fault)))?;
        let first = probe.runs.first().and_then(|run| run.stdout.lines().next());
        let version = first.and_then(self.version);
        let version = version.filter(|it| !it.is_empty() && !it.contains(char::is_whitespace));
        let state = ProviderState {
            path: Some(probe.path.clone()),
            version: version.map(String::from),
            ..ProviderState::default()
        };
        if version.and_then(numbers).is_some_and(|version| self.is_supported(version)) {
            return Ok((state, probe));
        }
        Err(ProviderState { problem: Some(self.unsupported(version)), ..state })
    }

    const fn is_supported(&self, (major, minor, patch): (u32, u32, u32)) -> bool {
        let (oldest_major, oldest_minor, oldest_patch) = self.oldest;
        major == oldest_major
            && (minor > oldest_minor || (minor == oldest_minor && patch >= oldest_patch))
    }

    fn problem_of(&self, fault: &ProgramFault) -> Problem {
        let (name, package) = (self.name, self.package);
        let (text, hint) = match fault {
            ProgramFault::Missing => (
                format!("{name} is not installed, or not in the daemon's PATH"),
                format!("run `npm install -g {package}`, or set provider.{name}.path"),
            ),
            ProgramFault::Unsafe(why) => (
                format!("{name} was found, but must not be trusted: {why}"),
                format!("correct its owner or mode, or set provider.{name}.path to another one"),
            ),
            ProgramFault::Failed(why) => (
                format!("{name} does not start: {why}"),
                format!("run `{name} --version` and see what it says"),
            ),
        };
        Problem { text, hint }
    }

    fn unsupported(&self, version: Option<&str>) -> Problem {
        let (major, minor, patch) = self.oldest;
        let name = self.name;
        let text = match version {
            Some(version) => format!(
                "{name} {version} is not supported: it must be {major}.{minor}.{patch} or newer, and below {}",
                major.saturating_add(1)
            ),
            None => format!("{name} did not say its version in the way it is known to"),
        };
        Problem { text, hint: format!("run `npm install -g {}`", self.package) }
    }
}

/// Exactly three numbers: a version with anything else in it is not one that was released.
fn numbers(version: &str) -> Option<(u32, u32, u32)> {
    let mut parts = version.split('.').map(|part| part.parse().ok());
    let numbers = (parts.next()??, parts.next()??, parts.next()??);
    parts.next().is_none().then_some(numbers)
}
