//! Is claude here, and logged in?
//!
//! Owns what is known about the provider and who waits for it; refuses to know how it is asked (`agent::claude` does).
//! What is good stays good for a minute; what is bad is looked at again each time, since its owner may have just fixed
//! it.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;

use super::{Asked, Work, raw, send, session};
use crate::access::ctx::Ctx;
use crate::access::peers::Call;
use crate::access::token::Secret;
use crate::agent::claude;
use crate::agent::event::ProviderState;
use crate::contract::effect::{Env, Program, Question};
use crate::contract::error::ProgramFault;
use crate::contract::input::Answer;
use crate::contract::time::Instant;
use crate::wire::params::Params;
use crate::wire::rpc::RpcError;

/// What is known, and who waits to know.
#[derive(Debug, Default)]
pub(super) struct Provider {
    state: ProviderState,
    known_at: Option<Instant>,
    waiting: Vec<Waiter>,
}

/// Who waits for the provider's state, and for what.
#[derive(Debug)]
pub(super) enum Waiter {
    Create(session::Draft),
    Send(send::Draft),
    List(Call),
    Check(Call),
}

/// Waiters beyond this are refused.
const WAITING_MAX: usize = 256;

/// A provider as clients see it.
#[derive(Serialize)]
struct ProviderView<'a> {
    name: &'a str,
    available: bool,
    installed: bool,
    authenticated: bool,
    version: Option<&'a str>,
    path: Option<&'a str>,
    approvals: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
}

impl Provider {
    fn view(&self) -> ProviderView<'_> {
        let state = &self.state;
        ProviderView {
            name: claude::NAME,
            available: self.known_at.is_some() && state.is_available(),
            installed: state.path.is_some(),
            authenticated: state.is_authenticated,
            version: state.version.as_deref(),
            path: state.path.as_deref(),
            approvals: true,
            error: state.problem.as_ref().map(|it| it.text.as_str()),
            hint: state.problem.as_ref().map(|it| it.hint.as_str()),
        }
    }

    fn is_fresh(&self, cx: &Ctx<'_>) -> bool {
        let fresh_for = cx.engine.config.limits.probe_fresh;
        let is_fresh = |at: Instant| cx.engine.now.mono.since(at) < fresh_for;
        self.state.is_available() && self.known_at.is_some_and(is_fresh)
    }

    /// Whether sessions can run on it.
    fn ready(&self) -> Result<(), RpcError> {
        let Some(problem) = &self.state.problem else { return Ok(()) };
        let error = RpcError::new(-32002, "provider_not_available", problem.text.clone());
        Err(error.hint(problem.hint.clone()))
    }

    pub(super) fn path(&self) -> Option<&str> {
        self.state.path.as_deref()
    }

    /// The next caller looks again.
    pub(super) const fn doubt(&mut self) {
        self.known_at = None;
    }
}

impl Work {
    pub(crate) fn on_providers(&mut self, cx: &mut Ctx<'_>, call: Call) {
        self.with_provider(cx, Waiter::List(call));
    }

    pub(crate) fn on_check_provider(&mut self, cx: &mut Ctx<'_>, call: Call, params: &Params<'_>) {
        match params.need_text("provider") {
            Ok(name) if name == claude::NAME => {
                self.claude.doubt();
                self.with_provider(cx, Waiter::Check(call));
            }
            Ok(_) => cx.refuse(call, &RpcError::bad_params("provider", "must be `claude`")),
            Err(error) => cx.refuse(call, &error),
        }
    }

    /// Goes on with what needs the provider, now or once it is known.
    pub(super) fn with_provider(&mut self, cx: &mut Ctx<'_>, waiter: Waiter) {
        if self.claude.is_fresh(cx) {
            return self.go_on(cx, waiter);
        }
        if self.claude.waiting.len() >= WAITING_MAX {
            let error = RpcError::new(-32029, "rate_limited", "too many calls wait for claude")
                .retry_after(Duration::from_secs(1));
            return self.give_up(cx, waiter, &error);
        }
        self.claude.waiting.push(waiter);
        if self.claude.waiting.len() > 1 {
            return;
        }
        let path = cx.engine.config.claude.path.clone();
        let question = Question::Probe {
            program: Program { name: claude::NAME, path },
            runs: claude::probe_runs(),
            env: env(cx),
            timeout: cx.engine.config.limits.probe_timeout,
        };
        // Each run has its own limit; this one is for a runtime that is too busy to run anything.
        let timeout = cx.engine.config.limits.probe_timeout.saturating_mul(3);
        self.ask(cx, question, timeout, Asked::Probe);
    }

    pub(super) fn on_probe(&mut self, cx: &mut Ctx<'_>, answer: Answer) {
        let too_busy = |_| ProgramFault::Failed(String::from("too much else is being asked"));
        let probe = answer.probe().map_err(too_busy).flatten();
        self.claude.state = claude::read_probe(&probe);
        self.claude.known_at = Some(cx.engine.now.mono);
        for waiter in core::mem::take(&mut self.claude.waiting) {
            self.go_on(cx, waiter);
        }
    }

    fn go_on(&mut self, cx: &mut Ctx<'_>, waiter: Waiter) {
        match waiter {
            Waiter::Create(draft) => {
                let ready = self.claude.ready();
                self.create(cx, draft, ready);
            }
            Waiter::Send(draft) => {
                let ready = self.claude.ready();
                self.send_ready(cx, draft, ready);
            }
            Waiter::List(call) => cx.answer(call, &[self.claude.view()]),
            Waiter::Check(call) => cx.answer(call, &self.claude.view()),
        }
    }

    fn give_up(&mut self, cx: &mut Ctx<'_>, waiter: Waiter, error: &RpcError) {
        match waiter {
            Waiter::Create(draft) => self.create(cx, draft, Err(error.clone())),
            Waiter::Send(draft) => self.send_ready(cx, draft, Err(error.clone())),
            Waiter::List(call) | Waiter::Check(call) => cx.refuse(call, error),
        }
    }

    /// What is known already, for `daemon.status`: never waits.
    pub(crate) fn provider_views(&self) -> Box<RawValue> {
        raw(&[self.claude.view()])
    }
}

/// The environment of claude, and nothing else (security I3).
pub(super) fn env(cx: &Ctx<'_>) -> Env {
    let ours = claude::SET
        .iter()
        .map(|(name, value)| (String::from(*name), Secret::new(String::from(*value))));
    let owners = cx.engine.config.claude.env.iter().cloned();
    Env { inherit: claude::INHERIT, set: ours.chain(owners).collect() }
}
