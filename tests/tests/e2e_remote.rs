//! The command line as a device of a daemon elsewhere: paired, used, cut off and shut out, over real TLS.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use clawd_protocol::pake::{Host, Message};
use clawd_runtime_mio::tls::{Identity, peer_key, server_config};
use clawd_tests::daemon::{Client, Daemon, Process, Site, Terminal, skip};
use rustls::{ServerConnection, StreamOwned};
use serde_json::{Value, json};

/// A daemon, its owner, and another machine that has only the command line.
struct Two {
    desk: Site,
    daemon: Daemon,
    owner: Client,
    laptop: Site,
}

impl Two {
    fn new() -> Self {
        let desk = Site::new();
        desk.configure("name = \"Desk\"");
        let daemon = desk.start();
        let owner = daemon.owner();
        Self { desk, daemon, owner, laptop: Site::new() }
    }

    fn url(&self) -> String {
        format!("wss://127.0.0.1:{}", self.daemon.port)
    }

    /// What a QR code would say if the daemon were reached at these places.
    fn code(&mut self, urls: &[&str]) -> String {
        let window = self.owner.call("daemon.pairPin", json!({})).expect("a window");
        let text = window["qrPayload"].as_str().expect("a payload");
        let mut code: Value = serde_json::from_str(text).expect("JSON");
        code["url"] = urls[0].into();
        code["urls"] = urls.into();
        code.to_string()
    }

    /// Runs `clawd` on the laptop and expects this exit code: stdout, stderr.
    fn run(&self, code: i32, args: &[&str]) -> (String, String) {
        let (got, out, err) = self.laptop.run(args);
        assert_eq!(got, Some(code), "clawd {args:?}\n{out}\n{err}");
        self.assert_silent(&format!("{out}{err}"));
        (out, err)
    }

    /// No device's token, and no local one.
    fn assert_silent(&self, said: &str) {
        assert!(!said.contains("clawd_d_") && !said.contains(&self.desk.token()), "{said}");
    }

    /// Paired as `desk`, reached at these places.
    fn pair(&mut self, urls: &[&str]) {
        let code = self.code(urls);
        let (_, err) = self.run(0, &["remote", "pair", &code, "--as", "desk"]);
        assert!(err.contains("paired with \"Desk\" as desk, role full"), "{err}");
    }

    fn devices(&mut self) -> Vec<Value> {
        self.owner.call("device.list", json!({})).unwrap().as_array().unwrap().clone()
    }
}

#[test]
fn by_the_text_of_a_code_it_becomes_a_device() {
    let mut two = Two::new();
    let url = two.url();
    two.pair(&[&url]);
    let file = two.laptop.data().join("remotes/remotes.json");
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
    let (out, _) = two.run(0, &["remote", "list", "--json"]);
    let listed: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(listed[0]["name"], "desk");
    assert_eq!(listed[0]["urls"], json!([url]));
    let (out, _) = two.run(0, &["-R", "desk", "status"]);
    assert!(out.contains("Running") && out.contains(&url), "{out}");
    let (out, _) = two.run(0, &["-R", "desk", "device", "list", "--json=id,via,connected"]);
    let devices: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(devices[0]["id"], listed[0]["deviceId"]);
    // A code is good for one.
    let code = two.code(&[&url]);
    two.run(0, &["remote", "pair", &code, "--as", "again", "--json"]);
    let (_, err) = two.run(5, &["remote", "pair", &code, "--as", "desk"]);
    assert!(err.contains("wrong, expired or used") && err.contains("clawd pair"), "{err}");
}

#[test]
fn by_pin_both_sides_see_one_code_and_the_owner_says_yes() {
    let mut two = Two::new();
    let window = two.owner.call("daemon.pairPin", json!({"role": "approve"})).unwrap();
    let pin = window["pin"].as_str().unwrap();
    let wrong = if pin == "000000" { "000001" } else { "000000" };
    let at = two.url();
    let pair =
        ["remote", "pair", "--url", at.as_str(), "--pin-stdin", "--device-name", "my laptop"];
    let typed = two.laptop.home().join("pin");
    let begin = |pin: &str| {
        fs::write(&typed, pin).unwrap();
        Process::spawn(two.laptop.command(&pair).stdin(fs::File::open(&typed).unwrap()))
    };
    let (status, said) = begin(wrong).end();
    assert_eq!(status.code(), Some(5), "{said}");
    let mut laptop = begin(&format!("{} {}\n", &pin[..3], &pin[3..]));
    let asked = two.owner.wait_event("pairing.progress", |it| it["state"] == "confirm");
    let text = asked.to_string();
    assert!(text.contains("my laptop"), "{text}");
    let code = asked["code"].as_str().unwrap();
    laptop.wait_for(|said| said.contains(code).then_some(())).expect("the same code");
    assert_eq!(two.run(0, &["remote", "list"]).0, "", "nothing is kept before the yes");
    let accept = json!({"pairingId": asked["pairingId"], "accept": true});
    two.owner.call("daemon.pairConfirm", accept).unwrap();
    let (status, said) = laptop.end();
    assert!(status.success(), "{said}");
    two.assert_silent(&said);
    assert!(said.contains("as Desk, role approve"), "{said}");
    let (out, _) = two.run(0, &["-R", "Desk", "approvals", "--json"]);
    assert_eq!(out.trim(), "[]");
    // The role is the daemon's to keep.
    let repo = two.desk.repo();
    let (_, err) = two.run(5, &["-R", "Desk", "session", "create", repo.to_str().unwrap()]);
    assert!(err.contains("role"), "{err}");
}

