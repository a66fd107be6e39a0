//! What clients came for: sessions, their turns, and the decisions on what agents may do.
//!
//! Owns the sessions and the agent processes behind them; refuses to know who may call what (the table of methods does)
//! and how an agent talks (`agent` does). Invariants: nothing is announced before it is stored; an agent is told "allow"
//! only after that decision is on disk; one session has one agent process at most.
//!
//! | file | idea |
//! |---|---|
//! | `session` | create, list, rename, delete, pause |
//! | `send` | a message comes in and a turn begins |
//! | `turn` | the agent talks |
//! | `stream` | what is being written, to those who watch |
//! | `ending` | the turn ends |
//! | `approval` | a tool waits for a person |
//! | `host` | agent processes: start, feed, stop |
//! | `provider` | which agents are here, and logged in? |
//! | `history` | pages of the past |
//! | `audit` | what is written down for good |

mod approval;
mod audit;
mod ending;
mod history;
mod host;
mod policy;
mod provider;
mod send;
mod session;
mod stream;
mod turn;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::access::ctx::Ctx;
use crate::access::peers::Call;
use crate::agent::Provider;
use crate::contract::effect::{Change, Question, Sync};
use crate::contract::error::StoreFault;
use crate::contract::id::{AskId, DeviceId, OpId, ProcId, SessionId, ToolCallId};
use crate::contract::input::Answer;
use crate::contract::record::{
    AuditKind, MessageRecord, Progress, Role, SessionRecord, SessionStatus,
};
use crate::contract::snapshot::Snapshot;
use crate::engine::pending::Pending;
use crate::engine::{Entry, Timer};
use crate::wire::event::{Event, Notice};
use crate::wire::rpc::RpcError;
use crate::wire::view::SessionView;
use approval::OpenCall;
use audit::{Audited, Untold};
use host::Agent;
use provider::Providers;
use session::Session;

/// Everything about work that outlives one input.
#[derive(Debug)]
pub(crate) struct Work {
    sessions: BTreeMap<SessionId, Session>,
    agents: BTreeMap<ProcId, Agent>,
    providers: Providers,
    stored: Pending<OpId, Kept>,
    asked: Pending<AskId, Asked>,
    /// What the daemon's last life left open, to be written down as ended.
    leftovers: Leftovers,
    audited: Audited,
    /// The daemon is about to end: no agent is started any more.
    is_ending: bool,
}

/// What a life of the daemon left open, as it has ended.
#[derive(Debug, Default)]
struct Leftovers {
    messages: Vec<MessageRecord>,
    sessions: Vec<SessionRecord>,
}

/// What waits for the store.
#[derive(Debug)]
struct Kept {
    after: After,
    /// The events that are told if it is stored.
    entries: Vec<Entry>,
    /// What is taken back if it is not.
    untold: Untold,
}

/// What to do once a change is stored: answer, tell, go on.
#[derive(Debug, Default)]
struct After {
    /// Whose streaming text waits for it.
    session: Option<SessionId>,
    reply: Option<(Call, Box<RawValue>)>,
    /// What is told once it is stored.
    notices: Vec<Notice>,
    then: Then,
}

/// How to go on.
#[derive(Debug, Default)]
enum Then {
    #[default]
    Nothing,
    /// Give the prompt to the agent.
    Begin(SessionId),
    /// Send the first message of a new session, if there is one.
    Greet(SessionId, Option<String>),
    /// Give the decision to the agent.
    Deliver {
        session: SessionId,
        tool: ToolCallId,
        /// It is also the first that is told of the call.
        is_first: bool,
    },
    /// This was changed; it was so before.
    Changed(SessionId, Before),
    /// The session was deleted.
    Deleted(Box<Session>),
    /// The turn has ended.
    Ended(SessionId),
}

/// What a session's record said before a change.
#[derive(Debug)]
enum Before {
    Title(String),
    Model(Option<String>),
    Status(SessionStatus),
}

/// What to do once a question is answered.
#[derive(Debug)]
enum Asked {
    Directory(session::Draft),
    Probe(Provider),
    Lookup(send::Draft),
    Messages(Call),
    ToolCalls(Call),
    Audit(Call),
    ToolCall(approval::Late),
}

impl Work {
    pub(crate) fn new(snapshot: &mut Snapshot) -> Self {
        let mut work = Self {
            sessions: BTreeMap::new(),
            agents: BTreeMap::new(),
            providers: Providers::default(),
            stored: Pending::new(),
            asked: Pending::new(),
            leftovers: Leftovers::default(),
            audited: Audited::restored(&snapshot.open_tool_calls),
            is_ending: false,
        };
        work.restore(snapshot);
        work
    }

