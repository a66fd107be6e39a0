//! Tool calls, from their first mention to their result.
//!
//! Owns the open calls of a session and the one place where a call ends; refuses to know what a tool does. Invariants
//! (security H1, H3, H6): the agent is told "allow" only after that decision is on disk; it is given back exactly the
//! input that was shown; a decision is made once, and for a call of that session only.
//!
//! ```text
//! ToolUsed ─▶ running ──Asked──▶ pending ──allow──▶ running ──ToolEnded──▶ done | error
//!                                   ├──deny, timeout, cancel, agent gone──▶ error
//!                                   └──daemon gone──▶ carried ──allow──▶ granted ──asked again──▶ error (done by another)
//! ```
//!
//! | file | idea |
//! |---|---|
//! | `ask` | the agent asks: what becomes of it |
//! | `judge` | the verdict, where nobody has to be asked for it |
//! | `decide` | the decision: made once, stored, told |
//! | `respond` | the methods by which people decide |
//! | `carry` | approvals that outlive the agent that asked |
//! | `bind` | what an approval and a grant are bound to |

mod ask;
mod bind;
mod carry;
mod decide;
mod judge;
mod respond;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use super::session::Session;
use super::turn::cut;
use super::{After, Work};
use crate::access::ctx::Ctx;
use crate::agent::claude;
use crate::contract::effect::{Change, Sync};
use crate::contract::id::{SessionId, ToolCallId};
use crate::contract::record::{Decision, DecisionKind, Progress, ToolCallRecord};
use crate::engine::Timer;
use crate::policy::is_read_only;
use crate::wire::event::{Event, Notice};
pub(super) use ask::Ask;
pub(super) use carry::Revival;
pub(super) use decide::is_allow;
use decide::no_longer;
use respond::Asker;
pub(super) use respond::{Late, on_late};

/// A tool call without a result.
#[derive(Debug)]
pub(super) struct OpenCall {
    pub(super) record: ToolCallRecord,
    /// The agent waits for an answer under this id.
    request: Option<String>,
    /// Who is answered once the agent has taken the decision.
    asker: Option<Asker>,
    /// What the agent is told when it was denied.
    message: String,
    /// Whoever decided is no longer trusted.
    is_void: bool,
    /// Carried and granted: the agent has been told to ask again.
    is_prompted: bool,
    /// Carried and granted: the agent has asked again, as this call, and that is being written down.
    spent_by: Option<ToolCallId>,
}

impl OpenCall {
    pub(super) const fn new(record: ToolCallRecord) -> Self {
        Self {
            record,
            request: None,
            asker: None,
            message: String::new(),
            is_void: false,
            is_prompted: false,
            spent_by: None,
        }
    }

    /// Numbers the event that says how it is now: that it is there, unless that was told. Whoever tells it stores the
    /// record in the same operation, or the next life of the daemon would not know.
    fn news(&mut self, cx: &mut Ctx<'_>) -> Notice {
        let is_known = core::mem::replace(&mut self.record.is_announced, true);
        let event = if is_known { updated(&self.record) } else { created(&self.record) };
        cx.engine.number(&event)
    }

    /// Somebody has to decide.
    pub(super) const fn is_waiting(&self) -> bool {
        (self.request.is_some() || self.record.is_carried) && self.record.decision.is_none()
    }
}

/// How a call ends.
struct End {
    status: Progress,
    output: Option<String>,
    /// What it is called if nobody had decided.
    undecided: DecisionKind,
}

impl End {
    /// Whoever asked is gone.
    const fn gone() -> Self {
        Self { status: Progress::Error, output: None, undecided: DecisionKind::Expired }
    }

    /// It is not done, and this is why.
    fn because(why: &str) -> Self {
        Self { output: Some(String::from(why)), ..Self::gone() }
    }
}

/// What becomes of the open calls of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Its turn has ended: what was carried into it and not taken up goes on waiting.
    TurnEnded,
    /// The daemon stops: what waits for a decision is carried into its next life.
    DaemonStops,
    /// The session itself is gone.
    SessionGone,
}

