//! What happened, in order: for people when a run fails, and to compare two runs with.
//!
//! Owns the record; refuses to judge it. Ticks are not kept: they are harmless, so they tell nothing.

use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use clawd_protocol::{Effect, Input, Now};

/// How many lines are kept for people.
const LINES_MAX: usize = 400;
/// How long a line for people may be.
const LINE_CHARS_MAX: usize = 400;

/// The record of a run.
#[derive(Debug, Default)]
pub struct Trace {
    lines: std::collections::VecDeque<String>,
    digest: u64,
    effects: usize,
}

impl Trace {
    pub(crate) fn input(&mut self, now: Now, input: &Input<'_>) {
        // Bytes and texts as people read them, not as lists of numbers.
        let text = if let Input::Output { proc, stream, bytes } = input {
            format!("{proc:?} {stream:?} {}", String::from_utf8_lossy(bytes))
        } else if *input == Input::Tick {
            return;
        } else {
            format!("{input:?}")
        };
        let micros = now.mono.as_micros();
        self.line(&format!("{:>10}.{:06} > {text}", micros / 1_000_000, micros % 1_000_000));
    }

    pub(crate) fn effect(&mut self, effect: &Effect) {
        let text = if let Effect::Feed { proc, bytes } = effect {
            format!("feed {proc:?} {}", String::from_utf8_lossy(bytes))
        } else {
            format!("{effect:?}")
        };
        let mut hasher = DefaultHasher::new();
        (self.digest, &text).hash(&mut hasher);
        self.digest = hasher.finish();
        self.effects += 1;
        self.line(&format!("{:>17} < {text}", ""));
    }

    pub(crate) fn note(&mut self, text: &str) {
        self.line(&format!("{:>17} # {text}", ""));
    }

    fn line(&mut self, line: &str) {
        let cut = line.char_indices().nth(LINE_CHARS_MAX).map_or(line.len(), |(cut, _)| cut);
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(line.get(..cut).unwrap_or_default().to_owned());
    }

    /// How many effects there were, and a digest of all of them in order.
    #[must_use]
    pub const fn effects(&self) -> (usize, u64) {
        (self.effects, self.digest)
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}
