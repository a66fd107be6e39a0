//! Tools: asked for, run for real and once, and answered for.

use std::env;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::process::{Command, Stdio};
use std::thread;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::{Value, json};

use super::{Session, Stop};
use crate::inbox::News;

/// The hidden argument with which it starts itself to become a tool's shell.
pub(crate) const RUN_TOOL: &str = "--run-tool";

const REJECTED: &str = "The user doesn't want to proceed with this tool use. The tool use was rejected \
    (eg. if it was a file edit, the new_string was NOT written to the file). STOP what you are doing and \
    wait for the user to tell you how to proceed.";

/// What came of asking.
enum Decision {
    Allowed(Value),
    Denied(String),
}

impl Session {
    /// A call of Bash.
    pub(super) fn tool(&mut self, command: &str, is_asked_twice: bool) -> Result<(), Stop> {
        let input = json!({"command": command, "description": command});
        let id = self.call("Bash", &input)?;
        let mut decision = match self.pre_tool_use(&id, "Bash", &input)? {
            Some(why) => Decision::Denied(why),
            None => self.ask(&id, &input)?,
        };
        if is_asked_twice && matches!(decision, Decision::Allowed(_)) {
            let changed = format!("{command} # again");
            decision = self.ask(&id, &json!({"command": changed, "description": command}))?;
        }
        self.out.end_message()?;
        match decision {
            Decision::Allowed(input) => {
                let command = input["command"].as_str().unwrap_or_default();
                let (output, is_ok) = self.run_tool(&id, command)?;
                Ok(self.out.tool_result(&id, &output, !is_ok)?)
            }
            Decision::Denied(why) => {
                self.denials.push(json!({"tool_name": "Bash", "tool_use_id": id}));
                Ok(self.out.tool_result(&id, &why, true)?)
            }
        }
    }

    /// A call of Read: not asked for, except by the host's own hook.
    pub(super) fn read(&mut self, path: &str) -> Result<(), Stop> {
        let input = json!({ "file_path": path });
        let id = self.call("Read", &input)?;
        let refused = self.pre_tool_use(&id, "Read", &input)?;
        self.out.end_message()?;
        let (text, is_error) = match (refused, std::fs::read_to_string(path)) {
            (Some(why), _) => (why, true),
            (None, Ok(text)) => (text, false),
            (None, Err(error)) => (error.to_string(), true),
        };
        Ok(self.out.tool_result(&id, &text, is_error)?)
    }

    /// A call that is no deed: a question, or a plan to be agreed to.
    pub(super) fn ask_people(&mut self, tool: &str, input: &Value) -> Result<(), Stop> {
        let id = self.call(tool, input)?;
        let decision = match self.pre_tool_use(&id, tool, input)? {
            Some(why) => Decision::Denied(why),
            None => self.ask_for(&id, tool, input)?,
        };
        self.out.end_message()?;
        match decision {
            Decision::Allowed(input) => {
                let text = match input.get("answers") {
                    Some(answers) => format!("User has answered your questions: {answers}"),
                    None => "User has approved your plan. You can now start coding.".to_owned(),
                };
                Ok(self.out.tool_result(&id, &text, false)?)
            }
            Decision::Denied(why) => {
                self.denials.push(json!({"tool_name": tool, "tool_use_id": id}));
                Ok(self.out.tool_result(&id, &why, true)?)
            }
        }
    }

    /// The model calls a tool.
    fn call(&mut self, tool: &str, input: &Value) -> Result<String, Stop> {
        self.conversation.call()?;
        let id = self.out.id("toolu");
        self.out.begin_message(json!({"type": "tool_use", "id": id, "name": tool, "input": {}}))?;
        let json = input.to_string();
        self.out.delta(json!({"type": "input_json_delta", "partial_json": json}))?;
        let block = json!({"type": "tool_use", "id": id, "name": tool, "input": input});
        self.out.block(block, false)?;
        self.out.end_block(json!("tool_use"))?;
        Ok(id)
    }

    /// Calls the host's hook, if it has one. Why the call is denied, if it is.
    fn pre_tool_use(
        &mut self,
        id: &str,
        tool: &str,
        input: &Value,
    ) -> Result<Option<String>, Stop> {
        let Some(hook) = self.hook.clone() else { return Ok(None) };
        let request = json!({"subtype": "hook_callback", "callback_id": hook, "tool_use_id": id,
            "input": {"hook_event_name": "PreToolUse", "tool_name": tool, "tool_input": input,
            "tool_use_id": id}});
        let Some(Ok(reply)) = self.question(id, &request)? else { return Ok(None) };
        let output = &reply["hookSpecificOutput"];
        match output["permissionDecision"].as_str() {
            Some("deny") => {
                let why = output["permissionDecisionReason"].as_str().unwrap_or_default();
                Ok(Some(format!("PreToolUse:{tool} hook error: {why}")))
            }
            Some("ask") if !asks_anyway(tool) => match self.ask_for(id, tool, input)? {
                Decision::Allowed(_) => Ok(None),
                Decision::Denied(why) => Ok(Some(why)),
            },
            Some(_) | None => Ok(None),
        }
    }

