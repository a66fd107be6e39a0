//! Agent processes: started on demand, spoken with, stopped.
//!
//! Owns the table of processes, who sits in which, and their unfinished lines; refuses to know what the lines mean for a
//! turn, and in which dialect they are. Invariant: a conversation is carried by one process at a time, or two would write
//! it: a session's next process starts only after its last one has exited.

mod agent;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::value::RawValue;

use super::Work;
use super::ending::Ending;
use super::turn::Turn;
use crate::access::ctx::Ctx;
use crate::access::peers::Call;
use crate::agent::event::AgentEvent;
use crate::agent::lines::{Line, Lines};
use crate::agent::{Lane, Opening, Provider, Say};
use crate::contract::effect::{Command, Effect};
use crate::contract::error::ProgramFault;
use crate::contract::id::{ProcId, SessionId};
use crate::contract::input::Stream;
use crate::contract::note::Note;
use crate::engine::Timer;
use crate::wire::rpc::RpcError;
pub(super) use agent::Agent;

/// Lines in one turn that no agent of its kind would write, before the program is no longer believed to be one.
const GARBAGE_MAX: u32 = 32;

impl Work {
    // --- starting -----------------------------------------------------------------------------------------------

    /// Gives the turn's prompt to the session's agent, and starts one if there is none.
    pub(super) fn begin(&mut self, cx: &mut Ctx<'_>, id: SessionId) {
        // The turn may have ended while its beginning was written down.
        let has_prompt = |turn: &Turn| turn.prompt.is_some();
        let Some(session) = self.sessions.get(&id) else { return };
        if self.is_ending || !session.turn.as_ref().is_some_and(has_prompt) {
            return;
        }
        let is_ending = |proc| self.agents.get(&proc).is_some_and(|agent| agent.is_ending);
        match session.process() {
            // It is started again once the old process is gone.
            Some(proc) if is_ending(proc) => {}
            Some(_) => self.feed_prompt(cx, id),
            None => self.take_seat(cx, id),
        }
    }

    /// A process of this provider that may carry one more conversation.
    pub(super) fn with_room(&self, cx: &Ctx<'_>, provider: Provider) -> Option<ProcId> {
        let seats_max = cx.engine.config.limits.agent_seats_max;
        let has_room = |agent: &Agent| {
            agent.provider == provider && !agent.is_ending && agent.seats.len() < seats_max
        };
        let found = self.agents.iter().find(|(_, agent)| has_room(agent))?;
        provider.is_shared().then_some(*found.0)
    }

    /// Opens the session's conversation in a process that has room for it, or in a new one, and says the prompt.
    fn take_seat(&mut self, cx: &mut Ctx<'_>, id: SessionId) {
        if self.is_in_own_hands(id) {
            let why = "the agent's program lies in the repository that it would work in";
            return self.fail_turn(cx, id, "provider_not_available", why, "check `provider list`");
        }
        let provider = self.sessions.get(&id).and_then(|session| session.provider);
        let shared = provider.and_then(|provider| self.with_room(cx, provider));
        let Some(proc) = shared.or_else(|| self.spawn(cx, id)) else {
            let why = "the agent cannot be started with these settings";
            return self.fail_turn(cx, id, "provider_not_available", why, "check `provider list`");
        };
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(agent) = self.agents.get_mut(&proc) else { return };
        let lane = agent.seat(id, session.record.usage);
        session.agent = Some((proc, lane));
        let record = &session.record;
        let opening = Opening {
            conversation: &record.agent_session,
            resume: record.agent_resumable,
            cwd: &record.repo_path,
            model: record.model_override.as_deref(),
        };
        let bytes = agent.open(lane, &opening);
        self.feed(cx, proc, bytes);
        self.feed_prompt(cx, id);
    }

    /// A program for many conversations would be changed by one of them (security I2). Of others the world sees to that,
    /// when it starts them.
    fn is_in_own_hands(&self, id: SessionId) -> bool {
        let Some(session) = self.sessions.get(&id) else { return false };
        let provider = session.provider.filter(|provider| provider.is_shared());
        let path = provider.and_then(|provider| self.providers.path(provider));
        let inside = path.and_then(|path| path.strip_prefix(session.record.repo_path.as_str()));
        inside.is_some_and(|inside| inside.starts_with('/'))
    }

