//! Records: each comes back as it was put, in pages, and operations do not harm each other.

use clawd_protocol::access::token::TokenDigest;
use clawd_protocol::record::{
    AskKind, DeviceRecord, MessageRecord, PairingHistory, Progress, Role, SessionRecord,
    SessionStatus, ToolCallRecord, Usage,
};
use clawd_protocol::{
    Answer, ApprovalId, Change, DeviceId, MessageId, OpId, Question, SessionId, StoreFault, Sync,
    ToolCallId, Unix,
};
use clawd_runtime_mio::store::Store;

use super::{Home, device, id, message, put, session, tool_call};

#[test]
fn a_first_start_is_empty_and_a_second_is_the_same_daemon() {
    let home = Home::new();
    let (dir, store, first) = home.start();
    let token = dir.load_or_make_token().unwrap();
    assert!(first.local_token.matches(&TokenDigest::of(token.expose())));
    drop((dir, store));
    let (_dir, _store, second) = home.start();
    assert_eq!(second.identity, first.identity);
    assert!(second.local_token.matches(&first.local_token));
    assert_ne!(Home::new().start().2.identity, first.identity);
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
        kind: AskKind::Tool,
        approval: None,
        rule: None,
        reason: None,
        answers: None,
        is_carried: false,
        is_announced: false,
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
    assert_eq!(
        store.answer(&one(id(1), id(300))),
        Answer::ToolCall(Some(Box::new(tool_call(1, 100, 300))))
    );
    assert_eq!(store.answer(&one(id(2), id(300))), Answer::ToolCall(None));
    let asked = |number: u8| Question::Approval { id: ApprovalId([number; 32]) };
    let last = store.answer(&asked(44));
    assert_eq!(
        last,
        Answer::ToolCall(Some(Box::new(tool_call(1, 100, 300)))),
        "300 is 44 in one byte"
    );
    assert_eq!(store.answer(&asked(9)), Answer::ToolCall(None));
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
    assert_eq!(store.answer(&call), Answer::ToolCall(Some(Box::new(tool_call(1, 10, 20)))));
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
