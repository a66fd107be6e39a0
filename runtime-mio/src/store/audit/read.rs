//! Reading the audit log, with or without a daemon that writes it.
//!
//! Owns the files in their order, pages of lines and the verification of all of them; refuses to change anything. The
//! log is read while it grows: half a line at its end is not there yet.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use clawd_protocol::audit::{Anchor, Line, Report, Verifier};
use clawd_protocol::{Answer, Question, SessionId, StoreFault};
use rusqlite::{Connection, OpenFlags};
use rustix::fs::OFlags;

use super::{FILES_MAX, name, remembered};
use crate::files::{FileError, PrivateDir};
use crate::store::{StoreError, open};

/// How much is read at once, from the end backwards.
const CHUNK_BYTES: u64 = 64 * 1024;
/// How often it is looked for files again that were renamed under our hands.
const LOOKS_MAX: usize = 8;

/// Is told each line with its file and its number there.
type Tell<'a> = &'a mut dyn FnMut(&str, u64, &[u8]) -> io::Result<()>;

/// The audit log of a data directory.
#[derive(Debug, Clone)]
pub struct AuditReader {
    dir: PrivateDir,
}

impl AuditReader {
    pub(crate) const fn new(dir: PrivateDir) -> Self {
        Self { dir }
    }

    /// Verifies every line of all files, and that the end is where the daemon remembers it.
    ///
    /// # Errors
    /// A file or the database cannot be read.
    pub fn verify(&self) -> Result<Report, StoreError> {
        // First what is remembered, then the files: they are never behind it.
        let anchor = self.anchor()?;
        let mut verifier = Verifier::new(anchor.map(|anchor| anchor.chain));
        self.each_line(&mut |file, number, line| {
            verifier.line(file, number, line);
            Ok(())
        })?;
        Ok(verifier.finish())
    }

    /// Writes all lines, the oldest first.
    ///
    /// # Errors
    /// A file cannot be read, or `to` not be written.
    pub fn export(&self, to: &mut dyn Write) -> Result<(), FileError> {
        self.each_line(&mut |_, _, line| {
            to.write_all(line)?;
            to.write_all(b"\n")
        })
    }

    /// The last lines, the newest first: about one session or about everything, and only those before a number.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn page(
        &self,
        session: Option<SessionId>,
        before: Option<u64>,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Vec<String>, FileError> {
        let mut page = Page { session, before, limit, bytes_max, lines: Vec::new() };
        for (name, file) in self.files()? {
            let failed = FileError::failed("read", &self.dir.path().join(&name));
            let mut lines = Backwards::new(&file).map_err(failed)?;
            let failed = || FileError::failed("read", &self.dir.path().join(&name));
            while let Some(line) = lines.next().map_err(failed())? {
                if !page.add(&line) {
                    return Ok(page.lines);
                }
            }
        }
        Ok(page.lines)
    }

    pub(crate) fn answer(&self, question: &Question) -> Answer {
        let Question::Audit { session, before, limit, bytes_max } = question else {
            return Answer::Failed(StoreFault::Failed("the audit log was not asked".to_owned()));
        };
        match self.page(*session, *before, *limit, *bytes_max) {
            Ok(lines) => Answer::Audit(lines),
            Err(error) => Answer::Failed(StoreFault::Failed(error.to_string())),
        }
    }

    /// What the daemon remembers; `None` before its first start.
    fn anchor(&self) -> Result<Option<Anchor>, StoreError> {
        if self.dir.open_file(open::DATABASE_FILE, OFlags::RDONLY)?.is_none() {
            return Ok(None);
        }
        let path = self.dir.path().join(open::DATABASE_FILE);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let db = Connection::open_with_flags(&path, flags).map_err(StoreError::sqlite(&path))?;
        let is_there = db.table_exists(None, "audit").map_err(StoreError::sqlite(&path))?;
        let anchor = is_there.then(|| remembered(&db)).transpose();
        anchor.map_err(StoreError::sqlite(&path))
    }

