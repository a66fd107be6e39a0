//! Which daemon is meant: its directory, its address, its settings, and the way to it.
//!
//! Owns the order in which flags, environment and `config.toml` decide; refuses to know what is done with a connection.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clawd_protocol::client::Bookmark;
use clawd_protocol::text::{visible, visible_line};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::args::Global;
use crate::config::{self, ConfigFile};
use crate::connection::Connection;
use crate::daemon;
use crate::exit::{Exit, Failure};
use crate::interrupts::Interrupts;
use crate::probe::{self, Listener};
use crate::remote::Away;
use crate::render::Screen;
use crate::render::style::Mark;

/// The port of the specification.
const PORT: u16 = 4300;
/// How long a daemon that has gone is waited for: long enough for a restart, or for another network.
const RETURN_TIMEOUT: Duration = Duration::from_secs(60);
/// It cannot be waited for, only looked for.
const RETURN_CHECK: Duration = Duration::from_millis(100);

/// Where a daemon listens unless told otherwise.
const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// The daemon that this command line is about.
#[derive(Debug)]
pub(crate) struct Home {
    pub(crate) dir: PathBuf,
    pub(crate) port: u16,
    /// Where it listens, or would: one of them at least is reached from this machine.
    pub(crate) bind: Vec<IpAddr>,
    /// What flags and environment say of both.
    pub(crate) asked: Asked,
    pub(crate) config: ConfigFile,
    /// It is not here: then nothing else of this is about it.
    pub(crate) away: Option<Away>,
}

/// Where a daemon is to listen, as somebody has asked for it in this call. It counts when the daemon starts.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) bind: Option<String>,
    pub(crate) port: Option<u16>,
}

/// Where a daemon listens, or would.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place(SocketAddr);

impl Home {
    /// Flags first, then the environment (clap has done both), then `config.toml`, then the defaults.
    pub(crate) fn of(global: &Global) -> Result<Self, Failure> {
        let dir = data_dir(global)?;
        let config = read_config(&dir)?;
        Self::with(global, dir, config)
    }

    /// The same for who only wants to reach the daemon: one that runs can be reached, and stopped, whatever has become
    /// of its `config.toml` meanwhile.
    pub(crate) fn to_reach(global: &Global, screen: &Screen) -> Result<Self, Failure> {
        let dir = data_dir(global)?;
        if let Some(name) = global.remote() {
            let away = Some(Away::to(&dir, name)?);
            let home = Self::with(global, dir, ConfigFile::default())?;
            return Ok(Self { away, ..home });
        }
        let read = read_config(&dir).and_then(|config| Self::with(global, dir.clone(), config));
        match read {
            Err(failure) if daemon::holder(&dir).is_ok_and(|holder| holder.is_some()) => {
                let why = visible(&failure.message);
                screen.note(Mark::Warn, &format!("{why}; clawd runs by what it read at its start"));
                Self::with(global, dir, ConfigFile::default())
            }
            home => home,
        }
    }

    fn with(global: &Global, dir: PathBuf, config: ConfigFile) -> Result<Self, Failure> {
        let bind = match (&global.bind, &config.bind) {
            (Some(text), _) => addresses([text.as_str()])?,
            (None, Some(config::Bind(texts))) => addresses(texts.iter().map(String::as_str))?,
            (None, None) => LOOPBACK.to_vec(),
        };
        let port = global.port.or(config.port).unwrap_or(PORT);
        let asked = Asked { bind: global.bind.clone(), port: global.port };
        Ok(Self { dir, port, bind, asked, config, away: None })
    }

    /// A connection to the running daemon.
    pub(crate) fn connect(&self) -> Result<Connection, Failure> {
        self.resume(None)
    }

    /// A connection that goes on where another one ended.
    pub(crate) fn resume(&self, from: Option<Bookmark>) -> Result<Connection, Failure> {
        if let Some(away) = &self.away {
            return away.connect(from.as_ref());
        }
        match UnixStream::connect(self.dir.join(daemon::SOCKET)) {
            Ok(stream) => Connection::over_unix(stream, self.token()?, from),
            Err(error) if is_nobody(error.kind()) => {
                match daemon::holder(&self.dir)?.and_then(|holder| holder.port) {
                    Some(port) => Connection::over_tcp(self.at(port), self.token()?, from),
                    None => Err(self.not_running()),
                }
            }
            Err(error) => Err(Failure::io("cannot connect to the daemon's socket", &error)),
        }
    }

    /// As [`Self::resume`], for as long as a network or a restart may take: `None` if `interrupt` comes first.
    pub(crate) fn resume_patiently(
        &self,
        from: Option<&Bookmark>,
        interrupt: &mut Interrupts,
    ) -> Result<Option<Connection>, Failure> {
        let deadline = Instant::now() + RETURN_TIMEOUT;
        let pause = Timespec { tv_sec: 0, tv_nsec: RETURN_CHECK.subsec_nanos().into() };
        loop {
            match self.resume(from.cloned()) {
                Err(failure) if failure.exit == Exit::NotRunning && Instant::now() < deadline => {}
                outcome => return outcome.map(Some),
            }
            let mut fds = [PollFd::from_borrowed_fd(interrupt.as_fd(), PollFlags::IN)];
            let _ = poll(&mut fds, Some(&pause));
            if interrupt.take() > 0 {
                return Ok(None);
            }
        }
    }

