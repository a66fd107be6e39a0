//! A byte stream over the binary messages of a WebSocket, the client's side.
//!
//! Owns the framing of such a stream; refuses to know what flows in it, and whether the stream below blocks: an error of
//! [`WouldBlock`](io::ErrorKind::WouldBlock) changes nothing, and the same call made again goes on. The header codec is
//! tungstenite's, as in `websocket`; nothing is assembled, because the borders of messages mean
//! nothing here.
//!
//! Invariants: the mask of each frame is fresh and nobody can foretell it (RFC 6455, 5.3 and 10.3) · one frame at most is
//! on its way, and of what it carries the last byte is not acknowledged before all of it has left: so whoever writes
//! waits for the stream below as on any other stream, and need not know that this one holds bytes · an idle tunnel holds
//! none · a short read does not mean that there is no more.

use std::fmt;
use std::io::{self, Cursor, ErrorKind, IoSlice, Read, Write};
use std::mem;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::websocket;

/// What is read of the stream below at once.
const READ_BYTES: usize = 16 * 1024;
/// What one frame of ours carries at most: a whole record of the TLS that flows in it.
const FRAME_BYTES_MAX: usize = 16 * 1024;
/// What one frame of theirs may carry: four times what a relay lets pile up.
const FRAME_BYTES_MAX_READ: u64 = 1024 * 1024;
/// What a text message may say, where one is awaited.
const TEXT_BYTES_MAX: usize = 4096;
/// The longest payload of a control frame (section 5.5).
const CONTROL_BYTES_MAX: u64 = 125;
/// So many frames that carry nothing are read at once, before others have their turn.
const EMPTY_FRAMES_PER_READ: usize = 64;
/// The code of an end that is none of anybody's fault (section 7.4.1).
const NORMAL: u16 = 1000;

/// A byte stream inside of a WebSocket that was opened on `S` by us.
pub struct Tunnel<S> {
    inner: S,
    /// What was read of the stream below, and how much of it was used.
    raw: Vec<u8>,
    used: usize,
    /// Payload of the current binary frame that was not given out yet.
    left: usize,
    /// The message goes on in another frame.
    is_inside: bool,
    /// The peer has ended its side.
    is_at_end: bool,
    /// A frame on its way, and how much of it has left.
    out: Vec<u8>,
    sent: usize,
    /// The stream below holds something back.
    is_unflushed: bool,
    /// The last byte of the frame on its way is not acknowledged.
    is_owed: bool,
    /// The payload of the latest ping that was not answered: the one before it needs no answer (section 5.5.3).
    pong: Option<Vec<u8>>,
    /// Our side is ended.
    has_closed: bool,
    masks: Masks,
}

impl<S> fmt::Debug for Tunnel<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel")
            .field("is_at_end", &self.is_at_end)
            .field("has_closed", &self.has_closed)
            .finish_non_exhaustive()
    }
}

/// A frame that does not belong to the stream.
enum Aside {
    /// The next frame carries bytes of the stream.
    None,
    /// It was dealt with.
    Done,
    /// There will be none.
    End,
}

impl<S> Tunnel<S> {
    /// On a stream on which the WebSocket handshake is over; `tail` is what came behind it.
    pub const fn new(inner: S, tail: Vec<u8>) -> Self {
        Self {
            inner,
            raw: tail,
            used: 0,
            left: 0,
            is_inside: false,
            is_at_end: false,
            out: Vec::new(),
            sent: 0,
            is_unflushed: false,
            is_owed: false,
            pong: None,
            has_closed: false,
            masks: Masks::new(),
        }
    }

    /// The stream below.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The stream below. What is read of or written to it is missing here.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The stream below; what was read of it and not given out is lost.
    pub fn into_inner(self) -> S {
        self.inner
    }

    /// Something waits until the stream below takes more: [`flush`](Write::flush) it then.
    pub const fn wants_write(&self) -> bool {
        !self.out.is_empty() || self.pong.is_some() || self.is_unflushed
    }

    fn rest(&self) -> &[u8] {
        &self.raw[self.used..]
    }

    /// Lets go of what was used.
    fn consume(&mut self, bytes: usize) {
        self.used += bytes;
        if self.used == self.raw.len() {
            self.raw.clear();
            self.used = 0;
        }
    }
}

