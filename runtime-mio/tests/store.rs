//! The store: what was said to be stored is there at the next start, and damage stops the start.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clawd_protocol::access::token::{TokenDigest, mint_local};
use clawd_protocol::record::{
    Author, Decision, DecisionKind, DeviceRecord, MessageRecord, PairingHistory, Progress, Role,
    SessionRecord, SessionStatus, ToolCallRecord, Usage,
};
use clawd_protocol::{
    Answer, Change, DeviceId, MessageId, OpId, Question, SessionId, Snapshot, StoreFault, Sync,
    ToolCallId, Unix,
};
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
        name: "Ana's phone".to_owned(),
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
    }
}

/// One operation, which must be stored.
fn put(store: &mut Store, changes: Vec<Change>) {
    assert_eq!(store.execute(vec![(OpId(1), changes, Sync::Disk)]), [(OpId(1), Ok(()))]);
}

fn modes_below(root: &Path) -> Vec<(PathBuf, u32)> {
    let mut modes = vec![(root.to_owned(), root.metadata().unwrap().mode())];
    for entry in fs::read_dir(root).unwrap() {
        let entry = entry.unwrap();
        modes.push((entry.path(), entry.metadata().unwrap().mode()));
    }
    modes
}

#[test]
fn a_first_start_is_empty_and_a_second_is_the_same_daemon() {
    let home = Home::new();
    let (dir, store, first) = home.start();
    assert_eq!(first.daemon_id.len(), 52);
    assert!(first.daemon_id.bytes().all(|b| b.is_ascii_lowercase() || (b'2'..=b'7').contains(&b)));
    let token = dir.load_or_make_token().unwrap();
    assert!(first.local_token.matches(&TokenDigest::of(token.expose())));
    drop((dir, store));
    let (_dir, _store, second) = home.start();
    assert_eq!(second.daemon_id, first.daemon_id);
    assert!(second.local_token.matches(&first.local_token));
    assert_ne!(Home::new().start().2.daemon_id, first.daemon_id);
}

#[test]
fn every_record_comes_back_as_it_was_put() {
    let home = Home::new();
    let (dir, mut store, _) = home.start();
    let devices = [
        device(b"aaaaaaaa"),
        DeviceRecord {
            next_token_sha256: None,
            rotated_at: None,
            expires_at: None,
            revoked_at: Some(Unix::from_millis(9)),
            role: Role::Admin,
            ..device(b"bbbbbbbb")
        },
    ];
    let sessions = [
        session(1),
        SessionRecord {
            model: None,
            agent_resumable: false,
            usage: Usage::default(),
            status: SessionStatus::Paused,
            ..session(2)
        },
    ];
    let open_message =
        MessageRecord { status: Progress::Streaming, client_id: None, ..message(1, 11, 1) };
    let open_call = ToolCallRecord {
        status: Progress::Pending,
        completed_at: None,
        expires_at: None,
        decision: None,
        output: None,
        requires_approval: false,
        ..tool_call(1, 11, 21)
    };
    let pairing = PairingHistory { failed_windows: [3, 1, 2].map(Unix::from_millis).to_vec() };
    let mut changes: Vec<Change> = devices.iter().cloned().map(Change::PutDevice).collect();
    changes.extend([
        // A reference may come before what it refers to.
        Change::PutToolCall(tool_call(1, 10, 20)),
        Change::PutToolCall(open_call.clone()),
        Change::PutMessage(message(1, 10, 0)),
        Change::PutMessage(open_message.clone()),
        Change::PutPairing(PairingHistory { failed_windows: vec![Unix::from_millis(8)] }),
        Change::PutPairing(pairing.clone()),
        Change::PutName("desk".to_owned()),
        Change::Advance { seq: 7, unix: Unix::from_millis(70) },
        Change::Advance { seq: 6, unix: Unix::from_millis(71) },
    ]);
    changes.extend(sessions.iter().cloned().map(Change::PutSession));
    put(&mut store, changes);
    let whole = |store: &mut Store| {
        let messages = Question::Messages {
            session: id(1),
            before: None,
            after: None,
            limit: 9,
            bytes_max: usize::MAX,
        };
        let calls =
            Question::ToolCalls { session: id(1), before: None, limit: 9, bytes_max: usize::MAX };
        assert_eq!(
            store.answer(&messages),
            Answer::Messages(vec![message(1, 10, 0), open_message.clone()])
        );
        assert_eq!(
            store.answer(&calls),
            Answer::ToolCalls(vec![tool_call(1, 10, 20), open_call.clone()])
        );
    };
    whole(&mut store);
    drop((dir, store));

    let (_dir, mut store, found) = home.start();
    whole(&mut store);
    assert_eq!(found.devices, devices);
    assert_eq!(found.sessions, sessions);
    assert_eq!(found.open_messages, [open_message]);
    assert_eq!(found.open_tool_calls, [open_call]);
    assert_eq!(found.pairing, pairing);
    assert_eq!(found.name.as_deref(), Some("desk"));
    assert_eq!((found.seq, found.unix_high), (7, Unix::from_millis(71)));
}

