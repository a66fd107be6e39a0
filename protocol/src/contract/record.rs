//! What is kept on disk, in the words of the domain.
//!
//! Owns the records that travel between core and store; refuses to know SQL, and how a record looks on the wire.

use alloc::string::String;
use alloc::vec::Vec;

use super::fingerprint::Fingerprint;
use super::id::{ApprovalId, DeviceId, MessageId, SessionId, ToolCallId};
use super::time::Unix;
use crate::access::token::Secret;
use crate::relay::RelayUrl;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// The word on the wire and in the database.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// The value for a word; `None` if there is none.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(self.as_str())
            }
        }
    };
}

mod audit;

pub use audit::{AuditKind, AuditRecord};

words!(
    /// What a caller may do; each includes those before it. Only the holder of the local token is `Owner`.
    Role {
        /// See, but touch nothing.
        Read = "read",
        /// Decide on tool calls.
        Approve = "approve",
        /// Run sessions.
        Full = "full",
        /// Manage devices.
        Admin = "admin",
        /// Everything; never given to a device.
        Owner = "owner",
    }
);

words!(
    /// The state of a session.
    SessionStatus {
        /// No turn is running.
        Idle = "idle",
        /// A turn is running.
        Running = "running",
        /// Messages are refused until it is resumed.
        Paused = "paused",
        /// A turn has just ended well; announced, never stored.
        Completed = "completed",
        /// The last turn ended badly.
        Error = "error",
    }
);

words!(
    /// Who wrote a message.
    Author {
        /// A person.
        User = "user",
        /// The agent.
        Assistant = "assistant",
        /// The daemon.
        System = "system",
        /// A tool.
        Tool = "tool",
    }
);

words!(
    /// The state of a message or tool call. A tool call that is `Pending` waits for a person.
    Progress {
        /// Waiting.
        Pending = "pending",
        /// Text is still coming.
        Streaming = "streaming",
        /// A tool runs.
        Running = "running",
        /// Finished.
        Done = "done",
        /// Failed, denied or cut off.
        Error = "error",
    }
);

words!(
    /// How a decision came about.
    DecisionKind {
        /// Allowed this once.
        AllowOnce = "allow_once",
        /// Allowed for the rest of the session.
        AllowSession = "allow_session",
        /// Denied by somebody.
        Deny = "deny",
        /// Nobody decided in time, or the agent went away.
        Expired = "expired",
        /// The turn was cancelled.
        Cancelled = "cancelled",
    }
);

words!(
    /// What an agent asks for when it asks.
    AskKind {
        /// Leave to use a tool.
        Tool = "tool",
        /// An answer.
        Question = "question",
        /// Leave to carry out a plan.
        Plan = "plan",
    }
);

/// A paired device. The token itself is nowhere; only its digest is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRecord {
    /// Its id, which selects the row.
    pub id: DeviceId,
    /// Its name, as its owner typed it.
    pub name: String,
    /// `ios`, `android`, `macos`, … as it said.
    pub platform: String,
    /// What it may do.
    pub role: Role,
    /// SHA-256 of its token (security E1).
    pub token_sha256: [u8; 32],
    /// SHA-256 of the token it is changing to (E5).
    pub next_token_sha256: Option<[u8; 32]>,
    /// When the rotation began, if one is under way.
    pub rotated_at: Option<Unix>,
    /// When it was paired.
    pub created_at: Unix,
    /// When it last spoke.
    pub last_seen_at: Unix,
    /// How it last came: `unix`, `loopback`, …
    pub last_via: String,
    /// When its token ends whatever happens; `None` for never.
    pub expires_at: Option<Unix>,
    /// When it was revoked.
    pub revoked_at: Option<Unix>,
    /// Its own key, if it showed one when it was paired: its token works with no other (security E6).
    pub key: Option<Fingerprint>,
}

/// What the owner wants of a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelaySettings {
    /// Whether it is used at all.
    pub enabled: bool,
    /// Which.
    pub url: RelayUrl,
    /// Only with this key.
    pub pin: Option<Fingerprint>,
    /// What it wants to see before it takes a registration.
    pub access_token: Option<Secret>,
}