impl Work {
    /// A tool call is mentioned. It is recorded at once and announced in a moment: mostly the ask follows, and clients
    /// then meet it as pending.
    pub(super) fn on_tool_used(
        &mut self,
        cx: &mut Ctx<'_>,
        id: SessionId,
        provider_id: &str,
        name: &str,
        input: &str,
    ) {
        let Some(tool) = self.open_call(cx, id, provider_id, name, input) else { return };
        let at = cx.engine.now.mono + cx.engine.config.limits.tool_announce_after;
        cx.engine.timers.arm(Timer::Announce(id, tool), at);
        let Some(call) = self.open(id, tool) else { return };
        let changes = vec![Change::PutToolCall(call.record.clone())];
        let after = After { session: Some(id), ..After::default() };
        self.store(cx, changes, Sync::Process, after);
    }

    /// Adds an open call; `None` if there is no turn, there are too many, or its name is none.
    fn open_call(
        &mut self,
        cx: &mut Ctx<'_>,
        id: SessionId,
        provider_id: &str,
        name: &str,
        input: &str,
    ) -> Option<ToolCallId> {
        let limits = &cx.engine.config.limits;
        if name.len() > limits.tool_name_max || provider_id.len() > limits.tool_name_max {
            return None;
        }
        let session = self.sessions.get_mut(&id)?;
        let message = session.turn.as_ref()?.message.id;
        if session.calls.len() >= limits.tool_calls_open_max {
            let why = "the agent has begun too many tool calls at once";
            self.fail_turn(cx, id, "agent_failed", why, "send the message again");
            self.abandon(cx, id);
            return None;
        }
        let tool = ToolCallId(cx.engine.entropy.uuid());
        let call = OpenCall::new(ToolCallRecord {
            id: tool,
            session: id,
            message,
            provider_id: provider_id.to_string(),
            name: name.to_string(),
            input: shown(input, limits.tool_input_max),
            status: Progress::Running,
            risk: String::from(risk(name)),
            created_at: cx.engine.now.unix,
            completed_at: None,
            requires_approval: false,
            expires_at: None,
            decision: None,
            output: None,
            kind: claude::ask_kind(name),
            approval: None,
            rule: None,
            reason: None,
            answers: None,
            is_carried: false,
            is_announced: false,
        });
        session.calls.insert(tool, call);
        Some(tool)
    }

    fn open(&self, id: SessionId, tool: ToolCallId) -> Option<&OpenCall> {
        self.sessions.get(&id)?.calls.get(&tool)
    }

    fn open_mut(&mut self, id: SessionId, tool: ToolCallId) -> Option<&mut OpenCall> {
        self.sessions.get_mut(&id)?.calls.get_mut(&tool)
    }

    /// No ask came: the agent runs it without asking, as its owner's own settings allow.
    pub(crate) fn on_announce_due(&mut self, cx: &mut Ctx<'_>, id: SessionId, tool: ToolCallId) {
        let Some(call) = self.open_mut(id, tool) else { return };
        if call.record.is_announced {
            return;
        }
        let notices = vec![call.news(cx)];
        let changes = vec![Change::PutToolCall(call.record.clone())];
        let after = After { session: Some(id), notices, ..After::default() };
        self.store(cx, changes, Sync::Process, after);
    }

