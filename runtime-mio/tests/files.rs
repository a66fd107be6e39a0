//! The data directory: made privately, refused when it is not private.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use clawd_protocol::access::token::{TokenKind, kind_of, mint_local};
use clawd_runtime_mio::files::{DataDir, FileError, read_private};
use rustix::fs::Mode;

struct Home {
    temp: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        // One test takes the umask away from all; the mode is said, as it is in the code under test.
        let mode = Permissions::from_mode(0o700);
        Self { temp: tempfile::Builder::new().permissions(mode).tempdir().unwrap() }
    }

    fn data(&self) -> PathBuf {
        self.temp.path().join("clawd")
    }

    fn token(&self) -> PathBuf {
        self.data().join("auth_token")
    }

    fn make_data(&self) {
        fs::DirBuilder::new().mode(0o700).create(self.data()).unwrap();
    }

    fn write(&self, path: &Path, text: &str, mode: u32) {
        let mut file = OpenOptions::new().write(true).create_new(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.set_permissions(Permissions::from_mode(mode)).unwrap();
    }
}

fn good_token() -> String {
    format!("{}\n", mint_local([7; 32]).expose())
}

/// Everything under a directory: names, modes, sizes and contents, to see that nothing was touched.
fn picture(root: &Path) -> Vec<(PathBuf, u32, u64, Vec<u8>)> {
    let mut seen = Vec::new();
    for entry in fs::read_dir(root).unwrap() {
        let entry = entry.unwrap();
        let found = entry.path().symlink_metadata().unwrap();
        let bytes = if found.is_file() { fs::read(entry.path()).unwrap() } else { Vec::new() };
        seen.push((entry.path(), found.mode(), found.nlink(), bytes));
        if found.is_dir() {
            seen.extend(picture(&entry.path()));
        }
    }
    seen.sort();
    seen
}

#[test]
fn a2_there_is_no_moment_with_a_wider_mode() {
    rustix::process::umask(Mode::empty());
    let home = Home::new();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut looks = 0_u64;
            while !done.load(Ordering::Relaxed) {
                for entry in fs::read_dir(home.data()).into_iter().flatten().flatten() {
                    let Ok(found) = entry.metadata() else { continue };
                    assert_eq!(found.mode() & 0o077, 0, "{}", entry.path().display());
                    looks += 1;
                }
            }
            looks
        });
        let maker = scope.spawn(|| {
            for _ in 0..200 {
                let dir = DataDir::open(&home.data()).unwrap();
                assert_eq!(dir.path().metadata().unwrap().mode() & 0o7777, 0o700);
                dir.load_or_make_token().unwrap();
                dir.replace_token(&mint_local([1; 32])).unwrap();
                drop(dir);
                fs::remove_file(home.token()).unwrap();
            }
            DataDir::open(&home.data()).unwrap().load_or_make_token().unwrap();
        });
        let made = maker.join();
        done.store(true, Ordering::Relaxed);
        assert!(watcher.join().unwrap() > 0);
        made.unwrap();
        for name in ["auth_token", "clawd.lock"] {
            let mode = home.data().join(name).metadata().unwrap().mode();
            assert_eq!(mode & 0o7777, 0o600, "{name}");
        }
    });
}

#[test]
fn a2_the_token_stays_the_same_until_it_is_replaced() {
    let home = Home::new();
    let dir = DataDir::open(&home.data()).unwrap();
    let made = dir.load_or_make_token().unwrap();
    assert_eq!(kind_of(made.expose()), Some(TokenKind::Local));
    assert!(dir.load_or_make_token().unwrap() == made);
    let other = mint_local([3; 32]);
    dir.replace_token(&other).unwrap();
    assert!(dir.load_or_make_token().unwrap() == other);
    drop(dir);
    assert!(DataDir::inspect(&home.data()).unwrap().token().unwrap() == Some(other));
}

#[test]
fn a3_an_unsafe_token_file_is_named_with_its_fix_and_not_touched() {
    type Plant = fn(&Home);
    let cases: [(&str, Plant, &str, &str); 9] = [
        (
            "symlink",
            |home| {
                let target = home.temp.path().join("target");
                home.write(&target, &good_token(), 0o600);
                symlink(target, home.token()).unwrap();
            },
            "symbolic link",
            "rm ",
        ),
        (
            "dangling symlink",
            |home| symlink(home.temp.path().join("nowhere"), home.token()).unwrap(),
            "symbolic link",
            "rm ",
        ),
        (
            "hard link",
            |home| {
                home.write(&home.token(), &good_token(), 0o600);
                fs::hard_link(home.token(), home.temp.path().join("second")).unwrap();
            },
            "2 names",
            "rm ",
        ),
        (
            "fifo",
            |home| {
                let mode = Mode::RUSR | Mode::WUSR;
                rustix::fs::mkfifoat(rustix::fs::CWD, home.token(), mode).unwrap();
            },
            "not a regular file",
            "rm ",
        ),
        (
            "others may read",
            |home| home.write(&home.token(), &good_token(), 0o644),
            "mode 0644",
            "chmod 600 ",
        ),
        ("empty", |home| home.write(&home.token(), "", 0o600), "empty", "rm "),
        (
            "truncated",
            |home| home.write(&home.token(), &good_token()[..30], 0o600),
            "damaged",
            "rm ",
        ),
        (
            "two lines",
            |home| home.write(&home.token(), &good_token().repeat(2), 0o600),
            "damaged",
            "rm ",
        ),
        (
            "long",
            |home| home.write(&home.token(), &"a".repeat(4097), 0o600),
            "longer than 4096",
            "rm ",
        ),
    ];
    for (name, plant, reason, fix) in cases {
        let home = Home::new();
        home.make_data();
        plant(&home);
        let dir = DataDir::open(&home.data()).unwrap();
        let before = picture(home.temp.path());
        for error in [
            dir.load_or_make_token().map(|_| ()).expect_err(name),
            DataDir::inspect(&home.data()).unwrap().token().map(|_| ()).expect_err(name),
        ] {
            let text = error.to_string();
            assert!(text.contains(reason), "{name}: {text}");
            let told = format!("type: {fix}{}", home.token().display());
            assert!(text.contains(&told), "{name}: {text}");
        }
        assert_eq!(picture(home.temp.path()), before, "{name}");
    }
}

