//! Whatever listens on the port says anything: our client never shows it the token, and is never ready (security A7).
//!
//! Proves that a client which demands proof neither sends anything more to a daemon that has not given it, nor counts
//! it as ready. The bytes are messages, with 0xff between them.
//!
//! From the repository's root: `cargo +nightly fuzz run client`; all targets: `bash fuzz/smoke.sh 60`.
#![no_main]

use clawd_protocol::access::token::mint_local;
use clawd_protocol::client::{Client, Happening, Trust};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let token = mint_local([1; 32]);
    let trust = Trust::DemandProof { nonce: "a nonce".to_owned(), port: 4300 };
    let (mut client, first) = Client::new(token.clone(), trust);
    assert!(!first.expose().contains(token.expose()));
    for message in bytes.split(|byte| *byte == 0xff) {
        let text = String::from_utf8_lossy(message);
        match client.handle_text(&text) {
            Ok(Happening::Send(_) | Happening::Ready(_)) => panic!("taken in by {text:?}"),
            Ok(
                Happening::Nothing
                | Happening::Refused(_)
                | Happening::Answer { .. }
                | Happening::Event { .. },
            ) => {}
            Err(_) => return,
        }
    }
});
