//! A stream below that takes and gives small pieces, and rustls itself at the other end.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use proptest::prelude::*;

use super::*;
use crate::tls::{Identity, Trusted, client_config, server_config, server_name};

/// Two queues, and how much of them the next calls may move. Zero is a stream that would block.
#[derive(Debug, Default)]
struct Wire {
    to_us: VecDeque<u8>,
    from_us: Vec<u8>,
    pieces: Vec<usize>,
    calls: usize,
    is_cut: bool,
}

impl Wire {
    fn piece(&mut self) -> io::Result<usize> {
        let piece = self.pieces.get(self.calls).copied().unwrap_or(usize::MAX);
        self.calls += 1;
        if piece == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(piece) }
    }
}

#[derive(Debug, Clone, Default)]
struct Pipe(Rc<RefCell<Wire>>);

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut wire = self.0.borrow_mut();
        let piece = wire.piece()?.min(buffer.len());
        if wire.to_us.is_empty() && !wire.is_cut {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        wire.to_us.read(&mut buffer[..piece])
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut wire = self.0.borrow_mut();
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        let piece = wire.piece()?.min(bytes.len());
        wire.from_us.extend_from_slice(&bytes[..piece]);
        Ok(piece)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Our side, the wire, and the peer.
struct Pair {
    us: TlsStream<Pipe>,
    pipe: Pipe,
    peer: Connection,
    heard: Vec<u8>,
}

impl Pair {
    fn new(pieces: Vec<usize>) -> (Self, Fingerprint) {
        let (daemon, device) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let pipe = Pipe(Rc::new(RefCell::new(Wire { pieces, ..Wire::default() })));
        let us = TlsStream::server(pipe.clone(), &server_config(&daemon).unwrap()).unwrap();
        let config = client_config(Trusted::Key(daemon.fingerprint()), Some(&device)).unwrap();
        let peer = ClientConnection::new(config, server_name()).unwrap().into();
        (Self { us, pipe, peer, heard: Vec::new() }, device.fingerprint())
    }

    /// Lets the peer hear all that we have sent, and puts what it sends on the wire.
    fn turn_peer(&mut self) {
        let mut wire = self.pipe.0.borrow_mut();
        let sent = std::mem::take(&mut wire.from_us);
        let mut sent = sent.as_slice();
        while !sent.is_empty() {
            if self.peer.read_tls(&mut sent).unwrap() == 0 {
                break;
            }
            self.peer.process_new_packets().unwrap();
            let _ = self.peer.reader().read_to_end(&mut self.heard);
        }
        while self.peer.wants_write() {
            self.peer.write_tls(&mut wire.to_us).unwrap();
        }
    }

    fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut buffer = [0; 700];
        let mut all = Vec::new();
        loop {
            match self.us.read(&mut buffer) {
                Ok(0) => return Ok(all),
                Ok(length) => all.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(all),
                Err(error) => return Err(error),
            }
        }
    }

    fn shake_hands(&mut self) {
        while self.us.is_handshaking() || self.peer.is_handshaking() {
            self.turn_peer();
            self.read().unwrap();
        }
        self.us.flush_pending().unwrap();
    }
}

