//! The least that brings two connections together: who comes first and who comes second get each other's bytes.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use mio::net::{TcpListener, TcpStream as Socket};
use mio::{Events, Interest, Poll, Token};

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

/// Two connections to the server on this port that have each other's bytes.
pub(crate) fn pair(port: u16) -> io::Result<(TcpStream, TcpStream)> {
    let connect = || {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        Ok::<_, io::Error>(stream)
    };
    Ok((connect()?, connect()?))
}
