mod disk {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use clawd_protocol::record::{
        Author, MessageRecord, Progress, SessionRecord, SessionStatus, Usage,
    };

    use super::super::*;

    fn start() -> (tempfile::TempDir, DataDir, Store) {
        let mode = Permissions::from_mode(0o700);
        let home = tempfile::Builder::new().permissions(mode).tempdir().unwrap();
        let dir = DataDir::open(home.path()).unwrap();
        let (store, _) = Store::open(&dir).unwrap();
        (home, dir, store)
    }

    /// A directory with a database as it was before later migrations, and this in it.
    fn old(migrations: &[&str], rows: &str) -> (tempfile::TempDir, DataDir) {
        let mode = Permissions::from_mode(0o700);
        let home = tempfile::Builder::new().permissions(mode).tempdir().unwrap();
        let dir = DataDir::open(home.path()).unwrap();
        dir.private().open_or_make_file("clawd.db", rustix::fs::OFlags::RDWR).unwrap();
        let old = Connection::open(home.path().join("clawd.db")).unwrap();
        old.execute_batch(&migrations.concat()).unwrap();
        old.pragma_update(None, "application_id", 0x636c_7764).unwrap();
        old.pragma_update(None, "user_version", migrations.len()).unwrap();
        old.execute_batch(rows).unwrap();
        (home, dir)
    }

    #[test]
    fn a_database_without_a_journal_has_forgotten_all_before_it() {
        let meta =
            format!("INSERT INTO meta (one, daemon_id, seq) VALUES (1, '{}', 77)", "a".repeat(52));
        let (_home, dir) = old(&[include_str!("../schema/0001_first.sql")], &meta);
        let (mut store, found) = Store::open(&dir).unwrap();
        assert_eq!((found.seq, found.chapters), (77, Vec::new()));
        let question = Question::Events { after: 0, through: 77, limit: 9, bytes_max: 9 };
        let Answer::Events(page) = store.answer(&question) else { panic!("no page") };
        assert_eq!((page.forgotten, page.events), (77, Vec::new()));
    }

    #[test]
    fn a_call_of_an_older_daemon_is_taken_for_announced_unless_that_is_not_sure() {
        let migrations = [
            include_str!("../schema/0001_first.sql"),
            include_str!("../schema/0002_journal.sql"),
            include_str!("../schema/0003_approvals.sql"),
            include_str!("../schema/0004_audit.sql"),
            include_str!("../schema/0005_remote.sql"),
        ];
        let id = |number: u64| format!("00000000-0000-4000-8000-{number:012x}");
        let (session, message) = (id(1), id(2));
        let mut rows = format!(
            "PRAGMA foreign_keys = OFF;
             INSERT INTO meta (one, seq) VALUES (1, 77);
             INSERT INTO session VALUES
               ('{session}', '/r', '', 'claude', 'idle', 0, 0, 1, NULL, NULL, '', 0, 0, 0, NULL);
             INSERT INTO message VALUES
               (1, '{message}', '{session}', 0, 'assistant', '', 'done', 0, '{{}}', NULL);"
        );
        let decided = "'owner', 1, 'allow_once'";
        let undecided = "NULL, NULL, NULL";
        for (number, status, decision) in
            [(3, "running", undecided), (4, "running", decided), (5, "pending", undecided)]
        {
            rows += &format!(
                "INSERT INTO tool_call
                   (id, session, message, provider_id, name, input, status, risk, created_at,
                    requires_approval, decided_by, decided_at, decision)
                 VALUES ('{}', '{session}', '{message}', 't', 'Read', '{{}}', '{status}', 'low', 0,
                    0, {decision});",
                id(number),
            );
        }
        let (_home, dir) = old(&migrations, &rows);
        let (_store, found) = Store::open(&dir).unwrap();
        let announced = found.open_tool_calls.iter().map(|call| call.is_announced);
        assert_eq!(announced.collect::<Vec<_>>(), [false, true, true]);
    }

    fn session() -> SessionRecord {
        SessionRecord {
            id: "00000000-0000-4000-8000-000000000001".parse().unwrap(),
            repo_path: "/r".to_owned(),
            title: String::new(),
            provider: "claude".to_owned(),
            status: SessionStatus::Idle,
            created_at: Unix::default(),
            updated_at: Unix::default(),
            message_count: 0,
            model: None,
            model_override: None,
            agent_session: String::new(),
            agent_resumable: false,
            usage: Usage::default(),
        }
    }

    fn message(number: u64, bytes: usize) -> MessageRecord {
        MessageRecord {
            id: format!("00000000-0000-4000-8000-{number:012x}").parse().unwrap(),
            session: session().id,
            ordinal: number,
            author: Author::User,
            content: "x".repeat(bytes),
            status: Progress::Done,
            created_at: Unix::default(),
            metadata: "{}".to_owned(),
            client_id: None,
        }
    }

    #[test]
    fn a_full_disk_is_said_to_be_full_and_fails_only_what_needs_room() {
        let (_home, _dir, mut store) = start();
        let put = |op, change| (OpId(op), vec![change], Sync::Process);
        assert_eq!(store.execute(vec![put(1, Change::PutSession(session()))])[0].1, Ok(()));
        let pages: i64 =
            store.writer.db.query_row("PRAGMA page_count", (), |row| row.get(0)).unwrap();
        let limit = format!("PRAGMA max_page_count = {}", pages + 2);
        store.writer.db.query_row(&limit, (), |_| Ok(())).unwrap();
        let results = store.execute(vec![
            put(2, Change::PutName("small".to_owned())),
            put(3, Change::PutMessage(message(1, 100_000))),
            put(4, Change::PutMessage(message(2, 100))),
        ]);
        let full = Err(StoreFault::Full);
        assert_eq!(results, [(OpId(2), Ok(())), (OpId(3), full), (OpId(4), Ok(()))]);
        let page = Question::Messages {
            session: session().id,
            before: None,
            after: None,
            limit: 9,
            bytes_max: usize::MAX,
        };
        assert_eq!(store.answer(&page), Answer::Messages(vec![message(2, 100)]));
    }

    #[test]
    fn e4_a_turn_with_one_operation_for_the_disk_is_synced() {
        let (_home, _dir, mut store) = start();
        let mut level = |syncs: &[Sync]| {
            let ops =
                syncs.iter().map(|&sync| (OpId(1), vec![Change::PutSession(session())], sync));
            assert!(store.execute(ops.collect()).iter().all(|(_, result)| result.is_ok()));
            let level = "PRAGMA synchronous";
            store.writer.db.query_row(level, (), |row| row.get::<_, i64>(0)).unwrap()
        };
        let (normal, full) = (1, 2);
        assert_eq!(level(&[Sync::Process]), normal);
        assert_eq!(level(&[Sync::Process, Sync::Disk, Sync::Process]), full);
        assert_eq!(level(&[Sync::Process, Sync::Process]), normal);
    }

    #[test]
    fn what_is_open_at_start_is_found_without_reading_the_history() {
        let (_home, _dir, store) = start();
        for (sql, index) in
            [(rows::OPEN_MESSAGES, "message_open"), (rows::OPEN_TOOL_CALLS, "tool_call_open")]
        {
            let plan = format!("EXPLAIN QUERY PLAN {sql}");
            let plan: String =
                store.writer.db.query_row(&plan, (), |row| row.get("detail")).unwrap();
            assert!(plan.contains(index), "{plan}");
        }
    }
}
