//! What nobody can have too much of.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use clawd_protocol::access::token::mint_local;
use clawd_protocol::{Limits, Source, Stream};
use clawd_tests::client::{Event, names};
use clawd_tests::{Act, Client, LOOPBACK, World};
use serde_json::json;

/// Connects and says a wrong token; what is needed to see whether it was answered.
fn wrong_try(world: &mut World, source: Source) -> Option<Client> {
    let client = world.stranger(source);
    if !world.link(client.conn).is_open() {
        return None;
    }
    let token = mint_local([77; 32]);
    world.ask(client, "daemon.auth", json!({"token": token.expose(), "extra": 1}));
    world.settle();
    Some(client)
}

fn is_answered(world: &World, client: Client) -> bool {
    !world.link(client.conn).inbox.is_empty()
}

#[test]
fn c1_the_first_failures_are_answered_at_once() {
    let mut world = World::default();
    for _ in 0..world.limits().failures_free {
        let client = wrong_try(&mut world, LOOPBACK).expect("connected");
        assert!(is_answered(&world, client));
    }
}

#[test]
fn c1_wrong_tokens_are_answered_at_most_once_a_second() {
    let mut world = World::default();
    let mut clients = Vec::new();
    for _ in 0..1000 {
        clients.extend(wrong_try(&mut world, LOOPBACK));
        world.advance(Duration::from_millis(30));
    }
    let answered = clients.iter().filter(|client| is_answered(&world, **client)).count();
    let free = usize::try_from(world.limits().failures_free).expect("small");
    assert!(answered >= free, "{answered}");
    assert!(answered <= free + 31, "{answered} answers in 30 s");
    let mut tries = 0;
    while world.open_links().len() < 1000 {
        tries += 1;
        assert!(tries <= 10, "the owner is locked out");
        let owner = world.stranger(LOOPBACK);
        let token = world.token();
        let asked = world.ask(owner, "daemon.auth", json!({ "token": token }));
        world.advance(Duration::from_millis(100));
        if world.answer(owner, &asked).is_some_and(|outcome| outcome.is_ok()) {
            return;
        }
    }
}

#[test]
fn c1_the_unix_socket_is_never_delayed() {
    let mut world = World::default();
    for attempt in 0..50 {
        let client = wrong_try(&mut world, Source::Unix).expect("connected");
        assert!(is_answered(&world, client), "try {attempt}");
    }
}

#[test]
fn c1_failures_are_forgotten() {
    let mut world = World::default();
    for _ in 0..20 {
        wrong_try(&mut world, LOOPBACK);
        world.advance(Duration::from_secs(1));
    }
    world.advance(Duration::from_secs(3600));
    let client = wrong_try(&mut world, LOOPBACK).expect("connected");
    assert!(is_answered(&world, client));
}

#[test]
fn c2_one_source_is_one_bucket_however_it_is_written() {
    let mapped = Source::Tcp(IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped()));
    let mut world = World::default();
    for _ in 0..world.limits().failures_free {
        wrong_try(&mut world, LOOPBACK);
    }
    let client = wrong_try(&mut world, mapped).expect("connected");
    assert!(!is_answered(&world, client), "the mapped address is the same source");
}

#[test]
fn c2_a_million_sources_cannot_fill_the_memory() {
    // The table of sources is inside; from here one sees that the daemon still works, and what it forgot it forgot
    // in favour of nobody: the loopback's own penalty must survive a flood of other failures within the table.
    let mut world = World::new(Limits::tiny());
    for n in 0..2000_u16 {
        let [high, low] = n.to_be_bytes();
        let source = Source::Tcp(IpAddr::V6(Ipv6Addr::new(0xfd00, n, 0, 0, 0, 0, 0, 1)));
        let _ = (high, low);
        wrong_try(&mut world, source);
        if n % 50 == 0 {
            world.advance(Duration::from_secs(11));
        }
    }
    world.owner_on(Source::Unix);
}

#[test]
fn c3_silent_sockets_do_not_keep_the_owner_out() {
    let mut world = World::default();
    for n in 0..500_u16 {
        let [high, low] = n.to_be_bytes();
        let source = if n % 2 == 0 {
            LOOPBACK
        } else {
            Source::Tcp(IpAddr::V4(Ipv4Addr::new(10, 0, high, low)))
        };
        world.stranger(source);
    }
    world.owner_on(Source::Unix);
    let is_in = (0..10).any(|_| {
        let owner = world.stranger(LOOPBACK);
        if !world.link(owner.conn).is_open() {
            return false;
        }
        let token = world.token();
        let asked = world.ask(owner, "daemon.auth", json!({ "token": token }));
        world.advance(Duration::from_millis(90));
        world.answer(owner, &asked).is_some_and(|outcome| outcome.is_ok())
    });
    assert!(is_in, "ten tries within a second");
}

