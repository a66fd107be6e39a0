//! What a line of codex means.
//!
//! Owns the shapes of its messages, and what each of them changes; refuses to know how a session takes it.

use alloc::string::String;
use alloc::vec::Vec;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::fault::{Fault, attempt};
use super::item::{APPLY_PATCH, Item, Kind};
use super::process::Codex;
use super::speak;
use super::thread::{Stage, Thread, Turn};
use crate::agent::dialect::Hear;
use crate::agent::event::{AgentEvent, Outcome, TurnEnd};
use crate::agent::json::{Raw, is_true, object, read, text};
use crate::agent::lane::Lane;
use crate::contract::record::Usage;

/// Where what is said and told at once goes.
pub(super) struct Floor<'o, 't> {
    pub(super) out: &'o mut Vec<u8>,
    pub(super) tell: Hear<'t>,
}

impl Floor<'_, '_> {
    pub(super) fn tell(&mut self, lane: Lane, event: AgentEvent<'_>) {
        (self.tell)(Some(lane), event);
    }
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    id: Raw<'a>,
    #[serde(borrow)]
    method: Raw<'a>,
    #[serde(borrow)]
    params: Raw<'a>,
    #[serde(borrow)]
    result: Raw<'a>,
    #[serde(borrow)]
    error: Raw<'a>,
}

/// The parameters of any notification or request; the union of those that matter.
#[derive(Deserialize)]
pub(super) struct Params<'a> {
    #[serde(borrow, rename = "threadId")]
    pub(super) thread: Raw<'a>,
    #[serde(borrow)]
    pub(super) turn: Raw<'a>,
    #[serde(borrow)]
    pub(super) item: Raw<'a>,
    #[serde(borrow, rename = "itemId")]
    pub(super) item_id: Raw<'a>,
    #[serde(borrow)]
    pub(super) delta: Raw<'a>,
    #[serde(borrow, rename = "tokenUsage")]
    pub(super) usage: Raw<'a>,
    #[serde(borrow)]
    pub(super) error: Raw<'a>,
    #[serde(borrow, rename = "willRetry")]
    pub(super) will_retry: Raw<'a>,
    #[serde(borrow, rename = "requestId")]
    pub(super) request: Raw<'a>,
    #[serde(borrow)]
    pub(super) kind: Raw<'a>,
    #[serde(borrow, rename = "approvalId")]
    pub(super) approval_id: Raw<'a>,
    #[serde(borrow)]
    pub(super) command: Raw<'a>,
    #[serde(borrow)]
    pub(super) cwd: Raw<'a>,
    #[serde(borrow)]
    pub(super) reason: Raw<'a>,
    #[serde(borrow, rename = "environmentId")]
    pub(super) environment: Raw<'a>,
    #[serde(borrow, rename = "networkApprovalContext")]
    pub(super) network: Raw<'a>,
    #[serde(borrow, rename = "additionalPermissions")]
    pub(super) permissions: Raw<'a>,
    #[serde(borrow, rename = "grantRoot")]
    pub(super) grant_root: Raw<'a>,
}

#[derive(Deserialize)]
pub(super) struct TurnView<'a> {
    #[serde(borrow)]
    pub(super) id: Raw<'a>,
    #[serde(borrow)]
    status: Raw<'a>,
    #[serde(borrow)]
    error: Raw<'a>,
}

