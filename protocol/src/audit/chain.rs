//! A record becomes a line.
//!
//! Owns the one form of a line and the hash that ties it to the line before; refuses to know where lines are kept.
//!
//! ```text
//! {"n":17,"prev":"<hash of line 16>","at":"…","kind":"decided",…,"hash":"<SHA-256 of all before this member>"}
//! ```
//!
//! The hash is of the text as it stands, so a verifier needs no idea of what the members mean, and a later clawd may add
//! some. Free text is redacted and made visible here, the last place before the disk: a room of the core that forgets to
//! cannot leak.

use alloc::format;
use alloc::string::String;
use core::fmt;
use core::fmt::Write as _;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::redact::bounded;
use crate::contract::id::{DeviceId, SessionId, ToolCallId};
use crate::contract::record::{AuditKind, AuditRecord, DecisionKind, Role};
use crate::contract::time::Unix;
use crate::text::visible_line;

/// Longest free text in a line, in characters.
const TEXT_CHARS_MAX: usize = 512;

/// The hash of a line. Before the first one it is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Link([u8; 32]);

impl Link {
    /// From what was stored.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// To be stored.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 32] {
        self.0
    }

    fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// Only the form that [`fmt::Display`] gives: one line has one text.
    fn parse(hex: &str) -> Option<Self> {
        let digits = hex.as_bytes();
        let is_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if digits.len() != 64 || !digits.iter().all(is_hex) {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            *byte = u8::from_str_radix(core::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The end of a chain: what the next line ties on to. A copy of it is the way back when a line could not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Chain {
    /// The number of the last line; the first is 1.
    pub n: u64,
    /// Its hash.
    pub head: Link,
}

/// A record's members in their order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Members<'a> {
    at: Unix,
    kind: AuditKind,
    actor: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    via: Option<&'a str>,
    #[serde(rename = "sessionId", skip_serializing_if = "Option::is_none")]
    session: Option<SessionId>,
    #[serde(rename = "toolCallId", skip_serializing_if = "Option::is_none")]
    tool_call: Option<ToolCallId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input_sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<DecisionKind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    #[serde(rename = "deviceId", skip_serializing_if = "Option::is_none")]
    device: Option<DeviceId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<Role>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

impl Chain {
    /// The next line, newline included; from here on it is the last one.
    #[must_use = "a line that is not written breaks the chain"]
    pub fn append(&mut self, record: &AuditRecord) -> String {
        let members = serde_json::to_string(&members(record)).unwrap_or_default();
        let n = self.n.saturating_add(1);
        let members = members.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
        let mut line = format!("{{\"n\":{n},\"prev\":\"{}\",{}", self.head, members.unwrap_or(""));
        let head = Link::of(&line);
        let _ = write!(line, ",\"hash\":\"{head}\"}}");
        line.push('\n');
        *self = Self { n, head };
        line
    }
}

fn members(record: &AuditRecord) -> Members<'_> {
    Members {
        at: record.at,
        kind: record.kind,
        actor: &record.actor,
        via: record.via.as_deref(),
        session: record.session,
        tool_call: record.tool_call,
        provider: record.provider.as_deref(),
        tool: record.tool.as_deref().map(free_text),
        input_sha256: record.input_sha256.map(|hash| format!("{}", Link(hash))),
        input: record.input.as_deref().map(free_text),
        decision: record.decision,
        rule: record.rule.as_deref().map(free_text),
        device: record.device,
        role: record.role,
        first: record.first,
        count: record.count,
        note: record.note.as_deref().map(free_text),
    }
}

/// What others wrote: without secrets, without what a terminal would act on, and not too long.
fn free_text(text: &str) -> String {
    visible_line(&bounded(text, TEXT_CHARS_MAX)).into_owned()
}

/// A line, as far as the chain needs to read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// Its number.
    pub n: u64,
    /// The hash of the line before it, as it says.
    pub prev: Link,
    /// Its own hash, as it says.
    pub hash: Link,
    /// Its text hashes to what it says.
    pub is_genuine: bool,
    text: &'a str,
}

impl<'a> Line<'a> {
    /// Reads a line without its newline; `None` if it has not the form of one.
    #[must_use]
    pub fn read(line: &'a [u8]) -> Option<Self> {
        let text = core::str::from_utf8(line).ok()?;
        let (hashed, hash) = text.strip_suffix("\"}")?.rsplit_once(",\"hash\":\"")?;
        let hash = Link::parse(hash)?;
        let (n, rest) = text.strip_prefix("{\"n\":")?.split_once(",\"prev\":\"")?;
        let (prev, _) = rest.split_once('"')?;
        let n = n.parse().ok().filter(|n| *n > 0)?;
        Some(Self { n, prev: Link::parse(prev)?, hash, is_genuine: Link::of(hashed) == hash, text })
    }

    /// It is a record of this kind.
    #[must_use]
    pub fn is(&self, kind: AuditKind) -> bool {
        // After `prev` comes `at`, both of fixed length, and then `kind`: free text cannot stand there.
        self.member("kind").is_some_and(|rest| {
            rest.strip_prefix('"').and_then(|rest| rest.split_once('"')).map(|(word, _)| word)
                == Some(kind.as_str())
        })
    }

    /// It is about this session.
    #[must_use]
    pub fn is_about(&self, session: SessionId) -> bool {
        // Quotes inside of free text are escaped, so this stands in a line as a member or not at all.
        self.text.contains(&format!(",\"sessionId\":\"{session}\","))
    }

    /// In [`AuditKind::Continued`]: the oldest line that was kept.
    #[must_use]
    pub fn first(&self) -> Option<u64> {
        let rest = self.member("first")?;
        rest.split(|char: char| !char.is_ascii_digit()).next()?.parse().ok()
    }

    /// The text from a member's value on.
    fn member(&self, name: &str) -> Option<&'a str> {
        self.text.split_once(&format!(",\"{name}\":")).map(|(_, rest)| rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn record(note: &str) -> AuditRecord {
        let mut record =
            AuditRecord::new(Unix::from_millis(1_795_344_000_000), AuditKind::Damaged, "daemon");
        record.note = Some(note.to_string());
        record.count = Some(3);
        record
    }

    #[test]
    fn h8_a_line_has_one_form_and_carries_the_hash_of_the_one_before() {
        let mut chain = Chain::default();
        let first = chain.append(&record("one"));
        assert_eq!(
            first,
            "{\"n\":1,\"prev\":\"0000000000000000000000000000000000000000000000000000000000000000\",\
             \"at\":\"2026-11-22T10:40:00.000Z\",\"kind\":\"damaged\",\"actor\":\"daemon\",\
             \"count\":3,\"note\":\"one\",\
             \"hash\":\"4f8f2f6a\"}\n"
                .replace("4f8f2f6a", &chain.head.to_string())
        );
        let before = chain.head;
        let second = chain.append(&record("two"));
        let line = Line::read(second.trim_end().as_bytes()).unwrap();
        assert_eq!((line.n, line.prev, line.hash), (2, before, chain.head));
        assert!(line.is_genuine && line.is(AuditKind::Damaged) && !line.is(AuditKind::Paired));
    }

    #[test]
    fn h8_every_changed_byte_of_a_line_is_noticed() {
        let text = Chain::default().append(&record("rm -rf \"/\""));
        let good = text.trim_end().as_bytes();
        for at in 0..good.len() {
            let mut bad = good.to_vec();
            bad[at] ^= 1;
            let is_fooled = Line::read(&bad).is_some_and(|line| line.is_genuine);
            assert!(!is_fooled, "at {at}");
        }
    }

    #[test]
    fn h8_what_others_wrote_can_neither_forge_members_nor_hide() {
        let session: SessionId = "00000000-0000-4000-8000-000000000001".parse().unwrap();
        let forged = format!("x\",\"kind\":\"paired\",\"sessionId\":\"{session}\",\"y\n{{\u{202e}");
        let text = Chain::default().append(&record(&forged));
        assert_eq!(text.matches('\n').count(), 1);
        assert!(!text.contains('\u{202e}'), "{text}");
        let line = Line::read(text.trim_end().as_bytes()).unwrap();
        assert!(line.is(AuditKind::Damaged) && !line.is_about(session));
        let mut about = record("");
        about.session = Some(session);
        let text = Chain::default().append(&about);
        assert!(Line::read(text.trim_end().as_bytes()).unwrap().is_about(session));
    }

    #[test]
    fn h8_no_text_is_too_long_for_a_line() {
        let mut long = record(&"x".repeat(1 << 20));
        long.tool = Some("y".repeat(1 << 20));
        assert!(Chain::default().append(&long).len() < 16 * 1024);
    }
}
