//! Sessions: made, listed, renamed, paused, deleted.
//!
//! Owns what a session is between turns; refuses to know what happens in one.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use serde::Serialize;
use serde_json::value::RawValue;

use super::approval::{Fate, OpenCall, end_calls};
use super::provider::{Waiter, named};
use super::send;
use super::stream::Streamed;
use super::turn::Turn;
use super::{After, Asked, Before, Then, Work, raw, status_changed, view};
use crate::access::account::empty;
use crate::access::ctx::Ctx;
use crate::access::peers::Call;
use crate::agent::{Lane, Provider, is_model};
use crate::contract::effect::{Change, Question, Sync};
use crate::contract::error::PathFault;
use crate::contract::id::{ProcId, SessionId, ToolCallId};
use crate::contract::input::Answer;
use crate::contract::record::{SessionRecord, SessionStatus, Usage};
use crate::contract::time::Instant;
use crate::engine::Timer;
use crate::wire::event::Event;
use crate::wire::params::Params;
use crate::wire::rpc::RpcError;

/// A session and what is under way in it.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) record: SessionRecord,
    /// `None` for one that this daemon does not know.
    pub(super) provider: Option<Provider>,
    /// The process that carries its conversation, and where in it.
    pub(super) agent: Option<(ProcId, Lane)>,
    pub(super) turn: Option<Turn>,
    /// A message has come and waits for the provider; no other may come.
    pub(super) is_starting: bool,
    /// The message that is starting is to be forgotten.
    pub(super) is_start_cancelled: bool,
    /// What the sender of the last message called it.
    pub(super) client_id: Option<String>,
    /// The same message, sent again while it was starting.
    pub(super) echoes: Vec<send::Draft>,
    /// It was paused in the middle of a turn.
    pub(super) is_pausing: bool,
    /// Tool calls without a result.
    pub(super) calls: BTreeMap<ToolCallId, OpenCall>,
    /// What was allowed for the whole session, and by whom: digests of tool and exact input.
    pub(super) grants: BTreeMap<[u8; 32], String>,
    /// Announcements that wait for the disk; streaming text waits behind them.
    pub(super) ops: u32,
    /// There is text that was not streamed yet.
    pub(super) is_dirty: bool,
    pub(super) streamed_at: Option<Instant>,
    /// What was streamed last, and to whom.
    pub(super) streamed: Streamed,
}

impl Session {
    pub(super) fn new(record: SessionRecord) -> Self {
        Self {
            provider: Provider::from_name(&record.provider),
            record,
            agent: None,
            turn: None,
            is_starting: false,
            is_start_cancelled: false,
            client_id: None,
            echoes: Vec::new(),
            is_pausing: false,
            calls: BTreeMap::new(),
            grants: BTreeMap::new(),
            ops: 0,
            is_dirty: false,
            streamed_at: None,
            streamed: Streamed::new(),
        }
    }

    pub(super) fn process(&self) -> Option<ProcId> {
        self.agent.map(|(proc, _)| proc)
    }

    pub(super) fn waiting_calls(&self) -> usize {
        self.calls.values().filter(|call| call.is_waiting()).count()
    }

    pub(super) fn waiting_for(&self) -> Option<&'static str> {
        (self.waiting_calls() > 0).then_some("approval")
    }
}

/// A session that is to be made.
#[derive(Debug)]
pub(super) struct Draft {
    call: Call,
    wish: Wish,
    /// The providers that are tried if the first one cannot be used.
    others: &'static [Provider],
    /// Why it cannot.
    refusal: Option<RpcError>,
}

/// What its maker wants it to be.
#[derive(Debug)]
struct Wish {
    repo_path: String,
    provider: Option<Provider>,
    title: Option<String>,
    model: Option<String>,
    first: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ModelView<'a> {
    session_id: SessionId,
    model_override: Option<&'a str>,
}

impl Work {
    // --- making -------------------------------------------------------------------------------------------------

    pub(crate) fn on_create(&mut self, cx: &mut Ctx<'_>, call: Call, params: &Params<'_>) {
        match self.read_wish(cx, params) {
            Ok(wish) => {
                let timeout = cx.engine.config.limits.directory_timeout;
                let question = Question::Directory { path: wish.repo_path.clone() };
                let draft = Draft { call, wish, others: &[], refusal: None };
                self.ask(cx, question, timeout, Asked::Directory(draft));
            }
            Err(error) => cx.refuse(call, &error),
        }
    }

