//! Sessions and what is said in them.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The agent to run: claude, codex or demo [default: claude]
    #[arg(short, long)]
    pub(crate) provider: Option<String>,
    /// Where it works [default: here]
    #[arg(short = 'C', long = "dir", value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// The model it uses
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// What to say to it; `-` reads it from stdin
    #[arg(required = true, value_name = "PROMPT")]
    pub(crate) prompt: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  clawd send 7f3a \"now the tests\"
  git diff | clawd send 7f3a -
  clawd send 7f3a --wait --json run the tests

rpc: session.sendMessage")]
pub(crate) struct Send {
    /// A session's id, or a unique beginning of it
    pub(crate) session: String,
    /// What to say; `-` reads it from stdin
    #[arg(required = true, value_name = "TEXT")]
    pub(crate) text: Vec<String>,
    /// Stream the answer and end with the turn, as `run` does
    #[arg(long)]
    pub(crate) wait: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Keys:
  Enter    send the line; while a turn runs, it is sent after that
  Ctrl-C   interrupt the turn; twice, detach
  Ctrl-D   detach; the session and its turn go on

rpc: session.getMessages, session.sendMessage, tool.approve, tool.reject, session.cancel")]
pub(crate) struct Attach {
    /// A session's id, or a unique beginning of it
    pub(crate) session: String,
    /// How many messages to show first
    #[arg(short = 'n', long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=200))]
    pub(crate) limit: u16,
}

#[derive(Debug, Args)]
#[command(
    after_help = "It goes on by itself after a lost connection or a restart of the daemon: nothing is shown twice
or left out. Text is shown once it is finished; with --json there is one object for each event, as it came.

Examples:
  clawd tail                    everything, from now on
  clawd tail 7f3a --since 4182  one session, from after that event

rpc: daemon.auth"
)]
pub(crate) struct Tail {
    /// Only this session: an id, or a unique beginning of it
    pub(crate) session: Option<String>,
    /// Begin after the event with this number
    #[arg(long, value_name = "SEQ")]
    pub(crate) since: Option<u64>,
}

/// A command about one session.
#[derive(Debug, Args)]
pub(crate) struct Named {
    /// A session's id, or a unique beginning of it
    pub(crate) session: String,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  clawd stop            stop the daemon, and with it all turns
  clawd stop 7f3a       end the turn of session 7f3a; the daemon goes on

rpc: daemon.shutdown; with a session, session.cancel")]
pub(crate) struct Stop {
    /// A session's id, or a unique beginning of it: only its turn is ended
    pub(crate) session: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Session {
    /// List sessions, newest first
    #[command(alias = "ls", after_help = "rpc: session.list")]
    List,
    /// Show a session and the end of its conversation
    #[command(after_help = "rpc: session.get, session.getMessages")]
    Show {
        /// An id, or a unique beginning of one
        id: String,
        /// How many messages
        #[arg(short = 'n', long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=200))]
        limit: u16,
    },
    /// Create a session
    #[command(after_help = "rpc: session.create")]
    Create {
        /// Where the agent works [default: here]
        dir: Option<PathBuf>,
        /// The agent to run: claude, codex or demo [default: claude]
        #[arg(short, long)]
        provider: Option<String>,
        /// Its title
        #[arg(long)]
        title: Option<String>,
        /// The model it uses
        #[arg(long)]
        model: Option<String>,
    },
    /// Delete a session and its history
    #[command(alias = "rm", after_help = "rpc: session.delete")]
    Delete {
        /// An id, or a unique beginning of one
        id: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}