impl<S: Read + Write> Tunnel<S> {
    /// Reads one text message: what a relay says before the stream begins. Not to be called later.
    ///
    /// # Errors
    /// What comes is none, or is too long; or the stream below fails.
    pub fn read_text(&mut self) -> io::Result<String> {
        loop {
            match self.try_text() {
                Ok(None) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(Some(text)) => return Ok(text),
                Err(error) => return Err(error),
            }
        }
    }

    /// `None`: something else came before it.
    fn try_text(&mut self) -> io::Result<Option<String>> {
        let Some((header, start, length)) = self.next_header()? else {
            return Err(ErrorKind::UnexpectedEof.into());
        };
        if header.opcode != OpCode::Data(Data::Text) {
            return match self.take_aside()? {
                Aside::Done => Ok(None),
                Aside::None => Err(broken("bytes before the stream has begun")),
                Aside::End => Err(ErrorKind::UnexpectedEof.into()),
            };
        }
        check(&header)?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if !header.is_final || length > TEXT_BYTES_MAX {
            return Err(broken("a text message that is too long"));
        }
        self.await_bytes(start + length)?;
        let text = self.rest()[start..start + length].to_vec();
        self.consume(start + length);
        String::from_utf8(text).map(Some).map_err(|_| broken("text that is not UTF-8"))
    }

    /// Ends our side. The peer may still send, until it ends its own.
    ///
    /// # Errors
    /// The stream below fails or takes no more for now: [`flush`](Write::flush) later.
    pub fn close(&mut self) -> io::Result<()> {
        if !mem::replace(&mut self.has_closed, true) {
            self.put(OpCode::Control(Control::Close), &[IoSlice::new(&NORMAL.to_be_bytes())])?;
        }
        self.send()
    }

    /// The next frame's header, how many bytes it has, and how many follow it. `None`: there is no next frame.
    fn next_header(&mut self) -> io::Result<Option<(FrameHeader, usize, u64)>> {
        loop {
            let mut cursor = Cursor::new(self.rest());
            let parsed = FrameHeader::parse(&mut cursor).map_err(|_| broken("no frame"))?;
            if let Some((header, length)) = parsed {
                let start = usize::try_from(cursor.position()).unwrap_or(usize::MAX);
                return Ok(Some((header, start, length)));
            }
            if self.fill()? == 0 {
                let is_cut = self.is_inside || !self.rest().is_empty();
                return if is_cut { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(None) };
            }
        }
    }

    /// Reads the beginning of the next frame, and all of it if it is not of the stream.
    fn take_aside(&mut self) -> io::Result<Aside> {
        let Some((header, start, length)) = self.next_header()? else {
            self.is_at_end = true;
            return Ok(Aside::End);
        };
        check(&header)?;
        let control = match header.opcode {
            OpCode::Data(data) => {
                let is_in_place = match data {
                    Data::Binary => !self.is_inside,
                    Data::Continue => self.is_inside,
                    Data::Text | Data::Reserved(_) => return Err(broken("not binary")),
                };
                if !is_in_place || length > FRAME_BYTES_MAX_READ {
                    return Err(broken("a frame out of place, or too long"));
                }
                self.left = usize::try_from(length).map_err(|_| broken("too long"))?;
                self.is_inside = !header.is_final;
                self.consume(start);
                return Ok(if self.left == 0 { Aside::Done } else { Aside::None });
            }
            OpCode::Control(control) => control,
        };
        if !header.is_final || length > CONTROL_BYTES_MAX {
            return Err(broken("a control frame that is none"));
        }
        let end = start + usize::try_from(length).map_err(|_| broken("too long"))?;
        self.await_bytes(end)?;
        let payload = self.rest()[start..end].to_vec();
        self.consume(end);
        self.on_control(control, payload)
    }

    fn on_control(&mut self, control: Control, payload: Vec<u8>) -> io::Result<Aside> {
        match control {
            Control::Ping => {
                if !self.has_closed {
                    self.pong = Some(payload);
                }
                unless_blocked(self.send())?;
                Ok(Aside::Done)
            }
            Control::Pong => Ok(Aside::Done),
            Control::Close => {
                self.is_at_end = true;
                // Nobody may be there to read the answer, which is no reason not to give out the end.
                let _ = self.close();
                Ok(Aside::End)
            }
            Control::Reserved(_) => Err(broken("a reserved frame")),
        }
    }

