//! The audit log of the real daemon, and `clawd audit`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use clawd_tests::daemon::{Daemon, Failure, Site};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::{Value, json};

fn log(site: &Site) -> PathBuf {
    site.data().join("audit.log")
}

fn lines(site: &Site) -> Vec<String> {
    fs::read_to_string(log(site)).expect("a log").lines().map(str::to_owned).collect()
}

fn put(site: &Site, lines: &[String]) {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(log(site), text).expect("written");
}

/// A daemon that lived, issued some PINs, and ended.
fn lived(site: &Site) {
    let mut daemon = site.start();
    let mut owner = daemon.owner();
    for _ in 0..4 {
        owner.call("daemon.pairPin", json!({})).expect("a PIN");
    }
    owner.call("daemon.shutdown", json!({})).expect("told to end");
    daemon.process.wait();
}

#[test]
fn h8_the_log_is_private_and_proves_itself() {
    let site = Site::new();
    assert_eq!(site.run(&["audit", "verify"]).0, Some(0), "nothing was written, nothing is wrong");
    lived(&site);
    let mode = fs::metadata(log(&site)).expect("a log").permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    let (code, out, err) = site.run(&["audit", "verify"]);
    let last: Value = serde_json::from_str(lines(&site).last().expect("lines")).expect("JSON");
    assert_eq!(code, Some(0), "{err}");
    let hash = last["hash"].as_str().expect("a hash");
    assert_eq!(out, format!("{} {hash}\n", last["n"]));
    let (_, out, _) = site.run(&["audit", "verify", "--json"]);
    let report: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((&report["count"], &report["hash"]), (&json!(6), &last["hash"]));
    let (_, out, _) = site.run(&["audit", "export"]);
    assert_eq!(out.lines().collect::<Vec<_>>(), lines(&site));
    let (_, out, _) = site.run(&["audit", "list", "-n", "2"]);
    let kinds: Vec<_> = out.lines().map(|line| line.split('\t').nth(2).expect("a kind")).collect();
    assert_eq!(kinds, ["pairing_opened", "stopped"]);
    let (_, out, _) = site.run(&["audit", "list", "--json", "-n", "1"]);
    let records: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(records, json!([last]));
    assert_eq!(site.run(&["audit", "list", "--session", "7f3a"]).0, Some(2));
}