#[test]
fn a_page_holds_no_more_bytes_than_asked_for_and_one_record_at_least() {
    let home = Home::new();
    let (_dir, mut store, _) = home.start();
    let mut changes = vec![Change::PutSession(session(1))];
    changes.extend((0..4).map(|n| {
        let content = "x".repeat(1000);
        Change::PutMessage(MessageRecord { content, ..message(1, 100 + n, n) })
    }));
    put(&mut store, changes);
    let mut page = |bytes_max| {
        let question =
            Question::Messages { session: id(1), before: None, after: None, limit: 9, bytes_max };
        let Answer::Messages(page) = store.answer(&question) else { panic!("no page") };
        page.iter().map(|m| m.ordinal).collect::<Vec<_>>()
    };
    assert_eq!([page(10_000), page(2_500), page(1)], [vec![0, 1, 2, 3], vec![2, 3], vec![3]]);
}

#[test]
fn pages_are_asked_for_from_both_ends() {
    let home = Home::new();
    let (_dir, mut store, _) = home.start();
    let mut changes = vec![Change::PutSession(session(1)), Change::PutSession(session(2))];
    changes.extend((0..10).map(|n| Change::PutMessage(message(1, 100 + n, n))));
    changes.push(Change::PutMessage(message(2, 200, 0)));
    changes.extend((0..5).map(|n| Change::PutToolCall(tool_call(1, 100, 300 + n))));
    put(&mut store, changes);
    let mut page = |before: Option<u64>, after: Option<u64>, limit| {
        let (before, after) = (before.map(id::<MessageId>), after.map(id::<MessageId>));
        let answer = store.answer(&Question::Messages {
            session: id(1),
            before,
            after,
            limit,
            bytes_max: usize::MAX,
        });
        let Answer::Messages(page) = answer else { panic!("{answer:?}") };
        page.iter().map(|m| m.ordinal).collect::<Vec<_>>()
    };
    assert_eq!(page(None, None, 3), [7, 8, 9]);
    assert_eq!(page(Some(107), None, 3), [4, 5, 6]);
    assert_eq!(page(Some(101), None, 3), [0]);
    assert_eq!(page(None, Some(103), 3), [4, 5, 6]);
    assert_eq!(page(Some(106), Some(102), 2), [4, 5]);
    assert_eq!(page(Some(999), None, 3), [0; 0]);
    assert_eq!(page(Some(200), None, 3), [0; 0], "another session's message is no place here");

    let mut calls = |before: Option<u64>, limit| {
        let before = before.map(id::<ToolCallId>);
        let answer = store.answer(&Question::ToolCalls {
            session: id(1),
            before,
            limit,
            bytes_max: usize::MAX,
        });
        let Answer::ToolCalls(page) = answer else { panic!("{answer:?}") };
        page.into_iter().map(|call| call.id).collect::<Vec<_>>()
    };
    assert_eq!(calls(None, 2), [id(303), id(304)]);
    assert_eq!(calls(Some(302), 9), [id(300), id(301)]);

    let one = |session, id| Question::ToolCall { session, id };
    assert_eq!(store.answer(&one(id(1), id(300))), Answer::ToolCall(Some(tool_call(1, 100, 300))));
    assert_eq!(store.answer(&one(id(2), id(300))), Answer::ToolCall(None));
    let by = |session: u64| Question::MessageByClientId {
        session: id(session),
        client_id: "client-105".to_owned(),
    };
    assert_eq!(store.answer(&by(1)), Answer::Message(Some(message(1, 105, 5))));
    assert_eq!(store.answer(&by(2)), Answer::Message(None));
    let foreign = Question::Directory { path: "/".to_owned() };
    assert!(matches!(store.answer(&foreign), Answer::Failed(StoreFault::Failed(_))));
}

