//! Seeded runs of the whole daemon in the simulated world, and the proof that the alarm works.
//!
//! A failure names its seed and prints the trace. To run one again, alone:
//! `CLAWD_SEED=everybody:17 cargo test -p clawd-tests --test seeds one_seed -- --nocapture`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use clawd_protocol::{Effect, Input, Limits, OpId, Source, Sync, To};
use clawd_tests::plan::{Cast, Setup, bytes_of_seed, run, run_pairing, run_relay};
use clawd_tests::policy::check_line;
use clawd_tests::{Act, LOOPBACK, World};
use proptest::prelude::*;
use serde_json::json;

const STEPS: usize = 600;

fn setup_named(name: &str) -> Setup {
    match name {
        "everybody" => Setup::everybody(Limits::default()),
        "tiny" => Setup::everybody(Limits::tiny()),
        "strangers" => Setup { cast: Cast::Strangers, ..Setup::everybody(Limits::tiny()) },
        other => panic!("no setup is called {other}"),
    }
}

fn run_seeds(name: &str, seeds: std::ops::Range<u64>) {
    let setup = setup_named(name);
    for seed in seeds {
        let bytes = bytes_of_seed(seed, STEPS);
        let outcome = catch_unwind(AssertUnwindSafe(|| drop(run(&bytes, &setup))));
        assert!(outcome.is_ok(), "CLAWD_SEED={name}:{seed} fails; its trace is above");
    }
}

#[test]
fn a_hundred_seeds_with_the_real_limits() {
    run_seeds("everybody", 0..100);
}

#[test]
fn a_hundred_and_fifty_seeds_with_tiny_limits() {
    run_seeds("tiny", 0..150);
}

#[test]
fn seeds_that_failed_once() {
    // A decision that fell with the end of its turn was told, and lost with the power.
    run_seeds("everybody", 902..903);
    run_seeds("tiny", 902..903);
}

#[test]
fn runs_take_up_what_waited_before_a_crash() {
    let setup = setup_named("everybody");
    let mut taken_up = 0;
    for seed in 0..60 {
        let world = run(&bytes_of_seed(seed, STEPS), &setup);
        let calls = world.store.db.tool_calls.values();
        taken_up += calls
            .filter(|(_, call)| {
                call.output.as_ref().is_some_and(|text| text.starts_with("asked for again"))
            })
            .count();
    }
    assert!(taken_up >= 10, "{taken_up} grants were taken up: that proves nothing");
}

#[test]
fn runs_let_codex_work() {
    let setup = setup_named("everybody");
    let mut deeds = 0;
    for seed in 0..60 {
        let world = run(&bytes_of_seed(seed, STEPS), &setup);
        let codex = world.children().filter(|child| child.is_codex());
        deeds += codex.map(|child| child.done.len()).sum::<usize>();
    }
    assert!(deeds >= 10, "codex did {deeds} things: that proves nothing");
}

#[test]
fn runs_reach_a_relay_and_come_through_it() {
    let setup = setup_named("everybody");
    let (mut registered, mut came) = (0, 0);
    for seed in 0..100 {
        let world = run(&bytes_of_seed(seed, STEPS), &setup);
        let is_relayed = |link: &clawd_tests::Link| matches!(link.source, Source::Relay(_));
        came += world.links().values().filter(|link| is_relayed(link)).count();
        registered += world.registrations();
    }
    assert!(registered >= 20 && came >= 5, "{registered}, {came}: that proves nothing");
}

#[test]
fn strangers_achieve_nothing_in_a_hundred_seeds() {
    run_seeds("strangers", 0..100);
}

#[test]
fn d5_no_device_comes_in_without_the_secret_and_a_yes() {
    let runs = (0..150).map(|seed| run_pairing(&bytes_of_seed(seed, 300)));
    let devices: usize = runs.map(|world| world.store.db.devices.len()).sum();
    assert!(devices >= 50, "{devices} devices were paired: that proves nothing");
}

#[test]
fn what_the_fuzzer_has_found_stays_found() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/world");
    let found: Vec<_> = std::fs::read_dir(corpus).expect("the corpus").collect();
    assert!(found.len() >= 4, "the corpus is committed");
    for entry in found {
        let path = entry.expect("an entry").path();
        let bytes = std::fs::read(&path).expect("a run");
        let outcome = catch_unwind(AssertUnwindSafe(|| drop(run(&bytes, &setup_named("tiny")))));
        assert!(outcome.is_ok(), "{} fails; its trace is above", path.display());
    }
}

