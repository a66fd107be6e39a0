//! Every number that bounds something, in one place.
//!
//! Owns all sizes, counts and times of the protocol; refuses to know who asks for them. A queue, table or wait without
//! a line here is a bug.

use core::time::Duration;

/// The bounds of one daemon. Bytes are bytes of payload; times are from the start of what they bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Request head: bytes until the blank line (security B4).
    pub head_bytes_max: usize,
    /// Request head: number of headers (B4).
    pub headers_max: usize,
    /// From accept to a whole request head (C4).
    pub head_timeout: Duration,
    /// From accept to `daemon.auth` (A5, C4).
    pub auth_timeout: Duration,
    /// From the first byte of a message to its last (C4).
    pub message_timeout: Duration,
    /// One message of a stranger (B6).
    pub message_bytes_stranger: usize,
    /// One message of an authenticated peer (B6).
    pub message_bytes_max: usize,
    /// Nesting of JSON (B6).
    pub json_depth_max: usize,
    /// Requests in one batch (B6).
    pub batch_max: usize,
    /// Unauthenticated connections in total (C3); the Unix socket does not count.
    pub strangers_max: usize,
    /// Unauthenticated connections of one source (C3).
    pub strangers_per_source: usize,
    /// From here on a random stranger is dropped for a new one, ever more often (C3).
    pub strangers_early_drop: usize,
    /// Connections in total.
    pub connections_max: usize,
    /// So many of them are kept for the Unix socket: nobody else can keep the owner out (C3).
    pub connections_reserved: usize,
    /// Sources whose failures are remembered (C2).
    pub sources_max: usize,
    /// Failures of a source that are answered at once (C1).
    pub failures_free: u32,
    /// Longest wait for the answer to a failure (C1).
    pub failure_delay_max: Duration,
    /// A failure of a source is forgotten after this (C1).
    pub failure_decay: Duration,
    /// Lines in the log about one kind of trouble that others can cause, in [`Self::notes_span`].
    pub notes_max: u32,
    /// See [`Self::notes_max`].
    pub notes_span: Duration,
    /// Requests of one connection that have no answer yet (C6).
    pub in_flight_max: usize,
    /// Bytes queued for one connection before streaming updates are skipped for it (C5).
    pub queue_bytes_soft: usize,
    /// Bytes queued for one connection before events are held back from it (C5). Less than [`Self::queue_bytes_max`], so
    /// that answers still find room.
    pub queue_bytes_events: usize,
    /// Bytes queued for one connection before it is closed as lagging (C5).
    pub queue_bytes_max: usize,
    /// How long events are held back from a connection that does not read; then it is closed as lagging (C5).
    pub lag_timeout: Duration,
    /// Costly calls (they start processes or mint secrets) of one connection in a burst (C6).
    pub costly_burst: u32,
    /// One more costly call is allowed after each such time (C6).
    pub costly_every: Duration,
    /// How long a pairing window is open (D1).
    pub pairing_window: Duration,
    /// Wrong PINs or tickets before a window closes (D2).
    pub pairing_runs: u32,
    /// Failed windows in [`Self::pairing_lock_span`] that turn pairing by PIN off (D2).
    pub pairing_failures_max: usize,
    /// See [`Self::pairing_failures_max`].
    pub pairing_lock_span: Duration,
    /// How long somebody is asked whether a device may come in; then it may not (D5).
    pub pairing_confirm: Duration,
    /// How long the world may take to say at which addresses we are.
    pub addresses_timeout: Duration,
    /// Paired devices that are not revoked.
    pub devices_max: usize,
    /// A device token's life (E3).
    pub device_expiry: Duration,
    /// A device token's life without use (E3).
    pub device_idle_expiry: Duration,
    /// A device's last-seen time is written at most this often (E2).
    pub last_seen_every: Duration,
    /// After `device.rotate` the old token lives this long, or until first use of the new (E5).
    pub rotate_grace: Duration,
    /// Longest `graceSecs` of `daemon.rotateToken`.
    pub rotate_grace_max: Duration,
    /// Names of devices and sessions, in characters.
    pub name_chars_max: usize,
    /// Session titles, in characters.
    pub title_chars_max: usize,
    /// Sessions that are kept.
    pub sessions_max: usize,
    /// Agent processes at once.
    pub agents_max: usize,
    /// Conversations of one agent process.
    pub agent_seats_max: usize,
    /// One prompt.
    pub prompt_bytes_max: usize,
    /// One line of an agent's output.
    pub agent_line_bytes_max: usize,
    /// The text of one message of an agent; more is cut and says so.
    pub message_text_max: usize,
    /// The stored output of one tool call; more is cut and says so.
    pub tool_output_max: usize,
    /// The input of one tool call; a larger one is denied.
    pub tool_input_max: usize,
    /// An answer to a question of an agent, or the reason of a denial, in bytes.
    pub answer_bytes_max: usize,
    /// Tool calls of one session without a result.
    pub tool_calls_open_max: usize,
    /// Streaming text is sent at most this often per session.
    pub stream_every: Duration,
    /// How long a tool call waits for its ask before it is announced as running.
    pub tool_announce_after: Duration,
    /// How long an approval waits for a decision; then it is denied (H1).
    pub approval_timeout: Duration,
    /// From an interrupt to the end of the turn; then the agent is stopped.
    pub interrupt_timeout: Duration,
    /// An agent without a turn is stopped after this, and resumed on demand.
    pub agent_idle: Duration,
    /// From the end of an agent's input to its exit; then its tree is ended.
    pub agent_exit_timeout: Duration,
    /// A provider's version and login are asked again after this.
    pub probe_fresh: Duration,
    /// How long a provider may take to say its version and login.
    pub probe_timeout: Duration,
    /// How long the world may take to read in the audit log.
    pub audit_read_timeout: Duration,
    /// A provider that says that it was asked too much is left alone for so long at most.
    pub provider_rest_max: Duration,
    /// How long the world may take to look at a directory.
    pub directory_timeout: Duration,
    /// Bytes that an agent was given and has not taken; beyond them it is ended.
    pub agent_input_max: usize,
    /// A tool's name, or an agent's id for a call of it, in bytes.
    pub tool_name_max: usize,
    /// Failures of one source that are each audited in [`Self::audit_failures_span`] (H8); the rest is counted.
    pub audit_failures_per_source: u32,
    /// Failures of all sources that are each audited in that time.
    pub audit_failures_max: u32,
    /// See [`Self::audit_failures_per_source`].
    pub audit_failures_span: Duration,
    /// Messages or tool calls in one page.
    pub page_max: usize,
    /// Bytes of content in one page; at least one record is always told.
    pub page_bytes_max: usize,
    /// Events that are kept for those who were away.
    pub journal_events_max: usize,
    /// Bytes of their text.
    pub journal_bytes_max: usize,
    /// How long they are kept.
    pub journal_age: Duration,
    /// Events beyond these bounds are forgotten this often, and
    pub prune_every: Duration,
    /// after so many new ones, whichever comes first.
    pub prune_after: u32,
    /// Chapters of the journal, one for each life of the daemon, whose numbers are understood.
    pub journal_chapters_max: usize,
    /// Events read at once for one who was away.
    pub replay_page_max: usize,
    /// Bytes of text read at once for one who was away; at least one event is always told.
    pub replay_page_bytes_max: usize,
    /// How long the store may take to read them.
    pub replay_timeout: Duration,
    /// How long a control connection to a relay may take to be made.
    pub relay_dial_timeout: Duration,
    /// From there to the relay's `registered`, our signature included.
    pub relay_register_timeout: Duration,
    /// A relay is asked whether it is still there at most this often, and
    pub relay_ping_min: Duration,
    /// at least this often, whatever it wishes.
    pub relay_ping_max: Duration,
    /// How long it may take to say that it is.
    pub relay_pong_timeout: Duration,
    /// The longest wait before the first attempt after a registration; each one that fails doubles it.
    pub relay_backoff_min: Duration,
    /// Where the doubling ends.
    pub relay_backoff_max: Duration,
    /// The wait after another daemon with our identity has taken our place.
    pub relay_replaced_wait: Duration,
    /// One message of a relay.
    pub relay_message_bytes_max: usize,
    /// How long a tunnel to somebody who was announced may take to be made.
    pub relay_accept_timeout: Duration,
    /// Tunnels that are being made at once.
    pub relay_accepts_max: usize,
    /// Tunnels that are begun in a minute: each costs a connection to the relay and two handshakes.
    pub relay_accepts_per_minute: u32,
}

