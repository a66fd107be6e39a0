//! A small blocking runtime around `protocol::client`: one WebSocket to our own daemon.
//!
//! Owns the socket and the waiting; refuses to know what the calls mean. Invariants: the token goes out only to a process
//! of this user on the socket in the private directory, or over TCP to one that has proved that it knows the token
//! (security A7); the token is exposed in one place, where the frame is written.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use clawd_protocol::access::token::Secret;
use clawd_protocol::client::{
    Bookmark, CallId, Client, Happening, RpcError, Trust, Violation, Welcome,
};
use rustix::event::PollFlags;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tungstenite::{Error as WsError, HandshakeError, Message, WebSocket};

use crate::daemon;
use crate::exit::{Exit, Failure};
use link::{Link, Polled, poll};

mod link;

/// How long the daemon may take to let us in.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
/// How long it may take to answer a call: longer than a provider's probe.
const CALL_TIMEOUT: Duration = Duration::from_secs(40);

/// What waiting came to.
#[derive(Debug)]
pub(crate) enum Woken {
    /// Something happened over there.
    Event(Event),
    /// The answer to a call.
    Answer(Result<(), RpcError>),
    /// This one of the other descriptors can be read.
    Other(usize),
    /// The deadline has passed.
    Timeout,
}

/// An event of the daemon.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) method: String,
    pub(crate) params: Value,
}

/// An authenticated connection.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: WebSocket<Link>,
    client: Client,
    pub(crate) welcome: Welcome,
    early: VecDeque<Event>,
}

impl Connection {
    /// Over the socket in the data directory.
    pub(crate) fn over_unix(
        stream: UnixStream,
        token: Secret,
        from: Option<Bookmark>,
    ) -> Result<Self, Failure> {
        let trust = if daemon::is_our_user(&stream)? { Trust::PeerVerified } else { demand(0)? };
        let (client, opening) = Client::resuming(token, trust, from);
        Self::open(Link::Unix(stream), "ws://localhost/", client, opening)
    }

