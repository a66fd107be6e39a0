//! A stream of bytes in binary WebSocket messages (RFC 6455), and the same bytes in frames of our own.
//!
//! Owns the framing of streams; refuses to know sockets and what flows. Unlike the [`websocket`](crate::websocket)
//! decoder, which collects messages, this one keeps nothing of a payload: what is there of it is handed out, and where
//! messages begin and end means nothing.
//!
//! Nothing is copied either. A masked header is longer than ours for the same bytes or less, so ours fits into its place:
//! payload is unmasked where it lies and goes out from there, together with the header before it. Only what begins in
//! the middle of a frame has none before it; for that each buffer begins with [`HEADROOM`] unused bytes.

use std::io::Cursor;
use std::mem;
use std::ops::Range;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::websocket::{CONTROL_BYTES_MAX, Decoded, HEADER_BYTES_MAX, mask, on_close};

/// Unused bytes at the beginning of a buffer: the longest header of ours.
pub(super) const HEADROOM: usize = 10;
/// Pieces up to this size are moved up to the one before, so that they need no slice of their own in a write.
const MOVE_BYTES_MAX: usize = 2 * 1024;

/// What came beside bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    Ping(Vec<u8>),
    Pong,
    /// The peer's close and the code to echo.
    Close(Option<u16>),
    Broke,
}

/// The decoder of one leg.
#[derive(Debug, Default)]
pub(super) struct Unframer {
    /// A header that is not whole yet.
    header: [u8; HEADER_BYTES_MAX],
    header_len: usize,
    /// The frame whose payload is not whole yet.
    frame: Option<Frame>,
    /// A message has begun and its last frame has not.
    is_inside: bool,
    /// Payload so far of a control frame.
    control: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    kind: Kind,
    /// Rotated so that its first byte belongs to the next byte of payload.
    mask: [u8; 4],
    left: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bytes,
    Ping,
    Pong,
    Close,
}

impl Unframer {
    /// Reads `buffer[at..]` up to something that is not payload, or to its end; says where that is. Payload becomes
    /// frames of ours in the buffer, whose places are added to `out`.
    pub(super) fn decode(
        &mut self,
        buffer: &mut [u8],
        mut at: usize,
        out: &mut Vec<Range<usize>>,
    ) -> (usize, Option<Said>) {
        while at < buffer.len() {
            let mut frame = match self.frame.take() {
                Some(frame) => frame,
                None => match self.take_header(&buffer[at..]) {
                    Ok(Some((frame, header_bytes))) => {
                        at += header_bytes;
                        frame
                    }
                    Ok(None) => return (buffer.len(), None),
                    Err(said) => return (buffer.len(), Some(said)),
                },
            };
            let here = usize::try_from(frame.left).unwrap_or(usize::MAX).min(buffer.len() - at);
            let piece = &mut buffer[at..at + here];
            mask(piece, frame.mask);
            if frame.kind == Kind::Bytes {
                put_frame(buffer, at..at + here, out);
            } else {
                self.control.extend_from_slice(piece);
            }
            at += here;
            frame.mask.rotate_left(here % 4);
            frame.left -= here as u64;
            if frame.left > 0 {
                self.frame = Some(frame);
                return (at, None);
            }
            if let Some(said) = self.on_control(frame.kind) {
                return (at, Some(said));
            }
        }
        (at, None)
    }

    fn take_header(&mut self, bytes: &[u8]) -> Result<Option<(Frame, usize)>, Said> {
        let held = self.header_len;
        let copied = bytes.len().min(HEADER_BYTES_MAX - held);
        self.header[held..held + copied].copy_from_slice(&bytes[..copied]);
        let mut cursor = Cursor::new(&self.header[..held + copied]);
        let parsed = FrameHeader::parse(&mut cursor).map_err(|_| Said::Broke)?;
        let header_bytes = usize::try_from(cursor.position()).unwrap_or(usize::MAX);
        let Some((header, length)) = parsed else {
            self.header_len = held + copied;
            return Ok(None);
        };
        self.header_len = 0;
        let frame = self.check(&header, length).ok_or(Said::Broke)?;
        Ok(Some((frame, header_bytes - held)))
    }

    fn check(&mut self, header: &FrameHeader, length: u64) -> Option<Frame> {
        let mask = header.mask?;
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return None;
        }
        let kind = match header.opcode {
            OpCode::Control(control) => {
                let is_right = header.is_final && length <= CONTROL_BYTES_MAX;
                match control {
                    Control::Ping if is_right => Kind::Ping,
                    Control::Pong if is_right => Kind::Pong,
                    Control::Close if is_right => Kind::Close,
                    Control::Ping | Control::Pong | Control::Close | Control::Reserved(_) => {
                        return None;
                    }
                }
            }
            OpCode::Data(data) => {
                match (data, self.is_inside) {
                    (Data::Binary, false) | (Data::Continue, true) => {}
                    // Text is for those who have something to say to us.
                    (Data::Binary | Data::Continue | Data::Text | Data::Reserved(_), _) => {
                        return None;
                    }
                }
                self.is_inside = !header.is_final;
                Kind::Bytes
            }
        };
        Some(Frame { kind, mask, left: length })
    }

    fn on_control(&mut self, kind: Kind) -> Option<Said> {
        Some(match kind {
            Kind::Bytes => return None,
            Kind::Ping => Said::Ping(mem::take(&mut self.control)),
            Kind::Pong => {
                self.control = Vec::new();
                Said::Pong
            }
            Kind::Close => match on_close(&mem::take(&mut self.control)) {
                Decoded::Close(code) => Said::Close(code),
                Decoded::Text(_) | Decoded::Ping(_) | Decoded::Pong | Decoded::Broke(_) => {
                    Said::Broke
                }
            },
        })
    }
}

