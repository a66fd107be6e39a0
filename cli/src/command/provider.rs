//! `provider list|check`, and how a provider looks in a line.

use clawd_protocol::text::visible_line;
use serde_json::{Value, json};

use super::{columns, typed};
use crate::args::Provider as Args;
use crate::exit::{Exit, Failure};
use crate::home::Home;
use crate::render::Screen;
use crate::render::style::{Mark, Style};
use crate::render::table::{Cell, Table};
use crate::wire::Provider;

/// `provider …`.
pub(super) fn provider(home: &Home, screen: &Screen, args: &Args) -> Result<Exit, Failure> {
    match args {
        Args::List => list(home, screen),
        Args::Check { name } => check(home, screen, name.as_deref()),
    }
}

/// Looks afresh at one, or at all.
fn check(home: &Home, screen: &Screen, name: Option<&str>) -> Result<Exit, Failure> {
    let mut daemon = home.connect()?;
    let names = match name {
        Some(name) => vec![name.to_owned()],
        None => typed::<Vec<Provider>>(&daemon.call("daemon.providers", json!({}))?)?
            .into_iter()
            .map(|provider| provider.name)
            .collect(),
    };
    let mut answers = Vec::new();
    for name in &names {
        answers.push(daemon.call("daemon.checkProvider", json!({"provider": name}))?);
    }
    let answer = Value::Array(answers);
    let providers: Vec<Provider> = typed(&answer)?;
    if screen.is_json() {
        screen.json(if name.is_some() { &answer[0] } else { &answer })?;
    } else {
        for provider in &providers {
            screen.line(&line(provider, screen.out))?;
            if let (false, Some(why)) = (provider.available, &provider.error) {
                screen.line(&format!("  {}", visible_line(why)))?;
            }
        }
    }
    // The demo can always be used; only who asks for it wants to know.
    let counts = |provider: &Provider| provider.available && (!provider.demo || name.is_some());
    let is_any = providers.iter().any(counts);
    Ok(if is_any { Exit::Ok } else { Exit::Provider })
}

fn list(home: &Home, screen: &Screen) -> Result<Exit, Failure> {
    let answer = home.connect()?.call("daemon.providers", json!({}))?;
    if screen.is_json() {
        return screen.json(&answer).map(|()| Exit::Ok);
    }
    let mut table = Table::new(&["NAME", "VERSION?", "STATE", "PATH…"]);
    for provider in typed::<Vec<Provider>>(&answer)? {
        table.row(vec![
            Cell::text(&provider.name),
            Cell::text(provider.version.as_deref().unwrap_or("-")),
            Cell::text(state(&provider)),
            Cell::text(provider.path.as_deref().unwrap_or("-")),
        ]);
    }
    let shown =
        if screen.is_tty { table.aligned(screen.out, columns(), true) } else { table.tabbed() };
    screen.print(&shown)?;
    Ok(Exit::Ok)
}

/// One line of `up`: what it is, how it is, and the command that repairs it.
pub(super) fn line(provider: &Provider, style: Style) -> String {
    let mark = mark(provider, style);
    let version = provider.version.as_deref().unwrap_or_default();
    let name = format!("{} {version}", provider.name);
    let line = format!("{mark} {:<16} {}", visible_line(name.trim_end()), state(provider));
    match repair(provider) {
        Some(repair) => format!("{line:<34} {} {repair}", style.arrow()),
        None => line,
    }
}

/// `claude ✓`, for the status.
pub(super) fn short(provider: &Provider, style: Style) -> String {
    let name = visible_line(&provider.name);
    let mark = mark(provider, style);
    if provider.available {
        format!("{name} {mark}")
    } else {
        format!("{name} {mark} {}", state(provider))
    }
}

fn is_unknown(provider: &Provider) -> bool {
    provider.checked == Some(false)
}

fn mark(provider: &Provider, style: Style) -> String {
    match provider.available {
        true => style.mark(Mark::Ok),
        false if is_unknown(provider) => "?".to_owned(),
        false => style.mark(Mark::Warn),
    }
}

fn state(provider: &Provider) -> &'static str {
    match (provider.installed, provider.authenticated) {
        _ if is_unknown(provider) => "not checked yet",
        _ if provider.demo && provider.available => "a script, no model",
        (false, _) => "not installed",
        (true, Some(false)) => "not logged in",
        (true, Some(true)) => "logged in",
        (true, None) if provider.available => "installed",
        (true, None) => "installed, not usable",
    }
}

/// What to type so that it can be used.
pub(super) fn repair(provider: &Provider) -> Option<&'static str> {
    match (provider.name.as_str(), provider.installed, provider.authenticated) {
        _ if is_unknown(provider) => Some("clawd provider check"),
        ("claude", false, _) => Some("npm install -g @anthropic-ai/claude-code"),
        ("codex", false, _) => Some("npm install -g @openai/codex"),
        ("claude", true, Some(false)) => Some("claude auth login"),
        ("codex", true, Some(false)) => Some("codex login"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_to_repair_what_is_missing() {
        let style = Style { colour: false, utf8: true };
        let provider = |installed: bool, authenticated, available| Provider {
            name: "claude".to_owned(),
            checked: Some(true),
            version: installed.then(|| "2.1.212".to_owned()),
            installed,
            authenticated,
            available,
            path: None,
            error: None,
            demo: false,
        };
        assert_eq!(line(&provider(true, Some(true), true), style), "✓ claude 2.1.212   logged in");
        assert_eq!(
            line(&provider(true, Some(false), false), style),
            "! claude 2.1.212   not logged in   → claude auth login"
        );
        assert!(line(&provider(false, None, false), style).contains("npm install"));
        let unknown = Provider { checked: Some(false), ..provider(false, None, false) };
        assert_eq!(
            line(&unknown, style),
            "? claude           not checked yet → clawd provider check"
        );
    }
}