    fn spawn(&mut self, cx: &mut Ctx<'_>, id: SessionId) -> Option<ProcId> {
        let session = self.sessions.get(&id)?;
        let provider = session.provider?;
        let record = &session.record;
        let opening = Opening {
            conversation: &record.agent_session,
            resume: record.agent_resumable,
            cwd: &record.repo_path,
            model: record.model_override.as_deref(),
        };
        let command = Command {
            program: self.providers.path(provider)?.to_string(),
            args: provider.launch(&opening).ok()?,
            cwd: provider.cwd(&record.repo_path).to_string(),
            // One that carries many conversations is looked at for each of them.
            repository: (!provider.is_shared()).then(|| record.repo_path.clone()),
            env: provider.env(&cx.engine.config),
        };
        let proc = cx.engine.proc_id();
        let mut agent = Agent::new(provider, &cx.engine.config.limits);
        let hello = agent.hello();
        self.agents.insert(proc, agent);
        cx.fx.push(Effect::Spawn { proc, command });
        self.feed(cx, proc, hello);
        Some(proc)
    }

    fn feed_prompt(&mut self, cx: &mut Ctx<'_>, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let (Some((proc, lane)), Some(turn)) = (session.agent, &mut session.turn) else { return };
        let Some(text) = turn.prompt.take() else { return };
        let prompt = Say::Prompt { lane, text, id: turn.message.id.to_string() };
        let is_cancelled = turn.is_cancelled;
        self.say(cx, proc, prompt);
        self.on_prompt_fed(cx, id, proc);
        if is_cancelled {
            self.interrupt(cx, id);
        }
    }

    // --- speaking -----------------------------------------------------------------------------------------------

    /// Says this to a process. What is said while it is being heard follows when it has been.
    pub(super) fn say(&mut self, cx: &mut Ctx<'_>, proc: ProcId, say: Say) {
        let said = self.agents.get_mut(&proc).and_then(|agent| agent.say(say));
        if let Some(bytes) = said {
            self.feed(cx, proc, bytes);
        }
    }

    fn feed(&mut self, cx: &mut Ctx<'_>, proc: ProcId, bytes: Vec<u8>) {
        let agent = self.agents.get_mut(&proc).filter(|agent| !agent.is_ending);
        let Some(agent) = agent.filter(|_| !bytes.is_empty()) else { return };
        let waiting = agent.on_fed(bytes.len());
        cx.fx.push(Effect::Feed { proc, bytes });
        // It asks and asks, and does not read the answers.
        if waiting > cx.engine.config.limits.agent_input_max {
            self.kill_agent(cx, proc);
        }
    }

    /// Answers this call once everything fed so far was taken.
    pub(super) fn answer_when_taken(
        &mut self,
        cx: &mut Ctx<'_>,
        proc: ProcId,
        call: Call,
        result: Box<RawValue>,
    ) {
        match self.agents.get_mut(&proc).filter(|agent| !agent.is_ending) {
            Some(agent) => agent.deliver(call, result),
            None => cx.refuse(call, &gone()),
        }
    }

    pub(crate) fn on_fed(&mut self, cx: &mut Ctx<'_>, proc: ProcId, bytes: usize) {
        let Some(agent) = self.agents.get_mut(&proc) else { return };
        for (call, result) in agent.on_taken(bytes) {
            cx.answer(call, &result);
        }
    }

    // --- listening ----------------------------------------------------------------------------------------------

    pub(crate) fn on_output(
        &mut self,
        cx: &mut Ctx<'_>,
        proc: ProcId,
        stream: Stream,
        bytes: &[u8],
    ) {
        let Some(agent) = self.agents.get_mut(&proc) else { return };
        if stream == Stream::Err {
            return agent.complain(bytes);
        }
        let mut lines = core::mem::replace(&mut agent.lines, Lines::new(0));
        lines.push(bytes, |line| self.on_line(cx, proc, line));
        let Some(agent) = self.agents.get_mut(&proc) else { return };
        agent.lines = lines;
        for id in agent.sessions() {
            self.keep_message(cx, id);
        }
    }

    fn on_line(&mut self, cx: &mut Ctx<'_>, proc: ProcId, line: Line<'_>) {
        let Some(agent) = self.agents.get_mut(&proc).filter(|agent| !agent.is_ending) else {
            return;
        };
        let Line::Whole(line) = line else {
            let why = "the agent wrote a line that is too long";
            return self.break_off(cx, proc, why, "send the message again");
        };
        // It is taken out while it listens: what it tells may need the whole house.
        let Some(mut dialect) = agent.dialect.take() else { return };
        let mut out = Vec::new();
        dialect.hear(line, &mut out, &mut |lane, event| self.hear(cx, proc, lane, event));
        let Some(agent) = self.agents.get_mut(&proc) else { return };
        agent.dialect = Some(dialect);
        let unsaid = core::mem::take(&mut agent.unsaid);
        self.feed(cx, proc, out);
        for say in unsaid {
            self.say(cx, proc, say);
        }
    }

