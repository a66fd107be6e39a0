//! What each command does.
//!
//! Owns the order of steps; refuses to know bytes, files and colours.

use std::io::{self, IsTerminal as _, Write as _};

use clawd_protocol::text::visible_line;
use serde_json::Value;

use crate::args::{Audit, Cli, Command, Pair, Policy, Relay, Stop};
use crate::exit::{Exit, Failure};
use crate::home::Home;
use crate::render::Screen;

mod approvals;
mod approve;
mod attach;
mod audit;
mod control;
mod decision;
mod device;
mod help;
mod identity;
mod logs;
mod open;
mod pair;
mod policy;
mod provider;
mod question;
mod relay;
mod relay_serve;
mod remote;
mod run;
mod send;
mod serve;
mod session;
mod start;
mod status;
mod stream;
mod tail;
mod token;
mod watch;

/// Does what was typed.
pub(crate) fn run(cli: Cli, screen: &Screen) -> Result<Exit, Failure> {
    let home = || Home::of(&cli.global);
    let there = || Home::to_reach(&cli.global, screen);
    let is_away = cli.global.remote().is_some();
    if is_away && !is_for_remotes(cli.command.as_ref()) {
        return Err(Failure::usage("this command is about the clawd of this machine only")
            .hint("leave `-R` out, and CLAWD_REMOTE unset; or log in to that machine"));
    }
    match cli.command {
        None if !is_away && !io::stdin().is_terminal() => serve::serve(home()?, screen, false),
        None => status::bare(&there()?, screen),
        Some(Command::Up) => start::up(&home()?, screen),
        Some(Command::Start) => start::start(&home()?, screen),
        Some(Command::Stop(Stop { session: None })) => start::stop(&there()?, screen),
        Some(Command::Stop(Stop { session: Some(id) })) => control::stop(&there()?, screen, &id),
        Some(Command::Serve(args)) => serve::serve_or_report(&cli.global, screen, args.detached),
        Some(Command::Status) => status::status(&there()?, screen),
        Some(Command::Pair(args)) => pair::pair(&there()?, screen, &args),
        Some(Command::Token(args)) => token::token(&cli.global, screen, &args),
        Some(Command::Policy(args)) if is_away => policy::policy(&there()?, screen, &args),
        Some(Command::Policy(args)) => policy::policy(&home()?, screen, &args),
        Some(Command::Audit(Audit::List(args))) if is_away => {
            audit::of_remote(&there()?, screen, &args)
        }
        Some(Command::Audit(args)) => audit::audit(&cli.global, screen, &args),
        Some(Command::Remote(args)) => remote::remote(&cli.global, screen, &args),
        Some(Command::Device(args)) => device::device(&there()?, screen, &args),
        Some(Command::Identity(args)) => identity::identity(&cli.global, screen, &args),
        Some(Command::Relay(Relay::Serve(args))) => relay_serve::serve(screen, &args),
        Some(Command::Relay(args)) => relay::relay(&home()?, screen, &args),
        Some(Command::Session(args)) => session::session(&there()?, screen, &args),
        Some(Command::Run(args)) => run::run(&there()?, screen, &args),
        Some(Command::Send(args)) => send::send(&there()?, screen, &args),
        Some(Command::Tail(args)) => tail::tail(&there()?, screen, &args),
        Some(Command::Attach(args)) => attach::attach(&there()?, screen, &args),
        Some(Command::Pause(args)) => control::pause(&there()?, screen, &args.session),
        Some(Command::Resume(args)) => control::resume(&there()?, screen, &args.session),
        Some(Command::Open(args)) => open::open(&there()?, screen, &args.session),
        Some(Command::Approvals(args)) => approvals::approvals(&there()?, screen, &args),
        Some(Command::Approve(args)) => approve::approve(&there()?, screen, &args),
        Some(Command::Deny(args)) => approve::deny(&there()?, screen, &args),
        Some(Command::Logs(args)) => logs::logs(&cli.global, screen, &args),
        Some(Command::Provider(args)) => provider::provider(&there()?, screen, &args),
        Some(Command::Version) => help::version(screen),
        Some(Command::Help { topic }) => help::help(&topic, screen),
    }
}

/// Whether a command makes sense with a daemon elsewhere. What is about this command line itself goes by no daemon.
const fn is_for_remotes(command: Option<&Command>) -> bool {
    match command {
        None => true,
        Some(command) => match command {
            // The other two are about what this machine listens on.
            Command::Pair(Pair { lan: false, local: false, .. })
            | Command::Run(_)
            | Command::Send(_)
            | Command::Tail(_)
            | Command::Attach(_)
            | Command::Pause(_)
            | Command::Resume(_)
            | Command::Session(_)
            | Command::Approvals(_)
            | Command::Approve(_)
            | Command::Deny(_)
            | Command::Policy(Policy::Test(_))
            | Command::Audit(Audit::List(_))
            | Command::Device(_)
            | Command::Stop(Stop { session: Some(_) })
            | Command::Status
            | Command::Provider(_)
            | Command::Remote(_)
            | Command::Version
            | Command::Help { .. } => true,
            Command::Up
            | Command::Open(_)
            | Command::Policy(Policy::List)
            | Command::Audit(Audit::Verify | Audit::Export)
            | Command::Token(_)
            | Command::Serve(_)
            | Command::Start
            | Command::Stop(Stop { session: None })
            | Command::Pair(_)
            | Command::Identity(_)
            | Command::Relay(_)
            | Command::Logs(_) => false,
        },
    }
}

