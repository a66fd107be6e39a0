//! RFC 6455 frames to text messages.
//!
//! Owns the rules of framing; refuses to know sockets and what a message means. Bytes in, messages out, no I/O.
//!
//! The header codec is tungstenite's; the assembly is our own and not its `WebSocketContext`, for three reasons. That
//! one does not tell whether a message is partly there, and the deadline for slow messages (security C4) needs to know.
//! Its buffers live as long as the connection, ours only while bytes are in flight (an idle connection costs 4.35 kB
//! with it). And it copies an event once per listener. A property test holds this decoder against tungstenite's own.
//!
//! Invariants: cutting the same bytes differently changes nothing · nothing over the limit is ever buffered · after
//! `Close` or `Broke` the decoder is not asked again · an unfragmented message that is whole in the caller's buffer is
//! unmasked in place and neither copied nor allocated.

use std::borrow::Cow;
use std::io::Cursor;
use std::mem;

use clawd_protocol::MessageFault;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

/// The longest header: two bytes, eight of length, four of mask (RFC 6455, section 5.2).
pub(crate) const HEADER_BYTES_MAX: usize = 14;
/// The longest payload of a control frame (section 5.5).
pub(crate) const CONTROL_BYTES_MAX: u64 = 125;
/// Nobody honest cuts a message into more pieces; each piece costs us work however small it is.
const FRAGMENTS_MAX: u16 = 1024;
/// What a close says whose code must not be on the wire (section 7.4.1).
const PROTOCOL_ERROR: u16 = 1002;

