//! What waits for a decision: tool calls, questions and plans.

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
    after_help = "Shows the whole of it and asks. Without a terminal, `--yes` says that you know what it is.

Examples:
  clawd approve a81
  clawd approve a81 --answer 2   answer a question: a choice's number, or a text
  clawd approve a81 --session    also the very same call again, while the session lasts
rpc: approval.list, approval.respond"
)]
pub(crate) struct Approve {
    /// An approval's id, or a unique beginning of it
    pub(crate) id: String,
    /// Allow the very same call again while the session lasts
    #[arg(long)]
    pub(crate) session: bool,
    /// Answer the agent's question; once for each where it asks several, in their order
    #[arg(short, long = "answer", value_name = "TEXT", conflicts_with = "session")]
    pub(crate) answers: Vec<String>,
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
