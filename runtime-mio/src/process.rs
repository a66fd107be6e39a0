//! Child processes.

use std::ops::Range;
use std::path::PathBuf;

use clawd_protocol::{Command, Input, ProcId, ProgramFault};
use mio::event::Event;
use mio::{Registry, Token};

/// The children.
#[derive(Debug)]
pub struct Processes;

impl Processes {
    /// No children yet. `guard` is the path of a program that calls [`guard::run`](crate::guard::run) when its first
    /// argument is `guard`; `tokens` is the range that is this value's own (three for each child).
    #[must_use]
    pub fn new(guard: PathBuf, tokens: Range<usize>) -> Self {
        let _ = (guard, tokens);
        unimplemented!()
    }

    /// Starts a child under the guard.
    pub fn spawn(
        &mut self,
        registry: &Registry,
        proc: ProcId,
        command: &Command,
    ) -> Result<u32, ProgramFault> {
        let _ = (registry, proc, command);
        unimplemented!()
    }

    /// Queues bytes for its standard input and writes what the pipe takes. `Fed` is told by the next [`Self::work`].
    pub fn feed(&mut self, proc: ProcId, bytes: Vec<u8>) {
        let _ = (proc, bytes);
    }

    /// Closes its standard input once everything fed was written.
    pub fn finish(&mut self, proc: ProcId) {
        let _ = proc;
    }

    /// Ends it and all its descendants.
    pub fn kill(&mut self, proc: ProcId) {
        let _ = proc;
    }

    /// Takes an event whose token is in the range.
    pub fn on_event(
        &mut self,
        registry: &Registry,
        token: Token,
        event: &Event,
        tell: &mut dyn FnMut(Input<'_>),
    ) {
        let _ = (registry, token, event, tell);
    }

    /// Goes on with what a budget cut short. Call it once in every turn of the loop, after the effects were executed and
    /// before sleeping; true asks to be called again without sleeping.
    pub fn work(&mut self, registry: &Registry, tell: &mut dyn FnMut(Input<'_>)) -> bool {
        let _ = (registry, tell);
        false
    }

    /// A child may have ended (SIGCHLD came). `Exited` is told here or by [`Self::work`], after all output.
    pub fn on_child_signal(&mut self, tell: &mut dyn FnMut(Input<'_>)) {
        let _ = tell;
    }
}
