//! A revocation outlives the database it was made in (security J3).

use std::fs;
use std::io::Write;

use clawd_protocol::record::DeviceRecord;
use clawd_protocol::{Change, DeviceId, OpId, Sync, Unix};
use clawd_runtime_mio::store::StoreError;

use super::{Home, device, message, put};

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
