//! An agent's output, cut anywhere: the same bytes mean the same, and no line means nothing.
//!
//! Proves that the parser never panics, that it says the same of one piece, of pieces of any size and of single bytes,
//! and that it keeps no more than a line's limit. The first byte is the size of the pieces, the rest is the output.
//!
//! From the repository's root: `cargo +nightly fuzz run claude_parser`; all targets: `bash fuzz/smoke.sh 60`.
#![no_main]

use clawd_protocol::agent::claude::parse;
use clawd_protocol::agent::{Line, Lines};
use libfuzzer_sys::fuzz_target;

const LINE_BYTES_MAX: usize = 4096;

fn events(pieces: impl Iterator<Item = impl AsRef<[u8]>>) -> Vec<String> {
    let mut told = Vec::new();
    let mut lines = Lines::new(LINE_BYTES_MAX);
    let mut on_line = |line: Line<'_>| match line {
        Line::Whole(line) => {
            let before = told.len();
            parse(line, &mut |event| told.push(format!("{event:?}")));
            assert!(told.len() > before, "a line that means nothing at all");
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
