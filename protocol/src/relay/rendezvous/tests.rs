//! The rendezvous, told what happens and watched.

use super::*;
use crate::access::token::{Secret, TokenDigest};
use crate::contract::input::Head;
use crate::relay::control::{FromHost, signed};
use alloc::format;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::time::Duration;

mod limits;
mod property;

const HOST: &str = "relay.example.org";
const KEY: (&str, &[u8]) = ("Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ==");
const UPGRADE: [(&str, &[u8]); 4] = [
    ("Host", b"whatever"),
    ("Connection", b"Upgrade"),
    ("Upgrade", b"websocket"),
    ("Sec-WebSocket-Version", b"13"),
];

/// A relay and its world, in which a signature is the message itself behind the key.
struct Relay {
    machine: Rendezvous,
    effects: Effects,
    now: Duration,
    next: u64,
    log: Vec<Effect>,
}

fn sign(key: &[u8], message: &[u8]) -> Vec<u8> {
    [key, b"|", message].concat()
}

fn config() -> RelayConfig {
    RelayConfig { hosts: vec![HOST.to_owned()], ..RelayConfig::default() }
}

impl Relay {
    fn new(config: RelayConfig) -> Self {
        let machine = Rendezvous::new(config, [3; 32]);
        Self {
            machine,
            effects: Effects::new(),
            now: Duration::from_secs(1),
            next: 0,
            log: Vec::new(),
        }
    }

    /// Tells it, has signatures looked at, and answers what it wanted.
    fn tell(&mut self, input: Input<'_>) -> Vec<Effect> {
        let now = Now { mono: Instant::ZERO + self.now, ..Now::default() };
        self.machine.handle(now, input, &mut self.effects);
        let mut all: Vec<Effect> = self.effects.drain().collect();
        let questions: Vec<_> = all
            .iter()
            .filter_map(|effect| {
                let Effect::Verify { conn, public_key, messages, signature } = effect else {
                    return None;
                };
                let is_right = messages.iter().any(|it| sign(public_key, it) == *signature);
                Some((*conn, is_right))
            })
            .collect();
        for (conn, is_right) in questions {
            self.machine.handle(now, Input::Verified { conn, is_right }, &mut self.effects);
            all.extend(self.effects.drain());
        }
        self.log.extend(all.iter().cloned());
        all
    }

    fn pass(&mut self, secs: u64) -> Vec<Effect> {
        self.now += Duration::from_secs(secs);
        self.tell(Input::Tick)
    }

    fn open_from(&mut self, address: [u8; 4]) -> ConnId {
        self.next += 1;
        let conn = ConnId(self.next);
        self.tell(Input::Opened { conn, address: Ipv4Addr::from(address).into() });
        conn
    }

    fn get(&mut self, conn: ConnId, target: &str) -> Vec<Effect> {
        let headers: Vec<_> = UPGRADE.into_iter().chain([KEY]).collect();
        let head = Head { method: "GET", target, minor: 1, headers: &headers };
        self.tell(Input::Requested { conn, head: Ok(head) })
    }

    fn ask(&mut self, target: &str) -> (ConnId, Vec<Effect>) {
        let conn = self.open_from([10, 0, 0, 1]);
        let effects = self.get(conn, target);
        (conn, effects)
    }

    /// Opens a control connection; it and its nonce.
    fn challenged(&mut self, key: &[u8]) -> (ConnId, String) {
        let (conn, effects) = self.ask(&format!("/v1/host/{}", Fingerprint::of(key)));
        let nonce = said(&effects, conn).into_iter().find_map(|it| {
            if let FromRelay::Challenge { nonce } = it { Some(nonce) } else { None }
        });
        (conn, nonce.expect("a challenge"))
    }

    /// Registers as whoever has this key.
    fn register(&mut self, key: &[u8]) -> ConnId {
        let (conn, nonce) = self.challenged(key);
        let text =
            registration(key, &sign(key, &signed(&nonce, HOST, &Fingerprint::of(key))), None);
        let effects = self.tell(Input::Text { conn, text: &text });
        assert!(is_registered(&effects, conn), "{effects:?}");
        conn
    }

    /// A client that asks for this key's daemon; it and the ticket that the daemon was given.
    fn invited(&mut self, key: &[u8], host: ConnId) -> (ConnId, String) {
        let (conn, effects) = self.ask(&format!("/v1/connect/{}", Fingerprint::of(key)));
        (conn, ticket(&effects, host).expect("an invitation"))
    }

