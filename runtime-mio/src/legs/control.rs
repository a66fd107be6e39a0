//! One leg over which text is spoken.
//!
//! Owns its WebSocket, and how much may wait in it; refuses to know what is said. Nothing leaves before
//! [`flush`](Control::flush), which is when everything that it may speak of is durable.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};

use clawd_protocol::{Instant, LegId};
use mio::net::TcpStream;
use tungstenite::protocol::{Message, Role, WebSocket, WebSocketConfig};
use tungstenite::{Error, Utf8Bytes};

use crate::dial::Link;

/// The longest message that is heard: many times what there is to be said over a control connection.
const HEARD_BYTES_MAX: usize = 16 * 1024;
/// So much may wait to be said: a relay that takes none of it is of no use.
const SAID_BYTES_MAX: usize = 64 * 1024;
/// What WebSocket may hold of it, with the answers to pings.
const WRITE_BYTES_MAX: usize = 2 * SAID_BYTES_MAX;
/// Hardly anything is heard.
const READ_BUFFER_BYTES: usize = 4096;

/// A leg that is there.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) id: LegId,
    socket: WebSocket<Link<TcpStream>>,
    /// To be sent, and how many bytes that is.
    said: VecDeque<String>,
    said_bytes: usize,
    /// It ends as soon as all is sent, or then.
    pub(super) ends_at: Option<Instant>,
    /// To flush at the end of the turn.
    pub(super) is_dirty: bool,
    /// To hear in the next turn.
    pub(super) is_unfinished: bool,
}

/// What came of listening.
pub(super) enum Heard {
    Text(Utf8Bytes),
    /// Something that is dealt with below.
    Nothing,
    /// There is no more for now.
    Blocked,
    /// There will be no more.
    End,
}

impl Control {
    /// On what has been dialled and does not block.
    pub(super) fn new(id: LegId, link: Link<TcpStream>, tail: Vec<u8>) -> Self {
        let config = WebSocketConfig::default()
            .max_message_size(Some(HEARD_BYTES_MAX))
            .max_frame_size(Some(HEARD_BYTES_MAX))
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(SAID_BYTES_MAX)
            .max_write_buffer_size(WRITE_BYTES_MAX);
        let socket = WebSocket::from_partially_read(link, tail, Role::Client, Some(config));
        let said = VecDeque::new();
        // What came with the handshake is announced by no event.
        let is_unfinished = true;
        Self { id, socket, said, said_bytes: 0, ends_at: None, is_dirty: false, is_unfinished }
    }

    pub(super) fn tcp(&mut self) -> &mut TcpStream {
        self.socket.get_mut().get_mut()
    }

    /// Takes what is to be said. False: there is no room for it.
    pub(super) fn say(&mut self, text: String) -> bool {
        let bytes = self.said_bytes + text.len();
        if bytes > SAID_BYTES_MAX {
            return false;
        }
        self.said_bytes = bytes;
        self.said.push_back(text);
        self.is_dirty = true;
        true
    }

    /// Listens.
    pub(super) fn hear(&mut self) -> Heard {
        match self.socket.read() {
            Ok(Message::Text(text)) => Heard::Text(text),
            Ok(Message::Ping(_)) => {
                self.is_dirty = true;
                Heard::Nothing
            }
            Ok(Message::Pong(_)) => Heard::Nothing,
            Ok(Message::Close(_)) => {
                // The answer to it, if the peer still reads.
                let _ = self.socket.flush();
                Heard::End
            }
            // Nothing binary is ever said here.
            Ok(Message::Binary(_) | Message::Frame(_)) => Heard::End,
            Err(error) if is_blocked(&error) => Heard::Blocked,
            Err(Error::Io(error)) if error.kind() == ErrorKind::Interrupted => Heard::Nothing,
            Err(_) => Heard::End,
        }
    }

    /// Sends what can be sent. False: it is over.
    pub(super) fn flush(&mut self) -> bool {
        self.is_dirty = false;
        match self.send() {
            Ok(()) => self.ends_at.is_none(),
            Err(error) => is_blocked(&error),
        }
    }

    fn send(&mut self) -> Result<(), Error> {
        loop {
            self.socket.flush()?;
            let Some(text) = self.said.pop_front() else { break };
            self.said_bytes -= text.len();
            self.socket.write(Message::text(text))?;
        }
        if self.ends_at.is_some() {
            self.socket.close(None)?;
            self.socket.get_mut().end_writing();
        }
        Ok(())
    }
}

/// Nothing is lost by it: whatever was given to the WebSocket stays there.
fn is_blocked(error: &Error) -> bool {
    matches!(error, Error::Io(error) if is_io_blocked(error))
}

fn is_io_blocked(error: &io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock
}
