//! What was written down for good.

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// Show the last records
    #[command(alias = "ls")]
    List(AuditList),
    /// Prove that no record was changed, removed or moved
    #[command(after_help = "Reads every line and compares the last one with what the daemon \
remembers. Exits with 1 and
names the file and the line if something is wrong. It prints the number and the hash of the last
record: keep them elsewhere, and nobody can exchange the log as a whole.")]
    Verify,
    /// Print all records, oldest first, one JSON object a line
    Export,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  clawd audit list -n 20
  clawd audit list --session 7f3a41c2-… --json

rpc: audit.list, session.toolCallAudit (here the files are read, also when no daemon runs)")]
pub(crate) struct AuditList {
    /// Only those about this session (its whole id)
    #[arg(long, value_name = "ID")]
    pub(crate) session: Option<String>,
    /// How many of the last records to show
    #[arg(short = 'n', long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) lines: u32,
}
