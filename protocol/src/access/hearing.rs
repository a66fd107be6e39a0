//! How each peer hears events: as they happen, from the journal, or not at all for a while.
//!
//! Owns every event on its way out, and what is done about those who were away or do not read (security C5); refuses to
//! know what an event means. The journal feeds a peer that is behind at the pace at which it reads, a page at a time, and
//! what happens meanwhile is not queued for it: it is in the journal too. So a replay has no gap and no duplicate, and
//! no queue grows with it.
//!
//! | a peer is | it is sent | it becomes | on |
//! |---|---|---|---|
//! | `Live` | what is told, as it is told | `Lagging` | its queue being full |
//! | | | `Behind` | `daemon.auth` or `events.subscribe` with `after` |
//! | `Behind` | a page of the journal each time its queue is empty | `Live` | all that was told so far being sent |
//! | | | `Live`, after `events.reset` | what it wants being forgotten, or never known |
//! | `Lagging` | nothing | `Live`, after `events.gap` | its queue being empty |
//! | | | closed | [`lag_timeout`](crate::Limits::lag_timeout) |
//!
//! Invariants: a peer's events have rising numbers; a number it is sent means that it was sent everything up to it that
//! its role allows; whoever goes live is shown what streams at that moment.

use alloc::string::String;
use alloc::vec::Vec;

use serde::Serialize;

use super::Access;
use super::ctx::Ctx;
use super::peers::{Call, Peer, Peers, Phase, close};
use crate::contract::effect::{Effect, Effects, Question, Sync, To};
use crate::contract::error::StoreFault;
use crate::contract::id::{AskId, ConnId};
use crate::contract::input::Answer;
use crate::contract::record::Role;
use crate::engine::{Entry, Timer};
use crate::wire::event::{Event, Notice};
use crate::wire::params::Params;
use crate::wire::rpc::{Request, RpcError};

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hearing {
    Live,
    Behind {
        /// It was sent everything up to this.
        sent: u64,
    },
    Lagging {
        /// It was sent everything up to this,
        sent: u64,
        /// and nothing up to this.
        missed: u64,
    },
}

/// A page of the journal on its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct PageOf {
    conn: ConnId,
    after: u64,
    through: u64,
}

/// Where somebody wants to go on.
#[derive(Debug)]
pub(super) struct From {
    after: u64,
    journal: Option<String>,
}

impl From {
    /// What a request says about it.
    pub(super) fn read(request: &Request<'_>) -> Result<Option<Self>, RpcError> {
        Self::of(&Params::read(request.params)?)
    }

    fn of(params: &Params<'_>) -> Result<Option<Self>, RpcError> {
        let journal = params.text("journal")?;
        Ok(params.count("after")?.map(|after| Self { after, journal }))
    }
}

/// The result of `events.subscribe`.
#[derive(Serialize)]
struct Subscribed<'a> {
    cursor: u64,
    journal: &'a str,
    replayed: bool,
}

/// Who keeps up and hears what streams.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    /// They want the whole text each time.
    pub(crate) whole: Vec<ConnId>,
    /// They want what is new of it.
    pub(crate) deltas: Vec<ConnId>,
}

impl Access {
    /// `events.subscribe`: from where, and in which form.
    pub(crate) fn on_subscribe(&self, cx: &mut Ctx<'_>, call: Call, params: &Params<'_>) {
        let wish = From::of(params).and_then(|from| Ok((from, params.maybe_flag("deltas")?)));
        let (from, deltas) = match wish {
            Ok(wish) => wish,
            Err(error) => return cx.refuse(call, &error),
        };
        let conn = call.conn;
        if let (Some(deltas), Some(peer)) = (deltas, cx.peers.peer_mut(conn)) {
            peer.wants_deltas = deltas;
        }
        let known = cx.hear_from(conn, from.as_ref());
        let cursor = cx.engine.cursor();
        let replayed = from.is_some() && known.is_ok();
        let view = Subscribed { cursor, journal: cx.engine.chapter(), replayed };
        cx.peers.answer(call, &view, cx.fx);
        cx.go_on(conn, known);
    }
}

// --- telling ----------------------------------------------------------------------------------------------------

