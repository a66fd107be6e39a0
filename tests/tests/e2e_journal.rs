//! Coming back to the real daemon, over real sockets and its real disk: nothing is lost, and nothing comes twice.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clawd_protocol::access::token::Secret;
use clawd_protocol::client::{Bookmark, Client as Protocol, Happening, Trust};
use clawd_tests::daemon::{Client, Daemon, PATIENCE, Process, Site, wait_until};
use serde_json::{Value, json};

/// Chance that can be repeated: xorshift64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// What somebody knows of one session from events alone.
#[derive(Debug, Default, PartialEq)]
struct Story {
    messages: Vec<(String, Value, String, Value)>,
    calls: BTreeMap<String, (Value, Value, Value)>,
    status: Value,
}

impl Story {
    fn hear(&mut self, event: &str, params: &Value) {
        let id = |key: &str| params[key].as_str().unwrap_or_default().to_owned();
        match event {
            "session.messageCreated" => self.messages.push(as_told(&params["message"])),
            "session.messageUpdated" => {
                let (_, _, content, status) = self.message(&id("messageId"));
                *content = id("content");
                *status = params["status"].clone();
            }
            "session.messageDelta" => {
                let (_, _, content, _) = self.message(&id("messageId"));
                let offset = params["offset"].as_u64().expect("an offset");
                content.truncate(usize::try_from(offset).expect("a length"));
                content.push_str(params["text"].as_str().expect("a text"));
            }
            "session.toolCallCreated" => {
                let call = &params["toolCall"];
                let told = (call["name"].clone(), call["status"].clone(), call["output"].clone());
                self.calls.insert(call["id"].as_str().expect("an id").to_owned(), told);
            }
            "session.toolCallUpdated" => {
                let (_, status, output) =
                    self.calls.get_mut(&id("toolCallId")).expect("a known call");
                *status = params["status"].clone();
                *output = params["output"].clone();
            }
            "session.statusChanged" => self.status = params["status"].clone(),
            _ => {}
        }
    }

    fn message(&mut self, id: &str) -> &mut (String, Value, String, Value) {
        let found = self.messages.iter_mut().find(|message| message.0 == id);
        found.unwrap_or_else(|| panic!("{id} is updated before it was made"))
    }

    /// What the daemon says when it is asked.
    fn asked(client: &mut Client, session: &str) -> Self {
        let params = json!({"sessionId": session, "limit": 200});
        let messages = client.call("session.getMessages", params.clone()).expect("messages");
        let calls = client.call("session.toolCalls", params.clone()).expect("tool calls");
        let now = client.call("session.get", params).expect("the session");
        let calls = calls.as_array().expect("an array").iter().map(|call| {
            let id = call["id"].as_str().expect("an id").to_owned();
            (id, (call["name"].clone(), call["status"].clone(), call["output"].clone()))
        });
        Self {
            messages: messages.as_array().expect("an array").iter().map(as_told).collect(),
            calls: calls.collect(),
            status: now["status"].clone(),
        }
    }
}

fn as_told(message: &Value) -> (String, Value, String, Value) {
    let text = |key: &str| message[key].as_str().expect("a text").to_owned();
    (text("id"), message["role"].clone(), text("content"), message["status"].clone())
}

/// One who comes and goes.
#[derive(Default)]
struct Wanderer {
    bookmark: Option<Bookmark>,
    story: Story,
    /// The texts of the durable events, in the order heard.
    heard: Vec<String>,
    resets: usize,
}

impl Wanderer {
    /// Comes, listens until `is_enough` or the time is up, and goes without a word. How many messages came.
    fn visit(
        &mut self,
        daemon: &Daemon,
        wants_deltas: bool,
        until: Instant,
        is_enough: impl Fn(&Self) -> bool,
    ) -> usize {
        let Ok(mut client) = Client::tcp(daemon.port) else { return 0 };
        client.frames = Some(Vec::new());
        let token = Secret::new(daemon.token());
        let (mut protocol, opening) =
            Protocol::resuming(token, Trust::PeerVerified, self.bookmark.take());
        client.send(opening.expose());
        let mut count = 0;
        while let Ok(Some(_)) = client.next(until) {
            count += 1;
            let text = client.frames.as_mut().and_then(Vec::pop).expect("a text");
            match protocol.handle_text(&text).expect("it keeps to the protocol") {
                Happening::Ready(_) if wants_deltas => {
                    let params = json!({"deltas": true});
                    let (_, text) = protocol.call("events.subscribe", params).expect("a call");
                    client.send(&text);
                }
                Happening::Send(text) => client.send(text.expose()),
                Happening::Event { method, params } => self.hear(&method, params.get(), text),
                Happening::Refused(error) => panic!("{error:?}"),
                Happening::Ready(_) | Happening::Answer { .. } | Happening::Nothing => {}
            }
            self.bookmark = protocol.bookmark().cloned();
            if is_enough(self) {
                break;
            }
        }
        self.bookmark = protocol.bookmark().cloned();
        count
    }

