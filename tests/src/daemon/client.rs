//! A blocking client for tests, and raw TCP for what no client would send.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{ClientRequestBuilder, Error, Message, WebSocket};

use super::{PATIENCE, Tls};

/// Why a call has no result.
#[derive(Debug, Clone, PartialEq)]
pub enum Failure {
    /// The daemon answered no.
    Refused {
        /// The JSON-RPC code.
        code: i64,
        /// `data.kind`.
        kind: String,
        /// The whole error object.
        error: Value,
    },
    /// The connection is over; with the close code, if there was one.
    Closed(Option<u16>),
}

impl Failure {
    /// The JSON-RPC code, if there was an answer.
    #[must_use]
    pub const fn code(&self) -> Option<i64> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::Closed(_) => None,
        }
    }
}

/// A WebSocket connection to a daemon.
#[derive(Debug)]
pub struct Client {
    socket: WebSocket<Stream>,
    next_id: u64,
    events: VecDeque<Value>,
    /// Every text received, if somebody wants to look for something in them.
    pub frames: Option<Vec<String>>,
    close_code: Option<u16>,
}

impl Client {
    /// Connects over TCP.
    ///
    /// # Errors
    /// What the socket or the handshake came to.
    pub fn tcp(port: u16) -> io::Result<Self> {
        Self::tcp_with(port, "")
    }

