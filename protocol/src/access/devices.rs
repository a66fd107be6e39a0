//! The paired devices: who holds which token, and for how long.
//!
//! Owns the table of devices and the judgement of a device's token (security E1, E3, E5); refuses to know connections
//! and methods. A revoked device stays in the table: its id is never given again.
//!
//! Invariant: the table holds what is stored, and what takes effect at once whatever the disk says: a revocation, the
//! death of a token. All else waits as a [`Patch`] for its operation to end, so nothing is ever put back: a patch that
//! was not stored is forgotten, and no other change with it.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::token::TokenDigest;
use crate::contract::id::DeviceId;
use crate::contract::limits::Limits;
use crate::contract::record::{DeviceRecord, Role};
use crate::contract::snapshot::Snapshot;
use crate::contract::time::Unix;

/// How a token was found good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Good {
    /// It is the token.
    Current,
    /// It is the one that the device is changing to: the old one dies now.
    Next,
    /// It is the one before the last rotation, in its grace.
    Old,
}

/// A change of one device that is on its way to the disk.
#[derive(Debug)]
pub(crate) enum Patch {
    Name(String),
    Role(Role),
    /// The token that the device is changing to.
    NextToken {
        digest: TokenDigest,
        at: Unix,
    },
}

impl Patch {
    pub(crate) fn apply(&self, record: &mut DeviceRecord) {
        match self {
            Self::Name(name) => record.name.clone_from(name),
            Self::Role(role) => record.role = *role,
            Self::NextToken { digest, at } => {
                record.next_token_sha256 = Some(digest.to_bytes());
                record.rotated_at = Some(*at);
            }
        }
    }

    /// The role that the device is to have.
    pub(crate) const fn role(&self) -> Option<Role> {
        match self {
            Self::Role(role) => Some(*role),
            Self::Name(_) | Self::NextToken { .. } => None,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Devices {
    table: BTreeMap<DeviceId, DeviceRecord>,
}

impl Devices {
    /// The stored devices; those on the tombstone list are revoked whatever the database says (security J3).
    pub(crate) fn new(snapshot: &mut Snapshot) -> Self {
        let records = core::mem::take(&mut snapshot.devices);
        let mut table: BTreeMap<_, _> = records.into_iter().map(|it| (it.id, it)).collect();
        for id in &snapshot.tombstones {
            if let Some(record) = table.get_mut(id) {
                record.revoked_at.get_or_insert(snapshot.unix_high);
            }
        }
        Self { table }
    }

    pub(crate) fn find(&self, id: DeviceId) -> Option<&DeviceRecord> {
        self.table.get(&id)
    }

    pub(crate) fn find_mut(&mut self, id: DeviceId) -> Option<&mut DeviceRecord> {
        self.table.get_mut(&id)
    }

    /// A patch is stored.
    pub(crate) fn patch(&mut self, id: DeviceId, patch: &Patch) {
        if let Some(record) = self.table.get_mut(&id) {
            patch.apply(record);
        }
    }

    pub(crate) fn put(&mut self, record: DeviceRecord) {
        self.table.insert(record.id, record);
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &DeviceRecord> {
        self.table.values()
    }

    /// Devices that are neither revoked nor expired.
    pub(crate) fn living(&self, now: Unix, limits: &Limits) -> Vec<DeviceId> {
        let is_living = |it: &&DeviceRecord| is_living(it, now, limits);
        self.table.values().filter(is_living).map(|it| it.id).collect()
    }

    /// Judges a presented token. Every refusal costs one comparison, whatever its reason.
    pub(crate) fn judge(
        &self,
        id: DeviceId,
        presented: &TokenDigest,
        now: Unix,
        limits: &Limits,
    ) -> Option<Good> {
        let nobody = TokenDigest::from_bytes([0; 32]);
        let record = self.table.get(&id);
        let current = record.map_or(nobody, |it| TokenDigest::from_bytes(it.token_sha256));
        let next = record.and_then(|it| it.next_token_sha256).map(TokenDigest::from_bytes);
        let is_current = current.matches(presented);
        let is_next = next.is_some_and(|next| next.matches(presented));
        let record = record.filter(|it| is_living(it, now, limits))?;
        if is_next {
            return Some(Good::Next);
        }
        let is_superseded = record.rotated_at.is_some_and(|at| {
            record.next_token_sha256.is_some() && now.since(at) > limits.rotate_grace
        });
        (is_current && !is_superseded).then_some(Good::Current)
    }
}

/// Neither revoked nor past its absolute or idle end.
pub(crate) fn is_living(record: &DeviceRecord, now: Unix, limits: &Limits) -> bool {
    record.revoked_at.is_none()
        && record.expires_at.is_none_or(|end| now < end)
        && now.since(record.last_seen_at) < limits.device_idle_expiry
}

/// How long a connected device's token still has, absolutely.
pub(crate) fn remaining(record: &DeviceRecord, now: Unix) -> Option<Duration> {
    record.expires_at.map(|end| end.since(now))
}