impl Codex {
    /// Tells what a line means, and says what has to be said at once.
    pub(super) fn on_line(&mut self, line: &[u8], out: &mut Vec<u8>, tell: Hear<'_>) {
        let line = line.trim_ascii();
        let raw = core::str::from_utf8(line).ok().and_then(|line| serde_json::from_str(line).ok());
        let Some(message) = object::<Message<'_>>(raw) else {
            let is_blank = line.is_empty();
            return tell(None, if is_blank { AgentEvent::Ignored } else { AgentEvent::Garbage });
        };
        let mut has_told = false;
        let mut count = |lane: Option<Lane>, event: AgentEvent<'_>| {
            has_told = true;
            tell(lane, event);
        };
        let floor = &mut Floor { out, tell: &mut count };
        let params = object::<Params<'_>>(message.params);
        match (text(message.method), message.id) {
            (Some(method), Some(id)) => self.on_request(&method, id, params.as_ref(), floor),
            (Some(method), None) => {
                if let Some(params) = params {
                    self.on_notification(&method, &params, floor);
                }
            }
            (None, id @ Some(_)) => self.on_answer(id, message.result, message.error, floor),
            (None, None) => {}
        }
        if !has_told {
            tell(None, AgentEvent::Ignored);
        }
    }

    // --- notifications ------------------------------------------------------------------------------------------

    pub(super) fn lane_of(&self, params: &Params<'_>) -> Option<Lane> {
        self.lanes.get(&*text(params.thread)?).copied()
    }

    fn on_notification(&mut self, method: &str, params: &Params<'_>, floor: &mut Floor<'_, '_>) {
        let Some(lane) = self.lane_of(params) else { return };
        let Some(thread) = self.threads.get_mut(&lane) else { return };
        match method {
            "turn/started" => self.on_turn_started(lane, params, floor),
            "turn/completed" => self.on_turn_completed(lane, params, floor),
            "item/started" => self.on_item_started(lane, params, floor),
            "item/completed" => self.on_item_completed(lane, params, floor),
            "item/agentMessage/delta" => on_delta(thread, lane, params, floor),
            "thread/tokenUsage/updated" => thread.usage = usage(params.usage).or(thread.usage),
            "error" => on_error(thread, lane, params, floor),
            "serverRequest/resolved" => self.on_resolved(lane, params, floor),
            "thread/closed" if thread.turn.is_none() && matches!(thread.stage, Stage::Open) => {
                thread.stage = Stage::Closed
            }
            _ => {}
        }
    }

    fn on_turn_started(&mut self, lane: Lane, params: &Params<'_>, floor: &mut Floor<'_, '_>) {
        let Some(thread) = self.threads.get_mut(&lane) else { return };
        let id = turn(params.turn).and_then(|turn| text(turn.id)).map(|id| id.into_owned());
        thread.turn.get_or_insert(Turn::new()).id = id;
        floor.tell(
            lane,
            AgentEvent::Began {
                conversation: thread.id.as_deref().unwrap_or_default(),
                model: thread.model_used.as_deref(),
                version: self.version.as_deref(),
                api_key_source: None,
            },
        );
        self.stop_if_told(lane, floor);
    }

    fn on_turn_completed(&mut self, lane: Lane, params: &Params<'_>, floor: &mut Floor<'_, '_>) {
        let Some(thread) = self.threads.get_mut(&lane) else { return };
        let Some(over) = turn(params.turn) else { return };
        // The end of another turn, of which nobody knows any more.
        if thread.turn.is_none() || thread.turn_id() != text(over.id).as_deref() {
            return;
        }
        thread.end_turn();
        let (is_left, usage) = (thread.is_left, thread.usage);
        let name = thread.id.clone().unwrap_or_default();
        self.asks.retain(|_, ask| ask.lane != lane);
        if is_left {
            return self.leave(lane, floor.out);
        }
        let fault = Fault::of_turn(over.error);
        let end = match text(over.status).as_deref() {
            Some("completed") => ended(Outcome::Completed, usage),
            Some("interrupted") => {
                // A command may have begun while the interrupt was under way.
                floor.out.extend(speak::end_commands(self.next_id(), &name));
                ended(Outcome::Interrupted, usage)
            }
            Some(_) | None => TurnEnd { usage, ..fault.end() },
        };
        floor.tell(lane, AgentEvent::TurnEnded(end));
    }

    fn on_item_started(&mut self, lane: Lane, params: &Params<'_>, floor: &mut Floor<'_, '_>) {
        let calls_max = self.bounds.calls_max;
        let Some(thread) = self.threads.get_mut(&lane) else { return };
        let Some((item, id)) = item(params) else { return };
        match item.kind(params.item) {
            Kind::Silent => {}
            Kind::Message => {
                if thread.streaming.replace(id).is_some() {
                    floor.tell(lane, AgentEvent::TextRestarted);
                }
            }
            Kind::Call(call) => {
                if call.name == APPLY_PATCH && call.input.len() <= self.bounds.input_max {
                    thread.keep_patch(&id, call.input.clone());
                }
                if thread.note_call(&id, calls_max) {
                    let (name, input) = (&*call.name, &*call.input);
                    floor.tell(lane, AgentEvent::ToolUsed { id: &id, name, input });
                }
            }
        }
    }

    fn on_item_completed(&mut self, lane: Lane, params: &Params<'_>, floor: &mut Floor<'_, '_>) {
        let calls_max = self.bounds.calls_max;
        let Some(thread) = self.threads.get_mut(&lane) else { return };
        let Some((item, id)) = item(params) else { return };
        match item.kind(params.item) {
            Kind::Silent => {}
            Kind::Message => {
                thread.streaming = None;
                let text = text(item.text).unwrap_or_default();
                floor.tell(lane, AgentEvent::TextDone { text: &text });
            }
            Kind::Call(call) => {
                if thread.note_call(&id, calls_max) {
                    let (name, input) = (&*call.name, &*call.input);
                    floor.tell(lane, AgentEvent::ToolUsed { id: &id, name, input });
                }
                thread.end_call(&id);
                let (output, is_error) = item.ending();
                floor.tell(lane, AgentEvent::ToolEnded { id: &id, output: &output, is_error });
            }
        }
    }

    fn on_resolved(&mut self, lane: Lane, params: &Params<'_>, floor: &mut Floor<'_, '_>) {
        let Some(request) = params.request.map(RawValue::get) else { return };
        let Some(ask) = self.asks.remove(request) else { return };
        match (ask.verdict, ask.ends_call) {
            (None, _) => floor.tell(lane, AgentEvent::AskWithdrawn { request }),
            (Some(is_allowed), Some(id)) => {
                if let Some(thread) = self.threads.get_mut(&lane) {
                    thread.end_call(&id);
                }
                let (output, is_error) = if is_allowed { ("", false) } else { ("denied", true) };
                floor.tell(lane, AgentEvent::ToolEnded { id: &id, output, is_error });
            }
            (Some(_), None) => {}
        }
    }
}

