//! The one vocabulary in which every agent is understood.
//!
//! Owns the events and what is known about a provider; refuses to know any agent's dialect.
//!
//! What an adapter must know about their order: `Began` comes at each turn, also at turns nobody asked for · `Text` is
//! provisional until `TextDone` replaces it or `TextRestarted` voids it · a tool call is told by `ToolUsed` before it is
//! `Asked` for, and one that runs without being asked for has no `Asked` at all · a turn may end with tool calls that
//! have no `ToolEnded`, and several messages may end in one `TurnEnded`.

use alloc::string::String;

use crate::contract::record::Usage;

/// One thing that an agent said. Texts are borrowed from the line and unescaped; inputs are JSON exactly as sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentEvent<'a> {
    /// A turn begins.
    Began {
        /// The agent's id for the conversation.
        conversation: &'a str,
        /// The model that it uses.
        model: Option<&'a str>,
        /// The agent's version.
        version: Option<&'a str>,
        /// Where its credentials come from: `ANTHROPIC_API_KEY`, `none`, … Never the key itself.
        api_key_source: Option<&'a str>,
    },
    /// More text of the answer, provisionally.
    Text {
        /// What to append.
        delta: &'a str,
    },
    /// The provisional text, if there is any, is void: its message was abandoned, or a new one begins. Finished text
    /// stays.
    TextRestarted,
    /// A finished piece of the answer. It replaces the provisional text.
    TextDone {
        /// The text.
        text: &'a str,
    },
    /// The agent calls a tool. It may run at once, or be asked for next.
    ToolUsed {
        /// The agent's id for the call.
        id: &'a str,
        /// The tool's name.
        name: &'a str,
        /// A JSON object as sent, or [`UNREADABLE_INPUT`].
        input: &'a str,
    },
    /// A tool call has ended.
    ToolEnded {
        /// The agent's id for the call.
        id: &'a str,
        /// What the tool said.
        output: &'a str,
        /// It failed, or was denied.
        is_error: bool,
    },
    /// It is about to use this tool, and has not looked at its own rules yet: does it have to ask first?
    AboutToUse {
        /// The id to answer with.
        request: &'a str,
        /// The tool's name.
        tool: &'a str,
        /// The tool's input as sent, or [`UNREADABLE_INPUT`].
        input: &'a str,
    },
    /// May it run this tool? It waits for the answer, for ever.
    Asked {
        /// The id to answer with.
        request: &'a str,
        /// The agent's id for the call.
        tool_id: &'a str,
        /// The tool's name.
        tool: &'a str,
        /// A JSON object as sent, which must be given back to allow it, or [`UNREADABLE_INPUT`].
        input: &'a str,
        /// Why the agent asks, in its words.
        reason: Option<&'a str>,
    },
    /// It no longer waits for the answer to this request.
    AskWithdrawn {
        /// The id of the request.
        request: &'a str,
    },
    /// It asks something that nobody here can answer. It waits, so it must be told so.
    UnknownRequest {
        /// The id to answer with.
        request: &'a str,
        /// What is wrong with the request, to be said in the answer.
        why: &'static str,
    },
    /// The answer to a request of ours.
    Replied {
        /// The id that we chose.
        request: &'a str,
        /// Why it failed, if it failed.
        error: Option<&'a str>,
    },
    /// The model's provider did not answer; it tries again.
    Retrying {
        /// Which attempt has failed, from 1.
        attempt: u32,
        /// How many there will be.
        max: u32,
        /// How long it waits first.
        delay_ms: u64,
        /// The HTTP status, if there was an answer.
        status: Option<u16>,
    },
    /// The turn has ended; every tool call and ask still open has ended with it.
    TurnEnded(TurnEnd<'a>),
    /// It does not agree to be asked before it uses tools: it must not be used.
    Unruly {
        /// Why, in its words.
        why: &'a str,
    },
    /// The line is no JSON object.
    Garbage,
    /// The line says nothing that matters here, except that the agent lives.
    Ignored,
}

/// Stands for a tool input that is no JSON object or is nested deeper than [`INPUT_DEPTH_MAX`].
pub const UNREADABLE_INPUT: &str = r#"{"unreadable":"not an object, or nested too deeply"}"#;

/// Deepest nesting of a tool's input: what clients accept in a message (security B6), less the event around it.
pub const INPUT_DEPTH_MAX: usize = 56;

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TurnEnd<'a> {
    /// In a word.
    pub outcome: Outcome,
    /// The HTTP status of the model's provider, if it was at fault.
    pub api_status: Option<u16>,
    /// How long the model's provider asks to be left alone, if it was asked too much and says so.
    pub retry_after_ms: Option<u64>,
    /// What went wrong, in the agent's words; empty when nothing did.
    pub error: &'a str,
    /// Tokens and money so far; `None` if not told. A total, never to be added up. It goes on over restarts of the agent
    /// with claude 2.1.330; 2.1.197 counts from zero again, so a total below the last one begins a new count.
    pub usage: Option<Usage>,
    /// The conversation to be continued does not exist: begin a new one.
    pub is_not_found: bool,
    /// The agent has no credentials, or they are refused: the owner must log it in.
    pub is_not_logged_in: bool,
}

impl TurnEnd<'_> {
    /// Nothing went wrong.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.outcome == Outcome::Completed
    }
}

/// How a turn ended, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Completed,
    /// The model's provider refused or failed.
    ApiError,
    /// It was interrupted.
    Interrupted,
    /// In any other way.
    Failed,
}

/// What is known about an agent CLI on this machine, without asking anybody beyond it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProviderState {
    /// The program's canonical path, if there is one that may be run.
    pub path: Option<String>,
    /// Its version, if it said one.
    pub version: Option<String>,
    /// It has credentials. Whether they are still good shows only when they are used.
    pub is_authenticated: bool,
    /// Why it cannot be used, and what to type next.
    pub problem: Option<Problem>,
}

impl ProviderState {
    /// Sessions can run on it.
    #[must_use]
    pub const fn is_available(&self) -> bool {
        self.problem.is_none()
    }
}

/// Why a provider cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong.
    pub text: String,
    /// What to do about it.
    pub hint: String,
}
