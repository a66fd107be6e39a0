//! Who may come in, and do what: tokens, devices, pairing, limits on strangers, and the connections themselves.

pub(crate) mod account;
mod addresses;
pub(crate) mod ctx;
mod devices;
pub(crate) mod doorstep;
mod entry;
mod hearing;
pub(crate) mod limiter;
mod pairing;
mod pairing_calls;
mod pairing_confirm;
mod pairing_window;
pub(crate) mod peers;
mod reset;
mod standing;
pub mod token;
pub(crate) mod witness;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::contract::fingerprint::Fingerprint;
use crate::contract::id::{AskId, ConnId, DeviceId, OpId};
use crate::contract::limits::Limits;
use crate::contract::record::{AuditRecord, DeviceRecord, Role};
use crate::contract::snapshot::Snapshot;
use crate::engine::Entry;
use crate::engine::pending::Pending;
use addresses::Wanted;
use ctx::Ctx;
use devices::{Devices, Patch};
use limiter::{Failures, Strangers};
use pairing::Pairing;
use pairing_confirm::Asking;
use peers::Call;
use token::{Secret, TokenDigest};
use witness::Witness;

/// Everything about access that outlives one input.
#[derive(Debug)]
pub(crate) struct Access {
    local: TokenDigest,
    /// The local token before the last rotation, while its grace lasts.
    old_local: Option<OldLocal>,
    daemon_id: String,
    name: Option<String>,
    devices: Devices,
    pairing: Pairing,
    /// A device that waits for somebody to say that it may come in.
    asking: Option<Box<Asking>>,
    /// What waits until we know where we are reached.
    wanted: Option<(AskId, Vec<Wanted>)>,
    failures: Failures,
    strangers: Strangers,
    witness: Witness,
    /// The identity is being replaced: nobody is paired any more.
    is_resetting: bool,
    /// It was, and the daemon has to end: what it says of its end.
    reset: Option<AuditRecord>,
    /// Refusals whose penalty is not over, ready to be sent.
    refusals: BTreeMap<ConnId, String>,
    pending: Pending<OpId, After>,
}

/// A local token that was replaced and is good for a little longer.
#[derive(Debug)]
struct OldLocal {
    digest: TokenDigest,
    /// Who came with it, and goes with it.
    conns: BTreeSet<ConnId>,
}

/// What to do once a change of access is stored.
#[derive(Debug)]
enum After {
    /// The device exists: hand out its token.
    Paired { call: Call, record: Box<DeviceRecord>, grant: Grant, entries: Vec<Entry> },
    /// The failed window is written down: refuse.
    PairingRefused { call: Call },
    /// The revocation is written down.
    Revoked { call: Call, entries: Vec<Entry> },
    /// Every device is revoked, and the identity is another one.
    Reset { call: Call, audit: Box<AuditRecord>, entries: Vec<Entry>, devices: usize },
    /// The device's record is written down.
    Updated { call: Call, id: DeviceId, patch: Patch, entries: Vec<Entry> },
    /// The device's next token is written down.
    Rotated { call: Call, id: DeviceId, patch: Patch, token: Secret },
    /// The local token's file is replaced.
    LocalRotated { call: Call, digest: TokenDigest, grace_secs: u64 },
    /// The daemon's name is written down.
    Named { call: Call, name: String },
    /// Nobody waits for it: last-seen times, and rotations that were completed.
    Noted,
}

/// What a new device is given.
#[derive(Debug)]
struct Grant {
    token: Secret,
    /// After a run with its PIN: what the daemon proves in return.
    confirm: Option<String>,
}

impl After {
    /// What it changes in this device.
    fn patch_of(&self, device: DeviceId) -> Option<&Patch> {
        match self {
            Self::Updated { id, patch, .. } | Self::Rotated { id, patch, .. } => {
                (*id == device).then_some(patch)
            }
            Self::Paired { .. }
            | Self::PairingRefused { .. }
            | Self::Revoked { .. }
            | Self::Reset { .. }
            | Self::LocalRotated { .. }
            | Self::Named { .. }
            | Self::Noted => None,
        }
    }
}

impl Access {
    pub(crate) fn new(snapshot: &mut Snapshot, limits: &Limits) -> Self {
        Self {
            local: snapshot.local_token,
            old_local: None,
            daemon_id: Fingerprint::of(&snapshot.identity).to_string(),
            name: snapshot.name.take(),
            devices: Devices::new(snapshot),
            pairing: Pairing::new(core::mem::take(&mut snapshot.pairing), limits),
            asking: None,
            wanted: None,
            failures: Failures::new(limits),
            strangers: Strangers::new(limits),
            witness: Witness::new(limits),
            is_resetting: false,
            reset: None,
            refusals: BTreeMap::new(),
            pending: Pending::new(),
        }
    }

    pub(crate) fn daemon_id(&self) -> &str {
        &self.daemon_id
    }

    /// The name its owner gave it, or the machine's.
    pub(crate) fn host_name<'a>(&'a self, cx: &'a Ctx<'_>) -> &'a str {
        self.name.as_deref().unwrap_or(&cx.engine.config.host_name)
    }

    /// What a device may do now: less is allowed at once, more only when it is stored.
    fn role(&self, id: DeviceId) -> Option<Role> {
        let stored = self.devices.find(id)?.role;
        let on_their_way = self.pending.values().filter_map(|after| after.patch_of(id)?.role());
        on_their_way.chain([stored]).min()
    }

    /// A device as it will be once everything on its way is stored: what the next operation has to write.
    fn whole(&self, id: DeviceId) -> Option<DeviceRecord> {
        let mut record = self.devices.find(id)?.clone();
        for patch in self.pending.values().filter_map(|after| after.patch_of(id)) {
            patch.apply(&mut record);
        }
        Some(record)
    }

    /// What a device may do now; `None` if it is nobody any more.
    fn role_of_living(&self, cx: &Ctx<'_>, id: DeviceId) -> Option<Role> {
        let record = self.devices.find(id)?;
        let is_living = devices::is_living(record, cx.engine.unix_high(), &cx.engine.config.limits);
        self.role(id).filter(|_| is_living)
    }

    /// Devices that may still come.
    pub(crate) fn living_devices(&self, cx: &Ctx<'_>) -> usize {
        self.devices.living(cx.engine.unix_high(), &cx.engine.config.limits).len()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// Forgets a connection that is gone.
    pub(crate) fn on_closed(&mut self, cx: &mut Ctx<'_>, conn: ConnId) {
        self.strangers.leave(conn);
        self.on_guest_gone(cx, conn);
        if let Some(old) = &mut self.old_local {
            old.conns.remove(&conn);
        }
    }
}
