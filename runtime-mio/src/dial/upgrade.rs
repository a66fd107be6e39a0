//! The client's side of the WebSocket handshake (RFC 6455, section 4.1).
//!
//! Owns the request and the demands on its answer; refuses to know what it is sent over. Our own and not tungstenite's,
//! because that one keeps what came behind the answer to itself, and has no bound for the answer in bytes.

use std::io::{ErrorKind, Read, Write};

use clawd_protocol::DialFault;
use tungstenite::handshake::client::generate_key;
use tungstenite::handshake::derive_accept_key;

use super::fault_of;

/// The longest head of an answer.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// The most headers in it.
const HEADERS_MAX: usize = 64;
/// What is read at once.
const READ_BYTES: usize = 2048;

/// Asks for a WebSocket. What came behind the answer is returned.
pub(super) fn upgrade<S: Read + Write>(
    stream: &mut S,
    authority: &str,
    target: &str,
) -> Result<Vec<u8>, DialFault> {
    if !target.starts_with('/') || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(DialFault::NotWebSocket);
    }
    let key = generate_key();
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: {authority}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    );
    let sent = stream.write_all(request.as_bytes()).and_then(|()| stream.flush());
    sent.map_err(|error| fault_of(&error))?;
    let mut answer = Vec::new();
    let mut buffer = [0; READ_BYTES];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Err(DialFault::NotWebSocket),
            Ok(length) => answer.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                return Err(DialFault::NotWebSocket);
            }
            Err(error) => return Err(fault_of(&error)),
        }
        if let Some(length) = check(&answer, &derive_accept_key(key.as_bytes()))? {
            return Ok(answer.split_off(length));
        }
        if answer.len() > HEAD_BYTES_MAX {
            return Err(DialFault::NotWebSocket);
        }
    }
}

/// How long the head is, if it is whole and what was asked for.
fn check(answer: &[u8], accept: &str) -> Result<Option<usize>, DialFault> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Response::new(&mut headers);
    let length = match head.parse(answer) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(DialFault::NotWebSocket),
    };
    match head.code {
        Some(101) => {}
        Some(300..=399) => return Err(DialFault::Redirected),
        Some(code) => return Err(DialFault::Rejected(code)),
        None => return Err(DialFault::NotWebSocket),
    }
    let values = |name: &'static str| {
        let is_it = move |header: &&httparse::Header<'_>| header.name.eq_ignore_ascii_case(name);
        head.headers.iter().filter(is_it).map(|header| header.value.trim_ascii())
    };
    let mut tokens = values("Connection").flat_map(|value| value.split(|byte| *byte == b','));
    let is_open = head.version == Some(1)
        && tokens.any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
        && values("Upgrade").any(|value| value.eq_ignore_ascii_case(b"websocket"))
        && values("Sec-WebSocket-Accept").eq([accept.as_bytes()])
        // Neither was asked for.
        && values("Sec-WebSocket-Extensions").chain(values("Sec-WebSocket-Protocol")).count() == 0;
    if is_open { Ok(Some(length)) } else { Err(DialFault::NotWebSocket) }
}
