//! What agents may leave behind, keep open and use up: nothing (security I4).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use clawd_tests::daemon::{Client, Daemon, PATIENCE, Site, wait_until, write_private};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

/// Processes and their arguments, but for the dead.
fn everybody() -> Vec<(u32, String)> {
    let all = fs::read_dir("/proc").unwrap();
    let pids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let args = |pid: u32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    pids.map(|pid| (pid, args(pid).replace('\0', " ")))
        .filter(|(_, args)| !args.is_empty())
        .collect()
}

fn running(part: &str) -> Vec<u32> {
    everybody().into_iter().filter(|(_, args)| args.contains(part)).map(|(pid, _)| pid).collect()
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn guards(daemon: &Daemon) -> Vec<u32> {
    let is_its = |pid: &u32| parent(*pid) == Some(daemon.process.pid());
    running(" guard -- ").into_iter().filter(is_its).collect()
}

fn send(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), signal).unwrap();
}

/// A number of seconds to sleep that nobody else has, to be known by.
fn sleep_mark(kind: u32) -> String {
    format!("sleep 3153{kind}{:05}", std::process::id() % 100_000)
}

/// A session whose agent runs a tool that runs on, in a session of its own and ignoring polite signals.
fn leave_running(owner: &mut Client, site: &Site, mark: &str) {
    let session = owner.create_session(&site.repo());
    let command = format!("trap '' TERM HUP; setsid {mark} & exec {mark}");
    owner.prompt(&session, &format!("tool {command}")).unwrap();
    let asked = owner.wait_event("session.toolCallCreated", |event| {
        event["sessionId"] == *session && event["toolCall"]["status"] == "pending"
    });
    let ids = json!({"sessionId": session, "toolCallId": asked["toolCall"]["id"]});
    owner.call("tool.approve", ids).unwrap();
    wait_until("the tool runs", PATIENCE, || running(mark).len() >= 2);
}

#[test]
fn i4_what_an_earlier_daemon_left_is_ended_at_the_next_start_and_nobody_else_is() {
    let (site, neighbour) = (Site::new(), Site::new());
    let (daemon, other) = (site.start(), neighbour.start());
    let (ours, theirs, by_hand) = (sleep_mark(1), sleep_mark(2), sleep_mark(3));
    leave_running(&mut daemon.owner(), &site, &ours);
    leave_running(&mut other.owner(), &neighbour, &theirs);
    let seconds = by_hand.split_once(' ').unwrap().1;
    let mut owners = std::process::Command::new("sleep").arg(seconds).spawn().unwrap();

    // It must not notice, or it would end them itself.
    daemon.process.signal(Signal::STOP);
    for guard in guards(&daemon) {
        send(guard, Signal::KILL);
    }
    daemon.kill();
    let orphans = running(&ours);
    assert!(orphans.len() >= 2, "nobody was there to end them");

    let daemon = site.start();
    assert_eq!(running(&ours), [0_u32; 0], "before anybody is served");
    assert!(daemon.process.output().contains("an earlier daemon had left"));
    assert!(running(&theirs).len() >= 2, "another daemon's");
    assert_eq!(running(&by_hand).len(), 1, "the owner's own");
    owners.kill().unwrap();
    owners.wait().unwrap();
    // And a start that finds nothing says nothing.
    assert!(daemon.stop().success());
    assert!(!site.start().process.output().contains("an earlier daemon"));
}

#[test]
fn i4_a_session_goes_on_after_its_guard_was_killed() {
    let site = Site::new();
    let daemon = site.start();
    let mut owner = daemon.owner();
    let mark = sleep_mark(4);
    leave_running(&mut owner, &site, &mark);
    let session =
        owner.call("session.list", json!({})).unwrap()[0]["id"].as_str().unwrap().to_owned();
    for guard in guards(&daemon) {
        send(guard, Signal::KILL);
    }
    owner.wait_event("session.statusChanged", |event| event["status"] == "error");
    assert_eq!(running(&mark), [0_u32; 0], "before its end is told");
    owner.call("session.resume", json!({"sessionId": session})).unwrap();
    assert_eq!(owner.turn(&session, "say well"), "well");
}

#[test]
fn i4_a_daemon_keeps_nothing_open_that_its_starter_left_open() {
    let mut site = Site::new();
    site.before = Some("exec 9</etc/passwd".to_owned());
    let daemon = site.start();
    let open = fs::read_dir(format!("/proc/{}/fd", daemon.process.pid())).unwrap();
    let targets: Vec<_> = open.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok()).collect();
    assert!(targets.len() > 3, "{targets:?}");
    assert!(!targets.iter().any(|target| target == Path::new("/etc/passwd")), "{targets:?}");
}

