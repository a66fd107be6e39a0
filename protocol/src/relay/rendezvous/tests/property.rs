//! Whatever happens in whatever order: a splice is of one client and one leg of the same id, with a ticket that was made
//! for that client, once.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Debug, Clone)]
enum Step {
    Register(usize),
    Connect(usize),
    /// This ticket of all that were made, at this id.
    Accept(usize, usize),
    Guess(usize),
    Close(usize),
    Say(usize),
    Break(usize),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..3_usize).prop_map(Step::Register),
        4 => (0..3_usize).prop_map(Step::Connect),
        5 => (0..40_usize, 0..3_usize).prop_map(|(ticket, id)| Step::Accept(ticket, id)),
        1 => (0..3_usize).prop_map(Step::Guess),
        2 => (0..60_usize).prop_map(Step::Close),
        1 => (0..60_usize).prop_map(Step::Say),
        1 => (0..60_usize).prop_map(Step::Break),
        1 => (0..12_u64).prop_map(Step::Pass),
    ]
}

const KEYS: [&[u8]; 3] = [b"a", b"b", b"c"];

proptest! {
    #[test]
    fn g5_only_a_connect_and_an_accept_of_one_id_are_spliced(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut relay = Relay::new(config());
        // Ticket, id, client and when, as they were made.
        let mut tickets: Vec<(String, usize, ConnId, Duration)> = Vec::new();
        let mut used: Vec<String> = Vec::new();
        let mut in_splice: BTreeMap<ConnId, ConnId> = BTreeMap::new();
        for step in steps {
            let before = relay.log.len();
            match step {
                Step::Register(key) => {
                    relay.register(KEYS[key]);
                }
                Step::Connect(key) => {
                    let (client, effects) = relay.ask(&format!("/v1/connect/{}", Fingerprint::of(KEYS[key])));
                    let made = effects.iter().find_map(|effect| {
                        let Effect::Send { conn, .. } = effect else { return None };
                        if *conn == client { None } else { ticket(&effects, *conn) }
                    });
                    if let Some(ticket) = made {
                        prop_assert!(tickets.iter().all(|(other, ..)| *other != ticket));
                        tickets.push((ticket, key, client, relay.now));
                    }
                }
                Step::Accept(index, key) => {
                    let Some((ticket, of, client, at)) = tickets.get(index).cloned() else { continue };
                    let (leg, effects) = relay.accept(KEYS[key], &ticket);
                    if let Some(pair) = splice(&effects) {
                        prop_assert_eq!(pair, (client, leg));
                        prop_assert_eq!(of, key);
                        prop_assert!(!used.contains(&ticket));
                        prop_assert!(relay.now < at + Duration::from_secs(10));
                        prop_assert!(in_splice.insert(client, leg).is_none());
                        prop_assert!(in_splice.insert(leg, client).is_none());
                        used.push(ticket);
                    } else {
                        prop_assert_eq!(status(&effects, leg), Some(403));
                    }
                }
                Step::Guess(key) => {
                    let guess = BASE64URL_NOPAD.encode(&[u8::try_from(key).unwrap(); 32]);
                    let (leg, effects) = relay.accept(KEYS[key], &guess);
                    prop_assert_eq!(status(&effects, leg), Some(403));
                }
                Step::Close(index) => {
                    let conn = ConnId(u64::try_from(index).unwrap());
                    let effects = relay.tell(Input::Closed { conn });
                    if let Some(other) = in_splice.remove(&conn) && in_splice.contains_key(&other) {
                        let was_closed = relay.log[..before].iter().any(|it| {
                            matches!(it, Effect::Close { conn, .. } if *conn == other)
                        });
                        prop_assert!(is_closed(&effects, other) || was_closed, "the other leg goes too");
                    }
                }
                Step::Say(index) => {
                    let conn = ConnId(u64::try_from(index).unwrap());
                    relay.tell(Input::Text { conn, text: r#"{"type":"ping"}"# });
                }
                Step::Break(index) => {
                    relay.tell(Input::Broke { conn: ConnId(u64::try_from(index).unwrap()) });
                }
                Step::Pass(secs) => {
                    relay.pass(secs);
                }
            }
            let spliced = relay.log[before..].iter().filter(|it| matches!(it, Effect::Splice { .. }));
            prop_assert!(spliced.count() <= 1);
            let machine = &relay.machine;
            let waiting = machine.peers.values().filter(|it| matches!(it.stage, Stage::Waiting { .. }));
            prop_assert_eq!(waiting.count(), machine.invites.len());
            let hosts = machine.peers.values().filter(|it| matches!(it.stage, Stage::Host { .. }));
            prop_assert_eq!(hosts.count(), machine.registered);
            let of_daemons: usize = machine.daemons.values().map(|it| it.streams * 2).sum();
            let legs = machine.peers.values().filter(|it| matches!(it.stage, Stage::Spliced { .. }));
            prop_assert_eq!(legs.count(), of_daemons);
            let invites: usize = machine.daemons.values().map(|it| it.invites).sum();
            prop_assert_eq!(invites, machine.invites.len());
        }
        // When all have gone nothing is left.
        for number in 0..=relay.next {
            relay.tell(Input::Closed { conn: ConnId(number) });
        }
        let machine = &relay.machine;
        prop_assert!(machine.peers.is_empty() && machine.daemons.is_empty() && machine.invites.is_empty());
        prop_assert_eq!((machine.registered, machine.stats.streams, machine.handshakes.len()), (0, 0, 0));
        prop_assert_eq!(machine.poll_timeout(), None);
    }
}
