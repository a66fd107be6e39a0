//! `stop`, `pause` and `resume` of one session.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{session, typed};
use crate::connection::{Connection, Woken};
use crate::exit::{Exit, Failure};
use crate::home::Home;
use crate::render::Screen;
use crate::render::style::Mark;
use crate::wire::Session;

/// Longer than the daemon gives an agent to end its turn before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// `stop` with a session: its turn is over afterwards, and the daemon goes on.
pub(super) fn stop(home: &Home, screen: &Screen, id: &str) -> Result<Exit, Failure> {
    let mut daemon = home.connect()?;
    let session = session::find(&mut daemon, id)?;
    daemon.call("session.cancel", json!({"sessionId": session.id}))?;
    let now = wait_over(&mut daemon, &session.id)?;
    let short = session.short_id();
    let word = match session.status.as_str() {
        "running" => format!("ended the turn of session {short}"),
        _ => format!("no turn was running in session {short}"),
    };
    say(screen, &now, &word)
}

/// `pause`.
pub(super) fn pause(home: &Home, screen: &Screen, id: &str) -> Result<Exit, Failure> {
    let mut daemon = home.connect()?;
    let session = session::find(&mut daemon, id)?;
    daemon.call("session.pause", json!({"sessionId": session.id}))?;
    let now = look(&mut daemon, &session.id)?;
    let short = session.short_id();
    let word = match now["status"].as_str() {
        Some("running") => {
            format!("session {short} takes no more messages; its turn goes on to its end")
        }
        _ => format!("session {short} is paused; `clawd resume {short}` lets it go on"),
    };
    say(screen, &now, &word)
}

/// `resume`.
pub(super) fn resume(home: &Home, screen: &Screen, id: &str) -> Result<Exit, Failure> {
    let mut daemon = home.connect()?;
    let session = session::find(&mut daemon, id)?;
    daemon.call("session.resume", json!({"sessionId": session.id}))?;
    let now = look(&mut daemon, &session.id)?;
    say(screen, &now, &format!("session {} takes messages", session.short_id()))
}

fn say(screen: &Screen, session: &Value, word: &str) -> Result<Exit, Failure> {
    if screen.is_json() {
        screen.json(session)?;
    } else {
        screen.note(Mark::Ok, word);
    }
    Ok(Exit::Ok)
}

fn look(daemon: &mut Connection, id: &str) -> Result<Value, Failure> {
    daemon.call("session.get", json!({"sessionId": id}))
}

/// The session once no turn runs in it.
fn wait_over(daemon: &mut Connection, id: &str) -> Result<Value, Failure> {
    let deadline = Instant::now() + STOP_TIMEOUT;
    loop {
        let now = look(daemon, id)?;
        let session: Session = typed(&now)?;
        if session.status != "running" {
            return Ok(now);
        }
        // Any event is worth another look.
        if let Woken::Timeout = daemon.wait(&[], Some(deadline))? {
            let why = "the turn was told to end and has not after 30 s";
            return Err(Failure::new(Exit::Failure, "still_running", why)
                .hint(format!("see `clawd session show {}`", session.short_id())));
        }
    }
}
