//! What peers do: connect, speak, misbehave, stop reading, go away.
//!
//! Owns the runtime's part in reading and writing a connection: what is too long or unwanted never reaches the daemon.
//! Refuses to know what a message means.

use std::net::IpAddr;

use clawd_protocol::{ConnId, Fingerprint, Head, HeadFault, Input, MessageFault, Source};

use super::World;
use super::due::{Due, Origin};
use crate::link::{Link, Stage};

impl World {
    /// Somebody connects.
    pub fn open(&mut self, source: Source) -> ConnId {
        let conn = self.open_plain(source);
        // From beyond this machine it is TLS, or it would get no further than its request.
        let is_here = match source {
            Source::Unix => true,
            Source::Tcp(address) => address.to_canonical().is_loopback(),
            Source::Relay(_) => false,
        };
        if !is_here {
            self.input(Input::Secured { conn, key: None, local: None });
        }
        conn
    }

    /// Somebody connects, and speaks no TLS.
    pub fn open_plain(&mut self, source: Source) -> ConnId {
        let conn = ConnId(self.fresh_name());
        self.links.insert(conn, Link::new(source));
        self.input(Input::Opened { conn, source });
        conn
    }

    /// Somebody connects with TLS, to this address of ours, and has shown this key.
    pub fn open_secured(
        &mut self,
        source: Source,
        key: Option<Fingerprint>,
        local: Option<IpAddr>,
    ) -> ConnId {
        let conn = self.open_plain(source);
        self.input(Input::Secured { conn, key, local });
        conn
    }

    /// A whole request head comes.
    pub fn head(&mut self, conn: ConnId, target: &str, headers: &[(&str, &[u8])]) {
        let head = Head { method: "GET", target, minor: 1, headers };
        self.request(conn, Ok(head));
    }

    /// A request head comes, or what cannot be one.
    pub fn request(&mut self, conn: ConnId, head: Result<Head<'_>, HeadFault>) {
        if self.link(conn).stage == Stage::Fresh {
            self.input(Input::Requested { conn, head });
        }
    }

    /// A message comes; the runtime's part, to refuse what is too long, included.
    pub fn text(&mut self, conn: ConnId, text: &str) {
        let link = self.link_mut(conn);
        link.unread.push_back(text.to_owned());
        self.read(conn);
    }

    /// The first bytes of a message come, and then no more for now.
    pub fn begin(&mut self, conn: ConnId) {
        if self.link(conn).reads() {
            self.input(Input::Began { conn });
        }
    }

    /// Something comes that is no text message.
    pub fn break_rules(&mut self, conn: ConnId, fault: MessageFault) {
        if self.link(conn).reads() {
            self.link_mut(conn).is_broken = true;
            self.input(Input::Broke { conn, fault });
        }
    }

    /// The peer stops reading.
    pub fn stall(&mut self, conn: ConnId) {
        self.link_mut(conn).set_stalled(true);
    }

    /// The peer reads on.
    pub fn unstall(&mut self, conn: ConnId) {
        self.link_mut(conn).set_stalled(false);
        self.flush(conn);
    }

    /// The peer goes away.
    pub fn hang_up(&mut self, conn: ConnId) {
        if self.link(conn).is_open() {
            self.end_link(conn, None);
        }
    }

    /// Tells the daemon of messages that wait to be read, as long as it wants any.
    pub(super) fn read(&mut self, conn: ConnId) {
        while self.link(conn).reads() {
            let Some(text) = self.link_mut(conn).unread.pop_front() else { return };
            if text.len() > self.link(conn).message_bytes_max {
                self.break_rules(conn, MessageFault::TooLarge);
            } else {
                self.input(Input::Text { conn, text: &text });
            }
        }
    }

    pub(super) fn flush(&mut self, conn: ConnId) {
        let bytes = self.link_mut(conn).flush();
        if bytes > 0 {
            self.owe(Origin::Link(conn), Due::Flushed(conn, bytes));
        }
    }

    pub(super) fn end_link(&mut self, conn: ConnId, close: Option<(u16, &'static str)>) {
        self.link_mut(conn).end(close);
        self.owe(Origin::Link(conn), Due::Closed(conn));
    }
}