    /// Over TCP, where anybody might listen.
    pub(crate) fn over_tcp(
        address: SocketAddr,
        token: Secret,
        from: Option<Bookmark>,
    ) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address).map_err(|error| {
            // Somebody holds the directory: one that has just begun, or is just ending.
            let is_ending = error.kind() == io::ErrorKind::ConnectionRefused;
            let about = if is_ending { "; it may be just ending" } else { "" };
            lost(&format!("{address}: {error}{about}"))
        })?;
        let _ = stream.set_nodelay(true);
        let url = format!("ws://localhost:{}/", address.port());
        let (client, opening) = Client::resuming(token, demand(address.port())?, from);
        Self::open(Link::Tcp(stream), &url, client, opening)
    }

    fn open(link: Link, url: &str, client: Client, opening: Secret) -> Result<Self, Failure> {
        let io = |error: io::Error| Failure::io("cannot talk to the daemon", &error);
        link.set_timeout(HANDSHAKE_TIMEOUT).map_err(io)?;
        let (socket, _) = tungstenite::client::client(url, link).map_err(|error| match error {
            HandshakeError::Failure(WsError::Io(error)) => lost(&error.to_string()),
            error @ (HandshakeError::Failure(_) | HandshakeError::Interrupted(_)) => {
                lost(&format!("it does not speak WebSocket: {error}"))
            }
        })?;
        socket.get_ref().set_nonblocking().map_err(io)?;
        let welcome = Welcome::default();
        let mut this = Self { socket, client, welcome, early: VecDeque::new() };
        this.send(opening.expose())?;
        let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
        loop {
            let Some(happening) = this.happening(&[], Some(deadline))? else {
                return Err(lost("it did not let us in within 15 s"));
            };
            match happening {
                Met::Daemon(Happening::Send(text)) => this.send(text.expose())?,
                Met::Daemon(Happening::Ready(welcome)) => {
                    this.welcome = welcome;
                    return Ok(this);
                }
                Met::Daemon(Happening::Refused(error)) => return Err(refused(error)),
                Met::Daemon(
                    Happening::Answer { .. } | Happening::Event { .. } | Happening::Nothing,
                )
                | Met::Other(_) => {}
            }
        }
    }

    /// Goes on where another connection ended, with what that one had heard and not given out yet.
    pub(crate) fn follow(&mut self, other: &mut Self) {
        self.early = std::mem::take(&mut other.early);
    }

    /// Where the next connection goes on.
    pub(crate) fn bookmark(&self) -> Option<Bookmark> {
        self.client.bookmark().cloned()
    }

    /// The number of the last event that was heard.
    pub(crate) fn seq(&self) -> u64 {
        self.client.bookmark().map_or(0, |bookmark| bookmark.seq)
    }

    /// Makes a call and does not wait.
    pub(crate) fn start(
        &mut self,
        method: &str,
        params: impl Serialize,
    ) -> Result<CallId, Failure> {
        let (call, text) = self
            .client
            .call(method, params)
            .map_err(|misuse| Failure::new(Exit::Failure, "internal", misuse.to_string()))?;
        self.send(&text)?;
        Ok(call)
    }

    /// Makes a call and waits for its answer. Events that come meanwhile are kept.
    pub(crate) fn call(&mut self, method: &str, params: impl Serialize) -> Result<Value, Failure> {
        let wanted = self.start(method, params)?;
        let deadline = Instant::now() + CALL_TIMEOUT;
        loop {
            match self.happening(&[], Some(deadline))? {
                None => return Err(lost(&format!("it did not answer {method} within 40 s"))),
                Some(Met::Daemon(Happening::Answer { call, result })) if call == wanted => {
                    return value(&result.map_err(Failure::from)?);
                }
                Some(Met::Daemon(Happening::Event { method, params })) => {
                    self.early.push_back(Event { method, params: value(&params)? });
                }
                Some(Met::Daemon(Happening::Refused(error))) => return Err(refused(error)),
                Some(Met::Daemon(Happening::Send(text))) => self.send(text.expose())?,
                Some(Met::Daemon(
                    Happening::Answer { .. } | Happening::Nothing | Happening::Ready(_),
                )) => {}
                Some(Met::Other(_)) => {}
            }
        }
    }

    /// Waits for an event, an answer, one of `others` to be readable, or the deadline.
    pub(crate) fn wait(
        &mut self,
        others: &[BorrowedFd<'_>],
        deadline: Option<Instant>,
    ) -> Result<Woken, Failure> {
        if let Some(event) = self.early.pop_front() {
            return Ok(Woken::Event(event));
        }
        loop {
            return Ok(match self.happening(others, deadline)? {
                None => Woken::Timeout,
                Some(Met::Other(index)) => Woken::Other(index),
                Some(Met::Daemon(Happening::Event { method, params })) => {
                    Woken::Event(Event { method, params: value(&params)? })
                }
                Some(Met::Daemon(Happening::Answer { result, .. })) => {
                    Woken::Answer(result.map(drop))
                }
                Some(Met::Daemon(Happening::Refused(error))) => return Err(refused(error)),
                Some(Met::Daemon(Happening::Send(text))) => {
                    self.send(text.expose())?;
                    continue;
                }
                Some(Met::Daemon(Happening::Nothing | Happening::Ready(_))) => continue,
            });
        }
    }

    /// Waits until the daemon has closed the connection.
    pub(crate) fn wait_closed(&mut self, deadline: Instant) -> bool {
        loop {
            match self.happening(&[], Some(deadline)) {
                Ok(Some(_)) => {}
                Ok(None) => return false,
                Err(_) => return true,
            }
        }
    }

    fn happening(
        &mut self,
        others: &[BorrowedFd<'_>],
        deadline: Option<Instant>,
    ) -> Result<Option<Met>, Failure> {
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => {
                    let happening = self.client.handle_text(text.as_str()).map_err(violated)?;
                    return Ok(Some(Met::Daemon(happening)));
                }
                Ok(Message::Close(frame)) => {
                    let why = frame.map_or_else(String::new, |frame| frame.reason.to_string());
                    return Err(closed(&why));
                }
                Ok(
                    Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_),
                ) => {}
                Err(WsError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    match poll(self.socket.get_ref(), PollFlags::IN, others, deadline)? {
                        Polled::Link => {}
                        Polled::Other(index) => return Ok(Some(Met::Other(index))),
                        Polled::Timeout => return Ok(None),
                    }
                }
                Err(WsError::Io(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(WsError::ConnectionClosed | WsError::AlreadyClosed) => return Err(closed("")),
                Err(error) => return Err(lost(&error.to_string())),
            }
        }
    }

    fn send(&mut self, text: &str) -> Result<(), Failure> {
        let mut sent = self.socket.send(Message::text(text));
        let deadline = Some(Instant::now() + CALL_TIMEOUT);
        loop {
            match sent {
                Ok(()) => return Ok(()),
                Err(WsError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    match poll(self.socket.get_ref(), PollFlags::OUT, &[], deadline)? {
                        Polled::Link | Polled::Other(_) => {}
                        Polled::Timeout => return Err(lost("it does not read")),
                    }
                }
                Err(error) => return Err(lost(&error.to_string())),
            }
            sent = self.socket.flush();
        }
    }
}

/// What one reading came to.
enum Met {
    Daemon(Happening),
    Other(usize),
}

fn demand(port: u16) -> Result<Trust, Failure> {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce)
        .map_err(|error| Failure::new(Exit::Failure, "entropy", error.to_string()))?;
    let nonce = nonce.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Trust::DemandProof { nonce, port })
}

fn value(raw: &RawValue) -> Result<Value, Failure> {
    serde_json::from_str(raw.get()).map_err(|error| lost(&error.to_string()))
}

fn lost(why: &str) -> Failure {
    Failure::new(Exit::NotRunning, "unreachable", format!("cannot talk to the daemon: {why}"))
        .hint("see `clawd status`")
}

fn closed(why: &str) -> Failure {
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    Failure::new(Exit::NotRunning, "closed", format!("the daemon closed the connection{why}"))
        .hint("see `clawd status`")
}

fn violated(violation: Violation) -> Failure {
    match violation {
        Violation::NotProved => Failure::new(
            Exit::NotRunning,
            "not_our_daemon",
            format!("what listens there is not our daemon: {violation}"),
        )
        .hint("the token was not sent; stop that program, or choose another `--port`"),
        Violation::NotJsonRpc
        | Violation::UnknownCall
        | Violation::Early
        | Violation::Backwards => lost(&violation.to_string()),
    }
}

fn refused(error: RpcError) -> Failure {
    let mut failure = Failure::from(error);
    failure.exit = Exit::Token;
    if failure.hint.is_none() {
        failure.hint = Some("the token was rotated or revoked; try again".to_owned());
    }
    failure
}

#[cfg(test)]
mod tests;
