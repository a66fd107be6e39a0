use super::*;
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use tungstenite::protocol::{Message, Role, WebSocket};

/// One direction of a stream in memory that takes and gives what it is allowed to.
#[derive(Debug, Default)]
struct Pipe {
    bytes: VecDeque<u8>,
    /// So many bytes may still be written.
    room: usize,
    is_ended: bool,
}

/// One end of two pipes; gives and takes in pieces of these sizes.
#[derive(Debug, Clone)]
struct End {
    input: Rc<RefCell<Pipe>>,
    output: Rc<RefCell<Pipe>>,
    sizes: Rc<RefCell<VecDeque<usize>>>,
}

impl End {
    fn size(&self) -> usize {
        let mut sizes = self.sizes.borrow_mut();
        let size = sizes.pop_front().unwrap_or(1 << 20);
        sizes.push_back(size);
        size
    }
}

impl Read for End {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(self.size());
        let mut pipe = self.input.borrow_mut();
        match pipe.bytes.read(&mut buffer[..length])? {
            0 if !pipe.is_ended => Err(ErrorKind::WouldBlock.into()),
            length => Ok(length),
        }
    }
}

impl Write for End {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut pipe = self.output.borrow_mut();
        let length = bytes.len().min(self.size()).min(pipe.room);
        if length == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        pipe.room -= length;
        pipe.bytes.extend(&bytes[..length]);
        Ok(length)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const MUCH: usize = 1 << 30;

/// A tunnel and the other end of what it runs on.
fn tunnel(sizes: &[usize]) -> (Tunnel<End>, End) {
    let (up, down) = (Rc::<RefCell<Pipe>>::default(), Rc::<RefCell<Pipe>>::default());
    up.borrow_mut().room = MUCH;
    down.borrow_mut().room = MUCH;
    let all = Rc::new(RefCell::new(VecDeque::new()));
    let sizes = Rc::new(RefCell::new(sizes.iter().copied().collect()));
    let ours = End { input: Rc::clone(&down), output: Rc::clone(&up), sizes };
    let theirs = End { input: up, output: down, sizes: all };
    (Tunnel::new(ours, Vec::new()), theirs)
}

fn kind<T: fmt::Debug>(result: io::Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

/// Everything that can be read now.
fn read_all(tunnel: &mut Tunnel<End>) -> (Vec<u8>, io::Result<()>) {
    let (mut all, mut buffer) = (Vec::new(), [0; 5000]);
    loop {
        match tunnel.read(&mut buffer) {
            Ok(0) => return (all, Ok(())),
            Ok(length) => all.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return (all, Err(error)),
        }
    }
}

fn server(end: &End) -> WebSocket<End> {
    WebSocket::from_raw_socket(end.clone(), Role::Server, None)
}

/// What tungstenite's server reads: the payload of binary messages, in a row, and how many pongs came.
fn read_server(server: &mut WebSocket<End>) -> (Vec<u8>, usize) {
    let (mut all, mut pongs) = (Vec::new(), 0);
    loop {
        match server.read() {
            Ok(Message::Binary(bytes)) => {
                assert!(!bytes.is_empty() && bytes.len() <= FRAME_BYTES_MAX);
                all.extend_from_slice(&bytes);
            }
            Ok(Message::Pong(_)) => pongs += 1,
            Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                return (all, pongs);
            }
            other => panic!("{other:?}"),
        }
    }
}

fn some_bytes(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_server_reads_what_was_written(
        lengths in prop::collection::vec(1..40_000_usize, 1..8),
        sizes in prop::collection::vec(1..9000_usize, 0..5),
        rooms in prop::collection::vec(0..30_000_usize, 0..12),
        pings in any::<u8>(),
    ) {
        let (mut tunnel, end) = tunnel(&sizes);
        let mut server = server(&end);
        let sent: Vec<u8> = lengths.iter().enumerate()
            .flat_map(|(at, length)| some_bytes(*length, at as u8)).collect();
        let (mut rest, mut heard) = (&sent[..], Vec::new());
        let mut rooms = rooms.into_iter();
        while !rest.is_empty() || tunnel.wants_write() {
            end.input.borrow_mut().room = rooms.next().unwrap_or(MUCH);
            if pings & 1 == 1 {
                server.send(Message::Ping(vec![7; 100].into())).unwrap();
                prop_assert_eq!(kind(tunnel.read(&mut [0])), ErrorKind::WouldBlock);
            }
            let length = lengths[rest.len() % lengths.len()].min(rest.len());
            let (first, second) = rest[..length].split_at(length / 3);
            match tunnel.write_vectored(&[IoSlice::new(first), IoSlice::new(second)]) {
                Ok(written) => rest = &rest[written..],
                Err(error) => prop_assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            let held = tunnel.out.len();
            prop_assert!(held <= FRAME_BYTES_MAX + 200, "{} bytes", held);
            heard.extend(read_server(&mut server).0);
        }
        heard.extend(read_server(&mut server).0);
        prop_assert!(heard == sent);
    }

    #[test]
    fn what_a_server_sends_is_read(
        messages in prop::collection::vec((0..40_000_usize, 0..4_u8), 0..8),
        sizes in prop::collection::vec(1..9000_usize, 0..5),
    ) {
        let (mut tunnel, end) = tunnel(&sizes);
        let mut server = server(&end);
        let (mut sent, mut pings) = (Vec::new(), 0);
        for (length, what) in messages {
            let bytes = some_bytes(length, what);
            if what == 0 {
                server.send(Message::Ping(bytes[..length.min(125)].to_vec().into())).unwrap();
                pings += 1;
            } else {
                sent.extend_from_slice(&bytes);
                server.send(Message::Binary(bytes.into())).unwrap();
            }
        }
        let (heard, result) = read_all(&mut tunnel);
        prop_assert_eq!(kind(result), ErrorKind::WouldBlock);
        prop_assert!(heard == sent);
        prop_assert_eq!(tunnel.raw.capacity(), 0);
        prop_assert_eq!(read_server(&mut server).1, pings);
        server.close(None).unwrap();
        prop_assert!(read_all(&mut tunnel).1.is_ok());
        prop_assert!(matches!(server.read(), Ok(Message::Close(_))));
        prop_assert_eq!(kind(tunnel.write(b"x")), ErrorKind::BrokenPipe);
    }
}

/// What comes of these bytes from a server, and then no more.
fn after(bytes: &[u8]) -> (Vec<u8>, io::Result<()>) {
    let (mut tunnel, end) = tunnel(&[]);
    end.output.borrow_mut().bytes.extend(bytes);
    end.output.borrow_mut().is_ended = true;
    read_all(&mut tunnel)
}

#[test]
fn g4_what_is_no_stream_of_binary_frames_ends_it() {
    let long = [&[0x82, 127][..], &(FRAME_BYTES_MAX_READ + 1).to_be_bytes()].concat();
    for (name, bytes) in [
        ("text", &b"\x81\x01x"[..]),
        ("text inside of a message", b"\x02\x01a\x81\x01x"),
        ("a mask", b"\x82\x81\x01\x02\x03\x04x"),
        ("a reserved bit", b"\xc2\x01x"),
        ("a reserved opcode", b"\x83\x01x"),
        ("a reserved control opcode", b"\x8b\x01x"),
        ("a continuation of nothing", b"\x80\x01x"),
        ("a message in a message", b"\x02\x01a\x82\x01x"),
        ("a long ping", b"\x89\x7e\x00\x7e"),
        ("a fragmented ping", b"\x09\x00"),
        ("a long frame", &long),
    ] {
        let (_, result) = after(bytes);
        assert_eq!(kind(result), ErrorKind::InvalidData, "{name}");
    }
    let longest = [&[0x82, 127][..], &FRAME_BYTES_MAX_READ.to_be_bytes(), b"x"].concat();
    for (name, bytes, heard) in [
        ("in a header", &b"\x82"[..], &b""[..]),
        ("in a frame", &longest, b"x"),
        ("in a message", b"\x02\x01x", b"x"),
        ("in a ping", b"\x82\x01x\x89\x02a", b"x"),
    ] {
        let (bytes, result) = after(bytes);
        assert_eq!(bytes, heard, "{name}");
        assert_eq!(kind(result), ErrorKind::UnexpectedEof, "{name}");
    }
    for whole in [&b""[..], b"\x02\x01x\x00\x00\x80\x01y", b"\x82\x01x\x88\x00\x82\x01z"] {
        assert!(after(whole).1.is_ok());
    }
    assert_eq!(after(b"\x82\x01x\x88\x00\x82\x01z").0, b"x", "nothing comes after the close");
}

#[test]
fn each_frame_has_a_mask_of_its_own() {
    let (mut tunnel, end) = tunnel(&[]);
    let mut masks = std::collections::HashSet::new();
    for _ in 0..200 {
        assert_eq!(tunnel.write(&[0; 4]).unwrap(), 4);
        let frame: Vec<u8> = end.input.borrow_mut().bytes.drain(..).collect();
        assert_eq!(frame[..2], [0x82, 0x84]);
        // Four zeros masked are the mask.
        assert_eq!(frame[2..6], frame[6..]);
        masks.insert(frame[2..6].to_vec());
    }
    assert!(masks.len() > 195, "{}", masks.len());
}

#[test]
fn the_last_byte_is_not_acknowledged_before_the_frame_has_left() {
    let (mut tunnel, end) = tunnel(&[]);
    end.input.borrow_mut().room = 10;
    assert_eq!(tunnel.write(b"0123456789").unwrap(), 9);
    assert!(tunnel.wants_write());
    assert_eq!(kind(tunnel.write(b"9abc")), ErrorKind::WouldBlock);
    assert_eq!(kind(tunnel.flush()), ErrorKind::WouldBlock);
    end.input.borrow_mut().room = MUCH;
    assert_eq!(tunnel.write(b"9abc").unwrap(), 1);
    assert_eq!(tunnel.write(b"abc").unwrap(), 3);
    assert!(!tunnel.wants_write());
    assert_eq!(read_server(&mut server(&end)).0, b"0123456789abc");
}

#[test]
fn one_text_is_read_before_the_stream_begins() {
    let (mut tunnel, end) = tunnel(&[1]);
    let mut server = server(&end);
    assert_eq!(kind(tunnel.read_text()), ErrorKind::WouldBlock);
    server.send(Message::Ping(b"p".to_vec().into())).unwrap();
    server.send(Message::text("hé")).unwrap();
    server.send(Message::Binary(b"x".to_vec().into())).unwrap();
    assert_eq!(tunnel.read_text().unwrap(), "hé");
    assert_eq!(read_all(&mut tunnel).0, b"x");
    server.send(Message::text("x".repeat(TEXT_BYTES_MAX + 1))).unwrap();
    assert_eq!(kind(tunnel.read_text()), ErrorKind::InvalidData);
}

#[test]
fn a_flood_of_empty_frames_lets_others_have_their_turn() {
    let (mut tunnel, end) = tunnel(&[]);
    for _ in 0..1000 {
        end.output.borrow_mut().bytes.extend(b"\x82\x00\x8a\x00\x89\x00");
    }
    end.input.borrow_mut().room = 3;
    assert_eq!(kind(tunnel.read(&mut [0])), ErrorKind::Interrupted);
    assert!(tunnel.out.len() < 200, "one pong waits, however many pings came");
    assert_eq!(kind(read_all(&mut tunnel).1), ErrorKind::WouldBlock);
}

#[test]
fn after_a_close_of_ours_the_peer_may_go_on() {
    let (mut tunnel, end) = tunnel(&[]);
    tunnel.close().unwrap();
    tunnel.close().unwrap();
    assert_eq!(kind(tunnel.write(b"x")), ErrorKind::BrokenPipe);
    assert_eq!(end.input.borrow().bytes.len(), 2 + 4 + 2, "one close");
    end.output.borrow_mut().bytes.extend(b"\x82\x01x\x88\x02\x03\xe8");
    assert_eq!(read_all(&mut tunnel).0, b"x");
    assert!(!tunnel.wants_write());
}