    fn hear(&mut self, method: &str, params: &str, text: String) {
        let params: Value = serde_json::from_str(params).expect("JSON");
        self.resets += usize::from(method == "events.reset");
        self.story.hear(method, &params);
        if is_durable(method, &params) {
            self.heard.push(text);
        }
    }

    fn seq(&self) -> u64 {
        self.bookmark.as_ref().map_or(0, |bookmark| bookmark.seq)
    }
}

/// What is told again to those who missed it.
fn is_durable(method: &str, params: &Value) -> bool {
    match method {
        "daemon.ready" | "session.messageDelta" => false,
        "session.messageUpdated" => params["status"] != "streaming",
        _ => true,
    }
}

/// The durable events that a client has kept, as texts with sorted keys.
fn durable(client: &mut Client) -> Vec<Value> {
    let events = client.take_events().into_iter();
    events
        .filter(|it| is_durable(it["method"].as_str().unwrap_or_default(), &it["params"]))
        .collect()
}

const TURN: &str = "slow 2\nstream 40\nread /etc/hostname\ntool true\nstream 40\nsay the end";

/// Plays a turn that streams, uses tools and waits for leave.
fn play(client: &mut Client, session: &str) {
    client.prompt(session, TURN).expect("the prompt is taken");
    let asked = client.wait_event("tool.approvalRequested", |event| event["sessionId"] == session);
    let params = json!({"sessionId": session, "toolCallId": asked["toolCall"]["id"]});
    client.call("tool.approve", params).expect("approved");
    client.wait_idle(session);
}

#[test]
fn who_drops_its_connection_200_times_in_a_streaming_session_has_exactly_the_history() {
    let site = Site::new();
    let daemon = site.start();
    let (mut owner, mut witness) = (daemon.owner(), daemon.owner());
    let mut wanderer = Wanderer::default();
    let now = Instant::now() + PATIENCE;
    wanderer.visit(&daemon, false, now, |it| it.bookmark.is_some());
    let session = owner.create_session(&site.repo());
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut dice = Dice(0x5eed);
            let mut visits = 0;
            while visits < 200 {
                let stay = Duration::from_micros(dice.below(30_000));
                let enough = usize::try_from(dice.below(40)).expect("small");
                let before = wanderer.heard.len();
                let until = Instant::now() + stay;
                let count = wanderer.visit(&daemon, dice.below(2) == 0, until, |it| {
                    it.heard.len() >= before + enough
                });
                visits += usize::from(count > 0);
            }
            is_over.store(true, Ordering::Release);
        });
        while !is_over.load(Ordering::Acquire) {
            play(&mut owner, &session);
        }
    });
    let cursor = owner.call("events.subscribe", json!({})).expect("subscribed")["cursor"].as_u64();
    let until = Instant::now() + PATIENCE;
    wanderer.visit(&daemon, false, until, |it| Some(it.seq()) == cursor);
    assert_eq!(Some(wanderer.seq()), cursor, "it comes to the end");
    assert_eq!(wanderer.resets, 0);
    assert_eq!(wanderer.story, Story::asked(&mut owner, &session));
    witness.call("daemon.ping", json!({})).expect("a pong");
    let heard: Vec<Value> =
        wanderer.heard.iter().map(|text| serde_json::from_str(text).expect("JSON")).collect();
    assert_eq!(heard, durable(&mut witness), "the same events as one who never left");
}

