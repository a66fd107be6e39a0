//! `tail`: what happens over there, one line for each event.
//!
//! Owns the line that each event becomes; refuses to know what the events lead to, and lost connections, which are
//! `stream`'s. Where what was missed cannot be told, it says so.

use clawd_protocol::client::Bookmark;
use clawd_protocol::text::visible_line;
use serde_json::{Value, json};

use super::stream::Stream;
use super::{decision, resolve, summary, typed};
use crate::args::Tail as Args;
use crate::connection::{Connection, Event};
use crate::exit::{Exit, Failure};
use crate::home::Home;
use crate::render::Screen;
use crate::render::style::Mark;
use crate::wire::Session;

/// How much of a text is shown.
const TEXT_CHARS_MAX: usize = 160;

/// `tail`.
pub(super) fn tail(home: &Home, screen: &Screen, args: &Args) -> Result<Exit, Failure> {
    let session = match &args.session {
        Some(typed) => Some(find(&mut home.connect()?, typed)?),
        None => None,
    };
    let from = args.since.map(|seq| Bookmark { journal: String::new(), seq });
    let mut stream = Stream::open(home, screen, from)?;
    while let Some(event) = stream.next()? {
        if is_about(&event, session.as_deref()) && !show(screen, &event)? {
            return Ok(Exit::Ok);
        }
    }
    Ok(Exit::Interrupted)
}

fn find(daemon: &mut Connection, wanted: &str) -> Result<String, Failure> {
    let sessions: Vec<Session> = typed(&daemon.call("session.list", json!({}))?)?;
    let ids: Vec<(String, String)> = sessions.into_iter().map(|it| (it.id, it.title)).collect();
    resolve(wanted, "session", &ids)
}

/// What is about no session is told to all.
fn is_about(event: &Event, session: Option<&str>) -> bool {
    let params = &event.params;
    let id = params["sessionId"].as_str().or_else(|| params["session"]["id"].as_str());
    match (session, id) {
        (Some(wanted), Some(id)) => wanted == id,
        (Some(_), None) => event.method.starts_with("events."),
        (None, _) => true,
    }
}

/// Shows an event; `false` if nobody reads any more.
fn show(screen: &Screen, event: &Event) -> Result<bool, Failure> {
    if screen.is_json() {
        let mut line = json!({"event": event.method});
        if let (Some(line), Some(params)) = (line.as_object_mut(), event.params.as_object()) {
            line.extend(params.clone());
        }
        return screen.stream_json(&line);
    }
    if event.method == "events.reset" {
        let seq = &event.params["cursor"];
        screen.note(
            Mark::Warn,
            &format!("what was missed is not known any more; from event {seq} on"),
        );
        return Ok(true);
    }
    match line(event) {
        Some(line) => screen.stream_line(&line),
        None => Ok(true),
    }
}

/// `4182  7f3a11b2  status   running`. Text of others is made safe (K1).
fn line(event: &Event) -> Option<String> {
    let params = &event.params;
    let text = |value: &Value| shown(value.as_str().unwrap_or_default());
    let (what, rest) = match event.method.as_str() {
        "daemon.ready" => return None,
        // Text is shown once it is finished.
        "session.messageUpdated" if params["status"] == "streaming" => return None,
        "session.messageCreated" if params["message"]["status"] == "streaming" => return None,
        "session.created" | "session.updated" => {
            let session = &params["session"];
            ("session", format!("{} ({})", text(&session["title"]), text(&session["repoPath"])))
        }
        "session.deleted" => ("session", "deleted".to_owned()),
        "session.statusChanged" => {
            let reason = text(&params["reason"]);
            let because = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
            let waits = if params["waitingFor"].is_string() { ", waits for approval" } else { "" };
            ("status", format!("{}{waits}{because}", text(&params["status"])))
        }
        "session.messageCreated" => {
            let message = &params["message"];
            return Some(numbered(params, &text(&message["role"]), &text(&message["content"])));
        }
        "session.messageUpdated" => ("answer", text(&params["content"])),
        "session.toolCallCreated" | "tool.approvalRequested" => {
            let call = &params["toolCall"];
            let what = if event.method == "tool.approvalRequested" { "approve?" } else { "tool" };
            (what, format!("{} {}", text(&call["name"]), summary(&call["input"])))
        }
        "session.toolCallUpdated" => ("tool", text(&params["status"])),
        "tool.approvalResolved" => {
            let kind = params["kind"].as_str().unwrap_or_default();
            ("decided", format!("{} by {}", decision::participle(kind), text(&params["by"])))
        }
        other => {
            let word = other.rsplit('.').next().unwrap_or(other);
            let name = ["name", "detail", "state"].iter().find_map(|key| params[*key].as_str());
            ("event", format!("{} {}", shown(word), shown(name.unwrap_or_default())))
        }
    };
    Some(numbered(params, what, rest.trim_end()))
}

