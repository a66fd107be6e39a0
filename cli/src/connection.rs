//! A small blocking runtime around `protocol::client`: one WebSocket to our own daemon.
//!
//! Owns the socket and the waiting; refuses to know what the calls mean. Invariants: the token goes out only to a process
//! of this user on the socket in the private directory, or over TCP to one that has proved that it knows the token
//! (security A7); the token is exposed in one place, where the frame is written.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use clawd_protocol::access::token::Secret;
use clawd_protocol::client::{CallId, Client, Happening, RpcError, Trust, Violation, Welcome};
use rustix::event::{PollFd, PollFlags, Timespec};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tungstenite::{Error as WsError, Message, WebSocket};

use crate::daemon;
use crate::exit::{Exit, Failure};

/// How long the daemon may take to let us in.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
/// How long it may take to answer a call: longer than a provider's probe.
const CALL_TIMEOUT: Duration = Duration::from_secs(40);

/// One of the two ways to reach the daemon.
#[derive(Debug)]
enum Link {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Read for Link {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(buffer),
            Self::Tcp(stream) => stream.read(buffer),
        }
    }
}

impl Write for Link {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(bytes),
            Self::Tcp(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(stream) => stream.as_fd(),
            Self::Tcp(stream) => stream.as_fd(),
        }
    }
}

impl Link {
    fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Self::Unix(stream) => {
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))
            }
            Self::Tcp(stream) => {
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))
            }
        }
    }

    fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.set_nonblocking(true),
            Self::Tcp(stream) => stream.set_nonblocking(true),
        }
    }
}

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
    pub(crate) fn over_unix(stream: UnixStream, token: Secret) -> Result<Self, Failure> {
        let trust = if daemon::is_our_user(&stream)? { Trust::PeerVerified } else { demand()? };
        Self::open(Link::Unix(stream), "ws://localhost/", token, trust)
    }

    /// Over TCP, where anybody might listen.
    pub(crate) fn over_tcp(address: SocketAddr, token: Secret) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address)
            .map_err(|error| Failure::io(&format!("cannot connect to {address}"), &error))?;
        let _ = stream.set_nodelay(true);
        let url = format!("ws://localhost:{}/", address.port());
        Self::open(Link::Tcp(stream), &url, token, demand()?)
    }

    fn open(link: Link, url: &str, token: Secret, trust: Trust) -> Result<Self, Failure> {
        let io = |error: io::Error| Failure::io("cannot talk to the daemon", &error);
        link.set_timeout(HANDSHAKE_TIMEOUT).map_err(io)?;
        let (socket, _) = tungstenite::client::client(url, link)
            .map_err(|error| lost(&format!("it does not speak WebSocket: {error}")))?;
        socket.get_ref().set_nonblocking().map_err(io)?;
        let (client, opening) = Client::new(token, trust);
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
                Met::Daemon(Happening::Answer { .. } | Happening::Event { .. }) | Met::Other(_) => {
                }
            }
        }
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
                Some(Met::Daemon(
                    Happening::Answer { .. } | Happening::Send(_) | Happening::Ready(_),
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
                Some(Met::Daemon(Happening::Send(_) | Happening::Ready(_))) => continue,
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

enum Polled {
    Link,
    Other(usize),
    Timeout,
}

fn poll(
    link: &Link,
    flags: PollFlags,
    others: &[BorrowedFd<'_>],
    deadline: Option<Instant>,
) -> Result<Polled, Failure> {
    let mut fds: Vec<PollFd<'_>> = vec![PollFd::new(link, flags)];
    fds.extend(others.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        // Rounded up: a wait that ends a little early would go round once more for nothing.
        let timeout = left.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(0) => return Ok(Polled::Timeout),
            Ok(_) => break,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Failure::io("cannot wait", &error.into())),
        }
    }
    // People first: a busy daemon must not keep Ctrl-C from being heard.
    let other = fds.iter().skip(1).position(|fd| !fd.revents().is_empty());
    Ok(other.map_or(Polled::Link, Polled::Other))
}

fn demand() -> Result<Trust, Failure> {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce)
        .map_err(|error| Failure::new(Exit::Failure, "entropy", error.to_string()))?;
    let nonce = nonce.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Trust::DemandProof { nonce })
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
        Violation::NotJsonRpc | Violation::UnknownCall | Violation::Early => {
            lost(&violation.to_string())
        }
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

/// Whether one may go on without the user: Ctrl-C as something that can be waited for.
#[derive(Debug)]
pub(crate) struct Interrupts(UnixStream);

impl Interrupts {
    /// From now on these signals do not end the process.
    pub(crate) fn catch(signals: &[i32]) -> Result<Self, Failure> {
        let io = |error: io::Error| Failure::io("cannot listen for Ctrl-C", &error);
        let (read, write) = UnixStream::pair().map_err(io)?;
        read.set_nonblocking(true).map_err(io)?;
        for signal in signals {
            signal_hook::low_level::pipe::register(*signal, write.try_clone().map_err(io)?)
                .map_err(io)?;
        }
        Ok(Self(read))
    }

