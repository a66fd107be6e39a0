//! Child processes: agents, each under a guard of its own.
//!
//! Owns the children, their pipes and their end; refuses to know what they say. Each is started as
//! `<guard binary> guard -- <umask> <mark> <program> <arguments>`: the guard ends the whole tree when the daemon asks for it or
//! is gone (see [`crate::guard`]). Invariants: no shell; nothing of the daemon's environment but what is named; the
//! program is checked again at each start; no child gets more of a turn than its budget.

mod child;
mod mark;
mod program;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use clawd_protocol::{Command, Input, ProcId, ProgramFault, Stream};
use mio::{Registry, Token};

use crate::files::users_umask;
use child::{Child, TURN_BYTES_MAX};
pub(crate) use mark::ChildMark;
pub use mark::Mark;
pub(crate) use program::{environment, find};

const TOKENS_EACH: usize = 3;

/// The children.
#[derive(Debug)]
pub struct Processes {
    guard: PathBuf,
    mark: Mark,
    tokens: Range<usize>,
    /// A child's place decides its tokens. A late event for an earlier child in the same place is harmless: it only
    /// leads to a read or write that would block.
    children: Vec<Option<Child>>,
    buffer: Vec<u8>,
}

impl Processes {
    /// No children yet. `guard` is the path of a program that calls [`guard::run`](crate::guard::run) when its first
    /// argument is `guard`; `mark` is the data directory's; `tokens` is the range that is this value's own (three for
    /// each child).
    #[must_use]
    pub fn new(guard: PathBuf, mark: Mark, tokens: Range<usize>) -> Self {
        Self { guard, mark, tokens, children: Vec::new(), buffer: vec![0; TURN_BYTES_MAX] }
    }

    /// Starts a child under the guard; returns the guard's process id.
    ///
    /// # Errors
    /// The program is missing, unsafe (security I2), or cannot be started.
    pub fn spawn(
        &mut self,
        registry: &Registry,
        proc: ProcId,
        command: &Command,
    ) -> Result<u32, ProgramFault> {
        let failed = |error: &dyn std::fmt::Display| ProgramFault::Failed(error.to_string());
        let cwd = Path::new(&command.cwd);
        let repository = command.repository.as_deref().map(Path::new);
        let program = program::check(Path::new(&command.program), repository)?;
        if !cwd.is_dir() {
            return Err(failed(&format_args!("{} is not a directory", cwd.display())));
        }
        let place = self.free_place().ok_or_else(|| failed(&"too many children"))?;
        let umask = users_umask().map_or_else(|| "keep".to_owned(), |m| format!("{:o}", m.bits()));
        let mark = self.mark.of(&proc.to_string());
        let guard = std::process::Command::new(&self.guard)
            .args(["guard", "--", &umask, mark.as_str()])
            .arg(program)
            .args(&command.args)
            .env_clear()
            .envs(environment(&command.env))
            .current_dir(cwd)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| failed(&format_args!("could not start the guard: {error}")))?;
        let first = self.tokens.start + place * TOKENS_EACH;
        let tokens = [first, first + 1, first + 2].map(Token);
        // Should this fail, the guard's pipes are closed, and that ends it.
        let child =
            Child::adopt(proc, mark, guard, registry, tokens).map_err(|error| failed(&error))?;
        let pid = child.pid();
        self.children[place] = Some(child);
        Ok(pid)
    }

    /// Queues bytes for its standard input and writes what the pipe takes. `Fed` is told by the next [`Self::work`].
    pub fn feed(&mut self, proc: ProcId, bytes: Vec<u8>) {
        if let Some(child) = self.find(proc) {
            child.feed(bytes);
        }
    }

    /// Closes its standard input once everything fed was written.
    pub fn finish(&mut self, proc: ProcId) {
        if let Some(child) = self.find(proc) {
            child.finish();
        }
    }

    /// Ends it and all its descendants: politely, then not.
    pub fn kill(&mut self, proc: ProcId) {
        if let Some(child) = self.find(proc) {
            child.kill();
        }
    }

    /// Takes an event's token, if it is in the range. What came of it is told by [`Self::work`].
    pub fn on_event(&mut self, token: Token) {
        let Some(offset) = token.0.checked_sub(self.tokens.start) else { return };
        let Some(Some(child)) = self.children.get_mut(offset / TOKENS_EACH) else { return };
        match offset % TOKENS_EACH {
            0 => child.on_writable(),
            1 => child.on_readable(Stream::Out),
            _ => child.on_readable(Stream::Err),
        }
    }

    /// A child may have ended (SIGCHLD came). `Exited` is told by [`Self::work`], after all output.
    pub fn on_child_signal(&mut self) {
        self.children.iter_mut().flatten().for_each(Child::on_signal);
    }

    /// Tells what there is to tell, each child within its budget. Call it once in every turn of the loop, after the
    /// events were taken and the effects executed, and before sleeping; true asks to be called again without sleeping.
    pub fn work(&mut self, tell: &mut dyn FnMut(Input<'_>)) -> bool {
        let mut has_more = false;
        for place in &mut self.children {
            let Some(child) = place else { continue };
            child.look();
            if !child.has_news() {
                continue;
            }
            child.work(&mut self.buffer, tell);
            has_more |= child.is_ready();
            if child.is_over() {
                *place = None;
            }
        }
        has_more
    }

    /// How soon [`Self::work`] has to be called even if nothing happens: a child that was told to end has not.
    #[must_use]
    pub fn next_look(&self) -> Option<Duration> {
        let due = self.children.iter().flatten().filter_map(Child::due).min()?;
        Some(due.saturating_duration_since(Instant::now()))
    }

    fn find(&mut self, proc: ProcId) -> Option<&mut Child> {
        self.children.iter_mut().flatten().find(|child| child.proc == proc)
    }

    fn free_place(&mut self) -> Option<usize> {
        if let Some(place) = self.children.iter().position(Option::is_none) {
            return Some(place);
        }
        let place = self.children.len();
        (place < self.tokens.len() / TOKENS_EACH).then(|| {
            self.children.push(None);
            place
        })
    }
}
