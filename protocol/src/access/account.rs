//! Devices as callers manage them, and what becomes of access once it is stored.
//!
//! Owns `device.list|revoke|rename|rotate|setRole`, `daemon.setName` and `daemon.rotateToken`; refuses to know
//! transport. Invariant: a revocation takes effect at once and only its answer waits for the disk; a grant takes effect
//! once it is on disk (security E4, J2).

use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use serde::Serialize;

use super::ctx::Ctx;
use super::devices::Patch;
use super::pairing_calls::checked_name;
use super::pairing_window::{Empty, role_param};
use super::peers::{Call, Caller, Phase, Who, close};
use super::token::{self, Secret, TokenDigest};
use super::witness::of_caller;
use super::{Access, After, OldLocal};
use crate::contract::effect::{Change, Effect, Sync};
use crate::contract::error::StoreFault;
use crate::contract::id::{ConnId, DeviceId, OpId};
use crate::contract::record::{AuditKind, DeviceRecord, Role};
use crate::contract::time::Unix;
use crate::engine::Timer;
use crate::wire::event::{Event, Notice};
use crate::wire::params::Params;
use crate::wire::rpc::RpcError;
use crate::wire::view::DeviceView;

#[derive(Serialize)]
struct Done {
    ok: bool,
}

#[derive(Serialize)]
struct Revoked {
    revoked: bool,
}

#[derive(Serialize)]
struct RotatedDevice<'a> {
    device_token: &'a str,
    #[serde(rename = "deviceToken")]
    device_token_camel: &'a str,
    expires_at: Option<u64>,
    #[serde(rename = "expiresAt")]
    expires_at_camel: Option<u64>,
}

#[derive(Serialize)]
struct RotatedLocal {
    rotated: bool,
}

#[derive(Serialize)]
struct Named<'a> {
    name: &'a str,
    ok: bool,
}

impl Access {
    // --- reading ------------------------------------------------------------------------------------------------

    pub(crate) fn on_device_list(
        &self,
        cx: &mut Ctx<'_>,
        call: Call,
        caller: Caller,
        params: &Params<'_>,
    ) {
        let result = params.flag("includeRevoked").map(|with_revoked| {
            let now = cx.engine.unix_high();
            let limits = &cx.engine.config.limits;
            let is_shown = |it: &&DeviceRecord| {
                let is_own = caller.who == Who::Device(it.id);
                (caller.role >= Role::Admin || is_own)
                    && (with_revoked || super::devices::is_living(it, now, limits))
            };
            self.devices
                .all()
                .filter(is_shown)
                .map(|it| {
                    let is_current = caller.who == Who::Device(it.id);
                    DeviceView::new(it, is_current, cx.peers.is_connected(it.id))
                })
                .collect::<Vec<_>>()
        });
        match result {
            Ok(views) => cx.peers.answer(call, &views, cx.fx),
            Err(error) => cx.refuse(call, &error),
        }
    }

    /// The device that a call is about, if the caller may deal with it.
    fn subject(&self, caller: Caller, params: &Params<'_>) -> Result<DeviceId, RpcError> {
        let id: DeviceId = params.need_word("id", "a device's id")?;
        let is_own = caller.who == Who::Device(id);
        if caller.role < Role::Admin && !is_own {
            return Err(RpcError::role("admin"));
        }
        if self.devices.find(id).is_none() {
            return Err(RpcError::new(-32020, "device_not_found", "there is no such device")
                .hint("list them with `device.list`"));
        }
        Ok(id)
    }

    // --- changing -----------------------------------------------------------------------------------------------

