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
}
