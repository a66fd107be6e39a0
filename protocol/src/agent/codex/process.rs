//! One codex process: what was said to it, and what of that has no answer yet.
//!
//! Owns the tables of a process and everything that is said from outside; refuses to know what its lines mean (`hear`
//! does).

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use sha2::{Digest, Sha256};

use super::speak;
use super::thread::{Stage, Thread, Turn};
use super::vet::{Question, Vetting};
use crate::agent::dialect::{Dialect, Hear, Say};
use crate::agent::lane::{Lane, Opening};
use crate::contract::limits::Limits;

/// See the module.
#[derive(Debug)]
pub struct Codex {
    pub(super) bounds: Bounds,
    last_id: u64,
    pub(super) greeting: Greeting,
    pub(super) version: Option<String>,
    /// Requests of ours whose answers matter.
    pub(super) awaited: BTreeMap<u64, Awaited>,
    pub(super) threads: BTreeMap<Lane, Thread>,
    /// Conversations by the names that codex gave them.
    pub(super) lanes: BTreeMap<String, Lane>,
    /// What codex waits for an answer to, by the id of its request, as JSON.
    pub(super) asks: BTreeMap<String, Ask>,
}

/// What bounds the tables. As many conversations are open as the host has seats for.
#[derive(Debug)]
pub(super) struct Bounds {
    lanes_max: usize,
    pub(super) calls_max: usize,
    pub(super) asks_max: usize,
    pub(super) input_max: usize,
    pub(super) name_max: usize,
}

/// Whether codex is ready.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Greeting {
    Awaited,
    /// Its own directory.
    Done(String),
    Failed,
}

/// What the answer to a request of ours is about.
#[derive(Debug)]
pub(super) enum Awaited {
    Greeting,
    Vetting(Lane, Question),
    Thread(Lane),
    Turn(Lane),
}

/// Something that codex waits for an answer to.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) lane: Lane,
    /// Of the input that was shown.
    digest: [u8; 32],
    /// The call to end when it is resolved: of a text for a running command, nothing else is heard.
    pub(super) ends_call: Option<String>,
    /// What was answered.
    pub(super) verdict: Option<bool>,
}

impl Ask {
    pub(super) fn new(lane: Lane, input: &str, ends_call: Option<String>) -> Self {
        Self { lane, digest: digest(input), ends_call, verdict: None }
    }
}

fn digest(input: &str) -> [u8; 32] {
    Sha256::digest(input.as_bytes()).into()
}

