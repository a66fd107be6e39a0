//! One connection's byte stream: TCP, the Unix socket, or TLS over something.
//!
//! Owns the differences between them; refuses to know what flows. None is ever blocking.

use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::net::{IpAddr, Shutdown};

use clawd_protocol::Fingerprint;
use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use rustls::ServerConnection;

use crate::tls::TlsStream;

/// What TLS can run over: a socket, or something that behaves like one.
pub(crate) trait Transport: Read + Write + Source + fmt::Debug {
    /// Tells the peer that nothing more will come. What it may still send can be read.
    fn end_writing(&mut self);

    /// Our own address, if the peer connected to one.
    fn local_ip(&self) -> Option<IpAddr> {
        None
    }
}

impl Transport for TcpStream {
    fn end_writing(&mut self) {
        // It fails only if the peer is gone, which reading finds out.
        let _ = self.shutdown(Shutdown::Write);
    }

    fn local_ip(&self) -> Option<IpAddr> {
        self.local_addr().ok().map(|addr| addr.ip().to_canonical())
    }
}

/// A connected socket, or what runs over one.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// Boxed: it is many times as large as the others.
    Tls(Box<TlsStream<Box<dyn Transport>>>),
}

/// Both sides of a connection whose handshake is over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Secured {
    /// The peer's own key, if it has one.
    pub(crate) key: Option<Fingerprint>,
    /// Our own address, if the peer connected to one.
    pub(crate) local: Option<IpAddr>,
}

/// The first byte of each TLS connection: a record of the handshake (RFC 8446, 5.1). No HTTP method begins so.
const HANDSHAKE: u8 = 0x16;

impl Stream {
    /// The same TCP connection with our side of TLS on it.
    pub(crate) fn secured_by(self, session: ServerConnection) -> Self {
        match self {
            Self::Tcp(stream) => Self::Tls(Box::new(TlsStream::over(Box::new(stream), session))),
            Self::Unix(_) | Self::Tls(_) => self,
        }
    }

    /// Whether a TCP peer that has said nothing yet begins with TLS. What it said stays to be read.
    pub(crate) fn begins_tls(&self) -> bool {
        let mut first = [0];
        match self {
            Self::Tcp(stream) => stream.peek(&mut first).is_ok() && first == [HANDSHAKE],
            Self::Unix(_) | Self::Tls(_) => false,
        }
    }

    /// Says once that the handshake is over.
    pub(crate) fn take_secured(&mut self) -> Option<Secured> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => None,
            Self::Tls(tls) => {
                tls.announce().then(|| Secured { key: tls.peer_key(), local: tls.io().local_ip() })
            }
        }
    }

    /// Whether something that was taken waits for the socket to be writable.
    pub(crate) fn wants_write(&self) -> bool {
        match self {
            Self::Tcp(_) | Self::Unix(_) => false,
            Self::Tls(tls) => tls.wants_write(),
        }
    }

    /// Whether something that was read waits to be asked for: no event will tell of it.
    pub(crate) fn has_unread(&mut self) -> bool {
        match self {
            Self::Tcp(_) | Self::Unix(_) => false,
            Self::Tls(tls) => tls.has_unread(),
        }
    }

    /// Writes what was taken and waits, as far as the socket takes it.
    pub(crate) fn flush_pending(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => Ok(()),
            Self::Tls(tls) => tls.flush_pending().map(|_| ()),
        }
    }

    /// Tells the peer that nothing more will come. What it may still send can be read. While the stream wants to write
    /// then, it was not told yet, and wants to be called again.
    pub(crate) fn end_writing(&mut self) {
        match self {
            Self::Tcp(stream) => Transport::end_writing(stream),
            // It fails only if the peer is gone, which reading finds out.
            Self::Unix(stream) => drop(stream.shutdown(Shutdown::Write)),
            Self::Tls(tls) => {
                if matches!(tls.end_writing(), Ok(true)) {
                    tls.io_mut().end_writing();
                }
            }
        }
    }

    fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Tcp(stream) => stream,
            Self::Unix(stream) => stream,
            Self::Tls(tls) => tls.io_mut(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
            Self::Tls(tls) => tls.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
            Self::Tls(tls) => tls.write(bytes),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write_vectored(slices),
            Self::Unix(stream) => stream.write_vectored(slices),
            Self::Tls(tls) => tls.write_vectored(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Source for Stream {
    fn register(
        &mut self,
        registry: &Registry,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        self.source().register(registry, token, interest)
    }

    fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        self.source().reregister(registry, token, interest)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.source().deregister(registry)
    }
}
