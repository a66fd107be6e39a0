//! One connection to a relay, and the table of all.
//!
//! Owns a connection's state on the wire; refuses to know who may meet whom. It goes through the same phases as a daemon's
//! [`connection`](crate::connection) and ends as carefully: what is queued is flushed, the sending side is shut, and what
//! still comes is thrown away until the peer closes too or has lingered enough.
//!
//! Invariants: a name is `generation << 32 | slot`, so that it is found in one step and never comes again · a slot is its
//! connection's mio token · an idle leg holds no buffer.

use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;

use clawd_protocol::ConnId;
use mio::event::Source;
use mio::net::TcpStream;

use super::frames::Unframer;
use crate::outbox::Outbox;
use crate::tls::TlsStream;
use crate::websocket::Decoder;

/// A socket, with or without TLS.
#[derive(Debug)]
pub(super) enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Wire {
    pub(super) fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.io_mut(),
        }
    }

    /// Whether a read would say something at once, whatever the socket has.
    pub(super) fn has_unread(&mut self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.has_unread(),
        }
    }

    /// Gives the socket what waits below the queue. True: nothing waits any more.
    pub(super) fn flush_pending(&mut self) -> io::Result<bool> {
        match self {
            Self::Plain(_) => Ok(true),
            Self::Tls(stream) => stream.flush_pending(),
        }
    }

    /// Tells the peer that nothing more will come. True: that has left.
    pub(super) fn end_writing(&mut self) -> io::Result<bool> {
        let stream = match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => {
                if !stream.end_writing()? {
                    return Ok(false);
                }
                stream.io_mut()
            }
        };
        // It fails only if the peer is gone, which reading finds out.
        let _ = stream.shutdown(Shutdown::Write);
        Ok(true)
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write_vectored(slices),
            Self::Tls(stream) => stream.write_vectored(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is spoken.
#[derive(Debug)]
pub(super) enum Phase {
    /// The request head is not whole; so many of its bytes were scanned.
    Head { scanned: usize },
    /// The head is known and not answered.
    Asked,
    /// Text messages: a control connection.
    Text(Box<Decoder>),
    /// A stream of bytes.
    Bytes(Box<Unframer>),
}

/// One connection.
#[derive(Debug)]
pub(super) struct Leg {
    pub(super) id: ConnId,
    pub(super) wire: Wire,
    pub(super) phase: Phase,
    /// Part of a head, or what came behind one.
    pub(super) held: Vec<u8>,
    pub(super) outbox: Outbox,
    /// Bytes in the outbox.
    pub(super) queued: usize,
    /// Whom it is spliced with.
    pub(super) other: Option<ConnId>,
    /// The payload of the latest ping that was not answered.
    pub(super) pong: Option<Vec<u8>>,
    /// It is not read until less waits for whom it writes to: the other leg, or itself.
    pub(super) is_waiting: bool,
    /// It broke the rules: nothing more is understood.
    pub(super) is_broken: bool,
    /// See the module's head.
    pub(super) is_ending: bool,
    /// The rendezvous was told that it is over.
    pub(super) is_told: bool,
    /// The system said that the peer ended its side: reading goes on until it shows.
    pub(super) has_hung_up: bool,
    /// It has shown.
    pub(super) is_at_end: bool,
    /// The socket took less than it was given.
    pub(super) is_blocked: bool,
    /// It is in the list of those to flush.
    pub(super) is_dirty: bool,
    /// It is in the list of those to read.
    pub(super) is_unfinished: bool,
}

impl Leg {
    fn new(id: ConnId, wire: Wire) -> Self {
        Self {
            id,
            wire,
            phase: Phase::Head { scanned: 0 },
            held: Vec::new(),
            outbox: Outbox::default(),
            queued: 0,
            other: None,
            pong: None,
            is_waiting: false,
            is_broken: false,
            is_ending: false,
            is_told: false,
            has_hung_up: false,
            is_at_end: false,
            is_blocked: false,
            is_dirty: false,
            is_unfinished: false,
        }
    }

    /// Queues bytes behind all others.
    pub(super) fn queue(&mut self, put: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = Vec::new();
        put(&mut bytes);
        self.queued += bytes.len();
        self.outbox.tail(bytes.len()).extend_from_slice(&bytes);
    }

    /// Queues a long piece.
    pub(super) fn queue_own(&mut self, bytes: Vec<u8>) {
        self.queued += bytes.len();
        let credit = bytes.len();
        self.outbox.push_own(bytes, credit);
    }

    /// Whether it speaks WebSocket and may still be told something.
    pub(super) const fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Text(_) | Phase::Bytes(_)) && !self.is_ending
    }
}

/// All connections.
#[derive(Debug, Default)]
pub(super) struct Legs {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    leg: Option<Box<Leg>>,
}

impl Legs {
    /// The slot and name of the next connection.
    pub(super) fn vacancy(&mut self) -> ConnId {
        let slot = self.free.last().copied().unwrap_or_else(|| {
            let slot = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
            self.slots.push(Slot::default());
            self.free.push(slot);
            slot
        });
        let generation = self.slots[slot as usize].generation;
        ConnId(u64::from(generation) << 32 | u64::from(slot))
    }

    /// Fills the vacancy.
    pub(super) fn insert(&mut self, id: ConnId, wire: Wire) {
        self.free.pop();
        self.slots[slot_of(id)].leg = Some(Box::new(Leg::new(id, wire)));
    }

    pub(super) fn get_mut(&mut self, id: ConnId) -> Option<&mut Leg> {
        let leg = self.slots.get_mut(slot_of(id))?.leg.as_deref_mut()?;
        (leg.id == id).then_some(leg)
    }

    pub(super) fn at_mut(&mut self, slot: usize) -> Option<&mut Leg> {
        self.slots.get_mut(slot)?.leg.as_deref_mut()
    }

    pub(super) fn remove(&mut self, id: ConnId) -> Option<Box<Leg>> {
        self.get_mut(id)?;
        let slot = &mut self.slots[slot_of(id)];
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.0 as u32);
        slot.leg.take()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Leg> {
        self.slots.iter_mut().filter_map(|slot| slot.leg.as_deref_mut())
    }
}

/// The lower half of a name; also the mio token.
pub(super) const fn slot_of(id: ConnId) -> usize {
    id.0 as u32 as usize
}
