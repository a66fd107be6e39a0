use super::*;
use proptest::prelude::*;
use std::io::{self, Read, Write};
use tungstenite::protocol::{Message, Role, WebSocket, WebSocketConfig};

const LIMIT: usize = 300;

/// One frame as a client would send it, or as it should not.
#[derive(Debug, Clone)]
struct Sent {
    first: u8,
    payload: Vec<u8>,
    mask: Option<[u8; 4]>,
}

impl Sent {
    fn text(text: &str) -> Self {
        Self { first: 0x81, payload: text.into(), mask: Some([1, 2, 3, 4]) }
    }

    fn with(first: u8, payload: impl Into<Vec<u8>>) -> Self {
        Self { first, payload: payload.into(), mask: Some([9, 8, 7, 6]) }
    }

    fn encode(&self, to: &mut Vec<u8>) {
        to.push(self.first);
        let masked = if self.mask.is_some() { 0x80 } else { 0 };
        match self.payload.len() {
            len @ 0..126 => to.push(masked | u8::try_from(len).unwrap()),
            len => {
                to.push(masked | 126);
                to.extend(u16::try_from(len).unwrap().to_be_bytes());
            }
        }
        let mask = self.mask.unwrap_or_default();
        to.extend(self.mask.iter().flatten());
        to.extend(self.payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    }
}

fn bytes_of(frames: &[Sent]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for frame in frames {
        frame.encode(&mut bytes);
    }
    bytes
}

/// Everything the decoder says about bytes that come in pieces of these sizes, and whether a message is open at the end.
fn ours(bytes: &[u8], sizes: &[usize]) -> (Vec<Decoded<'static>>, bool) {
    let mut decoder = Decoder::new(LIMIT);
    let mut said = Vec::new();
    let (mut rest, mut sizes) = (bytes, sizes.iter().cycle());
    while !rest.is_empty() {
        let size = sizes.next().map_or(rest.len(), |size| (*size).clamp(1, rest.len()));
        let (piece, after) = rest.split_at(size);
        rest = after;
        let mut piece = piece.to_vec();
        let mut at = 0;
        while at < piece.len() {
            let (used, decoded) = decoder.decode(&mut piece[at..]);
            at += used;
            let Some(decoded) = decoded else { continue };
            let ended = matches!(decoded, Decoded::Close(_) | Decoded::Broke(_));
            said.push(match decoded {
                Decoded::Text(text) => Decoded::Text(Cow::Owned(text.into_owned())),
                Decoded::Ping(data) => Decoded::Ping(Cow::Owned(data.into_owned())),
                Decoded::Pong => Decoded::Pong,
                Decoded::Close(code) => Decoded::Close(code),
                Decoded::Broke(fault) => Decoded::Broke(fault),
            });
            if ended {
                return (said, false);
            }
        }
    }
    (said, decoder.has_begun())
}

/// A peer in memory: what it sent, and no interest in what is sent to it.
struct Peer<'a>(&'a [u8]);

impl Read for Peer<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.0.read(buffer)
    }
}

impl Write for Peer<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        Ok(buffer.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What tungstenite says about the same bytes; `Broke` stands for each of its errors.
fn theirs(bytes: &[u8]) -> Vec<Decoded<'static>> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(LIMIT))
        .max_frame_size(Some(LIMIT))
        .accept_unmasked_frames(false);
    let mut socket = WebSocket::from_raw_socket(Peer(bytes), Role::Server, Some(config));
    let mut said = Vec::new();
    loop {
        said.push(match socket.read() {
            Ok(Message::Text(text)) => Decoded::Text(Cow::Owned(text.as_str().to_owned())),
            Ok(Message::Ping(data)) => Decoded::Ping(Cow::Owned(data.to_vec())),
            Ok(Message::Pong(_)) => Decoded::Pong,
            Ok(Message::Close(frame)) => {
                said.push(Decoded::Close(frame.map(|frame| frame.code.into())));
                return said;
            }
            Err(tungstenite::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                return said;
            }
            Ok(Message::Binary(_) | Message::Frame(_)) | Err(_) => {
                said.push(Decoded::Broke(MessageFault::Framing));
                return said;
            }
        });
    }
}

/// Mostly what clients send, often enough what they must not.
fn any_frame() -> impl Strategy<Value = Sent> {
    let first = prop_oneof![
        8 => Just(0x81_u8),
        4 => Just(0x01),
        4 => Just(0x00),
        5 => Just(0x80),
        3 => Just(0x89),
        2 => Just(0x8a),
        1 => Just(0x88),
        1 => Just(0x82),
        1 => any::<u8>().prop_filter("a binary fragment ends later with them", |b| b & 0x8f != 2),
    ];
    let payload = prop_oneof![
        6 => "[a-zé€😀]{0,12}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..8),
        2 => (0..400_usize).prop_map(|len| vec![b'x'; len]),
        1 => (990_u16..1020, "[a-z]{0,4}").prop_map(|(code, reason)| {
            [&code.to_be_bytes()[..], reason.as_bytes()].concat()
        }),
    ];
    let mask = prop_oneof![30 => any::<[u8; 4]>().prop_map(Some), 1 => Just(None)];
    (first, payload, mask).prop_map(|(first, payload, mask)| Sent { first, payload, mask })
}