/// Makes a frame of ours of the payload in `piece`, whose header goes right before it.
fn put_frame(buffer: &mut [u8], piece: Range<usize>, out: &mut Vec<Range<usize>>) {
    if piece.is_empty() {
        return;
    }
    let mut space = [0; HEADROOM];
    let mut rest = &mut space[..];
    let header = FrameHeader { opcode: OpCode::Data(Data::Binary), ..FrameHeader::default() };
    // The space is as large as the largest.
    let _ = header.format(piece.len() as u64, &mut rest);
    let unused = rest.len();
    let header = &space[..HEADROOM - unused];
    match out.last_mut() {
        Some(last) if piece.len() <= MOVE_BYTES_MAX => {
            let start = last.end + header.len();
            buffer[last.end..start].copy_from_slice(header);
            buffer.copy_within(piece.clone(), start);
            last.end = start + piece.len();
        }
        Some(_) | None => {
            let start = piece.start - header.len();
            buffer[start..piece.start].copy_from_slice(header);
            out.push(start..piece.end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A frame as a client sends it.
    fn masked(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
        let mut frame = vec![first];
        match payload.len() {
            len @ 0..126 => frame.push(0x80 | u8::try_from(len).unwrap()),
            len @ 126..65536 => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
            }
            len => {
                frame.push(0x80 | 127);
                frame.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(&mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    }

    /// The payloads of unmasked binary frames, one behind the other.
    fn payloads(mut bytes: &[u8]) -> Vec<u8> {
        let mut all = Vec::new();
        while !bytes.is_empty() {
            let mut cursor = Cursor::new(bytes);
            let (header, len) = FrameHeader::parse(&mut cursor).unwrap().unwrap();
            assert!(header.mask.is_none() && header.is_final, "{header:?}");
            assert_eq!(header.opcode, OpCode::Data(Data::Binary));
            let start = usize::try_from(cursor.position()).unwrap();
            let end = start + usize::try_from(len).unwrap();
            all.extend_from_slice(&bytes[start..end]);
            bytes = &bytes[end..];
        }
        all
    }

    /// Feeds `bytes` in pieces of `sizes` in turn; what goes out and what was said.
    fn feed(bytes: &[u8], sizes: &[usize]) -> (Vec<u8>, Vec<Said>) {
        let mut unframer = Unframer::default();
        let (mut sent, mut heard) = (Vec::new(), Vec::new());
        let (mut rest, mut sizes) = (bytes, sizes.iter().cycle());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
            rest = after;
            let mut buffer = [&[0; HEADROOM][..], piece].concat();
            let mut at = HEADROOM;
            while at < buffer.len() {
                let mut out = Vec::new();
                let (next, said) = unframer.decode(&mut buffer, at, &mut out);
                out.into_iter().for_each(|range| sent.extend_from_slice(&buffer[range]));
                at = next;
                let is_over = said == Some(Said::Broke);
                heard.extend(said);
                if is_over {
                    return (sent, heard);
                }
            }
        }
        (sent, heard)
    }

    proptest! {
        #[test]
        fn bytes_are_the_same_however_they_are_framed_and_cut(
            frames in prop::collection::vec(
                (any::<[u8; 4]>(), prop_oneof![0..20_usize, 100..140_usize, 2000..3000_usize, 65_500..65_600_usize], 0..4_u8),
                1..20,
            ),
            sizes in prop::collection::vec(prop_oneof![1..20_usize, 1000..70_000_usize], 1..10),
        ) {
            let (mut bytes, mut expected, mut pings) = (Vec::new(), Vec::new(), 0);
            let mut is_inside = false;
            for (number, (mask, len, how)) in (0_u8..).zip(&frames) {
                let payload: Vec<u8> = (0..*len).map(|at| number.wrapping_add((at % 251) as u8)).collect();
                let is_final = how % 2 == 0;
                let first = u8::from(is_final) << 7 | if is_inside { 0 } else { 2 };
                bytes.extend(masked(first, &payload, *mask));
                is_inside = !is_final;
                expected.extend(payload);
                if *how == 3 {
                    bytes.extend(masked(0x89, b"here?", *mask));
                    pings += 1;
                }
            }
            let (sent, heard) = feed(&bytes, &sizes);
            prop_assert!(payloads(&sent) == expected);
            prop_assert_eq!(heard, vec![Said::Ping(b"here?".to_vec()); pings]);
        }
    }

    #[test]
    fn what_is_no_stream_is_broken() {
        let mask = [1, 2, 3, 4];
        for wrong in [
            masked(0x81, b"text", mask),
            masked(0x80, b"continues nothing", mask),
            masked(0xc2, b"reserved bit", mask),
            masked(0x83, b"reserved opcode", mask),
            masked(0x09, b"fragmented ping", mask),
            masked(0x89, &[0; 126], mask),
            masked(0x88, &[3], mask),
            vec![0x82, 1, b'x', 0, 0, 0],
            [masked(0x02, b"begun", mask), masked(0x82, b"again", mask)].concat(),
        ] {
            for size in [1, 1000] {
                let (_, heard) = feed(&wrong, &[size]);
                assert_eq!(heard, [Said::Broke], "{wrong:x?} in pieces of {size}");
            }
        }
        let close = masked(0x88, &1000_u16.to_be_bytes(), mask);
        assert_eq!(feed(&close, &[1]).1, [Said::Close(Some(1000))]);
        assert_eq!(feed(&masked(0x8a, b"", mask), &[1]).1, [Said::Pong]);
    }
}
