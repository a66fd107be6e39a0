//! Which agents are here, and logged in?
//!
//! Owns what is known about each provider and who waits for it; refuses to know how they are asked (`agent` does). What
//! is good stays good for a minute; what is bad is looked at again each time, since its owner may have just fixed it.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;

use super::{Asked, Work, approval, raw, send, session};
use crate::access::ctx::Ctx;
use crate::access::peers::Call;
use crate::agent::Provider;
use crate::agent::event::ProviderState;
use crate::contract::effect::Question;
use crate::contract::error::ProgramFault;
use crate::contract::input::Answer;
use crate::contract::time::Instant;
use crate::wire::params::Params;
use crate::wire::rpc::RpcError;

/// What is known about all of them.
#[derive(Debug)]
pub(super) struct Providers {
    table: BTreeMap<Provider, Known>,
}

impl Default for Providers {
    fn default() -> Self {
        let unknown = |it: &Provider| (*it, Known::default());
        Self { table: Provider::ALL.iter().map(unknown).collect() }
    }
}

/// What is known about one, and who waits to know.
#[derive(Debug, Default)]
struct Known {
    state: ProviderState,
    known_at: Option<Instant>,
    is_asked: bool,
    /// Until then it has been asked too much.
    rests_until: Option<Instant>,
    waiting: Vec<Waiter>,
}

/// Who waits for a provider's state, and for what.
#[derive(Debug)]
pub(super) enum Waiter {
    Create(session::Draft),
    Send(send::Draft),
    Revive(Box<approval::Revival>),
    /// Goes on to these.
    List(Call, &'static [Provider]),
    Check(Call),
}

/// Waiters for one provider beyond this are refused.
const WAITING_MAX: usize = 256;

/// A provider as clients see it.
#[derive(Serialize)]
struct ProviderView<'a> {
    name: &'a str,
    /// It has been looked for; if not, the rest says nothing.
    checked: bool,
    available: bool,
    installed: bool,
    authenticated: bool,
    version: Option<&'a str>,
    path: Option<&'a str>,
    approvals: bool,
    /// It is no model, but a script.
    demo: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
}

impl Known {
    fn view(&self, provider: Provider) -> ProviderView<'_> {
        let state = &self.state;
        ProviderView {
            name: provider.name(),
            checked: self.known_at.is_some(),
            available: self.known_at.is_some() && state.is_available(),
            installed: state.path.is_some(),
            authenticated: state.is_authenticated,
            version: state.version.as_deref(),
            path: state.path.as_deref(),
            approvals: true,
            demo: provider == Provider::Demo,
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
        self.ready_or("")
    }

    /// The same; what else there is to do stands behind the hint.
    fn ready_or(&self, else_: &str) -> Result<(), RpcError> {
        let Some(problem) = &self.state.problem else { return Ok(()) };
        let error = RpcError::new(-32002, "provider_not_available", problem.text.clone());
        Err(error.hint(format!("{}{else_}", problem.hint)))
    }
}

impl Providers {
    /// Whether a session can begin on it. If not, there may be another agent, and there is always the demo.
    fn ready_to_begin(&self, provider: Provider) -> Result<(), RpcError> {
        let is_other = |(it, known): &(&Provider, &Known)| {
            ![provider, Provider::Demo].contains(it)
                && known.known_at.is_some()
                && known.state.is_available()
        };
        let else_ = match self.table.iter().find(is_other) {
            Some((other, _)) => format!(", or use {}", other.name()),
            None => String::from(", or try it without an agent: `clawd run -p demo \"hello\"`"),
        };
        self.table.get(&provider).map_or(Ok(()), |known| known.ready_or(&else_))
    }

    pub(super) fn path(&self, provider: Provider) -> Option<&str> {
        self.table.get(&provider)?.state.path.as_deref()
    }

    /// It has been asked too much, and said for how long it wants to be left alone.
    pub(super) fn rest(&mut self, cx: &Ctx<'_>, provider: Provider, wait_ms: Option<u64>) {
        let rest_max = cx.engine.config.limits.provider_rest_max;
        let rest = wait_ms.map(|wait_ms| Duration::from_millis(wait_ms).min(rest_max));
        self.known(provider).rests_until = rest.map(|rest| cx.engine.now.mono + rest);
    }

    /// Whether it may be asked again.
    pub(super) fn rested(&mut self, cx: &Ctx<'_>, provider: Provider) -> Result<(), RpcError> {
        let now = cx.engine.now.mono;
        let Some(until) = self.known(provider).rests_until.filter(|until| *until > now) else {
            return Ok(());
        };
        let why = format!("{} has been asked too much", provider.name());
        Err(RpcError::new(-32003, "provider_rate_limited", why)
            .hint("try again later, or use another provider")
            .retry_after(until.since(now)))
    }

    /// The next caller looks again.
    pub(super) fn doubt(&mut self, provider: Provider) {
        self.known(provider).known_at = None;
    }

    fn known(&mut self, provider: Provider) -> &mut Known {
        self.table.entry(provider).or_default()
    }

