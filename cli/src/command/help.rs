//! `help` and its topics, `version`.

use clap::CommandFactory as _;
use serde_json::json;

use crate::args::Cli;
use crate::exit::{Exit, Failure};
use crate::render::Screen;

const ENVIRONMENT: &str = "\
CLAWD_DATA_DIR   where the daemon keeps its files; --data-dir goes first
CLAWD_PORT       its port; --port goes first, port in config.toml last
CLAWD_BIND       its address; --bind goes first, bind in config.toml last
NO_COLOR         no colour; so do CLICOLOR=0, TERM=dumb and CLAWD_NO_COLOR
CLICOLOR_FORCE   colour also when the output is not a terminal
";

const FILES: &str = "\
All in the data directory, which only you can enter:

auth_token    the local token: whoever reads it may do everything
config.toml   your settings; must be readable by you only (chmod 600)
audit.log     who did what, one JSON object a line; audit.log.1 and so on are older (clawd audit)
clawd.sock    where this command finds the daemon
clawd.log     what a daemon started in the background has said (clawd logs)
clawd.log.1   what it said before, once that was too long

config.toml:

  port = 4300                  name = \"desk\"
  hosts = []                   origins = []

  [provider.claude]
  path = \"/usr/local/bin/claude\"

  [provider.claude.env]
  ANTHROPIC_API_KEY = \"…\"

  [approvals]
  mode = \"destructive\"          # what only looks runs, all else asks; or \"all\", \"none\"
  timeout_secs = 600            # then the answer is no
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
        ["environment"] => screen.print(ENVIRONMENT)?,
        ["files"] => screen.print(FILES)?,
        ["exit-codes"] => {
            for exit in Exit::ALL {
                screen.line(&format!("{:>3}  {}", exit.code(), exit.meaning()))?;
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
