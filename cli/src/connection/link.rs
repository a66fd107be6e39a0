//! The bytes below the WebSocket: the ways to reach a daemon, and waiting on descriptors.
//!
//! Refuses to know frames and calls.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec};

use super::secure::Stream;
use crate::exit::Failure;

/// One of the ways to reach a daemon.
#[derive(Debug)]
pub(super) enum Link {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(Box<Stream>),
}

impl Read for Link {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(buffer),
            Self::Tcp(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Link {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(bytes),
            Self::Tcp(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Unix(_) | Self::Tcp(_) => Ok(()),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(stream) => stream.as_fd(),
            Self::Tcp(stream) => stream.as_fd(),
            Self::Tls(stream) => stream.sock.as_fd(),
        }
    }
}

impl Link {
    pub(super) fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.set_nonblocking(true),
            Self::Tcp(stream) => stream.set_nonblocking(true),
            // It was never anything else.
            Self::Tls(_) => Ok(()),
        }
    }

    /// When bytes came the last time. A local daemon that is gone is told of by the system: nobody looks.
    pub(super) fn heard(&self) -> Option<Instant> {
        match self {
            Self::Unix(_) | Self::Tcp(_) => None,
            Self::Tls(stream) => Some(stream.sock.heard()),
        }
    }
}

/// What waiting on descriptors came to.
pub(super) enum Polled {
    Link,
    Other(usize),
    Timeout,
}

/// Waits until `link` is ready, one of `others` can be read, or the deadline.
pub(super) fn poll(
    link: &impl AsFd,
    flags: PollFlags,
    others: &[BorrowedFd<'_>],
    deadline: Option<Instant>,
) -> Result<Polled, Failure> {
    let mut fds: Vec<PollFd<'_>> = vec![PollFd::new(link, flags)];
    fds.extend(others.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        // Rounded up: a wait that ends a little early would go round once more for nothing.
        let timeout = left.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(0) => return Ok(Polled::Timeout),
            Ok(_) => break,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Failure::io("cannot wait", &error.into())),
        }
    }
    // People first: a busy daemon must not keep Ctrl-C from being heard.
    let other = fds.iter().skip(1).position(|fd| !fd.revents().is_empty());
    Ok(other.map_or(Polled::Link, Polled::Other))
}
