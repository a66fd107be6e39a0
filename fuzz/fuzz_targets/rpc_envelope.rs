//! An authenticated peer sends any text (security B6): what comes back is JSON-RPC, and the daemon stays usable.
//!
//! Proves that no message panics the daemon or violates an invariant, and that afterwards it answers its owner unless
//! it was told to stop. The bytes are messages, with 0xff between them.
//!
//! From the repository's root: `cargo +nightly fuzz run rpc_envelope`; all targets: `bash fuzz/smoke.sh 60`.
#![no_main]

use clawd_protocol::{Limits, Source};
use clawd_tests::World;
use libfuzzer_sys::fuzz_target;
use serde_json::json;

fuzz_target!(|bytes: &[u8]| {
    let mut world = World::new(Limits::tiny());
    let peer = world.owner_on(Source::Unix);
    // Messages are separated by a byte that is in no UTF-8 text.
    for message in bytes.split(|byte| *byte == 0xff) {
        let text = String::from_utf8_lossy(message);
        world.text(peer.conn, &text);
        world.settle();
    }
    if !world.is_stopped() {
        let owner = world.owner_on(Source::Unix);
        world.call(owner, "daemon.ping", json!({})).expect("a pong");
    }
});
