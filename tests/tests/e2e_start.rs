//! How the real daemon starts, refuses to start, and ends.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use clawd_tests::daemon::{Daemon, PATIENCE, Process, Site, skip, wait_until, write_private};
use serde_json::json;

/// A port that nobody has, and that nobody is given who asks for any: those are from 32768 on.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 10_000).unwrap();
    let ports = || Some(20_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000);
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    std::iter::from_fn(ports).find(is_free).unwrap()
}

/// Starts `clawd serve`, which must end by itself and never be reachable before; its exit code and output.
fn refuse(site: &Site) -> (i32, String) {
    let port = free_port();
    let mut process = Process::spawn(&mut site.command(&["serve", "--port", &port.to_string()]));
    wait_until("the daemon gives up", PATIENCE, || {
        let is_bound = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
        assert!(!is_bound, "it listened:\n{}", process.output());
        process.has_ended()
    });
    let (status, output) = process.end();
    (status.code().expect("an exit, not a signal"), output)
}

/// A site whose daemon has run once, so that everything is there.
fn used_site() -> Site {
    let site = Site::new();
    assert!(site.start().stop().success());
    site
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn a_first_start_makes_a_token_and_a_second_keeps_it() {
    let site = Site::new();
    let daemon = site.start();
    let token = site.token();
    assert_eq!(mode(&site.token_path()), 0o600);
    assert_eq!(daemon.owner().call("daemon.ping", json!({})).unwrap()["pong"], true);
    let daemon_id = daemon.owner().auth(&token).unwrap()["daemonId"].clone();
    assert!(daemon.stop().success());
    let daemon = site.start();
    assert_eq!(site.token(), token);
    assert_eq!(daemon.owner().auth(&token).unwrap()["daemonId"], daemon_id);
}

#[test]
fn sigterm_says_goodbye_to_clients_and_exits_0() {
    let site = Site::new();
    let daemon = site.start();
    let mut owner = daemon.owner();
    let status = daemon.stop();
    assert_eq!(owner.wait_close(Duration::from_secs(2)), Some(1001));
    assert!(status.success(), "{status}");
}

#[test]
fn a2_two_daemons_that_start_at_once_agree_on_one_token() {
    for _ in 0..5 {
        let mut site = Site::new();
        site.before = Some("umask 000".to_owned());
        let both: Vec<_> = std::thread::scope(|scope| {
            let starts = [scope.spawn(|| site.try_start(0)), scope.spawn(|| site.try_start(0))];
            starts.into_iter().map(|start| start.join().unwrap()).collect()
        });
        let (up, down): (Vec<_>, Vec<_>) = both.into_iter().partition(Result::is_ok);
        assert_eq!((up.len(), down.len()), (1, 1));
        let (status, output) = down.into_iter().next().unwrap().unwrap_err();
        assert_eq!(status.code(), Some(3), "{output}");
        let daemon = up.into_iter().next().unwrap().unwrap();
        daemon.owner();
        assert_eq!(mode(&site.token_path()), 0o600);
        assert_eq!(mode(&site.data()), 0o700);
    }
}

/// Names an unsafe state of the token file and makes it so; `target` is what must not be touched.
type Spoil = (&'static str, fn(&Path, &Path));

const UNSAFE: [Spoil; 9] = [
    ("symlink", |path, target| {
        fs::rename(path, target).unwrap();
        symlink(target, path).unwrap();
    }),
    ("hard link", |path, target| fs::hard_link(path, target).unwrap()),
    ("readable by others", |path, _| chmod(path, 0o644)),
    ("writable by the group", |path, _| chmod(path, 0o620)),
    ("truncated", |path, _| {
        let text = fs::read(path).unwrap();
        write_private(path, &text[..text.len() / 2]);
    }),
    ("empty", |path, _| write_private(path, b"")),
    ("garbage", |path, _| write_private(path, &[0xff; 57])),
    ("huge", |path, _| write_private(path, &[b'a'; 1 << 20])),
    ("fifo", |path, _| {
        fs::remove_file(path).unwrap();
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).unwrap();
    }),
];

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a3_an_unsafe_token_file_stops_the_start() {
    for (name, spoil) in UNSAFE {
        let site = used_site();
        let target = site.home().join("target");
        spoil(&site.token_path(), &target);
        let before = fs::read(&target).ok();
        let (code, output) = refuse(&site);
        assert_eq!(code, 5, "{name}: {output}");
        assert!(output.contains("auth_token"), "{name} is not named: {output}");
        assert!(output.contains("hint"), "{name} has no hint: {output}");
        assert_eq!(fs::read(&target).ok(), before, "{name}: the target was touched");
    }
}

#[test]
fn a3_a_token_file_of_somebody_else_stops_the_start() {
    let site = used_site();
    if std::os::unix::fs::chown(site.token_path(), Some(65_534), None).is_err() {
        return skip("a3_a_token_file_of_somebody_else", "only root can give a file away");
    }
    assert_eq!(refuse(&site).0, 5);
}

#[test]
fn a3_a_directory_that_others_can_write_stops_the_start() {
    let site = used_site();
    chmod(&site.data(), 0o777);
    let (code, output) = refuse(&site);
    assert!(code != 0 && output.contains("chmod go-w"), "{code} {output}");
}

#[test]
fn a3_configuration_and_database_are_held_to_the_same_rules() {
    for (file, code) in [("config.toml", 2), ("clawd.db", 4)] {
        let site = used_site();
        chmod(&site.data().join(file), 0o666);
        let (exit, output) = refuse(&site);
        assert_eq!(exit, code, "{file}: {output}");
        assert!(output.contains(file) && output.contains("chmod 600"), "{output}");
    }
}

#[test]
fn a4_no_token_can_be_written_so_nobody_listens() {
    let mut site = Site::new();
    // The file system takes no bytes, as if it were full.
    site.before = Some("trap '' XFSZ; ulimit -f 0".to_owned());
    let (code, output) = refuse(&site);
    assert!(code != 0, "{output}");
    assert!(fs::read(site.token_path()).map_or(true, |text| text.is_empty()));
}

#[test]
fn a4_a_data_directory_that_cannot_be_made_stops_the_start() {
    let site = Site::new();
    fs::remove_dir_all(site.data()).unwrap();
    fs::write(site.data(), "not a directory").unwrap();
    let (code, output) = refuse(&site);
    assert!(code != 0 && output.contains("hint"), "{code} {output}");
    assert_eq!(fs::read(site.data()).unwrap(), b"not a directory");
}

#[test]
fn wrong_configuration_is_shown_with_its_place_and_exit_2() {
    let site = Site::new();
    site.configure("prot = 4301");
    let (code, output) = refuse(&site);
    assert_eq!(code, 2);
    assert!(output.contains("config.toml:1:1") && output.contains("`port`"), "{output}");
}

fn database(site: &Site) -> PathBuf {
    let is_sqlite =
        |path: &PathBuf| fs::read(path).is_ok_and(|b| b.starts_with(b"SQLite format 3"));
    let entries = fs::read_dir(site.data()).unwrap();
    entries.map(|entry| entry.unwrap().path()).find(is_sqlite).expect("a database")
}

#[test]
fn j2_a_damaged_database_stops_the_start_and_is_not_touched() {
    type Damage = (&'static str, fn(&mut Vec<u8>));
    let spoils: [Damage; 3] = [
        ("no header", |bytes| bytes[..16].fill(b'x')),
        ("a page of garbage", |bytes| bytes[4096..8192].fill(0xa5)),
        ("cut", |bytes| bytes.truncate(6000)),
    ];
    for (name, spoil) in spoils {
        let site = used_site();
        let path = database(&site);
        let mut bytes = fs::read(&path).unwrap();
        spoil(&mut bytes);
        fs::write(&path, &bytes).unwrap();
        let (code, output) = refuse(&site);
        assert_eq!(code, 4, "{name}: {output}");
        assert_eq!(fs::read(&path).unwrap(), bytes, "{name}: it was changed");
    }
}

#[test]
fn a_port_that_another_program_has_is_exit_3() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let site = Site::new();
    let (status, output) = site.try_start(port).expect_err("the port is taken");
    assert_eq!(status.code(), Some(3), "{output}");
    assert!(output.contains(&port.to_string()) && output.contains("hint"), "{output}");
}

#[test]
fn a_port_that_clawd_has_is_exit_3_and_says_so() {
    let (first, second) = (Site::new(), Site::new());
    let daemon = first.start();
    let (status, output) = second.try_start(daemon.port).expect_err("the port is taken");
    assert_eq!(status.code(), Some(3), "{output}");
    assert!(output.contains("clawd"), "{output}");
    daemon.owner();
}

#[test]
fn j1_nothing_is_open_to_others_under_umask_000() {
    let mut site = Site::new();
    site.before = Some("umask 000".to_owned());
    let daemon = site.start();
    let mut owner = daemon.owner();
    daemon.connect().pair(&mut owner, "full");
    let session = owner.create_session(&site.repo());
    owner.turn(&session, "say hello");
    let mut seen = 0;
    let mut check = |dir: &Path| {
        each_below(dir, &mut |path| {
            seen += 1;
            assert_eq!(mode(path) & 0o077, 0, "{} is {:o}", path.display(), mode(path));
        })
    };
    check(&site.data());
    assert!(daemon.stop().success());
    check(&site.data());
    assert!(seen > 5);
}

fn each_below(path: &Path, act: &mut dyn FnMut(&Path)) {
    act(path);
    if fs::symlink_metadata(path).unwrap().is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            each_below(&entry.unwrap().path(), act);
        }
    }
}

