//! Tool calls that wait for a decision.

use clap::Args;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  clawd approvals
  clawd approvals --json=approval_id,tool,input
  clawd approvals --watch        a line for each that comes and goes, until Ctrl-C

rpc: approval.list")]
pub(crate) struct Approvals {
    /// Stay, and say what comes and how it was decided
    #[arg(short, long)]
    pub(crate) watch: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Shows the whole call and asks. Without a terminal, `--yes` says that you know what it is.

Examples:
  clawd approve a81
  clawd approve a81 --session    also the very same call again, while the session lasts

rpc: approval.list, approval.respond"
)]
pub(crate) struct Approve {
    /// An approval's id, or a unique beginning of it
    pub(crate) id: String,
    /// Allow the very same call again while the session lasts
    #[arg(long)]
    pub(crate) session: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  clawd deny a81
  clawd deny a81 -m \"use the staging database\"

rpc: approval.list, approval.respond")]
pub(crate) struct Deny {
    /// An approval's id, or a unique beginning of it
    pub(crate) id: String,
    /// What the agent is told
    #[arg(short, long, value_name = "WHY")]
    pub(crate) message: Option<String>,
}
