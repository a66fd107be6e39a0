//! `attach`: a session as a conversation at the terminal, whoever else drives it too.
//!
//! Owns what typed lines and Ctrl-C mean; refuses to know how a turn looks and how it is asked about tools, which is
//! `watch`'s. The terminal stays as it is: lines are typed and edited as everywhere, and what is typed while a turn runs
//! is sent once that is over.

use std::io;
use std::os::fd::AsFd as _;

use clawd_protocol::text::{visible, visible_line};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;

use super::run::PROMPT_BYTES_MAX;
use super::watch::{Outcome, Step, Watch};
use super::{session, typed};
use crate::args::Attach as Args;
use crate::exit::{Exit, Failure};
use crate::home::{Home, shorten};
use crate::render::Screen;
use crate::render::style::Mark;
use crate::wire::{Message, Session, ToolCall};

/// `attach`.
pub(super) fn attach(home: &Home, screen: &Screen, args: &Args) -> Result<Exit, Failure> {
    if screen.is_json() || !screen.is_tty || !Screen::can_ask() {
        return Err(Failure::usage("attach is for people at a terminal")
            .hint("programs use `clawd send --wait`, with `--json` for events"));
    }
    let mut daemon = home.connect()?;
    let session = session::find(&mut daemon, &args.session)?;
    let watch = Watch::new(home, screen, daemon, &session.id)?;
    let mut seat = Seat { watch, screen, next: String::new(), is_warned: false };
    seat.greet(&session, args.limit)?;
    seat.serve()
}

/// The person's place at the session.
struct Seat<'a> {
    watch: Watch<'a>,
    screen: &'a Screen,
    /// Typed while a turn ran; said when it is over.
    next: String,
    /// Ctrl-C while nothing ran: the next one detaches.
    is_warned: bool,
}