impl Default for Limits {
    fn default() -> Self {
        const DAY: u64 = 86_400;
        Self {
            head_bytes_max: 8 * 1024,
            headers_max: 64,
            head_timeout: Duration::from_secs(5),
            auth_timeout: Duration::from_secs(10),
            message_timeout: Duration::from_secs(30),
            message_bytes_stranger: 16 * 1024,
            message_bytes_max: 4 * 1024 * 1024,
            json_depth_max: 64,
            batch_max: 32,
            strangers_max: 64,
            strangers_per_source: 16,
            strangers_early_drop: 32,
            connections_max: 1024,
            connections_reserved: 16,
            sources_max: 4096,
            failures_free: 5,
            failure_delay_max: Duration::from_secs(10),
            failure_decay: Duration::from_secs(60),
            notes_max: 5,
            notes_span: Duration::from_secs(60),
            in_flight_max: 64,
            queue_bytes_soft: 256 * 1024,
            queue_bytes_events: 4 * 1024 * 1024,
            queue_bytes_max: 8 * 1024 * 1024,
            lag_timeout: Duration::from_secs(30),
            costly_burst: 64,
            costly_every: Duration::from_millis(250),
            pairing_window: Duration::from_secs(300),
            pairing_runs: 3,
            pairing_failures_max: 10,
            pairing_lock_span: Duration::from_secs(DAY),
            pairing_confirm: Duration::from_secs(60),
            addresses_timeout: Duration::from_secs(3),
            devices_max: 256,
            device_expiry: Duration::from_secs(180 * DAY),
            device_idle_expiry: Duration::from_secs(45 * DAY),
            last_seen_every: Duration::from_secs(60),
            rotate_grace: Duration::from_secs(600),
            rotate_grace_max: Duration::from_secs(3600),
            name_chars_max: 64,
            title_chars_max: 200,
            sessions_max: 10_000,
            agents_max: 16,
            agent_seats_max: 64,
            prompt_bytes_max: 1024 * 1024,
            agent_line_bytes_max: 8 * 1024 * 1024,
            message_text_max: 2 * 1024 * 1024,
            tool_output_max: 256 * 1024,
            tool_input_max: 2 * 1024 * 1024,
            answer_bytes_max: 16 * 1024,
            tool_calls_open_max: 256,
            stream_every: Duration::from_millis(66),
            tool_announce_after: Duration::from_millis(200),
            approval_timeout: Duration::from_secs(600),
            interrupt_timeout: Duration::from_secs(10),
            agent_idle: Duration::from_secs(600),
            agent_exit_timeout: Duration::from_secs(5),
            probe_fresh: Duration::from_secs(60),
            probe_timeout: Duration::from_secs(15),
            audit_read_timeout: Duration::from_secs(10),
            provider_rest_max: Duration::from_secs(900),
            directory_timeout: Duration::from_secs(10),
            agent_input_max: 8 * 1024 * 1024,
            tool_name_max: 256,
            audit_failures_per_source: 10,
            audit_failures_max: 60,
            audit_failures_span: Duration::from_secs(60),
            page_max: 200,
            page_bytes_max: 4 * 1024 * 1024,
            journal_events_max: 100_000,
            journal_bytes_max: 64 * 1024 * 1024,
            journal_age: Duration::from_secs(14 * DAY),
            prune_every: Duration::from_secs(3600),
            prune_after: 1000,
            journal_chapters_max: 64,
            replay_page_max: 256,
            replay_page_bytes_max: 256 * 1024,
            replay_timeout: Duration::from_secs(30),
            relay_dial_timeout: Duration::from_secs(15),
            relay_register_timeout: Duration::from_secs(10),
            relay_ping_min: Duration::from_secs(5),
            relay_ping_max: Duration::from_secs(60),
            relay_pong_timeout: Duration::from_secs(10),
            relay_backoff_min: Duration::from_secs(1),
            relay_backoff_max: Duration::from_secs(60),
            relay_replaced_wait: Duration::from_secs(60),
            relay_message_bytes_max: 16 * 1024,
            relay_accept_timeout: Duration::from_secs(10),
            relay_accepts_max: 16,
            relay_accepts_per_minute: 240,
        }
    }
}

