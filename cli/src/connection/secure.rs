//! TLS to a daemon elsewhere, straight to it or through its relay.
//!
//! Owns legs and handshakes, each with its deadline; refuses to know tokens. Invariant (security G1, G2): there is no
//! [`Secure`] before the key that was asked for has answered over TLS 1.3, so nothing can be said to anybody else.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use clawd_protocol::relay::RelayUrl;
use clawd_protocol::relay::control::{FromRelay, Refusal};
use clawd_protocol::{Dial, DialFault, Fingerprint, Purpose};
use clawd_runtime_mio::dial::{self, dial};
use clawd_runtime_mio::tls::{Identity, Trusted, WrongKey, client_config, peer_key, server_name};
use clawd_runtime_mio::tunnel::Tunnel;
use rustix::event::PollFlags;
use rustls::{AlertDescription, ClientConnection, StreamOwned};

use super::link::{Polled, poll};
use crate::remote::path::{DirectUrl, Way};

/// A machine on the same network answers within this, or it is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
const RELAY_TIMEOUT: Duration = Duration::from_secs(10);
/// The daemon has ten seconds to come.
const INVITE_TIMEOUT: Duration = Duration::from_secs(12);
/// Unacknowledged for so long, what was sent is taken for lost: the system's own opinion, beside ours.
const SILENCE: Duration = Duration::from_secs(10);

/// The bytes inside of TLS.
pub(super) type Stream = StreamOwned<ClientConnection, Leg>;

/// A leg to a daemon whose key has answered.
#[derive(Debug)]
pub(crate) struct Secure {
    stream: Box<Stream>,
    key: Fingerprint,
}

/// Why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nobody answers there, or not as a daemon does.
    Unreachable(String),
    /// Somebody else answers: this key.
    WrongKey(Fingerprint),
    /// The TLS there is too old.
    TooOld,
    /// The relay does not let us to it.
    Relay(Refusal),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => f.write_str(why),
            Self::WrongKey(key) => write!(f, "what answers there has another key: {key}"),
            Self::TooOld => f.write_str("what answers there does not speak TLS 1.3"),
            Self::Relay(Refusal::Offline) => f.write_str("it is not connected to the relay"),
            Self::Relay(Refusal::Busy) => f.write_str("the relay has too much to do"),
            Self::Relay(refusal) => write!(f, "the relay does not let us through ({refusal})"),
        }
    }
}

/// What TLS runs on.
#[derive(Debug)]
pub(super) struct Leg {
    below: Below,
    /// When bytes came the last time.
    heard: Instant,
}

#[derive(Debug)]
enum Below {
    Tcp(TcpStream),
    Relay(Box<Tunnel<dial::Link<TcpStream>>>),
}

impl Leg {
    fn new(below: Below) -> Self {
        Self { below, heard: Instant::now() }
    }

    pub(super) const fn heard(&self) -> Instant {
        self.heard
    }
}

impl Read for Leg {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match &mut self.below {
            Below::Tcp(tcp) => tcp.read(buffer),
            Below::Relay(tunnel) => tunnel.read(buffer),
        };
        if read.as_ref().is_ok_and(|bytes| *bytes > 0) {
            self.heard = Instant::now();
        }
        read
    }
}

impl Write for Leg {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.below {
            Below::Tcp(tcp) => tcp.write(bytes),
            Below::Relay(tunnel) => tunnel.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.below {
            Below::Tcp(tcp) => tcp.flush(),
            Below::Relay(tunnel) => tunnel.flush(),
        }
    }
}

impl AsFd for Leg {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.below {
            Below::Tcp(tcp) => tcp.as_fd(),
            Below::Relay(tunnel) => tunnel.get_ref().get_ref().as_fd(),
        }
    }
}

impl Secure {
    /// Goes this way, to this daemon and no other. Through a relay, it must be known which.
    pub(crate) fn open(way: &Way, trusted: Trusted, own: &Identity) -> Result<Self, Fault> {
        let leg = match (way, trusted) {
            (Way::Direct(url), _) => direct(url)?,
            (Way::Relay(relay), Trusted::Key(daemon)) => through(relay, &daemon)?,
            (Way::Relay(_), Trusted::AnyKey) => {
                return Err(unreachable("a relay is told whom to call"));
            }
        };
        shake_hands(leg, trusted, own)
    }

    /// The key that has answered.
    pub(crate) const fn key(&self) -> Fingerprint {
        self.key
    }

    /// What the WebSocket handshake asks for. Addresses change on the way, the daemon's id is the same everywhere.
    pub(super) fn url(&self) -> String {
        format!("ws://{}/", self.key)
    }

    pub(super) fn into_stream(self) -> Box<Stream> {
        self.stream
    }
}