    fn accept(&mut self, key: &[u8], ticket: &str) -> (ConnId, Vec<Effect>) {
        self.ask(&format!("/v1/accept/{}/{ticket}", Fingerprint::of(key)))
    }
}

fn registration(key: &[u8], signature: &[u8], access_token: Option<&str>) -> String {
    let message = FromHost::Register {
        daemon_id: Fingerprint::of(key),
        public_key: BASE64URL_NOPAD.encode(key),
        signature: BASE64URL_NOPAD.encode(signature),
        access_token: access_token.map(|token| Secret::new(token.to_owned())),
    };
    serde_json::to_string(&message).unwrap()
}

fn said(effects: &[Effect], to: ConnId) -> Vec<FromRelay> {
    effects
        .iter()
        .filter_map(|effect| {
            let Effect::Send { conn, text } = effect else { return None };
            (*conn == to).then(|| serde_json::from_str(text).unwrap())
        })
        .collect()
}

fn is_registered(effects: &[Effect], conn: ConnId) -> bool {
    said(effects, conn).iter().any(|it| matches!(it, FromRelay::Registered { .. }))
}

fn ticket(effects: &[Effect], host: ConnId) -> Option<String> {
    said(effects, host)
        .into_iter()
        .find_map(|it| if let FromRelay::Invite { ticket, .. } = it { Some(ticket) } else { None })
}

fn refusal(effects: &[Effect], conn: ConnId) -> Option<Refusal> {
    said(effects, conn)
        .into_iter()
        .find_map(|it| if let FromRelay::Error { code, .. } = it { Some(code) } else { None })
}

fn status(effects: &[Effect], of: ConnId) -> Option<u16> {
    effects.iter().find_map(|effect| {
        if let Effect::Respond { conn, response } = effect
            && *conn == of
        {
            Some(response.status)
        } else {
            None
        }
    })
}

fn is_closed(effects: &[Effect], of: ConnId) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Close { conn, .. } if *conn == of))
}

fn splice(effects: &[Effect]) -> Option<(ConnId, ConnId)> {
    effects.iter().find_map(|effect| {
        if let Effect::Splice { client, daemon } = effect { Some((*client, *daemon)) } else { None }
    })
}

#[test]
fn a_client_and_a_daemon_meet_and_part() {
    let mut relay = Relay::new(config());
    let host = relay.register(b"key");
    let (client, ticket) = relay.invited(b"key", host);
    let (leg, effects) = relay.accept(b"key", &ticket);
    assert_eq!(splice(&effects), Some((client, leg)));
    assert_eq!(said(&effects, client), [FromRelay::Connected]);
    let effects = relay.tell(Input::Closed { conn: client });
    assert_eq!(effects, [Effect::Close { conn: leg, code: NORMAL }]);
    assert_eq!(relay.tell(Input::Closed { conn: leg }), []);
    relay.tell(Input::Closed { conn: host });
    assert!(relay.machine.daemons.is_empty() && relay.machine.peers.is_empty());
    assert_eq!(relay.machine.poll_timeout(), None);
}

#[test]
fn g5_another_id_is_not_registered() {
    let mut relay = Relay::new(config());
    // Its own key and signature, at the path of another's id, which it also claims.
    let (conn, nonce) = relay.challenged(b"victim");
    let victim = Fingerprint::of(b"victim");
    let signature = sign(b"thief", &signed(&nonce, HOST, &victim));
    let message = FromHost::Register {
        daemon_id: victim,
        public_key: BASE64URL_NOPAD.encode(b"thief"),
        signature: BASE64URL_NOPAD.encode(&signature),
        access_token: None,
    };
    let text = serde_json::to_string(&message).unwrap();
    let effects = relay.tell(Input::Text { conn, text: &text });
    assert_eq!(refusal(&effects, conn), Some(Refusal::Refused));
    assert!(is_closed(&effects, conn));
    // Its own id at another's path.
    let (conn, nonce) = relay.challenged(b"victim");
    let own = sign(b"thief", &signed(&nonce, HOST, &Fingerprint::of(b"thief")));
    let effects = relay.tell(Input::Text { conn, text: &registration(b"thief", &own, None) });
    assert_eq!(refusal(&effects, conn), Some(Refusal::Refused));
    assert_eq!(relay.machine.registered, 0);
}

