//! Two servers that only echo, to know what the machine and the libraries allow at best.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::str::FromStr;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use tungstenite::{Error, WebSocket};

/// Which server.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// mio with tungstenite.
    Tungstenite,
    /// mio with the least framing that works for short text frames.
    Bare,
}

impl FromStr for Kind {
    type Err = io::Error;
    fn from_str(text: &str) -> io::Result<Self> {
        match text {
            "tungstenite" => Ok(Self::Tungstenite),
            "bare" => Ok(Self::Bare),
            _ => Err(ErrorKind::InvalidInput.into()),
        }
    }
}

trait Echo {
    /// Echoes all that has come; an error is the end of the connection.
    fn turn(&mut self) -> io::Result<()>;
}

/// Says its port and serves until it is killed.
pub(crate) fn serve(kind: Kind) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    writeln!(io::stdout(), "127.0.0.1:{}", listener.local_addr()?.port())?;
    listener.set_nonblocking(true)?;
    let mut poll = Poll::new()?;
    let accept = Token(usize::MAX);
    poll.registry().register(&mut SourceFd(&listener.as_raw_fd()), accept, Interest::READABLE)?;
    let mut events = Events::with_capacity(256);
    let mut conns: BTreeMap<usize, Box<dyn Echo>> = BTreeMap::new();
    let mut next = 0;
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == accept {
                while let Ok((stream, _)) = listener.accept() {
                    let fd = stream.as_raw_fd();
                    conns.insert(next, open(kind, stream)?);
                    poll.registry().register(
                        &mut SourceFd(&fd),
                        Token(next),
                        Interest::READABLE,
                    )?;
                    next += 1;
                }
            } else if let Some(conn) = conns.get_mut(&event.token().0)
                && conn.turn().is_err()
            {
                conns.remove(&event.token().0);
            }
        }
    }
}

fn open(kind: Kind, stream: TcpStream) -> io::Result<Box<dyn Echo>> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    let socket =
        tungstenite::accept(stream).map_err(|error| io::Error::other(error.to_string()))?;
    socket.get_ref().set_nonblocking(true)?;
    Ok(match kind {
        Kind::Tungstenite => Box::new(socket),
        Kind::Bare => Box::new(Bare { stream: socket.into_inner(), inbox: Vec::new() }),
    })
}

impl Echo for WebSocket<TcpStream> {
    fn turn(&mut self) -> io::Result<()> {
        loop {
            match self.read() {
                Ok(message) => self.write(message).map_err(io::Error::other)?,
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        self.flush().map_err(io::Error::other)
    }
}

struct Bare {
    stream: TcpStream,
    inbox: Vec<u8>,
}

impl Echo for Bare {
    fn turn(&mut self) -> io::Result<()> {
        let mut piece = [0; 64 * 1024];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(len) => self.inbox.extend_from_slice(&piece[..len]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        let (mut out, mut at) = (Vec::with_capacity(self.inbox.len()), 0);
        // Frames of at most 125 bytes, as the pings are: two bytes, four of mask, payload.
        while let Some(len) = self.inbox.get(at + 1).map(|second| usize::from(second & 0x7f)) {
            let Some(frame) = self.inbox.get(at..at + 6 + len) else { break };
            out.extend_from_slice(&[frame[0], frame[1] & 0x7f]);
            let mask = &frame[2..6];
            out.extend(frame[6..].iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
            at += 6 + len;
        }
        self.inbox.drain(..at);
        self.stream.write_all(&out)
    }
}
