//! What codex asks, and waits for the answer to.
//!
//! Owns what can be decided, and how it is shown; refuses to decide. Invariant: whatever cannot be shown exactly, or would
//! allow more than the one thing that is shown, is refused.

use alloc::string::{String, ToString};

use serde_json::value::RawValue;

use super::hear::{Floor, Params};
use super::item::{APPLY_PATCH, BASH, WRITE_STDIN, command_input, stdin_input};
use super::process::{Ask, Codex};
use super::speak;
use crate::agent::event::{AgentEvent, UNREADABLE_INPUT};
use crate::agent::json::text;
use crate::agent::lane::Lane;

impl Codex {
    pub(super) fn on_request(
        &mut self,
        method: &str,
        id: &RawValue,
        params: Option<&Params<'_>>,
        floor: &mut Floor<'_, '_>,
    ) {
        let lane = params.and_then(|params| self.lane_of(params));
        let asked = match (params, lane) {
            (Some(params), Some(lane)) => self.asked(method, id, lane, params),
            _ => Err("nobody watches this conversation"),
        };
        match (asked, lane) {
            (Ok(asked), Some(lane)) => self.on_asked(id, lane, &asked, floor),
            (Err(why), lane) => {
                floor.out.extend(speak::refuse(id, why));
                (floor.tell)(lane, AgentEvent::UnknownRequest { request: id.get(), why });
            }
            (Ok(_), None) => {}
        }
    }

    /// What is asked, if somebody can answer that.
    fn asked(
        &self,
        method: &str,
        id: &RawValue,
        lane: Lane,
        params: &Params<'_>,
    ) -> Result<Asked, &'static str> {
        let thread = self.threads.get(&lane).filter(|thread| !thread.is_left);
        let thread = thread.filter(|thread| thread.turn.is_some());
        let thread = thread.ok_or("the turn that this belongs to is over")?;
        let item = text(params.item_id).ok_or("the call is not named")?.into_owned();
        let asked = match method {
            "item/commandExecution/requestApproval" => asked_command(item, params)?,
            "item/fileChange/requestApproval" => {
                if params.grant_root.is_some() {
                    return Err("only single changes are approved");
                }
                let input = thread.patch(&item).ok_or("the change cannot be shown")?.to_string();
                Asked { tool: APPLY_PATCH, call: item, input, reason: reason(params), ends: false }
            }
            "item/tool/requestUserInput" => {
                return Err("nobody can answer that now: decide yourself, or ask at the end");
            }
            _ => return Err("requests of this kind are not supported"),
        };
        let is_too_long = id.get().len() > self.bounds.name_max;
        if is_too_long || asked.call.len() > self.bounds.name_max {
            return Err("its name is too long");
        }
        if asked.input == UNREADABLE_INPUT || asked.input.len() > self.bounds.input_max {
            return Err("it is too large to be shown, so it cannot be approved");
        }
        if self.asks.len() >= self.bounds.asks_max {
            return Err("too much is asked at once");
        }
        Ok(asked)
    }

    fn on_asked(&mut self, id: &RawValue, lane: Lane, asked: &Asked, floor: &mut Floor<'_, '_>) {
        let calls_max = self.bounds.calls_max;
        let Some(thread) = self.threads.get_mut(&lane) else { return };
        let request = id.get();
        let (tool_id, tool, input) = (&*asked.call, asked.tool, &*asked.input);
        let ends_call = asked.ends.then(|| asked.call.clone());
        let ask = Ask::new(lane, input, ends_call);
        // Two asks of one name cannot be told apart, so neither is allowed.
        if let Some(before) = self.asks.remove(request) {
            floor.out.extend(speak::decide(request, false));
            floor.tell(before.lane, AgentEvent::AskWithdrawn { request });
            return;
        }
        self.asks.insert(request.to_string(), ask);
        if thread.note_call(tool_id, calls_max) {
            floor.tell(lane, AgentEvent::ToolUsed { id: tool_id, name: tool, input });
        }
        let reason = asked.reason.as_deref();
        floor.tell(lane, AgentEvent::Asked { request, tool_id, tool, input, reason });
    }
}

/// Something that a person, or the policy, can decide.
struct Asked {
    tool: &'static str,
    call: String,
    input: String,
    reason: Option<String>,
    /// Nothing else tells of the end of the call.
    ends: bool,
}

fn asked_command(item: String, params: &Params<'_>) -> Result<Asked, &'static str> {
    const UNREADABLE: &str = "a command that cannot be read cannot be approved";
    if params.network.is_some() || params.permissions.is_some() {
        return Err("only commands themselves are approved, no further rights");
    }
    if text(params.environment).is_some_and(|name| name != "local") {
        return Err("only commands on this machine are approved");
    }
    let reason = reason(params);
    match text(params.kind).as_deref() {
        None | Some("command") => {
            let input = command_input(params.command, params.cwd).ok_or(UNREADABLE)?;
            // A shell may ask for each of the commands in a script; the script's call goes on.
            let call = text(params.approval_id).map_or(item, |id| id.into_owned());
            Ok(Asked { tool: BASH, call, input, reason, ends: params.approval_id.is_some() })
        }
        Some("writeStdin") => {
            let input = stdin_input(params.command, params.cwd, &item).ok_or(UNREADABLE)?;
            let call = text(params.approval_id).ok_or("the call is not named")?.into_owned();
            Ok(Asked { tool: WRITE_STDIN, call, input, reason, ends: true })
        }
        Some(_) => Err("approvals of this kind are not supported"),
    }
}

fn reason(params: &Params<'_>) -> Option<String> {
    text(params.reason).map(|reason| reason.into_owned())
}
