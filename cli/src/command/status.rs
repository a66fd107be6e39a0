//! `status`, and `clawd` alone.

use clawd_protocol::text::visible_line;
use serde_json::json;

use super::{columns, provider, relay, session, start, typed};
use crate::connection::Connection;
use crate::exit::{Exit, Failure};
use crate::home::{self, Home};
use crate::render::Screen;
use crate::render::time;
use crate::wire::{Device, Session, Status};

const GETTING_STARTED: &str = "\
clawd runs claude here and lets your other devices drive it.

  clawd up                           start it
  clawd run \"explain this repo\"      try it
  clawd help                         see everything";

/// How many sessions that are not running are shown.
const IDLE_SHOWN: usize = 5;

/// `clawd` alone, at a terminal.
pub(super) fn bare(home: &Home, screen: &Screen) -> Result<Exit, Failure> {
    match home.connect() {
        Ok(daemon) => show(daemon, home, screen).map(|()| Exit::Ok),
        Err(failure) if failure.kind == "not_running" => {
            screen.line(GETTING_STARTED)?;
            Ok(Exit::Ok)
        }
        Err(failure) => Err(failure),
    }
}

/// `status`. Scripts of the reference expect exit 1 and one object when nothing runs.
pub(super) fn status(home: &Home, screen: &Screen) -> Result<Exit, Failure> {
    match home.connect() {
        Ok(daemon) => show(daemon, home, screen).map(|()| Exit::Ok),
        Err(failure) if failure.kind == "not_running" && screen.is_json() => {
            screen.line(r#"{"status":"not_running"}"#)?;
            Ok(Exit::Failure)
        }
        Err(failure) => Err(failure),
    }
}

fn show(mut daemon: Connection, home: &Home, screen: &Screen) -> Result<(), Failure> {
    let mut answer = daemon.call("daemon.status", json!({}))?;
    if screen.is_json() {
        if let Some(status) = answer.as_object_mut() {
            status.entry("status").or_insert_with(|| "running".into());
            if home.away.is_none() {
                let places = start::spot(home)?.places().all();
                status.entry("listening").or_insert_with(|| places.into());
            }
        }
        return screen.json(&answer);
    }
    let status: Status = typed(&answer)?;
    let devices: Vec<Device> = typed(&daemon.call("device.list", json!({}))?)?;
    let sessions: Vec<Session> = typed(&daemon.call("session.list", json!({}))?)?;
    // The reference's first line, byte for byte: scripts read it.
    screen.line(&format!(
        "clawd {} — Running ({} active sessions, uptime {})",
        status.version,
        status.active_sessions,
        time::span(status.uptime_secs)
    ))?;
    let field = |name: &str, value: &str| screen.line(&format!("  {name:<10} {value}"));
    match (&home.away, &daemon.way) {
        (Some(_), Some(way)) => field("reached by", way)?,
        (Some(_), None) => {}
        (None, _) => field("listening", &start::spot(home)?.places().to_string())?,
    }
    let relay =
        status.relay.as_ref().map_or_else(|| "off".to_owned(), |one| relay::line(one, screen.out));
    field("relay", &relay)?;
    if screen.is_verbose() {
        for (at, one) in status.providers.iter().enumerate() {
            let name = if at == 0 { "providers" } else { "" };
            field(name, &provider::line(one, screen.out))?;
        }
    } else {
        let providers: Vec<String> =
            status.providers.iter().map(|one| provider::short(one, screen.out)).collect();
        field("providers", &providers.join("  "))?;
    }
    field("devices", &connected(&devices))?;
    if screen.is_verbose() {
        field("pid", &status.pid.to_string())?;
    }
    if screen.is_verbose() && home.away.is_none() {
        field("data", &home::shorten(&home.dir))?;
        field("token", &home::shorten(&home.token_path()))?;
    }
    show_sessions(screen, sessions)?;
    if status.pending_approvals > 0 {
        let noun = if status.pending_approvals == 1 { "approval" } else { "approvals" };
        let arrow = screen.out.arrow();
        screen.line(&format!(
            "\n{} {noun} waiting   {arrow} clawd approvals",
            status.pending_approvals
        ))?;
    }
    Ok(())
}

/// `3 paired, 1 connected ("Ana's iPhone", relay)`.
fn connected(devices: &[Device]) -> String {
    let here: Vec<&Device> = devices.iter().filter(|device| device.connected).collect();
    let who = match here.as_slice() {
        [one] => {
            let via = one
                .via
                .as_deref()
                .map_or_else(String::new, |via| format!(", {}", visible_line(via)));
            format!(" (\"{}\"{via})", visible_line(&one.name))
        }
        _ => String::new(),
    };
    format!("{} paired, {} connected{who}", devices.len(), here.len())
}

fn show_sessions(screen: &Screen, sessions: Vec<Session>) -> Result<(), Failure> {
    let mut idle = 0;
    let shown: Vec<Session> = sessions
        .into_iter()
        .filter(|session| {
            idle += usize::from(session.status != "running");
            session.status == "running" || idle <= IDLE_SHOWN
        })
        .collect();
    if shown.is_empty() {
        return Ok(());
    }
    let table = session::table(&shown, screen.out);
    screen.print(&format!("\n{}", table.aligned(screen.out, columns(), false)))
}
