//! Everything that the core wants done.
//!
//! Owns the one way out; refuses to know how it is done. Imperative verbs all. The runtime does them in order.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::fingerprint::Fingerprint;
use super::id::{ApprovalId, AskId, ConnId, DeviceId, LegId, MessageId, OpId, ProcId, SessionId};
use super::note::Note;
use super::record::{
    AuditRecord, Chapter, DeviceRecord, EventRecord, MessageRecord, PairingHistory, RelaySettings,
    SessionRecord, ToolCallRecord,
};
use super::time::Unix;
use crate::access::token::Secret;
use crate::relay::RelayUrl;

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Answer the request head, flush, and close the TCP connection. Nothing after the head is read.
    Respond {
        /// The connection.
        conn: ConnId,
        /// What to answer.
        response: Response,
    },
    /// Answer the request head with 101 and speak WebSocket from then on.
    Upgrade {
        /// The connection.
        conn: ConnId,
        /// The peer's `Sec-WebSocket-Key`.
        key: String,
        /// A longer message is reported as [`MessageFault::TooLarge`](crate::MessageFault::TooLarge).
        message_bytes_max: usize,
    },
    /// From the next message on, this is the longest that is read.
    Admit {
        /// The connection.
        conn: ConnId,
        /// Bytes.
        message_bytes_max: usize,
    },
    /// Send one text message, unfragmented, to each of these.
    Send {
        /// To whom.
        to: To,
        /// The text; serialised once, however many get it.
        text: String,
    },
    /// Flush what was sent before, briefly, then end the connection: with this close code if it speaks WebSocket.
    Close {
        /// The connection.
        conn: ConnId,
        /// RFC 6455, section 7.4.
        code: u16,
        /// For people.
        reason: &'static str,
    },
    /// Read nothing more from it until told so.
    Pause {
        /// The connection.
        conn: ConnId,
    },
    /// Read again.
    Resume {
        /// The connection.
        conn: ConnId,
    },
    /// Make these changes durable, all or none, and say so with [`Input::Stored`](crate::Input::Stored).
    Store {
        /// The operation's name.
        op: OpId,
        /// The changes, in order.
        changes: Vec<Change>,
        /// How sure they must be before it is said.
        sync: Sync,
    },
    /// Find something out and say it with [`Input::Answered`](crate::Input::Answered).
    Ask {
        /// The question's name.
        ask: AskId,
        /// The question.
        question: Question,
    },
    /// Start a child, in a process group of its own, under the guard.
    Spawn {
        /// Its name.
        proc: ProcId,
        /// What to start.
        command: Command,
    },
    /// Write to a child's standard input.
    Feed {
        /// The child.
        proc: ProcId,
        /// What to write.
        bytes: Vec<u8>,
    },
    /// Close a child's standard input once everything fed was written.
    Finish {
        /// The child.
        proc: ProcId,
    },
    /// End a child and all its descendants: politely, then not.
    Kill {
        /// The child.
        proc: ProcId,
    },
    /// Connect to a relay, and say what came of it with [`Input::Dialed`](crate::Input::Dialed).
    Dial {
        /// The connection's name.
        leg: LegId,
        /// Where to, and what for.
        dial: Dial,
    },
    /// Send one text message over a leg.
    Say {
        /// The leg.
        leg: LegId,
        /// The text.
        text: String,
    },
    /// Flush what was said, briefly, then end the leg; one that is still being made is given up.
    HangUp {
        /// The leg.
        leg: LegId,
    },
    /// Write a line into the owner's log, with the time before it.
    Log {
        /// What it says.
        note: Note,
    },
    /// The daemon is done: flush briefly and return from the loop. The last effect ever.
    Stop,
}

/// Whom to send to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum To {
    /// One connection.
    One(ConnId),
    /// Several, in this order.
    Many(Vec<ConnId>),
}

/// An HTTP answer. `Connection: close` and `Content-Length` are always added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The reason phrase.
    pub reason: &'static str,
    /// The media type of the body.
    pub content_type: &'static str,
    /// One more header, such as `WWW-Authenticate`.
    pub header: Option<(&'static str, &'static str)>,
    /// The body.
    pub body: Cow<'static, str>,
}

/// How sure a change must be before it is called stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sync {
    /// It survives a crash of the process.
    Process,
    /// It survives a loss of power too: grants, revocations, and what limits guesses.
    Disk,
}

/// One change of stored state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Insert or replace the device.
    PutDevice(DeviceRecord),
    /// The device was seen.
    TouchDevice {
        /// Which.
        id: DeviceId,
        /// When.
        at: Unix,
        /// How it came.
        via: &'static str,
    },
    /// Append the device to the tombstone file, once and for ever.
    Bury(DeviceId),
    /// Replace the local token's file.
    PutLocalToken(Secret),
    /// Replace the daemon's name.
    PutName(String),
    /// Replace what is known about failed pairing.
    PutPairing(PairingHistory),
    /// Replace what the owner wants of a relay.
    PutRelay(RelaySettings),
    /// Replace the identity's key by a new one; the old one is gone from the disk.
    ResetIdentity,
    /// Insert or replace the session.
    PutSession(SessionRecord),
    /// Delete the session, its messages, its tool calls and the events that tell of it.
    DeleteSession(SessionId),
    /// Insert or replace the message.
    PutMessage(MessageRecord),
    /// Insert or replace the tool call.
    PutToolCall(ToolCallRecord),
    /// Append to the audit log. It comes before all else of the operation: what cannot be written down does not
    /// happen (security H8).
    Audit(AuditRecord),
    /// Begin a chapter of the journal.
    BeginChapter {
        /// The chapter.
        chapter: Chapter,
        /// How many are kept, with this one: the newest.
        count_max: usize,
    },
    /// Append the event to the journal. Its number is greater than that of every event before it.
    PutEvent(EventRecord),
    /// Forget the oldest events, and remember the number up to which that was done.
    PruneEvents {
        /// Those from before this.
        before: Unix,
        /// Those beyond this many of the newest.
        count_max: usize,
        /// Those beyond this many bytes of text of the newest.
        bytes_max: usize,
    },
    /// These event numbers and this time have been used.
    Advance {
        /// The last event number.
        seq: u64,
        /// The wall clock.
        unix: Unix,
    },
}

