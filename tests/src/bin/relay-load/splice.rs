//! The least that brings two connections together: who comes first and who comes second get each other's bytes.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;
use std::thread;

use clawd_runtime_mio::tls::{Identity, Trusted, client_config, server_config, server_name};
use clawd_tests::daemon::{Process, port_in};
use mio::net::{TcpListener, TcpStream as Socket};
use mio::{Events, Interest, Poll, Token};
use rustls::{ClientConnection, ServerConnection, StreamOwned};

use super::flow::Speed;
use super::{BULK_BYTES, Outcome, PING_BYTES, flow, legs, pin};

const LISTENER: Token = Token(usize::MAX);

/// One connection, and what it has not taken yet.
struct End {
    socket: Socket,
    rest: Vec<u8>,
    is_open: bool,
}

/// Says its port and serves until it is killed.
pub(crate) fn serve() -> io::Result<()> {
    let mut listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0).into())?;
    writeln!(io::stdout(), "listens on {}", listener.local_addr()?)?;
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(1024);
    let mut ends: Vec<End> = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut socket, _)) = listener.accept() {
                    socket.set_nodelay(true)?;
                    let both = Interest::READABLE | Interest::WRITABLE;
                    poll.registry().register(&mut socket, Token(ends.len()), both)?;
                    ends.push(End { socket, rest: Vec::new(), is_open: true });
                }
                continue;
            }
            let index = event.token().0;
            if event.is_writable() && drain(&mut ends[index]) {
                pump(&mut ends, index ^ 1, &mut buffer);
            }
            pump(&mut ends, index, &mut buffer);
        }
    }
}

/// Whether everything has left.
fn drain(end: &mut End) -> bool {
    while !end.rest.is_empty() {
        match end.socket.write(&end.rest) {
            Ok(len) => drop(end.rest.drain(..len)),
            Err(_) => return false,
        }
    }
    true
}

/// Copies from one end to the other until there is no more or no room.
fn pump(ends: &mut [End], from: usize, buffer: &mut [u8]) {
    let to = from ^ 1;
    while from.max(to) < ends.len() && ends[from].is_open && ends[to].rest.is_empty() {
        match ends[from].socket.read(buffer) {
            Ok(0) => ends[from].is_open = false,
            Ok(len) => {
                let taken = ends[to].socket.write(&buffer[..len]).unwrap_or(0);
                ends[to].rest.extend_from_slice(&buffer[taken..len]);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(_) => ends[from].is_open = false,
        }
    }
}

/// The server, in a process of its own.
pub(crate) struct Splice {
    process: Process,
    port: u16,
}

impl Splice {
    pub(crate) fn start() -> Outcome<Self> {
        let own = std::env::current_exe()?;
        let mut process = Process::spawn(Command::new(own).arg("--serve-splice"));
        let port = process.wait_for(port_in).ok_or("the splicer ended")?;
        pin("0", process.pid());
        Ok(Self { process, port })
    }

    /// Full speed through so many streams at once.
    pub(crate) fn bulk(&self, count: usize) -> Outcome<Speed> {
        let pairs = (0..count).map(|_| self.pair()).collect::<io::Result<Vec<_>>>()?;
        Ok(flow::run(&self.process, pairs, &[0; BULK_BYTES])?)
    }

    /// The median of many round trips, in microseconds.
    pub(crate) fn round_trip(&self) -> Outcome<f64> {
        Ok(legs::round_trip(self.pair()?, &[0; PING_BYTES], PING_BYTES)?)
    }

    /// The same with one TLS session from end to end: what the two ends' own work takes of it.
    pub(crate) fn round_trip_tls(&self) -> Outcome<f64> {
        let (client, daemon) = self.pair()?;
        let session = ClientConnection::new(client_config(Trusted::AnyKey, None)?, server_name())?;
        let mut client = StreamOwned::new(session, client);
        let session = ServerConnection::new(server_config(&Identity::generate()?)?)?;
        let mut daemon = StreamOwned::new(session, daemon);
        thread::scope(|scope| {
            let shaken = scope.spawn(|| daemon.flush());
            client.flush()?;
            shaken.join().map_err(|_| io::Error::other("the handshake panicked"))?
        })?;
        Ok(legs::round_trip((client, daemon), &[0; PING_BYTES], PING_BYTES)?)
    }

    /// Two connections that have each other's bytes.
    fn pair(&self) -> io::Result<(TcpStream, TcpStream)> {
        let connect = || {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
            stream.set_nodelay(true)?;
            Ok::<_, io::Error>(stream)
        };
        Ok((connect()?, connect()?))
    }
}
