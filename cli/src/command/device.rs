//! `device list|rename|revoke|role`.

use clawd_protocol::text::visible_line;
use serde_json::{Value, json};

use super::{columns, confirm, resolve, typed};
use crate::args::Device as Args;
use crate::connection::Connection;
use crate::exit::{Exit, Failure};
use crate::home::Home;
use crate::render::Screen;
use crate::render::style::Mark;
use crate::render::table::{Cell, Table, unique_len};
use crate::render::time;
use crate::wire::Device;

/// `device …`.
pub(super) fn device(home: &Home, screen: &Screen, args: &Args) -> Result<Exit, Failure> {
    let mut daemon = home.connect()?;
    match args {
        Args::List { all } => list(&mut daemon, screen, *all)?,
        Args::Rename { id, name } => {
            let device = find(&mut daemon, id)?;
            let answer = daemon.call("device.rename", json!({"id": device.id, "name": name}))?;
            done(screen, &answer, &format!("{} is now called \"{name}\"", quoted(&device)))?;
        }
        Args::Revoke { id, yes } => {
            let device = find(&mut daemon, id)?;
            confirm(&format!("Shut {} out for ever?", quoted(&device)), *yes)?;
            let answer = daemon.call("device.revoke", json!({"id": device.id}))?;
            done(screen, &answer, &format!("revoked {}", quoted(&device)))?;
        }
        Args::Role { id, role } => {
            let device = find(&mut daemon, id)?;
            let answer =
                daemon.call("device.setRole", json!({"id": device.id, "role": role.word()}))?;
            done(
                screen,
                &answer,
                &format!("{} now has the role {}", quoted(&device), role.word()),
            )?;
        }
    }
    Ok(Exit::Ok)
}

fn list(daemon: &mut Connection, screen: &Screen, all: bool) -> Result<(), Failure> {
    let answer = daemon.call("device.list", json!({"includeRevoked": all}))?;
    if screen.is_json() {
        return screen.json(&answer);
    }
    let devices: Vec<Device> = typed(&answer)?;
    if devices.is_empty() {
        screen.say("no devices are paired; pair one with `clawd pair`");
        return Ok(());
    }
    let now = time::now();
    let mut table =
        Table::new(&["ID", "NAME…", "PLATFORM?", "ROLE", "LAST SEEN", "VIA?", "EXPIRES?"]);
    for device in &devices {
        let seen =
            if device.connected { "now".to_owned() } else { time::ago(device.last_seen_at, now) };
        let expires = match device.expires_at {
            _ if device.revoked => "revoked".to_owned(),
            None => "never".to_owned(),
            Some(at) if at <= now => "expired".to_owned(),
            Some(at) => format!("in {}", time::coarse(at - now)),
        };
        table.row(vec![
            Cell::id(
                &device.id,
                unique_len(&device.id, devices.iter().map(|other| other.id.as_str())),
            ),
            Cell::text(&device.name),
            Cell::text(&device.platform),
            Cell::text(&device.role),
            Cell::both(&seen, &device.last_seen_at.to_string()),
            Cell::text(device.via.as_deref().unwrap_or("-")),
            Cell::both(&expires, &device.expires_at.map_or(expires.clone(), |at| at.to_string())),
        ]);
    }
    screen.print(&if screen.is_tty {
        table.aligned(screen.out, columns(), true)
    } else {
        table.tabbed()
    })
}

fn find(daemon: &mut Connection, prefix: &str) -> Result<Device, Failure> {
    let answer = daemon.call("device.list", json!({"includeRevoked": true}))?;
    let devices: Vec<Device> = typed(&answer)?;
    let names: Vec<(String, String)> =
        devices.iter().map(|device| (device.id.clone(), device.name.clone())).collect();
    let id = resolve(prefix, "device", &names)?;
    devices.into_iter().find(|device| device.id == id).ok_or_else(|| {
        Failure::new(Exit::NotFound, "device_not_found", format!("there is no device `{prefix}`"))
    })
}

fn quoted(device: &Device) -> String {
    format!("\"{}\" ({})", visible_line(&device.name), visible_line(&device.id))
}

fn done(screen: &Screen, answer: &Value, what: &str) -> Result<(), Failure> {
    if screen.is_json() {
        return screen.json(answer);
    }
    screen.note(Mark::Ok, what);
    Ok(())
}
