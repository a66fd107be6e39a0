//! A relay that says what it wants on the control connection: the daemon lives on, and tells it nothing (security G3, G5).
//!
//! Proves that no texts, in no order, make the daemon panic, dial what the owner does not want, say a secret again, make
//! more tunnels than it may, or forget that the relay was switched off. The bytes are what the relay does and says
//! ([`clawd_tests::plan::run_relay`]).
//!
//! From the repository's root: `cargo +nightly fuzz run relay_control`; all targets: `bash fuzz/smoke.sh 60`.
#![no_main]

use clawd_tests::plan::run_relay;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| drop(run_relay(bytes)));
