//! Legs: each is dialled once, only where the owner wants it, and hears nothing but what it must.
//!
//! Owns which legs there are; refuses to know what a relay says.

use clawd_protocol::relay::control::FromHost;
use clawd_protocol::{Dial, LegId, Purpose};

use super::limits::within;
use super::secrets::no_token;
use super::{Invariants, Verdict, ensure};
use crate::store::Store;

/// What is known about one leg.
#[derive(Debug)]
pub(super) struct Leg {
    is_control: bool,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Dialing,
    Up,
    Gone,
}

impl Invariants {
    pub(super) fn on_dial(&mut self, leg: LegId, dial: &Dial, store: &Store) -> Verdict {
        let wanted = store.relay.as_ref().filter(|wanted| wanted.enabled);
        let Some(wanted) = wanted else { return Err(format!("{dial:?} and no relay is wanted")) };
        let is_it = wanted.url == dial.relay && wanted.pin == dial.pin;
        ensure(is_it, || format!("{dial:?} where {wanted:?} is wanted"))?;
        let is_here = ["localhost", "127.0.0.1", "::1"].contains(&dial.relay.host());
        ensure(dial.relay.is_secure() || is_here, || format!("{dial:?} in clear"))?;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
        ensure(dial.target.bytes().all(is_plain), || format!("the target {:?}", dial.target))?;
        let is_control = dial.purpose == Purpose::Control;
        let before = self.legs.insert(leg, Leg { is_control, stage: Stage::Dialing });
        ensure(before.is_none(), || format!("{leg:?} used twice"))?;
        let count =
            |is_it: &dyn Fn(&Leg) -> bool| self.legs.values().filter(|leg| is_it(leg)).count();
        let controls = count(&|leg| leg.is_control && leg.stage != Stage::Gone);
        within("control connections", controls, 1)?;
        let tunnels = count(&|leg| !leg.is_control && leg.stage == Stage::Dialing);
        within("tunnels being made", tunnels, self.limits.relay_accepts_max)
    }

    pub(super) fn on_dialed(&mut self, leg: LegId, is_there: bool) {
        if let Some(leg) = self.legs.get_mut(&leg).filter(|leg| leg.stage == Stage::Dialing) {
            let is_up = is_there && leg.is_control;
            leg.stage = if is_up { Stage::Up } else { Stage::Gone };
        }
    }

    pub(super) fn on_hung_up(&mut self, leg: LegId) {
        if let Some(leg) = self.legs.get_mut(&leg) {
            leg.stage = Stage::Gone;
        }
    }

    pub(super) fn on_hang_up(&mut self, leg: LegId) -> Verdict {
        let known = self.legs.get_mut(&leg).filter(|leg| leg.stage != Stage::Gone);
        let Some(known) = known else { return Err(format!("{leg:?} hung up, and is not there")) };
        known.stage = Stage::Gone;
        Ok(())
    }

    /// The one secret that a relay may see is what the owner gave for it, when it registers.
    pub(super) fn on_say(&mut self, leg: LegId, text: &str, store: &Store) -> Verdict {
        let is_up = self.legs.get(&leg).is_some_and(|leg| leg.is_control && leg.stage == Stage::Up);
        ensure(is_up, || format!("{text} said on {leg:?}, which is not there"))?;
        no_token(text, "a relay")?;
        let message = serde_json::from_str(text).map_err(|error| format!("{text}: {error}"))?;
        let wanted = store.relay.as_ref().and_then(|wanted| wanted.access_token.as_ref());
        match message {
            FromHost::Register { access_token, .. } => {
                let is_right = access_token.as_ref() == wanted;
                ensure(is_right, || "another access token than the owner's".to_owned())
            }
            FromHost::Ping => {
                let has_token = wanted.is_some_and(|token| text.contains(token.expose()));
                ensure(!has_token, || format!("the access token in {text}"))
            }
        }
    }
}
