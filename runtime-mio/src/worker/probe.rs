//! Running a program to hear what it says about itself.
//!
//! Owns one short run at a time; refuses to know what the words mean.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clawd_protocol::{Env, Probe, Program, ProgramFault, Run};
use mio::unix::pipe::Receiver;
use mio::{Events, Interest, Poll, Token};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

use crate::process::{ChildMark, environment, find};

const OUTPUT_BYTES_MAX: usize = 64 * 1024;
/// Between two looks at a program that has closed its output and not ended.
const LOOK_EVERY: Duration = Duration::from_millis(5);

pub(super) fn probe(
    program: &Program,
    runs: &[Vec<String>],
    env: &Env,
    mark: &ChildMark,
    timeout: Duration,
) -> Result<Probe, ProgramFault> {
    let path = find(program)?;
    let runs: io::Result<Vec<Run>> =
        runs.iter().map(|args| run(&path, args, env, mark, timeout)).collect();
    let runs = runs.map_err(|error| ProgramFault::Failed(error.to_string()))?;
    let path = path.into_os_string().into_string();
    let path = path.map_err(|_| ProgramFault::Failed("its path is not UTF-8".to_owned()))?;
    Ok(Probe { path, runs })
}

fn run(
    program: &Path,
    args: &[String],
    env: &Env,
    mark: &ChildMark,
    timeout: Duration,
) -> io::Result<Run> {
    let deadline = Instant::now() + timeout;
    let (name, value) = mark.variable();
    let mut child = Command::new(program)
        .args(args)
        .env_clear()
        .envs(environment(env))
        .env(name, value)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let heard = hear(&mut child, deadline);
    let status = end(&mut child, deadline)?;
    // It may have left something in a session of its own.
    mark.end();
    let [stdout, stderr] = heard?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Ok(Run { code: status.code(), stdout, stderr })
}

/// Both outputs, each cut at the limit, until both are closed or time is up.
fn hear(child: &mut Child, deadline: Instant) -> io::Result<[Vec<u8>; 2]> {
    let no_pipe = || io::Error::other("no pipe");
    let mut pipes = [
        Some(Receiver::from(child.stdout.take().ok_or_else(no_pipe)?)),
        Some(Receiver::from(child.stderr.take().ok_or_else(no_pipe)?)),
    ];
    let mut poll = Poll::new()?;
    for (number, pipe) in pipes.iter_mut().flatten().enumerate() {
        pipe.set_nonblocking(true)?;
        poll.registry().register(pipe, Token(number), Interest::READABLE)?;
    }
    let mut heard = [Vec::new(), Vec::new()];
    let mut events = Events::with_capacity(4);
    while pipes.iter().any(Option::is_some) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        match poll.poll(&mut events, Some(left)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for (pipe, heard) in pipes.iter_mut().zip(&mut heard) {
            if !read(pipe.as_mut(), heard, deadline) {
                *pipe = None;
            }
        }
    }
    Ok(heard)
}

/// Reads what is there and keeps what fits; false at the end.
fn read(pipe: Option<&mut Receiver>, heard: &mut Vec<u8>, deadline: Instant) -> bool {
    let Some(pipe) = pipe else { return false };
    let mut buffer = [0; 8 * 1024];
    while Instant::now() < deadline {
        match pipe.read(&mut buffer) {
            Ok(0) => return false,
            Ok(bytes) => {
                let room = OUTPUT_BYTES_MAX - heard.len();
                heard.extend_from_slice(&buffer[..bytes.min(room)]);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
    }
    true
}

/// Waits for the end, at most until the deadline, and sees to it that nothing of the run goes on.
fn end(child: &mut Child, deadline: Instant) -> io::Result<ExitStatus> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("no process id"))?;
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    while rustix::process::waitid(WaitId::Pid(pid), options)?.is_none() && Instant::now() < deadline
    {
        thread::sleep(LOOK_EVERY);
    }
    // Before it is reaped, nobody else can have the group's number.
    let _ = rustix::process::kill_process_group(pid, Signal::KILL);
    child.wait()
}