#[test]
fn g5_a_signature_of_another_key_nonce_relay_or_id_is_refused() {
    let mut relay = Relay::new(config());
    let id = Fingerprint::of(b"key");
    let (old, old_nonce) = relay.challenged(b"key");
    let replayed = sign(b"key", &signed(&old_nonce, HOST, &id));
    let text = registration(b"key", &replayed, None);
    assert!(is_registered(&relay.tell(Input::Text { conn: old, text: &text }), old));
    let (conn, nonce) = relay.challenged(b"key");
    assert_ne!(nonce, old_nonce);
    assert_eq!(
        refusal(&relay.tell(Input::Text { conn, text: &text }), conn),
        Some(Refusal::Refused)
    );
    assert_ne!(nonce, "");
    for foreign in ["evil.example.org", "", "whatever", "relay.example.org:443", "localhost"] {
        let (conn, nonce) = relay.challenged(b"key");
        let text = registration(b"key", &sign(b"key", &signed(&nonce, foreign, &id)), None);
        let effects = relay.tell(Input::Text { conn, text: &text });
        assert_eq!(refusal(&effects, conn), Some(Refusal::Refused), "{foreign}");
    }
    let (conn, nonce) = relay.challenged(b"key");
    let text = registration(b"key", &sign(b"other", &signed(&nonce, HOST, &id)), None);
    let effects = relay.tell(Input::Text { conn, text: &text });
    assert_eq!(refusal(&effects, conn), Some(Refusal::Refused));
    // Whoever is registered is not disturbed by any of it.
    assert_eq!(relay.machine.daemons[&id].host, Some(old));
}

#[test]
fn g5_without_a_name_of_its_own_nobody_registers() {
    let mut relay = Relay::new(RelayConfig::default());
    let (conn, nonce) = relay.challenged(b"key");
    let text =
        registration(b"key", &sign(b"key", &signed(&nonce, "", &Fingerprint::of(b"key"))), None);
    let effects = relay.tell(Input::Text { conn, text: &text });
    assert_eq!(refusal(&effects, conn), Some(Refusal::Refused));
}

#[test]
fn g5_a_ticket_is_good_once_in_time_and_for_its_id() {
    let mut relay = Relay::new(config());
    let (host, other) = (relay.register(b"key"), relay.register(b"other"));
    let (client, good) = relay.invited(b"key", host);
    assert_eq!(good.len(), 43);
    let guess = BASE64URL_NOPAD.encode(&[1; 32]);
    let (conn, effects) = relay.accept(b"key", &guess);
    assert_eq!(status(&effects, conn), Some(403), "guessed");
    let (conn, effects) = relay.accept(b"other", &good);
    assert_eq!(status(&effects, conn), Some(403), "of another id");
    let (leg, effects) = relay.accept(b"key", &good);
    assert_eq!(splice(&effects), Some((client, leg)));
    let (conn, effects) = relay.accept(b"key", &good);
    assert_eq!(status(&effects, conn), Some(403), "used");
    assert_eq!(splice(&effects), None);
    let (client, late) = relay.invited(b"other", other);
    assert_eq!(refusal(&relay.pass(9), client), None);
    let effects = relay.pass(1);
    assert_eq!(refusal(&effects, client), Some(Refusal::Offline), "nobody came");
    assert!(is_closed(&effects, client));
    let (conn, effects) = relay.accept(b"other", &late);
    assert_eq!(status(&effects, conn), Some(403), "expired");
    assert!(relay.machine.invites.is_empty());
}

#[test]
fn the_newest_registration_wins_and_the_old_one_is_told() {
    let mut relay = Relay::new(config());
    let old = relay.register(b"key");
    let new = relay.register(b"key");
    assert_eq!(refusal(&relay.log, old), Some(Refusal::Replaced));
    assert!(is_closed(&relay.log, old));
    relay.tell(Input::Closed { conn: old });
    let (_, ticket) = relay.invited(b"key", new);
    assert!(splice(&relay.accept(b"key", &ticket).1).is_some());
    assert_eq!(relay.machine.registered, 1);
}

#[test]
fn a_flapping_host_leaves_nothing_behind() {
    let mut relay = Relay::new(config());
    for round in 0..500 {
        let host = relay.register(b"key");
        let (client, _) = relay.invited(b"key", host);
        let effects = relay.tell(Input::Closed { conn: host });
        assert_eq!(refusal(&effects, client), Some(Refusal::Offline), "at once, round {round}");
        relay.tell(Input::Closed { conn: client });
        relay.now += Duration::from_secs(2);
    }
    let machine = &relay.machine;
    assert!(machine.peers.is_empty() && machine.daemons.is_empty() && machine.invites.is_empty());
    assert_eq!((machine.registered, machine.handshakes.len()), (0, 0));
}

