//! The one place where the CLI touches the runtime's daemon: its files, its loop, its guard. What it has for every program,
//! TLS and private documents, `connection` and `remote` use themselves.
//!
//! Owns the translation of the runtime's errors into exits; refuses to know anything else.

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clawd_protocol::access::token::{Secret, mint_local};
use clawd_protocol::audit::{Report, Verifier};
use clawd_protocol::{Config, Fingerprint, Limits, ProviderConfig, SessionId};
use clawd_runtime_mio::files::{self, DataDir, FileError, Holder, Inspection};
use clawd_runtime_mio::store::StoreError;
use clawd_runtime_mio::{Options, Ready, RunError, guard as runtime_guard};

use crate::args::AuditList;
use crate::config;
use crate::exit::{Exit, Failure};
use crate::home::{Home, shorten};
use crate::log;
use crate::render::time;

mod relay;

pub(crate) use relay::serve_relay;

/// Names of the files that the CLI must know, in the data directory.
pub(crate) const SOCKET: &str = "clawd.sock";
pub(crate) const TOKEN: &str = "auth_token";
const DATABASE: &str = "clawd.db";
const CONFIG_BYTES_MAX: usize = 256 * 1024;
/// The lock of a process that is ending can be looked at, not waited for.
const RELEASE_CHECK: Duration = Duration::from_millis(5);

/// The hidden subcommand under which the daemon starts each agent.
pub(crate) fn guard(args: Vec<OsString>) -> ExitCode {
    ExitCode::from(u8::try_from(runtime_guard::run(args)).unwrap_or(Exit::Failure.code()))
}

/// The text of `config.toml`, if there is one and it is safe (security A3).
pub(crate) fn read_config(path: &Path) -> Result<Option<String>, Failure> {
    let Some(bytes) = files::read_private(path, CONFIG_BYTES_MAX).map_err(failed)? else {
        return Ok(None);
    };
    String::from_utf8(bytes).map(Some).map_err(|_| {
        Failure::new(Exit::Usage, "config", format!("{} is not UTF-8", path.display()))
    })
}

/// The local token, if there is one and its file is safe (A3).
pub(crate) fn token(dir: &Path) -> Result<Option<Secret>, Failure> {
    inspect(dir)?.map_or(Ok(None), |inspection| inspection.token()).map_err(failed)
}

/// The daemon that runs on this directory.
pub(crate) fn holder(dir: &Path) -> Result<Option<Holder>, Failure> {
    inspect(dir)?.map_or(Ok(None), |inspection| inspection.holder()).map_err(failed)
}

/// The last lines of the audit log, the newest first; none before the first start.
pub(crate) fn audit_page(
    dir: &Path,
    session: Option<SessionId>,
    args: &AuditList,
) -> Result<Vec<String>, Failure> {
    let Some(inspection) = inspect(dir)? else { return Ok(Vec::new()) };
    inspection.audit().page(session, None, args.limit(), usize::MAX).map_err(failed)
}

/// What a look at every line of the audit log comes to.
pub(crate) fn audit_report(dir: &Path) -> Result<Report, Failure> {
    let Some(inspection) = inspect(dir)? else { return Ok(Verifier::new(None).finish()) };
    inspection.audit().verify().map_err(|error| {
        if let StoreError::File(error) = error {
            return failed(error);
        }
        Failure::new(Exit::Database, "database", error.to_string())
    })
}

/// Writes the whole audit log.
pub(crate) fn audit_export(dir: &Path, to: &mut dyn io::Write) -> Result<(), Failure> {
    inspect(dir)?.map_or(Ok(()), |inspection| inspection.audit().export(to)).map_err(failed)
}

/// A look into the directory; `None` before the first start.
fn inspect(dir: &Path) -> Result<Option<Inspection>, Failure> {
    match dir.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Ok(_) | Err(_) => DataDir::inspect(dir).map(Some).map_err(failed),
    }
}

/// Makes the directory, if there is none.
pub(crate) fn make_dir(dir: &Path) -> Result<(), Failure> {
    if inspect(dir)?.is_none() {
        DataDir::open(dir).map_err(failed)?;
    }
    Ok(())
}

/// Replaces the token of a daemon that does not run.
pub(crate) fn rotate(dir: &Path) -> Result<(), Failure> {
    let mut entropy = [0; 32];
    getrandom::fill(&mut entropy)
        .map_err(|error| Failure::new(Exit::Failure, "entropy", error.to_string()))?;
    DataDir::open(dir)
        .and_then(|data_dir| data_dir.replace_token(&mint_local(entropy)))
        .map_err(failed)
}

/// Whether the process at the other end is this user's (security A7). Where the system does not say, it must prove that
/// it knows the token.
pub(crate) fn is_our_user(stream: &UnixStream) -> Result<bool, Failure> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let peer = rustix::net::sockopt::socket_peercred(stream)
            .map_err(|error| Failure::io("cannot tell who the daemon is", &error.into()))?;
        if peer.uid != rustix::process::geteuid() {
            return Err(Failure::new(
                Exit::NotRunning,
                "not_our_daemon",
                format!("what listens there runs as another user ({})", peer.uid.as_raw()),
            )
            .hint("the token was not sent; look who wrote into your data directory"));
        }
        Ok(true)
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = stream;
        Ok(false)
    }
}

/// Waits until no daemon runs on this directory; `false` if the deadline passes first.
pub(crate) fn wait_released(dir: &Path, deadline: Instant) -> Result<bool, Failure> {
    while holder(dir)?.is_some() {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        thread::sleep(RELEASE_CHECK);
    }
    Ok(true)
}

/// Keeps this process's memory and files to itself; first of all.
pub(crate) fn harden() {
    files::harden();
}