    fn read_wish(&self, cx: &Ctx<'_>, params: &Params<'_>) -> Result<Wish, RpcError> {
        let limits = &cx.engine.config.limits;
        let provider = named(params)?;
        self.check_room(limits.sessions_max)?;
        let repo_path = params.need_text("repoPath")?;
        if !repo_path.starts_with('/') && !is_windows_absolute(&repo_path) {
            return Err(RpcError::bad_params("repoPath", "must be an absolute path"));
        }
        let title = params.text("title")?.map(|title| checked_title(cx, title)).transpose()?;
        let model = params.text("model")?.map(checked_model).transpose()?;
        let first = params.text("initialMessage")?;
        if let Some(text) = &first {
            super::send::check_prompt(cx, "initialMessage", text)?;
        }
        Ok(Wish { repo_path, provider, title, model, first })
    }

    fn check_room(&self, sessions_max: usize) -> Result<(), RpcError> {
        if self.sessions.len() >= sessions_max {
            return Err(session_limit("there are too many sessions", "delete some first"));
        }
        Ok(())
    }

    pub(super) fn on_directory(&mut self, cx: &mut Ctx<'_>, draft: Draft, answer: Answer) {
        let Draft { call, mut wish, .. } = draft;
        let Some(call) = cx.still_welcome(call) else { return };
        let checked = match answer.directory() {
            Ok(Ok(path)) => check_protected(cx, &path).map(|()| path),
            Ok(Err(fault)) => Err(repo_error(fault)),
            Err(fault) => Err(RpcError::storage(&fault)),
        };
        match checked {
            Ok(path) => {
                wish.repo_path = path;
                let wanted = wish.provider.map_or(Provider::PREFERRED, Provider::alone);
                let Some((first, others)) = wanted.split_first() else { return };
                let draft = Draft { call, wish, others, refusal: None };
                self.with_provider(cx, *first, Waiter::Create(draft));
            }
            Err(error) => cx.refuse(call, &error),
        }
    }

    /// The provider has answered. If it cannot be used and its maker did not insist on it, another one may do.
    pub(super) fn create(
        &mut self,
        cx: &mut Ctx<'_>,
        mut draft: Draft,
        provider: Provider,
        ready: Result<(), RpcError>,
    ) {
        if let (Err(error), Some((next, others))) = (&ready, draft.others.split_first()) {
            draft.others = others;
            draft.refusal.get_or_insert_with(|| error.clone());
            return self.with_provider(cx, *next, Waiter::Create(draft));
        }
        let Draft { call, wish, refusal, .. } = draft;
        // Others may have come first while this one waited for the world.
        let ready = ready.map_err(|error| refusal.unwrap_or(error));
        if let Err(error) =
            ready.and_then(|()| self.check_room(cx.engine.config.limits.sessions_max))
        {
            return cx.refuse(call, &error);
        }
        let Some(call) = cx.still_welcome(call) else { return };
        let at = cx.engine.now.unix;
        let title = wish.title.unwrap_or_else(|| base_name(&wish.repo_path).to_string());
        let id = SessionId(cx.engine.entropy.uuid());
        let session = Session::new(SessionRecord {
            id,
            repo_path: wish.repo_path,
            title,
            provider: provider.name().to_string(),
            status: SessionStatus::Idle,
            created_at: at,
            updated_at: at,
            message_count: 0,
            model: None,
            model_override: wish.model,
            agent_session: new_conversation(cx, provider),
            agent_resumable: false,
            usage: Usage::default(),
        });
        let notice = cx.engine.number(&Event::SessionCreated { session: view(&session) });
        let after = After {
            session: Some(id),
            reply: Some((call, raw(&view(&session)))),
            notices: vec![notice],
            then: Then::Greet(id, wish.first),
        };
        let changes = vec![Change::PutSession(session.record.clone())];
        self.sessions.insert(id, session);
        self.store(cx, changes, Sync::Process, after);
    }

    // --- reading ------------------------------------------------------------------------------------------------

    pub(crate) fn on_list(&self, cx: &mut Ctx<'_>, call: Call) {
        let mut sessions: Vec<_> = self.sessions.values().collect();
        sessions.sort_by_key(|session| core::cmp::Reverse(session.record.created_at));
        let views: Vec<_> = sessions.into_iter().map(view).collect();
        cx.answer(call, &views);
    }

