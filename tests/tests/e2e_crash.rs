//! `kill -9` at moments nobody chose, and what is still true afterwards.

use std::collections::BTreeMap;
use std::fs;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clawd_tests::daemon::{Client, Daemon, Failure, PATIENCE, Site, wait_until};
use serde_json::json;

/// What the daemon has said to a client, and cannot take back.
enum Said {
    Paired {
        id: String,
        token: String,
        pin: String,
    },
    /// The call went out; what came of it is not known yet.
    Revoking {
        id: String,
    },
    Revoked {
        id: String,
    },
    Prompted {
        session: String,
        message: String,
    },
}

/// A device as its clients know it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Known {
    In,
    Either,
    Out,
}

/// Pairs, revokes and prompts until the daemon dies.
fn work(
    daemon_port: u16,
    token: &str,
    site_repo: &std::path::Path,
    say: &Sender<Said>,
) -> Option<()> {
    let mut owner = Client::tcp(daemon_port).ok()?;
    owner.auth(token).ok()?;
    let params = json!({"repoPath": site_repo, "provider": "claude"});
    let session = owner.call("session.create", params).ok()?["id"].as_str()?.to_owned();
    for round in 0.. {
        let window = owner.call("daemon.pairPin", json!({"confirm": false})).ok()?;
        let pin = window["pin"].as_str()?.to_owned();
        let mut phone = Client::tcp(daemon_port).ok()?;
        let params = json!({"pin": pin, "name": "phone", "platform": "ios"});
        let device = phone.call("device.pair", params).ok()?;
        let id = device["device_id"].as_str()?.to_owned();
        let token = device["device_token"].as_str()?.to_owned();
        let _ = say.send(Said::Paired { id: id.clone(), token, pin });
        if round % 2 == 0 {
            let _ = say.send(Said::Revoking { id: id.clone() });
            owner.call("device.revoke", json!({"id": id})).ok()?;
            let _ = say.send(Said::Revoked { id });
        }
        if let Ok(message) = owner.prompt(&session, "stream 20") {
            let message = message["id"].as_str()?.to_owned();
            let _ = say.send(Said::Prompted { session: session.clone(), message });
        }
    }
    None
}

/// What all clients together know.
#[derive(Default)]
struct Memory {
    devices: BTreeMap<String, (String, Known)>,
    pins: Vec<String>,
    messages: Vec<(String, String)>,
}

impl Memory {
    fn hear(&mut self, said: &Receiver<Said>) {
        for said in said.try_iter() {
            match said {
                Said::Paired { id, token, pin } => {
                    self.devices.insert(id, (token, Known::In));
                    self.pins.push(pin);
                }
                Said::Revoking { id } => self.know(&id, Known::Either),
                Said::Revoked { id } => self.know(&id, Known::Out),
                Said::Prompted { session, message } => self.messages.push((session, message)),
            }
        }
    }

    fn know(&mut self, id: &str, known: Known) {
        self.devices.get_mut(id).expect("it was paired").1 = known;
    }

    /// Compares all that is known with a daemon that was started after the crash.
    fn check(&mut self, daemon: &Daemon, token: &str) {
        let mut owner = daemon.connect_unix();
        owner.auth(token).expect("the owner's token survives");
        for (id, (token, known)) in &mut self.devices {
            let auth = daemon.connect_unix().auth(token);
            match (&auth, *known) {
                (Ok(auth), Known::In | Known::Either) => {
                    assert_eq!(auth["deviceId"], **id);
                    *known = Known::In;
                }
                (Err(Failure::Refused { code: -32004, .. }), Known::Out | Known::Either) => {
                    *known = Known::Out;
                }
                _ => panic!("device {id} is {known:?} to its clients, and now: {auth:?}"),
            }
        }
        for pin in self.pins.drain(..) {
            let params = json!({"pin": pin, "name": "late", "platform": "ios"});
            let again = daemon.connect_unix().call("device.pair", params);
            assert_eq!(again.unwrap_err().code(), Some(-32021), "a PIN works twice");
        }
        for (session, message) in self.messages.drain(..) {
            let page = json!({"sessionId": session, "limit": 200});
            let messages = owner.call("session.getMessages", page).expect("the session is kept");
            assert!(messages.to_string().contains(&message), "an accepted prompt is lost");
            let status = owner.call("session.get", json!({"sessionId": session})).unwrap();
            assert_ne!(status["status"], "running", "nothing runs after a restart");
        }
    }
}

