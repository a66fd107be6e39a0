//! A relay's process, and those who meet there: hosts with a real identity, and the two ends of a stream.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use clawd_protocol::relay::control::signed;
use clawd_runtime_mio::tls::Identity;
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};
use tungstenite::handshake::HandshakeError;
use tungstenite::http::Response;
use tungstenite::{Bytes, ClientRequestBuilder, Error, Message, WebSocket};

use crate::daemon::{PATIENCE, Process, Site, port_in};

/// What the simulated daemons take the relay's name for.
pub const NAME: &str = "127.0.0.1";

/// `clawd relay serve`, ready.
#[derive(Debug)]
pub struct Relay {
    /// Its process.
    pub process: Process,
    /// Where it listens on 127.0.0.1.
    pub port: u16,
    _site: Site,
}

impl Relay {
    /// On any port, with these flags.
    ///
    /// # Panics
    /// If it ends instead.
    #[must_use]
    pub fn start(flags: &[&str]) -> Self {
        Self::start_on(0, flags)
    }

    /// On this port, with these flags.
    ///
    /// # Panics
    /// If it ends instead.
    #[must_use]
    pub fn start_on(port: u16, flags: &[&str]) -> Self {
        let site = Site::new();
        let bind = format!("127.0.0.1:{port}");
        let args = [&["relay", "serve", "--bind", &bind][..], flags].concat();
        let mut process = Process::spawn(&mut site.command(&args));
        let Some(port) = process.wait_for(port_in) else {
            panic!("clawd relay serve ended with {:?}", process.end());
        };
        Self { process, port, _site: site }
    }

    /// One number of `/metrics`.
    ///
    /// # Panics
    /// If there is none of this name.
    #[must_use]
    pub fn metric(&self, name: &str) -> u64 {
        let text = crate::daemon::Raw::exchange(
            self.port,
            b"GET /metrics HTTP/1.1\r\nHost: relay\r\n\r\n",
        );
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(&format!("clawd_relay_{name} ")));
        value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name}: {text}"))
    }

    /// Its memory in bytes: what is resident and its own.
    ///
    /// # Panics
    /// If it has ended.
    #[must_use]
    pub fn memory(&self) -> usize {
        let path = format!("/proc/{}/status", self.process.pid());
        let text = std::fs::read_to_string(path).expect("it runs");
        let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        kilobytes.map_or(0, |kilobytes: usize| kilobytes * 1024)
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
    /// Asks for `path`; the HTTP status if that is refused.
    ///
    /// # Errors
    /// The status; zero if the connection ended instead.
    pub fn open(port: u16, path: &str) -> Result<Self, u16> {
        Self::open_with(port, path, &[])
    }

    /// As [`Self::open`], with more headers.
    ///
    /// # Errors
    /// The status; zero if the connection ended instead.
    pub fn open_with(port: u16, path: &str, headers: &[(&str, &str)]) -> Result<Self, u16> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).map_err(|_| 0_u16)?;
        stream.set_nodelay(true).and(stream.set_read_timeout(Some(PATIENCE))).map_err(|_| 0_u16)?;
        Self::over(stream, path, headers)
    }

    /// The socket below.
    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        self.socket.get_ref()
    }

    /// Gives the socket out, when what is said is known to be whole.
    #[must_use]
    pub fn into_stream(self) -> TcpStream {
        self.socket.into_inner()
    }
}

impl<S: Read + Write> Leg<S> {
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

/// A simulated daemon at a relay.
#[derive(Debug)]
pub struct Host {
    /// Its control connection.
    pub control: Leg,
    id: String,
    port: u16,
}

impl Host {
    /// Registers; the whole answer if that is refused.
    ///
    /// # Errors
    /// What the relay said, or null.
    pub fn register(port: u16, identity: &Identity) -> Result<Self, Value> {
        Self::register_as(port, identity, |_, message| message)
    }

    /// Registers with a message that was changed before it is sent, by somebody who knows the nonce.
    ///
    /// # Errors
    /// What the relay said, or null.
    ///
    /// # Panics
    /// If the system has no randomness.
    pub fn register_as(
        port: u16,
        identity: &Identity,
        change: impl FnOnce(&str, Value) -> Value,
    ) -> Result<Self, Value> {
        let daemon = identity.fingerprint();
        let id = daemon.to_string();
        let control = Leg::open(port, &format!("/v1/host/{id}"));
        let mut control = control.map_err(|status| json!({ "status": status }))?;
        let challenge = control.text().ok_or(Value::Null)?;
        let nonce = challenge["nonce"].as_str().unwrap_or_default();
        control.say(&change(nonce, registration(identity, nonce, NAME)));
        let answer = control.text().ok_or(Value::Null)?;
        if answer["type"] == "registered" { Ok(Self { control, id, port }) } else { Err(answer) }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// A stream from a client to this daemon: the client's end, and the daemon's.
    ///
    /// # Panics
    /// If the relay does not bring them together.
    pub fn meet(&mut self) -> (Leg, Leg) {
        self.meet_with(&[])
    }

    /// As [`Self::meet`], with more headers of both.
    ///
    /// # Panics
    /// If the relay does not bring them together.
    pub fn meet_with(&mut self, headers: &[(&str, &str)]) -> (Leg, Leg) {
        let path = format!("/v1/connect/{}", self.id);
        let mut client = Leg::open_with(self.port, &path, headers).expect("an upgrade");
        let daemon = self.accept_with(headers).expect("an invitation that is good");
        let answer = client.text();
        assert_eq!(answer, Some(json!({"type": "connected"})));
        (client, daemon)
    }

    /// Waits for an invitation and takes it.
    ///
    /// # Errors
    /// The HTTP status of the refusal.
    pub fn accept(&mut self) -> Result<Leg, u16> {
        self.accept_with(&[])
    }

    fn accept_with(&mut self, headers: &[(&str, &str)]) -> Result<Leg, u16> {
        let ticket = self.ticket().ok_or(0_u16)?;
        Leg::open_with(self.port, &format!("/v1/accept/{}/{ticket}", self.id), headers)
    }

    /// Waits for an invitation.
    pub fn ticket(&mut self) -> Option<String> {
        loop {
            let message = self.control.text()?;
            if message["type"] == "invite" {
                return message["ticket"].as_str().map(str::to_owned);
            }
        }
    }
}

/// A `register` message, signed for a relay of this name.
///
/// # Panics
/// If the system has no randomness.
#[must_use]
pub fn registration(identity: &Identity, nonce: &str, name: &str) -> Value {
    let daemon = identity.fingerprint();
    let signature = identity.sign(&signed(nonce, name, &daemon)).expect("randomness");
    json!({
        "type": "register",
        "daemonId": daemon.to_string(),
        "publicKey": BASE64URL_NOPAD.encode(identity.public_key()),
        "signature": BASE64URL_NOPAD.encode(&signature),
    })
}
