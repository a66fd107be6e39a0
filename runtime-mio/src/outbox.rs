//! What waits to be written to one connection.
//!
//! Owns the bytes between an effect and the socket, and the credit that goes back to the core for them; refuses to know
//! sockets and frames. It has no bound of its own: the core counts what is queued and closes who lags (security C5).
//!
//! Small frames are gathered into one chunk, large ones stay where they are: a text that one connection gets is moved
//! in, a text that many get is shared. An empty outbox holds no memory.
//!
//! Invariants: bytes leave in the order they came · each chunk's credit is given exactly once, when its last byte has
//! left · after a write nothing is left, or the socket would not take more.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};
use std::rc::Rc;

/// A payload longer than this is queued as it is; a shorter one is cheaper to copy than to keep apart.
pub(crate) const COPY_BYTES_MAX: usize = 1024;
/// A chunk that small frames are gathered in starts a successor at this size. It is also how coarse credit comes.
const CHUNK_BYTES: usize = 16 * 1024;
/// Chunks that one system call writes.
const GATHER_MAX: usize = 32;

/// The write queue of one connection.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    chunks: VecDeque<Chunk>,
    /// Bytes of the first chunk that have left.
    written: usize,
}

#[derive(Debug)]
struct Chunk {
    bytes: Bytes,
    /// Bytes of text in it, as they are told with `Input::Flushed`.
    credit: usize,
}

#[derive(Debug)]
enum Bytes {
    Own(Vec<u8>),
    Shared(Rc<[u8]>),
}

impl Bytes {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// The chunk to append small things to, which are worth this much.
    pub(crate) fn tail(&mut self, credit: usize) -> &mut Vec<u8> {
        let has_room = match self.chunks.back() {
            Some(Chunk { bytes: Bytes::Own(bytes), .. }) => bytes.len() < CHUNK_BYTES,
            Some(Chunk { bytes: Bytes::Shared(_), .. }) | None => false,
        };
        if !has_room {
            self.push(Bytes::Own(Vec::new()), 0);
        }
        match self.chunks.back_mut() {
            Some(Chunk { bytes: Bytes::Own(bytes), credit: total }) => {
                *total += credit;
                bytes
            }
            Some(Chunk { bytes: Bytes::Shared(_), .. }) | None => {
                unreachable!("a chunk of our own was just made sure of")
            }
        }
    }

    /// Queues bytes that only this connection gets.
    pub(crate) fn push_own(&mut self, bytes: Vec<u8>, credit: usize) {
        self.push(Bytes::Own(bytes), credit);
    }

    /// Queues bytes that others get too.
    pub(crate) fn push_shared(&mut self, bytes: Rc<[u8]>, credit: usize) {
        self.push(Bytes::Shared(bytes), credit);
    }

    fn push(&mut self, bytes: Bytes, credit: usize) {
        self.chunks.push_back(Chunk { bytes, credit });
    }

    /// Writes as much as `to` takes; says the credit of what has left. If the outbox is not empty then, `to` is full.
    pub(crate) fn write_to(&mut self, to: &mut impl Write) -> io::Result<usize> {
        let mut credit = 0;
        while let Some(first) = self.chunks.front() {
            let first = &first.bytes.as_slice()[self.written..];
            let (asked, result) = if self.chunks.len() == 1 {
                (first.len(), to.write(first))
            } else {
                let mut slices = [IoSlice::new(&[]); GATHER_MAX];
                let rest = self.chunks.iter().skip(1).map(|chunk| chunk.bytes.as_slice());
                let mut asked = 0;
                let mut count = 0;
                for (slice, bytes) in slices.iter_mut().zip(std::iter::once(first).chain(rest)) {
                    *slice = IoSlice::new(bytes);
                    asked += bytes.len();
                    count += 1;
                }
                (asked, to.write_vectored(&slices[..count]))
            };
            match result {
                Ok(taken) => {
                    credit += self.on_written(taken);
                    // A socket that takes less than it was given is full, and says when it no longer is.
                    if taken < asked {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.chunks.is_empty() {
            self.chunks = VecDeque::new();
        }
        Ok(credit)
    }

    fn on_written(&mut self, taken: usize) -> usize {
        let mut credit = 0;
        self.written += taken;
        while let Some(first) = self.chunks.front() {
            let len = first.bytes.as_slice().len();
            if self.written < len {
                break;
            }
            self.written -= len;
            credit += first.credit;
            self.chunks.pop_front();
        }
        credit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A socket that takes so many bytes at each call, and is full when the numbers end.
    struct Socket<'a> {
        takes: &'a [usize],
        got: Vec<u8>,
    }

    impl Write for Socket<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let Some((take, rest)) = self.takes.split_first() else {
                return Err(io::ErrorKind::WouldBlock.into());
            };
            self.takes = rest;
            let taken = bytes.len().min(*take);
            self.got.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }
        fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            self.write(&slices.iter().flat_map(|slice| slice.to_vec()).collect::<Vec<_>>())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    proptest! {
        #[test]
        fn bytes_leave_in_order_and_credit_comes_back_once(
            pushes in prop::collection::vec((0..3_u8, 1..3000_usize), 1..80),
            takes in prop::collection::vec(0..40_000_usize, 0..40),
        ) {
            let mut outbox = Outbox::default();
            let mut socket = Socket { takes: &[], got: Vec::new() };
            let (mut sent, mut owed, mut told) = (Vec::new(), 0, 0);
            let mut takes = takes.as_slice();
            for (number, (how, len)) in (0_u8..).zip(&pushes) {
                let bytes = vec![number; *len];
                sent.extend_from_slice(&bytes);
                owed += len;
                match how {
                    0 => outbox.tail(*len).extend(bytes),
                    1 => outbox.push_own(bytes, *len),
                    _ => outbox.push_shared(bytes.into(), *len),
                }
                if number % 4 == 0 {
                    let (now, later) = takes.split_at(takes.len().min(1));
                    takes = later;
                    socket.takes = now;
                    told += outbox.write_to(&mut socket).unwrap();
                    prop_assert!(told <= socket.got.len(), "credit for what has not left");
                }
            }
            while !outbox.is_empty() {
                socket.takes = &[usize::MAX];
                told += outbox.write_to(&mut socket).unwrap();
            }
            prop_assert!(socket.got == sent);
            prop_assert_eq!(told, owed);
            prop_assert_eq!(outbox.chunks.capacity(), 0);
        }
    }

    #[test]
    fn small_frames_are_written_with_one_call() {
        let mut outbox = Outbox::default();
        for _ in 0..100 {
            outbox.tail(3).extend(b"abc");
        }
        outbox.push_shared(Rc::from(&b"shared"[..]), 6);
        outbox.tail(1).extend(b"z");
        let mut socket = Socket { takes: &[1000], got: Vec::new() };
        assert_eq!(outbox.write_to(&mut socket).unwrap(), 307);
        assert!(outbox.is_empty());
        assert_eq!(socket.got.len(), 307);
    }
}
