//! The loop: everything that happens, in turns.
//!
//! Owns the order of things in a turn; refuses to know what they mean. A turn is:
//!
//! 1. sleep until something happens or the core's deadline, unless work was left over;
//! 2. tell the core what came in, each connection within a budget, and do the effects of each input at once;
//! 3. settle: child orders, then one transaction with all storage of the turn, then questions, and tell what came of
//!    them, until nothing is left;
//! 4. write, with one system call for each connection that has something to be told.
//!
//! So no byte leaves before what it speaks of is durable, and however much was pipelined, a turn costs one commit and
//! one write per connection.
//!
//! mio announces readiness once. Whatever is cut short by a budget is therefore remembered in the lists of [`Hands`],
//! and the loop does not sleep while [`Hands::has_work`].

use std::io::{self, Write};
use std::mem;
use std::time::Duration;

use clawd_protocol::{Daemon, Effects, Input, Instant, Limits, Question};
use mio::event::Event;
use mio::{Events, Poll, Token};

use crate::clock::{Clock, sleep_until};
use crate::connection::Connection;
use crate::hands::{Hands, Order};
use crate::listener::{Accepted, Listeners};
use crate::outbox::Outbox;
use crate::process::Processes;
use crate::signal::Signal;
use crate::store::Store;
use crate::tokens;

/// What is read of one connection in one turn, and the one buffer for it.
const READ_BYTES: usize = 64 * 1024;
/// Connections that are taken from one listener in one turn.
const ACCEPTS_PER_TURN: usize = 32;
/// How long the last bytes may take after `Stop`.
const STOP_TIMEOUT: Duration = Duration::from_millis(500);

/// What the loop needs of the mind: the daemon, or a stand-in that tests the loop.
pub(crate) trait Core {
    /// Advances by one input and has all that follows done, in order.
    fn handle(&mut self, input: Input<'_>, hands: &mut Hands);
    /// When to call again even if nothing happens.
    fn poll_timeout(&self) -> Option<Instant>;
}

/// The daemon and its sink.
#[derive(Debug)]
pub(crate) struct Mind {
    pub(crate) daemon: Daemon,
    pub(crate) effects: Effects,
}

impl Core for Mind {
    fn handle(&mut self, input: Input<'_>, hands: &mut Hands) {
        self.daemon.handle(hands.now, input, &mut self.effects);
        for effect in self.effects.drain() {
            hands.execute(effect);
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.daemon.poll_timeout()
    }
}

/// Everything that happens.
pub(crate) struct EventLoop<C> {
    pub(crate) core: C,
    pub(crate) hands: Hands,
    pub(crate) poll: Poll,
    pub(crate) clock: Clock,
    pub(crate) listeners: Listeners,
    pub(crate) store: Store,
    pub(crate) processes: Processes,
    pub(crate) shutdown: Signal,
    pub(crate) child: Signal,
    pub(crate) limits: Limits,
    pub(crate) log: Box<dyn Write>,
    pub(crate) is_quiet: bool,
    /// The one that all reads share.
    pub(crate) buffer: Vec<u8>,
    /// Listeners with connections to take; a bit each.
    pub(crate) accepting: u32,
    /// Children have bytes to read, or were given something to do.
    pub(crate) has_child_work: bool,
}

impl<C: Core> EventLoop<C> {
    /// Turns until the core says stop.
    pub(crate) fn run(mut self) -> io::Result<()> {
        self.buffer.resize(READ_BYTES, 0);
        self.tell(Input::Started { port: self.listeners.port() });
        self.settle();
        let mut events = Events::with_capacity(256);
        while !self.hands.is_stopped {
            self.turn(&mut events)?;
        }
        self.flush_last(&mut events)
    }

    fn turn(&mut self, events: &mut Events) -> io::Result<()> {
        self.sleep(events)?;
        self.look_at_the_clock();
        if self.core.poll_timeout().is_some_and(|deadline| deadline <= self.hands.now.mono) {
            self.tell(Input::Tick);
        }
        self.hands.drop_lingering();
        self.hands.drop_lingering_legs();
        for event in &*events {
            self.on_event(event);
        }
        for conn in self.hands.take_unfinished() {
            self.read(conn);
        }
        self.hear_unfinished();
        self.accept();
        self.settle();
        self.hear_children();
        self.settle();
        self.hands.flush();
        self.tell_what_happened();
        Ok(())
    }

