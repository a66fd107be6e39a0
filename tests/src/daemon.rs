//! The real daemon in a temporary directory: started, killed, stopped, and spoken to over real sockets.
//!
//! Owns processes and directories of end-to-end tests; refuses to know what is tested. Waits for events, never for time:
//! readiness is the daemon's own line that says where it listens. Whatever a test leaves running dies with its value.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

mod client;
mod process;
mod programs;
pub mod records;
mod secure;
mod terminal;

pub use client::{Client, Failure, Raw};
pub use process::Process;
pub use programs::{example, scripted_claude, scripted_codex};
pub use secure::{Tls, tls, tls_to};
pub use terminal::{Session, Terminal};

use programs::clawd;

/// Longer than anything takes that works, also on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `is_so`; panics with `what` if it is not within `within`.
pub fn wait_until(what: &str, within: Duration, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Says on stderr, whatever the test harness captures, that a test could not be run here.
pub fn skip(what: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {what}: {why}");
}

/// A temporary home with a data directory and a repository in it; daemons come and go, it stays.
#[derive(Debug)]
pub struct Site {
    root: tempfile::TempDir,
    /// Added to the environment of what is run here.
    pub env: Vec<(String, String)>,
    /// A shell command that sets things such as the umask before the daemon is run in its place.
    pub before: Option<String>,
}

impl Default for Site {
    fn default() -> Self {
        Self::new()
    }
}

impl Site {
    /// With the scripted agent as claude.
    #[must_use]
    pub fn new() -> Self {
        let root = tempfile::Builder::new().prefix("clawd-").tempdir().expect("a directory");
        let site = Self { root, env: Vec::new(), before: None };
        for dir in [site.data(), site.repo(), site.home()] {
            fs::DirBuilder::new().mode(0o700).create(dir).expect("an empty directory");
        }
        site.configure("");
        site
    }

    /// The data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.root.path().join("data")
    }

    /// Where sessions work.
    #[must_use]
    pub fn repo(&self) -> PathBuf {
        self.root.path().join("repo")
    }

    /// `HOME`.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.root.path().join("home")
    }

    /// Where the local token is.
    #[must_use]
    pub fn token_path(&self) -> PathBuf {
        self.data().join("auth_token")
    }

    /// The local token.
    #[must_use]
    pub fn token(&self) -> String {
        let text = fs::read_to_string(self.token_path()).expect("a token file");
        text.trim_end().to_owned()
    }

    /// Writes `config.toml`: the scripted agent, and `more` before it.
    pub fn configure(&self, more: &str) {
        let path = scripted_claude().display();
        let text = format!("{more}\n[provider.claude]\npath = \"{path}\"\n");
        write_private(&self.data().join("config.toml"), text.as_bytes());
    }

    /// `clawd` with these arguments, this data directory and nothing of our environment.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = match &self.before {
            None => Command::new(clawd()),
            Some(before) => {
                let mut shell = Command::new("/bin/sh");
                shell.args(["-c", &format!("{before}; exec \"$0\" \"$@\"")]).arg(clawd());
                shell
            }
        };
        command.args(args).arg("--data-dir").arg(self.data()).current_dir(self.root.path());
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", self.home());
        command.env("LANG", "C.UTF-8").envs(self.env.iter().map(|(k, v)| (k, v)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// A daemon on a port of its own, ready.
    #[must_use]
    pub fn start(&self) -> Daemon {
        self.start_on(0)
    }

    /// A daemon on this port, ready.
    #[must_use]
    pub fn start_on(&self, port: u16) -> Daemon {
        match self.try_start(port) {
            Ok(daemon) => daemon,
            Err((status, output)) => panic!("clawd serve ended with {status}:\n{output}"),
        }
    }

    /// A daemon that is ready, or how it ended and what it said.
    ///
    /// # Errors
    /// The daemon's exit status and output, if it ended instead.
    pub fn try_start(&self, port: u16) -> Result<Daemon, (ExitStatus, String)> {
        self.start_with(&["serve", "--port", &port.to_string()])
    }

    /// As [`Self::try_start`], with a command line of one's own.
    ///
    /// # Errors
    /// The daemon's exit status and output, if it ended instead.
    pub fn start_with(&self, args: &[&str]) -> Result<Daemon, (ExitStatus, String)> {
        let mut process = Process::spawn(&mut self.command(args));
        match process.wait_for(port_in) {
            Some(port) => Ok(Daemon { process, port, data: self.data() }),
            None => Err(process.end()),
        }
    }

    /// Runs `clawd` to its end: exit code, stdout, stderr.
    #[must_use]
    pub fn run(&self, args: &[&str]) -> (Option<i32>, String, String) {
        let output = self.command(args).output().expect("clawd runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    }
}

/// Writes a file that only its owner can read.
pub fn write_private(path: &Path, bytes: &[u8]) {
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(bytes)).expect("a writable directory");
}

/// The port on 127.0.0.1 in the first whole line that says where somebody listens.
#[must_use]
pub fn port_in(text: &str) -> Option<u16> {
    let whole = &text[..text.rfind('\n')?];
    let after = |line: &str| -> Option<u16> {
        let (_, places) = line.split_once("listen")?;
        let (_, port) = places.split_once("127.0.0.1:")?;
        port.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    whole.lines().find_map(after)
}

/// A daemon that is ready.
#[derive(Debug)]
pub struct Daemon {
    /// Its process.
    pub process: Process,
    /// The TCP port it listens on.
    pub port: u16,
    data: PathBuf,
}

impl Daemon {
    /// Its data directory.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// A stranger's connection over TCP.
    #[must_use]
    pub fn connect(&self) -> Client {
        Client::tcp(self.port).expect("the daemon accepts")
    }

    /// The owner's connection to a daemon that drops strangers at random (security C3): as clients do, it tries again.
    pub fn owner_under_load(&self) -> Client {
        let token = self.token();
        let mut owner = None;
        wait_until("the owner is let in", PATIENCE, || {
            let mut client = Client::tcp(self.port).ok();
            let is_in = client.as_mut().is_some_and(|client| client.auth(&token).is_ok());
            owner = client.filter(|_| is_in);
            is_in
        });
        owner.expect("just let in")
    }

    /// A stranger's connection over the Unix socket.
    #[must_use]
    pub fn connect_unix(&self) -> Client {
        Client::unix(&self.data.join("clawd.sock"), self.port).expect("the daemon accepts")
    }

    /// The owner's connection over TCP.
    pub fn owner(&self) -> Client {
        let mut client = self.connect();
        client.auth(&self.token()).expect("the owner is let in");
        client
    }

    /// The local token as the file has it now.
    #[must_use]
    pub fn token(&self) -> String {
        let text = fs::read_to_string(self.data.join("auth_token")).expect("a token file");
        text.trim_end().to_owned()
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(mut self) {
        self.process.signal(Signal::KILL);
        assert_eq!(self.process.wait().signal(), Some(9), "it had ended before");
    }

    /// SIGTERM, and its exit status.
    pub fn stop(mut self) -> ExitStatus {
        self.process.signal(Signal::TERM);
        self.process.wait()
    }
}