/// Numbers that nobody chose, but that can be had again: xorshift (Marsaglia 2003).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// `CLAWD_KILLS` says how often (20), `CLAWD_SEED` repeats a run's moments.
#[test]
fn j2_killed_at_any_moment_it_keeps_what_it_said() {
    let kills = from_env("CLAWD_KILLS", 20);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    let seed = from_env("CLAWD_SEED", u64::try_from(now % 1_000_000_007).unwrap());
    let mut dice = Dice(seed | 1);
    let site = Site::new();
    let mut daemon = site.start();
    let token = site.token();
    let mut memory = Memory::default();
    let mut paired = 0;
    for kill in 0..kills {
        let (say, said) = channel();
        let (port, repo) = (daemon.port, site.repo());
        let after = Duration::from_micros(20_000 + dice.below(180_000));
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| work(port, &token, &repo, &say));
            std::thread::sleep(after);
            daemon.process.signal(rustix::process::Signal::KILL);
            worker
                .join()
                .unwrap_or_else(|_| panic!("kill {kill} after {after:?}, CLAWD_SEED={seed}"));
        });
        daemon.kill();
        memory.hear(&said);
        paired = paired.max(memory.devices.len());
        daemon = site.start();
        assert_eq!(site.token(), token);
        memory.check(&daemon, &token);
        // Tables have their limits; what is out has been checked.
        memory.devices.retain(|_, (_, known)| *known == Known::In);
        let mut owner = daemon.connect_unix();
        owner.auth(&token).unwrap();
        for (id, (_, known)) in &mut memory.devices {
            owner.call("device.revoke", json!({"id": id})).unwrap();
            *known = Known::Out;
        }
    }
    assert!(paired > 0, "no run came far enough to prove anything (CLAWD_SEED={seed})");
}

/// The ids of processes whose arguments contain `mark`.
fn with_argument(mark: &str) -> Vec<u32> {
    let is_ours = |pid: &u32| {
        let args = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        args.windows(mark.len()).any(|part| part == mark.as_bytes())
    };
    let all = fs::read_dir("/proc").unwrap();
    let pids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(is_ours).collect()
}

#[test]
fn i4_no_descendant_survives_a_killed_daemon_by_five_seconds() {
    let site = Site::new();
    let daemon = site.start();
    let mut owner = daemon.owner();
    let session = owner.create_session(&site.repo());
    // A tool in a session of its own, which signals to the agent's process group do not reach.
    let mark = format!("31536{:03}", std::process::id() % 1000);
    owner
        .prompt(&session, &format!("tool setsid sleep {mark} & setsid sleep {mark}; true"))
        .unwrap();
    let asked =
        owner.wait_event("session.toolCallCreated", |e| e["toolCall"]["status"] == "pending");
    let ids = json!({"sessionId": session, "toolCallId": asked["toolCall"]["id"]});
    owner.call("tool.approve", ids).unwrap();
    let sleep = format!("sleep\0{mark}");
    wait_until("the tool runs", PATIENCE, || with_argument(&sleep).len() >= 2);
    let other = owner.create_session(&site.repo());
    owner.prompt(&other, "exit-never").unwrap();
    let family = descendants(daemon.process.pid());
    assert!(family.len() >= 4, "daemon, guards and agents: {family:?}");
    daemon.kill();
    let is_gone = |pid: &u32| match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')),
        Err(_) => true,
    };
    wait_until("all are gone", Duration::from_secs(5), || {
        family.iter().all(is_gone) && with_argument(&sleep).is_empty()
    });
}

/// All that a process has started, and what those have, itself not included.
fn descendants(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let ids: Vec<u32> = children
        .flat_map(|line| {
            line.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<_>>()
        })
        .collect();
    ids.iter().flat_map(|id| std::iter::once(*id).chain(descendants(*id))).collect()
}

