//! The simulated world: one daemon, and around it everything that it can touch.
//!
//! Owns the clocks, the connections, the store, the children and what is under way between them and the daemon; refuses
//! to know what a message means. It keeps the runtime's side of the contract to the letter: one owner, effects drained
//! fully after each input and executed in order, each operation answered once, ids never used twice. Whatever the daemon
//! does is shown to [`Invariants`]; a violation ends the run with its trace.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use clawd_protocol::access::token::mint_local;
use clawd_protocol::{
    Answer, AskId, Change, Command, Config, ConnId, Daemon, Effect, Effects, Head, HeadFault,
    Input, Instant, Limits, MessageFault, Now, OpId, ProcId, Question, Source, StoreFault, Stream,
    Sync, To, Unix,
};

use crate::child::{Child, Deed, Script};
use crate::invariants::Invariants;
use crate::link::{Link, Stage};
use crate::machine::Machine;
use crate::store::Store;
use crate::trace::Trace;

/// The wall clock at the start of every run: 2026-11-22T10:40:00Z.
const EPOCH_MS: u64 = 1_795_344_000_000;
/// More turns than this at one moment, and the daemon is running in circles.
const TURNS_MAX: usize = 200_000;
/// The port that the daemon listens on.
pub const PORT: u16 = 4300;

/// The address of a peer on this machine.
pub const LOOPBACK: Source = Source::Tcp(IpAddr::V4(Ipv4Addr::LOCALHOST));

/// From whom the daemon is owed something. Each is heard in order; they are heard in any order among each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    Store,
    Ask(AskId),
    Link(ConnId),
    Child(ProcId),
}

/// Something that the daemon will be told.
#[derive(Debug)]
enum Due {
    Flushed(ConnId, usize),
    Closed(ConnId),
    Done(OpId, Vec<Change>, Sync),
    Look(AskId, Question),
    Spawned(ProcId),
    Fed(ProcId, usize),
    Output(ProcId, Stream, Vec<u8>),
    Exited(ProcId, Option<i32>),
}

