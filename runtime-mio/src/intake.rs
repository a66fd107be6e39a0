//! A connection's bytes, as far as the core wants to hear them.
//!
//! Owns the way from a readable socket to `Requested`, `Began`, `Text` and `Broke`; refuses to know what the core makes
//! of them. Nothing is read that nobody listens to: it stays in the kernel, and the peer's sending stops by itself.
//!
//! Invariants: at most one budget of bytes is read from a connection per turn · after each input the connection is looked
//! up again, because an effect may have paused, ended or dropped it · an idle connection holds no bytes.

use std::io::{self, Read};
use std::mem;

use clawd_protocol::{ConnId, Input, MessageFault};

use crate::connection::Phase;
use crate::event_loop::{Core, EventLoop};
use crate::head::{self, Scan};
use crate::stream::Secured;
use crate::websocket::{self, Decoded};

impl<C: Core> EventLoop<C> {
    /// Reads one connection within the budget.
    pub(crate) fn read(&mut self, conn: ConnId) {
        let Some(connection) = self.hands.connections.get_mut(conn) else { return };
        if !connection.is_readable() {
            return;
        }
        let is_head = matches!(connection.phase, Phase::Head { .. });
        if !is_head && !connection.held.is_empty() {
            let mut held = mem::take(&mut connection.held);
            self.hands.mark_unfinished(conn);
            return self.take_in(conn, &mut held);
        }
        if is_head && connection.held.is_empty() && connection.stream.begins_tls() {
            self.hands.secure(conn);
        }
        let Some(connection) = self.hands.connections.get_mut(conn) else { return };
        let result = connection.stream.read(&mut self.buffer);
        if is_head {
            self.tell_secured(conn);
        }
        self.on_read(conn, result);
    }

    /// What was read may have made TLS say something, and may be the last that was missing to know the peer.
    fn tell_secured(&mut self, conn: ConnId) {
        let Some(connection) = self.hands.connections.get_mut(conn) else { return };
        let secured = connection.stream.take_secured();
        if secured.is_some() || connection.stream.wants_write() {
            self.hands.mark_dirty(conn);
        }
        if let Some(Secured { key, local }) = secured {
            self.tell(Input::Secured { conn, key, local });
        }
    }

    fn on_read(&mut self, conn: ConnId, result: io::Result<usize>) {
        let Some(connection) = self.hands.connections.get_mut(conn) else { return };
        match result {
            Ok(0) => {
                connection.is_at_end = true;
                // What was queued before the peer hung up may still reach it, if it only ended its own side.
                let is_told = connection.outbox.is_empty() && !connection.stream.wants_write();
                if !connection.is_ending || is_told {
                    self.hands.drop_connection(conn);
                }
            }
            Ok(length) => {
                // A short read means that there is no more, unless the end is there: that is announced only once.
                let is_whole = length < self.buffer.len() && !connection.has_hung_up;
                if !is_whole || connection.stream.has_unread() {
                    self.hands.mark_unfinished(conn);
                }
                self.take_in_read(conn, length);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                connection.has_hung_up = false;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.hands.mark_unfinished(conn);
            }
            Err(_) => self.hands.drop_connection(conn),
        }
    }

    /// Takes in what was read into the buffer, behind what was held before.
    fn take_in_read(&mut self, conn: ConnId, length: usize) {
        let mut buffer = mem::take(&mut self.buffer);
        match self.hands.connections.get_mut(conn) {
            Some(connection) if !connection.held.is_empty() => {
                let mut held = mem::take(&mut connection.held);
                held.extend_from_slice(&buffer[..length]);
                self.take_in(conn, &mut held);
            }
            Some(_) => self.take_in(conn, &mut buffer[..length]),
            None => {}
        }
        self.buffer = buffer;
    }

    /// Tells the core what the bytes come to, as far as it wants to hear it; the rest is held or thrown away.
    fn take_in(&mut self, conn: ConnId, bytes: &mut [u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let Some(connection) = self.hands.connections.get_mut(conn) else { return };
            if !connection.is_listening() {
                if !connection.is_ending && !connection.is_broken {
                    connection.held = rest.to_vec();
                }
                return;
            }
            let used = match &mut connection.phase {
                Phase::Open(decoder) => {
                    let (used, decoded) = decoder.decode(rest);
                    if let Some(decoded) = decoded {
                        self.on_decoded(conn, decoded);
                    }
                    used
                }
                Phase::Head { .. } => self.take_head(conn, rest),
                Phase::Asked => return,
            };
            rest = rest.split_at_mut(used).1;
        }
        self.tell_begun(conn);
    }

    /// Says how many bytes were used: all, as long as the head is not whole.
    fn take_head(&mut self, conn: ConnId, bytes: &[u8]) -> usize {
        let Some(connection) = self.hands.connections.get_mut(conn) else { return bytes.len() };
        let Phase::Head { scanned } = connection.phase else { return 0 };
        let scan = head::scan(bytes, scanned, &self.limits);
        connection.phase = Phase::Asked;
        let (used, head) = match scan {
            Scan::Partial => {
                connection.phase = Phase::Head { scanned: bytes.len() };
                connection.held = bytes.to_vec();
                return bytes.len();
            }
            Scan::Whole(length) => (length, Ok(&bytes[..length])),
            Scan::Fault(fault) => (bytes.len(), Err(fault)),
        };
        let Self { core, hands, limits, .. } = self;
        match head {
            Ok(head) => head::parse(head, limits, |head| {
                core.handle(Input::Requested { conn, head }, hands);
            }),
            Err(fault) => core.handle(Input::Requested { conn, head: Err(fault) }, hands),
        }
        used
    }

    fn on_decoded(&mut self, conn: ConnId, decoded: Decoded<'_>) {
        let Some(connection) = self.hands.connections.get_mut(conn) else { return };
        match decoded {
            Decoded::Text(text) => {
                connection.has_begun = false;
                self.tell(Input::Text { conn, text: &text });
            }
            Decoded::Ping(payload) => {
                connection.pong = Some(payload.into());
                self.hands.mark_dirty(conn);
            }
            Decoded::Pong => {}
            Decoded::Close(code) => {
                websocket::put_close(connection.outbox.tail(0), code, "");
                self.hands.end(conn);
            }
            Decoded::Broke(fault) => self.on_broken(conn, fault),
        }
    }

    fn on_broken(&mut self, conn: ConnId, fault: MessageFault) {
        if let Some(connection) = self.hands.connections.get_mut(conn) {
            connection.is_broken = true;
            self.tell(Input::Broke { conn, fault });
        }
    }

    fn tell_begun(&mut self, conn: ConnId) {
        if let Some(connection) = self.hands.connections.get_mut(conn)
            && let Phase::Open(decoder) = &connection.phase
            && decoder.has_begun()
            && !connection.has_begun
        {
            connection.has_begun = true;
            self.tell(Input::Began { conn });
        }
    }
}
