//! The loop and its legs to a relay.

mod front;

use std::net::TcpListener;
use std::sync::Arc;

use clawd_protocol::{Dial, LegId, Purpose};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls::{ClientConnection, StreamOwned};
use tungstenite::protocol::{Role, WebSocketConfig};

use super::*;
use crate::dial::{Link, dial};
use crate::tls::{Trusted, client_config, server_name};
use crate::tunnel::Tunnel;

impl StandIn {
    /// `dial LEG PORT control|tunnel`, `say LEG TEXT`, `hang LEG`.
    pub(super) fn on_leg(&mut self, verb: &str, rest: &str, hands: &mut Hands) {
        let (leg, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let leg = LegId(leg.parse().unwrap());
        hands.execute(match verb {
            "dial" => Effect::Dial { leg, dial: to(rest) },
            "say" => Effect::Say { leg, text: rest.to_owned() },
            _ => Effect::HangUp { leg },
        });
    }
}

/// What `PORT control|tunnel` stands for.
fn to(what: &str) -> Dial {
    let (port, purpose) = what.split_once(' ').unwrap();
    let relay = format!("{}://127.0.0.1:{port}", front::scheme()).parse().unwrap();
    let purpose = match purpose {
        "control" => Purpose::Control,
        _ => Purpose::Tunnel { from: Some([192, 0, 2, 7].into()) },
    };
    Dial { relay, target: "/v1".to_owned(), pin: None, purpose, timeout: TIMEOUT }
}

/// A relay's listener, and the one client of the daemon by whom the legs are asked for.
struct Relay {
    listener: TcpListener,
    port: u16,
    owner: RefCell<WebSocket<TcpStream>>,
}

impl Relay {
    fn start(server: &Server) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = front::port_before(listener.local_addr().unwrap().port());
        Self { listener, port, owner: RefCell::new(server.client()) }
    }

    fn ask(&self, text: &str) {
        self.owner.borrow_mut().send(Message::text(text)).unwrap();
    }