#[test]
fn a_daemon_that_is_killed_again_and_again_loses_nothing_that_it_told() {
    let site = Site::new();
    let mut daemon = site.start();
    let session = daemon.owner().create_session(&site.repo());
    let mut wanderer = Wanderer { bookmark: Some(Bookmark::default()), ..Wanderer::default() };
    let mut dice = Dice(0xdead);
    // Nothing in it waits for leave: that would wait on in the next life, and the next prompt with it.
    let turn = "slow 2\nstream 40\nread /etc/hostname\nstream 40\nsay the end";
    for _ in 0..5 {
        let mut owner = daemon.owner();
        // The session may still be busy with its last end.
        wait_until("the prompt is taken", PATIENCE, || owner.prompt(&session, turn).is_ok());
        let stay = Duration::from_millis(20 + dice.below(200));
        wanderer.visit(&daemon, dice.below(2) == 0, Instant::now() + stay, |_| false);
        daemon.kill();
        daemon = site.start();
    }
    let mut owner = daemon.owner();
    let cursor = owner.call("events.subscribe", json!({})).expect("subscribed")["cursor"].as_u64();
    wanderer.visit(&daemon, false, Instant::now() + PATIENCE, |it| Some(it.seq()) >= cursor);
    assert_eq!(wanderer.resets, 0);
    let asked = Story::asked(&mut owner, &session);
    assert_eq!(wanderer.story, asked);
    assert_eq!(asked.status, "idle", "what died with a daemon is told to have ended");
    let seqs: Vec<u64> = wanderer.heard.iter().map(|text| seq_of(text)).collect();
    assert!(seqs.is_sorted_by(|a, b| a < b), "{seqs:?}");
}

fn seq_of(text: &str) -> u64 {
    let event: Value = serde_json::from_str(text).expect("JSON");
    let seq = event.get("seq").or_else(|| event["params"].get("seq"));
    seq.and_then(Value::as_u64).expect("a number")
}

// --- the command line -------------------------------------------------------------------------------------------

