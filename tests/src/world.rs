//! The simulated world: one daemon, and around it everything that it can touch.
//!
//! Owns the daemon, its surroundings and what can be seen of them; refuses to know what a message means. Whatever the
//! daemon does is shown to [`Invariants`]; a violation ends the run with its trace.
//!
//! ```text
//! contract   the runtime's side of the contract     due      what is under way, and in which order it comes
//! peers      what peers do                          agents   what the daemon does with agents
//! time       both clocks, and deadlines             lives    the end of a daemon, and its next start
//! legs       the relay's end of what is dialled
//! ```

mod agents;
mod contract;
mod due;
mod legs;
mod lives;
mod peers;
mod time;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};

use clawd_protocol::access::token::mint_local;
use clawd_protocol::policy::Policy;
use clawd_protocol::{
    Config, ConnId, Daemon, Effects, Input, Instant, LegId, Limits, ProcId, Source,
};

use crate::child::Child;
use crate::invariants::Invariants;
use crate::link::Link;
use crate::machine::Machine;
use crate::store::Store;
use crate::trace::Trace;
use due::{Due, Origin};

pub use legs::{Leg, LegStage, NONCE, signature};
pub use lives::Crash;

/// The port that the daemon listens on.
pub const PORT: u16 = 4300;

/// The address of a peer on this machine.
pub const LOOPBACK: Source = Source::Tcp(IpAddr::V4(Ipv4Addr::LOCALHOST));

/// The daemon's public key in every world.
pub const IDENTITY: &[u8] = b"d4emon";

/// One daemon and its surroundings.
#[derive(Debug)]
pub struct World {
    daemon: Daemon,
    config: Config,
    effects: Effects,
    mono: Instant,
    skew_ms: i64,
    links: BTreeMap<ConnId, Link>,
    /// The agents of this life of the daemon: the next one uses the same names.
    children: BTreeMap<ProcId, Child>,
    former_children: Vec<Child>,
    /// What this life of the daemon has dialled.
    legs: BTreeMap<LegId, Leg>,
    registrations: usize,
    /// The disk.
    pub store: Store,
    /// Directories, programs and scripts.
    pub machine: Machine,
    due: BTreeMap<Origin, VecDeque<(u64, Due)>>,
    dues_ever: u64,
    is_store_held: bool,
    are_questions_held: bool,
    names: u64,
    lives: u8,
    is_stopped: bool,
    /// Before each input comes a [`Input::Tick`].
    has_extra_ticks: bool,
    /// Sizes, over and over, of the pieces in which children's output comes; none: as it was written.
    pieces: Vec<usize>,
    invariants: Invariants,
    trace: Trace,
}

impl Default for World {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl World {
    /// A daemon at its first start, with these limits.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let config = Config {
            version: "0.1.0".to_owned(),
            pid: 4242,
            host_name: "workbench".to_owned(),
            protected_paths: vec!["/home/dev/.ssh".to_owned()],
            limits,
            ..Config::default()
        };
        Self::with_config(config)
    }

    /// A daemon at its first start, set up like this.
    #[must_use]
    pub fn with_config(config: Config) -> Self {
        let store = Store::new(mint_local([1; 32]));
        let daemon = Daemon::new(config.clone(), [7; 32], store.snapshot(IDENTITY));
        let mut world = Self {
            daemon,
            effects: Effects::new(),
            mono: Instant::from_micros(1_000_000),
            skew_ms: 0,
            links: BTreeMap::new(),
            children: BTreeMap::new(),
            former_children: Vec::new(),
            legs: BTreeMap::new(),
            registrations: 0,
            store,
            machine: Machine::default(),
            due: BTreeMap::new(),
            dues_ever: 0,
            is_store_held: false,
            are_questions_held: false,
            names: 0,
            lives: 0,
            is_stopped: false,
            has_extra_ticks: false,
            pieces: Vec::new(),
            invariants: Invariants::new(config.limits.clone(), config.policy.clone()),
            trace: Trace::default(),
            config,
        };
        world.input(Input::Started { port: PORT });
        world
    }

    /// From now on a tick comes before every input.
    pub const fn tick_before_each_input(&mut self) {
        self.has_extra_ticks = true;
    }

    /// From now on children's output comes in pieces of these sizes, over and over.
    pub fn cut_output(&mut self, pieces: &[usize]) {
        self.pieces = pieces.iter().map(|size| (*size).max(1)).collect();
    }

    /// The owner writes other rules: they hold from the next start on.
    pub fn change_policy(&mut self, policy: Policy) {
        self.invariants.change_policy(policy.clone());
        self.config.policy = policy;
    }

    /// The limits in force.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.config.limits
    }

    /// What happened so far.
    #[must_use]
    pub const fn trace(&self) -> &Trace {
        &self.trace
    }

    /// A connection, from the peer's end.
    #[must_use]
    pub fn link(&self, conn: ConnId) -> &Link {
        &self.links[&conn]
    }

    pub(crate) fn link_mut(&mut self, conn: ConnId) -> &mut Link {
        self.links.get_mut(&conn).expect("a connection of this world")
    }

    /// All connections ever made.
    #[must_use]
    pub const fn links(&self) -> &BTreeMap<ConnId, Link> {
        &self.links
    }

    /// Ids of connections that still stand.
    #[must_use]
    pub fn open_links(&self) -> BTreeSet<ConnId> {
        self.links.iter().filter(|(_, link)| link.is_open()).map(|(conn, _)| *conn).collect()
    }

    /// All agent processes ever started, in order.
    pub fn children(&self) -> impl DoubleEndedIterator<Item = &Child> {
        self.former_children.iter().chain(self.children.values())
    }

    /// The agent processes of this life of the daemon, by its names for them.
    #[must_use]
    pub const fn agents(&self) -> &BTreeMap<ProcId, Child> {
        &self.children
    }

    pub(crate) const fn invariants(&self) -> &Invariants {
        &self.invariants
    }

    /// Nothing is under way any more, and no wait is left: every request must have its answer.
    pub fn quiet(&self) {
        self.judge(self.invariants.on_quiet());
    }

    /// The number of the durable event that is sent like this.
    pub(crate) fn number_of(&self, text: &str) -> Option<u64> {
        self.invariants.number_of(text)
    }

    /// Somebody has heard these durable events after `from`: must be all.
    pub(crate) fn compare_heard(&self, from: u64, heard: &[(u64, String)]) {
        self.judge(self.invariants.compare(from, heard));
    }

    /// The daemon said that it is done.
    #[must_use]
    pub const fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// A name that nothing has yet.
    pub(crate) const fn fresh_name(&mut self) -> u64 {
        self.names += 1;
        self.names
    }

    fn judge(&self, verdict: Result<(), String>) {
        if let Err(violation) = verdict {
            self.fail(&violation);
        }
    }

    pub(crate) fn fail(&self, violation: &str) -> ! {
        panic!("{}\nviolated: {violation}", self.trace)
    }
}
