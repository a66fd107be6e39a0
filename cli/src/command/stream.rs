//! Events for as long as somebody wants to hear them: what `tail` and `approvals --watch` have in common.
//!
//! Owns the way back after a lost connection, and Ctrl-C; refuses to know what the events are about. The daemon's journal
//! tells what was missed, so nothing comes twice and nothing is left out; where that is impossible, `events.reset` comes.

use std::os::fd::AsFd as _;

use clawd_protocol::client::Bookmark;
use signal_hook::consts::SIGINT;

use crate::connection::{Connection, Event, Woken};
use crate::exit::{Exit, Failure};
use crate::home::Home;
use crate::interrupts::Interrupts;
use crate::render::Screen;

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
        let from = self.daemon.bookmark();
        let Some(mut daemon) = self.home.resume_patiently(from.as_ref(), &mut self.interrupt)?
        else {
            return Ok(false);
        };
        daemon.follow(&mut self.daemon);
        self.daemon = daemon;
        Ok(true)
    }
}
