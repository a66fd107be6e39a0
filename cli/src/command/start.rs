//! `up`, `start`, `stop`: the daemon in the background.
//!
//! A start is over when the child says so: one line of JSON on its stdout, `{"ready":…}` or `{"error":…}`. Nothing waits
//! for a time to pass.

use std::io::{BufRead as _, BufReader};
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

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
    if exit == Exit::Provider {
        let missing =
            Failure::new(Exit::Provider, "provider_not_available", "no agent CLI can be used yet");
        let demo = providers.iter().any(|one| one.available && one.demo);
        let demo = demo.then_some("clawd run -p demo \"hello\"");
        let repairs: Vec<&str> =
            providers.iter().filter_map(provider::repair).chain(demo).collect();
        return Err(missing.hint(repairs.join("  or  ")));
    }
    places.warn(screen);
    warn_if_elsewhere(home, screen, was_running)?;
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
    if screen.is_json() {
        screen.json(&answer)?;
        return Ok(Exit::Ok);
    }
    let status: Status = typed(&answer)?;
    let running = if was_running { "is already running" } else { "is running" };
    let places = spot(home)?.places();
    screen.note(Mark::Ok, &format!("clawd {running} on {places} (pid {})", status.pid));
    places.warn(screen);
    warn_if_elsewhere(home, screen, was_running)?;
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

/// Who asks for an address and finds a daemon that does not listen there must not believe that it does.
fn warn_if_elsewhere(home: &Home, screen: &Screen, was_running: bool) -> Result<(), Failure> {
    let listening = spot(home)?.bind;
    let is_covered = |asked: &IpAddr| {
        let by = |at: &IpAddr| at.is_unspecified() && at.is_ipv4() == asked.is_ipv4();
        asked.is_loopback() || listening.iter().any(|at| at == asked || by(at))
    };
    let missing = home.bind.iter().find(|asked| !is_covered(asked));
    if let (true, Some(address)) = (was_running, missing) {
        screen.note(
            Mark::Warn,
            &format!("it does not listen on {address} now: `clawd stop`, then start it again"),
        );
    }
    Ok(())
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