    pub(crate) fn on_device_revoke(
        &mut self,
        cx: &mut Ctx<'_>,
        call: Call,
        caller: Caller,
        params: &Params<'_>,
    ) {
        let id = match self.subject(caller, params) {
            Ok(id) => id,
            Err(error) => return cx.refuse(call, &error),
        };
        let Some((changes, notice)) = self.strike(cx, id, caller, call.conn) else { return };
        // One that revokes itself is told so once it is stored, and nothing else from now on.
        if caller.who == Who::Device(id)
            && let Some(peer) = cx.peers.peer_mut(call.conn)
        {
            peer.phase = Phase::Waiting;
            cx.fx.push(Effect::Pause { conn: call.conn });
            cx.peers.refuse_all_but(&call, cx.fx);
        }
        cx.peers.kick_all(|who| who == Who::Device(id), cx.fx);
        cx.peers.distrust(id);
        self.close_window_without_standing(cx);
        let (op, entries) = cx.store_telling(changes, vec![notice], Sync::Disk);
        self.pending.await_(op, After::Revoked { call, entries });
    }

    /// Revokes a device: what is to be stored of it, and told once it is. Its connections are the caller's to end.
    pub(super) fn strike(
        &mut self,
        cx: &mut Ctx<'_>,
        id: DeviceId,
        caller: Caller,
        conn: ConnId,
    ) -> Option<(Vec<Change>, Notice)> {
        if let Some(record) = self.devices.find_mut(id) {
            record.revoked_at.get_or_insert(cx.engine.unix_high());
            record.next_token_sha256 = None;
        }
        let mut record = self.whole(id)?;
        record.next_token_sha256 = None;
        let notice = cx.engine.number(&Event::DeviceRevoked((&record).into()));
        let mut audit = of_caller(cx, AuditKind::Revoked, caller, conn);
        audit.device = Some(id);
        let changes = vec![Change::Bury(id), Change::PutDevice(record), Change::Audit(audit)];
        Some((changes, notice))
    }

    pub(crate) fn on_device_rename(
        &mut self,
        cx: &mut Ctx<'_>,
        call: Call,
        caller: Caller,
        params: &Params<'_>,
    ) {
        let renamed = self.subject(caller, params).and_then(|id| {
            Ok((id, Patch::Name(checked_name(cx, "name", params.need_text("name")?)?)))
        });
        self.update(cx, call, caller, renamed);
    }

    pub(crate) fn on_device_set_role(
        &mut self,
        cx: &mut Ctx<'_>,
        call: Call,
        caller: Caller,
        params: &Params<'_>,
    ) {
        let changed = self.subject(caller, params).and_then(|id| {
            let role = role_param(params)?;
            let role = role.ok_or_else(|| RpcError::bad_params("role", "is missing"))?;
            Ok((id, Patch::Role(role)))
        });
        self.update(cx, call, caller, changed);
    }

    fn update(
        &mut self,
        cx: &mut Ctx<'_>,
        call: Call,
        caller: Caller,
        change: Result<(DeviceId, Patch), RpcError>,
    ) {
        let (id, patch) = match change {
            Ok(change) => change,
            Err(error) => return cx.refuse(call, &error),
        };
        let Some(mut record) = self.whole(id) else { return };
        if record.revoked_at.is_some() {
            let error = RpcError::new(-32020, "device_not_found", "this device is revoked")
                .hint("pair it again with `clawd pair`");
            return cx.refuse(call, &error);
        }
        patch.apply(&mut record);
        let before = self.role(id);
        let notice = cx.engine.number(&Event::DeviceUpdated((&record).into()));
        let mut changes = vec![Change::PutDevice(record)];
        if let Some(role) = patch.role() {
            let mut audit = of_caller(cx, AuditKind::RoleChanged, caller, call.conn);
            audit.device = Some(id);
            audit.role = Some(role);
            changes.push(Change::Audit(audit));
        }
        let (op, entries) = cx.store_telling(changes, vec![notice], Sync::Disk);
        self.pending.await_(op, After::Updated { call, id, patch, entries });
        if self.role(id) < before {
            self.tell_role(cx, id);
            cx.peers.distrust(id);
            self.close_window_without_standing(cx);
        }
    }

    /// Gives a device's connections the role that it has now.
    fn tell_role(&self, cx: &mut Ctx<'_>, id: DeviceId) {
        if let Some(role) = self.role(id) {
            cx.peers.set_role(id, role);
        }
    }

