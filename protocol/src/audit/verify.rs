//! Which line was edited, removed, moved; what is missing at the end.
//!
//! Owns the judgement of a log, line by line, in bounded memory; refuses to know files: it is told each line's place.
//! After a finding it goes on with what the line says of itself, so that one change is one finding and not a thousand.
//!
//! | what it sees | finding |
//! |---|---|
//! | a line that is none, or whose hash is not that of its text | it was edited |
//! | a line whose link is not the hash of the line before | the line before was exchanged |
//! | a number that is too high | the ones between were removed — unless they come later |
//! | a number that was missing so far | it was moved |
//! | a number that was there already | it was repeated |
//! | the last number is lower than the one that the daemon remembers | the end was cut off |
//! | the line that the daemon remembers has another hash | everything up to it was exchanged |
//! | a first number above that of the oldest line that was kept | the beginning was removed |

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use super::chain::{Chain, Line, Link};
use crate::contract::record::AuditKind;

/// Findings that are told; there may be more.
const FINDINGS_MAX: usize = 100;

/// A place in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    file: String,
    line: u64,
}

/// What is wrong with a line, or with what should be near it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is not what was written.
    Edited,
    /// Lines that came before it are gone: the first and the last of them.
    Removed(u64, u64),
    /// It stands in the wrong place: its number.
    Moved(u64),
    /// It was there before: its number.
    Repeated(u64),
    /// Lines that came after it are gone: the first and the last of them.
    CutOff(u64, u64),
}

/// Something that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub file: String,
    /// The line in it, from 1.
    pub line: u64,
    /// What is wrong.
    pub fault: Fault,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Of a log that is gone altogether there is no place to name.
        if self.line > 0 {
            write!(f, "{}:{}: ", self.file, self.line)?;
        }
        match self.fault {
            Fault::Edited => f.write_str("this line was edited"),
            Fault::Removed(from, to) if from == to => {
                write!(f, "record {from} was removed before this line")
            }
            Fault::Removed(from, to) => {
                write!(f, "records {from} to {to} were removed before this line")
            }
            Fault::Moved(n) => write!(f, "this line was moved: record {n} belongs further up"),
            Fault::Repeated(n) => write!(f, "this line repeats record {n}"),
            Fault::CutOff(from, to) if from == to => {
                write!(f, "the end was cut off: record {from} is missing")
            }
            Fault::CutOff(from, to) => {
                write!(f, "the end was cut off: records {from} to {to} are missing")
            }
        }
    }
}

/// What became of a verification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Lines that were read.
    pub count: u64,
    /// The last line.
    pub chain: Chain,
    /// The log was mended after a crash so many times.
    pub recovered: u64,
    /// What is wrong, in the order of the log; not more than a hundred.
    pub findings: Vec<Finding>,
}

/// Reads a log, oldest line first.
#[derive(Debug)]
pub struct Verifier {
    /// The last line that the daemon remembers.
    remembered: Option<Chain>,
    /// What the next line should tie on to; without a hash where that cannot be known.
    last: Option<(u64, Option<Link>)>,
    /// Numbers that were missing when a later one came: the first and the last, and where.
    gaps: Vec<(u64, u64, Place)>,
    /// The number of the first line, and where.
    first: Option<(u64, Place)>,
    /// What the log says is the oldest line that it kept.
    oldest: u64,
    is_tail: bool,
    place: Place,
    count: u64,
    recovered: u64,
    chain: Chain,
    findings: Vec<Finding>,
}

impl Verifier {
    /// Without what the daemon remembers, a missing end cannot be seen.
    #[must_use]
    pub const fn new(remembered: Option<Chain>) -> Self {
        Self {
            remembered,
            last: None,
            gaps: Vec::new(),
            first: None,
            oldest: 1,
            is_tail: false,
            place: Place { file: String::new(), line: 0 },
            count: 0,
            recovered: 0,
            chain: Chain { n: 0, head: Link::from_bytes([0; 32]) },
            findings: Vec::new(),
        }
    }

