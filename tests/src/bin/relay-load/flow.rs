//! Many streams at full speed from one thread: what goes in at one end is counted at the other.
//!
//! With TLS each end has a session of its own with the server. What comes out is counted as it is, not opened, so that
//! this thread has less to do than the server: it counts one byte in 700 too many.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use clawd_runtime_mio::tls::TlsStream;
use clawd_tests::daemon::{Process, Tls};
use mio::event::Source;
use mio::net::TcpStream as Socket;
use mio::{Events, Interest, Poll, Token};

/// How long streams flow in one round.
const SPAN: Duration = Duration::from_secs(1);
/// What one socket is given at once.
const TURN: usize = 16;

/// One end of a stream that blocks until it is in a flow.
pub(crate) trait End {
    /// The same without blocking.
    type Sender: Write;
    fn into_sender(self) -> io::Result<Self::Sender>;
    fn socket(sender: &mut Self::Sender) -> &mut dyn Source;
    fn into_receiver(self) -> io::Result<Socket>;
}

impl End for TcpStream {
    type Sender = Socket;

    fn into_sender(self) -> io::Result<Socket> {
        self.into_receiver()
    }

    fn socket(sender: &mut Socket) -> &mut dyn Source {
        sender
    }

    fn into_receiver(self) -> io::Result<Socket> {
        self.set_nonblocking(true)?;
        Ok(Socket::from_std(self))
    }
}

impl End for Tls {
    type Sender = TlsStream<Socket>;

    fn into_sender(self) -> io::Result<TlsStream<Socket>> {
        let (session, socket) = self.into_parts();
        Ok(TlsStream::over(socket.into_sender()?, session))
    }

    fn socket(sender: &mut TlsStream<Socket>) -> &mut dyn Source {
        sender.io_mut()
    }

    fn into_receiver(self) -> io::Result<Socket> {
        self.into_parts().1.into_receiver()
    }
}

struct Stream<W> {
    from: W,
    to: Socket,
    /// Bytes of the piece that have gone in.
    sent: usize,
    can_write: bool,
}

/// What came out of all streams.
#[derive(Clone, Copy)]
pub(crate) struct Speed {
    /// MB in a second.
    pub(crate) rate: f64,
    /// Seconds of the server's own time on a core for a GB, which hardly depends on what else the machine does.
    pub(crate) cost: f64,
}

/// `piece` goes into each stream of this server again and again.
pub(crate) fn run<E: End>(server: &Process, pairs: Vec<(E, E)>, piece: &[u8]) -> io::Result<Speed> {
    let mut poll = Poll::new()?;
    let mut streams = Vec::with_capacity(pairs.len());
    for (index, (from, to)) in pairs.into_iter().enumerate() {
        let (mut from, mut to) = (from.into_sender()?, to.into_receiver()?);
        poll.registry().register(E::socket(&mut from), Token(2 * index), Interest::WRITABLE)?;
        poll.registry().register(&mut to, Token(2 * index + 1), Interest::READABLE)?;
        streams.push(Stream { from, to, sent: 0, can_write: true });
    }
    let mut buffer = vec![0; 256 * 1024];
    let mut events = Events::with_capacity(1024);
    let (start, busy, mut came) = (Instant::now(), server.busy()?, 0);
    while start.elapsed() < SPAN {
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
    let (took, busy) = (start.elapsed().as_secs_f64(), server.busy()? - busy);
    Ok(Speed { rate: came as f64 / 1e6 / took, cost: busy.as_secs_f64() / (came as f64 / 1e9) })
}

impl<W: Write> Stream<W> {
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
