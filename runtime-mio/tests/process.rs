//! Children: what they get, what is heard of them, and that nothing of them is left.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command as StdCommand, Stdio};
use std::time::{Duration, Instant};

use clawd_protocol::access::token::Secret;
use clawd_protocol::{Command, Env, Input, ProcId, ProgramFault, Stream};
use clawd_runtime_mio::files::DataDir;
use clawd_runtime_mio::process::Processes;
use clawd_runtime_mio::store::Store;
use common::{home, script, wait_for};
use mio::{Events, Poll};

const NO_ENV: Env = Env { inherit: &["PATH"], set: Vec::new() };

/// The example that is a guard; cargo builds it with the tests.
fn guard() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let guard = test.ancestors().nth(2).unwrap().join("examples/guard");
    assert!(guard.exists(), "type: cargo build -p clawd-runtime-mio --example guard");
    guard
}

#[derive(Debug, Default)]
struct Heard {
    out: Vec<u8>,
    err: Vec<u8>,
    fed: usize,
    exited: Option<Option<i32>>,
    /// The most that one turn told.
    turn_bytes: usize,
}

/// A loop with children and nothing else.
struct Nursery {
    poll: Poll,
    processes: Processes,
    heard: std::collections::BTreeMap<ProcId, Heard>,
}

impl Nursery {
    fn new() -> Self {
        let dir = home();
        Self::marked_by(&DataDir::open(dir.path()).unwrap())
    }

    fn marked_by(dir: &DataDir) -> Self {
        let processes = Processes::new(guard(), dir.child_mark().unwrap(), 100..130);
        Self { poll: Poll::new().unwrap(), processes, heard: Default::default() }
    }

    fn start(&mut self, number: u64, command: &Command) -> Result<u32, ProgramFault> {
        self.processes.spawn(self.poll.registry(), ProcId(number), command)
    }

    fn turn(&mut self) {
        let mut events = Events::with_capacity(64);
        let soon = Some(Duration::from_millis(10));
        self.poll.poll(&mut events, soon).unwrap();
        for event in &events {
            self.processes.on_event(event.token());
        }
        self.processes.on_child_signal();
        let heard = &mut self.heard;
        let mut told = std::collections::BTreeMap::<ProcId, usize>::new();
        let _ = self.processes.work(&mut |input| match input {
            Input::Output { proc, stream, bytes } => {
                let heard = heard.entry(proc).or_default();
                assert_eq!(heard.exited, None, "nothing is told after the end");
                *told.entry(proc).or_default() += bytes.len();
                heard.turn_bytes = heard.turn_bytes.max(told[&proc]);
                match stream {
                    Stream::Out => heard.out.extend_from_slice(bytes),
                    Stream::Err => heard.err.extend_from_slice(bytes),
                }
            }
            Input::Fed { proc, bytes } => heard.entry(proc).or_default().fed += bytes,
            Input::Exited { proc, code } => {
                let before = heard.entry(proc).or_default().exited.replace(code);
                assert_eq!(before, None, "the end is told once");
            }
            input @ (Input::Started { .. }
            | Input::Opened { .. }
            | Input::Requested { .. }
            | Input::Began { .. }
            | Input::Text { .. }
            | Input::Broke { .. }
            | Input::Flushed { .. }
            | Input::Closed { .. }
            | Input::Stored { .. }
            | Input::Answered { .. }
            | Input::Spawned { .. }
            | Input::Tick
            | Input::Shutdown) => panic!("{input:?}"),
        });
    }