    fn sleep(&mut self, events: &mut Events) -> io::Result<()> {
        let can_accept = self.accepting != 0 && self.listeners.retry_at().is_none();
        let timeout = if self.hands.has_work() || self.has_child_work || can_accept {
            Some(Duration::ZERO)
        } else {
            let now = self.clock.read().mono;
            let deadlines = [
                self.core.poll_timeout(),
                self.hands.linger_deadline(),
                self.hands.legs.deadline(),
                self.listeners.retry_at(),
            ];
            let next = deadlines.into_iter().flatten().min();
            let next = next.map(|deadline| sleep_until(deadline, now));
            // A moment late does no harm here, and awake just before would be busy.
            let look = self.processes.next_look().map(|look| look + Duration::from_millis(1));
            next.into_iter().chain(look).min()
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

    fn look_at_the_clock(&mut self) {
        self.hands.now = self.clock.read();
    }

    pub(crate) fn tell(&mut self, input: Input<'_>) {
        self.core.handle(input, &mut self.hands);
    }

    fn tell_what_happened(&mut self) {
        // What the core is told makes more happen only by way of other lists, or because a connection was dropped.
        while let Some(input) = self.hands.happened.pop_front() {
            self.tell(input);
        }
        self.write_notes();
    }

    fn write_notes(&mut self) {
        let at = self.hands.now.unix;
        let is_quiet = self.is_quiet;
        let notes = mem::take(&mut self.hands.notes);
        for note in notes.into_iter().filter(|note| !is_quiet || note.is_trouble()) {
            self.say(&format!("{at} {note}"));
        }
    }

    /// A log that cannot be written is no reason to stop serving.
    fn say(&mut self, line: &str) {
        let _ = self.log.write_all(format!("{line}\n").as_bytes());
    }

    fn on_event(&mut self, event: &Event) {
        let Token(token) = event.token();
        match token {
            tokens::WAKER => {
                for (ask, answer) in self.hands.workers.drain() {
                    self.hands.on_answer(ask, answer);
                }
                self.take_dialled();
            }
            tokens::SHUTDOWN => {
                if self.shutdown.has_come() {
                    self.tell(Input::Shutdown);
                }
            }
            tokens::CHILD => {
                if self.child.has_come() {
                    self.processes.on_child_signal();
                }
            }
            _ if tokens::LEGS.contains(&token) => self.on_leg_event(token),
            _ if tokens::CHILDREN.contains(&token) => self.processes.on_event(event.token()),
            _ if token >= tokens::LISTENERS => self.accepting |= 1 << (token - tokens::LISTENERS),
            slot => self.on_connection_event(slot, event),
        }
    }

    fn on_connection_event(&mut self, slot: usize, event: &Event) {
        let Some(connection) = self.hands.connections.at_mut(slot) else { return };
        let conn = connection.id;
        let is_dead = event.is_error() || event.is_write_closed() && event.is_read_closed();
        connection.has_hung_up |= is_dead || event.is_read_closed();
        if event.is_writable() && connection.is_blocked {
            self.hands.mark_dirty(conn);
        } else if is_dead && !connection.is_readable() {
            // Nobody would ever read it and find out.
            return self.hands.drop_connection(conn);
        }
        if event.is_readable() || event.is_read_closed() || is_dead {
            self.read(conn);
        }
    }

    fn accept(&mut self) {
        for index in 0..self.listeners.len() {
            if self.accepting & 1 << index == 0 {
                continue;
            }
            for _ in 0..ACCEPTS_PER_TURN {
                match self.listeners.accept(index, self.hands.now.mono) {
                    Accepted::Connection(stream, source) => {
                        if let Some(conn) = self.hands.open(stream) {
                            self.tell(Input::Opened { conn, source });
                        }
                    }
                    Accepted::Aborted => {}
                    Accepted::Exhausted(error) => {
                        let at = self.hands.now.unix;
                        self.say(&format!("{at} cannot accept connections for now: {error}"));
                        return;
                    }
                    Accepted::Nobody if self.listeners.retry_at().is_some() => return,
                    Accepted::Nobody => {
                        self.accepting &= !(1 << index);
                        break;
                    }
                }
            }
        }
    }

    /// Does what effects have left to be done, until the core wants nothing more.
    fn settle(&mut self) {
        loop {
            self.tell_what_happened();
            if !self.hands.orders.is_empty() {
                self.give_orders();
            } else if !self.hands.stores.is_empty() {
                let turn = mem::take(&mut self.hands.stores);
                for (op, result) in self.store.execute(turn) {
                    self.hands.happened.push_back(Input::Stored { op, result });
                }
                self.look_at_the_clock();
            } else if !self.hands.questions.is_empty() {
                for (ask, question) in mem::take(&mut self.hands.questions) {
                    // After all storage like the others, but it may be long.
                    if matches!(question, Question::Audit { .. }) {
                        self.hands.ask_workers(ask, question);
                        continue;
                    }
                    let answer = self.store.answer(&question);
                    self.hands.on_answer(ask, answer);
                }
            } else {
                return;
            }
        }
    }

    fn give_orders(&mut self) {
        self.has_child_work = true;
        for order in mem::take(&mut self.hands.orders) {
            match order {
                Order::Spawn(proc, command) => {
                    let result = self.processes.spawn(self.poll.registry(), proc, &command);
                    self.hands.happened.push_back(Input::Spawned { proc, result });
                }
                Order::Feed(proc, bytes) => self.processes.feed(proc, bytes),
                Order::Finish(proc) => self.processes.finish(proc),
                Order::Kill(proc) => self.processes.kill(proc),
            }
        }
    }

    fn hear_children(&mut self) {
        let Self { core, hands, processes, .. } = self;
        self.has_child_work = processes.work(&mut |input: Input<'_>| core.handle(input, hands));
    }

    /// After `Stop`: what is queued may still leave, for a moment.
    fn flush_last(&mut self, events: &mut Events) -> io::Result<()> {
        let deadline = self.clock.read().mono + STOP_TIMEOUT;
        loop {
            let mut is_done = true;
            for connection in self.hands.connections.iter_mut() {
                let Connection { outbox, stream, .. } = connection;
                match outbox.write_to(stream).and_then(|_| stream.flush_pending()) {
                    Ok(()) => is_done &= outbox.is_empty() && !stream.wants_write(),
                    Err(_) => *outbox = Outbox::default(),
                }
            }
            let now = self.clock.read().mono;
            if is_done || now >= deadline {
                break;
            }
            self.poll_for(events, Some(sleep_until(deadline, now)))?;
        }
        for connection in self.hands.connections.iter_mut() {
            connection.stream.end_writing();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
