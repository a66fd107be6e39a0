//! Devices that try to pair, in any order: none comes in without the right secret, and a yes where one is due (security D).
//!
//! Proves that a device is made only of a window through which its PIN or its ticket was shown, by the right keys, and once
//! somebody said yes where somebody has to be asked; and never two of one window. The bytes are steps of
//! [`clawd_tests::plan`].
//!
//! From the repository's root: `cargo +nightly fuzz run pairing`; all targets: `bash fuzz/smoke.sh 60`.
#![no_main]

use clawd_tests::plan::run_pairing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| drop(run_pairing(bytes)));
