//! One relay alone with the daemon: it says whatever the bytes say, whenever.
//!
//! Owns the relay's mouth; refuses to judge what comes of it, but that the daemon lives on and owes nobody anything.

use clawd_protocol::{DialFault, Limits};
use serde_json::json;

use super::dice::Dice;
use crate::world::{LegStage, NONCE, World};

/// Runs what a relay says; panics with the trace when an invariant is violated.
///
/// # Panics
///
/// If the daemon does not go on as if nothing had been said.
#[must_use]
pub fn run_relay(bytes: &[u8]) -> World {
    let mut world = World::new(Limits::tiny());
    let mut dice = Dice(bytes);
    let owner = world.owner();
    let wish = json!({"url": "wss://relay.example.org", "enabled": true, "accessToken": "sesame"});
    world.call(owner, "daemon.setRelay", wish).expect("set");
    while !dice.0.is_empty() {
        step(&mut world, &mut dice);
        world.settle();
    }
    let status = world.call(owner, "daemon.status", json!({})).expect("it lives on");
    assert_eq!(status["relay"]["enabled"], true, "{status}");
    world.call(owner, "daemon.setRelay", json!({"enabled": false})).expect("set");
    assert!(world.control().is_none() && world.tunnels().is_empty(), "off is off");
    world.quiet();
    world
}

fn step(world: &mut World, dice: &mut Dice<'_>) {
    let Some(leg) = world.control() else { return world.advance_to_deadline() };
    let is_there = world.legs()[&leg].stage == LegStage::Up;
    match dice.below(8) {
        0 if is_there => world.relay_hangs_up(leg),
        0 => world.dial_fails(leg, DialFault::NotWebSocket),
        1 => world.dial_succeeds(leg),
        2 if !is_there => {
            world.relay_registers();
        }
        2 => world.relay_says(leg, &json!({"type": "challenge", "nonce": NONCE}).to_string()),
        3 => world.advance_to_deadline(),
        4 => {
            if let Some(tunnel) = world.tunnels().first() {
                world.tunnel_opens(*tunnel);
            }
        }
        _ => {
            let len = usize::from(dice.byte()) * 4;
            let text = String::from_utf8_lossy(dice.take(len)).into_owned();
            world.relay_says(leg, &text);
        }
    }
}
