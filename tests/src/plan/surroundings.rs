//! What the daemon's surroundings do: agents, the disk, the clock and the power.
//!
//! Owns the scripts of agents and the disasters; refuses to know about peers.

use std::time::Duration;

use clawd_protocol::{Source, StoreFault, Stream};
use serde_json::json;

use super::Run;
use crate::child::Act;
use crate::machine::Claude;
use crate::world::Crash;

impl Run<'_> {
    pub(super) fn script(&mut self) {
        let turns = 1 + self.dice.below(3);
        let script = (0..turns).map(|_| {
            let acts = 1 + self.dice.below(4);
            (0..acts).map(|_| self.act()).collect()
        });
        let script = script.collect();
        self.world.machine.scripts.push_back(script);
    }

    fn act(&mut self) -> Act {
        match self.dice.below(14) {
            0..=2 => Act::say("some words of an answer"),
            3..=6 => Act::bash("make"),
            12 => Act::Ask {
                name: "AskUserQuestion".to_owned(),
                input: json!({"questions": [{"question": "Which color?"}]}),
            },
            13 => Act::Ask { name: "ExitPlanMode".to_owned(), input: json!({"plan": "go"}) },
            7 => Act::Use { name: "Read".to_owned(), input: json!({"file_path": "/repo/a"}) },
            8 => Act::Wait(Duration::from_millis(u64::from(self.dice.byte()) * 20)),
            9 => {
                let len = usize::from(self.dice.byte());
                let mut bytes = self.dice.take(len).to_vec();
                bytes.push(b'\n');
                Act::Write(if len % 4 == 0 { Stream::Err } else { Stream::Out }, bytes)
            }
            10 => Act::Fail("overloaded".to_owned()),
            _ if self.dice.below(2) == 0 => Act::Hang,
            _ => Act::Crash(i32::from(self.dice.byte())),
        }
    }

    pub(super) fn hold_or_release(&mut self) {
        self.is_held = !self.is_held;
        if self.is_held {
            self.world.hold_store();
        } else {
            self.world.release_store();
        }
    }

    /// The daemon dies while agents ask, perhaps again and again while it takes up what waited.
    pub(super) fn crash_while_it_asks(&mut self) {
        self.world.machine.claude = Claude::Ready;
        self.world.fail_store(None);
        self.is_failing = false;
        self.is_held = false;
        self.world.release_store();
        let asks = vec![Act::bash("make")];
        self.world.machine.scripts.push_front(vec![asks.clone(), asks]);
        let owner = self.world.stranger(Source::Unix);
        let token = self.world.token();
        self.clients.push(owner);
        let draft = json!({"repoPath": "/repo", "initialMessage": "build",
            "provider": self.provider()});
        for (method, params) in
            [("daemon.auth", json!({ "token": token })), ("session.create", draft)]
        {
            // There may be no room for one more.
            if self.world.link(owner.conn).is_open() {
                self.world.ask(owner, method, params);
                self.world.settle();
            }
        }
        self.learn();
        for _ in 0..=self.dice.below(3) {
            let turn = (0..=self.dice.below(2)).map(|_| Act::bash("make"));
            self.world.machine.scripts.push_front(vec![turn.collect()]);
            let ways = [Crash::Lost, Crash::Done, Crash::Power];
            let how = self.dice.one_of(&ways).unwrap_or(Crash::Lost);
            self.world.crash(how);
            let owner = self.world.owner_on(Source::Unix);
            self.clients.push(owner);
            self.decide_on_what_waits(owner);
        }
    }

    pub(super) fn disaster(&mut self) {
        match self.dice.below(8) {
            0 => {
                self.is_failing = !self.is_failing;
                self.world.fail_store(self.is_failing.then_some(StoreFault::Full));
            }
            1 => {
                let by = i64::from(self.dice.byte()) * 86_400_000;
                let sign = if self.dice.below(2) == 0 { 1 } else { -1 };
                self.world.skew(by * sign);
            }
            2 => self.world.advance(Duration::from_secs(60 * u64::from(self.dice.byte()))),
            3 => {
                let all = [Claude::Ready, Claude::LoggedOut, Claude::Missing, Claude::Unsafe];
                self.world.machine.claude = self.dice.one_of(&all).unwrap_or(Claude::Ready);
            }
            4 => {
                self.world.shut_down();
                self.world.advance(Duration::from_secs(60));
                self.world.restart();
            }
            _ => {
                let ways = [Crash::Lost, Crash::Done, Crash::Power];
                let how = self.dice.one_of(&ways).unwrap_or(Crash::Lost);
                self.world.crash(how);
                self.is_held = false;
            }
        }
    }
}
