//! `pair` and `token qr`: a pairing window, shown until a device has come through it.
//!
//! Owns the way to a window that somebody can come through; `show` has what happens while it is open. Invariant (security
//! D7): no code is drawn that cannot work, and none that holds more than a ticket for this window.

use clawd_protocol::Fingerprint;
use clawd_protocol::text::visible_line;
use serde_json::{Map, Value, json};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::{relay, typed};
use crate::args::Pair as Args;
use crate::connection::Connection;
use crate::exit::{Exit, Failure, without_os_error};
use crate::home::Home;
use crate::interrupts::Interrupts;
use crate::reach;
use crate::render::Screen;
use crate::render::style::Mark;
use crate::wire::{Pairing, Status};
use page::Poster;
pub(super) use page::{Page, check_size, ink, window};
use progress::Outcome;
use show::Show;

mod keys;
mod lan;
mod page;
mod progress;
mod show;

/// Who comes by PIN or relay waits for a yes (security D5), and this process has gone by then.
const NOBODY_IS_ASKED: &str = "nobody is asked here: the code works on the same network; for the PIN, and by a relay, add `--yes`";

/// A window as it is asked for.
struct Request<'a> {
    params: Map<String, Value>,
    screen: &'a Screen,
    is_ascii: bool,
    /// For programs on this machine: the place where they find the daemon.
    local: Option<String>,
}

impl Request<'_> {
    /// Opens a window: its name, and what is shown of it.
    fn open(&self, daemon: &mut Connection) -> Result<(String, Poster), Failure> {
        let pairing: Pairing = typed(&daemon.call("daemon.pairPin", &self.params)?)?;
        let poster = self.poster(&pairing)?;
        Ok((pairing.id, poster))
    }

    fn poster(&self, pairing: &Pairing) -> Result<Poster, Failure> {
        match &self.local {
            Some(url) => Ok(Poster::local(pairing, url, self.screen)),
            None => Poster::of(pairing, self.is_ascii, self.screen),
        }
    }
}

/// `pair`: the PIN, and a QR code where there is room for it.
pub(super) fn pair(home: &Home, screen: &Screen, args: &Args) -> Result<Exit, Failure> {
    if args.lan {
        lan::open(home, screen, args.yes)?;
    }
    let mut daemon = home.connect()?;
    let mut params = Map::new();
    if let Some(role) = args.role {
        params.insert("role".to_owned(), role.word().into());
    }
    if let Some(name) = &args.name {
        params.insert("name".to_owned(), name.as_str().into());
    }
    if args.unlock {
        params.insert("unlock".to_owned(), true.into());
    }
    if args.yes {
        params.insert("confirm".to_owned(), false.into());
    }
    let status: Status = typed(&daemon.call("daemon.status", json!({}))?)?;
    let local = args.local.then(|| format!("ws://{}", home.at(status.port)));
    let request = Request { params, screen, is_ascii: args.ascii, local };
    let answer = daemon.call("daemon.pairPin", &request.params)?;
    if screen.is_json() {
        if !args.yes {
            screen.say(NOBODY_IS_ASKED);
        }
        screen.json(&answer)?;
        return Ok(Exit::Ok);
    }
    if args.yes {
        screen.note(
            Mark::Warn,
            "whoever has the PIN or the code is let in without being asked about",
        );
    }
    let pairing: Pairing = typed(&answer)?;
    if request.local.is_none() {
        check(&mut daemon, screen, &pairing, &status)?;
    }
    if !screen.is_tty {
        if !args.yes {
            screen.say(NOBODY_IS_ASKED);
        }
        screen.line(&pairing.payload())?;
        return Ok(Exit::Ok);
    }
    let poster = request.poster(&pairing)?;
    show_until_over(&mut daemon, &request, pairing.id, poster)
}