fn on_delta(thread: &mut Thread, lane: Lane, params: &Params<'_>, floor: &mut Floor<'_, '_>) {
    let (Some(id), Some(delta)) = (text(params.item_id), text(params.delta)) else { return };
    if thread.streaming.as_deref() != Some(&*id)
        && thread.streaming.replace(id.into_owned()).is_some()
    {
        floor.tell(lane, AgentEvent::TextRestarted);
    }
    floor.tell(lane, AgentEvent::Text { delta: &delta });
}

/// It tries again, and what has streamed so far is void; or it does not, and the end of the turn says the same again.
fn on_error(thread: &mut Thread, lane: Lane, params: &Params<'_>, floor: &mut Floor<'_, '_>) {
    if !is_true(params.will_retry) {
        return;
    }
    if thread.streaming.take().is_some() {
        floor.tell(lane, AgentEvent::TextRestarted);
    }
    let fault = Fault::of_turn(params.error);
    let (attempt, max) = attempt(params.error).unwrap_or((1, 0));
    floor.tell(lane, AgentEvent::Retrying { attempt, max, delay_ms: 0, status: fault.status });
}

fn item<'a>(params: &Params<'a>) -> Option<(Item<'a>, String)> {
    let item = object::<Item<'_>>(params.item)?;
    let id = text(item.id)?.into_owned();
    Some((item, id))
}

pub(super) fn turn(raw: Raw<'_>) -> Option<TurnView<'_>> {
    object::<TurnView<'_>>(raw)
}

/// A turn that ended without an error.
pub(super) const fn ended(outcome: Outcome, usage: Option<Usage>) -> TurnEnd<'static> {
    TurnEnd {
        outcome,
        api_status: None,
        retry_after_ms: None,
        error: "",
        usage,
        is_not_found: false,
        is_not_logged_in: false,
    }
}

/// The tokens of a conversation so far.
fn usage(raw: Raw<'_>) -> Option<Usage> {
    #[derive(Deserialize)]
    struct TokenUsage<'a> {
        #[serde(borrow)]
        total: Raw<'a>,
    }
    #[derive(Deserialize)]
    struct Total<'a> {
        #[serde(borrow, rename = "inputTokens")]
        input: Raw<'a>,
        #[serde(borrow, rename = "outputTokens")]
        output: Raw<'a>,
    }
    let total = object::<Total<'_>>(object::<TokenUsage<'_>>(raw)?.total)?;
    let (input_tokens, output_tokens) = (read(total.input)?, read(total.output)?);
    Some(Usage { input_tokens, output_tokens, cost_micro_usd: None })
}
