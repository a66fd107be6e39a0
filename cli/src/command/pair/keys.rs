//! The keys of the person at the terminal, while a pairing window is shown (security K2).
//!
//! Owns the terminal's mode; refuses to know what keys mean. Read from the terminal itself and never from stdin, which may be
//! a pipe. Invariants: what was typed before [`Keys::ask`] is no answer to it; only an explicit yes is a yes; the mode that
//! was found is put back, however this ends.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::termios::{
    LocalModes, OptionalActions, QueueSelector, SpecialCodeIndex, Termios, tcflush, tcgetattr,
    tcsetattr,
};

/// Longer is no answer.
const LINE_BYTES_MAX: usize = 64;

/// The terminal's keys: each on its own, or as a line while something is asked.
#[derive(Debug)]
pub(super) struct Keys {
    terminal: File,
    found: Termios,
    /// What has been typed of an answer, while something is asked.
    answer: Option<Vec<u8>>,
}

/// What was typed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Typed {
    /// One key.
    Key(u8),
    /// The answer to what was asked.
    Answer(bool),
    /// Nothing yet.
    Nothing,
    /// The terminal has gone away.
    Gone,
}

impl Keys {
    /// `None` if there is no terminal.
    pub(super) fn open() -> Option<Self> {
        Self::of(OpenOptions::new().read(true).write(true).open("/dev/tty").ok()?)
    }

    fn of(terminal: File) -> Option<Self> {
        let found = tcgetattr(&terminal).ok()?;
        let keys = Self { terminal, found, answer: None };
        keys.single().ok()?;
        Some(keys)
    }

    /// Each key at once and unseen. Ctrl-C stays what it is.
    fn single(&self) -> io::Result<()> {
        let mut mode = self.found.clone();
        mode.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        mode.special_codes[SpecialCodeIndex::VMIN] = 1;
        mode.special_codes[SpecialCodeIndex::VTIME] = 0;
        Ok(tcsetattr(&self.terminal, OptionalActions::Flush, &mode)?)
    }

    /// From now on a line is an answer; what was typed before is thrown away.
    pub(super) fn ask(&mut self) -> io::Result<()> {
        self.answer = Some(Vec::new());
        tcsetattr(&self.terminal, OptionalActions::Flush, &self.found)?;
        Ok(tcflush(&self.terminal, QueueSelector::IFlush)?)
    }

    /// Reads what was typed, once the terminal can be read.
    pub(super) fn read(&mut self) -> Typed {
        let mut buffer = [0; LINE_BYTES_MAX];
        let length = match self.terminal.read(&mut buffer) {
            Ok(0) => return Typed::Gone,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Typed::Nothing,
            Err(_) => return Typed::Gone,
        };
        let typed = buffer.get(..length).unwrap_or_default();
        let Some(answer) = &mut self.answer else {
            return typed.last().map_or(Typed::Nothing, |key| Typed::Key(*key));
        };
        answer.extend_from_slice(typed);
        if !answer.ends_with(b"\n") && answer.len() <= LINE_BYTES_MAX {
            return Typed::Nothing;
        }
        let is_yes = is_yes(answer);
        answer.clear();
        Typed::Answer(is_yes)
    }
}

impl AsFd for Keys {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.terminal.as_fd()
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.terminal, OptionalActions::Flush, &self.found);
    }
}

/// Only one word on one line: Enter alone, and whatever else there is, is a no.
fn is_yes(line: &[u8]) -> bool {
    matches!(line.trim_ascii(), b"y" | b"Y" | b"yes")
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::fs::{Mode, OFlags};
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    use super::*;

    /// The end at which somebody types, and a terminal that is nobody's.
    fn terminal() -> (File, Keys) {
        let typist = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&typist).and_then(|()| unlockpt(&typist)).unwrap();
        let name = ptsname(&typist, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY;
        let terminal = rustix::fs::open(name, flags, Mode::empty()).unwrap();
        (typist.into(), Keys::of(terminal.into()).unwrap())
    }

    /// Whether there is something to read, by now or soon.
    fn is_readable(keys: &Keys) -> bool {
        let soon = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        poll(&mut [PollFd::new(keys, PollFlags::IN)], Some(&soon)).unwrap() > 0
    }

    #[test]
    fn k2_what_was_typed_and_not_read_before_the_question_is_no_answer() {
        let (mut typist, mut keys) = terminal();
        typist.write_all(b"y\n").unwrap();
        assert!(is_readable(&keys), "it waits to be read");
        keys.ask().unwrap();
        assert!(!is_readable(&keys), "it was thrown away");
        typist.write_all(b"\n").unwrap();
        assert!(is_readable(&keys));
        assert_eq!(keys.read(), Typed::Answer(false));
    }

    #[test]
    fn k2_only_an_explicit_yes_is_one() {
        for line in [&b"y\n"[..], b"Y\n", b"yes\n", b" y \n"] {
            assert!(is_yes(line));
        }
        for line in
            [&b"\n"[..], b"", b"n\n", b"yy\n", b"y\ny\n", b"yes please\n", b"\x1by\n", b"ja\n"]
        {
            assert!(!is_yes(line), "{line:?}");
        }
    }
}
