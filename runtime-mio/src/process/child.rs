//! One child: its pipes, what waits to be written, and how it ends.
//!
//! Owns the state below; refuses to know which child it is to the core.
//!
//! ```text
//! alive ── kill ──▶ ending ── the guard is late ──▶ SIGKILL to the guard
//!   └─ guard is reaped ─┴─ it ended by itself ──────────────────────────────────────▶ ended
//!                       └─ it was killed ──▶ orphaned ── nobody is left, or is late ──▶ ended
//!
//! ended: both streams are read out ──▶ over: Exited is told, once
//! ```
//!
//! While *orphaned*, all who carry the child's mark are killed, again and again.
//!
//! Readiness comes once from the kernel, so each stream remembers its own until a read would block. The guard outlives
//! all other writers of the streams: when it is gone, what is in the pipes is all there will ever be.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{self, ExitStatus};
use std::time::{Duration, Instant};

use clawd_protocol::{Input, ProcId, Stream};
use mio::unix::pipe::{Receiver, Sender};
use mio::{Interest, Registry, Token};
use rustix::process::{Pid, Signal};

use super::mark::{ChildMark, KILL_TIMEOUT, LOOK_EVERY};

/// From the order to end the tree until the guard, which needs less, is believed to be stuck.
const GUARD_TIMEOUT: Duration = Duration::from_secs(6);
/// Bytes read from one child in one turn of the loop, over both streams.
pub(super) const TURN_BYTES_MAX: usize = 64 * 1024;

#[derive(Debug)]
struct Outlet {
    pipe: Option<Receiver>,
    is_ready: bool,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Alive,
    Ending { late_at: Instant },
    Orphaned { status: ExitStatus, look_at: Instant, late_at: Instant },
    Ended(ExitStatus),
}

#[derive(Debug)]
pub(super) struct Child {
    pub(super) proc: ProcId,
    mark: ChildMark,
    guard: process::Child,
    pid: Pid,
    stdin: Option<Sender>,
    queue: VecDeque<Vec<u8>>,
    /// Bytes of the queue's first piece that were written.
    written: usize,
    /// Bytes that were written and not told yet.
    fed: usize,
    is_finishing: bool,
    out: Outlet,
    err: Outlet,
    phase: Phase,
}

impl Child {
    /// Takes over a guard that was started with three pipes; `tokens` are for its stdin, stdout and stderr.
    pub(super) fn adopt(
        proc: ProcId,
        mark: ChildMark,
        mut guard: process::Child,
        registry: &Registry,
        tokens: [Token; 3],
    ) -> io::Result<Self> {
        let no_pipe = || io::Error::other("the guard has no pipe");
        let pid = i32::try_from(guard.id()).ok().and_then(Pid::from_raw);
        let mut stdin = Sender::from(guard.stdin.take().ok_or_else(no_pipe)?);
        let mut out = Receiver::from(guard.stdout.take().ok_or_else(no_pipe)?);
        let mut err = Receiver::from(guard.stderr.take().ok_or_else(no_pipe)?);
        stdin.set_nonblocking(true)?;
        out.set_nonblocking(true)?;
        err.set_nonblocking(true)?;
        registry.register(&mut stdin, tokens[0], Interest::WRITABLE)?;
        registry.register(&mut out, tokens[1], Interest::READABLE)?;
        registry.register(&mut err, tokens[2], Interest::READABLE)?;
        Ok(Self {
            proc,
            mark,
            guard,
            pid: pid.ok_or_else(|| io::Error::other("the guard has no process id"))?,
            stdin: Some(stdin),
            queue: VecDeque::new(),
            written: 0,
            fed: 0,
            is_finishing: false,
            out: Outlet { pipe: Some(out), is_ready: false },
            err: Outlet { pipe: Some(err), is_ready: false },
            phase: Phase::Alive,
        })
    }

    pub(super) fn pid(&self) -> u32 {
        self.guard.id()
    }

    pub(super) fn feed(&mut self, bytes: Vec<u8>) {
        if !bytes.is_empty() && !self.is_finishing && self.stdin.is_some() {
            self.queue.push_back(bytes);
            self.write();
        }
    }

    pub(super) fn finish(&mut self) {
        self.is_finishing = true;
        self.write();
    }

    /// The guard ends the whole tree; see [`crate::guard`].
    pub(super) fn kill(&mut self) {
        if matches!(self.phase, Phase::Alive) {
            self.phase = Phase::Ending { late_at: Instant::now() + GUARD_TIMEOUT };
        }
        if matches!(self.phase, Phase::Ending { .. }) {
            // Until it is reaped, the process id is its own, even when it is dead. Somebody may have stopped it.
            let _ = rustix::process::kill_process(self.pid, Signal::TERM);
            let _ = rustix::process::kill_process(self.pid, Signal::CONT);
        }
    }