    /// Takes over the sessions; what was under way when the daemon ended is honestly ended.
    fn restore(&mut self, snapshot: &mut Snapshot) {
        for mut record in core::mem::take(&mut snapshot.sessions) {
            if record.status == SessionStatus::Running {
                record.status = SessionStatus::Idle;
                self.leftovers.sessions.push(record.clone());
            }
            self.sessions.insert(record.id, Session::new(record));
        }
        for mut message in core::mem::take(&mut snapshot.open_messages) {
            message.status = Progress::Error;
            message.metadata = ending::error_metadata(
                "interrupted",
                "the daemon ended while this was being written",
                "send the message again to go on",
            );
            self.leftovers.messages.push(message);
        }
        let is_trusted = |by: &str| match by.parse::<DeviceId>() {
            Ok(id) => snapshot.devices.iter().any(|device| {
                let is_dead = device.revoked_at.is_some() || snapshot.tombstones.contains(&id);
                device.id == id && device.role >= Role::Approve && !is_dead
            }),
            Err(_) => true,
        };
        for call in core::mem::take(&mut snapshot.open_tool_calls) {
            let is_void = call.decision.as_ref().is_some_and(|it| !is_trusted(&it.by));
            if let Some(session) = self.sessions.get_mut(&call.session) {
                session.calls.insert(call.id, OpenCall::left_open(call, is_void));
            }
        }
    }

    /// Writes down what the last life left open, tells those who come back that it has ended, and goes on with what can be
    /// gone on with.
    pub(crate) fn on_started(&mut self, cx: &mut Ctx<'_>) {
        let Leftovers { messages, sessions } = core::mem::take(&mut self.leftovers);
        let mut changes = Vec::new();
        let mut notices = Vec::new();
        for message in messages {
            notices.push(cx.engine.number(&ending::updated(&message)));
            changes.push(Change::PutMessage(message));
        }
        for record in sessions {
            let reason = Some("the daemon ended during this turn");
            notices.push(status_changed(cx, &record, SessionStatus::Running, None, reason));
            changes.push(Change::PutSession(record));
        }
        if !changes.is_empty() {
            let after = After { notices, ..After::default() };
            self.store(cx, changes, Sync::Process, after);
        }
        self.take_up(cx);
    }

    // --- storing ------------------------------------------------------------------------------------------------

    fn store(&mut self, cx: &mut Ctx<'_>, mut changes: Vec<Change>, sync: Sync, mut after: After) {
        let provider = |id| Some(self.sessions.get(&id)?.record.provider.clone());
        let untold = self.audited.add_records(cx, &mut changes, provider);
        if let Some(session) = after.session.and_then(|id| self.sessions.get_mut(&id)) {
            session.ops = session.ops.saturating_add(1);
        }
        let is_decision = |change: &Change| matches!(change, Change::Audit(record) if record.kind == AuditKind::Decided);
        // Whoever was told of a decision must not meet the question again when the power has gone.
        let sync = if changes.iter().any(is_decision) { Sync::Disk } else { sync };
        let notices = core::mem::take(&mut after.notices);
        let (op, entries) = cx.store_telling(changes, notices, sync);
        self.stored.await_(op, Kept { after, entries, untold });
    }

    pub(crate) fn on_stored(&mut self, cx: &mut Ctx<'_>, op: OpId, result: Result<(), StoreFault>) {
        let Some(Kept { after, entries, untold }) = self.stored.take(&op) else { return };
        if let Some(session) = after.session.and_then(|id| self.sessions.get_mut(&id)) {
            session.ops = session.ops.saturating_sub(1);
        }
        if let Err(fault) = result {
            self.audited.take_back(untold);
            return self.on_not_stored(cx, after, &fault);
        }
        if let Some((call, result)) = after.reply {
            cx.answer(call, &result);
        }
        if let Some(id) = after.session.filter(|_| !entries.is_empty()) {
            self.stream_before(cx, id);
        }
        cx.tell(entries);
        match after.then {
            Then::Nothing | Then::Changed(..) | Then::Deleted(_) | Then::Greet(_, None) => {}
            Then::Ended(id) => self.revive(cx, id),
            Then::Begin(id) => self.begin(cx, id),
            Then::Greet(id, Some(content)) => self.send(cx, send::Draft::first(id, content)),
            Then::Deliver { session, tool, .. } => self.deliver(cx, session, tool),
        }
        if let Some(id) = after.session {
            self.keep_message(cx, id);
            self.stream_if_dirty(cx, id);
        }
    }

