//! How a turn ends: in order, cancelled, stopped with the daemon, or badly.
//!
//! Owns the last word on a turn, written down and announced once; refuses to know what was said in it. Invariant: when a
//! turn has ended, nothing of it is open: no message, no tool call, no timer.

use alloc::string::String;
use alloc::vec::Vec;

use serde::Serialize;

use super::approval::{Fate, end_calls};
use super::session::{Session, new_conversation};
use super::stream::Streamed;
use super::{After, Then, Work, status_changed};
use crate::access::ctx::Ctx;
use crate::agent::Provider;
use crate::agent::event::{Outcome, TurnEnd};
use crate::contract::effect::{Change, Sync};
use crate::contract::id::{ProcId, SessionId};
use crate::contract::record::{MessageRecord, Progress, SessionStatus};
use crate::engine::Timer;
use crate::wire::event::Event;
use crate::wire::rpc::RpcError;

/// How a turn ends.
#[derive(Debug)]
pub(super) enum Ending<'a> {
    Completed,
    Cancelled,
    /// The daemon stops.
    Stopped(&'a str),
    Failed {
        kind: &'a str,
        why: &'a str,
        hint: &'a str,
    },
}

impl Ending<'static> {
    /// The model's provider does not accept the credentials.
    pub(super) const fn refused(provider: Provider) -> Self {
        Self::Failed {
            kind: "provider_not_available",
            why: "the model's provider refuses the credentials (HTTP 401)",
            hint: provider.login_hint(),
        }
    }
}

