//! The end of a run: everything is released, everybody leaves, time passes, and nothing may be left.
//!
//! Owns what must be true in the end whatever came before; refuses to look at single steps.

use std::time::Duration;

use clawd_protocol::Source;
use serde_json::{Value, json};

use super::{Cast, Run};
use crate::client::Client;
use crate::machine::Claude;
use crate::world::World;

impl Run<'_> {
    pub(super) fn nothing_came_of_it(&mut self) {
        self.world.settle();
        if self.world.invariants().authenticated() > 0 {
            self.world.fail("a stranger got in");
        }
        if !self.world.store.db.devices.is_empty() || !self.world.store.db.sessions.is_empty() {
            self.world.fail("strangers changed what is stored");
        }
    }

    /// Everything is released and healed, everybody leaves, and nothing is left.
    pub(super) fn wind_down(&mut self) {
        let world = &mut self.world;
        world.machine.claude = Claude::Ready;
        world.fail_store(None);
        world.release_questions();
        world.release_store();
        // The end of an identity may have waited for the disk.
        world.advance(Duration::from_secs(10));
        self.start_again();
        let world = &mut self.world;
        let room = world.limits().connections_max - 1;
        for (at, conn) in world.open_links().into_iter().enumerate() {
            if at < room {
                world.unstall(conn);
            } else {
                world.hang_up(conn);
            }
        }
        world.settle();
        if self.cast == Cast::Everybody {
            self.follow_to_the_end();
        }
        let world = &mut self.world;
        let owner = world.owner_on(Source::Unix);
        for session in list(world, owner, "session.list") {
            let _ = world.call(owner, "session.cancel", json!({"sessionId": session["id"]}));
        }
        world.advance(Duration::from_secs(900));
        world.quiet();
        for conn in world.open_links() {
            world.hang_up(conn);
        }
        world.advance(Duration::from_secs(900));
        if world.children().any(|child| !child.is_gone) {
            world.fail("an agent outlived everybody");
        }
        let owner = world.owner_on(Source::Unix);
        let status = world.call(owner, "daemon.status", json!({})).unwrap_or_default();
        for (key, value) in [("connections", 1), ("pendingApprovals", 0), ("activeSessions", 0)] {
            if status[key] != value {
                world.fail(&format!("{key} should be {value} in the end: {status}"));
            }
        }
    }
}

fn list(world: &mut World, client: Client, method: &str) -> Vec<Value> {
    let all = world.call(client, method, json!({})).unwrap_or_default();
    all.as_array().cloned().unwrap_or_default()
}
