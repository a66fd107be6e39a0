//! A small blocking runtime around `protocol::client`: one WebSocket to a daemon.
//!
//! Owns the calls and what comes between them; refuses to know what the calls mean. Invariants: the token goes out only to a
//! process of this user on the socket in the private directory, over TCP to one that has proved that it knows the token
//! (security A7), or over TLS to the key that was paired with (G1); the token is exposed in one place, where the frame is
//! written.

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
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::daemon;
use crate::exit::{Exit, Failure};
use link::Link;
use pulse::Pulse;
use socket::{Heard, Socket};

pub(crate) use secure::{Fault, Secure};
pub(crate) use stranger::Stranger;

mod link;
mod pulse;
mod secure;
mod socket;
mod stranger;

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
    socket: Socket,
    client: Client,
    pub(crate) welcome: Welcome,
    /// By which way, if the daemon is elsewhere.
    pub(crate) way: Option<String>,
    early: VecDeque<Event>,
    /// Only where a connection may be cut without a word.
    pulse: Option<Pulse>,
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

    /// Over TLS to a daemon elsewhere, whose key has answered: that is the proof of who it is (security G1).
    pub(crate) fn over_tls(
        secure: Secure,
        token: Secret,
        from: Option<Bookmark>,
    ) -> Result<Self, Failure> {
        let url = secure.url();
        let (client, opening) = Client::resuming(token, Trust::PeerVerified, from);
        let mut this = Self::open(Link::Tls(secure.into_stream()), &url, client, opening)?;
        this.pulse = Some(Pulse::default());
        Ok(this)
    }

    fn open(link: Link, url: &str, client: Client, opening: Secret) -> Result<Self, Failure> {
        let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
        let socket = Socket::open(link, url, deadline)?;
        let welcome = Welcome::default();
        let early = VecDeque::new();
        let mut this = Self { socket, client, welcome, way: None, early, pulse: None };
        this.socket.send(opening.expose())?;
        loop {
            let Some(happening) = this.happening(&[], Some(deadline))? else {
                return Err(lost("it did not let us in within 15 s"));
            };
            match happening {
                Met::Daemon(Happening::Send(text)) => this.socket.send(text.expose())?,
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
        std::mem::swap(&mut self.early, &mut other.early);
        self.early.append(&mut other.early);
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
        self.socket.send(&text)?;
        Ok(call)
    }

    /// Makes a call and waits for its answer. Events that come meanwhile are kept.
    pub(crate) fn call(&mut self, method: &str, params: impl Serialize) -> Result<Value, Failure> {
        self.call_within(CALL_TIMEOUT, method, params)
    }

    /// The same with patience of one's own.
    pub(crate) fn call_within(
        &mut self,
        patience: Duration,
        method: &str,
        params: impl Serialize,
    ) -> Result<Value, Failure> {
        let wanted = self.start(method, params)?;
        let deadline = Instant::now() + patience;
        loop {
            match self.happening(&[], Some(deadline))? {
                None => {
                    let seconds = patience.as_secs();
                    return Err(lost(&format!("it did not answer {method} within {seconds} s")));
                }
                Some(Met::Daemon(Happening::Answer { call, result })) if call == wanted => {
                    return value(&result.map_err(Failure::from)?);
                }
                Some(Met::Daemon(Happening::Event { method, params })) => {
                    self.early.push_back(Event { method, params: value(&params)? });
                }
                Some(Met::Daemon(Happening::Refused(error))) => return Err(refused(error)),
                Some(Met::Daemon(Happening::Send(text))) => self.socket.send(text.expose())?,
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
                    self.socket.send(text.expose())?;
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
            let beat = self.pulse.as_ref().zip(self.socket.heard()).map(|(it, at)| it.due(at));
            let until = [deadline, beat].into_iter().flatten().min();
            match self.socket.next(others, until)? {
                Heard::Text(text) => {
                    let happening = self.client.handle_text(text.as_str()).map_err(violated)?;
                    if !self.pulse.as_mut().is_some_and(|pulse| pulse.takes(&happening)) {
                        return Ok(Some(Met::Daemon(happening)));
                    }
                }
                Heard::Other(index) => return Ok(Some(Met::Other(index))),
                Heard::Timeout if deadline.is_some_and(|at| at <= Instant::now()) => {
                    return Ok(None);
                }
                Heard::Timeout => self.beat()?,
            }
        }
    }

    /// Nothing came for a while: it is asked whether it is there still.
    fn beat(&mut self) -> Result<(), Failure> {
        let (Some(pulse), Some(heard)) = (&self.pulse, self.socket.heard()) else { return Ok(()) };
        if Instant::now() < pulse.due(heard) {
            return Ok(());
        }
        if pulse.is_asked() {
            return Err(lost("it has fallen silent"));
        }
        let call = self.start("daemon.ping", Map::new())?;
        self.pulse = Some(Pulse::asked(call));
        Ok(())
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
