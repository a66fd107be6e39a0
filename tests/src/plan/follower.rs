//! A client that comes and goes, and wants to have heard everything in the end.
//!
//! Owns what it heard over all of its connections; refuses to know how it goes on where it was, which is for the client
//! library. It drops its connection, stops reading and reads on at random; it outlives the daemon.

use clawd_protocol::Source;
use clawd_protocol::client::{Bookmark, Client as Protocol, Happening, Trust};
use serde_json::Value;

use super::Run;
use crate::client::Client;
use crate::world::World;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Follower {
    link: Option<(Client, Protocol)>,
    bookmark: Option<Bookmark>,
    /// Durable events since `from`: numbers and texts.
    heard: Vec<(u64, String)>,
    /// Where what it heard begins: at its first connection, or after it had to begin afresh.
    from: Option<u64>,
}

impl Run<'_> {
    pub(super) fn follow(&mut self) {
        match (self.dice.below(6), self.follower.link()) {
            (_, None) => self.follower.come(&mut self.world),
            (0 | 1, Some(client)) => {
                self.follower.read(&mut self.world);
                self.world.hang_up(client.conn);
                self.follower.link = None;
            }
            (2, Some(client)) => self.world.stall(client.conn),
            (3, Some(client)) => self.world.unstall(client.conn),
            (_, Some(_)) => {
                self.follower.read(&mut self.world);
            }
        }
    }

    /// It comes back once more, and has heard exactly what happened.
    pub(super) fn follow_to_the_end(&mut self) {
        let world = &mut self.world;
        if let Some(client) = self.follower.link() {
            world.unstall(client.conn);
        }
        // Each round may bring a question of its own: how a gap is closed, or a page.
        for _ in 0..100 {
            if !self.follower.is_open(world) {
                self.follower.link = None;
                self.follower.come(world);
            }
            world.settle();
            if self.follower.read(world) == 0 && self.follower.is_open(world) {
                break;
            }
        }
        if let Some((client, _)) = self.follower.link.take() {
            world.hang_up(client.conn);
            world.settle();
        }
        match self.follower.from {
            Some(from) => world.compare_heard(from, &self.follower.heard),
            None => world.fail("the follower never got in"),
        }
    }
}

impl Follower {
    fn link(&self) -> Option<Client> {
        self.link.as_ref().map(|(client, _)| *client)
    }

    fn is_open(&self, world: &World) -> bool {
        self.link().is_some_and(|client| world.link(client.conn).is_open())
    }

    fn come(&mut self, world: &mut World) {
        let client = world.stranger(Source::Unix);
        if !world.link(client.conn).is_open() {
            return;
        }
        let token = world.store.token().clone();
        let (protocol, opening) =
            Protocol::resuming(token, Trust::PeerVerified, self.bookmark.clone());
        world.text(client.conn, opening.expose());
        self.link = Some((client, protocol));
    }

    /// Reads all that came, and says how much. What it did not read before its connection ended, it has not heard.
    fn read(&mut self, world: &mut World) -> usize {
        let Some((client, protocol)) = &mut self.link else { return 0 };
        let frames = world.frames(*client);
        let count = frames.len();
        for frame in frames {
            let happening = match protocol.handle_text(&frame) {
                Ok(happening) => happening,
                Err(violation) => world.fail(&format!("the follower heard {frame}: {violation}")),
            };
            match happening {
                Happening::Send(text) => {
                    if world.link(client.conn).is_open() {
                        world.text(client.conn, text.expose());
                    }
                }
                Happening::Ready(welcome) => {
                    self.from.get_or_insert(welcome.cursor);
                }
                Happening::Event { method, params } => {
                    let params: Value = serde_json::from_str(params.get()).unwrap_or_default();
                    if method == "events.reset" {
                        self.from = params["cursor"].as_u64();
                        self.heard.clear();
                    } else if let Some(seq) = world.number_of(&frame) {
                        self.heard.push((seq, frame));
                    }
                }
                Happening::Nothing | Happening::Refused(_) | Happening::Answer { .. } => {}
            }
        }
        self.bookmark = protocol.bookmark().cloned().or_else(|| self.bookmark.take());
        count
    }
}