#[test]
fn putting_a_session_again_keeps_its_history_and_deleting_it_does_not() {
    let home = Home::new();
    let (_dir, mut store, _) = home.start();
    put(
        &mut store,
        vec![
            Change::PutSession(session(1)),
            Change::PutMessage(message(1, 10, 0)),
            Change::PutToolCall(tool_call(1, 10, 20)),
        ],
    );
    put(
        &mut store,
        vec![
            Change::PutSession(SessionRecord { title: "new".to_owned(), ..session(1) }),
            Change::PutMessage(MessageRecord { content: "more".to_owned(), ..message(1, 10, 0) }),
        ],
    );
    let call = Question::ToolCall { session: id(1), id: id(20) };
    assert_eq!(store.answer(&call), Answer::ToolCall(Some(tool_call(1, 10, 20))));
    put(&mut store, vec![Change::DeleteSession(id::<SessionId>(1))]);
    assert_eq!(store.answer(&call), Answer::ToolCall(None));
    let page = Question::Messages {
        session: id(1),
        before: None,
        after: None,
        limit: 9,
        bytes_max: usize::MAX,
    };
    assert_eq!(store.answer(&page), Answer::Messages(Vec::new()));
}

#[test]
fn one_bad_operation_does_not_fail_the_others_of_its_turn() {
    let home = Home::new();
    let (dir, mut store, _) = home.start();
    let advance = |seq| Change::Advance { seq, unix: Unix::from_millis(seq) };
    let turn = vec![
        (OpId(1), vec![Change::PutSession(session(1)), advance(1)], Sync::Process),
        // No such session: refused at commit.
        (OpId(2), vec![Change::PutMessage(message(9, 10, 0)), advance(9)], Sync::Process),
        (OpId(3), vec![Change::PutMessage(message(1, 11, 0)), advance(3)], Sync::Disk),
        // The same place again: refused at once.
        (
            OpId(4),
            vec![Change::PutSession(session(2)), Change::PutMessage(message(1, 12, 0))],
            Sync::Disk,
        ),
        (
            OpId(5),
            vec![Change::TouchDevice {
                id: DeviceId(*b"nobody00"),
                at: Unix::default(),
                via: "unix",
            }],
            Sync::Disk,
        ),
    ];
    let results = store.execute(turn);
    let went: Vec<_> = results.iter().map(|(op, result)| (op.0, result.is_ok())).collect();
    assert_eq!(went, [(1, true), (2, false), (3, true), (4, false), (5, true)]);
    drop((dir, store));
    let (_dir, _store, found) = home.start();
    assert_eq!(found.sessions, [session(1)], "all or nothing of an operation");
    assert_eq!(found.seq, 3);
}

#[test]
fn j1_everything_is_private_under_any_umask() {
    rustix::process::umask(rustix::fs::Mode::empty());
    let home = Home::new();
    let (_dir, mut store, _) = home.start();
    put(&mut store, vec![Change::PutSession(session(1)), Change::Bury(DeviceId(*b"aaaaaaaa"))]);
    put(&mut store, vec![Change::PutLocalToken(mint_local([5; 32]))]);
    let modes = modes_below(&home.data());
    let names: Vec<_> = modes.iter().filter_map(|(path, _)| path.file_name()).collect();
    for name in ["clawd.db", "clawd.db-wal", "clawd.db-shm", "revoked", "auth_token", "clawd.lock"]
    {
        assert!(names.contains(&name.as_ref()), "{name} is among {names:?}");
    }
    for (path, mode) in &modes {
        assert_eq!(mode & 0o077, 0, "{}", path.display());
    }
}

#[test]
fn j1_a_database_that_others_may_read_is_refused() {
    for name in ["clawd.db", "clawd.db-wal", "revoked"] {
        let home = Home::new();
        let (_, mut store, _) = home.start();
        put(&mut store, vec![Change::PutSession(session(1)), Change::Bury(DeviceId(*b"aaaaaaaa"))]);
        std::mem::forget(store); // As a crash would, leave the log where it is.
        fs::set_permissions(home.file(name), Permissions::from_mode(0o640)).unwrap();
        let error = home.open().map(|_| ()).unwrap_err().to_string();
        let fix = format!("chmod 600 {}", home.file(name).display());
        assert!(error.contains(&fix), "{error}");
    }
}

