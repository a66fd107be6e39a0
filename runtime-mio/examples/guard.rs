//! The guard as a program of its own: for those who embed the runtime in a program that cannot be its own guard. The
//! tests of [`clawd_runtime_mio::process`] run it too.

use std::process::ExitCode;

fn main() -> ExitCode {
    // The name of this program and the word `guard`.
    let code = clawd_runtime_mio::guard::run(std::env::args_os().skip(2));
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}