    fn until(&mut self, what: &str, is_so: impl Fn(&mut Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !is_so(self) {
            assert!(Instant::now() < deadline, "{what}: {:?}", self.heard);
            self.turn();
        }
    }

    fn exit(&mut self, number: u64) -> &Heard {
        self.until("exit", |nursery| nursery.of(number).exited.is_some());
        self.of(number)
    }

    fn of(&mut self, number: u64) -> &mut Heard {
        self.heard.entry(ProcId(number)).or_default()
    }

    fn out(&mut self, number: u64) -> String {
        String::from_utf8(self.of(number).out.clone()).unwrap()
    }
}

fn command(program: &Path, args: &[&str], cwd: &Path) -> Command {
    Command {
        program: program.to_str().unwrap().to_owned(),
        args: args.iter().map(|&arg| arg.to_owned()).collect(),
        cwd: cwd.to_str().unwrap().to_owned(),
        env: NO_ENV,
    }
}

fn shell(text: &str, cwd: &Path) -> Command {
    command(Path::new("/bin/sh"), &["-c", text], cwd)
}

fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

fn pids(dir: &Path, names: &[&str]) -> Vec<u32> {
    let read = |name: &&str| fs::read_to_string(dir.join(name)).ok()?.trim().parse().ok();
    names.iter().filter_map(read).collect()
}

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
    // What a plain child of ours gets: standard streams, and what this test's own starter left open.
    let plain = StdCommand::new("/bin/sh").args(["-c", text]).output().unwrap();
    let plain = String::from_utf8(plain.stdout).unwrap();
    assert_eq!(lines[3], plain.lines().last().unwrap(), "nothing of the daemon's");
}

/// An agent that does not want to end, with one child in a session of its own that does not either.
fn stubborn(dir: &Path) -> String {
    format!(
        "trap '' TERM INT HUP; cd {dir}
         setsid sh -c 'trap \"\" TERM HUP; sh -c \"echo \\$\\$ > third; exec sleep 1000\" & \
           echo $$ > second; while :; do sleep 1000; done' &
         echo $$ > first
         while :; do sleep 1000; done",
        dir = dir.display()
    )
}

const STUBBORN: [&str; 3] = ["first", "second", "third"];

#[test]
fn i4_nothing_survives_a_daemon_that_was_killed() {
    let home = home();
    let mut daemon = stand_in(&stubborn(home.path()), &home.path().join("out")).spawn().unwrap();
    wait_for("the tree", || pids(home.path(), &STUBBORN).len() == 3);
    let tree = pids(home.path(), &STUBBORN);
    assert!(tree.iter().all(|&pid| is_alive(pid)));
    daemon.kill().unwrap();
    let killed = Instant::now();
    daemon.wait().unwrap();
    wait_for("the end of the tree", || !tree.iter().any(|&pid| is_alive(pid)));
    assert!(killed.elapsed() < Duration::from_secs(5), "{:?}", killed.elapsed());
}

#[test]
fn i4_kill_ends_the_whole_tree() {
    let home = home();
    let mut nursery = Nursery::new();
    nursery.start(1, &shell(&stubborn(home.path()), Path::new("/tmp"))).unwrap();
    nursery.until("the tree", |_| pids(home.path(), &STUBBORN).len() == 3);
    let tree = pids(home.path(), &STUBBORN);
    let asked = Instant::now();
    nursery.processes.kill(ProcId(1));
    assert_eq!(nursery.exit(1).exited, Some(None), "a signal ended it");
    assert!(asked.elapsed() < Duration::from_secs(5));
    assert!(!tree.iter().any(|&pid| is_alive(pid)), "before the end is told");
}

#[test]
fn i4_what_an_agent_leaves_behind_is_ended_with_it() {
    let home = home();
    let text = format!(
        "cd {}; setsid sh -c 'echo $$ > first; exec sleep 1000' & \
         while [ ! -s first ]; do :; done; exit 7",
        home.path().display()
    );
    let mut nursery = Nursery::new();
    nursery.start(1, &shell(&text, Path::new("/tmp"))).unwrap();
    assert_eq!(nursery.exit(1).exited, Some(Some(7)));
    assert!(!is_alive(pids(home.path(), &["first"])[0]));
}

#[test]
fn i4_an_agent_whose_guard_was_killed_is_ended_too() {
    let mut nursery = Nursery::new();
    let text = "echo $$; trap '' TERM HUP; while :; do sleep 1000; done";
    let guard = nursery.start(1, &shell(text, Path::new("/tmp"))).unwrap();
    nursery.until("its number", |nursery| nursery.of(1).out.ends_with(b"\n"));
    let agent = nursery.out(1).trim().parse().unwrap();
    let guard = rustix::process::Pid::from_raw(guard.try_into().unwrap()).unwrap();
    rustix::process::kill_process(guard, rustix::process::Signal::KILL).unwrap();
    assert_eq!(nursery.exit(1).exited, Some(None));
    wait_for("the end of the agent", || !is_alive(agent));
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
