//! What both examples share: the daemon with its connections, and the bytes of HTTP and WebSocket.
//!
//! Owns the one `match` that does the daemon's effects; refuses to know sockets, threads and tasks: an example brings
//! those as a [`Wire`]. Nothing is kept, and no agent starts.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant as Clock};

use clawd_protocol::{ConnId, Daemon, DialFault, Effect, Effects, Input, ProgramFault, Source, To};

use bytes::{Incoming, Part};

mod bytes;

/// How long the end of a connection may take; then it is cut.
pub(crate) const LINGER: Duration = Duration::from_secs(1);

/// What a writer gets: bytes and how much text is in them, or nothing: flush and end.
pub(crate) type Order = Option<(Vec<u8>, usize)>;

/// A connection's two ends in the world.
pub(crate) trait Wire {
    /// Writes, after all that was ordered before. Never blocks.
    fn order(&self, order: Order);
    /// Lets the reader fetch one more piece.
    fn go(&self);
    /// Cuts the connection after [`LINGER`], whatever its ends are doing.
    fn cut_later(&self);
}

/// What the ends of the connections tell the owner.
pub(crate) enum News<W> {
    Opened(W, IpAddr),
    Read(Vec<u8>),
    Flushed(usize),
    Closed,
}

struct Conn<W> {
    wire: W,
    incoming: Incoming,
    is_paused: bool,
    is_ended: bool,
    /// The reader has brought a piece and waits.
    is_waiting: bool,
}

impl<W: Wire> Conn<W> {
    fn end(&mut self, bytes: Vec<u8>) {
        self.is_ended = true;
        self.wire.order(Some((bytes, 0)));
        self.wire.order(None);
        self.wire.cut_later();
    }
}

/// The daemon and its connections.
pub(crate) struct Owner<W> {
    daemon: Daemon,
    effects: Effects,
    conns: BTreeMap<ConnId, Conn<W>>,
    resumed: VecDeque<ConnId>,
    start: Clock,
    /// The daemon has asked for the end.
    pub(crate) is_stopped: bool,
}

impl<W: Wire> Owner<W> {
    /// A daemon on `port`; says where it is and what opens it.
    pub(crate) fn new(port: u16, out: &mut impl io::Write) -> io::Result<Self> {
        let (daemon, token) = bytes::daemon()?;
        writeln!(out, "listening on 127.0.0.1:{port}\ntoken {}", token.expose())?;
        let (effects, conns, resumed) = (Effects::new(), BTreeMap::new(), VecDeque::new());
        let start = Clock::now();
        let mut owner = Self { daemon, effects, conns, resumed, start, is_stopped: false };
        owner.turn(Input::Started { port });
        Ok(owner)
    }

    /// How long there is nothing to do if nothing happens.
    pub(crate) fn patience(&self) -> Duration {
        let now = bytes::now(self.start).mono;
        self.daemon.poll_timeout().map_or(Duration::from_secs(3600), |due| due.since(now))
    }

    /// That much time has passed.
    pub(crate) fn tick(&mut self) {
        self.turn(Input::Tick);
        self.go_on();
    }

    /// Something happened to a connection.
    pub(crate) fn hear(&mut self, id: ConnId, news: News<W>) {
        match news {
            News::Opened(wire, peer) => {
                let incoming = Incoming::new();
                let conn =
                    Conn { wire, incoming, is_paused: false, is_ended: false, is_waiting: false };
                self.conns.insert(id, conn);
                self.turn(Input::Opened { conn: id, source: Source::Tcp(peer) });
            }
            News::Read(bytes) => {
                if let Some(conn) = self.conns.get_mut(&id) {
                    conn.is_waiting = true;
                    conn.incoming.push(&bytes);
                }
                self.resumed.push_back(id);
            }
            News::Flushed(bytes) => self.turn(Input::Flushed { conn: id, bytes }),
            News::Closed => {
                self.conns.remove(&id);
                self.turn(Input::Closed { conn: id });
            }
        }
        self.go_on();
    }

