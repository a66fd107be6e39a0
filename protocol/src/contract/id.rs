//! Names of things: who creates a resource names it, and a name is never used again.
//!
//! Owns the identifier types; refuses to know what they stand for. All are small `Copy` values with a total order, so
//! that every table can be an ordered map and a run is the same on every machine.

use core::fmt;
use core::str::FromStr;
use uuid::Uuid;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

number!(
    /// A connection; named by the runtime when it accepts one.
    ConnId
);
number!(
    /// A storage operation; named by the core in [`Effect::Store`](crate::Effect::Store).
    OpId
);
number!(
    /// A question to the world; named by the core in [`Effect::Ask`](crate::Effect::Ask).
    AskId
);
number!(
    /// A child process; named by the core in [`Effect::Spawn`](crate::Effect::Spawn).
    ProcId
);

number!(
    /// A connection that we make, to a relay; named by the core in [`Effect::Dial`](crate::Effect::Dial).
    LegId
);

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::from_str(text).map(Self)
            }
        }
    };
}

uuid_id!(
    /// A session: one conversation with one agent in one directory. A random UUID (version 4).
    SessionId
);
uuid_id!(
    /// A message of a session.
    MessageId
);
uuid_id!(
    /// A tool call of a session. Ours, not the provider's: theirs are text that a model's server chose.
    ToolCallId
);

/// An approval: SHA-256 over what was asked for, so that another input is another approval (security H3). Its text is
/// hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApprovalId(pub [u8; 32]);

impl fmt::Display for ApprovalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The text is not 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAnApprovalId;

impl fmt::Display for NotAnApprovalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an approval's id is 64 hexadecimal digits")
    }
}

impl core::error::Error for NotAnApprovalId {}

impl FromStr for ApprovalId {
    type Err = NotAnApprovalId;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 64 || !text.bytes().all(is_hex) {
            return Err(NotAnApprovalId);
        }
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let pair = core::str::from_utf8(pair).map_err(|_| NotAnApprovalId)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| NotAnApprovalId)?;
        }
        Ok(Self(digest))
    }
}

impl serde::Serialize for ApprovalId {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// A paired device: the eight Base62 characters that also select its token's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(pub [u8; 8]);

impl DeviceId {
    /// The id as text; always eight ASCII letters and digits when it came through [`FromStr`] or the generator.
    #[must_use]
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.0).unwrap_or("????????")
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is not eight Base62 characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotADeviceId;

impl fmt::Display for NotADeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a device id is eight letters and digits")
    }
}

impl core::error::Error for NotADeviceId {}

impl FromStr for DeviceId {
    type Err = NotADeviceId;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes: [u8; 8] = text.as_bytes().try_into().map_err(|_| NotADeviceId)?;
        if bytes.iter().all(u8::is_ascii_alphanumeric) {
            Ok(Self(bytes))
        } else {
            Err(NotADeviceId)
        }
    }
}

impl serde::Serialize for DeviceId {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.as_str())
    }
}
