//! Agent processes: started on demand, fed, stopped, one per session.
//!
//! Owns the table of processes and their unfinished lines; refuses to know what the lines mean for a turn. Invariant: a
//! session's next process starts only after its last one has exited, or two would write one conversation.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::Work;
use super::ending::Ending;
use super::provider;
use super::turn::Turn;
use crate::access::ctx::Ctx;
use crate::access::peers::Call;
use crate::agent::claude;
use crate::agent::lines::{Line, Lines};
use crate::contract::effect::{Command, Effect};
use crate::contract::error::ProgramFault;
use crate::contract::id::{ProcId, SessionId};
use crate::contract::input::Stream;
use crate::contract::record::Usage;
use crate::engine::Timer;
use crate::wire::rpc::RpcError;

/// The last of what an agent wrote to standard error, for the report when it dies.
const COMPLAINT_BYTES_MAX: usize = 2048;

/// A process.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) session: SessionId,
    lines: Lines,
    complaint: Vec<u8>,
    /// It was told to end: nothing more is given to it.
    pub(super) is_ending: bool,
    /// Lines in this turn that were not stream-json.
    pub(super) garbage: u32,
    /// What the session had used when this process began.
    usage_before: Usage,
    /// Whether this process counts from zero; known with its first count.
    counts_anew: Option<bool>,
    fed: u64,
    taken: u64,
    /// Calls that are answered once the process has taken so many bytes.
    deliveries: VecDeque<(u64, Call, &'static str)>,
}

