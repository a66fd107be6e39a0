//! The demo's tools: one that only looks, and one that writes a file.
//!
//! Owns asking the host, and the one effect that the demo has; refuses to know what is said about it. Nothing is written
//! before an allow, and nothing but what was asked for.

use std::env;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::process;

use serde_json::{Value, json};

use super::inbox::News;
use super::voice::End;
use super::{Demo, Stop};

/// The file that it writes.
pub(super) const FILE: &str = "clawd-demo.txt";

const CONTENT: &str = "\
clawd's demo wrote this file, because somebody allowed it. No model was asked.
You can delete it.
";

/// Names shown of a directory.
const NAMES_MAX: usize = 20;

/// What came of asking for a tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    Denied,
    Failed,
}

impl Demo {
    /// Looks around, which needs no approval unless the host wants one.
    pub(super) fn look_around(&mut self) -> Result<usize, Stop> {
        let (id, input) = (self.voice.id(), json!({"path": env::current_dir()?}));
        self.voice.call(&id, "LS", &input)?;
        if let Some(why) = self.hook(&id, "LS", &input)? {
            self.voice.result(&id, &why, true)?;
            return Ok(0);
        }
        let entries = fs::read_dir(".").into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort_unstable();
        let count = names.len();
        names.truncate(NAMES_MAX);
        self.voice.result(&id, &names.join("\n"), false)?;
        Ok(count)
    }

    /// Asks to write the file, and writes it if that is allowed.
    pub(super) fn write_file(&mut self) -> Result<Outcome, Stop> {
        let path = env::current_dir()?.join(FILE);
        let (id, input) = (self.voice.id(), json!({"file_path": path, "content": CONTENT}));
        self.voice.call(&id, "Write", &input)?;
        let denial = match self.hook(&id, "Write", &input)? {
            Some(why) => Some(why),
            None => self.may(&id, "Write", &input)?,
        };
        let (text, outcome) = match denial {
            Some(why) => (why, Outcome::Denied),
            None => match write() {
                Ok(()) => (format!("wrote {FILE}"), Outcome::Done),
                Err(error) => (format!("could not write {FILE}: {error}"), Outcome::Failed),
            },
        };
        self.voice.result(&id, &text, outcome != Outcome::Done)?;
        Ok(outcome)
    }

    /// Tells the host's hook what is about to be used; why it must not, if so. Whether to ask is not the hook's to say
    /// here: what is harmless is not asked for, unless it wants it to be, and the other always is.
    fn hook(&mut self, id: &str, tool: &str, input: &Value) -> Result<Option<String>, Stop> {
        let Some(hook) = self.hook.clone() else { return Ok(None) };
        let call = json!({"hook_event_name": "PreToolUse", "tool_name": tool,
            "tool_input": input, "tool_use_id": id});
        let request = json!({"subtype": "hook_callback", "callback_id": hook, "tool_use_id": id,
            "input": call});
        let answer = self.ask(id, &request)?.unwrap_or_default();
        let output = &answer["hookSpecificOutput"];
        match output["permissionDecision"].as_str() {
            Some("deny") => Ok(Some(words(&output["permissionDecisionReason"]))),
            Some("ask") if tool == "LS" => self.may(id, tool, input),
            Some(_) | None => Ok(None),
        }
    }

    /// Asks for permission; why it is not given, if so.
    fn may(&mut self, id: &str, tool: &str, input: &Value) -> Result<Option<String>, Stop> {
        let request = json!({"subtype": "can_use_tool", "tool_name": tool, "input": input,
            "tool_use_id": id});
        let answer = self.ask(id, &request)?.unwrap_or_default();
        match answer["behavior"].as_str() {
            Some("allow") if answer["updatedInput"] == *input => Ok(None),
            Some("allow") => Ok(Some("the demo does only what it asked for".to_owned())),
            Some(_) | None => Ok(Some(words(&answer["message"]))),
        }
    }

    /// Waits for the host's answer for as long as it takes.
    fn ask(&mut self, id: &str, request: &Value) -> Result<Option<Value>, Stop> {
        let ask = self.voice.ask(request)?;
        loop {
            match self.inbox.next_in_turn(None) {
                News::Answer { id, response } if id == ask => return Ok(response),
                News::Request { id: request_id, request } => {
                    self.answer(&request_id, &request)?;
                    if request["subtype"] == "interrupt" {
                        // Nothing comes of the call, nor of the turn.
                        self.voice.result(id, "interrupted (demo)", true)?;
                        return Err(Stop::Interrupted(End::InTool));
                    }
                }
                News::Over => return Err(Stop::Over),
                News::Answer { .. } | News::Message(_) | News::Nothing => {}
            }
        }
    }
}

fn words(why: &Value) -> String {
    why.as_str().unwrap_or("it was not allowed").to_owned()
}

/// A new file is put in the place of whatever has the name: if that is a link, what it leads to stays as it is.
fn write() -> io::Result<()> {
    let new = format!(".{FILE}.{}", process::id());
    let mut file = File::create_new(&new)?;
    let written = file.write_all(CONTENT.as_bytes()).and_then(|()| fs::rename(&new, FILE));
    if written.is_err() {
        fs::remove_file(&new)?;
    }
    written
}
