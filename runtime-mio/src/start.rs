//! From nothing to serving.
//!
//! Owns the order in which a daemon comes up, and the reasons why it may not; refuses to know how options were given.
//! No socket exists before the token was loaded and the store was opened and checked (security A4, J2): a daemon that
//! could not tell friend from foe is never reached by either.

use std::error::Error;
use std::fmt;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clawd_protocol::{Config, Daemon, Effects};
use mio::{Poll, Token, Waker};

use crate::clock::Clock;
use crate::event_loop::{Core, EventLoop, Mind};
use crate::files::{DataDir, FileError, load_or_make_identity};
use crate::hands::Hands;
use crate::legs::Legs;
use crate::listener::Listeners;
use crate::process::{Mark, Processes};
use crate::signal::Signal;
use crate::store::{AuditReader, Store, StoreError};
use crate::tls::{Acceptor, Identity};
use crate::tokens;
use crate::worker::Workers;

/// What a daemon needs to be run.
pub struct Options {
    /// The data directory; it stays locked as long as the daemon runs.
    pub data_dir: DataDir,
    /// The addresses to listen on, of this machine or unspecified, which are all of a family. All but the first may be
    /// absent. TLS and plain HTTP are heard on each; the core lets plain peers in from loopback only.
    pub bind: Vec<IpAddr>,
    /// The TCP port; zero for any.
    pub port: u16,
    /// The program that becomes a child's guard when its first argument is `guard`: this one.
    pub guard: PathBuf,
    /// The core's settings.
    pub config: Config,
    /// Where the runtime says what nobody else can know. No secret and nothing of a peer's is ever written to it.
    pub log: Box<dyn Write>,
    /// Only trouble is said.
    pub is_quiet: bool,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("data_dir", &self.data_dir)
            .field("bind", &self.bind)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// A daemon that serves.
#[derive(Debug, Clone, Copy)]
pub struct Ready<'a> {
    /// The TCP port.
    pub port: u16,
    /// The Unix socket.
    pub socket: &'a Path,
    /// The TCP addresses.
    pub addresses: &'a [IpAddr],
}

/// Why a daemon does not serve, or no longer.
#[derive(Debug)]
pub enum RunError {
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
    /// The Unix socket cannot be made.
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A private file cannot be used.
    File(FileError),
    /// The store cannot be used.
    Store(StoreError),
    /// The operating system refused something that it always grants.
    System(io::Error),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PortTaken { addr } => write!(
                f,
                "cannot listen on {addr}: the port is taken; stop the program that has it or choose another with --port"
            ),
            Self::Bind { addr, source } if source.kind() == io::ErrorKind::AddrNotAvailable => {
                write!(
                    f,
                    "cannot listen on {addr}: this machine does not have that address; choose one that it has with --bind"
                )
            }
            Self::Bind { addr, source } => {
                write!(f, "cannot listen on {addr}: {source}; choose another address with --bind")
            }
            Self::Socket { path, source } => write!(
                f,
                "cannot make the socket {}: {source}; remove what is there or choose another --data-dir",
                path.display()
            ),
            Self::File(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
            Self::System(source) => write!(f, "the operating system refused to serve us: {source}"),
        }
    }
}

impl Error for RunError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::PortTaken { .. } => None,
            Self::Bind { source, .. } | Self::Socket { source, .. } | Self::System(source) => {
                Some(source)
            }
            Self::File(error) => error.source(),
            Self::Store(error) => error.source(),
        }
    }
}

impl From<io::Error> for RunError {
    fn from(source: io::Error) -> Self {
        Self::System(source)
    }
}

/// What is called once connections are accepted. Boxed, so that the loop is compiled in this crate, for speed, and not
/// in the caller's, which may be built for size.
pub type OnReady<'a> = Box<dyn FnOnce(&Ready<'_>) + 'a>;

/// Runs a daemon until it is told to stop.
pub fn run(mut options: Options, on_ready: OnReady<'_>) -> Result<(), RunError> {
    options.data_dir.load_or_make_token().map_err(RunError::File)?;
    let (store, snapshot) = Store::open(&options.data_dir).map_err(RunError::Store)?;
    sweep(&options.data_dir.child_mark().map_err(RunError::File)?, &mut options.log);
    let mut entropy = [0; 32];
    getrandom::fill(&mut entropy).map_err(io::Error::from)?;
    let config = options.config.clone();
    let daemon = Daemon::new(config, entropy, snapshot);
    let identity = load_or_make_identity(options.data_dir.private()).map_err(RunError::File)?;
    serve(options, store, identity, Mind { daemon, effects: Effects::new() }, on_ready)
}

/// Ends what an earlier life has left running (security I4): this directory's lock is ours, so it is nobody else's. Before
/// anybody is served, since an agent that goes on writing a conversation must not meet the next one that does.
fn sweep(mark: &Mark, log: &mut dyn Write) {
    // A log that cannot be written is no reason not to serve.
    let _ = match mark.sweep() {
        (0, _) => Ok(()),
        (found, 0) => writeln!(log, "ended {found} processes that an earlier daemon had left"),
        (_, left) => writeln!(log, "{left} processes of an earlier daemon could not be ended"),
    };
}

/// Runs a core: the part of [`run`] that comes after everything is loaded.
pub(crate) fn serve<C: Core>(
    options: Options,
    store: Store,
    identity: Identity,
    core: C,
    on_ready: OnReady<'_>,
) -> Result<(), RunError> {
    let Options { mut data_dir, bind, port, guard, config, log, is_quiet } = options;
    let mark = data_dir.child_mark().map_err(RunError::File)?;
    let identity = Arc::new(identity);
    let clock = Clock::start();
    let poll = Poll::new()?;
    let registry = poll.registry();
    let waker = Arc::new(Waker::new(registry, Token(tokens::WAKER))?);
    // Before anything can be asked of us: a signal that came earlier would end the process on the spot.
    let shutdown = Signal::shutdown(registry, Token(tokens::SHUTDOWN))?;
    let child = Signal::child(registry, Token(tokens::CHILD))?;
    let mut listeners = Listeners::bind(&bind, port, data_dir.path())?;
    listeners.register(registry, tokens::LISTENERS)?;
    let addresses = listeners.addresses();
    let ready = Ready { port: listeners.port(), socket: listeners.path(), addresses: &addresses };
    data_dir.note_listening(ready.port, addresses.clone());
    on_ready(&ready);
    let legs = Legs::new(Arc::clone(&waker));
    let workers = Workers::new(waker, mark.clone())
        .with_audit(AuditReader::new(data_dir.private().clone()))
        .with_identity(Arc::clone(&identity), bind);
    let event_loop = EventLoop {
        hands: Hands::new(
            registry.try_clone()?,
            workers,
            legs,
            clock.read(),
            Acceptor::new(identity),
        ),
        core,
        clock,
        listeners,
        store,
        processes: Processes::new(guard, mark, tokens::CHILDREN),
        shutdown,
        child,
        limits: config.limits,
        log,
        is_quiet,
        buffer: Vec::new(),
        accepting: 0,
        has_child_work: false,
        poll,
    };
    event_loop.run().map_err(RunError::System)
}
