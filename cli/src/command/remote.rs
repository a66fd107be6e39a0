//! `remote pair|list|move|remove`: this command line as a device of other daemons.
//!
//! Owns what is said about them; refuses to know how they are reached and kept. A device's token is printed nowhere.

use clawd_protocol::text::visible_line;
use serde_json::{Value, json};

use super::{columns, confirm};
use crate::args::{Global, Remote as Args};
use crate::exit::{Exit, Failure};
use crate::home::data_dir;
use crate::remote::path::{DirectUrl, NoDirectUrl};
use crate::remote::{Away, Remote, Remotes};
use crate::render::Screen;
use crate::render::style::Mark;
use crate::render::table::{Cell, Table};
use crate::render::time;

mod pair;

/// `remote …`.
pub(super) fn remote(global: &Global, screen: &Screen, args: &Args) -> Result<Exit, Failure> {
    let dir = data_dir(global)?;
    let remotes = Remotes::of(&dir);
    match args {
        Args::Pair(args) => pair::pair(&remotes, screen, args)?,
        Args::List => list(&remotes, screen)?,
        Args::Move { name, address } => relocate(screen, &Away::to(&dir, name)?, address)?,
        Args::Remove { name, yes } => {
            let away = Away::to(&dir, name)?;
            let host = visible_line(&away.remote.host_name);
            confirm(&format!("Forget {name} (\"{host}\"), and have it forget this device?"), *yes)?;
            remove(&remotes, screen, &away)?;
        }
    }
    Ok(Exit::Ok)
}

fn list(remotes: &Remotes, screen: &Screen) -> Result<(), Failure> {
    let all = remotes.list()?;
    if screen.is_json() {
        return screen.json(&Value::Array(all.iter().map(Remote::to_json).collect()));
    }
    if all.is_empty() {
        screen
            .say("no remotes yet; type `clawd pair` on another machine, `clawd remote pair` here");
        return Ok(());
    }
    let now = time::now();
    let mut table =
        Table::new(&["NAME", "HOST…", "ROLE", "ADDRESS…", "RELAY?", "PAIRED?", "EXPIRES?"]);
    for remote in &all {
        let expires = match remote.expires_at {
            None => "never".to_owned(),
            Some(at) if at <= now => "expired".to_owned(),
            Some(at) => format!("in {}", time::coarse(at - now)),
        };
        let address = remote.urls.first().map_or_else(|| "-".to_owned(), ToString::to_string);
        let relay = remote.relay.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
        table.row(vec![
            Cell::text(&remote.name),
            Cell::text(&remote.host_name),
            Cell::text(&remote.role),
            Cell::text(&address),
            Cell::text(&relay),
            Cell::both(&time::ago(remote.paired_at, now), &remote.paired_at.to_string()),
            Cell::both(&expires, &remote.expires_at.map_or(expires.clone(), |at| at.to_string())),
        ]);
    }
    screen.print(&if screen.is_tty {
        table.aligned(screen.out, columns(), true)
    } else {
        table.tabbed()
    })
}

/// Nothing is kept unless its key answers there and it knows us still.
fn relocate(screen: &Screen, away: &Away, address: &str) -> Result<(), Failure> {
    let url: DirectUrl = address
        .parse()
        .map_err(|error: NoDirectUrl| Failure::usage(format!("`{address}`: {error}")))?;
    away.connect_at(&url)?;
    let name = &away.remote.name;
    if screen.is_json() {
        return screen.json(&json!({"name": name, "url": url}));
    }
    screen.note(Mark::Ok, &format!("{name} is at {url}"));
    Ok(())
}

/// Forgotten here in any case; there, if it can be told.
fn remove(remotes: &Remotes, screen: &Screen, away: &Away) -> Result<(), Failure> {
    let remote = &away.remote;
    let is_revoked = away.leave();
    remotes.forget(remote)?;
    let name = &remote.name;
    let id = visible_line(&remote.device_id);
    if screen.is_json() {
        return screen.json(&json!({"name": name, "revoked": is_revoked}));
    }
    if is_revoked {
        screen.note(Mark::Ok, &format!("forgot {name}, and it does not know this device any more"));
    } else {
        let why = format!("forgot {name}, but it could not be told and knows this device still");
        screen.note(Mark::Warn, &format!("{why}; there: `clawd device revoke {id}`"));
    }
    Ok(())
}
