//! The guard of one agent: a small process between the daemon and the agent that ends the agent's whole tree (security
//! I4).
//!
//! Owns one agent and every process that comes of it, also those that made sessions of their own; refuses to know what
//! they say: the agent writes to the daemon's pipes itself, and its input is passed through.
//!
//! ```text
//! running ── input ends: Finish, or the daemon died ──▶ leaving ── 2 s ──▶ ending ── 1.5 s ──▶ killing
//!    │                                                     │                 ▲
//!    └───── SIGTERM, or the agent ended ───────────────────┴─────────────────┘
//! ```
//!
//! *Ending* sends SIGTERM to the tree, *killing* SIGKILL, again and again until nobody is left; then the guard exits
//! with the agent's code. On Linux the guard is the reaper of the whole tree, so "nobody is left" is the kernel's word. On
//! other systems the tree is the agent's process group: who leaves that is not found.
//!
//! The agent starts with the three standard streams only, no core files, no terminal, in a group of its own, and with
//! its mark, by which its daemon or the next one finds what is left when the guard itself was killed.

mod tree;

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mio::net::UnixStream;
use mio::unix::pipe::{Receiver, Sender};
use mio::{Events, Interest, Poll, Token};
use rustix::fs::Mode;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};

/// From the end of the input to SIGTERM: an agent finishes its turn in that time, or does not.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);
/// From SIGTERM to SIGKILL.
const END_TIMEOUT: Duration = Duration::from_millis(1500);
/// From the first SIGKILL until those who do not die of it, because they are another user's, are left to themselves.
const KILL_TIMEOUT: Duration = Duration::from_secs(3);
/// Between two rounds of SIGKILL: a process may have been made while the tree was walked.
const KILL_EVERY: Duration = Duration::from_millis(20);

const NOT_STARTED: i32 = 127;
const MISUSED: i32 = 2;

const INPUT: Token = Token(0);
const AGENT: Token = Token(1);
const SIGNALS: Token = Token(2);

/// Runs the guard with everything that follows `guard` on the command line, unparsed: `--`, the umask in octal or
/// `keep`, the mark as `NAME=value`, the program, its arguments. Returns the exit code: the agent's, 128 and the signal that ended it, or 127 if
/// it could not be started.
#[must_use]
pub fn run(args: impl IntoIterator<Item = OsString>) -> i32 {
    let mut args = args.into_iter().skip_while(|arg| arg == "--");
    let (Some(umask), Some(mark), Some(program)) = (args.next(), args.next(), args.next()) else {
        return complain(MISUSED, "this is for clawd itself to call");
    };
    crate::files::close_inherited();
    crate::files::seal();
    // Out of the daemon's group and away from its terminal, where an agent's tool would ask for a password unseen. Who
    // leads a group already stays in its session: a guard that was not started by a daemon.
    let _ = rustix::process::setsid();
    let mut command = Command::new(&program);
    command.args(args).stdin(Stdio::piped()).process_group(0);
    if let Some((name, value)) = mark.to_str().and_then(|mark| mark.split_once('=')) {
        command.env(name, value);
    }
    let started = set_umask(&umask).and_then(|()| Guard::start(&mut command));
    match started {
        Ok(mut guard) => match guard.watch() {
            Ok(code) => code,
            Err(error) => {
                // It cannot watch any more: the tree must not outlive it.
                tree::signal(guard.agent, Signal::KILL);
                complain(NOT_STARTED, &format!("could not watch: {error}"))
            }
        },
        Err(error) => complain(NOT_STARTED, &format!("{}: {error}", program.display())),
    }
}

fn complain(code: i32, what: &str) -> i32 {
    let _ = writeln!(io::stderr(), "clawd guard: {what}");
    code
}

/// What the agent writes is the user's: it gets the umask that the user had before the daemon tightened its own.
fn set_umask(umask: &OsString) -> io::Result<()> {
    if umask == "keep" {
        return Ok(());
    }
    let bits = umask.to_str().and_then(|text| u32::from_str_radix(text, 8).ok());
    let bits = bits.ok_or_else(|| io::Error::other("the umask is not octal"))?;
    rustix::process::umask(Mode::from_raw_mode(bits));
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    Leaving(Instant),
    Ending(Instant),
    Killing(Instant),
}

struct Guard {
    poll: Poll,
    signals: UnixStream,
    terminations: UnixStream,
    /// The daemon's end of our standard input.
    input: Option<Receiver>,
    /// The agent's standard input.
    output: Option<Sender>,
    /// Bytes from the daemon that the agent has not taken.
    held: Vec<u8>,
    agent: Pid,
    status: Option<WaitStatus>,
    phase: Phase,
}

