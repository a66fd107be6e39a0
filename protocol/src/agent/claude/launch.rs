//! How claude is started.
//!
//! Owns its arguments and the names of its environment; refuses to know prompts: they go through standard input, so that
//! nothing of a person's text is ever an argument (security I1).

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use uuid::Uuid;

use crate::agent::lane::{Opening, is_model};

/// The program's name in `PATH`.
pub const NAME: &str = "claude";

/// Variables that claude gets from the daemon's environment, where set; it gets no others but those the owner named
/// (security I3).
pub const INHERIT: &[&str] = &[
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "PATH",
    "TMPDIR",
    "TERM",
    "TZ",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    // Where the owner's own files are, if not in the usual places.
    "XDG_CONFIG_HOME",
    "XDG_CACHE_HOME",
    "XDG_DATA_HOME",
    "XDG_STATE_HOME",
    "XDG_RUNTIME_DIR",
];

/// Variables that claude always gets: a daemon's child does not replace its own program (security L4).
pub const SET: &[(&str, &str)] = &[("DISABLE_AUTOUPDATER", "1")];

/// Asks before each tool, in the owner's mode and with the owner's settings only: what a repository brings along, be it
/// settings, hooks or servers, can allow nothing (security H1, H7).
const ARGS: &[&str] = &[
    "-p",
    "--input-format",
    "stream-json",
    "--output-format",
    "stream-json",
    "--verbose",
    "--include-partial-messages",
    "--permission-prompt-tool",
    "stdio",
    "--permission-mode",
    "default",
    "--setting-sources",
    "user",
    "--strict-mcp-config",
];

/// A value that must not become an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaunchFault {
    /// The conversation's id is no UUID.
    Conversation,
    /// The name of the model is empty, too long, begins with `-`, or has characters that no model's name has.
    Model,
}

/// The arguments. No value among them can be read as an option.
///
/// # Errors
/// A value cannot be passed on safely.
pub fn launch(opening: &Opening<'_>) -> Result<Vec<String>, LaunchFault> {
    let conversation =
        Uuid::try_parse(opening.conversation).map_err(|_| LaunchFault::Conversation)?;
    let mut args: Vec<String> = ARGS.iter().map(ToString::to_string).collect();
    args.push(if opening.resume { "--resume" } else { "--session-id" }.to_string());
    args.push(conversation.to_string());
    if let Some(model) = opening.model {
        if !is_model(model) {
            return Err(LaunchFault::Model);
        }
        args.push("--model".to_string());
        args.push(model.to_string());
    }
    Ok(args)
}

/// Whether a claude that ended said that it knows the conversation already: then it is to be resumed, not begun. It says
/// so when it was killed after it had written the conversation down and before its daemon had.
#[must_use]
pub fn knows_conversation(stderr: &str) -> bool {
    stderr.contains("Session ID") && stderr.contains("is already in use")
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    const ID: &str = "0b51a5a1-3f9b-4c53-9a77-6d0c6a8ee001";

    fn opening<'a>(conversation: &'a str, resume: bool, model: Option<&'a str>) -> Opening<'a> {
        Opening { conversation, resume, cwd: "/repo", model }
    }

    #[test]
    fn a_conversation_is_begun_under_our_id_and_continued_under_the_same() {
        let begun = launch(&opening(ID, false, None)).unwrap();
        assert_eq!(begun[ARGS.len()..], ["--session-id", ID]);
        let model = Some("claude-opus-5-5[1m]");
        let resumed = launch(&opening(ID, true, model)).unwrap();
        assert_eq!(resumed[ARGS.len()..], ["--resume", ID, "--model", "claude-opus-5-5[1m]"]);
    }

    #[test]
    fn h1_claude_always_asks_and_never_skips() {
        let args = launch(&opening(ID, false, None)).unwrap();
        for pair in [
            ["--permission-prompt-tool", "stdio"],
            ["--permission-mode", "default"],
            ["--setting-sources", "user"],
        ] {
            assert!(args.windows(2).any(|window| window == pair), "{pair:?}");
        }
        assert!(args.iter().any(|arg| arg == "--strict-mcp-config"));
        assert!(!args.iter().any(|arg| arg.contains("dangerously") || arg == "bypassPermissions"));
    }

    #[test]
    fn i1_values_that_could_be_read_as_options_are_refused() {
        for model in ["", "-x", "--mcp-config=/tmp/x", "a b", "a\n", "a\0", "é", &"m".repeat(201)]
        {
            let start = opening(ID, false, Some(model));
            assert_eq!(launch(&start), Err(LaunchFault::Model), "{model:?}");
        }
        for conversation in ["", "-p", "latest", "../x"] {
            let start = opening(conversation, true, None);
            assert_eq!(launch(&start), Err(LaunchFault::Conversation), "{conversation:?}");
        }
    }

    #[test]
    fn i3_nothing_that_steers_a_program_is_inherited() {
        let steering =
            ["LD_PRELOAD", "NODE_OPTIONS", "BASH_ENV", "GIT_SSH_COMMAND", "ANTHROPIC_BASE_URL"];
        assert!(INHERIT.iter().all(|name| !steering.contains(name)));
    }

    proptest! {
        #[test]
        fn i1_no_model_becomes_an_option(model in any::<String>()) {
            let start = opening(ID, false, Some(&model));
            if let Ok(args) = launch(&start) {
                prop_assert_eq!(&args[ARGS.len() + 2..], &vec!["--model".to_string(), model.clone()][..]);
                prop_assert!(!model.starts_with('-'));
            }
        }
    }
}
