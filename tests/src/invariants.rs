//! What must be true after each step, whatever the step was.
//!
//! Owns an independent idea of who is who and what was asked, built only from what crosses the daemon's border; refuses
//! to look inside the daemon. The list is the one of the architecture: strangers, secrets, answers, limits, approvals,
//! revocations, durability, deadlines, and the contract with the runtime.
//!
//! ```text
//! said       every frame: who may hear it, and that each request has one answer
//! secrets    no token but where one is handed out       decisions  nothing is done without a durable decision
//! legs       what is dialled, and what is said there
//! limits     nothing grows beyond its limit            heard      durable events: all of them, once, in order
//! ```

mod decisions;
mod heard;
mod legs;
mod limits;
mod said;
mod secrets;

use std::collections::{BTreeMap, BTreeSet};

use clawd_protocol::agent::codex;
use clawd_protocol::policy::Policy;
use clawd_protocol::record::Decision;
use clawd_protocol::{
    AskId, Change, Command, ConnId, DeviceId, Effect, Input, Instant, LegId, Limits, Now, OpId,
    ProcId, Source, To, ToolCallId, Unix,
};

use crate::child::Child;
use crate::link::Link;
use crate::machine::{CLAUDE, CODEX};
use crate::store::Store;
use heard::{Log, Wish};
use limits::within;
use secrets::{bearer, no_token};

/// What a check says.
pub type Verdict = Result<(), String>;

/// Who a connection turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Identity {
    Owner,
    Device(DeviceId),
}

/// What is known about one connection.
#[derive(Debug)]
struct Peer {
    source: Source,
    is_upgraded: bool,
    /// The daemon ended it, or was told that it ended.
    is_over: bool,
    identity: Option<Identity>,
    /// The request head carried a credential that is good.
    bearer: Option<Identity>,
    /// Accepted requests without an answer: id and method.
    open: BTreeMap<String, String>,
    answered: BTreeSet<String>,
    /// From where the requests without an answer want to go on.
    wishes: BTreeMap<String, Wish>,
    /// From where it last wanted to go on.
    wish: Option<Wish>,
    /// It has heard all durable events up to this one.
    heard: Option<u64>,
}

/// The checks, and what they remember.
#[derive(Debug)]
pub struct Invariants {
    limits: Limits,
    peers: BTreeMap<ConnId, Peer>,
    ops: BTreeSet<OpId>,
    asks: BTreeSet<AskId>,
    procs: BTreeMap<ProcId, bool>,
    legs: BTreeMap<LegId, legs::Leg>,
    revoked: BTreeSet<DeviceId>,
    /// Tokens that were handed out, and to which connection.
    issued: BTreeMap<String, ConnId>,
    log: Log,
    /// The tool calls that the log announces.
    announced: BTreeSet<String>,
    decided: BTreeMap<ToolCallId, Decision>,
    policy: Policy,
    /// Which calls somebody wanted to be allowed, by what they would do; and how often that was done.
    allowed: BTreeMap<decisions::Deed, BTreeSet<ToolCallId>>,
    deeds: BTreeMap<decisions::Deed, usize>,
    checked_deeds: BTreeMap<ProcId, usize>,
    /// Lines of the audit log that were looked at.
    audited: usize,
    /// The latest wall-clock time of this life.
    unix_high: Unix,
    /// Devices stored when it was last looked.
    devices: usize,
    is_stopped: bool,
}

fn ensure(is_true: bool, otherwise: impl FnOnce() -> String) -> Verdict {
    if is_true { Ok(()) } else { Err(otherwise()) }
}

