//! What comes of an agent: nothing of it is left (security I4).

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command as StdCommand, Stdio};
use std::time::{Duration, Instant};

use clawd_protocol::ProcId;
use rustix::process::{Pid, Signal, kill_process};

use super::common::{home, wait_for};
use super::nursery::{Nursery, guard, is_alive, pids, shell};
use super::stand_in;

fn send(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), signal).unwrap();
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
    send(guard, Signal::KILL);
    assert_eq!(nursery.exit(1).exited, Some(None));
    wait_for("the end of the agent", || !is_alive(agent));
}

#[test]
fn i4_the_tree_of_a_guard_that_was_killed_is_ended_whatever_session_it_is_in() {
    let home = home();
    let mut nursery = Nursery::new();
    // One that is stopped, and one that has thrown its environment away.
    let text = format!(
        "cd {}
         sh -c 'echo $$ > stopped; kill -STOP $$' &
         env -i setsid sh -c 'echo $$ > bare; exec sleep 1000' &
         {}",
        home.path().display(),
        stubborn(home.path())
    );
    let guard = nursery.start(1, &shell(&text, Path::new("/tmp"))).unwrap();
    let names = ["first", "second", "third", "stopped", "bare"];
    nursery.until("the tree", |_| pids(home.path(), &names).len() == 5);
    let tree = pids(home.path(), &names);
    send(guard, Signal::KILL);
    assert_eq!(nursery.exit(1).exited, Some(None));
    assert!(!tree.iter().any(|&pid| is_alive(pid)), "before the end is told");
}

#[test]
fn i4_another_agents_tree_is_left_alone() {
    let homes = [home(), home()];
    let mut nursery = Nursery::new();
    let guards: Vec<u32> = [1, 12]
        .iter()
        .zip(&homes)
        .map(|(&number, home)| {
            nursery.start(number, &shell(&stubborn(home.path()), Path::new("/tmp"))).unwrap()
        })
        .collect();
    let trees = || homes.each_ref().map(|home| pids(home.path(), &STUBBORN));
    nursery.until("both trees", |_| trees().iter().all(|tree| tree.len() == 3));
    let [first, other] = trees();
    send(guards[0], Signal::KILL);
    nursery.exit(1);
    assert!(!first.iter().any(|&pid| is_alive(pid)));
    assert!(other.iter().all(|&pid| is_alive(pid)), "its number begins like the first one's");
    nursery.processes.kill(ProcId(12));
    nursery.exit(12);
}

#[test]
fn i4_a_stopped_agent_is_woken_to_end_politely() {
    let mut nursery = Nursery::new();
    let text = "trap 'echo asked; exit 3' TERM; echo $$; kill -STOP $$; while :; do sleep 1; done";
    nursery.start(1, &shell(text, Path::new("/tmp"))).unwrap();
    nursery.until("its number", |nursery| nursery.of(1).out.ends_with(b"\n"));
    let agent = nursery.out(1).trim().parse::<u32>().unwrap();
    wait_for("the stop", || state(agent) == Some('T'));
    nursery.processes.kill(ProcId(1));
    assert_eq!(nursery.exit(1).exited, Some(Some(3)));
    assert!(nursery.out(1).ends_with("asked\n"));
}

/// `R`, `S`, `T`, `Z`, …
fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

#[test]
fn i4_a_stopped_guard_holds_nothing_up() {
    let mut nursery = Nursery::new();
    let guard = nursery.start(1, &shell("exec sleep 1000", Path::new("/tmp"))).unwrap();
    send(guard, Signal::STOP);
    wait_for("the stop", || state(guard) == Some('T'));
    let asked = Instant::now();
    nursery.processes.kill(ProcId(1));
    assert_eq!(nursery.exit(1).exited, Some(None));
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
}