    fn each_line(&self, tell: Tell<'_>) -> Result<(), FileError> {
        for (name, file) in self.files()?.into_iter().rev() {
            let failed = FileError::failed("read", &self.dir.path().join(&name));
            let mut read = || -> io::Result<()> {
                let mut file = BufReader::new(&file);
                let mut line = Vec::new();
                for number in 1.. {
                    line.clear();
                    file.read_until(b'\n', &mut line)?;
                    let Some(line) = line.strip_suffix(b"\n") else { break };
                    tell(&name, number, line)?;
                }
                Ok(())
            };
            read().map_err(failed)?;
        }
        Ok(())
    }

    /// All files, the newest first.
    fn files(&self) -> Result<Vec<(String, File)>, FileError> {
        let failed = || FileError::failed("look at", self.dir.path());
        let mut files = Vec::new();
        for _ in 0..LOOKS_MAX {
            files.clear();
            let mut seen = BTreeSet::new();
            let mut is_steady = true;
            for age in 0..FILES_MAX {
                let Some(file) = self.dir.open_file(&name(age), OFlags::RDONLY)? else { continue };
                // Met twice: it was given its next name in between, and another one may have been missed.
                is_steady &= seen.insert(file.metadata().map_err(failed())?.ino());
                files.push((name(age), file));
            }
            if is_steady {
                break;
            }
        }
        Ok(files)
    }
}

struct Page {
    session: Option<SessionId>,
    before: Option<u64>,
    limit: usize,
    bytes_max: usize,
    lines: Vec<String>,
}

impl Page {
    /// Whether there is room for more.
    fn add(&mut self, line: &[u8]) -> bool {
        let text = String::from_utf8_lossy(line);
        if self.session.is_some_and(|session| !text.contains(&session.to_string())) {
            return true;
        }
        let read = Line::read(line);
        if let Some(line) = read
            && self.before.is_some_and(|before| line.n < before)
        {
            self.before = None;
        }
        let is_about = self.session.is_none_or(|id| read.is_some_and(|line| line.is_about(id)));
        if self.before.is_some() || !is_about {
            return true;
        }
        let room = self.bytes_max.checked_sub(text.len());
        if self.lines.len() >= self.limit || (room.is_none() && !self.lines.is_empty()) {
            return false;
        }
        self.bytes_max = room.unwrap_or(0);
        self.lines.push(text.into_owned());
        self.lines.len() < self.limit
    }
}

/// The lines of a file, the last one first.
struct Backwards<'a> {
    file: &'a File,
    /// What was not read yet ends here.
    end: u64,
    /// What was read and not handed out: the beginning of the first line may be missing.
    text: Vec<u8>,
}

impl<'a> Backwards<'a> {
    fn new(file: &'a File) -> io::Result<Self> {
        let mut lines = Self { file, end: file.metadata()?.len(), text: Vec::new() };
        // Half a line at the end is not there yet.
        while !lines.text.contains(&b'\n') && lines.fetch()? {}
        let whole = lines.text.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        lines.text.truncate(whole);
        Ok(lines)
    }

    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let Some(body) = self.text.strip_suffix(b"\n") else { return Ok(None) };
            if let Some(at) = body.iter().rposition(|&byte| byte == b'\n') {
                let mut line = self.text.split_off(at + 1);
                line.pop();
                return Ok(Some(line));
            }
            if !self.fetch()? {
                let mut line = std::mem::take(&mut self.text);
                line.pop();
                return Ok(Some(line));
            }
        }
    }

    /// Reads what is before; false at the beginning of the file.
    fn fetch(&mut self) -> io::Result<bool> {
        let from = self.end.saturating_sub(CHUNK_BYTES);
        if from == self.end {
            return Ok(false);
        }
        let mut chunk = vec![0; usize::try_from(self.end - from).unwrap_or_default()];
        self.file.read_exact_at(&mut chunk, from)?;
        chunk.append(&mut self.text);
        self.text = chunk;
        self.end = from;
        Ok(true)
    }
}