    /// The path of a directory there: `dir` as it is if there is elsewhere, where the present directory means nothing.
    pub(crate) fn dir_there(&self, dir: Option<&Path>) -> Result<String, Failure> {
        let dir = match (&self.away, dir) {
            (None, dir) => {
                let dir = dir.unwrap_or(Path::new("."));
                dir.canonicalize().map_err(|error| {
                    let why = format!("{}: {error}", dir.display());
                    Failure::new(Exit::NotFound, "repo_not_found", why)
                        .hint("name an existing directory")
                })?
            }
            (Some(_), Some(dir)) if dir.is_absolute() => dir.to_path_buf(),
            (Some(away), dir) => {
                let name = &away.remote.name;
                let why = match dir {
                    None => format!("say in which directory of {name}: the present one is here"),
                    Some(dir) => format!("{} is not the whole path of a directory", dir.display()),
                };
                return Err(
                    Failure::usage(why).hint(format!("clawd -R {name} … -C /path/on/{name}"))
                );
            }
        };
        dir.into_os_string()
            .into_string()
            .map_err(|dir| Failure::usage(format!("the path {} is not UTF-8", dir.display())))
    }

    /// The local token; an error if there is none.
    pub(crate) fn token(&self) -> Result<clawd_protocol::access::token::Secret, Failure> {
        daemon::token(&self.dir)?.ok_or_else(|| {
            Failure::new(
                Exit::Token,
                "token_missing",
                format!("there is no token at {} yet", shorten(&self.token_path())),
            )
            .hint("start the daemon once with `clawd up`; it makes one")
        })
    }

    pub(crate) fn token_path(&self) -> PathBuf {
        self.dir.join(daemon::TOKEN)
    }

    /// The first loopback address that it listens on, or would: where this machine's programs find it.
    pub(crate) fn at(&self, port: u16) -> SocketAddr {
        let here = self.bind.iter().find_map(|address| here(*address));
        SocketAddr::from((here.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), port))
    }

    pub(crate) fn place(&self) -> Place {
        Place(self.at(self.port))
    }

    fn not_running(&self) -> Failure {
        let port = self.port;
        let failure = |more: &str| {
            Failure::new(Exit::NotRunning, "not_running", format!("clawd is not running{more}"))
        };
        match probe::listener(self.at(port)) {
            Listener::Nobody => failure("").hint("start it with `clawd up`"),
            Listener::Clawd { version, .. } => failure(&format!(
                " here; port {port} is held by another clawd ({version}), which is not ours"
            ))
            .hint("name its directory with `--data-dir`, or start ours on another `--port`"),
            Listener::Other => failure(&format!("; port {port} is held by another program"))
                .hint("start it on another port: `clawd up --port 4301`"),
        }
    }
}

impl Place {
    /// Why the port could not be had, with all that can be found out.
    pub(crate) fn taken(self) -> Failure {
        let port = self.0.port();
        let failure = |by: &str| {
            Failure::new(Exit::PortTaken, "port_in_use", format!("port {port} is taken by {by}"))
        };
        let failure = match probe::listener(self.0) {
            Listener::Clawd { version, uptime_secs } => {
                let since = crate::render::time::coarse(uptime_secs);
                failure(&format!("clawd {version}, started {since} ago"))
                    .detail("version", version)
                    .detail("uptimeSecs", uptime_secs)
                    .hint("it uses another data directory; choose another port with `--port`")
            }
            Listener::Other | Listener::Nobody => {
                failure("another program").hint("choose another port with `--port`")
            }
        };
        failure.detail("port", port)
    }
}

/// Nobody listens on the socket, or the path is too long to have one.
const fn is_nobody(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::ConnectionRefused | ErrorKind::InvalidInput)
}

fn read_config(dir: &Path) -> Result<ConfigFile, Failure> {
    let path = dir.join(config::FILE);
    match daemon::read_config(&path)? {
        Some(source) => config::parse(&source, &shorten(&path)),
        None => Ok(ConfigFile::default()),
    }
}

/// The directory of the specification, unless told otherwise; absolute.
pub(crate) fn data_dir(global: &Global) -> Result<PathBuf, Failure> {
    let dir = match &global.data_dir {
        Some(dir) => dir.clone(),
        None => dirs::data_dir()
            .ok_or_else(|| {
                Failure::usage("cannot tell where your files are kept: HOME is not set")
                    .hint("name a directory with `--data-dir`")
            })?
            .join("clawd"),
    };
    std::path::absolute(&dir).map_err(|error| Failure::usage(format!("--data-dir: {error}")))
}