/// `token qr`: the same, for those who want the QR code.
pub(super) fn qr(home: &Home, screen: &Screen, ascii: bool) -> Result<Exit, Failure> {
    let mut daemon = home.connect()?;
    let status: Status = typed(&daemon.call("daemon.status", json!({}))?)?;
    let request = Request { params: Map::new(), screen, is_ascii: ascii, local: None };
    let pairing: Pairing = typed(&daemon.call("daemon.pairPin", &request.params)?)?;
    check(&mut daemon, screen, &pairing, &status)?;
    if screen.is_json() || !screen.is_tty {
        screen.line(&pairing.payload())?;
        return Ok(Exit::Ok);
    }
    let poster = request.poster(&pairing)?;
    if let Err(failure) = poster.check_size(window()) {
        daemon.call("daemon.pairCancel", json!({"pairingId": pairing.id}))?;
        return Err(failure);
    }
    show_until_over(&mut daemon, &request, pairing.id, poster)
}

/// Whether another machine can come through this window; closes it if none can.
fn check(
    daemon: &mut Connection,
    screen: &Screen,
    pairing: &Pairing,
    status: &Status,
) -> Result<(), Failure> {
    let mut ways = 0;
    let key = pairing.daemon_id.parse::<Fingerprint>();
    if !pairing.urls.is_empty() {
        screen.say("checking that a device can reach this machine");
    }
    for url in &pairing.urls {
        let shown = visible_line(url);
        match key.map_err(|error| error.to_string()).and_then(|key| reach::check(url, key)) {
            Ok(at) => {
                ways += 1;
                screen.note(Mark::Ok, &at.to_string());
            }
            Err(why) => screen.note(Mark::Fail, &format!("{shown}: {}", without_os_error(why))),
        }
    }
    if let Some(relay) = status.relay.as_ref().filter(|relay| relay.enabled) {
        let is_well = relay.state == "registered";
        ways += usize::from(is_well);
        let mark = if is_well { Mark::Ok } else { Mark::Fail };
        screen.note(mark, &format!("relay {}", relay::line(relay, screen.err)));
    }
    if pairing.reachable && ways > 0 {
        return Ok(());
    }
    daemon.call("daemon.pairCancel", json!({"pairingId": pairing.id}))?;
    Err(match pairing.urls.is_empty() {
        true => Failure::new(
            Exit::Failure,
            "unreachable",
            "no other machine can reach this one: clawd listens here only, and no relay is connected",
        ),
        false => Failure::new(
            Exit::Failure,
            "unreachable",
            "no other machine can reach this one: nothing answers where clawd should listen",
        ),
    }
    .hint(
        "same network: clawd pair --lan; anywhere: clawd relay enable; a program on this machine: \
         clawd pair --local",
    ))
}

fn show_until_over(
    daemon: &mut Connection,
    request: &Request<'_>,
    pairing: String,
    poster: Poster,
) -> Result<Exit, Failure> {
    let screen = request.screen;
    let mut show = Show::open(daemon, request, pairing, poster, screen)?;
    let outcome = show.run();
    let pairing = show.pairing.clone();
    // Before anything is said: talk belongs on the main screen.
    drop(show);
    match outcome? {
        Outcome::Paired { id, name, platform, role } => {
            let role = role.map_or_else(String::new, |role| format!(", role: {role}"));
            screen.note(
                Mark::Ok,
                &format!(
                    "paired \"{name}\" ({platform}){role}      undo: clawd device revoke {id}"
                ),
            );
            Ok(Exit::Ok)
        }
        Outcome::Declined(why) => Err(Failure::new(
            Exit::Failure,
            "declined",
            format!("the device was not let in: {why}"),
        )
        .hint("its PIN and code are used up; show new ones with `clawd pair`")),
        Outcome::Expired => {
            Err(Failure::new(Exit::Failure, "expired", "nobody came before the PIN expired")
                .hint("show a new one with `clawd pair`"))
        }
        Outcome::Closed(why) => Err(Failure::new(
            Exit::Failure,
            "pairing_closed",
            format!("the pairing window was closed: {why}"),
        )
        .hint("show a new PIN with `clawd pair`")),
        Outcome::Interrupted => {
            daemon.call("daemon.pairCancel", json!({"pairingId": pairing}))?;
            screen.say("the pairing window is closed");
            Ok(Exit::Interrupted)
        }
    }
}

/// Everything that would end the process and leave a secret on the screen.
pub(super) fn signals() -> Result<Interrupts, Failure> {
    Interrupts::catch(&[SIGINT, SIGTERM, SIGHUP])
}