/// Two owners, of whom one does not read while the other is told 200 events.
fn one_stalls(world: &mut World) -> (Client, Client) {
    let owner = world.owner();
    let (stalled, healthy) = (world.owner(), world.owner());
    let session = world.call(owner, "session.create", json!({"repoPath": "/repo"}));
    let session = session.expect("a session")["id"].clone();
    world.events(healthy);
    world.events(stalled);
    world.stall(stalled.conn);
    for n in 0..200 {
        let params = json!({"sessionId": session, "title": format!("{n:0>150}")});
        world.call(owner, "session.rename", params).expect("renamed");
        let bytes = world.link(stalled.conn).queued_bytes();
        assert!(bytes <= world.limits().queue_bytes_events, "{bytes} bytes are queued");
    }
    (stalled, healthy)
}

fn seqs(events: &[Event], name: &str) -> Vec<u64> {
    let named = events.iter().filter(|event| event.name == name);
    named.filter_map(|event| event.params["seq"].as_u64()).collect()
}

#[test]
fn c5_a_reader_that_stalls_is_told_of_the_gap_and_others_lose_nothing() {
    let mut world = World::new(Limits::tiny());
    let (stalled, healthy) = one_stalls(&mut world);
    let updates = world.events(healthy);
    let told = seqs(&updates, "session.updated");
    assert_eq!(told.len(), 200, "{:?}", names(&updates));
    assert!(told.is_sorted_by(|a, b| a < b));
    assert_eq!(world.close_code(stalled), None);
    world.unstall(stalled.conn);
    world.settle();
    let late = world.events(stalled);
    let got = seqs(&late, "session.updated");
    assert_eq!(got, told[..got.len()], "what it was sent before is whole");
    let gap = &late.last().expect("events").params;
    assert_eq!(late.last().map(|event| &*event.name), Some("events.gap"));
    assert_eq!(
        (gap["from"].as_u64(), gap["to"].as_u64()),
        (got.last().copied(), told.last().copied())
    );
}

#[test]
fn c5_a_reader_that_stalls_for_long_is_closed() {
    let mut world = World::new(Limits::tiny());
    let (stalled, healthy) = one_stalls(&mut world);
    let timeout = world.limits().lag_timeout;
    world.advance(timeout - Duration::from_secs(1));
    assert_eq!(world.close_code(stalled), None);
    world.advance(Duration::from_secs(2));
    assert_eq!(world.close_code(stalled), Some(1013));
    assert_eq!(world.close_code(healthy), None);
}

#[test]
fn c5_a_reader_that_reads_again_in_time_is_not_closed_later() {
    let mut world = World::new(Limits::tiny());
    let (stalled, _) = one_stalls(&mut world);
    world.unstall(stalled.conn);
    world.advance(Duration::from_secs(120));
    assert_eq!(world.close_code(stalled), None);
}

#[test]
fn c6_too_many_requests_at_once_are_refused_or_wait() {
    let mut world = World::default();
    let owner = world.owner();
    world.hold_store();
    let max = world.limits().in_flight_max;
    let asked: Vec<_> = (0..max + 20)
        .map(|n| world.ask(owner, "daemon.setName", json!({"name": format!("n{n}")})))
        .collect();
    world.release_store();
    world.advance(Duration::from_secs(60));
    let mut served = 0;
    for asked in &asked {
        match world.answer(owner, asked).expect("each has its answer") {
            Ok(_) => served += 1,
            Err(error) => assert_eq!((error.code, &*error.kind), (-32029, "rate_limited")),
        }
    }
    assert!(served >= max, "{served}");
}

#[test]
fn c6_a_call_that_is_stuck_does_not_hold_up_others() {
    let mut world = World::default();
    let owner = world.owner();
    world.hold_questions();
    let stuck = world.ask(owner, "session.create", json!({"repoPath": "/repo"}));
    world.call(owner, "daemon.ping", json!({})).expect("a pong");
    world.call(owner, "session.list", json!({})).expect("a list");
    assert_eq!(world.answer(owner, &stuck), None);
    world.release_questions();
    world.answer(owner, &stuck).expect("an answer").expect("a session");
}

#[test]
fn c6_costly_calls_are_limited() {
    let mut world = World::default();
    let owner = world.owner();
    let burst = world.limits().costly_burst;
    let refused = (0..burst + 40)
        .filter_map(|_| world.call(owner, "daemon.pairPin", json!({})).err())
        .collect::<Vec<_>>();
    assert!(!refused.is_empty());
    for error in refused {
        assert_eq!((error.code, &*error.kind), (-32029, "rate_limited"));
        assert!(error.data["retryAfterMs"].is_u64(), "{error:?}");
    }
    world.call(owner, "daemon.ping", json!({})).expect("cheap calls go on");
    world.advance(Duration::from_secs(1));
    world.call(owner, "daemon.pairPin", json!({})).expect("one more after a while");
}

