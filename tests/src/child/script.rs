//! What an agent is to do.
//!
//! Owns the acts; refuses to know how they are said or when they are done.

use std::time::Duration;

use clawd_protocol::Stream;
use serde_json::{Value, json};

/// One thing that the agent does in a turn.
#[derive(Debug, Clone, PartialEq)]
pub enum Act {
    /// Says this, streamed in words.
    Say(String),
    /// Uses a tool and waits for leave.
    Ask {
        /// The tool's name.
        name: String,
        /// Its input.
        input: Value,
    },
    /// Uses a tool without asking, as it does with harmless ones.
    Use {
        /// The tool's name.
        name: String,
        /// Its input.
        input: Value,
    },
    /// Writes exactly these bytes.
    Write(Stream, Vec<u8>),
    /// Is silent for a while.
    Wait(Duration),
    /// Ends the turn with this error.
    Fail(String),
    /// Does nothing any more, whatever it is told; even the end of its input does not end it.
    Hang,
    /// Ends at once.
    Crash(i32),
}

impl Act {
    /// Says `text`.
    #[must_use]
    pub fn say(text: &str) -> Self {
        Self::Say(text.to_owned())
    }

    /// Asks for leave to run `command`.
    #[must_use]
    pub fn bash(command: &str) -> Self {
        Self::Ask { name: "Bash".to_owned(), input: json!({ "command": command }) }
    }
}

/// What one agent process does: a list of acts for each turn; later turns just say `ok`.
pub type Script = Vec<Vec<Act>>;