#[test]
fn j2_a_damaged_database_stops_the_start_and_is_not_touched() {
    let home = Home::new();
    let (dir, mut store, _) = home.start();
    put(&mut store, vec![Change::PutSession(session(1))]);
    for n in 0..200 {
        put(&mut store, vec![Change::PutMessage(message(1, 100 + n, n))]);
    }
    drop((dir, store));
    let good = fs::read(home.file("clawd.db")).unwrap();
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 6] = [
        ("header", |bytes| bytes[..16].fill(b'x')),
        ("root page", |bytes| bytes[100..108].fill(0xff)),
        ("schema", |bytes| bytes[3000..4096].fill(0)),
        ("tables", |bytes| bytes[8192..].chunks_mut(4096).for_each(|page| page[..16].fill(0xa5))),
        // Nothing at start needs to read it: only the check sees it.
        ("old history", |bytes| {
            let last = bytes.len() - 4096;
            bytes[last..last + 16].fill(0xa5);
        }),
        ("cut", |bytes| bytes.truncate(bytes.len() - 4096)),
    ];
    for (name, damage) in damages {
        let mut bytes = good.clone();
        damage(&mut bytes);
        fs::write(home.file("clawd.db"), &bytes).unwrap();
        match home.open() {
            Err(error @ StoreError::Corrupt { .. }) => {
                assert!(error.to_string().contains("put a backup in their place"), "{error}");
            }
            other => panic!("{name}: {:?}", other.map(|_| ())),
        }
        assert!(fs::read(home.file("clawd.db")).unwrap() == bytes, "{name}: touched");
    }
    fs::write(home.file("clawd.db"), &good).unwrap();
    assert_eq!(home.start().2.sessions, [session(1)]);
}

#[test]
fn j2_a_newer_or_foreign_database_is_refused() {
    let home = Home::new();
    drop(home.start());
    let sqlite = rusqlite::Connection::open(home.file("clawd.db")).unwrap();
    sqlite.pragma_update(None, "user_version", 99).unwrap();
    drop(sqlite);
    assert!(matches!(home.open(), Err(StoreError::Newer { version: 99, .. })));

    let home = Home::new();
    drop(DataDir::open(&home.data()).unwrap());
    let sqlite = rusqlite::Connection::open(home.file("clawd.db")).unwrap();
    sqlite.execute_batch("CREATE TABLE sessions (id TEXT)").unwrap();
    drop(sqlite);
    fs::set_permissions(home.file("clawd.db"), Permissions::from_mode(0o600)).unwrap();
    let before = fs::read(home.file("clawd.db")).unwrap();
    assert!(matches!(home.open(), Err(StoreError::Foreign { .. })));
    assert!(fs::read(home.file("clawd.db")).unwrap() == before);
}

#[test]
fn j3_a_restored_database_does_not_bring_a_revoked_device_back() {
    let home = Home::new();
    let (dir, mut store, _) = home.start();
    put(&mut store, vec![Change::PutDevice(device(b"aaaaaaaa"))]);
    drop((dir, store));
    let backup = fs::read(home.file("clawd.db")).unwrap();
    let (dir, mut store, _) = home.start();
    let revoked = DeviceRecord { revoked_at: Some(Unix::from_millis(50)), ..device(b"aaaaaaaa") };
    put(&mut store, vec![Change::PutDevice(revoked), Change::Bury(DeviceId(*b"aaaaaaaa"))]);
    put(
        &mut store,
        vec![Change::Bury(DeviceId(*b"bbbbbbbb")), Change::Bury(DeviceId(*b"aaaaaaaa"))],
    );
    drop((dir, store));
    fs::write(home.file("clawd.db"), backup).unwrap();
    let (_dir, _store, found) = home.start();
    assert_eq!(found.devices[0].revoked_at, None, "the backup is from before");
    assert_eq!(found.tombstones, [DeviceId(*b"aaaaaaaa"), DeviceId(*b"bbbbbbbb")]);
}

