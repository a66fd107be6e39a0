//! A pseudo-terminal with a program on it: what a person would see and type.
//!
//! Owns the master's side; refuses to know what an escape sequence does. The program leads a session of its own whose
//! controlling terminal this is, so that `/dev/tty` means it and its end is heard as a hangup.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::process::{Process, tell};

/// What makes a terminal the controlling one, without unsafe code of ours.
const SETSID: &str = "/usr/bin/setsid";

/// A terminal nobody sits at yet.
#[derive(Debug)]
pub struct Terminal {
    master: File,
    slave: OwnedFd,
}

/// A program that runs on a terminal.
#[derive(Debug)]
pub struct Session {
    /// The program, and all that it wrote to the terminal.
    pub process: Process,
    master: File,
    reader: Option<(UnixStream, JoinHandle<()>)>,
}

impl Terminal {
    /// A terminal of this size; nothing where there is no `setsid`.
    ///
    /// # Panics
    /// If the system has no pseudo-terminals.
    #[must_use]
    pub fn open(columns: u16, rows: u16) -> Option<Self> {
        if !std::path::Path::new(SETSID).exists() {
            return None;
        }
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).expect("a pseudo-terminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("our own terminal");
        let name = ptsname(&master, Vec::new()).expect("it has a name");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = rustix::fs::open(name, flags, Mode::empty()).expect("our own terminal");
        let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&slave, size).expect("a terminal has a size");
        Some(Self { master: master.into(), slave })
    }

    /// Types before anybody reads.
    pub fn type_ahead(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("the terminal takes it");
    }

    /// Runs `command` on it.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn run(self, command: &Command) -> Session {
        let Self { master, slave } = self;
        let mut on_terminal = Command::new(SETSID);
        on_terminal.arg("--ctty").arg(command.get_program()).args(command.get_args());
        on_terminal.env_clear();
        let set = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
        on_terminal.envs(set).current_dir(command.get_current_dir().expect("set by the site"));
        let stdio = || slave.try_clone().expect("a descriptor");
        on_terminal.stdin(stdio()).stdout(stdio()).stderr(stdio());
        let process = Process::new(on_terminal.spawn().expect("setsid runs"), 1);
        drop((on_terminal, slave));
        let (stop, stopped) = UnixStream::pair().expect("a pair of sockets");
        let (told, mut from) = (process.told(), master.try_clone().expect("a descriptor"));
        let reader = std::thread::spawn(move || {
            let mut piece = [0; 4096];
            loop {
                let mut fds =
                    [PollFd::new(&from, PollFlags::IN), PollFd::new(&stopped, PollFlags::IN)];
                poll(&mut fds, None).expect("waiting works");
                let is_stopped = !fds[1].revents().is_empty();
                // The last one to leave a terminal leaves an error behind.
                let len = if is_stopped { 0 } else { from.read(&mut piece).unwrap_or(0) };
                tell(&told, &piece[..len]);
                if len == 0 {
                    return;
                }
            }
        });
        Session { process, master, reader: Some((stop, reader)) }
    }
}

impl Session {
    /// Waits until `text` is on the terminal.
    ///
    /// # Panics
    /// If the program ends before.
    pub fn wait_for(&mut self, text: &str) {
        let found = self.process.wait_for(|output| output.contains(text).then_some(()));
        assert!(found.is_some(), "ended without `{text}`:\n{}", self.process.output());
    }

    /// Presses keys.
    pub fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("the terminal takes it");
    }

    /// Waits for the program's end: exit code, and all that was on the terminal.
    pub fn end(mut self) -> (Option<i32>, String) {
        let (status, output) = self.process.end();
        (status.code(), output)
    }

    /// Closes the window. The program goes on, if it can.
    ///
    /// # Panics
    /// Never, but for bugs.
    #[must_use]
    pub fn close(mut self) -> Process {
        let (stop, reader) = self.reader.take().expect("closed once");
        drop(stop);
        reader.join().expect("the reader does not panic");
        drop(self.master);
        self.process
    }
}
