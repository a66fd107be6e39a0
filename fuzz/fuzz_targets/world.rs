//! The whole daemon: owners, devices, strangers, agents, a bad disk, a bad clock and crashes, under all invariants.
#![no_main]

use clawd_protocol::Limits;
use clawd_tests::plan::{Setup, run};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| drop(run(bytes, &Setup::everybody(Limits::tiny()))));
