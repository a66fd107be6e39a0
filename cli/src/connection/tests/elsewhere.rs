//! A fake daemon elsewhere: TLS to a key, straight or through a fake relay that splices.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use clawd_protocol::Fingerprint;
use clawd_runtime_mio::tls::{Identity, Trusted, server_config};
use rustls::{ServerConnection, StreamOwned};
use tungstenite::handshake::server::{Request, Response};

use super::*;
use crate::connection::secure::{Fault, Secure};
use crate::remote::path::Way;

/// Where the fake listens, and what it heard: the key of its peer and each decrypted byte.
struct Fake {
    port: u16,
    heard: Receiver<Vec<u8>>,
}

/// Accepts one connection with this key and reads it to its end.
fn listener(identity: &Identity) -> Fake {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = server_config(identity).unwrap();
    let (tell, heard) = mpsc::channel();
    thread::spawn(move || {
        let (tcp, _) = listener.accept().unwrap();
        let mut tls = StreamOwned::new(ServerConnection::new(config).unwrap(), tcp);
        let mut bytes = Vec::new();
        let _ = tls.read_to_end(&mut bytes);
        tell.send(bytes).unwrap();
    });
    Fake { port, heard }
}

/// Accepts one connection with this key and talks like a daemon until it has answered so many texts; then it says nothing
/// more, as if the network had gone.
fn daemon(identity: &Identity, answers: usize) -> (u16, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = server_config(identity).unwrap();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let (tcp, _) = listener.accept().unwrap();
        serve(tcp, config, answers, &tell);
    });
    (port, told)
}

#[expect(clippy::result_large_err, reason = "it is the library's callback")]
fn serve(
    tcp: TcpStream,
    config: Arc<rustls::ServerConfig>,
    answers: usize,
    tell: &mpsc::Sender<String>,
) {
    let mut open = tcp.try_clone().unwrap();
    let tls = StreamOwned::new(ServerConnection::new(config).unwrap(), tcp);
    let on_head = |request: &Request, response: Response| {
        let host = request.headers().get("host").unwrap().to_str().unwrap().to_owned();
        tell.send(format!("host {host}")).unwrap();
        Ok(response)
    };
    let Ok(mut socket) = tungstenite::accept_hdr(tls, on_head) else { return };
    let digest = TokenDigest::of(token().expose());
    for _ in 0..answers {
        let Ok(message) = socket.read() else { return };
        let text = message.into_text().unwrap();
        let _ = tell.send(text.to_string());
        let pinged = text.contains("daemon.ping");
        let id = serde_json::from_str::<Value>(&text).unwrap()["id"].clone();
        let said = if pinged {
            vec![result(&id, &serde_json::json!({"pong": true}))]
        } else {
            honest(&text, &digest, 0)
        };
        for answer in said {
            socket.send(Message::text(answer)).unwrap();
        }
    }
    // Open, and silent, until the other end has gone.
    while open.read(&mut [0; 1024]).is_ok_and(|bytes| bytes > 0) {}
}

/// A relay that says this text and then copies to and from that port.
fn relay(text: &'static str, to: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let (tcp, _) = listener.accept().unwrap();
        let mut socket = tungstenite::accept(tcp.try_clone().unwrap()).unwrap();
        socket.send(Message::text(text)).unwrap();
        let Ok(there) = TcpStream::connect(("127.0.0.1", to)) else { return };
        tcp.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        let mut reader = there.try_clone().unwrap();
        reader.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        let mut writer = there;
        let mut bytes = [0; 4096];
        loop {
            match socket.read() {
                Ok(Message::Binary(bytes)) => writer.write_all(&bytes).unwrap(),
                Ok(_) => {}
                Err(tungstenite::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                }
                Err(_) => return drop(writer.shutdown(Shutdown::Both)),
            }
            match reader.read(&mut bytes) {
                Ok(0) => return,
                Ok(read) => {
                    let _ = socket.send(Message::binary(bytes[..read].to_vec()));
                }
                Err(_) => {}
            }
        }
    });
    port
}

fn direct(port: u16) -> Way {
    Way::Direct(format!("wss://127.0.0.1:{port}").parse().unwrap())
}

fn through(port: u16) -> Way {
    Way::Relay(format!("ws://127.0.0.1:{port}").parse().unwrap())
}

fn open(way: &Way, key: Fingerprint, own: &Identity) -> Result<Secure, Fault> {
    Secure::open(way, Trusted::Key(key), own)
}

