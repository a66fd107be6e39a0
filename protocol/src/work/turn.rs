//! One turn: the agent talks, uses tools, and ends.
//!
//! Owns the answer that is being written and how a turn ends; refuses to know processes. What streams is provisional:
//! the finished block replaces it, and the finished message is what is stored.
//!
//! | agent says | becomes |
//! |---|---|
//! | `Text` | `messageUpdated`, at most every [`stream_every`](crate::Limits::stream_every), full text so far |
//! | `TextDone` | stored |
//! | `ToolUsed` | stored; announced when it is asked for, has ended, or after a moment |
//! | `Asked` | `toolCallCreated` (pending), `approvalRequested` |
//! | `ToolEnded` | `toolCallUpdated` |
//! | `TurnEnded`, exit | `messageUpdated` (done), `statusChanged` |

use alloc::format;
use alloc::string::String;
use alloc::vec;

use super::approval::Ask;
use super::ending::Ending;
use super::send::created;
use super::session::session_param;
use super::{After, Work, status_changed};
use crate::access::account::empty;
use crate::access::ctx::Ctx;
use crate::access::peers::Call;
use crate::agent::event::AgentEvent;
use crate::agent::{Provider, Say};
use crate::contract::effect::{Change, Sync};
use crate::contract::id::{MessageId, ProcId, SessionId};
use crate::contract::record::{Author, MessageRecord, Progress, SessionStatus};
use crate::engine::Timer;
use crate::wire::event::Event;
use crate::wire::params::Params;

/// A turn that is under way.
#[derive(Debug)]
pub(super) struct Turn {
    /// The answer; its content is what is finished of it.
    pub(super) message: MessageRecord,
    /// What the agent has not been given yet.
    pub(super) prompt: Option<String>,
    /// What streams, and is not finished.
    provisional: String,
    pub(super) is_cancelled: bool,
    /// The model's provider refuses the credentials: that it is asked again and again will not change.
    pub(super) is_refused: bool,
    /// How long the agent last meant to wait before it asked again.
    pub(super) retry_after_ms: Option<u64>,
    /// The process must not get another turn.
    pub(super) is_last: bool,
    is_cut: bool,
    /// A block was finished, and is not stored yet.
    is_unkept: bool,
}

impl Turn {
    /// The empty answer with which a turn begins.
    pub(super) fn message(cx: &mut Ctx<'_>, session: SessionId, ordinal: u64) -> MessageRecord {
        MessageRecord {
            id: MessageId(cx.engine.entropy.uuid()),
            session,
            ordinal,
            author: Author::Assistant,
            content: String::new(),
            status: Progress::Streaming,
            created_at: cx.engine.now.unix,
            metadata: String::from("{}"),
            client_id: None,
        }
    }

    pub(super) const fn new(message: MessageRecord, prompt: Option<String>) -> Self {
        Self {
            message,
            prompt,
            provisional: String::new(),
            is_cancelled: false,
            is_refused: false,
            retry_after_ms: None,
            is_last: false,
            is_cut: false,
            is_unkept: false,
        }
    }

    pub(super) fn text(&self) -> String {
        let mut text = self.message.content.clone();
        append(&mut text, &self.provisional);
        text
    }

    /// How much more may be said.
    fn room(&self, bytes_max: usize) -> usize {
        let said = self.message.content.len().saturating_add(self.provisional.len());
        bytes_max.saturating_sub(said)
    }

    fn stream(&mut self, delta: &str, bytes_max: usize) {
        let room = self.room(bytes_max);
        self.provisional.push_str(cut(delta, room));
    }

    fn finish_block(&mut self, text: &str, bytes_max: usize) {
        self.provisional.clear();
        self.is_unkept = true;
        let room = self.room(bytes_max);
        let fits = cut(text, room);
        append(&mut self.message.content, fits);
        if fits.len() < text.len() && !self.is_cut {
            self.is_cut = true;
            let note = format!("[cut: the answer is longer than {bytes_max} bytes]");
            append(&mut self.message.content, &note);
        }
    }
}

impl Work {
    // --- what the agent says ------------------------------------------------------------------------------------

