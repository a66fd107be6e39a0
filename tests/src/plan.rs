//! Steps decoded from bytes: the seeds of `cargo test`, proptest and the fuzzer all drive the world through here.
//!
//! Owns the choice of steps, the cast of a run and what it has learnt; refuses to judge, which is the invariants' part.
//! The same bytes are the same run, and every byte string is a run.
//!
//! ```text
//! dice    the bytes, as choices                  calls         what is asked of the daemon, well and badly
//! peers   how peers come, misbehave and go       surroundings  what agents, disk, clock and power do
//! end     everything is released, and nothing may be left
//! relay   what a relay does, and what the owner wants of it
//! control  a relay alone, that says anything
//! follower  one client that comes and goes, and hears everything
//! ```

mod calls;
mod control;
mod dice;
mod end;
mod follower;
mod pairing;
mod peers;
mod relay;
mod surroundings;

use std::time::Duration;

use clawd_protocol::Limits;
use serde_json::Value;

use crate::client::Client;
use crate::world::World;
use dice::Dice;
use follower::Follower;

pub use control::run_relay;
pub use dice::bytes_of_seed;
pub use pairing::run_pairing;

/// Who takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cast {
    /// The owner, devices and strangers.
    Everybody,
    /// Nobody who has any right; nothing may come of it.
    Strangers,
}

/// How a run is set up.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Who takes part.
    pub cast: Cast,
    /// The daemon's limits.
    pub limits: Limits,
    /// A tick comes before every input.
    pub has_extra_ticks: bool,
    /// Children's output is cut into pieces of these sizes.
    pub pieces: Vec<usize>,
}

impl Setup {
    /// Everybody, with these limits.
    #[must_use]
    pub const fn everybody(limits: Limits) -> Self {
        Self { cast: Cast::Everybody, limits, has_extra_ticks: false, pieces: Vec::new() }
    }
}

/// Runs the steps in `bytes`; panics with the trace when an invariant is violated.
#[must_use]
pub fn run(bytes: &[u8], setup: &Setup) -> World {
    let mut world = World::new(setup.limits.clone());
    world.machine.has_codex = true;
    if setup.has_extra_ticks {
        world.tick_before_each_input();
    }
    world.cut_output(&setup.pieces);
    let mut run = Run::new(world, Dice(bytes), setup.cast);
    while !run.dice.0.is_empty() {
        match setup.cast {
            Cast::Everybody => run.step(),
            Cast::Strangers => run.strangers_step(),
        }
        run.start_again();
        run.learn();
    }
    if setup.cast == Cast::Strangers {
        run.nothing_came_of_it();
    }
    run.wind_down();
    run.world
}

/// A run under way: the world, and what its cast has learnt.
#[derive(Debug)]
struct Run<'a> {
    world: World,
    dice: Dice<'a>,
    clients: Vec<Client>,
    follower: Follower,
    sessions: Vec<String>,
    tools: Vec<(String, String)>,
    approvals: Vec<String>,
    devices: Vec<String>,
    tokens: Vec<String>,
    pins: Vec<String>,
    is_held: bool,
    is_failing: bool,
    cast: Cast,
}

impl<'a> Run<'a> {
    fn new(world: World, dice: Dice<'a>, cast: Cast) -> Self {
        Self {
            world,
            dice,
            clients: Vec::new(),
            follower: Follower::default(),
            sessions: Vec::new(),
            tools: Vec::new(),
            approvals: Vec::new(),
            devices: Vec::new(),
            tokens: Vec::new(),
            pins: Vec::new(),
            is_held: false,
            is_failing: false,
            cast,
        }
    }

    fn step(&mut self) {
        match self.dice.below(24) {
            0 => self.open(),
            1 | 2 => self.come_in(),
            3..=9 => self.call(),
            10 => self.decide(),
            11 => self.talk(),
            12 => self.raw(),
            13 => self.misbehave(),
            14 => self.script(),
            15 => {
                let millis = u64::from(self.dice.byte()) * 8;
                self.world.advance(Duration::from_millis(millis));
            }
            16 => self.world.advance_to_deadline(),
            17 => {
                let skip = self.dice.below(8);
                self.world.settle_one(skip);
            }
            18 | 19 => self.world.settle(),
            20 => self.hold_or_release(),
            21 => self.pair(),
            22 if self.dice.below(3) == 0 => self.crash_while_it_asks(),
            22 => self.follow(),
            _ if self.dice.is_rare() => self.disaster(),
            _ => self.relay(),
        }
    }

    fn strangers_step(&mut self) {
        match self.dice.below(12) {
            0 | 1 => self.open(),
            2 => self.odd_head(),
            3 => self.wrong_token(),
            4..=6 => self.call(),
            7 => self.raw(),
            8 => self.misbehave(),
            9 => {
                let millis = u64::from(self.dice.byte()) * 16;
                self.world.advance(Duration::from_millis(millis));
            }
            10 => {
                let skip = self.dice.below(8);
                self.world.settle_one(skip);
            }
            _ => self.world.advance_to_deadline(),
        }
    }

    fn client(&mut self) -> Option<Client> {
        let open = self.world.open_links();
        self.clients.retain(|client| open.contains(&client.conn));
        self.dice.one_of(&self.clients)
    }

    /// The cast reads what came.
    fn learn(&mut self) {
        let clients = self.clients.clone();
        for client in clients {
            for frame in self.world.frames(client) {
                let value: Value = serde_json::from_str(&frame).unwrap_or_default();
                self.learn_from(&value);
            }
        }
    }

    fn learn_from(&mut self, frame: &Value) {
        let (result, params) = (&frame["result"], &frame["params"]);
        let text = |value: &Value| value.as_str().map(str::to_owned);
        if result["repoPath"].is_string() {
            self.sessions.extend(text(&result["id"]));
        }
        self.pins.extend(text(&result["pin"]));
        self.tokens.extend(text(&result["device_token"]));
        self.devices.extend(text(&result["device_id"]));
        if frame["method"] == "session.toolCallCreated" {
            let call = (text(&params["sessionId"]), text(&params["toolCall"]["id"]));
            if let (Some(session), Some(tool)) = call {
                self.tools.push((session, tool));
            }
        }
        if frame["method"] == "tool.approvalRequested" {
            self.approvals.extend(text(&params["approval_id"]));
        }
    }
}
