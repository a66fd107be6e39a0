//! The mark by which a daemon knows its children again.
//!
//! Owns one variable in every child's environment, `CLAWD_CHILD=<data directory>.<child>`, and ending those who carry it;
//! refuses to know why they are still there. It is no secret and opens nothing: whoever reads a process's environment
//! may know whose child it is. The first part is random, made once for a data directory and kept in it, together with
//! the directory's own number, so that a copied directory does not claim the other one's children.
//!
//! A child hands it on to all that it starts, also to what it means to leave running: that is ended with it.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::kin;

const NAME: &str = "CLAWD_CHILD";

/// From SIGTERM to SIGKILL in a sweep.
const END_TIMEOUT: Duration = Duration::from_millis(1500);
/// From the first SIGKILL until those who do not die of it are left to themselves.
pub(super) const KILL_TIMEOUT: Duration = Duration::from_secs(3);
/// Between two looks.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A data directory's mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark(String);

impl Mark {
    pub(crate) fn new(random: &str, dir: &Metadata) -> Self {
        Self(format!("{NAME}={random}-{:x}-{:x}", dir.dev(), dir.ino()))
    }

    /// One child's own.
    pub(crate) fn of(&self, child: &str) -> ChildMark {
        ChildMark(format!("{}.{child}", self.0))
    }

    fn bearers(&self) -> Vec<kin::Kin> {
        let is_ours =
            |word: &[u8]| word.strip_prefix(self.0.as_bytes()).is_some_and(|w| w.starts_with(b"."));
        kin::marked(|traces| traces.has(is_ours))
    }

    /// Ends all children and what came of them: for the start, when whoever is left is of an earlier life. Politely
    /// first; says how many there were, and how many do not end.
    pub(crate) fn sweep(&self) -> (usize, usize) {
        let first = self.bearers();
        if first.is_empty() {
            return (0, 0);
        }
        kin::signal(&first, Signal::TERM);
        let left = self.look_until(Instant::now() + END_TIMEOUT, |_| {});
        if left == 0 {
            return (first.len(), 0);
        }
        let deadline = Instant::now() + KILL_TIMEOUT;
        (first.len(), self.look_until(deadline, |left| kin::signal(left, Signal::KILL)))
    }

    /// Looks again and again until nobody is left or it is time; how many are left.
    fn look_until(&self, deadline: Instant, act: impl Fn(&[kin::Kin])) -> usize {
        loop {
            let left = self.bearers();
            if left.is_empty() || deadline <= Instant::now() {
                return left.len();
            }
            act(&left);
            thread::sleep(LOOK_EVERY);
        }
    }
}

/// A child's mark.
#[derive(Debug, Clone)]
pub(crate) struct ChildMark(String);

impl ChildMark {
    /// As the guard gets it among its arguments.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// As it stands in an environment.
    pub(crate) fn variable(&self) -> (&'static str, &str) {
        (NAME, self.0.split_once('=').map_or("", |(_, value)| value))
    }

    /// Kills until nobody is left, within a bound.
    pub(crate) fn end(&self) {
        let deadline = Instant::now() + KILL_TIMEOUT;
        while !self.kill() && Instant::now() < deadline {
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Kills whoever carries it, and what came of them; true once nobody is left.
    pub(crate) fn kill(&self) -> bool {
        let left = kin::marked(|traces| traces.has(|word| word == self.0.as_bytes()));
        kin::signal(&left, Signal::KILL);
        left.is_empty()
    }
}