/// The addresses in these lists, each with commas. Loopback is always among them: this machine's own programs, the CLI first
/// of all, must not lose their way to the daemon because others get one (security F1).
pub(crate) fn addresses<'a>(
    texts: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<IpAddr>, Failure> {
    let mut asked: Vec<IpAddr> = Vec::new();
    for text in texts.into_iter().flat_map(|text| text.split(',')).map(str::trim) {
        match text.parse::<IpAddr>() {
            _ if text == "localhost" => asked.extend(LOOPBACK),
            Ok(address) => asked.push(address.to_canonical()),
            Err(_) => {
                let why = format!("`{}` is not an address to listen on", visible_line(text));
                return Err(Failure::usage(why).hint(match text.parse::<SocketAddr>() {
                    Ok(at) => {
                        format!("the port is said apart: {}, and port {}", at.ip(), at.port())
                    }
                    Err(_) => {
                        "leave it out for 127.0.0.1 and ::1; 0.0.0.0 and :: are all addresses; \
                               separate several with commas"
                            .to_owned()
                    }
                }));
            }
        }
    }
    if asked.is_empty() || !asked.iter().all(IpAddr::is_loopback) {
        asked.extend(LOOPBACK);
    }
    // Whoever listens on all addresses of a family listens on each, and cannot do so twice.
    let all = |v4: bool| asked.iter().any(|at| at.is_unspecified() && at.is_ipv4() == v4);
    let (all_v4, all_v6) = (all(true), all(false));
    let mut bind: Vec<IpAddr> = Vec::new();
    for address in asked {
        let is_covered = if address.is_ipv4() { all_v4 } else { all_v6 };
        if (address.is_unspecified() || !is_covered) && !bind.contains(&address) {
            bind.push(address);
        }
    }
    Ok(bind)
}

/// The loopback address by which one that is listened on is reached from here, if it is.
pub(crate) fn here(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Some(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Some(Ipv6Addr::LOCALHOST.into()),
        address @ (IpAddr::V4(_) | IpAddr::V6(_)) => address.is_loopback().then_some(address),
    }
}

/// A path with `~` for the home directory.
pub(crate) fn shorten(path: &Path) -> String {
    let home = dirs::home_dir().filter(|home| home.as_os_str() != "/");
    match home.and_then(|home| path.strip_prefix(home).ok().map(Path::to_owned)) {
        Some(rest) => format!("~/{}", rest.display()),
        None => path.display().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(text: &str) -> String {
        let bind = addresses([text]).unwrap();
        bind.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn f1_loopback_is_listened_on_whatever_else_is() {
        for (text, bind) in [
            ("localhost", "127.0.0.1 ::1"),
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.2", "127.0.0.2"),
            ("::1", "::1"),
            ("192.168.1.5", "192.168.1.5 127.0.0.1 ::1"),
            ("192.168.1.5, fd00::2,192.168.1.5", "192.168.1.5 fd00::2 127.0.0.1 ::1"),
            ("0.0.0.0", "0.0.0.0 ::1"),
            ("0.0.0.0,192.168.1.5,127.0.0.1", "0.0.0.0 ::1"),
            ("::", ":: 127.0.0.1"),
            ("0.0.0.0,::", "0.0.0.0 ::"),
            ("::ffff:192.168.1.5", "192.168.1.5 127.0.0.1 ::1"),
        ] {
            assert_eq!(listed(text), bind, "{text}");
            assert_eq!(listed(&bind.replace(' ', ",")), bind, "as a child is told");
        }
        let several = addresses(["192.168.1.5", "::"]).unwrap();
        assert_eq!(several.len(), 3, "{several:?}");
    }

    #[test]
    fn f1_what_is_no_address_is_not_listened_on() {
        for text in ["example", "", "192.168.1.5,", "1.2.3.4:80", "fe80::1%eth0", "0.0.0.0/0"] {
            let failure = addresses([text]).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage, "{text}");
        }
        let with_port = addresses(["[::]:4400"]).unwrap_err().hint.unwrap();
        assert_eq!(with_port, "the port is said apart: ::, and port 4400");
    }

    #[test]
    fn the_way_to_ones_own_daemon_is_loopback() {
        for (bind, at) in [
            ("192.168.1.5", "127.0.0.1:7"),
            ("0.0.0.0", "127.0.0.1:7"),
            ("::", "[::1]:7"),
            ("::1", "[::1]:7"),
            ("127.0.0.2", "127.0.0.2:7"),
        ] {
            assert_eq!(addresses([]).unwrap(), LOOPBACK);
            let home = Home {
                dir: PathBuf::new(),
                port: 7,
                bind: addresses([bind]).unwrap(),
                asked: Asked::default(),
                config: ConfigFile::default(),
                away: None,
            };
            assert_eq!(home.at(home.port).to_string(), at, "{bind}");
        }
    }
}