#[test]
fn sessions_are_driven_from_elsewhere() {
    let mut two = Two::new();
    let url = two.url();
    two.pair(&[&url]);
    let repo = two.desk.repo();
    let repo = repo.to_str().unwrap();
    let (out, err) = two.run(0, &["-R", "desk", "run", "-C", repo, "say from afar"]);
    assert_eq!(out, "from afar\n", "{err}");
    let (out, _) = two.run(0, &["-R", "desk", "session", "list", "--json=id,repoPath"]);
    let sessions: Value = serde_json::from_str(&out).unwrap();
    let id = sessions[0]["id"].as_str().unwrap();
    let (out, _) = two.run(0, &["-R", "desk", "send", "--wait", &id[..6], "say more"]);
    assert_eq!(out, "more\n");
    let (out, _) = two.run(0, &["-R", "desk", "session", "show", id]);
    assert!(out.contains("from afar") && out.contains("more"), "{out}");
    two.run(0, &["-R", "desk", "pause", id]);
    two.run(0, &["-R", "desk", "resume", id]);
    two.run(0, &["-R", "desk", "stop", id]);
    let test = ["-R", "desk", "policy", "test", "Read", "a", "-C", repo];
    two.run(0, &test);
    two.run(0, &["-R", "desk", "provider", "list"]);
}

#[test]
fn what_is_about_this_machine_is_refused_and_so_is_the_present_directory() {
    let mut two = Two::new();
    let url = two.url();
    two.pair(&[&url]);
    for args in [
        &["up"][..],
        &["start"],
        &["stop"],
        &["serve"],
        &["logs"],
        &["token", "show"],
        &["audit", "verify"],
        &["policy", "list"],
        &["open", "x"],
    ] {
        let (_, err) = two.run(2, &[&["-R", "desk"], args].concat());
        assert!(err.contains("this machine only"), "{args:?}: {err}");
    }
    let (_, err) = two.run(2, &["-R", "desk", "run", "say hi"]);
    assert!(err.contains("in which directory of desk") && err.contains("-C"), "{err}");
    let (_, err) = two.run(2, &["-R", "desk", "run", "-C", "repo", "say hi"]);
    assert!(err.contains("whole path"), "{err}");
    let (_, err) = two.run(9, &["-R", "desk", "run", "-C", "/no/such/place", "say hi"]);
    assert!(err.contains("/no/such/place does not exist"), "{err}");
    let (_, err) = two.run(9, &["-R", "des", "status"]);
    assert!(err.contains("no remote is called `des`") && err.contains("desk"), "{err}");
    two.laptop.env.push(("CLAWD_REMOTE".to_owned(), "desk".to_owned()));
    two.run(0, &["status"]);
    let (out, _) = two.run(0, &["remote", "list"]);
    assert!(out.starts_with("desk\t"), "{out}");
    // Nothing but the empty name is none.
    let (_, err) = two.run(6, &["-R", "", "status"]);
    assert!(err.contains("not running"), "{err}");
}

#[test]
fn e6_a_device_that_was_shut_out_is_told_so_and_can_be_removed() {
    let mut two = Two::new();
    let url = two.url();
    two.pair(&[&url]);
    let key = two.laptop.data().join("remotes/device.key");
    let kept = fs::read(&key).unwrap();
    fs::remove_file(&key).unwrap();
    let (_, err) = two.run(5, &["-R", "desk", "status"]);
    assert!(err.contains("no longer knows"), "the token alone, with another key: {err}");
    fs::write(&key, kept).unwrap();
    two.run(0, &["-R", "desk", "status"]);
    let id = two.devices()[0]["id"].clone();
    two.owner.call("device.revoke", json!({"id": id})).unwrap();
    let (_, err) = two.run(5, &["-R", "desk", "status"]);
    assert!(err.contains("desk no longer knows this device") && err.contains("pair"), "{err}");
    let (_, err) = two.run(2, &["remote", "remove", "desk"]);
    assert!(err.contains("--yes"), "{err}");
    let (_, err) = two.run(0, &["remote", "remove", "desk", "--yes"]);
    assert!(err.contains("forgot desk, and it does not know"), "{err}");
    assert_eq!(two.run(0, &["remote", "list"]).0, "");
}