/// The daemon's answer, as a type.
fn typed<T: serde::de::DeserializeOwned>(value: &Value) -> Result<T, Failure> {
    serde_json::from_value(value.clone()).map_err(|error| {
        Failure::new(
            Exit::Failure,
            "internal",
            format!("the daemon's answer is not understood: {error}"),
        )
    })
}

/// Asks before something that cannot be undone. Only an explicit yes is one.
fn confirm(question: &str, is_sure: bool) -> Result<(), Failure> {
    if is_sure {
        return Ok(());
    }
    if !Screen::can_ask() {
        let what = question.trim_end_matches('?');
        return Err(Failure::usage(format!("not confirmed, no terminal to ask on: {what}"))
            .hint("add `--yes` if you are sure"));
    }
    let _ = write!(io::stderr().lock(), "{question} [y/N] ");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(|error| Failure::io("cannot read", &error))?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        Ok(())
    } else {
        Err(Failure::new(Exit::Failure, "declined", "not confirmed; nothing was done"))
    }
}

/// The one id that begins with what was typed.
fn resolve(typed: &str, what: &str, ids: &[(String, String)]) -> Result<String, Failure> {
    let matching: Vec<&(String, String)> =
        ids.iter().filter(|(id, _)| id == typed || id.starts_with(typed)).collect();
    let exact = matching.iter().find(|(id, _)| id == typed);
    match (exact, matching.as_slice()) {
        (Some((id, _)), _) => Ok(id.clone()),
        (None, [(id, _)]) if !typed.is_empty() => Ok(id.clone()),
        (None, []) => Err(Failure::new(
            Exit::NotFound,
            &format!("{what}_not_found"),
            format!("there is no {what} `{typed}`"),
        )
        .hint(match what {
            "approval" => "see `clawd approvals`".to_owned(),
            what => format!("see `clawd {what} list`"),
        })),
        (None, several) => {
            let candidates: Vec<String> = several
                .iter()
                .map(|(id, name)| format!("\n    {id}  {}", visible_line(name)))
                .collect();
            let ids: Vec<&str> = several.iter().map(|(id, _)| id.as_str()).collect();
            Err(Failure::new(
                Exit::NotFound,
                "ambiguous",
                format!("`{typed}` could be any of{}", candidates.concat()),
            )
            .hint("type more of it")
            .detail("candidates", ids))
        }
    }
}

/// A short word on a tool's input.
fn summary(input: &Value) -> String {
    let keys = [
        "command",
        "file_path",
        "path",
        "pattern",
        "url",
        "query",
        "description",
        "prompt",
        "plan",
    ];
    let key = keys.into_iter().find_map(|key| input.get(key).and_then(Value::as_str));
    let key = key.or_else(|| input.pointer("/questions/0/question").and_then(Value::as_str));
    let text = match key {
        Some(text) => text.to_owned(),
        None if input.as_object().is_none_or(serde_json::Map::is_empty) => String::new(),
        None => input.to_string(),
    };
    let line: String = text.lines().next().unwrap_or_default().chars().take(100).collect();
    let more = if line.len() < text.len() { " …" } else { "" };
    format!("{}{more}", visible_line(&line))
}

/// The terminal's width, or a page's.
fn columns() -> usize {
    rustix::termios::tcgetwinsize(io::stdout())
        .map(|size| usize::from(size.ws_col))
        .ok()
        .filter(|&columns| columns > 0)
        .unwrap_or(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_may_be_shortened_while_one_is_meant() {
        let ids = [("7f3a11", "one"), ("7f3b22", "two"), ("7f", "short")]
            .map(|(id, name)| (id.to_owned(), name.to_owned()));
        assert_eq!(resolve("7f3a", "session", &ids).unwrap(), "7f3a11");
        assert_eq!(resolve("7f", "session", &ids).unwrap(), "7f");
        let failure = resolve("7f3", "session", &ids).unwrap_err();
        assert_eq!(failure.exit, Exit::NotFound);
        assert!(failure.message.contains("7f3a11  one") && failure.message.contains("7f3b22  two"));
        assert_eq!(resolve("x", "session", &ids).unwrap_err().kind, "session_not_found");
        assert!(resolve("", "session", &ids[..1]).is_err());
    }
}
