//! A codex process's output, cut anywhere: the same bytes mean the same, no line means nothing, and nothing is allowed
//! that nobody allowed.
//!
//! The first byte is the size of the pieces, the rest is the output of a process that has a conversation `t1` open and a
//! turn `u1` in it.
//!
//! From the repository's root: `cargo +nightly fuzz run codex_parser`; all targets: `bash fuzz/smoke.sh 60`.
#![no_main]

use clawd_protocol::Limits;
use clawd_protocol::agent::codex::Codex;
use clawd_protocol::agent::{Dialect, Lane, Line, Lines, Opening, Say};
use libfuzzer_sys::fuzz_target;

const LINE_BYTES_MAX: usize = 4096;

/// Its answers until the turn is under way.
const OPENED: &[&str] = &[
    r#"{"id":1,"result":{"codexHome":"/h","userAgent":"clawd/0.169.0 (Linux)"}}"#,
    r#"{"id":2,"result":{"account":{"type":"apiKey"},"requiresOpenaiAuth":true}}"#,
    r#"{"id":3,"result":{"config":{}}}"#,
    r#"{"id":4,"result":{"entries":[]}}"#,
    r#"{"id":5,"result":{"entries":[]}}"#,
    r#"{"id":6,"result":{"thread":{"id":"t1"},"model":"m","approvalPolicy":"untrusted","approvalsReviewer":"user","sandbox":{"type":"readOnly"}}}"#,
    r#"{"id":7,"result":{"turn":{"id":"u1"}}}"#,
];

fn opened() -> Codex {
    let mut codex = Codex::new(&Limits::tiny());
    let lane = Lane(0);
    codex.hello();
    codex.open(lane, &Opening { conversation: "", resume: false, cwd: "/r", model: None });
    codex.say(Say::Prompt { lane, text: "go".to_owned(), id: "m".to_owned() });
    let mut out = Vec::new();
    let mut has_begun = false;
    for line in OPENED {
        codex.hear(line.as_bytes(), &mut out, &mut |_, _| {});
        has_begun |= String::from_utf8_lossy(&out).contains("turn/start");
    }
    assert!(has_begun, "it was not opened");
    codex
}

fn events(pieces: impl Iterator<Item = impl AsRef<[u8]>>) -> Vec<String> {
    let mut told = Vec::new();
    let mut codex = opened();
    let mut lines = Lines::new(LINE_BYTES_MAX);
    let mut on_line = |line: Line<'_>| match line {
        Line::Whole(line) => {
            let before = told.len();
            let mut out = Vec::new();
            codex.hear(line, &mut out, &mut |lane, event| told.push(format!("{lane:?} {event:?}")));
            assert!(told.len() > before, "a line that means nothing at all");
            let said = String::from_utf8(out).expect("what is said is UTF-8");
            assert!(!said.contains(r#""decision":"accept""#), "nobody allowed that");
            assert!(said.is_empty() || said.ends_with('\n'));
            told.push(said);
        }
        Line::TooLong => told.push("too long".to_owned()),
    };
    for piece in pieces {
        lines.push(piece.as_ref(), &mut on_line);
        assert!(lines.pending() <= LINE_BYTES_MAX);
    }
    lines.finish(&mut on_line);
    told
}

fuzz_target!(|bytes: &[u8]| {
    let Some((size, bytes)) = bytes.split_first() else { return };
    let whole = events(std::iter::once(bytes));
    assert_eq!(events(bytes.chunks(usize::from(*size).max(1))), whole);
    assert_eq!(events(bytes.chunks(1)), whole);
});
