//! A message comes in and a turn begins.
//!
//! Owns `session.sendMessage` up to the moment when the agent has the prompt; refuses to know what the agent makes of
//! it. Invariant: the message is on disk before it is answered, and answered before the agent sees it (wire.md §6).

use alloc::format;
use alloc::string::String;
use alloc::vec;
use core::time::Duration;

use super::ending::error_metadata;
use super::host::Agent;
use super::provider::Waiter;
use super::session::{Session, session_limit, session_param};
use super::turn::Turn;
use super::{After, Asked, Then, Work, raw, status_changed};
use crate::access::ctx::Ctx;
use crate::access::peers::Call;
use crate::contract::effect::{Change, Question, Sync};
use crate::contract::id::{MessageId, SessionId};
use crate::contract::input::Answer;
use crate::contract::record::{Author, MessageRecord, Progress, SessionStatus};
use crate::engine::Timer;
use crate::wire::event::Event;
use crate::wire::params::Params;
use crate::wire::rpc::RpcError;
use crate::wire::view::MessageView;

/// A message that is to be sent.
#[derive(Debug)]
pub(super) struct Draft {
    /// `None` for the first message of a session, which its creation has answered.
    call: Option<Call>,
    session: SessionId,
    content: String,
    client_id: Option<String>,
}

impl Draft {
    pub(super) const fn first(session: SessionId, content: String) -> Self {
        Self { call: None, session, content, client_id: None }
    }

    /// The draft, if its sender may still send it; else it is refused.
    fn still_welcome(mut self, cx: &mut Ctx<'_>) -> Option<Self> {
        if let Some(call) = self.call.take() {
            self.call = Some(cx.still_welcome(call)?);
        }
        Some(self)
    }

    pub(super) fn refuse(self, cx: &mut Ctx<'_>, error: &RpcError) {
        if let Some(call) = self.call {
            cx.refuse(call, error);
        }
    }
}

/// What a turn begins with.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) author: Author,
    pub(super) content: String,
    pub(super) client_id: Option<String>,
    /// Who is answered once it is written down.
    pub(super) call: Option<Call>,
}

/// Longest id that a client may give to its message.
const CLIENT_ID_BYTES_MAX: usize = 128;
/// Copies of one message that wait while it is starting.
const ECHOES_MAX: usize = 16;

impl Work {
    pub(crate) fn on_send(&mut self, cx: &mut Ctx<'_>, call: Call, params: &Params<'_>) {
        let (session, content, client_id) = match read(cx, params) {
            Ok(read) => read,
            Err(error) => return cx.refuse(call, &error),
        };
        let is_known = self.sessions.contains_key(&session);
        let draft = Draft { call: Some(call), session, content, client_id };
        if is_known && draft.client_id.is_some() {
            self.look_up(cx, draft);
        } else {
            self.send(cx, draft);
        }
    }

    fn look_up(&mut self, cx: &mut Ctx<'_>, draft: Draft) {
        let Some(client_id) = draft.client_id.clone() else { return };
        let ask = cx.ask(Question::MessageByClientId { session: draft.session, client_id });
        self.asked.await_(ask, Asked::Lookup(draft));
    }

    /// Whether this message has come before: then it is answered as it was, and nothing else happens.
    pub(super) fn on_lookup(&mut self, cx: &mut Ctx<'_>, draft: Draft, answer: Answer) {
        let Some(draft) = draft.still_welcome(cx) else { return };
        match answer.message() {
            Ok(None) => self.send(cx, draft),
            Ok(Some(record)) => {
                if let Some(call) = draft.call {
                    cx.answer(call, &MessageView::from(&record));
                }
            }
            Err(fault) => draft.refuse(cx, &RpcError::storage(&fault)),
        }
    }