    fn hear(&mut self, cx: &mut Ctx<'_>, proc: ProcId, lane: Option<Lane>, event: AgentEvent<'_>) {
        if event == AgentEvent::Garbage {
            return self.on_garbage(cx, proc);
        }
        if let AgentEvent::Unruly { why } = event {
            let why = format!("the agent does not let itself be asked about its tools: {why}");
            return self.break_off(cx, proc, &why, "see `clawd provider list`");
        }
        let agent = self.agents.get(&proc);
        let seat = lane.and_then(|lane| agent?.seats.get(&lane));
        match (seat.map(|seat| seat.session), event) {
            (Some(id), event) => self.on_event(cx, id, proc, event),
            // Its session has left, or there never was one.
            (None, AgentEvent::Asked { request, .. }) => {
                let message = String::from("The session that this belonged to is gone.");
                self.say(cx, proc, Say::Deny { request: request.to_string(), message });
            }
            (None, _) => {}
        }
    }

    fn on_garbage(&mut self, cx: &mut Ctx<'_>, proc: ProcId) {
        let Some(agent) = self.agents.get_mut(&proc) else { return };
        agent.garbage = agent.garbage.saturating_add(1);
        if agent.garbage > GARBAGE_MAX {
            let why = "the agent printed what is not its language";
            self.break_off(cx, proc, why, "is it the real one? see `clawd provider list`");
        }
    }

    /// Nothing sensible can be heard of this process any more: its turns fail, and it is ended.
    fn break_off(&mut self, cx: &mut Ctx<'_>, proc: ProcId, why: &str, hint: &str) {
        let sessions = self.agents.get(&proc).map(Agent::sessions).unwrap_or_default();
        for id in sessions {
            self.fail_turn(cx, id, "agent_failed", why, hint);
        }
        self.kill_agent(cx, proc);
    }

    // --- ending -------------------------------------------------------------------------------------------------

    pub(crate) fn on_spawned(
        &mut self,
        cx: &mut Ctx<'_>,
        proc: ProcId,
        result: Result<u32, ProgramFault>,
    ) {
        let fault = match result {
            Ok(pid) => {
                if let Some(agent) = self.agents.get(&proc) {
                    let provider = agent.provider.name();
                    cx.note(Note::AgentStarted { provider, proc, pid });
                }
                return;
            }
            Err(fault) => fault,
        };
        let Some(agent) = self.forget(cx, proc) else { return };
        let provider = agent.provider.name();
        cx.note(Note::AgentNotStarted { provider, fault: fault.clone() });
        self.providers.doubt(agent.provider);
        let name = agent.provider.name();
        let why = match fault {
            ProgramFault::Missing => format!("{name} is no longer there"),
            ProgramFault::Unsafe(why) => format!("{name} is not trusted: {why}"),
            ProgramFault::Failed(why) => format!("{name} did not start: {why}"),
        };
        for id in agent.sessions() {
            let hint = "see `clawd provider list`";
            self.fail_turn(cx, id, "provider_not_available", &why, hint);
        }
    }

    pub(crate) fn on_exited(&mut self, cx: &mut Ctx<'_>, proc: ProcId, code: Option<i32>) {
        if let Some(agent) = self.agents.get_mut(&proc) {
            let mut lines = core::mem::replace(&mut agent.lines, Lines::new(0));
            lines.finish(|line| self.on_line(cx, proc, line));
        }
        let Some(agent) = self.forget(cx, proc) else { return };
        let (provider, was_told) = (agent.provider.name(), agent.is_ending);
        cx.note(Note::AgentEnded { provider, proc, code, was_told });
        for id in agent.sessions() {
            self.on_agent_gone(cx, id, &agent, code);
        }
    }

    /// The process that carried this session's conversation has exited.
    fn on_agent_gone(&mut self, cx: &mut Ctx<'_>, id: SessionId, agent: &Agent, code: Option<i32>) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(turn) = &session.turn else { return };
        if turn.is_cancelled {
            self.finish_turn(cx, id, Ending::Cancelled);
        } else if turn.is_refused {
            self.finish_turn(cx, id, Ending::refused(agent.provider));
        } else if agent.is_ending && turn.prompt.is_some() {
            self.take_seat(cx, id);
        } else {
            let complaint = agent.complaint();
            session.record.agent_resumable |= agent.provider.knows_conversation(&complaint);
            let why = describe_exit(agent.provider, code, &complaint);
            self.fail_turn(cx, id, "agent_failed", &why, "send the message again to go on");
        }
    }

