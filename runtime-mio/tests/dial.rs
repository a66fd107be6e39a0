//! Dialling, against real servers of every kind: each fault is told for what it is, and in time.

use std::io::{BufRead as _, BufReader, Lines, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::ops::Range;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use clawd_protocol::relay::RelayUrl;
use clawd_protocol::{Dial, DialFault, Fingerprint, Purpose};
use clawd_runtime_mio::dial::{Dialled, dial, dial_with};
use clawd_runtime_mio::tls::relay_config_with;
use clawd_runtime_mio::tunnel::Tunnel;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair,
    PublicKeyData as _, date_time_ymd,
};
use rustix::net::{AddressFamily, SocketType, bind, getsockname, listen, socket};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use tungstenite::protocol::Message;

const TIMEOUT: Duration = Duration::from_secs(10);
/// For what never comes.
const SHORT: Duration = Duration::from_millis(400);

/// An authority that vouches for servers.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots
    }

    fn vouch(&self, names: &[&str]) -> Certified {
        self.vouch_in(names, 2020..4000)
    }

    /// For the time from one year to another.
    fn vouch_in(&self, names: &[&str], years: Range<i32>) -> Certified {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = date_time_ymd(years.start, 1, 1);
        params.not_after = date_time_ymd(years.end, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap().der().clone();
        Certified { certificate, key }
    }
}

struct Certified {
    certificate: CertificateDer<'static>,
    key: KeyPair,
}

impl Certified {
    fn pin(&self) -> Fingerprint {
        Fingerprint::of(&self.key.subject_public_key_info())
    }

    fn config(&self) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], key)
            .unwrap();
        Arc::new(config)
    }
}

/// Serves one connection on this machine; its port.
fn serve(server: impl FnOnce(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || server(listener.accept().unwrap().0));
    port
}

/// Answers a WebSocket's bytes with the same bytes.
fn echo(stream: impl Read + Write) {
    let Ok(mut socket) = tungstenite::accept(stream) else { return };
    while let Ok(message) = socket.read() {
        if message.is_binary() {
            socket.send(message).unwrap();
        }
    }
}

fn tls(certified: &Certified) -> impl FnOnce(TcpStream) + Send + 'static {
    let config = certified.config();
    move |stream| {
        let tls = ServerConnection::new(config).unwrap();
        echo(StreamOwned::new(tls, stream));
    }
}

fn to(url: String, timeout: Duration) -> Dial {
    let relay: RelayUrl = url.parse().unwrap();
    let target = "/v1/connect/x".to_owned();
    Dial { relay, target, pin: None, purpose: Purpose::Control, timeout }
}

/// What comes of dialling over TLS with these roots.
fn dial_tls(
    host: &str,
    port: u16,
    roots: RootCertStore,
    pin: Option<Fingerprint>,
) -> Result<Dialled, DialFault> {
    let config = relay_config_with(roots, pin).unwrap();
    dial_with(&Dial { pin, ..to(format!("wss://{host}:{port}"), TIMEOUT) }, Some(config))
}

/// What comes of dialling a server on this machine that answers the request so.
fn dial_plain(answer: impl Into<Vec<u8>>) -> Result<Dialled, DialFault> {
    let answer = answer.into();
    let port = serve(move |mut stream| {
        read_head(&mut stream);
        stream.write_all(&answer).unwrap();
    });
    dial(&to(format!("ws://127.0.0.1:{port}"), TIMEOUT))
}

fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn assert_echoes(dialled: Dialled) {
    let mut tunnel = Tunnel::new(dialled.link, dialled.tail);
    let sent = vec![b'x'; 100_000];
    let mut heard = vec![0; sent.len()];
    // Less than what fits in between, so that nobody waits for the other.
    for (sent, heard) in sent.chunks(10_000).zip(heard.chunks_mut(10_000)) {
        tunnel.write_all(sent).unwrap();
        tunnel.read_exact(heard).unwrap();
    }
    assert_eq!(heard, sent);
}

fn assert_tls(result: Result<Dialled, DialFault>, part: &str) {
    match result {
        Err(DialFault::Tls(why)) => assert!(why.contains(part), "{why}"),
        other => panic!("{other:?}"),
    }
}

