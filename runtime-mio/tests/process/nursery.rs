//! A loop with children and nothing else, for the tests of both kinds.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clawd_protocol::{Command, Env, Input, ProcId, ProgramFault, Stream};
use clawd_runtime_mio::files::DataDir;
use clawd_runtime_mio::process::Processes;
use mio::{Events, Poll};

use super::common::home;

pub(crate) const NO_ENV: Env = Env { inherit: &["PATH"], set: Vec::new() };

/// The example that is a guard; cargo builds it with the tests.
pub(crate) fn guard() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let guard = test.ancestors().nth(2).unwrap().join("examples/guard");
    assert!(guard.exists(), "type: cargo build -p clawd-runtime-mio --example guard");
    guard
}

#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) out: Vec<u8>,
    pub(crate) err: Vec<u8>,
    pub(crate) fed: usize,
    pub(crate) exited: Option<Option<i32>>,
    /// The most that one turn told.
    pub(crate) turn_bytes: usize,
}

/// A loop with children and nothing else.
pub(crate) struct Nursery {
    poll: Poll,
    pub(crate) processes: Processes,
    heard: BTreeMap<ProcId, Heard>,
}

impl Nursery {
    pub(crate) fn new() -> Self {
        let dir = home();
        Self::marked_by(&DataDir::open(dir.path()).unwrap())
    }

    pub(crate) fn marked_by(dir: &DataDir) -> Self {
        let processes = Processes::new(guard(), dir.child_mark().unwrap(), 100..130);
        Self { poll: Poll::new().unwrap(), processes, heard: Default::default() }
    }

    pub(crate) fn start(&mut self, number: u64, command: &Command) -> Result<u32, ProgramFault> {
        self.processes.spawn(self.poll.registry(), ProcId(number), command)
    }

    pub(crate) fn turn(&mut self) {
        let mut events = Events::with_capacity(64);
        let soon = Some(Duration::from_millis(10));
        self.poll.poll(&mut events, soon).unwrap();
        for event in &events {
            self.processes.on_event(event.token());
        }
        self.processes.on_child_signal();
        let heard = &mut self.heard;
        let mut told = BTreeMap::<ProcId, usize>::new();
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
            | Input::Secured { .. }
            | Input::Dialed { .. }
            | Input::Heard { .. }
            | Input::HungUp { .. }
            | Input::Tick
            | Input::Shutdown) => panic!("{input:?}"),
        });
    }

    pub(crate) fn until(&mut self, what: &str, is_so: impl Fn(&mut Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !is_so(self) {
            assert!(Instant::now() < deadline, "{what}: {:?}", self.heard);
            self.turn();
        }
    }

    pub(crate) fn exit(&mut self, number: u64) -> &Heard {
        self.until("exit", |nursery| nursery.of(number).exited.is_some());
        self.of(number)
    }

    pub(crate) fn of(&mut self, number: u64) -> &mut Heard {
        self.heard.entry(ProcId(number)).or_default()
    }

    pub(crate) fn out(&mut self, number: u64) -> String {
        String::from_utf8(self.of(number).out.clone()).unwrap()
    }
}

pub(crate) fn command(program: &Path, args: &[&str], cwd: &Path) -> Command {
    Command {
        program: program.to_str().unwrap().to_owned(),
        args: args.iter().map(|&arg| arg.to_owned()).collect(),
        cwd: cwd.to_str().unwrap().to_owned(),
        repository: cwd.to_str().map(str::to_owned),
        env: NO_ENV,
    }
}

pub(crate) fn shell(text: &str, cwd: &Path) -> Command {
    command(Path::new("/bin/sh"), &["-c", text], cwd)
}

pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

pub(crate) fn pids(dir: &Path, names: &[&str]) -> Vec<u32> {
    let read = |name: &&str| fs::read_to_string(dir.join(name)).ok()?.trim().parse().ok();
    names.iter().filter_map(read).collect()
}
