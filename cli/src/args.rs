//! What may be typed.
//!
//! Owns names, flags and help texts; refuses to know what the commands do. What every command takes and the list of all
//! commands are here; what each one takes is in the module of its area.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use access::{Device, Identity, Pair, Token};
pub(crate) use approvals::{Approvals, Approve, Deny};
pub(crate) use audit::{Audit, AuditList};
pub(crate) use daemon::{Logs, Provider, Serve};
pub(crate) use policy::{Policy, PolicyTest};
pub(crate) use relay::{Relay, RelayEnable, RelayServe};
pub(crate) use remote::{Remote, RemotePair};
pub(crate) use sessions::{Attach, Named, Run, Send, Session, Stop, Tail};

mod access;
mod approvals;
mod audit;
mod daemon;
mod policy;
mod relay;
mod remote;
mod sessions;

const TEMPLATE: &str = "\
{name} — {about}

Usage: {usage}

Getting going   up, pair
Sessions        run, send, tail, attach, stop <session>, pause, resume, open, session
Approvals       approvals, approve, deny, policy, audit
Access          device, token, identity, relay, remote
Daemon          serve, start, stop, status, logs, provider
More            clawd help <command>, clawd help <topic>: environment, exit-codes, files

Try: clawd up

{options}";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "clawd",
    version,
    about = "run claude and codex here, drive them from your other programs and devices",
    help_template = TEMPLATE,
    override_usage = "clawd [command]",
    disable_help_subcommand = true,
    next_help_heading = "Global options"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// Flags that every command takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Where the daemon keeps its files
    #[arg(
        long,
        global = true,
        env = "CLAWD_DATA_DIR",
        value_name = "DIR",
        hide_env_values = true,
        hide_short_help = true
    )]
    pub(crate) data_dir: Option<PathBuf>,
    /// The daemon's port [default: 4300]
    #[arg(long, global = true, env = "CLAWD_PORT", hide_env_values = true, hide_short_help = true)]
    pub(crate) port: Option<u16>,
    /// The daemon's addresses [default: 127.0.0.1 and ::1, which always stay]
    #[arg(
        long,
        alias = "bind-address",
        global = true,
        env = "CLAWD_BIND",
        value_name = "ADDRESSES",
        hide_env_values = true,
        hide_short_help = true
    )]
    pub(crate) bind: Option<String>,
    /// Talk to this daemon elsewhere; see `clawd remote`
    #[arg(
        short = 'R',
        long,
        global = true,
        env = "CLAWD_REMOTE",
        value_name = "NAME",
        hide_env_values = true,
        hide_short_help = true
    )]
    remote: Option<String>,
    /// Print JSON; with names, only these fields
    #[arg(
        long,
        global = true,
        value_name = "FIELDS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "",
        value_delimiter = ','
    )]
    pub(crate) json: Option<Vec<String>>,
    /// When to use colour
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        hide_possible_values = true,
        hide_short_help = true
    )]
    pub(crate) color: Color,
    /// Say more
    #[arg(short, long, global = true, action = clap::ArgAction::Count, hide_short_help = true)]
    pub(crate) verbose: u8,
    /// Say nothing but data and errors
    #[arg(short, long, global = true, hide_short_help = true)]
    pub(crate) quiet: bool,
}

impl Global {
    /// The daemon elsewhere that is meant, if one is. An empty name is none.
    pub(crate) fn remote(&self) -> Option<&str> {
        self.remote.as_deref().filter(|name| !name.is_empty())
    }
}

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

/// All commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start in the background, check providers, show how to connect
    #[command(after_help = "rpc: daemon.status, daemon.providers")]
    Up,
    /// Show a PIN and a QR code, wait for a device
    #[command(after_help = "Examples:
  clawd pair
  clawd pair --role approve     a device that may answer questions, no more
  clawd pair --lan              let this network reach this machine first

rpc: daemon.pairPin, daemon.pairConfirm, daemon.pairCancel")]
    Pair(Pair),
    /// Create a session, send a prompt, stream the answer, ask before tools run
    #[command(after_help = "Examples:
  clawd run \"explain this repo\"
  clawd run -C ~/api --model opus fix the flaky login test
  git diff | clawd run -

rpc: session.create, session.sendMessage, tool.approve, tool.reject, session.cancel")]
    Run(Run),
    /// Send a message to a session; returns when it is accepted
    Send(Send),
    /// Follow what happens, one line for each event
    Tail(Tail),
    /// Follow a session at the terminal: watch, type, answer questions
    Attach(Attach),
    /// Let a session take no more messages
    #[command(after_help = "A turn that runs goes on to its end.

