//! `logs`: what a daemon in the background has said, also when it runs no more.
//!
//! Owns finding the last lines and following the file through truncation and replacement; refuses to know what they mean.
//! Each line is made safe to look at (security K1): a daemon of another version may have been less careful.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use clawd_protocol::text::visible_bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;
use signal_hook::consts::SIGINT;

use crate::args::{Global, Logs as Args};
use crate::exit::{Exit, Failure};
use crate::home::{data_dir, shorten};
use crate::interrupts::Interrupts;
use crate::log;
use crate::render::Screen;

/// How often a file that is followed is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(300);
const BLOCK_BYTES: usize = 64 * 1024;
/// A longer line is shown in pieces.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// `logs`.
pub(super) fn logs(global: &Global, screen: &Screen, args: &Args) -> Result<Exit, Failure> {
    let path = data_dir(global)?.join(log::FILE);
    let file = log::open(&path)?;
    if file.is_none() && !args.follow {
        return Err(missing(&path));
    }
    let mut reader = Reader { screen, path, file: None, rest: Vec::new() };
    if let Some(mut file) = file {
        let from = tail_start(&mut file, args.lines).map_err(|error| reader.failed(&error))?;
        reader.begin(file, from)?;
        reader.read()?;
    }
    if !args.follow {
        reader.end()?;
        return Ok(Exit::Ok);
    }
    let mut interrupt = Interrupts::catch(&[SIGINT])?;
    let timeout = Timespec { tv_sec: 0, tv_nsec: LOOK_EVERY.subsec_nanos().into() };
    loop {
        let mut fds = [PollFd::from_borrowed_fd(interrupt.as_fd(), PollFlags::IN)];
        // Interrupted or not, what came is looked at next.
        let _ = poll(&mut fds, Some(&timeout));
        if interrupt.take() > 0 {
            return Ok(Exit::Interrupted);
        }
        reader.follow()?;
    }
}

fn missing(path: &std::path::Path) -> Failure {
    let why = format!("there is no log at {} yet", shorten(path));
    Failure::new(Exit::NotFound, "no_log", why)
        .hint("`clawd up` starts a daemon that writes one; `clawd serve` talks to its terminal")
}

struct Reader<'a> {
    screen: &'a Screen,
    path: PathBuf,
    file: Option<File>,
    /// The beginning of a line whose end is not written yet.
    rest: Vec<u8>,
}

impl Reader<'_> {
    fn begin(&mut self, mut file: File, from: u64) -> Result<(), Failure> {
        file.seek(SeekFrom::Start(from)).map_err(|error| self.failed(&error))?;
        self.file = Some(file);
        Ok(())
    }

    /// Shows what is new. A file that was cut, or another one in its place, is read from its beginning.
    fn follow(&mut self) -> Result<(), Failure> {
        self.read()?;
        let Some(now) = log::open(&self.path)? else { return Ok(()) };
        if !self.is_the_same(&now).map_err(|error| self.failed(&error))? {
            self.end()?;
            self.begin(now, 0)?;
            self.read()?;
        }
        Ok(())
    }

    /// Whether `now` is the file that is read, and no shorter than what was read of it.
    fn is_the_same(&mut self, now: &File) -> io::Result<bool> {
        let Some(file) = &mut self.file else { return Ok(false) };
        let (old, new) = (file.metadata()?, now.metadata()?);
        let is_same = (old.dev(), old.ino()) == (new.dev(), new.ino());
        Ok(is_same && new.len() >= file.stream_position()?)
    }

    fn read(&mut self) -> Result<(), Failure> {
        let mut block = vec![0; BLOCK_BYTES];
        loop {
            let Some(file) = &mut self.file else { return Ok(()) };
            let length = file.read(&mut block).map_err(|error| self.failed(&error))?;
            if length == 0 {
                return Ok(());
            }
            for byte in block.iter().take(length) {
                if *byte == b'\n' {
                    self.show()?;
                    continue;
                }
                self.rest.push(*byte);
                if self.rest.len() == LINE_BYTES_MAX {
                    self.show()?;
                }
            }
        }
    }

    /// A last line may have no end.
    fn end(&mut self) -> Result<(), Failure> {
        if self.rest.is_empty() { Ok(()) } else { self.show() }
    }

    fn show(&mut self) -> Result<(), Failure> {
        let line = std::mem::take(&mut self.rest);
        let line = visible_bytes(&line);
        if self.screen.is_json() {
            self.screen.json_line(&json!({ "line": line }))
        } else {
            self.screen.line(&line)
        }
    }

    fn failed(&self, error: &io::Error) -> Failure {
        Failure::io(&format!("cannot read {}", shorten(&self.path)), error)
    }
}

/// Where the last `lines` lines begin. Read from the end, because the file may be long.
fn tail_start(file: &mut File, lines: u32) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    let mut block = vec![0; BLOCK_BYTES];
    let mut ends_wanted = u64::from(lines);
    let mut is_last = true;
    while end > 0 {
        let start = end.saturating_sub(u64::try_from(BLOCK_BYTES).unwrap_or(u64::MAX));
        file.seek(SeekFrom::Start(start))?;
        let length = usize::try_from(end - start).unwrap_or(BLOCK_BYTES);
        let Some(piece) = block.get_mut(..length) else { break };
        file.read_exact(piece)?;
        for (at, byte) in piece.iter().enumerate().rev() {
            // The end of the last line begins no other.
            if *byte != b'\n' || std::mem::take(&mut is_last) && at + 1 == length {
                continue;
            }
            if ends_wanted <= 1 {
                return Ok(start + u64::try_from(at).unwrap_or(0) + u64::from(lines > 0));
            }
            ends_wanted -= 1;
        }
        is_last = false;
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn tail(text: &str, lines: u32) -> String {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let from = tail_start(&mut file, lines).unwrap();
        text[usize::try_from(from).unwrap()..].to_owned()
    }

    #[test]
    fn the_last_lines_are_found_from_the_end() {
        assert_eq!(tail("", 3), "");
        assert_eq!(tail("one\ntwo\nthree\n", 2), "two\nthree\n");
        assert_eq!(tail("one\ntwo\nthree", 2), "two\nthree");
        assert_eq!(tail("one\ntwo\n", 9), "one\ntwo\n");
        assert_eq!(tail("one\n\n\n", 2), "\n\n");
        let long = format!("{}\nlast\n", "x".repeat(3 * BLOCK_BYTES));
        assert_eq!(tail(&long, 1), "last\n");
        assert_eq!(tail(&long, 2), long);
        let at_border = format!("{}\n{}\n", "x".repeat(10), "y".repeat(BLOCK_BYTES - 1));
        assert_eq!(tail(&at_border, 1).len(), BLOCK_BYTES);
    }
}
