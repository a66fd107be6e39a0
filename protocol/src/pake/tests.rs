use super::*;
use proptest::prelude::*;

fn phone() -> Fingerprint {
    Fingerprint::of(b"phone")
}

fn desk() -> Fingerprint {
    Fingerprint::of(b"desk")
}

/// What each side saw and was told.
struct Side {
    pin: &'static str,
    device: Option<Fingerprint>,
    daemon: Fingerprint,
}

fn side(pin: &'static str) -> Side {
    Side { pin, device: Some(phone()), daemon: desk() }
}

/// Whether the daemon took the device's proof, and the device the daemon's.
fn run(device: &Side, host: &Side) -> (bool, bool) {
    let (pending, message) = Device::start(device.pin, device.device, device.daemon, [1; 32]);
    let message = Message::of_device(&message).unwrap();
    let answer = Host::answer(host.pin, host.device, host.daemon, &message, [2; 32]);
    let (host, reply) = answer.unwrap();
    let (confirming, confirm) = pending.finish(&reply).unwrap();
    let answer = host.check(&confirm);
    (answer.is_some(), answer.is_some_and(|confirm| confirming.check(&confirm)))
}

#[test]
fn d6_both_agree_with_the_same_pin_and_the_same_keys_only() {
    let right = || side("482913");
    assert_eq!(run(&right(), &right()), (true, true));
    assert_eq!(run(&side("482914"), &right()), (false, false), "another PIN");
    let evil = Fingerprint::of(b"in between");
    let daemon = Side { daemon: evil, ..right() };
    assert_eq!(run(&daemon, &right()), (false, false), "somebody between, seen by the device");
    for device in [None, Some(evil)] {
        let host = Side { device, ..right() };
        assert_eq!(run(&right(), &host), (false, false), "and by the daemon");
    }
    let none = || Side { device: None, ..right() };
    assert_eq!(run(&none(), &none()), (true, true), "a device without a key");
}

fn started() -> (Device, String) {
    Device::start("482913", None, desk(), [1; 32])
}

fn answered(message: &str, entropy: [u8; 32]) -> (Host, String) {
    let message = Message::of_device(message).unwrap();
    Host::answer("482913", None, desk(), &message, entropy).unwrap()
}

fn with_side(message: &str, side: u8) -> String {
    let mut bytes = BASE64URL_NOPAD.decode(message.as_bytes()).unwrap();
    bytes[0] = side;
    BASE64URL_NOPAD.encode(&bytes)
}

#[test]
fn d6_a_reflected_message_is_refused() {
    let (device, message) = started();
    assert!(Message::of_device(&with_side(&message, b'B')).is_err(), "of the wrong side");
    assert!(device.finish(&message).is_err());
    let (device, message) = started();
    assert!(device.finish(&with_side(&message, b'B')).is_err(), "our own, as if it were theirs");

    // The daemon meets its own message if it draws the same number twice.
    let (_, reply) = answered(&started().1, [2; 32]);
    let own = Message::of_device(&with_side(&reply, b'A')).unwrap();
    assert!(Host::answer("482913", None, desk(), &own, [2; 32]).is_err());
}

#[test]
fn d6_a_reflected_proof_is_refused() {
    let (device, message) = started();
    let (host, reply) = answered(&message, [2; 32]);
    let (device, confirm) = device.finish(&reply).unwrap();
    assert!(!device.check(&confirm), "its own");
    let back = host.check(&confirm).unwrap();
    assert_ne!(back, confirm);
    let (host, _) = answered(&message, [2; 32]);
    assert!(host.check(&back).is_none());
}

#[test]
fn d6_a_replayed_transcript_fails() {
    let (device, message) = started();
    let (host, reply) = answered(&message, [2; 32]);
    let (_, confirm) = device.finish(&reply).unwrap();
    assert!(host.check(&confirm).is_some());
    let (host, other) = answered(&message, [3; 32]);
    assert_ne!(reply, other);
    assert!(host.check(&confirm).is_none());
}