    /// Stores a device as it is to be, for nobody who waits.
    pub(super) fn write_down(&mut self, cx: &mut Ctx<'_>, id: DeviceId) {
        let Some(record) = self.whole(id) else { return };
        let op = cx.store(vec![Change::PutDevice(record)], Sync::Disk);
        self.pending.await_(op, After::Noted);
    }

    /// `device.rotate`: a device changes its own token and nothing else (security E5).
    pub(crate) fn on_device_rotate(&mut self, cx: &mut Ctx<'_>, call: Call, caller: Caller) {
        let Who::Device(id) = caller.who else {
            return cx.refuse(call, &RpcError::role("device"));
        };
        let Some(mut record) = self.whole(id) else { return };
        let token = token::device(id, &mut cx.engine.entropy);
        let digest = TokenDigest::of(token.expose());
        let patch = Patch::NextToken { digest, at: cx.engine.unix_high() };
        patch.apply(&mut record);
        let mut audit = of_caller(cx, AuditKind::Rotated, caller, call.conn);
        audit.device = Some(id);
        let op = cx.store(vec![Change::PutDevice(record), Change::Audit(audit)], Sync::Disk);
        self.pending.await_(op, After::Rotated { call, id, patch, token });
    }

    pub(crate) fn on_set_name(&mut self, cx: &mut Ctx<'_>, call: Call, params: &Params<'_>) {
        let name = params.need_text("name").and_then(|name| checked_name(cx, "name", name));
        match name {
            Ok(name) => {
                let op = cx.store(vec![Change::PutName(name.clone())], Sync::Process);
                self.pending.await_(op, After::Named { call, name });
            }
            Err(error) => cx.refuse(call, &error),
        }
    }

    /// `daemon.rotateToken`: the answer never holds the token; the file does (security A6, A8).
    pub(crate) fn on_rotate_local(
        &mut self,
        cx: &mut Ctx<'_>,
        call: Call,
        caller: Caller,
        params: &Params<'_>,
    ) {
        let grace_max = cx.engine.config.limits.rotate_grace_max.as_secs();
        let grace_secs = match params.count("graceSecs") {
            Ok(grace) => grace.unwrap_or(0).min(grace_max),
            Err(error) => return cx.refuse(call, &error),
        };
        let token = token::local(&mut cx.engine.entropy);
        let digest = TokenDigest::of(token.expose());
        let audit = of_caller(cx, AuditKind::Rotated, caller, call.conn);
        let op = cx.store(vec![Change::PutLocalToken(token), Change::Audit(audit)], Sync::Disk);
        self.pending.await_(op, After::LocalRotated { call, digest, grace_secs });
    }

    // --- stored -------------------------------------------------------------------------------------------------

    /// Goes on with what waited for this operation, if it was one of ours.
    pub(crate) fn on_stored(
        &mut self,
        cx: &mut Ctx<'_>,
        op: OpId,
        result: &Result<(), StoreFault>,
    ) -> bool {
        let Some(after) = self.pending.take(&op) else { return false };
        match result {
            Ok(()) => self.on_durable(cx, after),
            Err(fault) => self.on_not_stored(cx, after, fault),
        }
        true
    }

    fn on_durable(&mut self, cx: &mut Ctx<'_>, after: After) {
        match after {
            // Its row was buried with all others: nobody gets in with it.
            After::Paired { call, entries, .. } if self.is_resetting => {
                self.turn_away_guest(cx, call);
                cx.tell(entries);
            }
            After::Paired { call, record, grant, entries } => {
                self.on_paired(cx, call, *record, &grant, entries);
            }
            After::PairingRefused { call } => self.turn_away_guest(cx, call),
            After::Revoked { call, entries } => {
                let conn = call.conn;
                cx.answer(call, &Revoked { revoked: true });
                close_revoked(cx, conn);
                cx.tell(entries);
            }
            After::Reset { call, audit, entries, devices } => {
                self.on_reset(cx, call, *audit, entries, devices);
            }
            After::Updated { call, id, patch, entries } => {
                self.devices.patch(id, &patch);
                self.tell_role(cx, id);
                cx.answer(call, &Done { ok: true });
                cx.tell(entries);
            }
            After::Rotated { call, id, patch, token } => {
                self.devices.patch(id, &patch);
                self.on_device_rotated(cx, call, id, &token);
            }
            After::LocalRotated { call, digest, grace_secs } => {
                self.on_local_rotated(cx, call, digest, grace_secs);
            }
            After::Named { call, name } => {
                cx.answer(call, &Named { name: &name, ok: true });
                self.name = Some(name);
            }
            After::Noted => {}
        }
    }

