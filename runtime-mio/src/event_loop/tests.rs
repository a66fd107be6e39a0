//! The loop with a stand-in for the daemon, over real sockets.
#![expect(clippy::wildcard_enum_match_arm, reason = "the stand-in reacts to few inputs")]

use super::*;
use crate::files::DataDir;
use crate::start::{Options, serve};
use crate::tls::Identity;
use clawd_protocol::{Config, ConnId, Effect, Fingerprint, OpId, Response, Source, Sync, To};
use std::borrow::Cow;
use std::cell::RefCell;
use std::io::{Read, Seek};
use std::net::{IpAddr, Ipv4Addr, Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use tempfile::TempDir;
use tungstenite::protocol::{Message, WebSocket};

mod legs;
mod tls;

/// Does what each text says, and writes down all that it is told.
struct StandIn {
    told: Sender<String>,
    open: Vec<ConnId>,
    ops: u64,
    waiting: Option<ConnId>,
}

impl StandIn {
    fn on_text(&mut self, conn: ConnId, text: &str, hands: &mut Hands) {
        let send = |to, text: &str| Effect::Send { to, text: text.to_owned() };
        let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
        match verb {
            "echo" => hands.execute(send(To::One(conn), rest)),
            "all" => hands.execute(send(To::Many(self.open.clone()), rest)),
            "much" => {
                let text = "x".repeat(rest.parse().unwrap());
                hands.execute(Effect::Send { to: To::Many(vec![conn]), text: text.clone() });
                hands.execute(Effect::Send { to: To::One(conn), text });
            }
            "close" => hands.execute(Effect::Close { conn, code: 1008, reason: "asked" }),
            "pause" => hands.execute(Effect::Pause { conn }),
            "resume" => {
                for conn in self.open.clone() {
                    hands.execute(Effect::Resume { conn });
                }
            }
            "store" => {
                self.ops += 1;
                self.waiting = Some(conn);
                let op = OpId(self.ops);
                hands.execute(Effect::Store { op, changes: Vec::new(), sync: Sync::Process });
            }
            "both" => {
                self.on_text(conn, "store", hands);
                hands.execute(send(To::One(conn), "both"));
            }
            "stop" => {
                hands.execute(send(To::One(conn), "bye"));
                hands.execute(Effect::Stop);
            }
            "dial" | "say" | "hang" => self.on_leg(verb, rest, hands),
            _ => panic!("unknown: {text}"),
        }
    }
}

impl Core for StandIn {
    fn handle(&mut self, input: Input<'_>, hands: &mut Hands) {
        // A test that has seen enough does not listen any more.
        let _ = self.told.send(match &input {
            Input::Text { text, .. } => format!("Text {}", text.get(..20).unwrap_or(text)),
            Input::Requested { head, .. } => format!("Requested {}", head.is_ok()),
            Input::Broke { fault, .. } => format!("Broke {fault:?}"),
            Input::Flushed { bytes, .. } => format!("Flushed {bytes}"),
            Input::Opened { source: Source::Relay(from), .. } => format!("Opened {from:?}"),
            Input::Dialed { leg, result } => format!("Dialed {leg} {result:?}"),
            Input::Heard { leg, text } => format!("Heard {leg} {text}"),
            Input::HungUp { leg } => format!("HungUp {leg}"),
            other => {
                let debug = format!("{other:?}");
                debug.split(' ').next().unwrap_or_default().to_owned()
            }
        });
        match input {
            Input::Requested { conn, head } => {
                let key = head.ok().and_then(|head| {
                    let is_key = |name: &str| name.eq_ignore_ascii_case("sec-websocket-key");
                    let (_, key) = head.headers.iter().find(|(name, _)| is_key(name))?;
                    Some(String::from_utf8(key.to_vec()).unwrap())
                });
                hands.execute(match key {
                    Some(key) => Effect::Upgrade { conn, key, message_bytes_max: 1 << 20 },
                    None => Effect::Respond { conn, response: NOT_FOUND },
                });
                self.open.push(conn);
            }
            Input::Text { conn, text } => self.on_text(conn, text, hands),
            Input::Stored { .. } => {
                let to = To::One(self.waiting.take().unwrap());
                hands.execute(Effect::Send { to, text: "stored".to_owned() });
            }
            Input::Closed { conn } => self.open.retain(|open| *open != conn),
            _ => {}
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}

const NOT_FOUND: Response = Response {
    status: 404,
    reason: "Not Found",
    content_type: "text/plain",
    header: Some(("X-Test", "1")),
    body: Cow::Borrowed("no"),
};

/// A log that is read by the test.
struct Log(Sender<String>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.send(String::from_utf8_lossy(bytes).into_owned());
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A running loop.
struct Server {
    port: u16,
    socket: PathBuf,
    told: Receiver<String>,
    /// What was received of it.
    heard: RefCell<Vec<String>>,
    said: Receiver<String>,
    /// The daemon's key.
    key: Fingerprint,
    thread: JoinHandle<()>,
    _dir: TempDir,
}

impl Server {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // The data directory makes itself, as private as it wants to be.
        let path = dir.path().canonicalize().unwrap().join("data");
        let (teller, told) = channel();
        let (sayer, said) = channel();
        let (is_ready, ready) = channel();
        let identity = Identity::generate().unwrap();
        let key = identity.fingerprint();
        let thread = thread::spawn(move || {
            let data_dir = DataDir::open(&path).unwrap();
            data_dir.load_or_make_token().unwrap();
            let (store, _) = Store::open(&data_dir).unwrap();
            let options = Options {
                data_dir,
                bind: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
                port: 0,
                guard: PathBuf::new(),
                config: Config::default(),
                log: Box::new(Log(sayer)),
                is_quiet: false,
            };
            let core = StandIn { told: teller, open: Vec::new(), ops: 0, waiting: None };
            let tell_ready = |ready: &crate::Ready<'_>| {
                is_ready.send((ready.port, ready.socket.to_owned())).unwrap();
            };
            serve(options, store, identity, core, Box::new(tell_ready)).unwrap();
        });
        let (port, socket) = ready.recv_timeout(TIMEOUT).unwrap();
        Self { port, socket, told, heard: RefCell::default(), said, key, thread, _dir: dir }
    }

    fn tcp(&self) -> TcpStream {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        // What is written is there at once, and in the order of the test.
        stream.set_nodelay(true).unwrap();
        stream
    }

    fn client(&self) -> WebSocket<TcpStream> {
        let url = format!("ws://127.0.0.1:{}/", self.port);
        tungstenite::client(url, self.tcp()).unwrap().0
    }

    /// Waits until the core was told this.
    fn wait(&self, what: &str) {
        let mut heard = self.heard.borrow_mut();
        loop {
            heard.push(self.told.recv_timeout(TIMEOUT).expect(what));
            if heard.last().is_some_and(|last| last == what) {
                return;
            }
        }
    }

    /// Stops the loop; all that the core was told.
    fn stop(self) -> Vec<String> {
        let mut client = self.client();
        client.send(Message::text("stop")).unwrap();
        assert_eq!(client.read().unwrap(), Message::text("bye"));
        self.end()
    }

    /// Waits for the end of a loop that was told to stop.
    fn end(self) -> Vec<String> {
        self.thread.join().unwrap();
        assert!(!self.socket.exists());
        self.heard.into_inner().into_iter().chain(self.told.iter()).collect()
    }
}

const TIMEOUT: Duration = Duration::from_secs(10);

fn count(told: &[String], what: &str) -> usize {
    told.iter().filter(|one| one.split(' ').next() == Some(what)).count()
}

#[test]
fn pipelined_messages_are_answered_in_order_and_credited_once() {
    let server = Server::start();
    let mut client = server.client();
    for number in 0..5000 {
        client.write(Message::text(format!("echo {number}"))).unwrap();
    }
    client.flush().unwrap();
    let mut bytes = 0;
    for number in 0..5000 {
        let Message::Text(text) = client.read().unwrap() else { panic!("no text") };
        assert_eq!(text.as_str(), number.to_string());
        bytes += text.len();
    }
    let told = server.stop();
    let flushed = told.iter().filter_map(|one| one.strip_prefix("Flushed "));
    let flushed: usize = flushed.map(|bytes| bytes.parse::<usize>().unwrap()).sum();
    assert_eq!(flushed, bytes + "bye".len());
    assert!(count(&told, "Flushed") < 1000, "credit comes in batches");
}

#[test]
fn one_text_reaches_all_and_the_unix_socket_speaks_the_same() {
    let server = Server::start();
    let mut clients: Vec<_> = (0..10).map(|_| server.client()).collect();
    let unix = UnixStream::connect(&server.socket).unwrap();
    let mut local = tungstenite::client("ws://localhost/", unix).unwrap().0;
    let long = "é".repeat(3000);
    for text in ["hello", long.as_str()] {
        local.send(Message::text(format!("all {text}"))).unwrap();
        for client in &mut clients {
            assert_eq!(client.read().unwrap(), Message::text(text));
        }
        assert_eq!(local.read().unwrap(), Message::text(text));
    }
    server.stop();
}

#[test]
fn nothing_is_written_before_the_turns_changes_are_durable() {
    let server = Server::start();
    let mut client = server.client();
    client.send(Message::text("both")).unwrap();
    assert_eq!(client.read().unwrap(), Message::text("both"));
    assert_eq!(client.read().unwrap(), Message::text("stored"));
    let told = server.stop();
    let at = |what: &str| told.iter().position(|one| one == what).unwrap();
    assert!(at("Text both") < at("Stored") && at("Stored") < at("Flushed 10"), "{told:?}");
}

#[test]
fn c5_a_peer_that_does_not_read_gets_all_of_it_later_and_holds_up_nobody() {
    let server = Server::start();
    let (mut slow, mut quick) = (server.client(), server.client());
    slow.send(Message::text("much 15000000")).unwrap();
    server.wait("Text much 15000000");
    slow.send(Message::text("echo last")).unwrap();
    for _ in 0..100 {
        quick.send(Message::text("echo quick")).unwrap();
        assert_eq!(quick.read().unwrap(), Message::text("quick"));
    }
    for _ in 0..2 {
        assert_eq!(slow.read().unwrap().len(), 15_000_000);
    }
    assert_eq!(slow.read().unwrap(), Message::text("last"));
    server.stop();
}

#[test]
fn c4_a_message_that_is_partly_there_is_announced_once() {
    let server = Server::start();
    let mut client = server.client();
    let mut frame = vec![0x81, 0x80 | 6, 0, 0, 0, 0];
    frame.extend(b"echo 1");
    let mut other = server.client();
    for byte in frame {
        client.get_mut().write_all(&[byte]).unwrap();
        // Once this is back, the byte was read.
        other.send(Message::text("echo x")).unwrap();
        other.read().unwrap();
    }
    assert_eq!(client.read().unwrap(), Message::text("1"));
    client.send(Message::text("echo 2")).unwrap();
    assert_eq!(client.read().unwrap(), Message::text("2"));
    let told = server.stop();
    assert_eq!(count(&told, "Began"), 1);
}

#[test]
fn c6_a_paused_peer_is_not_heard_until_it_is_resumed() {
    let server = Server::start();
    let (mut paused, mut other) = (server.client(), server.client());
    paused.write(Message::text("pause")).unwrap();
    paused.write(Message::text("echo 1")).unwrap();
    paused.flush().unwrap();
    server.wait("Text pause");
    // More than is read at once.
    let long = "é".repeat(20_000);
    for _ in 0..3 {
        paused.send(Message::text(format!("echo {long}"))).unwrap();
    }
    other.send(Message::text("echo 3")).unwrap();
    assert_eq!(other.read().unwrap(), Message::text("3"));
    other.send(Message::text("resume")).unwrap();
    for text in ["1", &long, &long, &long] {
        assert_eq!(paused.read().unwrap(), Message::text(text));
    }
    let told = server.stop();
    let at = |what: &str| told.iter().position(|one| one == what).unwrap();
    assert!(at("Text resume") < at("Text echo 1"));
}

#[test]
fn a_close_is_the_last_word_and_closed_comes_once() {
    let server = Server::start();
    let mut client = server.client();
    client.write(Message::text("echo before")).unwrap();
    client.write(Message::text("close")).unwrap();
    client.write(Message::text("echo after")).unwrap();
    client.flush().unwrap();
    assert_eq!(client.read().unwrap(), Message::text("before"));
    let Message::Close(Some(close)) = client.read().unwrap() else { panic!("no close") };
    assert_eq!((u16::from(close.code), close.reason.as_str()), (1008, "asked"));
    drop(client);
    server.wait("Closed");
    let told = server.stop();
    assert_eq!(count(&told, "Closed"), 1);
    assert!(!told.iter().any(|one| one == "Text echo after"));
}

#[test]
fn a_peer_that_does_not_close_after_our_close_is_dropped() {
    let server = Server::start();
    let mut client = server.client();
    client.send(Message::text("close")).unwrap();
    server.wait("Text close");
    // The client neither reads nor closes.
    server.wait("Closed");
    server.stop();
}

#[test]
fn a_peers_close_is_echoed_and_its_pings_are_answered() {
    let server = Server::start();
    let mut client = server.client();
    client.send(Message::Ping(b"abc".to_vec().into())).unwrap();
    assert_eq!(client.read().unwrap(), Message::Pong(b"abc".to_vec().into()));
    client.close(None).unwrap();
    assert!(matches!(client.read(), Ok(Message::Close(None))));
    assert!(matches!(client.read(), Err(tungstenite::Error::ConnectionClosed)));
    drop(client);
    server.wait("Closed");
    server.stop();
}

#[test]
fn b6_nothing_is_read_after_a_violation() {
    let server = Server::start();
    let mut client = server.client();
    let unmasked = b"\x81\x06echo 1";
    client.get_mut().write_all(unmasked).unwrap();
    client.send(Message::text("echo 2")).unwrap();
    server.wait("Broke Framing");
    drop(client);
    let told = server.stop();
    assert_eq!(count(&told, "Text"), 1, "only the stop: {told:?}");
}

#[test]
fn b4_a_refused_request_gets_one_answer_and_the_end() {
    let server = Server::start();
    for (bytes, half_close) in [
        (&b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n"[..], false),
        (b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n", true),
        (b"nonsense\n", false),
    ] {
        let mut stream = server.tcp();
        stream.write_all(bytes).unwrap();
        if half_close {
            stream.shutdown(Shutdown::Write).unwrap();
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(
            answer,
            "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\
             Connection: close\r\nX-Test: 1\r\n\r\nno"
        );
    }
    let told = server.stop();
    assert_eq!(count(&told, "Requested"), 4, "one each, and the one that stops");
    assert_eq!(count(&told, "Closed"), 3);
}

#[test]
fn frames_right_behind_the_request_are_heard() {
    let server = Server::start();
    let mut stream = server.tcp();
    let mut bytes = b"GET / HTTP/1.1\r\nSec-WebSocket-Key: x\r\n\r\n".to_vec();
    bytes.extend([0x81, 0x80 | 6, 0, 0, 0, 0]);
    bytes.extend(b"echo 1");
    stream.write_all(&bytes).unwrap();
    server.wait("Text echo 1");
    server.stop();
}

#[test]
fn every_way_to_go_is_noticed() {
    let server = Server::start();
    // Before a word was said, within the head, while open, while paused.
    drop(server.tcp());
    server.wait("Closed");
    let mut stream = server.tcp();
    stream.write_all(b"GET").unwrap();
    drop(stream);
    server.wait("Closed");
    drop(server.client());
    server.wait("Closed");
    let mut client = server.client();
    // What it has not read makes the system reset the connection instead of closing it.
    client.write(Message::text("echo 1")).unwrap();
    client.write(Message::text("pause")).unwrap();
    client.flush().unwrap();
    server.wait("Flushed 1");
    drop(client);
    server.wait("Closed");
    server.stop();
}

#[test]
fn c6_running_out_of_file_descriptors_is_waited_out() {
    // In a process of its own: file descriptors are shared with all other tests.
    let test = "event_loop::tests::c6_with_few_file_descriptors";
    let ran = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored"])
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stdout));
}

#[test]
#[ignore = "run by the test above, in a process of its own"]
fn c6_with_few_file_descriptors() {
    let limit = rustix::process::Rlimit { current: Some(64), maximum: Some(64) };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    let server = Server::start();
    let mut stat = std::fs::File::open("/proc/self/stat").unwrap();
    let mut ticks = || {
        let mut text = String::new();
        stat.rewind().unwrap();
        stat.read_to_string(&mut text).unwrap();
        let times = text.split(' ').skip(13).take(2);
        times.map(|ticks| ticks.parse::<u64>().unwrap()).sum::<u64>()
    };
    let mut client = server.client();
    let port = (Ipv4Addr::LOCALHOST, server.port);
    let mut flood = Vec::new();
    while let Ok(stream) = TcpStream::connect(port) {
        flood.push(stream);
    }
    let said = server.said.recv_timeout(TIMEOUT).unwrap();
    assert!(said.contains(" cannot accept connections for now"), "{said}");
    let before = ticks();
    thread::sleep(Duration::from_millis(500));
    assert!(ticks() - before < 10, "less than a fifth of a processor, in ticks of 10 ms");
    client.send(Message::text("echo still here")).unwrap();
    assert_eq!(client.read().unwrap(), Message::text("still here"));
    // Whoever waited is served once there is room, without anybody else having to come.
    let mut last = flood.pop().unwrap();
    drop(flood);
    last.set_read_timeout(Some(TIMEOUT)).unwrap();
    last.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = String::new();
    last.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    server.stop();
}

#[test]
fn the_last_words_may_be_long() {
    let server = Server::start();
    let mut client = server.client();
    client.write(Message::text("much 6000000")).unwrap();
    client.write(Message::text("stop")).unwrap();
    client.flush().unwrap();
    let mut bytes = Vec::new();
    client.get_mut().read_to_end(&mut bytes).unwrap();
    assert!(bytes.ends_with(b"x\x81\x03bye"));
    assert!(bytes.len() > 12_000_000, "{}", bytes.len());
    server.end();
}
