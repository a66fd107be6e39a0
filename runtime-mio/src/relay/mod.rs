//! A relay: [`Rendezvous`] on a mio loop of its own.
//!
//! Owns sockets, TLS and the copying of bytes; refuses to know who may meet whom. It has no data directory, no store and no
//! children: whoever runs one needs nothing but a port, and loses nothing when it is restarted.
//!
//! | module | owns |
//! |---|---|
//! | `event_loop` | the order of things in a turn, effects |
//! | `intake` | from a readable socket to the rendezvous, or to the other leg |
//! | `frames` | bytes in binary messages, in and out |
//! | `leg` | one connection, and the table of all |
//! | `door` | the listener |
//! | `certificate` | TLS for `wss` |
//!
#![doc = include_str!("nginx.md")]

use std::error::Error;
use std::fmt;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use clawd_protocol::Limits;
use clawd_protocol::relay::rendezvous::{Effects, RelayConfig, Rendezvous};
use mio::{Poll, Token};

use crate::clock::Clock;
use crate::signal::Signal;
use crate::tokens;
use door::Door;
use event_loop::EventLoop;

mod certificate;
mod door;
mod event_loop;
mod frames;
mod intake;
mod leg;

pub use certificate::Certificate;

/// What a relay needs to be run.
pub struct RelayOptions {
    /// Where to listen; port zero for any.
    pub bind: SocketAddr,
    /// For `wss`; without it is `ws`, for a proxy on this machine.
    pub certificate: Option<Certificate>,
    /// The rendezvous' settings.
    pub config: RelayConfig,
    /// Where trouble is said. Nothing of a peer's is ever written to it.
    pub log: Box<dyn Write>,
}

impl fmt::Debug for RelayOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayOptions")
            .field("bind", &self.bind)
            .field("certificate", &self.certificate)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Why a relay does not serve, or no longer.
#[derive(Debug)]
pub enum RelayError {
    /// Somebody listens there already.
    PortTaken {
        /// Where.
        addr: SocketAddr,
    },
    /// It is impossible to listen there.
    Bind {
        /// Where.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The certificate or its key cannot be used.
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The operating system refused something that it always grants.
    System(io::Error),
}

impl fmt::Display for RelayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PortTaken { addr } => write!(f, "cannot listen on {addr}: the port is taken"),
            Self::Bind { addr, source } => write!(f, "cannot listen on {addr}: {source}"),
            Self::Certificate { path, why } => write!(f, "cannot use {}: {why}", path.display()),
            Self::System(source) => write!(f, "the operating system refused to serve us: {source}"),
        }
    }
}

impl Error for RelayError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::PortTaken { .. } | Self::Certificate { .. } => None,
            Self::Bind { source, .. } | Self::System(source) => Some(source),
        }
    }
}

impl From<io::Error> for RelayError {
    fn from(source: io::Error) -> Self {
        Self::System(source)
    }
}

/// Runs a relay until it is told to stop by a signal; `on_ready` is told where it listens.
///
/// # Errors
/// Why it does not serve.
pub fn run(
    options: RelayOptions,
    on_ready: Box<dyn FnOnce(SocketAddr) + '_>,
) -> Result<(), RelayError> {
    let RelayOptions { bind, certificate, config, log } = options;
    let tls = certificate.as_ref().map(Certificate::load).transpose()?;
    let mut entropy = [0; 32];
    getrandom::fill(&mut entropy).map_err(io::Error::from)?;
    raise_descriptors();
    let clock = Clock::start();
    let poll = Poll::new()?;
    let registry = poll.registry();
    // Before anything can be asked of us: a signal that came earlier would end the process on the spot.
    let shutdown = Signal::shutdown(registry, Token(tokens::SHUTDOWN))?;
    let mut door = Door::bind(bind)?;
    door.register(registry, Token(tokens::LISTENERS))?;
    on_ready(door.address()?);
    let event_loop = EventLoop {
        queue_bytes_max: config.limits.queue_bytes_max,
        rendezvous: Rendezvous::new(config, entropy),
        effects: Effects::new(),
        now: clock.read(),
        clock,
        door,
        shutdown,
        tls,
        legs: leg::Legs::default(),
        dirty: Vec::new(),
        unfinished: Vec::new(),
        lingering: std::collections::BTreeSet::new(),
        happened: std::collections::VecDeque::new(),
        buffer: Vec::new(),
        limits: Limits::default(),
        log,
        is_stopped: false,
        poll,
    };
    event_loop.run().map_err(RelayError::System)
}

/// Each connection is a descriptor: as many as the system allows us. With fewer it serves fewer.
fn raise_descriptors() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}
