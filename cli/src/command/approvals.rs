//! `approvals`: what waits for a decision, now or from now on.

use std::collections::BTreeSet;

use clawd_protocol::text::visible_line;
use serde_json::{Value, json};

use super::decision::{self, News};
use super::stream::Stream;
use super::{columns, summary, typed};
use crate::args::Approvals as Args;
use crate::connection::Connection;
use crate::exit::{Exit, Failure};
use crate::home::Home;
use crate::render::Screen;
use crate::render::style::Mark;
use crate::render::table::{Cell, Table, unique_len};
use crate::render::time;
use crate::wire::Approval;

/// `approvals`.
pub(super) fn approvals(home: &Home, screen: &Screen, args: &Args) -> Result<Exit, Failure> {
    if args.watch { watch(home, screen) } else { list(screen, home.connect()?) }
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

/// A line for each that comes and for each that is decided, until Ctrl-C or until nobody reads any more.
fn watch(home: &Home, screen: &Screen) -> Result<Exit, Failure> {
    let mut stream = Stream::open(home, screen, None)?;
    let mut watcher = Watcher { screen, known: BTreeSet::new() };
    let mut is_read = watcher.look(&mut stream.daemon)?;
    if watcher.known.is_empty() {
        screen.say("nothing waits for a decision yet; Ctrl-C ends this");
    }
    while is_read {
        let Some(event) = stream.next()? else { return Ok(Exit::Interrupted) };
        is_read = match decision::news(&event) {
            Some(News::Asked(approval)) => watcher.show(&approval)?,
            Some(News::Resolved { id, kind, by }) => {
                watcher.known.remove(&id);
                // A connection that is lost just now is no reason to end.
                let who = decision::who(&mut stream.daemon, &by)
                    .unwrap_or_else(|_| visible_line(&by).into_owned());
                watcher.show_resolved(&id, &kind, &by, &who)?
            }
            None if event.method == "events.reset" => {
                screen.note(Mark::Warn, "what was decided meanwhile is not known; this waits now");
                watcher.known.clear();
                watcher.look(&mut stream.daemon)?
            }
            None => true,
        };
    }
    Ok(Exit::Ok)
}

struct Watcher<'a> {
    screen: &'a Screen,
    /// What was shown and is not decided, as far as we know.
    known: BTreeSet<String>,
}

impl Watcher<'_> {
    /// Shows all that waits; `false` if nobody reads.
    fn look(&mut self, daemon: &mut Connection) -> Result<bool, Failure> {
        let (listed, _) = decision::pending(daemon)?;
        for approval in listed.as_array().into_iter().flatten() {
            if !self.show(approval)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Shows what waits, once.
    fn show(&mut self, value: &Value) -> Result<bool, Failure> {
        let approval: Approval = typed(value)?;
        if !self.known.insert(approval.id.clone()) {
            return Ok(true);
        }
        if self.screen.is_json() {
            return self.screen.stream_json(&json!({"event": "requested", "approval": value}));
        }
        let short: String = approval.id.chars().take(8).collect();
        let session: String = approval.session.chars().take(8).collect();
        self.screen.stream_line(&format!(
            "{}  {} {}  {}  {}  {}  expires {}",
            self.screen.out.bold(&visible_line(&short)),
            visible_line(&session),
            visible_line(&approval.title),
            visible_line(&approval.tool),
            summary(&approval.input),
            visible_line(&approval.risk),
            expiry(approval.expires_at.as_deref()),
        ))
    }

    fn show_resolved(&self, id: &str, kind: &str, by: &str, who: &str) -> Result<bool, Failure> {
        if self.screen.is_json() {
            let line = json!({"event": "resolved", "approval_id": id, "kind": kind, "by": by});
            return self.screen.stream_json(&line);
        }
        let mark = if kind.starts_with("allow") { Mark::Ok } else { Mark::Fail };
        let short: String = id.chars().take(8).collect();
        let (mark, word) = (self.screen.out.mark(mark), decision::participle(kind));
        self.screen.stream_line(&format!("{mark} {} {word} by {who}", visible_line(&short)))
    }
}
