//! The sockets that peers connect to: TCP, and one in the data directory.
//!
//! Owns binding and accepting; refuses to know who may connect. `SO_REUSEPORT` is never set: it would let another
//! process of the same user take a share of our connections.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clawd_protocol::{Instant, Source};
use mio::net::{TcpListener, UnixListener};
use mio::{Registry, Token, event};
use rustix::io::Errno;
use rustix::net::{self, sockopt};

use crate::RunError;
use crate::stream::Stream;

/// The Unix socket's name in the data directory.
pub(crate) const SOCKET_NAME: &str = "clawd.sock";
/// Accepting waits so long after the system had no file descriptor for us (security C6).
const BACK_OFF: Duration = Duration::from_millis(100);
/// With any port to choose from, so many are tried until one is free on every address.
const PORTS_TRIED: usize = 16;

/// Connections that the kernel holds until they are taken, as mio has it.
const BACKLOG: i32 = 1024;

/// All listeners.
#[derive(Debug)]
pub(crate) struct Listeners {
    sockets: Vec<Socket>,
    port: u16,
    path: PathBuf,
    retry_at: Option<Instant>,
    /// The system had no room when asked last, and that was said.
    is_exhausted: bool,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// What came of accepting.
#[derive(Debug)]
pub(crate) enum Accepted {
    Connection(Stream, Source),
    /// This one was gone before it was here.
    Aborted,
    /// Nobody waits, or nobody can be taken before [`Listeners::retry_at`].
    Nobody,
    /// Nobody can be taken because the system has no room; said once, until it has again.
    Exhausted(io::Error),
}

impl Listeners {
    /// Binds all of them. A loopback address that this machine does not have is left out, unless it is the first.
    pub(crate) fn bind(addresses: &[IpAddr], port: u16, dir: &Path) -> Result<Self, RunError> {
        let mut tries = PORTS_TRIED;
        let (tcp, port) = loop {
            match bind_tcp(addresses, port) {
                Err(RunError::PortTaken { .. }) if port == 0 && tries > 0 => tries -= 1,
                bound => break bound?,
            }
        };
        let path = dir.join(SOCKET_NAME);
        let unix =
            bind_unix(&path).map_err(|source| RunError::Socket { path: path.clone(), source })?;
        let sockets = tcp.into_iter().map(Socket::Tcp).chain([Socket::Unix(unix)]).collect();
        Ok(Self { sockets, port, path, retry_at: None, is_exhausted: false })
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// The addresses that TCP is listened on.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        let address = |socket: &Socket| match socket {
            Socket::Tcp(listener) => listener.local_addr().ok().map(|at| at.ip()),
            Socket::Unix(_) => None,
        };
        self.sockets.iter().filter_map(address).collect()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) const fn len(&self) -> usize {
        self.sockets.len()
    }

    /// When accepting goes on, if it was put off.
    pub(crate) const fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Registers the listeners with tokens from `first` on.
    pub(crate) fn register(&mut self, registry: &Registry, first: usize) -> io::Result<()> {
        for (index, socket) in self.sockets.iter_mut().enumerate() {
            let source: &mut dyn event::Source = match socket {
                Socket::Tcp(listener) => listener,
                Socket::Unix(listener) => listener,
            };
            source.register(registry, Token(first + index), mio::Interest::READABLE)?;
        }
        Ok(())
    }

    /// Takes one connection.
    pub(crate) fn accept(&mut self, index: usize, now: Instant) -> Accepted {
        if self.retry_at.is_some_and(|at| now < at) {
            return Accepted::Nobody;
        }
        self.retry_at = None;
        let accepted = match self.sockets.get(index) {
            Some(Socket::Tcp(listener)) => listener.accept().and_then(|(stream, peer)| {
                stream.set_nodelay(true)?;
                Ok((Stream::Tcp(stream), Source::Tcp(peer.ip())))
            }),
            Some(Socket::Unix(listener)) => {
                listener.accept().map(|(stream, _)| (Stream::Unix(stream), Source::Unix))
            }
            None => return Accepted::Nobody,
        };
        match accepted {
            Ok((stream, source)) => {
                self.is_exhausted = false;
                Accepted::Connection(stream, source)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Accepted::Nobody,
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    // The listener is edge triggered: not asking is all it takes to have peace.
                    self.retry_at = Some(now + BACK_OFF);
                    let was_exhausted = std::mem::replace(&mut self.is_exhausted, true);
                    if was_exhausted { Accepted::Nobody } else { Accepted::Exhausted(error) }
                }
                // accept(2) also passes on what went wrong with the connection that was waiting.
                _ => Accepted::Aborted,
            },
        }
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        // Nobody else serves this directory, so the name is ours. If it is gone already, all the better.
        let _ = fs::remove_file(&self.path);
    }
}

