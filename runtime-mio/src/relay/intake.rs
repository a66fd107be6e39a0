//! A connection's bytes: request heads and control messages to the rendezvous, payload to the other leg.
//!
//! Owns the way from a readable socket; refuses to know who may meet whom. Invariants: at most one budget is read from a
//! connection per turn · nothing is read while more than `queue_bytes_max` waits for whoever it would be written to: it
//! stays in the kernel, and the peer's sending stops by itself · after each input the connection is looked up again.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::mem;
use std::ops::Range;

use clawd_protocol::ConnId;
use clawd_protocol::relay::rendezvous::Input;

use super::event_loop::{EventLoop, Happened};
use super::frames::{HEADROOM, Said};
use super::leg::Phase;
use crate::head::{self, Scan};
use crate::websocket::{Decoded, put_close};

/// Slices that one system call writes.
const GATHER_MAX: usize = 64;

impl EventLoop {
    /// Reads one connection within the budget.
    pub(super) fn read(&mut self, id: ConnId) {
        let is_full = self.is_full(id);
        let Some(leg) = self.legs.get_mut(id) else { return };
        if leg.is_at_end || matches!(leg.phase, Phase::Asked) && !leg.is_ending {
            return;
        }
        if is_full && !leg.is_ending {
            leg.is_waiting = true;
            return;
        }
        if !matches!(leg.phase, Phase::Head { .. }) && !leg.held.is_empty() {
            let held = mem::take(&mut leg.held);
            let mut buffer = [&[0; HEADROOM][..], &held].concat();
            self.mark_unfinished(id);
            return self.take_in(id, &mut buffer);
        }
        let mut buffer = mem::take(&mut self.buffer);
        match leg.wire.read(&mut buffer[HEADROOM..]) {
            Ok(0) => {
                leg.is_at_end = true;
                // What was queued before the peer hung up may still reach it, if it only ended its own side.
                if !leg.is_ending || leg.outbox.is_empty() && !leg.is_blocked {
                    self.drop_leg(id);
                }
            }
            Ok(length) => {
                // A short read means that there is no more, unless the end is there: that is announced only once.
                let is_short = HEADROOM + length < buffer.len();
                if !is_short || leg.has_hung_up || leg.wire.has_unread() {
                    self.mark_unfinished(id);
                }
                self.take_in(id, &mut buffer[..HEADROOM + length]);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => leg.has_hung_up = false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.mark_unfinished(id),
            Err(_) => self.drop_leg(id),
        }
        self.buffer = buffer;
        // A handshake of TLS answers while it is read, and the socket may not have taken the answer.
        if let Some(leg) = self.legs.get_mut(id)
            && !leg.is_blocked
            && !leg.wire.flush_pending().unwrap_or(true)
        {
            leg.is_blocked = true;
        }
    }

    /// Whether what it says would find no room: at the other leg, or in answers to itself.
    fn is_full(&mut self, id: ConnId) -> bool {
        let Some(leg) = self.legs.get_mut(id) else { return false };
        let writes_to = leg.other.unwrap_or(id);
        let most = self.queue_bytes_max;
        self.legs.get_mut(writes_to).is_some_and(|leg| leg.queued > most)
    }

    /// Takes in `buffer` behind its headroom.
    fn take_in(&mut self, id: ConnId, buffer: &mut [u8]) {
        let mut at = HEADROOM;
        while at < buffer.len() {
            let Some(leg) = self.legs.get_mut(id) else { return };
            if leg.is_ending || leg.is_broken {
                return;
            }
            match &mut leg.phase {
                Phase::Asked => {
                    leg.held = buffer[at..].to_vec();
                    return;
                }
                Phase::Head { scanned } => {
                    let mut scanned = *scanned;
                    let held = mem::take(&mut leg.held);
                    if held.is_empty() {
                        at += self.take_head(id, &buffer[at..], scanned);
                    } else {
                        let bytes = [&held, &buffer[at..]].concat();
                        scanned = scanned.min(bytes.len());
                        at += self.take_head(id, &bytes, scanned) - held.len();
                    }
                }
                Phase::Text(decoder) => {
                    let (used, decoded) = decoder.decode(&mut buffer[at..]);
                    at += used;
                    if let Some(decoded) = decoded {
                        self.on_decoded(id, decoded);
                    }
                }
                Phase::Bytes(unframer) => {
                    let mut out = Vec::new();
                    let (next, said) = unframer.decode(buffer, at, &mut out);
                    at = next;
                    let bytes = out.iter().map(Range::len).sum::<usize>() as u64;
                    if out.is_empty() || self.pass_on(id, buffer, &out) {
                        self.tell(Input::Moved { conn: id, bytes });
                        if let Some(said) = said {
                            self.on_said(id, said);
                        }
                    } else {
                        self.on_broken(id);
                    }
                }
            }
        }
    }

    /// Says how many bytes were used: all, as long as the head is not whole.
    fn take_head(&mut self, id: ConnId, bytes: &[u8], scanned: usize) -> usize {
        let scan = head::scan(bytes, scanned, &self.limits);
        let Some(leg) = self.legs.get_mut(id) else { return bytes.len() };
        leg.phase = Phase::Asked;
        match scan {
            Scan::Partial => {
                leg.phase = Phase::Head { scanned: bytes.len() };
                leg.held = bytes.to_vec();
                bytes.len()
            }
            Scan::Whole(length) => {
                let limits = self.limits.clone();
                head::parse(&bytes[..length], &limits, |head| {
                    self.tell(Input::Requested { conn: id, head });
                });
                length
            }
            Scan::Fault(fault) => {
                self.tell(Input::Requested { conn: id, head: Err(fault) });
                bytes.len()
            }
        }
    }

    fn on_decoded(&mut self, id: ConnId, decoded: Decoded<'_>) {
        match decoded {
            Decoded::Text(text) => self.tell(Input::Text { conn: id, text: &text }),
            Decoded::Ping(payload) => self.on_said(id, Said::Ping(payload.into_owned())),
            Decoded::Pong => {}
            Decoded::Close(code) => self.on_said(id, Said::Close(code)),
            Decoded::Broke(_) => self.on_broken(id),
        }
    }

    fn on_said(&mut self, id: ConnId, said: Said) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        match said {
            Said::Ping(payload) => {
                leg.pong = Some(payload);
                self.mark_dirty(id);
            }
            Said::Pong => {}
            Said::Close(code) => {
                if leg.is_open() {
                    leg.queue(|to| put_close(to, code, ""));
                }
                // All that it sent was passed on. The other leg need not wait until this one has lingered.
                leg.is_told = true;
                self.end(id);
                self.happened.push_back(Happened::Closed(id));
            }
            Said::Broke => self.on_broken(id),
        }
    }