impl Work {
    pub(super) fn on_turn_ended(
        &mut self,
        cx: &mut Ctx<'_>,
        id: SessionId,
        proc: ProcId,
        end: &TurnEnd<'_>,
    ) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(provider) = session.provider else { return };
        let seat =
            session.agent.and_then(|(_, lane)| self.agents.get_mut(&proc)?.seats.get_mut(&lane));
        if let (Some(usage), Some(seat)) = (end.usage, seat) {
            session.record.usage = seat.usage(usage);
        }
        if end.is_not_found {
            session.record.agent_session = new_conversation(cx, provider);
            session.record.agent_resumable = false;
        }
        let Some(turn) = &session.turn else { return };
        if end.is_not_logged_in || turn.is_refused {
            self.providers.doubt(provider);
        }
        if end.api_status == Some(429) {
            let wait_ms = end.retry_after_ms.or(turn.retry_after_ms);
            self.providers.rest(cx, provider, wait_ms);
        }
        let ending = match end.outcome {
            Outcome::Completed => Ending::Completed,
            _ if turn.is_cancelled => Ending::Cancelled,
            _ if turn.is_refused => Ending::refused(provider),
            Outcome::Interrupted => Ending::Cancelled,
            Outcome::ApiError | Outcome::Failed => failure(provider, end),
        };
        self.finish_turn(cx, id, ending);
    }

    /// Ends a turn with an error that its session shows.
    pub(super) fn fail_turn(
        &mut self,
        cx: &mut Ctx<'_>,
        id: SessionId,
        kind: &str,
        why: &str,
        hint: &str,
    ) {
        self.finish_turn(cx, id, Ending::Failed { kind, why, hint });
    }

    pub(super) fn finish_turn(&mut self, cx: &mut Ctx<'_>, id: SessionId, ending: Ending<'_>) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(mut turn) = session.turn.take() else { return };
        session.is_dirty = false;
        session.streamed = Streamed::default();
        let at = cx.engine.now.unix;
        cx.engine.timers.disarm(Timer::Stream(id));
        cx.engine.timers.disarm(Timer::Interrupt(id));
        let mut changes = Vec::new();
        let mut notices = Vec::new();
        let fate = match ending {
            Ending::Stopped(_) => Fate::DaemonStops,
            Ending::Completed | Ending::Cancelled | Ending::Failed { .. } => Fate::TurnEnded,
        };
        end_calls(cx, session, fate, &mut changes, &mut notices);

        turn.message.content = turn.text();
        turn.message.status = Progress::Done;
        match ending {
            Ending::Completed => {}
            Ending::Cancelled => turn.message.metadata = String::from("{\"cancelled\":true}"),
            Ending::Stopped(why) => {
                turn.message.status = Progress::Error;
                turn.message.metadata = error_metadata("interrupted", why, "send it again");
            }
            Ending::Failed { kind, why, hint } => {
                turn.message.status = Progress::Error;
                turn.message.metadata = error_metadata(kind, why, hint);
            }
        }
        notices.push(cx.engine.number(&updated(&turn.message)));
        let record = &mut session.record;
        let previous = record.status;
        record.updated_at = at;
        if matches!(ending, Ending::Completed) {
            record.status = SessionStatus::Completed;
            notices.push(status_changed(cx, record, previous, None, None));
        }
        let previous = record.status;
        let (status, reason) = match ending {
            Ending::Failed { why, .. } => (SessionStatus::Error, Some(why)),
            Ending::Cancelled => (SessionStatus::Idle, Some("cancelled")),
            Ending::Stopped(why) => (SessionStatus::Idle, Some(why)),
            Ending::Completed => (SessionStatus::Idle, None),
        };
        record.status = if session.is_pausing { SessionStatus::Paused } else { status };
        session.is_pausing = false;
        notices.push(status_changed(cx, record, previous, None, reason));
        changes.push(Change::PutMessage(turn.message));
        changes.push(Change::PutSession(record.clone()));
        let after = After { session: Some(id), reply: None, notices, then: Then::Ended(id) };
        self.store(cx, changes, Sync::Process, after);
        self.after_turn(cx, id, turn.is_last);
    }

    /// The agent may stay for a while; not for ever.
    fn after_turn(&mut self, cx: &mut Ctx<'_>, id: SessionId, is_last: bool) {
        let Some(proc) = self.sessions.get(&id).and_then(Session::process) else { return };
        if is_last {
            return self.retire_agent(cx, id);
        }
        if let Some(agent) = self.agents.get_mut(&proc) {
            agent.garbage = 0;
        }
        let at = cx.engine.now.mono + cx.engine.config.limits.agent_idle;
        cx.engine.timers.arm(Timer::AgentIdle(id), at);
    }

    /// The turn could not be written down: the agent must not go on with what nobody can see.
    pub(super) fn on_turn_lost(&mut self, cx: &mut Ctx<'_>, id: SessionId, error: &RpcError) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.turn.take().is_none() {
            return;
        }
        session.streamed = Streamed::default();
        cx.engine.timers.disarm(Timer::Stream(id));
        cx.engine.timers.disarm(Timer::Interrupt(id));
        let mut changes = Vec::new();
        end_calls(cx, session, Fate::TurnEnded, &mut changes, &mut Vec::new());
        self.tell_lost(cx, id, error);
        if !changes.is_empty() {
            // If that fails too, the next start ends them.
            self.store(cx, changes, Sync::Process, After::default());
        }
        self.abandon(cx, id);
    }

    /// What could not be stored is not announced; that it was lost is, in passing, or clients would wait for ever.
    pub(super) fn tell_lost(&mut self, cx: &mut Ctx<'_>, id: SessionId, error: &RpcError) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let previous = core::mem::replace(&mut session.record.status, SessionStatus::Error);
        cx.tell_in_passing(&Event::StatusChanged {
            session_id: id,
            status: SessionStatus::Error,
            previous,
            waiting_for: None,
            reason: Some(&error.message),
        });
    }
}

/// That a message has ended as it is now.
pub(super) fn updated(record: &MessageRecord) -> Event<'_> {
    Event::MessageUpdated {
        session_id: record.session,
        message_id: record.id,
        content: &record.content,
        status: record.status,
    }
}

fn failure<'a>(provider: Provider, end: &TurnEnd<'a>) -> Ending<'a> {
    let why = if end.error.is_empty() { "the agent gave no reason" } else { end.error };
    if end.is_not_logged_in {
        return Ending::Failed { kind: "provider_not_available", why, hint: provider.login_hint() };
    }
    if end.is_not_found {
        let hint = "send it again: a new conversation begins";
        return Ending::Failed { kind: "conversation_lost", why, hint };
    }
    if end.api_status == Some(429) {
        return Ending::Failed { kind: "provider_rate_limited", why, hint: "try again later" };
    }
    Ending::Failed { kind: "agent_failed", why, hint: "send the message again" }
}

/// The remarks of a message that went wrong.
pub(super) fn error_metadata(kind: &str, message: &str, hint: &str) -> String {
    #[derive(Serialize)]
    struct Error<'a> {
        kind: &'a str,
        message: &'a str,
        hint: &'a str,
    }
    #[derive(Serialize)]
    struct Metadata<'a> {
        error: Error<'a>,
    }
    let metadata = Metadata { error: Error { kind, message, hint } };
    serde_json::to_string(&metadata).unwrap_or_else(|_| String::from("{}"))
}
