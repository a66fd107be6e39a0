//! Who may come in: pairing, devices, the local token.

use clap::{Args, Subcommand, ValueEnum};

/// What a device may do; each may also do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    Read,
    Approve,
    Full,
    Admin,
}

impl Role {
    /// As the daemon calls it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Approve => "approve",
            Self::Full => "full",
            Self::Admin => "admin",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Pair {
    /// What the device may do: read, approve, full or admin
    #[arg(long, value_name = "ROLE", hide_possible_values = true)]
    pub(crate) role: Option<Role>,
    /// What to call the device, whatever it calls itself
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Listen on the local network first, which takes a restart
    #[arg(long, conflicts_with = "local")]
    pub(crate) lan: bool,
    /// Only for programs on this machine: show the PIN, and no code
    #[arg(long)]
    pub(crate) local: bool,
    /// Do not ask: neither before a restart nor before the device is let in
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Draw with `##` instead of half blocks
    #[arg(long)]
    pub(crate) ascii: bool,
    /// Allow pairing again after too many wrong codes had turned it off
    #[arg(long)]
    pub(crate) unlock: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Identity {
    /// Print the id by which devices know this daemon
    Show,
    /// Take a new key and id; every device is revoked and must be paired anew
    #[command(after_help = "rpc: daemon.resetIdentity")]
    Reset {
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Device {
    /// List paired devices
    #[command(alias = "ls", after_help = "rpc: device.list")]
    List {
        /// Revoked ones too
        #[arg(long)]
        all: bool,
    },
    /// Give a device another name
    #[command(after_help = "rpc: device.rename")]
    Rename {
        /// An id, or a unique beginning of one
        id: String,
        /// The new name
        name: String,
    },
    /// Shut a device out, at once and for ever
    #[command(alias = "rm", after_help = "rpc: device.revoke")]
    Revoke {
        /// An id, or a unique beginning of one
        id: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Change what a device may do
    #[command(after_help = "rpc: device.setRole")]
    Role {
        /// An id, or a unique beginning of one
        id: String,
        /// read, approve, full or admin
        #[arg(hide_possible_values = true)]
        role: Role,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Print the local token, and nothing else
    Show,
    /// Show a QR code that pairs one device, once
    #[command(after_help = "rpc: daemon.pairPin")]
    Qr {
        /// Draw the local token itself instead: whoever photographs it owns this machine
        #[arg(long)]
        token: bool,
        /// Do not ask
        #[arg(short, long, requires = "token")]
        yes: bool,
        /// Draw with `##` instead of half blocks
        #[arg(long)]
        ascii: bool,
    },
    /// Replace the local token; every client that uses it is disconnected
    #[command(after_help = "rpc: daemon.rotateToken")]
    Rotate,
    /// Print where the token is kept
    Path,
}
