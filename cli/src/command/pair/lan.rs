//! `pair --lan`: the daemon listens on the network from now on, until it is stopped.
//!
//! Refuses to end a turn that runs. What is in `config.toml` stays as it is, so the next start is on loopback again
//! (security F1).

use serde_json::json;

use crate::command::{confirm, start, typed};
use crate::daemon;
use crate::exit::{Exit, Failure};
use crate::home::{Home, addresses};
use crate::render::Screen;
use crate::render::style::Mark;
use crate::wire::Status;

/// Makes it so, with a restart if need be.
pub(super) fn open(home: &Home, screen: &Screen, is_sure: bool) -> Result<(), Failure> {
    let bind = addresses(["0.0.0.0"])?;
    if daemon::reachable(&bind).is_empty() {
        return Err(Failure::new(
            Exit::Failure,
            "no_network",
            "this machine has no address at which others could reach it",
        )
        .hint("join a network, or use a relay: `clawd relay enable`"));
    }
    let mut spot = start::spot(home)?;
    let mut daemon = match home.connect() {
        Ok(daemon) => daemon,
        Err(failure) if failure.kind == "not_running" => {
            spot.bind = bind;
            return start(home, screen, &spot);
        }
        Err(failure) => return Err(failure),
    };
    if !daemon::reachable(&spot.bind).is_empty() {
        return Ok(());
    }
    let status: Status = typed(&daemon.call("daemon.status", json!({}))?)?;
    if status.active_sessions > 0 {
        let why =
            format!("{} turns are running, and a restart would end them", status.active_sessions);
        return Err(Failure::new(Exit::Failure, "busy", why).hint(
            "wait for them (`clawd status`), or end them: clawd stop; clawd up --bind 0.0.0.0",
        ));
    }
    confirm("Restart clawd so that this network can reach it?", is_sure)?;
    daemon.call("daemon.shutdown", json!({}))?;
    start::wait_gone(home, daemon, status.pid)?;
    spot.bind = bind;
    start(home, screen, &spot)
}

fn start(home: &Home, screen: &Screen, spot: &start::Spot) -> Result<(), Failure> {
    start::spawn(home, spot)?;
    let places = start::spot(home)?.places();
    screen.note(
        Mark::Ok,
        &format!("clawd listens on {places}, in the background until `clawd stop`"),
    );
    Ok(())
}