/// What becomes of operations under way when the daemon dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// They are lost.
    Lost,
    /// They were done, and nobody was told.
    Done,
    /// They are lost, and with them everything that was not promised to survive a loss of power.
    Power,
}

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
        let daemon = Daemon::new(config.clone(), [7; 32], store.snapshot(DAEMON_ID));
        let mut world = Self {
            daemon,
            effects: Effects::new(),
            mono: Instant::from_micros(1_000_000),
            skew_ms: 0,
            links: BTreeMap::new(),
            children: BTreeMap::new(),
            former_children: Vec::new(),
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
            invariants: Invariants::new(config.limits.clone()),
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

    /// Both clocks.
    #[must_use]
    pub fn now(&self) -> Now {
        let true_ms = EPOCH_MS + self.mono.as_micros() / 1_000;
        Now {
            mono: self.mono,
            unix: Unix::from_millis(true_ms.saturating_add_signed(self.skew_ms)),
        }
    }

    /// Sets the wall clock forward or back; the other clock does not notice.
    pub const fn skew(&mut self, by_ms: i64) {
        self.skew_ms = self.skew_ms.saturating_add(by_ms);
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
}

/// The daemon's id in every world.
pub const DAEMON_ID: &str = "d4emon";

/// What peers do.
impl World {
    /// Somebody connects.
    pub fn open(&mut self, source: Source) -> ConnId {
        let conn = ConnId(self.fresh_name());
        self.links.insert(conn, Link::new(source));
        self.input(Input::Opened { conn, source });
        conn
    }

    /// A whole request head comes.
    pub fn head(&mut self, conn: ConnId, target: &str, headers: &[(&str, &[u8])]) {
        let head = Head { method: "GET", target, minor: 1, headers };
        self.request(conn, Ok(head));
    }

    /// A request head comes, or what cannot be one.
    pub fn request(&mut self, conn: ConnId, head: Result<Head<'_>, HeadFault>) {
        if self.link(conn).stage == Stage::Fresh {
            self.input(Input::Requested { conn, head });
        }
    }

    /// A message comes; the runtime's part, to refuse what is too long, included.
    pub fn text(&mut self, conn: ConnId, text: &str) {
        let link = self.link_mut(conn);
        link.unread.push_back(text.to_owned());
        self.read(conn);
    }

    /// The first bytes of a message come, and then no more for now.
    pub fn begin(&mut self, conn: ConnId) {
        if self.link(conn).reads() {
            self.input(Input::Began { conn });
        }
    }

    /// Something comes that is no text message.
    pub fn break_rules(&mut self, conn: ConnId, fault: MessageFault) {
        if self.link(conn).reads() {
            self.link_mut(conn).is_broken = true;
            self.input(Input::Broke { conn, fault });
        }
    }

    /// The peer stops reading.
    pub fn stall(&mut self, conn: ConnId) {
        self.link_mut(conn).set_stalled(true);
    }

    /// The peer reads on.
    pub fn unstall(&mut self, conn: ConnId) {
        self.link_mut(conn).set_stalled(false);
        self.flush(conn);
    }

    /// The peer goes away.
    pub fn hang_up(&mut self, conn: ConnId) {
        if self.link(conn).is_open() {
            self.end_link(conn, None);
        }
    }

    /// Tells the daemon of messages that wait to be read, as long as it wants any.
    fn read(&mut self, conn: ConnId) {
        while self.link(conn).reads() {
            let Some(text) = self.link_mut(conn).unread.pop_front() else { return };
            if text.len() > self.link(conn).message_bytes_max {
                self.break_rules(conn, MessageFault::TooLarge);
            } else {
                self.invariants.on_text(conn, &text);
                self.input(Input::Text { conn, text: &text });
            }
        }
    }

    fn flush(&mut self, conn: ConnId) {
        let bytes = self.link_mut(conn).flush();
        if bytes > 0 {
            self.owe(Origin::Link(conn), Due::Flushed(conn, bytes));
        }
    }

    fn end_link(&mut self, conn: ConnId, close: Option<(u16, &'static str)>) {
        self.link_mut(conn).end(close);
        self.owe(Origin::Link(conn), Due::Closed(conn));
    }
}

/// What the disk, the clock and the power do.
impl World {
    /// Operations and questions about stored things wait until they are released.
    pub const fn hold_store(&mut self) {
        self.is_store_held = true;
    }

    /// They are done now, in order.
    pub fn release_store(&mut self) {
        self.is_store_held = false;
        self.settle();
    }

    /// Questions about directories and programs wait until they are released.
    pub const fn hold_questions(&mut self) {
        self.are_questions_held = true;
    }

    /// They are answered now.
    pub fn release_questions(&mut self) {
        self.are_questions_held = false;
        self.settle();
    }

    /// The disk ends operations like this from now on; `None` heals it.
    pub fn fail_store(&mut self, fault: Option<StoreFault>) {
        self.store.set_fault(fault);
    }

    /// Lets everything happen that takes no time.
    pub fn settle(&mut self) {
        for _ in 0..TURNS_MAX {
            if !self.settle_one(0) {
                return;
            }
        }
        self.fail("the daemon keeps itself busy for ever at one moment");
    }

    /// Tells the daemon one thing that it is owed: the oldest, or when `skip` is not 0 another one of those that may
    /// come first. Returns whether there was one.
    pub fn settle_one(&mut self, skip: usize) -> bool {
        self.listen_to_children();
        let mut fronts: Vec<(u64, Origin)> = self
            .due
            .iter()
            .filter(|(origin, _)| !self.is_held(**origin))
            .filter_map(|(origin, queue)| Some((queue.front()?.0, *origin)))
            .collect();
        fronts.sort_unstable();
        let Some((_, origin)) = fronts.get(skip % fronts.len().max(1)) else { return false };
        let Some(due) = self.due.get_mut(origin).and_then(VecDeque::pop_front) else {
            return false;
        };
        self.due.retain(|_, queue| !queue.is_empty());
        self.tell(due.1);
        true
    }

    const fn is_held(&self, origin: Origin) -> bool {
        match origin {
            Origin::Store => self.is_store_held,
            Origin::Ask(_) => self.are_questions_held,
            Origin::Link(_) | Origin::Child(_) => false,
        }
    }

    /// Lets time pass, jumping from deadline to deadline, and everything happen that falls into it.
    pub fn advance(&mut self, by: Duration) {
        let until = self.mono + by;
        for _ in 0..TURNS_MAX {
            self.settle();
            let wake = self.children.values().filter_map(Child::wake_at).min();
            let next = [self.deadline(), wake].into_iter().flatten().min();
            match next.filter(|at| *at <= until) {
                Some(at) => self.jump(at),
                None => {
                    self.jump(until);
                    return self.settle();
                }
            }
        }
        self.fail("deadlines without end");
    }

    /// Jumps to the daemon's next deadline, if it has one.
    pub fn advance_to_deadline(&mut self) {
        self.settle();
        if let Some(at) = self.deadline() {
            self.advance(at.since(self.mono));
        }
    }

    /// When the daemon wants to be called next.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        if self.is_stopped { None } else { self.daemon.poll_timeout() }
    }

    fn jump(&mut self, at: Instant) {
        self.mono = self.mono.max(at);
        self.input(Input::Tick);
        let now = self.mono;
        self.children.values_mut().for_each(|child| child.wake(now));
    }

    /// Somebody with power over the process asks it to end.
    pub fn shut_down(&mut self) {
        self.input(Input::Shutdown);
    }

    /// The daemon dies at once and is started again on what the disk has.
    pub fn crash(&mut self, how: Crash) {
        self.trace.note(&format!("crash: {how:?}"));
        if how == Crash::Done {
            let queue = self.due.remove(&Origin::Store).unwrap_or_default();
            for (_, due) in queue {
                if let Due::Done(_, changes, sync) = due {
                    let _ = self.store.apply(&changes, sync);
                }
            }
        } else if how == Crash::Power {
            self.store.lose_power();
        }
        self.restart();
    }

    /// Ends what is left of the daemon's life and begins the next one.
    pub fn restart(&mut self) {
        self.due.clear();
        for link in self.links.values_mut().filter(|link| link.is_open()) {
            link.end(None);
        }
        for child in self.children.values_mut().filter(|child| !child.is_gone) {
            child.kill();
            child.deeds();
        }
        self.former_children.extend(std::mem::take(&mut self.children).into_values());
        self.lives += 1;
        self.is_stopped = false;
        self.is_store_held = false;
        self.are_questions_held = false;
        let entropy = [7 + self.lives; 32];
        self.invariants.on_restart();
        self.daemon = Daemon::new(self.config.clone(), entropy, self.store.snapshot(DAEMON_ID));
        self.input(Input::Started { port: PORT });
    }
}

/// The runtime's part.
impl World {
    /// Tells the daemon something and does what it says.
    pub fn input(&mut self, input: Input<'_>) {
        if self.has_extra_ticks && input != Input::Tick {
            self.turn(Input::Tick);
        }
        self.turn(input);
    }

    fn turn(&mut self, input: Input<'_>) {
        if self.is_stopped {
            return;
        }
        self.trace.input(self.now(), &input);
        let verdict = self.invariants.on_input(&input, &self.store);
        self.judge(verdict);
        self.daemon.handle(self.now(), input, &mut self.effects);
        for effect in self.effects.drain().collect::<Vec<_>>() {
            self.execute(effect);
        }
        let (now, deadline) = (self.now(), self.deadline());
        let verdict =
            self.invariants.on_turn(now, deadline, &self.links, &self.children, &self.store);
        self.judge(verdict);
    }

    fn judge(&self, verdict: Result<(), String>) {
        if let Err(violation) = verdict {
            self.fail(&violation);
        }
    }

    pub(crate) fn fail(&self, violation: &str) -> ! {
        panic!("{}\nviolated: {violation}", self.trace)
    }

    /// Does what the daemon said. Tests that show that the alarm works say it in the daemon's place.
    pub fn execute(&mut self, effect: Effect) {
        self.trace.effect(&effect);
        let verdict = self.invariants.on_effect(&effect, &self.store, &self.children);
        self.judge(verdict);
        match effect {
            Effect::Respond { conn, response } => {
                if self.is_link_open(conn) {
                    self.link_mut(conn).stage = Stage::Answered(response);
                    self.owe(Origin::Link(conn), Due::Closed(conn));
                }
            }
            Effect::Upgrade { conn, message_bytes_max, .. } => {
                if self.is_link_open(conn) {
                    self.link_mut(conn).stage = Stage::Upgraded;
                    self.link_mut(conn).message_bytes_max = message_bytes_max;
                }
            }
            Effect::Admit { conn, message_bytes_max } => {
                self.link_mut(conn).message_bytes_max = message_bytes_max;
            }
            Effect::Send { to, text } => self.send(to, &text),
            Effect::Close { conn, code, reason } => {
                if self.is_link_open(conn) {
                    self.end_link(conn, Some((code, reason)));
                }
            }
            Effect::Pause { conn } => self.link_mut(conn).is_paused = true,
            Effect::Resume { conn } => {
                self.link_mut(conn).is_paused = false;
                self.owe(Origin::Link(conn), Due::Flushed(conn, 0));
            }
            Effect::Store { op, changes, sync } => {
                self.owe(Origin::Store, Due::Done(op, changes, sync));
            }
            Effect::Ask { ask, question } => {
                let is_stored = self.store.answer(&question).is_some();
                let origin = if is_stored { Origin::Store } else { Origin::Ask(ask) };
                self.owe(origin, Due::Look(ask, question));
            }
            Effect::Spawn { proc, command } => self.spawn(proc, command),
            Effect::Feed { proc, bytes } => self.feed(proc, &bytes),
            Effect::Finish { proc } => {
                let now = self.mono;
                self.with_child(proc, |child| child.finish(now));
            }
            Effect::Kill { proc } => self.with_child(proc, Child::kill),
            Effect::Stop => self.stop(),
        }
    }

    fn is_link_open(&self, conn: ConnId) -> bool {
        self.links.get(&conn).is_some_and(Link::is_open)
    }

    fn send(&mut self, to: To, text: &str) {
        let conns = match to {
            To::One(conn) => vec![conn],
            To::Many(conns) => conns,
        };
        for conn in conns {
            if self.is_link_open(conn) {
                self.link_mut(conn).push(text.to_owned());
                self.flush(conn);
            }
        }
    }

    fn spawn(&mut self, proc: ProcId, command: Command) {
        let script: Script = self.machine.scripts.pop_front().unwrap_or_default();
        let mut child = Child::new(command, script, self.fresh_name());
        self.owe(Origin::Child(proc), Due::Spawned(proc));
        self.machine.greet(&mut child);
        self.children.insert(proc, child);
    }

    fn feed(&mut self, proc: ProcId, bytes: &[u8]) {
        let now = self.mono;
        self.with_child(proc, |child| child.feed(now, bytes));
        self.owe(Origin::Child(proc), Due::Fed(proc, bytes.len()));
    }

    fn with_child(&mut self, proc: ProcId, act: impl FnOnce(&mut Child)) {
        if let Some(child) = self.children.get_mut(&proc).filter(|child| !child.is_gone) {
            act(child);
        }
        self.listen_to_children();
    }

    /// Takes what children did since the last time.
    fn listen_to_children(&mut self) {
        let mut heard = Vec::new();
        for (proc, child) in &mut self.children {
            heard.extend(child.deeds().into_iter().map(|deed| (*proc, deed)));
        }
        for (proc, deed) in heard {
            match deed {
                Deed::Wrote(stream, bytes) => self.cut(proc, stream, &bytes),
                Deed::Exited(code) => self.owe(Origin::Child(proc), Due::Exited(proc, code)),
            }
        }
    }

    fn cut(&mut self, proc: ProcId, stream: Stream, mut bytes: &[u8]) {
        let sizes = self.pieces.clone();
        for size in sizes.into_iter().cycle() {
            if bytes.len() <= size {
                break;
            }
            let (piece, rest) = bytes.split_at(size);
            self.owe(Origin::Child(proc), Due::Output(proc, stream, piece.to_vec()));
            bytes = rest;
        }
        self.owe(Origin::Child(proc), Due::Output(proc, stream, bytes.to_vec()));
    }

    fn stop(&mut self) {
        self.is_stopped = true;
        self.due.clear();
        for link in self.links.values_mut().filter(|link| link.is_open()) {
            link.end(None);
        }
        self.children.values_mut().filter(|child| !child.is_gone).for_each(Child::kill);
    }

    fn owe(&mut self, origin: Origin, due: Due) {
        self.dues_ever += 1;
        self.due.entry(origin).or_default().push_back((self.dues_ever, due));
    }

    fn tell(&mut self, due: Due) {
        match due {
            Due::Flushed(conn, 0) => self.read(conn),
            Due::Flushed(conn, bytes) => self.input(Input::Flushed { conn, bytes }),
            Due::Closed(conn) => self.input(Input::Closed { conn }),
            Due::Done(op, changes, sync) => {
                let result = self.store.apply(&changes, sync);
                if result.is_ok() {
                    let verdict = self.invariants.on_stored(&changes, &self.store);
                    self.judge(verdict);
                }
                self.input(Input::Stored { op, result });
            }
            Due::Look(ask, question) => {
                let answer = self.look(&question);
                self.input(Input::Answered { ask, answer });
            }
            Due::Spawned(proc) => {
                let pid = u32::try_from(proc.0).unwrap_or(0) + 10_000;
                self.input(Input::Spawned { proc, result: Ok(pid) });
            }
            Due::Fed(proc, bytes) => self.input(Input::Fed { proc, bytes }),
            Due::Output(proc, stream, bytes) => {
                self.input(Input::Output { proc, stream, bytes: &bytes });
            }
            Due::Exited(proc, code) => self.input(Input::Exited { proc, code }),
        }
    }

    fn look(&self, question: &Question) -> Answer {
        match question {
            Question::Directory { path } => Answer::Directory(self.machine.directory(path)),
            Question::Probe { runs, .. } => Answer::Probe(self.machine.probe(runs)),
            Question::Messages { .. }
            | Question::MessageByClientId { .. }
            | Question::ToolCalls { .. }
            | Question::ToolCall { .. } => {
                self.store.answer(question).unwrap_or(Answer::Failed(StoreFault::Full))
            }
        }
    }

    /// Ids of connections that still stand.
    #[must_use]
    pub fn open_links(&self) -> BTreeSet<ConnId> {
        self.links.iter().filter(|(_, link)| link.is_open()).map(|(conn, _)| *conn).collect()
    }
}
