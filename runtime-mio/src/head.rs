//! Bytes to a request head (RFC 9112), strictly, and the answer to bytes.
//!
//! Owns everything about a head that is about bytes; refuses to know what a head means: paths, hosts, origins and
//! methods are the core's. [`scan`] looks at every byte once, however slowly they come, and finds the end of the head
//! or that there will never be one; [`parse`] reads the whole head with httparse.
//!
//! [`scan`] refuses at the first wrong byte (security B4): line ends without a CR, which httparse would let pass and other
//! parsers read differently, folded lines, and control characters anywhere. So a stranger who speaks something else gets
//! its answer at once and not at a deadline.

use std::io::Write as _;

use clawd_protocol::{Head, HeadFault, Limits, Response};
use tungstenite::handshake::derive_accept_key;

/// What the bytes so far amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scan {
    /// No fault yet and no end.
    Partial,
    /// The head is this long, with the blank line.
    Whole(usize),
    Fault(HeadFault),
}

/// Looks at `bytes[from..]`; everything before was looked at already.
pub(crate) fn scan(bytes: &[u8], from: usize, limits: &Limits) -> Scan {
    for (at, byte) in bytes.iter().copied().enumerate().skip(from) {
        if at >= limits.head_bytes_max {
            return Scan::Fault(HeadFault::TooLarge);
        }
        let before = &bytes[..at];
        let is_right = match byte {
            b'\n' if before.ends_with(b"\r\n\r") => return Scan::Whole(at + 1),
            b'\n' => before.ends_with(b"\r"),
            // A line that begins with a blank continues the one before it: obs-fold.
            b' ' | b'\t' => !before.ends_with(b"\r") && !before.ends_with(b"\n"),
            b'\r' => !before.ends_with(b"\r"),
            0..b' ' | 0x7f => false,
            b'!'.. => !before.ends_with(b"\r"),
        };
        if !is_right {
            return Scan::Fault(HeadFault::Malformed);
        }
    }
    Scan::Partial
}

/// Reads a head that [`scan`] found whole, and shows it to `look`.
pub(crate) fn parse<T>(
    bytes: &[u8],
    limits: &Limits,
    look: impl FnOnce(Result<Head<'_>, HeadFault>) -> T,
) -> T {
    let mut headers = vec![httparse::EMPTY_HEADER; limits.headers_max];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
        Ok(_) => return look(Err(HeadFault::Malformed)),
        Err(httparse::Error::TooManyHeaders) => return look(Err(HeadFault::TooLarge)),
        Err(_) => return look(Err(HeadFault::Malformed)),
    }
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version)
    else {
        return look(Err(HeadFault::Malformed));
    };
    let headers: Vec<_> =
        request.headers.iter().map(|header| (header.name, header.value)).collect();
    look(Ok(Head { method, target, minor, headers: &headers }))
}

/// Appends a whole answer, the last on its connection.
pub(crate) fn put_response(to: &mut Vec<u8>, response: &Response) {
    let Response { status, reason, content_type, header, body } = response;
    // Writing into a `Vec` does not fail.
    let _ = write!(
        to,
        "HTTP/1.1 {status} {reason}\r\nContent-Type: {content_type}\r\n\
         Content-Length: {}\r\nConnection: close\r\n",
        body.len()
    );
    if let Some((name, value)) = header {
        let _ = write!(to, "{name}: {value}\r\n");
    }
    let _ = write!(to, "\r\n{body}");
}

/// Appends the answer to a WebSocket handshake with this key.
pub(crate) fn put_upgrade(to: &mut Vec<u8>, key: &str) {
    // Writing into a `Vec` does not fail.
    let _ = write!(
        to,
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        derive_accept_key(key.as_bytes())
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a peer's bytes come to, fed in pieces of `size`: a fault, or the head's parts and what follows it.
    fn read(bytes: &[u8], size: usize) -> Result<Option<(String, usize)>, HeadFault> {
        let limits = Limits { head_bytes_max: 256, headers_max: 3, ..Limits::default() };
        let mut from = 0;
        for upto in (0..bytes.len()).step_by(size).skip(1).chain([bytes.len()]) {
            match scan(&bytes[..upto], from, &limits) {
                Scan::Partial => from = upto,
                Scan::Fault(fault) => return Err(fault),
                Scan::Whole(length) => {
                    return parse(&bytes[..length], &limits, |head| {
                        head.map(|head| Some((format!("{head:?}"), length)))
                    });
                }
            }
        }
        Ok(None)
    }

    #[test]
    fn b4_heads_are_read_strictly() {
        let long = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(300));
        let malformed: &[&[u8]] = &[
            b"GET / HTTP/1.1\nHost: x\n\n",
            b"GET / HTTP/1.1\r\nHost: x\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\r\n\r\n",
            b"GET / HTTP/1.1\rHost: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\n y\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\n\ty\r\n\r\n",
            b"GET / HTTP/1.1\r\n Host: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
            b"GET / HTTP/1.1\r\n: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost\r\n\r\n",
            b"GET / HTTP/1.1\r\nHo\0st: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\0\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: \x7f\r\n\r\n",
            b"GET / HTTP/2.0\r\n\r\n",
            b"GET / HTTP/1.1 \r\n\r\n",
            b"GET /\r\n\r\n",
            b"GET  / HTTP/1.1\r\n\r\n",
            b" GET / HTTP/1.1\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01",
            b"\r\n\r\n",
            b"\n",
        ];
        for bytes in malformed {
            let name = String::from_utf8_lossy(bytes);
            assert_eq!(read(bytes, bytes.len()), Err(HeadFault::Malformed), "{name:?}");
            assert_eq!(read(bytes, 1), Err(HeadFault::Malformed), "{name:?} byte by byte");
        }
        for bytes in [long.as_bytes(), b"GET / HTTP/1.1\r\nA:\r\nB:\r\nC:\r\nD:\r\n\r\n"] {
            assert_eq!(read(bytes, 7), Err(HeadFault::TooLarge));
        }
        assert_eq!(read(&long.as_bytes()[..256], 256), Ok(None));
        assert_eq!(read(&long.as_bytes()[..257], 257), Err(HeadFault::TooLarge));
    }

    #[test]
    fn heads_are_the_same_however_they_are_cut() {
        let bytes = b"GET /p?q HTTP/1.1\r\nHost:  a:1 \r\nX: \xe9\r\n\r\nbehind";
        let whole = read(bytes, bytes.len());
        let expected = "Head { method: \"GET\", target: \"/p?q\", minor: 1, \
                        headers: [(\"Host\", [97, 58, 49]), (\"X\", [233])] }";
        assert_eq!(whole, Ok(Some((expected.to_owned(), bytes.len() - 6))));
        for size in 1..bytes.len() {
            assert_eq!(read(bytes, size), whole, "pieces of {size}");
        }
        let old = read(b"GET / HTTP/1.0\r\n\r\n", 99).unwrap().unwrap().0;
        assert!(old.contains("minor: 0"), "{old}");
    }
}
