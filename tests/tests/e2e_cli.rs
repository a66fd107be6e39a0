//! The commands that drive sessions and decide on approvals, run as programs run them: without a terminal.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};

use clawd_tests::daemon::{Client, Daemon, Site, write_private};
use serde_json::{Value, json};

/// What a model might say to a terminal.
const EVIL: &str = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{202e}\u{9b}31m";

/// A daemon and a session in it.
struct Desk {
    site: Site,
    daemon: Daemon,
    owner: Client,
    session: String,
}

impl Desk {
    fn new() -> Self {
        let site = Site::new();
        let daemon = site.start();
        let mut owner = daemon.owner();
        let session = owner.create_session(&site.repo());
        Self { site, daemon, owner, session }
    }

    /// Runs `clawd` and expects this exit code: stdout, stderr.
    fn run(&self, code: i32, args: &[&str]) -> (String, String) {
        let (got, out, err) = self.site.run(args);
        assert_eq!(got, Some(code), "clawd {args:?}\n{out}\n{err}");
        (out, err)
    }

    fn json(&self, args: &[&str]) -> Value {
        let (out, _) = self.run(0, &[args, &["--json"]].concat());
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{args:?}: {error}: {out}"))
    }

    fn status(&mut self) -> Value {
        self.owner.call("session.get", json!({"sessionId": self.session})).unwrap()["status"].take()
    }

    fn texts(&mut self) -> Vec<String> {
        let id = json!({"sessionId": self.session});
        let messages = self.owner.call("session.getMessages", id).unwrap();
        let texts = messages.as_array().unwrap().iter();
        texts.filter_map(|message| Some(message["content"].as_str()?.to_owned())).collect()
    }
}

/// No byte that a terminal would act on.
fn assert_k1(what: &str, text: &str) {
    for char in ['\u{1b}', '\u{7}', '\u{202e}', '\u{9b}'] {
        assert!(!text.contains(char), "{what} lets {char:?} through: {text:?}");
    }
}

#[test]
fn send_returns_when_the_message_is_accepted() {
    let mut desk = Desk::new();
    let session = desk.session.clone();
    let (out, err) = desk.run(0, &["send", &session[..6], "say", "all", "good"]);
    assert_eq!(out, "");
    assert!(err.contains("sent to session"), "{err}");
    desk.owner.wait_idle(&session);
    assert_eq!(desk.texts(), ["say all good", "all good"]);
    let message = desk.json(&["send", &session, "hang"]);
    assert_eq!(message["role"], "user");
    let (_, err) = desk.run(1, &["send", &session, "say more"]);
    assert!(err.contains("a turn is running"), "{err}");
}

#[test]
fn send_can_wait_for_the_answer() {
    let desk = Desk::new();
    let (out, err) = desk.run(0, &["send", "--wait", &desk.session, "say the answer"]);
    assert_eq!(out, "the answer\n");
    assert!(err.contains("done in"), "{err}");
    let (out, _) = desk.run(0, &["send", "--wait", "--json", &desk.session, "say again"]);
    let last: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!((&last["event"], &last["exit"]), (&json!("result"), &json!(0)));
    let (_, err) = desk.run(7, &["send", "--wait", &desk.session, "fail 401"]);
    assert!(err.contains("the turn failed"), "{err}");
    let (out, _) = desk.run(0, &["send", "--wait", &desk.session, &format!("say {EVIL}")]);
    assert_k1("send --wait", &out);
    assert!(out.contains(r"\u{1b}]0;owned"), "{out}");
}

