//! What the daemon does with agents, and how it hears of what they do.
//!
//! Owns the way from a child's deeds to what the daemon is owed, cut into pieces where the run asks for it; refuses to
//! know what an agent says.

use clawd_protocol::{Command, ProcId, Stream};

use super::World;
use super::due::{Due, Origin};
use crate::child::{Child, Deed, Script};

impl World {
    pub(super) fn spawn(&mut self, proc: ProcId, command: Command) {
        let script: Script = self.machine.scripts.pop_front().unwrap_or_default();
        let number = self.fresh_name();
        let mut child = Child::new(command, script, number, self.machine.conversations());
        self.owe(Origin::Child(proc), Due::Spawned(proc));
        self.machine.greet(&mut child);
        self.children.insert(proc, child);
    }

    pub(super) fn feed(&mut self, proc: ProcId, bytes: &[u8]) {
        let now = self.mono;
        self.with_child(proc, |child| child.feed(now, bytes));
        self.owe(Origin::Child(proc), Due::Fed(proc, bytes.len()));
    }

    pub(super) fn with_child(&mut self, proc: ProcId, act: impl FnOnce(&mut Child)) {
        if let Some(child) = self.children.get_mut(&proc).filter(|child| !child.is_gone) {
            act(child);
        }
        self.listen_to_children();
    }

    /// Takes what children did since the last time.
    pub(super) fn listen_to_children(&mut self) {
        let mut heard = Vec::new();
        for (proc, child) in &mut self.children {
            self.machine.keep(child.begun());
            heard.extend(child.deeds().into_iter().map(|deed| (*proc, deed)));
        }
        for (proc, deed) in heard {
            match deed {
                Deed::Wrote(stream, bytes) => self.cut(proc, stream, &bytes),
                Deed::Exited(code) => self.owe(Origin::Child(proc), Due::Exited(proc, code)),
            }
        }
    }

    fn cut(&mut self, proc: ProcId, stream: Stream, mut bytes: &[u8]) {
        let sizes = self.pieces.clone();
        for size in sizes.into_iter().cycle() {
            if bytes.len() <= size {
                break;
            }
            let (piece, rest) = bytes.split_at(size);
            self.owe(Origin::Child(proc), Due::Output(proc, stream, piece.to_vec()));
            bytes = rest;
        }
        self.owe(Origin::Child(proc), Due::Output(proc, stream, bytes.to_vec()));
    }
}