impl Ctx<'_> {
    /// Tells everybody entitled of what is durable.
    pub(crate) fn tell(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            let before = self.engine.cursor();
            let notice = self.engine.on_told(entry);
            let limits = &self.engine.config.limits;
            let lagging = self.peers.tell(notice, before, limits.queue_bytes_events, self.fx);
            let late = self.engine.now.mono + limits.lag_timeout;
            for conn in lagging {
                self.engine.timers.arm(Timer::Lag(conn), late);
            }
        }
    }

    /// Tells everybody entitled who keeps up of what passes.
    pub(crate) fn tell_in_passing(&mut self, event: &Event<'_>) {
        let least_role = event.least_role();
        let to = self.peers.keeping_up(least_role).map(|(conn, _)| conn).collect();
        self.send_in_passing(event, to);
    }

    /// Tells one peer of what is for it alone: under the number up to which it was sent everything.
    pub(crate) fn tell_one(&mut self, conn: ConnId, event: &Event<'_>) {
        let Some(peer) = self.peers.peer(conn) else { return };
        let sent = match peer.hearing {
            Hearing::Live => self.engine.cursor(),
            Hearing::Behind { sent } | Hearing::Lagging { sent, .. } => sent,
        };
        self.peers.send(conn, Notice::new(event, sent).text, self.fx);
    }

    /// Who is to hear what streams.
    pub(crate) fn listeners(&self) -> Listeners {
        let mut listeners = Listeners::default();
        for (conn, peer) in self.peers.keeping_up(Role::Read) {
            let to = if peer.wants_deltas { &mut listeners.deltas } else { &mut listeners.whole };
            to.push(conn);
        }
        listeners
    }

    /// Sends what passes to those of these who have room for it; says who they are.
    pub(crate) fn send_in_passing(
        &mut self,
        event: &Event<'_>,
        mut to: Vec<ConnId>,
    ) -> Vec<ConnId> {
        let Notice { text, .. } = self.engine.passing(event);
        let bytes_max = self.engine.config.limits.queue_bytes_soft;
        let len = text.len();
        to.retain(|conn| self.peers.peer_mut(*conn).is_some_and(|peer| peer.takes(len, bytes_max)));
        if !to.is_empty() {
            self.fx.push(Effect::Send { to: To::Many(to.clone()), text });
        }
        to
    }

    /// Begins this life's chapter of the journal, and forgets what is too old.
    pub(crate) fn open_journal(&mut self) {
        let changes = alloc::vec![self.engine.begin_chapter(), self.engine.prune()];
        self.store(changes, Sync::Process);
    }

    /// Makes the journal as small as it must be.
    pub(crate) fn prune(&mut self) {
        let change = self.engine.prune();
        self.store(alloc::vec![change], Sync::Process);
    }
}

impl Peer {
    /// Counts a text as queued, if there is room for it. One larger than the bound may pass an empty queue, or it could
    /// never be told.
    const fn takes(&mut self, len: usize, bytes_max: usize) -> bool {
        let queued = self.queued_bytes.saturating_add(len);
        let has_room = queued <= bytes_max || self.queued_bytes == 0;
        if has_room {
            self.queued_bytes = queued;
        }
        has_room
    }
}

impl Peers {
    /// Sends a durable event to all who are live and entitled. Says who has no room for it, and is lagging from now on:
    /// nobody is waited for (security C5).
    fn tell(
        &mut self,
        notice: Notice,
        before: u64,
        bytes_max: usize,
        fx: &mut Effects,
    ) -> Vec<ConnId> {
        let mut to = Vec::new();
        let mut lagging = Vec::new();
        for (conn, peer) in &mut self.table {
            if peer.caller().is_none_or(|caller| caller.role < notice.least_role) {
                continue;
            }
            let missed = notice.seq;
            match peer.hearing {
                Hearing::Live => {
                    if peer.takes(notice.text.len(), bytes_max) {
                        to.push(*conn);
                    } else {
                        peer.hearing = Hearing::Lagging { sent: before, missed };
                        lagging.push(*conn);
                    }
                }
                Hearing::Lagging { sent, .. } => peer.hearing = Hearing::Lagging { sent, missed },
                Hearing::Behind { .. } => {}
            }
        }
        if !to.is_empty() {
            fx.push(Effect::Send { to: To::Many(to), text: notice.text });
        }
        lagging
    }

    /// Those who hear things as they happen, and may hear this.
    fn keeping_up(&self, least_role: Role) -> impl Iterator<Item = (ConnId, &Peer)> {
        self.table
            .iter()
            .filter(move |(_, peer)| {
                peer.hearing == Hearing::Live
                    && peer.caller().is_some_and(|caller| caller.role >= least_role)
            })
            .map(|(conn, peer)| (*conn, peer))
    }

    /// Takes those who have gone live since the last time.
    pub(crate) fn take_caught_up(&mut self) -> Vec<ConnId> {
        core::mem::take(&mut self.caught_up)
    }
}

// --- catching up ------------------------------------------------------------------------------------------------