    pub(super) fn send(&mut self, cx: &mut Ctx<'_>, draft: Draft) {
        let session = match self.session_mut(draft.session) {
            Ok(session) => session,
            Err(error) => return draft.refuse(cx, &error),
        };
        if session.record.status == SessionStatus::Paused || session.is_pausing {
            return draft.refuse(cx, &paused());
        }
        let is_echo = draft.client_id.is_some() && draft.client_id == session.client_id;
        if session.is_starting && is_echo && session.echoes.len() < ECHOES_MAX {
            return session.echoes.push(draft);
        }
        if session.turn.is_some() && is_echo {
            // It is being written down: asked again, it is found.
            return self.look_up(cx, draft);
        }
        if session.turn.is_some() || session.is_starting {
            return draft.refuse(cx, &busy());
        }
        if session.is_carrying() {
            return draft.refuse(cx, &undecided());
        }
        let Some(provider) = session.provider else {
            let why = format!("this daemon does not know `{}`", session.record.provider);
            let error = RpcError::new(-32002, "provider_not_available", why);
            return draft.refuse(cx, &error.hint("update clawd, or use another session"));
        };
        session.is_starting = true;
        session.is_start_cancelled = false;
        session.client_id.clone_from(&draft.client_id);
        self.with_provider(cx, provider, Waiter::Send(draft));
    }

    /// The provider has answered: write the message down, and an empty answer to it.
    pub(super) fn send_ready(
        &mut self,
        cx: &mut Ctx<'_>,
        draft: Draft,
        ready: Result<(), RpcError>,
    ) {
        let ready = ready.and_then(|()| self.check_start(cx, draft.session));
        let session = match self.session_mut(draft.session) {
            Ok(session) => session,
            Err(error) => return draft.refuse(cx, &error),
        };
        session.is_starting = false;
        let echoes = core::mem::take(&mut session.echoes);
        let Some(draft) = draft.still_welcome(cx) else {
            return echoes.into_iter().for_each(|echo| self.send(cx, echo));
        };
        if let Err(error) = ready {
            echoes.into_iter().for_each(|echo| echo.refuse(cx, &error));
            return self.refuse_start(cx, draft, &error);
        }
        let Draft { call, session, content, client_id } = draft;
        self.open_turn(cx, session, Opening { author: Author::User, content, client_id, call });
        echoes.into_iter().for_each(|echo| self.look_up(cx, echo));
    }

    /// Writes down a message to the agent, and an empty answer to it.
    pub(super) fn open_turn(&mut self, cx: &mut Ctx<'_>, id: SessionId, opening: Opening) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let at = cx.engine.now.unix;
        let record = &mut session.record;
        let user = MessageRecord {
            id: MessageId(cx.engine.entropy.uuid()),
            session: record.id,
            ordinal: record.message_count,
            author: opening.author,
            content: opening.content,
            status: Progress::Done,
            created_at: at,
            metadata: String::from("{}"),
            client_id: opening.client_id,
        };
        let assistant = Turn::message(cx, record.id, record.message_count.saturating_add(1));
        record.message_count = record.message_count.saturating_add(2);
        record.updated_at = at;
        let previous = core::mem::replace(&mut record.status, SessionStatus::Running);
        let notices = vec![
            cx.engine.number(&created(&user)),
            status_changed(cx, record, previous, None, None),
            cx.engine.number(&created(&assistant)),
        ];
        let changes = vec![
            Change::PutMessage(user.clone()),
            Change::PutMessage(assistant.clone()),
            Change::PutSession(record.clone()),
        ];
        let reply = opening.call.map(|call| (call, raw(&MessageView::from(&user))));
        session.turn = Some(Turn::new(assistant, Some(user.content)));
        cx.engine.timers.disarm(Timer::AgentIdle(id));
        let after = After { session: Some(id), reply, notices, then: Then::Begin(id) };
        self.store(cx, changes, Sync::Process, after);
    }

    /// Much may have happened while the provider was looked at.
    fn check_start(&mut self, cx: &mut Ctx<'_>, id: SessionId) -> Result<(), RpcError> {
        if self.is_ending {
            return Err(RpcError::new(-32603, "shutting_down", "the daemon is shutting down"));
        }
        let session = self.session_mut(id)?;
        if session.is_start_cancelled {
            return Err(RpcError::new(-32002, "cancelled", "this was cancelled before it began"));
        }
        if session.record.status == SessionStatus::Paused {
            return Err(paused());
        }
        if session.turn.is_some() {
            return Err(busy());
        }
        if let Some(provider) = session.provider {
            self.providers.rested(cx, provider)?;
        }
        self.make_room(cx, id)
    }

