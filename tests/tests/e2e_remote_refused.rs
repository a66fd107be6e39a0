//! Devices that are not let in, with the command line as the device: what is said to whom.

use std::fs;
use std::net::TcpListener;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use clawd_runtime_mio::tls::{Identity, server_config};
use clawd_tests::daemon::{Client, Daemon, Process, Site};
use clawd_tests::wish::wrong;
use rustls::{ServerConnection, StreamOwned};
use serde_json::{Value, json};

/// What every device reads that is not let in, whatever the reason.
const REFUSED: &str =
    "it does not let us in: the code is wrong, expired or used, or somebody there said no";

struct Two {
    daemon: Daemon,
    owner: Client,
    laptop: Site,
    _desk: Site,
}

impl Two {
    fn new() -> Self {
        let desk = Site::new();
        let daemon = desk.start();
        let owner = daemon.owner();
        Self { daemon, owner, laptop: Site::new(), _desk: desk }
    }

    fn window(&mut self) -> Value {
        self.owner.call("daemon.pairPin", json!({})).expect("a window")
    }

    /// What a QR code would say if the daemon were reached on this machine.
    fn code(&mut self) -> Value {
        let window = self.window();
        let text = window["qrPayload"].as_str().expect("a payload");
        let mut code: Value = serde_json::from_str(text).expect("JSON");
        code["url"] = format!("wss://127.0.0.1:{}", self.daemon.port).into();
        code["urls"] = json!([code["url"]]);
        code
    }

    fn pair_by_code(&self, code: &Value) -> (Option<i32>, String) {
        let (exit, out, err) = self.laptop.run(&["remote", "pair", &code.to_string()]);
        (exit, out + &err)
    }

    /// Somebody types this PIN for what answers at the port.
    fn by_pin(&self, port: u16, pin: &str) -> Process {
        let typed = self.laptop.home().join("pin");
        fs::write(&typed, pin).expect("written");
        let url = format!("wss://127.0.0.1:{port}");
        let mut command = self.laptop.command(&["remote", "pair", "--url", &url, "--pin-stdin"]);
        Process::spawn(command.stdin(fs::File::open(&typed).expect("just written")))
    }

    fn is_refused(&self, mut device: Process) {
        let (status, said) = device.end();
        assert_eq!(status.code(), Some(5), "{said}");
        assert!(said.contains(REFUSED) && said.contains("clawd pair"), "{said}");
    }

    fn nobody_came(&mut self) {
        let devices = self.owner.call("device.list", json!({})).expect("a list");
        assert_eq!(devices, json!([]));
        assert!(!self.laptop.data().join("remotes/remotes.json").exists());
    }
}

fn text(window: &Value, key: &str) -> String {
    window[key].as_str().expect("a text").to_owned()
}

#[test]
fn d2_three_wrong_pins_spend_the_window_and_the_owner_reads_why() {
    let mut two = Two::new();
    let pin = text(&two.window(), "pin");
    for by in 1..=3 {
        two.is_refused(two.by_pin(two.daemon.port, &wrong(&pin, by)));
        if by < 3 {
            let told = two.owner.wait_event("pairing.progress", |it| it["state"] == "refused");
            assert_eq!(told["triesLeft"], 3 - by);
        }
    }
    let over = two.owner.wait_event("pairing.progress", |it| it["state"] == "closed");
    assert_eq!(over["detail"], "too many wrong codes; open a new window");
    // The right one looks no different to the device.
    two.is_refused(two.by_pin(two.daemon.port, &pin));
    two.nobody_came();
}

#[test]
fn d5_a_device_that_the_owner_does_not_want_reads_what_all_others_read() {
    let mut two = Two::new();
    let pin = text(&two.window(), "pin");
    let device = two.by_pin(two.daemon.port, &pin);
    let asked = two.owner.wait_event("pairing.progress", |it| it["state"] == "confirm");
    let no = json!({"pairingId": asked["pairingId"], "accept": false});
    two.owner.call("daemon.pairConfirm", no).expect("it is said");
    two.is_refused(device);
    two.nobody_came();
}

