//! `relay enable|disable|status`: whether this daemon is to be found at a relay, and whether it is.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::time::{Duration, Instant};

use clawd_protocol::access::token::Secret;
use clawd_protocol::relay::pin;
use clawd_protocol::text::visible_line;
use serde_json::{Value, json};

use super::{relay_serve, start, typed};
use crate::args::{Relay as Args, RelayEnable};
use crate::connection::{Connection, Woken};
use crate::daemon;
use crate::exit::{Exit, Failure};
use crate::home::Home;
use crate::render::Screen;
use crate::render::style::{Mark, Style};
use crate::wire::{Relay, Status};

mod test;

/// The relay of those who name none.
const DEFAULT_URL: &str = "wss://api.clawde.io/relay";
/// So long a first connection may take before it is said that it is still tried.
const PATIENCE: Duration = Duration::from_secs(15);
/// That an attempt has failed is no event while nothing was connected before; it can only be looked for.
const LOOK: Duration = Duration::from_millis(200);
const ACCESS_TOKEN_BYTES_MAX: u64 = 4096;

/// `relay …`.
pub(super) fn relay(home: &Home, screen: &Screen, args: &Args) -> Result<Exit, Failure> {
    match args {
        Args::Enable(args) => enable(home, screen, args),
        Args::Disable => disable(home, screen),
        Args::Status => status(home, screen),
        Args::Test => test::test(home, screen),
        // A relay is about no daemon: it is run before one is looked for.
        Args::Serve(args) => relay_serve::serve(screen, args),
    }
}

fn enable(home: &Home, screen: &Screen, args: &RelayEnable) -> Result<Exit, Failure> {
    let access_token = args.access_token_file.as_deref().map(access_token).transpose()?;
    let (mut daemon, was_running) = start::connect_or_start(home)?;
    if !was_running {
        let status: Status = typed(&daemon.call("daemon.status", json!({}))?)?;
        start::say_running(home, screen, false, status.pid)?;
    }
    let before = look(&mut daemon)?.1.map(|relay| relay.url).filter(|url| !url.is_empty());
    let url = match (&args.url, &before) {
        (Some(url), _) => url.to_string(),
        (None, Some(url)) => url.clone(),
        (None, None) => DEFAULT_URL.to_owned(),
    };
    let mut wanted = json!({"enabled": true, "url": url});
    // What belongs to one relay is not kept for another: its key is not that one's, and its token is none of its business.
    let is_other = before.is_none_or(|before| before != url);
    if args.pin.is_some() || is_other {
        wanted["pin"] = args.pin.as_ref().map(pin::format).into();
    }
    if access_token.is_some() || is_other {
        wanted["accessToken"] = access_token.as_ref().map(Secret::expose).into();
    }
    screen.say(&format!("the relay is {}", visible_line(&url)));
    screen
        .say("it learns this daemon's id, addresses, sizes and times; what is said it cannot read");
    daemon.call("daemon.setRelay", wanted)?;
    let (answer, relay) = settle(&mut daemon, Instant::now() + PATIENCE)?;
    if screen.is_json() {
        screen.json(&answer)?;
        return Ok(Exit::Ok);
    }
    match relay.state.as_str() {
        "registered" => {
            screen.note(Mark::Ok, &format!("connected{}", round_trip(&relay)));
            screen.say("  next: clawd pair");
        }
        _ => {
            // It is enabled all the same, and the daemon never gives up.
            screen.note(Mark::Warn, &line(&relay, screen.err));
            if let Some(hint) = relay.error.as_ref().and_then(|error| error.hint.as_deref()) {
                screen.say(&format!("  hint: {}", visible_line(hint)));
            }
            screen.say("  it is tried again and again; see `clawd relay status`");
        }
    }
    Ok(Exit::Ok)
}

fn disable(home: &Home, screen: &Screen) -> Result<Exit, Failure> {
    let mut daemon = home.connect()?;
    let (_, relay) = look(&mut daemon)?;
    let answer = match relay {
        Some(_) => daemon.call("daemon.setRelay", json!({"enabled": false}))?,
        None => json!({"enabled": false}),
    };
    if screen.is_json() {
        screen.json(&answer)?;
    } else {
        let is_open = !daemon::reachable(&start::spot(home)?.bind).is_empty();
        screen.note(
            Mark::Ok,
            match is_open {
                true => "the relay is not used; devices on the same network come in still",
                false => "the relay is not used; no other machine can come in now",
            },
        );
    }
    Ok(Exit::Ok)
}

fn status(home: &Home, screen: &Screen) -> Result<Exit, Failure> {
    let (answer, relay) = look(&mut home.connect()?)?;
    if screen.is_json() {
        screen.json(&if answer.is_null() {
            json!({"enabled": false, "state": "off"})
        } else {
            answer
        })?;
        return Ok(Exit::Ok);
    }
    let Some(relay) = relay else {
        screen.line("off")?;
        screen.say("  hint: devices can come in from anywhere by a relay: clawd relay enable");
        return Ok(Exit::Ok);
    };
    screen.line(&line(&relay, screen.out))?;
    if let Some(pin) = &relay.pin {
        screen.line(&format!("  only with the key {}", visible_line(pin)))?;
    }
    if relay.state == "registered" {
        screen.line(&format!("  devices that come by it now: {}", relay.tunnels))?;
    }
    if let Some(hint) = relay.error.as_ref().and_then(|error| error.hint.as_deref()) {
        screen.line(&format!("  hint: {}", visible_line(hint)))?;
    }
    Ok(Exit::Ok)
}