    /// Connects over TCP with one more header.
    ///
    /// # Errors
    /// What the socket or the handshake came to.
    pub fn tcp_with(port: u16, header: &str) -> io::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        Self::over(Stream::Tcp(stream), port, header)
    }

    /// Connects over the Unix socket at `path`.
    ///
    /// # Errors
    /// What the socket or the handshake came to.
    pub fn unix(path: &Path, port: u16) -> io::Result<Self> {
        Self::unix_with(path, port, "")
    }

    /// Connects over the Unix socket with one more header.
    ///
    /// # Errors
    /// What the socket or the handshake came to.
    pub fn unix_with(path: &Path, port: u16, header: &str) -> io::Result<Self> {
        Self::over(Stream::Unix(UnixStream::connect(path)?), port, header)
    }

    pub(super) fn over(stream: Stream, port: u16, header: &str) -> io::Result<Self> {
        stream.set_read_timeout(PATIENCE)?;
        let config = WebSocketConfig::default().read_buffer_size(16 * 1024);
        let url = format!("ws://127.0.0.1:{port}/").parse().map_err(io::Error::other)?;
        let mut request = ClientRequestBuilder::new(url);
        if let Some((name, value)) = header.split_once(": ") {
            request = request.with_header(name, value);
        }
        let (socket, _) = tungstenite::client::client_with_config(request, stream, Some(config))
            .map_err(|error| io::Error::other(error.to_string()))?;
        let events = VecDeque::new();
        Ok(Self { socket, next_id: 1, events, frames: None, close_code: None })
    }

    /// `daemon.auth`.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn auth(&mut self, token: &str) -> Result<Value, Failure> {
        self.call("daemon.auth", json!({ "token": token }))
    }

    /// Calls and waits for the answer; events that come meanwhile are kept.
    ///
    /// # Errors
    /// The daemon's refusal, or the end of the connection.
    ///
    /// # Panics
    /// If neither comes in time.
    #[expect(clippy::needless_pass_by_value, reason = "callers write json!({…}) here")]
    pub fn call(&mut self, method: &str, params: Value) -> Result<Value, Failure> {
        let id = self.begin(method, &params);
        self.finish(id)
    }

    /// Sends a request and does not wait; its id.
    pub fn begin(&mut self, method: &str, params: &Value) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.send(&request.to_string());
        id
    }

    /// Waits for the answer to the request `id`.
    ///
    /// # Errors
    /// The daemon's refusal, or the end of the connection.
    ///
    /// # Panics
    /// If neither comes in time.
    pub fn finish(&mut self, id: u64) -> Result<Value, Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let message = match self.next(deadline) {
                Ok(Some(message)) => message,
                Ok(None) => panic!("no answer to request {id}"),
                Err(code) => return Err(Failure::Closed(code)),
            };
            if message.get("method").is_some() {
                self.events.push_back(message);
            } else if message["id"] == id {
                return answer(&message);
            }
        }
    }

    /// Sends a text as it is. One that cannot be sent is noticed by the next read.
    pub fn send(&mut self, text: &str) {
        let _ = self.socket.send(Message::text(text));
    }

    /// Sends any message.
    pub fn send_message(&mut self, message: Message) {
        let _ = self.socket.send(message);
    }

    /// The next message of any kind; nothing if none comes until `deadline`.
    ///
    /// # Errors
    /// The close code, when the connection is over.
    pub fn next(&mut self, deadline: Instant) -> Result<Option<Value>, Option<u16>> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let _ = self.socket.get_ref().set_read_timeout(left.max(Duration::from_millis(1)));
            match self.socket.read() {
                Ok(Message::Text(text)) => {
                    let value = serde_json::from_str(&text).expect("the daemon speaks JSON");
                    if let Some(frames) = &mut self.frames {
                        frames.push(text.as_str().to_owned());
                    }
                    return Ok(Some(value));
                }
                Ok(Message::Close(frame)) => {
                    self.close_code = frame.map(|frame| frame.code.into());
                }
                Ok(_) => {}
                Err(Error::Io(error)) if is_timeout(&error) => {
                    if Instant::now() >= deadline {
                        return Ok(None);
                    }
                }
                Err(_) => return Err(self.close_code),
            }
        }
    }

    /// The first event of this method of which `is_it` holds, which is taken out; others are kept.
    ///
    /// # Panics
    /// If it does not come in time, or the connection ends.
    pub fn wait_event(&mut self, method: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let is_wanted = |event: &Value| event["method"] == method && is_it(&event["params"]);
        let deadline = Instant::now() + PATIENCE;
        if let Some(at) = self.events.iter().position(is_wanted) {
            return self.events.remove(at).expect("just found")["params"].take();
        }
        loop {
            match self.next(deadline) {
                Ok(Some(mut event)) if is_wanted(&event) => return event["params"].take(),
                Ok(Some(other)) => self.events.push_back(other),
                Ok(None) => panic!("no {method}; there were {:#?}", self.events),
                Err(code) => panic!("closed with {code:?} before {method}"),
            }
        }
    }

    /// Takes out the events that came so far.
    pub fn take_events(&mut self) -> Vec<Value> {
        self.events.drain(..).collect()
    }

    /// Waits for the end of the connection; the close code. Events before it are kept.
    ///
    /// # Panics
    /// If it does not end within `within`.
    pub fn wait_close(&mut self, within: Duration) -> Option<u16> {
        let deadline = Instant::now() + within;
        loop {
            match self.next(deadline) {
                Ok(Some(message)) => self.events.push_back(message),
                Ok(None) => panic!("still open after {within:?}"),
                Err(code) => return code,
            }
        }
    }

    /// Creates a session in `repo`; its id.
    ///
    /// # Panics
    /// If it is refused.
    pub fn create_session(&mut self, repo: &Path) -> String {
        let session = self.call("session.create", json!({"repoPath": repo, "provider": "claude"}));
        let session = session.expect("a session");
        session["id"].as_str().expect("with an id").to_owned()
    }

    /// Sends a prompt; the user message that came of it.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn prompt(&mut self, session: &str, text: &str) -> Result<Value, Failure> {
        self.call("session.sendMessage", json!({"sessionId": session, "content": text}))
    }

    /// Sends a prompt and waits for the good end of its turn; the agent's last text.
    ///
    /// # Panics
    /// If it is refused or does not end well.
    pub fn turn(&mut self, session: &str, text: &str) -> String {
        // Only what is told from here on is about this turn.
        self.events.retain(|event| event["params"]["sessionId"] != session);
        self.prompt(session, text).expect("the prompt is taken");
        self.wait_event("session.statusChanged", |event| {
            event["sessionId"] == session && event["status"] == "completed"
        });
        self.wait_idle(session);
        let messages = self.call("session.getMessages", json!({"sessionId": session}));
        let messages = messages.expect("the history");
        let last = messages.as_array().and_then(|all| all.last()).expect("not empty");
        last["content"].as_str().expect("a text").to_owned()
    }

    /// Waits until the session says that it is idle again.
    pub fn wait_idle(&mut self, session: &str) {
        self.wait_event("session.statusChanged", |event| {
            event["sessionId"] == session && event["status"] == "idle"
        });
    }

    /// Pairs as a device with this role, using a window opened by `owner`; id and token.
    ///
    /// # Panics
    /// If it is refused.
    pub fn pair(&mut self, owner: &mut Self, role: &str) -> (String, String) {
        let window = owner
            .call("daemon.pairPin", json!({"role": role, "confirm": false}))
            .expect("a window");
        let params = json!({"pin": window["pin"], "name": "phone", "platform": "ios"});
        let device = self.call("device.pair", params).expect("paired");
        let text = |key: &str| device[key].as_str().expect("a text").to_owned();
        (text("device_id"), text("device_token"))
    }
}

