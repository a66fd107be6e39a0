//! Any line for the shell, under rules that allow a lot (security H5): what is allowed is what its rules say, nothing else.
//!
//! Proves, with a second and dumber reading of the line, that whatever is allowed has no dangerous byte outside of
//! quotes, and that the words which a shell would see begin as one of the allowed commands does. The first byte chooses
//! the mode; the others are the line, and a rule to be read.
//!
//! From the repository's root: `cargo +nightly fuzz run command_policy`; all targets: `bash fuzz/smoke.sh 60`.
#![no_main]

use clawd_tests::policy::check_line;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| check_line(bytes));
