//! Strangers only, doing what they like: nobody gets in, nobody hears anything, nothing is stored (security A5, B7, C, D).
#![no_main]

use clawd_protocol::Limits;
use clawd_tests::plan::{Cast, Setup, run};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let setup = Setup { cast: Cast::Strangers, ..Setup::everybody(Limits::tiny()) };
    drop(run(bytes, &setup));
});
