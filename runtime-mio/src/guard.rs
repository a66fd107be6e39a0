//! The guard of one agent.

use std::ffi::OsString;

/// Runs the guard with everything that follows `guard` on the command line, unparsed; returns the exit code.
#[must_use]
pub fn run(args: impl IntoIterator<Item = OsString>) -> i32 {
    let _ = args.into_iter();
    unimplemented!()
}