#[test]
fn a_code_of_another_daemon_reaches_nobody() {
    let mut two = Two::new();
    let mut other = Two::new();
    let (ours, theirs) = (two.code(), other.code());
    // All of it is another's but the address.
    let mut code = theirs.clone();
    code["url"] = ours["url"].clone();
    code["urls"] = ours["urls"].clone();
    let (exit, said) = two.pair_by_code(&code);
    assert_eq!(exit, Some(6), "{said}");
    assert!(said.contains("has another key") && said.contains("nothing was said"), "{said}");
    // Only the ticket is another's.
    let mut code = ours.clone();
    code["ticket"] = theirs["ticket"].clone();
    let (exit, said) = two.pair_by_code(&code);
    assert!(exit == Some(5) && said.contains(REFUSED), "{said}");
    two.nobody_came();
    other.nobody_came();
}

#[test]
fn a_clock_that_is_ten_minutes_fast_is_mentioned_and_does_not_keep_a_device_out() {
    let mut two = Two::new();
    let mut code = two.code();
    // As it looks to one whose clock is ahead.
    code["exp"] = (code["exp"].as_u64().expect("seconds") - 600).into();
    let (exit, said) = two.pair_by_code(&code);
    assert_eq!(exit, Some(0), "{said}");
    assert!(said.contains("by this machine's clock the code has expired"), "{said}");
}

/// Somebody in the middle with a certificate of its own: it accepts one device, and says to the daemon what that says.
fn middle(daemon: &Daemon) -> (u16, Receiver<String>) {
    let own = Identity::generate().expect("a key");
    let mut there = daemon.connect_tls(Some(&own)).expect("it is let to the door");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("it is bound").port();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let (tcp, _) = listener.accept().expect("a device");
        let session = ServerConnection::new(server_config(&own).expect("a configuration"));
        let tls = StreamOwned::new(session.expect("a session"), tcp);
        let Ok(mut socket) = tungstenite::accept(tls) else { return };
        while let Ok(tungstenite::Message::Text(said)) = socket.read() {
            let _ = tell.send(said.to_string());
            let call: Value = serde_json::from_str(&said).expect("JSON");
            let outcome =
                there.call(call["method"].as_str().expect("a method"), call["params"].clone());
            let mut answer = json!({"jsonrpc": "2.0", "id": call["id"]});
            match outcome {
                Ok(result) => answer["result"] = result,
                Err(refused) => {
                    let _ = tell.send(format!("{refused:?}"));
                    answer["error"] = json!({
                        "code": -32021,
                        "message": "pairing refused",
                        "data": {"kind": "pairing_refused"},
                    });
                }
            }
            let _ = socket.send(tungstenite::Message::text(answer.to_string()));
        }
    });
    (port, told)
}

#[test]
fn d6_somebody_in_the_middle_with_the_right_pin_passing_by_gets_nothing() {
    let mut two = Two::new();
    let pin = text(&two.window(), "pin");
    let (port, told) = middle(&two.daemon);
    two.is_refused(two.by_pin(port, &pin));
    let said: String = told.iter().collect();
    assert!(said.contains("device.pairStart") && said.contains("device.pairFinish"), "{said}");
    assert!(said.contains("-32021"), "the daemon has refused: {said}");
    assert!(!said.contains(&pin) && !said.contains("clawd_d_"), "{said}");
    two.nobody_came();
    // It has cost one guess, and no more.
    let mut device = two.by_pin(two.daemon.port, &pin);
    let asked = two.owner.wait_event("pairing.progress", |it| it["state"] == "confirm");
    let yes = json!({"pairingId": asked["pairingId"], "accept": true});
    two.owner.call("daemon.pairConfirm", yes).expect("it is said");
    let (status, said) = device.end();
    assert!(status.success(), "{said}");
}
