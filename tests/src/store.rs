//! The store in memory: every change and question of the contract, and everything that can go wrong with a disk.
//!
//! Owns what was kept and what is still on its way; refuses to know why. Operations and questions are done strictly in
//! the order in which they were asked. A change counts only from the moment its operation is done, and is lost in a crash
//! before that; what was only promised to survive the process is lost when the power goes.

use std::collections::{BTreeMap, BTreeSet};

use clawd_protocol::access::token::{Secret, TokenDigest};
use clawd_protocol::audit::{Chain, Line};
use clawd_protocol::record::{
    Chapter, DeviceRecord, EventPage, EventRecord, MessageRecord, PairingHistory, Progress,
    SessionRecord, ToolCallRecord,
};
use clawd_protocol::{
    Answer, Change, DeviceId, MessageId, Question, SessionId, Snapshot, StoreFault, Sync,
    ToolCallId, Unix,
};

/// What a database holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Database {
    /// The daemon's name.
    pub name: Option<String>,
    /// The last event number.
    pub seq: u64,
    /// The latest wall-clock time.
    pub unix_high: Unix,
    /// Devices, also revoked ones.
    pub devices: BTreeMap<DeviceId, DeviceRecord>,
    /// Failed pairing.
    pub pairing: PairingHistory,
    /// Sessions.
    pub sessions: BTreeMap<SessionId, SessionRecord>,
    /// Messages.
    pub messages: BTreeMap<MessageId, MessageRecord>,
    /// Tool calls, each with its place in the order of first storing.
    pub tool_calls: BTreeMap<ToolCallId, (u64, ToolCallRecord)>,
    calls_ever: u64,
    /// The chapters of the journal.
    pub chapters: Vec<Chapter>,
    /// The journal.
    pub events: Vec<EventRecord>,
    /// The number up to which events were forgotten.
    pub forgotten: u64,
}

impl Database {
    fn prune(&mut self, before: Unix, count_max: usize, bytes_max: usize) {
        let (mut count, mut bytes) = (0, 0);
        let is_kept = |event: &&EventRecord| {
            count += 1;
            bytes += event.text.len();
            event.at >= before && count <= count_max && bytes <= bytes_max
        };
        let kept = self.events.iter().rev().take_while(is_kept).count();
        let mut gone = self.events.drain(..self.events.len() - kept);
        self.forgotten = gone.next_back().map_or(self.forgotten, |event| event.seq);
    }

    fn events(&self, after: u64, through: u64, limit: usize, bytes_max: usize) -> EventPage {
        let mut page = EventPage { forgotten: self.forgotten, events: Vec::new() };
        let mut bytes = 0;
        let is_asked = |event: &&EventRecord| event.seq > after && event.seq <= through;
        for event in self.events.iter().filter(is_asked).take(limit) {
            bytes += event.text.len();
            if bytes > bytes_max && !page.events.is_empty() {
                break;
            }
            page.events.push(event.clone());
        }
        page
    }
}

/// The store: a database, the token's file and the tombstones' file.
#[derive(Debug)]
pub struct Store {
    /// What a reader sees.
    pub db: Database,
    /// What the platter has: the database as it was at the last operation that asked for it.
    on_disk: Database,
    /// The audit log, line by line.
    pub audit: Vec<String>,
    chain: Chain,
    /// How much of the audit log the platter has.
    audit_on_disk: (usize, Chain),
    /// The audit log cannot be written, and everything else can.
    is_audit_full: bool,
    token: Secret,
    /// What the owner wants of a relay.
    pub relay: Option<clawd_protocol::record::RelaySettings>,
    /// How often the identity was replaced.
    pub identities: u32,
    tombstones: BTreeSet<DeviceId>,
    fault: Option<StoreFault>,
}

impl Store {
    /// An empty store with this local token.
    #[must_use]
    pub fn new(token: Secret) -> Self {
        Self {
            db: Database::default(),
            on_disk: Database::default(),
            audit: Vec::new(),
            chain: Chain::default(),
            audit_on_disk: (0, Chain::default()),
            is_audit_full: false,
            token,
            relay: None,
            identities: 0,
            tombstones: BTreeSet::new(),
            fault: None,
        }
    }

    /// The local token, as its file has it.
    #[must_use]
    pub const fn token(&self) -> &Secret {
        &self.token
    }

    /// From now on every operation ends like this; `None` heals it.
    pub fn set_fault(&mut self, fault: Option<StoreFault>) {
        self.fault = fault;
    }

    /// Whether a token with this digest is stored for a device.
    #[must_use]
    pub fn has_digest(&self, digest: [u8; 32]) -> bool {
        let is_it = |device: &DeviceRecord| {
            device.token_sha256 == digest || device.next_token_sha256 == Some(digest)
        };
        self.db.devices.values().any(is_it)
    }

    /// Whether the tombstones have this device.
    #[must_use]
    pub fn is_buried(&self, device: DeviceId) -> bool {
        self.tombstones.contains(&device)
    }

