//! Every number that bounds a relay.
//!
//! Owns sizes, counts and times; refuses to know who asks for them. An *address* is what
//! [`access`](crate::access) counts as one: an IPv4 address, the /64 of an IPv6 address, or this machine.

use core::time::Duration;

/// The bounds of one relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayLimits {
    /// Connections in total. Each costs a descriptor; whoever comes when there are so many is closed.
    pub connections_max: usize,
    /// Connections of one address. A daemon has one and one more for each stream.
    pub connections_per_address: u32,
    /// Connections that have not said who they are. For one that is too many a random one of them goes: turning
    /// newcomers away would let silent sockets keep everybody out.
    pub handshakes_max: usize,
    /// From accept to a whole request head.
    pub head_timeout: Duration,
    /// From `challenge` to `register`.
    pub register_timeout: Duration,
    /// Daemons that are registered.
    pub registrations_max: usize,
    /// From `invite` to `accept`; a ticket lives no longer.
    pub invite_timeout: Duration,
    /// Invitations in total that nobody has accepted yet.
    pub invites_max: usize,
    /// Such invitations of one daemon.
    pub invites_per_id: usize,
    /// Such invitations for clients of one address.
    pub invites_per_address: u32,
    /// Streams to one daemon.
    pub streams_per_id: usize,
    /// A stream of which neither leg says anything, not even a ping, is closed after this.
    pub stream_idle: Duration,
    /// Control connections that one address may open in [`Self::rate_span`].
    pub registers_per_span: u32,
    /// Streams that one address may ask for in [`Self::rate_span`].
    pub connects_per_span: u32,
    /// See the two before.
    pub rate_span: Duration,
    /// Addresses that are remembered without a connection; the one that left first is forgotten first.
    pub addresses_max: usize,
    /// A control connection is asked to say `ping` this often, and is given up after three times as long.
    pub ping_every: Duration,
    /// One message on a control connection.
    pub control_bytes_max: usize,
    /// A leg is not read while more than this waits to be written to the other.
    pub queue_bytes_max: usize,
}

impl Default for RelayLimits {
    fn default() -> Self {
        Self {
            connections_max: 20_000,
            connections_per_address: 1_000,
            handshakes_max: 1_000,
            head_timeout: Duration::from_secs(10),
            register_timeout: Duration::from_secs(10),
            registrations_max: 10_000,
            invite_timeout: Duration::from_secs(10),
            invites_max: 2_000,
            invites_per_id: 16,
            invites_per_address: 32,
            streams_per_id: 64,
            stream_idle: Duration::from_secs(15 * 60),
            registers_per_span: 60,
            connects_per_span: 300,
            rate_span: Duration::from_secs(60),
            addresses_max: 20_000,
            ping_every: Duration::from_secs(30),
            control_bytes_max: 4 * 1024,
            queue_bytes_max: 256 * 1024,
        }
    }
}
