//! `clawd approvals`, `approve` and `deny`, without a terminal and on one.

use std::path::PathBuf;

use clawd_tests::daemon::{Client, Daemon, Process, Session, Site, Terminal, skip};
use rustix::process::Signal;
use serde_json::{Value, json};

/// The end of the question; what is typed before it is there does not count.
const ASKED: &str = "(Enter alone denies): ";
/// What a model might say to a terminal.
const EVIL: &str = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{202e}\u{9b}31m";

/// A daemon, a session in it, and the file that its agent wants to make.
struct Desk {
    site: Site,
    daemon: Daemon,
    owner: Client,
    session: String,
}

impl Desk {
    fn new() -> Self {
        let mut site = Site::new();
        site.env.push(("NO_COLOR".to_owned(), "1".to_owned()));
        let daemon = site.start();
        let mut owner = daemon.owner();
        let session = owner.create_session(&site.repo());
        Self { site, daemon, owner, session }
    }

    fn mark(&self) -> PathBuf {
        self.site.repo().join("mark")
    }

    /// The agent asks whether it may make the mark; the id of that.
    fn ask(&mut self) -> String {
        let command = format!("touch {}", self.mark().display());
        self.ask_to(&command)
    }

    fn ask_to(&mut self, command: &str) -> String {
        let session = self.session.clone();
        self.ask_in(&session, command)
    }

    fn ask_in(&mut self, session: &str, command: &str) -> String {
        self.owner.prompt(session, &format!("tool {command}")).expect("taken");
        let asked =
            self.owner.wait_event("tool.approvalRequested", |it| it["sessionId"] == session);
        asked["approval_id"].as_str().expect("an id").to_owned()
    }

    /// Runs `clawd` and expects this exit code: stdout, stderr.
    fn run(&self, code: i32, args: &[&str]) -> (String, String) {
        let (got, out, err) = self.site.run(args);
        assert_eq!(got, Some(code), "clawd {args:?}\n{out}\n{err}");
        (out, err)
    }

    fn wait_idle(&mut self) {
        let session = self.session.clone();
        self.owner.wait_idle(&session);
    }

    /// `clawd` on a terminal; nothing where there is no `setsid`.
    fn at_terminal(&self, test: &str, args: &[&str]) -> Option<Session> {
        let terminal = Terminal::open(100, 50);
        if terminal.is_none() {
            skip(test, "there is no setsid of util-linux");
        }
        terminal.map(|terminal| terminal.run(&self.site.command(args)))
    }
}

