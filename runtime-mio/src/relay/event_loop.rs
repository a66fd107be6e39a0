//! The relay's loop: everything that happens, in turns.
//!
//! Owns the order of things in a turn; refuses to know what they mean. A turn is: sleep; tell the rendezvous what came in,
//! each connection within a budget, and do what it wants at once; write. Payload is the exception: it is written to the
//! other leg as soon as it is read, from where it was read, and only what the socket does not take is kept.
//!
//! mio announces readiness once. Whatever is cut short by a budget is therefore in a list, and the loop does not sleep
//! while there is work.

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, Write};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use clawd_protocol::relay::rendezvous::{Effect, Effects, Input, Rendezvous, Speech};
use clawd_protocol::{ConnId, Instant, Limits, Now};
use mio::event::Event;
use mio::{Events, Interest, Poll, Token};
use rustls::ServerConfig;

use super::door::{Accepted, Door};
use super::frames::HEADROOM;
use super::leg::{Leg, Legs, Phase, Wire, slot_of};
use crate::clock::{Clock, sleep_until};
use crate::head;
use crate::signal::Signal;
use crate::tls::{TlsStream, verify};
use crate::tokens;
use crate::websocket::{Decoder, put_close, put_pong, put_text_header};

/// What is read of one connection in one turn.
const READ_BYTES: usize = 64 * 1024;
/// Connections that are taken in one turn.
const ACCEPTS_PER_TURN: usize = 64;
/// How long what is queued for a connection that ends may take to leave.
const DRAIN: Duration = Duration::from_secs(10);
/// How long its peer may then take to close.
const LINGER: Duration = Duration::from_millis(500);
/// How long last words may take when the relay stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// What the rendezvous is to be told, later in the turn.
#[derive(Debug)]
pub(super) enum Happened {
    Closed(ConnId),
    Verified(ConnId, bool),
}

/// Everything that happens.
pub(super) struct EventLoop {
    pub(super) rendezvous: Rendezvous,
    pub(super) effects: Effects,
    pub(super) poll: Poll,
    pub(super) clock: Clock,
    pub(super) now: Now,
    pub(super) door: Door,
    pub(super) shutdown: Signal,
    pub(super) tls: Option<Arc<ServerConfig>>,
    pub(super) legs: Legs,
    /// To flush at the end of the turn.
    pub(super) dirty: Vec<ConnId>,
    /// To read in the next turn.
    pub(super) unfinished: Vec<ConnId>,
    /// Ending connections and when they are dropped.
    pub(super) lingering: BTreeSet<(Instant, ConnId)>,
    pub(super) happened: VecDeque<Happened>,
    /// The one that all reads share.
    pub(super) buffer: Vec<u8>,
    pub(super) queue_bytes_max: usize,
    /// Bounds of request heads.
    pub(super) limits: Limits,
    pub(super) log: Box<dyn Write>,
    pub(super) is_stopped: bool,
}

impl EventLoop {
    /// Turns until the rendezvous says stop.
    pub(super) fn run(mut self) -> io::Result<()> {
        self.buffer.resize(HEADROOM + READ_BYTES, 0);
        let mut events = Events::with_capacity(1024);
        while !self.is_stopped {
            self.turn(&mut events)?;
        }
        self.flush_last(&mut events)
    }

    fn turn(&mut self, events: &mut Events) -> io::Result<()> {
        self.sleep(events)?;
        self.now = self.clock.read();
        if self.rendezvous.poll_timeout().is_some_and(|deadline| deadline <= self.now.mono) {
            self.tell(Input::Tick);
        }
        self.drop_lingering();
        for event in &*events {
            self.on_event(event);
        }
        for id in mem::take(&mut self.unfinished) {
            if let Some(leg) = self.legs.get_mut(id) {
                leg.is_unfinished = false;
                self.read(id);
            }
        }
        self.accept();
        self.tell_what_happened();
        self.flush();
        self.tell_what_happened();
        Ok(())
    }

    fn sleep(&mut self, events: &mut Events) -> io::Result<()> {
        let can_accept = self.door.is_open && self.door.retry_at().is_none();
        let is_idle = self.dirty.is_empty() && self.unfinished.is_empty();
        let timeout = if !is_idle || !self.happened.is_empty() || can_accept {
            Some(Duration::ZERO)
        } else {
            let now = self.clock.read().mono;
            let linger = self.lingering.first().map(|(at, _)| *at);
            let deadlines = [self.rendezvous.poll_timeout(), linger, self.door.retry_at()];
            deadlines.into_iter().flatten().min().map(|deadline| sleep_until(deadline, now))
        };
        self.poll_for(events, timeout)
    }

