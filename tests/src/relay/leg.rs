//! A WebSocket to a relay, in clear or in TLS.
//!
//! Owns one end of a stream, or of a control connection; refuses to know who is at the other.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use clawd_runtime_mio::tls::Trusted;
use serde_json::Value;
use tungstenite::handshake::HandshakeError;
use tungstenite::http::Response;
use tungstenite::{Bytes, ClientRequestBuilder, Error, Message, WebSocket};

use super::NAME;
use crate::daemon::{PATIENCE, Tls, tls_to};

/// What a leg runs on.
pub trait Wire: Read + Write + Sized {
    /// To a relay on this machine.
    ///
    /// # Errors
    /// Nobody accepts.
    fn connect(port: u16) -> io::Result<Self>;
}

impl Wire for TcpStream {
    fn connect(port: u16) -> io::Result<Self> {
        let stream = Self::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }
}

/// Whatever certificate is shown.
impl Wire for Tls {
    fn connect(port: u16) -> io::Result<Self> {
        tls_to(port, Trusted::AnyKey, None)
    }
}

/// A WebSocket to a relay: a control connection or a leg.
#[derive(Debug)]
pub struct Leg<S = TcpStream> {
    socket: WebSocket<S>,
    /// Bytes that came and nobody has read.
    inbox: Bytes,
}

impl Leg {
    /// Asks for `path` in clear; the HTTP status if that is refused.
    ///
    /// # Errors
    /// The status; zero if the connection ended instead.
    pub fn open(port: u16, path: &str) -> Result<Self, u16> {
        Self::open_with(port, path, &[])
    }
}

impl<S: Wire> Leg<S> {
    /// Asks for `path` on a connection of its own, with more headers; the HTTP status if that is refused.
    ///
    /// # Errors
    /// The status; zero if the connection ended instead.
    pub fn open_with(port: u16, path: &str, headers: &[(&str, &str)]) -> Result<Self, u16> {
        Self::over(S::connect(port).map_err(|_| 0_u16)?, path, headers)
    }
}

impl<S: Read + Write> Leg<S> {
    /// What it runs on.
    #[must_use]
    pub fn stream(&self) -> &S {
        self.socket.get_ref()
    }

    /// Gives out what it runs on, when what is said is known to be whole.
    #[must_use]
    pub fn into_stream(self) -> S {
        self.socket.into_inner()
    }

    /// Asks for `path` on a stream that is up.
    ///
    /// # Errors
    /// The status; zero if the connection ended instead.
    ///
    /// # Panics
    /// If the path is none.
    pub fn over(stream: S, path: &str, headers: &[(&str, &str)]) -> Result<Self, u16> {
        let url = format!("ws://{NAME}{path}").parse().expect("a path");
        let mut request = ClientRequestBuilder::new(url);
        for (name, value) in headers {
            request = request.with_header(*name, *value);
        }
        match tungstenite::client(request, stream) {
            Ok((socket, _)) => Ok(Self { socket, inbox: Bytes::new() }),
            Err(HandshakeError::Failure(Error::Http(response))) => {
                Err(Response::status(&response).as_u16())
            }
            Err(_) => Err(0),
        }
    }

    /// The next text message; nothing if the connection ends before.
    pub fn text(&mut self) -> Option<Value> {
        loop {
            match self.socket.read().ok()? {
                Message::Text(text) => return serde_json::from_str(&text).ok(),
                Message::Close(_) | Message::Binary(_) => return None,
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    /// Sends a text message.
    pub fn say(&mut self, value: &Value) {
        // Whoever has gone is found out by reading.
        let _ = self.socket.send(Message::text(value.to_string()));
    }

    /// Sends bytes as one message.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.send(Message::binary(bytes.to_vec())).map_err(failed)
    }

    /// Ends it as one should.
    pub fn close(&mut self) {
        let _ = self.socket.close(None);
        let _ = self.socket.flush();
    }
}

fn failed(error: Error) -> io::Error {
    if let Error::Io(error) = error {
        return error;
    }
    io::Error::new(ErrorKind::ConnectionAborted, error.to_string())
}

/// The stream that comes out; zero bytes are its end, said by a close.
impl<S: Read + Write> Read for Leg<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.inbox.is_empty() {
            match self.socket.read().map_err(failed)? {
                Message::Binary(bytes) => self.inbox = bytes,
                Message::Close(_) => return Ok(0),
                Message::Text(text) => return Err(io::Error::other(text.to_string())),
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
        let len = buffer.len().min(self.inbox.len());
        buffer[..len].copy_from_slice(&self.inbox.split_to(len));
        Ok(len)
    }
}

/// The stream that goes in: one message for each write.
impl<S: Read + Write> Write for Leg<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush().map_err(failed)
    }
}
