//! `clawd logs` and `clawd provider check`.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use clawd_tests::daemon::{Client, PATIENCE, Process, Site, wait_until, write_private};
use rustix::process::Signal;
use serde_json::{Value, json};

fn log(site: &Site) -> PathBuf {
    site.data().join("clawd.log")
}

fn append(site: &Site, text: &str) {
    let file = fs::OpenOptions::new().append(true).open(log(site));
    file.and_then(|mut file| file.write_all(text.as_bytes())).expect("a log");
}

#[test]
fn logs_are_read_without_a_daemon() {
    let site = Site::new();
    let (code, _, err) = site.run(&["logs"]);
    assert_eq!(code, Some(9), "{err}");
    assert!(err.contains("there is no log at") && err.contains("clawd up"), "{err}");
    write_private(&log(&site), b"one\ntwo\nthree\nhalf");
    assert_eq!(site.run(&["logs"]).1, "one\ntwo\nthree\nhalf\n");
    assert_eq!(site.run(&["logs", "-n", "2"]).1, "three\nhalf\n");
    let (_, out, _) = site.run(&["logs", "-n", "1", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), json!({"line": "half"}));
    assert_eq!(site.run(&["logs", "-n", "0"]).0, Some(2));
    // A broken configuration is when logs are wanted most.
    write_private(&site.data().join("config.toml"), b"port = \"x\"");
    assert_eq!(site.run(&["logs", "-n", "1"]).0, Some(0));
}

#[test]
fn k1_logs_show_what_is_in_them_and_do_not_obey_it() {
    let site = Site::new();
    write_private(&log(&site), b"\x1b]0;owned\x07 \x9b31m \xe2\x80\xae\xff ok\r\n");
    let (code, out, _) = site.run(&["logs"]);
    assert_eq!(code, Some(0));
    assert_eq!(out, "\\u{1b}]0;owned\\u{7} \\x9b31m \\u{202e}\\xff ok\\u{d}\n");
    let (_, out, _) = site.run(&["logs", "--json"]);
    assert!(!out.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{out:?}");
}

#[test]
fn a_log_that_is_no_file_is_refused() {
    let site = Site::new();
    write_private(&site.home().join("secret"), b"canary\n");
    symlink(site.home().join("secret"), log(&site)).unwrap();
    let (code, out, err) = site.run(&["logs"]);
    assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
    assert!(err.contains("cannot read"), "{err}");
    fs::remove_file(log(&site)).unwrap();
    fs::create_dir(log(&site)).unwrap();
    assert_eq!(site.run(&["logs"]).0, Some(1));
}

#[test]
fn a_followed_log_may_be_cut_and_replaced() {
    let site = Site::new();
    let mut follow = Process::spawn(&mut site.command(&["logs", "-f", "-n", "1"]));
    let mut wait = |text: &str| {
        let found = follow.wait_for(|all| all.contains(text).then_some(()));
        assert!(found.is_some(), "no `{text}`");
    };
    write_private(&log(&site), b"begun\n");
    wait("begun\n");
    append(&site, "half a line, ");
    append(&site, "and the rest\n");
    wait("half a line, and the rest\n");
    write_private(&log(&site), b"cut\n");
    wait("cut\n");
    fs::rename(log(&site), site.data().join("clawd.log.1")).unwrap();
    write_private(&log(&site), b"a new file, longer than the one before\n");
    wait("a new file");
    follow.signal(Signal::INT);
    let (status, all) = follow.end();
    assert_eq!(status.code(), Some(130));
    assert_eq!(
        all,
        "begun\nhalf a line, and the rest\ncut\na new file, longer than the one before\n"
    );
}

#[test]
fn a_daemon_in_the_background_writes_one_and_an_old_one_is_set_aside() {
    let site = Site::new();
    write_private(&log(&site), &vec![b'x'; 5 * 1024 * 1024]);
    let (code, _, err) = site.run(&["start", "--port", "0"]);
    assert_eq!(code, Some(0), "{err}");
    let (_, out, _) = site.run(&["logs"]);
    assert!(out.contains("listens on"), "{out}");
    assert_eq!(fs::metadata(site.data().join("clawd.log.1")).unwrap().len(), 5 * 1024 * 1024);
    assert_eq!(site.run(&["stop"]).0, Some(0));
    let (_, out, _) = site.run(&["logs", "-n", "1"]);
    assert!(out.contains("clawd has stopped"), "{out}");
}

#[test]
fn a_provider_is_checked_afresh() {
    let site = Site::new();
    let _daemon = site.start();
    let (code, out, err) = site.run(&["provider", "check", "claude"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("claude") && out.contains("logged in"), "{out}");
    let (code, out, _) = site.run(&["provider", "check", "--json"]);
    assert_eq!(code, Some(0));
    let all: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&all[0]["name"], &all[0]["available"]), (&json!("claude"), &json!(true)));
    let (code, _, err) = site.run(&["provider", "check", "no-such-agent"]);
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("`provider` must be"), "{err}");
}

