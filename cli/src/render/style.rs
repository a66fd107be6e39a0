//! Colour and marks. Meaning never rests on colour alone.

use std::env;

use crate::args::Color;

/// How one stream looks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    pub(crate) colour: bool,
    pub(crate) utf8: bool,
}

/// What a line is about, at a glance.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mark {
    Ok,
    Warn,
    Fail,
}

impl Style {
    pub(crate) fn of(color: Color, is_tty: bool) -> Self {
        Self { colour: wants_colour(color, is_tty, |name| env::var(name).ok()), utf8: is_utf8() }
    }

    pub(crate) fn mark(self, mark: Mark) -> String {
        let (utf8, ascii, sgr) = match mark {
            Mark::Ok => ("✓", "ok", "32"),
            Mark::Warn => ("!", "warn", "33"),
            Mark::Fail => ("✗", "fail", "31"),
        };
        self.paint(sgr, if self.utf8 { utf8 } else { ascii })
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    pub(crate) fn red(self, text: &str) -> String {
        self.paint("31", text)
    }

    fn paint(self, sgr: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{sgr}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// `→`, or what the locale has for it.
    pub(crate) const fn arrow(self) -> &'static str {
        if self.utf8 { "→" } else { "->" }
    }

    /// `·`, or what the locale has for it.
    pub(crate) const fn dot(self) -> &'static str {
        if self.utf8 { "·" } else { "," }
    }
}

/// The user's word first, then <https://no-color.org> and <https://bixense.com/clicolors>, then what the stream is.
fn wants_colour(color: Color, is_tty: bool, var: impl Fn(&str) -> Option<String>) -> bool {
    let is_set = |name| var(name).is_some_and(|value| !value.is_empty() && value != "0");
    match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto if var("NO_COLOR").is_some_and(|value| !value.is_empty()) => false,
        Color::Auto if is_set("CLAWD_NO_COLOR") => false,
        Color::Auto if is_set("CLICOLOR_FORCE") => true,
        Color::Auto => {
            is_tty
                && var("CLICOLOR").as_deref() != Some("0")
                && var("TERM").as_deref() != Some("dumb")
        }
    }
}

fn is_utf8() -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .find_map(|name| env::var(name).ok().filter(|value| !value.is_empty()))
        .unwrap_or_default()
        .to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8") || cfg!(target_os = "macos")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_follows_the_user_then_the_environment_then_the_stream() {
        let wants = |color, is_tty, set: &[(&str, &str)]| {
            wants_colour(color, is_tty, |name| {
                set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            })
        };
        assert!(wants(Color::Auto, true, &[]));
        assert!(!wants(Color::Auto, false, &[]));
        assert!(!wants(Color::Auto, true, &[("NO_COLOR", "1")]));
        assert!(wants(Color::Auto, true, &[("NO_COLOR", "")]));
        assert!(!wants(Color::Auto, true, &[("CLAWD_NO_COLOR", "1")]));
        assert!(!wants(Color::Auto, true, &[("CLICOLOR", "0")]));
        assert!(!wants(Color::Auto, true, &[("TERM", "dumb")]));
        assert!(wants(Color::Auto, false, &[("CLICOLOR_FORCE", "1")]));
        assert!(wants(Color::Always, false, &[("NO_COLOR", "1")]));
        assert!(!wants(Color::Never, true, &[("CLICOLOR_FORCE", "1")]));
    }
}
