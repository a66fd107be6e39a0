//! Nobody else reads what is stored, and the token is in one place only (security A6, J1).

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use clawd_protocol::access::token::{TokenDigest, mint_local};
use clawd_protocol::{Change, DeviceId, OpId, Sync};

use super::{Home, message, put, session};

fn modes_below(root: &Path) -> Vec<(PathBuf, u32)> {
    let mut modes = vec![(root.to_owned(), root.metadata().unwrap().mode())];
    for entry in fs::read_dir(root).unwrap() {
        let entry = entry.unwrap();
        modes.push((entry.path(), entry.metadata().unwrap().mode()));
    }
    modes
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
