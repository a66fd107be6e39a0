//! Whose fault it is: the peer's, nobody's, or our runtime's.
//!
//! Owns what the world may report as failed; refuses to know how a refusal looks on the wire (`wire::rpc` does).

use alloc::string::String;

/// A request head that is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadFault {
    /// Not HTTP/1.1 as RFC 9112 has it.
    Malformed,
    /// More bytes or headers than the limits allow.
    TooLarge,
}

/// A message that is not one: the peer broke RFC 6455 or our limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageFault {
    /// A binary message; only text is spoken here.
    Binary,
    /// More bytes than the limit in force.
    TooLarge,
    /// Text that is not UTF-8.
    NotUtf8,
    /// Any other violation of the framing: no mask, reserved bits, a fragment out of place, …
    Framing,
}

/// A connection to a relay that could not be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DialFault {
    /// There is no address for its name.
    Unresolved,
    /// Nobody answers there, or the way is barred; the system's words, for the owner.
    Unreachable(String),
    /// It was not done in time.
    TimedOut,
    /// Its TLS is older than 1.3.
    TooOld,
    /// By the clock here, its certificate is not valid yet.
    NotYetValid,
    /// By the clock here, its certificate is no longer valid.
    Expired,
    /// No TLS, or a certificate that nobody vouches for; what TLS says, for the owner.
    Tls(String),
    /// Its key is not the one that the owner has pinned.
    WrongPin,
    /// It wants us to go elsewhere, and we do not follow.
    Redirected,
    /// It answered the WebSocket handshake with this status.
    Rejected(u16),
    /// What it answered is no WebSocket handshake.
    NotWebSocket,
    /// There was no room for one more.
    Busy,
}

/// The store could not do it. Nothing of the operation was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreFault {
    /// No space left.
    Full,
    /// Anything else; the text is for the log only.
    Failed(String),
}

/// A path that cannot be worked in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathFault {
    /// Nothing is there.
    Missing,
    /// Something is there, and it is not a directory.
    NotADirectory,
    /// The operating system does not let us look.
    Denied,
}

/// A program that cannot be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProgramFault {
    /// Not found.
    Missing,
    /// Found, and not trusted (security I2): the text says which rule it breaks.
    Unsafe(String),
    /// Trusted, and it did not start.
    Failed(String),
}
