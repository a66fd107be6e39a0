//! The link as `daemon.status` tells it.
//!
//! Owns the field names; refuses to know how a state is reached. The access token is not among them.

use alloc::borrow::Cow;
use alloc::string::String;
use core::time::Duration;

use serde::Serialize;

use super::trouble::Trouble;
use super::{Link, State};
use crate::access::ctx::Ctx;
use crate::contract::record::RelaySettings;
use crate::contract::time::Unix;
use crate::relay::{RelayUrl, pin};

/// What the owner wants: the result of `daemon.setRelay`.
#[derive(Debug, Serialize)]
pub(super) struct WantedView {
    enabled: bool,
    url: Option<RelayUrl>,
    pin: Option<String>,
}

impl From<Option<&RelaySettings>> for WantedView {
    fn from(wanted: Option<&RelaySettings>) -> Self {
        Self {
            enabled: wanted.is_some_and(|it| it.enabled),
            url: wanted.map(|it| it.url.clone()),
            pin: wanted.and_then(|it| it.pin.as_ref()).map(pin::format),
        }
    }
}

/// What the owner wants, and how far it is.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LinkView {
    #[serde(flatten)]
    wanted: WantedView,
    state: &'static str,
    error: Option<TroubleView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_in_secs: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Unix>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt_ms: Option<u64>,
    tunnels: usize,
}

#[derive(Debug, Serialize)]
struct TroubleView {
    kind: &'static str,
    message: Cow<'static, str>,
    hint: &'static str,
}

impl From<&Trouble> for TroubleView {
    fn from(trouble: &Trouble) -> Self {
        Self { kind: trouble.kind(), message: trouble.message(), hint: trouble.hint() }
    }
}

impl Link {
    /// `None` before the owner has ever wanted a relay.
    pub(crate) fn view(&self, cx: &Ctx<'_>) -> Option<LinkView> {
        let wanted = cx.engine.relay.as_ref()?;
        let (mut retry_in_secs, mut since, mut rtt_ms) = (None, None, None);
        let state = match self.state {
            State::Off => "off",
            State::Waiting { until } => {
                retry_in_secs = Some(whole_secs(until.since(cx.engine.now.mono)));
                "waiting"
            }
            State::Registered { since: at, rtt, .. } => {
                since = Some(at);
                rtt_ms = rtt.map(|rtt| u64::try_from(rtt.as_millis()).unwrap_or(u64::MAX));
                "registered"
            }
            State::Dialing { .. }
            | State::Greeted { .. }
            | State::Signing { .. }
            | State::Registering { .. } => "connecting",
        };
        Some(LinkView {
            wanted: Some(wanted).into(),
            state,
            error: self.trouble.as_ref().map(TroubleView::from),
            retry_in_secs,
            since,
            rtt_ms,
            tunnels: cx.peers.through_relay(),
        })
    }
}

/// Rounded up: who waits that long has waited long enough.
pub(super) fn whole_secs(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}
