use super::*;
use crate::contract::id::DeviceId;
use alloc::collections::BTreeSet;
use alloc::string::ToString;
use alloc::vec::Vec;

/// A device, whatever its role.
const ADMIN: Who = Who::Device(DeviceId(*b"AAAAAAAA"));
const DAY: u64 = 86_400_000;
const NOON: u64 = 20_000 * DAY;

fn at(millis: u64) -> Now {
    Now { mono: Instant::from_micros(millis * 1000), unix: Unix::from_millis(NOON + millis) }
}

fn opening(by: Who, unlock: bool) -> Opening {
    Opening { by, role: Role::Full, name: None, unlock, confirm: true }
}

struct Host {
    pairing: Pairing,
    entropy: Entropy,
}

impl Host {
    fn new() -> Self {
        Self::restored(PairingHistory::default())
    }

    fn restored(history: PairingHistory) -> Self {
        let pairing = Pairing::new(history, &Limits::default());
        Self { pairing, entropy: Entropy::new([8; 32]) }
    }

    /// Opens a window as the owner and answers its secrets.
    fn open(&mut self, now: Now) -> (String, String, String) {
        let window = self.pairing.open(now, opening(Who::Owner, false), &mut self.entropy);
        let Window { pairing_id, pin, ticket, .. } = window.unwrap();
        (pairing_id.clone(), pin.expose().to_string(), ticket.expose().to_string())
    }

    fn is_locked_for(&mut self, now: Now, by: Who, unlock: bool) -> bool {
        self.pairing.open(now, opening(by, unlock), &mut self.entropy).is_err()
    }

    fn fail_window(&mut self, now: Now) {
        let (_, pin, _) = self.open(now);
        let wrong = wrong(&pin);
        assert!(matches!(self.pairing.attempt_pin(now, &wrong), Outcome::Refused));
        assert!(matches!(self.pairing.attempt_pin(now, &wrong), Outcome::Refused));
        assert!(matches!(self.pairing.attempt_pin(now, &wrong), Outcome::RefusedAndClosed));
        assert!(self.pairing.window.as_ref().is_none());
    }
}

fn wrong(pin: &str) -> String {
    if pin == "000000" { "000001".to_string() } else { "000000".to_string() }
}

#[test]
fn d1_one_window_at_a_time_and_none_without_being_opened() {
    let mut host = Host::new();
    assert!(matches!(host.pairing.attempt_pin(at(0), "000000"), Outcome::Refused));
    assert!(matches!(host.pairing.attempt_ticket(at(0), "", ""), Outcome::Refused));
    let (first_id, first_pin, first_ticket) = host.open(at(0));
    let (_, second_pin, _) = host.open(at(1));
    assert_ne!(first_pin, second_pin);
    assert!(matches!(
        host.pairing.attempt_ticket(at(2), &first_id, &first_ticket),
        Outcome::Refused
    ));
    assert!(matches!(host.pairing.attempt_pin(at(2), &first_pin), Outcome::Refused));
    assert!(matches!(host.pairing.attempt_pin(at(2), &second_pin), Outcome::Matched(..)));
}

#[test]
fn d1_a_window_closes_by_cancel_and_by_either_clock() {
    let mut host = Host::new();
    let (_, pin, _) = host.open(at(0));
    assert!(host.pairing.cancel());
    assert!(!host.pairing.cancel());
    assert!(matches!(host.pairing.attempt_pin(at(1), &pin), Outcome::Refused));

    let last = at(299_999);
    for (now, is_open) in [
        (last, true),
        (at(300_000), false),
        (Now { mono: last.mono, ..at(300_000) }, false),
        // A wall clock that went back opens nothing again and keeps nothing open.
        (Now { unix: Unix::from_millis(0), ..at(300_000) }, false),
    ] {
        let (_, pin, _) = host.open(at(0));
        assert_eq!(!host.pairing.expire(now), is_open);
        let outcome = host.pairing.attempt_pin(now, &pin);
        assert_eq!(matches!(outcome, Outcome::Matched(..)), is_open, "{now:?}");
    }
    let (_, pin, _) = host.open(at(0));
    let late = host.pairing.attempt_pin(at(300_000), &pin);
    assert!(matches!(late, Outcome::Refused), "also if nobody called expire");
    assert!(host.pairing.history().failed_windows.is_empty());
}

#[test]
fn d2_pins_are_six_digits_and_reach_everywhere() {
    let mut host = Host::new();
    let mut first_digits = BTreeSet::new();
    for _ in 0..1000 {
        let (id, pin, ticket) = host.open(at(0));
        assert!(pin.len() == 6 && pin.bytes().all(|digit| digit.is_ascii_digit()), "{pin}");
        assert_eq!((id.len(), ticket.len()), (12, 43));
        first_digits.insert(pin.as_bytes()[0]);
    }
    assert_eq!(first_digits.len(), 10);
}

