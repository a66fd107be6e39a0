//! What the owner set, as the core needs it.
//!
//! Owns the settings; refuses to know files, flags and environment variables: the CLI reads those.

use alloc::string::String;
use alloc::vec::Vec;

use super::limits::Limits;
use crate::access::token::Secret;
use crate::policy::Policy;

/// Settings of one daemon, fixed for its life.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// The daemon's version, as `daemon.ping` says it.
    pub version: String,
    /// The process id, for `daemon.status`.
    pub pid: u32,
    /// The machine's name, for `daemon.status` and pairing.
    pub host_name: String,
    /// Names beside `127.0.0.1`, `localhost` and `[::1]` that may stand in `Host` (security B1).
    pub host_names: Vec<String>,
    /// Exact origins that may open a WebSocket (B2). Empty: browsers may not.
    pub origins: Vec<String>,
    /// Canonical directories in and above which no session may work (J4): the data directory, `~/.ssh`, …
    pub protected_paths: Vec<String>,
    /// What may run without a person being asked (H2, H5).
    pub policy: Policy,
    /// How to run claude.
    pub claude: ProviderConfig,
    /// How to run codex.
    pub codex: ProviderConfig,
    /// How to run the demo: its path is that of clawd itself.
    pub demo: ProviderConfig,
    /// The bounds.
    pub limits: Limits,
}

/// How the owner wants a provider to be run.
#[derive(Debug, Clone, Default)]
pub struct ProviderConfig {
    /// The program's absolute path; `None` to look for it in `PATH`.
    pub path: Option<String>,
    /// Variables added to its cleared environment (I3).
    pub env: Vec<(String, Secret)>,
}