    /// Reads until so many bytes are there.
    fn await_bytes(&mut self, count: usize) -> io::Result<()> {
        while self.rest().len() < count {
            if self.fill()? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    /// Reads once of the stream below.
    fn fill(&mut self) -> io::Result<usize> {
        self.raw.drain(..mem::take(&mut self.used));
        let held = self.raw.len();
        self.raw.resize(held.max(READ_BYTES), 0);
        let filled = match self.raw.get_mut(held..) {
            Some(room) => self.inner.read(room),
            None => Ok(0),
        };
        self.raw.truncate(held + filled.as_ref().copied().unwrap_or(0));
        if self.raw.is_empty() {
            self.raw = Vec::new();
        }
        filled
    }

    /// Puts a frame after those on their way.
    fn put(&mut self, opcode: OpCode, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut room = FRAME_BYTES_MAX;
        let pieces = slices.iter().map(|slice| {
            let piece = &slice[..slice.len().min(room)];
            room -= piece.len();
            piece
        });
        let pieces: Vec<&[u8]> = pieces.collect();
        let length = pieces.iter().map(|piece| piece.len()).sum();
        let mask = self.masks.next()?;
        let header = FrameHeader { opcode, mask: Some(mask), ..FrameHeader::default() };
        // Writing into a `Vec` does not fail.
        let _ = header.format(length as u64, &mut self.out);
        let start = self.out.len();
        pieces.iter().for_each(|piece| self.out.extend_from_slice(piece));
        websocket::mask(&mut self.out[start..], mask);
        Ok(length)
    }

    /// Sends what is on its way; an error if not all of it has left.
    fn send(&mut self) -> io::Result<()> {
        loop {
            while self.sent < self.out.len() {
                match self.inner.write(&self.out[self.sent..]) {
                    Ok(0) => return Err(ErrorKind::WriteZero.into()),
                    Ok(sent) => self.sent += sent,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
                self.is_unflushed = true;
            }
            self.out = Vec::new();
            self.sent = 0;
            let Some(payload) = self.pong.take() else { break };
            self.put(OpCode::Control(Control::Pong), &[IoSlice::new(&payload)])?;
        }
        if self.is_unflushed {
            self.inner.flush()?;
            self.is_unflushed = false;
        }
        Ok(())
    }
}

impl<S: Read + Write> Read for Tunnel<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        for _ in 0..EMPTY_FRAMES_PER_READ {
            if self.left > 0 {
                self.await_bytes(1)?;
                let length = self.left.min(self.rest().len()).min(buffer.len());
                buffer[..length].copy_from_slice(&self.rest()[..length]);
                self.consume(length);
                self.left -= length;
                return Ok(length);
            }
            if self.is_at_end {
                return Ok(0);
            }
            self.take_aside()?;
        }
        Err(ErrorKind::Interrupted.into())
    }
}

impl<S: Read + Write> Write for Tunnel<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.has_closed {
            return Err(ErrorKind::BrokenPipe.into());
        }
        if slices.iter().all(|slice| slice.is_empty()) {
            return Ok(0);
        }
        self.send()?;
        if mem::take(&mut self.is_owed) {
            return Ok(1);
        }
        let length = self.put(OpCode::Data(Data::Binary), slices)?;
        match self.send() {
            Err(error) if is_blocked(&error) => {
                self.is_owed = true;
                if length > 1 { Ok(length - 1) } else { Err(error) }
            }
            sent => sent.map(|()| length),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

/// What holds for every frame from a server.
fn check(header: &FrameHeader) -> io::Result<()> {
    let is_reserved = header.rsv1 || header.rsv2 || header.rsv3;
    if is_reserved || header.mask.is_some() {
        return Err(broken("a reserved bit or a mask"));
    }
    Ok(())
}

fn broken(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("the relay sent {what}"))
}

/// It may be tried again.
fn is_blocked(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn unless_blocked(sent: io::Result<()>) -> io::Result<()> {
    match sent {
        Err(error) if !is_blocked(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Masking keys: from the system's entropy, many at a time.
struct Masks {
    bytes: [u8; Self::BYTES],
    used: usize,
}

impl Masks {
    const BYTES: usize = 256;

    const fn new() -> Self {
        Self { bytes: [0; Self::BYTES], used: Self::BYTES }
    }

    fn next(&mut self) -> io::Result<[u8; 4]> {
        if self.used == Self::BYTES {
            getrandom::fill(&mut self.bytes).map_err(io::Error::from)?;
            self.used = 0;
        }
        let mut key = [0; 4];
        key.copy_from_slice(&self.bytes[self.used..self.used + 4]);
        self.used += 4;
        Ok(key)
    }
}

#[cfg(test)]
mod tests;
