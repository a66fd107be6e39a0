//! A pairing window at the terminal, from its opening until it is over.
//!
//! Owns the loop over daemon, keys and signals; refuses to know what is drawn and what events mean. Invariant (security D5,
//! K2): yes is only said to a device by what is typed after it was shown; no answer, no terminal and the end of this
//! process all mean no.

use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use serde_json::json;

use super::keys::{Keys, Typed};
use super::page::{Page, Poster, window};
use super::progress::{Candidate, Outcome, Progress, understand};
use super::{Request, signals};
use crate::connection::{Connection, Event, Woken};
use crate::exit::Failure;
use crate::interrupts::Interrupts;
use crate::render::Screen;

const SECOND: Duration = Duration::from_secs(1);
/// A device that was let in is stored and told so within that.
const SETTLING: Duration = Duration::from_secs(15);

/// A window that is shown.
pub(super) struct Show<'a> {
    daemon: &'a mut Connection,
    request: &'a Request<'a>,
    page: Page,
    signals: Interrupts,
    keys: Option<Keys>,
    /// The open window's name.
    pub(super) pairing: String,
    poster: Poster,
    state: String,
    is_text: bool,
    /// Who is asked about, and until when.
    asked: Option<(Candidate, Instant)>,
    drawn: Option<(usize, usize)>,
}

impl<'a> Show<'a> {
    pub(super) fn open(
        daemon: &'a mut Connection,
        request: &'a Request<'a>,
        pairing: String,
        poster: Poster,
        screen: &Screen,
    ) -> Result<Self, Failure> {
        let signals = signals()?;
        let page = Page::open(screen)?;
        let (keys, state) = (Keys::open(), String::new());
        Ok(Self {
            daemon,
            request,
            page,
            signals,
            keys,
            pairing,
            poster,
            state,
            is_text: false,
            asked: None,
            drawn: None,
        })
    }

    /// Shows it until it is over.
    pub(super) fn run(&mut self) -> Result<Outcome, Failure> {
        loop {
            let now = Instant::now();
            let until = match &self.asked {
                Some((_, until)) if now >= *until => {
                    return self.decline("nobody answered in time");
                }
                None if now >= self.poster.expires => return Ok(Outcome::Expired),
                Some((_, until)) => *until,
                None => self.poster.expires,
            };
            self.draw(until - now)?;
            if let Some(outcome) = self.wait(until.min(now + SECOND))? {
                return Ok(outcome);
            }
        }
    }

    fn wait(&mut self, tick: Instant) -> Result<Option<Outcome>, Failure> {
        let mut others = vec![self.signals.as_fd()];
        others.extend(self.keys.as_ref().map(Keys::as_fd));
        match self.daemon.wait(&others, Some(tick))? {
            Woken::Event(event) => self.hear(&event),
            Woken::Other(0) if self.signals.take() > 0 => self.leave().map(Some),
            Woken::Other(0) => Ok(None),
            Woken::Other(_) => self.typed(),
            Woken::Answer(_) | Woken::Timeout => Ok(None),
        }
    }

    fn hear(&mut self, event: &Event) -> Result<Option<Outcome>, Failure> {
        match understand(event, &self.pairing) {
            Progress::Over(outcome) => return Ok(Some(outcome)),
            Progress::State(state) => (self.state, self.drawn) = (state, None),
            Progress::Asks(candidate) => return self.ask(candidate),
            Progress::Other => {}
        }
        Ok(None)
    }

    /// Puts the question, where there is somebody to answer it.
    fn ask(&mut self, candidate: Candidate) -> Result<Option<Outcome>, Failure> {
        let question = format!("Let \"{}\" in? [y/N] ", candidate.name);
        let until = Instant::now() + candidate.within;
        self.page.draw(&candidate.lines())?;
        self.asked = Some((candidate, until));
        let is_put = self.keys.as_mut().is_some_and(|keys| keys.ask().is_ok());
        if !is_put {
            return self.decline("there is no terminal to ask on").map(Some);
        }
        self.page.last_line(&question)?;
        Ok(None)
    }

