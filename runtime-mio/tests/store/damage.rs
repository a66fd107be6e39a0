//! Databases that cannot be trusted stop the start and are not touched (security J2).

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use clawd_protocol::Change;
use clawd_runtime_mio::files::DataDir;
use clawd_runtime_mio::store::StoreError;

use super::{Home, message, put, session};

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
