//! `clawd`: the daemon and its command line, in one small binary.
//!
//! | module | owns |
//! |---|---|
//! | `args` | what may be typed |
//! | `command` | what each command does |
//! | `home`, `config` | which daemon is meant, and its settings |
//! | `connection`, `wire`, `probe` | talking to it |
//! | `remote` | daemons elsewhere, and the ways to them |
//! | `places`, `reach` | where it is reached, and whether it is |
//! | `log` | what a daemon in the background has said |
//! | `interrupts` | signals, waited for like the rest |
//! | `daemon` | all that touches the runtime |
//! | `demo` | the agent that is no model, which the daemon runs like any other |
//! | `render`, `qr` | what is seen |
//! | `exit` | exit codes and errors |

mod args;
mod command;
mod config;
mod connection;
mod daemon;
mod demo;
mod exit;
mod home;
mod interrupts;
mod log;
mod places;
mod probe;
mod qr;
mod reach;
mod remote;
mod render;
mod wire;

use std::process::ExitCode;

use crate::args::Hidden;
use crate::exit::{Exit, Failure};
use crate::render::Screen;

fn main() -> ExitCode {
    match args::hidden() {
        Some(Hidden::Guard(args)) => return daemon::guard(args),
        Some(Hidden::Demo(args)) => return demo::run(&args),
        None => {}
    }
    let cli = match args::parse() {
        Ok(cli) => cli,
        Err(error) => return wrong_usage(&error),
    };
    let screen = Screen::new(&cli.global);
    match command::run(cli, &screen) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            screen.fail(&failure);
            failure.exit.into()
        }
    }
}

/// clap's own words; under `--json` in the form that all errors have. Help is no error.
fn wrong_usage(error: &clap::Error) -> ExitCode {
    let is_json = std::env::args().any(|arg| arg == "--json" || arg.starts_with("--json="));
    if error.use_stderr() && is_json {
        let message = error.to_string();
        let message = message.trim_start_matches("error: ").lines().next().unwrap_or_default();
        Screen::bare(true).fail(&Failure::usage(message));
        return Exit::Usage.into();
    }
    let _ = error.print();
    if error.use_stderr() { Exit::Usage.into() } else { Exit::Ok.into() }
}
