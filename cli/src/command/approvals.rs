//! `approvals`: what waits for a decision, now or from now on.

use std::collections::BTreeMap;

use clawd_protocol::text::visible_line;
use rustix::fd::AsFd as _;
use serde_json::{Value, json};
use signal_hook::consts::SIGINT;

use super::decision::{self, News};
use super::{columns, summary};
use crate::args::Approvals as Args;
use crate::connection::{Connection, Woken};
use crate::exit::{Exit, Failure};
use crate::home::Home;
use crate::interrupts::Interrupts;
use crate::render::Screen;
use crate::render::style::Mark;
use crate::render::table::{Cell, Table, unique_len};
use crate::render::time;
use crate::wire::Approval;

/// `approvals`.
pub(super) fn approvals(home: &Home, screen: &Screen, args: &Args) -> Result<Exit, Failure> {
    let daemon = home.connect()?;
    if args.watch { watch(home, screen, daemon) } else { list(screen, daemon) }
}

fn list(screen: &Screen, mut daemon: Connection) -> Result<Exit, Failure> {
    let (listed, approvals) = decision::pending(&mut daemon)?;
    if screen.is_json() {
        screen.json(&listed)?;
        return Ok(Exit::Ok);
    }
    if approvals.is_empty() {
        screen.say("nothing waits for a decision");
        return Ok(Exit::Ok);
    }
    let table = table(&approvals);
    screen.print(&if screen.is_tty {
        table.aligned(screen.out, columns(), true)
    } else {
        table.tabbed()
    })?;
    if screen.is_tty {
        let hint = "clawd approve ID shows the whole call and asks; clawd deny ID says no";
        screen.say(&screen.err.dim(hint));
    }
    Ok(Exit::Ok)
}

fn table(approvals: &[Approval]) -> Table {
    let headers = ["ID", "SESSION", "TITLE…", "TOOL", "WHAT…", "RISK?", "AGE?", "EXPIRES?"];
    let mut table = Table::new(&headers);
    for approval in approvals {
        let ids = approvals.iter().map(|other| other.id.as_str());
        let sessions = approvals.iter().map(|other| other.session.as_str());
        let expires_at = approval.expires_at.as_deref();
        table.row(vec![
            Cell::id(&approval.id, unique_len(&approval.id, ids)),
            Cell::id(&approval.session, unique_len(&approval.session, sessions)),
            Cell::text(&approval.title),
            Cell::text(&approval.tool),
            Cell::safe(&summary(&approval.input)),
            Cell::text(&approval.risk),
            Cell::both(&age(&approval.requested_at), &approval.requested_at),
            Cell::both(&expiry(expires_at), expires_at.unwrap_or("-")),
        ]);
    }
    table
}

fn age(at: &str) -> String {
    time::parse(at).map_or_else(|| "-".to_owned(), |at| time::ago(at, time::now()))
}

fn expiry(at: Option<&str>) -> String {
    at.and_then(time::parse).map_or_else(
        || "-".to_owned(),
        |at| format!("in {}", time::coarse(at.saturating_sub(time::now()))),
    )
}

/// A line for each that comes and for each that is decided, until Ctrl-C.
fn watch(home: &Home, screen: &Screen, daemon: Connection) -> Result<Exit, Failure> {
    let mut interrupt = Interrupts::catch(&[SIGINT])?;
    let mut watcher = Watcher { screen, daemon, known: BTreeMap::new() };
    watcher.look()?;
    if watcher.known.is_empty() {
        screen.say("nothing waits for a decision yet; Ctrl-C ends this");
    }
    loop {
        let woken = match watcher.daemon.wait(&[interrupt.as_fd()], None) {
            Err(failure) if failure.exit == Exit::NotRunning => {
                watcher.daemon = home.connect()?;
                watcher.look()?;
                continue;
            }
            woken => woken?,
        };
        match woken {
            Woken::Event(event) => match decision::news(&event) {
                Some(News::Asked) => watcher.look()?,
                Some(News::Resolved { id, kind, by }) => {
                    watcher.on_resolved(&id, &kind, &by)?;
                }
                None => {}
            },
            Woken::Other(_) if interrupt.take() > 0 => return Ok(Exit::Interrupted),
            Woken::Other(_) | Woken::Answer(_) | Woken::Timeout => {}
        }
    }
}

struct Watcher<'a> {
    screen: &'a Screen,
    daemon: Connection,
    /// What was shown and is not decided, as far as we know.
    known: BTreeMap<String, Approval>,
}

impl Watcher<'_> {
    /// Shows what waits and was not shown; forgets what waits no more.
    fn look(&mut self) -> Result<(), Failure> {
        let (listed, approvals) = decision::pending(&mut self.daemon)?;
        let values = listed.as_array().into_iter().flatten();
        let mut now = BTreeMap::new();
        for (value, approval) in values.zip(approvals) {
            if !self.known.contains_key(&approval.id) {
                self.show(value, &approval)?;
            }
            now.insert(approval.id.clone(), approval);
        }
        self.known = now;
        Ok(())
    }

    fn show(&self, value: &Value, approval: &Approval) -> Result<(), Failure> {
        if self.screen.is_json() {
            return self.screen.json_line(&json!({"event": "requested", "approval": value}));
        }
        let short: String = approval.id.chars().take(8).collect();
        let session: String = approval.session.chars().take(8).collect();
        let line = format!(
            "{}  {} {}  {}  {}  {}  expires {}",
            self.screen.out.bold(&visible_line(&short)),
            visible_line(&session),
            visible_line(&approval.title),
            visible_line(&approval.tool),
            summary(&approval.input),
            visible_line(&approval.risk),
            expiry(approval.expires_at.as_deref()),
        );
        self.screen.line(&line)
    }

    fn on_resolved(&mut self, id: &str, kind: &str, by: &str) -> Result<(), Failure> {
        self.known.remove(id);
        if self.screen.is_json() {
            let line = json!({"event": "resolved", "approval_id": id, "kind": kind, "by": by});
            return self.screen.json_line(&line);
        }
        let mark = if kind.starts_with("allow") { Mark::Ok } else { Mark::Fail };
        let short: String = id.chars().take(8).collect();
        let who = decision::who(&mut self.daemon, by)?;
        let (mark, word) = (self.screen.out.mark(mark), decision::participle(kind));
        self.screen.line(&format!("{mark} {} {word} by {who}", visible_line(&short)))
    }
}
