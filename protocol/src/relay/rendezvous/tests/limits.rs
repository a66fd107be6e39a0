//! Nobody gets more of a relay than a number says.

use super::*;

fn plain(target: &'static str) -> Head<'static> {
    Head { method: "GET", target, minor: 1, headers: &[("Host", b"x")] }
}

#[test]
fn ten_thousand_clients_of_one_daemon_are_bounded() {
    let mut relay = Relay::new(config());
    let host = relay.register(b"key");
    let target = format!("/v1/connect/{}", Fingerprint::of(b"key"));
    let (mut invited, mut busy) = (0, 0);
    for number in 0..10_000_u32 {
        let [_, _, high, low] = number.to_be_bytes();
        let client = relay.open_from([10, 1, high, low]);
        let effects = relay.get(client, &target);
        invited += usize::from(ticket(&effects, host).is_some());
        if refusal(&effects, client) == Some(Refusal::Busy) {
            busy += 1;
            relay.tell(Input::Closed { conn: client });
        }
    }
    let limits = RelayLimits::default();
    assert_eq!((invited, busy), (limits.invites_per_id, 10_000 - limits.invites_per_id));
    assert_eq!(relay.machine.invites.len(), limits.invites_per_id);
    assert!(relay.machine.peers.len() <= limits.invites_per_id + 1);
    // Another daemon is not touched by it.
    let other = relay.register(b"other");
    relay.invited(b"other", other);
}

#[test]
fn streams_of_one_daemon_are_bounded_and_come_back() {
    let limits = RelayLimits { streams_per_id: 2, ..RelayLimits::default() };
    let mut relay = Relay::new(RelayConfig { limits, ..config() });
    let host = relay.register(b"key");
    let mut legs = Vec::new();
    for _ in 0..2 {
        let (_, ticket) = relay.invited(b"key", host);
        legs.push(relay.accept(b"key", &ticket).0);
    }
    let target = format!("/v1/connect/{}", Fingerprint::of(b"key"));
    let (client, effects) = relay.ask(&target);
    assert_eq!(refusal(&effects, client), Some(Refusal::Busy));
    relay.tell(Input::Closed { conn: legs[0] });
    relay.invited(b"key", host);
}

#[test]
fn one_address_has_so_many_connections_invitations_and_tries() {
    let limits = RelayLimits {
        connections_per_address: 4,
        invites_per_address: 1,
        registers_per_span: 2,
        connects_per_span: 2,
        ..RelayLimits::default()
    };
    let mut relay = Relay::new(RelayConfig { limits, ..config() });
    let host = relay.register(b"key");
    relay.invited(b"key", host);
    let connect = format!("/v1/connect/{}", Fingerprint::of(b"key"));
    let (conn, effects) = relay.ask(&connect);
    assert_eq!(refusal(&effects, conn), Some(Refusal::Busy), "one invitation of this address");
    let (conn, effects) = relay.ask(&connect);
    assert_eq!(status(&effects, conn), Some(429), "the third try in a minute");
    relay.tell(Input::Closed { conn });
    let elsewhere = relay.open_from([10, 0, 0, 2]);
    assert!(ticket(&relay.get(elsewhere, &connect), host).is_some(), "another address");
    relay.register(b"other");
    let (conn, effects) = relay.ask(&format!("/v1/host/{}", Fingerprint::of(b"third")));
    assert_eq!(effects.len(), 0, "the fifth connection: {effects:?}");
    assert!(is_closed(&relay.log, conn));
    relay.tell(Input::Closed { conn: host });
    let (conn, effects) = relay.ask(&format!("/v1/host/{}", Fingerprint::of(b"third")));
    assert_eq!(status(&effects, conn), Some(429), "the third registration in a minute");
    relay.tell(Input::Closed { conn });
    relay.pass(60);
    let (conn, effects) = relay.ask(&format!("/v1/host/{}", Fingerprint::of(b"third")));
    assert_eq!(said(&effects, conn).len(), 1, "a minute later");
}

#[test]
fn silent_sockets_keep_nobody_out_and_do_not_stay() {
    let limits = RelayLimits { handshakes_max: 10, ..RelayLimits::default() };
    let mut relay = Relay::new(RelayConfig { limits, ..config() });
    for _ in 0..100 {
        relay.open_from([10, 0, 0, 9]);
        assert!(relay.machine.handshakes.len() <= 10);
    }
    relay.register(b"key");
    let before = relay.log.len();
    relay.pass(10);
    let closed = relay.log[before..].iter().filter(|it| matches!(it, Effect::Close { .. }));
    assert_eq!(closed.count(), 9, "all but the one that went for the daemon");
    let (conn, _) = relay.challenged(b"slow");
    assert!(is_closed(&relay.pass(10), conn), "it was challenged and did not answer");
}

#[test]
fn connections_and_registrations_are_bounded_in_total() {
    let limits = RelayLimits { connections_max: 3, registrations_max: 1, ..RelayLimits::default() };
    let mut relay = Relay::new(RelayConfig { limits, ..config() });
    relay.register(b"key");
    relay.register(b"key");
    let (conn, nonce) = relay.challenged(b"other");
    let signature = sign(b"other", &signed(&nonce, HOST, &Fingerprint::of(b"other")));
    let text = registration(b"other", &signature, None);
    assert_eq!(refusal(&relay.tell(Input::Text { conn, text: &text }), conn), Some(Refusal::Busy));
    let fourth = relay.open_from([10, 0, 0, 2]);
    assert!(is_closed(&relay.log, fourth));
}

#[test]
fn a_host_that_says_nothing_is_given_up() {
    let mut relay = Relay::new(config());
    let host = relay.register(b"key");
    for _ in 0..5 {
        relay.pass(89);
        relay.tell(Input::Text { conn: host, text: r#"{"type":"ping"}"# });
    }
    assert!(!is_closed(&relay.log, host));
    assert!(is_closed(&relay.pass(90), host));
    let (client, effects) = relay.ask(&format!("/v1/connect/{}", Fingerprint::of(b"key")));
    assert_eq!(refusal(&effects, client), Some(Refusal::Offline));
}

#[test]
fn a_stream_on_which_neither_says_anything_is_closed() {
    let mut relay = Relay::new(config());
    let host = relay.register(b"key");
    let (client, ticket) = relay.invited(b"key", host);
    let (leg, _) = relay.accept(b"key", &ticket);
    for (speaker, _) in [(client, 0), (leg, 1), (client, 2), (leg, 3)] {
        relay.pass(14 * 60);
        relay.tell(Input::Moved { conn: speaker, bytes: 0 });
    }
    assert!(!is_closed(&relay.log, client) && !is_closed(&relay.log, leg));
    let effects = relay.pass(15 * 60);
    assert!(is_closed(&effects, client) && is_closed(&effects, leg));
}

#[test]
fn addresses_are_forgotten() {
    let limits = RelayLimits { addresses_max: 50, ..RelayLimits::default() };
    let mut relay = Relay::new(RelayConfig { limits, ..config() });
    for number in 0..1000_u32 {
        let [_, _, high, low] = number.to_be_bytes();
        let conn = relay.open_from([10, 2, high, low]);
        relay.tell(Input::Closed { conn });
        assert!(relay.machine.addresses.len() <= 51);
    }
    relay.now += Duration::from_secs(61);
    relay.open_from([10, 3, 0, 0]);
    assert_eq!(relay.machine.addresses.len(), 1);
}

#[test]
fn behind_a_proxy_clients_count_as_themselves() {
    let limits = RelayLimits { connections_per_address: 1, ..RelayLimits::default() };
    let mut relay = Relay::new(RelayConfig { limits, trusts_proxy: true, ..config() });
    let mut ask = |from: [u8; 4], forwarded_for: Option<&'static [u8]>| {
        let conn = relay.open_from(from);
        let mut headers = vec![("Host", &b"x"[..])];
        headers.extend(forwarded_for.map(|it| ("X-Forwarded-For", it)));
        let target = "/v1/host/x";
        let head = Head { method: "GET", target, minor: 1, headers: &headers };
        let effects = relay.tell(Input::Requested { conn, head: Ok(head) });
        status(&effects, conn)
    };
    assert_eq!(ask([127, 0, 0, 1], Some(b"9.9.9.9")), Some(404));
    assert_eq!(ask([127, 0, 0, 1], Some(b"9.9.9.8")), Some(404));
    // What is not a proxy on this machine is not believed: it would be limited as nobody.
    assert_eq!(ask([5, 5, 5, 5], Some(b"9.9.9.7")), Some(404));
    assert_eq!(ask([5, 5, 5, 5], Some(b"9.9.9.6")), None);
}

#[test]
fn metrics_are_for_this_machine_and_say_nobody() {
    let mut relay = Relay::new(config());
    let host = relay.register(b"key");
    relay.invited(b"key", host);
    let conn = relay.open_from([127, 0, 0, 1]);
    let effects = relay.tell(Input::Requested { conn, head: Ok(plain("/metrics")) });
    let Some(Effect::Respond { response, .. }) = effects.first() else { panic!("{effects:?}") };
    assert!(response.body.contains("clawd_relay_daemons 1\n"), "{}", response.body);
    assert!(response.body.contains("clawd_relay_invitations 1\n"), "{}", response.body);
    assert!(!response.body.contains(&Fingerprint::of(b"key").to_string()));
    assert!(!response.body.contains("10.0.0.1"));
    for from in [[10, 0, 0, 1], [8, 8, 8, 8]] {
        let conn = relay.open_from(from);
        let effects = relay.tell(Input::Requested { conn, head: Ok(plain("/metrics")) });
        assert_eq!(status(&effects, conn), Some(404));
    }
    let conn = relay.open_from([127, 0, 0, 1]);
    let headers: &[(&str, &[u8])] = &[("Host", b"x"), ("X-Forwarded-For", b"127.0.0.1")];
    let head = Head { headers, ..plain("/metrics") };
    let effects = relay.tell(Input::Requested { conn, head: Ok(head) });
    assert_eq!(status(&effects, conn), Some(404), "through a proxy");
    let conn = relay.open_from([8, 8, 8, 8]);
    let effects = relay.tell(Input::Requested { conn, head: Ok(plain("/health")) });
    assert_eq!(status(&effects, conn), Some(200));
}
