//! What somebody in the middle can do with the records of a TLS session: end it, and nothing else (security G4).

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use clawd_protocol::Fingerprint;
use clawd_tests::daemon::records::{From, Middle, Plan, Seen, Trick};
use clawd_tests::daemon::{Client, Daemon, PATIENCE, Site, Tls, tls};
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

/// How long a device waits for what somebody has taken away.
const STALL: Duration = Duration::from_millis(400);
const CALLS: u64 = 3;

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
    repo: &'a Path,
    /// In the title of every session of this run.
    run: u32,
}

impl Device<'_> {
    fn title(&self, call: u64) -> String {
        format!("run {} call {call}", self.run)
    }

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
            let params = json!({"repoPath": self.repo, "title": self.title(id)});
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
            assert_eq!(session["title"], self.title(id));
            assert!(answers.insert(id, session).is_none(), "answered twice");
        }
        Some(())
    }

    /// What the owner finds afterwards: each call at most once, as it was made, and all that was answered.
    fn check(&self, owner: &mut Client, outcome: &Outcome, plan: Option<&Plan>) {
        let listed = owner.call("session.list", json!({})).unwrap();
        let listed = listed.as_array().unwrap();
        let prefix = format!("run {} ", self.run);
        let mut made = BTreeMap::new();
        for session in listed {
            let title = session["title"].as_str().unwrap();
            assert!(title.starts_with(&prefix), "{plan:?}: {title}");
            assert_eq!(session["repoPath"], json!(self.repo), "{plan:?}");
            let is_first = made.insert(title.to_owned(), session["id"].clone()).is_none();
            assert!(is_first, "{plan:?}: {title} was made twice");
        }
        assert!((1..=CALLS).map(|id| self.title(id)).take(made.len()).eq(made.keys().cloned()));
        for (id, session) in &outcome.answers {
            assert_eq!(made.get(&self.title(*id)), Some(&session["id"]), "{plan:?}");
        }
        for id in made.values() {
            owner.call("session.delete", json!({"sessionId": id})).unwrap();
        }
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

#[test]
fn g4_whatever_is_done_to_a_record_ends_the_session_and_changes_nothing() {
    let site = Site::new();
    let daemon = site.start();
    let mut owner = daemon.owner();
    let (_, token) = daemon.connect_tls(None).unwrap().pair_by_ticket(&mut owner, "full");
    let (key, repo) = (daemon.key(), site.repo());
    let mut device = Device { daemon: &daemon, key, token, repo: &repo, run: 0 };
    let mut live = |plan: Option<Plan>| {
        device.run += 1;
        let middle = Middle::start(daemon.port, plan.clone());
        let outcome = device.live(middle.port);
        let seen = middle.end();
        settle(&mut owner);
        device.check(&mut owner, &outcome, plan.as_ref());
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
    let site = Site::new();
    let daemon = site.start();
    let mut owner = daemon.owner();
    let (_, token) = daemon.connect_tls(None).unwrap().pair_by_ticket(&mut owner, "full");
    let (key, repo) = (daemon.key(), site.repo());
    let device = Device { daemon: &daemon, key, token, repo: &repo, run: 1 };
    let middle = Middle::start(daemon.port, None);
    let outcome = device.live(middle.port);
    assert!(outcome.is_whole);
    let seen = middle.end();
    device.check(&mut owner, &outcome, None);
    // To the daemon as it was said, and its own words back to it.
    for said in [seen.client.concat(), seen.daemon.concat()] {
        let mut stream = TcpStream::connect(("127.0.0.1", daemon.port)).unwrap();
        io::Write::write_all(&mut stream, &said).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // A reset is an end too.
        let _ = stream.read_to_end(&mut Vec::new());
    }
    settle(&mut owner);
    assert_eq!(owner.call("session.list", json!({})).unwrap(), json!([]));
}