impl Seat<'_> {
    /// The end of the conversation, and what goes on now.
    fn greet(&mut self, session: &Session, limit: u16) -> Result<(), Failure> {
        let id = json!({"sessionId": session.id});
        let page = json!({"sessionId": session.id, "limit": limit});
        let calls = self.watch.daemon.call("session.toolCalls", &id)?;
        let messages = self.watch.daemon.call("session.getMessages", page)?;
        let mut messages: Vec<Message> = typed(&messages)?;
        // What is being written is shown as it comes.
        messages.retain(|message| message.status != "streaming");
        let calls: Vec<ToolCall> = typed(&calls)?;
        session::conversation(self.screen, &messages, &calls)?;
        for message in &messages {
            self.watch.turn.skip(&message.id);
        }
        let now: Session = typed(&self.watch.daemon.call("session.get", id)?)?;
        self.screen.say(&self.screen.err.dim(&format!(
            "\nattached to {} \"{}\" in {}, {}",
            session.short_id(),
            visible_line(&now.title),
            visible_line(&shorten(now.repo_path.as_ref())),
            visible_line(&now.status),
        )));
        let keys = "Enter sends a line, Ctrl-C interrupts the turn, Ctrl-D detaches";
        self.screen.say(&self.screen.err.dim(keys));
        if now.status == "running" {
            self.watch.turn.join();
            self.watch.catch_up()?;
        } else {
            self.watch.turn.prompt();
        }
        Ok(())
    }

    fn serve(mut self) -> Result<Exit, Failure> {
        let stdin = io::stdin();
        loop {
            match self.watch.next(Some(stdin.as_fd()))? {
                Step::Over(Outcome::Deleted) => {
                    self.watch.turn.break_line();
                    let why = "the session was deleted";
                    return Err(Failure::new(Exit::NotFound, "session_not_found", why));
                }
                Step::Over(outcome) => self.on_over(&outcome)?,
                Step::Interrupt => {
                    if self.is_leaving()? {
                        return Ok(self.detach());
                    }
                }
                Step::HungUp => {
                    self.watch.deny_question()?;
                    return Ok(Exit::Interrupted);
                }
                Step::Typed => match read(&stdin)? {
                    None => return Ok(self.detach()),
                    Some(text) => self.on_typed(&text)?,
                },
            }
        }
    }

    fn on_typed(&mut self, text: &[u8]) -> Result<(), Failure> {
        self.watch.turn.on_typed();
        self.is_warned = false;
        let Ok(text) = str::from_utf8(text) else {
            self.screen.note(Mark::Warn, "that was not UTF-8; nothing was sent");
            self.watch.turn.prompt();
            return Ok(());
        };
        if !text.trim().is_empty() {
            self.next.push_str(text);
            if self.watch.turn.is_running() {
                self.screen.say(&self.screen.err.dim("sent when this turn is over"));
            }
        }
        self.say_next()
    }

    /// Says what was typed, unless it is not yet its turn.
    fn say_next(&mut self) -> Result<(), Failure> {
        if self.watch.turn.is_running() {
            return Ok(());
        }
        if self.next.is_empty() {
            self.watch.turn.prompt();
            return Ok(());
        }
        let text = std::mem::take(&mut self.next);
        match self.watch.deliver(text.trim_end_matches('\n')) {
            Ok(()) => {}
            Err(failure) if failure.kind == "session_busy" => {
                self.next = text;
                self.screen.say(&self.screen.err.dim("sent when the turn that runs is over"));
            }
            Err(failure) if failure.exit == Exit::NotRunning => return Err(failure),
            Err(failure) => {
                self.screen.fail(&failure);
                self.watch.turn.prompt();
            }
        }
        Ok(())
    }

    fn on_over(&mut self, outcome: &Outcome) -> Result<(), Failure> {
        let was_interrupted = std::mem::take(&mut self.watch.interrupts) > 0;
        self.is_warned = false;
        self.watch.turn.break_line();
        if let (Outcome::Failed(why), false) = (outcome, was_interrupted) {
            self.screen.note(Mark::Fail, &format!("the turn failed: {}", visible(why)));
        } else {
            let id = json!({"sessionId": self.watch.turn.session});
            let session: Session = typed(&self.watch.daemon.call("session.get", id)?)?;
            let (mark, word) = match was_interrupted {
                true => (Mark::Warn, "interrupted after"),
                false => (Mark::Ok, "done in"),
            };
            self.watch.say_use(mark, word, &session);
        }
        self.say_next()
    }

    /// Ctrl-C ends the turn; where there is none, or twice, it is meant for us.
    fn is_leaving(&mut self) -> Result<bool, Failure> {
        if self.watch.turn.is_running() {
            if self.watch.interrupts == 1 {
                self.watch.cancel("detach")?;
            }
            return Ok(self.watch.interrupts > 1);
        }
        self.watch.interrupts = 0;
        if !std::mem::replace(&mut self.is_warned, true) {
            self.watch.turn.break_line();
            self.screen.say("Ctrl-C again or Ctrl-D to detach");
            self.watch.turn.prompt();
            return Ok(false);
        }
        Ok(true)
    }

    fn detach(&mut self) -> Exit {
        self.watch.turn.break_line();
        let id = self.watch.short_id();
        let goes_on = if self.watch.turn.is_running() { ", its turn goes on" } else { "" };
        self.screen.say(&format!("detached from session {id}{goes_on}"));
        Exit::Ok
    }
}

/// What was typed: a line, or all lines of a text that was pasted. `None` is Ctrl-D.
fn read(stdin: &io::Stdin) -> Result<Option<Vec<u8>>, Failure> {
    let io = |error: rustix::io::Errno| Failure::io("cannot read from the terminal", &error.into());
    let max = usize::try_from(PROMPT_BYTES_MAX).unwrap_or(usize::MAX);
    let (mut text, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        match rustix::io::read(stdin, &mut piece) {
            Ok(0) => break,
            Ok(length) => text.extend_from_slice(piece.get(..length).unwrap_or_default()),
            Err(rustix::io::Errno::INTR) => continue,
            // A terminal that has gone is one that says no more.
            Err(rustix::io::Errno::IO) => break,
            Err(error) => return Err(io(error)),
        }
        let mut fds = [PollFd::new(stdin, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        if text.len() > max || poll(&mut fds, Some(&now)).map_err(io)? == 0 {
            break;
        }
    }
    Ok((!text.is_empty()).then_some(text))
}
