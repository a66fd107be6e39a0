//! What effects act on.
//!
//! Owns the connections and the lists of what is left to do in this turn of the loop; refuses to decide anything. It
//! never calls the core: what comes of an effect is put into `happened` and told later, so that the core is never
//! entered twice.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use clawd_protocol::{
    AskId, Change, Command, ConnId, Input, Instant, Note, Now, OpId, ProcId, Question, Sync,
};
use mio::{Interest, Registry, Token};

use crate::connection::{Connection, Connections, Phase, slot_of};
use crate::legs::Legs;
use crate::stream::{Stream, Transport};
use crate::tls::{Acceptor, TlsStream};
use crate::websocket;
use crate::worker::Workers;

/// How long a connection that we end may take to read our last words and close.
const LINGER: Duration = Duration::from_millis(500);

/// An effect on a child. They are done at the end of the turn, because children are what is being listened to when
/// most of them come up.
#[derive(Debug)]
pub(crate) enum Order {
    Spawn(ProcId, Command),
    Feed(ProcId, Vec<u8>),
    Finish(ProcId),
    Kill(ProcId),
}

/// All that [`execute`](Self::execute) needs.
#[derive(Debug)]
pub(crate) struct Hands {
    pub(crate) now: Now,
    pub(crate) connections: Connections,
    pub(crate) registry: Registry,
    /// To flush at the end of the turn.
    dirty: Vec<ConnId>,
    /// To read in the next turn: there may be more than the budget allowed.
    unfinished: Vec<ConnId>,
    /// Ending connections and when they are dropped, earliest first: all linger equally long.
    lingering: VecDeque<(Instant, ConnId)>,
    /// To tell the core.
    pub(crate) happened: VecDeque<Input<'static>>,
    /// For the store, in one transaction.
    pub(crate) stores: Vec<(OpId, Vec<Change>, Sync)>,
    /// For the store, after that.
    pub(crate) questions: Vec<(AskId, Question)>,
    pub(crate) orders: Vec<Order>,
    /// Lines for the log.
    pub(crate) notes: Vec<Note>,
    pub(crate) workers: Workers,
    pub(crate) legs: Legs,
    pub(crate) is_stopped: bool,
    /// Where a frame that many get is put together.
    pub(crate) scratch: Vec<u8>,
    /// Our side of TLS.
    tls: Acceptor,
}

impl Hands {
    pub(crate) fn new(
        registry: Registry,
        workers: Workers,
        legs: Legs,
        now: Now,
        tls: Acceptor,
    ) -> Self {
        Self {
            now,
            connections: Connections::default(),
            registry,
            dirty: Vec::new(),
            unfinished: Vec::new(),
            lingering: VecDeque::new(),
            happened: VecDeque::new(),
            stores: Vec::new(),
            questions: Vec::new(),
            orders: Vec::new(),
            notes: Vec::new(),
            workers,
            legs,
            is_stopped: false,
            scratch: Vec::new(),
            tls,
        }
    }

    /// Whether anything is left for another turn.
    pub(crate) fn has_work(&self) -> bool {
        !(self.dirty.is_empty()
            && self.unfinished.is_empty()
            && self.happened.is_empty()
            && self.stores.is_empty()
            && self.questions.is_empty()
            && self.orders.is_empty())
            || self.legs.has_work()
    }

    /// Takes a connection in. `None`: the system would not watch it, and it is closed.
    pub(crate) fn open(&mut self, mut stream: Stream) -> Option<ConnId> {
        let id = self.connections.vacancy();
        self.registry.register(&mut stream, Token(slot_of(id)), Interest::READABLE).ok()?;
        self.connections.insert(id, stream);
        Some(id)
    }

    /// Starts TLS on a TCP connection.
    pub(crate) fn secure(&mut self, id: ConnId) {
        match self.tls.accept() {
            Ok(session) => self.connections.remake(id, |stream| stream.secured_by(session)),
            Err(_) => self.drop_connection(id),
        }
    }

    /// Takes in a stream on which there can be nothing but TLS, and of which something may have been read already.
    pub(crate) fn open_secure(&mut self, io: Box<dyn Transport>) -> io::Result<ConnId> {
        let session = self.tls.accept().map_err(io::Error::other)?;
        let stream = Stream::Tls(Box::new(TlsStream::over(io, session)));
        let id = self.open(stream).ok_or_else(|| io::Error::other("it cannot be watched"))?;
        self.mark_unfinished(id);
        Ok(id)
    }