#[test]
fn c6_sessions_have_a_limit() {
    let mut world = World::new(Limits::tiny());
    let owner = world.owner();
    for _ in 0..world.limits().sessions_max {
        world.call(owner, "session.create", json!({"repoPath": "/repo"})).expect("a session");
    }
    let refused = world.call(owner, "session.create", json!({"repoPath": "/repo"}));
    assert_eq!(refused.expect_err("one too many").code, -32007);
}

#[test]
fn c5_answers_that_nobody_reads_are_bounded_too() {
    let mut world = World::new(Limits::tiny());
    let reader = world.owner();
    for _ in 0..world.limits().sessions_max {
        world.call(reader, "session.create", json!({"repoPath": "/repo"})).expect("a session");
    }
    world.stall(reader.conn);
    // The invariant on queued bytes looks on.
    for _ in 0..500 {
        world.ask(reader, "session.list", json!({}));
        world.settle();
    }
    let other = world.owner();
    world.call(other, "daemon.ping", json!({})).expect("a pong");
}

#[test]
fn c3_one_device_does_not_keep_the_owner_out() {
    let mut world = World::new(Limits::tiny());
    let owner = world.owner();
    let device = world.pair(owner, "read", "phone");
    world.hang_up(owner.conn);
    for _ in 0..2 * world.limits().connections_max {
        let client = world.stranger(LOOPBACK);
        if world.link(client.conn).is_open() {
            world.ask(client, "daemon.auth", json!({"token": device.token}));
            world.settle();
        }
    }
    world.owner_on(Source::Unix);
}

#[test]
fn c5_a_viewer_that_stalls_misses_streaming_and_nothing_else() {
    let mut world = World::new(Limits::tiny());
    let word = || {
        [
            Act::say("fifty bytes of text that come again and again and"),
            Act::Wait(Duration::from_millis(100)),
        ]
    };
    let script = (0..60).flat_map(|_| word()).collect();
    world.machine.scripts.push_back(vec![script]);
    let (owner, stalled) = (world.owner(), world.owner());
    world.stall(stalled.conn);
    let params = json!({"repoPath": "/repo", "initialMessage": "talk"});
    world.call(owner, "session.create", params).expect("a session");
    world.advance(Duration::from_secs(10));
    assert_eq!(world.close_code(stalled), None, "streaming alone ends nobody");
    world.unstall(stalled.conn);
    world.settle();
    let events = world.events(stalled);
    let last = events.iter().rev().find(|event| event.name == "session.messageUpdated");
    assert_eq!(last.expect("the whole answer").params["status"], "done");
}

#[test]
fn c6_sessions_that_are_made_at_once_keep_to_their_limit() {
    let mut world = World::new(Limits { sessions_max: 2, ..Limits::default() });
    let owner = world.owner();
    world.hold_questions();
    let asked: Vec<_> =
        (0..4).map(|_| world.ask(owner, "session.create", json!({"repoPath": "/repo"}))).collect();
    world.release_questions();
    let made = asked.iter().filter_map(|asked| world.answer(owner, asked)?.ok()).count();
    assert_eq!(made, 2);
    assert_eq!(world.store.db.sessions.len(), 2);
}

#[test]
fn c6_only_so_many_wait_for_claude() {
    let mut world = World::default();
    world.hold_questions();
    let asked: Vec<_> = (0..5)
        .flat_map(|_| {
            let client = world.owner();
            let ask = |_| (client, world.ask(client, "daemon.providers", json!({})));
            (0..64).map(ask).collect::<Vec<_>>()
        })
        .collect();
    world.settle();
    let refused = asked
        .iter()
        .filter_map(|(client, asked)| world.answer(*client, asked)?.err())
        .filter(|error| error.kind == "rate_limited")
        .count();
    assert_eq!(refused, 320 - 256);
    world.release_questions();
}

#[test]
fn c6_an_agent_that_asks_and_does_not_read_the_answers_is_ended() {
    let request =
        json!({"type": "control_request", "request_id": "q", "request": {"subtype": "x"}});
    let flood = format!("{request}\n").repeat(2_000).into_bytes();
    let mut world = World::new(Limits::tiny());
    world.machine.scripts.push_back(vec![vec![Act::Write(Stream::Out, flood), Act::Hang]]);
    let owner = world.owner();
    let params = json!({"repoPath": "/repo", "initialMessage": "ask"});
    world.call(owner, "session.create", params).expect("a session");
    world.settle();
    assert!(world.children().all(|child| child.is_killed));
}
