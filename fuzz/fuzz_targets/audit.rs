//! The audit log (security H8): whatever stands in the file is judged without harm, and no change goes unnoticed.
//!
//! Proves that any bytes can be verified, that a record of any text is one genuine line without a planted secret, and
//! that a log with one byte changed is never called whole. The first two bytes say which byte changes and how, the rest
//! is the text.
//!
//! From the repository's root: `cargo +nightly fuzz run audit`; all targets: `bash fuzz/smoke.sh 60`.
#![no_main]

use clawd_protocol::Unix;
use clawd_protocol::audit::{Chain, Verifier};
use clawd_protocol::record::{AuditKind, AuditRecord};
use libfuzzer_sys::fuzz_target;

const SECRET: &str = "ghp_aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1dE3fG5";

fn findings(log: &[u8], end: Option<Chain>) -> usize {
    let mut verifier = Verifier::new(end);
    for (line, number) in log.split_inclusive(|byte| *byte == b'\n').zip(1..) {
        verifier.line("audit.log", number, line.strip_suffix(b"\n").unwrap_or(line));
    }
    verifier.finish().findings.len()
}

fuzz_target!(|bytes: &[u8]| {
    let _ = findings(bytes, None);
    let [at, bit, text @ ..] = bytes else { return };
    let text = String::from_utf8_lossy(text);
    let mut chain = Chain::default();
    let mut log = String::new();
    for note in ["first", &format!("{text} {SECRET} {text}"), "last"] {
        let mut record = AuditRecord::new(Unix::default(), AuditKind::Requested, "agent");
        record.note = Some(note.to_owned());
        log.push_str(&chain.append(&record));
    }
    assert_eq!(log.matches('\n').count(), 3);
    assert!(!log.contains(SECRET));
    assert_eq!(findings(log.as_bytes(), Some(chain)), 0);
    let mut bad = log.into_bytes();
    let at = usize::from(*at) * bad.len() / 256;
    bad[at] ^= 1 << (bit % 8);
    assert_ne!(findings(&bad, Some(chain)), 0, "byte {at}");
});