/// Runs the daemon until it is told to stop; `on_ready` is told where it listens.
pub(crate) fn serve(
    home: Home,
    is_quiet: bool,
    on_ready: impl FnOnce(&Ready<'_>),
) -> Result<(), Failure> {
    let data_dir = DataDir::open(&home.dir).map_err(failed)?;
    let guard = std::env::current_exe()
        .map_err(|error| Failure::io("cannot tell where this program is", &error))?;
    let port_taken = home.place();
    let options = Options {
        bind: home.bind.clone(),
        port: home.port,
        guard,
        config: settings(home, data_dir.path()),
        log: Box::new(log::Talk),
        is_quiet,
        data_dir,
    };
    clawd_runtime_mio::run(options, Box::new(on_ready)).map_err(|error| match error {
        RunError::PortTaken { .. } => port_taken.taken(),
        RunError::Bind { addr, source } => cannot_listen(addr, &source),
        RunError::Socket { .. } => Failure::new(Exit::Usage, "bind", error.to_string()),
        RunError::File(error) => failed(error),
        RunError::Store(error) => Failure::new(Exit::Database, "database", error.to_string()),
        RunError::System(error) => Failure::io("the daemon cannot go on", &error),
    })
}

/// Why an address cannot be listened on, and which ones can.
fn cannot_listen(addr: SocketAddr, source: &io::Error) -> Failure {
    let failure = Failure::new(Exit::Usage, "bind", format!("cannot listen on {addr}: {source}"));
    let own = reachable(&[Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]);
    let own: Vec<String> = own.iter().map(IpAddr::to_string).collect();
    if source.kind() == io::ErrorKind::PermissionDenied {
        return failure.hint("choose a `--port` above 1023");
    }
    if own.is_empty() {
        return failure.hint("this machine has no address on a network now");
    }
    failure.hint(format!(
        "this machine has {}; `--bind 0.0.0.0` is all of IPv4, `--bind ::` all of IPv6",
        own.join(", ")
    ))
}

/// The addresses at which other machines reach who listens on these, as far as the system says.
pub(crate) fn reachable(bind: &[IpAddr]) -> Vec<IpAddr> {
    clawd_runtime_mio::worker::reachable(bind).unwrap_or_default()
}

/// The id of the daemon of this directory; none before its first start.
pub(crate) fn identity(dir: &Path) -> Result<Option<Fingerprint>, Failure> {
    let identity = inspect(dir)?.map_or(Ok(None), |inspection| inspection.identity());
    Ok(identity.map_err(failed)?.map(|identity| identity.fingerprint()))
}

/// The core's settings, out of the owner's.
fn settings(home: Home, data_dir: &Path) -> Config {
    let approvals = home.config.approvals;
    let provider = |provider: config::Provider| ProviderConfig {
        path: provider.path,
        env: provider.env.into_iter().map(|(name, value)| (name, value.0)).collect(),
    };
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    Config {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        host_name: home.config.name.unwrap_or(name),
        host_names: home.config.hosts,
        origins: home.config.origins,
        protected_paths: protected_paths(data_dir),
        claude: provider(home.config.provider.claude),
        codex: provider(home.config.provider.codex),
        demo: ProviderConfig { path: own_path(), env: Vec::new() },
        limits: Limits {
            approval_timeout: approvals.timeout().unwrap_or(Limits::default().approval_timeout),
            ..Limits::default()
        },
        policy: approvals.policy(home_path()),
    }
}

/// The owner's home directory, for `~/` in rules.
pub(crate) fn home_path() -> Option<String> {
    dirs::home_dir()?.into_os_string().into_string().ok()
}

/// The demo is a subcommand of this program.
fn own_path() -> Option<String> {
    std::env::current_exe().ok()?.into_os_string().into_string().ok()
}

/// Where no session may work (security J4).
fn protected_paths(data_dir: &Path) -> Vec<String> {
    let home = dirs::home_dir();
    let in_home = [".ssh", ".claude", ".codex"]
        .into_iter()
        .filter_map(|name| home.as_ref().map(|home| home.join(name)));
    std::iter::once(data_dir.to_path_buf())
        .chain(in_home)
        .map(|path| path.canonicalize().unwrap_or(path))
        .filter_map(|path: PathBuf| path.to_str().map(str::to_owned))
        .collect()
}

/// The runtime's trouble with files, as an exit and a hint.
pub(crate) fn failed(error: FileError) -> Failure {
    match error {
        FileError::Locked { pid, version, since, port } => {
            let age = time::parse(&since)
                .map(|since| format!(", started {}", time::ago(since, time::now())))
                .unwrap_or_default();
            let message = format!("clawd {version} is already running here (pid {pid}{age})");
            Failure::new(Exit::PortTaken, "already_running", message)
                .hint("see `clawd status`, or choose another directory with `--data-dir`")
                .detail("pid", pid)
                .detail("version", version)
                .detail("since", since)
                .detail("port", port)
        }
        FileError::Unsafe { path, reason, fix } => {
            let message = format!("refused to use {}: {reason}", shorten(&path));
            let (exit, kind) = (exit_for(&path), "unsafe_file");
            Failure::new(exit, kind, message).hint(fix).detail("path", path.display().to_string())
        }
        FileError::Failed { ref path, .. } => {
            Failure::new(exit_for(path), "file", error.to_string())
                .hint("look at the directory's owner, its mode and the space that is left")
        }
    }
}

fn exit_for(path: &Path) -> Exit {
    match path.file_name().and_then(|name| name.to_str()) {
        Some(TOKEN) => Exit::Token,
        Some(config::FILE) => Exit::Usage,
        Some(name) if name.starts_with(DATABASE) => Exit::Database,
        Some(_) | None => Exit::Failure,
    }
}