fn numbered(params: &Value, what: &str, rest: &str) -> String {
    let seq = params["seq"].as_u64().unwrap_or_default();
    let id = params["sessionId"].as_str().or_else(|| params["session"]["id"].as_str());
    let id: String = id.unwrap_or("-").chars().take(8).collect();
    format!("{seq:<6} {:<8} {what:<9} {rest}", visible_line(&id)).trim_end().to_owned()
}

/// The beginning of a text, on one line.
fn shown(text: &str) -> String {
    let line: String = text.trim().chars().take(TEXT_CHARS_MAX).collect();
    let more = if line.len() < text.trim().len() { " …" } else { "" };
    format!("{}{more}", visible_line(&line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(method: &str, params: Value) -> Event {
        Event { method: method.to_owned(), params }
    }

    #[test]
    fn k1_each_event_is_one_line_that_a_terminal_cannot_act_on() {
        let nasty = "a\nb\u{1b}[2Jc\u{202e}d\r";
        for (method, params) in [
            (
                "session.created",
                json!({"seq": 1, "session": {"id": nasty, "title": nasty, "repoPath": nasty}}),
            ),
            (
                "session.statusChanged",
                json!({"seq": 2, "sessionId": "s", "status": nasty, "reason": nasty}),
            ),
            ("session.messageCreated", json!({"message": {"role": nasty, "content": nasty}})),
            (
                "session.messageUpdated",
                json!({"sessionId": nasty, "content": nasty, "status": "done"}),
            ),
            (
                "tool.approvalRequested",
                json!({"toolCall": {"name": nasty, "input": {"command": nasty}}}),
            ),
            ("tool.approvalResolved", json!({"kind": nasty, "by": nasty})),
            ("device.paired", json!({"name": nasty})),
            (nasty, json!({})),
        ] {
            let line = line(&event(method, params)).expect("a line");
            assert!(!line.chars().any(clawd_protocol::text::is_hidden), "{line:?}");
            assert!(!line.contains('\n'), "{line:?}");
        }
    }

    #[test]
    fn a_line_says_number_session_and_what_happened() {
        let params = json!({"seq": 4182, "sessionId": "7f3a11b2-0000", "status": "idle", "reason": "cancelled"});
        let line = line(&event("session.statusChanged", params)).unwrap();
        assert_eq!(line, "4182   7f3a11b2 status    idle (cancelled)");
    }

    #[test]
    fn one_session_is_followed_alone_but_for_what_concerns_the_journal() {
        let of = |id: &str| event("session.statusChanged", json!({"sessionId": id}));
        assert!(is_about(&of("a"), Some("a")) && !is_about(&of("b"), Some("a")));
        assert!(is_about(&of("b"), None));
        assert!(is_about(&event("session.created", json!({"session": {"id": "a"}})), Some("a")));
        assert!(is_about(&event("events.reset", json!({})), Some("a")));
        assert!(!is_about(&event("device.paired", json!({})), Some("a")));
    }
}
