//! `open`: how to go on with a session in the agent's own program.
//!
//! Owns each provider's command and its quoting; refuses to run it. Two programs on one conversation do not hear each
//! other, so nothing is said while a turn runs here.

use std::fmt::Write as _;

use clawd_protocol::text::is_hidden;
use serde_json::json;

use super::session;
use crate::exit::{Exit, Failure};
use crate::home::Home;
use crate::render::Screen;

/// `open`.
pub(super) fn open(home: &Home, screen: &Screen, id: &str) -> Result<Exit, Failure> {
    let mut daemon = home.connect()?;
    let session = session::find(&mut daemon, id)?;
    let short = session.short_id();
    let failure = |kind: &str, why: String| Failure::new(Exit::Failure, kind, why);
    if session.status == "running" {
        return Err(failure(
            "session_busy",
            format!("a turn is running in session {short}: a second agent on it would not hear the first"),
        )
        .hint(format!("wait for it, or end it with `clawd stop {short}`; `clawd attach {short}` joins it")));
    }
    let Some(conversation) = session.agent_session.as_deref() else {
        let why = format!("{} has not begun a conversation in session {short}", session.provider);
        return Err(failure("nothing_to_open", why)
            .hint(format!("say something first: `clawd send {short} \"…\"`")));
    };
    let argv = match session.provider.as_str() {
        "claude" => ["claude", "--resume", conversation],
        "codex" => ["codex", "resume", conversation],
        other => {
            let why = format!("{other} has no program of its own to go on in");
            return Err(failure("nothing_to_open", why).hint(format!("use `clawd attach {short}`")));
        }
    };
    let words: Vec<String> = argv.iter().map(|word| quoted(word)).collect();
    let command = format!("cd {} && {}", quoted(&session.repo_path), words.join(" "));
    if screen.is_json() {
        screen.json(&json!({
            "sessionId": session.id, "provider": session.provider, "agentSession": conversation,
            "dir": session.repo_path, "argv": argv, "command": command,
        }))?;
        return Ok(Exit::Ok);
    }
    screen.line(&command)?;
    let note = "while it is open there, send nothing to it here: the two would not hear each other";
    screen.say(&screen.err.dim(note));
    Ok(Exit::Ok)
}

/// A word as a shell reads it, with nothing in it that a terminal would act on (security K1). What cannot be shown takes
/// the form `$'…'`, which bash, zsh and ksh read.
pub(super) fn quoted(word: &str) -> String {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "@%+=:,./_-".contains(char);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    if !word.chars().any(is_hidden) {
        return format!("'{}'", word.replace('\'', r"'\''"));
    }
    let mut out = String::from("$'");
    for char in word.chars() {
        if is_hidden(char) {
            for byte in char.encode_utf8(&mut [0; 4]).bytes() {
                // Octal takes three digits at most, whatever follows it.
                let _ = write!(out, "\\{byte:03o}");
            }
        } else {
            if matches!(char, '\'' | '\\') {
                out.push('\\');
            }
            out.push(char);
        }
    }
    out.push('\'');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k1_words_are_quoted_for_a_shell_and_a_terminal() {
        for (word, shown) in [
            ("/home/me/api-server", "/home/me/api-server"),
            ("/home/me/my api", "'/home/me/my api'"),
            ("it's $HOME", r"'it'\''s $HOME'"),
            ("", "''"),
            ("a\u{1b}[2J'\\1", r"$'a\033[2J\'\\1'"),
            ("a\u{202e}b", r"$'a\342\200\256b'"),
        ] {
            assert_eq!(quoted(word), shown);
        }
    }

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        let words = ["a\u{1b}[2J'\\1\n", "it's $HOME `x` \"y\"", "-n", "\u{202e}漢字"];
        for word in words {
            let script = format!("printf %s {}", quoted(word));
            let Ok(output) = std::process::Command::new("bash").args(["-c", &script]).output()
            else {
                return;
            };
            assert_eq!(String::from_utf8_lossy(&output.stdout), word, "{script}");
        }
    }
}