fn direct(url: &DirectUrl) -> Result<Leg, Fault> {
    let tcp = dial::tcp(url.host(), url.port(), CONNECT_TIMEOUT).map_err(of_dial)?;
    watch_over(&tcp).map_err(|error| unreachable(&error))?;
    Ok(Leg::new(Below::Tcp(tcp)))
}

fn through(relay: &RelayUrl, daemon: &Fingerprint) -> Result<Leg, Fault> {
    let dialled = dial(&Dial {
        target: relay.connect_target(daemon),
        relay: relay.clone(),
        // What the owner has pinned is known there and not here; the TLS inside is to the daemon's own key.
        pin: None,
        purpose: Purpose::Control,
        timeout: RELAY_TIMEOUT,
    })
    .map_err(of_dial)?;
    watch_over(dialled.link.get_ref()).map_err(|error| unreachable(&error))?;
    let mut tunnel = Tunnel::new(dialled.link, dialled.tail);
    let deadline = Instant::now() + INVITE_TIMEOUT;
    let said = loop {
        match tunnel.read_text() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                await_more(tunnel.get_ref().get_ref(), false, deadline)?;
            }
            said => break said.map_err(|error| unreachable(&error))?,
        }
    };
    match serde_json::from_str(&said) {
        Ok(FromRelay::Connected) => Ok(Leg::new(Below::Relay(Box::new(tunnel)))),
        Ok(FromRelay::Error { code, .. }) => Err(Fault::Relay(code)),
        Ok(_) | Err(_) => Err(unreachable("what answers there is no relay")),
    }
}

/// No wait on it ends late: it does not block, and the system looks whether the other end is there.
fn watch_over(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nonblocking(true)?;
    tcp.set_nodelay(true)?;
    rustix::net::sockopt::set_socket_keepalive(tcp, true)?;
    #[cfg(target_os = "linux")]
    {
        let silence = u32::try_from(SILENCE.as_millis()).unwrap_or(u32::MAX);
        rustix::net::sockopt::set_tcp_keepidle(tcp, SILENCE)?;
        rustix::net::sockopt::set_tcp_user_timeout(tcp, silence)?;
    }
    Ok(())
}

fn shake_hands(mut leg: Leg, trusted: Trusted, own: &Identity) -> Result<Secure, Fault> {
    let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
    let mut tls = client_config(trusted, Some(own))
        .and_then(|config| ClientConnection::new(config, server_name()))
        .map_err(|error| unreachable(&error))?;
    while tls.is_handshaking() {
        match tls.complete_io(&mut leg) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                await_more(&leg, tls.wants_write(), deadline)?;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(of_tls(&error)),
        }
    }
    let key = peer_key(&tls).ok_or_else(|| unreachable("it has shown no key"))?;
    Ok(Secure { stream: Box::new(StreamOwned::new(tls, leg)), key })
}

fn await_more(below: &impl AsFd, is_writing: bool, deadline: Instant) -> Result<(), Fault> {
    let flags = if is_writing { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
    match poll(below, flags, &[], Some(deadline)) {
        Ok(Polled::Link | Polled::Other(_)) => Ok(()),
        Ok(Polled::Timeout) => Err(unreachable("it does not answer")),
        Err(failure) => Err(Fault::Unreachable(failure.message)),
    }
}

fn unreachable(why: &(impl fmt::Display + ?Sized)) -> Fault {
    Fault::Unreachable(why.to_string())
}

fn of_dial(fault: DialFault) -> Fault {
    match fault {
        DialFault::Unresolved => unreachable("there is no address for that name"),
        DialFault::Unreachable(why) => Fault::Unreachable(why),
        DialFault::TimedOut => unreachable("nobody answers there"),
        DialFault::TooOld => Fault::TooOld,
        DialFault::NotYetValid => {
            unreachable("by this machine's clock, its certificate is not valid yet")
        }
        DialFault::Expired => unreachable("by this machine's clock, its certificate has expired"),
        DialFault::Tls(why) => Fault::Unreachable(why),
        DialFault::WrongPin => unreachable("it has another key than the pinned one"),
        DialFault::Redirected => unreachable("it wants us to go elsewhere"),
        DialFault::Rejected(status) => unreachable(&format!("it answers with status {status}")),
        DialFault::NotWebSocket => unreachable("what answers there is no relay"),
        DialFault::Busy => unreachable("there is no room for one more connection"),
    }
}

fn of_tls(error: &io::Error) -> Fault {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(inner) = inner else { return unreachable(error) };
    if let Some(WrongKey(key)) = WrongKey::of(inner) {
        return Fault::WrongKey(key);
    }
    let is_old = matches!(
        inner,
        rustls::Error::PeerIncompatible(_)
            | rustls::Error::AlertReceived(AlertDescription::ProtocolVersion)
    );
    if is_old {
        Fault::TooOld
    } else if matches!(inner, rustls::Error::InvalidMessage(_)) {
        unreachable("what answers there does not speak TLS")
    } else {
        unreachable(inner)
    }
}