/// That it timed out, at the deadline.
fn assert_late(dial_it: impl FnOnce(Duration) -> Result<Dialled, DialFault>) {
    let start = Instant::now();
    let result = dial_it(SHORT);
    let elapsed = start.elapsed();
    assert_eq!(result.unwrap_err(), DialFault::TimedOut);
    assert!(elapsed >= SHORT && elapsed < SHORT + Duration::from_secs(2), "{elapsed:?}");
}

#[test]
fn g7_a_relay_that_the_roots_vouch_for_is_spoken_to() {
    let authority = Authority::new("ours");
    for (host, name) in [("localhost", "localhost"), ("127.0.0.1", "127.0.0.1")] {
        let certified = authority.vouch(&[name]);
        for pin in [None, Some(certified.pin())] {
            let port = serve(tls(&certified));
            assert_echoes(dial_tls(host, port, authority.roots(), pin).unwrap());
        }
    }
}

#[test]
fn g7_a_wrong_pin_is_refused_whoever_vouches_for_the_key() {
    let authority = Authority::new("ours");
    let (certified, other) = (authority.vouch(&["localhost"]), authority.vouch(&["localhost"]));
    let port = serve(tls(&certified));
    let refused = dial_tls("localhost", port, authority.roots(), Some(other.pin()));
    assert_eq!(refused.unwrap_err(), DialFault::WrongPin);
}

#[test]
fn g7_a_right_pin_does_not_make_up_for_a_bad_certificate() {
    let (authority, stranger) = (Authority::new("ours"), Authority::new("another"));
    for (certified, why) in [
        (stranger.vouch(&["localhost"]), "UnknownIssuer"),
        (authority.vouch(&["example.org"]), "not valid for name"),
    ] {
        for pin in [None, Some(certified.pin())] {
            let port = serve(tls(&certified));
            assert_tls(dial_tls("localhost", port, authority.roots(), pin), why);
        }
    }
}

#[test]
fn g7_a_certificate_out_of_its_time_is_refused_and_told_apart() {
    let authority = Authority::new("ours");
    for (years, fault) in [(2020..2021, DialFault::Expired), (3000..3001, DialFault::NotYetValid)] {
        let certified = authority.vouch_in(&["localhost"], years);
        for pin in [None, Some(certified.pin())] {
            let port = serve(tls(&certified));
            let refused = dial_tls("localhost", port, authority.roots(), pin);
            assert_eq!(refused.unwrap_err(), fault);
        }
    }
}

/// OpenSSL's server, and where it listens.
struct OpenSsl {
    child: Child,
    /// It ends when nobody reads it.
    _lines: Lines<BufReader<ChildStdout>>,
    port: u16,
}

impl OpenSsl {
    fn start(certified: &Certified, version: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = (dir.path().join("cert.der"), dir.path().join("key.der"));
        std::fs::write(&cert, &certified.certificate).unwrap();
        std::fs::write(&key, certified.key.serialize_der()).unwrap();
        let mut child = Command::new("openssl")
            .args([
                "s_server",
                "-accept",
                "127.0.0.1:0",
                "-certform",
                "DER",
                "-keyform",
                "DER",
                version,
                "-cert",
            ])
            .arg(cert)
            .arg("-key")
            .arg(key)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines.by_ref().find_map(|line| {
            line.unwrap().strip_prefix("ACCEPT 127.0.0.1:").map(|port| port.parse().unwrap())
        });
        let port = port.expect("a port");
        Self { child, _lines: lines, port }
    }
}

