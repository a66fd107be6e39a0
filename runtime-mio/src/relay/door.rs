//! Where a relay listens.
//!
//! Owns one listener and the pause after the system had no room; refuses to know who may come in.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use clawd_protocol::Instant;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use rustix::io::Errno;

use super::RelayError;

/// Accepting waits so long after the system had no file descriptor for us (security C6).
const BACK_OFF: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug)]
pub(super) struct Door {
    listener: TcpListener,
    /// Somebody may wait.
    pub(super) is_open: bool,
    retry_at: Option<Instant>,
    is_exhausted: bool,
}

/// What came of accepting.
#[derive(Debug)]
pub(super) enum Accepted {
    Connection(TcpStream, IpAddr),
    /// This one was gone before it was here.
    Aborted,
    /// Nobody waits, or nobody can be taken before [`Door::retry_at`].
    Nobody,
    /// Nobody can be taken because the system has no room; said once, until it has again.
    Exhausted(io::Error),
}

impl Door {
    pub(super) fn bind(addr: SocketAddr) -> Result<Self, RelayError> {
        let listener = TcpListener::bind(addr).map_err(|source| {
            if source.kind() == io::ErrorKind::AddrInUse {
                RelayError::PortTaken { addr }
            } else {
                RelayError::Bind { addr, source }
            }
        })?;
        Ok(Self { listener, is_open: false, retry_at: None, is_exhausted: false })
    }

    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.listener, token, Interest::READABLE)
    }

    /// When accepting goes on, if it was put off.
    pub(super) const fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Takes one connection.
    pub(super) fn accept(&mut self, now: Instant) -> Accepted {
        if self.retry_at.is_some_and(|at| now < at) {
            return Accepted::Nobody;
        }
        self.retry_at = None;
        let accepted = self.listener.accept().and_then(|(stream, peer)| {
            stream.set_nodelay(true)?;
            Ok((stream, peer.ip()))
        });
        match accepted {
            Ok((stream, address)) => {
                self.is_exhausted = false;
                Accepted::Connection(stream, address)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.is_open = false;
                Accepted::Nobody
            }
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    self.retry_at = Some(now + BACK_OFF);
                    let was_exhausted = std::mem::replace(&mut self.is_exhausted, true);
                    if was_exhausted { Accepted::Nobody } else { Accepted::Exhausted(error) }
                }
                _ => Accepted::Aborted,
            },
        }
    }
}
