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
    crate::kin::signal(&crate::kin::descendants(), signal);
}

#[cfg(not(target_os = "linux"))]
pub(super) fn signal(agent: Pid, signal: Signal) {
    let _ = rustix::process::kill_process_group(agent, signal);
    let _ = rustix::process::kill_process_group(agent, Signal::CONT);
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
