//! The store: what was said to be stored is there at the next start, and damage stops the start.
//!
//! Owns a home for one store and records to put in it; refuses to test anything, which its parts do.

mod crash;
mod damage;
mod journal;
mod private;
mod records;
mod revocations;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use clawd_protocol::record::{
    AskKind, Author, Decision, DecisionKind, DeviceRecord, MessageRecord, Progress, Role,
    SessionRecord, SessionStatus, ToolCallRecord, Usage,
};
use clawd_protocol::{ApprovalId, Change, DeviceId, OpId, Snapshot, Sync, Unix};
use clawd_runtime_mio::files::DataDir;
use clawd_runtime_mio::store::{Store, StoreError};

struct Home {
    temp: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        let mode = Permissions::from_mode(0o700);
        Self { temp: tempfile::Builder::new().permissions(mode).tempdir().unwrap() }
    }

    fn data(&self) -> PathBuf {
        self.temp.path().join("clawd")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.data().join(name)
    }

    fn open(&self) -> Result<(DataDir, Store, Snapshot), StoreError> {
        let dir = DataDir::open(&self.data())?;
        let (store, snapshot) = Store::open(&dir)?;
        Ok((dir, store, snapshot))
    }

    fn start(&self) -> (DataDir, Store, Snapshot) {
        self.open().unwrap()
    }
}

fn id<T: std::str::FromStr<Err: std::fmt::Debug>>(number: u64) -> T {
    format!("00000000-0000-4000-8000-{number:012x}").parse().unwrap()
}

fn device(name: &[u8; 8]) -> DeviceRecord {
    DeviceRecord {
        id: DeviceId(*name),
        name: "a phone".to_owned(),
        platform: "ios".to_owned(),
        role: Role::Approve,
        token_sha256: [1; 32],
        next_token_sha256: Some([2; 32]),
        rotated_at: Some(Unix::from_millis(4)),
        created_at: Unix::from_millis(1),
        last_seen_at: Unix::from_millis(2),
        last_via: "unix".to_owned(),
        expires_at: Some(Unix::from_millis(5)),
        revoked_at: None,
        key: None,
    }
}

fn session(number: u64) -> SessionRecord {
    SessionRecord {
        id: id(number),
        repo_path: "/home/ana/código".to_owned(),
        title: "a title".to_owned(),
        provider: "claude".to_owned(),
        status: SessionStatus::Running,
        created_at: Unix::from_millis(number),
        updated_at: Unix::from_millis(11),
        message_count: 3,
        model: Some("opus".to_owned()),
        model_override: None,
        agent_session: "5144ce4b".to_owned(),
        agent_resumable: true,
        usage: Usage { input_tokens: 5, output_tokens: 6, cost_micro_usd: Some(7) },
    }
}

fn message(session: u64, number: u64, ordinal: u64) -> MessageRecord {
    MessageRecord {
        id: id(number),
        session: id(session),
        ordinal,
        author: Author::User,
        content: "hello \u{0} 🦀".to_owned(),
        status: Progress::Done,
        created_at: Unix::from_millis(20 + ordinal),
        metadata: "{}".to_owned(),
        client_id: Some(format!("client-{number}")),
    }
}

fn tool_call(session: u64, message: u64, number: u64) -> ToolCallRecord {
    ToolCallRecord {
        id: id(number),
        session: id(session),
        message: id(message),
        provider_id: "toolu_1".to_owned(),
        name: "Bash".to_owned(),
        input: r#"{"command":"ls"}"#.to_owned(),
        status: Progress::Done,
        risk: "high".to_owned(),
        created_at: Unix::from_millis(30),
        completed_at: Some(Unix::from_millis(31)),
        requires_approval: true,
        expires_at: Some(Unix::from_millis(32)),
        decision: Some(Decision {
            by: "owner".to_owned(),
            at: Unix::from_millis(30),
            kind: DecisionKind::AllowOnce,
        }),
        output: Some("a\nb".to_owned()),
        kind: AskKind::Question,
        approval: Some(ApprovalId([u8::try_from(number % 256).unwrap(); 32])),
        rule: Some("default".to_owned()),
        reason: Some("it may change something".to_owned()),
        answers: Some(r#"{"a?":"b"}"#.to_owned()),
        is_carried: true,
        is_announced: true,
    }
}

/// One operation, which must be stored.
fn put(store: &mut Store, changes: Vec<Change>) {
    assert_eq!(store.execute(vec![(OpId(1), changes, Sync::Disk)]), [(OpId(1), Ok(()))]);
}
