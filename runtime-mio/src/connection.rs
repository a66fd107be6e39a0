//! One connection, and the table of all.
//!
//! Owns a connection's state on the wire; refuses to know who is at the other end and what is said.
//!
//! | phase | bytes from the peer | left by |
//! |---|---|---|
//! | `Head` | collected until the head is whole | a whole or a bad head → `Asked` |
//! | `Asked` | held | `Upgrade` → `Open`, `Respond` → ending |
//! | `Open` | frames | `Close`, the peer's close |
//!
//! *Ending* is a flag beside the phase: what is queued is flushed, then the sending side is shut, then everything from
//! the peer is read and thrown away until it closes too or the linger is over. Closing at once would let the kernel
//! answer unread bytes with a reset, and that may destroy what we said last.
//!
//! Invariants: a [`ConnId`] is `generation << 32 | slot`, so that it is found in one step and never comes again · a slot
//! is its connection's mio token.

use clawd_protocol::ConnId;

use crate::outbox::Outbox;
use crate::stream::Stream;
use crate::websocket::Decoder;

/// What is spoken.
#[derive(Debug)]
pub(crate) enum Phase {
    /// The request head is not whole; so many of its bytes were scanned.
    Head { scanned: usize },
    /// The core knows the head and has not answered it.
    Asked,
    /// WebSocket.
    Open(Decoder),
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: ConnId,
    pub(crate) stream: Stream,
    pub(crate) phase: Phase,
    pub(crate) outbox: Outbox,
    /// Bytes that were read and cannot be used yet: part of a head, or what came behind a pause.
    pub(crate) held: Vec<u8>,
    /// The payload of the latest ping that was not answered: the one before it needs no answer (RFC 6455, 5.5.3).
    pub(crate) pong: Option<Box<[u8]>>,
    /// The core wants nothing to be read.
    pub(crate) is_paused: bool,
    /// The core was told that a message has begun, and not yet its text.
    pub(crate) has_begun: bool,
    /// It broke the rules: nothing more is understood.
    pub(crate) is_broken: bool,
    /// See the module's head.
    pub(crate) is_ending: bool,
    /// The system said that the peer ended its side: reading goes on until it shows.
    pub(crate) has_hung_up: bool,
    /// It has shown: all that the peer sent was read.
    pub(crate) is_at_end: bool,
    /// The socket took less than it was given; its writability is awaited.
    pub(crate) is_blocked: bool,
    /// It is in the list of those to flush at the end of the turn.
    pub(crate) is_dirty: bool,
    /// It is in the list of those to read in the next turn.
    pub(crate) is_unfinished: bool,
}

impl Connection {
    fn new(id: ConnId, stream: Stream) -> Self {
        Self {
            id,
            stream,
            phase: Phase::Head { scanned: 0 },
            outbox: Outbox::default(),
            held: Vec::new(),
            pong: None,
            is_paused: false,
            has_begun: false,
            is_broken: false,
            is_ending: false,
            has_hung_up: false,
            is_at_end: false,
            is_blocked: false,
            is_dirty: false,
            is_unfinished: false,
        }
    }

    /// Whether what the peer sends may be understood now.
    pub(crate) fn is_listening(&self) -> bool {
        let can_go_on = match self.phase {
            Phase::Head { .. } | Phase::Open(_) => true,
            Phase::Asked => false,
        };
        can_go_on && !self.is_paused && !self.is_broken && !self.is_ending
    }

    /// Whether the socket may be read now: to listen, or to see the end.
    pub(crate) fn is_readable(&self) -> bool {
        (self.is_listening() || self.is_ending) && !self.is_at_end
    }
}

/// All connections.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    connection: Option<Connection>,
}

impl Connections {
    /// The slot and name of the next connection.
    pub(crate) fn vacancy(&mut self) -> ConnId {
        let slot = self.free.last().copied().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            let slot = u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX);
            self.free.push(slot);
            slot
        });
        let generation = self.slots[slot as usize].generation;
        ConnId(u64::from(generation) << 32 | u64::from(slot))
    }

    /// Fills the vacancy.
    pub(crate) fn insert(&mut self, id: ConnId, stream: Stream) {
        self.free.pop();
        self.slots[slot_of(id)].connection = Some(Connection::new(id, stream));
    }

    /// The connection of this name, if it is still there.
    pub(crate) fn get_mut(&mut self, id: ConnId) -> Option<&mut Connection> {
        let connection = self.slots.get_mut(slot_of(id))?.connection.as_mut()?;
        (connection.id == id).then_some(connection)
    }

    /// Remakes a connection's stream.
    pub(crate) fn remake(&mut self, id: ConnId, remade: impl FnOnce(Stream) -> Stream) {
        if self.get_mut(id).is_some() {
            let place = &mut self.slots[slot_of(id)].connection;
            *place = place.take().map(|connection| {
                let stream = remade(connection.stream);
                Connection { stream, ..connection }
            });
        }
    }

    /// The connection in this slot.
    pub(crate) fn at_mut(&mut self, slot: usize) -> Option<&mut Connection> {
        self.slots.get_mut(slot)?.connection.as_mut()
    }

    /// Takes a connection out; its slot is free for another with another name.
    pub(crate) fn remove(&mut self, id: ConnId) -> Option<Connection> {
        self.get_mut(id)?;
        let slot = &mut self.slots[slot_of(id)];
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.0 as u32);
        slot.connection.take()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Connection> {
        self.slots.iter_mut().filter_map(|slot| slot.connection.as_mut())
    }
}

/// The lower half of a name; also the mio token.
pub(crate) const fn slot_of(id: ConnId) -> usize {
    id.0 as u32 as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_is_small() {
        assert!(size_of::<Slot>() <= 320, "{} bytes", size_of::<Slot>());
    }

    #[test]
    fn a_name_is_never_given_again() {
        let mut connections = Connections::default();
        let mut connect = || {
            let id = connections.vacancy();
            let (stream, _) = mio::net::UnixStream::pair().unwrap();
            connections.insert(id, Stream::Unix(stream));
            assert_eq!(connections.get_mut(id).unwrap().id, id);
            assert!(connections.remove(id).is_some() && connections.remove(id).is_none());
            id
        };
        let (first, second) = (connect(), connect());
        assert_eq!(slot_of(first), slot_of(second));
        assert_ne!(first, second);
        assert!(connections.get_mut(first).is_none());
    }
}