    fn ask(&mut self, id: &str, input: &Value) -> Result<Decision, Stop> {
        self.ask_for(id, "Bash", input)
    }

    fn ask_for(&mut self, id: &str, tool: &str, input: &Value) -> Result<Decision, Stop> {
        if !self.launch.asks {
            return Ok(Decision::Denied("Claude requested permissions".to_owned()));
        }
        let request = json!({"subtype": "can_use_tool", "tool_name": tool, "display_name": tool,
            "input": input, "tool_use_id": id});
        let failed = |why: &str| Decision::Denied(format!("Tool permission request failed: {why}"));
        let reply = match self.question(id, &request)? {
            None => return Ok(failed("AbortError: Tool permission stream closed")),
            Some(Err(error)) => return Ok(failed(&format!("Error: {error}"))),
            Some(Ok(reply)) => reply,
        };
        match reply["behavior"].as_str() {
            Some("allow") => {
                let updated = &reply["updatedInput"];
                Ok(Decision::Allowed(if updated.is_object() { updated } else { input }.clone()))
            }
            Some("deny") if reply["interrupt"] == true => {
                self.out.end_message()?;
                Err(self.abandon(id)?)
            }
            Some("deny") => {
                Ok(Decision::Denied(reply["message"].as_str().unwrap_or_default().to_owned()))
            }
            Some(_) | None => Ok(failed("ZodError: invalid behavior")),
        }
    }

    /// Asks the host, and waits for ever. `None` if it has closed the input.
    fn question(
        &mut self,
        tool: &str,
        request: &Value,
    ) -> Result<Option<Result<Value, String>>, Stop> {
        let ask = self.out.id("ask");
        self.out.request(&ask, request)?;
        while !self.inbox.is_over {
            let news = self.wait(None)?;
            if let News::Request { id, .. } = news {
                self.out.end_message()?;
                let cancel = json!({"type": "control_cancel_request", "request_id": ask});
                self.out.raw(&format!("{cancel}\n"))?;
                self.out.reply(&id, Ok(json!({"still_queued": []})))?;
                return Err(self.abandon(tool)?);
            } else if let News::Answer { id, reply } = news
                && id == ask
            {
                return Ok(Some(reply));
            }
        }
        Ok(None)
    }

    /// The call comes to nothing, and the turn with it.
    fn abandon(&mut self, tool: &str) -> io::Result<Stop> {
        self.out.tool_result(tool, REJECTED, true)?;
        self.remark("[Request interrupted by user for tool use]")?;
        Ok(Stop::Tools)
    }

    /// Runs a command. Its output goes through a file, so that what it leaves running holds nothing up.
    fn run_tool(&mut self, id: &str, command: &str) -> Result<(String, bool), Stop> {
        let mut output = tempfile::tempfile()?;
        let file = |output: &File| output.try_clone().map(Stdio::from);
        let mut child = Command::new(env::current_exe()?)
            .args([RUN_TOOL, command])
            .stdin(Stdio::null())
            .stdout(file(&output)?)
            .stderr(file(&output)?)
            .spawn()?;
        let shell = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let sender = self.inbox.sender.clone();
        thread::spawn(move || {
            let is_ok = child.wait().is_ok_and(|status| status.success());
            let _ = sender.send(News::ToolEnded { is_ok });
        });
        loop {
            let news = self.wait(None)?;
            if let News::ToolEnded { is_ok } = news {
                let mut text = String::new();
                output.rewind()?;
                output.read_to_string(&mut text)?;
                if text.is_empty() {
                    text.push_str("(Bash completed with no output)");
                }
                return Ok((text, is_ok));
            } else if let News::Request { id: request, .. } = news {
                if let Some(shell) = shell {
                    // Either may be gone, and the group not be there yet.
                    let _ = kill_process_group(shell, Signal::KILL);
                    let _ = kill_process(shell, Signal::KILL);
                }
                while !matches!(self.wait(None)?, News::ToolEnded { .. }) {}
                self.out.reply(&request, Ok(json!({"still_queued": []})))?;
                return Err(self.abandon(id)?);
            }
        }
    }
}

/// Tools that ask the host, whatever its hook says.
fn asks_anyway(tool: &str) -> bool {
    matches!(tool, "Bash" | "AskUserQuestion" | "ExitPlanMode")
}