/// A site whose claude floods, in this way, whatever it is told.
fn flooding(how: &str) -> Site {
    let site = Site::new();
    let path = site.home().join("claude");
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in\n--version) echo '2.1.330 (Claude Code)';;\n\
         'auth status') echo '{{\"loggedIn\":true}}';;\n*) {how}; exec cat > /dev/null;;\nesac\n"
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    let toml = format!("[provider.claude]\npath = \"{}\"\n", path.display());
    write_private(&site.data().join("config.toml"), toml.as_bytes());
    site
}

/// The most memory that a process ever had, in MiB.
fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// Floods the daemon; others must be served meanwhile, and memory must not grow.
fn flood(how: &str) {
    let site = flooding(&format!("{how}; echo > {}/flooded", "$HOME"));
    let daemon = site.start();
    let before = peak(daemon.process.pid());
    let mut owner = daemon.owner();
    let session = owner.create_session(&site.repo());
    owner.prompt(&session, "go").unwrap();
    let mut other = daemon.owner();
    let mut slowest = Duration::ZERO;
    let done = site.home().join("flooded");
    wait_until("the flood is over, or was ended", 3 * PATIENCE, || {
        let asked = Instant::now();
        other.call("daemon.ping", json!({})).unwrap();
        slowest = slowest.max(asked.elapsed());
        let status = other.call("session.get", json!({"sessionId": session})).unwrap();
        status["status"] == "error" || done.exists()
    });
    let grown = peak(daemon.process.pid()) - before;
    assert!(grown < 48, "{grown} MiB more for: {how:.80}");
    assert!(slowest < Duration::from_secs(2), "{slowest:?} for a ping in: {how:.80}");
}

const DELTA: &str = r#"{"type":"stream_event","parent_tool_use_id":null,"event":{"type":"content_block_delta","delta":{"type":"text_delta","text":"a wordy one "}}}"#;
const TOOL: &str = r#"{"type":"assistant","parent_tool_use_id":null,"message":{"content":[{"type":"tool_use","id":"t","name":"Bash","input":{"command":"true"}}]}}"#;

#[test]
fn i4_a_flood_without_a_line_feed_costs_no_memory_and_holds_nobody_up() {
    flood("head -c 100000000 /dev/zero | tr '\\0' x");
}

#[test]
fn i4_a_flood_of_lines_costs_no_memory_and_holds_nobody_up() {
    flood("yes | head -c 100000000");
    let padding = "x".repeat(4000);
    flood(&format!("yes '{{\"type\":\"unknown\",\"text\":\"{padding}\"}}' | head -c 100000000"));
}

#[test]
fn i4_a_flood_of_errors_costs_no_memory_and_holds_nobody_up() {
    flood("yes | head -c 100000000 >&2");
}

#[test]
fn i4_a_flood_of_words_and_tools_costs_no_memory_and_holds_nobody_up() {
    flood(&format!("yes '{DELTA}' | head -c 20000000"));
    flood(&format!("yes '{TOOL}' | head -c 5000000"));
}

/// Children of the daemon that have ended and were not seen off.
fn zombies_of(daemon: &Daemon) -> Vec<u32> {
    let all = fs::read_dir("/proc").unwrap();
    let pids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_zombie = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
    };
    pids.filter(|pid| parent(*pid) == Some(daemon.process.pid()) && is_zombie(pid)).collect()
}

#[test]
fn i4_no_end_of_an_agent_leaves_a_zombie() {
    let site = Site::new();
    let daemon = site.start();
    let mut owner = daemon.owner();
    for prompt in ["say bye", "crash", "garbage\ncrash", "hang", "fail 401"] {
        let session = owner.create_session(&site.repo());
        owner.prompt(&session, prompt).unwrap();
        owner.wait_event("session.statusChanged", |it| it["sessionId"] == *session);
        if prompt != "hang" {
            owner.wait_event("session.statusChanged", |it| {
                it["sessionId"] == *session && it["status"] != "running"
            });
        }
        owner.call("session.delete", json!({"sessionId": session})).unwrap();
    }
    owner.call("daemon.checkProvider", json!({"provider": "claude"})).unwrap();
    wait_until("all guards have ended", PATIENCE, || guards(&daemon).is_empty());
    wait_until("all that ended was seen off", PATIENCE, || zombies_of(&daemon).is_empty());
}
