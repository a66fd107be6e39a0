//! Questions that block, answered elsewhere.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clawd_protocol::{
    Answer, AskId, Env, PathFault, Probe, Program, ProgramFault, Question, Run, SessionId,
    StoreFault,
};
use clawd_runtime_mio::files::DataDir;
use clawd_runtime_mio::worker::Workers;
use common::{home, script};
use mio::{Events, Poll, Token, Waker};

struct Office {
    poll: Poll,
    workers: Workers,
}

impl Office {
    fn new() -> Self {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let dir = home();
        let mark = DataDir::open(dir.path()).unwrap().child_mark().unwrap();
        Self { poll, workers: Workers::new(waker, mark) }
    }

    fn answers(&mut self, count: usize) -> Vec<(AskId, Answer)> {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut events = Events::with_capacity(4);
        let mut answers = Vec::new();
        while answers.len() < count {
            assert!(Instant::now() < deadline, "{answers:?}");
            self.poll.poll(&mut events, Some(Duration::from_secs(1))).unwrap();
            answers.extend(self.workers.drain());
        }
        answers
    }

    fn answer(&mut self, question: Question) -> Answer {
        self.workers.ask(AskId(1), question).unwrap();
        self.answers(1).remove(0).1
    }

    fn probe(&mut self, program: &Path, runs: &[&[&str]], timeout: Duration) -> Answer {
        let path = Some(program.to_str().unwrap().to_owned());
        self.answer(Question::Probe {
            program: Program { name: "claude", path, behind: &[] },
            runs: runs.iter().map(|run| run.iter().map(|&arg| arg.to_owned()).collect()).collect(),
            env: Env { inherit: &["PATH"], set: Vec::new() },
            timeout,
        })
    }

    fn run(&mut self, program: &Path, timeout: Duration) -> Run {
        let answer = self.probe(program, &[&[]], timeout);
        let Answer::Probe(Ok(Probe { runs, .. })) = answer else { panic!("{answer:?}") };
        runs[0].clone()
    }
}

const LONG: Duration = Duration::from_secs(10);

#[test]
fn directories_are_found_as_they_really_are() {
    let home = home();
    let real = home.path().canonicalize().unwrap().join("real");
    fs::create_dir(&real).unwrap();
    fs::write(real.join("file"), "").unwrap();
    std::os::unix::fs::symlink(&real, home.path().join("link")).unwrap();
    let mut office = Office::new();
    let mut ask = |path: &Path| {
        let path = path.to_str().unwrap().to_owned();
        let answer = office.answer(Question::Directory { path });
        let Answer::Directory(found) = answer else { panic!("{answer:?}") };
        found
    };
    let found = Ok(real.to_str().unwrap().to_owned());
    assert_eq!(ask(&real), found);
    assert_eq!(ask(&home.path().join("link/../link/.")), found);
    assert_eq!(ask(&real.join("file")), Err(PathFault::NotADirectory));
    assert_eq!(ask(&real.join("file/below")), Err(PathFault::NotADirectory));
    assert_eq!(ask(&real.join("none")), Err(PathFault::Missing));
    assert_eq!(ask(Path::new("relative")), Err(PathFault::Missing));
    assert_eq!(ask(Path::new("/with\0nul")), Err(PathFault::Missing));
    if !rustix::process::geteuid().is_root() {
        fs::set_permissions(&real, fs::Permissions::from_mode(0o000)).unwrap();
        assert_eq!(ask(&real), Err(PathFault::Denied));
        fs::set_permissions(&real, fs::Permissions::from_mode(0o700)).unwrap();
    }
}

#[test]
fn a_program_is_run_as_often_as_asked_and_heard() {
    let home = home();
    let text = "echo \"$1 in $(pwd)\"; echo oh >&2; cat; exit $2";
    let program = script(home.path(), "claude", text);
    let answer = Office::new().probe(&program, &[&["one", "0"], &["two", "3"]], LONG);
    let run = |code, word: &str| Run {
        code: Some(code),
        stdout: format!("{word} in /\n"),
        stderr: "oh\n".to_owned(),
    };
    let path = program.canonicalize().unwrap().to_str().unwrap().to_owned();
    let runs = vec![run(0, "one"), run(3, "two")];
    assert_eq!(answer, Answer::Probe(Ok(Probe { path, runs })));
}

#[test]
fn a_run_is_cut_in_time_and_length() {
    let home = home();
    let mut office = Office::new();
    let long = script(home.path(), "long", "head -c 300000 /dev/zero | tr '\\0' x; exit 1");
    let run = office.run(&long, LONG);
    assert_eq!((run.code, run.stdout.len()), (Some(1), 64 * 1024));

    let pid = home.path().join("pid");
    let text = format!("echo before; sleep 1000 & echo $! > {}; wait", pid.display());
    let slow = script(home.path(), "slow", &text);
    let asked = Instant::now();
    let run = office.run(&slow, Duration::from_millis(300));
    assert_eq!((run.code, run.stdout.as_str()), (None, "before\n"));
    assert!(asked.elapsed() < Duration::from_secs(5));
    let left = fs::read_to_string(pid).unwrap();
    common::wait_for("the end of what it started", || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", left.trim())).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z")
    });

    let flood = script(home.path(), "flood", "exec yes");
    let run = office.run(&flood, Duration::from_millis(300));
    assert_eq!((run.code, run.stdout.len()), (None, 64 * 1024));

    let silent = script(home.path(), "silent", "exec sleep 1000 >/dev/null 2>&1");
    assert_eq!(office.run(&silent, Duration::from_millis(300)).code, None);
}