    fn accept_tcp(&self) -> TcpStream {
        let mut fds = [PollFd::new(&self.listener, PollFlags::IN)];
        let timeout = Timespec::try_from(TIMEOUT).unwrap();
        assert_eq!(poll(&mut fds, Some(&timeout)).unwrap(), 1, "nobody came");
        let stream = self.listener.accept().unwrap().0;
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    fn accept(&self) -> WebSocket<TcpStream> {
        tungstenite::accept(self.accept_tcp()).unwrap()
    }

    /// A control leg that is there.
    fn leg(&self, server: &Server, leg: u64) -> WebSocket<TcpStream> {
        self.ask(&format!("dial {leg} {} control", self.port));
        let socket = self.accept();
        server.wait(&format!("Dialed {leg} Ok(())"));
        socket
    }

    /// A device's end of a new stream to the daemon, spliced by this relay.
    fn device(&self, leg: u64) -> Tunnel<Link<TcpStream>> {
        self.ask(&format!("dial {leg} {} tunnel", self.port));
        let daemon = self.accept();
        let port = self.port;
        let dialling = thread::spawn(move || dial(&to(&format!("{port} control"))).unwrap());
        let device = self.accept();
        let [a, b] = [daemon, device].map(WebSocket::into_inner);
        for (from, to) in [(&a, &b), (&b, &a)] {
            let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            thread::spawn(move || splice(from, to));
        }
        let dialled = dialling.join().unwrap();
        dialled.link.get_ref().set_read_timeout(Some(TIMEOUT)).unwrap();
        Tunnel::new(dialled.link, dialled.tail)
    }

    /// The same, in a secure conversation with the daemon.
    fn secure_device(&self, server: &Server, leg: u64) -> WebSocket<Secure> {
        let config = client_config(Trusted::Key(server.key), None).unwrap();
        let session = ClientConnection::new(config, server_name()).unwrap();
        let tls = StreamOwned::new(session, self.device(leg));
        tungstenite::client("ws://daemon/", tls).unwrap().0
    }
}

type Secure = StreamOwned<ClientConnection, Tunnel<Link<TcpStream>>>;

/// Copies one direction of a stream, until it ends.
fn splice(from: TcpStream, to: TcpStream) {
    from.set_read_timeout(None).unwrap();
    let config = WebSocketConfig::default().read_buffer_size(4096);
    let mut reader = WebSocket::from_raw_socket(&from, Role::Server, Some(config));
    let mut writer = WebSocket::from_raw_socket(&to, Role::Server, Some(config));
    while let Ok(message) = reader.read() {
        if message.is_binary() && writer.send(message).is_err() {
            break;
        }
    }
    for stream in [from, to] {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// What was told of a leg, in order.
fn story(told: &[String], leg: u64) -> Vec<&str> {
    let is_it = |one: &&str| one.split(' ').nth(1) == Some(&leg.to_string());
    let of_legs = ["Dialed", "Heard", "HungUp"];
    told.iter()
        .map(String::as_str)
        .filter(is_it)
        .filter(|one| of_legs.iter().any(|w| one.starts_with(w)))
        .collect()
}

#[test]
fn a_leg_is_dialled_heard_spoken_on_and_hung_up() {
    let server = Server::start();
    let relay = Relay::start(&server);
    relay.ask(&format!("dial 1 {} control", relay.port));
    // Said with the handshake's answer, so that nothing announces it.
    let mut stream = relay.accept_tcp();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
    let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    let answer = [answer.as_bytes(), b"\x81\x05first"].concat();
    stream.write_all(&answer).unwrap();
    server.wait("Heard 1 first");
    let mut leg = WebSocket::from_raw_socket(stream, Role::Server, None);
    relay.ask("say 1 hi");
    assert_eq!(leg.read().unwrap(), Message::text("hi"));
    for number in 0..200 {
        leg.write(Message::text(number.to_string())).unwrap();
    }
    leg.send(Message::Ping(b"abc".to_vec().into())).unwrap();
    assert_eq!(leg.read().unwrap(), Message::Pong(b"abc".to_vec().into()));
    server.wait("Heard 1 199");
    relay.ask("say 1 bye");
    relay.ask("hang 1");
    assert_eq!(leg.read().unwrap(), Message::text("bye"));
    assert!(matches!(leg.read(), Ok(Message::Close(None))));
    server.wait("HungUp 1");
    relay.ask("say 1 nothing");
    relay.ask("hang 1");
    let told = server.stop();
    let mut expected = vec!["Dialed 1 Ok(())".to_owned(), "Heard 1 first".to_owned()];
    expected.extend((0..200).map(|number| format!("Heard 1 {number}")));
    expected.push("HungUp 1".to_owned());
    assert_eq!(story(&told, 1), expected);
}

#[test]
fn a_leg_that_the_relay_ends_or_misuses_is_hung_up_once() {
    let server = Server::start();
    let relay = Relay::start(&server);
    let misuses: [fn(&mut WebSocket<TcpStream>); 5] = [
        |leg| leg.close(None).unwrap(),
        |leg| leg.get_mut().shutdown(Shutdown::Both).unwrap(),
        |leg| leg.send(Message::text("x".repeat(16 * 1024 + 1))).unwrap(),
        |leg| leg.send(Message::binary(b"x".to_vec())).unwrap(),
        |leg| leg.get_mut().write_all(b"\xff\x01x").unwrap(),
    ];
    for (number, misuse) in (1..).zip(misuses) {
        let mut leg = relay.leg(&server, number);
        misuse(&mut leg);
        server.wait(&format!("HungUp {number}"));
    }
    let told = server.stop();
    for number in 1..6 {
        assert_eq!(story(&told, number).len(), 2, "{told:?}");
    }
}

#[test]
fn a_relay_that_takes_nothing_is_hung_up_on() {
    let server = Server::start();
    let relay = Relay::start(&server);
    let leg = relay.leg(&server, 1);
    let much = format!("say 1 {}", "x".repeat(60_000));
    let mut is_hung_up = false;
    // Until all that the system holds for the two is full.
    for _ in 0..1000 {
        relay.ask(&much);
        relay.ask("echo on");
        relay.owner.borrow_mut().read().unwrap();
        server.heard.borrow_mut().extend(server.told.try_iter());
        is_hung_up = server.heard.borrow().iter().any(|one| one == "HungUp 1");
        if is_hung_up {
            break;
        }
    }
    if !is_hung_up {
        server.wait("HungUp 1");
    }
    drop(leg);
    assert_eq!(story(&server.stop(), 1), ["Dialed 1 Ok(())", "HungUp 1"]);
}

#[test]
fn a_dial_is_answered_once_also_if_it_fails_or_is_given_up() {
    let server = Server::start();
    let relay = Relay::start(&server);
    let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    relay.ask(&format!("dial 1 {gone} control"));
    server.wait("Dialed 1 Err(Unreachable(\"Connection refused (os error 111)\"))");
    relay.ask("hang 1");
    for (leg, purpose) in [(2, "control"), (3, "tunnel")] {
        relay.ask(&format!("dial {leg} {} {purpose}", relay.port));
        let stream = relay.accept_tcp();
        relay.ask(&format!("hang {leg}"));
        server.wait(&format!("Dialed {leg} Err(TimedOut)"));
        // It would be there now, and is closed unseen.
        let mut socket = tungstenite::accept(stream).unwrap();
        assert!(socket.read().is_err());
    }
    let told = server.stop();
    assert!((1..4).all(|leg| story(&told, leg).len() == 1), "{told:?}");
    assert_eq!(count(&told, "Opened"), 2, "the owner's and the one that stops it: {told:?}");
}

#[test]
fn no_more_than_so_many_are_dialled_at_once() {
    let server = Server::start();
    let relay = Relay::start(&server);
    for leg in 0..25 {
        relay.ask(&format!("dial {leg} {} control", relay.port));
    }
    server.wait("Dialed 24 Err(Busy)");
    // Those that were given up still count, as long as their threads are there.
    relay.ask("hang 0");
    server.wait("Dialed 0 Err(TimedOut)");
    relay.ask(&format!("dial 25 {} control", relay.port));
    server.wait("Dialed 25 Err(Busy)");
    let accepted: Vec<_> = (0..24).map(|_| relay.accept_tcp()).collect();
    drop(accepted);
    let mut told = Vec::new();
    while told.len() < 23 {
        let one = server.told.recv_timeout(TIMEOUT).unwrap();
        told.extend(one.starts_with("Dialed").then_some(one));
    }
    // All ended in their own way, and there is room again.
    drop(relay.leg(&server, 26));
    server.wait("HungUp 26");
    server.stop();
}

#[test]
fn a_device_speaks_through_a_relay_as_it_does_on_the_lan() {
    let server = Server::start();
    let relay = Relay::start(&server);
    let mut device = relay.secure_device(&server, 1);
    device.send(Message::text("echo hello")).unwrap();
    assert_eq!(device.read().unwrap(), Message::text("hello"));
    device.send(Message::text("much 3000000")).unwrap();
    for _ in 0..2 {
        assert_eq!(device.read().unwrap().len(), 3_000_000);
    }
    let long = "é".repeat(400_000);
    device.send(Message::text(format!("echo {long}"))).unwrap();
    assert_eq!(device.read().unwrap(), Message::text(long));
    device.send(Message::text("close")).unwrap();
    assert!(matches!(device.read(), Ok(Message::Close(Some(_)))));
    drop(device);
    server.wait("Closed");
    let told = server.stop();
    let is_it = |one: &&String| !one.starts_with("Flushed");
    let story: Vec<_> =
        told.iter().skip_while(|one| *one != "Dialed 1 Ok(())").filter(is_it).take(5).collect();
    let expected = ["Dialed 1 Ok(())", "Opened Some(192.0.2.7)", "Secured", "Requested true"];
    assert_eq!(story[..4], expected, "{told:?}");
    assert_eq!(count(&told, "HungUp"), 0, "a stream's leg is no more: {told:?}");
}

#[test]
fn g2_what_is_plain_is_not_heard_through_a_relay() {
    let server = Server::start();
    let relay = Relay::start(&server);
    let mut device = relay.device(1);
    device.write_all(b"GET /v1 HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    server.wait("Opened Some(192.0.2.7)");
    server.wait("Closed");
    let mut answer = Vec::new();
    let _ = device.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    let told = server.stop();
    assert_eq!(count(&told, "Secured"), 0);
}

#[test]
fn g6_a_stalled_and_a_cut_device_hurt_nobody() {
    let server = Server::start();
    let relay = Relay::start(&server);
    let mut stalled = relay.secure_device(&server, 1);
    let mut cut = relay.secure_device(&server, 2);
    let mut well = relay.secure_device(&server, 3);
    stalled.send(Message::text("much 15000000")).unwrap();
    cut.send(Message::text("much 15000000")).unwrap();
    for _ in 0..2 {
        server.wait("Text much 15000000");
    }
    cut.get_mut().get_ref().get_ref().get_ref().shutdown(Shutdown::Both).unwrap();
    let start = std::time::Instant::now();
    for _ in 0..100 {
        well.send(Message::text("echo well")).unwrap();
        assert_eq!(well.read().unwrap(), Message::text("well"));
    }
    assert!(start.elapsed() < TIMEOUT / 4, "{:?}", start.elapsed());
    server.wait("Closed");
    for _ in 0..2 {
        assert_eq!(stalled.read().unwrap().len(), 15_000_000);
    }
    server.stop();
}
