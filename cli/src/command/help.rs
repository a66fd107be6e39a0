//! `help` and its topics, `version`.

use clap::CommandFactory as _;
use clawd_protocol::agent::{claude, codex};
use serde_json::json;

use crate::args::Cli;
use crate::exit::{Exit, Failure};
use crate::render::Screen;

const ENVIRONMENT: &str = "\
CLAWD_DATA_DIR   where the daemon keeps its files; --data-dir goes first
CLAWD_PORT       its port; --port goes first, port in config.toml last
CLAWD_BIND       its addresses; --bind goes first, bind in config.toml last
CLAWD_REMOTE     the daemon elsewhere that is talked to; -R goes first, and -R '' means none
HOME             your home directory, where the data directory is if nothing else is said
XDG_DATA_HOME    where it is instead, on Linux: in clawd/ there
NO_COLOR         no colour; so do CLICOLOR=0, TERM=dumb and CLAWD_NO_COLOR
CLICOLOR_FORCE   colour also when the output is not a terminal
LC_ALL           no signs but ASCII unless it says UTF-8; else LC_CTYPE, else LANG
";

/// Goes on with their names.
const AGENTS: &str = "
Of the daemon's own environment agents get these and no others; more is set for them under
[provider.claude.env] and [provider.codex.env] in config.toml:
";

const FILES: &str = "\
All in the data directory, which only you can enter (`clawd token path` says where):

auth_token    the local token: whoever reads it may do everything
identity.key  the key by which devices know this daemon (clawd identity show)
relay.json    which relay is used, and what it wants to see (clawd relay status)
remotes       other daemons of which this command is a device (clawd remote list)
config.toml   your settings; must be readable by you only (chmod 600)
audit.log     who did what, one JSON object a line; audit.log.1 and so on are older (clawd audit)
clawd.db      sessions, messages, devices, events; -wal and -shm beside it belong to it
revoked       devices that were shut out, so that no old clawd.db lets them in again
remotes/      daemons that this command line is a device of, their tokens, and its own key (clawd remote)
clawd.sock    where this command finds the daemon
clawd.lock    held while a daemon runs; says which
child_mark    what the daemon knows its own agents by, should one outlive it
clawd.log     what a daemon started in the background has said (clawd logs)
clawd.log.1   what it said before, once that was too long

config.toml, read when the daemon starts:

  name = \"desk\"                # what devices call this machine
  port = 4300
  bind = \"0.0.0.0\"             # or a list; only 127.0.0.1 and ::1, which always stay, if left out
  hosts = []                   # names beside localhost that may stand in Host
  origins = []                 # web origins that may connect

  [provider.claude]            # [provider.codex] alike
  path = \"/usr/local/bin/claude\"

  [provider.claude.env]
  ANTHROPIC_API_KEY = \"…\"

  [approvals]
  mode = \"destructive\"          # what only looks runs, all else asks; or \"all\", \"none\"
  timeout_secs = 600            # then the answer is no
  on_timeout = \"deny\"           # there is no other
  when_nobody_listens = \"wait\"  # or \"deny\"
  deny = [\"Read(~/.ssh/**)\", \"Bash(git push *)\"]
  ask = []
  allow = [\"Bash(git status)\", \"Bash(cargo test *)\", \"Edit(src/**)\"]

deny goes before ask, ask before allow. Try one: clawd policy test 'Bash(ls)'
";

/// `help`, with a topic or a command.
pub(super) fn help(topic: &[String], screen: &Screen) -> Result<Exit, Failure> {
    let mut command = Cli::command();
    let words: Vec<&str> = topic.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["environment"] => screen.print(&environment())?,
        ["files"] => screen.print(FILES)?,
        ["exit-codes"] => {
            for exit in Exit::ALL {
                screen.line(&format!(
                    "{:>3}  {}",
                    exit.code(),
                    exit.meaning().replace("; also ", ";\n     also ")
                ))?;
            }
        }
        words => {
            command.build();
            let mut found = &mut command;
            for word in words {
                found = found.find_subcommand_mut(word).ok_or_else(|| {
                    Failure::usage(format!("there is no help on `{}`", topic.join(" ")))
                        .hint("topics are environment, exit-codes and files")
                })?;
            }
            screen.print(&found.render_long_help().to_string())?;
        }
    }
    Ok(Exit::Ok)
}

/// The names of variables, those of agents from the tables that they are given by.
fn environment() -> String {
    let mut text = format!("{ENVIRONMENT}{AGENTS}");
    for (agent, names) in [("claude", claude::INHERIT), ("codex", codex::INHERIT)] {
        let mut line = format!("{agent:<8}");
        for name in names {
            if line.len() + name.len() > 98 {
                text.push_str(line.trim_end());
                text.push('\n');
                line = " ".repeat(8);
            }
            line.push_str(&format!(" {name}"));
        }
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// `version`.
pub(super) fn version(screen: &Screen) -> Result<Exit, Failure> {
    let version = env!("CARGO_PKG_VERSION");
    if screen.is_json() {
        screen.json(&json!({
            "version": version,
            "target": format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
            "protocolVersion": 1,
        }))?;
    } else {
        screen.line(&format!("clawd {version}"))?;
    }
    Ok(Exit::Ok)
}
