//! `session list|show|create|delete`.

use std::path::Path;

use clawd_protocol::text::{visible, visible_line};
use serde_json::{Map, Value, json};

use super::{columns, confirm, resolve, summary, typed};
use crate::args::Session as Args;
use crate::connection::Connection;
use crate::exit::{Exit, Failure};
use crate::home::Home;
use crate::render::Screen;
use crate::render::style::{Mark, Style};
use crate::render::table::{Cell, Table, unique_len};
use crate::render::time;
use crate::wire::{Message, Session, ToolCall, Usage};

/// As many as the daemon gives at once.
const TOOL_CALLS: u16 = 200;

/// `session …`.
pub(super) fn session(home: &Home, screen: &Screen, args: &Args) -> Result<Exit, Failure> {
    let mut daemon = home.connect()?;
    match args {
        Args::List => list(&mut daemon, screen)?,
        Args::Show { id, limit } => show(&mut daemon, screen, id, *limit)?,
        Args::Create { dir, provider, title, model } => {
            let asked = [("provider", provider), ("title", title), ("model", model)];
            let dir = home.dir_there(dir.as_deref())?;
            let answer = create(&mut daemon, &dir, &asked)?;
            if screen.is_json() {
                screen.json(&answer)?;
            } else {
                screen.line(&visible_line(&typed::<Session>(&answer)?.id))?;
            }
        }
        Args::Delete { id, yes } => {
            let session = find(&mut daemon, id)?;
            let title = visible_line(&session.title);
            confirm(&format!("Delete session {} \"{title}\" and its history?", session.id), *yes)?;
            let answer = daemon.call("session.delete", json!({"sessionId": session.id}))?;
            if screen.is_json() {
                screen.json(&answer)?;
            } else {
                screen.note(Mark::Ok, &format!("deleted session {}", session.id));
            }
        }
    }
    Ok(Exit::Ok)
}

/// Creates a session in `dir`.
pub(super) fn create(
    daemon: &mut Connection,
    dir: &str,
    asked: &[(&str, &Option<String>)],
) -> Result<Value, Failure> {
    let mut params = Map::new();
    params.insert("repoPath".to_owned(), dir.into());
    for (name, value) in asked {
        if let Some(value) = value {
            params.insert((*name).to_owned(), value.as_str().into());
        }
    }
    daemon.call("session.create", params).map_err(|mut failure| {
        // The daemon names the parameter; who has typed a path wants to read that.
        failure.message = failure.message.replace("`repoPath`", &visible_line(dir));
        failure
    })
}

fn list(daemon: &mut Connection, screen: &Screen) -> Result<(), Failure> {
    let answer = daemon.call("session.list", json!({}))?;
    if screen.is_json() {
        return screen.json(&answer);
    }
    let sessions: Vec<Session> = typed(&answer)?;
    let table = table(&sessions, screen.out);
    if table.is_empty() {
        screen.say("no sessions yet; begin one with `clawd run \"…\"`");
        return Ok(());
    }
    screen.print(&if screen.is_tty {
        table.aligned(screen.out, columns(), true)
    } else {
        table.tabbed()
    })
}

/// Sessions as a table.
pub(super) fn table(sessions: &[Session], style: Style) -> Table {
    let now = time::now();
    let mut table = Table::new(&["", "ID", "AGENT?", "WHERE?", "STATUS", "TITLE…", "CHANGED?"]);
    for session in sessions {
        let ids = sessions.iter().map(|other| other.id.as_str());
        let is_active = session.status == "running";
        let mark = match (is_active, style.utf8) {
            (true, true) => "●",
            (true, false) => "*",
            (false, _) => "",
        };
        let place = Path::new(&session.repo_path).file_name();
        let place = place.map_or_else(|| "/".into(), |name| name.to_string_lossy());
        let changed = time::parse(&session.updated_at).map(|at| time::ago(at, now));
        let status = match session.waiting_for.as_deref() {
            Some("approval") => format!("{}, waits for approval", session.status),
            Some(_) | None => session.status.clone(),
        };
        table.row(vec![
            Cell::text(mark),
            Cell::id(&session.id, unique_len(&session.id, ids)),
            Cell::text(&session.provider),
            Cell::both(&place, &session.repo_path),
            Cell::both(&status, &session.status),
            Cell::text(&session.title),
            Cell::both(changed.as_deref().unwrap_or("-"), &session.updated_at),
        ]);
    }
    table
}

