//! What a WebSocket to a relay runs on: TCP, with TLS or, on this machine, without.
//!
//! Owns the difference between the two; refuses to know whether the stream below blocks. An error of
//! [`WouldBlock`](io::ErrorKind::WouldBlock) changes nothing. TLS may hold back what was written: as long as
//! [`flush`](Write::flush) fails, not all of it has left. It never keeps a read from going on,
//! and one that is [`Interrupted`](io::ErrorKind::Interrupted) is to be made again.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};

use rustls::ClientConnection;

/// So many pieces of TLS of which nothing comes are taken in one read, before others have their turn.
const PIECES_PER_READ: usize = 64;

/// The stream, over a connected `T`.
pub struct Link<T> {
    tcp: T,
    tls: Option<Box<ClientConnection>>,
}

impl<T: fmt::Debug> fmt::Debug for Link<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("tcp", &self.tcp)
            .field("is_tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}

impl<T> Link<T> {
    pub(super) fn new(tcp: T, tls: Option<ClientConnection>) -> Self {
        Self { tcp, tls: tls.map(Box::new) }
    }

    /// The same on another stream below, which has to go on where this one is.
    pub fn map<U>(self, map: impl FnOnce(T) -> U) -> Link<U> {
        Link { tcp: map(self.tcp), tls: self.tls }
    }

    /// The stream below.
    pub const fn get_ref(&self) -> &T {
        &self.tcp
    }

    /// The stream below. What is read of or written to it is missing here.
    pub const fn get_mut(&mut self) -> &mut T {
        &mut self.tcp
    }
}

impl<T: Read + Write> Link<T> {
    /// The TLS handshake.
    pub(super) fn shake_hands(&mut self) -> io::Result<()> {
        self.flush()?;
        while self.tls.as_ref().is_some_and(|tls| tls.is_handshaking()) {
            self.take_in()?;
            self.flush()?;
        }
        Ok(())
    }

    /// Says that nothing more will come.
    pub(crate) fn end_writing(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            // Who is gone needs no goodbye.
            let _ = self.flush();
        }
    }

    /// Reads once of the stream below.
    fn take_in(&mut self) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        if tls.read_tls(&mut self.tcp)? == 0 && tls.is_handshaking() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if let Err(error) = tls.process_new_packets() {
            // The alert may tell the peer why.
            let _ = tls.write_tls(&mut self.tcp);
            return Err(io::Error::new(ErrorKind::InvalidData, error));
        }
        Ok(())
    }
}

impl<T: Read + Write> Read for Link<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        for _ in 0..PIECES_PER_READ {
            let Some(tls) = &mut self.tls else { return self.tcp.read(buffer) };
            match tls.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.take_in()?,
                read => return read,
            }
        }
        Err(ErrorKind::Interrupted.into())
    }
}

impl<T: Read + Write> Write for Link<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.flush()?;
        let Some(tls) = &mut self.tls else { return self.tcp.write(bytes) };
        let written = tls.writer().write(bytes)?;
        match self.flush() {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok(written),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        while tls.wants_write() {
            match tls.write_tls(&mut self.tcp) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(())
    }
}
