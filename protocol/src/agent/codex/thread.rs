//! One conversation: how far it is opened, and what is under way in it.
//!
//! Owns what has to be remembered from one line to the next; refuses to say or hear anything itself.

use alloc::collections::{BTreeSet, VecDeque};
use alloc::string::String;

use super::speak::Terms;
use super::vet::Vetting;
use crate::agent::lane::Opening;
use crate::contract::record::Usage;

/// Changes of files whose text is kept until they are asked for. Codex asks right after it has told of one.
const PATCHES_MAX: usize = 4;

/// A conversation.
#[derive(Debug)]
pub(super) struct Thread {
    /// Its name; none before it has begun.
    pub(super) id: Option<String>,
    cwd: String,
    model: Option<String>,
    pub(super) stage: Stage,
    /// Kept back until it is open: text, and the name of the message.
    pub(super) prompt: Option<(String, String)>,
    pub(super) turn: Option<Turn>,
    /// The turn is to be stopped as soon as it can be.
    pub(super) is_interrupted: bool,
    /// Nobody listens any more.
    pub(super) is_left: bool,
    /// The model that codex uses.
    pub(super) model_used: Option<String>,
    pub(super) usage: Option<Usage>,
    /// The piece of the answer that streams.
    pub(super) streaming: Option<String>,
    /// Calls that were told.
    calls: BTreeSet<String>,
    /// Inputs of changes of files.
    patches: VecDeque<(String, String)>,
}

/// How far it is opened; the table is the module's.
#[derive(Debug)]
pub(super) enum Stage {
    Waiting,
    Vetting(Vetting),
    Opening,
    Open,
    Closed,
}

/// What is under way.
#[derive(Debug)]
pub(super) struct Turn {
    /// Its name, when codex has said it.
    pub(super) id: Option<String>,
    /// It was told to stop.
    pub(super) is_stopping: bool,
}

impl Turn {
    /// One that codex has not named yet.
    pub(super) const fn new() -> Self {
        Self { id: None, is_stopping: false }
    }
}

impl Thread {
    pub(super) fn new(opening: &Opening<'_>) -> Self {
        Self {
            id: opening.resume.then(|| String::from(opening.conversation)),
            cwd: String::from(opening.cwd),
            model: opening.model.map(String::from),
            stage: Stage::Waiting,
            prompt: None,
            turn: None,
            is_interrupted: false,
            is_left: false,
            model_used: None,
            usage: None,
            streaming: None,
            calls: BTreeSet::new(),
            patches: VecDeque::new(),
        }
    }

    pub(super) fn terms<'a>(&'a self, vetting: &'a Vetting) -> Terms<'a> {
        Terms {
            thread: self.id.as_deref(),
            cwd: &self.cwd,
            model: self.model.as_deref(),
            projects: &vetting.projects,
            servers: &vetting.servers,
        }
    }

    /// Whether it is open, and how it is called then.
    pub(super) fn open_id(&self) -> Option<&str> {
        match self.stage {
            Stage::Open => self.id.as_deref(),
            Stage::Waiting | Stage::Vetting(_) | Stage::Opening | Stage::Closed => None,
        }
    }

    /// The name of the turn that is under way, as far as it is known.
    pub(super) fn turn_id(&self) -> Option<&str> {
        self.turn.as_ref().and_then(|turn| turn.id.as_deref())
    }

    /// Notes a call; whether it is a new one. Beyond so many, the oldest names are forgotten.
    pub(super) fn note_call(&mut self, id: &str, calls_max: usize) -> bool {
        if self.calls.len() >= calls_max && !self.calls.contains(id) {
            self.calls.pop_first();
        }
        self.calls.insert(String::from(id))
    }

    pub(super) fn end_call(&mut self, id: &str) {
        self.calls.remove(id);
        self.patches.retain(|(patch, _)| patch != id);
    }

    pub(super) fn keep_patch(&mut self, id: &str, input: String) {
        self.patches.retain(|(patch, _)| patch != id);
        if self.patches.len() >= PATCHES_MAX {
            self.patches.pop_front();
        }
        self.patches.push_back((String::from(id), input));
    }

    pub(super) fn patch(&self, id: &str) -> Option<&str> {
        self.patches.iter().find(|(patch, _)| patch == id).map(|(_, input)| input.as_str())
    }

    /// The turn is over; what runs on in the background is still told when it ends.
    pub(super) fn end_turn(&mut self) {
        self.turn = None;
        self.is_interrupted = false;
        self.streaming = None;
        self.patches.clear();
    }
}