fn parsed(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// No character that a terminal would act on, or that is not seen.
fn assert_k1(what: &str, text: &str) {
    for char in ['\u{1b}', '\u{7}', '\u{202e}', '\u{9b}'] {
        assert!(!text.contains(char), "{what} lets {char:?} through: {text:?}");
    }
}

#[test]
fn what_waits_is_listed_and_can_be_allowed() {
    let mut desk = Desk::new();
    let (out, err) = desk.run(0, &["approvals"]);
    assert!(out.is_empty() && err.contains("nothing waits"), "{out}{err}");
    assert_eq!(desk.run(0, &["approvals", "--json"]).0, "[]\n");
    let id = desk.ask();
    let (out, _) = desk.run(0, &["approvals"]);
    let fields: Vec<&str> = out.trim_end().split('\t').collect();
    assert_eq!((fields[0], fields[1], fields[3]), (id.as_str(), desk.session.as_str(), "Bash"));
    assert!(fields[4].starts_with("touch /"), "{out}");
    assert_eq!((fields[5], fields.len()), ("high", 8), "{out}");
    let listed = parsed(&desk.run(0, &["approvals", "--json=approval_id,input"]).0);
    assert_eq!(listed[0]["approval_id"], id.as_str());
    assert!(listed[0]["input"]["command"].as_str().unwrap().starts_with("touch"), "{listed}");
    assert!(!desk.mark().exists());
    let (_, err) = desk.run(0, &["approve", &id[..6], "--yes"]);
    assert!(err.contains("allowed once (delivered in "), "{err}");
    desk.wait_idle();
    assert!(desk.mark().exists());
}

#[test]
fn k2_without_a_terminal_only_yes_in_so_many_words_allows() {
    let mut desk = Desk::new();
    let id = desk.ask();
    let (_, err) = desk.run(2, &["approve", &id]);
    assert!(err.contains("no terminal to ask on") && err.contains("--yes"), "{err}");
    let listed = parsed(&desk.run(0, &["approvals", "--json"]).0);
    assert_eq!(listed.as_array().unwrap().len(), 1, "it waits still: {listed}");
    assert!(!desk.mark().exists());
}

#[test]
fn allowed_for_the_session_is_not_asked_again() {
    let mut desk = Desk::new();
    let id = desk.ask();
    let told = parsed(&desk.run(0, &["approve", &id, "--session", "--yes", "--json"]).0);
    assert_eq!((&told["kind"], &told["approval_id"]), (&json!("allow_session"), &json!(id)));
    assert!(told["deliveredMs"].is_u64(), "{told}");
    desk.wait_idle();
    std::fs::remove_file(desk.mark()).unwrap();
    let command = format!("tool touch {}", desk.mark().display());
    let session = desk.session.clone();
    desk.owner.turn(&session, &command);
    assert!(desk.mark().exists());
}

#[test]
fn what_is_denied_does_not_run_and_the_agent_hears_why() {
    let mut desk = Desk::new();
    let id = desk.ask();
    let (_, err) = desk.run(0, &["deny", &id[..8], "-m", "use the staging one"]);
    assert!(err.contains("denied") && err.contains("use the staging one"), "{err}");
    desk.wait_idle();
    assert!(!desk.mark().exists());
    let calls = desk.owner.call("session.toolCalls", json!({"sessionId": desk.session})).unwrap();
    let output = calls[0]["output"].as_str().unwrap();
    assert!(output.contains("use the staging one"), "{calls}");
}

#[test]
fn the_first_decision_holds_and_the_second_hears_of_it() {
    let mut desk = Desk::new();
    let id = desk.ask();
    desk.run(0, &["deny", &id]);
    desk.wait_idle();
    let short = &id[..8];
    for args in [&["approve", &id[..6], "--yes"][..], &["deny", id.as_str()]] {
        let (_, err) = desk.run(9, args);
        assert!(err.contains(&format!("{short} was denied ")), "{err}");
        assert!(err.contains(" by the owner"), "{err}");
    }
    let (_, err) = desk.run(9, &["approve", &id, "--yes", "--json"]);
    let error = &parsed(&err)["error"];
    assert_eq!(error["code"], "already_decided");
    assert_eq!(
        (&error["details"]["kind"], &error["details"]["by"]),
        (&json!("deny"), &json!("owner"))
    );
    assert!(!desk.mark().exists());
}

#[test]
fn a_device_that_decided_is_called_by_its_name() {
    let mut desk = Desk::new();
    let mut phone = desk.daemon.connect();
    let window =
        desk.owner.call("daemon.pairPin", json!({"role": "approve", "confirm": false})).unwrap();
    let params = json!({"pin": window["pin"], "name": "Ana's phone", "platform": "ios"});
    phone.call("device.pair", params).expect("paired");
    let id = desk.ask();
    let params = json!({"approval_id": id, "decision": "deny"});
    phone.call("approval.respond", params).expect("decided");
    desk.wait_idle();
    let (_, err) = desk.run(9, &["approve", &id, "--yes"]);
    assert!(err.contains("by \"Ana's phone\""), "{err}");
}

#[test]
fn unknown_and_ambiguous_ids_are_named() {
    let mut desk = Desk::new();
    let (_, err) = desk.run(9, &["approve", "zzzz", "--yes"]);
    assert!(
        err.contains("there is no approval `zzzz`") && err.contains("clawd approvals"),
        "{err}"
    );
    desk.run(9, &["deny", ""]);
    desk.run(2, &["approve"]);
    desk.run(2, &["deny", "a", "b"]);
    // As many as it takes until two begin alike.
    let mut ids: Vec<String> = Vec::new();
    let first = loop {
        let session = desk.owner.create_session(&desk.site.repo());
        let id = desk.ask_in(&session, "true");
        if ids.iter().any(|other| other[..1] == id[..1]) {
            break id[..1].to_owned();
        }
        ids.push(id);
        // More agents the daemon would not run; that sixteen ids all begin differently is one chance in a million.
        assert!(ids.len() < 16, "{ids:?}");
    };
    let (_, err) = desk.run(9, &["approve", &first, "--yes"]);
    assert!(err.contains("could be any of") && err.contains("Bash true"), "{err}");
}

#[test]
fn no_daemon_is_said_at_once() {
    let Desk { site, daemon, .. } = Desk::new();
    daemon.stop();
    for args in [&["approvals"][..], &["approvals", "--watch"], &["approve", "a"], &["deny", "a"]] {
        let (code, _, err) = site.run(args);
        assert_eq!(code, Some(6), "{args:?}: {err}");
        assert!(err.contains("clawd is not running"), "{args:?}: {err}");
    }
}

#[test]
fn watching_tells_what_comes_and_how_it_was_decided() {
    let mut desk = Desk::new();
    let mut people = Process::spawn(&mut desk.site.command(&["approvals", "--watch"]));
    let mut program = Process::spawn(&mut desk.site.command(&["approvals", "--watch", "--json"]));
    people.wait_for(|all| all.contains("nothing waits").then_some(())).expect("it listens");
    let id = desk.ask_to(&format!("true {EVIL}"));
    let short = id[..8].to_owned();
    people.wait_for(|all| all.contains(&short).then_some(())).expect("told");
    desk.run(0, &["deny", &id]);
    let denied = format!("{short} denied by the owner");
    people.wait_for(|all| all.contains(&denied).then_some(())).expect("told");
    program.wait_for(|all| all.contains("\"resolved\"").then_some(())).expect("told");
    let output = program.output();
    let lines: Vec<Value> =
        output.lines().filter(|line| line.starts_with('{')).map(parsed).collect();
    assert_eq!(
        (&lines[0]["event"], &lines[0]["approval"]["approval_id"]),
        (&json!("requested"), &json!(id))
    );
    assert_eq!((&lines[1]["event"], &lines[1]["kind"]), (&json!("resolved"), &json!("deny")));
    assert_k1("approvals --watch", &people.output());
    assert_k1("approvals --watch --json", &output);
    people.signal(Signal::INT);
    assert_eq!(people.wait().code(), Some(130));
}

#[test]
fn watching_goes_on_after_a_restart_and_tells_what_was_decided_meanwhile() {
    let mut desk = Desk::new();
    let mut watching = Process::spawn(&mut desk.site.command(&["approvals", "--watch"]));
    watching.wait_for(|all| all.contains("nothing waits").then_some(())).expect("it listens");
    let first = desk.ask();
    let told = format!("{}  ", &first[..8]);
    watching.wait_for(|all| all.contains(&told).then_some(())).expect("told");
    watching.signal(Signal::STOP);
    desk.run(0, &["deny", &first]);
    desk.wait_idle();
    let second = desk.ask();
    desk.daemon.kill();
    desk.daemon = desk.site.start();
    watching.signal(Signal::CONT);
    for told in [format!("{} denied by the owner", &first[..8]), format!("{}  ", &second[..8])] {
        watching.wait_for(|all| all.contains(&told).then_some(())).expect("told");
    }
    desk.run(0, &["deny", &second]);
    let denied = format!("{} denied by the owner", &second[..8]);
    watching.wait_for(|all| all.contains(&denied).then_some(())).expect("told");
    let output = watching.output();
    assert!(output.contains("reconnecting (event "), "{output}");
    for id in [&first, &second] {
        assert_eq!(output.matches(&id[..8]).count(), 2, "asked and decided, once each: {output}");
    }
}

#[test]
fn k2_approve_shows_the_call_and_takes_an_explicit_yes() {
    let mut desk = Desk::new();
    let id = desk.ask();
    let Some(mut shown) = desk.at_terminal("k2_approve_shows", &["approve", &id[..6]]) else {
        return;
    };
    shown.wait_for(ASKED);
    assert!(!desk.mark().exists());
    shown.press("yes\n");
    shown.wait_for("only one of these letters is an answer");
    shown.process.wait_for(|all| (all.matches(ASKED).count() == 2).then_some(())).expect("again");
    shown.press("y\n");
    let (code, output) = shown.end();
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("command: touch /"), "{output}");
    assert!(output.contains("allowed once (delivered in"), "{output}");
    desk.wait_idle();
    assert!(desk.mark().exists());
}