    fn views(&self) -> Box<RawValue> {
        let views: Vec<_> = self.table.iter().map(|(it, known)| known.view(*it)).collect();
        raw(&views)
    }
}

/// The provider that a parameter names.
pub(super) fn named(params: &Params<'_>) -> Result<Option<Provider>, RpcError> {
    let Some(name) = params.text("provider")? else { return Ok(None) };
    let names: Vec<_> = Provider::ALL.iter().map(|it| format!("`{}`", it.name())).collect();
    let unknown =
        || RpcError::bad_params("provider", &format!("must be one of {}", names.join(", ")));
    Provider::from_name(&name).map(Some).ok_or_else(unknown)
}

impl Work {
    pub(crate) fn on_providers(&mut self, cx: &mut Ctx<'_>, call: Call) {
        // All are asked at once, and waited for one after another.
        for provider in Provider::ALL {
            self.look(cx, *provider);
        }
        self.list(cx, call, Provider::ALL);
    }

    fn list(&mut self, cx: &mut Ctx<'_>, call: Call, rest: &'static [Provider]) {
        match rest.split_first() {
            Some((next, rest)) => self.with_provider(cx, *next, Waiter::List(call, rest)),
            None => cx.answer(call, &self.providers.views()),
        }
    }

    pub(crate) fn on_check_provider(&mut self, cx: &mut Ctx<'_>, call: Call, params: &Params<'_>) {
        match named(params) {
            Ok(Some(provider)) => {
                self.providers.doubt(provider);
                self.providers.rest(cx, provider, None);
                self.with_provider(cx, provider, Waiter::Check(call));
            }
            Ok(None) => cx.refuse(call, &RpcError::bad_params("provider", "is missing")),
            Err(error) => cx.refuse(call, &error),
        }
    }

    /// Goes on with what needs the provider, now or once it is known.
    pub(super) fn with_provider(&mut self, cx: &mut Ctx<'_>, provider: Provider, waiter: Waiter) {
        let known = self.providers.known(provider);
        if known.is_fresh(cx) {
            return self.go_on(cx, provider, waiter);
        }
        if known.waiting.len() >= WAITING_MAX {
            let why = format!("too many calls wait for {}", provider.name());
            let error = RpcError::new(-32029, "rate_limited", why);
            return self.give_up(cx, provider, waiter, &error.retry_after(Duration::from_secs(1)));
        }
        self.look(cx, provider);
        self.providers.known(provider).waiting.push(waiter);
    }

    /// Asks for what is not known, unless that was asked already.
    fn look(&mut self, cx: &mut Ctx<'_>, provider: Provider) {
        let known = self.providers.known(provider);
        if known.is_asked || known.is_fresh(cx) {
            return;
        }
        known.is_asked = true;
        let config = &cx.engine.config;
        // Each run has its own limit; this one is for a runtime that is too busy to run anything.
        let timeout = config.limits.probe_timeout.saturating_mul(3);
        let question = Question::Probe {
            program: provider.program(config),
            runs: provider.probe_runs(),
            env: provider.env(config),
            timeout: config.limits.probe_timeout,
        };
        self.ask(cx, question, timeout, Asked::Probe(provider));
    }

    pub(super) fn on_probe(&mut self, cx: &mut Ctx<'_>, provider: Provider, answer: Answer) {
        let too_busy = |_| ProgramFault::Failed(String::from("too much else is being asked"));
        let probe = answer.probe().map_err(too_busy).flatten();
        let known = self.providers.known(provider);
        known.is_asked = false;
        known.state = provider.read_probe(&probe);
        known.known_at = Some(cx.engine.now.mono);
        for waiter in core::mem::take(&mut known.waiting) {
            self.go_on(cx, provider, waiter);
        }
    }

    fn go_on(&mut self, cx: &mut Ctx<'_>, provider: Provider, waiter: Waiter) {
        let known = self.providers.known(provider);
        match waiter {
            Waiter::Create(draft) => {
                let ready = self.providers.ready_to_begin(provider);
                self.create(cx, draft, provider, ready);
            }
            Waiter::Send(draft) => {
                let ready = known.ready();
                self.send_ready(cx, draft, ready);
            }
            Waiter::Revive(revival) => {
                let ready = known.ready();
                self.revive_ready(cx, *revival, ready);
            }
            Waiter::List(call, rest) => self.list(cx, call, rest),
            Waiter::Check(call) => cx.answer(call, &known.view(provider)),
        }
    }

    fn give_up(&mut self, cx: &mut Ctx<'_>, provider: Provider, waiter: Waiter, error: &RpcError) {
        match waiter {
            Waiter::Create(draft) => self.create(cx, draft, provider, Err(error.clone())),
            Waiter::Send(draft) => self.send_ready(cx, draft, Err(error.clone())),
            Waiter::Revive(revival) => self.revive_ready(cx, *revival, Err(error.clone())),
            Waiter::List(call, _) | Waiter::Check(call) => cx.refuse(call, error),
        }
    }

    /// What is known already, for `daemon.status`: never waits.
    pub(crate) fn provider_views(&self) -> Box<RawValue> {
        self.providers.views()
    }
}