#[test]
fn d2_after_three_wrong_pins_the_right_one_is_refused() {
    let mut host = Host::new();
    let (id, pin, ticket) = host.open(at(0));
    for guess in [wrong(&pin), String::new(), "12345678901234567890".to_string()] {
        assert!(!matches!(host.pairing.attempt_pin(at(1), &guess), Outcome::Matched(..)));
    }
    assert!(matches!(host.pairing.attempt_pin(at(2), &pin), Outcome::Refused));
    assert!(matches!(host.pairing.attempt_ticket(at(2), &id, &ticket), Outcome::Refused));
    assert_eq!(host.pairing.history().failed_windows, [at(1).unix]);

    let (_, pin, _) = host.open(at(3));
    host.pairing.attempt_pin(at(3), &wrong(&pin));
    host.pairing.attempt_pin(at(3), &wrong(&pin));
    assert!(matches!(host.pairing.attempt_pin(at(3), &pin), Outcome::Matched(..)));
}

#[test]
fn d2_ten_failed_windows_turn_pairing_off_until_the_owner_turns_it_on() {
    let mut host = Host::new();
    for hour in 0..10 {
        assert!(!host.pairing.is_locked());
        host.fail_window(at(hour * 3_600_000));
    }
    assert!(host.is_locked_for(at(DAY / 2), Who::Owner, false));
    // Neither time nor a clock set back or far ahead nor a restart unlocks.
    let mut host = Host::restored(host.pairing.history().clone());
    let past = Now { unix: Unix::from_millis(0), ..at(DAY / 2) };
    for now in [at(DAY / 2), past, at(2 * DAY), at(400 * DAY)] {
        assert!(host.is_locked_for(now, Who::Owner, false), "{now:?}");
        assert!(host.is_locked_for(now, ADMIN, true), "{now:?}");
    }
    assert!(!host.is_locked_for(at(400 * DAY), Who::Owner, true));
    assert!(host.pairing.history().failed_windows.is_empty());
}

#[test]
fn d2_failed_windows_of_another_day_do_not_count() {
    let mut host = Host::new();
    for number in 0..30 {
        host.fail_window(at(number * DAY / 9));
        assert!(!host.pairing.is_locked() && host.pairing.history().failed_windows.len() <= 9);
    }
}

#[test]
fn d3_of_a_thousand_guesses_three_are_evaluated() {
    let mut host = Host::new();
    let (_, right, _) = host.open(at(0));
    let right: u32 = right.parse().unwrap();
    // The right one is the fourth of them.
    let guesses: Vec<u32> =
        (0..1000).map(|number| (right + 1_000_000 + number - 3) % 1_000_000).collect();
    let mut closed = 0;
    for guess in guesses {
        match host.pairing.attempt_pin(at(0), &format!("{guess:06}")) {
            Outcome::Matched(..) => panic!("{guess} was the fourth guess"),
            Outcome::RefusedAndClosed => closed += 1,
            Outcome::Refused => {}
        }
    }
    assert_eq!(closed, 1);
}

#[test]
fn d4_pin_and_ticket_work_once_and_only_one_of_them() {
    let mut host = Host::new();
    let (id, pin, ticket) = host.open(at(0));
    let Outcome::Matched(window, None) = host.pairing.attempt_ticket(at(1), &id, &ticket) else {
        panic!("the ticket is right")
    };
    assert_eq!((window.role, window.name), (Role::Full, None));
    for _ in 0..5 {
        assert!(matches!(host.pairing.attempt_ticket(at(1), &id, &ticket), Outcome::Refused));
        assert!(matches!(host.pairing.attempt_pin(at(1), &pin), Outcome::Refused));
    }
    assert!(host.pairing.history().failed_windows.is_empty());
}

#[test]
fn d4_wrong_tickets_count_and_those_of_other_windows_do_not() {
    let mut host = Host::new();
    let (old_id, _, old_ticket) = host.open(at(0));
    let (id, _, ticket) = host.open(at(0));
    for _ in 0..10 {
        let stale = host.pairing.attempt_ticket(at(1), &old_id, &old_ticket);
        assert!(matches!(stale, Outcome::Refused));
    }
    assert!(matches!(host.pairing.attempt_ticket(at(1), &id, &old_ticket), Outcome::Refused));
    assert!(matches!(host.pairing.attempt_ticket(at(1), &id, ""), Outcome::Refused));
    let last = host.pairing.attempt_ticket(at(1), &id, "x");
    assert!(matches!(last, Outcome::RefusedAndClosed));
    assert!(matches!(host.pairing.attempt_ticket(at(1), &id, &ticket), Outcome::Refused));
}

#[test]
fn a8_a_window_does_not_print_its_secrets() {
    let mut host = Host::new();
    let (_, pin, ticket) = host.open(at(0));
    let printed = format!("{:?}", host.pairing);
    assert!(!printed.contains(&pin) && !printed.contains(&ticket));
}