    /// Does all of an operation, or nothing.
    ///
    /// # Errors
    ///
    /// The fault that was set.
    pub fn apply(&mut self, changes: &[Change], sync: Sync) -> Result<(), StoreFault> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        let has_record = changes.iter().any(|change| matches!(change, Change::Audit(_)));
        if self.is_audit_full && has_record {
            return Err(StoreFault::Full);
        }
        for change in changes {
            self.change(change);
        }
        if sync == Sync::Disk {
            self.on_disk = self.db.clone();
            self.audit_on_disk = (self.audit.len(), self.chain);
        }
        Ok(())
    }

    fn change(&mut self, change: &Change) {
        match change {
            Change::PutDevice(device) => {
                self.db.devices.insert(device.id, device.clone());
            }
            Change::TouchDevice { id, at, via } => {
                if let Some(device) = self.db.devices.get_mut(id) {
                    device.last_seen_at = *at;
                    device.last_via = (*via).to_owned();
                }
            }
            Change::Bury(id) => {
                self.tombstones.insert(*id);
            }
            Change::PutLocalToken(token) => self.token = token.clone(),
            Change::PutRelay(wanted) => self.relay = Some(wanted.clone()),
            Change::ResetIdentity => self.identities += 1,
            Change::PutName(name) => self.db.name = Some(name.clone()),
            Change::PutPairing(history) => self.db.pairing = history.clone(),
            Change::PutSession(session) => {
                self.db.sessions.insert(session.id, session.clone());
            }
            Change::DeleteSession(id) => {
                self.db.sessions.remove(id);
                self.db.messages.retain(|_, message| message.session != *id);
                self.db.tool_calls.retain(|_, (_, call)| call.session != *id);
                self.db.events.retain(|event| event.session != Some(*id));
            }
            Change::PutMessage(message) => {
                self.db.messages.insert(message.id, message.clone());
            }
            Change::PutToolCall(call) => {
                self.db.calls_ever += 1;
                let fresh = self.db.calls_ever;
                let place = self.db.tool_calls.get(&call.id).map_or(fresh, |(place, _)| *place);
                self.db.tool_calls.insert(call.id, (place, call.clone()));
            }
            Change::Audit(record) => {
                let line = self.chain.append(record);
                self.audit.push(line.trim_end().to_owned());
            }
            Change::BeginChapter { chapter, count_max } => {
                self.db.chapters.push(chapter.clone());
                let over = self.db.chapters.len().saturating_sub(*count_max);
                self.db.chapters.drain(..over);
            }
            Change::PutEvent(event) => self.db.events.push(event.clone()),
            Change::PruneEvents { before, count_max, bytes_max } => {
                self.db.prune(*before, *count_max, *bytes_max);
            }
            Change::Advance { seq, unix } => {
                self.db.seq = *seq;
                self.db.unix_high = *unix;
            }
        }
    }

    /// Answers a question about what is stored; `None` if it is about something else.
    #[must_use]
    pub fn answer(&self, question: &Question) -> Option<Answer> {
        Some(match question {
            Question::Messages { session, before, after, limit, .. } => {
                Answer::Messages(self.page(*session, *before, *after, *limit))
            }
            Question::MessageByClientId { session, client_id } => Answer::Message(
                self.messages_of(*session)
                    .into_iter()
                    .find(|message| message.client_id.as_ref() == Some(client_id)),
            ),
            Question::ToolCalls { session, before, limit, .. } => {
                Answer::ToolCalls(self.calls(*session, *before, *limit))
            }
            Question::ToolCall { session, id } => Answer::ToolCall(
                self.db
                    .tool_calls
                    .get(id)
                    .map(|(_, call)| Box::new(call.clone()))
                    .filter(|call| call.session == *session),
            ),
            Question::Audit { session, before, limit, .. } => {
                Answer::Audit(self.audit_page(*session, *before, *limit))
            }
            Question::Events { after, through, limit, bytes_max } => {
                Answer::Events(self.db.events(*after, *through, *limit, *bytes_max))
            }
            Question::Approval { id } => {
                let calls = self.db.tool_calls.values();
                let found = calls.filter(|(_, call)| call.approval == Some(*id));
                let last = found.max_by_key(|(place, _)| *place);
                Answer::ToolCall(last.map(|(_, call)| Box::new(call.clone())))
            }
            Question::Directory { .. }
            | Question::Sign { .. }
            | Question::Addresses
            | Question::Probe { .. } => return None,
        })
    }

    fn audit_page(
        &self,
        session: Option<SessionId>,
        before: Option<u64>,
        limit: usize,
    ) -> Vec<String> {
        let is_asked_for = |line: &&String| {
            let Some(line) = Line::read(line.as_bytes()) else { return false };
            before.is_none_or(|before| line.n < before)
                && session.is_none_or(|session| line.is_about(session))
        };
        self.audit.iter().rev().filter(is_asked_for).take(limit).cloned().collect()
    }

    /// From now on the audit log cannot be written; or it can be again.
    pub const fn set_audit_full(&mut self, is_full: bool) {
        self.is_audit_full = is_full;
    }

    /// A session's messages, oldest first.
    #[must_use]
    pub fn messages_of(&self, session: SessionId) -> Vec<MessageRecord> {
        let mut all: Vec<_> = self
            .db
            .messages
            .values()
            .filter(|message| message.session == session)
            .cloned()
            .collect();
        all.sort_by_key(|message| message.ordinal);
        all
    }

    fn page(
        &self,
        session: SessionId,
        before: Option<MessageId>,
        after: Option<MessageId>,
        limit: usize,
    ) -> Vec<MessageRecord> {
        let mut all = self.messages_of(session);
        let ordinal = |id: MessageId| {
            self.db
                .messages
                .get(&id)
                .filter(|message| message.session == session)
                .map(|m| m.ordinal)
        };
        if let Some(id) = before {
            let bound = ordinal(id);
            all.retain(|message| bound.is_some_and(|bound| message.ordinal < bound));
        } else if let Some(id) = after {
            let bound = ordinal(id);
            all.retain(|message| bound.is_some_and(|bound| message.ordinal > bound));
            all.truncate(limit);
        }
        let skip = all.len().saturating_sub(limit);
        all.split_off(skip)
    }

    fn calls(
        &self,
        session: SessionId,
        before: Option<ToolCallId>,
        limit: usize,
    ) -> Vec<ToolCallRecord> {
        let mut all: Vec<_> =
            self.db.tool_calls.values().filter(|(_, call)| call.session == session).collect();
        if let Some(id) = before {
            let bound = self.db.tool_calls.get(&id).map(|(place, _)| *place);
            all.retain(|(place, _)| bound.is_some_and(|bound| *place < bound));
        }
        all.sort_by_key(|(place, _)| *place);
        let skip = all.len().saturating_sub(limit);
        all.split_off(skip).into_iter().map(|(_, call)| call.clone()).collect()
    }

    /// The power went: what was not promised to survive that is gone.
    pub fn lose_power(&mut self) {
        self.db = self.on_disk.clone();
        let (lines, chain) = self.audit_on_disk;
        self.audit.truncate(lines);
        self.chain = chain;
    }

    /// Puts an older database back; the files beside it stay (security J3).
    pub fn restore(&mut self, backup: Database) {
        self.db = backup.clone();
        self.on_disk = backup;
    }

    /// What a daemon that starts now is given.
    #[must_use]
    pub fn snapshot(&self, identity: &[u8]) -> Snapshot {
        let digest = TokenDigest::of(self.token.expose());
        let mut snapshot = Snapshot::empty(digest, identity.to_vec());
        snapshot.relay.clone_from(&self.relay);
        snapshot.name.clone_from(&self.db.name);
        snapshot.chapters.clone_from(&self.db.chapters);
        snapshot.seq = self.db.seq;
        snapshot.unix_high = self.db.unix_high;
        snapshot.devices = self.db.devices.values().cloned().collect();
        snapshot.tombstones = self.tombstones.iter().copied().collect();
        snapshot.pairing = self.db.pairing.clone();
        snapshot.sessions = self.db.sessions.values().cloned().collect();
        let is_open = |status: Progress| match status {
            Progress::Pending | Progress::Streaming | Progress::Running => true,
            Progress::Done | Progress::Error => false,
        };
        let messages = self.db.messages.values();
        snapshot.open_messages = messages.filter(|m| is_open(m.status)).cloned().collect();
        let calls = self.db.tool_calls.values().map(|(_, call)| call);
        snapshot.open_tool_calls = calls.filter(|call| is_open(call.status)).cloned().collect();
        snapshot
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clawd_protocol::access::token::mint_local;

    fn name(text: &str) -> [Change; 1] {
        [Change::PutName(text.to_owned())]
    }

    #[test]
    fn a_fault_keeps_nothing_of_an_operation() {
        let mut store = Store::new(mint_local([1; 32]));
        store.set_fault(Some(StoreFault::Full));
        assert_eq!(store.apply(&name("a"), Sync::Disk), Err(StoreFault::Full));
        assert_eq!(store.db, Database::default());
        store.set_fault(None);
        assert_eq!(store.apply(&name("a"), Sync::Disk), Ok(()));
        assert_eq!(store.db.name.as_deref(), Some("a"));
    }

    #[test]
    fn a_loss_of_power_takes_what_was_not_promised() {
        let mut store = Store::new(mint_local([1; 32]));
        let buried = DeviceId(*b"AAAAAAAA");
        store.apply(&name("a"), Sync::Disk).expect("stored");
        store.apply(&name("b"), Sync::Process).expect("stored");
        store.apply(&[Change::Bury(buried)], Sync::Process).expect("stored");
        store.lose_power();
        assert_eq!(store.db.name.as_deref(), Some("a"));
        assert_eq!(store.snapshot(b"d").tombstones, [buried], "that file is its own");
    }
}