    fn on_not_stored(&mut self, cx: &mut Ctx<'_>, after: After, fault: &StoreFault) {
        let error = RpcError::storage(fault);
        match after {
            After::Paired { call, .. } => {
                self.progress(cx, "failed", &error.message);
                let conn = call.conn;
                cx.refuse(call, &error);
                cx.peers.close(conn, close::TRY_AGAIN_LATER, "not stored", cx.fx);
            }
            // The guess was wrong whether or not that could be written down.
            After::PairingRefused { call } => self.turn_away_guest(cx, call),
            // The device stays out as long as this daemon lives; that it may come back later must be known.
            After::Revoked { call, .. } => {
                let conn = call.conn;
                cx.refuse(call, &error);
                close_revoked(cx, conn);
            }
            After::Reset { call, .. } => {
                self.is_resetting = false;
                cx.refuse(call, &error);
            }
            After::Updated { call, id, .. } | After::Rotated { call, id, .. } => {
                cx.refuse(call, &error);
                self.tell_role(cx, id);
                // What was asked for after it has written it down too, as if it were to come.
                self.write_down(cx, id);
            }
            After::LocalRotated { call, .. } | After::Named { call, .. } => {
                cx.refuse(call, &error);
            }
            After::Noted => {}
        }
    }

    fn on_device_rotated(&self, cx: &mut Ctx<'_>, call: Call, id: DeviceId, token: &Secret) {
        let expires_at = self.devices.find(id).and_then(|it| it.expires_at).map(Unix::as_secs);
        let view = RotatedDevice {
            device_token: token.expose(),
            device_token_camel: token.expose(),
            expires_at,
            expires_at_camel: expires_at,
        };
        cx.answer(call, &view);
    }

    fn on_local_rotated(
        &mut self,
        cx: &mut Ctx<'_>,
        call: Call,
        digest: TokenDigest,
        grace_secs: u64,
    ) {
        cx.answer(call, &RotatedLocal { rotated: true });
        self.close_window_of_owner(cx);
        // At most one token has a grace: that of the one before is over.
        self.on_old_token_late(cx);
        let is_owner =
            |(conn, caller): (ConnId, Caller)| (caller.who == Who::Owner).then_some(conn);
        let conns = cx.peers.known().filter_map(is_owner).collect();
        self.old_local = Some(OldLocal { digest: self.local, conns });
        self.local = digest;
        if grace_secs > 0 {
            let at = cx.engine.now.mono + Duration::from_secs(grace_secs);
            cx.engine.timers.arm(Timer::OldToken, at);
        } else {
            self.on_old_token_late(cx);
        }
    }

    /// The old local token is dead; so is everybody who came with it, and nobody else.
    pub(crate) fn on_old_token_late(&mut self, cx: &mut Ctx<'_>) {
        cx.engine.timers.disarm(Timer::OldToken);
        for conn in self.old_local.take().into_iter().flat_map(|old| old.conns) {
            cx.peers.kick(conn, cx.fx);
        }
    }
}

/// Closes the connection of a device that has revoked itself.
fn close_revoked(cx: &mut Ctx<'_>, conn: ConnId) {
    if cx.peers.peer(conn).is_some_and(|peer| peer.phase == Phase::Waiting) {
        cx.peers.close(conn, close::POLICY, "unauthorized", cx.fx);
    }
}

/// The result of calls that have none.
pub(crate) const fn empty() -> Empty {
    Empty {}
}
