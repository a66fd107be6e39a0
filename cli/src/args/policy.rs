//! The approval policy.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// List the mode and the rules in config.toml
    #[command(alias = "ls")]
    List,
    /// Say what would happen with a tool call, and which rule says so
    #[command(after_help = "Examples:
  clawd policy test 'Bash(git push --force)'
  clawd policy test Bash 'git status && ls'
  clawd policy test Edit src/main.rs --session 7f3a
  clawd policy test WebFetch '{\"url\": \"https://example.com\"}'

Ends with 0 if it would run, with 7 if somebody would be asked or it would be denied.
rpc: policy.test")]
    Test(PolicyTest),
}

#[derive(Debug, Args)]
pub(crate) struct PolicyTest {
    /// A tool; or the whole call, as in a rule
    pub(crate) tool: String,
    /// A command, a path, or the tool's input as a JSON object
    pub(crate) input: Option<String>,
    /// Where it would run [default: here]
    #[arg(short = 'C', long = "dir", value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// In which session it would run
    #[arg(long, value_name = "ID", conflicts_with = "dir")]
    pub(crate) session: Option<String>,
}
