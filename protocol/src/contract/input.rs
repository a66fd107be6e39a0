//! Everything that the outside can tell the core.
//!
//! Owns the one way in; refuses to know what an input means. Past participles all: each has happened already.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use super::error::{DialFault, HeadFault, MessageFault, PathFault, ProgramFault, StoreFault};
use super::fingerprint::Fingerprint;
use super::id::{AskId, ConnId, LegId, OpId, ProcId};
use super::record::{EventPage, MessageRecord, ToolCallRecord};

/// Where a connection came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The Unix socket in the private data directory.
    Unix,
    /// A TCP listener; the peer's address.
    Tcp(IpAddr),
    /// A relay, which says that the peer has this address. It can say what it wants.
    Relay(Option<IpAddr>),
}

/// A parsed request head (RFC 9112). Nothing in it is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head<'a> {
    /// `GET`, …
    pub method: &'a str,
    /// The request target as sent.
    pub target: &'a str,
    /// The minor version of HTTP/1.
    pub minor: u8,
    /// Names and values in the order sent, names as sent.
    pub headers: &'a [(&'a str, &'a [u8])],
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input<'a> {
    /// The listeners are up.
    Started {
        /// The TCP port that was bound.
        port: u16,
    },
    /// A connection was accepted.
    Opened {
        /// Its name, given by the runtime and never given again.
        conn: ConnId,
        /// Where it came from.
        source: Source,
    },
    /// The connection is TLS 1.3 to our own key, and the handshake is over. Before `Requested`, or never.
    Secured {
        /// The connection.
        conn: ConnId,
        /// The peer's own key, where it has shown one and proved that it has it.
        key: Option<Fingerprint>,
        /// Our own address, where the peer connected to one.
        local: Option<IpAddr>,
    },
    /// A whole request head came, or something that cannot become one. Once per connection.
    Requested {
        /// The connection.
        conn: ConnId,
        /// The head.
        head: Result<Head<'a>, HeadFault>,
    },
    /// The first bytes of a message came, and its last not yet. Not told for messages that arrive whole.
    Began {
        /// The connection.
        conn: ConnId,
    },
    /// A whole text message came.
    Text {
        /// The connection.
        conn: ConnId,
        /// Its text.
        text: &'a str,
    },
    /// The peer sent what is no text message. Nothing more is read from it.
    Broke {
        /// The connection.
        conn: ConnId,
        /// How.
        fault: MessageFault,
    },
    /// Text that was given to [`Effect::Send`](crate::Effect::Send) has left for the socket.
    Flushed {
        /// The connection.
        conn: ConnId,
        /// Bytes of text, without framing. All of them are told once, in any number of pieces.
        bytes: usize,
    },
    /// The connection is gone. Once for every connection, also for those that the core closed.
    Closed {
        /// The connection.
        conn: ConnId,
    },
    /// A storage operation ended: all of it is durable, or nothing of it was done.
    Stored {
        /// The operation.
        op: OpId,
        /// How it ended.
        result: Result<(), StoreFault>,
    },
    /// A question was answered.
    Answered {
        /// The question.
        ask: AskId,
        /// The answer.
        answer: Answer,
    },
    /// A child was started, or could not be.
    Spawned {
        /// The child.
        proc: ProcId,
        /// Its process id.
        result: Result<u32, ProgramFault>,
    },
    /// Bytes given to [`Effect::Feed`](crate::Effect::Feed) were taken by the child's pipe.
    Fed {
        /// The child.
        proc: ProcId,
        /// How many.
        bytes: usize,
    },
    /// A child wrote. Pieces may be cut anywhere.
    Output {
        /// The child.
        proc: ProcId,
        /// Which of its two streams.
        stream: Stream,
        /// What it wrote.
        bytes: &'a [u8],
    },
    /// A child ended and all its output was told. Once for every child that was started.
    Exited {
        /// The child.
        proc: ProcId,
        /// Its exit code; `None` when a signal ended it.
        code: Option<i32>,
    },
    /// A connection that was dialled is there, or will never be. Once for each, also for those that were given up. A tunnel is `Opened` as a connection of its own right
    /// after, and its leg is no more.
    Dialed {
        /// The leg.
        leg: LegId,
        /// Whether it is there.
        result: Result<(), DialFault>,
    },
    /// A whole text message came over a leg.
    Heard {
        /// The leg.
        leg: LegId,
        /// Its text.
        text: &'a str,
    },
    /// A leg is gone. Once for each that was there, also after [`Effect::HangUp`](crate::Effect::HangUp).
    HungUp {
        /// The leg.
        leg: LegId,
    },
    /// Time has passed. Harmless at any moment.
    Tick,
    /// Somebody with power over the process asked it to end.
    Shutdown,
}

/// A child's output stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// The answer to a [`Question`](crate::Question): the variant of the same name, or `Failed`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The canonical path of the directory.
    Directory(Result<String, PathFault>),
    /// Oldest first.
    Messages(Vec<MessageRecord>),
    /// At most one.
    Message(Option<MessageRecord>),
    /// Oldest first.
    ToolCalls(Vec<ToolCallRecord>),
    /// At most one.
    ToolCall(Option<Box<ToolCallRecord>>),
    /// Newest first, each one JSON object.
    Audit(Vec<String>),
    /// Oldest first.
    Events(EventPage),
    /// What the runs of a program printed.
    Probe(Result<Probe, ProgramFault>),
    /// An ECDSA signature (P-256, SHA-256) as ASN.1 DER.
    Signature(Vec<u8>),
    /// Addresses of this machine, each once.
    Addresses(Vec<IpAddr>),
    /// The store could not answer.
    Failed(StoreFault),
}

/// Takes the answer that was asked for out of an [`Answer`].
macro_rules! answers {
    ($($name:ident: $variant:ident($type:ty)),+ $(,)?) => {
        impl Answer {
            $(pub(crate) fn $name(self) -> Result<$type, StoreFault> {
                if let Self::$variant(found) = self { Ok(found) } else { Err(self.fault()) }
            })+
        }
    };
}

answers! {
    directory: Directory(Result<String, PathFault>),
    messages: Messages(Vec<MessageRecord>),
    message: Message(Option<MessageRecord>),
    tool_calls: ToolCalls(Vec<ToolCallRecord>),
    tool_call: ToolCall(Option<Box<ToolCallRecord>>),
    audit: Audit(Vec<String>),
    events: Events(EventPage),
    probe: Probe(Result<Probe, ProgramFault>),
    signature: Signature(Vec<u8>),
    addresses: Addresses(Vec<IpAddr>),
}

impl Answer {
    /// Why there is no such answer; a runtime that answers another question has failed too.
    fn fault(self) -> StoreFault {
        if let Self::Failed(fault) = self {
            return fault;
        }
        StoreFault::Failed(String::from("another question was answered"))
    }
}

/// A program and what it said when run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Its canonical path.
    pub path: String,
    /// One for each run asked for, in order.
    pub runs: Vec<Run>,
}

/// What one run of a program came to. Output is cut at 64 KiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its exit code; `None` when a signal or the timeout ended it.
    pub code: Option<i32>,
    /// Its standard output, as UTF-8 with replacement characters.
    pub stdout: String,
    /// Its standard error, likewise.
    pub stderr: String,
}
