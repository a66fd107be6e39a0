//! The link to a relay: one control connection that is always there, or being made.
//!
//! Owns when the relay is dialled, what is said to it, and what becomes of its answers; refuses to know sockets, TLS, and
//! what flows through a tunnel, which is a connection like any other. Off until the owner wants one; then it never gives
//! up.
//!
//! | state | what it waits for | no longer than | then |
//! |---|---|---|---|
//! | `Off` | the owner | – | `Dialing` |
//! | `Dialing` | the leg | `relay_dial_timeout`, which the runtime keeps | `Greeted` |
//! | `Greeted` | `challenge` | `relay_register_timeout` from here | `Signing` |
//! | `Signing` | the identity's signature | the same | `Registering` |
//! | `Registering` | `registered` | the same | `Registered` |
//! | `Registered` | `invite`, `pong` | `relay_pong_timeout` after each `ping` | – |
//! | `Waiting` | the next attempt | 1 s, doubled by each failure up to 60 s | `Dialing` |
//!
//! Whatever goes wrong leads to `Waiting`: the leg is hung up, and the doubling begins anew only once the relay has said
//! `registered`, so one that lets everybody connect and nobody in is not dialled every second. The wait is a random one
//! between half of that and all of it: daemons that lost their relay together do not come back together.
//!
//! Nothing that a relay says is trusted, shown, or written into a log (security G3): it may name a ticket, and that is
//! checked before it goes into a request. What is not understood ends the leg; only a message of a type that this daemon
//! does not know is passed over, so that a newer relay may say more.

mod control;
mod trouble;
mod tunnels;
pub(crate) mod view;
mod wish;

use alloc::collections::BTreeSet;
use alloc::string::String;
use core::mem;
use core::time::Duration;

use data_encoding::BASE64URL_NOPAD;

use crate::access::ctx::Ctx;
use crate::access::peers::close;
use crate::contract::effect::{Dial, Effect, Purpose};
use crate::contract::error::DialFault;
use crate::contract::fingerprint::Fingerprint;
use crate::contract::id::{AskId, ConnId, LegId};
use crate::contract::input::Source;
use crate::contract::limits::Limits;
use crate::contract::note::Note;
use crate::contract::snapshot::Snapshot;
use crate::contract::time::{Instant, Unix};
use crate::engine::entropy::Entropy;
use crate::engine::quota::Quota;
use crate::engine::{Engine, Timer};
use crate::relay::control::Refusal;
use crate::wire::event::Event;
use trouble::Trouble;
use wish::Wish;

/// See the module.
#[derive(Debug)]
pub(crate) struct Link {
    daemon: Fingerprint,
    /// The identity's public key, as a registration shows it.
    public_key: String,
    state: State,
    /// Attempts that came to nothing since the last registration.
    failures: u32,
    /// The last thing that went wrong since then.
    trouble: Option<Trouble>,
    /// Tunnels that are being made.
    tunnels: BTreeSet<LegId>,
    /// What the owner wants from now on, on its way to the disk.
    wish: Option<Wish>,
    /// Lines in the log about the link.
    noted: Quota,
    /// Lines in the log about invitations that came to nothing.
    losses_noted: Quota,
    /// Tunnels begun, whatever the relay may announce.
    accepts: Quota,
    /// The daemon ends: nothing is dialled any more.
    is_over: bool,
}

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Off,
    Dialing {
        leg: LegId,
    },
    Greeted {
        leg: LegId,
    },
    Signing {
        leg: LegId,
        ask: AskId,
    },
    Registering {
        leg: LegId,
    },
    Registered {
        leg: LegId,
        since: Unix,
        every: Duration,
        /// When the `ping` went out that has no answer yet.
        pinged: Option<Instant>,
        /// How long the last answer took.
        rtt: Option<Duration>,
    },
    Waiting {
        until: Instant,
    },
}

impl State {
    /// The leg, once it is there.
    const fn leg(self) -> Option<LegId> {
        match self {
            Self::Greeted { leg }
            | Self::Signing { leg, .. }
            | Self::Registering { leg }
            | Self::Registered { leg, .. } => Some(leg),
            Self::Off | Self::Dialing { .. } | Self::Waiting { .. } => None,
        }
    }
}

impl Link {
    pub(crate) fn new(snapshot: &Snapshot) -> Self {
        Self {
            daemon: Fingerprint::of(&snapshot.identity),
            public_key: BASE64URL_NOPAD.encode(&snapshot.identity),
            state: State::Off,
            failures: 0,
            trouble: None,
            tunnels: BTreeSet::new(),
            wish: None,
            noted: Quota::default(),
            losses_noted: Quota::default(),
            accepts: Quota::default(),
            is_over: false,
        }
    }

    /// Nobody waits for anything of it.
    pub(crate) const fn is_idle(&self) -> bool {
        self.wish.is_none()
    }

    // --- beginning and end --------------------------------------------------------------------------------------

    /// Dials, if the owner wants a relay.
    pub(crate) fn start(&mut self, cx: &mut Ctx<'_>) {
        let Some(wanted) = cx.engine.relay.as_ref().filter(|it| it.enabled && !self.is_over) else {
            return;
        };
        let (relay, pin) = (wanted.url.clone(), wanted.pin);
        let target = relay.host_target(&self.daemon);
        let timeout = cx.engine.config.limits.relay_dial_timeout;
        let leg = cx.engine.leg_id();
        let dial = Dial { relay, target, pin, purpose: Purpose::Control, timeout };
        cx.fx.push(Effect::Dial { leg, dial });
        self.state = State::Dialing { leg };
    }

