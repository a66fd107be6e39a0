//! Legs: the connections that we make, to a relay.
//!
//! Owns those that are being made, each by a thread of its own, and those over which text is spoken; refuses to know what
//! is said and why. One that is made for a stream is handed to the connections, where it is one like the others: a peer's
//! TLS to our own key runs on it.
//!
//! Invariants: each dial is answered once, also one that is given up, whose connection is then closed unseen as soon as it
//! is there · each leg that was there is hung up once · no more than [`LEGS_MAX`] threads and legs of text exist.

mod control;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use clawd_protocol::{Dial, DialFault, Input, Instant, LegId, Purpose, Source};
use mio::event::Source as _;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token, Waker};

use crate::dial::{Dialled, Link, dial};
use crate::event_loop::{Core, EventLoop};
use crate::hands::Hands;
use crate::stream::Transport;
use crate::tokens;
use crate::tunnel::Tunnel;
use control::{Control, Heard};

/// Enough for a relay that invites us to many streams at once; a thread for each.
const LEGS_MAX: usize = 24;
/// What is heard of one leg in one turn.
const HEARD_PER_TURN: usize = 64;
/// How long the last words of a leg that we end may take.
const LINGER: Duration = Duration::from_millis(500);

type Result<T> = std::result::Result<T, DialFault>;
type Made = (LegId, Result<Dialled>);

/// All legs.
#[derive(Debug)]
pub(crate) struct Legs {
    waker: Arc<Waker>,
    made: (Sender<Made>, Receiver<Made>),
    /// Threads that have not reported yet, also those whose leg was given up.
    threads: usize,
    making: Vec<(LegId, Purpose)>,
    /// A slot's number is its leg's token.
    controls: Vec<Option<Control>>,
}

impl Legs {
    /// None yet. `waker` is woken for every one that is made.
    pub(crate) fn new(waker: Arc<Waker>) -> Self {
        let (making, controls) = (Vec::new(), Vec::new());
        Self { waker, made: mpsc::channel(), threads: 0, making, controls }
    }

    /// Whether anything is left for another turn.
    pub(crate) fn has_work(&self) -> bool {
        self.controls.iter().flatten().any(|control| control.is_dirty || control.is_unfinished)
    }

    /// When the next leg that is hung up has lingered enough.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.controls.iter().flatten().filter_map(|control| control.ends_at).min()
    }

    fn dial(&mut self, leg: LegId, to: Dial) -> Result<()> {
        if self.threads + self.controls.iter().flatten().count() >= LEGS_MAX {
            return Err(DialFault::Busy);
        }
        let (made, waker) = (self.made.0.clone(), Arc::clone(&self.waker));
        let purpose = to.purpose;
        let dialling = move || {
            // Nobody is there to be told once the loop has ended.
            if made.send((leg, dial(&to))).is_ok() {
                // Should this fail, the loop will look when it wakes for something else.
                let _ = waker.wake();
            }
        };
        let spawned = thread::Builder::new().name(format!("dial-{leg}")).spawn(dialling);
        spawned.map_err(|_| DialFault::Busy)?;
        self.threads += 1;
        self.making.push((leg, purpose));
        Ok(())
    }

    /// The next one that is made, or cannot be.
    fn next_dialled(&mut self) -> Option<(LegId, Purpose, Result<Dialled>)> {
        loop {
            let (leg, result) = self.made.1.try_recv().ok()?;
            self.threads -= 1;
            // One that was given up is dropped here.
            if let Some(at) = self.making.iter().position(|(making, _)| *making == leg) {
                return Some((leg, self.making.swap_remove(at).1, result));
            }
        }
    }

    /// Gives up one that is being made. False: there is none.
    fn give_up(&mut self, leg: LegId) -> bool {
        let at = self.making.iter().position(|(making, _)| *making == leg);
        at.map(|at| self.making.swap_remove(at)).is_some()
    }

    fn find(&mut self, leg: LegId) -> Option<&mut Control> {
        self.controls.iter_mut().flatten().find(|control| control.id == leg)
    }

    fn at_mut(&mut self, slot: usize) -> Option<&mut Control> {
        self.controls.get_mut(slot)?.as_mut()
    }

    /// Takes in a leg of text.
    fn insert(&mut self, leg: LegId, dialled: Dialled, registry: &Registry) -> io::Result<()> {
        let (link, tail) = unblock(dialled)?;
        let slot = self.controls.iter().position(Option::is_none).unwrap_or(self.controls.len());
        let mut control = Control::new(leg, link, tail);
        let token = Token(tokens::LEGS.start + slot);
        registry.register(control.tcp(), token, Interest::READABLE | Interest::WRITABLE)?;
        if slot == self.controls.len() {
            self.controls.push(None);
        }
        self.controls[slot] = Some(control);
        Ok(())
    }
}

/// What the loop needs: a stream that never blocks.
fn unblock(dialled: Dialled) -> io::Result<(Link<TcpStream>, Vec<u8>)> {
    dialled.link.get_ref().set_nonblocking(true)?;
    Ok((dialled.link.map(TcpStream::from_std), dialled.tail))
}