/// A way to the daemon that breaks once: where the first message's acceptance would have come by.
fn break_once(desk: &Desk) -> Site {
    let site = Site::new();
    write_private(&site.token_path(), format!("{}\n", desk.site.token()).as_bytes());
    let listener = UnixListener::bind(site.data().join("clawd.sock")).unwrap();
    let there = desk.site.data().join("clawd.sock");
    std::thread::spawn(move || {
        let mut breaks = true;
        while let Ok((mut client, _)) = listener.accept() {
            let mut daemon = UnixStream::connect(&there).unwrap();
            let (mut from, mut to) = (client.try_clone().unwrap(), daemon.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            let mut piece = [0; 64 * 1024];
            while let Ok(length @ 1..) = daemon.read(&mut piece) {
                let text = String::from_utf8_lossy(&piece[..length]);
                if breaks && text.contains("clientMessageId") {
                    breaks = false;
                    break;
                }
                client.write_all(&piece[..length]).unwrap();
            }
            let _ = client.shutdown(Shutdown::Both);
        }
    });
    site
}

#[test]
fn a_message_is_one_message_also_when_its_acceptance_is_lost() {
    let mut desk = Desk::new();
    for (round, args) in [&["send"][..], &["send", "--wait"]].into_iter().enumerate() {
        let site = break_once(&desk);
        let text = format!("say round {round}");
        let (code, out, err) = site.run(&[args, &[&desk.session, &text]].concat());
        assert_eq!(code, Some(0), "{args:?}: {out}{err}");
        let session = desk.session.clone();
        desk.owner.wait_idle(&session);
        let told = desk.texts();
        assert_eq!(told.len(), 2 * (round + 1), "{args:?}: {told:?}");
        assert_eq!(told.last().unwrap(), &format!("round {round}"));
        if args.contains(&"--wait") {
            assert_eq!(out, format!("round {round}\n"), "{err}");
            assert!(err.contains("reconnecting"), "{err}");
        }
    }
}

#[test]
fn stop_with_a_session_ends_its_turn_and_not_the_daemon() {
    let mut desk = Desk::new();
    let session = desk.session.clone();
    let (_, err) = desk.run(0, &["stop", &session]);
    assert!(err.contains("no turn was running"), "{err}");
    desk.owner.prompt(&session, "hang").unwrap();
    let (_, err) = desk.run(0, &["stop", &session[..6]]);
    assert!(err.contains("ended the turn of session"), "{err}");
    assert_ne!(desk.status(), "running");
    desk.owner.prompt(&session, "hang").unwrap();
    let now = desk.json(&["stop", &session]);
    assert_eq!(now["id"], session.as_str());
    assert_ne!(now["status"], "running");
    // An empty variable in a script must not stop the daemon.
    desk.run(9, &["stop", ""]);
    assert_eq!(desk.owner.turn(&session, "say alive"), "alive");
    let (_, err) = desk.run(0, &["stop"]);
    assert!(err.contains("clawd has stopped"), "{err}");
}

#[test]
fn a_paused_session_takes_nothing_until_it_is_resumed() {
    let mut desk = Desk::new();
    let session = desk.session.clone();
    let (_, err) = desk.run(0, &["pause", &session]);
    assert!(err.contains("is paused"), "{err}");
    let (_, err) = desk.run(1, &["send", &session, "say no"]);
    assert!(err.contains("the session is paused"), "{err}");
    assert_eq!(desk.json(&["resume", &session])["status"], "idle");
    desk.owner.prompt(&session, "hang").unwrap();
    let (_, err) = desk.run(0, &["pause", &session]);
    assert!(err.contains("its turn goes on"), "{err}");
    desk.run(0, &["stop", &session]);
    assert_eq!(desk.json(&["pause", &session])["status"], "paused");
}

#[test]
fn open_prints_how_to_go_on_in_the_agents_own_program() {
    let mut desk = Desk::new();
    let session = desk.session.clone();
    let (_, err) = desk.run(1, &["open", &session]);
    assert!(err.contains("has not begun a conversation"), "{err}");
    desk.owner.turn(&session, "say begun");
    let (out, err) = desk.run(0, &["open", &session[..6]]);
    let told = desk.owner.call("session.get", json!({"sessionId": session})).unwrap();
    let conversation = told["agentSession"].as_str().expect("it can be resumed");
    let repo = desk.site.repo().display().to_string();
    assert_eq!(out, format!("cd {repo} && claude --resume {conversation}\n"));
    assert!(err.contains("send nothing to it here"), "{err}");
    let told = desk.json(&["open", &session]);
    assert_eq!(told["argv"], json!(["claude", "--resume", conversation]));
    desk.owner.prompt(&session, "hang").unwrap();
    let (out, err) = desk.run(1, &["open", &session]);
    assert!(out.is_empty() && err.contains("a turn is running"), "{out}{err}");
}

#[test]
fn an_ambiguous_beginning_names_the_candidates() {
    let mut desk = Desk::new();
    // Seventeen ids cannot all begin differently.
    let ids: Vec<String> = (0..17).map(|_| desk.owner.create_session(&desk.site.repo())).collect();
    let twice = ids
        .iter()
        .map(|id| &id[..1])
        .find(|first| ids.iter().filter(|id| id.starts_with(*first)).count() > 1);
    let first = twice.expect("sixteen digits").to_owned();
    for verb in ["send", "stop", "pause", "resume", "open"] {
        let text: &[&str] = if verb == "send" { &["x"] } else { &[] };
        let (_, err) = desk.run(9, &[&[verb, first.as_str()], text].concat());
        assert!(err.contains("could be any of"), "{verb}: {err}");
        assert!(ids.iter().filter(|id| err.contains(id.as_str())).count() > 1, "{verb}: {err}");
    }
}

#[test]
fn the_commands_of_sessions_say_what_is_wrong() {
    let desk = Desk::new();
    let id = desk.session.as_str();
    for (code, args, words) in [
        (2, &["send", id][..], "TEXT"),
        (2, &["send", id, " "], "the prompt is empty"),
        (9, &["send", "zzzz", "x"], "there is no session `zzzz`"),
        (2, &["attach", id], "attach is for people at a terminal"),
        (9, &["stop", "zzzz"], "there is no session `zzzz`"),
        (9, &["pause", "zzzz"], "there is no session `zzzz`"),
        (9, &["resume", "zzzz"], "there is no session `zzzz`"),
        (9, &["open", "zzzz"], "there is no session `zzzz`"),
        (2, &["pause"], "SESSION"),
        (2, &["open", id, "more"], "unexpected argument"),
    ] {
        let (_, err) = desk.run(code, args);
        assert!(err.contains(words), "{args:?}: {err}");
    }
    let Desk { site, daemon, .. } = desk;
    daemon.stop();
    for args in
        [&["send", "7f3a", "x"][..], &["stop", "7f3a"], &["pause", "7f3a"], &["open", "7f3a"]]
    {
        let (code, _, err) = site.run(args);
        assert_eq!(code, Some(6), "{args:?}: {err}");
        assert!(err.contains("clawd is not running"), "{args:?}: {err}");
    }
}