/// One question to the world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// Is this an existing directory, and which really?
    Directory {
        /// An absolute path.
        path: String,
    },
    /// A page of a session's messages: the last `limit` before `before`, or the first after `after`, or the last.
    Messages {
        /// Whose.
        session: SessionId,
        /// Only those with a lower ordinal than this message's.
        before: Option<MessageId>,
        /// Only those with a higher ordinal than this message's.
        after: Option<MessageId>,
        /// How many at most.
        limit: usize,
        /// Bytes of content at most; the one nearest to the cursor is told whatever its size.
        bytes_max: usize,
    },
    /// The message that its sender called so.
    MessageByClientId {
        /// In this session.
        session: SessionId,
        /// The sender's id for it.
        client_id: String,
    },
    /// A page of a session's tool calls, the last before `before`.
    ToolCalls {
        /// Whose.
        session: SessionId,
        /// Only those made before this one.
        before: Option<super::id::ToolCallId>,
        /// How many at most.
        limit: usize,
        /// Bytes of content at most; the one nearest to the cursor is told whatever its size.
        bytes_max: usize,
    },
    /// One tool call.
    ToolCall {
        /// In this session.
        session: SessionId,
        /// Which.
        id: super::id::ToolCallId,
    },
    /// The tool call that was last asked for under this approval's id.
    Approval {
        /// The id.
        id: ApprovalId,
    },
    /// Lines of the audit log, the newest first.
    Audit {
        /// Only those about this session.
        session: Option<SessionId>,
        /// Only those before this one.
        before: Option<u64>,
        /// How many at most.
        limit: usize,
        /// Bytes at most; at least one line is always told.
        bytes_max: usize,
    },
    /// A page of the journal, oldest first.
    Events {
        /// Only those with a greater number.
        after: u64,
        /// Only those up to this number.
        through: u64,
        /// How many at most.
        limit: usize,
        /// Bytes of text at most; the first is told whatever its size.
        bytes_max: usize,
    },
    /// The identity's signature over this (ECDSA, P-256, SHA-256).
    Sign {
        /// What is signed.
        message: Vec<u8>,
    },
    /// This machine's own addresses that peers beyond it can reach us at: none while we listen on loopback only.
    Addresses,
    /// Find a program, check that it may be trusted, and run it this way and that.
    Probe {
        /// The program.
        program: Program,
        /// The arguments of each run.
        runs: Vec<Vec<String>>,
        /// Its environment.
        env: Env,
        /// For each run.
        timeout: Duration,
    },
}

/// A WebSocket connection to make, as its client. No redirect is followed and no proxy is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dial {
    /// The relay. With `wss` it is TLS 1.3 to a certificate that the system's roots vouch for.
    pub relay: RelayUrl,
    /// The request target.
    pub target: String,
    /// Only to this key, whoever else vouches for it.
    pub pin: Option<Fingerprint>,
    /// What for.
    pub purpose: Purpose,
    /// All of it must be done in this time.
    pub timeout: Duration,
}

/// What a leg is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Text messages, to be [`Heard`](crate::Input::Heard).
    Control,
    /// Binary messages, whose bytes are a stream: on it is a peer's TLS to our own key, as on a TCP connection.
    Tunnel {
        /// The peer's address, as the relay says.
        from: Option<core::net::IpAddr>,
    },
}

/// A program to find (security I2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Its name in `PATH`.
    pub name: &'static str,
    /// Its absolute path, if the owner set one.
    pub path: Option<String>,
    /// Where the program itself is if the one that was found only starts it, as paths from there: the first of them that
    /// is there and may be trusted is run instead.
    pub behind: &'static [&'static str],
}

/// A child's environment: nothing but this (security I3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Env {
    /// Names taken over from the daemon's own environment, where set.
    pub inherit: &'static [&'static str],
    /// Names and values added to them.
    pub set: Vec<(String, Secret)>,
}

/// A child to start. No shell is involved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The program's canonical path, as a [`Probe`](crate::Probe) found it.
    pub program: String,
    /// Its arguments. No prompt and no secret is ever among them (I1, A8).
    pub args: Vec<String>,
    /// Its working directory.
    pub cwd: String,
    /// The repository that it works in, if it works in one: its program must not come out of that (security I2).
    pub repository: Option<String>,
    /// Its environment.
    pub env: Env,
}

/// Where handlers put effects; the runtime takes them out, in order, all of them, after each call.
#[derive(Debug, Default)]
pub struct Effects {
    list: Vec<Effect>,
}

impl Effects {
    /// An empty sink. Use one for the whole life of a runtime: its memory is kept.
    #[must_use]
    pub const fn new() -> Self {
        Self { list: Vec::new() }
    }

    /// Takes everything out, in order.
    pub fn drain(&mut self) -> alloc::vec::Drain<'_, Effect> {
        self.list.drain(..)
    }

    /// How many are waiting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// None is waiting.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(crate) fn push(&mut self, effect: Effect) {
        self.list.push(effect);
    }

    pub(crate) fn send(&mut self, conn: ConnId, text: String) {
        self.push(Effect::Send { to: To::One(conn), text });
    }
}
