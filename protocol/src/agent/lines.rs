//! Lines out of chunks.
//!
//! Owns the bytes of the one line that has begun and not ended; refuses to know what lines mean.
//!
//! Invariants: the same bytes give the same lines however they are cut into chunks · never more than the cap is kept ·
//! between lines nothing is kept.

use alloc::vec::Vec;
use core::mem;

/// One line of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line<'a> {
    /// A whole line, without its line feed.
    Whole(&'a [u8]),
    /// The line has passed the cap. Told at once, and once: such a line may never end. The rest of it is skipped.
    TooLong,
}

/// Assembles lines.
#[derive(Debug)]
pub struct Lines {
    begun: Vec<u8>,
    skipping: bool,
    bytes_max: usize,
}

impl Lines {
    /// Lines of at most this many bytes.
    #[must_use]
    pub const fn new(bytes_max: usize) -> Self {
        Self { begun: Vec::new(), skipping: false, bytes_max }
    }

    /// Takes a chunk and tells every line that ends in it.
    pub fn push(&mut self, bytes: &[u8], mut on_line: impl FnMut(Line<'_>)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            match piece.split_last() {
                Some((b'\n', rest)) => {
                    self.take(rest, true, &mut on_line);
                    self.skipping = false;
                }
                Some(_) | None => self.take(piece, false, &mut on_line),
            }
        }
    }

    /// The output has ended: tells the line that has no line feed, if there is one.
    pub fn finish(&mut self, mut on_line: impl FnMut(Line<'_>)) {
        let begun = mem::take(&mut self.begun);
        if !begun.is_empty() {
            on_line(Line::Whole(&begun));
        }
        self.skipping = false;
    }

    /// Bytes kept because their line has not ended.
    #[must_use]
    pub const fn pending(&self) -> usize {
        self.begun.len()
    }

    fn take(&mut self, piece: &[u8], is_end: bool, on_line: &mut impl FnMut(Line<'_>)) {
        if self.skipping {
            return;
        }
        if self.begun.len().saturating_add(piece.len()) > self.bytes_max {
            self.begun = Vec::new();
            self.skipping = true;
            on_line(Line::TooLong);
        } else if !is_end {
            self.begun.extend_from_slice(piece);
        } else if self.begun.is_empty() {
            on_line(Line::Whole(piece));
        } else {
            // Taken, not cleared: one huge line must not hold its memory for the rest of the agent's life.
            let mut line = mem::take(&mut self.begun);
            line.extend_from_slice(piece);
            on_line(Line::Whole(&line));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(lines: &mut Lines, chunks: &[&[u8]]) -> Vec<Option<Vec<u8>>> {
        let mut told = Vec::new();
        let mut tell = |line: Line<'_>| match line {
            Line::Whole(bytes) => told.push(Some(bytes.to_vec())),
            Line::TooLong => told.push(None),
        };
        for chunk in chunks {
            lines.push(chunk, &mut tell);
        }
        lines.finish(&mut tell);
        told
    }

    #[test]
    fn lines_are_assembled_over_chunks() {
        let told = cut(&mut Lines::new(8), &[b"ab", b"c\n\nde", b"f\ng"]);
        let whole = |text: &str| Some(text.as_bytes().to_vec());
        assert_eq!(told, [whole("abc"), whole(""), whole("def"), whole("g")]);
    }

    #[test]
    fn a_line_may_have_as_many_bytes_as_the_cap_and_no_more() {
        let told = cut(&mut Lines::new(4), &[b"abcd\nabcde\nx\n"]);
        assert_eq!(told, [Some(b"abcd".to_vec()), None, Some(b"x".to_vec())]);
    }

    #[test]
    fn an_endless_line_is_told_at_once_and_not_kept() {
        let mut lines = Lines::new(16);
        let mut told = 0;
        for _ in 0..1000 {
            lines.push(b"0123456789", |line| {
                assert_eq!(line, Line::TooLong);
                told += 1;
            });
            assert!(lines.pending() <= 16);
        }
        assert_eq!(told, 1);
    }

    proptest! {
        #[test]
        fn chunks_change_nothing(
            bytes in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'a'), any::<u8>()], 0..200),
            size in 1..50_usize,
        ) {
            let whole = cut(&mut Lines::new(12), &[&bytes]);
            let chunks: Vec<&[u8]> = bytes.chunks(size).collect();
            prop_assert_eq!(whole, cut(&mut Lines::new(12), &chunks));
        }
    }
}
