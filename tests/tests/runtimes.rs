//! One script, three runtimes: the promise that the core runs wherever somebody carries its bytes.

use std::process::Command;
use std::time::{Duration, Instant};

use clawd_tests::daemon::{Client, Failure, PATIENCE, Process, Raw, Site, example, port_in};
use serde_json::{Value, json};

const SECOND: Duration = Duration::from_secs(1);

fn run_example(name: &str) {
    let mut process = Process::spawn(&mut Command::new(example("clawd-protocol", name)));
    let token = |text: &str| Some(text.split_once("token ")?.1.split_once('\n')?.0.to_owned());
    let found = process.wait_for(|text| Some((port_in(text)?, token(text)?)));
    let (port, token) = found.expect("the example says where it is");
    script(port, &token);
}

#[test]
fn threads() {
    run_example("threads");
}

#[test]
fn tokio() {
    run_example("tokio");
}

#[test]
fn mio() {
    let site = Site::new();
    let daemon = site.start();
    script(daemon.port, &site.token());
}

fn owner(port: u16, token: &str) -> Client {
    let mut client = Client::tcp(port).expect("a connection");
    let auth = client.auth(token).expect("let in");
    assert_eq!((&auth["authenticated"], &auth["role"]), (&json!(true), &json!("owner")));
    client
}

fn script(port: u16, token: &str) {
    http(port);
    let mut owner_client = owner(port, token);
    assert_eq!(owner_client.call("daemon.ping", json!({})).unwrap()["pong"], true);
    wrong_token(port);
    let listed = device(port, &mut owner_client);
    assert_eq!(listed.as_array().map(Vec::len), Some(1));
    frames(port, token);
    many_at_once(port, token);
    owner_client.call("daemon.ping", json!({})).expect("and all is well");
    let _ = owner_client.call("daemon.shutdown", json!({}));
    assert_eq!(owner_client.wait_close(PATIENCE), Some(1001));
}

fn http(port: u16) {
    let status = |request: String| {
        let answer = Raw::exchange(port, request.as_bytes());
        assert_eq!(answer.lines().filter(|line| line.starts_with("HTTP/1.1 ")).count(), 1);
        answer.get(9..12).and_then(|code| code.parse::<u16>().ok()).unwrap_or(0)
    };
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let host = format!("Host: 127.0.0.1:{port}\r\n");
    assert_eq!(status(format!("GET /health HTTP/1.1\r\n{host}\r\n")), 200);
    assert_eq!(status("GET /health HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_owned()), 403);
    assert_eq!(status(format!("GET / HTTP/1.1\r\nHost: evil.example\r\n{upgrade}\r\n")), 403);
    let origin = "Origin: http://evil.example\r\n";
    assert_eq!(status(format!("GET / HTTP/1.1\r\n{host}{origin}{upgrade}\r\n")), 403);
    assert_eq!(status(format!("GET /nothing HTTP/1.1\r\n{host}\r\n")), 404);
    assert_eq!(status("nonsense\r\n\r\n".to_owned()), 400);
    assert_eq!(status(format!("GET /{} HTTP/1.1\r\n{host}\r\n", "a".repeat(9000))) / 100, 4);
}

fn wrong_token(port: u16) {
    let mut stranger = Client::tcp(port).unwrap();
    let refusal = stranger.auth("clawd_l_wrong").unwrap_err();
    assert!(
        matches!(&refusal, Failure::Refused { code: -32004, kind, .. } if kind == "unauthorized")
    );
    assert_eq!(stranger.wait_close(2 * SECOND), Some(1008));
    let mut early = Client::tcp(port).unwrap();
    assert_eq!(early.call("session.list", json!({})).unwrap_err().code(), Some(-32004));
    assert_eq!(early.wait_close(2 * SECOND), Some(1008));
}

/// Pairs by PIN and is thrown out; the list of devices in between.
fn device(port: u16, owner: &mut Client) -> Value {
    let mut phone = Client::tcp(port).unwrap();
    let (id, token) = phone.pair(owner, "read");
    assert_eq!(owner.wait_event("device.paired", |_| true)["device_id"], *id);
    let mut second = Client::tcp(port).unwrap();
    assert_eq!(second.auth(&token).unwrap()["role"], "read");
    assert_eq!(second.call("daemon.pairPin", json!({})).unwrap_err().code(), Some(-32002));
    let listed = owner.call("device.list", json!({})).unwrap();
    let began = Instant::now();
    owner.call("device.revoke", json!({"id": id})).unwrap();
    assert_eq!(phone.wait_close(SECOND), Some(1008));
    assert_eq!(second.wait_close(SECOND), Some(1008));
    assert!(began.elapsed() < SECOND);
    let refused = Client::tcp(port).unwrap().auth(&token).unwrap_err();
    assert_eq!(refused.code(), Some(-32004));
    listed
}

fn frames(port: u16, token: &str) {
    use tungstenite::{
        Message,
        protocol::frame::{
            Frame,
            coding::{Data, OpCode},
        },
    };
    let mut client = owner(port, token);
    // In two fragments with a ping between, and a long one.
    let piece = |text: &str, opcode, last| {
        Message::Frame(Frame::message(text.as_bytes().to_vec(), OpCode::Data(opcode), last))
    };
    client.send_message(piece(r#"{"jsonrpc":"2.0","id":"f","#, Data::Text, false));
    client.send_message(Message::Ping(Vec::new().into()));
    client.send_message(piece(r#""method":"daemon.ping"}"#, Data::Continue, true));
    let answer = client.next(Instant::now() + PATIENCE).unwrap().unwrap();
    let answer = if answer["id"] == "f" {
        answer
    } else {
        client.next(Instant::now() + PATIENCE).unwrap().unwrap()
    };
    assert_eq!(answer["result"]["pong"], true);
    let long = "a".repeat(1024 * 1024);
    client.call("daemon.ping", json!({"padding": long})).expect("a megabyte is fine");
    client.send_message(Message::binary(vec![0]));
    assert_eq!(client.wait_close(SECOND), Some(1003));
    let mut stranger = Client::tcp(port).unwrap();
    stranger.send(&"a".repeat(17 * 1024));
    assert_eq!(stranger.wait_close(SECOND), Some(1009));
    let mut polite = owner(port, token);
    polite.send_message(Message::Close(None));
    polite.wait_close(SECOND);
}

fn many_at_once(port: u16, token: &str) {
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = owner(port, token);
                let ids: Vec<_> =
                    (0..32).map(|_| client.begin("daemon.ping", &json!({}))).collect();
                for id in ids {
                    client.finish(id).expect("answered");
                }
            });
        }
    });
}