impl Ctx<'_> {
    /// From now on a peer hears what comes after this, if we know what that is; [`Self::go_on`] is next.
    pub(super) fn hear_from(
        &mut self,
        conn: ConnId,
        from: Option<&From>,
    ) -> Result<(), &'static str> {
        let Some(from) = from else { return Ok(()) };
        if !self.engine.is_known(from.after, from.journal.as_deref()) {
            return Err("unknown");
        }
        self.set_hearing(conn, Hearing::Behind { sent: from.after });
        Ok(())
    }

    pub(super) fn go_on(&mut self, conn: ConnId, known: Result<(), &'static str>) {
        match known {
            Ok(()) => self.catch_up(conn),
            Err(reason) => self.reset(conn, reason),
        }
    }

    fn set_hearing(&mut self, conn: ConnId, hearing: Hearing) {
        let Some(peer) = self.peers.peer_mut(conn) else { return };
        peer.hearing = hearing;
        self.engine.timers.disarm(Timer::Lag(conn));
        if hearing == Hearing::Live {
            self.peers.caught_up.push(conn);
        }
    }

    /// What it missed cannot be told: it has to read everything afresh, and goes on from here.
    fn reset(&mut self, conn: ConnId, reason: &'static str) {
        let cursor = self.engine.cursor();
        self.set_hearing(conn, Hearing::Live);
        self.tell_one(conn, &Event::Reset { reason, cursor });
    }

    /// The next step of a peer that is not live, if its queue is empty.
    fn catch_up(&mut self, conn: ConnId) {
        let Some(peer) = self.peers.peer(conn) else { return };
        if !matches!(peer.phase, Phase::Known(_)) {
            return;
        }
        match peer.hearing {
            Hearing::Live => {}
            Hearing::Behind { sent } if sent >= self.engine.cursor() => {
                self.set_hearing(conn, Hearing::Live);
            }
            Hearing::Behind { sent } => {
                if peer.queued_bytes == 0 && !peer.has_page_coming {
                    self.ask_page(conn, sent);
                }
            }
            Hearing::Lagging { sent, missed } => {
                if peer.queued_bytes == 0 {
                    self.tell_one(conn, &Event::Gap { from: sent, to: missed });
                    self.set_hearing(conn, Hearing::Live);
                }
            }
        }
    }

    fn ask_page(&mut self, conn: ConnId, after: u64) {
        let limits = &self.engine.config.limits;
        let through = self.engine.cursor();
        let question = Question::Events {
            after,
            through,
            limit: limits.replay_page_max,
            bytes_max: limits.replay_page_bytes_max,
        };
        let at = self.engine.now.mono + limits.replay_timeout;
        let ask = self.ask(question);
        self.engine.timers.arm(Timer::Ask(ask), at);
        self.peers.pages.await_(ask, PageOf { conn, after, through });
        if let Some(peer) = self.peers.peer_mut(conn) {
            peer.has_page_coming = true;
        }
    }

    /// Takes the answer if it is a page of the journal; else it is another room's.
    pub(crate) fn on_answered(&mut self, ask: AskId, answer: Answer) -> Option<Answer> {
        let Some(page) = self.peers.pages.take(&ask) else { return Some(answer) };
        self.engine.timers.disarm(Timer::Ask(ask));
        self.on_page(page, answer);
        None
    }

    /// The store has not answered in time, if it was asked for a page.
    pub(crate) fn on_ask_late(&mut self, ask: AskId) -> bool {
        let Some(page) = self.peers.pages.take(&ask) else { return false };
        let why = String::from("no answer in time");
        self.on_page(page, Answer::Failed(StoreFault::Failed(why)));
        true
    }

    fn on_page(&mut self, page: PageOf, answer: Answer) {
        let PageOf { conn, after, through } = page;
        let Some(peer) = self.peers.peer_mut(conn) else { return };
        peer.has_page_coming = false;
        // It may have asked for something else meanwhile.
        if peer.hearing != (Hearing::Behind { sent: after }) {
            return self.catch_up(conn);
        }
        let Some(caller) = peer.caller() else { return };
        let found = match answer.events() {
            Ok(found) if found.forgotten > after => return self.reset(conn, "forgotten"),
            Ok(found) => found,
            Err(_) => return self.reset(conn, "storage_failed"),
        };
        let bytes_max = self.engine.config.limits.queue_bytes_events;
        let mut sent = found.events.last().map_or(through, |event| event.seq);
        let mut before = after;
        for event in found.events {
            let is_told = caller.role >= event.least_role;
            if is_told
                && !self
                    .peers
                    .peer_mut(conn)
                    .is_some_and(|it| it.takes(event.text.len(), bytes_max))
            {
                // Answers fill the queue: the rest is asked for again when they have left.
                sent = before;
                break;
            }
            if is_told {
                self.fx.send(conn, event.text);
            }
            before = event.seq;
        }
        self.set_hearing(conn, Hearing::Behind { sent });
        self.catch_up(conn);
    }

    /// Text has left for the socket.
    pub(crate) fn on_flushed(&mut self, conn: ConnId, bytes: usize) {
        let Some(peer) = self.peers.peer_mut(conn) else { return };
        peer.queued_bytes = peer.queued_bytes.saturating_sub(bytes);
        if peer.queued_bytes == 0 && peer.hearing != Hearing::Live {
            self.catch_up(conn);
        }
    }

    /// It still does not read what it was sent long ago.
    pub(crate) fn on_lag_late(&mut self, conn: ConnId) {
        self.peers.close(conn, close::TRY_AGAIN_LATER, "lagging", self.fx);
    }
}
