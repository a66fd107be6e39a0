//! What codex does in a turn, as calls of tools.
//!
//! Owns the names and inputs under which commands and changes of files are shown, stored and judged; refuses to know when
//! they are. The names are those that other agents have for the same, so that one policy fits all: a command is `Bash`.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::shell;
use crate::agent::event::{INPUT_DEPTH_MAX, UNREADABLE_INPUT};
use crate::agent::json::{Raw, each, is_object_within, object, read, text};

/// What codex calls an item; the union of the kinds that matter.
#[derive(Deserialize)]
pub(super) struct Item<'a> {
    #[serde(borrow, rename = "type")]
    kind: Raw<'a>,
    #[serde(borrow)]
    pub(super) id: Raw<'a>,
    #[serde(borrow)]
    pub(super) text: Raw<'a>,
    #[serde(borrow)]
    command: Raw<'a>,
    #[serde(borrow)]
    cwd: Raw<'a>,
    #[serde(borrow)]
    changes: Raw<'a>,
    #[serde(borrow)]
    status: Raw<'a>,
    #[serde(borrow, rename = "aggregatedOutput")]
    output: Raw<'a>,
    #[serde(borrow, rename = "exitCode")]
    exit_code: Raw<'a>,
    #[serde(borrow)]
    server: Raw<'a>,
    #[serde(borrow)]
    tool: Raw<'a>,
    #[serde(borrow)]
    arguments: Raw<'a>,
}

/// What an item is.
pub(super) enum Kind {
    /// A piece of the answer.
    Message,
    /// Codex's thoughts, the person's own message, and whatever else does nothing.
    Silent,
    /// A call of a tool.
    Call(Call),
}

/// A call of a tool.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) name: String,
    /// A JSON object.
    pub(super) input: String,
}

pub(super) const BASH: &str = "Bash";
pub(super) const APPLY_PATCH: &str = "ApplyPatch";
pub(super) const WRITE_STDIN: &str = "WriteStdin";

impl Item<'_> {
    /// What it is. `whole` is the item as it was sent: a kind of tool that is not known is shown as it is.
    pub(super) fn kind(&self, whole: Raw<'_>) -> Kind {
        let kind = text(self.kind).unwrap_or_default();
        let call = |name: &str, input: Option<String>| {
            let input = input.unwrap_or_else(|| String::from(UNREADABLE_INPUT));
            Kind::Call(Call { name: String::from(name), input })
        };
        match &*kind {
            "agentMessage" => Kind::Message,
            "userMessage" | "hookPrompt" | "functionCallOutput" | "plan" | "reasoning"
            | "sleep" | "enteredReviewMode" | "exitedReviewMode" | "contextCompaction" => {
                Kind::Silent
            }
            "commandExecution" => call(BASH, command_input(self.command, self.cwd)),
            "fileChange" => call(APPLY_PATCH, patch_input(self.changes)),
            "mcpToolCall" => {
                let (server, tool) = (text(self.server), text(self.tool));
                let name = ["mcp__", &server.unwrap_or_default(), "__", &tool.unwrap_or_default()];
                call(&name.concat(), readable(self.arguments))
            }
            other => call(other, readable(whole)),
        }
    }

    /// How a call ended: what it said, and whether that is an error.
    pub(super) fn ending(&self) -> (String, bool) {
        let status = text(self.status).unwrap_or_default();
        let code: Option<i64> = read(self.exit_code);
        let mut output = text(self.output).unwrap_or_default().into_owned();
        let is_error = !matches!(&*status, "completed" | "") || code.is_some_and(|code| code != 0);
        if output.is_empty() && is_error {
            output = match code {
                Some(code) => alloc::format!("exit code {code}"),
                None => status.into_owned(),
            };
        }
        (output, is_error)
    }
}

/// The input of a command: its script, where it works, and the shell, if it is one.
pub(super) fn command_input(command: Raw<'_>, cwd: Raw<'_>) -> Option<String> {
    #[derive(Serialize)]
    struct Input<'a> {
        command: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        cwd: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        shell: Option<&'a str>,
    }
    let (line, cwd) = (text(command)?, text(cwd));
    let script = shell::script(&line);
    let input = Input {
        command: script.as_ref().map_or(&*line, |script| &script.text),
        cwd: cwd.as_deref(),
        shell: script.as_ref().map(|script| script.shell.as_str()),
    };
    serde_json::to_string(&input).ok()
}

/// The input of a text that is written into a running command.
pub(super) fn stdin_input(command: Raw<'_>, cwd: Raw<'_>, item: &str) -> Option<String> {
    #[derive(Serialize)]
    struct Input<'a> {
        write: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        cwd: Option<&'a str>,
        /// The call that runs the command.
        to: &'a str,
    }
    let (write, cwd) = (text(command)?, text(cwd));
    serde_json::to_string(&Input { write: &write, cwd: cwd.as_deref(), to: item }).ok()
}

/// The input of a change of files: all of it, or nothing.
fn patch_input(changes: Raw<'_>) -> Option<String> {
    #[derive(Deserialize)]
    struct Change<'a> {
        #[serde(borrow)]
        path: Raw<'a>,
        #[serde(borrow)]
        kind: Raw<'a>,
        #[serde(borrow)]
        diff: Raw<'a>,
    }
    #[derive(Serialize)]
    struct Shown<'a> {
        path: &'a RawValue,
        kind: &'a RawValue,
        diff: &'a RawValue,
    }
    #[derive(Serialize)]
    struct Input<'a> {
        changes: Vec<Shown<'a>>,
    }
    let is_list = changes.is_some_and(|changes| changes.get().starts_with('['));
    let mut shown = Vec::new();
    let mut is_odd = !is_list;
    each(changes, &mut |change| {
        let change = object::<Change<'_>>(Some(change));
        match change.and_then(|it| Some((it.path?, it.kind?, it.diff?))) {
            Some((path, kind, diff)) => shown.push(Shown { path, kind, diff }),
            None => is_odd = true,
        }
    });
    if is_odd || shown.is_empty() {
        return None;
    }
    let input = serde_json::to_string(&Input { changes: shown }).ok()?;
    let raw = serde_json::from_str::<&RawValue>(&input).ok()?;
    is_object_within(raw, INPUT_DEPTH_MAX).then_some(input)
}

/// An object as it was sent, if it can be shown.
fn readable(input: Raw<'_>) -> Option<String> {
    let input = input.filter(|input| is_object_within(input, INPUT_DEPTH_MAX))?;
    Some(String::from(input.get()))
}