    /// Lets a connection go.
    pub(crate) fn drop_connection(&mut self, id: ConnId) {
        if let Some(mut connection) = self.connections.remove(id) {
            // Closing it would do; some systems want to be told first.
            let _ = self.registry.deregister(&mut connection.stream);
            self.happened.push_back(Input::Closed { conn: id });
        }
    }

    /// Starts ending a connection: see [`connection`](crate::connection).
    pub(crate) fn end(&mut self, id: ConnId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.is_ending {
            return;
        }
        connection.is_ending = true;
        connection.held = Vec::new();
        connection.pong = None;
        self.lingering.push_back((self.now.mono + LINGER, id));
        self.mark_dirty(id);
        // What came before may have been read no further than a pause.
        self.mark_unfinished(id);
    }

    /// The connection, if what is sent to it now can arrive as WebSocket.
    pub(crate) fn sendable(&mut self, id: ConnId) -> Option<&mut Connection> {
        let connection = self.connections.get_mut(id)?;
        (matches!(connection.phase, Phase::Open(_)) && !connection.is_ending).then_some(connection)
    }

    pub(crate) fn mark_dirty(&mut self, id: ConnId) {
        if let Some(connection) = self.connections.get_mut(id)
            && !connection.is_dirty
        {
            connection.is_dirty = true;
            self.dirty.push(id);
        }
    }

    pub(crate) fn mark_unfinished(&mut self, id: ConnId) {
        if let Some(connection) = self.connections.get_mut(id)
            && !connection.is_unfinished
        {
            connection.is_unfinished = true;
            self.unfinished.push(id);
        }
    }

    /// Those that were marked as unfinished; they no longer are.
    pub(crate) fn take_unfinished(&mut self) -> Vec<ConnId> {
        let unfinished = std::mem::take(&mut self.unfinished);
        for id in &unfinished {
            if let Some(connection) = self.connections.get_mut(*id) {
                connection.is_unfinished = false;
            }
        }
        unfinished
    }

    /// Writes what the turn has queued, each connection's with one call.
    pub(crate) fn flush(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for id in dirty.drain(..) {
            if self.flush_one(id).is_none() {
                self.drop_connection(id);
            }
        }
        // Nothing gets dirty by flushing, so the memory can be kept for the next turn.
        self.dirty = dirty;
        self.flush_legs();
    }

    /// `None`: the connection is over.
    fn flush_one(&mut self, id: ConnId) -> Option<()> {
        let Some(connection) = self.connections.get_mut(id) else { return Some(()) };
        connection.is_dirty = false;
        let mut bytes = 0;
        loop {
            // While the socket is full the pong waits outside of the queue, so that pings cannot fill it.
            if (!connection.is_blocked || connection.outbox.is_empty())
                && let Some(payload) = connection.pong.take()
            {
                websocket::put_pong(connection.outbox.tail(0), &payload);
            }
            bytes += connection.outbox.write_to(&mut connection.stream).ok()?;
            if connection.pong.is_none() || !connection.outbox.is_empty() {
                break;
            }
        }
        if bytes > 0 {
            self.happened.push_back(Input::Flushed { conn: id, bytes });
        }
        if connection.is_ending && connection.outbox.is_empty() {
            connection.stream.end_writing();
        } else {
            connection.stream.flush_pending().ok()?;
        }
        let is_blocked = !connection.outbox.is_empty() || connection.stream.wants_write();
        if is_blocked != connection.is_blocked {
            connection.is_blocked = is_blocked;
            let interest = if is_blocked {
                Interest::READABLE | Interest::WRITABLE
            } else {
                Interest::READABLE
            };
            let token = Token(slot_of(id));
            self.registry.reregister(&mut connection.stream, token, interest).ok()?;
        }
        let is_over = connection.is_ending && connection.is_at_end && !is_blocked;
        (!is_over).then_some(())
    }

    /// When the next ending connection has lingered enough.
    pub(crate) fn linger_deadline(&self) -> Option<Instant> {
        self.lingering.front().map(|(deadline, _)| *deadline)
    }

    /// Drops those that have.
    pub(crate) fn drop_lingering(&mut self) {
        while let Some((deadline, id)) = self.lingering.front().copied()
            && deadline <= self.now.mono
        {
            self.lingering.pop_front();
            self.drop_connection(id);
        }
    }
}