#[test]
fn i2_a_probe_does_not_run_what_is_unsafe_or_missing() {
    let home = home();
    let program = script(home.path(), "claude", "touch \"$0.ran\"");
    let mut office = Office::new();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o722)).unwrap();
    let answer = office.probe(&program, &[&[]], LONG);
    assert!(matches!(answer, Answer::Probe(Err(ProgramFault::Unsafe(_)))), "{answer:?}");
    let answer = office.probe(Path::new("bin/claude"), &[&[]], LONG);
    assert!(matches!(answer, Answer::Probe(Err(ProgramFault::Unsafe(_)))), "{answer:?}");
    let answer = office.probe(&home.path().join("none"), &[&[]], LONG);
    assert_eq!(answer, Answer::Probe(Err(ProgramFault::Missing)));
    assert!(!home.path().join("claude.ran").exists());
}

/// Not a test of its own: looks for `claude` with the PATH and in the directory that its starter gives it.
#[test]
#[ignore = "started by another test"]
fn stand_in_that_looks_for_claude() {
    let Some(expected) = std::env::var_os("CLAWD_STAND_IN") else { return };
    let answer = Office::new().answer(Question::Probe {
        program: Program { name: "claude", path: None, behind: &[] },
        runs: Vec::new(),
        env: Env { inherit: &[], set: Vec::new() },
        timeout: LONG,
    });
    let Answer::Probe(found) = answer else { panic!("{answer:?}") };
    let found = found.map_or_else(|fault| format!("{fault:?}"), |probe| probe.path);
    assert_eq!(found, expected.to_str().unwrap());
}

#[test]
fn i2_a_program_is_found_by_absolute_entries_only() {
    let home = home();
    let home = home.path().canonicalize().unwrap();
    let repo = home.join("repo");
    for dir in ["repo", "repo/sub", "bin", "empty"] {
        fs::create_dir(home.join(dir)).unwrap();
        fs::set_permissions(home.join(dir), fs::Permissions::from_mode(0o700)).unwrap();
    }
    script(&repo, "claude", "exit 0");
    script(&repo.join("sub"), "claude", "exit 0");
    let wanted = script(&home.join("bin"), "claude", "exit 0");
    let looks = |path: String, expected: &str| {
        std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "stand_in_that_looks_for_claude", "--ignored"])
            .env("PATH", path)
            .env("CLAWD_STAND_IN", expected)
            .current_dir(&repo)
            .output()
            .unwrap()
    };
    let home = home.display();
    let relative = format!(".::sub:./sub:{home}/empty");
    let output = looks(format!("{relative}:{home}/bin"), wanted.to_str().unwrap());
    assert!(output.status.success(), "{output:?}");
    let output = looks(relative, "Missing");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn i2_a_program_behind_another_is_run_only_if_it_may_be_trusted() {
    let home = home();
    let home = home.path().canonicalize().unwrap();
    for dir in ["launcher", "native"] {
        fs::create_dir(home.join(dir)).unwrap();
        fs::set_permissions(home.join(dir), fs::Permissions::from_mode(0o700)).unwrap();
    }
    let launcher = script(&home.join("launcher"), "codex.js", "exit 0");
    let mut office = Office::new();
    let mut found = || {
        let path = Some(launcher.to_str().unwrap().to_owned());
        let answer = office.answer(Question::Probe {
            program: Program { name: "codex", path, behind: &["../none/x", "../native/codex"] },
            runs: Vec::new(),
            env: Env { inherit: &[], set: Vec::new() },
            timeout: LONG,
        });
        let Answer::Probe(Ok(Probe { path, .. })) = answer else { panic!("{answer:?}") };
        path
    };
    assert_eq!(found(), launcher.to_str().unwrap());
    let native = script(&home.join("native"), "codex", "exit 0");
    assert_eq!(found(), native.to_str().unwrap());
    fs::set_permissions(&native, fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(found(), launcher.to_str().unwrap(), "others could change the one behind");
}

#[test]
fn c6_one_question_too_many_is_answered_at_once() {
    let home = home();
    let slow = script(home.path(), "slow", "sleep 0.3");
    let mut office = Office::new();
    let slow = Question::Probe {
        program: Program {
            name: "slow",
            path: Some(slow.to_str().unwrap().to_owned()),
            behind: &[],
        },
        runs: vec![Vec::new()],
        env: Env { inherit: &["PATH"], set: Vec::new() },
        timeout: LONG,
    };
    let quick = Question::Directory { path: "/".to_owned() };
    let mut taken = 0;
    for number in 0..200 {
        let question = if number < 2 { slow.clone() } else { quick.clone() };
        match office.workers.ask(AskId(number), question) {
            Ok(()) => taken += 1,
            Err(fault) => assert!(matches!(fault, StoreFault::Failed(_)), "{fault:?}"),
        }
    }
    assert!((64..=66).contains(&taken), "{taken}");
    assert_eq!(office.answers(taken).len(), taken);
    let session: SessionId = "00000000-0000-4000-8000-000000000001".parse().unwrap();
    let history =
        Question::Messages { session, before: None, after: None, limit: 1, bytes_max: usize::MAX };
    assert!(matches!(office.workers.ask(AskId(900), history), Err(StoreFault::Failed(_))));
}
