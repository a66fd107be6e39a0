//! A connection to a relay, made while somebody waits for it.
//!
//! Owns the way from an address to an open WebSocket, and the one deadline for all of it; refuses to know what is said on
//! it then. Nothing is asked of the environment, so there is no proxy, and nothing leads elsewhere: a redirect is an
//! error (security G7).
//!
//! Invariants: no byte that comes, however often one comes, moves the deadline · what does not encrypt goes to this
//! machine only.

mod link;
mod upgrade;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use clawd_protocol::{Dial, DialFault};
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, ClientConfig, ClientConnection, Error};

use crate::tls::relay_config;

pub use link::Link;

/// So many of a name's addresses are tried.
const ADDRESSES_MAX: usize = 8;
/// So many threads may be with a resolver that does not answer. It gives up by itself, but not when we want it to.
const RESOLVING_MAX: usize = 32;

static RESOLVING: AtomicUsize = AtomicUsize::new(0);

/// A WebSocket connection as its client, after the handshake.
#[derive(Debug)]
pub struct Dialled {
    /// What it runs on. It blocks, without end.
    pub link: Link<TcpStream>,
    /// What came behind the handshake.
    pub tail: Vec<u8>,
}

/// Makes a connection. It takes no longer than the dial's timeout, whatever the network and the peer do.
///
/// # Errors
/// It cannot be made, and why.
pub fn dial(dial: &Dial) -> Result<Dialled, DialFault> {
    let config = if dial.relay.is_secure() {
        let config = relay_config(dial.pin).map_err(|error| DialFault::Tls(error.to_string()))?;
        Some(config)
    } else {
        None
    };
    dial_with(dial, config)
}

/// Makes a connection, over TLS if there is a configuration for it; the dial's pin is in that.
///
/// # Errors
/// It cannot be made, and why.
pub fn dial_with(dial: &Dial, tls: Option<Arc<ClientConfig>>) -> Result<Dialled, DialFault> {
    let deadline = Instant::now() + dial.timeout;
    let (host, port) = (dial.relay.host(), dial.relay.port());
    let addresses = reachable(resolve(host, port, deadline)?, tls.is_some());
    let tcp = Timed { tcp: connect(&addresses, deadline)?, deadline };
    let tls = match tls {
        Some(config) => Some(start_tls(config, host)?),
        None => None,
    };
    let mut link = Link::new(tcp, tls);
    link.shake_hands().map_err(|error| fault_of(&error))?;
    let tail = upgrade::upgrade(&mut link, &dial.relay.authority(), &dial.target)?;
    let link = link.map(|timed| timed.tcp);
    let is_endless =
        link.get_ref().set_read_timeout(None).and(link.get_ref().set_write_timeout(None));
    is_endless.map_err(|error| fault_of(&error))?;
    Ok(Dialled { link, tail })
}

/// A TCP connection to the first of a name's addresses that answers, all within `timeout`.
///
/// # Errors
/// There is none, and why.
pub fn tcp(host: &str, port: u16, timeout: Duration) -> Result<TcpStream, DialFault> {
    let deadline = Instant::now() + timeout;
    connect(&resolve(host, port, deadline)?, deadline)
}

/// The addresses of a name. Whom we ask may take longer than we wait, and is left behind then.
fn resolve(host: &str, port: u16, deadline: Instant) -> Result<Vec<SocketAddr>, DialFault> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let (found, answer) = mpsc::channel();
    let name = host.to_owned();
    if RESOLVING.fetch_add(1, Ordering::Relaxed) >= RESOLVING_MAX {
        RESOLVING.fetch_sub(1, Ordering::Relaxed);
        return Err(DialFault::Busy);
    }
    let asked = thread::Builder::new().name("resolver".to_owned()).spawn(move || {
        let addresses = (name.as_str(), port).to_socket_addrs();
        RESOLVING.fetch_sub(1, Ordering::Relaxed);
        // Nobody may wait for it any more.
        let _ = found.send(addresses.map(|all| all.take(ADDRESSES_MAX).collect::<Vec<_>>()));
    });
    if asked.is_err() {
        RESOLVING.fetch_sub(1, Ordering::Relaxed);
        return Err(DialFault::Busy);
    }
    match answer.recv_timeout(left(deadline).unwrap_or_default()) {
        Ok(Ok(addresses)) => Ok(addresses),
        Ok(Err(_)) => Err(DialFault::Unresolved),
        Err(_) => Err(DialFault::TimedOut),
    }
}

