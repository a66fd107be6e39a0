//! `identity show|reset`: the key by which devices know this daemon.

use clawd_protocol::Fingerprint;
use clawd_protocol::relay::pin;
use serde_json::{Value, json};

use super::{confirm, start, typed};
use crate::args::{Global, Identity as Args};
use crate::daemon;
use crate::exit::{Exit, Failure};
use crate::home::{self, Home};
use crate::render::Screen;
use crate::render::style::Mark;
use crate::wire::{Device, Status};

/// `identity …`.
pub(super) fn identity(global: &Global, screen: &Screen, args: &Args) -> Result<Exit, Failure> {
    match args {
        Args::Show => {
            let id = daemon::identity(&home::data_dir(global)?)?.ok_or_else(|| {
                Failure::new(Exit::NotFound, "no_identity", "there is no identity yet")
                    .hint("start the daemon once with `clawd up`; it makes one")
            })?;
            show(screen, id)?;
        }
        Args::Reset { yes } => reset(&Home::to_reach(global, screen)?, screen, *yes)?,
    }
    Ok(Exit::Ok)
}

/// All spellings of one id.
fn spelled(id: Fingerprint) -> Value {
    json!({"daemonId": id.to_string(), "grouped": id.grouped(), "pin": pin::format(&id)})
}

fn show(screen: &Screen, id: Fingerprint) -> Result<(), Failure> {
    if screen.is_json() {
        return screen.json(&spelled(id));
    }
    let field = |name: &str, value: &str| screen.line(&format!("{name:<10} {value}"));
    field("id", &id.grouped())?;
    field("daemonId", &id.to_string())?;
    field("pin", &pin::format(&id))
}

/// The daemon does it, since it must forget its devices in the same breath. Whoever ran it then finds it running again.
fn reset(home: &Home, screen: &Screen, is_sure: bool) -> Result<(), Failure> {
    if !is_sure && !Screen::can_ask() {
        return confirm("Replace this daemon's identity and shut out all devices?", false);
    }
    let (mut daemon, was_running) = start::connect_or_start(home)?;
    let before = daemon::identity(&home.dir)?;
    let spot = start::spot(home)?;
    let status: Status = typed(&daemon.call("daemon.status", json!({}))?)?;
    let listed = daemon.call("device.list", json!({}))?;
    let devices: Vec<Device> = typed(&listed)?;
    let turns = match status.active_sessions {
        0 => String::new(),
        turns => format!("{turns} running turns are ended, and "),
    };
    let what = match devices.len() {
        0 => "no device is paired".to_owned(),
        1 => "1 paired device is shut out for ever".to_owned(),
        devices => format!("{devices} paired devices are shut out for ever"),
    };
    let asked = confirm(&format!("Replace this daemon's identity? {turns}{what}."), is_sure);
    if asked.is_err() && !was_running {
        daemon.call("daemon.shutdown", json!({}))?;
        start::wait_gone(home, daemon, status.pid)?;
        return asked;
    }
    asked?;
    let answer = daemon.call("daemon.resetIdentity", json!({}))?;
    start::wait_gone(home, daemon, status.pid)?;
    if was_running {
        start::spawn(home, &spot)?;
    }
    let new = daemon::identity(&home.dir)?.filter(|new| Some(*new) != before);
    let id = new.ok_or_else(|| {
        Failure::new(Exit::Failure, "no_identity", "the daemon has made no new identity")
            .hint("see `clawd logs`")
    })?;
    if screen.is_json() {
        let mut spelled = spelled(id);
        spelled["reset"] = true.into();
        spelled["devices"] = answer.get("devices").cloned().unwrap_or_default();
        return screen.json(&spelled);
    }
    let revoked = answer.get("devices").and_then(Value::as_u64).unwrap_or_default();
    let again = if was_running { "; clawd runs again, in the background" } else { "" };
    let revoked = match revoked {
        1 => "1 device was revoked".to_owned(),
        devices => format!("{devices} devices were revoked"),
    };
    screen.note(Mark::Ok, &format!("a new identity; {revoked}{again}"));
    show(screen, id)
}
