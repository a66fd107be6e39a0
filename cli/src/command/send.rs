//! `send`: a message into a session, and no more, unless told to wait.
//!
//! Owns what a message is called: a name of its own, so that sending it again is harmless.

use serde_json::{Value, json};

use super::run::prompt;
use super::session;
use super::watch::Watch;
use crate::args::Send as Args;
use crate::connection::Connection;
use crate::exit::{Exit, Failure};
use crate::home::Home;
use crate::render::Screen;
use crate::render::style::Mark;

/// A message on its way.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) client_id: String,
    params: Value,
}

impl Outgoing {
    pub(super) fn new(session: &str, content: &str) -> Result<Self, Failure> {
        let mut name = [0; 16];
        getrandom::fill(&mut name)
            .map_err(|error| Failure::new(Exit::Failure, "entropy", error.to_string()))?;
        let client_id: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
        let params =
            json!({"sessionId": session, "content": content, "clientMessageId": client_id});
        Ok(Self { client_id, params })
    }

    /// Sends it. However often that is done, it is one message.
    pub(super) fn send(&self, daemon: &mut Connection) -> Result<Value, Failure> {
        daemon.call("session.sendMessage", &self.params)
    }
}

/// `send`.
pub(super) fn send(home: &Home, screen: &Screen, args: &Args) -> Result<Exit, Failure> {
    let text = prompt(&args.text)?;
    let mut daemon = home.connect()?;
    let session = session::find(&mut daemon, &args.session)?;
    if args.wait {
        return Watch::new(home, screen, daemon, &session.id)?.one_turn(&text);
    }
    let message = Outgoing::new(&session.id, &text)?;
    let answer = match message.send(&mut daemon) {
        // It may have arrived or not: that makes no difference.
        Err(failure) if failure.exit == Exit::NotRunning => message.send(&mut home.connect()?),
        other => other,
    }?;
    if screen.is_json() {
        screen.json(&answer)?;
    } else {
        screen.note(Mark::Ok, &format!("sent to session {}", session.short_id()));
    }
    Ok(Exit::Ok)
}