/// What the bytes came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decoded<'a> {
    Text(Cow<'a, str>),
    Ping(Cow<'a, [u8]>),
    Pong,
    /// The peer's close and the code to echo.
    Close(Option<u16>),
    Broke(MessageFault),
}

/// The decoder of one connection, the server's side.
#[derive(Debug)]
pub(crate) struct Decoder {
    bytes_max: usize,
    /// A header that is not whole yet.
    header: [u8; HEADER_BYTES_MAX],
    header_len: usize,
    /// The frame whose payload is not whole yet.
    frame: Option<Frame>,
    /// Payload so far of a text message that did not come in one piece.
    message: Vec<u8>,
    /// How much of `message` is known to be UTF-8.
    checked: usize,
    /// Fragments so far; zero outside of a fragmented message.
    fragments: u16,
    /// Payload so far of a control frame that did not come in one piece.
    control: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    kind: Kind,
    is_final: bool,
    /// Rotated so that its first byte belongs to the next byte of payload.
    mask: [u8; 4],
    left: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A text frame or a continuation of one.
    Text,
    Ping,
    Pong,
    Close,
}

impl Decoder {
    pub(crate) const fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            header: [0; HEADER_BYTES_MAX],
            header_len: 0,
            frame: None,
            message: Vec::new(),
            checked: 0,
            fragments: 0,
            control: Vec::new(),
        }
    }

    /// The longest message that is read from the next frame on.
    pub(crate) const fn admit(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    /// A text message has begun and is not complete. Control frames are none: nobody waits for them.
    pub(crate) fn has_begun(&self) -> bool {
        let is_text_frame = match (&self.frame, self.header_len) {
            (Some(frame), _) => frame.kind == Kind::Text,
            (None, 0) => false,
            // The top bit of the opcode tells control from data.
            (None, _) => self.header[0] & 0x08 == 0,
        };
        is_text_frame || self.fragments > 0
    }

    /// Takes bytes up to the end of the next message; says how many. `None`: all were taken, and no message is whole.
    pub(crate) fn decode<'a>(&mut self, bytes: &'a mut [u8]) -> (usize, Option<Decoded<'a>>) {
        let mut rest = bytes;
        let mut used = 0;
        loop {
            let frame = match self.frame.take() {
                Some(frame) => frame,
                None => match self.take_header(rest) {
                    Ok(Some((frame, header_bytes))) => {
                        rest = rest.split_at_mut(header_bytes).1;
                        used += header_bytes;
                        frame
                    }
                    Ok(None) => return (used + rest.len(), None),
                    Err(fault) => return (used + rest.len(), Some(Decoded::Broke(fault))),
                },
            };
            let (piece, after) = rest.split_at_mut(frame.left.min(rest.len()));
            rest = after;
            used += piece.len();
            if let Some(decoded) = self.take_payload(frame, piece) {
                return (used, Some(decoded));
            }
            if rest.is_empty() {
                return (used, None);
            }
        }
    }

    /// The next frame's header and how many of `bytes` belong to it.
    fn take_header(&mut self, bytes: &[u8]) -> Result<Option<(Frame, usize)>, MessageFault> {
        let held = self.header_len;
        let copied = bytes.len().min(HEADER_BYTES_MAX - held);
        // Usually nothing is held and the header is read where it lies.
        let source = if held == 0 {
            bytes
        } else {
            self.header[held..held + copied].copy_from_slice(&bytes[..copied]);
            &self.header[..held + copied]
        };
        let mut cursor = Cursor::new(source);
        let parsed = FrameHeader::parse(&mut cursor).map_err(|_| MessageFault::Framing)?;
        let header_bytes = usize::try_from(cursor.position()).unwrap_or(usize::MAX);
        let Some((header, length)) = parsed else {
            if held == 0 {
                self.header[..copied].copy_from_slice(&bytes[..copied]);
            }
            self.header_len = held + copied;
            return Ok(None);
        };
        self.header_len = 0;
        let frame = self.check(&header, length)?;
        Ok(Some((frame, header_bytes - held)))
    }

    /// All that is wrong with a frame shows in its header, before any of its payload is kept.
    fn check(&self, header: &FrameHeader, length: u64) -> Result<Frame, MessageFault> {
        let is_reserved = header.rsv1 || header.rsv2 || header.rsv3;
        let (Some(mask), false) = (header.mask, is_reserved) else {
            return Err(MessageFault::Framing);
        };
        let kind = match header.opcode {
            OpCode::Control(control) => {
                if !header.is_final || length > CONTROL_BYTES_MAX {
                    return Err(MessageFault::Framing);
                }
                match control {
                    Control::Ping => Kind::Ping,
                    Control::Pong => Kind::Pong,
                    Control::Close => Kind::Close,
                    Control::Reserved(_) => return Err(MessageFault::Framing),
                }
            }
            OpCode::Data(data) => {
                let is_inside = self.fragments > 0;
                match data {
                    Data::Text if !is_inside => {}
                    Data::Continue if is_inside => {}
                    Data::Binary if !is_inside => return Err(MessageFault::Binary),
                    Data::Text | Data::Continue | Data::Binary | Data::Reserved(_) => {
                        return Err(MessageFault::Framing);
                    }
                }
                let room = self.bytes_max.saturating_sub(self.message.len());
                if usize::try_from(length).is_ok_and(|length| length <= room) {
                    Kind::Text
                } else {
                    return Err(MessageFault::TooLarge);
                }
            }
        };
        let left = usize::try_from(length).map_err(|_| MessageFault::TooLarge)?;
        Ok(Frame { kind, is_final: header.is_final, mask, left })
    }

    /// Takes the next piece of a frame's payload, at most what is left of it.
    fn take_payload<'a>(&mut self, mut frame: Frame, piece: &'a mut [u8]) -> Option<Decoded<'a>> {
        mask(piece, frame.mask);
        let held = if frame.kind == Kind::Text { &mut self.message } else { &mut self.control };
        let is_whole = piece.len() == frame.left;
        let in_place = is_whole && held.is_empty();
        if in_place && frame.is_final && self.fragments == 0 && frame.kind == Kind::Text {
            return Some(match str::from_utf8(piece) {
                Ok(text) => Decoded::Text(Cow::Borrowed(text)),
                Err(_) => Decoded::Broke(MessageFault::NotUtf8),
            });
        }
        if frame.kind == Kind::Text || !in_place {
            held.extend_from_slice(piece);
        }
        if !is_whole {
            frame.mask.rotate_left(piece.len() % 4);
            frame.left -= piece.len();
            self.frame = Some(frame);
            return None;
        }
        if frame.kind == Kind::Text {
            return self.on_fragment(frame.is_final);
        }
        let payload: Cow<'a, [u8]> =
            if in_place { Cow::Borrowed(piece) } else { Cow::Owned(mem::take(&mut self.control)) };
        Some(match frame.kind {
            Kind::Ping => Decoded::Ping(payload),
            Kind::Close => on_close(&payload),
            Kind::Pong | Kind::Text => Decoded::Pong,
        })
    }

    /// A text frame that was not a whole message by itself is complete.
    fn on_fragment(&mut self, is_final: bool) -> Option<Decoded<'static>> {
        // Looking now at what this fragment brought tells of bad text early and costs nothing twice.
        match str::from_utf8(&self.message[self.checked..]) {
            Ok(_) => self.checked = self.message.len(),
            Err(error) if error.error_len().is_none() => self.checked += error.valid_up_to(),
            Err(_) => return Some(Decoded::Broke(MessageFault::NotUtf8)),
        }
        if !is_final {
            self.fragments += 1;
            let is_flood = self.fragments >= FRAGMENTS_MAX;
            return is_flood.then_some(Decoded::Broke(MessageFault::Framing));
        }
        self.fragments = 0;
        self.checked = 0;
        Some(match String::from_utf8(mem::take(&mut self.message)) {
            Ok(text) => Decoded::Text(Cow::Owned(text)),
            Err(_) => Decoded::Broke(MessageFault::NotUtf8),
        })
    }
}