#[test]
fn removing_revokes_there_and_says_so_if_it_cannot() {
    let mut two = Two::new();
    let url = two.url();
    two.pair(&[&url]);
    two.run(0, &["remote", "remove", "desk", "--yes"]);
    assert!(two.devices().is_empty(), "revoked by itself");
    two.pair(&[&url]);
    let first = two.devices()[0]["id"].clone();
    two.pair(&[&url]);
    let devices = two.devices();
    assert!(devices.len() == 1 && devices[0]["id"] != first, "the newer alone: {devices:?}");
    let id = devices[0]["id"].as_str().unwrap().to_owned();
    let Two { daemon, laptop, .. } = two;
    daemon.stop();
    let (code, _, err) = laptop.run(&["remote", "remove", "desk", "--yes"]);
    assert_eq!(code, Some(0));
    assert!(err.contains("could not be told") && err.contains(&id), "{err}");
    assert_eq!(laptop.run(&["remote", "list"]).1, "");
}

#[test]
fn g1_another_daemon_at_the_same_address_is_told_apart() {
    let mut two = Two::new();
    let url = two.url();
    two.pair(&[&url]);
    let Two { desk, daemon, laptop, .. } = two;
    let port = daemon.port;
    daemon.stop();
    let (code, _, err) = laptop.run(&["-R", "desk", "status"]);
    assert_eq!(code, Some(6));
    assert!(err.contains("cannot reach desk") && err.contains(&url), "{err}");
    let other = Site::new();
    let impostor = other.start_on(port);
    let (code, _, err) = laptop.run(&["-R", "desk", "status"]);
    assert_eq!(code, Some(6));
    assert!(err.contains("another key") && err.contains("identity"), "{err}");
    impostor.stop();
    let _daemon = desk.start_on(port);
    assert_eq!(laptop.run(&["-R", "desk", "status"]).0, Some(0));
}

#[test]
fn a_daemon_that_moved_is_found_where_a_person_says_if_its_own_key_answers_there() {
    let mut two = Two::new();
    let url = two.url();
    two.pair(&[&url]);
    let Two { desk, daemon, laptop, .. } = two;
    daemon.stop();
    // Both run at once, so that they cannot have one port.
    let (other, daemon) = (Site::new().start(), desk.start());
    let (code, _, err) = laptop.run(&["-R", "desk", "status"]);
    assert_eq!(code, Some(6));
    assert!(err.contains("clawd remote move desk ADDRESS"), "{err}");
    let (there, here) = (other.port, daemon.port);
    let (code, _, err) = laptop.run(&["remote", "move", "desk", &format!("127.0.0.1:{there}")]);
    assert_eq!(code, Some(6));
    assert!(err.contains("another key"), "{err}");
    let (code, _, err) = laptop.run(&["remote", "move", "desk", "http://desk"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("`http://desk`: a daemon's address is wss://HOST:PORT"), "{err}");
    assert!(!laptop.run(&["remote", "list"]).1.contains(&there.to_string()), "nothing was kept");
    let (code, _, err) = laptop.run(&["remote", "move", "desk", &format!("127.0.0.1:{here}")]);
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains(&format!("desk is at wss://127.0.0.1:{here}")), "{err}");
    assert_eq!(laptop.run(&["-R", "desk", "status"]).0, Some(0));
}

#[test]
fn a_cut_network_costs_nothing_of_a_turn() {
    let mut two = Two::new();
    let wire = Wire::to(two.daemon.port);
    let (first, second) = (wire.url(), two.url());
    two.pair(&[&first, &second]);
    let repo = two.desk.repo();
    let prompt = "slow 150\nstream 40";
    let args = ["-R", "desk", "run", "-C", repo.to_str().unwrap(), prompt];
    let mut turn = Process::spawn(&mut two.laptop.command(&args));
    turn.wait_for(|said| said.contains("word3").then_some(())).expect("it has begun");
    wire.cut();
    let (status, said) = turn.end();
    assert!(status.success(), "{said}");
    for n in 0..40 {
        let times = said.matches(&format!("word{n} ")).count();
        assert_eq!(times, 1, "word{n} in {said}");
    }
    assert!(said.contains("reconnecting (event "), "{said}");
    // The way that led there is the first now.
    let (out, _) = two.run(0, &["remote", "list", "--json=urls"]);
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()[0]["urls"], json!([second, first]));
}