fn without_reason(said: Vec<Decoded<'static>>) -> Vec<Decoded<'static>> {
    let broke = |decoded| match decoded {
        Decoded::Broke(_) => Decoded::Broke(MessageFault::Framing),
        Decoded::Text(_) | Decoded::Ping(_) | Decoded::Pong | Decoded::Close(_) => decoded,
    };
    said.into_iter().map(broke).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn whole_frames_mean_what_they_mean_to_tungstenite(
        frames in prop::collection::vec(any_frame(), 0..12),
        sizes in prop::collection::vec(1..40_usize, 0..4),
    ) {
        let bytes = bytes_of(&frames);
        prop_assert_eq!(without_reason(ours(&bytes, &sizes).0), theirs(&bytes));
    }

    #[test]
    fn any_bytes_mean_the_same_however_they_are_cut(
        frames in prop::collection::vec(any_frame(), 0..12),
        noise in prop::collection::vec(any::<u8>(), 0..20),
        cut in any::<prop::sample::Index>(),
        sizes in prop::collection::vec(1..40_usize, 1..4),
    ) {
        let mut bytes = bytes_of(&frames);
        bytes.truncate(cut.index(bytes.len() + 1));
        bytes.extend(noise);
        let whole = ours(&bytes, &[]);
        prop_assert_eq!(&ours(&bytes, &sizes), &whole);
        prop_assert_eq!(&ours(&bytes, &[1]), &whole);
    }
}

#[test]
fn b6_each_violation_has_its_fault() {
    use MessageFault::{Binary, Framing, NotUtf8, TooLarge};
    let unmasked = Sent { mask: None, ..Sent::text("x") };
    let fragments = vec![Sent::with(0x00, ""); usize::from(FRAGMENTS_MAX)];
    for (name, frames, fault) in [
        ("unmasked", vec![unmasked], Framing),
        ("rsv1, as for compression", vec![Sent::with(0xc1, "x")], Framing),
        ("rsv3", vec![Sent::with(0x91, "x")], Framing),
        ("reserved data opcode", vec![Sent::with(0x83, "x")], Framing),
        ("reserved control opcode", vec![Sent::with(0x8b, "x")], Framing),
        ("long ping", vec![Sent::with(0x89, vec![0; 126])], Framing),
        ("fragmented ping", vec![Sent::with(0x09, "x")], Framing),
        ("continuation of nothing", vec![Sent::with(0x80, "x")], Framing),
        ("text in text", vec![Sent::with(0x01, "x"), Sent::text("y")], Framing),
        ("close of one byte", vec![Sent::with(0x88, "x")], Framing),
        ("too many fragments", [vec![Sent::with(0x01, "x")], fragments].concat(), Framing),
        ("binary", vec![Sent::with(0x82, "x")], Binary),
        ("not UTF-8", vec![Sent::with(0x81, [0xff])], NotUtf8),
        ("cut UTF-8", vec![Sent::with(0x01, [0xc3]), Sent::with(0x80, "")], NotUtf8),
        ("too large", vec![Sent::with(0x81, vec![b'x'; LIMIT + 1])], TooLarge),
        (
            "too large in pieces",
            vec![Sent::with(0x01, vec![b'x'; LIMIT]), Sent::with(0x80, "x")],
            TooLarge,
        ),
    ] {
        let said = ours(&bytes_of(&frames), &[]).0;
        assert_eq!(said, [Decoded::Broke(fault)], "{name}");
    }
}

#[test]
fn b6_a_message_that_is_too_large_is_refused_by_its_header() {
    let mut header = vec![0x81, 0xff];
    header.extend(u64::MAX.to_be_bytes());
    header.extend([0; 4]);
    assert_eq!(ours(&header, &[]).0, [Decoded::Broke(MessageFault::TooLarge)]);
}

#[test]
fn c4_only_a_text_message_that_is_partly_there_has_begun() {
    let text = bytes_of(&[Sent::text("hello")]);
    for len in 1..text.len() {
        assert!(ours(&text[..len], &[]).1, "{len} bytes");
    }
    assert!(!ours(&text, &[]).1);
    let fragment = bytes_of(&[Sent::with(0x01, "he")]);
    assert!(ours(&fragment, &[]).1);
    let interleaved = bytes_of(&[Sent::with(0x01, "he"), Sent::with(0x89, "")]);
    assert!(ours(&interleaved, &[]).1);
    let ping = bytes_of(&[Sent::with(0x89, "hello")]);
    for len in 0..=ping.len() {
        assert!(!ours(&ping[..len], &[]).1, "{len} bytes of a ping");
    }
}

#[test]
fn a_whole_message_is_not_copied_and_an_assembled_one_is_let_go() {
    let mut decoder = Decoder::new(LIMIT);
    let mut bytes = bytes_of(&[Sent::text("hello")]);
    let (_, decoded) = decoder.decode(&mut bytes);
    assert!(matches!(decoded, Some(Decoded::Text(Cow::Borrowed("hello")))));
    let mut bytes = bytes_of(&[Sent::with(0x01, "hel"), Sent::with(0x80, "lo")]);
    let (_, decoded) = decoder.decode(&mut bytes);
    assert!(matches!(decoded, Some(Decoded::Text(Cow::Owned(text))) if text == "hello"));
    assert_eq!((decoder.message.capacity(), decoder.control.capacity()), (0, 0));
}

#[test]
fn what_is_put_a_client_reads() {
    let mut bytes = Vec::new();
    put_text_header(&mut bytes, 2);
    bytes.extend(b"hi");
    put_pong(&mut bytes, b"pong");
    put_close(&mut bytes, Some(1008), &"é".repeat(100));
    let mut socket = WebSocket::from_raw_socket(Peer(&bytes), Role::Client, None);
    assert_eq!(socket.read().unwrap(), Message::text("hi"));
    assert_eq!(socket.read().unwrap(), Message::Pong(b"pong".to_vec().into()));
    let Message::Close(Some(close)) = socket.read().unwrap() else { panic!("no close") };
    assert_eq!((u16::from(close.code), close.reason.len()), (1008, 122));
}
