//! What a relay costs, beside a process that copies between two sockets and does nothing else, and how long pairing takes:
//! `cargo run --release -p clawd-tests --bin relay-load [-- --json]`.
//!
//! Each server gets one core for itself where `taskset` can give it to it; the client, which is both ends of every
//! stream, has another. Numbers are of this machine, in this run: compare ratios, not days.

use std::error::Error;
use std::io::{self, Write};
use std::process::{Command, Stdio};

use clawd_tests::authority::Authority;
use serde_json::{Map, Value, json};

use flow::Speed;
use pairing::{By, Scene};
use splice::Splice;

mod flow;
mod legs;
mod pairing;
mod splice;

/// Rounds of bulk; the median counts.
const ROUNDS: usize = 5;
/// Payload of one frame in bulk, and of a ping.
const BULK_BYTES: usize = 16 * 1024;
const PING_BYTES: usize = 64;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// One line of the table.
struct Row {
    what: String,
    value: f64,
    unit: &'static str,
    goal: &'static str,
}

#[derive(Default)]
struct Table(Vec<Row>);

impl Table {
    fn row(&mut self, what: impl Into<String>, value: f64, unit: &'static str) {
        self.0.push(Row { what: what.into(), value, unit, goal: "" });
    }

    /// What the last line should have been.
    fn goal(&mut self, goal: &'static str) {
        if let Some(row) = self.0.last_mut() {
            row.goal = goal;
        }
    }
}

fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == "--serve-splice") {
        return Ok(splice::serve()?);
    }
    let is_pinned = pin("1-", std::process::id());
    let dir = tempfile::tempdir()?;
    let (authority, roots) = Authority::new(dir.path());
    let [chain, key] = authority.vouch([2020, 3000]).write(dir.path());
    let [chain, key] = [chain, key].map(|path| path.display().to_string());
    let tls = ["--tls-cert".to_owned(), chain, "--tls-key".to_owned(), key];
    let mut table = Table::default();
    streams(&mut table, &tls)?;
    pairing(&mut table, Scene::straight(), Scene::relayed(&tls, &roots)?)?;
    say(&table, is_pinned, args.iter().any(|arg| arg == "--json"))
}

fn streams(table: &mut Table, tls: &[String]) -> Outcome<()> {
    let splice = Splice::start()?;
    let (plain, secure) = (legs::plain(), legs::secure(tls));
    for (count, name) in [(1, "one stream"), (100, "100 streams")] {
        let round = |_| Ok([splice.bulk(count)?, plain.bulk(count)?, secure.bulk(count)?]);
        bulk(table, name, &(0..ROUNDS).map(round).collect::<Outcome<Vec<_>>>()?);
    }
    let (bare, ends) = (splice.round_trip()?, splice.round_trip_tls()?);
    let (clear, sealed) = (plain.round_trip()?, secure.round_trip()?);
    table.row("round trip, plain splice", bare, "µs");
    table.row("round trip, plain splice, TLS from end to end", ends, "µs");
    table.row("round trip, relay", clear, "µs");
    table.row("round trip, relay with TLS", sealed, "µs");
    table.row("added by the relay", clear - bare, "µs");
    table.row("added by the relay with TLS", sealed - ends, "µs");
    table.row("memory per idle stream, relay", plain.idle()?, "KiB");
    table.row("memory per idle stream, relay with TLS", secure.idle()?, "KiB");
    table.goal("≤ 64 KiB");
    Ok(())
}

/// Of each round the plain splice, the relay, and the relay with TLS, one right after the other.
fn bulk(table: &mut Table, streams: &str, rounds: &[[Speed; 3]]) {
    let of = |value: &dyn Fn(&[Speed; 3]) -> f64| median(rounds.iter().map(value).collect());
    let servers = ["plain splice", "relay", "relay with TLS"];
    for (at, server) in servers.iter().enumerate() {
        table.row(format!("{streams}, {server}"), of(&|round| round[at].rate), "MB/s");
    }
    for (one, other) in [(1, 0), (2, 0), (2, 1)] {
        let what = format!("{streams}, {} / {}", servers[one], servers[other]);
        table.row(what, of(&|round| round[one].rate / round[other].rate), "");
    }
    for (at, server) in servers.iter().enumerate() {
        let what = format!("{streams}, {server}, its CPU time for a GB");
        table.row(what, of(&|round| round[at].cost * 1e3), "ms");
    }
}

fn pairing(table: &mut Table, mut straight: Scene, mut relayed: Scene) -> Outcome<()> {
    table.row("a process that starts and ends", pairing::start_alone(), "ms");
    table.row("one write that waits for the disk", pairing::sync_alone()?, "ms");
    for (way, scene) in [("straight", &mut straight), ("through a relay with TLS", &mut relayed)] {
        table.row(format!("pairing by QR code, {way}"), scene.median(By::Ticket)?, "ms");
        table.row(format!("pairing by PIN, {way}"), scene.median(By::Pin)?, "ms");
    }
    Ok(())
}

fn say(table: &Table, is_pinned: bool, is_json: bool) -> Outcome<()> {
    let mut out = io::stdout().lock();
    if is_json {
        let values = table.0.iter().map(|row| (row.what.clone(), json!(row.value)));
        let mut object: Map<String, Value> = values.collect();
        object.insert("isPinned".to_owned(), json!(is_pinned));
        return Ok(writeln!(out, "{}", Value::Object(object))?);
    }
    writeln!(out, "{:<58}{:>9}      goal", "", "measured")?;
    for Row { what, value, unit, goal } in &table.0 {
        let digits = if *value < 100.0 { 2 } else { 0 };
        let line = format!("{what:<58}{value:>9.digits$} {unit:<4} {goal}");
        writeln!(out, "{}", line.trim_end())?;
    }
    let pinned = if is_pinned { "one core of its own" } else { "no core of its own" };
    Ok(writeln!(out, "each server had {pinned}")?)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Whether the process has these cores for itself, as far as we are concerned.
fn pin(cores: &str, pid: u32) -> bool {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let cores = if cores == "1-" { format!("1-{}", count - 1) } else { cores.to_owned() };
    let mut taskset = Command::new("taskset");
    taskset.args(["-apc", &cores, &pid.to_string()]).stdout(Stdio::null());
    count > 1 && taskset.status().is_ok_and(|status| status.success())
}
