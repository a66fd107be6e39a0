//! All that came of an agent.
//!
//! Owns finding and signalling the tree; refuses to know when. On Linux orphans of the tree become the guard's children,
//! whatever session or group they chose, so a walk down from the guard finds all. Elsewhere there is only the group.

use rustix::process::{Pid, Signal};

#[cfg(target_os = "linux")]
pub(super) fn adopt_orphans() -> std::io::Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(Into::into)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn adopt_orphans() -> std::io::Result<()> {
    Ok(())
}

/// Sends the signal to everybody in the tree. Who ends meanwhile needs none; who is made meanwhile gets the next.
#[cfg(target_os = "linux")]
pub(super) fn signal(_agent: Pid, signal: Signal) {
    for pid in descendants(rustix::process::getpid()) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn signal(agent: Pid, signal: Signal) {
    let _ = rustix::process::kill_process_group(agent, signal);
}

/// Whether nobody is left, given that the guard has no child any more: on Linux that says it all.
#[cfg(target_os = "linux")]
pub(super) fn is_empty(_agent: Pid) -> bool {
    true
}

#[cfg(not(target_os = "linux"))]
pub(super) fn is_empty(agent: Pid) -> bool {
    rustix::process::test_kill_process_group(agent).is_err()
}

/// Everybody below `root`, in no particular order.
#[cfg(target_os = "linux")]
fn descendants(root: Pid) -> Vec<Pid> {
    use std::collections::HashMap;

    let mut children: HashMap<Pid, Vec<Pid>> = HashMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw)
        else {
            continue;
        };
        // A name in parentheses, which may hold anything, stands before the state and the parent.
        let stat = std::fs::read(entry.path().join("stat")).unwrap_or_default();
        let stat = String::from_utf8_lossy(&stat);
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1));
        if let Some(parent) = parent.and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = children.remove(&root).unwrap_or_default();
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        found.extend(children.remove(pid).unwrap_or_default());
        next += 1;
    }
    found
}
