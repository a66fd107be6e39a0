//! `policy list` and `policy test`.
//!
//! The daemon judges by what its `config.toml` said when it started; where none runs, the same judgement is made here by
//! what the file says now.

use std::time::UNIX_EPOCH;

use clawd_protocol::Limits;
use clawd_protocol::policy::{Policy, Rule, input_of};
use clawd_protocol::text::visible_line;
use serde_json::{Map, Value, json};

use super::{columns, session, typed};
use crate::args::{Policy as Args, PolicyTest};
use crate::config;
use crate::daemon;
use crate::exit::{Exit, Failure};
use crate::home::Home;
use crate::render::Screen;
use crate::render::style::Mark;
use crate::render::table::{Cell, Table};
use crate::render::time;
use crate::wire::Judgement;

/// `policy …`.
pub(super) fn policy(home: &Home, screen: &Screen, args: &Args) -> Result<Exit, Failure> {
    match args {
        Args::List => list(home, screen),
        Args::Test(args) => test(home, screen, args),
    }
}

/// What the file says.
fn list(home: &Home, screen: &Screen) -> Result<Exit, Failure> {
    let approvals = &home.config.approvals;
    let policy = approvals.policy(daemon::home_path());
    let timeout = approvals.timeout().unwrap_or(Limits::default().approval_timeout).as_secs();
    let (mode, when) = (policy.mode.as_str(), policy.when_nobody_listens.as_str());
    if is_changed(home) {
        let why = "config.toml has changed since clawd was started, which goes by the old one";
        screen.note(Mark::Warn, &format!("{why}; `clawd stop` and `clawd up` make it new"));
    }
    if screen.is_json() {
        let rule = |rule: &Rule| json!({"decision": rule.verdict().as_str(), "rule": rule.text()});
        let rules: Vec<Value> = policy.rules.iter().map(rule).collect();
        screen.json(&json!({"mode": mode, "timeoutSecs": timeout, "onTimeout": "deny",
            "whenNobodyListens": when, "rules": rules}))?;
        return Ok(Exit::Ok);
    }
    screen.say(&format!(
        "mode {mode}; a question waits {timeout} s, then the answer is no; with nobody there: {when}"
    ));
    let mut table = Table::new(&["DECISION", "RULE…"]);
    for rule in &policy.rules {
        table.row(vec![Cell::text(rule.verdict().as_str()), Cell::text(rule.text())]);
    }
    if table.is_empty() {
        screen.say("no rules; write some under [approvals] in config.toml, see `clawd help files`");
        return Ok(Exit::Ok);
    }
    let shown =
        if screen.is_tty { table.aligned(screen.out, columns(), true) } else { table.tabbed() };
    screen.print(&shown)?;
    Ok(Exit::Ok)
}

/// A daemon runs, and was started before the file was last written. Where that cannot be told, it is not said.
fn is_changed(home: &Home) -> bool {
    let written = std::fs::metadata(home.dir.join(config::FILE)).and_then(|file| file.modified());
    let written = written.ok().and_then(|at| Some(at.duration_since(UNIX_EPOCH).ok()?.as_secs()));
    let holder = daemon::holder(&home.dir).ok().flatten();
    let since = holder.and_then(|holder| time::parse(&holder.since));
    since.zip(written).is_some_and(|(since, written)| written > since)
}

/// What would happen.
fn test(home: &Home, screen: &Screen, args: &PolicyTest) -> Result<Exit, Failure> {
    let (tool, input) = call_of(&args.tool, args.input.as_deref())?;
    let answer = match home.connect() {
        Ok(mut daemon) => {
            let mut params = Map::new();
            params.insert("tool".to_owned(), tool.into());
            params.insert("input".to_owned(), input);
            match &args.session {
                Some(id) => {
                    let id = session::find(&mut daemon, id)?.id;
                    params.insert("sessionId".to_owned(), id.into());
                }
                None => {
                    let dir = home.dir_there(args.dir.as_deref())?;
                    params.insert("cwd".to_owned(), dir.into());
                }
            }
            daemon.call("policy.test", params)?
        }
        Err(failure) if failure.kind == "not_running" && args.session.is_none() => {
            screen.say("clawd is not running; this is what config.toml says now");
            let policy = home.config.approvals.policy(daemon::home_path());
            judge(&policy, tool, &input, &home.dir_there(args.dir.as_deref())?)
        }
        Err(failure) => return Err(failure),
    };
    let judgement: Judgement = typed(&answer)?;
    if screen.is_json() {
        screen.json(&answer)?;
    } else {
        let rule =
            judgement.rule.as_deref().map(|rule| format!("\n  rule: {}", visible_line(rule)));
        let decision = visible_line(&judgement.decision);
        let why = visible_line(&judgement.why);
        screen.line(&format!("{decision}: {why}{}", rule.unwrap_or_default()))?;
    }
    Ok(if judgement.decision == "allow" { Exit::Ok } else { Exit::Turn })
}

fn judge(policy: &Policy, tool: &str, input: &Value, cwd: &str) -> Value {
    let input = input.to_string();
    let judgement = policy.judge(tool, &input, cwd);
    json!({
        "decision": judgement.verdict.as_str(),
        "rule": judgement.rule.map(Rule::text),
        "why": judgement.why,
    })
}

/// The tool and its input, out of `Tool(text)`, `Tool text`, `Tool {…}` or `Tool`.
fn call_of<'a>(tool: &'a str, input: Option<&'a str>) -> Result<(&'a str, Value), Failure> {
    let whole = tool.strip_suffix(')').and_then(|call| call.split_once('('));
    let (tool, text) = match (whole, input) {
        (Some((tool, text)), None) => (tool, Some(text)),
        (Some(_) | None, input) => (tool, input),
    };
    let Some(text) = text else { return Ok((tool, json!({}))) };
    if let Ok(Value::Object(object)) = serde_json::from_str(text) {
        return Ok((tool, Value::Object(object)));
    }
    let input = input_of(tool, text).and_then(|input| serde_json::from_str(&input).ok());
    let input = input.ok_or_else(|| {
        Failure::usage(format!("`{}` takes neither a command nor a path", visible_line(tool))).hint(
            format!("write its input as JSON: clawd policy test {tool} '{{\"key\": \"value\"}}'"),
        )
    })?;
    Ok((tool, input))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_may_be_written_as_a_rule_is() {
        for (tool, input, expected) in [
            ("Bash(rm -rf (x))", None, ("Bash", json!({"command": "rm -rf (x)"}))),
            ("Bash", Some("{ ls; }"), ("Bash", json!({"command": "{ ls; }"}))),
            ("Edit", Some("src/\"a\""), ("Edit", json!({"file_path": "src/\"a\""}))),
            ("Bash", Some("{\"command\": \"ls\"}"), ("Bash", json!({"command": "ls"}))),
            ("WebFetch", None, ("WebFetch", json!({}))),
        ] {
            assert_eq!(call_of(tool, input).unwrap(), expected);
        }
        let patch = call_of("ApplyPatch(a)", None).unwrap().1;
        assert_eq!(patch, json!({"changes": [{"path": "a", "kind": "update"}]}));
        assert_eq!(call_of("WebFetch", Some("x")).unwrap_err().exit, Exit::Usage);
    }
}
