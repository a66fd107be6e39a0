//! Many streams at full speed from one thread: what goes in at one end is counted at the other.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use mio::net::TcpStream as Socket;
use mio::{Events, Interest, Poll, Token};

/// What one socket is given at once.
const TURN: usize = 16;

struct Stream {
    from: Socket,
    to: Socket,
    /// Bytes of the piece that have gone in.
    sent: usize,
    can_write: bool,
}

/// Bytes per second that come out, over all streams, while `piece` goes in again and again.
pub(crate) fn run(
    pairs: Vec<(TcpStream, TcpStream)>,
    piece: &[u8],
    span: Duration,
) -> io::Result<f64> {
    let mut poll = Poll::new()?;
    let mut streams = Vec::with_capacity(pairs.len());
    for (index, (from, to)) in pairs.into_iter().enumerate() {
        from.set_nonblocking(true)?;
        to.set_nonblocking(true)?;
        let (mut from, mut to) = (Socket::from_std(from), Socket::from_std(to));
        poll.registry().register(&mut from, Token(2 * index), Interest::WRITABLE)?;
        poll.registry().register(&mut to, Token(2 * index + 1), Interest::READABLE)?;
        streams.push(Stream { from, to, sent: 0, can_write: true });
    }
    let mut buffer = vec![0; 256 * 1024];
    let mut events = Events::with_capacity(1024);
    let (start, mut came) = (Instant::now(), 0);
    while start.elapsed() < span {
        let can_write = streams.iter().any(|stream| stream.can_write);
        let timeout = if can_write { Duration::ZERO } else { Duration::from_millis(100) };
        poll.poll(&mut events, Some(timeout))?;
        for event in &events {
            let stream = &mut streams[event.token().0 / 2];
            if event.token().0 % 2 == 0 {
                stream.can_write = true;
            } else {
                came += stream.read(&mut buffer)?;
            }
        }
        for stream in &mut streams {
            stream.write(piece)?;
        }
    }
    Ok(came as f64 / start.elapsed().as_secs_f64())
}

impl Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut came = 0;
        loop {
            match self.to.read(buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(len) => came += len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(came),
                Err(error) => return Err(error),
            }
        }
    }

    fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        for _ in 0..TURN {
            if !self.can_write {
                break;
            }
            match self.from.write(&piece[self.sent..]) {
                Ok(len) => self.sent = (self.sent + len) % piece.len(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.can_write = false,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