    pub(super) fn on_event(
        &mut self,
        cx: &mut Ctx<'_>,
        id: SessionId,
        proc: ProcId,
        event: AgentEvent<'_>,
    ) {
        let bytes_max = cx.engine.config.limits.message_text_max;
        match event {
            AgentEvent::Began { conversation, model, .. } => {
                self.on_began(cx, id, conversation, model);
            }
            AgentEvent::Text { delta } => {
                self.edit(cx, id, |turn| turn.stream(delta, bytes_max));
            }
            AgentEvent::TextRestarted => self.edit(cx, id, |turn| turn.provisional.clear()),
            AgentEvent::TextDone { text } => {
                self.edit(cx, id, |turn| turn.finish_block(text, bytes_max));
            }
            AgentEvent::ToolUsed { id: tool, name, input } => {
                self.on_tool_used(cx, id, tool, name, input);
            }
            AgentEvent::ToolEnded { id: tool, output, is_error } => {
                self.on_tool_ended(cx, id, tool, output, is_error);
            }
            AgentEvent::AboutToUse { request, tool, input } => {
                let request = String::from(request);
                let say = match self.may_pass(cx, id, tool, input) {
                    true => Say::MayDecide { request },
                    false => Say::MustAsk { request },
                };
                self.say(cx, proc, say);
            }
            AgentEvent::Asked { request, tool_id: provider_id, tool: name, input, reason } => {
                self.on_asked(cx, id, Ask { request, provider_id, name, input, reason });
            }
            AgentEvent::AskWithdrawn { request } => self.on_ask_withdrawn(cx, id, request),
            AgentEvent::Retrying { attempt, max, delay_ms, status } => {
                self.on_retrying(cx, id, attempt, max, delay_ms, status);
            }
            AgentEvent::TurnEnded(end) => self.on_turn_ended(cx, id, proc, &end),
            AgentEvent::Garbage
            | AgentEvent::Unruly { .. }
            | AgentEvent::UnknownRequest { .. }
            | AgentEvent::Replied { .. }
            | AgentEvent::Ignored => {}
        }
    }