    /// When [`Self::look`] has something to do, if it has.
    pub(super) const fn due(&self) -> Option<Instant> {
        match self.phase {
            Phase::Ending { late_at } => Some(late_at),
            Phase::Orphaned { look_at, .. } => Some(look_at),
            Phase::Alive | Phase::Ended(_) => None,
        }
    }

    /// Does what is due.
    pub(super) fn look(&mut self) {
        let now = Instant::now();
        match self.phase {
            Phase::Ending { late_at } if late_at <= now => {
                let _ = rustix::process::kill_process(self.pid, Signal::KILL);
                self.phase = Phase::Alive;
            }
            Phase::Orphaned { status, look_at, late_at } if look_at <= now => {
                if self.mark.kill() || late_at <= now {
                    self.end(status);
                } else {
                    let look_at = Instant::now() + LOOK_EVERY;
                    self.phase = Phase::Orphaned { status, look_at, late_at };
                }
            }
            Phase::Alive | Phase::Ending { .. } | Phase::Orphaned { .. } | Phase::Ended(_) => {}
        }
    }

    /// The pipe of its standard input takes bytes again, or is closed.
    pub(super) fn on_writable(&mut self) {
        self.write();
    }

    pub(super) fn on_readable(&mut self, stream: Stream) {
        match stream {
            Stream::Out => self.out.is_ready = true,
            Stream::Err => self.err.is_ready = true,
        }
    }

    /// Looks whether the guard has ended.
    pub(super) fn on_signal(&mut self) {
        if matches!(self.phase, Phase::Orphaned { .. } | Phase::Ended(_)) {
            return;
        }
        let Ok(Some(status)) = self.guard.try_wait() else { return };
        self.stdin = None;
        self.queue.clear();
        if status.signal().is_some() {
            // Somebody killed the guard, and the agent is still there.
            let now = Instant::now();
            self.phase = Phase::Orphaned { status, look_at: now, late_at: now + KILL_TIMEOUT };
        } else {
            self.end(status);
        }
    }

    fn end(&mut self, status: ExitStatus) {
        self.phase = Phase::Ended(status);
        self.out.is_ready = self.out.pipe.is_some();
        self.err.is_ready = self.err.pipe.is_some();
    }

    /// Tells what was written, what can be read within the budget, and, when all was read, the end.
    pub(super) fn work(&mut self, buffer: &mut [u8], tell: &mut dyn FnMut(Input<'_>)) {
        let fed = std::mem::take(&mut self.fed);
        if fed > 0 {
            tell(Input::Fed { proc: self.proc, bytes: fed });
        }
        let mut budget = TURN_BYTES_MAX;
        // Errors first: they are short, and the last words of a program that fails.
        let streams = [(Stream::Err, &mut self.err), (Stream::Out, &mut self.out)];
        for (stream, outlet) in streams {
            outlet.read(buffer, &mut budget, |bytes| {
                tell(Input::Output { proc: self.proc, stream, bytes });
            });
        }
        if let Phase::Ended(status) = self.phase
            && !self.is_ready()
        {
            // The guard says 128 and the signal for an agent that was ended by one, as shells do.
            let code = status.code().filter(|code| *code <= 128);
            tell(Input::Exited { proc: self.proc, code });
        }
    }

    /// There is more to read now.
    pub(super) fn is_ready(&self) -> bool {
        self.out.is_ready || self.err.is_ready
    }

    /// [`Self::work`] has something to tell.
    pub(super) fn has_news(&self) -> bool {
        self.fed > 0 || self.is_ready() || matches!(self.phase, Phase::Ended(_))
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Ended(_)) && !self.is_ready()
    }

    fn write(&mut self) {
        let Some(pipe) = &mut self.stdin else { return };
        while let Some(piece) = self.queue.front() {
            match pipe.write(&piece[self.written..]) {
                Ok(bytes) => {
                    self.fed += bytes;
                    self.written += bytes;
                    if self.written == piece.len() {
                        self.queue.pop_front();
                        self.written = 0;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // It reads no more; what is left is nobody's, and its end will be told.
                Err(_) => {
                    self.queue.clear();
                    self.stdin = None;
                    return;
                }
            }
        }
        if self.is_finishing {
            self.stdin = None;
        }
    }
}

impl Outlet {
    fn read(&mut self, buffer: &mut [u8], budget: &mut usize, mut tell: impl FnMut(&[u8])) {
        while self.is_ready && *budget > 0 {
            let Some(pipe) = &mut self.pipe else {
                self.is_ready = false;
                return;
            };
            let room = buffer.len().min(*budget);
            match pipe.read(&mut buffer[..room]) {
                Ok(0) => self.pipe = None,
                Ok(bytes) => {
                    *budget -= bytes;
                    tell(&buffer[..bytes]);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_ready = false,
                Err(_) => self.pipe = None,
            }
        }
    }
}