impl Guard {
    fn start(command: &mut Command) -> io::Result<Self> {
        let poll = Poll::new()?;
        // Before the agent starts: none of its signals may be missed, none of its children lost.
        let mut signals = watch_signals(&[SIGCHLD])?;
        let mut terminations = watch_signals(&[SIGTERM, SIGINT, SIGHUP])?;
        tree::adopt_orphans()?;
        let mut input = Receiver::from(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?);
        let mut child: Child = command.spawn()?;
        let agent = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let agent = agent.ok_or_else(|| io::Error::other("the agent has no process id"))?;
        let stdin = child.stdin.take().ok_or_else(|| io::Error::other("no pipe"))?;
        let mut output = Sender::from(stdin);
        input.set_nonblocking(true)?;
        output.set_nonblocking(true)?;
        let registry = poll.registry();
        registry.register(&mut input, INPUT, Interest::READABLE)?;
        registry.register(&mut output, AGENT, Interest::WRITABLE)?;
        registry.register(&mut signals, SIGNALS, Interest::READABLE)?;
        registry.register(&mut terminations, SIGNALS, Interest::READABLE)?;
        Ok(Self {
            poll,
            signals,
            terminations,
            input: Some(input),
            output: Some(output),
            held: Vec::new(),
            agent,
            status: None,
            phase: Phase::Running,
        })
    }

    fn watch(&mut self) -> io::Result<i32> {
        let mut events = Events::with_capacity(8);
        loop {
            let is_alone = self.reap();
            if self.status.is_some() && is_alone {
                return Ok(self.code());
            }
            if matches!(self.phase, Phase::Killing(deadline) if deadline <= Instant::now()) {
                return Ok(complain(self.code(), "some processes could not be ended"));
            }
            self.advance(Instant::now());
            match self.poll.poll(&mut events, self.timeout(Instant::now())) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            // The daemon may be gone while the agent takes nothing: the hang-up comes all the same.
            if events.iter().any(|event| event.token() == INPUT && event.is_read_closed()) {
                self.leave();
            }
            drain(&self.signals);
            if drain(&self.terminations) {
                self.end();
            }
            self.pass_on();
        }
    }

    /// The agent's exit code, or 128 and the signal that ended it.
    fn code(&self) -> i32 {
        let signalled = |status: WaitStatus| 128 + status.terminating_signal().unwrap_or_default();
        let code = |status: WaitStatus| status.exit_status().unwrap_or_else(|| signalled(status));
        self.status.map_or(NOT_STARTED, code)
    }

    /// Collects the dead; true if nobody is left.
    fn reap(&mut self) -> bool {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.agent => {
                    self.status = Some(status);
                    self.output = None;
                    self.end();
                }
                Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
                Ok(None) => return false,
                Err(_) => return tree::is_empty(self.agent),
            }
        }
    }

    fn leave(&mut self) {
        if self.phase == Phase::Running {
            self.phase = Phase::Leaving(Instant::now() + LEAVE_TIMEOUT);
        }
    }

    fn end(&mut self) {
        if matches!(self.phase, Phase::Running | Phase::Leaving(_)) {
            tree::signal(self.agent, Signal::TERM);
            self.phase = Phase::Ending(Instant::now() + END_TIMEOUT);
        }
    }

    fn advance(&mut self, now: Instant) {
        match self.phase {
            Phase::Leaving(deadline) if deadline <= now => self.end(),
            Phase::Ending(deadline) if deadline <= now => {
                self.phase = Phase::Killing(now + KILL_TIMEOUT);
            }
            Phase::Running | Phase::Leaving(_) | Phase::Ending(_) | Phase::Killing(_) => {}
        }
        if matches!(self.phase, Phase::Killing(_)) {
            tree::signal(self.agent, Signal::KILL);
        }
    }

    fn timeout(&self, now: Instant) -> Option<Duration> {
        match self.phase {
            Phase::Running => None,
            // A millisecond more, since the kernel's clock for this ticks in those: never awake just before a deadline.
            Phase::Leaving(deadline) | Phase::Ending(deadline) => {
                Some(deadline.saturating_duration_since(now) + Duration::from_millis(1))
            }
            Phase::Killing(_) => Some(KILL_EVERY),
        }
    }

    /// Copies the daemon's bytes to the agent, as far as either goes.
    fn pass_on(&mut self) {
        let mut buffer = [0; 16 * 1024];
        loop {
            if let Some(output) = &mut self.output {
                while !self.held.is_empty() {
                    match output.write(&self.held) {
                        Ok(bytes) => drop(self.held.drain(..bytes)),
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                        // It reads no more; go on reading here, to notice the end.
                        Err(_) => {
                            self.held.clear();
                            self.output = None;
                            break;
                        }
                    }
                }
            }
            let Some(input) = &mut self.input else { break };
            match input.read(&mut buffer) {
                Ok(0) => {
                    self.input = None;
                    self.leave();
                }
                Ok(bytes) if self.output.is_some() => self.held.extend_from_slice(&buffer[..bytes]),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.input = None;
                    self.leave();
                }
            }
        }
        // All was passed on: let the agent see the end.
        self.output = None;
    }
}

fn watch_signals(signals: &[i32]) -> io::Result<UnixStream> {
    let (reader, writer) = UnixStream::pair()?;
    for &signal in signals {
        let writer = rustix::io::fcntl_dupfd_cloexec(&writer, 0)?;
        signal_hook::low_level::pipe::register(
            signal,
            std::os::unix::net::UnixStream::from(writer),
        )?;
    }
    Ok(reader)
}

/// Empties a signal's socket; true if something was in it.
fn drain(mut signals: &UnixStream) -> bool {
    let mut has_come = false;
    let mut buffer = [0; 64];
    while matches!(signals.read(&mut buffer), Ok(bytes) if bytes > 0) {
        has_come = true;
    }
    has_come
}
