//! A client that costs next to nothing: frames with a mask of zeros, counted and not parsed, many connections on one
//! thread, so that what is measured is the server.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

/// One WebSocket connection.
pub(crate) struct Conn {
    stream: TcpStream,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
}

impl Conn {
    /// Connects and upgrades.
    pub(crate) fn open(port: u16) -> io::Result<Self> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let head = format!(
            "GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(head.as_bytes())?;
        let mut conn = Self { stream, inbox: Vec::with_capacity(64 * 1024), outbox: Vec::new() };
        loop {
            conn.fill()?;
            if let Some(at) = conn.inbox.windows(4).position(|part| part == b"\r\n\r\n") {
                let is_upgraded = conn.inbox.starts_with(b"HTTP/1.1 101 ");
                conn.inbox.drain(..at + 4);
                return if is_upgraded { Ok(conn) } else { Err(io::Error::other("no upgrade")) };
            }
        }
    }

    /// Connects as the holder of `token`.
    pub(crate) fn owner(port: u16, token: &str) -> io::Result<Self> {
        let mut conn = Self::open(port)?;
        let auth = format!(
            r#"{{"jsonrpc":"2.0","id":"auth","method":"daemon.auth","params":{{"token":"{token}"}}}}"#
        );
        let answer = conn.call("auth", &auth)?;
        if answer.contains("\"authenticated\":true") {
            Ok(conn)
        } else {
            Err(io::Error::other(answer))
        }
    }

    /// Sends a request with this string id and waits for its answer.
    pub(crate) fn call(&mut self, id: &str, request: &str) -> io::Result<String> {
        self.queue(request.as_bytes());
        self.flush()?;
        let mark = format!("\"id\":\"{id}\"");
        loop {
            let mut answer = None;
            self.take(|frame| {
                let text = String::from_utf8_lossy(frame);
                if text.contains(&mark) {
                    answer = Some(text.into_owned());
                }
            });
            if let Some(answer) = answer {
                return Ok(answer);
            }
            self.fill()?;
        }
    }

    /// Resets the connection, so that no port stays in TIME_WAIT.
    pub(crate) fn reset(self) -> io::Result<()> {
        rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO))?;
        Ok(())
    }

    /// Adds a text frame to what [`Self::flush`] writes.
    pub(crate) fn queue(&mut self, payload: &[u8]) {
        let len = payload.len();
        self.outbox.push(0x81);
        match (u8::try_from(len), u16::try_from(len)) {
            (Ok(short @ ..=125), _) => self.outbox.push(0x80 | short),
            (_, Ok(medium)) => {
                self.outbox.push(0x80 | 126);
                self.outbox.extend_from_slice(&medium.to_be_bytes());
            }
            (_, Err(_)) => {
                self.outbox.push(0x80 | 127);
                self.outbox.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        self.outbox.extend_from_slice(&[0; 4]);
        self.outbox.extend_from_slice(payload);
    }

    /// Writes what is queued; what the socket does not take now stays queued.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while !self.outbox.is_empty() {
            match self.stream.write(&self.outbox) {
                Ok(len) => drop(self.outbox.drain(..len)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut piece = [0; 64 * 1024];
        match self.stream.read(&mut piece)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            len => {
                self.inbox.extend_from_slice(&piece[..len]);
                Ok(())
            }
        }
    }

    /// Gives each whole frame that has come to `each`; how many there were.
    fn take(&mut self, mut each: impl FnMut(&[u8])) -> usize {
        let (mut at, mut count) = (0, 0);
        while let Some((start, len)) = header(&self.inbox[at..]) {
            let Some(payload) = self.inbox.get(at + start..at + start + len) else { break };
            each(payload);
            count += 1;
            at += start + len;
        }
        self.inbox.drain(..at);
        count
    }
}

/// Where the payload of the frame at the beginning of `bytes` starts, and its length.
fn header(bytes: &[u8]) -> Option<(usize, usize)> {
    match *bytes.get(1)? {
        126 => Some((4, usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?])))),
        127 => {
            let long = bytes.get(2..10)?.try_into().ok()?;
            Some((10, usize::try_from(u64::from_be_bytes(long)).ok()?))
        }
        short => Some((2, usize::from(short))),
    }
}

/// Many connections on one thread.
pub(crate) struct Many {
    poll: Poll,
    events: Events,
    pub(crate) conns: Vec<Conn>,
}

impl Many {
    pub(crate) fn new(conns: Vec<Conn>) -> io::Result<Self> {
        let poll = Poll::new()?;
        for (index, conn) in conns.iter().enumerate() {
            conn.stream.set_nonblocking(true)?;
            let fd = std::os::fd::AsRawFd::as_raw_fd(&conn.stream);
            let mut source = mio::unix::SourceFd(&fd);
            poll.registry().register(&mut source, Token(index), Interest::READABLE)?;
        }
        Ok(Self { poll, events: Events::with_capacity(256), conns })
    }

    /// Reads what comes until `is_done`, or nothing comes for long; `each` gets the connection and its number of new
    /// frames, of which all must be as asked.
    pub(crate) fn run(
        &mut self,
        is_as_asked: impl Fn(&[u8]) -> bool,
        mut each: impl FnMut(usize, &mut Conn, usize) -> io::Result<()>,
        mut is_done: impl FnMut() -> bool,
    ) -> io::Result<()> {
        while !is_done() {
            self.poll.poll(&mut self.events, Some(Duration::from_secs(10)))?;
            if self.events.is_empty() {
                return Err(io::Error::other("the server has fallen silent"));
            }
            for event in &self.events {
                let index = event.token().0;
                let conn = &mut self.conns[index];
                // Edge-triggered: read until there is nothing.
                loop {
                    match conn.fill() {
                        Ok(()) => {}
                        Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                        Err(error) => return Err(error),
                    }
                }
                let mut is_odd = false;
                let count = conn.take(|frame| is_odd |= !is_as_asked(frame));
                if is_odd {
                    return Err(io::Error::other("the server said something else"));
                }
                each(index, conn, count)?;
                conn.flush()?;
            }
        }
        Ok(())
    }
}

/// Sends `request` over each connection, `depth` at a time, for `span` after a warm-up; answers per second, of which each
/// must end with `end`.
pub(crate) fn ping_pong(
    conns: Vec<Conn>,
    request: &[u8],
    end: &[u8],
    depth: usize,
    span: Duration,
) -> io::Result<f64> {
    let mut many = Many::new(conns)?;
    for conn in &mut many.conns {
        (0..depth).for_each(|_| conn.queue(request));
        conn.flush()?;
    }
    let warm = Instant::now() + span / 4;
    let mut begun = None;
    let answered = std::cell::Cell::new(0_u64);
    many.run(
        |frame| frame.ends_with(end),
        |_, conn, count| {
            (0..count).for_each(|_| conn.queue(request));
            answered.set(answered.get() + count as u64);
            Ok(())
        },
        || {
            let now = Instant::now();
            match begun {
                None if now >= warm => {
                    begun = Some((now, answered.get()));
                    false
                }
                None => false,
                Some((at, _)) => now - at >= span,
            }
        },
    )?;
    let (at, before) = begun.ok_or_else(|| io::Error::other("no time has passed"))?;
    Ok((answered.get() - before) as f64 / at.elapsed().as_secs_f64())
}
