//! `daemon.resetIdentity`: another key, and nobody who knows the old one is let in any more (security G9).
//!
//! Owns that it is one operation: either every device is revoked and the key is another one, or it was not done; refuses to
//! end the daemon, which has to start again to have the new key. As with a single revocation the devices are out at once,
//! and stay out as long as this daemon lives, whatever the disk says.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use serde::Serialize;

use super::ctx::Ctx;
use super::peers::{Call, Caller, Who};
use super::witness::of_caller;
use super::{Access, After};
use crate::contract::effect::{Change, Sync};
use crate::contract::id::DeviceId;
use crate::contract::record::{AuditKind, AuditRecord, DeviceRecord};
use crate::engine::Entry;
use crate::wire::rpc::RpcError;

#[derive(Serialize)]
struct Reset {
    reset: bool,
    devices: usize,
}

impl Access {
    pub(crate) fn on_reset_identity(&mut self, cx: &mut Ctx<'_>, call: Call, caller: Caller) {
        if self.is_resetting {
            let error = RpcError::new(-32029, "rate_limited", "it is being reset already");
            return cx.refuse(call, &error.hint("wait for the answer to the call before"));
        }
        self.is_resetting = true;
        // Those whose row is on its way are not in the table yet.
        let coming: Vec<_> = self.pending.values().filter_map(After::is_pairing).cloned().collect();
        coming.into_iter().for_each(|record| self.devices.put(record));
        let is_there = |it: &&DeviceRecord| it.revoked_at.is_none();
        let ids: Vec<DeviceId> =
            self.devices.all().filter(is_there).map(|record| record.id).collect();
        let (mut changes, mut notices) = (vec![Change::ResetIdentity], Vec::new());
        for id in &ids {
            let Some((of_it, notice)) = self.strike(cx, *id, caller, call.conn) else { continue };
            changes.extend(of_it);
            notices.push(notice);
            cx.peers.distrust(*id);
        }
        cx.peers.kick_all(|who| matches!(who, Who::Device(_)), cx.fx);
        self.close_window_without_standing(cx);
        changes.push(Change::Audit(of_caller(cx, AuditKind::IdentityReset, caller, call.conn)));
        let audit = Box::new(of_caller(cx, AuditKind::Stopped, caller, call.conn));
        let (op, entries) = cx.store_telling(changes, notices, Sync::Disk);
        self.pending.await_(op, After::Reset { call, audit, entries, devices: ids.len() });
    }

    pub(super) fn on_reset(
        &mut self,
        cx: &mut Ctx<'_>,
        call: Call,
        audit: AuditRecord,
        entries: Vec<Entry>,
        devices: usize,
    ) {
        cx.answer(call, &Reset { reset: true, devices });
        cx.tell(entries);
        self.reset = Some(audit);
    }

    /// The identity was replaced: what is said of the end that must follow.
    pub(crate) fn take_reset(&mut self) -> Option<AuditRecord> {
        self.reset.take()
    }
}

impl After {
    /// The device that is being paired.
    fn is_pairing(&self) -> Option<&DeviceRecord> {
        match self {
            Self::Paired { record, .. } => Some(record),
            Self::PairingRefused { .. }
            | Self::Revoked { .. }
            | Self::Reset { .. }
            | Self::Updated { .. }
            | Self::Rotated { .. }
            | Self::LocalRotated { .. }
            | Self::Named { .. }
            | Self::Noted => None,
        }
    }
}
