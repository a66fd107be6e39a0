//! What a relay costs, beside a process that copies between two sockets and does nothing else: `cargo run --release -p
//! clawd-tests --bin relay-load [-- --json]`.
//!
//! Both get one core for themselves where `taskset` can give it to them; the client, which is both ends of every stream,
//! has another. Numbers are of this machine, in this run: compare ratios, not days.

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clawd_runtime_mio::tls::Identity;
use clawd_tests::daemon::{PATIENCE, Process, port_in, wait_until};
use clawd_tests::relay::{Host, Leg, Relay};
use serde_json::{Map, Value, json};

mod flow;
mod splice;

const SPAN: Duration = Duration::from_secs(3);
const MANY: usize = 100;
const IDLE: usize = 1000;
const IDLE_PER_HOST: usize = 50;
/// Payload of one frame in bulk, and of a ping.
const BULK_BYTES: usize = 16 * 1024;
const PING_BYTES: usize = 64;
const PINGS: usize = 5000;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == "--serve-splice") {
        return Ok(splice::serve()?);
    }
    let is_pinned = pin("1-", std::process::id());
    let relay = Relay::start(&["--trust-proxy"]);
    let own = std::env::current_exe()?;
    let mut splicer = Process::spawn(Command::new(own).arg("--serve-splice"));
    let splice_port = splicer.wait_for(port_in).ok_or("the splicer ended")?;
    pin("0", relay.process.pid());
    pin("0", splicer.pid());
    let mut host = host(&relay)?;

    let mut rows: Vec<(&str, f64, &str)> = Vec::new();
    let (frame, bare) = (frame(BULK_BYTES), vec![0; BULK_BYTES]);
    for (count, names) in [
        (1, ["plain splice, 1 stream", "relay, 1 stream", "relay / splice, 1 stream"]),
        (MANY, ["plain splice, 100 streams", "relay, 100 streams", "relay / splice, 100 streams"]),
    ] {
        let plain = flow::run(pairs(count, || splice::pair(splice_port))?, &bare, SPAN)?;
        let mut number = 0;
        let streams = pairs(count, || {
            number += 1;
            spread(&relay, &mut host, number)
        })?;
        let through = flow::run(streams, &frame, SPAN)?;
        rows.push((names[0], plain / 1e6, "MB/s"));
        rows.push((names[1], through / 1e6, "MB/s"));
        rows.push((names[2], through / plain, ""));
        wait_until("streams end", PATIENCE, || relay.metric("streams") == 0);
        host = self::host(&relay)?;
    }
    let plain = round_trip(splice::pair(splice_port)?, &[0; PING_BYTES], PING_BYTES)?;
    let (client, daemon) = host.meet();
    let through = round_trip(
        (client.into_stream(), daemon.into_stream()),
        &self::frame(PING_BYTES),
        2 + PING_BYTES,
    )?;
    rows.push(("plain splice, round trip, median", plain, "µs"));
    rows.push(("relay, round trip, median", through, "µs"));
    rows.push(("added by the relay", through - plain, "µs"));
    rows.push(("memory per idle stream", idle(&relay)?, "KiB"));
    say(&rows, is_pinned, args.iter().any(|arg| arg == "--json"))
}

fn say(rows: &[(&str, f64, &str)], is_pinned: bool, is_json: bool) -> Outcome<()> {
    let mut out = io::stdout().lock();
    if is_json {
        let values = rows.iter().map(|(name, value, _)| ((*name).to_owned(), json!(value)));
        let object: Map<String, Value> = values.collect();
        return Ok(writeln!(out, "{}", Value::Object(object))?);
    }
    for (name, value, unit) in rows {
        let digits = if *value < 100.0 { 2 } else { 0 };
        writeln!(out, "{name:<44}{value:>12.digits$} {unit}")?;
    }
    let pinned = if is_pinned { "one core of its own" } else { "no core of its own" };
    Ok(writeln!(out, "each server had {pinned}")?)
}

/// Whether the process has these cores for itself, as far as we are concerned.
fn pin(cores: &str, pid: u32) -> bool {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let cores = if cores == "1-" { format!("1-{}", count - 1) } else { cores.to_owned() };
    let mut taskset = Command::new("taskset");
    taskset.args(["-apc", &cores, &pid.to_string()]).stdout(Stdio::null());
    count > 1 && taskset.status().is_ok_and(|status| status.success())
}

fn host(relay: &Relay) -> Outcome<Host> {
    Host::register(relay.port, &Identity::generate()?).map_err(|answer| answer.to_string().into())
}

fn pairs(
    count: usize,
    mut one: impl FnMut() -> io::Result<(TcpStream, TcpStream)>,
) -> io::Result<Vec<(TcpStream, TcpStream)>> {
    (0..count).map(|_| one()).collect()
}

/// A stream of a client at an address of its own; each few clients another daemon, as limits want it.
fn spread(relay: &Relay, host: &mut Host, number: usize) -> io::Result<(TcpStream, TcpStream)> {
    if number.is_multiple_of(IDLE_PER_HOST) {
        *host = self::host(relay).map_err(|error| io::Error::other(error.to_string()))?;
    }
    let (client, daemon) = meet(host, number);
    Ok((client.into_stream(), daemon.into_stream()))
}

fn meet(host: &mut Host, number: usize) -> (Leg, Leg) {
    let address = format!("10.1.{}.{}", number / 250, number % 250);
    host.meet_with(&[("X-Forwarded-For", &address)])
}

/// A masked binary frame; the mask is zeros, which costs the relay what any other does.
fn frame(len: usize) -> Vec<u8> {
    let mut frame = vec![0x82];
    match u8::try_from(len) {
        Ok(len @ 0..126) => frame.push(0x80 | len),
        _ => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    frame.resize(frame.len() + 4 + len, 0);
    frame
}

/// The median of many round trips, in microseconds: `sent` goes in at one end and `len` bytes come out at the other, and
/// back.
fn round_trip(
    (mut client, mut daemon): (TcpStream, TcpStream),
    sent: &[u8],
    len: usize,
) -> Outcome<f64> {
    let mut buffer = vec![0; len];
    let mut times = Vec::with_capacity(PINGS);
    for _ in 0..PINGS {
        let start = Instant::now();
        client.write_all(sent)?;
        daemon.read_exact(&mut buffer)?;
        daemon.write_all(sent)?;
        client.read_exact(&mut buffer)?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    Ok(times[PINGS / 2].as_secs_f64() * 1e6)
}

/// KiB of the relay's own memory for each stream that has been used and is silent now.
fn idle(relay: &Relay) -> Outcome<f64> {
    let before = relay.memory();
    let bytes = vec![7; 200_000];
    let (mut hosts, mut streams) = (Vec::new(), Vec::new());
    for number in 0..IDLE {
        if number % IDLE_PER_HOST == 0 {
            hosts.push(host(relay)?);
        }
        let host = hosts.last_mut().ok_or("no host")?;
        let (mut client, mut daemon) = meet(host, number);
        client.send(&bytes)?;
        daemon.read_exact(&mut vec![0; bytes.len()])?;
        daemon.send(&bytes)?;
        client.read_exact(&mut vec![0; bytes.len()])?;
        streams.push((client, daemon));
    }
    let grown = relay.memory().saturating_sub(before);
    Ok(grown as f64 / IDLE as f64 / 1024.0)
}
