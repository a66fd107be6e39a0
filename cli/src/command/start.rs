//! `up`, `start`, `stop`: the daemon in the background.
//!
//! A start is over when the child says so: one line of JSON on its stdout, `{"ready":…}` or `{"error":…}`. Nothing waits
//! for a time to pass.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clawd_protocol::text::visible_line;
use serde_json::{Value, json};

use super::{provider, typed};
use crate::connection::Connection;
use crate::daemon;
use crate::exit::{Exit, Failure};
use crate::home::{self, Home};
use crate::log;
use crate::places::Places;
use crate::render::Screen;
use crate::render::style::Mark;
use crate::render::time;
use crate::wire::{Provider, Status};

/// A stopping daemon ends its agents politely first.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// `up`: running afterwards, and said how.
pub(super) fn up(home: &Home, screen: &Screen) -> Result<Exit, Failure> {
    let (mut daemon, was_running) = connect_or_start(home)?;
    let answer = daemon.call("daemon.status", json!({}))?;
    let status: Status = typed(&answer)?;
    let listed = daemon.call("daemon.providers", json!({}))?;
    let providers: Vec<Provider> = typed(&listed)?;
    let is_agent = |one: &Provider| one.available && !one.demo;
    let exit = if providers.iter().any(is_agent) { Exit::Ok } else { Exit::Provider };
    if was_running {
        warn_if_elsewhere(home, screen)?;
    }
    if screen.is_json() {
        let mut answer = answer;
        if let Some(object) = answer.as_object_mut() {
            object.insert("alreadyRunning".to_owned(), was_running.into());
            object.insert("listening".to_owned(), spot(home)?.places().all().into());
            object.insert("providers".to_owned(), listed);
            object.insert("tokenPath".to_owned(), home.token_path().display().to_string().into());
        }
        screen.json(&answer)?;
        return Ok(exit);
    }
    let places = spot(home)?.places();
    let style = screen.out;
    let ok = style.mark(Mark::Ok);
    let running = match was_running {
        true => format!("is already running (since {})", time::coarse(status.uptime_secs)),
        false => "is running".to_owned(),
    };
    let memory = resident(status.pid).map_or_else(String::new, |mib| format!(", {mib} MB"));
    screen.line(&format!(
        "{ok} clawd {} {running} on {places}  {}",
        status.version,
        style.dim(&format!("(pid {}{memory})", status.pid)),
    ))?;
    for one in &providers {
        screen.line(&provider::line(one, style))?;
    }
    screen.line(&format!(
        "{ok} {:<16} {}  {}",
        "token",
        home::shorten(&home.token_path()),
        style.dim("(only you can read it)"),
    ))?;
    places.warn(screen);
    if exit == Exit::Provider {
        let missing =
            Failure::new(Exit::Provider, "provider_not_available", "no agent CLI can be used yet");
        let demo = providers.iter().any(|one| one.available && one.demo);
        let demo = demo.then_some("clawd run -p demo \"hello\"");
        let repairs: Vec<&str> =
            providers.iter().filter_map(provider::repair).chain(demo).collect();
        return Err(missing.hint(repairs.join("  or  ")));
    }
    screen.line("\nNext:")?;
    for (command, what) in [
        ("clawd run \"explain this repo\"", "try it here"),
        ("clawd pair", "let another client in"),
        ("clawd status", "see what it does"),
    ] {
        screen.line(&format!("  {command:<34} {}", style.dim(what)))?;
    }
    Ok(exit)
}

/// `start`.
pub(super) fn start(home: &Home, screen: &Screen) -> Result<Exit, Failure> {
    let (mut daemon, was_running) = connect_or_start(home)?;
    let answer = daemon.call("daemon.status", json!({}))?;
    if was_running {
        warn_if_elsewhere(home, screen)?;
    }
    if screen.is_json() {
        screen.json(&answer)?;
        return Ok(Exit::Ok);
    }
    say_running(home, screen, was_running, typed::<Status>(&answer)?.pid)?;
    Ok(Exit::Ok)
}

/// `stop`: gone afterwards, lock and all.
pub(super) fn stop(home: &Home, screen: &Screen) -> Result<Exit, Failure> {
    let mut daemon = home.connect()?;
    let status: Status = typed(&daemon.call("daemon.status", json!({}))?)?;
    if status.active_sessions > 0 {
        screen.say(&format!("ending {} running turns", status.active_sessions));
    }
    daemon.call("daemon.shutdown", json!({}))?;
    wait_gone(home, daemon, status.pid)?;
    if screen.is_json() {
        screen.json(&json!({"stopped": true, "pid": status.pid}))?;
    } else {
        screen.note(Mark::Ok, &format!("clawd has stopped (pid {})", status.pid));
    }
    Ok(Exit::Ok)
}