/// Those that may be connected to. The name of this machine is whatever its resolver says, so names do not count.
fn reachable(mut addresses: Vec<SocketAddr>, is_secure: bool) -> Vec<SocketAddr> {
    addresses.retain(|address| is_secure || address.ip().is_loopback());
    addresses
}

/// Connects to the first that answers. Each has its share of the time, so that one that is silent bars no other.
fn connect(addresses: &[SocketAddr], deadline: Instant) -> Result<TcpStream, DialFault> {
    let mut fault = DialFault::Unresolved;
    for (address, after) in addresses.iter().zip((0..addresses.len()).rev()) {
        let shares = u32::try_from(after + 1).unwrap_or(u32::MAX);
        let connected = left(deadline)
            .and_then(|left| TcpStream::connect_timeout(address, left / shares))
            .and_then(|tcp| tcp.set_nodelay(true).map(|()| tcp));
        match connected {
            Ok(tcp) => return Ok(tcp),
            Err(error) => fault = fault_of(&error),
        }
    }
    Err(fault)
}

fn start_tls(config: Arc<ClientConfig>, host: &str) -> Result<ClientConnection, DialFault> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| DialFault::Tls(format!("no certificate can be for {host}")))?;
    ClientConnection::new(config, name).map_err(|error| fault_of_tls(&error))
}

/// What is left of the time, an error if nothing is.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the system has many words for it")]
fn fault_of(error: &io::Error) -> DialFault {
    if let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        return fault_of_tls(error);
    }
    match error.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => DialFault::TimedOut,
        ErrorKind::UnexpectedEof => DialFault::Tls("it ended the connection".to_owned()),
        _ => DialFault::Unreachable(error.to_string()),
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "most of what TLS complains about speaks for itself"
)]
fn fault_of_tls(error: &Error) -> DialFault {
    match error {
        // Only our own verifiers say this, and of a relay's key only that it is not the pinned one.
        Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure) => {
            DialFault::WrongPin
        }
        Error::PeerIncompatible(_) | Error::AlertReceived(AlertDescription::ProtocolVersion) => {
            DialFault::TooOld
        }
        Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => DialFault::NotYetValid,
        Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => DialFault::Expired,
        Error::InvalidMessage(_) => DialFault::Tls("what it speaks is no TLS".to_owned()),
        _ => DialFault::Tls(error.to_string()),
    }
}

/// A stream of which nothing is awaited after the deadline.
#[derive(Debug)]
struct Timed {
    tcp: TcpStream,
    deadline: Instant,
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.in_time(|mut tcp, left| {
            tcp.set_read_timeout(Some(left))?;
            tcp.read(buffer)
        })
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.in_time(|mut tcp, left| {
            tcp.set_write_timeout(Some(left))?;
            tcp.write(bytes)
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Timed {
    /// With a timeout set, a signal ends the call whatever its handler wants.
    fn in_time<T>(
        &self,
        mut call: impl FnMut(&TcpStream, Duration) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            match call(&self.tcp, left(self.deadline)?) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g7_without_tls_only_this_machine_is_dialled() {
        let here: Vec<SocketAddr> =
            vec!["127.0.0.1:1".parse().unwrap(), "[::1]:1".parse().unwrap()];
        let elsewhere = vec!["192.0.2.1:1".parse().unwrap(), "[2001:db8::1]:1".parse().unwrap()];
        let both = [elsewhere.clone(), here.clone()].concat();
        assert_eq!(reachable(both.clone(), false), here);
        assert_eq!(reachable(both.clone(), true), both);
        assert_eq!(reachable(elsewhere, false), []);
    }
}
