//! The runtime's side of the contract, kept to the letter.
//!
//! Owns one turn: an input, then its effects, drained fully and executed in order. Refuses to know why the input came,
//! which is everybody else's part. Each operation is answered once, and ids are never used twice.

use clawd_protocol::{ConnId, Effect, Input, To};

use super::World;
use super::due::{Due, Origin};
use crate::child::Child;
use crate::link::{Link, Stage};

impl World {
    /// Tells the daemon something and does what it says.
    pub fn input(&mut self, input: Input<'_>) {
        if self.has_extra_ticks && input != Input::Tick {
            self.turn(Input::Tick);
        }
        self.turn(input);
    }

    fn turn(&mut self, input: Input<'_>) {
        if self.is_stopped {
            return;
        }
        self.trace.input(self.now(), &input);
        let verdict = self.invariants.on_input(&input, &self.store);
        self.judge(verdict);
        self.daemon.handle(self.now(), input, &mut self.effects);
        for effect in self.effects.drain().collect::<Vec<_>>() {
            self.execute(effect);
        }
        let (now, deadline) = (self.now(), self.deadline());
        let verdict =
            self.invariants.on_turn(now, deadline, &self.links, &self.children, &self.store);
        self.judge(verdict);
    }

    /// Does what the daemon said. Tests that show that the alarm works say it in the daemon's place.
    pub fn execute(&mut self, effect: Effect) {
        self.trace.effect(&effect);
        let verdict = self.invariants.on_effect(&effect, &self.store, &self.children);
        self.judge(verdict);
        match effect {
            Effect::Respond { conn, response } => {
                if self.is_link_open(conn) {
                    self.link_mut(conn).stage = Stage::Answered(response);
                    self.owe(Origin::Link(conn), Due::Closed(conn));
                }
            }
            Effect::Upgrade { conn, message_bytes_max, .. } => {
                if self.is_link_open(conn) {
                    self.link_mut(conn).stage = Stage::Upgraded;
                    self.link_mut(conn).message_bytes_max = message_bytes_max;
                }
            }
            Effect::Admit { conn, message_bytes_max } => {
                self.link_mut(conn).message_bytes_max = message_bytes_max;
            }
            Effect::Send { to, text } => self.send(to, &text),
            Effect::Close { conn, code, reason } => {
                if self.is_link_open(conn) {
                    self.end_link(conn, Some((code, reason)));
                }
            }
            Effect::Pause { conn } => self.link_mut(conn).is_paused = true,
            Effect::Resume { conn } => {
                self.link_mut(conn).is_paused = false;
                self.owe(Origin::Link(conn), Due::Flushed(conn, 0));
            }
            Effect::Store { op, changes, sync } => {
                self.owe(Origin::Store, Due::Done(op, changes, sync));
            }
            Effect::Ask { ask, question } => {
                let is_stored = self.store.answer(&question).is_some();
                let origin = if is_stored { Origin::Store } else { Origin::Ask(ask) };
                self.owe(origin, Due::Look(ask, question));
            }
            Effect::Spawn { proc, command } => self.spawn(proc, command),
            Effect::Feed { proc, bytes } => self.feed(proc, &bytes),
            Effect::Finish { proc } => {
                let now = self.mono;
                self.with_child(proc, |child| child.finish(now));
            }
            Effect::Kill { proc } => self.with_child(proc, Child::kill),
            Effect::Dial { leg, dial } => self.dial(leg, dial),
            Effect::Say { leg, text } => self.say(leg, text),
            Effect::HangUp { leg } => self.hang_up_leg(leg),
            // The invariants look at it.
            Effect::Log { .. } => {}
            Effect::Stop => self.stop(),
        }
    }

    fn is_link_open(&self, conn: ConnId) -> bool {
        self.links.get(&conn).is_some_and(Link::is_open)
    }

    fn send(&mut self, to: To, text: &str) {
        let conns = match to {
            To::One(conn) => vec![conn],
            To::Many(conns) => conns,
        };
        for conn in conns {
            if self.is_link_open(conn) {
                self.link_mut(conn).push(text.to_owned());
                self.flush(conn);
            }
        }
    }
}
