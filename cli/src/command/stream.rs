//! Events for as long as somebody wants to hear them: what `tail` and `approvals --watch` have in common.
//!
//! Owns the way back after a lost connection, and Ctrl-C; refuses to know what the events are about. The daemon's journal
//! tells what was missed, so nothing comes twice and nothing is left out; where that is impossible, `events.reset` comes.

use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use clawd_protocol::client::Bookmark;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::SIGINT;

use crate::connection::{Connection, Event, Woken};
use crate::exit::{Exit, Failure};
use crate::home::Home;
use crate::interrupts::Interrupts;
use crate::render::Screen;

/// How long a daemon that has ended is waited for: long enough for a restart.
const RETURN_TIMEOUT: Duration = Duration::from_secs(60);
/// It cannot be waited for, only looked for.
const RETURN_CHECK: Duration = Duration::from_millis(100);

/// All that happens over there, from some event on.
#[derive(Debug)]
pub(super) struct Stream<'a> {
    pub(super) daemon: Connection,
    home: &'a Home,
    screen: &'a Screen,
    interrupt: Interrupts,
}

impl<'a> Stream<'a> {
    /// From now on, or after the event that is named. Ctrl-C is ours to hear then.
    pub(super) fn open(
        home: &'a Home,
        screen: &'a Screen,
        from: Option<Bookmark>,
    ) -> Result<Self, Failure> {
        let daemon = home.resume(from)?;
        Ok(Self { daemon, home, screen, interrupt: Interrupts::catch(&[SIGINT])? })
    }

    /// The next event; `None` is Ctrl-C.
    pub(super) fn next(&mut self) -> Result<Option<Event>, Failure> {
        loop {
            match self.daemon.wait(&[self.interrupt.as_fd()], None) {
                Ok(Woken::Event(event)) => return Ok(Some(event)),
                Ok(Woken::Other(_)) if self.interrupt.take() > 0 => return Ok(None),
                Ok(Woken::Answer(_) | Woken::Other(_) | Woken::Timeout) => {}
                Err(failure) if failure.exit == Exit::NotRunning => {
                    if !self.reconnect()? {
                        return Ok(None);
                    }
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Goes on after the last event, once the daemon is there again; `false` is Ctrl-C.
    fn reconnect(&mut self) -> Result<bool, Failure> {
        let dots = if self.screen.err.utf8 { "…" } else { "..." };
        self.screen.say(&format!("{dots} reconnecting (event {})", self.daemon.seq()));
        let deadline = Instant::now() + RETURN_TIMEOUT;
        let pause = Timespec { tv_sec: 0, tv_nsec: RETURN_CHECK.subsec_nanos().into() };
        loop {
            match self.home.resume(self.daemon.bookmark()) {
                Err(failure) if failure.exit == Exit::NotRunning && Instant::now() < deadline => {}
                outcome => {
                    let mut daemon = outcome?;
                    daemon.follow(&mut self.daemon);
                    self.daemon = daemon;
                    return Ok(true);
                }
            }
            let mut fds = [PollFd::from_borrowed_fd(self.interrupt.as_fd(), PollFlags::IN)];
            let _ = poll(&mut fds, Some(&pause));
            if self.interrupt.take() > 0 {
                return Ok(false);
            }
        }
    }
}
