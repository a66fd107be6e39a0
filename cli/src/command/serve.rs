//! `serve`: the daemon in the foreground.

use std::io::{self, Write as _};
use std::panic;

use serde_json::json;

use crate::args::Global;
use crate::daemon;
use crate::exit::{Exit, Failure};
use crate::home::{self, Home};
use crate::places::Places;
use crate::render::Screen;

/// `serve`; under `--detached` a parent is told how the start went.
pub(super) fn serve_or_report(
    global: &Global,
    screen: &Screen,
    detached: bool,
) -> Result<Exit, Failure> {
    if detached {
        // The terminal that it was started from must not take it along. A process that leads its group already cannot
        // leave it, and need not.
        let _ = rustix::process::setsid();
    }
    let result = Home::of(global).and_then(|home| serve(home, screen, detached));
    match result {
        Err(failure) if detached => {
            report(&failure.to_json());
            Err(failure)
        }
        other => other,
    }
}

/// Runs the daemon until it is told to stop.
pub(super) fn serve(home: Home, screen: &Screen, detached: bool) -> Result<Exit, Failure> {
    daemon::harden();
    hide_panics();
    let dir = home::shorten(&home.dir);
    daemon::serve(home, screen.is_quiet(), |ready| {
        let places = Places::of(ready.addresses, ready.port);
        let version = env!("CARGO_PKG_VERSION");
        screen.say(&format!("clawd {version} listens on {places}, data in {dir}"));
        places.warn(screen);
        if detached {
            report(&json!({"ready": {"port": ready.port}}));
        }
    })?;
    screen.say("clawd has stopped");
    Ok(Exit::Ok)
}

/// One line for the parent. If it has gone, nobody waits for it.
fn report(line: &serde_json::Value) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// A panic says where, never with what: its message may hold a peer's text or a secret (security A8).
fn hide_panics() {
    panic::set_hook(Box::new(|info| {
        let place = info.location().map_or_else(String::new, |place| {
            format!(" at {}:{}:{}", place.file(), place.line(), place.column())
        });
        let _ = writeln!(io::stderr().lock(), "fatal: a bug{place}; please report it");
    }));
}
