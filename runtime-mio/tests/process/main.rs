//! Children: what they get, what is heard of them, and that nothing of them is left.

#[path = "../common/mod.rs"]
mod common;
mod nursery;
mod tree;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command as StdCommand, Stdio};

use clawd_protocol::access::token::Secret;
use clawd_protocol::{Env, ProcId, ProgramFault};
use clawd_runtime_mio::files::DataDir;
use clawd_runtime_mio::store::Store;
use common::{home, script};
use nursery::{Nursery, command, guard, shell};

#[test]
fn i1_arguments_arrive_as_they_are() {
    let home = home();
    let show = script(home.path(), "show", r#"printf '[%s]' "$@""#);
    let args = ["--", "a b", "$(id)", "", "--mcp-config=/tmp/x", "é\n'\""];
    let mut nursery = Nursery::new();
    nursery.start(1, &command(&show, &args, Path::new("/usr"))).unwrap();
    assert_eq!(nursery.exit(1).exited, Some(Some(0)));
    let expected: String = args.iter().map(|arg| format!("[{arg}]")).collect();
    assert_eq!(nursery.out(1), expected);
}

#[test]
fn i2_only_a_program_that_nobody_else_can_change_is_started() {
    let home = home();
    let repo = home.path().join("repo");
    fs::create_dir(&repo).unwrap();
    let chmod =
        |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let mut nursery = Nursery::new();
    let mut start = |program: &Path| nursery.start(1, &command(program, &[], &repo)).map(|_| ());
    let rule = |result: Result<(), ProgramFault>| match result {
        Err(ProgramFault::Unsafe(rule)) => rule,
        other => panic!("{other:?}"),
    };
    let safe = script(home.path(), "safe", "exit 0");

    assert_eq!(start(&home.path().join("missing")), Err(ProgramFault::Missing));
    assert!(rule(start(home.path())).contains("not a regular file"));
    assert!(rule(start(&script(&repo, "claude", "exit 0"))).contains("lies in the repository"));
    let link = home.path().join("link");
    std::os::unix::fs::symlink(repo.join("claude"), &link).unwrap();
    assert!(rule(start(&link)).contains("lies in the repository"));
    chmod(&safe, 0o600);
    assert!(rule(start(&safe)).contains("not executable"));
    for mode in [0o720, 0o702] {
        chmod(&safe, mode);
        assert!(rule(start(&safe)).contains("can be changed by others"));
    }
    chmod(&safe, 0o700);
    for mode in [0o770, 0o1777] {
        chmod(home.path(), mode);
        assert!(rule(start(&safe)).contains("directory that others can change"));
    }
    chmod(home.path(), 0o700);
    let inner = home.path().join("inner");
    fs::create_dir(&inner).unwrap();
    chmod(&inner, 0o700);
    let deep = script(&inner, "deep", "exit 0");
    chmod(home.path(), 0o777);
    assert!(rule(start(&deep)).contains("chmod go-w"), "a parent counts too");
    chmod(home.path(), 0o700);
    if rustix::process::geteuid().is_root() {
        let other = Some(rustix::fs::Uid::from_raw(65_534));
        rustix::fs::chown(&safe, other, None).unwrap();
        assert!(rule(start(&safe)).contains("belongs to another user"));
        rustix::fs::chown(&safe, Some(rustix::process::geteuid()), None).unwrap();
    }
    assert_eq!(start(&safe), Ok(()));
}

/// Not a test of its own: a daemon with the environment and the umask that its starter gives it.
#[test]
#[ignore = "started by other tests"]
fn stand_in_daemon() {
    let Some(text) = std::env::var_os("CLAWD_STAND_IN") else { return };
    clawd_runtime_mio::files::harden();
    let home = home();
    let dir = DataDir::open(home.path()).unwrap();
    let _store = Store::open(&dir).unwrap();
    let mut nursery = Nursery::marked_by(&dir);
    let mut agent = shell(text.to_str().unwrap(), Path::new("/tmp"));
    agent.env = Env {
        inherit: &["PATH", "HOME", "MISSING"],
        set: vec![("KEY".to_owned(), Secret::new("value".to_owned()))],
    };
    nursery.start(1, &agent).unwrap();
    nursery.exit(1);
    let path = std::env::var("CLAWD_STAND_IN_OUT").unwrap();
    fs::write(path, &nursery.of(1).out).unwrap();
}

fn stand_in(agent: &str, out: &Path) -> StdCommand {
    let mut daemon = StdCommand::new(std::env::current_exe().unwrap());
    daemon
        .args(["--exact", "stand_in_daemon", "--ignored", "--nocapture"])
        .env("CLAWD_STAND_IN", agent)
        .env("CLAWD_STAND_IN_OUT", out)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    daemon
}

#[test]
fn i3_a_child_sees_what_is_named_and_nothing_else() {
    let home = home();
    let out = home.path().join("out");
    let mut daemon = stand_in("exec /usr/bin/env", &out);
    for name in [
        "LD_PRELOAD",
        "NODE_OPTIONS",
        "BASH_ENV",
        "GIT_SSH_COMMAND",
        "ANTHROPIC_BASE_URL",
        "CANARY",
    ] {
        daemon.env(name, "/canary");
    }
    daemon.env("HOME", "/home/ana").env("PATH", "relative:/usr/bin::.:/bin:../up");
    assert!(daemon.status().unwrap().success());
    let text = fs::read_to_string(out).unwrap();
    let mut lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("_=")).collect();
    lines.retain(|line| !line.starts_with("PWD=") && !line.starts_with("SHLVL="));
    lines.sort_unstable();
    let mark = lines.remove(0);
    assert!(mark.starts_with("CLAWD_CHILD="), "{mark}");
    assert_eq!(lines, ["HOME=/home/ana", "KEY=value", "PATH=/usr/bin:/bin"]);
}