#[test]
fn g1_another_key_gets_no_byte_of_application_data() {
    let (wanted, other, own) = three();
    let fake = listener(&other);
    let fault = open(&direct(fake.port), wanted.fingerprint(), &own).unwrap_err();
    assert_eq!(fault, Fault::WrongKey(other.fingerprint()));
    assert_eq!(fake.heard.recv().unwrap(), b"", "nothing was said");
    // Through a relay that answers in the daemon's place it is the same.
    let fake = listener(&other);
    let way = through(relay(r#"{"type":"connected"}"#, fake.port));
    let fault = open(&way, wanted.fingerprint(), &own).unwrap_err();
    assert_eq!(fault, Fault::WrongKey(other.fingerprint()));
    assert_eq!(fake.heard.recv().unwrap(), b"");
}

#[test]
fn g2_what_speaks_no_tls_gets_nothing_but_a_hello() {
    let (wanted, _, own) = three();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let way = direct(listener.local_addr().unwrap().port());
    let heard = thread::spawn(move || {
        let (mut tcp, _) = listener.accept().unwrap();
        tcp.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").unwrap();
        let mut bytes = Vec::new();
        let _ = tcp.read_to_end(&mut bytes);
        bytes
    });
    let fault = open(&way, wanted.fingerprint(), &own).unwrap_err();
    assert!(matches!(fault, Fault::Unreachable(_)), "{fault:?}");
    // One handshake record, and perhaps an alert.
    assert_eq!(heard.join().unwrap().first(), Some(&22));
}

#[test]
fn g2_an_older_tls_is_named() {
    let (wanted, _, own) = three();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let way = direct(listener.local_addr().unwrap().port());
    thread::spawn(move || {
        let (mut tcp, _) = listener.accept().unwrap();
        let _ = tcp.read(&mut [0; 4096]);
        // A fatal alert: protocol_version.
        let _ = tcp.write_all(&[21, 3, 3, 0, 2, 2, 70]);
    });
    assert_eq!(open(&way, wanted.fingerprint(), &own).unwrap_err(), Fault::TooOld);
}

fn three() -> (Identity, Identity, Identity) {
    (Identity::generate().unwrap(), Identity::generate().unwrap(), Identity::generate().unwrap())
}

#[test]
fn calls_and_events_come_through_straight_and_through_a_relay() {
    let (there, _, own) = three();
    for is_relayed in [false, true] {
        let (port, told) = daemon(&there, 3);
        let way =
            if is_relayed { through(relay(r#"{"type":"connected"}"#, port)) } else { direct(port) };
        let secure = open(&way, there.fingerprint(), &own).unwrap();
        let mut daemon = Connection::over_tls(secure, token(), None).unwrap();
        assert_eq!(daemon.call("session.list", Map::new()).unwrap(), serde_json::json!([]));
        let Woken::Event(event) = daemon.wait(&[], None).unwrap() else { panic!("no event") };
        assert_eq!(event.method, "daemon.ready");
        assert_eq!(told.recv().unwrap(), format!("host {}", there.fingerprint()));
        let auth: Value = serde_json::from_str(&told.recv().unwrap()).unwrap();
        assert_eq!(auth["method"], "daemon.auth", "the key is the proof, none is asked for");
    }
}

#[test]
fn a_relay_says_why_it_does_not_let_us_through() {
    use clawd_protocol::relay::control::Refusal;
    let (there, _, own) = three();
    for (said, fault) in [
        (r#"{"type":"error","code":"offline","message":"m"}"#, Fault::Relay(Refusal::Offline)),
        (r#"{"type":"error","code":"busy","message":"m"}"#, Fault::Relay(Refusal::Busy)),
        (r#"{"type":"pong"}"#, Fault::Unreachable("what answers there is no relay".to_owned())),
        ("hello", Fault::Unreachable("what answers there is no relay".to_owned())),
    ] {
        let way = through(relay(said, 1));
        assert_eq!(open(&way, there.fingerprint(), &own).unwrap_err(), fault, "{said}");
    }
}

#[test]
fn a_silent_network_is_noticed_while_nothing_is_awaited() {
    let (there, _, own) = three();
    // It lets us in, answers one ping, and falls silent.
    let (port, told) = daemon(&there, 2);
    let secure = open(&direct(port), there.fingerprint(), &own).unwrap();
    let mut daemon = Connection::over_tls(secure, token(), None).unwrap();
    let Woken::Event(_) = daemon.wait(&[], None).unwrap() else { panic!("no event") };
    let begun = Instant::now();
    let failure = daemon.wait(&[], None).unwrap_err();
    let took = begun.elapsed();
    assert_eq!((failure.exit, &*failure.kind), (Exit::NotRunning, "unreachable"));
    assert!(failure.message.contains("silent"), "{}", failure.message);
    let expected = Duration::from_secs(14)..Duration::from_secs(25);
    assert!(expected.contains(&took), "one ping that was answered, one that was not: {took:?}");
    let pings = told.try_iter().filter(|text| text.contains("daemon.ping")).count();
    assert_eq!(pings, 1, "the second was never read");
}
