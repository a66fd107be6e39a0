//! A fake daemon at the other end of the socket.

use std::io::Write as _;
use std::net::TcpListener;
use std::os::fd::AsFd as _;

use super::*;
use clawd_protocol::access::token::{TokenDigest, mint_local};
use std::sync::mpsc;
use std::thread;
use tungstenite::Message;

/// What a fake daemon on a port does with one text: its answers.
type Answer = fn(&str, &TokenDigest, u16) -> Vec<String>;

fn token() -> Secret {
    mint_local([1; 32])
}

/// A program on a port that speaks WebSocket and answers as told; gives everything it was sent.
fn fake(answer: Answer) -> (SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let digest = TokenDigest::of(token().expose());
        let (stream, _) = listener.accept().unwrap();
        let mut socket = tungstenite::accept(stream).unwrap();
        while let Ok(message) = socket.read() {
            let Ok(text) = message.into_text() else { continue };
            tell.send(text.to_string()).unwrap();
            for answer in answer(&text, &digest, address.port()) {
                socket.send(Message::text(answer)).unwrap();
            }
        }
    });
    (address, told)
}

fn result(id: &Value, result: &Value) -> String {
    serde_json::json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string()
}

/// The real thing, as far as the handshake and one call go.
fn honest(text: &str, digest: &TokenDigest, port: u16) -> Vec<String> {
    let request: Value = serde_json::from_str(text).unwrap();
    let id = &request["id"];
    match request["method"].as_str().unwrap() {
        "daemon.ping" => {
            let proof = digest.proof(request["params"]["nonce"].as_str().unwrap(), port);
            vec![result(id, &serde_json::json!({"pong": true, "proof": proof}))]
        }
        "daemon.auth" if request["params"]["token"] == token().expose() => {
            vec![
                result(id, &serde_json::json!({"authenticated": true, "role": "owner"})),
                r#"{"jsonrpc":"2.0","method":"daemon.ready","params":{"seq":1}}"#.to_owned(),
            ]
        }
        "session.list" => vec![result(id, &serde_json::json!([]))],
        _ => {
            vec![serde_json::json!({"jsonrpc": "2.0", "id": id, "error": {
            "code": -32001, "message": "no such session", "data": {"kind": "session_not_found"},
        }})
        .to_string()]
        }
    }
}

#[test]
fn a7_a_squatter_on_the_port_gets_neither_the_token_nor_its_hash() {
    let squatters: [Answer; 4] = [
        // It asks the daemon itself, on another port.
        |text, digest, port| honest(text, digest, port ^ 1),
        |_, _, _| vec![r#"{"jsonrpc":"2.0","id":0,"result":{"pong":true}}"#.to_owned()],
        |_, _, port| {
            let proof = TokenDigest::of("a guess").proof("nonce", port);
            vec![format!(
                r#"{{"jsonrpc":"2.0","id":0,"result":{{"pong":true,"proof":"{proof}"}}}}"#
            )]
        },
        |_, _, _| vec!["come in".to_owned()],
    ];
    for squatter in squatters {
        let (address, told) = fake(squatter);
        let failure = Connection::over_tcp(address, token(), None).unwrap_err();
        assert_eq!(failure.exit, Exit::NotRunning);
        let heard: Vec<String> = told.iter().collect();
        let digest: String = TokenDigest::of(token().expose())
            .to_bytes()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(heard.len(), 1, "{heard:?}");
        assert!(!heard[0].contains(token().expose()) && !heard[0].contains(&digest));
    }
}

#[test]
fn a7_who_proves_to_know_the_token_is_talked_to() {
    let (address, told) = fake(honest);
    let mut daemon = Connection::over_tcp(address, token(), None).unwrap();
    assert_eq!(daemon.call("session.list", serde_json::json!({})).unwrap(), serde_json::json!([]));
    let failure = daemon.call("session.get", serde_json::json!({})).unwrap_err();
    assert_eq!(failure.exit, Exit::NotFound);
    // What came before the answers was kept.
    let Woken::Event(event) = daemon.wait(&[], None).unwrap() else { panic!("no event") };
    assert_eq!(event.method, "daemon.ready");
    let past = Instant::now();
    assert!(matches!(daemon.wait(&[], Some(past)).unwrap(), Woken::Timeout));
    drop(daemon);
    let methods: Vec<Value> = told
        .iter()
        .map(|text| serde_json::from_str::<Value>(&text).unwrap()["method"].clone())
        .collect();
    assert_eq!(methods, ["daemon.ping", "daemon.auth", "session.list", "session.get"]);
}

#[test]
fn another_descriptor_wakes_the_wait() {
    let (address, _told) = fake(honest);
    let mut daemon = Connection::over_tcp(address, token(), None).unwrap();
    daemon.call("session.list", serde_json::json!({})).unwrap();
    let _ = daemon.wait(&[], None).unwrap();
    let (read, mut write) = UnixStream::pair().unwrap();
    write.write_all(b"x").unwrap();
    assert!(matches!(daemon.wait(&[read.as_fd()], None).unwrap(), Woken::Other(0)));
}

mod elsewhere;
