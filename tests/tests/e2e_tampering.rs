//! What somebody in the middle can do with the records of a TLS session: end it, and nothing else (security G4). The
//! same on a network and through a relay, where the one in the middle may be the relay itself.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use clawd_protocol::Fingerprint;
use clawd_tests::daemon::records::{From, Middle, Plan, Seen, Trick};
use clawd_tests::daemon::{Client, Daemon, PATIENCE, Site, Tls, tls};
use clawd_tests::relay::{Leg, Relay};
use serde_json::{Value, json};
use tungstenite::protocol::Role;
use tungstenite::{Message, WebSocket};

/// How long a device waits for what somebody has taken away.
const STALL: Duration = Duration::from_millis(400);
const CALLS: u64 = 3;
/// Types of records (RFC 8446, 5.1).
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;

fn title(run: u32, call: u64) -> String {
    format!("run {run} call {call}")
}

/// What a device saw of its session.
#[derive(Debug, Default)]
struct Outcome {
    /// Sessions that were made, by the request's number.
    answers: BTreeMap<u64, Value>,
    /// All was answered, and the daemon said the end inside of TLS.
    is_whole: bool,
}

struct Device<'a> {
    daemon: &'a Daemon,
    key: Fingerprint,
    token: String,
    repo: PathBuf,
    /// In the title of every session of this run.
    run: u32,
}

impl Device<'_> {
    /// Connects, makes its sessions, and closes; as far as it gets.
    fn live(&self, middle: u16) -> Outcome {
        let mut outcome = Outcome::default();
        outcome.is_whole = self.try_to_live(middle, &mut outcome.answers).is_some();
        outcome
    }

    fn try_to_live(&self, middle: u16, answers: &mut BTreeMap<u64, Value>) -> Option<()> {
        let stream = tls(middle, self.key, None).ok()?;
        stream.sock.set_read_timeout(Some(STALL)).ok()?;
        let url = format!("ws://127.0.0.1:{}/", self.daemon.port);
        let (mut socket, _) = tungstenite::client(url, stream).ok()?;
        let call = |id: u64, method: &str, params: Value| {
            json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string()
        };
        let auth = call(0, "daemon.auth", json!({"token": self.token}));
        socket.send(Message::text(auth)).ok()?;
        for id in 1..=CALLS {
            let params = json!({"repoPath": self.repo, "title": title(self.run, id)});
            socket.send(Message::text(call(id, "session.create", params))).ok()?;
        }
        while answers.len() < usize::try_from(CALLS).ok()? {
            self.hear(&mut socket, answers)?;
        }
        socket.close(None).ok()?;
        while self.hear(&mut socket, answers).is_some() {}
        let tls = socket.get_mut();
        (tls.read(&mut [0]).ok()? == 0).then_some(())
    }

    /// Whatever is heard is true, and heard once.
    fn hear(&self, socket: &mut WebSocket<Tls>, answers: &mut BTreeMap<u64, Value>) -> Option<()> {
        let Message::Text(text) = socket.read().ok()? else { return Some(()) };
        let message: Value = serde_json::from_str(&text).expect("the daemon speaks JSON");
        assert!(message.get("error").is_none(), "{message}");
        if let Some(id) = message["id"].as_u64().filter(|id| *id > 0) {
            let session = message["result"].clone();
            assert_eq!(session["title"], title(self.run, id));
            assert!(answers.insert(id, session).is_none(), "answered twice");
        }
        Some(())
    }
}

/// The daemon's side of what happened is over once its connections are no more than before.
fn settle(owner: &mut Client) {
    let connections = |owner: &mut Client| {
        owner.call("daemon.status", json!({})).unwrap()["connections"].as_u64()
    };
    clawd_tests::daemon::wait_until("the session is over", PATIENCE, || {
        connections(owner) == Some(1)
    });
}

fn of(seen: &Seen, from: From) -> &[Vec<u8>] {
    match from {
        From::Client => &seen.client,
        From::Daemon => &seen.daemon,
    }
}

/// A daemon, and a port that leads to it.
struct Scene {
    site: Site,
    daemon: Daemon,
    owner: Client,
    token: String,
    to: u16,
    /// The titles of all sessions that there ever were.
    made: BTreeSet<String>,
    _relay: Option<Relay>,
}

impl Scene {
    fn on_the_network() -> Self {
        let site = Site::new();
        let daemon = site.start();
        let mut owner = daemon.owner();
        let (_, token) = daemon.connect_tls(None).unwrap().pair_by_ticket(&mut owner, "full");
        let to = daemon.port;
        Self { site, daemon, owner, token, to, made: BTreeSet::new(), _relay: None }
    }

    fn behind_a_relay() -> Self {
        let mut scene = Self::on_the_network();
        let relay = Relay::start(&[]);
        let url = format!("ws://127.0.0.1:{}", relay.port);
        let (code, _, err) = scene.site.run(&["relay", "enable", "--url", &url]);
        assert!(code == Some(0) && err.contains("connected"), "{err}");
        scene.to = into_relay(relay.port, format!("/v1/connect/{}", scene.daemon.key()));
        scene._relay = Some(relay);
        scene
    }