    /// Says no. The daemon lets nobody in of whom it was not told in time, so this one stays out in any case.
    fn decline(&mut self, why: &str) -> Result<Outcome, Failure> {
        match self.tell(false)? {
            Some(outcome) => Ok(outcome),
            None => Ok(Outcome::Declined(why.to_owned())),
        }
    }

    /// Tells the daemon; what came of the window, if it is over already.
    fn tell(&mut self, accept: bool) -> Result<Option<Outcome>, Failure> {
        let Some((candidate, _)) = self.asked.take() else { return Ok(None) };
        let told = json!({"pairingId": candidate.pairing, "accept": accept});
        match self.daemon.call("daemon.pairConfirm", told) {
            Ok(_) => Ok(None),
            Err(failure) if failure.kind == "not_pending" => {
                Ok(Some(Outcome::Declined("it has left, or waited too long".to_owned())))
            }
            Err(failure) => Err(failure),
        }
    }

    /// Says yes, and waits until it is in.
    fn accept(&mut self) -> Result<Outcome, Failure> {
        if let Some(outcome) = self.tell(true)? {
            return Ok(outcome);
        }
        // Its word on that is an event, and comes at once.
        let deadline = Instant::now() + SETTLING;
        loop {
            match self.daemon.wait(&[self.signals.as_fd()], Some(deadline))? {
                Woken::Event(event) => match understand(&event, &self.pairing) {
                    Progress::Over(outcome) => return Ok(outcome),
                    Progress::Asks(_) | Progress::State(_) | Progress::Other => {}
                },
                Woken::Other(_) if self.signals.take() > 0 => return Ok(Outcome::Interrupted),
                Woken::Timeout => {
                    return Ok(Outcome::Closed("nothing was heard of the device again".to_owned()));
                }
                Woken::Other(_) | Woken::Answer(_) => {}
            }
        }
    }

    fn typed(&mut self) -> Result<Option<Outcome>, Failure> {
        match self.keys.as_mut().map_or(Typed::Nothing, Keys::read) {
            Typed::Key(b'q' | b'Q') => Ok(Some(Outcome::Interrupted)),
            Typed::Key(b'r' | b'R') => self.renew().map(|()| None),
            Typed::Key(b't' | b'T') if self.poster.has_text() => {
                (self.is_text, self.drawn) = (!self.is_text, None);
                Ok(None)
            }
            Typed::Key(_) | Typed::Nothing => Ok(None),
            Typed::Answer(true) => self.accept().map(Some),
            Typed::Answer(false) => self.decline("you said no").map(Some),
            Typed::Gone => self.leave().map(Some),
        }
    }

    /// Nobody is here any more: who waits for an answer gets a no.
    fn leave(&mut self) -> Result<Outcome, Failure> {
        if self.asked.is_some() {
            self.tell(false)?;
        }
        Ok(Outcome::Interrupted)
    }

    /// Another window in place of this one, which the daemon closes.
    fn renew(&mut self) -> Result<(), Failure> {
        let (pairing, poster) = self.request.open(self.daemon)?;
        (self.pairing, self.poster) = (pairing, poster);
        self.state.clear();
        self.drawn = None;
        Ok(())
    }

    fn draw(&mut self, left: Duration) -> Result<(), Failure> {
        // What is being typed stays as it is.
        if self.asked.is_some() {
            return Ok(());
        }
        // Looked at each second: a window that was made larger shows the code.
        let now = window();
        if self.drawn != Some(now) {
            let mut lines = if self.is_text { self.poster.text() } else { self.poster.lines(now) };
            if !self.state.is_empty() {
                lines.push(format!("! {}", self.state));
            }
            self.page.draw(&lines)?;
            self.drawn = Some(now);
        }
        let (minutes, seconds) = (left.as_secs() / 60, left.as_secs() % 60);
        let keys = match (&self.keys, self.poster.has_text(), self.is_text) {
            (None, ..) => "Ctrl-C to stop",
            (_, false, _) => "r renew   q quit",
            (_, true, false) => "r renew   t as text   q quit",
            (_, true, true) => "r renew   t as code   q quit",
        };
        self.page.last_line(&format!("expires in {minutes}:{seconds:02}   {keys}"))
    }
}