    /// A turn begins; one that nobody asked for, such as after a background task, gets an answer of its own.
    fn on_began(
        &mut self,
        cx: &mut Ctx<'_>,
        id: SessionId,
        conversation: &str,
        model: Option<&str>,
    ) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let is_new = !core::mem::replace(&mut session.record.agent_resumable, true);
        if is_new && session.provider.is_some_and(Provider::names_conversations) {
            session.record.agent_session = String::from(conversation);
        }
        session.record.model = model.map(String::from).or(session.record.model.take());
        if session.turn.is_some() {
            if is_new {
                // Before the turn ends: were the daemon killed in it, the conversation would be lost, or claude would
                // refuse to begin this id once more.
                let changes = vec![Change::PutSession(session.record.clone())];
                let after = After { session: Some(id), ..After::default() };
                self.store(cx, changes, Sync::Process, after);
            }
            return;
        }
        let message = Turn::message(cx, id, session.record.message_count);
        session.record.message_count = session.record.message_count.saturating_add(1);
        let previous = core::mem::replace(&mut session.record.status, SessionStatus::Running);
        session.is_pausing |= previous == SessionStatus::Paused;
        let reason = Some("background");
        let notices = vec![
            status_changed(cx, &session.record, previous, None, reason),
            cx.engine.number(&created(&message)),
        ];
        let changes =
            vec![Change::PutMessage(message.clone()), Change::PutSession(session.record.clone())];
        session.turn = Some(Turn::new(message, None));
        cx.engine.timers.disarm(Timer::AgentIdle(id));
        let after = After { session: Some(id), notices, ..After::default() };
        self.store(cx, changes, Sync::Process, after);
    }

    /// The agent asks again. People are told, and a refusal of the credentials ends the turn: claude would go on for minutes.
    fn on_retrying(
        &mut self,
        cx: &mut Ctx<'_>,
        id: SessionId,
        attempt: u32,
        max: u32,
        delay_ms: u64,
        status: Option<u16>,
    ) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(turn) = &mut session.turn else { return };
        turn.retry_after_ms = Some(delay_ms);
        let is_new_refusal = status == Some(401) && !turn.is_refused;
        turn.is_refused |= is_new_refusal;
        let cause = status.map_or_else(|| String::from("no answer"), |code| format!("HTTP {code}"));
        let reason = format!("retry {attempt} of {max} in {delay_ms} ms ({cause})");
        cx.tell_in_passing(&Event::StatusChanged {
            session_id: id,
            status: session.record.status,
            previous: session.record.status,
            waiting_for: session.waiting_for(),
            reason: Some(&reason),
        });
        if is_new_refusal {
            self.interrupt(cx, id);
        }
    }

    // --- streaming ----------------------------------------------------------------------------------------------

    fn edit(&mut self, cx: &mut Ctx<'_>, id: SessionId, edit: impl FnOnce(&mut Turn)) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if let Some(turn) = &mut session.turn {
            edit(turn);
            session.is_dirty = true;
            self.stream_if_dirty(cx, id);
        }
    }

    /// Sends the text so far, unless it was just sent or something before it is not on disk yet.
    pub(super) fn stream_if_dirty(&mut self, cx: &mut Ctx<'_>, id: SessionId) {
        let every = cx.engine.config.limits.stream_every;
        let now = cx.engine.now.mono;
        let Some(session) = self.sessions.get_mut(&id).filter(|it| it.is_dirty && it.ops == 0)
        else {
            return;
        };
        if let Some(at) = session.streamed_at.map(|at| at + every).filter(|at| *at > now) {
            return cx.engine.timers.arm_once(Timer::Stream(id), at);
        }
        self.stream_now(cx, id);
    }

    /// Sends the text so far, however soon, if it is one that streams already: something durable comes next, such as a
    /// tool call, and what was said before it is read before it.
    pub(super) fn stream_before(&mut self, cx: &mut Ctx<'_>, id: SessionId) {
        let session = self.sessions.get(&id);
        let turn = session.and_then(|it| Some((it, it.turn.as_ref()?)));
        if turn.is_some_and(|(session, turn)| session.streamed.is_about(turn.message.id)) {
            self.stream_now(cx, id);
        }
    }

    fn stream_now(&mut self, cx: &mut Ctx<'_>, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id).filter(|it| it.is_dirty && it.ops == 0)
        else {
            return;
        };
        let Some(turn) = &session.turn else { return };
        session.is_dirty = false;
        session.streamed_at = Some(cx.engine.now.mono);
        session.streamed.tell(cx, id, turn.message.id, turn.text());
    }

    pub(crate) fn on_stream_due(&mut self, cx: &mut Ctx<'_>, id: SessionId) {
        self.stream_if_dirty(cx, id);
    }

    /// Stores what is finished of the answer: once for all that an agent has just written, and not again before the
    /// disk has answered.
    pub(super) fn keep_message(&mut self, cx: &mut Ctx<'_>, id: SessionId) {
        let session = self.sessions.get_mut(&id).filter(|session| session.ops == 0);
        let Some(turn) = session.and_then(|session| session.turn.as_mut()) else { return };
        if core::mem::take(&mut turn.is_unkept) {
            let changes = vec![Change::PutMessage(turn.message.clone())];
            let after = After { session: Some(id), ..After::default() };
            self.store(cx, changes, Sync::Process, after);
        }
    }

    // --- stopping -----------------------------------------------------------------------------------------------

    pub(crate) fn on_cancel(&mut self, cx: &mut Ctx<'_>, call: Call, params: &Params<'_>) {
        let session = match session_param(params).and_then(|id| self.session_mut(id)) {
            Ok(session) => session,
            Err(error) => return cx.refuse(call, &error),
        };
        let id = session.record.id;
        session.is_start_cancelled = session.is_starting;
        let has_prompt = session.turn.as_ref().is_some_and(|turn| turn.prompt.is_none());
        if let Some(turn) = &mut session.turn {
            turn.is_cancelled = true;
        }
        if has_prompt {
            self.interrupt(cx, id);
        }
        self.cancel_carried(cx, id);
        cx.answer(call, &empty());
    }

    pub(super) fn interrupt(&mut self, cx: &mut Ctx<'_>, id: SessionId) {
        let seat = self.sessions.get(&id).and_then(|session| session.agent);
        let Some((proc, lane)) = seat else { return };
        let at = cx.engine.now.mono + cx.engine.config.limits.interrupt_timeout;
        cx.engine.timers.arm_once(Timer::Interrupt(id), at);
        self.say(cx, proc, Say::Interrupt(lane));
    }

    pub(crate) fn on_interrupt_late(&mut self, cx: &mut Ctx<'_>, id: SessionId) {
        let Some((proc, _)) = self.sessions.get(&id).and_then(|session| session.agent) else {
            return;
        };
        // What it does for others must not end because of this one.
        if self.agents.get(&proc).is_some_and(|agent| agent.seats.len() > 1) {
            self.abandon(cx, id);
            return self.finish_turn(cx, id, Ending::Cancelled);
        }
        self.kill_agent(cx, proc);
    }

    pub(crate) fn on_agent_idle(&mut self, cx: &mut Ctx<'_>, id: SessionId) {
        if !self.has_turn(id) {
            self.retire_agent(cx, id);
        }
    }
}

/// Finished blocks stand apart by an empty line.
fn append(text: &mut String, block: &str) {
    if !text.is_empty() && !block.is_empty() {
        text.push_str("\n\n");
    }
    text.push_str(block);
}

/// The longest beginning that fits, cut between characters.
pub(super) fn cut(text: &str, bytes_max: usize) -> &str {
    text.split_at_checked(text.floor_char_boundary(bytes_max)).map_or(text, |(fits, _)| fits)
}
