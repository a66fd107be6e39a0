//! The relay's end of what the daemon dials: scripted, nothing of it happens by itself.
//!
//! Owns the legs, what was said on each, and what the runtime owes for them; refuses to know what a relay should say. A
//! test decides what comes of each dial and what is heard; a tunnel that is there is opened as a connection at once.

use std::collections::BTreeMap;

use clawd_protocol::{ConnId, Dial, DialFault, Fingerprint, Input, LegId, Purpose, Source};
use serde_json::{Value, json};

use super::due::{Due, Origin};
use super::{IDENTITY, World};

/// How far a leg is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LegStage {
    /// Dialled, and not there yet.
    Dialing,
    /// There: texts go both ways.
    Up,
    /// It was given up, hung up, or became a connection.
    Gone,
}

/// A leg, from the relay's end.
#[derive(Debug)]
pub struct Leg {
    /// What was dialled.
    pub dial: Dial,
    /// How far it is.
    pub stage: LegStage,
    /// What the daemon has said.
    pub said: Vec<String>,
}

impl Leg {
    /// It is a control connection.
    #[must_use]
    pub const fn is_control(&self) -> bool {
        matches!(self.dial.purpose, Purpose::Control)
    }
}

/// The nonce of every challenge here.
pub const NONCE: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// The signature that the identity of every world gives: it can be told from all others.
#[must_use]
pub fn signature(message: &[u8]) -> Vec<u8> {
    let mut signed = b"signed:".to_vec();
    signed.extend(Fingerprint::of(message).to_bytes());
    signed
}

impl World {
    pub(super) fn dial(&mut self, leg: LegId, dial: Dial) {
        let stage = LegStage::Dialing;
        self.legs.insert(leg, Leg { dial, stage, said: Vec::new() });
    }

    pub(super) fn say(&mut self, leg: LegId, text: String) {
        self.leg_mut(leg).said.push(text);
    }

    /// One that is being made is `Dialed` still, and one that is there is gone.
    pub(super) fn hang_up_leg(&mut self, leg: LegId) {
        match std::mem::replace(&mut self.leg_mut(leg).stage, LegStage::Gone) {
            LegStage::Dialing => {
                self.owe(Origin::Leg(leg), Due::Dialed(leg, Err(DialFault::TimedOut)));
            }
            LegStage::Up => self.owe(Origin::Leg(leg), Due::HungUp(leg)),
            LegStage::Gone => {}
        }
    }

    fn leg_mut(&mut self, leg: LegId) -> &mut Leg {
        self.legs.get_mut(&leg).expect("a leg of this life")
    }

    /// The legs of this life of the daemon, by its names for them.
    #[must_use]
    pub const fn legs(&self) -> &BTreeMap<LegId, Leg> {
        &self.legs
    }

    /// The control connection that stands or is being made.
    #[must_use]
    pub fn control(&self) -> Option<LegId> {
        let is_it = |leg: &Leg| leg.is_control() && leg.stage != LegStage::Gone;
        self.legs.iter().rev().find(|(_, leg)| is_it(leg)).map(|(id, _)| *id)
    }

    /// Tunnels that are being made, the oldest first.
    #[must_use]
    pub fn tunnels(&self) -> Vec<LegId> {
        let is_it = |leg: &Leg| !leg.is_control() && leg.stage == LegStage::Dialing;
        self.legs.iter().filter(|(_, leg)| is_it(leg)).map(|(id, _)| *id).collect()
    }

    /// Nothing comes of a dial.
    pub fn dial_fails(&mut self, leg: LegId, fault: DialFault) {
        if self.legs.get(&leg).is_some_and(|leg| leg.stage == LegStage::Dialing) {
            self.leg_mut(leg).stage = LegStage::Gone;
            self.input(Input::Dialed { leg, result: Err(fault) });
        }
    }

    /// A control connection is there.
    pub fn dial_succeeds(&mut self, leg: LegId) {
        if self.legs.get(&leg).is_some_and(|leg| leg.stage == LegStage::Dialing) {
            self.leg_mut(leg).stage = LegStage::Up;
            self.input(Input::Dialed { leg, result: Ok(()) });
        }
    }

    /// A tunnel is there: a connection from now on.
    pub fn tunnel_opens(&mut self, leg: LegId) -> Option<ConnId> {
        let tunnel = self.legs.get(&leg).filter(|leg| leg.stage == LegStage::Dialing)?;
        let Purpose::Tunnel { from } = tunnel.dial.purpose else { return None };
        self.leg_mut(leg).stage = LegStage::Gone;
        self.input(Input::Dialed { leg, result: Ok(()) });
        Some(self.open(Source::Relay(from)))
    }

    /// The relay says something.
    pub fn relay_says(&mut self, leg: LegId, text: &str) {
        if self.legs.get(&leg).is_some_and(|leg| leg.stage == LegStage::Up) {
            self.input(Input::Heard { leg, text });
        }
    }

    /// The relay hangs up.
    pub fn relay_hangs_up(&mut self, leg: LegId) {
        if self.legs.get(&leg).is_some_and(|leg| leg.stage == LegStage::Up) {
            self.leg_mut(leg).stage = LegStage::Gone;
            self.input(Input::HungUp { leg });
        }
    }

    /// The relay takes the registration, and knows that it is the daemon's.
    ///
    /// # Panics
    ///
    /// If the daemon is not dialling, or does not register as it should.
    pub fn relay_registers(&mut self) -> LegId {
        let leg = self.control().expect("a control connection that is being made");
        self.dial_succeeds(leg);
        self.relay_says(leg, &json!({"type": "challenge", "nonce": NONCE}).to_string());
        self.settle();
        let registered = json!({"type": "registered", "pingSecs": 30}).to_string();
        self.relay_says(leg, &registered);
        self.relay_says(leg, r#"{"type":"pong"}"#);
        self.settle();
        self.registrations += usize::from(self.legs[&leg].stage == LegStage::Up);
        leg
    }

    /// How often a relay took the registration, in all lives.
    #[must_use]
    pub const fn registrations(&self) -> usize {
        self.registrations
    }

    /// What the daemon has said on a leg.
    #[must_use]
    pub fn said(&self, leg: LegId) -> Vec<Value> {
        let said = self.legs.get(&leg).map(|leg| leg.said.as_slice()).unwrap_or_default();
        said.iter().map(|text| serde_json::from_str(text).unwrap_or_default()).collect()
    }

    /// The relay announces somebody.
    pub fn relay_invites(&mut self, leg: LegId, ticket: &str, from: &str) {
        let invite = json!({"type": "invite", "ticket": ticket, "from": from});
        self.relay_says(leg, &invite.to_string());
    }

    /// The daemon's id.
    #[must_use]
    pub fn daemon_id(&self) -> Fingerprint {
        Fingerprint::of(IDENTITY)
    }
}
