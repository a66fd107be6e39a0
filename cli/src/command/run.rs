//! `run`: one prompt, from the question to the end of the turn.

use std::io::{self, Read as _};

use serde_json::json;

use super::watch::Watch;
use super::{session, typed};
use crate::args::Run as Args;
use crate::exit::{Exit, Failure};
use crate::home::Home;
use crate::render::Screen;
use crate::wire::Session;

/// More than this the daemon would refuse anyway.
pub(super) const PROMPT_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Long enough to know a session again by.
const TITLE_CHARS_MAX: usize = 60;

/// `run`.
pub(super) fn run(home: &Home, screen: &Screen, args: &Args) -> Result<Exit, Failure> {
    let prompt = prompt(&args.prompt)?;
    let dir = home.dir_there(args.dir.as_deref())?;
    let mut daemon = home.connect()?;
    let title = Some(title(&prompt));
    let asked = [("provider", &args.provider), ("model", &args.model), ("title", &title)];
    let created: Session = typed(&session::create(&mut daemon, &dir, &asked)?)?;
    let said = Watch::new(home, screen, daemon, &created.id)?.one_turn(&prompt);
    if said.as_ref().is_err_and(|failure| failure.kind != "turn_failed") {
        delete_if_empty(home, &created.id);
    }
    said
}

/// Nothing was said in it: an empty session would only be in the way.
fn delete_if_empty(home: &Home, session: &str) {
    let id = json!({"sessionId": session});
    let Ok(mut daemon) = home.connect() else { return };
    let now = daemon.call("session.get", &id);
    if now.is_ok_and(|session| session["messageCount"] == 0) {
        let _ = daemon.call("session.delete", &id);
    }
}

/// The words of the command line; `-` alone is what stdin says.
pub(super) fn prompt(words: &[String]) -> Result<String, Failure> {
    let prompt = match words {
        [dash] if dash == "-" => {
            let mut text = String::new();
            io::stdin()
                .take(PROMPT_BYTES_MAX)
                .read_to_string(&mut text)
                .map_err(|error| Failure::io("cannot read the prompt from stdin", &error))?;
            text
        }
        words => words.join(" "),
    };
    if prompt.trim().is_empty() {
        return Err(Failure::usage("the prompt is empty").hint("clawd run \"explain this repo\""));
    }
    Ok(prompt)
}

/// A session is called what was asked in it.
fn title(prompt: &str) -> String {
    let line = prompt.trim().lines().next().unwrap_or_default().trim();
    let cut: String = line.chars().take(TITLE_CHARS_MAX).collect();
    if cut.len() < line.len() { format!("{}…", cut.trim_end()) } else { cut }
}
