//! `audit list|verify|export`: what was written down for good, with or without a daemon.
//!
//! The files themselves are read: whoever asks for proof does not ask the one that is to be proved.

use std::io::{self, Write as _};

use clawd_protocol::SessionId;
use clawd_protocol::audit::Report;
use serde_json::{Value, json};

use super::{columns, summary};
use crate::args::{Audit as Args, AuditList, Global};
use crate::daemon;
use crate::exit::{Exit, Failure};
use crate::home::{Home, data_dir};
use crate::render::Screen;
use crate::render::style::Mark;
use crate::render::table::{Cell, Table};
use crate::render::time;

/// `audit list` of a daemon elsewhere: what it says itself.
pub(super) fn of_remote(home: &Home, screen: &Screen, args: &AuditList) -> Result<Exit, Failure> {
    let mut params = json!({"limit": args.limit()});
    if let Some(session) = args.session.as_deref() {
        params["sessionId"] = session_id(session)?.to_string().into();
    }
    let answer = home.connect()?.call("audit.list", params)?;
    let records = answer.get("records").unwrap_or(&answer);
    let lines: Vec<String> =
        records.as_array().into_iter().flatten().map(Value::to_string).collect();
    list(screen, &lines)
}

/// `audit …`.
pub(super) fn audit(global: &Global, screen: &Screen, args: &Args) -> Result<Exit, Failure> {
    let dir = data_dir(global)?;
    match args {
        Args::List(args) => {
            let session = args.session.as_deref().map(session_id).transpose()?;
            let lines = daemon::audit_page(&dir, session, args)?;
            list(screen, &lines)
        }
        Args::Verify => verify(screen, &daemon::audit_report(&dir)?),
        Args::Export => {
            let mut out = io::BufWriter::new(io::stdout().lock());
            daemon::audit_export(&dir, &mut out)?;
            out.flush().map_err(|error| Failure::io("cannot write", &error))?;
            Ok(Exit::Ok)
        }
    }
}

fn session_id(text: &str) -> Result<SessionId, Failure> {
    // A session that was deleted is in the log still, and in no list that a shortened id could be looked up in.
    text.parse().map_err(|_| {
        Failure::usage(format!("`{text}` is not a whole session id"))
            .hint("`clawd session list --json=id` prints whole ids")
    })
}

/// Newest last, so that it stands where the eye is.
fn list(screen: &Screen, lines: &[String]) -> Result<Exit, Failure> {
    let unreadable = |line: &String| json!({"kind": "unreadable", "note": line});
    let record = |line: &String| serde_json::from_str(line).unwrap_or_else(|_| unreadable(line));
    let records: Vec<Value> = lines.iter().rev().map(record).collect();
    if screen.is_json() {
        screen.json(&Value::Array(records))?;
        return Ok(Exit::Ok);
    }
    if records.is_empty() {
        screen.say("nothing is written down yet");
        return Ok(Exit::Ok);
    }
    let now = time::now();
    let mut table = Table::new(&["N?", "WHEN", "WHAT", "WHO", "VIA?", "SESSION?", "ABOUT…"]);
    for record in &records {
        let text = |key: &str| record.get(key).and_then(Value::as_str).unwrap_or("-");
        let when = text("at");
        let ago = time::parse(when).map_or_else(|| when.to_owned(), |then| time::ago(then, now));
        let n = record.get("n").and_then(Value::as_u64).map_or("-".to_owned(), |n| n.to_string());
        table.row(vec![
            Cell::text(&n),
            Cell::both(&ago, when),
            Cell::text(text("kind")),
            Cell::text(text("actor")),
            Cell::text(text("via")),
            Cell::id(text("sessionId"), 8),
            Cell::text(&about(record)),
        ]);
    }
    let shown =
        if screen.is_tty { table.aligned(screen.out, columns(), true) } else { table.tabbed() };
    screen.print(&shown)?;
    Ok(Exit::Ok)
}

/// What there is to say of it in one line.
fn about(record: &Value) -> String {
    let members = ["decision", "tool", "input", "rule", "deviceId", "role", "count", "note"];
    let word = |key: &&str| {
        let value = record.get(*key)?;
        // The input is told as everywhere else; what was cut for its length stands as it is.
        let input = value.as_str().filter(|_| *key == "input");
        let input = input.and_then(|text| serde_json::from_str::<Value>(text).ok());
        let text = input.map(|input| summary(&input)).or_else(|| value.as_str().map(str::to_owned));
        text.or_else(|| value.as_u64().map(|number| format!("{number}×")))
    };
    members.iter().filter_map(word).collect::<Vec<_>>().join(" ")
}

fn verify(screen: &Screen, report: &Report) -> Result<Exit, Failure> {
    let Report { count, chain, recovered, findings } = report;
    if let Some(first) = findings.first() {
        let said: Vec<String> = findings.iter().map(ToString::to_string).collect();
        let places: Vec<Value> = findings
            .iter()
            .map(|it| json!({"file": it.file, "line": it.line, "finding": it.to_string()}))
            .collect();
        let mut failure = Failure::new(
            Exit::Failure,
            "audit_changed",
            format!("the audit log is not what was written: {first}"),
        )
        .hint("see who could write in the data directory; what was written cannot be had back")
        .detail("findings", places);
        if said.len() > 1 {
            failure.excerpt = Some(said.join("\n").into());
        }
        return Err(failure);
    }
    if screen.is_json() {
        screen.json(&json!({
            "count": count,
            "last": chain.n,
            "hash": chain.head.to_string(),
            "recovered": recovered,
        }))?;
        return Ok(Exit::Ok);
    }
    let mended = match recovered {
        0 => String::new(),
        times => format!("; it was mended {times}× after a crash, see `clawd audit list`"),
    };
    let records = if *count == 1 { "record" } else { "records" };
    screen.note(Mark::Ok, &format!("{count} {records}, none changed, none missing{mended}"));
    screen.line(&format!("{} {}", chain.n, chain.head))?;
    Ok(Exit::Ok)
}

impl AuditList {
    /// How many lines.
    pub(crate) fn limit(&self) -> usize {
        usize::try_from(self.lines).unwrap_or(usize::MAX)
    }
}
