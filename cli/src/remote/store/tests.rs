//! The list of remotes on a real disk.

use std::os::unix::fs::PermissionsExt as _;
use std::thread;

use super::*;

fn remote(name: &str, daemon: &[u8], device: &str) -> Remote {
    Remote {
        name: name.to_owned(),
        daemon_id: Fingerprint::of(daemon),
        urls: ["wss://192.168.1.2:4300", "wss://10.0.0.2:4300", "wss://desk.local:4300"]
            .map(|url| url.parse().unwrap())
            .to_vec(),
        relay: Some("wss://relay.example.org".parse().unwrap()),
        device_id: device.to_owned(),
        token: Secret::new(format!("clawd_d_{device}_secret")),
        role: "full".to_owned(),
        host_name: "Desk".to_owned(),
        paired_at: 7,
        expires_at: None,
    }
}

fn empty() -> (tempfile::TempDir, Remotes) {
    let home = tempfile::tempdir().unwrap();
    let remotes = Remotes::of(&home.path().join("data"));
    (home, remotes)
}

fn names(remotes: &Remotes) -> Vec<String> {
    remotes.list().unwrap().into_iter().map(|remote| remote.name).collect()
}

#[test]
fn a2_what_is_kept_is_private_and_reads_back() {
    let (_home, remotes) = empty();
    assert!(remotes.list().unwrap().is_empty() && !remotes.dir.exists(), "looking makes nothing");
    let desk = remote("desk", b"one", "d1");
    assert_eq!(remotes.keep(desk.clone(), false).unwrap(), ("desk".to_owned(), None));
    assert_eq!(remotes.find("desk").unwrap(), desk);
    let key = remotes.identity().unwrap().fingerprint();
    assert_eq!(remotes.identity().unwrap().fingerprint(), key);
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&remotes.dir), 0o700);
    assert_eq!((mode(&remotes.dir.join(LIST)), mode(&remotes.dir.join(KEY))), (0o600, 0o600));
}

#[test]
fn a8_neither_debug_nor_json_shows_the_token() {
    let desk = remote("desk", b"one", "d1");
    for text in [format!("{desk:?}"), desk.to_json().to_string()] {
        assert!(!text.contains("secret"), "{text}");
    }
}

#[test]
fn two_at_once_lose_no_entry() {
    let (_home, remotes) = empty();
    thread::scope(|scope| {
        for n in 0..8_u8 {
            let remotes = remotes.clone();
            scope.spawn(move || {
                remotes.keep(remote("desk", &[n], &format!("d{n}")), false).unwrap();
            });
        }
    });
    let mut found = names(&remotes);
    found.sort();
    let wanted = ["desk", "desk-2", "desk-3", "desk-4", "desk-5", "desk-6", "desk-7", "desk-8"];
    assert_eq!(found, wanted);
}

#[test]
fn the_same_daemon_keeps_its_name_and_another_does_not_get_it() {
    let (_home, remotes) = empty();
    let first = remote("work", b"one", "d1");
    remotes.keep(first.clone(), true).unwrap();
    let kept = remotes.keep(remote("desk", b"one", "d2"), false).unwrap();
    assert_eq!(kept, ("work".to_owned(), Some(first)));
    assert_eq!(remotes.find("work").unwrap().device_id, "d2");
    let failure = remotes.keep(remote("work", b"two", "d3"), true).unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
    assert_eq!(names(&remotes), ["work"]);
    assert!(!remotes.forget(&remote("work", b"one", "d1")).unwrap(), "an older pairing");
    assert!(remotes.forget(&remote("work", b"one", "d2")).unwrap());
    let failure = remotes.find("work").unwrap_err();
    assert_eq!((failure.exit, &*failure.kind), (Exit::NotFound, "remote_not_found"));
}

fn places(remotes: &Remotes) -> Vec<String> {
    remotes.find("desk").unwrap().urls.iter().map(ToString::to_string).collect()
}

#[test]
fn what_worked_last_is_tried_first() {
    let (_home, remotes) = empty();
    let desk = remote("desk", b"one", "d1");
    remotes.keep(desk.clone(), false).unwrap();
    remotes.prefer(&desk, &desk.urls[2]).unwrap();
    let known = ["wss://desk.local:4300", "wss://192.168.1.2:4300", "wss://10.0.0.2:4300"];
    assert_eq!(places(&remotes), known);
    remotes.prefer(&desk, &"10.0.0.77".parse().unwrap()).unwrap();
    assert_eq!(places(&remotes), [&["wss://10.0.0.77:4300"], &known[..]].concat());
}

#[test]
fn who_moved_is_sought_where_it_is_and_last_where_it_was() {
    let (_home, remotes) = empty();
    let desk = remote("desk", b"one", "d1");
    remotes.keep(desk.clone(), false).unwrap();
    let now = ["10.0.0.9", "10.0.0.2", "10.0.0.9"].map(|url| url.parse().unwrap());
    remotes.learn_urls(&desk, &now).unwrap();
    let known = [
        "wss://10.0.0.9:4300",
        "wss://10.0.0.2:4300",
        "wss://192.168.1.2:4300",
        "wss://desk.local:4300",
    ];
    assert_eq!(places(&remotes), known);
    remotes.learn_urls(&desk, &[]).unwrap();
    assert_eq!(places(&remotes), known);
    // Another daemon may give us the same id, and this one another.
    for other in [remote("desk", b"two", "d1"), remote("desk", b"one", "d2")] {
        remotes.prefer(&other, &"10.0.0.66".parse().unwrap()).unwrap();
        assert_eq!(places(&remotes), known);
    }
    for night in 0..50 {
        let now = [format!("10.1.0.{night}").parse().unwrap()];
        remotes.learn_urls(&desk, &now).unwrap();
    }
    assert_eq!(places(&remotes).len(), URLS_MAX);
    assert_eq!(places(&remotes)[0], "wss://10.1.0.49:4300");
}

#[test]
fn what_is_not_understood_is_neither_shown_nor_overwritten() {
    let (_home, remotes) = empty();
    remotes.keep(remote("desk", b"one", "d1"), false).unwrap();
    let path = remotes.dir.join(LIST);
    for text in ["{", r#"{"v":2,"remotes":[]}"#, r#"{"v":1,"remotes":["clawd_d_secret"]}"#] {
        std::fs::write(&path, text).unwrap();
        let failure = remotes.keep(remote("b", b"two", "d2"), false).unwrap_err();
        assert!(!failure.message.contains("secret"), "{}", failure.message);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
}

#[test]
fn names_can_be_typed() {
    for (given, name) in [
        ("Ana's MacBook Pro", "Ana-s-MacBook-Pro"),
        ("desk.local", "desk.local"),
        ("-R", "R"),
        ("\u{1b}[2J", "2J"),
        ("漢字", "remote"),
        ("", "remote"),
    ] {
        assert_eq!(sanitised(given), name);
        assert!(checked_name(name).is_ok());
    }
    for name in ["", "-x", "a b", "a/b", "\u{202e}", &"x".repeat(33)] {
        assert!(checked_name(name).is_err(), "{name}");
    }
}
