//! HTTP and WebSocket bytes, both ways, and the answers that need no store.
//!
//! Owns what bytes say; refuses to know where they come from and go to: they are pushed in, and parts are taken out.

use std::io::{self, Cursor, Read, Write};
use std::time::{Instant as Clock, SystemTime, UNIX_EPOCH};

use clawd_protocol::access::token::{Secret, TokenDigest, mint_local};
use clawd_protocol::record::EventPage;
use clawd_protocol::{
    Answer, Config, ConnId, Daemon, Head, HeadFault, Input, Instant, MessageFault,
};
use clawd_protocol::{
    Limits, Now, PathFault, ProgramFault, Question, Response, Snapshot, StoreFault, Unix,
};
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame, FrameHeader};
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Error, Message};

/// A daemon without a past, and the token that opens it.
pub(crate) fn daemon() -> io::Result<(Daemon, Secret)> {
    let entropy = || -> io::Result<[u8; 32]> {
        let mut bytes = [0; 32];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        Ok(bytes)
    };
    let token = mint_local(entropy()?);
    let restored = Snapshot::empty(TokenDigest::of(token.expose()), b"example".to_vec());
    let config = Config { version: "0.0.0-example".to_owned(), ..Config::default() };
    Ok((Daemon::new(config, entropy()?, restored), token))
}

/// Both clocks.
pub(crate) fn now(start: Clock) -> Now {
    let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let millis = u64::try_from(unix.as_millis()).unwrap_or(u64::MAX);
    Now { mono: Instant::from_micros(micros), unix: Unix::from_millis(millis) }
}

/// What can be known without a store and without agents.
pub(crate) fn answer(question: &Question) -> Answer {
    match question {
        Question::Directory { path } => Answer::Directory(directory(path)),
        Question::Messages { .. } => Answer::Messages(Vec::new()),
        Question::MessageByClientId { .. } => Answer::Message(None),
        Question::ToolCalls { .. } => Answer::ToolCalls(Vec::new()),
        Question::ToolCall { .. } | Question::Approval { .. } => Answer::ToolCall(None),
        Question::Audit { .. } => Answer::Audit(Vec::new()),
        Question::Events { .. } => Answer::Events(EventPage::default()),
        Question::Probe { .. } => Answer::Probe(Err(ProgramFault::Missing)),
        Question::Sign { .. } => Answer::Failed(StoreFault::Failed("no key here".to_owned())),
        Question::Addresses => Answer::Addresses(Vec::new()),
    }
}

fn directory(path: &str) -> Result<String, PathFault> {
    let fault = |error: io::Error| {
        let is_denied = error.kind() == io::ErrorKind::PermissionDenied;
        if is_denied { PathFault::Denied } else { PathFault::Missing }
    };
    let path = std::fs::canonicalize(path).map_err(fault)?;
    let is_dir = std::fs::metadata(&path).map_err(fault)?.is_dir();
    let text = path.into_os_string().into_string().map_err(|_| PathFault::Denied)?;
    is_dir.then_some(text).ok_or(PathFault::NotADirectory)
}

