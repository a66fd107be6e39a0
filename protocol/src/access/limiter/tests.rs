use super::*;
use alloc::vec::Vec;
use proptest::prelude::*;

fn at(millis: u64) -> Instant {
    Instant::from_micros(millis * 1000)
}

fn key(address: &str) -> Key {
    Key::of(Source::Tcp(address.parse().unwrap()))
}

fn failures() -> Failures {
    Failures::new(&Limits::default())
}

#[test]
fn c1_the_first_failures_are_answered_at_once_and_later_ones_ever_later() {
    let mut failures = failures();
    let peer = key("192.0.2.1");
    for _ in 0..5 {
        assert_eq!(failures.failed(peer, at(0)), When::Now);
        assert!(!failures.is_penalised(peer, at(0)));
    }
    // Each asks again as soon as it was answered: 1, 2, 4, 8 and from then on 10 seconds.
    let mut now = at(0);
    for seconds in [1, 2, 4, 8, 10, 10] {
        let slot = now + Duration::from_secs(seconds);
        assert_eq!(failures.failed(peer, now), When::At(slot));
        assert!(failures.is_penalised(peer, now));
        assert!(!failures.is_penalised(peer, slot));
        now = slot;
    }
}

#[test]
fn c1_a_thousand_failures_over_many_sockets_are_answered_at_most_once_a_second() {
    let mut failures = failures();
    let mut answers = Vec::new();
    let mut dropped = 0;
    // Ten a second, each on a socket of its own, from changing addresses of this machine.
    for attempt in 0..1000_u64 {
        let host = ["127.0.0.1", "127.0.0.2", "127.9.9.9", "::1", "::ffff:127.0.0.1"];
        let now = at(attempt * 100);
        let peer = key(host[usize::try_from(attempt % 5).unwrap()]);
        match failures.failed(peer, now) {
            When::Now => assert!(attempt < 5),
            When::At(slot) => {
                assert!(slot.since(now) <= Duration::from_secs(10));
                answers.push((now, slot));
            }
            When::Drop => dropped += 1,
        }
    }
    assert_eq!(5 + answers.len() + dropped, 1000);
    assert!(answers.len() >= 10, "the peer is answered, if late");
    for pair in answers.windows(2) {
        assert!(pair[1].1.since(pair[0].1) >= Duration::from_secs(1));
    }
    // And few sockets wait for theirs: a second, two, four, and what would come later is dropped.
    for (now, _) in &answers {
        let waiting = answers.iter().filter(|(asked, slot)| asked <= now && slot > now).count();
        assert!(waiting <= 3);
    }
}

#[test]
fn c1_a_source_is_forgotten_when_it_stops_failing() {
    let mut failures = failures();
    let peer = key("192.0.2.1");
    for _ in 0..50 {
        failures.failed(peer, at(0));
    }
    assert_eq!(failures.failed(peer, at(59_999)), When::At(at(69_999)));
    // That one counted: another minute.
    assert_eq!(failures.failed(peer, at(119_998)), When::At(at(129_998)));
    assert_eq!(failures.failed(peer, at(180_000)), When::Now);
    assert_eq!(failures.sources.len(), 1);
}

#[test]
fn c1_the_unix_socket_is_never_delayed_and_nobody_pays_for_another() {
    let mut failures = failures();
    for _ in 0..100 {
        assert_eq!(failures.failed(Key::of(Source::Unix), at(0)), When::Now);
        failures.failed(key("192.0.2.1"), at(0));
    }
    assert!(!failures.is_penalised(Key::Unix, at(0)));
    assert!(failures.is_penalised(key("192.0.2.1"), at(0)));
    assert!(!failures.is_penalised(key("192.0.2.2"), at(0)));
    assert_eq!(failures.failed(key("192.0.2.2"), at(0)), When::Now);
}

#[test]
fn c2_one_peer_has_one_key_however_it_writes_its_address() {
    assert_eq!(key("1.2.3.4"), key("::ffff:1.2.3.4"));
    assert_ne!(key("1.2.3.4"), key("1.2.3.5"));
    assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff::9"));
    assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
    assert_eq!(key("127.0.0.1"), key("127.255.0.7"));
    assert_eq!(key("127.0.0.1"), key("::1"));
    assert_ne!(key("::1"), key("::2"));
}

