//! What is worth a line in the owner's log.
//!
//! Owns the lines; refuses to know where they go and what time it is. Invariant: a note is made of numbers, of names that
//! are ours, and of what the runtime itself reports (a path, a system's error), never of what a peer, a model or a person
//! said: no prompt, no tool's input and no secret has a place in it (security A8).

use alloc::borrow::Cow;
use alloc::string::String;
use core::fmt;
use core::time::Duration;

use super::error::{ProgramFault, StoreFault};
use super::id::ProcId;
use super::input::Source;
use crate::relay::RelayUrl;
use crate::text::visible_line;

/// One line. Its text is [`Display`](fmt::Display)ed, without time and newline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// The daemon serves.
    Started {
        /// On this port.
        port: u16,
    },
    /// The daemon was told to end.
    Ending,
    /// Somebody who could not prove who they are was turned away.
    Refused {
        /// Where they came from.
        source: Source,
        /// So many before, which have no line of their own.
        unnoted: u32,
    },
    /// The store could not do something.
    StoreFailed {
        /// Why.
        fault: StoreFault,
        /// So many failures before, which have no line of their own.
        unnoted: u32,
    },
    /// We can be reached at the relay.
    RelayReached {
        /// Which: as the owner wrote it.
        url: RelayUrl,
        /// So many lines about it before, which were left out.
        unnoted: u32,
    },
    /// We cannot be reached at the relay.
    RelayLost {
        /// Why, in our words.
        why: Cow<'static, str>,
        /// What the runtime says of it.
        detail: Option<String>,
        /// It is tried again after this.
        retry: Duration,
        /// So many lines about it before, which were left out.
        unnoted: u32,
    },
    /// The relay has announced somebody who never came.
    InviteLost {
        /// Why, in our words.
        why: &'static str,
        /// So many before, which have no line of their own.
        unnoted: u32,
    },
    /// An agent was started.
    AgentStarted {
        /// Which one.
        provider: &'static str,
        /// Its name.
        proc: ProcId,
        /// Its process id.
        pid: u32,
    },
    /// An agent was to be started and was not.
    AgentNotStarted {
        /// Which one.
        provider: &'static str,
        /// Why.
        fault: ProgramFault,
    },
    /// An agent has ended.
    AgentEnded {
        /// Which one.
        provider: &'static str,
        /// Its name.
        proc: ProcId,
        /// Its exit code; `None` after a signal.
        code: Option<i32>,
        /// It was told to.
        was_told: bool,
    },
}

impl Note {
    /// Something did not go as it should have: also who wants it quiet is told.
    #[must_use]
    pub const fn is_trouble(&self) -> bool {
        match self {
            Self::StoreFailed { .. } | Self::RelayLost { .. } | Self::AgentNotStarted { .. } => {
                true
            }
            Self::AgentEnded { was_told, .. } => !*was_told,
            Self::Started { .. }
            | Self::Ending
            | Self::Refused { .. }
            | Self::RelayReached { .. }
            | Self::InviteLost { .. }
            | Self::AgentStarted { .. } => false,
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { port } => write!(f, "serving on port {port}"),
            Self::Ending => f.write_str("ending"),
            Self::Refused { source, unnoted } => {
                match source {
                    Source::Unix => f.write_str("turned away a stranger on the Unix socket")?,
                    Source::Tcp(address) => write!(f, "turned away a stranger from {address}")?,
                    Source::Relay(Some(address)) => {
                        write!(f, "turned away a stranger from {address}, says the relay")?;
                    }
                    Source::Relay(None) => f.write_str("turned away a stranger at the relay")?,
                }
                more(f, *unnoted)
            }
            Self::StoreFailed { fault, unnoted } => {
                match fault {
                    StoreFault::Full => f.write_str("cannot store: no space left")?,
                    StoreFault::Failed(why) => write!(f, "cannot store: {}", visible_line(why))?,
                }
                more(f, *unnoted)
            }
            Self::RelayReached { url, unnoted } => {
                write!(f, "can be reached through {url}")?;
                more(f, *unnoted)
            }
            Self::RelayLost { why, detail, retry, unnoted } => {
                write!(f, "no relay: {why}")?;
                if let Some(detail) = detail {
                    write!(f, " ({})", visible_line(detail))?;
                }
                write!(f, "; trying again in {:.1} s", retry.as_secs_f32())?;
                more(f, *unnoted)
            }
            Self::InviteLost { why, unnoted } => {
                write!(f, "somebody did not come through the relay: {why}")?;
                more(f, *unnoted)
            }
            Self::AgentStarted { provider, proc, pid } => {
                write!(f, "{provider} {} started, pid {pid}", proc.0)
            }
            Self::AgentNotStarted { provider, fault } => match fault {
                ProgramFault::Missing => write!(f, "{provider} is no longer there"),
                ProgramFault::Unsafe(why) => {
                    write!(f, "{provider} is not trusted: {}", visible_line(why))
                }
                ProgramFault::Failed(why) => {
                    write!(f, "{provider} did not start: {}", visible_line(why))
                }
            },
            Self::AgentEnded { provider, proc, code, was_told } => {
                write!(f, "{provider} {} ended ", proc.0)?;
                match code {
                    Some(code) => write!(f, "with exit code {code}")?,
                    None => f.write_str("by a signal")?,
                }
                f.write_str(if *was_told { ", as it was told to" } else { "" })
            }
        }
    }
}

fn more(f: &mut fmt::Formatter<'_>, unnoted: u32) -> fmt::Result {
    match unnoted {
        0 => Ok(()),
        more => write!(f, " (and {more} times more since the last such line)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::{String, ToString};
    use core::net::{IpAddr, Ipv4Addr};

    #[test]
    fn k1_a_note_is_one_line_whatever_the_system_says() {
        let why = String::from("\u{1b}[2J\nforged");
        for note in [
            Note::AgentNotStarted { provider: "claude", fault: ProgramFault::Failed(why.clone()) },
            Note::AgentNotStarted { provider: "claude", fault: ProgramFault::Unsafe(why.clone()) },
            Note::StoreFailed { fault: StoreFault::Failed(why.clone()), unnoted: 0 },
        ] {
            let line = note.to_string();
            assert!(line.ends_with(r"\u{1b}[2J\u{a}forged"), "{line}");
        }
        let retry = Duration::from_millis(1500);
        let note = Note::RelayLost { why: "because".into(), detail: Some(why), retry, unnoted: 1 };
        let line = r"no relay: because (\u{1b}[2J\u{a}forged); trying again in 1.5 s (and 1 times more since the last such line)";
        assert_eq!(note.to_string(), line);
    }

    #[test]
    fn a_note_says_what_has_no_line_of_its_own() {
        let source = Source::Tcp(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let note = Note::Refused { source, unnoted: 0 };
        assert_eq!(note.to_string(), "turned away a stranger from 127.0.0.1");
        let note = Note::StoreFailed { fault: StoreFault::Full, unnoted: 7 };
        let line = "cannot store: no space left (and 7 times more since the last such line)";
        assert_eq!(note.to_string(), line);
        let ended = |code, was_told| {
            let note = Note::AgentEnded { provider: "codex", proc: ProcId(3), code, was_told };
            note.to_string()
        };
        assert_eq!(ended(Some(1), false), "codex 3 ended with exit code 1");
        assert_eq!(ended(None, true), "codex 3 ended by a signal, as it was told to");
    }
}