    pub(crate) fn on_session_get(&mut self, cx: &mut Ctx<'_>, call: Call, params: &Params<'_>) {
        let found = session_param(params)
            .and_then(|id| self.session_mut(id).map(|session| raw(&view(session))));
        cx.reply(call, found);
    }

    // --- changing -----------------------------------------------------------------------------------------------

    pub(crate) fn on_rename(&mut self, cx: &mut Ctx<'_>, call: Call, params: &Params<'_>) {
        let renamed = session_param(params).and_then(|id| {
            let title = checked_title(cx, params.need_text("title")?)?;
            let session = self.session_mut(id)?;
            let before = core::mem::replace(&mut session.record.title, title);
            session.record.updated_at = cx.engine.now.unix;
            Ok((id, Then::Changed(id, Before::Title(before))))
        });
        match renamed {
            Ok((id, then)) => self.announce_update(cx, id, call, raw(&empty()), then),
            Err(error) => cx.refuse(call, &error),
        }
    }

    pub(crate) fn on_set_model(&mut self, cx: &mut Ctx<'_>, call: Call, params: &Params<'_>) {
        let changed = session_param(params).and_then(|id| {
            let model = params.text("model")?.map(checked_model).transpose()?;
            let session = self.session_mut(id)?;
            let before = core::mem::replace(&mut session.record.model_override, model);
            let model_override = session.record.model_override.as_deref();
            let result = raw(&ModelView { session_id: id, model_override });
            Ok((id, result, Then::Changed(id, Before::Model(before))))
        });
        match changed {
            Ok((id, result, then)) => {
                // The model is an argument of the process: the next turn starts a new one.
                self.retire_agent(cx, id);
                self.announce_update(cx, id, call, result, then);
            }
            Err(error) => cx.refuse(call, &error),
        }
    }

    fn announce_update(
        &mut self,
        cx: &mut Ctx<'_>,
        id: SessionId,
        call: Call,
        result: Box<RawValue>,
        then: Then,
    ) {
        let Some(session) = self.sessions.get(&id) else { return };
        let notice = cx.engine.number(&Event::SessionUpdated { session: view(session) });
        let changes = vec![Change::PutSession(session.record.clone())];
        let reply = Some((call, result));
        let after = After { session: Some(id), reply, notices: vec![notice], then };
        self.store(cx, changes, Sync::Process, after);
    }

    /// A turn that runs is not stopped by a pause: the session is paused once it has ended.
    pub(crate) fn on_pause(&mut self, cx: &mut Ctx<'_>, call: Call, params: &Params<'_>) {
        self.change_status(cx, call, params, SessionStatus::Paused);
    }

    pub(crate) fn on_resume(&mut self, cx: &mut Ctx<'_>, call: Call, params: &Params<'_>) {
        self.change_status(cx, call, params, SessionStatus::Idle);
    }

    fn change_status(
        &mut self,
        cx: &mut Ctx<'_>,
        call: Call,
        params: &Params<'_>,
        status: SessionStatus,
    ) {
        let session = match session_param(params).and_then(|id| self.session_mut(id)) {
            Ok(session) => session,
            Err(error) => return cx.refuse(call, &error),
        };
        session.is_pausing = session.turn.is_some() && status == SessionStatus::Paused;
        if session.turn.is_some() || session.record.status == status {
            return cx.answer(call, &empty());
        }
        let previous = core::mem::replace(&mut session.record.status, status);
        session.record.updated_at = cx.engine.now.unix;
        let notice = status_changed(cx, &session.record, previous, None, None);
        let changes = vec![Change::PutSession(session.record.clone())];
        let id = session.record.id;
        let after = After {
            session: Some(id),
            reply: Some((call, raw(&empty()))),
            notices: vec![notice],
            then: Then::Changed(id, Before::Status(previous)),
        };
        self.store(cx, changes, Sync::Process, after);
    }

