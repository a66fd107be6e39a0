//! What the release daemon costs and bears, beside two servers that only echo: `cargo run --release -p clawd-tests --bin
//! load [-- --json]`.
//!
//! The daemon and the echo servers get one core for themselves where `taskset` can give it to them; the client has
//! another. Numbers are of this machine, in this run: compare ratios, not days.

use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clawd_tests::daemon::{Daemon, Process, Raw, Site};
use serde_json::{Map, Value, json};

use client::{Conn, Many, ping_pong};

mod client;
mod echo;

const SPAN: Duration = Duration::from_secs(2);
const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"daemon.ping"}"#;
const PONG: &[u8] =
    concat!(r#""result":{"pong":true,"version":""#, env!("CARGO_PKG_VERSION"), "\"}}").as_bytes();
const PIN_SHELL: &str = "taskset -pc 0 $$ >/dev/null";

type Outcome<T> = Result<T, Box<dyn Error>>;

/// One line of the table.
struct Row {
    key: &'static str,
    what: &'static str,
    value: f64,
    unit: &'static str,
}

fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [serve, kind] = &*args
        && serve == "--serve-echo"
    {
        return Ok(echo::serve(kind.parse()?)?);
    }
    let is_pinned = pin_client();
    let rows = measure(is_pinned)?;
    let mut out = io::stdout().lock();
    if args.iter().any(|arg| arg == "--json") {
        let values = rows.iter().map(|row| (row.key.to_owned(), json!(row.value)));
        let mut object: Map<String, Value> = values.collect();
        object.insert("isPinned".to_owned(), json!(is_pinned));
        return Ok(writeln!(out, "{}", Value::Object(object))?);
    }
    for Row { what, value, unit, .. } in &rows {
        let digits = if *value < 100.0 { 2 } else { 0 };
        writeln!(out, "{what:<58}{value:>12.digits$} {unit}")?;
    }
    let pinned = if is_pinned { "one core of its own" } else { "no core of its own" };
    writeln!(out, "each server had {pinned}")?;
    Ok(())
}

/// Leaves core 0 to the servers, if there is another and it can be done.
fn pin_client() -> bool {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let pid = std::process::id().to_string();
    let mut taskset = Command::new("taskset");
    taskset.args(["-apc", &format!("1-{}", cores - 1), &pid]).stdout(Stdio::null());
    cores > 1 && taskset.status().is_ok_and(|status| status.success())
}

fn measure(is_pinned: bool) -> Outcome<Vec<Row>> {
    let mut rows = Vec::new();
    let mut row = |key, what, value, unit| rows.push(Row { key, what, value, unit });
    let mut site = Site::new();
    site.before = is_pinned.then(|| PIN_SHELL.to_owned());
    row(
        "coldStartMs",
        "cold start to first healthy answer (median of 15)",
        cold_start(&site)?,
        "ms",
    );

    let daemon = site.start();
    let resting = resident(&daemon)?;
    row("rssKib", "resident at rest", resting, "KiB");
    row("ownKib", "  of it the daemon's own, and no file's", memory(&daemon, "RssAnon:")?, "KiB");
    row("connKib", "per idle authenticated connection (500)", idle_cost(&daemon)?, "KiB");
    let conns = (0..16).map(|_| Conn::owner(daemon.port, &daemon.token()));
    let pings = ping_pong(conns.collect::<io::Result<_>>()?, PING.as_bytes(), PONG, 32, SPAN)?;
    row("pingPerSec", "pings answered, 16 connections, 32 deep", pings, "/s");
    for (key, what, kind) in [
        ("echoTungstenitePerSec", "  the same echoed by mio + tungstenite", "tungstenite"),
        ("echoBarePerSec", "  the same echoed by mio + next to nothing", "bare"),
    ] {
        row(key, what, echo_rate(kind, is_pinned)?, "/s");
    }
    let session = create_session(&daemon, &site.repo())?;
    let (one, sixteen) = (fan_out(&daemon, &session, 1)?, fan_out(&daemon, &session, 16)?);
    row("eventsOnePerSec", "events delivered to 100 listeners, one at a time", one, "/s");
    row("eventsManyPerSec", "events delivered to 100 listeners, 16 in flight", sixteen, "/s");
    let (rate, cpu) = handshakes(&daemon)?;
    row("handshakesPerSec", "connect + upgrade + daemon.auth, one after another", rate, "/s");
    row("handshakeCpuUs", "  the daemon's CPU time for each", cpu, "µs");
    row("rssAfterKib", "resident after all this", resident(&daemon)?, "KiB");
    let this = std::env::current_exe()?;
    let binary = fs::metadata(this.with_file_name("clawd"))?.len();
    row("binaryKib", "size of the binary", binary as f64 / 1024.0, "KiB");
    Ok(rows)
}