#[test]
fn h8_verify_names_an_edited_a_removed_and_a_moved_line() {
    let site = Site::new();
    lived(&site);
    let good = lines(&site);
    let told = |lines: &[String]| {
        put(&site, lines);
        let (code, out, err) = site.run(&["audit", "verify"]);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
        err
    };
    let mut bad = good.clone();
    bad[2] = bad[2].replace("owner", "other");
    let err = told(&bad);
    assert!(err.contains("audit.log:3: this line was edited"), "{err}");
    let mut bad = good.clone();
    bad.remove(2);
    let err = told(&bad);
    assert!(err.contains("audit.log:3: record 3 was removed before this line"), "{err}");
    let mut bad = good.clone();
    bad.swap(2, 3);
    let err = told(&bad);
    assert!(err.contains("audit.log:4: this line was moved: record 3"), "{err}");
    let err = told(&good[..4]);
    assert!(err.contains("audit.log:4: the end was cut off: records 5 to 6"), "{err}");
    let (_, _, err) = site.run(&["audit", "verify", "--json"]);
    let error: Value = serde_json::from_str(&err).expect("JSON");
    assert_eq!(error["error"]["code"], "audit_changed");
    assert_eq!(error["error"]["details"]["findings"][0]["line"], 4);
    // The next life says so, and does not mend it.
    lived(&site);
    let (code, _, err) = site.run(&["audit", "verify"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("records 5 to 6 were removed"), "{err}");
    assert!(fs::read_to_string(log(&site)).expect("a log").contains("\"kind\":\"damaged\""));
}

#[test]
fn k1_what_others_wrote_does_not_act_on_a_terminal() {
    let site = Site::new();
    lived(&site);
    let mut bad = lines(&site);
    bad.push("\u{1b}]0;owned\u{7} \u{202e} {\"note\":\"\\u001b[2J\"}".to_owned());
    bad.push("{\"n\":9,\"kind\":\"x\\u001b[2J\",\"actor\":\"\\u202e\"}".to_owned());
    put(&site, &bad);
    for args in [&["audit", "list"][..], &["audit", "list", "--json"], &["audit", "verify"]] {
        let (_, out, err) = site.run(args);
        assert!(!(out + &err).contains(['\u{1b}', '\u{7}', '\u{202e}']), "{args:?}");
    }
}

#[test]
fn h8_a_running_daemon_tells_pages_of_its_log() {
    let site = Site::new();
    let daemon = site.start();
    let mut owner = daemon.owner();
    owner.call("daemon.pairPin", json!({})).expect("a PIN");
    let page = owner.call("audit.list", json!({"limit": 1})).expect("a page");
    assert_eq!((&page["count"], &page["events"][0]["kind"]), (&json!(1), &json!("pairing_opened")));
    let before = json!({"before": page["events"][0]["n"]});
    let page = owner.call("audit.list", before).expect("a page");
    assert_eq!(page["events"][0]["kind"], "started");
    assert_eq!(site.run(&["audit", "verify"]).0, Some(0));
}

#[test]
fn h8_verify_names_half_a_line_and_a_line_in_the_middle_that_was_cut() {
    let site = Site::new();
    lived(&site);
    let good = lines(&site);
    let whole = fs::read(log(&site)).expect("a log");
    fs::write(log(&site), &whole[..whole.len() - 20]).expect("written");
    let (code, out, err) = site.run(&["audit", "verify"]);
    assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
    assert!(err.contains("audit.log:5: the end was cut off: record 6 is missing"), "{err}");
    let mut bad = good.clone();
    bad[3].truncate(30);
    put(&site, &bad);
    let (code, _, err) = site.run(&["audit", "verify"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("audit.log:4: "), "{err}");
}

/// Makes it impossible, or possible again, that a file of the daemon grows beyond `bytes`.
fn limit_files(daemon: &Daemon, bytes: Option<u64>) {
    let pid =
        Pid::from_raw(daemon.process.pid().try_into().expect("a process")).expect("above zero");
    let limit = Rlimit { current: bytes, maximum: None };
    prlimit(Some(pid), Resource::Fsize, limit).expect("our own child");
}

#[test]
fn h8_while_the_log_cannot_be_written_nothing_is_allowed_and_nothing_is_lost() {
    let mut site = Site::new();
    lived(&site);
    // The log is longer than the database will ever be, so that a limit on all files is one for the log alone.
    let padding = [vec![b'x'; 4 * 1024 * 1024], b"\n".to_vec()].concat();
    let good = fs::read(log(&site)).expect("a log");
    fs::write(log(&site), [&padding[..], &good].concat()).expect("written");
    // The signal that comes with the limit ends whoever does not ignore it; a full disk sends none.
    site.before = Some("trap '' XFSZ".to_owned());
    let daemon = site.start();
    let mut owner = daemon.owner();
    let session = owner.create_session(&site.repo());
    let mark = site.repo().join("mark");
    owner.prompt(&session, &format!("tool touch {}", mark.display())).expect("taken");
    let asked = owner.wait_event("tool.approvalRequested", |_| true);
    let grant = json!({"approval_id": asked["approval_id"], "decision": "grant"});
    let full = fs::metadata(log(&site)).expect("a log").len();
    limit_files(&daemon, Some(full));
    for _ in 0..2 {
        let refused = owner.call("approval.respond", grant.clone()).expect_err("not written down");
        let Failure::Refused { code, kind, .. } = refused else { panic!("{refused:?}") };
        assert_eq!((code, kind.as_str()), (-32603, "storage_failed"));
    }
    assert!(owner.call("daemon.rotateToken", json!({})).is_err(), "nor is anything else done");
    let ping = owner.call("daemon.ping", json!({})).expect("it serves on");
    assert_eq!(ping["pong"], true);
    assert!(!mark.exists(), "no side effect without its record");
    let waiting = owner.call("approval.list", json!({})).expect("a list");
    assert_eq!(waiting["approvals"][0]["approval_id"], asked["approval_id"], "it waits still");
    limit_files(&daemon, None);
    owner.call("approval.respond", grant).expect("allowed");
    owner.wait_idle(&session);
    assert!(mark.exists());
    assert!(daemon.stop().success());
    let whole = fs::read(log(&site)).expect("a log");
    fs::write(log(&site), &whole[padding.len()..]).expect("written");
    let (code, _, err) = site.run(&["audit", "verify"]);
    assert_eq!(code, Some(0), "{err}");
    let kinds: Vec<Value> = lines(&site).iter().map(|line| kind(line)).collect();
    let count = |kind: &str| kinds.iter().filter(|it| *it == kind).count();
    assert_eq!((count("requested"), count("decided"), count("executed")), (1, 1, 1), "{kinds:?}");
    assert_eq!(count("rotated"), 0, "{kinds:?}");
}

fn kind(line: &str) -> Value {
    serde_json::from_str::<Value>(line).expect("JSON")["kind"].clone()
}