#[test]
fn c2_countless_sources_do_not_grow_the_table() {
    let limits = Limits { sources_max: 64, ..Limits::default() };
    let mut failures = Failures::new(&limits);
    let loud = key("192.0.2.1");
    for attempt in 0..100_000_u32 {
        let now = at(u64::from(attempt));
        failures.failed(Key::V4(attempt.to_be_bytes()), now);
        if attempt % 32 == 0 {
            failures.failed(loud, now);
        }
        assert!(failures.sources.len() <= 64);
    }
    // Those that went were the ones that had been silent for longest.
    assert!(failures.sources.contains_key(&Key::V4(99_999_u32.to_be_bytes())));
    assert!(!failures.sources.contains_key(&Key::V4(99_000_u32.to_be_bytes())));
    assert!(failures.sources[&loud].failures > 3_000);
    failures.failed(loud, at(10_000_000));
    assert_eq!(failures.sources.len(), 1);
}

#[test]
fn c3_strangers_stay_within_their_limits() {
    let mut chance = Entropy::new([1; 32]);
    let mut strangers = Strangers::new(&Limits::default());
    for number in 0..5000_u64 {
        let peer = Key::V6([0, 0, 0, u16::try_from(number % 7).unwrap()]);
        let victim = strangers.admit(ConnId(number), peer, &mut chance);
        assert!(
            victim.is_none_or(|victim| victim.0 < number && !strangers.keys.contains_key(&victim))
        );
        assert!(strangers.keys.contains_key(&ConnId(number)), "a newcomer always gets in");
        assert!(strangers.keys.len() <= 64);
        let of_source = strangers.keys.values().filter(|key| **key == peer).count();
        assert!(of_source <= 16);
    }
    for number in 0..5000 {
        strangers.leave(ConnId(number));
    }
    assert!(strangers.keys.is_empty());
}

#[test]
fn c3_early_drop_begins_at_its_threshold_and_rises() {
    let mut drops = [0_u32; 65];
    for seed in 0..50 {
        let mut chance = Entropy::new([seed; 32]);
        let mut strangers = Strangers::new(&Limits::default());
        for number in 0..1000_u64 {
            let here = strangers.keys.len();
            let peer = Key::V4(u32::try_from(number).unwrap().to_be_bytes());
            if strangers.admit(ConnId(number), peer, &mut chance).is_some() {
                drops[here] += 1;
            }
        }
    }
    assert_eq!(drops[..32], [0; 32]);
    let (low, high): (u32, u32) = (drops[32..40].iter().sum(), drops[56..].iter().sum());
    assert!(0 < low && low < high, "{low} {high}");
}

#[test]
fn c3_silent_sockets_do_not_keep_the_owner_out() {
    // Somebody opens silent sockets without end; two come before the owner has said its token.
    let mut chance = Entropy::new([2; 32]);
    let mut strangers = Strangers::new(&Limits::default());
    let (mut next, mut thrown_out) = (0_u64, 0);
    for _ in 0..100 {
        let owner = ConnId(next);
        strangers.admit(owner, Key::Loopback, &mut chance);
        next += 1;
        let mut is_out = false;
        for _ in 0..2 {
            is_out |= strangers.admit(ConnId(next), Key::Loopback, &mut chance) == Some(owner);
            next += 1;
        }
        strangers.leave(owner);
        thrown_out += u32::from(is_out);
        for _ in 0..500 {
            strangers.admit(ConnId(next), Key::Loopback, &mut chance);
            next += 1;
        }
    }
    assert!(thrown_out < 25, "{thrown_out} of 100");
    assert_eq!(strangers.admit(ConnId(next), Key::Unix, &mut chance), None);
    assert_eq!(strangers.keys.len(), 16);
}

proptest! {
    #[test]
    fn c1_no_schedule_gets_two_delayed_answers_within_a_second(
        steps in prop::collection::vec(0_u64..5000, 0..200),
    ) {
        let mut failures = failures();
        let (mut now, mut last) = (0, None::<Instant>);
        for step in steps {
            now += step;
            if let When::At(slot) = failures.failed(Key::Loopback, at(now)) {
                prop_assert!(slot >= at(now + 1000) && slot <= at(now + 10_000));
                prop_assert!(last.is_none_or(|last| slot.since(last) >= Duration::from_secs(1)));
                last = Some(slot);
            }
        }
    }
}
