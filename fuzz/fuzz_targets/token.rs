//! Any text in a token's place: what is taken for one has its form, and every other text differs from it.
//!
//! Proves that form and checksum are really checked: one changed character never makes another token. The bytes are the
//! text, and the first two of them the place and the character to change.
//!
//! From the repository's root: `cargo +nightly fuzz run token`; all targets: `bash fuzz/smoke.sh 60`.
#![no_main]

use clawd_protocol::access::token::{TokenKind, kind_of, mint_local};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    match kind_of(&text) {
        Some(TokenKind::Local) => assert!(text.starts_with("clawd_l_") && text.len() == 57),
        Some(TokenKind::Device(id)) => {
            assert!(text.starts_with(&format!("clawd_d_{id}_")) && text.len() == 66);
        }
        None => {}
    }
    // One changed character never makes another token.
    let mut token = mint_local([3; 32]).expose().to_owned().into_bytes();
    if let [at, byte, ..] = bytes {
        let at = usize::from(*at) % token.len();
        let is_same = token[at] == *byte;
        token[at] = *byte;
        let text = String::from_utf8_lossy(&token);
        assert_eq!(kind_of(&text).is_some(), is_same);
    }
});