impl Invariants {
    pub(crate) const fn new(limits: Limits, policy: Policy) -> Self {
        Self {
            limits,
            policy,
            allowed: BTreeMap::new(),
            deeds: BTreeMap::new(),
            peers: BTreeMap::new(),
            ops: BTreeSet::new(),
            asks: BTreeSet::new(),
            procs: BTreeMap::new(),
            legs: BTreeMap::new(),
            revoked: BTreeSet::new(),
            issued: BTreeMap::new(),
            log: Log::new(),
            announced: BTreeSet::new(),
            decided: BTreeMap::new(),
            checked_deeds: BTreeMap::new(),
            audited: 0,
            unix_high: Unix::from_millis(0),
            devices: 0,
            is_stopped: false,
        }
    }

    /// The next life of a daemon begins: its names start anew, what is stored stays.
    pub(crate) fn on_restart(&mut self, store: &Store) {
        // A revocation that nobody was told of may be lost.
        self.revoked.retain(|device| store.is_buried(*device));
        self.log_restored(store);
        self.peers.clear();
        self.ops.clear();
        self.asks.clear();
        self.procs.clear();
        self.legs.clear();
        self.checked_deeds.clear();
        self.unix_high = Unix::default();
        self.is_stopped = false;
    }

    pub(crate) fn on_input(&mut self, input: &Input<'_>, store: &Store) -> Verdict {
        match input {
            Input::Opened { conn, source } => {
                let peer = Peer {
                    source: *source,
                    is_upgraded: false,
                    is_over: false,
                    identity: None,
                    bearer: None,
                    open: BTreeMap::new(),
                    answered: BTreeSet::new(),
                    wishes: BTreeMap::new(),
                    wish: None,
                    heard: None,
                };
                self.peers.insert(*conn, peer);
            }
            Input::Requested { conn, head: Ok(head) } => {
                if let Some(peer) = self.peers.get_mut(conn) {
                    peer.bearer = bearer(head, store);
                }
            }
            Input::Closed { conn } => {
                self.peers.remove(conn);
            }
            Input::Exited { proc, .. } => {
                self.procs.insert(*proc, false);
            }
            Input::Dialed { leg, result } => self.on_dialed(*leg, result.is_ok()),
            Input::HungUp { leg } => self.on_hung_up(*leg),
            Input::Text { conn, text } => self.on_text(*conn, text, store),
            Input::Started { .. }
            | Input::Requested { .. }
            | Input::Began { .. }
            | Input::Broke { .. }
            | Input::Flushed { .. }
            | Input::Stored { .. }
            | Input::Answered { .. }
            | Input::Spawned { .. }
            | Input::Fed { .. }
            | Input::Output { .. }
            | Input::Secured { .. }
            | Input::Heard { .. }
            | Input::Tick
            | Input::Shutdown => {}
        }
        Ok(())
    }