#[test]
fn what_was_typed_and_decided_while_the_network_was_cut_counts_once() {
    let mut two = Two::new();
    let (one, other) = (Wire::to(two.daemon.port), Wire::to(two.daemon.port));
    let (first, second, third) = (one.url(), other.url(), two.url());
    two.pair(&[&first, &second, &third]);
    let repo = two.desk.repo();
    let session = two.owner.create_session(&repo);
    let Some(terminal) = Terminal::open(100, 50) else {
        return skip("what_was_typed_and_decided", "there is no setsid of util-linux");
    };
    let mut seat = terminal.run(&two.laptop.command(&["-R", "desk", "attach", &session]));
    seat.wait_for("> ");
    one.cut();
    seat.press("tool echo once >> log\n");
    seat.wait_for("(Enter alone denies): ");
    other.cut();
    seat.press("y\n");
    seat.wait_for("done in");
    seat.press("\x04");
    let (code, output) = seat.end();
    assert_eq!(code, Some(0), "{output}");
    assert_eq!(fs::read_to_string(repo.join("log")).unwrap(), "once\n", "{output}");
    let page = json!({"sessionId": session});
    let said = two.owner.call("session.getMessages", page).unwrap().to_string();
    assert_eq!(said.matches("tool echo once").count(), 1, "{said}");
}

#[test]
fn d6_who_does_not_know_the_pin_is_not_kept_as_a_remote() {
    let identity = Identity::generate().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("wss://{}", listener.local_addr().unwrap());
    let there = identity.fingerprint();
    let impostor = thread::spawn(move || {
        let (tcp, _) = listener.accept().unwrap();
        let config = server_config(&identity).unwrap();
        let tls = StreamOwned::new(ServerConnection::new(config).unwrap(), tcp);
        let mut socket = tungstenite::accept(tls).unwrap();
        let mut asked = Vec::new();
        while let Ok(message) = socket.read() {
            let Ok(request) = serde_json::from_str::<Value>(&message.into_text().unwrap()) else {
                break;
            };
            let result = if request["method"] == "device.pairStart" {
                let message = Message::of_device(request["params"]["message"].as_str().unwrap());
                let key = peer_key(&socket.get_ref().conn);
                let (_, message) =
                    Host::answer("111111", key, there, &message.unwrap(), [7; 32]).unwrap();
                json!({"pairingId": "p", "message": message})
            } else {
                json!({"confirm": "A".repeat(43), "deviceId": "d", "deviceToken": "clawd_d_evil",
                    "role": "full", "hostName": "Desk", "daemonId": there})
            };
            asked.push(request["method"].as_str().unwrap().to_owned());
            let answer = json!({"jsonrpc": "2.0", "id": request["id"], "result": result});
            socket.send(tungstenite::Message::text(answer.to_string())).unwrap();
        }
        asked
    });
    let laptop = Site::new();
    let typed = laptop.home().join("pin");
    fs::write(&typed, "222222").unwrap();
    let pair = ["remote", "pair", "--url", url.as_str(), "--pin-stdin"];
    let mut command = laptop.command(&pair);
    let (status, said) = Process::spawn(command.stdin(fs::File::open(&typed).unwrap())).end();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("has not proved that it knows the PIN"), "{said}");
    assert_eq!(impostor.join().unwrap(), ["device.pairStart", "device.pairFinish"]);
    assert!(!laptop.data().join("remotes/remotes.json").exists());
}

/// A way to a daemon that can be cut: then nothing comes through any more, and nobody is told.
struct Wire {
    port: u16,
    is_cut: Arc<AtomicBool>,
}

impl Wire {
    fn to(there: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let is_cut = Arc::new(AtomicBool::new(false));
        let cut = Arc::clone(&is_cut);
        thread::spawn(move || {
            for here in listener.incoming().map_while(Result::ok) {
                if cut.load(Ordering::Relaxed) {
                    continue;
                }
                let Ok(there) = TcpStream::connect(("127.0.0.1", there)) else { continue };
                let both =
                    (here.try_clone().expect("a clone"), there.try_clone().expect("a clone"));
                for (from, to) in [(here, there), (both.1, both.0)] {
                    let cut = Arc::clone(&cut);
                    thread::spawn(move || copy(from, to, &cut));
                }
            }
        });
        Self { port, is_cut }
    }

    fn url(&self) -> String {
        format!("wss://127.0.0.1:{}", self.port)
    }

    fn cut(&self) {
        self.is_cut.store(true, Ordering::Relaxed);
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, is_cut: &AtomicBool) {
    let mut bytes = [0; 4096];
    while let Ok(read) = from.read(&mut bytes) {
        if is_cut.load(Ordering::Relaxed) && read > 0 {
            continue;
        }
        if read == 0 || to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    if !is_cut.load(Ordering::Relaxed) {
        let _ = to.shutdown(Shutdown::Both);
    }
}