impl Agent {
    /// The session's use so far, from what this process has counted. Some versions of claude go on counting when they
    /// resume a conversation, others begin at zero; never is anything summed twice.
    pub(super) fn usage(&mut self, counted: Usage) -> Usage {
        let before = self.usage_before;
        let is_less = counted.input_tokens < before.input_tokens
            || counted.output_tokens < before.output_tokens;
        if !*self.counts_anew.get_or_insert(is_less) {
            return counted;
        }
        let sum = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (None, None) => None,
            (a, b) => Some(a.unwrap_or(0).saturating_add(b.unwrap_or(0))),
        };
        Usage {
            input_tokens: before.input_tokens.saturating_add(counted.input_tokens),
            output_tokens: before.output_tokens.saturating_add(counted.output_tokens),
            cost_micro_usd: sum(before.cost_micro_usd, counted.cost_micro_usd),
        }
    }
}

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
        let is_ending = |proc| self.agents.get(proc).is_some_and(|agent| agent.is_ending);
        match session.agent {
            // It is started again once the old process is gone.
            Some(proc) if is_ending(&proc) => {}
            Some(_) => self.feed_prompt(cx, id),
            None => self.spawn(cx, id),
        }
    }

    fn spawn(&mut self, cx: &mut Ctx<'_>, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let record = &session.record;
        let launch = claude::launch(claude::Launch {
            conversation: &record.agent_session,
            resume: record.agent_resumable,
            model: record.model_override.as_deref(),
        });
        let (Ok(args), Some(program)) = (launch, self.claude.path()) else {
            let why = "claude cannot be started with these settings";
            return self.fail_turn(cx, id, "provider_not_available", why, "check `provider list`");
        };
        let proc = cx.engine.proc_id();
        let command = Command {
            program: program.to_string(),
            args,
            cwd: record.repo_path.clone(),
            env: provider::env(cx),
        };
        session.agent = Some(proc);
        let agent = Agent {
            session: id,
            lines: Lines::new(cx.engine.config.limits.agent_line_bytes_max),
            complaint: Vec::new(),
            is_ending: false,
            garbage: 0,
            usage_before: record.usage,
            counts_anew: None,
            fed: 0,
            taken: 0,
            deliveries: VecDeque::new(),
        };
        self.agents.insert(proc, agent);
        cx.fx.push(Effect::Spawn { proc, command });
        let request = format!("clawd-{}", cx.engine.entropy.base62(12));
        self.feed(cx, proc, claude::initialize(&request));
        self.feed_prompt(cx, id);
    }

    fn feed_prompt(&mut self, cx: &mut Ctx<'_>, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let (Some(proc), Some(turn)) = (session.agent, &mut session.turn) else { return };
        let Some(prompt) = turn.prompt.take() else { return };
        let uuid = turn.message.id.to_string();
        let is_cancelled = turn.is_cancelled;
        self.feed(cx, proc, claude::user_message(&prompt, &uuid));
        if is_cancelled {
            self.interrupt(cx, id);
        }
    }

    pub(super) fn feed(&mut self, cx: &mut Ctx<'_>, proc: ProcId, bytes: Vec<u8>) {
        if let Some(agent) = self.agents.get_mut(&proc).filter(|agent| !agent.is_ending) {
            let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            agent.fed = agent.fed.saturating_add(len);
            let waiting = agent.fed.saturating_sub(agent.taken);
            cx.fx.push(Effect::Feed { proc, bytes });
            // It asks and asks, and does not read the answers.
            if usize::try_from(waiting).unwrap_or(usize::MAX)
                > cx.engine.config.limits.agent_input_max
            {
                self.kill_agent(cx, proc);
            }
        }
    }

    /// Answers this call once everything fed so far was taken.
    pub(super) fn answer_when_taken(
        &mut self,
        cx: &mut Ctx<'_>,
        proc: ProcId,
        call: Call,
        result: &'static str,
    ) {
        match self.agents.get_mut(&proc) {
            Some(agent) => agent.deliveries.push_back((agent.fed, call, result)),
            None => cx.refuse(call, &gone()),
        }
    }

    // --- what processes say -------------------------------------------------------------------------------------

    pub(crate) fn on_spawned(
        &mut self,
        cx: &mut Ctx<'_>,
        proc: ProcId,
        result: Result<u32, ProgramFault>,
    ) {
        let Err(fault) = result else { return };
        self.claude.doubt();
        let why = match fault {
            ProgramFault::Missing => String::from("claude is no longer there"),
            ProgramFault::Unsafe(why) => format!("claude is not trusted: {why}"),
            ProgramFault::Failed(why) => format!("claude did not start: {why}"),
        };
        if let Some(id) = self.forget(cx, proc) {
            let hint = "see `clawd provider list`";
            self.fail_turn(cx, id, "provider_not_available", &why, hint);
        }
    }

    pub(crate) fn on_fed(&mut self, cx: &mut Ctx<'_>, proc: ProcId, bytes: usize) {
        let Some(agent) = self.agents.get_mut(&proc) else { return };
        agent.taken = agent.taken.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        while let Some((_, call, result)) =
            agent.deliveries.pop_front_if(|(at, _, _)| *at <= agent.taken)
        {
            let raw: Result<&serde_json::value::RawValue, _> = serde_json::from_str(result);
            cx.answer(call, &raw.ok());
        }
    }

    pub(crate) fn on_output(
        &mut self,
        cx: &mut Ctx<'_>,
        proc: ProcId,
        stream: Stream,
        bytes: &[u8],
    ) {
        let Some(agent) = self.agents.get_mut(&proc) else { return };
        match stream {
            Stream::Err => {
                agent.complaint.extend_from_slice(bytes);
                let excess = agent.complaint.len().saturating_sub(COMPLAINT_BYTES_MAX);
                agent.complaint.drain(..excess);
            }
            Stream::Out => {
                let mut lines = core::mem::replace(&mut agent.lines, Lines::new(0));
                lines.push(bytes, |line| self.on_line(cx, proc, line));
                if let Some(agent) = self.agents.get_mut(&proc) {
                    agent.lines = lines;
                    let id = agent.session;
                    self.keep_message(cx, id);
                }
            }
        }
    }

    fn on_line(&mut self, cx: &mut Ctx<'_>, proc: ProcId, line: Line<'_>) {
        let Some(agent) = self.agents.get(&proc).filter(|agent| !agent.is_ending) else { return };
        let id = agent.session;
        match line {
            Line::Whole(line) => {
                claude::parse(line, &mut |event| self.on_event(cx, id, proc, event))
            }
            Line::TooLong { .. } => {
                let why = "claude wrote a line that is too long";
                self.fail_turn(cx, id, "agent_failed", why, "send the message again");
                self.kill_agent(cx, proc);
            }
        }
    }

    // --- ending -------------------------------------------------------------------------------------------------

    pub(crate) fn on_exited(&mut self, cx: &mut Ctx<'_>, proc: ProcId, code: Option<i32>) {
        let complaint = self.agents.get(&proc).map(|agent| agent.complaint.clone());
        let was_ending = self.agents.get(&proc).is_some_and(|agent| agent.is_ending);
        if let Some(agent) = self.agents.get_mut(&proc) {
            let mut lines = core::mem::replace(&mut agent.lines, Lines::new(0));
            lines.finish(|line| self.on_line(cx, proc, line));
        }
        let Some(id) = self.forget(cx, proc) else { return };
        let Some(turn) = self.sessions.get(&id).and_then(|session| session.turn.as_ref()) else {
            return;
        };
        if turn.is_cancelled {
            self.finish_turn(cx, id, Ending::Cancelled);
        } else if was_ending && turn.prompt.is_some() {
            self.spawn(cx, id);
        } else {
            let complaint = complaint.unwrap_or_default();
            let complaint = String::from_utf8_lossy(&complaint);
            if let Some(session) = self.sessions.get_mut(&id) {
                session.record.agent_resumable |= claude::knows_conversation(&complaint);
            }
            let why = describe_exit(code, &complaint);
            self.fail_turn(cx, id, "agent_failed", &why, "send the message again to go on");
        }
    }

    /// Takes a process out of the tables; says whose it was, if that session still is.
    fn forget(&mut self, cx: &mut Ctx<'_>, proc: ProcId) -> Option<SessionId> {
        let agent = self.agents.remove(&proc)?;
        cx.engine.timers.disarm(Timer::AgentExit(proc));
        for (_, call, _) in agent.deliveries {
            cx.refuse(call, &gone());
        }
        let session = self.sessions.get_mut(&agent.session)?;
        if session.agent != Some(proc) {
            return None;
        }
        session.agent = None;
        cx.engine.timers.disarm(Timer::AgentIdle(agent.session));
        cx.engine.timers.disarm(Timer::Interrupt(agent.session));
        Some(agent.session)
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
        match (&mut session.turn, session.agent) {
            (Some(turn), _) => turn.is_last = true,
            (None, Some(proc)) => self.end_agent(cx, proc),
            (None, None) => {}
        }
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

fn describe_exit(code: Option<i32>, complaint: &str) -> String {
    let how = match code {
        Some(code) => format!("claude ended in the middle of a turn (exit code {code})"),
        None => String::from("claude was ended in the middle of a turn by a signal"),
    };
    match complaint.trim() {
        "" => how,
        complaint => format!("{how}: {complaint}"),
    }
}