#[test]
fn k2_approve_denies_where_there_is_no_yes() {
    for key in ["\n", "n\n", "\x04"] {
        let mut desk = Desk::new();
        let id = desk.ask();
        let Some(mut shown) = desk.at_terminal("k2_approve_denies", &["approve", &id]) else {
            return;
        };
        shown.wait_for(ASKED);
        shown.press(key);
        let (code, output) = shown.end();
        assert_eq!(code, Some(7), "{output}");
        desk.wait_idle();
        assert!(!desk.mark().exists(), "{output}");
    }
}

#[test]
fn k2_for_the_session_is_said_with_its_own_letter() {
    let mut desk = Desk::new();
    let id = desk.ask();
    let args = ["approve", id.as_str(), "--session"];
    let Some(mut shown) = desk.at_terminal("k2_for_the_session", &args) else { return };
    shown.wait_for(ASKED);
    assert!(!shown.process.output().contains("[y]"), "{}", shown.process.output());
    shown.press("s\n");
    let (code, output) = shown.end();
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("allowed for the session"), "{output}");
}

#[test]
fn h4_a_long_call_is_opened_before_it_can_be_allowed() {
    let mut desk = Desk::new();
    let id = desk.ask_to(&format!("true {EVIL} {}Z", "x".repeat(6000)));
    let Some(mut shown) = desk.at_terminal("h4_a_long_call", &["approve", &id]) else { return };
    shown.wait_for(ASKED);
    assert!(shown.process.output().contains("more bytes  [?] show them"));
    assert!(!shown.process.output().contains('Z'));
    shown.press("y\n");
    shown.wait_for("only one of these letters is an answer");
    shown.process.wait_for(|all| (all.matches(ASKED).count() == 2).then_some(())).expect("again");
    shown.press("?\n");
    shown.wait_for("Z");
    shown.process.wait_for(|all| (all.matches(ASKED).count() == 3).then_some(())).expect("again");
    shown.press("n\n");
    let (code, output) = shown.end();
    assert_eq!(code, Some(7), "{output}");
    assert_k1("approve", &output);
}