fn cold_start(site: &Site) -> Outcome<f64> {
    // The first start of all makes token and database; the others find them, as after a login.
    assert!(site.start().stop().success(), "a daemon ends well");
    let mut times = Vec::new();
    for _ in 0..15 {
        let began = Instant::now();
        let daemon = site.start();
        let host = format!("127.0.0.1:{}", daemon.port);
        let health = format!("GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let answer = Raw::exchange(daemon.port, health.as_bytes());
        times.push(began.elapsed().as_secs_f64() * 1000.0);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        daemon.stop();
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

fn resident(daemon: &Daemon) -> Outcome<f64> {
    memory(daemon, "VmRSS:")
}

/// What the kernel says of a kind of memory, in KiB.
fn memory(daemon: &Daemon, kind: &str) -> Outcome<f64> {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.process.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix(kind)).unwrap_or_default();
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn idle_cost(daemon: &Daemon) -> Outcome<f64> {
    let token = daemon.token();
    let before = resident(daemon)?;
    let conns: Vec<_> =
        (0..500).map(|_| Conn::owner(daemon.port, &token)).collect::<io::Result<_>>()?;
    let after = resident(daemon)?;
    Ok((after - before) / conns.len() as f64)
}

fn echo_rate(kind: &str, is_pinned: bool) -> Outcome<f64> {
    let this = std::env::current_exe()?;
    let mut command = Command::new("/bin/sh");
    let pin = if is_pinned { PIN_SHELL } else { ":" };
    command.args(["-c", &format!("{pin}; exec \"$0\" \"$@\"")]).arg(this);
    let mut process = Process::spawn(command.args(["--serve-echo", kind]));
    let port = process.wait_for(|text| text.trim().strip_prefix("127.0.0.1:")?.parse().ok());
    let port = port.ok_or("the echo server ended")?;
    let conns = (0..16).map(|_| Conn::open(port)).collect::<io::Result<_>>()?;
    Ok(ping_pong(conns, PING.as_bytes(), PING.as_bytes(), 32, SPAN)?)
}

fn create_session(daemon: &Daemon, repo: &Path) -> Outcome<String> {
    let mut owner = Conn::owner(daemon.port, &daemon.token())?;
    let params = json!({"repoPath": repo, "provider": "claude"});
    let call = json!({"jsonrpc": "2.0", "id": "new", "method": "session.create", "params": params});
    let answer: Value = serde_json::from_str(&owner.call("new", &call.to_string())?)?;
    Ok(answer["result"]["id"].as_str().ok_or_else(|| answer.to_string())?.to_owned())
}

/// Renames the session with `in_flight` calls under way at any time; events that arrive at 100 listeners per second.
fn fan_out(daemon: &Daemon, session: &str, in_flight: usize) -> Outcome<f64> {
    const LISTENERS: usize = 100;
    let token = daemon.token();
    let ready = |_| {
        let mut conn = Conn::owner(daemon.port, &token)?;
        // What is said to a newcomer is not counted.
        conn.call("1", &PING.replace("\"id\":1", "\"id\":\"1\"")).map(|_| conn)
    };
    let conns: Vec<_> = (0..=LISTENERS).map(ready).collect::<io::Result<_>>()?;
    let mut many = Many::new(conns)?;
    let mut titles = 0_u64;
    let mut request = || {
        titles += 1;
        let params = json!({"sessionId": session, "title": format!("title {titles}")});
        json!({"jsonrpc": "2.0", "id": 1, "method": "session.rename", "params": params}).to_string()
    };
    // The last connection renames; an answer and its own event are two frames. It renames again when all have heard
    // of as many as are no longer in flight.
    let began = Instant::now();
    let (mut asked, delivered) = (0, std::cell::Cell::new(0_usize));
    let sender = LISTENERS;
    for _ in 0..in_flight {
        many.conns[sender].queue(request().as_bytes());
        asked += 1;
    }
    many.conns[sender].flush()?;
    let deadline = began + SPAN;
    while Instant::now() < deadline {
        let goal = (asked - in_flight + 1) * LISTENERS;
        many.run(
            |_| true,
            |index, _, count| {
                delivered.set(delivered.get() + if index == sender { 0 } else { count });
                Ok(())
            },
            || delivered.get() >= goal,
        )?;
        let complete = delivered.get() / LISTENERS;
        while asked < complete + in_flight {
            many.conns[sender].queue(request().as_bytes());
            asked += 1;
        }
        many.conns[sender].flush()?;
    }
    Ok(delivered.get() as f64 / began.elapsed().as_secs_f64())
}

/// Handshakes per second by one worker, and the daemon's CPU time for each in microseconds.
fn handshakes(daemon: &Daemon) -> Outcome<(f64, f64)> {
    let token = daemon.token();
    let (began, busy, mut count) = (Instant::now(), daemon.process.busy()?, 0.0);
    while began.elapsed() < SPAN {
        Conn::owner(daemon.port, &token)?.reset()?;
        count += 1.0;
    }
    let rate = count / began.elapsed().as_secs_f64();
    Ok((rate, (daemon.process.busy()? - busy).as_secs_f64() * 1e6 / count))
}