#[test]
fn i4_cancelling_ends_the_tool_that_runs() {
    let site = Site::new();
    let daemon = site.start();
    let mut owner = daemon.owner();
    let session = owner.create_session(&site.repo());
    let mark = format!("31537{:03}", std::process::id() % 1000);
    owner.prompt(&session, &format!("tool setsid sleep {mark}; true")).unwrap();
    let asked =
        owner.wait_event("session.toolCallCreated", |e| e["toolCall"]["status"] == "pending");
    let ids = json!({"sessionId": session, "toolCallId": asked["toolCall"]["id"]});
    owner.call("tool.approve", ids).unwrap();
    let sleep = format!("sleep\0{mark}");
    wait_until("the tool runs", PATIENCE, || !with_argument(&sleep).is_empty());
    owner.call("session.delete", json!({"sessionId": session})).unwrap();
    wait_until("the tool is gone", Duration::from_secs(10), || with_argument(&sleep).is_empty());
}

#[test]
fn h1_a_tool_that_waited_when_the_daemon_died_waits_on_and_runs_only_if_allowed() {
    for decision in ["deny", "grant"] {
        let site = Site::new();
        let daemon = site.start();
        let mut owner = daemon.owner();
        let session = owner.create_session(&site.repo());
        let file = site.repo().join("effect");
        owner.prompt(&session, &format!("tool touch {}", file.display())).unwrap();
        let asked =
            owner.wait_event("tool.approvalRequested", |it| it["sessionId"] == session.as_str());
        let id = &asked["approval_id"];
        daemon.kill();
        let daemon = site.start();
        let mut owner = daemon.owner();
        let listed = owner.call("approval.list", json!({})).unwrap();
        assert_eq!(listed["approvals"][0]["approval_id"], *id, "{listed}");
        let view = owner.call("session.get", json!({"sessionId": session})).unwrap();
        assert_eq!(view["waitingFor"], "approval");
        assert!(!file.exists());
        let params = json!({"approval_id": id, "decision": decision});
        let answer = owner.call("approval.respond", params).unwrap();
        assert_eq!(answer["decision"], decision);
        let is_granted = decision == "grant";
        if is_granted {
            // The agent was resumed, told, and has asked for the very same again.
            owner.wait_event("session.statusChanged", |it| it["status"] == "completed");
            let calls = owner.call("session.toolCalls", json!({"sessionId": session})).unwrap();
            assert_eq!(
                (&calls[0]["status"], &calls[1]["status"]),
                (&json!("error"), &json!("done"))
            );
            owner.wait_idle(&session);
        }
        assert_eq!(file.exists(), is_granted);
        let listed = owner.call("approval.list", json!({})).unwrap();
        assert_eq!(listed["approvals"], json!([]));
        assert_eq!(owner.turn(&session, "say alive"), "alive");
    }
}

#[test]
fn e4_a_revocation_that_was_answered_survives_kill_9_at_once() {
    let site = Site::new();
    let mut daemon = site.start();
    for _ in 0..5 {
        let mut owner = daemon.owner();
        let (id, token) = daemon.connect().pair(&mut owner, "full");
        owner.call("device.revoke", json!({"id": id})).unwrap();
        daemon.kill();
        daemon = site.start();
        let began = Instant::now();
        let refused = daemon.connect_unix().auth(&token).unwrap_err();
        assert_eq!(refused.code(), Some(-32004));
        assert!(began.elapsed() < PATIENCE);
    }
}

#[test]
fn j3_a_database_from_before_the_revocation_revives_nobody() {
    let site = Site::new();
    let daemon = site.start();
    let mut owner = daemon.owner();
    let (id, token) = daemon.connect().pair(&mut owner, "full");
    assert!(daemon.stop().success());
    let databases: Vec<_> = fs::read_dir(site.data())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"SQLite format 3")))
        .map(|path| (fs::read(&path).unwrap(), path))
        .collect();
    assert_eq!(databases.len(), 1);
    let daemon = site.start();
    daemon.connect_unix().auth(&token).expect("still in");
    daemon.owner().call("device.revoke", json!({"id": id})).unwrap();
    assert!(daemon.stop().success());
    for (bytes, path) in databases {
        for side in ["-wal", "-shm"] {
            let _ = fs::remove_file(format!("{}{side}", path.display()));
        }
        fs::write(&path, bytes).unwrap();
    }
    let daemon = site.start();
    assert_eq!(daemon.connect_unix().auth(&token).unwrap_err().code(), Some(-32004));
}
