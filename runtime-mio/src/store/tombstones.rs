//! Revocations that outlive the database.
//!
//! Owns the append-only file `revoked`, one device id a line (security J3): a database restored from an old backup does
//! not bring a revoked device back. Refuses to know what a device is.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};

use clawd_protocol::DeviceId;
use rustix::fs::OFlags;

use super::StoreError;
use crate::files::PrivateDir;

const TOMBSTONE_FILE: &str = "revoked";

#[derive(Debug)]
pub(super) struct Tombstones {
    file: File,
    buried: BTreeSet<DeviceId>,
}

impl Tombstones {
    /// A last line without a newline was never reported as stored: it is cut off. Anything else that is not a device's
    /// id means that the file was tampered with or damaged, and nobody can say who was revoked.
    pub(super) fn open(dir: &PrivateDir) -> Result<Self, StoreError> {
        let path = dir.path().join(TOMBSTONE_FILE);
        let failed = |source| StoreError::Tombstones { path: path.clone(), source };
        let mut file = dir.open_or_make_file(TOMBSTONE_FILE, OFlags::RDWR | OFlags::APPEND)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(failed)?;
        let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let lines =
            text.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n"));
        let mut buried = BTreeSet::new();
        for (number, line) in lines.enumerate() {
            let id = std::str::from_utf8(line).ok().and_then(|line| line.trim_end().parse().ok());
            let id =
                id.ok_or_else(|| StoreError::Tombstone { path: path.clone(), line: number + 1 })?;
            buried.insert(id);
        }
        if whole < text.len() {
            file.set_len(u64::try_from(whole).unwrap_or(u64::MAX)).map_err(failed)?;
        }
        Ok(Self { file, buried })
    }

    pub(super) fn all(&self) -> Vec<DeviceId> {
        self.buried.iter().copied().collect()
    }

    /// Returns when the tombstone has reached the disk.
    pub(super) fn bury(&mut self, id: DeviceId) -> io::Result<()> {
        if self.buried.contains(&id) {
            return Ok(());
        }
        let before = self.file.metadata()?.len();
        let written = writeln!(self.file, "{id}").and_then(|()| self.file.sync_all());
        if written.is_err() {
            // A torn line must not grow into a malformed one.
            self.file.set_len(before)?;
        } else {
            self.buried.insert(id);
        }
        written
    }
}