    /// Nothing was kept: nothing is announced, the caller is told, and a turn that cannot be written down ends.
    fn on_not_stored(&mut self, cx: &mut Ctx<'_>, after: After, fault: &StoreFault) {
        let error = RpcError::storage(fault);
        if let Some((call, _)) = after.reply {
            cx.refuse(call, &error);
        }
        match after.then {
            Then::Changed(id, before) => self.undo_change(id, before),
            Then::Deleted(session) => {
                self.sessions.insert(session.record.id, *session);
            }
            Then::Ended(id) => self.tell_lost(cx, id, &error),
            Then::Greet(id, _) => {
                self.sessions.remove(&id);
            }
            Then::Deliver { session, tool, is_first } => {
                self.undo_decision(cx, session, tool, is_first, &error);
            }
            Then::Begin(_) | Then::Nothing => {
                if let Some(id) = after.session {
                    self.on_turn_lost(cx, id, &error);
                }
            }
        }
    }

    fn ask(&mut self, cx: &mut Ctx<'_>, question: Question, timeout: Duration, then: Asked) {
        let ask = cx.ask(question);
        cx.engine.timers.arm(Timer::Ask(ask), cx.engine.now.mono + timeout);
        self.asked.await_(ask, then);
    }

    /// A directory on a dead file system must not hold up everybody else for ever.
    pub(crate) fn on_ask_late(&mut self, cx: &mut Ctx<'_>, ask: AskId) {
        let why = String::from("no answer in time");
        self.on_answered(cx, ask, Answer::Failed(StoreFault::Failed(why)));
    }

    pub(crate) fn on_answered(&mut self, cx: &mut Ctx<'_>, ask: AskId, answer: Answer) {
        cx.engine.timers.disarm(Timer::Ask(ask));
        match self.asked.take(&ask) {
            Some(Asked::Directory(draft)) => self.on_directory(cx, draft, answer),
            Some(Asked::Probe(provider)) => self.on_probe(cx, provider, answer),
            Some(Asked::Lookup(draft)) => self.on_lookup(cx, draft, answer),
            Some(Asked::Messages(call)) => history::on_messages(cx, call, answer),
            Some(Asked::ToolCalls(call)) => history::on_tool_calls(cx, call, answer),
            Some(Asked::Audit(call)) => audit::on_audit(cx, call, answer),
            Some(Asked::ToolCall(late)) => approval::on_late(cx, late, answer),
            None => {}
        }
    }

    // --- numbers ------------------------------------------------------------------------------------------------

    /// Sessions with a turn.
    pub(crate) fn active(&self) -> usize {
        self.seated().filter(|session| session.turn.is_some()).count()
    }

    pub(crate) fn total(&self) -> usize {
        self.sessions.len()
    }

    pub(crate) fn agents(&self) -> usize {
        self.agents.len()
    }

    pub(crate) fn pending_approvals(&self) -> usize {
        self.sessions.values().map(Session::waiting_calls).sum()
    }

    /// Sessions with an agent.
    fn seated(&self) -> impl Iterator<Item = &Session> {
        let seats = self.agents.values().flat_map(|agent| agent.seats.values());
        seats.filter_map(|seat| self.sessions.get(&seat.session))
    }

    fn has_turn(&self, id: SessionId) -> bool {
        self.sessions.get(&id).is_some_and(|session| session.turn.is_some())
    }

    /// Nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.agents.is_empty() && self.stored.is_empty()
    }

    fn session_mut(&mut self, id: SessionId) -> Result<&mut Session, RpcError> {
        self.sessions.get_mut(&id).ok_or_else(session::not_found)
    }
}

/// JSON text of a result that is sent later.
fn raw(value: &impl Serialize) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).unwrap_or_default()
}

/// Numbers the event that a session's state is now what its record says.
fn status_changed(
    cx: &mut Ctx<'_>,
    record: &SessionRecord,
    previous: SessionStatus,
    waiting_for: Option<&'static str>,
    reason: Option<&str>,
) -> Notice {
    cx.engine.number(&Event::StatusChanged {
        session_id: record.id,
        status: record.status,
        previous,
        waiting_for,
        reason,
    })
}

fn view(session: &Session) -> SessionView<'_> {
    SessionView::new(&session.record, session.waiting_for())
}