#[test]
fn i4_a_child_gets_three_descriptors_no_core_files_and_the_users_umask() {
    let home = home();
    let out = home.path().join("out");
    let text = "umask; ulimit -c; ulimit -H -c; cd /proc/self/fd; echo *";
    let starter = "umask 0027; exec \"$0\" \"$@\"";
    let daemon = stand_in(text, &out);
    let mut with_umask = StdCommand::new("/bin/sh");
    with_umask.args(["-c", starter]).arg(daemon.get_program()).args(daemon.get_args());
    for (name, value) in daemon.get_envs() {
        with_umask.env(name, value.unwrap());
    }
    assert!(with_umask.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    let heard = fs::read_to_string(out).unwrap();
    let lines: Vec<&str> = heard.lines().collect();
    assert_eq!(lines[..3], ["0027", "0", "0"]);
    assert_eq!(lines[3], "0 1 2 3", "3 is the list's own");
}

#[test]
fn an_agent_may_finish_before_it_is_ended() {
    let mut nursery = Nursery::new();
    let text = "trap 'echo asked; exit 3' TERM; while read -r line; do echo \"$line\"; done; echo eof; exit 0";
    nursery.start(1, &shell(text, Path::new("/tmp"))).unwrap();
    nursery.processes.feed(ProcId(1), b"one\ntwo\n".to_vec());
    nursery.processes.finish(ProcId(1));
    nursery.processes.feed(ProcId(1), b"too late\n".to_vec());
    assert_eq!(nursery.exit(1).exited, Some(Some(0)));
    assert_eq!(nursery.out(1), "one\ntwo\neof\n");
    assert_eq!(nursery.of(1).fed, 8);
}

#[test]
fn all_that_is_fed_arrives_and_all_that_is_written_is_heard() {
    let mut nursery = Nursery::new();
    nursery.start(1, &command(Path::new("/bin/cat"), &[], Path::new("/tmp"))).unwrap();
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[n as usize % 3]).collect();
    for piece in bytes.chunks(70_001) {
        nursery.processes.feed(ProcId(1), piece.to_vec());
    }
    nursery.processes.finish(ProcId(1));
    assert_eq!(nursery.exit(1).exited, Some(Some(0)));
    let heard = nursery.of(1);
    assert!(heard.out == bytes);
    assert_eq!(heard.fed, bytes.len());
}

#[test]
fn c6_a_flood_gets_its_share_of_a_turn_and_no_more() {
    let mut nursery = Nursery::new();
    nursery.start(1, &shell("exec yes 1>&2", Path::new("/tmp"))).unwrap();
    nursery.until("the flood", |nursery| nursery.of(1).err.len() > 1_000_000);
    nursery.start(2, &shell("echo quiet", Path::new("/tmp"))).unwrap();
    assert_eq!(nursery.exit(2).exited, Some(Some(0)));
    assert_eq!(nursery.out(2), "quiet\n");
    assert!(nursery.of(1).turn_bytes <= 64 * 1024, "{}", nursery.of(1).turn_bytes);
    nursery.processes.kill(ProcId(1));
    nursery.exit(1);
}

#[test]
fn a_child_that_reads_nothing_still_ends() {
    let mut nursery = Nursery::new();
    nursery.start(1, &shell("exec sleep 1000", Path::new("/tmp"))).unwrap();
    nursery.processes.feed(ProcId(1), vec![b'x'; 1_000_000]);
    nursery.until("a full pipe", |nursery| nursery.of(1).fed > 64 * 1024);
    assert!(nursery.of(1).fed < 1_000_000, "nobody keeps what the agent does not take");
    nursery.processes.kill(ProcId(1));
    assert_eq!(nursery.exit(1).exited, Some(None));
}

#[test]
fn what_does_not_start_says_why() {
    let home = home();
    let mut nursery = Nursery::new();
    let broken = home.path().join("broken");
    fs::write(&broken, "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(&broken, fs::Permissions::from_mode(0o700)).unwrap();
    nursery.start(1, &command(&broken, &[], Path::new("/usr"))).unwrap();
    assert_eq!(nursery.exit(1).exited, Some(Some(127)));
    let said = String::from_utf8(nursery.of(1).err.clone()).unwrap();
    assert!(said.contains("broken: No such file"), "{said}");
    let nowhere = command(Path::new("/bin/cat"), &[], &home.path().join("nowhere"));
    assert!(matches!(nursery.start(2, &nowhere), Err(ProgramFault::Failed(_))));
    for number in 10..20 {
        nursery.start(number, &command(Path::new("/bin/cat"), &[], Path::new("/tmp"))).unwrap();
    }
    let one_more = command(Path::new("/bin/cat"), &[], Path::new("/tmp"));
    assert!(matches!(nursery.start(20, &one_more), Err(ProgramFault::Failed(_))));
    for number in 10..20 {
        nursery.processes.finish(ProcId(number));
        nursery.exit(number);
    }
    nursery.start(20, &one_more).expect("their places are free again");
}

#[test]
fn the_guard_says_when_it_is_misused() {
    let mut child =
        StdCommand::new(guard()).args(["guard", "--"]).stderr(Stdio::piped()).spawn().unwrap();
    let line = BufReader::new(child.stderr.take().unwrap()).lines().next().unwrap().unwrap();
    assert!(line.contains("for clawd itself"), "{line}");
    assert_eq!(child.wait().unwrap().code(), Some(2));
}