/// The inodes of the sockets that a process has open.
fn sockets(daemon: &Daemon) -> Vec<String> {
    let fds = fs::read_dir(format!("/proc/{}/fd", daemon.process.pid())).unwrap();
    let targets = fds.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
    let inode = |target: PathBuf| {
        let target = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned();
        Some(target)
    };
    targets.filter_map(inode).collect()
}

/// The lines of a table in `/proc/net` that belong to the process, split into fields.
fn lines(daemon: &Daemon, table: &str, inode_field: usize) -> Vec<Vec<String>> {
    let ours = sockets(daemon);
    let text = fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
    let fields = text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect());
    fields
        .filter(|line: &Vec<String>| line.get(inode_field).is_some_and(|i| ours.contains(i)))
        .collect()
}

#[test]
fn b7_it_listens_where_it_should_and_nowhere_else() {
    let site = Site::new();
    let daemon = site.start();
    let port = format!("{:04X}", daemon.port);
    let listening = |table| lines(&daemon, table, 9).into_iter().filter(|line| line[3] == "0A");
    let v4: Vec<_> = listening("tcp").map(|line| line[1].clone()).collect();
    assert_eq!(v4, [format!("0100007F:{port}")]);
    let v6: Vec<_> = listening("tcp6").map(|line| line[1].clone()).collect();
    let loopback = format!("00000000000000000000000001000000:{port}");
    assert!(v6.iter().all(|address| *address == loopback), "{v6:?}");
    assert!(lines(&daemon, "udp", 9).is_empty() && lines(&daemon, "udp6", 9).is_empty());
    // The flag 00010000 is __SO_ACCEPTCON.
    let unix: Vec<_> =
        lines(&daemon, "unix", 6).into_iter().filter(|l| l[3] == "00010000").collect();
    let socket = site.data().join("clawd.sock").display().to_string();
    assert_eq!(unix.len(), 1, "{unix:?}");
    assert!(socket.ends_with(unix[0][7].trim_start_matches(['.', '/'])), "{unix:?}");
    daemon.connect_unix().auth(&site.token()).expect("the Unix socket works");
}

#[test]
fn f3_nothing_announces_itself_not_even_while_a_window_is_open() {
    let site = Site::new();
    let daemon = site.start();
    let mut owner = daemon.owner();
    owner.call("daemon.pairPin", json!({})).expect("a window");
    // Where the sockets are through which a packet could go to all: with the field of the inode.
    for (table, inode_field) in
        [("udp", 9), ("udp6", 9), ("udplite", 9), ("raw", 9), ("raw6", 9), ("packet", 8)]
    {
        let found = lines(&daemon, table, inode_field);
        assert!(found.is_empty(), "{table}: {found:?}");
    }
    assert!(!sockets(&daemon).is_empty(), "its sockets are seen at all");
}

#[test]
fn a_lock_of_a_dead_daemon_does_not_stop_the_next() {
    let site = Site::new();
    site.start().kill();
    let daemon = site.start();
    daemon.connect_unix().auth(&site.token()).expect("a socket left over is replaced");
}
