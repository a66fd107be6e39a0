//! Other people's text on its way to a terminal (security K1): nothing hidden comes out, and nothing looks like another.
//!
//! Proves that no control, bidirectional or invisible character survives, and that harmless text comes out as it was.
//! The bytes are the text.
//!
//! From the repository's root: `cargo +nightly fuzz run sanitiser`; all targets: `bash fuzz/smoke.sh 60`.
#![no_main]

use clawd_protocol::text::{is_hidden, visible, visible_bytes, visible_line};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let shown = visible_bytes(bytes);
    assert!(!shown.chars().any(|char| !matches!(char, '\n' | '\t') && is_hidden(char)));
    let text = String::from_utf8_lossy(bytes);
    let (over_lines, on_one) = (visible(&text), visible_line(&text));
    assert!(!over_lines.chars().any(|char| !matches!(char, '\n' | '\t') && is_hidden(char)));
    assert!(!on_one.chars().any(is_hidden));
    // What is harmless stays as it is, and only that does.
    let is_plain = !text.contains('\\') && !text.chars().any(is_hidden);
    assert!(!is_plain || on_one == text);
    assert!(on_one != text || !text.chars().any(is_hidden));
});