impl Codex {
    /// A process that has not been spoken with.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        let bounds = Bounds {
            lanes_max: limits.agent_seats_max,
            calls_max: limits.tool_calls_open_max,
            asks_max: limits.tool_calls_open_max.saturating_mul(limits.agent_seats_max),
            input_max: limits.tool_input_max,
            name_max: limits.tool_name_max,
        };
        Self {
            bounds,
            last_id: 0,
            greeting: Greeting::Awaited,
            version: None,
            awaited: BTreeMap::new(),
            threads: BTreeMap::new(),
            lanes: BTreeMap::new(),
            asks: BTreeMap::new(),
        }
    }

    /// A number for a request whose answer does not matter.
    pub(super) const fn next_id(&mut self) -> u64 {
        self.last_id = self.last_id.saturating_add(1);
        self.last_id
    }

    pub(super) fn await_answer(&mut self, awaited: Awaited) -> u64 {
        let id = self.next_id();
        self.awaited.insert(id, awaited);
        id
    }

    // --- opening ------------------------------------------------------------------------------------------------

    fn greet(&mut self) -> Vec<u8> {
        self.greeting = Greeting::Awaited;
        speak::initialize(self.await_answer(Awaited::Greeting))
    }

    /// Asks what has to be known before the conversation is opened, as soon as codex is ready.
    pub(super) fn vet(&mut self, lane: Lane, out: &mut Vec<u8>) {
        let Greeting::Done(home) = &self.greeting else {
            if self.greeting == Greeting::Failed {
                out.extend(self.greet());
            }
            return;
        };
        let questions = Vetting::questions(home);
        if let Some(thread) = self.threads.get_mut(&lane) {
            thread.stage = Stage::Vetting(Vetting::default());
            self.question(lane, questions, out);
        }
    }

    pub(super) fn question(
        &mut self,
        lane: Lane,
        questions: impl IntoIterator<Item = Question>,
        out: &mut Vec<u8>,
    ) {
        for question in questions {
            let Some(thread) = self.threads.get_mut(&lane) else { return };
            let Stage::Vetting(vetting) = &mut thread.stage else { return };
            vetting.ask(1);
            let id = self.await_answer(Awaited::Vetting(lane, question.clone()));
            out.extend(match &question {
                Question::Account => speak::read_account(id),
                Question::Config => speak::read_config(id),
                Question::Rules(path) => speak::read_directory(id, path),
                Question::Rule(path) => speak::read_file(id, path),
            });
        }
    }

    // --- turns --------------------------------------------------------------------------------------------------

    fn prompt(&mut self, lane: Lane, text: String, message: String) -> Vec<u8> {
        let mut out = Vec::new();
        let Some(thread) = self.threads.get_mut(&lane) else { return out };
        thread.prompt = Some((text, message));
        match thread.stage {
            Stage::Open => self.start_turn(lane, &mut out),
            Stage::Closed => {
                thread.stage = Stage::Waiting;
                self.vet(lane, &mut out);
            }
            Stage::Waiting | Stage::Vetting(_) | Stage::Opening => {}
        }
        out
    }

    /// Says what was kept back until the conversation was open.
    pub(super) fn start_turn(&mut self, lane: Lane, out: &mut Vec<u8>) {
        let Some(thread) = self.threads.get_mut(&lane) else { return };
        let Some((text, message)) = thread.prompt.take() else { return };
        let Some(name) = thread.open_id().map(ToString::to_string) else { return };
        thread.turn.get_or_insert(Turn::new());
        let id = self.await_answer(Awaited::Turn(lane));
        out.extend(speak::start_turn(id, &name, &text, &message));
    }

    /// Stops the turn, and the commands that run in it: codex itself leaves those alone.
    pub(super) fn interrupt(&mut self, lane: Lane) -> Vec<u8> {
        let mut out = Vec::new();
        let Some(thread) = self.threads.get_mut(&lane) else { return out };
        let Some(name) = thread.open_id().map(ToString::to_string) else {
            thread.is_interrupted = thread.prompt.is_some();
            return out;
        };
        if let Some(turn) = &mut thread.turn {
            let Some(id) = turn.id.clone() else {
                thread.is_interrupted = true;
                return out;
            };
            if !core::mem::replace(&mut turn.is_stopping, true) {
                out.extend(speak::interrupt_turn(self.next_id(), &name, &id));
            }
        }
        out.extend(speak::end_commands(self.next_id(), &name));
        out
    }

    // --- answers ------------------------------------------------------------------------------------------------

    /// Lets go on what was shown with this very input; codex takes no other, so with another one the answer is no
    /// (security H3).
    fn allow(&mut self, request: &str, input: &str) -> Vec<u8> {
        let is_same = self.asks.get(request).is_some_and(|ask| ask.digest == digest(input));
        self.decide(request, is_same)
    }

    fn decide(&mut self, request: &str, is_allowed: bool) -> Vec<u8> {
        match self.asks.get_mut(request) {
            Some(ask) if ask.verdict.is_none() => {
                ask.verdict = Some(is_allowed);
                speak::decide(request, is_allowed)
            }
            Some(_) | None => Vec::new(),
        }
    }

    // --- leaving ------------------------------------------------------------------------------------------------

    fn close(&mut self, lane: Lane) -> Vec<u8> {
        let mut out = Vec::new();
        let Some(thread) = self.threads.get_mut(&lane) else { return out };
        thread.prompt = None;
        thread.is_left = true;
        let is_under_way = thread.turn.is_some();
        let is_open = thread.open_id().is_some();
        let is_opening = matches!(thread.stage, Stage::Opening);
        let mine = |(request, ask): (&String, &Ask)| (ask.lane == lane).then(|| request.clone());
        let requests: Vec<String> = self.asks.iter().filter_map(mine).collect();
        for request in requests {
            out.extend(self.decide(&request, false));
        }
        if is_under_way {
            out.extend(self.interrupt(lane));
        } else if is_open {
            self.leave(lane, &mut out);
        } else if !is_opening {
            self.forget(lane);
        }
        out
    }

    /// Ends what a conversation has left running, and lets codex unload it.
    pub(super) fn leave(&mut self, lane: Lane, out: &mut Vec<u8>) {
        let name = self.threads.get(&lane).and_then(|thread| thread.open_id());
        if let Some(name) = name.map(ToString::to_string) {
            out.extend(speak::end_commands(self.next_id(), &name));
            out.extend(speak::leave_thread(self.next_id(), &name));
        }
        self.forget(lane);
    }

    pub(super) fn forget(&mut self, lane: Lane) {
        self.threads.remove(&lane);
        self.lanes.retain(|_, of| *of != lane);
        self.asks.retain(|_, ask| ask.lane != lane);
    }
}

impl Dialect for Codex {
    fn hello(&mut self) -> Vec<u8> {
        self.greet()
    }

    fn open(&mut self, lane: Lane, opening: &Opening<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        // Those who were left wait for the end of their turns; they are the first to be forgotten.
        while self.threads.len() >= self.bounds.lanes_max {
            let left = self.threads.iter().find(|(_, thread)| thread.is_left);
            let Some(left) = left.map(|(lane, _)| *lane) else { break };
            self.leave(left, &mut out);
        }
        self.threads.insert(lane, Thread::new(opening));
        self.vet(lane, &mut out);
        out
    }

    fn say(&mut self, say: Say) -> Vec<u8> {
        match say {
            Say::Prompt { lane, text, id } => self.prompt(lane, text, id),
            Say::Interrupt(lane) => self.interrupt(lane),
            Say::Allow { request, input } => self.allow(&request, &input),
            Say::Deny { request, .. } => self.decide(&request, false),
            Say::Close(lane) => self.close(lane),
            // Codex asks at once, or not at all.
            Say::MustAsk { .. } | Say::MayDecide { .. } => Vec::new(),
        }
    }

    fn hear(&mut self, line: &[u8], out: &mut Vec<u8>, tell: Hear<'_>) {
        self.on_line(line, out, tell);
    }
}