    /// A first message has nobody waiting for its answer: the session itself says why there is none.
    fn refuse_start(&mut self, cx: &mut Ctx<'_>, draft: Draft, error: &RpcError) {
        if draft.call.is_some() {
            return draft.refuse(cx, error);
        }
        let Some(session) = self.sessions.get_mut(&draft.session) else { return };
        let record = &mut session.record;
        let message = MessageRecord {
            id: MessageId(cx.engine.entropy.uuid()),
            session: record.id,
            ordinal: record.message_count,
            author: Author::System,
            content: format!("The first message was not sent: {}", error.message),
            status: Progress::Error,
            created_at: cx.engine.now.unix,
            metadata: error_metadata(error.kind, &error.message, "send it again"),
            client_id: None,
        };
        record.message_count = record.message_count.saturating_add(1);
        let notices = vec![cx.engine.number(&created(&message))];
        let changes = vec![Change::PutSession(record.clone()), Change::PutMessage(message)];
        let after = After { session: Some(draft.session), notices, ..After::default() };
        self.store(cx, changes, Sync::Process, after);
    }

    /// There is a bound on agents: one that has nothing to do makes room.
    pub(super) fn make_room(&mut self, cx: &mut Ctx<'_>, id: SessionId) -> Result<(), RpcError> {
        let session = self.sessions.get(&id);
        let has_agent = session.is_some_and(|session| session.agent.is_some());
        let may_share = |provider| self.with_room(cx, provider).is_some();
        let is_beginning = |it: &&Session| it.turn.is_some() && it.agent.is_none();
        let beginning = self.sessions.values().filter(is_beginning).count();
        let at_work = self.agents.len().saturating_add(beginning);
        if has_agent
            || at_work < cx.engine.config.limits.agents_max
            || session.and_then(|session| session.provider).is_some_and(may_share)
        {
            return Ok(());
        }
        let is_idle = |agent: &Agent| {
            !agent.is_ending && !agent.seats.values().any(|seat| self.has_turn(seat.session))
        };
        let idle = self.agents.iter().find(|(_, agent)| is_idle(agent));
        let Some(proc) = idle.map(|(proc, _)| *proc) else {
            return Err(session_limit("too many agents are at work", "wait for one to finish"));
        };
        self.end_agent(cx, proc);
        Ok(())
    }
}

fn read(
    cx: &Ctx<'_>,
    params: &Params<'_>,
) -> Result<(SessionId, String, Option<String>), RpcError> {
    let session = session_param(params)?;
    let content = params.need_text("content")?;
    let client_id = params.text("clientMessageId")?;
    check_prompt(cx, "content", &content)?;
    if client_id.as_ref().is_some_and(|id| id.len() > CLIENT_ID_BYTES_MAX) {
        return Err(RpcError::bad_params("clientMessageId", "is too long"));
    }
    Ok((session, content, client_id))
}

pub(super) fn check_prompt(cx: &Ctx<'_>, field: &str, text: &str) -> Result<(), RpcError> {
    let bytes_max = cx.engine.config.limits.prompt_bytes_max;
    if text.trim().is_empty() {
        return Err(RpcError::bad_params(field, "must not be empty"));
    }
    if text.len() > bytes_max {
        let why = format!("must have {bytes_max} bytes or fewer");
        return Err(RpcError::bad_params(field, &why));
    }
    Ok(())
}

pub(super) fn paused() -> RpcError {
    RpcError::new(-32006, "session_paused", "the session is paused")
        .hint("resume it with `session.resume`")
}

fn undecided() -> RpcError {
    RpcError::new(-32002, "session_busy", "a tool call still waits for a decision")
        .hint("decide on it (`approval.list` shows it), or stop it with `session.cancel`")
}

fn busy() -> RpcError {
    RpcError::new(-32002, "session_busy", "a turn is running")
        .hint("wait for it, or stop it with `session.cancel`")
        .retry_after(Duration::from_secs(1))
}

pub(super) fn created(record: &MessageRecord) -> Event<'_> {
    Event::MessageCreated { session_id: record.session, message: record.into() }
}