#[test]
fn run_goes_on_after_a_lost_connection() {
    let site = Site::new();
    let daemon = site.start();
    let mut owner = daemon.owner();
    let repo = site.repo();
    let prompt = "slow 10\nstream 100\nsay the end";
    let args = ["run", "-C", repo.to_str().expect("a path"), "--json", prompt];
    let mut run = Process::spawn(&mut site.command(&args));
    run.wait_for(|text| text.contains("streaming").then_some(())).expect("it streams");
    // Everybody who came with the old token is shut out in the middle of it.
    owner.call("daemon.rotateToken", json!({})).expect("rotated");
    let (status, output) = run.end();
    assert!(status.success(), "{output}");
    assert_eq!(output.matches("reconnecting (event ").count(), 1, "{output}");
    let last = output.lines().rfind(|line| line.contains("session.messageUpdated"));
    let last: Value = serde_json::from_str(last.expect("an update")).expect("JSON");
    assert_eq!(last["status"], "done");
    assert!(last["content"].as_str().expect("a text").ends_with("the end"), "{last}");
    let running = output.matches(r#""status":"running""#).count();
    assert_eq!(running, 1, "no event came twice: {output}");
}

/// `clawd tail` with its outputs in files.
struct Tail {
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Tail {
    fn start(site: &Site, args: &[&str]) -> Self {
        let file = |name: &str| site.home().join(name);
        let (out, err) = (file("tail.out"), file("tail.err"));
        let mut command = site.command(&[&["tail"], args].concat());
        command.stdout(File::create(&out).expect("a file"));
        command.stderr(File::create(&err).expect("a file"));
        Self { child: command.spawn().expect("clawd runs"), out, err }
    }

    fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.out).expect("a file");
        text.lines().map(str::to_owned).collect()
    }

    fn wait_for(&self, what: &str) {
        wait_until(what, PATIENCE, || self.lines().iter().any(|line| line.contains(what)));
    }

    fn errors(&self) -> String {
        fs::read_to_string(&self.err).expect("a file")
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn tail_goes_on_after_a_lost_connection_and_a_restart_of_the_daemon() {
    let site = Site::new();
    let daemon = site.start();
    let mut owner = daemon.owner();
    let tail = Tail::start(&site, &["--json"]);
    tail.wait_for("daemon.ready");
    let session = owner.create_session(&site.repo());
    owner.turn(&session, "say one");
    owner.call("daemon.rotateToken", json!({})).expect("rotated");
    let mut owner = daemon.owner();
    owner.turn(&session, "say two");
    // It is back before the next end, or both would be one reconnection to it.
    let cursor = owner.call("events.subscribe", json!({})).expect("subscribed")["cursor"].clone();
    tail.wait_for(&format!("\"seq\":{cursor}"));
    daemon.kill();
    let daemon = site.start();
    let mut owner = daemon.owner();
    owner.turn(&session, "say three");
    let cursor = owner.call("events.subscribe", json!({})).expect("subscribed")["cursor"].clone();
    tail.wait_for(&format!("\"seq\":{cursor}"));
    wait_until("the last event is shown", PATIENCE, || {
        tail.lines().last().is_some_and(|line| line.contains("\"idle\""))
    });
    let events: Vec<Value> =
        tail.lines().iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let is_kept = |it: &&Value| is_durable(it["event"].as_str().unwrap_or_default(), it);
    let shown: Vec<_> = events.iter().filter(is_kept).collect();
    let seqs: Vec<_> = shown.iter().map(|event| event["seq"].as_u64().expect("a number")).collect();
    assert!(seqs.is_sorted_by(|a, b| a < b), "each once and in order: {seqs:?}");
    let all: Vec<_> = (1..=cursor.as_u64().expect("a number")).collect();
    assert_eq!(seqs, all, "all of them");
    assert_eq!(tail.errors().matches("reconnecting (event ").count(), 2, "{}", tail.errors());
}

#[test]
fn tail_shows_people_one_session_from_where_they_say() {
    let site = Site::new();
    let daemon = site.start();
    let mut owner = daemon.owner();
    let (mine, other) = (owner.create_session(&site.repo()), owner.create_session(&site.repo()));
    owner.turn(&other, "say nothing of mine");
    owner.turn(&mine, "say hello\u{1b}[31m there");
    let tail = Tail::start(&site, &[&mine[..8], "--since", "0"]);
    tail.wait_for("idle");
    let lines = tail.lines();
    assert!(lines.iter().all(|line| line.contains(&mine[..8])), "{lines:?}");
    let text = lines.join("\n");
    assert!(
        text.contains("answer") && text.contains("hello") && !text.contains('\u{1b}'),
        "{text}"
    );
    assert_eq!(
        lines.len(),
        lines
            .iter()
            .map(|line| line.split(' ').next())
            .collect::<std::collections::BTreeSet<_>>()
            .len()
    );
    // A place that never was is said to be none.
    let lost = Tail::start(&site, &["--since", "1000000"]);
    wait_until("it says so", PATIENCE, || lost.errors().contains("not known any more"));
}

/// The first event that says from where on is told.
fn first_told(client: &mut Client) -> Value {
    let told = client.take_events();
    told.into_iter().find(|it| it["method"] != "daemon.ready").unwrap_or(Value::Null)
}

#[test]
fn a_place_in_a_database_that_is_gone_is_a_reset_and_a_place_in_this_one_is_not() {
    let site = Site::new();
    let daemon = site.start();
    let mut owner = daemon.owner();
    let session = owner.create_session(&site.repo());
    owner.turn(&session, "say one");
    let subscribed = owner.call("events.subscribe", json!({})).expect("subscribed");
    let (cursor, journal) = (subscribed["cursor"].clone(), subscribed["journal"].clone());
    assert!(daemon.stop().success());

    let daemon = site.start();
    let back = |daemon: &Daemon| {
        let mut owner = daemon.connect();
        let params = json!({"token": daemon.token(), "after": cursor, "journal": journal});
        owner.call("daemon.auth", params).expect("let in");
        owner.call("events.subscribe", json!({})).expect("the replay is over");
        owner
    };
    assert_ne!(first_told(&mut back(&daemon))["method"], "events.reset", "the same one");
    assert!(daemon.stop().success());

    for file in fs::read_dir(site.data()).expect("a directory") {
        let path = file.expect("an entry").path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("clawd.db")) {
            fs::remove_file(path).expect("removed");
        }
    }
    let daemon = site.start();
    let mut owner = daemon.owner();
    let other = owner.create_session(&site.repo());
    // Until the numbers of the new journal have passed the old place: a number alone says nothing.
    let mut now = json!(0);
    while now.as_u64() <= cursor.as_u64() {
        owner.turn(&other, "say more");
        now = owner.call("events.subscribe", json!({})).expect("subscribed")["cursor"].clone();
    }
    let mut owner = back(&daemon);
    let told = first_told(&mut owner);
    assert_eq!(
        (&told["method"], &told["params"]["cursor"]),
        (&json!("events.reset"), &now),
        "{told}"
    );
    assert_eq!(owner.turn(&other, "say live"), "live");
}

#[test]
fn a_message_sent_again_over_a_new_connection_and_after_kill_9_is_one_message() {
    let site = Site::new();
    let mut daemon = site.start();
    let session = daemon.owner().create_session(&site.repo());
    let params = json!({"sessionId": session, "content": "say once", "clientMessageId": "c1"});
    let mut first = daemon.owner();
    let id = first.call("session.sendMessage", params.clone()).expect("taken")["id"].clone();
    first.wait_idle(&session);
    drop(first);
    for _ in 0..2 {
        let again = daemon.owner().call("session.sendMessage", params.clone()).expect("the same");
        assert_eq!(again["id"], id);
        daemon.kill();
        daemon = site.start();
    }
    let params = json!({"sessionId": session});
    let history = daemon.owner().call("session.getMessages", params).expect("a history");
    assert_eq!(history.as_array().map(Vec::len), Some(2), "{history}");
}
