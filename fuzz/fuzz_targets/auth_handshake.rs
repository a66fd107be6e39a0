//! Strangers only, doing what they like: nobody gets in, nobody hears anything, nothing is stored (security A5, B7, C, D).
//!
//! Proves that without a good token no bytes lead to an authenticated connection, an event, a device or a session, and
//! that strangers stay within their limits. The bytes are steps of [`clawd_tests::plan`].
//!
//! From the repository's root: `cargo +nightly fuzz run auth_handshake`; all targets: `bash fuzz/smoke.sh 60`.
#![no_main]

use clawd_protocol::Limits;
use clawd_tests::plan::{Cast, Setup, run};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let setup = Setup { cast: Cast::Strangers, ..Setup::everybody(Limits::tiny()) };
    drop(run(bytes, &setup));
});
