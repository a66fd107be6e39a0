//! The agents that can be run: one row for each.
//!
//! Owns what differs between them before they are spoken with: names, programs, environments, probes. Refuses to know
//! what is known about them on this machine. A new agent is a new row here, and a dialect.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::claude::{self, Claude, LaunchFault};
use super::codex::{self, Codex};
use super::demo;
use super::dialect::AnyDialect;
use super::event::ProviderState;
use super::lane::Opening;
use crate::access::token::Secret;
use crate::contract::config::{Config, ProviderConfig};
use crate::contract::effect::{Env, Program};
use crate::contract::error::ProgramFault;
use crate::contract::input::Probe;
use crate::contract::limits::Limits;

/// An agent that can be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Provider {
    /// Anthropic's `claude`.
    Claude,
    /// OpenAI's `codex`.
    Codex,
    /// The scripted agent inside clawd.
    Demo,
}

impl Provider {
    /// All of them, as they are listed.
    pub const ALL: &[Self] = &[Self::Claude, Self::Codex, Self::Demo];

    /// Those that a session gets if its maker names none: the first that can be used.
    pub const PREFERRED: &[Self] = &[Self::Claude, Self::Codex];

    /// Its name on the wire and in the database.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Claude => "claude",
            Self::Codex => "codex",
            Self::Demo => "demo",
        }
    }

    /// The agent of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|provider| provider.name() == name)
    }

    /// The list of it alone.
    #[must_use]
    pub const fn alone(self) -> &'static [Self] {
        match self {
            Self::Claude => &[Self::Claude],
            Self::Codex => &[Self::Codex],
            Self::Demo => &[Self::Demo],
        }
    }

    /// One process carries many conversations.
    #[must_use]
    pub const fn is_shared(self) -> bool {
        match self {
            Self::Codex => true,
            Self::Claude | Self::Demo => false,
        }
    }

    /// It names its conversations itself.
    #[must_use]
    pub const fn names_conversations(self) -> bool {
        match self {
            Self::Codex => true,
            Self::Claude | Self::Demo => false,
        }
    }

    /// How the owner wants it to be run.
    #[must_use]
    pub const fn config(self, config: &Config) -> &ProviderConfig {
        match self {
            Self::Claude => &config.claude,
            Self::Codex => &config.codex,
            Self::Demo => &config.demo,
        }
    }

    /// The program to look for.
    #[must_use]
    pub fn program(self, config: &Config) -> Program {
        let name = match self {
            Self::Claude => claude::NAME,
            Self::Codex => codex::NAME,
            Self::Demo => demo::PROGRAM,
        };
        let behind = match self {
            Self::Codex => codex::BEHIND,
            Self::Claude | Self::Demo => &[],
        };
        Program { name, path: self.config(config).path.clone(), behind }
    }

    /// The runs that [`Self::read_probe`] reads.
    #[must_use]
    pub fn probe_runs(self) -> Vec<Vec<String>> {
        match self {
            Self::Claude => claude::probe_runs(),
            Self::Codex => codex::probe_runs(),
            Self::Demo => demo::probe_runs(),
        }
    }

    /// What the runs show.
    #[must_use]
    pub fn read_probe(self, probe: &Result<Probe, ProgramFault>) -> ProviderState {
        match self {
            Self::Claude => claude::read_probe(probe),
            Self::Codex => codex::read_probe(probe),
            Self::Demo => demo::read_probe(probe),
        }
    }

    /// Its environment, and nothing else (security I3).
    #[must_use]
    pub fn env(self, config: &Config) -> Env {
        let (inherit, set) = match self {
            Self::Claude | Self::Demo => (claude::INHERIT, claude::SET),
            Self::Codex => (codex::INHERIT, codex::SET),
        };
        let pair =
            |(name, value): &(&str, &str)| (name.to_string(), Secret::new(value.to_string()));
        let owners = self.config(config).env.iter().cloned();
        Env { inherit, set: set.iter().map(pair).chain(owners).collect() }
    }

    /// Its arguments. No value among them can be read as an option (security I1).
    ///
    /// # Errors
    /// A value cannot be passed on safely.
    pub fn launch(self, opening: &Opening<'_>) -> Result<Vec<String>, LaunchFault> {
        match self {
            Self::Claude => claude::launch(opening),
            Self::Codex => Ok(codex::launch()),
            Self::Demo => demo::launch(opening),
        }
    }

    /// Where its process works: one for many conversations works nowhere.
    #[must_use]
    pub const fn cwd(self, repo_path: &str) -> &str {
        if self.is_shared() { "/" } else { repo_path }
    }

    /// What a new process of it is spoken with.
    #[must_use]
    pub fn dialect(self, limits: &Limits) -> AnyDialect {
        match self {
            Self::Codex => Box::new(Codex::new(limits)),
            Self::Claude | Self::Demo => Box::new(Claude::new()),
        }
    }

    /// Whether one that ended said that it knows the conversation already: then it is to be continued, not begun.
    #[must_use]
    pub fn knows_conversation(self, stderr: &str) -> bool {
        match self {
            Self::Codex => false,
            Self::Claude | Self::Demo => claude::knows_conversation(stderr),
        }
    }

    /// What to type when it has no credentials.
    #[must_use]
    pub const fn login_hint(self) -> &'static str {
        match self {
            Self::Claude => "run `claude auth login`",
            Self::Codex => "run `codex login`",
            Self::Demo => "the demo needs no login",
        }
    }
}