    /// What the owner finds afterwards: each call at most once, as it was made, and all that was answered. Calls that were
    /// under way when the session ended may have been done or not, in any order, and a little late.
    fn check(&mut self, run: u32, outcome: &Outcome, plan: Option<&Plan>) {
        let repo = self.site.repo();
        let listed = self.owner.call("session.list", json!({})).unwrap();
        let mut made = BTreeMap::new();
        for session in listed.as_array().unwrap() {
            let found = session["title"].as_str().unwrap().to_owned();
            let is_asked = (1..=run).any(|run| (1..=CALLS).any(|id| title(run, id) == found));
            assert!(is_asked, "{plan:?}: {found}");
            assert_eq!(session["repoPath"], json!(repo), "{plan:?}");
            assert!(self.made.insert(found.clone()), "{plan:?}: {found} was made twice");
            made.insert(found, session["id"].clone());
        }
        for (id, session) in &outcome.answers {
            assert_eq!(made.get(&title(run, *id)), Some(&session["id"]), "{plan:?}");
        }
        for id in made.values() {
            self.owner.call("session.delete", json!({"sessionId": id})).unwrap();
        }
    }

    fn device(&self, run: u32) -> Device<'_> {
        let Self { daemon, token, .. } = self;
        Device { daemon, key: daemon.key(), token: token.clone(), repo: self.site.repo(), run }
    }
}

/// A port whose every connection becomes a client's leg at the relay.
fn into_relay(relay: u16, path: String) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for here in listener.incoming().map_while(Result::ok) {
            let mut leg = Leg::open(relay, &path).expect("an upgrade");
            assert_eq!(leg.text(), Some(json!({"type": "connected"})));
            // Nothing came behind the text: the daemon's end speaks second.
            let there = leg.into_stream();
            let (here_too, there_too) = (here.try_clone().unwrap(), there.try_clone().unwrap());
            thread::spawn(move || to_relay(here, there));
            thread::spawn(move || from_relay(there_too, here_too));
        }
    });
    port
}

fn to_relay(mut here: TcpStream, there: TcpStream) {
    let mut socket = WebSocket::from_raw_socket(there, Role::Client, None);
    let mut bytes = [0; 4096];
    while let Ok(read @ 1..) = here.read(&mut bytes) {
        if socket.send(Message::binary(bytes[..read].to_vec())).is_err() {
            break;
        }
    }
    let _ = socket.close(None);
}

fn from_relay(there: TcpStream, mut here: TcpStream) {
    let mut socket = WebSocket::from_raw_socket(there, Role::Client, None);
    while let Ok(Message::Binary(bytes)) = socket.read() {
        if here.write_all(&bytes).is_err() {
            break;
        }
    }
    let _ = here.shutdown(Shutdown::Both);
}

#[test]
fn g4_whatever_is_done_to_a_record_ends_the_session_and_changes_nothing() {
    tamper(Scene::on_the_network());
}

#[test]
fn g4_whatever_a_relay_does_to_a_record_ends_the_session_and_changes_nothing() {
    tamper(Scene::behind_a_relay());
}

/// All tricks, with each record of a session.
fn tamper(mut scene: Scene) {
    let mut run = 0;
    let mut live = |plan: Option<Plan>| {
        run += 1;
        let middle = Middle::start(scene.to, plan.clone());
        let outcome = scene.device(run).live(middle.port);
        let seen = middle.end();
        settle(&mut scene.owner);
        scene.check(run, &outcome, plan.as_ref());
        (outcome, seen)
    };
    let (outcome, recorded) = live(None);
    assert!(outcome.is_whole && outcome.answers.len() == 3, "{outcome:?}");

    let mut tricked = 0;
    for from in [From::Client, From::Daemon] {
        for index in 0..of(&recorded, from).len() {
            let other = of(&recorded, from)[index].clone();
            let tricks = [Trick::Flip, Trick::Drop, Trick::Replay, Trick::Swap, Trick::Truncate];
            for trick in tricks.into_iter().chain([Trick::Splice(other)]) {
                let plan = Plan { from, index, trick };
                let (outcome, seen) = live(Some(plan.clone()));
                // How the daemon's words are cut into records is not always the same.
                let sent = of(&seen, from).len();
                let was_done = index < sent;
                // Nobody reads what comes after the end.
                let is_late = plan.trick == Trick::Replay && index + 1 == sent;
                assert!(outcome.is_whole != was_done || is_late, "{plan:?}: {outcome:?}");
                tricked += u32::from(was_done);
            }
        }
    }
    assert!(tricked > 60, "only {tricked} records were touched");
    let (outcome, _) = live(None);
    assert!(outcome.is_whole, "the daemon goes on");
}

#[test]
fn g4_a_recorded_session_said_again_reaches_nobody() {
    say_again(Scene::on_the_network());
}

#[test]
fn g3_a_relay_that_says_a_recorded_session_again_reaches_nobody() {
    say_again(Scene::behind_a_relay());
}

/// A whole session to the daemon once more, as it was said, and its own words back to it.
fn say_again(mut scene: Scene) {
    let middle = Middle::start(scene.to, None);
    let outcome = scene.device(1).live(middle.port);
    assert!(outcome.is_whole);
    let seen = middle.end();
    scene.check(1, &outcome, None);
    for said in [seen.client.concat(), seen.daemon.concat()] {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, scene.to)).unwrap();
        stream.write_all(&said).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answer = [0];
        // It was heard, and answered: a hello or an alert. A reset is an end too.
        assert!(stream.read_exact(&mut answer).is_ok(), "it has not come there");
        assert!([ALERT, HANDSHAKE].contains(&answer[0]), "{answer:?}");
        let _ = stream.read_to_end(&mut Vec::new());
    }
    settle(&mut scene.owner);
    assert_eq!(scene.owner.call("session.list", json!({})).unwrap(), json!([]));
}