impl Limits {
    /// Bounds so small that tests and the fuzzer meet every one of them.
    #[must_use]
    pub fn tiny() -> Self {
        Self {
            message_bytes_stranger: 512,
            message_bytes_max: 4096,
            json_depth_max: 8,
            batch_max: 4,
            strangers_max: 6,
            strangers_per_source: 3,
            strangers_early_drop: 4,
            connections_max: 12,
            connections_reserved: 2,
            sources_max: 8,
            failures_free: 2,
            notes_max: 2,
            in_flight_max: 4,
            queue_bytes_soft: 2048,
            queue_bytes_events: 4 * 1024,
            queue_bytes_max: 16 * 1024,
            costly_burst: 8,
            devices_max: 4,
            pairing_failures_max: 3,
            sessions_max: 4,
            agents_max: 2,
            agent_seats_max: 2,
            prompt_bytes_max: 1024,
            agent_line_bytes_max: 4096,
            message_text_max: 1024,
            tool_output_max: 512,
            tool_input_max: 1024,
            answer_bytes_max: 64,
            tool_calls_open_max: 4,
            agent_input_max: 64 * 1024,
            tool_name_max: 64,
            audit_failures_per_source: 2,
            audit_failures_max: 4,
            page_max: 8,
            page_bytes_max: 4096,
            journal_events_max: 16,
            journal_bytes_max: 16 * 1024,
            prune_after: 8,
            journal_chapters_max: 3,
            replay_page_max: 3,
            replay_page_bytes_max: 1024,
            relay_message_bytes_max: 512,
            relay_accepts_max: 2,
            ..Self::default()
        }
    }
}