#[test]
fn j3_a_torn_last_tombstone_is_ignored_and_any_other_damage_is_not() {
    let home = Home::new();
    let (dir, mut store, _) = home.start();
    put(&mut store, vec![Change::Bury(DeviceId(*b"aaaaaaaa"))]);
    drop((dir, store));
    let append = |text: &str| {
        let file = fs::OpenOptions::new().append(true).open(home.file("revoked"));
        file.unwrap().write_all(text.as_bytes()).unwrap();
    };
    append("bbbb");
    let (dir, mut store, found) = home.start();
    assert_eq!(found.tombstones, [DeviceId(*b"aaaaaaaa")]);
    put(&mut store, vec![Change::Bury(DeviceId(*b"cccccccc"))]);
    assert_eq!(fs::read_to_string(home.file("revoked")).unwrap(), "aaaaaaaa\ncccccccc\n");
    drop((dir, store));
    append("dddd\n");
    assert!(matches!(home.open(), Err(StoreError::Tombstone { line: 3, .. })));
}

#[test]
fn j3_a_tombstone_is_kept_even_if_its_operation_fails() {
    let home = Home::new();
    let (dir, mut store, _) = home.start();
    let changes = vec![Change::Bury(DeviceId(*b"aaaaaaaa")), Change::PutMessage(message(9, 10, 0))];
    assert!(store.execute(vec![(OpId(1), changes, Sync::Disk)])[0].1.is_err());
    drop((dir, store));
    assert_eq!(home.start().2.tombstones, [DeviceId(*b"aaaaaaaa")]);
}

#[test]
fn a6_the_token_is_replaced_only_with_the_whole_operation() {
    let home = Home::new();
    let (dir, mut store, _) = home.start();
    let old = dir.load_or_make_token().unwrap();
    let new = mint_local([5; 32]);
    let bad = vec![Change::PutLocalToken(new.clone()), Change::PutMessage(message(9, 10, 0))];
    assert!(store.execute(vec![(OpId(1), bad, Sync::Disk)])[0].1.is_err());
    assert!(dir.load_or_make_token().unwrap() == old);
    put(&mut store, vec![Change::PutLocalToken(new.clone())]);
    assert!(dir.load_or_make_token().unwrap() == new);
    drop((dir, store));
    let digest = TokenDigest::of(new.expose());
    assert!(home.start().2.local_token.matches(&digest));
    for entry in fs::read_dir(home.data()).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        let holds = bytes.windows(57).any(|part| part == new.expose().as_bytes());
        assert_eq!(holds, path == home.file("auth_token"), "{}", path.display());
    }
}

/// Not a test of its own: the daemon that `j2_…` kills. Each line it prints names an operation that was stored.
#[test]
#[ignore = "started by another test"]
fn stand_in_that_stores_until_it_is_killed() {
    let Some(data) = std::env::var_os("CLAWD_STAND_IN") else { return };
    let dir = DataDir::open(Path::new(&data)).unwrap();
    let (mut store, found) = Store::open(&dir).unwrap();
    let mut out = fs::OpenOptions::new().append(true).open("/dev/fd/1").unwrap();
    for number in found.seq + 1.. {
        let name = format!("{number:08}").into_bytes().try_into().unwrap();
        let changes = vec![
            Change::PutDevice(device(&name)),
            Change::Bury(DeviceId(name)),
            Change::Advance { seq: number, unix: Unix::default() },
        ];
        put(&mut store, changes);
        writeln!(out, "\nstored {number}").unwrap();
    }
}

#[test]
fn j2_what_was_said_to_be_stored_survives_kill_9() {
    let home = Home::new();
    let mut last = 0;
    for round in 0..12_u64 {
        let mut daemon = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "stand_in_that_stores_until_it_is_killed",
                "--ignored",
                "--nocapture",
            ])
            .env("CLAWD_STAND_IN", home.data())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(daemon.stdout.take().unwrap()).lines();
        let said = lines.map_while(Result::ok).filter_map(|line| {
            line.strip_prefix("stored ").and_then(|number| number.parse::<u64>().ok())
        });
        for (count, number) in (0..).zip(said) {
            last = number;
            if count == 3 + round * 7 {
                daemon.kill().unwrap();
            }
        }
        daemon.wait().unwrap();
        let (_dir, _store, found) = home.start();
        assert!(found.seq >= last, "{} was said to be stored, {} is", last, found.seq);
        let rows = u64::try_from(found.devices.len()).unwrap();
        assert_eq!(rows, found.seq, "all of an operation or nothing");
        assert!(found.tombstones.len() >= found.devices.len(), "no device without its tombstone");
        last = found.seq;
    }
    assert!(last > 100);
}
