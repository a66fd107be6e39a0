//! Who holds a token, and for how long a connected device may stay.
//!
//! Owns the judgement of every token that is shown (security A5, E2, E3, F2) and what follows from it; refuses to know
//! how it was shown.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::ctx::Ctx;
use super::devices::{self, Good};
use super::peers::{Caller, Peer, Who};
use super::token::{Secret, TokenDigest, TokenKind, kind_of};
use super::{Access, After};
use crate::contract::effect::{Change, Sync};
use crate::contract::id::{ConnId, DeviceId};
use crate::contract::record::Role;
use crate::engine::Timer;

/// Connected devices are looked at for expiry at least this often: a machine may have slept.
const EXPIRY_EVERY: Duration = Duration::from_secs(60);

impl Access {
    /// Who comes with this token, if it may be used from there; from now on the token counts as used.
    pub(super) fn recognise(
        &mut self,
        cx: &mut Ctx<'_>,
        conn: ConnId,
        token: &Secret,
    ) -> Option<Caller> {
        let (caller, good) = self.judge(cx, conn, token)?;
        match (caller.who, good) {
            (Who::Device(id), Good::Next) => self.on_rotation_used(cx, id),
            (Who::Owner, _) => self.on_local_shown(cx, conn, good),
            (Who::Device(_), Good::Current | Good::Old) => {}
        }
        Some(caller)
    }

    /// Notes who is here by the old local token alone: shown by one who came with the new one, it changes nothing.
    fn on_local_shown(&mut self, cx: &Ctx<'_>, conn: ConnId, good: Good) {
        let Some(old) = &mut self.old_local else { return };
        if good == Good::Current {
            old.conns.remove(&conn);
        } else if cx.peers.caller(conn).is_none() {
            old.conns.insert(conn);
        }
    }

    /// Who holds this token, if it may be used from there. Only looks.
    pub(super) fn judge(
        &self,
        cx: &Ctx<'_>,
        conn: ConnId,
        token: &Secret,
    ) -> Option<(Caller, Good)> {
        let peer = cx.peers.peer(conn)?;
        let is_local = peer.is_local();
        let digest = TokenDigest::of(token.expose());
        match kind_of(token.expose())? {
            TokenKind::Local => {
                let is_old = self.old_local.as_ref().is_some_and(|old| old.digest.matches(&digest));
                let is_current = self.local.matches(&digest);
                let good = if is_current { Good::Current } else { Good::Old };
                let caller = Caller { who: Who::Owner, role: Role::Owner };
                ((is_current || is_old) && is_local).then_some((caller, good))
            }
            TokenKind::Device(id) => {
                let now = cx.engine.unix_high();
                let good = self.devices.judge(id, &digest, now, &cx.engine.config.limits)?;
                let bound = self.devices.find(id)?.key;
                if bound.is_some() && bound != peer.key() {
                    return None;
                }
                let caller = Caller { who: Who::Device(id), role: self.role(id)? };
                Some((caller, good))
            }
        }
    }

    /// The new token was used: the old one is dead from now on (security E5).
    fn on_rotation_used(&mut self, cx: &mut Ctx<'_>, id: DeviceId) {
        let Some(record) = self.devices.find_mut(id) else { return };
        if let Some(next) = record.next_token_sha256.take() {
            record.token_sha256 = next;
            record.rotated_at = None;
            self.write_down(cx, id);
        }
    }

    // --- devices that are connected -----------------------------------------------------------------------------

    /// Notes that a device was here, at most once a minute (security E2).
    pub(crate) fn touch(&mut self, cx: &mut Ctx<'_>, conn: ConnId, id: DeviceId) {
        let Some(record) = self.devices.find_mut(id) else { return };
        let via = cx.peers.peer(conn).map_or("", Peer::via);
        let at = cx.engine.unix_high();
        let is_fresh = at.since(record.last_seen_at) < cx.engine.config.limits.last_seen_every;
        if is_fresh && record.last_via == via {
            return;
        }
        record.last_seen_at = at;
        record.last_via = String::from(via);
        let op = cx.store(alloc::vec![Change::TouchDevice { id, at, via }], Sync::Process);
        self.pending.await_(op, After::Noted);
    }

    pub(super) fn watch_expiry(&self, cx: &mut Ctx<'_>) {
        let now = cx.engine.unix_high();
        let soonest = cx
            .peers
            .known()
            .filter_map(|(_, caller)| match caller.who {
                Who::Device(id) => self.devices.find(id),
                Who::Owner => None,
            })
            .map(|record| devices::remaining(record, now).unwrap_or(EXPIRY_EVERY))
            .min();
        if let Some(soonest) = soonest {
            // Never at once: whatever is due by now is handled in the next turn, not in a loop of this one.
            let at = cx.engine.now.mono + soonest.clamp(Duration::from_millis(1), EXPIRY_EVERY);
            cx.engine.timers.arm(Timer::Expiry, at);
        }
    }

    pub(crate) fn on_expiry_due(&mut self, cx: &mut Ctx<'_>) {
        let living = self.devices.living(cx.engine.unix_high(), &cx.engine.config.limits);
        let expired = |who| match who {
            Who::Device(id) if !living.contains(&id) => Some(id),
            Who::Device(_) | Who::Owner => None,
        };
        let out: Vec<_> = cx.peers.known().filter_map(|(_, caller)| expired(caller.who)).collect();
        out.into_iter().for_each(|id| cx.peers.distrust(id));
        cx.peers.kick_all(|who| expired(who).is_some(), cx.fx);
        self.close_window_without_standing(cx);
        self.watch_expiry(cx);
    }
}