/// What the daemon says about its relay: as it says it, and as a type.
fn look(daemon: &mut Connection) -> Result<(Value, Option<Relay>), Failure> {
    let mut answer = daemon.call("daemon.status", json!({}))?;
    let status: Status = typed(&answer)?;
    Ok((answer.get_mut("relay").map(Value::take).unwrap_or_default(), status.relay))
}

/// What the first attempt came to; the state at the deadline, if it comes to nothing until then.
fn settle(daemon: &mut Connection, deadline: Instant) -> Result<(Value, Relay), Failure> {
    loop {
        let (answer, relay) = look(daemon)?;
        let relay = relay.unwrap_or_default();
        if relay.state == "registered" || relay.error.is_some() || Instant::now() >= deadline {
            return Ok((answer, relay));
        }
        let next = deadline.min(Instant::now() + LOOK);
        loop {
            match daemon.wait(&[], Some(next))? {
                Woken::Event(event) if !event.method.starts_with("relay.") => {}
                Woken::Event(_) | Woken::Timeout => break,
                Woken::Answer(_) | Woken::Other(_) => {}
            }
        }
    }
}

/// One line on a relay.
pub(super) fn line(relay: &Relay, style: Style) -> String {
    let url = visible_line(&relay.url);
    match relay.state.as_str() {
        _ if !relay.enabled => "off".to_owned(),
        "registered" => format!("connected {url}{}", round_trip(relay)),
        "connecting" => format!("connecting to {url}"),
        _ => {
            let why = relay.error.as_ref().map(|error| error.message.as_str());
            let why = why.map_or_else(String::new, |why| format!(": {}", visible_line(why)));
            let again = relay
                .retry_in_secs
                .map_or_else(String::new, |secs| format!(" {} again in {secs} s", style.dot()));
            format!("not connected to {url}{why}{again}")
        }
    }
}

fn round_trip(relay: &Relay) -> String {
    relay.rtt_ms.map_or_else(String::new, |ms| format!(" ({ms} ms)"))
}

/// What a relay wants to see. Never an argument: those stand in process lists and shell histories (security K3).
fn access_token(path: &Path) -> Result<Secret, Failure> {
    let failed = |error: io::Error| {
        Failure::usage(format!("--access-token-file: {}: {error}", path.display()))
    };
    let source: Box<dyn io::Read> = match path.to_str() {
        Some("-") => Box::new(io::stdin()),
        Some(_) | None => Box::new(File::open(path).map_err(failed)?),
    };
    let mut text = String::new();
    source.take(ACCESS_TOKEN_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    let token = text.trim();
    let is_plain = token.bytes().all(|byte| byte.is_ascii_graphic());
    if token.is_empty() || text.len() as u64 > ACCESS_TOKEN_BYTES_MAX || !is_plain {
        return Err(Failure::usage("--access-token-file: this is no access token")
            .hint("it has one line of plain characters"));
    }
    Ok(Secret::new(token.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relay(value: Value) -> Relay {
        typed(&value).unwrap()
    }

    #[test]
    fn the_state_of_a_relay_is_one_line() {
        let style = Style { colour: false, utf8: true };
        let url = "wss://relay.example.org";
        for (said, line_) in [
            (json!({"enabled": false, "url": url, "state": "off"}), "off"),
            (
                json!({"enabled": true, "url": url, "state": "registered", "rttMs": 41}),
                "connected wss://relay.example.org (41 ms)",
            ),
            (
                json!({"enabled": true, "url": url, "state": "connecting", "error": null}),
                "connecting to wss://relay.example.org",
            ),
            (
                json!({"enabled": true, "url": url, "state": "waiting", "retryInSecs": 4,
                       "error": {"kind": "pin", "message": "another\u{1b} key", "hint": null}}),
                "not connected to wss://relay.example.org: another\\u{1b} key · again in 4 s",
            ),
        ] {
            assert_eq!(line(&relay(said), style), line_);
        }
    }

    #[test]
    fn k3_an_access_token_is_read_from_a_file_and_is_one_word() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "abc-123\n").unwrap();
        assert_eq!(access_token(&path).unwrap().expose(), "abc-123");
        for text in ["", "\n", "two words", "two\nlines", "\u{1b}", &"x".repeat(5000)] {
            std::fs::write(&path, text).unwrap();
            let failure = access_token(&path).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage);
            assert!(text.trim().is_empty() || !failure.message.contains(text));
        }
        assert_eq!(access_token(&dir.path().join("none")).unwrap_err().exit, Exit::Usage);
    }
}
