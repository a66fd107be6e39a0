//! A child process whose output can be waited for.

use std::fs;
use std::io::{self, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{PATIENCE, wait_until};

/// A child whose whole output is kept.
#[derive(Debug)]
pub struct Process {
    child: Child,
    told: Arc<Output>,
}

/// What was written so far, and news of more.
pub(super) type Output = (Mutex<Told>, Condvar);

#[derive(Debug)]
pub(super) struct Told {
    text: String,
    streams_open: usize,
}

impl Process {
    /// Starts it, with both outputs read all the time.
    pub fn spawn(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", command.get_program().display()));
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let this = Self::new(child, 2);
        if let (Some(out), Some(err)) = (out, err) {
            keep(out, Arc::clone(&this.told));
            keep(err, Arc::clone(&this.told));
        }
        this
    }

    /// A child with so many outputs, which somebody reads.
    pub(super) fn new(child: Child, streams_open: usize) -> Self {
        let told = Told { text: String::new(), streams_open };
        Self { child, told: Arc::new((Mutex::new(told), Condvar::new())) }
    }

    pub(super) fn told(&self) -> Arc<Output> {
        Arc::clone(&self.told)
    }

    /// Waits until `find` finds something in the output; nothing if the output ends before.
    pub fn wait_for<T>(&mut self, find: impl Fn(&str) -> Option<T>) -> Option<T> {
        let (lock, changed) = &*self.told;
        let deadline = Instant::now() + PATIENCE;
        let mut told = lock.lock().expect("readers do not panic");
        loop {
            if let Some(found) = find(&told.text) {
                return Some(found);
            }
            if told.streams_open == 0 {
                return None;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "nothing of the kind in the output:\n{}", told.text);
            told = changed.wait_timeout(told, left).expect("readers do not panic").0;
        }
    }

    /// All that was written so far.
    #[must_use]
    pub fn output(&self) -> String {
        self.told.0.lock().expect("readers do not panic").text.clone()
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("our own child").is_some()
    }

    /// Waits for its end and for all that it wrote.
    pub fn end(&mut self) -> (ExitStatus, String) {
        let status = self.wait();
        // Nothing is found, but all outputs have ended.
        let _: Option<()> = self.wait_for(|_| None);
        (status, self.output())
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How long all of its threads have been on a core.
    ///
    /// # Errors
    /// It has ended.
    pub fn busy(&self) -> io::Result<Duration> {
        let mut total = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.pid()))? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            let nanoseconds = text.split(' ').next().and_then(|number| number.parse().ok());
            total += nanoseconds.unwrap_or(0);
        }
        Ok(Duration::from_nanos(total))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        // One that has ended is as good as one that got it.
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it does not end in time.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the process ends", PATIENCE, || {
            status = self.child.try_wait().expect("our own child");
            status.is_some()
        });
        status.expect("just seen")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn keep(mut stream: impl Read + Send + 'static, told: Arc<Output>) {
    std::thread::spawn(move || {
        let mut piece = [0; 4096];
        loop {
            let len = stream.read(&mut piece).unwrap_or(0);
            tell(&told, &piece[..len]);
            if len == 0 {
                return;
            }
        }
    });
}

/// Adds what was read from a stream; nothing is its end.
pub(super) fn tell(told: &Output, piece: &[u8]) {
    let mut now = told.0.lock().expect("waiters do not panic while they hold it");
    now.text.push_str(&String::from_utf8_lossy(piece));
    now.streams_open -= usize::from(piece.is_empty());
    told.1.notify_all();
}