#[test]
fn i4_a_guard_that_does_not_end_in_time_is_killed_with_its_tree() {
    let home = home();
    let mut nursery = Nursery::new();
    // Out of the guard's reach: it is stopped again and again by somebody who is not in its tree.
    let guard = nursery.start(1, &shell(&stubborn(home.path()), Path::new("/tmp"))).unwrap();
    nursery.until("the tree", |_| pids(home.path(), &STUBBORN).len() == 3);
    let tree = pids(home.path(), &STUBBORN);
    let text = format!("while kill -STOP {guard}; do :; done");
    let mut other = StdCommand::new("/bin/sh").args(["-c", &text]).spawn().unwrap();
    wait_for("the stop", || state(guard) == Some('T'));
    let asked = Instant::now();
    nursery.processes.kill(ProcId(1));
    nursery.exit(1);
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    assert!(!tree.iter().any(|&pid| is_alive(pid)));
    other.wait().unwrap();
}

#[test]
fn i4_no_child_of_an_agent_stays_a_zombie() {
    let home = home();
    let mut nursery = Nursery::new();
    // Children, grandchildren whose parents are gone, and some in sessions of their own, all short.
    let text = format!(
        "cd {}; n=0; while [ $n -lt 60 ]; do n=$((n+1)); \
           true & (true & (setsid true &)); setsid sh -c 'true & exit' & \
         done; wait; echo $$; exec sleep 1000",
        home.path().display()
    );
    let guard = nursery.start(1, &shell(&text, Path::new("/tmp"))).unwrap();
    nursery.until("the children", |nursery| nursery.of(1).out.ends_with(b"\n"));
    let children = || {
        let path = format!("/proc/{guard}/task/{guard}/children");
        fs::read_to_string(path).unwrap().split_whitespace().count()
    };
    wait_for("all but the agent to be gone", || children() == 1);
    nursery.processes.kill(ProcId(1));
    nursery.exit(1);
    assert_eq!(state(guard), None, "nor the guard");
}

#[test]
fn i4_who_forks_faster_than_anybody_looks_is_ended_too() {
    if !Path::new("/usr/bin/perl").exists() {
        let _ = writeln!(std::io::stderr(), "SKIPPED i4_who_forks_faster: there is no perl");
        return;
    }
    let home = home();
    let begun = home.path().join("begun");
    // Each lives for a microsecond, and the next one has begun by then. Some day it ends, should this test fail.
    let forks = "open F, q(>), $ARGV[0]; while (time < $^T + 30) { exit if fork }";
    let text = format!("perl -e '{forks}' {} & exec sleep 1000", begun.display());
    let mut nursery = Nursery::new();
    nursery.start(1, &shell(&text, Path::new("/tmp"))).unwrap();
    nursery.until("it forks", |_| begun.exists());
    let asked = Instant::now();
    nursery.processes.kill(ProcId(1));
    nursery.exit(1);
    assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
    assert_eq!(String::from_utf8_lossy(&nursery.of(1).err), "", "the guard gave nobody up");
}

#[test]
fn i4_a_guard_closes_what_its_starter_left_open_and_leaves_its_session() {
    let text = "cd /proc/self/fd; echo *; cut -d' ' -f5,6 /proc/self/stat; cat < /dev/tty";
    let starter = "exec 7</etc/passwd 9>/dev/null; exec \"$0\" \"$@\"";
    let output = StdCommand::new("/bin/sh")
        .args(["-c", starter])
        .arg(guard())
        .args(["guard", "--", "keep", "CLAWD_CHILD=x.1", "/bin/sh", "-c", text])
        .stdin(Stdio::piped())
        .output()
        .unwrap();
    let heard = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = heard.lines().collect();
    assert_eq!(lines[0], "0 1 2 3", "3 is the list's own");
    let (group, session) = lines[1].split_once(' ').unwrap();
    assert_ne!(group, session, "the agent leads a group in the guard's session");
    // As the kernel says it, because in a pid namespace our own session can have begun outside: it is 0 then.
    let own = std::fs::read_to_string("/proc/self/stat").unwrap();
    let own = own.rsplit_once(") ").unwrap().1.split(' ').nth(3).unwrap();
    assert_ne!(session, own);
    assert_ne!(session, "0", "a session of its own");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("/dev/tty"), "it has no terminal: {said}");
}
