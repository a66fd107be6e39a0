//! Who runs on this machine, who comes of whom, and who carries a mark.
//!
//! Owns reading the system's table of processes and signalling those that were found in it; refuses to know why. What is
//! read is a moment ago: who ended meanwhile needs no signal, who was made meanwhile is found by the next look. A number
//! does not come around again between a look and the signal after it: numbers are given in a circle.
//!
//! Only Linux shows what is needed here, in `/proc`. Elsewhere nobody is found.

use std::fs;
use std::path::PathBuf;

use rustix::process::{Pid, Signal, geteuid, getpid};

/// A process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kin {
    pub(crate) pid: Pid,
    parent: Option<Pid>,
    group: Option<Pid>,
}

/// Everybody but this process.
fn everybody() -> Vec<Kin> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| number(entry.file_name().to_str()?));
    pids.filter(|pid| *pid != getpid()).filter_map(look_at).collect()
}

fn look_at(pid: Pid) -> Option<Kin> {
    // A name in parentheses, which may hold anything, stands before the state, the parent and the group.
    let stat = fs::read(place(pid).join("stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(1);
    Some(Kin { pid, parent: fields.next().and_then(number), group: fields.next().and_then(number) })
}

/// A process that is just being taken away has -1 for its group, which to a signal would mean everybody.
fn number(text: &str) -> Option<Pid> {
    text.parse().ok().filter(|number| *number > 0).and_then(Pid::from_raw)
}

fn place(pid: Pid) -> PathBuf {
    PathBuf::from(format!("/proc/{}", pid.as_raw_pid()))
}

/// Everybody who comes of this process, in no particular order.
pub(crate) fn descendants() -> Vec<Kin> {
    let everybody = everybody();
    let (children, others) = everybody.into_iter().partition(|kin| kin.parent == Some(getpid()));
    with_descendants(children, others)
}

/// Everybody of this user whom `is_marked` knows by the environment or the arguments, and all who come of them. Who has
/// been given another environment, and whose ancestors with the mark are all gone, is not found; nor is who keeps its
/// environment from its own user, as programs do that run with more rights.
pub(crate) fn marked(is_marked: impl Fn(&Traces) -> bool) -> Vec<Kin> {
    let is_marked = |kin: &Kin| Traces::of(kin.pid).is_some_and(|traces| is_marked(&traces));
    let (found, others) = everybody().into_iter().partition(is_marked);
    with_descendants(found, others)
}

fn with_descendants(mut found: Vec<Kin>, mut others: Vec<Kin>) -> Vec<Kin> {
    let mut next = 0;
    while let Some(kin) = found.get(next) {
        let parent = Some(kin.pid);
        found.extend(others.extract_if(.., |other| other.parent == parent));
        next += 1;
    }
    found
}

/// What a process was started with.
#[derive(Debug)]
pub(crate) struct Traces {
    args: Vec<u8>,
    env: Vec<u8>,
}

impl Traces {
    fn of(pid: Pid) -> Option<Self> {
        let read = |name: &str| fs::read(place(pid).join(name)).unwrap_or_default();
        // The directory's owner would be root for a process that keeps to itself, as our guards do.
        let status = read("status");
        let owners =
            status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"Uid:"));
        let effective = str::from_utf8(owners?).ok()?.split_whitespace().nth(1)?;
        let is_ours = effective.parse() == Ok(geteuid().as_raw());
        is_ours.then(|| Self { args: read("cmdline"), env: read("environ") })
    }

    /// Whether `is_it` knows a variable, in the form `NAME=value`. A guard keeps its environment to itself, but not its
    /// arguments, where it gets what it is to set.
    pub(crate) fn has(&self, is_it: impl Fn(&[u8]) -> bool) -> bool {
        let words = |text: &[u8]| text.split(|byte| *byte == 0).any(&is_it);
        let is_guard = self.args.split(|byte| *byte == 0).nth(1) == Some(b"guard");
        words(&self.env) || is_guard && words(&self.args)
    }
}

/// Signals them all. What is stopped is woken to take a polite one. With SIGKILL their groups are killed too, all at one
/// moment: that also gets who forks faster than anybody could look.
pub(crate) fn signal(kin: &[Kin], signal: Signal) {
    // Not by getpgrp: in a pid namespace our own group can have been made outside, and then it has no number here.
    let own_group = look_at(getpid()).and_then(|own| own.group);
    for one in kin {
        let _ = rustix::process::kill_process(one.pid, signal);
        match signal {
            Signal::KILL => {
                if let Some(group) = one.group.filter(|group| Some(*group) != own_group) {
                    let _ = rustix::process::kill_process_group(group, signal);
                }
            }
            _ => {
                let _ = rustix::process::kill_process(one.pid, Signal::CONT);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_number_above_zero_is_a_process() {
        assert_eq!(number("1").map(Pid::as_raw_pid), Some(1));
        // A process that is being taken away says so of its group.
        for text in ["-1", "0", "", "self", "99999999999"] {
            assert_eq!(number(text), None, "{text}");
        }
    }
}
