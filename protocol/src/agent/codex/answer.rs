//! What the answers to our own requests mean: codex is ready, a conversation is open, a turn has begun.
//!
//! Owns the way of a conversation from one stage to the next (the table is the module's); refuses to know what happens in
//! a turn.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::Deserialize;

use super::fault::Fault;
use super::hear::{Floor, ended, turn};
use super::process::{Awaited, Codex, Greeting};
use super::speak;
use super::thread::Stage;
use crate::agent::event::{AgentEvent, Outcome};
use crate::agent::json::{Raw, object, read, text};
use crate::agent::lane::Lane;

impl Codex {
    pub(super) fn on_answer(
        &mut self,
        id: Raw<'_>,
        result: Raw<'_>,
        error: Raw<'_>,
        floor: &mut Floor<'_, '_>,
    ) {
        let Some(awaited) = read::<u64>(id).and_then(|id| self.awaited.remove(&id)) else { return };
        let answer = if error.is_some() { Err(error) } else { Ok(result) };
        match awaited {
            Awaited::Greeting => self.on_greeting(answer, floor),
            Awaited::Vetting(lane, question) => {
                let Some(thread) = self.threads.get_mut(&lane) else { return };
                let Stage::Vetting(vetting) = &mut thread.stage else { return };
                let more = vetting.hear(&question, answer);
                self.question(lane, more, floor.out);
                self.on_vetted(lane, floor);
            }
            Awaited::Thread(lane) => self.on_thread(lane, answer, floor),
            Awaited::Turn(lane) => self.on_turn(lane, answer, floor),
        }
    }

    fn on_greeting(&mut self, answer: Result<Raw<'_>, Raw<'_>>, floor: &mut Floor<'_, '_>) {
        #[derive(Deserialize)]
        struct Greeted<'a> {
            #[serde(borrow, rename = "codexHome")]
            home: Raw<'a>,
            #[serde(borrow, rename = "userAgent")]
            agent: Raw<'a>,
        }
        let lanes: Vec<Lane> = self.threads.keys().copied().collect();
        let greeted = answer.ok().and_then(object::<Greeted<'_>>);
        let home = greeted.as_ref().and_then(|it| text(it.home));
        let Some(home) = home else {
            self.greeting = Greeting::Failed;
            let fault = Fault::new("codex did not say how it is set up");
            lanes.into_iter().for_each(|lane| self.fail_opening(lane, &fault, floor));
            return;
        };
        self.version = greeted.and_then(|it| text(it.agent)).and_then(|it| version(&it));
        self.greeting = Greeting::Done(home.into_owned());
        floor.out.extend(speak::initialized());
        lanes.into_iter().for_each(|lane| self.vet(lane, floor.out));
    }

    fn on_vetted(&mut self, lane: Lane, floor: &mut Floor<'_, '_>) {
        let Some(thread) = self.threads.get_mut(&lane) else { return };
        let Stage::Vetting(vetting) = &mut thread.stage else { return };
        match vetting.verdict() {
            None => {}
            Some(Err(fault)) => self.fail_opening(lane, &fault, floor),
            Some(Ok(())) => {
                let vetting = core::mem::take(vetting);
                thread.stage = Stage::Opening;
                let id = self.await_answer(Awaited::Thread(lane));
                if let Some(thread) = self.threads.get(&lane) {
                    floor.out.extend(speak::open_thread(id, &thread.terms(&vetting)));
                }
            }
        }
    }

    fn on_thread(
        &mut self,
        lane: Lane,
        answer: Result<Raw<'_>, Raw<'_>>,
        floor: &mut Floor<'_, '_>,
    ) {
        let opened = match answer.map_err(Fault::of_answer).and_then(opened) {
            Ok(opened) => opened,
            Err(fault) => return self.fail_opening(lane, &fault, floor),
        };
        let Some(thread) = self.threads.get_mut(&lane) else { return };
        thread.id = Some(opened.id.clone());
        thread.model_used = opened.model;
        thread.stage = Stage::Open;
        let is_left = thread.is_left;
        let is_stopped = core::mem::take(&mut thread.is_interrupted);
        // Another lane that has it was left.
        if let Some(before) = self.lanes.insert(opened.id, lane).filter(|before| *before != lane) {
            self.threads.remove(&before);
            self.asks.retain(|_, ask| ask.lane != before);
        }
        if is_left {
            return self.leave(lane, floor.out);
        }
        match self.threads.get_mut(&lane) {
            Some(thread) if is_stopped => {
                if thread.prompt.take().is_some() {
                    floor.tell(
                        lane,
                        AgentEvent::TurnEnded(ended(Outcome::Interrupted, thread.usage)),
                    );
                }
            }
            Some(_) | None => self.start_turn(lane, floor.out),
        }
    }