/// What a close frame says. Section 7.1.5: nothing, or a code that may be on the wire and a reason in UTF-8.
pub(crate) fn on_close(payload: &[u8]) -> Decoded<'static> {
    match payload {
        [] => Decoded::Close(None),
        [high, low, reason @ ..] if str::from_utf8(reason).is_ok() => {
            let code = u16::from_be_bytes([*high, *low]);
            Decoded::Close(Some(if CloseCode::from(code).is_allowed() {
                code
            } else {
                PROTOCOL_ERROR
            }))
        }
        [..] => Decoded::Broke(MessageFault::Framing),
    }
}

/// Puts the mask on, or takes it off. Section 5.3, eight bytes at a time.
pub(crate) fn mask(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = bytes.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// Appends the header of an unfragmented frame from the server.
pub(crate) fn put_header(to: &mut Vec<u8>, opcode: OpCode, length: usize) {
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    // Writing into a `Vec` does not fail.
    let _ = header.format(length as u64, to);
}

/// Appends a text frame's header.
pub(crate) fn put_text_header(to: &mut Vec<u8>, length: usize) {
    put_header(to, OpCode::Data(Data::Text), length);
}

/// Appends a whole pong.
pub(crate) fn put_pong(to: &mut Vec<u8>, payload: &[u8]) {
    put_header(to, OpCode::Control(Control::Pong), payload.len());
    to.extend_from_slice(payload);
}

/// Appends a whole close. A reason that would not fit in a control frame is cut.
pub(crate) fn put_close(to: &mut Vec<u8>, code: Option<u16>, reason: &str) {
    let Some(code) = code else { return put_header(to, OpCode::Control(Control::Close), 0) };
    let reason = &reason[..reason.floor_char_boundary(123)];
    put_header(to, OpCode::Control(Control::Close), 2 + reason.len());
    to.extend_from_slice(&code.to_be_bytes());
    to.extend_from_slice(reason.as_bytes());
}

#[cfg(test)]
mod tests;