    pub(crate) fn on_delete(&mut self, cx: &mut Ctx<'_>, call: Call, params: &Params<'_>) {
        let id = match session_param(params).and_then(|id| self.session_mut(id).map(|_| id)) {
            Ok(id) => id,
            Err(error) => return cx.refuse(call, &error),
        };
        let Some(mut session) = self.sessions.remove(&id) else { return };
        for timer in [Timer::Stream(id), Timer::Interrupt(id), Timer::AgentIdle(id)] {
            cx.engine.timers.disarm(timer);
        }
        if let Some(seat) = session.agent.take() {
            self.vacate(cx, seat);
        }
        for echo in core::mem::take(&mut session.echoes) {
            echo.refuse(cx, &not_found());
        }
        // What was under way ends with it, whether or not the disk lets it go; how it ended is on record.
        let mut changes = Vec::new();
        session.turn = None;
        session.ops = 0;
        end_calls(cx, &mut session, Fate::SessionGone, &mut changes, &mut Vec::new());
        changes.push(Change::DeleteSession(id));
        if session.record.status == SessionStatus::Running {
            session.record.status = SessionStatus::Error;
        }
        let notice = cx.engine.number(&Event::SessionDeleted { session_id: id });
        let reply = Some((call, raw(&empty())));
        let then = Then::Deleted(Box::new(session));
        self.store(
            cx,
            changes,
            Sync::Process,
            After { session: None, reply, notices: vec![notice], then },
        );
    }

    /// A change could not be stored: what it changed is as before, unless it has been changed again.
    pub(super) fn undo_change(&mut self, id: SessionId, before: Before) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        match before {
            Before::Title(title) => session.record.title = title,
            Before::Model(model) => session.record.model_override = model,
            Before::Status(status) if session.turn.is_none() => session.record.status = status,
            Before::Status(_) => {}
        }
    }
}

// --- parameters and refusals ------------------------------------------------------------------------------------

pub(super) fn session_param(params: &Params<'_>) -> Result<SessionId, RpcError> {
    params.need_word("sessionId", "a session's id")
}

pub(super) fn not_found() -> RpcError {
    RpcError::new(-32001, "session_not_found", "there is no such session")
        .hint("list them with `session.list`")
}

pub(super) fn session_limit(why: &'static str, hint: &'static str) -> RpcError {
    RpcError::new(-32007, "session_limit", why).hint(hint)
}

fn checked_title(cx: &Ctx<'_>, title: String) -> Result<String, RpcError> {
    let chars_max = cx.engine.config.limits.title_chars_max;
    if title.trim().is_empty() {
        return Err(RpcError::bad_params("title", "must not be empty"));
    }
    if title.chars().count() > chars_max {
        let why = format!("must have {chars_max} characters or fewer");
        return Err(RpcError::bad_params("title", &why));
    }
    Ok(title)
}

fn checked_model(model: String) -> Result<String, RpcError> {
    if is_model(&model) {
        return Ok(model);
    }
    Err(RpcError::bad_params("model", "is not the name of a model"))
}

/// What the agent is to call a new conversation; empty where it chooses that itself.
pub(super) fn new_conversation(cx: &mut Ctx<'_>, provider: Provider) -> String {
    if provider.names_conversations() {
        return String::new();
    }
    cx.engine.entropy.uuid().to_string()
}

/// No session works in, or above, what protects the owner (security J4).
fn check_protected(cx: &Ctx<'_>, path: &str) -> Result<(), RpcError> {
    let is_under = |inner: &str, outer: &str| {
        let rest = inner.strip_prefix(outer.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let protected = &cx.engine.config.protected_paths;
    if protected.iter().any(|it| is_under(path, it) || is_under(it, path)) {
        let why = "this directory is, or holds, one that agents must not work in";
        return Err(
            RpcError::new(-32005, "repo_not_found", why).hint("open the project's own directory")
        );
    }
    Ok(())
}

fn repo_error(fault: PathFault) -> RpcError {
    let (message, hint) = match fault {
        PathFault::Missing => ("`repoPath` does not exist", "check the path"),
        PathFault::NotADirectory => ("`repoPath` is not a directory", "name the directory itself"),
        PathFault::Denied => ("`repoPath` may not be read", "check its permissions"),
    };
    RpcError::new(-32005, "repo_not_found", message).hint(hint)
}

fn is_windows_absolute(path: &str) -> bool {
    matches!(path.as_bytes(), [letter, b':', b'\\' | b'/', ..] if letter.is_ascii_alphabetic())
}

fn base_name(path: &str) -> &str {
    path.rsplit(['/', '\\']).find(|part| !part.is_empty()).unwrap_or(path)
}