/// Waits until a daemon that was told to stop is gone, lock and all.
pub(super) fn wait_gone(home: &Home, mut daemon: Connection, pid: u32) -> Result<(), Failure> {
    let deadline = Instant::now() + STOP_TIMEOUT;
    if !daemon.wait_closed(deadline) || !daemon::wait_released(&home.dir, deadline)? {
        return Err(Failure::new(
            Exit::Failure,
            "still_running",
            format!("clawd (pid {pid}) was told to stop and has not after 30 s"),
        )
        .hint(format!("kill {pid}")));
    }
    Ok(())
}

/// Where a daemon listens.
#[derive(Debug)]
pub(super) struct Spot {
    pub(super) port: u16,
    pub(super) bind: Vec<IpAddr>,
}

impl Spot {
    pub(super) fn places(&self) -> Places {
        Places::of(&self.bind, self.port)
    }
}

/// Where the running daemon listens, which may have been told otherwise than we are; where one would, if none runs.
pub(super) fn spot(home: &Home) -> Result<Spot, Failure> {
    let holder = daemon::holder(&home.dir)?;
    let port = holder.as_ref().and_then(|holder| holder.port).unwrap_or(home.port);
    let bind = holder.map(|holder| holder.addresses).filter(|bind| !bind.is_empty());
    Ok(Spot { port, bind: bind.unwrap_or_else(|| home.bind.clone()) })
}

/// That it runs, and whom it lets connect.
pub(super) fn say_running(
    home: &Home,
    screen: &Screen,
    was_running: bool,
    pid: u32,
) -> Result<(), Failure> {
    let running = if was_running { "is already running" } else { "is running" };
    let places = spot(home)?.places();
    screen.note(Mark::Ok, &format!("clawd {running} on {places} (pid {pid})"));
    places.warn(screen);
    Ok(())
}

/// Who asks for a place and finds a daemon that runs at another must not believe that it has moved, or has closed a door.
fn warn_if_elsewhere(home: &Home, screen: &Screen) -> Result<(), Failure> {
    let running = spot(home)?;
    let is_bind_asked = home.asked.bind.is_some() || home.config.bind.is_some();
    let is_port_asked = home.asked.port.or(home.config.port).is_some_and(|port| port != 0);
    let is_elsewhere = is_bind_asked && !is_same(&home.bind, &running.bind)
        || is_port_asked && home.port != running.port;
    if is_elsewhere {
        let bind = home.asked.bind.as_ref().map(|bind| format!(" --bind {}", visible_line(bind)));
        let port = home.asked.port.map(|port| format!(" --port {port}"));
        let flags = [bind, port].map(Option::unwrap_or_default).concat();
        screen.note(
            Mark::Warn,
            "clawd runs already and stays where it listens; another address or port counts when it starts",
        );
        screen.say(&format!("  next: clawd stop && clawd up{flags}"));
    }
    Ok(())
}

/// Whether other machines find the same addresses at both; this one always finds its own.
fn is_same(one: &[IpAddr], other: &[IpAddr]) -> bool {
    let others = |bind: &[IpAddr]| -> BTreeSet<IpAddr> {
        bind.iter().copied().filter(|address| !address.is_loopback()).collect()
    };
    others(one) == others(other)
}

pub(super) fn connect_or_start(home: &Home) -> Result<(Connection, bool), Failure> {
    match home.connect() {
        Ok(daemon) => Ok((daemon, true)),
        Err(failure) if failure.kind == "not_running" => {
            spawn(home, &Spot { port: home.port, bind: home.bind.clone() })?;
            home.connect().map(|daemon| (daemon, false))
        }
        Err(failure) => Err(failure),
    }
}

/// Starts `clawd serve` on its own and waits for its one line.
pub(super) fn spawn(home: &Home, spot: &Spot) -> Result<(), Failure> {
    let io = |error: std::io::Error| Failure::io("cannot start the daemon", &error);
    let program = std::env::current_exe().map_err(io)?;
    daemon::make_dir(&home.dir)?;
    let bind = spot.bind.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",");
    let mut child = Command::new(program)
        .args(["serve", "--detached", "--port", &spot.port.to_string()])
        .args(["--bind", &bind])
        .arg("--data-dir")
        .arg(&home.dir)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log::make(&home.dir.join(log::FILE))?)
        .spawn()
        .map_err(io)?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).map_err(io)?;
    }
    let said: Value = serde_json::from_str(&line).unwrap_or_default();
    if said.get("ready").is_some() {
        return Ok(());
    }
    let ended = child.wait().map_err(io)?;
    let exit = Exit::from_code(ended.code().unwrap_or(1));
    Err(Failure::from_json(exit, &said).unwrap_or_else(|| {
        Failure::new(exit, "start_failed", format!("the daemon did not start: {ended}"))
            .hint(format!("see {}", home::shorten(&home.dir.join(log::FILE))))
    }))
}

/// Megabytes of memory in use, where the system says.
fn resident(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib.div_ceil(1024))
}