/// Encodings of all points of small order, and of some that are no points or have another encoding.
fn unfit() -> Vec<[u8; 32]> {
    let hex = |text: &str| {
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap();
        <[u8; 32]>::try_from(bytes).unwrap()
    };
    let mut unfit = Vec::new();
    for y in [
        "0100000000000000000000000000000000000000000000000000000000000000", // neutral
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // order 2
        "0000000000000000000000000000000000000000000000000000000000000000", // order 4
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05", // order 8
        "c717 6a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a", // order 8
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // 0 again
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // 1 again
        "0200000000000000000000000000000000000000000000000000000000000000", // no point
    ] {
        let plus = hex(&y.replace(' ', ""));
        let mut minus = plus;
        minus[31] |= 0x80;
        unfit.extend([plus, minus]);
    }
    unfit
}

#[test]
fn d6_points_that_give_the_key_away_are_refused() {
    for point in unfit() {
        for side in [DEVICE_SIDE, DAEMON_SIDE] {
            let mut bytes = alloc::vec![side];
            bytes.extend(point);
            let text = BASE64URL_NOPAD.encode(&bytes);
            assert!(Message::read(&text, side).is_err(), "{point:02x?}");
            assert!(started().0.finish(&text).is_err(), "{point:02x?}");
        }
    }
}

#[test]
fn d6_a_point_beside_the_subgroup_is_refused() {
    let (_, message) = started();
    let bytes = BASE64URL_NOPAD.decode(message.as_bytes()).unwrap();
    let honest = Ed25519Group::bytes_to_element(&bytes[1..]).unwrap();
    let mut refused = 0;
    for small in unfit() {
        let Some(small) = Ed25519Group::bytes_to_element(&small) else { continue };
        let beside = Ed25519Group::element_to_bytes(&(honest + small));
        if beside != bytes[1..] {
            assert!(!is_fit(&beside));
            refused += 1;
        }
    }
    assert!(refused >= 7, "{refused}");
}

/// All of them: a height below 19 may be written with the field's order, 2^255 - 19, added to it. It happens that no such
/// point is in the large subgroup, so that these are refused twice.
#[test]
fn d6_a_point_in_a_second_encoding_is_refused() {
    let mut points = 0;
    for written in 237..=255 {
        for sign in [0, 0x80] {
            let mut bytes = [255; 32];
            bytes[0] = written;
            bytes[31] = 0x7f | sign;
            points += u32::from(Ed25519Group::bytes_to_element(&bytes).is_some());
            assert!(!is_fit(&bytes), "{written}");
        }
    }
    assert!(points > 10, "they are read as points: {points}");
}

#[test]
fn a8_a_run_does_not_print_its_secrets() {
    let (device, message) = started();
    let (host, reply) = answered(&message, [2; 32]);
    let printed = alloc::format!("{device:?} {host:?} {:?}", started().0.finish(&reply).unwrap().0);
    assert_eq!(printed, "Device(…) Host(…) Confirming(…)");
}

#[test]
fn d5_the_code_differs_with_somebody_in_between() {
    let evil = Fingerprint::of(b"in between");
    let code = comparison_code(&desk(), Some(&phone()), "an id");
    assert_eq!(code.len(), 9);
    assert_eq!(code, comparison_code(&desk(), Some(&phone()), "an id"));
    for other in [
        comparison_code(&evil, Some(&phone()), "an id"),
        comparison_code(&desk(), Some(&evil), "an id"),
        comparison_code(&desk(), None, "an id"),
        comparison_code(&desk(), Some(&phone()), "another"),
    ] {
        assert_ne!(code, other);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn no_text_makes_it_panic(text in ".{0,64}", bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        for text in [text, BASE64URL_NOPAD.encode(&bytes)] {
            let _ = Message::of_device(&text);
            let _ = started().0.finish(&text);
            let (host, reply) = answered(&started().1, [2; 32]);
            prop_assert_eq!(host.check(&text), None);
            prop_assert!(!started().0.finish(&reply).unwrap().0.check(&text));
        }
    }
}
