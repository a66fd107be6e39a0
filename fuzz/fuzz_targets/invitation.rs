//! What a camera has read: a pairing code, or anything else.
//!
//! Proves that the reader of codes never panics, that what it reads is written as it was, and that no error repeats the
//! ticket. The bytes are the code's text.
//!
//! From the repository's root: `cargo +nightly fuzz run invitation`; all targets: `bash fuzz/smoke.sh 60`.
#![no_main]

use clawd_protocol::invitation::Invitation;
use clawd_protocol::pake::Message;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let _ = Message::of_device(&text);
    let Ok(invitation) = Invitation::read(&text) else { return };
    let written = serde_json::to_string(&invitation).expect("it is written");
    if written.len() <= 2048 {
        assert_eq!(Invitation::read(&written).as_ref(), Ok(&invitation));
    }
    let cut = &written[..written.len() - 1];
    let why = Invitation::read(cut).expect_err("it is cut off").to_string();
    assert!(invitation.ticket.len() < 16 || !why.contains(&invitation.ticket), "{why}");
});