    /// Takes a process out of the tables, and out of the sessions that sat in it; those that still do are left in it.
    fn forget(&mut self, cx: &mut Ctx<'_>, proc: ProcId) -> Option<Agent> {
        let mut agent = self.agents.remove(&proc)?;
        cx.engine.timers.disarm(Timer::AgentExit(proc));
        for call in agent.undelivered() {
            cx.refuse(call, &gone());
        }
        agent.seats.retain(|lane, seat| {
            let id = seat.session;
            let Some(session) = self.sessions.get_mut(&id) else { return false };
            if session.agent != Some((proc, *lane)) {
                return false;
            }
            session.agent = None;
            cx.engine.timers.disarm(Timer::AgentIdle(id));
            cx.engine.timers.disarm(Timer::Interrupt(id));
            true
        });
        Some(agent)
    }

    /// Closes an agent's input: it ends by itself, or is ended.
    pub(super) fn end_agent(&mut self, cx: &mut Ctx<'_>, proc: ProcId) {
        if let Some(agent) = self.agents.get_mut(&proc).filter(|agent| !agent.is_ending) {
            agent.is_ending = true;
            cx.fx.push(Effect::Finish { proc });
            let at = cx.engine.now.mono + cx.engine.config.limits.agent_exit_timeout;
            cx.engine.timers.arm(Timer::AgentExit(proc), at);
        }
    }

    pub(super) fn kill_agent(&mut self, cx: &mut Ctx<'_>, proc: ProcId) {
        if let Some(agent) = self.agents.get_mut(&proc) {
            agent.is_ending = true;
            cx.engine.timers.disarm(Timer::AgentExit(proc));
            cx.fx.push(Effect::Kill { proc });
        }
    }

    /// Ends the session's agent if it has nothing to do; the next turn starts another.
    pub(super) fn retire_agent(&mut self, cx: &mut Ctx<'_>, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if let Some(turn) = &mut session.turn {
            turn.is_last = true;
            return;
        }
        let Some((proc, lane)) = session.agent else { return };
        if self.give_up_seat(proc, lane) {
            self.say(cx, proc, Say::Close(lane));
        } else {
            self.end_agent(cx, proc);
        }
    }

    /// The agent must not go on with what it does for this session. One that works for no other is killed.
    pub(super) fn abandon(&mut self, cx: &mut Ctx<'_>, id: SessionId) {
        if let Some(seat) = self.sessions.get(&id).and_then(|session| session.agent) {
            self.vacate(cx, seat);
        }
    }

    pub(super) fn vacate(&mut self, cx: &mut Ctx<'_>, (proc, lane): (ProcId, Lane)) {
        if self.give_up_seat(proc, lane) {
            self.say(cx, proc, Say::Interrupt(lane));
            self.say(cx, proc, Say::Close(lane));
        } else {
            self.kill_agent(cx, proc);
        }
    }

    /// Leaves a process to the others in it; `false` if there are none.
    fn give_up_seat(&mut self, proc: ProcId, lane: Lane) -> bool {
        let Some(agent) = self.agents.get_mut(&proc).filter(|agent| agent.seats.len() > 1) else {
            return false;
        };
        let seat = agent.seats.remove(&lane);
        if let Some(session) = seat.and_then(|seat| self.sessions.get_mut(&seat.session)) {
            session.agent = None;
        }
        true
    }

    pub(crate) fn on_exit_late(&mut self, cx: &mut Ctx<'_>, proc: ProcId) {
        self.kill_agent(cx, proc);
    }

    /// The daemon ends: every turn is written down as interrupted, and every agent is ended.
    pub(crate) fn on_shutdown(&mut self, cx: &mut Ctx<'_>) {
        self.is_ending = true;
        let ids: Vec<_> = self.sessions.keys().copied().collect();
        for id in ids {
            if self.has_turn(id) {
                let why = "the daemon was stopped during this turn";
                self.finish_turn(cx, id, Ending::Stopped(why));
            }
        }
        let procs: Vec<_> = self.agents.keys().copied().collect();
        for proc in procs {
            self.kill_agent(cx, proc);
        }
    }
}

fn gone() -> RpcError {
    RpcError::new(-32002, "provider_not_available", "the agent ended before it took this")
        .hint("send the message again to go on")
}

fn describe_exit(provider: Provider, code: Option<i32>, complaint: &str) -> String {
    let name = provider.name();
    let how = match code {
        Some(code) => format!("{name} ended in the middle of a turn (exit code {code})"),
        None => format!("{name} was ended in the middle of a turn by a signal"),
    };
    match complaint.trim() {
        "" => how,
        complaint => format!("{how}: {complaint}"),
    }
}
