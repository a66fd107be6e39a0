//! Limits: nothing grows beyond what it may.
//!
//! Owns the counting of connections, strangers, queues and devices; refuses to know what they are used for.

use std::collections::BTreeMap;

use clawd_protocol::record::DeviceRecord;
use clawd_protocol::{ConnId, Source, Unix};

use super::{Invariants, Verdict, ensure};
use crate::link::{Link, Stage};
use crate::store::Store;

impl Invariants {
    /// A device more is paired only where there is room among those that still can come in.
    pub(super) fn check_devices(&mut self, unix: Unix, store: &Store) -> Verdict {
        self.unix_high = self.unix_high.max(unix).max(store.db.unix_high);
        let before = std::mem::replace(&mut self.devices, store.db.devices.len());
        let (now, idle) = (self.unix_high, self.limits.device_idle_expiry);
        let is_living = |device: &&DeviceRecord| {
            device.revoked_at.is_none()
                && device.expires_at.is_none_or(|at| at > now)
                && device.last_seen_at + idle > now
        };
        let living = store.db.devices.values().filter(is_living).count();
        let max = if self.devices > before { self.limits.devices_max } else { usize::MAX };
        within("devices", living, max)
    }

    pub(super) fn check_links(&self, links: &BTreeMap<ConnId, Link>) -> Verdict {
        let mut strangers: BTreeMap<Source, usize> = BTreeMap::new();
        let mut open = 0;
        for (conn, peer) in self.peers.iter().filter(|(_, peer)| !peer.is_over) {
            let Some(link) = links.get(conn).filter(|link| link.is_open()) else { continue };
            open += 1;
            if peer.identity.is_none() && peer.source != Source::Unix {
                *strangers.entry(canonical(peer.source)).or_default() += 1;
            }
            if link.stage == Stage::Upgraded {
                let bytes = link.queued_bytes().saturating_sub(link.longest_queued());
                within("queued bytes", bytes, self.limits.queue_bytes_max)?;
                within("open requests", peer.open.len(), self.limits.in_flight_max)?;
            }
        }
        within("connections", open, self.limits.connections_max)?;
        within("strangers", strangers.values().sum(), self.limits.strangers_max)?;
        let of_one = strangers.values().copied().max().unwrap_or(0);
        within("strangers of one source", of_one, self.limits.strangers_per_source)
    }
}

pub(super) fn within(what: &str, is: usize, max: usize) -> Verdict {
    ensure(is <= max, || format!("{what}: {is} where {max} is the limit"))
}

/// One bucket for what is one source (security C2).
fn canonical(source: Source) -> Source {
    use std::net::{IpAddr, Ipv6Addr};
    match source {
        Source::Tcp(IpAddr::V6(v6)) => match v6.to_ipv4_mapped() {
            Some(v4) => Source::Tcp(IpAddr::V4(v4)),
            None => {
                let [a, b, c, d, ..] = v6.segments();
                Source::Tcp(IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0)))
            }
        },
        Source::Unix | Source::Tcp(_) | Source::Relay(_) => source,
    }
}