#[test]
fn d5_pairings_that_the_fuzzer_begins_with_are_what_they_are_called() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/pairing/");
    for (name, devices) in
        [("by_pin", 1), ("said_no", 0), ("ticket", 1), ("relay", 1), ("between", 0), ("crash", 0)]
    {
        let bytes = std::fs::read(format!("{corpus}{name}")).expect("a run");
        let world = run_pairing(&bytes);
        assert_eq!(world.store.db.devices.len(), devices, "{name}:\n{}", world.trace());
    }
}

#[test]
fn what_a_relay_may_say_stays_harmless() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/relay_control");
    let found: Vec<_> = std::fs::read_dir(corpus).expect("the corpus").collect();
    assert!(found.len() >= 4, "the corpus is committed");
    let of_files = found.into_iter().map(|entry| entry.expect("an entry").path());
    let mut runs: Vec<_> = of_files.map(|path| std::fs::read(path).expect("a run")).collect();
    runs.extend((0..200).map(|seed| bytes_of_seed(seed, 200)));
    let registered: usize = runs.iter().map(|bytes| run_relay(bytes).registrations()).sum();
    assert!(registered >= 30, "{registered}");
}

#[test]
fn h5_lines_that_the_fuzzer_has_found_stay_found() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/command_policy");
    let found: Vec<_> = std::fs::read_dir(corpus).expect("the corpus").collect();
    assert!(found.len() >= 6, "the corpus is committed");
    for entry in found {
        let path = entry.expect("an entry").path();
        let outcome = catch_unwind(|| check_line(&std::fs::read(&path).expect("a line")));
        assert!(outcome.is_ok(), "{}", path.display());
    }
}

#[test]
fn one_seed() {
    let Ok(which) = std::env::var("CLAWD_SEED") else { return };
    let (name, seed) = which.split_once(':').expect("CLAWD_SEED=setup:number");
    let bytes = bytes_of_seed(seed.parse().expect("a number"), STEPS);
    drop(run(&bytes, &setup_named(name)));
}

#[test]
fn the_same_bytes_are_the_same_run() {
    let bytes = bytes_of_seed(1, STEPS);
    let setup = setup_named("everybody");
    assert_eq!(run(&bytes, &setup).trace().effects(), run(&bytes, &setup).trace().effects());
}

/// The first equality: a tick before every input changes nothing.
#[test]
fn a_tick_before_every_input_changes_nothing() {
    for name in ["everybody", "tiny"] {
        for seed in 0..40 {
            let bytes = bytes_of_seed(seed, STEPS);
            let plain = run(&bytes, &setup_named(name));
            let ticked = Setup { has_extra_ticks: true, ..setup_named(name) };
            let ticked = run(&bytes, &ticked);
            let (plain, ticked) = (plain.trace().effects(), ticked.trace().effects());
            assert_eq!(plain, ticked, "CLAWD_SEED={name}:{seed}");
            assert!(plain.0 > 20, "a run of {} effects compares nothing", plain.0);
        }
    }
}

proptest! {
    // What was found is written down as a story; bytes mean something else when the decoder changes.
    #![proptest_config(ProptestConfig {
        cases: 48,
        max_shrink_iters: 200,
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn h5_every_line_is_judged_as_a_second_reading_has_it(bytes in "[\\x00-\\x02]([a-z -]{0,6}|ls|git log|find \\.|[;&|'\"$(){}<>*=!#\\\\`\n~?-]| ){0,12}") {
        check_line(bytes.as_bytes());
    }

    #[test]
    fn every_byte_string_is_a_run(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        drop(run(&bytes, &setup_named("tiny")));
    }
}

/// Canaries: each breaks one rule in the daemon's place, and the run must end with that violation.
mod canary {
    use super::*;

    #[test]
    #[should_panic(expected = "violated: a stranger got an event")]
    fn an_event_for_a_stranger() {
        let mut world = World::default();
        let stranger = world.stranger(LOOPBACK);
        let text = json!({"jsonrpc": "2.0", "method": "session.deleted", "params": {"seq": 1}});
        world.execute(Effect::Send { to: To::One(stranger.conn), text: text.to_string() });
    }

    #[test]
    #[should_panic(expected = "violated: a token in an event")]
    fn a_token_in_an_event() {
        let mut world = World::default();
        let owner = world.owner();
        let params = json!({"seq": 1, "name": world.token()});
        let text = json!({"jsonrpc": "2.0", "method": "device.updated", "params": params});
        world.execute(Effect::Send { to: To::One(owner.conn), text: text.to_string() });
    }

    #[test]
    #[should_panic(expected = "violated: a token before it is durable")]
    fn a_token_that_is_not_stored() {
        let mut world = World::default();
        let owner = world.owner();
        let result = json!({"device_token": "clawd_d_x"});
        let text = json!({"jsonrpc": "2.0", "id": 1, "result": result});
        world.execute(Effect::Send { to: To::One(owner.conn), text: text.to_string() });
    }

