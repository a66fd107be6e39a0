//! What goes through a relay, on legs in clear or in TLS: bulk, round trips, and silence.
//!
//! Owns the streams of each measurement and a relay of its own for it, so that none finds memory that another has left;
//! refuses to know what is compared with what.

use std::io::{self, Read, Write};
use std::marker::PhantomData;
use std::net::TcpStream;
use std::time::Instant;

use clawd_runtime_mio::tls::Identity;
use clawd_tests::daemon::Tls;
use clawd_tests::relay::{Host, Leg, Relay, Wire};

use super::flow::Speed;
use super::{BULK_BYTES, Outcome, PING_BYTES, flow, median, pin};

const IDLE: usize = 1000;
/// Fewer than the relay lets one daemon have.
const PER_HOST: usize = 50;
const PINGS: usize = 5000;
/// What goes through a stream each way before it is silent.
const USED_BYTES: usize = 200_000;

/// What streams of this kind run on, and how such a relay is started.
pub(crate) struct Legs<S> {
    flags: Vec<String>,
    wire: PhantomData<S>,
}

/// In clear.
pub(crate) fn plain() -> Legs<TcpStream> {
    Legs::with(&[])
}

/// In TLS, which the relay ends itself.
pub(crate) fn secure(tls: &[String]) -> Legs<Tls> {
    Legs::with(tls)
}

impl<S: Wire + flow::End> Legs<S> {
    fn with(tls: &[String]) -> Self {
        let proxy = "--trust-proxy".to_owned();
        let flags = tls.iter().cloned().chain([proxy]).collect();
        Self { flags, wire: PhantomData }
    }

    fn relay(&self) -> Relay {
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        let relay = Relay::start(&flags);
        pin("0", relay.process.pid());
        relay
    }

    /// Full speed through so many streams at once.
    pub(crate) fn bulk(&self, count: usize) -> Outcome<Speed> {
        let relay = self.relay();
        let mut crowd = Crowd::<S>::at(&relay);
        let pairs = (0..count).map(|_| {
            let (client, daemon) = crowd.next()?;
            Ok((client.into_stream(), daemon.into_stream()))
        });
        let pairs = pairs.collect::<Outcome<Vec<_>>>()?;
        Ok(flow::run(&relay.process, pairs, &frame(BULK_BYTES))?)
    }

    /// The median of many round trips, in microseconds.
    pub(crate) fn round_trip(&self) -> Outcome<f64> {
        let relay = self.relay();
        let mut crowd = Crowd::<S>::at(&relay);
        let (client, daemon) = crowd.next()?;
        let ends = (client.into_stream(), daemon.into_stream());
        Ok(round_trip(ends, &frame(PING_BYTES), 2 + PING_BYTES)?)
    }

    /// KiB of the relay's own memory for each stream that has been used and is silent now.
    pub(crate) fn idle(&self) -> Outcome<f64> {
        let relay = self.relay();
        let before = relay.memory();
        let mut crowd = Crowd::<S>::at(&relay);
        let (bytes, mut got) = (vec![7; USED_BYTES], vec![0; USED_BYTES]);
        let mut silent = Vec::new();
        for _ in 0..IDLE {
            let (mut client, mut daemon) = crowd.next()?;
            client.send(&bytes)?;
            daemon.read_exact(&mut got)?;
            daemon.send(&bytes)?;
            client.read_exact(&mut got)?;
            silent.push((client, daemon));
        }
        let grown = relay.memory().saturating_sub(before);
        Ok(grown as f64 / IDLE as f64 / 1024.0)
    }
}

/// Clients, each at an address of its own, and each few of them with another daemon, as the relay's limits want it.
struct Crowd<'a, S> {
    relay: &'a Relay,
    hosts: Vec<Host<S>>,
    met: usize,
}

impl<'a, S: Wire> Crowd<'a, S> {
    const fn at(relay: &'a Relay) -> Self {
        Self { relay, hosts: Vec::new(), met: 0 }
    }

    fn next(&mut self) -> Outcome<(Leg<S>, Leg<S>)> {
        let number = self.met;
        self.met += 1;
        if number.is_multiple_of(PER_HOST) {
            let identity = Identity::generate()?;
            let host = Host::register_over(self.relay.port, &identity, |_, message| message);
            self.hosts.push(host.map_err(|answer| answer.to_string())?);
        }
        let host = self.hosts.last_mut().ok_or("no host")?;
        let address = format!("10.1.{}.{}", number / 250, number % 250);
        Ok(host.meet_with(&[("X-Forwarded-For", &address)]))
    }
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
pub(crate) fn round_trip<A: Read + Write, B: Read + Write>(
    (mut client, mut daemon): (A, B),
    sent: &[u8],
    len: usize,
) -> io::Result<f64> {
    let mut buffer = vec![0; len];
    let mut times = Vec::with_capacity(PINGS);
    for _ in 0..PINGS {
        let start = Instant::now();
        client.write_all(sent)?;
        daemon.read_exact(&mut buffer)?;
        daemon.write_all(sent)?;
        client.read_exact(&mut buffer)?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok(median(times))
}