fn bind_tcp(addresses: &[IpAddr], mut port: u16) -> Result<(Vec<TcpListener>, u16), RunError> {
    let mut listeners = Vec::with_capacity(addresses.len());
    for address in addresses {
        let addr = SocketAddr::new(*address, port);
        let bound = match address {
            // It would take all of IPv4 too, and that is bound for itself.
            IpAddr::V6(any) if any.is_unspecified() && addresses.iter().any(IpAddr::is_ipv4) => {
                bind_any_v6_only(port)
            }
            IpAddr::V4(_) | IpAddr::V6(_) => TcpListener::bind(addr),
        };
        match bound {
            Ok(listener) => {
                port =
                    listener.local_addr().map_err(|source| RunError::Bind { addr, source })?.port();
                listeners.push(listener);
            }
            Err(source) if source.kind() == io::ErrorKind::AddrInUse => {
                return Err(RunError::PortTaken { addr });
            }
            Err(source) if !listeners.is_empty() && address.is_loopback() && is_absent(&source) => {
            }
            Err(source) => return Err(RunError::Bind { addr, source }),
        }
    }
    Ok((listeners, port))
}

/// Binds `[::]` for IPv6 alone. The standard library has no such option, so the socket is made here as mio makes it.
fn bind_any_v6_only(port: u16) -> io::Result<TcpListener> {
    let socket = new_socket(net::AddressFamily::INET6)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_ipv6_v6only(&socket, true)?;
    net::bind(&socket, &SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))?;
    net::listen(&socket, BACKLOG)?;
    let listener = std::net::TcpListener::from(socket);
    listener.set_nonblocking(true)?;
    Ok(TcpListener::from_std(listener))
}

/// A stream socket that no agent inherits.
fn new_socket(family: net::AddressFamily) -> io::Result<OwnedFd> {
    let socket = net::socket(family, net::SocketType::STREAM, None)?;
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    Ok(socket)
}

/// The machine does not have the address or the whole family.
fn is_absent(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT))
}

/// Binds the socket that only its owner can open (security J1). A daemon that died left its socket behind; the lock of
/// the data directory proves that nobody serves it.
///
/// The mode is set before the socket listens, and nobody can connect to one that does not. The umask would do it too, but
/// it is the whole process's: whatever another thread makes at that moment would get it.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path)?,
        Ok(_) => return Err(io::Error::other("something that is not a socket is in its place")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let socket = new_socket(net::AddressFamily::UNIX)?;
    net::bind(&socket, &net::SocketAddrUnix::new(path)?)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    net::listen(&socket, BACKLOG)?;
    let listener = std::os::unix::net::UnixListener::from(socket);
    listener.set_nonblocking(true)?;
    Ok(UnixListener::from_std(listener))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpStream};
    use std::os::unix::fs::{MetadataExt, symlink};

    const LOOPBACK: [IpAddr; 2] =
        [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

    #[test]
    fn j1_the_socket_is_private_and_a_stale_one_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(SOCKET_NAME);
        let listeners = Listeners::bind(&LOOPBACK[..1], 0, dir.path()).unwrap();
        assert_ne!(listeners.port(), 0);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        drop(listeners);
        assert!(!path.exists());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        Listeners::bind(&LOOPBACK[..1], 0, dir.path()).unwrap();
    }

    #[test]
    fn a_socket_is_never_bound_through_what_is_in_its_place() {
        let dir = tempfile::tempdir().unwrap();
        symlink("/etc/passwd", dir.path().join(SOCKET_NAME)).unwrap();
        let refused = Listeners::bind(&LOOPBACK[..1], 0, dir.path());
        assert!(matches!(refused, Err(RunError::Socket { .. })));
    }

    #[test]
    fn both_loopback_addresses_have_one_port_and_a_taken_one_is_said() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let listeners = Listeners::bind(&LOOPBACK, 0, first.path()).unwrap();
        let port = listeners.port();
        assert!(listeners.len() >= 2);
        let taken = Listeners::bind(&LOOPBACK, port, second.path());
        let Err(RunError::PortTaken { addr }) = taken else { panic!("{taken:?}") };
        assert_eq!(addr, SocketAddr::new(LOOPBACK[0], port));
        assert!(!second.path().join(SOCKET_NAME).exists());
    }

    #[test]
    fn f1_every_address_of_both_families_has_one_port_and_each_peer_is_its_own_family() {
        let dir = tempfile::tempdir().unwrap();
        let (v4, v6) = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED));
        for order in [[v4, v6], [v6, v4]] {
            let mut listeners = Listeners::bind(&order, 0, dir.path()).unwrap();
            assert_eq!(listeners.len(), 3);
            for (index, any) in order.iter().enumerate() {
                let address = LOOPBACK.into_iter().find(|one| one.is_ipv4() == any.is_ipv4());
                let peer = TcpStream::connect((address.unwrap(), listeners.port())).unwrap();
                let Accepted::Connection(_, Source::Tcp(from)) =
                    listeners.accept(index, Instant::default())
                else {
                    panic!("nobody at {any}")
                };
                assert_eq!(from, peer.local_addr().unwrap().ip());
            }
        }
        let alone = Listeners::bind(&[v6], 0, dir.path()).unwrap();
        TcpStream::connect((Ipv4Addr::LOCALHOST, alone.port())).unwrap();
    }

    #[test]
    fn f1_an_address_of_somebody_else_is_refused_with_advice() {
        let dir = tempfile::tempdir().unwrap();
        // TEST-NET-1 (RFC 5737) is nobody's.
        let absent = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        let refused = Listeners::bind(&[absent], 0, dir.path()).unwrap_err();
        let text = refused.to_string();
        assert!(text.contains("192.0.2.1") && text.contains("--bind"), "{text}");
        assert!(!text.contains("--bind-address"), "{text}");
        assert!(!dir.path().join(SOCKET_NAME).exists());
    }
}