    fn on_broken(&mut self, id: ConnId) {
        if let Some(leg) = self.legs.get_mut(id) {
            leg.is_broken = true;
            self.tell(Input::Broke { conn: id });
        }
    }

    /// Writes frames to the other leg, at once as far as that is possible. False: there is no other leg yet.
    fn pass_on(&mut self, id: ConnId, buffer: &[u8], frames: &[Range<usize>]) -> bool {
        let Some(other) = self.legs.get_mut(id).and_then(|leg| leg.other) else { return false };
        let Some(leg) = self.legs.get_mut(other) else { return true };
        if leg.is_ending {
            return true;
        }
        let mut left = frames.iter().cloned();
        let mut rest = left.next();
        while let Some(first) = rest.clone()
            && leg.outbox.is_empty()
            && !leg.is_blocked
        {
            let mut slices = [IoSlice::new(&[]); GATHER_MAX];
            let all = std::iter::once(first).chain(left.clone());
            let mut count = 0;
            for (slice, range) in slices.iter_mut().zip(all) {
                *slice = IoSlice::new(&buffer[range]);
                count += 1;
            }
            match leg.wire.write_vectored(&slices[..count]) {
                Ok(mut taken) => {
                    while let Some(range) = rest.clone() {
                        let now = taken.min(range.len());
                        taken -= now;
                        if now < range.len() {
                            rest = Some(range.start + now..range.end);
                            // A socket that takes less than it was given says when it takes more.
                            leg.is_blocked = true;
                            break;
                        }
                        rest = left.next();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => leg.is_blocked = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.drop_leg(other);
                    return true;
                }
            }
        }
        let rest: Vec<&[u8]> = rest.into_iter().chain(left).map(|range| &buffer[range]).collect();
        if !rest.is_empty() {
            leg.queue_own(rest.concat());
        }
        match leg.wire.flush_pending() {
            Ok(is_flushed) => leg.is_blocked |= !is_flushed,
            Err(_) => self.drop_leg(other),
        }
        // A socket that is full says itself when it no longer is.
        if self.legs.get_mut(other).is_some_and(|leg| !leg.is_blocked && !leg.outbox.is_empty()) {
            self.mark_dirty(other);
        }
        true
    }
}