#[test]
fn a3_unsafe_directories_are_refused() {
    let refusal = |home: &Home| DataDir::open(&home.data()).map(|_| ()).unwrap_err().to_string();
    let chmod =
        |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();

    let home = Home::new();
    home.make_data();
    chmod(&home.data(), 0o755);
    assert!(refusal(&home).contains(&format!("chmod 700 {}", home.data().display())));
    assert_eq!(fs::read_dir(home.data()).unwrap().count(), 0, "nothing was made in it");

    for made in [true, false] {
        let home = Home::new();
        if made {
            home.make_data();
        }
        chmod(home.temp.path(), 0o777);
        assert!(refusal(&home).contains(&format!("chmod go-w {}", home.temp.path().display())));
        assert_eq!(home.data().exists(), made, "nothing was made in it");
        chmod(home.temp.path(), 0o1777);
        DataDir::open(&home.data()).expect("in a sticky directory nobody moves our things");
    }

    let home = Home::new();
    File::create(home.data()).unwrap();
    assert!(refusal(&home).contains("could not"));
}

#[test]
fn a3_what_belongs_to_others_is_refused() {
    if !rustix::process::geteuid().is_root() {
        return; // Only root can give files away.
    }
    let other = Some(rustix::fs::Uid::from_raw(65_534));
    let give = |path: &Path| {
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(rustix::fs::CWD, path, other, None, flags).unwrap();
    };
    let home = Home::new();
    home.make_data();
    home.write(&home.token(), &good_token(), 0o600);
    give(&home.token());
    let dir = DataDir::open(&home.data()).unwrap();
    let text = dir.load_or_make_token().map(|_| ()).unwrap_err().to_string();
    assert!(text.contains("uid 65534"), "{text}");
    drop(dir);

    give(&home.data());
    let text = DataDir::open(&home.data()).map(|_| ()).unwrap_err().to_string();
    assert!(text.contains("uid 65534"), "{text}");

    let home = Home::new();
    home.make_data();
    let link = home.temp.path().join("link");
    symlink(home.data(), &link).unwrap();
    DataDir::open(&link).expect("a link of our own may lead to the directory");
    give(&link);
    let below = DataDir::open(&link.join("clawd")).map(|_| ()).unwrap_err().to_string();
    assert!(below.contains("uid 65534"), "{below}");
}

#[test]
fn a3_other_private_files_follow_the_same_rules() {
    let home = Home::new();
    let path = home.temp.path().join("config.toml");
    assert_eq!(read_private(&path, 16).unwrap(), None);
    home.write(&path, "port = 1\n", 0o600);
    assert_eq!(read_private(&path, 16).unwrap().unwrap(), b"port = 1\n");
    assert!(matches!(read_private(&path, 4), Err(FileError::Unsafe { .. })));
    fs::set_permissions(&path, Permissions::from_mode(0o620)).unwrap();
    assert!(matches!(read_private(&path, 16), Err(FileError::Unsafe { .. })));
}

#[test]
fn a4_without_a_token_there_is_an_error_and_nothing_else() {
    if rustix::process::geteuid().is_root() {
        // Root may write anywhere; take the directory itself away instead.
        let home = Home::new();
        let dir = DataDir::open(&home.data()).unwrap();
        fs::remove_dir_all(home.data()).unwrap();
        assert!(matches!(dir.load_or_make_token(), Err(FileError::Failed { .. })));
        return;
    }
    let home = Home::new();
    let dir = DataDir::open(&home.data()).unwrap();
    fs::set_permissions(home.data(), Permissions::from_mode(0o500)).unwrap();
    assert!(matches!(dir.load_or_make_token(), Err(FileError::Failed { .. })));
}

#[test]
fn one_directory_has_one_daemon() {
    let home = Home::new();
    let looked = || DataDir::inspect(&home.data()).unwrap().holder().unwrap();
    let mut first = DataDir::open(&home.data()).unwrap();
    assert_eq!(looked().unwrap().port, None);
    let addresses: Vec<IpAddr> = vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
    first.note_listening(4300, addresses.clone());
    let holder = looked().expect("somebody holds it");
    assert_eq!((holder.pid, holder.port), (std::process::id(), Some(4300)));
    assert_eq!(holder.addresses, addresses);
    match DataDir::open(&home.data()) {
        Err(FileError::Locked { pid, version, port, .. }) => {
            assert_eq!((pid, port), (std::process::id(), Some(4300)));
            assert_eq!(version, env!("CARGO_PKG_VERSION"));
        }
        other => panic!("{other:?}"),
    }
    drop(first);
    assert_eq!(looked(), None);
    DataDir::open(&home.data()).expect("it is free again");
}
