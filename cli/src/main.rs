//! clawd.
fn main() {}