    /// How many have come since the last look.
    pub(crate) fn take(&mut self) -> usize {
        let mut bytes = [0; 16];
        self.0.read(&mut bytes).unwrap_or(0)
    }
}

impl AsFd for Interrupts {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clawd_protocol::access::token::{TokenDigest, mint_local};
    use std::net::TcpListener;
    use std::sync::mpsc;
    use std::thread;

    /// What a fake daemon does with one text: its answers.
    type Answer = fn(&str, &TokenDigest) -> Vec<String>;

    fn token() -> Secret {
        mint_local([1; 32])
    }

    /// A program on a port that speaks WebSocket and answers as told; gives everything it was sent.
    fn fake(answer: Answer) -> (SocketAddr, mpsc::Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            let digest = TokenDigest::of(token().expose());
            let (stream, _) = listener.accept().unwrap();
            let mut socket = tungstenite::accept(stream).unwrap();
            while let Ok(message) = socket.read() {
                let Ok(text) = message.into_text() else { continue };
                tell.send(text.to_string()).unwrap();
                for answer in answer(&text, &digest) {
                    socket.send(Message::text(answer)).unwrap();
                }
            }
        });
        (address, told)
    }

    fn result(id: &Value, result: &Value) -> String {
        serde_json::json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string()
    }

    /// The real thing, as far as the handshake and one call go.
    fn honest(text: &str, digest: &TokenDigest) -> Vec<String> {
        let request: Value = serde_json::from_str(text).unwrap();
        let id = &request["id"];
        match request["method"].as_str().unwrap() {
            "daemon.ping" => {
                let proof = digest.proof(request["params"]["nonce"].as_str().unwrap());
                vec![result(id, &serde_json::json!({"pong": true, "proof": proof}))]
            }
            "daemon.auth" if request["params"]["token"] == token().expose() => {
                vec![
                    result(id, &serde_json::json!({"authenticated": true, "role": "owner"})),
                    r#"{"jsonrpc":"2.0","method":"daemon.ready","params":{"seq":1}}"#.to_owned(),
                ]
            }
            "session.list" => vec![result(id, &serde_json::json!([]))],
            _ => vec![serde_json::json!({"jsonrpc": "2.0", "id": id, "error": {
                "code": -32001, "message": "no such session", "data": {"kind": "session_not_found"},
            }})
            .to_string()],
        }
    }

    #[test]
    fn a7_a_squatter_on_the_port_gets_neither_the_token_nor_its_hash() {
        let squatters: [Answer; 3] = [
            |_, _| vec![r#"{"jsonrpc":"2.0","id":0,"result":{"pong":true}}"#.to_owned()],
            |_, _| {
                let proof = TokenDigest::of("a guess").proof("nonce");
                vec![format!(
                    r#"{{"jsonrpc":"2.0","id":0,"result":{{"pong":true,"proof":"{proof}"}}}}"#
                )]
            },
            |_, _| vec!["come in".to_owned()],
        ];
        for squatter in squatters {
            let (address, told) = fake(squatter);
            let failure = Connection::over_tcp(address, token()).unwrap_err();
            assert_eq!(failure.exit, Exit::NotRunning);
            let heard: Vec<String> = told.iter().collect();
            let digest: String = TokenDigest::of(token().expose())
                .to_bytes()
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect();
            assert_eq!(heard.len(), 1, "{heard:?}");
            assert!(!heard[0].contains(token().expose()) && !heard[0].contains(&digest));
        }
    }

    #[test]
    fn a7_who_proves_to_know_the_token_is_talked_to() {
        let (address, told) = fake(honest);
        let mut daemon = Connection::over_tcp(address, token()).unwrap();
        assert_eq!(
            daemon.call("session.list", serde_json::json!({})).unwrap(),
            serde_json::json!([])
        );
        let failure = daemon.call("session.get", serde_json::json!({})).unwrap_err();
        assert_eq!(failure.exit, Exit::NotFound);
        // What came before the answers was kept.
        let Woken::Event(event) = daemon.wait(&[], None).unwrap() else { panic!("no event") };
        assert_eq!(event.method, "daemon.ready");
        let past = Instant::now();
        assert!(matches!(daemon.wait(&[], Some(past)).unwrap(), Woken::Timeout));
        drop(daemon);
        let methods: Vec<Value> = told
            .iter()
            .map(|text| serde_json::from_str::<Value>(&text).unwrap()["method"].clone())
            .collect();
        assert_eq!(methods, ["daemon.ping", "daemon.auth", "session.list", "session.get"]);
    }

    #[test]
    fn another_descriptor_wakes_the_wait() {
        let (address, _told) = fake(honest);
        let mut daemon = Connection::over_tcp(address, token()).unwrap();
        daemon.call("session.list", serde_json::json!({})).unwrap();
        let _ = daemon.wait(&[], None).unwrap();
        let (read, mut write) = UnixStream::pair().unwrap();
        write.write_all(b"x").unwrap();
        assert!(matches!(daemon.wait(&[read.as_fd()], None).unwrap(), Woken::Other(0)));
    }
}