/// Tokens and money of a session so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Tokens read.
    pub input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// Cost in millionths of a US dollar, where the provider says it.
    pub cost_micro_usd: Option<u64>,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRecord {
    /// Its id.
    pub id: SessionId,
    /// The canonical directory in which the agent works.
    pub repo_path: String,
    /// Its title.
    pub title: String,
    /// The name of the agent that works in it.
    pub provider: String,
    /// Its state.
    pub status: SessionStatus,
    /// When it was made.
    pub created_at: Unix,
    /// When it last changed.
    pub updated_at: Unix,
    /// Messages so far; also the next message's ordinal.
    pub message_count: u64,
    /// The model that the agent says it uses.
    pub model: Option<String>,
    /// The model that the owner asked for.
    pub model_override: Option<String>,
    /// The agent's own id of the conversation; empty where the agent chooses it and has not yet.
    pub agent_session: String,
    /// The agent has written that conversation down: continue it rather than begin it.
    pub agent_resumable: bool,
    /// Tokens and money so far.
    pub usage: Usage,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageRecord {
    /// Its id.
    pub id: MessageId,
    /// Its session.
    pub session: SessionId,
    /// Its place in the session, from 0.
    pub ordinal: u64,
    /// Who wrote it.
    pub author: Author,
    /// Its text.
    pub content: String,
    /// Its state.
    pub status: Progress,
    /// When it was begun.
    pub created_at: Unix,
    /// A JSON object of remarks, such as the error of a failed turn.
    pub metadata: String,
    /// The sender's own id for it, which makes sending again harmless.
    pub client_id: Option<String>,
}

/// Who decided on a tool call, when and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// `owner`, a device's id, `policy`, or `daemon`.
    pub by: String,
    /// When.
    pub at: Unix,
    /// How.
    pub kind: DecisionKind,
}

/// A tool call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCallRecord {
    /// Its id.
    pub id: ToolCallId,
    /// Its session.
    pub session: SessionId,
    /// The assistant's message that made it.
    pub message: MessageId,
    /// The provider's id for it.
    pub provider_id: String,
    /// The tool's name.
    pub name: String,
    /// The tool's input: a JSON object, exactly as the agent sent it.
    pub input: String,
    /// Its state.
    pub status: Progress,
    /// `low` for the listed read-only tools, `high` for all others.
    pub risk: String,
    /// When it was made.
    pub created_at: Unix,
    /// When its result came.
    pub completed_at: Option<Unix>,
    /// Somebody has or had to decide on it.
    pub requires_approval: bool,
    /// When the decision falls by itself.
    pub expires_at: Option<Unix>,
    /// The decision.
    pub decision: Option<Decision>,
    /// The tool's output.
    pub output: Option<String>,
    /// What is asked for.
    pub kind: AskKind,
    /// The approval's id, once it was asked for.
    pub approval: Option<ApprovalId>,
    /// The rule that says so when somebody has to decide, or that decided.
    pub rule: Option<String>,
    /// Why somebody has to decide, in a sentence.
    pub reason: Option<String>,
    /// The answers to a question: a JSON object of texts, by the question's own text.
    pub answers: Option<String>,
    /// Whoever asked ended with the daemon: the decision is carried out by asking once more.
    pub is_carried: bool,
    /// Clients were told of it: that is written down with the event itself, since the daemon may end before.
    pub is_announced: bool,
}

/// What the core knows about failed pairing, so that a restart forgives nothing (security D2).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PairingHistory {
    /// When windows were closed by wrong guesses, oldest first.
    pub failed_windows: Vec<Unix>,
}

/// What one life of the daemon adds to the journal. A number that was told counts in its own chapter only: a loss of power
/// or an old backup may take events that were told, and their numbers are then used again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chapter {
    /// Its id, random.
    pub id: String,
    /// The last event number before it.
    pub start: u64,
}

/// An event as it was told, kept so that it can be told again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRecord {
    /// Its number; it only rises, and some numbers are never used.
    pub seq: u64,
    /// When it was written down. It never goes back, whatever the clock does.
    pub at: Unix,
    /// The least role that is told.
    pub least_role: Role,
    /// The session that it tells of: it is forgotten with it.
    pub session: Option<SessionId>,
    /// The notification, as it is sent.
    pub text: String,
}

/// A page of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventPage {
    /// Every event up to this number may have been forgotten; none after it was, but with its session.
    pub forgotten: u64,
    /// The events, oldest first. None: there are no more.
    pub events: Vec<EventRecord>,
}