impl Drop for OpenSsl {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn g7_a_server_that_speaks_only_tls_1_2_is_refused() {
    let authority = Authority::new("ours");
    let certified = authority.vouch(&["localhost"]);
    let server = OpenSsl::start(&certified, "-tls1_2");
    let refused = dial_tls("localhost", server.port, authority.roots(), None);
    assert_eq!(refused.unwrap_err(), DialFault::TooOld);
    // One that chooses 1.2, whatever was offered.
    let hello = [&b"\x16\x03\x03\x00\x2a\x02\x00\x00\x26\x03\x03"[..], &[7; 32], b"\0\xc0\x2b\0"];
    let port = serve(move |mut stream| {
        stream.read_exact(&mut [0; 100]).unwrap();
        stream.write_all(&hello.concat()).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let refused = dial_tls("localhost", port, authority.roots(), None);
    assert_eq!(refused.unwrap_err(), DialFault::TooOld);
}

#[test]
fn g7_what_is_no_tls_is_no_relay() {
    let roots = || Authority::new("ours").roots();
    let port = serve(|mut stream| {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    assert_tls(dial_tls("localhost", port, roots(), None), "no TLS");
    let port = serve(|mut stream| stream.read_exact(&mut [0; 50]).unwrap_or_default());
    let ended = dial_tls("localhost", port, roots(), None).unwrap_err();
    // With bytes unread, the system may say it more rudely.
    assert!(matches!(ended, DialFault::Tls(_) | DialFault::Unreachable(_)), "{ended:?}");
}

#[test]
fn g7_no_redirect_is_followed() {
    let elsewhere = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("ws://{}/", elsewhere.local_addr().unwrap());
    for status in ["301 Moved Permanently", "302 Found", "307 Temporary Redirect"] {
        let result = dial_plain(format!("HTTP/1.1 {status}\r\nLocation: {url}\r\n\r\n"));
        assert_eq!(result.unwrap_err(), DialFault::Redirected);
    }
    elsewhere.set_nonblocking(true).unwrap();
    assert!(elsewhere.accept().is_err(), "nobody came");
}

#[test]
fn an_answer_that_opens_nothing_is_told_for_what_it_is() {
    for (answer, fault) in [
        ("HTTP/1.1 401 Unauthorized\r\n\r\n", DialFault::Rejected(401)),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", DialFault::Rejected(200)),
        ("HTTP/1.1 503 Service Unavailable\r\n\r\n", DialFault::Rejected(503)),
        ("", DialFault::NotWebSocket),
        ("HTTP/1.1 101 Switching Protocols\r\nUpgr", DialFault::NotWebSocket),
        ("SSH-2.0-OpenSSH_9.9\r\n", DialFault::NotWebSocket),
        (
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
            DialFault::NotWebSocket,
        ),
    ] {
        assert_eq!(dial_plain(answer).unwrap_err(), fault, "{answer:?}");
    }
    let endless = [b"HTTP/1.1 101 Switching Protocols\r\nX: ".to_vec(), vec![b'x'; 17 * 1024]];
    assert_eq!(dial_plain(endless.concat()).unwrap_err(), DialFault::NotWebSocket);
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(65));
    assert_eq!(dial_plain(many).unwrap_err(), DialFault::NotWebSocket);
}

/// Dials a server that adds this to a right answer; also what was asked for.
fn dial_adding(lines: &str, behind: &[u8]) -> (Result<Dialled, DialFault>, String) {
    let (lines, behind) = (lines.to_owned(), behind.to_vec());
    let (asked, request) = std::sync::mpsc::channel();
    let port = serve(move |mut stream| {
        let head = read_head(&mut stream);
        let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
        let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: keep-alive, upgrade\r\n\
             UPGRADE: WebSocket\r\nSec-WebSocket-Accept: {accept}\r\n{lines}\r\n"
        );
        stream.write_all(&[answer.into_bytes(), behind].concat()).unwrap();
        asked.send(head).unwrap();
    });
    let result = dial(&to(format!("ws://localhost:{port}/some/path"), TIMEOUT));
    let request = request.recv().unwrap();
    assert!(request.contains(&format!("\r\nHost: localhost:{port}\r\n")), "{request}");
    (result, request)
}

#[test]
fn what_comes_right_behind_the_answer_is_kept() {
    let (dialled, request) = dial_adding("", b"\x82\x02hi\x88\x00");
    let dialled = dialled.unwrap();
    assert_eq!(dialled.link.get_ref().read_timeout().unwrap(), None);
    let mut tunnel = Tunnel::new(dialled.link, dialled.tail);
    let mut heard = Vec::new();
    tunnel.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"hi");
    assert!(request.starts_with("GET /v1/connect/x HTTP/1.1\r\n"), "{request}");
    assert!(!request.to_ascii_lowercase().contains("origin"), "{request}");
}

#[test]
fn nothing_is_agreed_to_that_was_not_asked_for() {
    for line in
        ["Sec-WebSocket-Extensions: permessage-deflate\r\n", "Sec-WebSocket-Protocol: x\r\n"]
    {
        assert_eq!(dial_adding(line, b"").0.unwrap_err(), DialFault::NotWebSocket, "{line}");
    }
}

#[test]
fn a_target_that_would_be_more_than_one_is_not_sent() {
    let port = serve(|mut stream| assert_eq!(stream.read(&mut [0]).unwrap(), 0));
    let mut dial_it = to(format!("ws://127.0.0.1:{port}"), TIMEOUT);
    dial_it.target = "/x HTTP/1.1\r\nHost: y\r\n\r\n".to_owned();
    assert_eq!(dial(&dial_it).unwrap_err(), DialFault::NotWebSocket);
}

#[test]
fn a_name_without_address_and_a_port_without_listener() {
    let unresolved = dial(&to("wss://nonexistent.invalid".to_owned(), TIMEOUT));
    assert_eq!(unresolved.unwrap_err(), DialFault::Unresolved);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let refused = dial(&to(format!("ws://127.0.0.1:{port}"), TIMEOUT)).unwrap_err();
    assert!(
        matches!(&refused, DialFault::Unreachable(why) if why.contains("refused")),
        "{refused:?}"
    );
}

#[test]
fn a_server_that_never_answers_is_given_up_in_time() {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = silent.local_addr().unwrap();
    assert_late(|timeout| dial(&to(format!("ws://{address}"), timeout)));
    let config = relay_config_with(Authority::new("ours").roots(), None).unwrap();
    assert_late(|timeout| dial_with(&to(format!("wss://{address}"), timeout), Some(config)));
}

#[test]
fn a_way_on_which_everything_is_lost_is_given_up_in_time() {
    let full = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&full, &std::net::SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
    listen(&full, 0).unwrap();
    let address = std::net::SocketAddr::try_from(getsockname(&full).unwrap()).unwrap();
    // Nobody accepts; once its queue is full, the system drops what asks for a connection.
    let mut queued = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        queued.push(stream);
    }
    assert_late(|timeout| dial(&to(format!("ws://{address}"), timeout)));
}

#[test]
fn g7_a_drip_does_not_move_the_deadline() {
    let drip = |bytes: Vec<u8>| {
        serve(move |mut stream| {
            for byte in bytes.iter().cycle() {
                if stream.write_all(&[*byte]).is_err() {
                    return;
                }
                thread::sleep(Duration::from_millis(20));
            }
        })
    };
    let port =
        drip(b"HTTP/1.1 101 Switching Protocols\r\nX: yyyyyyyyyyyyyyyyyyyyyyyyyyyy".to_vec());
    assert_late(|timeout| dial(&to(format!("ws://127.0.0.1:{port}"), timeout)));
    // A record of TLS that takes its time.
    let port = drip([&b"\x16\x03\x03\x40\x00\x02\x00\x3f\xf0\x03\x03"[..], &[7; 5000]].concat());
    let config = relay_config_with(Authority::new("ours").roots(), None).unwrap();
    let url = format!("wss://127.0.0.1:{port}");
    assert_late(|timeout| dial_with(&to(url, timeout), Some(config)));
}

#[test]
fn messages_of_tungstenite_and_ours_are_the_same_over_tls() {
    let authority = Authority::new("ours");
    let certified = authority.vouch(&["localhost"]);
    let port = serve(tls(&certified));
    let Dialled { link, tail } = dial_tls("localhost", port, authority.roots(), None).unwrap();
    let role = tungstenite::protocol::Role::Client;
    let mut socket = tungstenite::protocol::WebSocket::from_partially_read(link, tail, role, None);
    socket.send(Message::binary(b"hello".to_vec())).unwrap();
    assert_eq!(socket.read().unwrap(), Message::binary(b"hello".to_vec()));
}
