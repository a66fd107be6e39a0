//! Any request head (security B1–B4), read as the runtime reads it: answered once or upgraded, never both, never open.
//!
//! Proves that no head, from TCP or from the Unix socket, leaves a connection undecided, and that none is upgraded
//! without exactly one key. The bytes are the head; where they are not a whole one, there is nothing to do yet.
//!
//! From the repository's root: `cargo +nightly fuzz run http_head`; all targets: `bash fuzz/smoke.sh 60`.
#![no_main]

use clawd_protocol::{Head, HeadFault, Source};
use clawd_tests::{LOOPBACK, Stage, World};
use libfuzzer_sys::fuzz_target;

fn read<'a>(bytes: &'a [u8], request: &mut httparse::Request<'_, 'a>) -> Result<bool, HeadFault> {
    match request.parse(bytes) {
        Ok(status) => Ok(status.is_complete()),
        Err(httparse::Error::TooManyHeaders) => Err(HeadFault::TooLarge),
        Err(_) => Err(HeadFault::Malformed),
    }
}

fuzz_target!(|bytes: &[u8]| {
    for source in [LOOPBACK, Source::Unix] {
        let mut world = World::default();
        let conn = world.open(source);
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut headers);
        match read(bytes, &mut request) {
            Err(fault) => world.request(conn, Err(fault)),
            Ok(false) => return,
            Ok(true) => {
                let headers: Vec<(&str, &[u8])> =
                    request.headers.iter().map(|header| (header.name, header.value)).collect();
                let head = Head {
                    method: request.method.unwrap_or_default(),
                    target: request.path.unwrap_or_default(),
                    minor: request.version.unwrap_or_default(),
                    headers: &headers,
                };
                world.request(conn, Ok(head));
            }
        }
        world.settle();
        if world.link(conn).stage == Stage::Upgraded {
            let is_upgrade = |header: &httparse::Header<'_>| {
                header.name.eq_ignore_ascii_case("sec-websocket-key")
            };
            assert_eq!(request.headers.iter().filter(|header| is_upgrade(header)).count(), 1);
        } else {
            assert!(!world.link(conn).is_open(), "neither answered nor upgraded");
        }
    }
});