#[test]
fn a_stream_outlives_its_control_connection() {
    let mut relay = Relay::new(config());
    let host = relay.register(b"key");
    let (client, ticket) = relay.invited(b"key", host);
    relay.accept(b"key", &ticket);
    assert!(!is_closed(&relay.tell(Input::Closed { conn: host }), client));
    relay.register(b"key");
    assert!(!is_closed(&relay.log, client));
}

#[test]
fn what_comes_out_of_order_is_refused_or_ignored() {
    let mut relay = Relay::new(config());
    let (early, _) = relay.challenged(b"key");
    let effects = relay.tell(Input::Text { conn: early, text: r#"{"type":"ping"}"# });
    assert_eq!(refusal(&effects, early), Some(Refusal::Refused), "a ping before registering");
    assert_eq!(relay.tell(Input::Text { conn: early, text: "{}" }), [], "it is closed");
    assert_eq!(relay.tell(Input::Verified { conn: early, is_right: true }), []);
    let host = relay.register(b"key");
    assert_eq!(relay.get(host, "/health"), [], "a second head");
    assert_eq!(relay.tell(Input::Verified { conn: host, is_right: false }), [], "not asked");
    let effects = relay.tell(Input::Text { conn: host, text: r#"{"type":"ping"}"# });
    assert_eq!(said(&effects, host), [FromRelay::Pong]);
    let (client, _) = relay.invited(b"key", host);
    let effects = relay.tell(Input::Text { conn: client, text: "hello" });
    assert_eq!(refusal(&effects, client), Some(Refusal::Refused), "text of a client");
    let (client, _) = relay.invited(b"key", host);
    assert!(is_closed(&relay.tell(Input::Broke { conn: client }), client), "bytes too early");
    for conn in [ConnId(9999), early] {
        for input in
            [Input::Closed { conn }, Input::Moved { conn, bytes: 1 }, Input::Broke { conn }]
        {
            assert_eq!(relay.tell(input), []);
        }
    }
    let again = registration(b"key", b"", None);
    let effects = relay.tell(Input::Text { conn: host, text: &again });
    assert_eq!(refusal(&effects, host), Some(Refusal::Refused), "a second registration");
}

#[test]
fn only_those_with_the_access_token_and_on_the_list_register() {
    let access_tokens = vec![TokenDigest::of("one"), TokenDigest::of("two")];
    let allowed = vec![Fingerprint::of(b"key")];
    let mut relay = Relay::new(RelayConfig { access_tokens, allowed, ..config() });
    let mut attempt = |key: &[u8], token: Option<&str>| {
        let (conn, nonce) = relay.challenged(key);
        let signature = sign(key, &signed(&nonce, HOST, &Fingerprint::of(key)));
        let text = registration(key, &signature, token);
        is_registered(&relay.tell(Input::Text { conn, text: &text }), conn)
    };
    assert!(attempt(b"key", Some("one")) && attempt(b"key", Some("two")));
    assert!(
        !attempt(b"key", Some("three")) && !attempt(b"key", None) && !attempt(b"key", Some(""))
    );
    assert!(!attempt(b"stranger", Some("one")));
}

#[test]
fn a_stopping_relay_tells_everybody() {
    let mut relay = Relay::new(config());
    let host = relay.register(b"key");
    let (spliced, ticket) = relay.invited(b"key", host);
    let (leg, _) = relay.accept(b"key", &ticket);
    let (waiting, _) = relay.invited(b"key", host);
    let effects = relay.tell(Input::Shutdown);
    for conn in [host, waiting] {
        assert_eq!(refusal(&effects, conn), Some(Refusal::GoingAway));
    }
    assert!([host, waiting, spliced, leg].iter().all(|conn| is_closed(&effects, *conn)));
    assert_eq!(effects.last(), Some(&Effect::Stop));
    assert_eq!(relay.tell(Input::Shutdown), []);
    let late = ConnId(77_777);
    let opened = Input::Opened { conn: late, address: Ipv4Addr::LOCALHOST.into() };
    assert!(is_closed(&relay.tell(opened), late));
}
