//! The daemon on every address of a machine, reached from one that is not loopback (security F1, F2).
#![cfg(target_os = "linux")]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use clawd_protocol::{Config, Fingerprint};
use clawd_runtime_mio::files::DataDir;
use clawd_runtime_mio::tls::{Identity, Trusted, client_config, server_name};
use clawd_runtime_mio::{Options, run};
use rustls::{ClientConnection, StreamOwned};
use tungstenite::Message;

const PATIENCE: Duration = Duration::from_secs(60);
/// Addresses of a machine that is on a network, in both families.
const LAN: [&str; 2] = ["10.9.8.7", "fd09:8::7"];

#[test]
fn f1_beyond_loopback_only_tls_is_heard_and_the_local_token_is_worth_nothing() {
    // In a network of its own, which the kernel may not allow.
    let [v4, v6] = LAN;
    let script = format!(
        "set -e; ip link set lo up; ip addr add {v4}/32 dev lo; ip addr add {v6}/128 dev lo
         exec \"$0\" --exact in_a_network_of_its_own --ignored"
    );
    let unshare = |args: &[&str]| Command::new("unshare").arg("-rn").args(args).output();
    if !unshare(&["ip", "link"]).is_ok_and(|output| output.status.success()) {
        let _ = writeln!(io::stderr(), "SKIPPED f1_beyond_loopback…: no namespaces, or no ip");
        return;
    }
    let this = std::env::current_exe().unwrap();
    let ran = unshare(&["sh", "-c", &script, this.to_str().unwrap()]).unwrap();
    let said = String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned();
    assert!(ran.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
#[ignore = "run by the test above, in a network of its own"]
fn in_a_network_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap().join("data");
    let port = serve(&path);
    let token = std::fs::read_to_string(path.join("auth_token")).unwrap();
    let pkcs8 = std::fs::read(path.join("identity.key")).unwrap();
    let key = Identity::from_pkcs8(&pkcs8).unwrap().fingerprint();
    for here in ["127.0.0.1", "::1"] {
        let answer = exchange(connect(here, port), here, port);
        assert!(answer.starts_with("HTTP/1.1 200"), "{here}: {answer}");
    }
    for there in LAN {
        let refused = exchange(connect(there, port), there, port);
        assert!(refused.starts_with("HTTP/1.1 426"), "{there}: {refused}");
        assert!(refused.contains("wss://"), "{refused}");
        assert!(!exchange_upgrade(connect(there, port), there, port, &token).contains("jsonrpc"));
        let answer = exchange(secure(there, port, key), there, port);
        assert!(answer.starts_with("HTTP/1.1 200"), "{there}: {answer}");
        // The name of loopback is ours from anywhere, the local token from nowhere but there.
        let url = format!("ws://{}/", host(there, port));
        let (mut socket, _) = tungstenite::client(url, secure(there, port, key)).unwrap();
        let auth = r#"{"jsonrpc":"2.0","id":1,"method":"daemon.auth","params":{"token":"TOKEN"}}"#;
        socket.send(Message::text(auth.replace("TOKEN", token.trim()))).unwrap();
        let answer = socket.read().unwrap().into_text().unwrap();
        assert!(answer.contains("-32004"), "{there}: {answer}");
    }
}

/// Runs a daemon as long as this process lives; its port.
fn serve(path: &Path) -> u16 {
    let (is_ready, ready) = channel();
    let data_dir = DataDir::open(path).unwrap();
    thread::spawn(move || {
        let options = Options {
            data_dir,
            bind: vec!["0.0.0.0".parse().unwrap(), "::".parse().unwrap()],
            port: 0,
            guard: PathBuf::new(),
            config: Config::default(),
            log: Box::new(io::sink()),
            is_quiet: true,
        };
        run(options, Box::new(move |ready| is_ready.send(ready.port).unwrap())).unwrap();
    });
    ready.recv_timeout(PATIENCE).unwrap()
}

fn host(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

fn connect(address: &str, port: u16) -> TcpStream {
    let stream = TcpStream::connect(host(address, port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn secure(address: &str, port: u16, key: Fingerprint) -> StreamOwned<ClientConnection, TcpStream> {
    let config = client_config(Trusted::Key(key), None).unwrap();
    let session = ClientConnection::new(config, server_name()).unwrap();
    StreamOwned::new(session, connect(address, port))
}

fn exchange(mut stream: impl Read + Write, address: &str, port: u16) -> String {
    let host = host(address, port);
    write!(stream, "GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Asks for a WebSocket and says the token right behind, without waiting.
fn exchange_upgrade(mut stream: TcpStream, address: &str, port: u16, token: &str) -> String {
    let host = host(address, port);
    let text = format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"daemon.auth\",\"params\":{{\"token\":\"{}\"}}}}",
        token.trim()
    );
    let length = u8::try_from(text.len()).unwrap();
    let head = format!(
        "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let frame = [&[0x81, 0x80 | 126, 0, length, 0, 0, 0, 0][..], text.as_bytes()].concat();
    stream.write_all(&[head.as_bytes(), &frame].concat()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 426"), "{answer}");
    answer
}
