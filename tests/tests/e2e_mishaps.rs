//! What goes wrong on the first day, and what is said then.

use clawd_tests::daemon::{Process, Site, port_in, write_private};
use rustix::process::Signal;

/// A machine without an agent.
fn bare_site() -> Site {
    let site = Site::new();
    write_private(&site.data().join("config.toml"), b"");
    site
}

#[test]
fn a_daemon_is_reached_and_stopped_whatever_became_of_its_settings() {
    let site = Site::new();
    let daemon = site.start();
    write_private(&site.data().join("config.toml"), b"[approvals]\nalow = []\n");
    for args in [&["status"][..], &["session", "list"], &["approvals"]] {
        let (code, _, err) = site.run(args);
        assert_eq!(code, Some(0), "{args:?}: {err}");
        assert!(err.contains("config.toml:2:1: unknown key `alow`"), "{err}");
        assert!(err.contains("clawd runs by what it read at its start"), "{err}");
    }
    let (code, _, err) = site.run(&["policy", "list"]);
    assert_eq!(code, Some(2), "this is about the file itself: {err}");
    let (code, _, err) = site.run(&["stop"]);
    assert_eq!(code, Some(0), "{err}");
    drop(daemon);
    for args in [&["status"][..], &["up"], &["serve"]] {
        let (code, _, err) = site.run(args);
        assert_eq!(code, Some(2), "{args:?}: {err}");
        assert!(err.contains("did you mean `allow`?"), "{err}");
    }
}

#[test]
fn rules_that_are_not_in_force_yet_are_said_to_be_so() {
    let site = Site::new();
    let daemon = site.start();
    let (_, _, err) = site.run(&["policy", "list"]);
    assert!(!err.contains("has changed"), "{err}");
    let path = site.data().join("config.toml");
    let file = std::fs::File::options().append(true).open(path).expect("it is there");
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
    file.set_modified(later).expect("it is ours");
    let (code, _, err) = site.run(&["policy", "list"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("has changed since clawd was started") && err.contains("clawd stop"));
    drop(daemon);
    let (_, _, err) = site.run(&["policy", "list"]);
    assert!(!err.contains("has changed"), "nothing runs by the old one: {err}");
}

#[test]
fn without_an_agent_the_demo_is_named() {
    let site = bare_site();
    let _daemon = site.start();
    let repo = site.repo().display().to_string();
    let begin = ["run", "-C", &repo, "hello"];
    let codex = ["run", "-p", "codex", "-C", &repo, "hello"];
    for args in [&begin[..], &codex, &["session", "create", &repo]] {
        let (code, _, err) = site.run(args);
        assert_eq!(code, Some(8), "{args:?}: {err}");
        assert!(
            err.contains("npm install") && err.contains("clawd run -p demo \"hello\""),
            "{err}"
        );
    }
}

#[test]
fn hints_name_commands_that_can_be_typed() {
    let site = Site::new();
    let daemon = site.start();
    let mut owner = daemon.owner();
    let session = owner.create_session(&site.repo());
    assert_eq!(site.run(&["pause", &session]).0, Some(0));
    let (code, _, err) = site.run(&["send", &session, "hi"]);
    assert!(code == Some(1) && err.contains("clawd resume ID"), "{err}");
    assert_eq!(site.run(&["resume", &session]).0, Some(0));
    owner.prompt(&session, "hang").expect("taken");
    let (code, _, err) = site.run(&["send", &session, "hi"]);
    assert!(code == Some(1) && err.contains("clawd stop ID"), "{err}");
}

#[test]
fn a_quiet_daemon_says_nothing() {
    let site = bare_site();
    let mut process = Process::spawn(&mut site.command(&["serve", "-q", "--port", "0"]));
    let is_up = || site.run(&["status", "--json"]).0 == Some(0);
    clawd_tests::daemon::wait_until("it serves", clawd_tests::daemon::PATIENCE, is_up);
    let repo = site.repo().display().to_string();
    assert_eq!(site.run(&["run", "-p", "demo", "-C", &repo, "help"]).0, Some(0));
    process.signal(Signal::TERM);
    let (status, output) = process.end();
    assert_eq!((status.code(), output.as_str()), (Some(0), ""));
    assert_eq!(port_in(&output), None);
}
