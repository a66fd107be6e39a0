//! Text messages on a link: the WebSocket and the waiting.
//!
//! Refuses to know what the texts say.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use tungstenite::handshake::HandshakeError;
use tungstenite::{Error as WsError, Message, Utf8Bytes, WebSocket};

use super::link::{Link, Polled, poll};
use super::{closed, lost};
use crate::exit::Failure;

/// How long the other end may leave what we send in its buffers.
const SEND_TIMEOUT: Duration = Duration::from_secs(40);

/// An open WebSocket.
#[derive(Debug)]
pub(super) struct Socket(WebSocket<Link>);

/// What waiting came to.
pub(super) enum Heard {
    Text(Utf8Bytes),
    /// This one of the other descriptors can be read.
    Other(usize),
    Timeout,
}

impl Socket {
    /// The handshake as a client.
    pub(super) fn open(link: Link, url: &str, deadline: Instant) -> Result<Self, Failure> {
        let io = |error: io::Error| Failure::io("cannot talk to the daemon", &error);
        link.set_nonblocking().map_err(io)?;
        let mut shaken = tungstenite::client::client(url, link);
        loop {
            match shaken {
                Ok((socket, _)) => return Ok(Self(socket)),
                Err(HandshakeError::Failure(WsError::Io(error))) => {
                    return Err(lost(&error.to_string()));
                }
                Err(HandshakeError::Failure(error)) => {
                    return Err(lost(&format!("it does not speak WebSocket: {error}")));
                }
                Err(HandshakeError::Interrupted(half)) => {
                    let link = half.get_ref().get_ref();
                    match poll(link, PollFlags::IN, &[], Some(deadline))? {
                        Polled::Link | Polled::Other(_) => shaken = half.handshake(),
                        Polled::Timeout => return Err(lost("it does not answer")),
                    }
                }
            }
        }
    }

    /// When bytes came the last time; where nobody looks, `None`.
    pub(super) fn heard(&self) -> Option<Instant> {
        self.0.get_ref().heard()
    }

    /// Waits for a text, one of `others` to be readable, or the deadline.
    pub(super) fn next(
        &mut self,
        others: &[BorrowedFd<'_>],
        deadline: Option<Instant>,
    ) -> Result<Heard, Failure> {
        loop {
            // Before any waiting: what TLS has decrypted already, no descriptor tells of.
            match self.0.read() {
                Ok(Message::Text(text)) => return Ok(Heard::Text(text)),
                Ok(Message::Close(frame)) => {
                    let why = frame.map_or_else(String::new, |frame| frame.reason.to_string());
                    return Err(closed(&why));
                }
                Ok(
                    Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_),
                ) => {}
                Err(WsError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    match poll(self.0.get_ref(), PollFlags::IN, others, deadline)? {
                        Polled::Link => {}
                        Polled::Other(index) => return Ok(Heard::Other(index)),
                        Polled::Timeout => return Ok(Heard::Timeout),
                    }
                }
                Err(WsError::Io(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(WsError::ConnectionClosed | WsError::AlreadyClosed) => return Err(closed("")),
                Err(error) => return Err(lost(&error.to_string())),
            }
        }
    }

    pub(super) fn send(&mut self, text: &str) -> Result<(), Failure> {
        let mut sent = self.0.send(Message::text(text));
        let deadline = Some(Instant::now() + SEND_TIMEOUT);
        loop {
            match sent {
                Ok(()) => return Ok(()),
                Err(WsError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    match poll(self.0.get_ref(), PollFlags::OUT, &[], deadline)? {
                        Polled::Link | Polled::Other(_) => {}
                        Polled::Timeout => return Err(lost("it does not read")),
                    }
                }
                Err(error) => return Err(lost(&error.to_string())),
            }
            sent = self.0.flush();
        }
    }
}
