//! The machine around the daemon: directories, the agent's program, and what agents will do.
//!
//! Owns the answers to questions about the world; refuses to know who asks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use clawd_protocol::{PathFault, Probe, ProgramFault, Run};

use crate::child::{Child, Script};

/// Where the agent's program is.
pub const CLAUDE: &str = "/opt/claude/bin/claude";

/// Where codex is, if there is one.
pub const CODEX: &str = "/opt/codex/bin/codex";

/// Where the demo is: clawd itself.
pub const DEMO: &str = "/opt/clawd/bin/clawd";

/// The state of the agent's program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claude {
    /// Installed and logged in.
    Ready,
    /// Installed; nobody is logged in.
    LoggedOut,
    /// Not there.
    Missing,
    /// There, and not to be trusted.
    Unsafe,
}

/// The machine.
#[derive(Debug)]
pub struct Machine {
    /// Paths, and what is really there.
    pub directories: BTreeMap<String, Result<String, PathFault>>,
    /// The agent's program.
    pub claude: Claude,
    /// Codex is installed, and logged in.
    pub has_codex: bool,
    /// What the next agent processes will do, one after another; then they just say `ok`.
    pub scripts: VecDeque<Script>,
    /// Where it is reached from beyond.
    pub addresses: Vec<IpAddr>,
    /// Conversations that agents have written down.
    conversations: BTreeSet<String>,
}

impl Default for Machine {
    fn default() -> Self {
        let at = |path: &str, what| (path.to_owned(), what);
        Self {
            directories: BTreeMap::from([
                at("/repo", Ok("/repo".to_owned())),
                at("/link", Ok("/repo".to_owned())),
                at("/file", Err(PathFault::NotADirectory)),
                at("/locked", Err(PathFault::Denied)),
                at("/home/dev/.ssh", Ok("/home/dev/.ssh".to_owned())),
                at("/", Ok("/".to_owned())),
            ]),
            claude: Claude::Ready,
            has_codex: false,
            scripts: VecDeque::new(),
            addresses: Vec::new(),
            conversations: BTreeSet::new(),
        }
    }
}

impl Machine {
    pub(crate) fn directory(&self, path: &str) -> Result<String, PathFault> {
        self.directories.get(path).cloned().unwrap_or(Err(PathFault::Missing))
    }

    pub(crate) fn probe(&self, runs: &[Vec<String>]) -> Result<Probe, ProgramFault> {
        if runs.iter().flatten().any(|arg| arg == "demo-agent") {
            let stdout = "0.0.0 (clawd demo)\n".to_owned();
            let run = Run { code: Some(0), stdout, stderr: String::new() };
            return Ok(Probe { path: DEMO.to_owned(), runs: vec![run] });
        }
        if runs.iter().flatten().any(|arg| arg == "login") {
            return self.probe_codex();
        }
        let is_in = match self.claude {
            Claude::Ready => true,
            Claude::LoggedOut => false,
            Claude::Missing => return Err(ProgramFault::Missing),
            Claude::Unsafe => {
                return Err(ProgramFault::Unsafe("others may write to it".to_owned()));
            }
        };
        let run = |args: &Vec<String>| {
            if args.iter().any(|arg| arg == "auth") {
                let method = if is_in { "claude.ai" } else { "none" };
                Run {
                    code: Some(i32::from(!is_in)),
                    stdout: format!("{{\"loggedIn\":{is_in},\"authMethod\":\"{method}\"}}\n"),
                    stderr: String::new(),
                }
            } else {
                let stdout = "2.1.330 (Claude Code)\n".to_owned();
                Run { code: Some(0), stdout, stderr: String::new() }
            }
        };
        Ok(Probe { path: CLAUDE.to_owned(), runs: runs.iter().map(run).collect() })
    }

    fn probe_codex(&self) -> Result<Probe, ProgramFault> {
        if !self.has_codex {
            return Err(ProgramFault::Missing);
        }
        let run = |stdout: &str| {
            let stderr = "API key configured - sk-***\n".to_owned();
            Run { code: Some(0), stdout: stdout.to_owned(), stderr }
        };
        let runs = vec![run("codex-cli 0.169.0\n"), run("")];
        Ok(Probe { path: CODEX.to_owned(), runs })
    }

    /// Conversations that agents have written down.
    pub(crate) const fn conversations(&self) -> &BTreeSet<String> {
        &self.conversations
    }

    /// Somebody has cleaned up.
    pub fn forget_conversations(&mut self) {
        self.conversations.clear();
    }

    /// These conversations were written down.
    pub(crate) fn keep(&mut self, conversations: Vec<String>) {
        self.conversations.extend(conversations);
    }

    /// An agent starts: it continues a conversation that there is, or begins one that there is not yet.
    pub(crate) fn greet(&mut self, child: &mut Child) {
        if child.is_codex() {
            return;
        }
        let session = child.session().to_owned();
        if child.command.args.iter().any(|arg| arg == "--resume") {
            if !self.conversations.contains(&session) {
                child.refuse(&format!("No conversation found with session ID: {session}\n"));
            }
        } else if !self.conversations.insert(session.clone()) {
            child.refuse(&format!("Error: Session ID {session} is already in use.\n"));
        }
    }
}