rpc: session.pause")]
    Pause(Named),
    /// Let a paused session take messages again
    #[command(after_help = "rpc: session.resume")]
    Resume(Named),
    /// Print the command that goes on with a session in the agent's own program
    #[command(after_help = "Examples:
  clawd open 7f3a               cd ~/api && claude --resume …
  eval \"$(clawd open 7f3a)\"    do it

rpc: session.list")]
    Open(Named),
    /// List, show, create and delete sessions
    #[command(subcommand)]
    Session(Session),
    /// List what waits for a decision: tool calls, questions and plans
    Approvals(Approvals),
    /// Let a tool call run, answer a question, agree to a plan
    Approve(Approve),
    /// Say no to a tool call, a question or a plan
    Deny(Deny),
    /// Say what may run without asking, and try it
    #[command(subcommand)]
    Policy(Policy),
    /// Show what was done and who let it, and prove that the log says so still
    #[command(subcommand)]
    Audit(Audit),
    /// List, rename, revoke paired devices, change what they may do
    #[command(subcommand)]
    Device(Device),
    /// Make this command line a device of another daemon; then `clawd -R NAME …` talks to it
    #[command(subcommand)]
    Remote(Remote),
    /// Show, rotate or locate the local token, or pair a phone by QR code
    #[command(subcommand)]
    Token(Token),
    /// Show or replace the key by which devices know this daemon
    #[command(subcommand)]
    Identity(Identity),
    /// Be found from anywhere by way of a relay that cannot read along
    #[command(subcommand)]
    Relay(Relay),
    /// Run the daemon in the foreground
    Serve(Serve),
    /// Start the daemon in the background
    Start,
    /// Stop the daemon; with a session, only that session's turn
    Stop(Stop),
    /// Say what the daemon is doing
    #[command(after_help = "rpc: daemon.status, session.list")]
    Status,
    /// Show what the daemon in the background has said
    Logs(Logs),
    /// Say which agent CLIs can be used
    #[command(subcommand)]
    Provider(Provider),
    /// Say which clawd this is
    Version,
    /// Explain a command or a topic: environment, exit-codes, files
    Help {
        /// A command or a topic
        topic: Vec<String>,
    },
}

/// Reads the command line of this process. Wrong usage is a message by clap and exit code 2.
pub(crate) fn parse() -> Result<Cli, clap::Error> {
    Cli::try_parse()
}

/// A subcommand that the daemon calls, and nobody else: it is not listed, and its arguments are not parsed here.
pub(crate) enum Hidden {
    /// Under it each agent is started.
    Guard(Vec<OsString>),
    /// The agent that is no model.
    Demo(Vec<OsString>),
}

/// The hidden subcommand, if this is one.
pub(crate) fn hidden() -> Option<Hidden> {
    let mut args = std::env::args_os().skip(1);
    match args.next()?.to_str()? {
        "guard" => Some(Hidden::Guard(args.collect())),
        "demo-agent" => Some(Hidden::Demo(args.collect())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn short_help_fits_one_screen() {
        fn check(command: &mut clap::Command) {
            let help = command.render_help().to_string();
            let name = command.get_name().to_owned();
            assert!(help.lines().count() <= 24, "{name}: {} lines", help.lines().count());
            let is_wide = |line: &&str| line.chars().count() > 100;
            assert_eq!(help.lines().find(is_wide), None, "{name}");
            command.get_subcommands_mut().for_each(check);
        }
        let mut all = Cli::command();
        all.build();
        check(&mut all);
    }

    #[test]
    fn json_may_name_fields_and_never_swallows_an_argument() {
        let cli = Cli::try_parse_from(["clawd", "--json", "status"]).unwrap();
        assert_eq!(cli.global.json.as_deref(), Some(&[String::new()][..]));
        let cli = Cli::try_parse_from(["clawd", "session", "list", "--json=id,status"]).unwrap();
        assert_eq!(cli.global.json.unwrap(), ["id", "status"]);
        let cli = Cli::try_parse_from(["clawd", "run", "--json", "fix", "it"]).unwrap();
        let Some(Command::Run(run)) = cli.command else { panic!("not run") };
        assert_eq!(run.prompt, ["fix", "it"]);
        let cli = Cli::try_parse_from(["clawd", "run", "fix it", "--json"]).unwrap();
        assert!(cli.global.json.is_some(), "a flag after the prompt is no part of it");
        assert!(Cli::try_parse_from(["clawd", "run", "fix", "--it"]).is_err());
        let cli = Cli::try_parse_from(["clawd", "run", "--", "--it"]).unwrap();
        let Some(Command::Run(run)) = cli.command else { panic!("not run") };
        assert_eq!(run.prompt, ["--it"]);
    }
}
