//! The whole daemon: owners, devices, strangers, agents, a bad disk, a bad clock and crashes, under all invariants.
//!
//! Proves that no order of events violates an invariant of [`clawd_tests::invariants`], and that in the end every
//! request is answered and nothing is left. The bytes are steps of [`clawd_tests::plan`]; a crash prints the run as a
//! story.
//!
//! From the repository's root: `cargo +nightly fuzz run world`; all targets: `bash fuzz/smoke.sh 60`.
#![no_main]

use clawd_protocol::Limits;
use clawd_tests::plan::{Setup, run};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| drop(run(bytes, &Setup::everybody(Limits::tiny()))));