/// An answer that ends the connection.
pub(crate) fn response(response: &Response) -> Vec<u8> {
    let Response { status, reason, content_type, header, body } = response;
    let header = header.map(|(name, value)| format!("{name}: {value}\r\n")).unwrap_or_default();
    let length = body.len();
    format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: {content_type}\r\n{header}\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

/// The answer after which both speak WebSocket.
pub(crate) fn switching(key: &str) -> Vec<u8> {
    let accept = derive_accept_key(key.as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
    .into_bytes()
}

/// One text message.
pub(crate) fn text_frame(text: &str) -> Vec<u8> {
    bytes_of(Frame::message(text.as_bytes().to_vec(), OpCode::Data(Data::Text), true))
}

fn bytes_of(frame: Frame) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Writing to memory cannot fail.
    let _ = frame.format(&mut bytes);
    bytes
}

/// What a peer has sent, as far as it can be told yet.
pub(crate) enum Part {
    Head(Vec<u8>),
    Began,
    Text(String),
    Broke(MessageFault),
    /// The peer has said goodbye.
    Left,
}

impl Part {
    /// Gives the part to `turn` as an input of `conn`.
    pub(crate) fn tell(&self, conn: ConnId, turn: &mut dyn FnMut(Input<'_>)) {
        match self {
            Self::Left => {}
            Self::Began => turn(Input::Began { conn }),
            Self::Text(text) => turn(Input::Text { conn, text }),
            Self::Broke(fault) => turn(Input::Broke { conn, fault: *fault }),
            Self::Head(bytes) => {
                let mut slots = [httparse::EMPTY_HEADER; 64];
                let mut request = httparse::Request::new(&mut slots);
                let parsed = request.parse(bytes);
                let headers: Vec<_> = request.headers.iter().map(|h| (h.name, h.value)).collect();
                let head = match (parsed, request.method, request.path, request.version) {
                    (
                        Ok(httparse::Status::Complete(_)),
                        Some(method),
                        Some(target),
                        Some(minor),
                    ) => Ok(Head { method, target, minor, headers: &headers }),
                    (Err(httparse::Error::TooManyHeaders) | Ok(_), ..) => Err(HeadFault::TooLarge),
                    (Err(_), ..) => Err(HeadFault::Malformed),
                };
                turn(Input::Requested { conn, head });
            }
        }
    }
}

enum Stage {
    Head,
    /// The core has the head, or the fault, and has not said what comes next.
    Verdict,
    Messages(Box<WebSocketContext>),
}

/// One direction of a connection: bytes in, parts out.
pub(crate) struct Incoming {
    stage: Stage,
    bytes: Vec<u8>,
    limit: usize,
    is_begun: bool,
}

impl Incoming {
    pub(crate) const fn new() -> Self {
        Self { stage: Stage::Head, bytes: Vec::new(), limit: 0, is_begun: false }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Speak WebSocket from here on.
    pub(crate) fn upgrade(&mut self, limit: usize) {
        // Whole frames are given to it: it needs next to no buffer of its own.
        let config = WebSocketConfig::default().read_buffer_size(4096);
        self.stage = Stage::Messages(Box::new(WebSocketContext::new(Role::Server, Some(config))));
        self.admit(limit);
    }

    /// Longer messages are faults from here on.
    pub(crate) fn admit(&mut self, limit: usize) {
        self.limit = limit;
        if let Stage::Messages(socket) = &mut self.stage {
            socket.set_config(|config| config.max_message_size = Some(limit));
        }
    }

    /// The frame that ends the conversation, if it is in frames.
    pub(crate) fn close_frame(&self, code: u16, reason: &'static str) -> Vec<u8> {
        match &self.stage {
            Stage::Messages(_) => bytes_of(Frame::close(Some(CloseFrame {
                code: code.into(),
                reason: reason.into(),
            }))),
            Stage::Head | Stage::Verdict => Vec::new(),
        }
    }

    /// The next part. What answers pings and closes on the way is added to `replies`.
    pub(crate) fn next(&mut self, replies: &mut Vec<u8>) -> Option<Part> {
        match &mut self.stage {
            Stage::Verdict => None,
            Stage::Head => {
                let part = next_head(&mut self.bytes)?;
                self.stage = Stage::Verdict;
                Some(part)
            }
            Stage::Messages(socket) => loop {
                let frame = match next_frame(&mut self.bytes, self.limit) {
                    Ok(Some(frame)) => frame,
                    Ok(None) if self.is_begun || self.bytes.is_empty() => return None,
                    Ok(None) => {
                        self.is_begun = true;
                        return Some(Part::Began);
                    }
                    Err(fault) => return Some(Part::Broke(fault)),
                };
                match socket.read(&mut Pipe { input: &frame, output: replies }) {
                    Ok(Message::Text(text)) => {
                        self.is_begun = false;
                        return Some(Part::Text(text.as_str().to_owned()));
                    }
                    Ok(Message::Binary(_)) => return Some(Part::Broke(MessageFault::Binary)),
                    Ok(Message::Close(_)) => {
                        // The reply is written by the next look; nothing else can come.
                        let _ = socket.flush(&mut Pipe { input: &[], output: replies });
                        return Some(Part::Left);
                    }
                    Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {
                        let _ = socket.flush(&mut Pipe { input: &[], output: replies });
                        self.is_begun = false;
                    }
                    // A fragment: the message has begun, and its next frame may be here already.
                    Err(Error::Io(_)) if !self.is_begun => {
                        self.is_begun = true;
                        return Some(Part::Began);
                    }
                    Err(Error::Io(_)) => {}
                    Err(Error::Capacity(_)) => return Some(Part::Broke(MessageFault::TooLarge)),
                    Err(Error::Utf8(_)) => return Some(Part::Broke(MessageFault::NotUtf8)),
                    Err(_) => return Some(Part::Broke(MessageFault::Framing)),
                }
            },
        }
    }
}

/// Takes a whole request head off `bytes`, or all of them if they cannot become one.
fn next_head(bytes: &mut Vec<u8>) -> Option<Part> {
    let most = Limits::default().head_bytes_max;
    let mut slots = [httparse::EMPTY_HEADER; 64];
    let len = match httparse::Request::new(&mut slots).parse(bytes) {
        Ok(httparse::Status::Partial) if bytes.len() <= most => return None,
        Ok(httparse::Status::Complete(len)) if len <= most => len,
        Ok(_) => return Some(Part::Head(Vec::new())),
        Err(_) => bytes.len(),
    };
    Some(Part::Head(bytes.drain(..len).collect()))
}

/// Takes a whole frame off `bytes`. Its length is judged by its header alone.
fn next_frame(bytes: &mut Vec<u8>, limit: usize) -> Result<Option<Vec<u8>>, MessageFault> {
    let mut cursor = Cursor::new(&bytes);
    let header = FrameHeader::parse(&mut cursor).map_err(|_| MessageFault::Framing)?;
    let Some((_, payload)) = header else { return Ok(None) };
    let payload = usize::try_from(payload).map_err(|_| MessageFault::TooLarge)?;
    if payload > limit {
        return Err(MessageFault::TooLarge);
    }
    let start = usize::try_from(cursor.position()).map_err(|_| MessageFault::TooLarge)?;
    let whole = start.saturating_add(payload);
    Ok((bytes.len() >= whole).then(|| bytes.drain(..whole).collect()))
}

/// Bytes at hand as a stream that never blocks and never ends.
struct Pipe<'a> {
    input: &'a [u8],
    output: &'a mut Vec<u8>,
}

impl Read for Pipe<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.input.read(into)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            read => Ok(read),
        }
    }
}

impl Write for Pipe<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