impl Hands {
    pub(crate) fn dial(&mut self, leg: LegId, dial: Dial) {
        if let Err(fault) = self.legs.dial(leg, dial) {
            self.happened.push_back(Input::Dialed { leg, result: Err(fault) });
        }
    }

    pub(crate) fn say(&mut self, leg: LegId, text: String) {
        let is_full = self.legs.find(leg).is_some_and(|control| {
            let is_ending = control.ends_at.is_some();
            !is_ending && !control.say(text)
        });
        if is_full {
            self.hang_up(leg);
        }
    }

    pub(crate) fn hang_up(&mut self, leg: LegId) {
        if self.legs.give_up(leg) {
            let result = Err(DialFault::TimedOut);
            self.happened.push_back(Input::Dialed { leg, result });
        } else if let Some(control) = self.legs.find(leg) {
            control.ends_at.get_or_insert(self.now.mono + LINGER);
            control.is_dirty = true;
        }
    }

    /// Sends what the turn has said, and ends what it has hung up.
    pub(crate) fn flush_legs(&mut self) {
        for slot in 0..self.legs.controls.len() {
            if self.legs.at_mut(slot).is_some_and(|one| one.is_dirty && !one.flush()) {
                self.drop_leg(slot);
            }
        }
    }

    /// Drops those that were hung up and have lingered enough.
    pub(crate) fn drop_lingering_legs(&mut self) {
        for slot in 0..self.legs.controls.len() {
            let ends_at = self.legs.at_mut(slot).and_then(|control| control.ends_at);
            if ends_at.is_some_and(|ends_at| ends_at <= self.now.mono) {
                self.drop_leg(slot);
            }
        }
    }

    fn drop_leg(&mut self, slot: usize) {
        let Some(mut control) = self.legs.controls.get_mut(slot).and_then(Option::take) else {
            return;
        };
        // Closing it would do; some systems want to be told first.
        let _ = control.tcp().deregister(&self.registry);
        self.happened.push_back(Input::HungUp { leg: control.id });
    }
}

impl<C: Core> EventLoop<C> {
    /// Tells of the legs that were made.
    pub(crate) fn take_dialled(&mut self) {
        while let Some((leg, purpose, result)) = self.hands.legs.next_dialled() {
            match (purpose, result) {
                (_, Err(fault)) => self.tell(Input::Dialed { leg, result: Err(fault) }),
                (Purpose::Control, Ok(dialled)) => {
                    let inserted = self.hands.legs.insert(leg, dialled, &self.hands.registry);
                    let result = inserted.map_err(|e| DialFault::Unreachable(e.to_string()));
                    self.tell(Input::Dialed { leg, result });
                }
                (Purpose::Tunnel { from }, Ok(dialled)) => {
                    let opened = unblock(dialled).and_then(|(link, tail)| {
                        self.hands.open_secure(Box::new(Tunnel::new(link, tail)))
                    });
                    let (conn, result) = match opened {
                        Ok(conn) => (Some(conn), Ok(())),
                        Err(error) => (None, Err(DialFault::Unreachable(error.to_string()))),
                    };
                    self.tell(Input::Dialed { leg, result });
                    if let Some(conn) = conn {
                        self.tell(Input::Opened { conn, source: Source::Relay(from) });
                    }
                }
            }
        }
    }

    /// Something happened to a leg of text.
    pub(crate) fn on_leg_event(&mut self, token: usize) {
        let slot = token - tokens::LEGS.start;
        if let Some(control) = self.hands.legs.at_mut(slot) {
            control.is_dirty = true;
            self.hear(slot);
        }
    }

    /// Goes on with those of which there may be more than a turn allows.
    pub(crate) fn hear_unfinished(&mut self) {
        for slot in 0..self.hands.legs.controls.len() {
            if self.hands.legs.at_mut(slot).is_some_and(|control| control.is_unfinished) {
                self.hear(slot);
            }
        }
    }

    fn hear(&mut self, slot: usize) {
        for _ in 0..HEARD_PER_TURN {
            // What is heard may end it.
            let Some(control) = self.hands.legs.at_mut(slot) else { return };
            control.is_unfinished = false;
            if control.ends_at.is_some() {
                return;
            }
            let leg = control.id;
            match control.hear() {
                Heard::Text(text) => self.tell(Input::Heard { leg, text: &text }),
                Heard::Nothing => {}
                Heard::Blocked => return,
                Heard::End => return self.hands.drop_leg(slot),
            }
        }
        if let Some(control) = self.hands.legs.at_mut(slot) {
            control.is_unfinished = true;
        }
    }
}

impl mio::event::Source for Tunnel<Link<TcpStream>> {
    fn register(
        &mut self,
        registry: &Registry,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        self.get_mut().get_mut().register(registry, token, interest)
    }

    fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        self.get_mut().get_mut().reregister(registry, token, interest)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.get_mut().get_mut().deregister(registry)
    }
}

impl Transport for Tunnel<Link<TcpStream>> {
    fn end_writing(&mut self) {
        // It fails only if the relay is gone or takes nothing more, and then nobody needs to know.
        let _ = self.close();
    }
}
