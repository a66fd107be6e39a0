//! `relay test`: the way through the relay, step by step.

use serde_json::json;

use super::{line, look, round_trip};
use crate::exit::{Exit, Failure};
use crate::home::Home;
use crate::render::Screen;
use crate::render::style::Mark;

/// `relay test`.
pub(super) fn test(home: &Home, screen: &Screen) -> Result<Exit, Failure> {
    let (answer, relay) = look(&mut home.connect()?)?;
    let Some(relay) = relay.filter(|relay| relay.enabled) else {
        return Err(Failure::new(Exit::Failure, "relay_off", "no relay is used")
            .hint("let this machine be found at one: `clawd relay enable`"));
    };
    let is_well = relay.state == "registered";
    if screen.is_json() {
        screen.json(&json!({"ok": is_well, "relay": answer}))?;
        return Ok(if is_well { Exit::Ok } else { Exit::Failure });
    }
    if is_well {
        screen.note(Mark::Ok, &format!("registered at {}{}", relay.url, round_trip(&relay)));
        return Ok(Exit::Ok);
    }
    let failure = Failure::new(Exit::Failure, "relay_unreachable", line(&relay, screen.err));
    let hint = relay.error.and_then(|error| error.hint);
    Err(hint.map_or(failure.clone(), |hint| failure.hint(hint)))
}
