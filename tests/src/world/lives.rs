//! The end of a daemon, asked for or not, and its next start on what the disk has.
//!
//! Owns what is lost and what is kept between two lives; refuses to say what the next one makes of it.

use clawd_protocol::{Daemon, Input};

use super::due::{Due, Origin};
use super::{IDENTITY, PORT, World};
use crate::child::Child;

/// What becomes of operations under way when the daemon dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// They are lost.
    Lost,
    /// They were done, and nobody was told.
    Done,
    /// They are lost, and with them everything that was not promised to survive a loss of power.
    Power,
}

impl World {
    /// Somebody with power over the process asks it to end.
    pub fn shut_down(&mut self) {
        self.input(Input::Shutdown);
    }

    /// The daemon dies at once and is started again on what the disk has.
    pub fn crash(&mut self, how: Crash) {
        self.trace.note(&format!("crash: {how:?}"));
        if how == Crash::Done {
            let queue = self.due.remove(&Origin::Store).unwrap_or_default();
            for (_, due) in queue {
                if let Due::Done(_, changes, sync) = due {
                    let _ = self.store.apply(&changes, sync);
                }
            }
        } else if how == Crash::Power {
            self.store.lose_power();
        }
        self.restart();
    }

    /// Ends what is left of the daemon's life and begins the next one.
    pub fn restart(&mut self) {
        self.due.clear();
        for link in self.links.values_mut().filter(|link| link.is_open()) {
            link.end(None);
        }
        for child in self.children.values_mut().filter(|child| !child.is_gone) {
            child.kill();
            child.deeds();
        }
        self.former_children.extend(std::mem::take(&mut self.children).into_values());
        self.legs.clear();
        self.lives += 1;
        self.is_stopped = false;
        self.is_store_held = false;
        self.are_questions_held = false;
        let entropy = [7 + self.lives; 32];
        self.invariants.on_restart(&self.store);
        self.daemon = Daemon::new(self.config.clone(), entropy, self.store.snapshot(IDENTITY));
        self.input(Input::Started { port: PORT });
    }

    pub(super) fn stop(&mut self) {
        self.is_stopped = true;
        self.due.clear();
        for link in self.links.values_mut().filter(|link| link.is_open()) {
            link.end(None);
        }
        self.children.values_mut().filter(|child| !child.is_gone).for_each(Child::kill);
    }
}