    pub(crate) fn on_effect(
        &mut self,
        effect: &Effect,
        store: &Store,
        children: &BTreeMap<ProcId, Child>,
    ) -> Verdict {
        ensure(!self.is_stopped, || format!("after Stop came {effect:?}"))?;
        match effect {
            Effect::Respond { conn, response } => {
                no_token(&response.body, "an HTTP answer")?;
                let peer = self.peer(*conn)?;
                ensure(!peer.is_upgraded, || "an HTTP answer over WebSocket".to_owned())?;
                peer.is_over = true;
            }
            Effect::Upgrade { conn, .. } => {
                let peer = self.peer(*conn)?;
                ensure(!peer.is_upgraded, || "upgraded twice".to_owned())?;
                peer.is_upgraded = true;
                peer.identity.clone_from(&peer.bearer);
            }
            Effect::Send { to: To::One(conn), text } => self.on_send(*conn, text, store)?,
            Effect::Send { to: To::Many(conns), text } => {
                let unique: BTreeSet<_> = conns.iter().collect();
                ensure(unique.len() == conns.len(), || "sent to one peer twice".to_owned())?;
                conns.iter().try_for_each(|conn| self.on_send(*conn, text, store))?;
            }
            Effect::Close { conn, .. } => self.peer(*conn)?.is_over = true,
            Effect::Admit { conn, .. } | Effect::Pause { conn } | Effect::Resume { conn } => {
                self.peer(*conn)?;
            }
            Effect::Store { op, changes, .. } => {
                ensure(self.ops.insert(*op), || format!("{op:?} used twice"))?;
                ensure(!changes.is_empty(), || "a store of nothing".to_owned())?;
                self.on_revocations(changes);
            }
            Effect::Ask { ask, .. } => {
                ensure(self.asks.insert(*ask), || format!("{ask:?} used twice"))?;
            }
            Effect::Spawn { proc, command } => {
                let before = self.procs.insert(*proc, true);
                ensure(before.is_none(), || format!("{proc:?} used twice"))?;
                self.on_spawn(command)?;
            }
            Effect::Feed { proc, bytes } => {
                let is_finished = children.get(proc).is_some_and(|child| child.is_finished);
                ensure(!is_finished, || format!("{proc:?} fed after its input was closed"))?;
                no_token(&String::from_utf8_lossy(bytes), "an agent's input")?;
                self.alive(*proc)?;
            }
            Effect::Finish { proc } | Effect::Kill { proc } => self.alive(*proc)?,
            Effect::Dial { leg, dial } => self.on_dial(*leg, dial, store)?,
            Effect::Say { leg, text } => self.on_say(*leg, text, store)?,
            Effect::HangUp { leg } => self.on_hang_up(*leg)?,
            Effect::Log { note } => no_token(&note.to_string(), "the log")?,
            Effect::Stop => self.is_stopped = true,
        }
        Ok(())
    }

    fn peer(&mut self, conn: ConnId) -> Result<&mut Peer, String> {
        let peer = self.peers.get_mut(&conn).filter(|peer| !peer.is_over);
        peer.ok_or_else(|| format!("an effect for {conn:?}, which is over"))
    }

    fn alive(&self, proc: ProcId) -> Verdict {
        let is_alive = self.procs.get(&proc).copied().unwrap_or(false);
        ensure(is_alive, || format!("an effect for {proc:?}, which is over"))
    }

    fn on_revocations(&mut self, changes: &[Change]) {
        for change in changes {
            if let Change::Bury(id) = change {
                self.revoked.insert(*id);
            }
        }
    }

    /// No prompt, no secret and no leave to skip asking is ever an argument (security A8, H1, I1).
    fn on_spawn(&self, command: &Command) -> Verdict {
        let is_known = [CLAUDE, CODEX].contains(&command.program.as_str());
        ensure(is_known, || format!("started {}", command.program))?;
        let is_the_same = command.program != CODEX || command.args == codex::launch();
        ensure(is_the_same, || format!("arguments of a shared process: {:?}", command.args))?;
        for arg in &command.args {
            no_token(arg, "an argument")?;
            ensure(!arg.contains("skip-permissions"), || format!("argument {arg}"))?;
        }
        Ok(())
    }

    /// After everything that the daemon said was done.
    pub(crate) fn on_turn(
        &mut self,
        now: Now,
        deadline: Option<Instant>,
        links: &BTreeMap<ConnId, Link>,
        children: &BTreeMap<ProcId, Child>,
        store: &Store,
    ) -> Verdict {
        if let Some(at) = deadline {
            ensure(at > now.mono, || format!("the deadline {at:?} is not after {now:?}"))?;
        }
        self.check_links(links)?;
        let is_alive = |child: &&Child| !child.is_gone && !child.is_killed;
        within("agents", children.values().filter(is_alive).count(), self.limits.agents_max)?;
        within("sessions", store.db.sessions.len(), self.limits.sessions_max)?;
        self.check_devices(now.unix, store)?;
        self.check_deeds(children, store)
    }

    /// How many connections of this life have been authenticated and still stand.
    #[must_use]
    pub fn authenticated(&self) -> usize {
        let is_in = |peer: &&Peer| peer.identity.is_some() && !peer.is_over;
        self.peers.values().filter(is_in).count()
    }
}