    /// For the last lines of a log, whatever comes before them.
    #[must_use]
    pub const fn of_tail() -> Self {
        let mut tail = Self::new(None);
        tail.is_tail = true;
        tail
    }

    /// The next line, without its newline: the `number`th of `file`.
    pub fn line(&mut self, file: &str, number: u64, line: &[u8]) {
        let before =
            core::mem::replace(&mut self.place, Place { file: file.to_string(), line: number });
        self.count = self.count.saturating_add(1);
        let Some(line) = Line::read(line) else {
            self.find(Fault::Edited);
            // It took a number, whichever it was.
            self.last = self.last.map(|(n, _)| (n.saturating_add(1), None));
            return;
        };
        if !line.is_genuine {
            self.find(Fault::Edited);
        }
        self.on_number(&line, before);
        if self.remembered == Some(Chain { n: line.n, head: line.hash }) {
            self.remembered = None;
        }
        if line.is_genuine {
            self.on_kind(&line);
        }
    }

    fn on_number(&mut self, line: &Line<'_>, before: Place) {
        let Some((last, head)) = self.last else {
            self.first = Some((line.n, self.place.clone()));
            self.go_on(line);
            return;
        };
        let next = last.saturating_add(1);
        if line.n > next {
            self.gaps.push((next, line.n.saturating_sub(1), self.place.clone()));
            self.go_on(line);
        } else if line.n == next {
            if head.is_some_and(|head| head != line.prev) && line.is_genuine {
                // The line before is whole in itself, and not the one that this line was written after.
                let here = core::mem::replace(&mut self.place, before);
                self.find(Fault::Edited);
                self.place = here;
            }
            self.go_on(line);
        } else if self.fill_gap(line.n) {
            self.find(Fault::Moved(line.n));
        } else if line.is_genuine {
            self.find(Fault::Repeated(line.n));
        }
    }

    fn go_on(&mut self, line: &Line<'_>) {
        self.last = Some((line.n, Some(line.hash)));
        self.chain = Chain { n: line.n, head: line.hash };
    }

    /// Takes a number out of those that are missing; whether it was.
    fn fill_gap(&mut self, n: u64) -> bool {
        let Some(at) = self.gaps.iter().position(|(from, to, _)| (*from..=*to).contains(&n)) else {
            return false;
        };
        let (from, to, place) = self.gaps.swap_remove(at);
        if from < n {
            self.gaps.push((from, n.saturating_sub(1), place.clone()));
        }
        if n < to {
            self.gaps.push((n.saturating_add(1), to, place));
        }
        true
    }

    fn on_kind(&mut self, line: &Line<'_>) {
        if line.is(AuditKind::Recovered) {
            self.recovered = self.recovered.saturating_add(1);
        } else if line.is(AuditKind::Continued) {
            self.oldest = line.first().unwrap_or(self.oldest);
        }
    }

    fn find(&mut self, fault: Fault) {
        let place = self.place.clone();
        self.find_at(place, fault);
    }

    fn find_at(&mut self, Place { file, line }: Place, fault: Fault) {
        let finding = Finding { file, line, fault };
        if self.findings.len() < FINDINGS_MAX && self.findings.last() != Some(&finding) {
            self.findings.push(finding);
        }
    }

    /// There are no more lines.
    #[must_use]
    pub fn finish(mut self) -> Report {
        for (from, to, place) in core::mem::take(&mut self.gaps) {
            self.find_at(place, Fault::Removed(from, to));
        }
        if let Some((first, place)) = self.first.take()
            && first > self.oldest
            && !self.is_tail
        {
            self.find_at(place, Fault::Removed(self.oldest, first.saturating_sub(1)));
        }
        if let Some(remembered) = self.remembered {
            let last = self.last.map_or(0, |(n, _)| n);
            if last < remembered.n {
                self.find(Fault::CutOff(last.saturating_add(1), remembered.n));
            } else if self.findings.is_empty() {
                // A chain of its own that the daemon has not written.
                self.find(Fault::Edited);
            }
        }
        let Self { count, chain, recovered, findings, .. } = self;
        Report { count, chain, recovered, findings }
    }
}

#[cfg(test)]
mod tests;