fn show(daemon: &mut Connection, screen: &Screen, id: &str, limit: u16) -> Result<(), Failure> {
    let id = find(daemon, id)?.id;
    let mut answer = daemon.call("session.get", json!({"sessionId": id}))?;
    let messages = daemon.call("session.getMessages", json!({"sessionId": id, "limit": limit}))?;
    let calls = daemon.call("session.toolCalls", json!({"sessionId": id, "limit": TOOL_CALLS}))?;
    if screen.is_json() {
        if let Some(session) = answer.as_object_mut() {
            session.insert("toolCalls".to_owned(), calls);
            session.insert("messages".to_owned(), messages);
        }
        return screen.json(&answer);
    }
    let session: Session = typed(&answer)?;
    let model = session.model_override.as_deref().or(session.model.as_deref()).unwrap_or("default");
    for (name, value) in [
        ("id", session.id.as_str()),
        ("title", &session.title),
        ("where", &session.repo_path),
        ("agent", &format!("{}, model {model}", session.provider)),
        ("status", &session.status),
        ("created", &age(&session.created_at)),
        ("changed", &age(&session.updated_at)),
        ("messages", &session.message_count.to_string()),
        ("used", &used(&session.usage, screen.out)),
    ] {
        let name = screen.out.dim(&format!("{name:<9}"));
        screen.line(&format!("{name} {}", visible_line(value)))?;
    }
    conversation(screen, &typed::<Vec<Message>>(&messages)?, &typed::<Vec<ToolCall>>(&calls)?)
}

/// How long ago this was; as it is, if it is no time.
fn age(text: &str) -> String {
    time::parse(text).map_or_else(|| text.to_owned(), |at| time::ago(at, time::now()))
}

/// What was said, and what was done for it.
pub(super) fn conversation(
    screen: &Screen,
    messages: &[Message],
    calls: &[ToolCall],
) -> Result<(), Failure> {
    for message in messages {
        let who = visible_line(&message.role).into_owned();
        screen.line(&format!(
            "\n{} {}",
            screen.out.bold(&who),
            screen.out.dim(&age(&message.created_at))
        ))?;
        for call in calls.iter().filter(|call| call.message_id == message.id) {
            screen.line(&screen.out.dim(&tool_line(call, screen.out)))?;
        }
        let text = visible(&message.content);
        if !text.trim().is_empty() {
            screen.line(text.trim_end())?;
        }
    }
    Ok(())
}

/// `⏺ Bash cargo test  done`.
fn tool_line(call: &ToolCall, style: Style) -> String {
    let sign = if style.utf8 { "⏺" } else { "*" };
    let (name, what) = (visible_line(&call.name), summary(&call.input));
    format!("{sign} {name} {what}  ({})", visible_line(&call.status))
}

/// `31k tokens · $0.21`.
pub(super) fn used(usage: &Usage, style: Style) -> String {
    let tokens = usage.input_tokens.saturating_add(usage.output_tokens);
    let tokens = match tokens {
        0..10_000 => format!("{tokens} tokens"),
        10_000.. => format!("{}k tokens", tokens / 1000),
    };
    match usage.cost_micro_usd {
        Some(1..10_000) => format!("{tokens} {} <$0.01", style.dot()),
        Some(cost) => {
            format!("{tokens} {} ${}.{:02}", style.dot(), cost / 1_000_000, cost / 10_000 % 100)
        }
        None => tokens,
    }
}

/// The session whose id begins so.
pub(super) fn find(daemon: &mut Connection, prefix: &str) -> Result<Session, Failure> {
    let sessions: Vec<Session> = typed(&daemon.call("session.list", json!({}))?)?;
    let titles: Vec<(String, String)> =
        sessions.iter().map(|session| (session.id.clone(), session.title.clone())).collect();
    let id = resolve(prefix, "session", &titles)?;
    sessions.into_iter().find(|session| session.id == id).ok_or_else(|| {
        Failure::new(Exit::NotFound, "session_not_found", format!("there is no session `{prefix}`"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn use_is_told_in_tokens_and_dollars() {
        let style = Style { colour: false, utf8: true };
        let usage = |tokens, cost_micro_usd| Usage {
            input_tokens: tokens,
            output_tokens: 20,
            cost_micro_usd,
        };
        assert_eq!(used(&usage(100, None), style), "120 tokens");
        assert_eq!(used(&usage(31_000, Some(213_000)), style), "31k tokens · $0.21");
        assert_eq!(used(&usage(0, Some(800)), style), "20 tokens · <$0.01");
        assert_eq!(used(&usage(0, Some(1_050_000)), style), "20 tokens · $1.05");
    }
}
