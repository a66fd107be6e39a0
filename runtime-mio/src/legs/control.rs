//! One leg over which text is spoken.
//!
//! Owns its WebSocket, and how much may wait in it; refuses to know what is said. Nothing leaves before
//! [`flush`](Control::flush), which is when everything that it may speak of is durable.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};

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
/// So often the link is read for one message, which is more than the longest needs.
const READS_PER_MESSAGE: u32 = 16;

/// A stream of which so much is read at once, and then others have their turn. WebSocket reads until a message is whole,
/// and a message may have pieces without end that carry nothing.
#[derive(Debug)]
struct Rationed<S> {
    inner: S,
    reads_left: u32,
}

impl<S: Read> Read for Rationed<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reads_left = self.reads_left.checked_sub(1).ok_or(ErrorKind::Interrupted)?;
        self.inner.read(buffer)
    }
}

impl<S: Write> Write for Rationed<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// A leg that is there.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) id: LegId,
    socket: WebSocket<Rationed<Link<TcpStream>>>,
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
        let link = Rationed { inner: link, reads_left: 0 };
        let socket = WebSocket::from_partially_read(link, tail, Role::Client, Some(config));
        let said = VecDeque::new();
        // What came with the handshake is announced by no event.
        let is_unfinished = true;
        Self { id, socket, said, said_bytes: 0, ends_at: None, is_dirty: false, is_unfinished }
    }

    pub(super) fn tcp(&mut self) -> &mut TcpStream {
        self.socket.get_mut().inner.get_mut()
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
        self.socket.get_mut().reads_left = READS_PER_MESSAGE;
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
            self.socket.get_mut().inner.end_writing();
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A message of which there is always one more piece, each empty.
    struct Endless {
        has_begun: bool,
        reads: usize,
    }

    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.reads += 1;
            assert!(self.reads < 1000, "it is read without end");
            let length = buffer.len() & !1;
            for frame in buffer[..length].chunks_exact_mut(2) {
                let opcode = u8::from(!std::mem::replace(&mut self.has_begun, true));
                frame.copy_from_slice(&[opcode, 0]);
            }
            Ok(length)
        }
    }

    impl Write for Endless {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn g5_a_message_that_never_ends_holds_nobody_up() {
        let endless = Endless { has_begun: false, reads: 0 };
        let stream = Rationed { inner: endless, reads_left: 0 };
        let mut socket = WebSocket::from_raw_socket(stream, Role::Client, None);
        for turn in 1..10 {
            socket.get_mut().reads_left = READS_PER_MESSAGE;
            let heard = socket.read();
            let is_put_off =
                matches!(&heard, Err(Error::Io(error)) if error.kind() == ErrorKind::Interrupted);
            assert!(is_put_off, "{heard:?}");
            assert_eq!(socket.get_ref().inner.reads, turn * READS_PER_MESSAGE as usize);
        }
    }
}