    pub(super) fn on_tool_ended(
        &mut self,
        cx: &mut Ctx<'_>,
        id: SessionId,
        provider_id: &str,
        output: &str,
        is_error: bool,
    ) {
        let output_max = cx.engine.config.limits.tool_output_max;
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let is_it =
            |call: &&OpenCall| call.record.provider_id == provider_id && !call.record.is_carried;
        // Under one id several may have been asked for: what still waits has not run.
        let open = session.calls.values().filter(is_it);
        let Some(tool) = open.min_by_key(|call| call.is_waiting()).map(|call| call.record.id)
        else {
            return;
        };
        let Some(call) = session.calls.remove(&tool) else { return };
        let fits = cut(output, output_max);
        let output = match output.len().saturating_sub(fits.len()) {
            0 => fits.to_string(),
            more => format!("{fits}\n[{more} more bytes]"),
        };
        let status = if is_error { Progress::Error } else { Progress::Done };
        let end = End { status, output: Some(output), ..End::gone() };
        let (mut changes, mut notices) = (Vec::new(), Vec::new());
        end_call(cx, call, end, &mut changes, &mut notices);
        let after = After { session: Some(id), notices, ..After::default() };
        self.store(cx, changes, Sync::Process, after);
    }
}

/// Ends the open calls of a session, all but those that are carried on.
pub(super) fn end_calls(
    cx: &mut Ctx<'_>,
    session: &mut Session,
    fate: Fate,
    changes: &mut Vec<Change>,
    notices: &mut Vec<Notice>,
) {
    for (tool, mut call) in core::mem::take(&mut session.calls) {
        if carry::goes_on(&call, fate, session.record.agent_resumable) {
            if !call.record.is_carried {
                call.record.is_carried = true;
                call.request = None;
                changes.push(Change::PutToolCall(call.record.clone()));
            }
            session.calls.insert(tool, call);
        } else {
            let end = carry::end_of(&call);
            end_call(cx, call, end, changes, notices);
        }
    }
}

/// The one place where a call ends: after it nobody waits for it, and it has its last word.
fn end_call(
    cx: &mut Ctx<'_>,
    mut call: OpenCall,
    end: End,
    changes: &mut Vec<Change>,
    notices: &mut Vec<Notice>,
) {
    let (id, tool) = (call.record.session, call.record.id);
    forget_timers(cx, id, tool);
    if let Some(asker) = call.asker.take() {
        asker.refuse(cx, &no_longer());
    }
    let at = cx.engine.now.unix;
    let is_undecided = call.record.requires_approval && call.record.decision.is_none();
    if is_undecided {
        let by = String::from("daemon");
        call.record.decision = Some(Decision { by, at, kind: end.undecided });
    }
    call.record.status = end.status;
    call.record.output = end.output;
    call.record.expires_at = None;
    call.record.completed_at = Some(at);
    call.record.is_carried = false;
    if !call.record.is_announced {
        notices.push(call.news(cx));
    }
    notices.push(cx.engine.number(&updated(&call.record)));
    if is_undecided {
        notices.extend(resolved(&call.record).map(|event| cx.engine.number(&event)));
    }
    changes.push(Change::PutToolCall(call.record));
}

fn forget_timers(cx: &mut Ctx<'_>, id: SessionId, tool: ToolCallId) {
    cx.engine.timers.disarm(Timer::Announce(id, tool));
    cx.engine.timers.disarm(Timer::Approval(id, tool));
}

/// The input as it is kept: whole, or a word on why it is not.
fn shown(input: &str, bytes_max: usize) -> String {
    if input.len() > bytes_max {
        return format!("{{\"unreadable\":\"{} bytes, more than {bytes_max}\"}}", input.len());
    }
    String::from(input)
}

fn risk(name: &str) -> &'static str {
    if is_read_only(name) { "low" } else { "high" }
}

fn created(record: &ToolCallRecord) -> Event<'_> {
    Event::ToolCallCreated { session_id: record.session, tool_call: record.into() }
}

fn updated(record: &ToolCallRecord) -> Event<'_> {
    Event::ToolCallUpdated {
        session_id: record.session,
        tool_call_id: record.id,
        status: record.status,
        decision: record.decision.as_ref().map(Into::into),
        output: record.output.as_deref(),
    }
}

fn resolved(record: &ToolCallRecord) -> Option<Event<'_>> {
    record.decision.as_ref().map(|decision| Event::ApprovalResolved {
        session_id: record.session,
        tool_call_id: record.id,
        approval_id: record.approval,
        kind: decision.kind,
        by: &decision.by,
    })
}
