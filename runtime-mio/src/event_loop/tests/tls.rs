//! The loop, reached over TLS.

use std::sync::Arc;

use rustls::{ClientConnection, StreamOwned};

use super::*;
use crate::tls::{Trusted, client_config, server_name};

type Tls = StreamOwned<ClientConnection, TcpStream>;

impl Server {
    fn tls(&self, own: Option<&Identity>) -> Tls {
        let config = client_config(Trusted::Key(self.key), own).unwrap();
        let session = ClientConnection::new(Arc::clone(&config), server_name()).unwrap();
        StreamOwned::new(session, self.tcp())
    }

    fn secure_client(&self) -> WebSocket<Tls> {
        tungstenite::client(format!("ws://127.0.0.1:{}/", self.port), self.tls(None)).unwrap().0
    }
}

#[test]
fn f1_tls_and_plain_peers_speak_the_same_and_the_core_knows_which_is_which() {
    let server = Server::start();
    let mut plain = server.client();
    server.wait("Requested true");
    let mut secure = server.secure_client();
    secure.send(Message::text("all hello")).unwrap();
    assert_eq!(secure.read().unwrap(), Message::text("hello"));
    assert_eq!(plain.read().unwrap(), Message::text("hello"));
    secure.send(Message::Ping(b"abc".to_vec().into())).unwrap();
    assert_eq!(secure.read().unwrap(), Message::Pong(b"abc".to_vec().into()));
    let told = server.stop();
    assert_eq!(count(&told, "Secured"), 1);
    let last = told.iter().rposition(|one| one == "Opened").unwrap();
    let story: Vec<_> = told.iter().take(last).skip_while(|one| *one != "Requested true").collect();
    assert_eq!(story[1..4], ["Opened", "Secured", "Requested true"], "{told:?}");
}

#[test]
fn pipelined_messages_over_tls_are_answered_in_order_and_credited_once() {
    let server = Server::start();
    let mut client = server.secure_client();
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
}

#[test]
fn c5_a_tls_peer_that_does_not_read_gets_all_of_it_later_and_holds_up_nobody() {
    let server = Server::start();
    let (mut slow, mut quick) = (server.secure_client(), server.secure_client());
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
    let told = server.stop();
    assert_eq!(count(&told, "Secured"), 2);
}

#[test]
fn long_messages_over_tls_are_heard_whole_and_also_after_a_pause() {
    let server = Server::start();
    let (mut paused, mut other) = (server.secure_client(), server.secure_client());
    let long = "é".repeat(100_000);
    paused.send(Message::text(format!("echo {long}"))).unwrap();
    assert_eq!(paused.read().unwrap(), Message::text(&long));
    paused.send(Message::text("pause")).unwrap();
    server.wait("Text pause");
    paused.send(Message::text(format!("echo {long}"))).unwrap();
    paused.send(Message::text("echo 2")).unwrap();
    other.send(Message::text("resume")).unwrap();
    assert_eq!(paused.read().unwrap(), Message::text(&long));
    assert_eq!(paused.read().unwrap(), Message::text("2"));
    server.stop();
}

#[test]
fn a_close_over_tls_is_the_last_word_and_the_end_is_said_inside_of_it() {
    let server = Server::start();
    let mut client = server.secure_client();
    client.write(Message::text("echo before")).unwrap();
    client.write(Message::text("close")).unwrap();
    client.flush().unwrap();
    assert_eq!(client.read().unwrap(), Message::text("before"));
    let Message::Close(Some(close)) = client.read().unwrap() else { panic!("no close") };
    assert_eq!((u16::from(close.code), close.reason.as_str()), (1008, "asked"));
    // An end without `close_notify` would be an error.
    assert_eq!(client.get_mut().read(&mut [0]).unwrap(), 0);
    server.wait("Closed");
    let mut tls = server.tls(None);
    tls.write_all(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    tls.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 404") && answer.ends_with("no"), "{answer}");
    drop(tls);
    server.wait("Closed");
    server.stop();
}

#[test]
fn g4_a_peer_that_ends_without_saying_so_is_gone_and_its_last_words_were_heard() {
    let server = Server::start();
    let mut client = server.secure_client();
    client.send(Message::text("echo last")).unwrap();
    let tcp = &client.get_ref().sock;
    tcp.shutdown(Shutdown::Write).unwrap();
    server.wait("Text echo last");
    server.wait("Closed");
    server.stop();
}

#[test]
fn an_end_that_comes_with_the_last_words_is_noticed_without_another_event() {
    let server = Server::start();
    let mut client = server.secure_client();
    let tls = client.get_mut();
    let frame = [&[0x81, 0x80 | 6, 0, 0, 0, 0][..], b"echo 1"].concat();
    tls.conn.writer().write_all(&frame).unwrap();
    tls.conn.send_close_notify();
    // In one piece; and the TCP connection stays.
    tls.conn.write_tls(&mut tls.sock).unwrap();
    assert!(!tls.conn.wants_write());
    server.wait("Text echo 1");
    server.wait("Closed");
    server.stop();
}

#[test]
fn g2_after_a_failed_handshake_the_peer_hears_an_alert_and_nothing_in_clear() {
    let server = Server::start();
    // A record that says it is a ClientHello and is not.
    let mut stream = server.tcp();
    stream.write_all(&[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0]).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!((answer.len(), answer[0]), (7, 0x15), "one alert: {answer:?}");
    server.wait("Closed");
    // Half a hello, and the end.
    let mut stream = server.tcp();
    stream.write_all(&[0x16, 3, 1, 2, 0, 1, 0]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    answer.clear();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.is_empty());
    let told = server.stop();
    assert_eq!((count(&told, "Secured"), count(&told, "Requested")), (0, 1), "{told:?}");
}

#[test]
fn the_first_byte_alone_is_enough_to_know() {
    let server = Server::start();
    let config = client_config(Trusted::Key(server.key), None).unwrap();
    let mut session = ClientConnection::new(config, server_name()).unwrap();
    let mut hello = Vec::new();
    session.write_tls(&mut hello).unwrap();
    let mut stream = server.tcp();
    let mut other = server.client();
    for byte in hello.split_at(1).0.chunks(1).chain(hello.split_at(1).1.chunks(100)) {
        stream.write_all(byte).unwrap();
        // Once this is back, the bytes were read.
        other.send(Message::text("echo x")).unwrap();
        other.read().unwrap();
    }
    let mut tls = StreamOwned::new(session, stream);
    tls.write_all(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    tls.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    server.stop();
}