#[test]
fn a_provider_that_cannot_be_used_is_told_with_what_repairs_it() {
    let site = Site::new();
    let config = "[provider.claude]\npath = \"/nonexistent/claude\"\n";
    write_private(&site.data().join("config.toml"), config.as_bytes());
    let daemon = site.start();
    let status = |args: &[&str]| site.run(&[&["status"], args].concat()).1;
    let unknown = status(&[]);
    assert!(!unknown.contains("installed"), "it has not looked: {unknown}");
    assert!(unknown.contains("demo ? not checked yet"), "{unknown}");
    assert!(status(&["-v"]).contains("not checked yet"));
    let (code, out, _) = site.run(&["provider", "check", "claude"]);
    assert_eq!(code, Some(8), "{out}");
    assert!(out.contains("not installed") && out.contains("npm install"), "{out}");
    let known = status(&[]);
    assert!(known.contains("claude ! not installed") && known.contains("demo ? not"), "{known}");
    daemon.stop();
    assert_eq!(site.run(&["provider", "check"]).0, Some(6));
}

#[test]
fn a8_the_log_tells_what_happened_and_nothing_that_was_said() {
    let site = Site::new();
    let (code, out, err) = site.run(&["start", "--port", "0", "--json"]);
    assert_eq!(code, Some(0), "{err}");
    let status: Value = serde_json::from_str(&out).unwrap();
    let port = u16::try_from(status["port"].as_u64().unwrap()).unwrap();
    let mut owner = Client::tcp(port).unwrap();
    owner.auth(&site.token()).unwrap();
    let session = owner.create_session(&site.repo());
    owner.turn(&session, "say canary-of-the-prompt");
    owner.prompt(&session, "tool echo canary-of-the-input").unwrap();
    let asked = owner.wait_event("tool.approvalRequested", |_| true);
    let params = json!({
        "sessionId": session, "toolCallId": asked["toolCall"]["id"], "reason": "canary-of-the-reason",
    });
    owner.call("tool.reject", params).unwrap();
    owner.wait_idle(&session);
    owner.prompt(&session, "crash").unwrap();
    owner.wait_event("session.statusChanged", |event| event["status"] == "error");
    let mut refused = 0;
    // One more than has a line of its own; the first are refused at once, so nothing is waited for.
    for guess in 0..6 {
        let mut stranger = Client::tcp(port).unwrap();
        refused += u32::from(stranger.auth(&format!("clawd_l_canary{guess}")).is_err());
    }
    assert_eq!(refused, 6);
    assert_eq!(site.run(&["stop"]).0, Some(0));
    let (_, out, _) = site.run(&["logs"]);
    for words in [
        "Z serving on port ",
        " started, pid ",
        " ended with exit code 1\n",
        "Z turned away a stranger from 127.0.0.1\n",
        "Z ending\n",
        "clawd has stopped\n",
    ] {
        assert!(out.contains(words), "no `{words}` in\n{out}");
    }
    assert_eq!(out.matches("turned away").count(), 5, "a flood has five lines a minute:\n{out}");
    assert!(!out.contains("canary") && !out.contains(&site.token()), "{out}");
}

#[test]
fn a_daemon_whose_talk_nobody_reads_goes_on() {
    let site = Site::new();
    let (reader, writer) = std::io::pipe().unwrap();
    // Nobody reads, and there is no room left.
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    while (&writer).write(&[b'x'; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    let mut command = site.command(&["serve", "--port", "0", "--quiet"]);
    let mut child = command.stdout(std::process::Stdio::null()).stderr(writer).spawn().unwrap();
    wait_until("it serves", PATIENCE, || site.run(&["status"]).0 == Some(0));
    let (_, status, _) = site.run(&["status", "--json"]);
    let status: Value = serde_json::from_str(&status).unwrap();
    let mut owner = Client::tcp(u16::try_from(status["port"].as_u64().unwrap()).unwrap()).unwrap();
    owner.auth(&site.token()).unwrap();
    let session = owner.create_session(&site.repo());
    assert_eq!(owner.turn(&session, "say heard"), "heard");
    assert_eq!(site.run(&["stop"]).0, Some(0));
    child.wait().unwrap();
    drop(reader);
}