fn kind(result: io::Result<Vec<u8>>) -> io::ErrorKind {
    result.unwrap_err().kind()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn everything_arrives_once_and_in_order_in_whatever_pieces(
        pieces in prop::collection::vec(prop_oneof![Just(0), 1..40_usize, 1..6000_usize], 0..300),
        to_us in prop::collection::vec(1..30_000_usize, 0..6),
        from_us in prop::collection::vec(prop::collection::vec(0..9_000_usize, 1..5), 0..6),
    ) {
        let (mut pair, device) = Pair::new(pieces);
        prop_assert_eq!(pair.us.peer_key(), None);
        let (mut said, mut got, mut given, mut announced) = (Vec::new(), Vec::new(), Vec::new(), 0);
        let (mut to_us, mut from_us) = (to_us.into_iter(), from_us.into_iter());
        let mut left: Vec<Vec<u8>> = Vec::new();
        for round in 0_u64..2_000 {
            pair.turn_peer();
            got.extend(pair.read().unwrap());
            announced += u32::from(pair.us.announce());
            if left.is_empty() && let Some(lengths) = from_us.next() {
                left = lengths.iter().map(|length| vec![round.to_le_bytes()[0]; *length]).collect();
                given.extend(left.concat());
            }
            let slices: Vec<_> = left.iter().map(|bytes| IoSlice::new(bytes)).collect();
            let total: usize = left.iter().map(Vec::len).sum();
            match pair.us.write_vectored(&slices) {
                Ok(taken) => {
                    prop_assert!(!pair.us.is_handshaking() || taken == 0);
                    prop_assert!(taken == total || pair.us.wants_write(), "full, and yet not waiting");
                    let rest = left.concat().split_off(taken);
                    left = if rest.is_empty() { Vec::new() } else { vec![rest] };
                }
                Err(error) => prop_assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
            if !pair.peer.is_handshaking() && let Some(length) = to_us.next() {
                let bytes = vec![round.to_le_bytes()[0]; length];
                pair.peer.set_buffer_limit(None);
                pair.peer.writer().write_all(&bytes).unwrap();
                said.extend(bytes);
            }
        }
        pair.us.flush_pending().unwrap();
        pair.turn_peer();
        prop_assert!(left.is_empty() && from_us.next().is_none() && to_us.next().is_none());
        prop_assert_eq!(announced, 1);
        prop_assert_eq!(pair.us.peer_key(), Some(device));
        prop_assert!(got == said);
        prop_assert!(pair.heard == given);
    }
}

#[test]
fn g4_an_end_that_nobody_said_inside_of_tls_is_a_fault() {
    let (mut pair, _) = Pair::new(Vec::new());
    pair.shake_hands();
    pair.peer.writer().write_all(b"half of ").unwrap();
    pair.turn_peer();
    pair.pipe.0.borrow_mut().is_cut = true;
    let mut buffer = [0; 100];
    assert_eq!(pair.us.read(&mut buffer).unwrap(), 8);
    assert!(pair.us.has_unread());
    assert_eq!(kind(pair.read()), io::ErrorKind::UnexpectedEof);

    let (mut pair, _) = Pair::new(Vec::new());
    pair.shake_hands();
    assert!(!pair.us.has_unread());
    pair.peer.writer().write_all(b"all of it").unwrap();
    pair.peer.send_close_notify();
    pair.turn_peer();
    assert_eq!(pair.us.read(&mut buffer).unwrap(), 9);
    assert!(pair.us.has_unread());
    assert_eq!(pair.us.read(&mut buffer).unwrap(), 0);
}

#[test]
fn g4_what_comes_before_a_changed_record_is_handed_out_and_nothing_after_it() {
    let (mut pair, _) = Pair::new(Vec::new());
    pair.shake_hands();
    for bytes in [&b"first"[..], b"second", b"third"] {
        pair.peer.writer().write_all(bytes).unwrap();
    }
    pair.turn_peer();
    // Each record has a head of 5 bytes, the type of what is inside and a tag of 16.
    pair.pipe.0.borrow_mut().to_us[27 + 10] ^= 1;
    let mut buffer = [0; 100];
    assert_eq!(pair.us.read(&mut buffer).unwrap(), 5);
    assert!(pair.us.has_unread());
    for _ in 0..3 {
        assert_eq!(kind(pair.read()), io::ErrorKind::InvalidData);
    }
    assert!(!pair.pipe.0.borrow().from_us.is_empty(), "no alert was sent");
}

#[test]
fn g2_nothing_is_taken_before_the_handshake_is_over_or_after_the_end() {
    let (mut pair, _) = Pair::new(Vec::new());
    let early = pair.us.write(b"early").unwrap_err();
    assert_eq!(early.kind(), io::ErrorKind::WouldBlock);
    assert!(pair.pipe.0.borrow().from_us.is_empty());
    assert!(!pair.us.announce());
    pair.shake_hands();
    assert!(pair.us.announce() && !pair.us.announce());
    assert_eq!(pair.us.write(b"late").unwrap(), 4);
    assert!(pair.us.end_writing().unwrap() && pair.us.end_writing().unwrap());
    assert_eq!(pair.us.write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    assert!(!pair.pipe.0.borrow().from_us.windows(4).any(|bytes| bytes == b"late"));
    pair.turn_peer();
    assert_eq!(pair.heard, b"late");
    assert_eq!(pair.peer.reader().read(&mut [0]).unwrap(), 0);
}

#[test]
fn c5_a_stalled_stream_makes_little_wait() {
    let (mut pair, _) = Pair::new(Vec::new());
    pair.shake_hands();
    {
        let mut wire = pair.pipe.0.borrow_mut();
        wire.pieces = vec![0; 1000];
        wire.calls = 0;
    }
    assert_eq!(pair.us.write(&vec![7; 1 << 20]).unwrap(), QUEUE_BYTES);
    assert!(pair.us.wants_write());
    assert_eq!(pair.us.write(&[7]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    assert!(!pair.us.end_writing().unwrap());
    pair.pipe.0.borrow_mut().pieces.clear();
    assert!(pair.us.end_writing().unwrap());
    pair.turn_peer();
    assert_eq!(pair.heard.len(), QUEUE_BYTES);
}

#[test]
fn many_slices_leave_in_few_records_and_calls() {
    let (mut pair, _) = Pair::new(Vec::new());
    pair.shake_hands();
    pair.pipe.0.borrow_mut().calls = 0;
    let slice = vec![7; 9_000];
    let slices = vec![IoSlice::new(&slice); 10];
    assert_eq!(pair.us.write_vectored(&slices).unwrap(), 90_000);
    let wire = pair.pipe.0.borrow();
    let (mut rest, mut records) = (&wire.from_us[..], 0);
    while let Some(head) = rest.first_chunk::<5>() {
        rest = &rest[5 + usize::from(u16::from_be_bytes([head[3], head[4]]))..];
        records += 1;
    }
    assert_eq!(
        (records, wire.calls),
        (6, 2),
        "90 kB are six records, of which four leave together"
    );
}

#[test]
fn what_is_no_tls_is_a_fault_at_once() {
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 3, 1, 0, 4, 9, 9, 9, 9]] {
        let (mut pair, _) = Pair::new(Vec::new());
        pair.pipe.0.borrow_mut().to_us.extend(bytes);
        assert_eq!(kind(pair.read()), io::ErrorKind::InvalidData);
        assert!(!pair.us.announce());
    }
}