    #[test]
    #[should_panic(expected = "violated: answered twice")]
    fn a_second_answer() {
        let mut world = World::default();
        let stranger = world.stranger(LOOPBACK);
        world.ask(stranger, "daemon.ping", json!({}));
        world.settle();
        let text = world.frames(stranger).pop().expect("a pong");
        world.execute(Effect::Send { to: To::One(stranger.conn), text });
    }

    #[test]
    #[should_panic(expected = "which is over")]
    fn a_message_after_the_close() {
        let mut world = World::default();
        let conn = world.stranger(LOOPBACK).conn;
        world.execute(Effect::Close { conn, code: 1008, reason: "bye" });
        world.execute(Effect::Send { to: To::One(conn), text: "{}".to_owned() });
    }

    #[test]
    #[should_panic(expected = "used twice")]
    fn a_name_used_twice() {
        let mut world = World::default();
        let op = OpId(u64::MAX);
        let changes = vec![clawd_protocol::Change::PutName("a".to_owned())];
        for _ in 0..2 {
            world.execute(Effect::Store { op, changes: changes.clone(), sync: Sync::Disk });
        }
    }

    #[test]
    #[should_panic(expected = "violated: queued bytes")]
    fn a_queue_without_end() {
        let mut world = World::new(Limits::tiny());
        let owner = world.owner();
        world.stall(owner.conn);
        for seq in 0..100 {
            let params = json!({"seq": 1_000_000 + seq, "text": "x".repeat(1000)});
            let text = json!({"jsonrpc": "2.0", "method": "x", "params": params});
            world.execute(Effect::Send { to: To::One(owner.conn), text: text.to_string() });
        }
        world.input(Input::Tick);
    }

    #[test]
    #[should_panic(expected = "ran, and its decision is None")]
    fn a_tool_that_nobody_allowed() {
        let mut world = World::default();
        let owner = world.owner();
        world.machine.scripts.push_back(vec![vec![Act::bash("rm -r build")]]);
        let session = world.call(owner, "session.create", json!({"repoPath": "/repo"}));
        let session = session.expect("a session")["id"].clone();
        let params = json!({"sessionId": session, "content": "clean up"});
        world.call(owner, "session.sendMessage", params).expect("a turn");
        world.settle();
        let (proc, child) = world.agents().first_key_value().expect("an agent");
        let (proc, request) = (*proc, child.asks().expect("it asks").to_owned());
        let response = json!({"subtype": "success", "request_id": request,
            "response": {"behavior": "allow"}});
        let line = json!({"type": "control_response", "response": response});
        world.execute(Effect::Feed { proc, bytes: format!("{line}\n").into_bytes() });
        world.input(Input::Tick);
    }

    fn wanting() -> (World, clawd_protocol::LegId) {
        let mut world = World::default();
        let owner = world.owner();
        let params =
            json!({"url": "wss://relay.example.org", "enabled": true, "accessToken": "s3same"});
        world.call(owner, "daemon.setRelay", params).expect("set");
        let leg = world.relay_registers();
        (world, leg)
    }

    #[test]
    #[should_panic(expected = "the access token in")]
    fn an_access_token_that_is_said_again() {
        let (mut world, leg) = wanting();
        world.execute(Effect::Say { leg, text: r#"{"type":"ping","x":"s3same"}"#.to_owned() });
    }

    #[test]
    #[should_panic(expected = "which is not there")]
    fn a_word_to_a_relay_that_is_gone() {
        let (mut world, leg) = wanting();
        world.execute(Effect::HangUp { leg });
        world.execute(Effect::Say { leg, text: r#"{"type":"ping"}"#.to_owned() });
    }

    #[test]
    #[should_panic(expected = "and no relay is wanted")]
    fn a_dial_that_nobody_wants() {
        let (mut world, leg) = wanting();
        let dial = world.legs()[&leg].dial.clone();
        world.store.relay = None;
        world.execute(Effect::Dial { leg: clawd_protocol::LegId(u64::MAX), dial });
    }

    #[test]
    #[should_panic(expected = "violated: control connections")]
    fn a_second_control_connection() {
        let (mut world, leg) = wanting();
        let dial = world.legs()[&leg].dial.clone();
        world.execute(Effect::Dial { leg: clawd_protocol::LegId(u64::MAX), dial });
    }

    #[test]
    #[should_panic(expected = "waits for")]
    fn a_request_without_an_answer() {
        let mut world = World::default();
        let owner = world.owner();
        world.hold_store();
        world.ask(owner, "daemon.setName", json!({"name": "desk"}));
        world.quiet();
    }
}