fn answer(message: &Value) -> Result<Value, Failure> {
    let Some(error) = message.get("error") else { return Ok(message["result"].clone()) };
    let kind = error["data"]["kind"].as_str().unwrap_or_default().to_owned();
    let code = error["code"].as_i64().expect("errors have codes");
    Err(Failure::Refused { code, kind, error: error.clone() })
}

/// Nothing is wrong with the connection: the time is over, or a signal came.
fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<Tls>),
}

impl Stream {
    fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(Some(timeout)),
            Self::Unix(stream) => stream.set_read_timeout(Some(timeout)),
            Self::Tls(tls) => tls.sock.set_read_timeout(Some(timeout)),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(into),
            Self::Unix(stream) => stream.read(into),
            Self::Tls(tls) => tls.read(into),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
            Self::Tls(tls) => tls.write(bytes),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => Ok(()),
            Self::Tls(tls) => tls.flush(),
        }
    }
}

/// A bare TCP connection.
#[derive(Debug)]
pub struct Raw(pub TcpStream);

impl Raw {
    /// Connects.
    ///
    /// # Panics
    /// If nobody accepts.
    #[must_use]
    pub fn connect(port: u16) -> Self {
        Self(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the daemon accepts"))
    }

    /// Sends `bytes` as they are; whether they could be sent.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).is_ok()
    }

    /// Everything until the other side ends, or nothing if it does not within `within`. A reset counts as an end.
    pub fn read_to_end(&mut self, within: Duration) -> Option<Vec<u8>> {
        let deadline = Instant::now() + within;
        let (mut all, mut piece) = (Vec::new(), [0; 4096]);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let _ = self.0.set_read_timeout(Some(left.max(Duration::from_millis(1))));
            match self.0.read(&mut piece) {
                Ok(0) => return Some(all),
                Ok(len) => all.extend_from_slice(&piece[..len]),
                Err(error) if is_timeout(&error) && left.is_zero() => return None,
                Err(error) if is_timeout(&error) || error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Some(all),
            }
        }
    }

    /// Everything up to the first blank line, or what came until the other side ended.
    pub fn read_head(&mut self, within: Duration) -> String {
        let _ = self.0.set_read_timeout(Some(within));
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") && self.0.read(&mut byte).is_ok_and(|len| len == 1) {
            head.push(byte[0]);
        }
        String::from_utf8_lossy(&head).into_owned()
    }

    /// Sends a request and reads all that comes until the end.
    ///
    /// # Panics
    /// If the other side does not end the connection.
    #[must_use]
    pub fn exchange(port: u16, request: &[u8]) -> String {
        let mut raw = Self::connect(port);
        raw.send(request);
        let answer = raw.read_to_end(PATIENCE).expect("the daemon ends the connection");
        let _ = raw.0.shutdown(Shutdown::Both);
        String::from_utf8_lossy(&answer).into_owned()
    }
}