    /// Hangs up, and gives up what is being made.
    fn stop(&mut self, cx: &mut Ctx<'_>) {
        cx.engine.timers.disarm(Timer::Link);
        let before = mem::replace(&mut self.state, State::Off);
        let leg = if let State::Dialing { leg } = before { Some(leg) } else { before.leg() };
        for leg in leg.into_iter().chain(mem::take(&mut self.tunnels)) {
            cx.fx.push(Effect::HangUp { leg });
        }
        self.failures = 0;
        self.trouble = None;
        if matches!(before, State::Registered { .. }) {
            tell_disconnected(cx, "off", None);
        }
    }

    /// The daemon ends. Connections through the relay end with all others.
    pub(crate) fn on_shutdown(&mut self, cx: &mut Ctx<'_>) {
        self.stop(cx);
        self.is_over = true;
    }

    /// A connection was accepted. One through a relay that the owner has switched off meanwhile is none.
    pub(crate) fn on_opened(cx: &mut Ctx<'_>, conn: ConnId, source: Source) {
        let is_off = cx.engine.relay.as_ref().is_some_and(|it| !it.enabled);
        if is_off && matches!(source, Source::Relay(_)) {
            cx.peers.close(conn, close::GOING_AWAY, "the relay is off", cx.fx);
        }
    }

    // --- the leg ------------------------------------------------------------------------------------------------

    pub(crate) fn on_dialed(
        &mut self,
        cx: &mut Ctx<'_>,
        leg: LegId,
        result: Result<(), DialFault>,
    ) {
        if self.tunnels.remove(&leg) {
            return self.on_tunnel_dialed(cx, result);
        }
        if self.state != (State::Dialing { leg }) {
            return;
        }
        match result {
            Ok(()) => {
                self.state = State::Greeted { leg };
                let at = cx.engine.now.mono + cx.engine.config.limits.relay_register_timeout;
                cx.engine.timers.arm(Timer::Link, at);
            }
            Err(fault) => self.fail(cx, Trouble::Dial(fault)),
        }
    }

    pub(crate) fn on_hung_up(&mut self, cx: &mut Ctx<'_>, leg: LegId) {
        if self.state.leg() == Some(leg) {
            self.fail(cx, Trouble::Lost);
        }
    }

    /// Something is due: the next attempt, the next `ping`, or what the relay owes.
    pub(crate) fn on_due(&mut self, cx: &mut Ctx<'_>) {
        match self.state {
            State::Off | State::Dialing { .. } => {}
            State::Waiting { .. } => self.start(cx),
            State::Greeted { .. } | State::Signing { .. } | State::Registering { .. } => {
                self.fail(cx, Trouble::Late);
            }
            State::Registered { pinged: Some(_), .. } => self.fail(cx, Trouble::Silent),
            State::Registered { pinged: None, .. } => self.ping(cx),
        }
    }

    /// It went wrong: there is no leg any more, and there will be another one later.
    fn fail(&mut self, cx: &mut Ctx<'_>, trouble: Trouble) {
        let Engine { now, config, entropy, .. } = &mut *cx.engine;
        let wait = if trouble == Trouble::Refused(Some(Refusal::Replaced)) {
            config.limits.relay_replaced_wait
        } else {
            backoff(&config.limits, self.failures, entropy)
        };
        let until = now.mono + wait;
        self.failures = self.failures.saturating_add(1);
        let before = mem::replace(&mut self.state, State::Waiting { until });
        cx.engine.timers.arm(Timer::Link, until);
        let is_gone = matches!(trouble, Trouble::Dial(_) | Trouble::Lost);
        if let Some(leg) = before.leg().filter(|_| !is_gone) {
            cx.fx.push(Effect::HangUp { leg });
        }
        if matches!(before, State::Registered { .. }) {
            tell_disconnected(cx, trouble.kind(), Some(wait));
        }
        if let Some(unnoted) = may_note(cx, &mut self.noted) {
            let (why, detail) = (trouble.message(), trouble.detail());
            cx.note(Note::RelayLost { why, detail, retry: wait, unnoted });
        }
        self.trouble = Some(trouble);
    }
}

/// How long to wait after so many failures.
fn backoff(limits: &Limits, failures: u32, entropy: &mut Entropy) -> Duration {
    // From 2^16 s on it is the longest wait whatever the first one was.
    let doubled = limits.relay_backoff_min.saturating_mul(1 << failures.min(16));
    let half = doubled.min(limits.relay_backoff_max) / 2;
    let spread = u32::try_from(half.as_millis()).unwrap_or(u32::MAX);
    half + Duration::from_millis(u64::from(entropy.below(spread.saturating_add(1))))
}

/// How many lines about it were left out, if there may be one now.
fn may_note(cx: &Ctx<'_>, quota: &mut Quota) -> Option<u32> {
    let limits = &cx.engine.config.limits;
    quota.take(cx.engine.now.mono, limits.notes_max, limits.notes_span)
}

fn tell_disconnected(cx: &mut Ctx<'_>, kind: &str, retry_in: Option<Duration>) {
    let Some(url) = cx.engine.relay.as_ref().map(|it| it.url.clone()) else { return };
    let retry_in_secs = retry_in.map(view::whole_secs);
    cx.tell_in_passing(&Event::RelayDisconnected { url: &url, kind, retry_in_secs });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_are_never_all_the_same() {
        let limits = Limits::default();
        let mut entropy = Entropy::new([3; 32]);
        for (failures, secs) in [(0, 1), (1, 2), (2, 4), (5, 32), (6, 60), (7, 60), (u32::MAX, 60)]
        {
            let longest = Duration::from_secs(secs);
            let waits: BTreeSet<_> =
                (0..50).map(|_| backoff(&limits, failures, &mut entropy)).collect();
            assert!(waits.iter().all(|wait| (longest / 2..=longest).contains(wait)), "{waits:?}");
            assert!(waits.len() > 20, "{waits:?}");
        }
    }
}
