//! The daemon itself and what it runs.

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// A parent waits on stdout for one line that says how the start went.
    #[arg(long, hide = true)]
    pub(crate) detached: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Provider {
    /// List agent CLIs, their versions and logins
    #[command(alias = "ls", after_help = "rpc: daemon.providers")]
    List,
    /// Look afresh whether an agent CLI can be used, and say what to do if not
    #[command(after_help = "Exits with 8 if it cannot be used; without a name, if none can.

rpc: daemon.checkProvider")]
    Check {
        /// claude or codex [default: all]
        name: Option<String>,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  clawd logs -n 20
  clawd logs -f          from now on, until Ctrl-C; also when the daemon starts later")]
pub(crate) struct Logs {
    /// Wait for more
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// How many of the last lines to show
    #[arg(short = 'n', long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) lines: u32,
}