    fn poll_for(&mut self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        match self.poll.poll(events, timeout) {
            // A signal ended the sleep; its socket says which.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            polled => polled,
        }
    }

    /// Tells the rendezvous and does what it wants.
    pub(super) fn tell(&mut self, input: Input<'_>) {
        self.rendezvous.handle(self.now, input, &mut self.effects);
        let mut effects = mem::take(&mut self.effects);
        for effect in effects.drain() {
            self.execute(effect);
        }
        self.effects = effects;
    }

    fn tell_what_happened(&mut self) {
        while let Some(happened) = self.happened.pop_front() {
            self.tell(match happened {
                Happened::Closed(conn) => Input::Closed { conn },
                Happened::Verified(conn, is_right) => Input::Verified { conn, is_right },
            });
        }
    }

    fn on_event(&mut self, event: &Event) {
        match event.token() {
            Token(tokens::SHUTDOWN) => {
                if self.shutdown.has_come() {
                    self.tell(Input::Shutdown);
                }
            }
            Token(tokens::LISTENERS) => self.door.is_open = true,
            Token(slot) => self.on_leg_event(slot, event),
        }
    }

    fn on_leg_event(&mut self, slot: usize, event: &Event) {
        let Some(leg) = self.legs.at_mut(slot) else { return };
        let id = leg.id;
        let is_dead = event.is_error() || event.is_write_closed() && event.is_read_closed();
        leg.has_hung_up |= is_dead || event.is_read_closed();
        if event.is_writable() && leg.is_blocked {
            self.mark_dirty(id);
        } else if is_dead && leg.is_waiting {
            // Nobody would read it and find out.
            return self.drop_leg(id);
        }
        if event.is_readable() || event.is_read_closed() || is_dead {
            self.read(id);
        }
    }

    fn accept(&mut self) {
        if !self.door.is_open {
            return;
        }
        for _ in 0..ACCEPTS_PER_TURN {
            match self.door.accept(self.now.mono) {
                Accepted::Connection(stream, address) => {
                    let wire = match &self.tls {
                        None => Wire::Plain(stream),
                        Some(config) => match TlsStream::server(stream, config) {
                            Ok(stream) => Wire::Tls(Box::new(stream)),
                            Err(_) => continue,
                        },
                    };
                    if let Some(conn) = self.open(wire) {
                        self.tell(Input::Opened { conn, address });
                    }
                }
                Accepted::Aborted => {}
                Accepted::Exhausted(error) => {
                    let line =
                        format!("{} cannot accept connections for now: {error}\n", self.now.unix);
                    // A log that cannot be written is no reason to stop serving.
                    let _ = self.log.write_all(line.as_bytes());
                    return;
                }
                Accepted::Nobody => return,
            }
        }
    }

    fn open(&mut self, mut wire: Wire) -> Option<ConnId> {
        let id = self.legs.vacancy();
        // Readiness is told when it changes: being asked for both from the start costs nothing.
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(wire.source(), Token(slot_of(id)), interest).ok()?;
        self.legs.insert(id, wire);
        Some(id)
    }

    fn execute(&mut self, effect: Effect) {
        match effect {
            Effect::Respond { conn, response } => {
                if let Some(leg) = self.legs.get_mut(conn) {
                    leg.queue(|to| head::put_response(to, &response));
                    self.end(conn);
                }
            }
            Effect::Upgrade { conn, key, speech } => {
                let Some(leg) = self.legs.get_mut(conn) else { return };
                leg.queue(|to| head::put_upgrade(to, &key));
                leg.phase = match speech {
                    Speech::Text { bytes_max } => Phase::Text(Box::new(Decoder::new(bytes_max))),
                    Speech::Bytes => Phase::Bytes(Box::default()),
                };
                self.mark_dirty(conn);
            }
            Effect::Send { conn, text } => {
                let Some(leg) = self.legs.get_mut(conn).filter(|leg| leg.is_open()) else { return };
                leg.queue(|to| {
                    put_text_header(to, text.len());
                    to.extend_from_slice(text.as_bytes());
                });
                self.mark_dirty(conn);
            }
            Effect::Verify { conn, public_key, messages, signature } => {
                let is_right = messages.iter().any(|it| verify(&public_key, it, &signature));
                self.happened.push_back(Happened::Verified(conn, is_right));
            }
            Effect::Splice { client, daemon } => {
                for (one, other) in [(client, daemon), (daemon, client)] {
                    if let Some(leg) = self.legs.get_mut(one) {
                        leg.other = Some(other);
                    }
                }
            }
            Effect::Close { conn, code } => {
                let Some(leg) = self.legs.get_mut(conn) else { return };
                if leg.is_open() {
                    leg.queue(|to| put_close(to, Some(code), ""));
                } else if !leg.is_ending {
                    // There are no last words to wait for.
                    return self.drop_leg(conn);
                }
                self.end(conn);
            }
            Effect::Stop => self.is_stopped = true,
        }
    }