    fn fail_opening(&mut self, lane: Lane, fault: &Fault, floor: &mut Floor<'_, '_>) {
        let Some(thread) = self.threads.get_mut(&lane) else { return };
        thread.stage = Stage::Closed;
        if fault.is_not_found {
            thread.id = None;
        }
        let is_stopped = core::mem::take(&mut thread.is_interrupted);
        if thread.is_left {
            return self.forget(lane);
        }
        if thread.prompt.take().is_some() {
            let end =
                if is_stopped { ended(Outcome::Interrupted, thread.usage) } else { fault.end() };
            floor.tell(lane, AgentEvent::TurnEnded(end));
        }
    }

    fn on_turn(&mut self, lane: Lane, answer: Result<Raw<'_>, Raw<'_>>, floor: &mut Floor<'_, '_>) {
        #[derive(Deserialize)]
        struct Started<'a> {
            #[serde(borrow)]
            turn: Raw<'a>,
        }
        let Some(thread) = self.threads.get_mut(&lane) else { return };
        match answer {
            Ok(answer) => {
                let started = object::<Started<'_>>(answer).and_then(|it| turn(it.turn));
                let id = started.and_then(|turn| text(turn.id));
                if let (Some(turn), Some(id)) = (&mut thread.turn, id) {
                    turn.id = Some(id.into_owned());
                }
                self.stop_if_told(lane, floor);
            }
            Err(error) => {
                let fault = Fault::of_answer(error);
                // It may have been unloaded: the next turn opens it again.
                thread.stage = Stage::Closed;
                let is_under_way = thread.turn.is_some();
                let is_left = thread.is_left;
                thread.end_turn();
                if is_left {
                    self.forget(lane);
                } else if is_under_way {
                    floor.tell(lane, AgentEvent::TurnEnded(fault.end()));
                }
            }
        }
    }

    pub(super) fn stop_if_told(&mut self, lane: Lane, floor: &mut Floor<'_, '_>) {
        let Some(thread) = self.threads.get_mut(&lane) else { return };
        if thread.is_interrupted && thread.turn_id().is_some() {
            thread.is_interrupted = false;
            floor.out.extend(self.interrupt(lane));
        }
    }
}

/// `clawd/0.169.0 (Debian …)`: codex tells its own version in our name.
fn version(agent: &str) -> Option<String> {
    let (_, version) = agent.split_once('/')?;
    Some(version.split(' ').next()?.to_string())
}

/// An open conversation.
struct Opened {
    id: String,
    model: Option<String>,
}

/// The answer that a conversation is open, if it is so on our terms.
fn opened(raw: Raw<'_>) -> Result<Opened, Fault> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        thread: Raw<'a>,
        #[serde(borrow)]
        model: Raw<'a>,
        #[serde(borrow, rename = "approvalPolicy")]
        policy: Raw<'a>,
        #[serde(borrow, rename = "approvalsReviewer")]
        reviewer: Raw<'a>,
        #[serde(borrow)]
        sandbox: Raw<'a>,
    }
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        id: Raw<'a>,
    }
    #[derive(Deserialize)]
    struct Sandbox<'a> {
        #[serde(borrow, rename = "type")]
        kind: Raw<'a>,
    }
    let answer = object::<Answer<'_>>(raw).ok_or_else(|| Fault::new("codex opened nothing"))?;
    let sandbox = object::<Sandbox<'_>>(answer.sandbox).and_then(|sandbox| text(sandbox.kind));
    let is_agreed = text(answer.policy).as_deref() == Some(speak::POLICY)
        && text(answer.reviewer).as_deref() == Some(speak::REVIEWER)
        && sandbox.as_deref() == Some("readOnly");
    if !is_agreed {
        let why = "codex does not agree to ask before it acts: see its own configuration, or that of the machine";
        return Err(Fault::new(why));
    }
    let id = object::<Named<'_>>(answer.thread).and_then(|thread| text(thread.id));
    let id = id.ok_or_else(|| Fault::new("codex did not name the conversation"))?.into_owned();
    Ok(Opened { id, model: text(answer.model).map(|model| model.into_owned()) })
}