#[test]
fn a_decision_made_elsewhere_ends_the_question() {
    let mut desk = Desk::new();
    let id = desk.ask();
    let Some(mut shown) = desk.at_terminal("a_decision_made_elsewhere", &["approve", &id]) else {
        return;
    };
    shown.wait_for(ASKED);
    desk.run(0, &["deny", &id]);
    let (code, output) = shown.end();
    assert_eq!(code, Some(9), "{output}");
    assert!(output.contains("this was decided elsewhere"), "{output}");
    assert!(output.contains("was denied "), "{output}");
}

#[test]
fn k1_the_table_shows_what_models_say_and_does_not_obey_it() {
    let mut desk = Desk::new();
    desk.ask_to(&format!("true {EVIL}"));
    let (out, _) = desk.run(0, &["approvals"]);
    assert!(out.contains(r"\u{1b}]0;owned"), "{out}");
    assert_k1("approvals", &out);
    let (out, _) = desk.run(0, &["approvals", "--json"]);
    assert_k1("approvals --json", &out);
    let Some(shown) = desk.at_terminal("k1_the_table", &["approvals"]) else { return };
    let (code, output) = shown.end();
    assert_eq!(code, Some(0));
    assert!(output.contains("EXPIRES") && output.contains("high"), "{output}");
    assert_k1("approvals on a terminal", &output);
}