    pub(super) fn mark_dirty(&mut self, id: ConnId) {
        if let Some(leg) = self.legs.get_mut(id)
            && !mem::replace(&mut leg.is_dirty, true)
        {
            self.dirty.push(id);
        }
    }

    pub(super) fn mark_unfinished(&mut self, id: ConnId) {
        if let Some(leg) = self.legs.get_mut(id)
            && !mem::replace(&mut leg.is_unfinished, true)
        {
            self.unfinished.push(id);
        }
    }

    /// Starts ending a connection.
    pub(super) fn end(&mut self, id: ConnId) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        if mem::replace(&mut leg.is_ending, true) {
            return;
        }
        leg.held = Vec::new();
        leg.pong = None;
        leg.is_waiting = false;
        self.lingering.insert((self.now.mono + DRAIN, id));
        self.mark_dirty(id);
        self.mark_unfinished(id);
    }

    /// Lets a connection go.
    pub(super) fn drop_leg(&mut self, id: ConnId) {
        if let Some(mut leg) = self.legs.remove(id) {
            // Closing it would do; some systems want to be told first.
            let _ = self.poll.registry().deregister(leg.wire.source());
            if !leg.is_told {
                self.happened.push_back(Happened::Closed(id));
            }
            if let Some(other) = leg.other {
                self.go_on_reading(other);
            }
        }
    }

    fn drop_lingering(&mut self) {
        while let Some((at, id)) = self.lingering.first().copied()
            && at <= self.now.mono
        {
            self.lingering.pop_first();
            self.drop_leg(id);
        }
    }

    fn flush(&mut self) {
        let mut dirty = mem::take(&mut self.dirty);
        for id in dirty.drain(..) {
            if self.flush_one(id).is_err() {
                self.drop_leg(id);
            }
        }
        // What flushing made dirty anew is for the next turn.
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
    }

    fn flush_one(&mut self, id: ConnId) -> io::Result<()> {
        let Some(leg) = self.legs.get_mut(id) else { return Ok(()) };
        leg.is_dirty = false;
        if leg.outbox.is_empty()
            && let Some(payload) = leg.pong.take()
        {
            leg.queue(|to| put_pong(to, &payload));
        }
        leg.write_out()?;
        let is_empty = !leg.is_blocked;
        let (is_ending, is_at_end, other) = (leg.is_ending, leg.is_at_end, leg.other);
        let has_room = leg.queued <= self.queue_bytes_max / 2;
        if is_ending && is_empty {
            if is_at_end {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            if !leg.wire.end_writing()? {
                leg.is_blocked = true;
            }
            self.lingering.insert((self.now.mono + LINGER, id));
        } else if is_empty && leg.pong.is_some() {
            self.mark_dirty(id);
        }
        if has_room {
            self.go_on_reading(other.unwrap_or(id));
        }
        Ok(())
    }

    /// There is room again for what it says.
    fn go_on_reading(&mut self, id: ConnId) {
        if let Some(leg) = self.legs.get_mut(id)
            && mem::replace(&mut leg.is_waiting, false)
        {
            self.mark_unfinished(id);
        }
    }

    /// After `Stop`: what is queued may still leave, for a moment.
    fn flush_last(&mut self, events: &mut Events) -> io::Result<()> {
        let deadline = self.clock.read().mono + STOP_TIMEOUT;
        loop {
            let mut is_done = true;
            for leg in self.legs.iter_mut() {
                if leg.write_out().is_err() {
                    leg.outbox = crate::outbox::Outbox::default();
                    leg.is_blocked = false;
                }
                is_done &= !leg.is_blocked;
            }
            let now = self.clock.read().mono;
            if is_done || now >= deadline {
                break;
            }
            self.poll_for(events, Some(sleep_until(deadline, now)))?;
        }
        for leg in self.legs.iter_mut() {
            let _ = leg.wire.end_writing();
        }
        Ok(())
    }
}

impl Leg {
    /// Gives the socket what is queued; `is_blocked` says whether it took all.
    pub(super) fn write_out(&mut self) -> io::Result<()> {
        self.queued -= self.outbox.write_to(&mut self.wire)?;
        let is_flushed = self.wire.flush_pending()?;
        self.is_blocked = !self.outbox.is_empty() || !is_flushed;
        Ok(())
    }
}
