//! TLS over any byte stream that does not block.
//!
//! Owns the way of bytes through rustls, in both directions; refuses to know sockets, who the peer is and what is said.
//!
//! It is made for readiness that is announced once: a read goes on until the buffer is full or the stream below has
//! nothing more, and a write until everything is taken or the stream below is full. What cannot leave yet stays here and
//! is said by [`wants_write`](TlsStream::wants_write); what was read and not yet handed out by
//! [`has_unread`](TlsStream::has_unread).
//!
//! Invariants: nothing is taken from the writer before the handshake is over, and nothing ever leaves in clear but the
//! handshake itself · what comes before a fault is handed out, then the fault is told, nothing after it is · at most
//! [`QUEUE_BYTES`] of what was taken wait here, so that the writer's own queue is the queue · the peer's end counts only
//! if the peer said it inside of TLS (security G4).

use std::fmt;
use std::io::{self, BufRead as _, IoSlice, Read, Write};
use std::sync::Arc;

use clawd_protocol::Fingerprint;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, Error, ServerConfig, ServerConnection};

/// What is taken at once and may wait for the stream below: the plaintext of four of the largest records (RFC 8446, 5.1),
/// which leave in one system call. Less would cost more calls, more would be memory that a stalled peer holds.
const QUEUE_BYTES: usize = 4 * 16 * 1024;
/// So many pieces are taken from the stream below in one read, before others have their turn: each costs work, also when
/// nothing comes of it.
const PIECES_PER_READ: usize = 1024;

/// One side of a TLS connection over `S`.
pub struct TlsStream<S> {
    io: S,
    tls: Connection,
    /// Why nothing more is read.
    fault: Option<Error>,
    has_announced: bool,
    has_ended: bool,
    /// The last read was cut short: the stream below may have more.
    is_cut: bool,
}

impl<S: fmt::Debug> fmt::Debug for TlsStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream")
            .field("io", &self.io)
            .field("is_handshaking", &self.tls.is_handshaking())
            .field("fault", &self.fault)
            .finish_non_exhaustive()
    }
}

impl<S> TlsStream<S> {
    /// The side that was called.
    ///
    /// # Errors
    /// The configuration is one that TLS cannot use.
    pub fn server(io: S, config: &Arc<ServerConfig>) -> Result<Self, Error> {
        ServerConnection::new(Arc::clone(config)).map(|tls| Self::over(io, tls))
    }

    /// The side that calls. It speaks first: [`flush_pending`](Self::flush_pending) once the stream below is up.
    ///
    /// # Errors
    /// The configuration or the name is one that TLS cannot use.
    pub fn client(
        io: S,
        config: &Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Self, Error> {
        ClientConnection::new(Arc::clone(config), name).map(|tls| Self::over(io, tls))
    }

    /// A side that has not said anything yet.
    pub fn over(io: S, tls: impl Into<Connection>) -> Self {
        let mut tls = tls.into();
        tls.set_buffer_limit(Some(QUEUE_BYTES));
        Self { io, tls, fault: None, has_announced: false, has_ended: false, is_cut: false }
    }

    /// The stream below.
    pub const fn io(&self) -> &S {
        &self.io
    }

    /// The stream below. Whoever reads or writes it breaks the connection.
    pub const fn io_mut(&mut self) -> &mut S {
        &mut self.io
    }

    /// Whether the peers do not know each other's keys yet.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    /// Whether something waits for the stream below to take it.
    #[must_use]
    pub fn wants_write(&self) -> bool {
        self.tls.wants_write()
    }

    /// Whether a read may say something at once, without an event of the stream below: bytes, the end, or a fault.
    #[must_use]
    pub fn has_unread(&mut self) -> bool {
        let would_block = |error: io::Error| error.kind() == io::ErrorKind::WouldBlock;
        self.is_cut || self.fault.is_some() || !self.tls.reader().fill_buf().is_err_and(would_block)
    }

    /// The key that the peer has shown and proved to have; nothing before the handshake is over.
    #[must_use]
    pub fn peer_key(&self) -> Option<Fingerprint> {
        if self.is_handshaking() { None } else { super::peer_key(&self.tls) }
    }

    /// Whether the handshake is over and this is the first time that it is said.
    pub fn announce(&mut self) -> bool {
        !self.is_handshaking() && !std::mem::replace(&mut self.has_announced, true)
    }
}

impl<S: Read + Write> TlsStream<S> {
    /// Gives the stream below what waits for it. True: nothing waits any more.
    ///
    /// # Errors
    /// Those of the stream below, but not that it is full.
    pub fn flush_pending(&mut self) -> io::Result<bool> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.io) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Says inside of TLS that nothing more will come. True: that has left; otherwise call again when there is room.
    ///
    /// # Errors
    /// Those of the stream below.
    pub fn end_writing(&mut self) -> io::Result<bool> {
        if !std::mem::replace(&mut self.has_ended, true) {
            self.tls.send_close_notify();
        }
        self.flush_pending()
    }

    /// What was read and understood already. That there is nothing is found out below.
    fn take_read(&mut self, buffer: &mut [u8]) -> usize {
        self.tls.reader().read(buffer).unwrap_or(0)
    }

    /// Takes one piece from the stream below. False: nothing more will come.
    fn advance(&mut self) -> io::Result<bool> {
        if let Some(fault) = &self.fault {
            return Err(io::Error::new(io::ErrorKind::InvalidData, fault.clone()));
        }
        if self.tls.read_tls(&mut self.io)? == 0 {
            // An error unless the peer said so inside of TLS: anybody can end the stream below.
            return self.tls.reader().fill_buf().map(|_| false);
        }
        if let Err(fault) = self.tls.process_new_packets() {
            self.fault = Some(fault.clone());
            // The peer may like to know why. It is over in any case.
            let _ = self.flush_pending();
            return Err(io::Error::new(io::ErrorKind::InvalidData, fault));
        }
        self.flush_pending().map(|_| true)
    }
}

impl<S: Read + Write> Read for TlsStream<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        self.is_cut = false;
        for _ in 0..PIECES_PER_READ {
            filled += self.take_read(&mut buffer[filled..]);
            if filled == buffer.len() {
                return Ok(filled);
            }
            match self.advance() {
                Ok(true) => {}
                Ok(false) => return Ok(filled),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => break,
                Err(error) => {
                    // It is told by the next call.
                    filled += self.take_read(&mut buffer[filled..]);
                    return if filled > 0 { Ok(filled) } else { Err(error) };
                }
            }
        }
        self.is_cut = true;
        filled += self.take_read(&mut buffer[filled..]);
        if filled > 0 { Ok(filled) } else { Err(io::ErrorKind::Interrupted.into()) }
    }
}

impl<S: Read + Write> Write for TlsStream<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.has_ended {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let is_ready = !self.tls.is_handshaking();
        let mut slices = slices.to_vec();
        let mut rest = &mut slices[..];
        let mut taken = 0;
        // Those that are empty say nothing.
        IoSlice::advance_slices(&mut rest, 0);
        while self.flush_pending()? {
            if rest.is_empty() {
                return Ok(taken);
            }
            if !is_ready {
                break;
            }
            let now = self.tls.writer().write_vectored(rest)?;
            if now == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            taken += now;
            IoSlice::advance_slices(&mut rest, now);
        }
        if taken == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(taken) }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.flush_pending()? { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }
}

#[cfg(test)]
mod tests;
