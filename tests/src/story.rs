//! A story about an approval: a session whose agent asks, and people who may decide.
//!
//! Owns the usual beginning and the usual questions about how it went on; refuses to assert more than that there is an
//! ask at all.

use std::time::Duration;

use clawd_protocol::policy::{Policy, Rule, Verdict};
use clawd_protocol::{Config, Stream};
use serde_json::{Value, json};

use crate::child::{Act, Script};
use crate::client::{Client, RpcError};
use crate::world::{Crash, World};

/// See the module.
#[derive(Debug)]
pub struct Story {
    /// Everything around it.
    pub world: World,
    /// The owner, connected.
    pub owner: Client,
    /// The session's id.
    pub session: String,
    /// The id of the call that waits.
    pub call: Value,
}

impl Story {
    /// A tool call waits for a decision.
    ///
    /// # Panics
    ///
    /// If none does.
    #[must_use]
    pub fn with(script: Script) -> Self {
        let mut story = Self::in_world(World::default(), script);
        story.call = story.waiting()[0]["toolCallId"].clone();
        assert!(story.call.is_string(), "nothing waits for a decision");
        story
    }

    /// The agent has got its first message, under these rules.
    ///
    /// # Panics
    ///
    /// If a rule is none.
    #[must_use]
    pub fn under(policy: Policy, rules: &[(Verdict, &str)], script: Script) -> Self {
        let rules = rules.iter().map(|(verdict, text)| Rule::parse(*verdict, text));
        let rules = rules.collect::<Result<_, _>>().expect("rules");
        let config = Config { policy: Policy { rules, ..policy }, ..Config::default() };
        Self::in_world(World::with_config(config), script)
    }

    /// The agent has got its first message, whatever comes of it.
    ///
    /// # Panics
    ///
    /// If there is no session.
    #[must_use]
    pub fn in_world(mut world: World, script: Script) -> Self {
        world.machine.scripts.push_back(script);
        let owner = world.owner();
        let params = json!({"repoPath": "/repo", "initialMessage": "build"});
        let session = world.call(owner, "session.create", params).expect("a session");
        let session = session["id"].as_str().expect("an id").to_owned();
        world.settle();
        Self { world, owner, session, call: Value::Null }
    }

    /// What `approval.list` lists.
    ///
    /// # Panics
    ///
    /// If it lists nothing.
    pub fn waiting(&mut self) -> Vec<Value> {
        let list = self.world.call(self.owner, "approval.list", json!({})).expect("a list");
        list["approvals"].as_array().expect("an array").clone()
    }

    /// The id of the approval that waits first.
    pub fn approval(&mut self) -> Value {
        self.waiting()[0]["approval_id"].clone()
    }

    /// The parameters that name the call.
    #[must_use]
    pub fn params(&self) -> Value {
        json!({"sessionId": self.session, "toolCallId": self.call})
    }

    /// Calls as the owner.
    ///
    /// # Errors
    ///
    /// The refusal.
    pub fn ask(&mut self, method: &str, params: Value) -> Result<Value, RpcError> {
        self.world.call(self.owner, method, params)
    }

    /// Says this on the approval that waits first.
    ///
    /// # Errors
    ///
    /// The refusal.
    pub fn respond(&mut self, decision: &str) -> Result<Value, RpcError> {
        let id = self.approval();
        self.ask("approval.respond", json!({"approval_id": id, "decision": decision}))
    }

    /// What tools have really done, by all agents ever.
    #[must_use]
    pub fn deeds(&self) -> usize {
        self.done().len()
    }

    /// The inputs with which tools really ran.
    #[must_use]
    pub fn done(&self) -> Vec<Value> {
        self.world
            .children()
            .flat_map(|child| &child.done)
            .map(|(_, input)| input.clone())
            .collect()
    }

    /// Lets time pass.
    pub fn later(&mut self, secs: u64) {
        self.world.advance(Duration::from_secs(secs));
    }

    /// The session's tool calls, the oldest first.
    ///
    /// # Panics
    ///
    /// If they cannot be had.
    pub fn calls(&mut self) -> Vec<Value> {
        let params = json!({"sessionId": self.session});
        let calls = self.ask("session.toolCalls", params).expect("calls");
        calls.as_array().expect("an array").clone()
    }

    /// The first of them.
    pub fn stored(&mut self) -> Value {
        self.calls()[0].clone()
    }

    /// The session as clients see it.
    ///
    /// # Panics
    ///
    /// If it is gone.
    pub fn view(&mut self) -> Value {
        let params = json!({"sessionId": self.session});
        self.ask("session.get", params).expect("a session")
    }

    /// Everything that the last agent was told.
    ///
    /// # Panics
    ///
    /// If there never was one.
    #[must_use]
    pub fn fed(&self) -> String {
        let child = self.world.children().next_back().expect("an agent");
        String::from_utf8_lossy(&child.fed).into_owned()
    }

    /// The daemon dies and starts again, and the owner comes back; the next agent will do this.
    pub fn restart(&mut self, how: Crash, script: Script) {
        self.world.machine.scripts.push_back(script);
        self.world.crash(how);
        self.owner = self.world.owner();
    }
}

/// The agent writes this line.
#[must_use]
pub fn line(value: &Value) -> Act {
    Act::Write(Stream::Out, format!("{value}\n").into_bytes())
}

/// The agent asks for leave to run `command`, as call `tool` under `request`, and goes on without waiting.
#[must_use]
pub fn asks(request: &str, tool: &str, command: &str) -> Act {
    line(&json!({"type": "control_request", "request_id": request, "request": {
        "subtype": "can_use_tool", "tool_name": "Bash", "display_name": "Bash",
        "input": {"command": command}, "tool_use_id": tool}}))
}

/// The agent is about to use a tool, and asks whether it has to ask.
#[must_use]
pub fn about_to_use(tool: &str, input: &Value) -> Act {
    line(&json!({"type": "control_request", "request_id": "hook_x", "request": {
        "subtype": "hook_callback", "callback_id": "pre_tool_use", "tool_use_id": "toolu_x",
        "input": {"hook_event_name": "PreToolUse", "tool_name": tool, "tool_input": input}}}))
}