    /// Tells the daemon one thing, does all that it wants, and tells it how that went.
    fn turn(&mut self, input: Input<'_>) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            self.daemon.handle(bytes::now(self.start), input, &mut self.effects);
            let effects: Vec<_> = self.effects.drain().collect();
            inputs.extend(effects.into_iter().filter_map(|effect| self.execute(effect)));
        }
    }

    /// Tells the daemon what has come whole, wherever that may be, and lets the readers go on.
    fn go_on(&mut self) {
        while let Some(id) = self.resumed.pop_front() {
            while let Some(part) = self.next_part(id) {
                part.tell(id, &mut |input| self.turn(input));
            }
            let Some(conn) = self.conns.get_mut(&id) else { continue };
            // After the end whatever comes is read and dropped: unread bytes would destroy what was sent last.
            if conn.is_waiting && (conn.is_ended || !conn.is_paused) {
                conn.is_waiting = false;
                conn.wire.go();
            }
        }
    }

    fn next_part(&mut self, id: ConnId) -> Option<Part> {
        let conn = self.conns.get_mut(&id).filter(|c| !c.is_paused && !c.is_ended)?;
        let mut replies = Vec::new();
        let part = conn.incoming.next(&mut replies);
        if matches!(part, Some(Part::Left)) {
            conn.end(replies);
        } else if !replies.is_empty() {
            conn.wire.order(Some((replies, 0)));
        }
        part
    }

    fn with(&mut self, id: ConnId, act: impl FnOnce(&mut Conn<W>)) {
        if let Some(conn) = self.conns.get_mut(&id).filter(|conn| !conn.is_ended) {
            act(conn);
        }
    }

    fn execute(&mut self, effect: Effect) -> Option<Input<'static>> {
        match effect {
            Effect::Respond { conn, response } => {
                self.with(conn, |conn| conn.end(bytes::response(&response)));
                self.resumed.push_back(conn);
            }
            Effect::Upgrade { conn, key, message_bytes_max } => self.with(conn, |conn| {
                conn.incoming.upgrade(message_bytes_max);
                conn.wire.order(Some((bytes::switching(&key), 0)));
            }),
            Effect::Admit { conn, message_bytes_max } => {
                self.with(conn, |conn| conn.incoming.admit(message_bytes_max));
            }
            Effect::Send { to, text } => {
                let frame = bytes::text_frame(&text);
                let order = || Some((frame.clone(), text.len()));
                match to {
                    To::One(conn) => self.with(conn, |conn| conn.wire.order(order())),
                    To::Many(conns) => {
                        conns.iter().for_each(|id| self.with(*id, |c| c.wire.order(order())));
                    }
                }
            }
            Effect::Close { conn, code, reason } => {
                self.with(conn, |conn| conn.end(conn.incoming.close_frame(code, reason)));
                self.resumed.push_back(conn);
            }
            Effect::Pause { conn } => self.with(conn, |conn| conn.is_paused = true),
            Effect::Resume { conn } => {
                self.with(conn, |conn| conn.is_paused = false);
                self.resumed.push_back(conn);
            }
            Effect::Store { op, .. } => return Some(Input::Stored { op, result: Ok(()) }),
            Effect::Ask { ask, question } => {
                return Some(Input::Answered { ask, answer: bytes::answer(&question) });
            }
            Effect::Spawn { proc, .. } => {
                return Some(Input::Spawned { proc, result: Err(ProgramFault::Missing) });
            }
            Effect::Feed { .. } | Effect::Finish { .. } | Effect::Kill { .. } => {}
            // Nobody beyond this machine is asked here.
            Effect::Dial { leg, .. } => {
                return Some(Input::Dialed { leg, result: Err(DialFault::Busy) });
            }
            Effect::Say { .. } | Effect::HangUp { .. } => {}
            // A real runtime writes it down; these talk to nobody.
            Effect::Log { .. } => {}
            Effect::Stop => self.is_stopped = true,
        }
        None
    }
}
