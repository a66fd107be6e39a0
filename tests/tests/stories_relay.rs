//! The link to a relay, told from the relay's end: what is dialled, what is said, and how it goes on when it goes wrong.

use std::time::Duration;

use clawd_protocol::relay::control::signed;
use clawd_protocol::relay::pin;
use clawd_protocol::{DialFault, Fingerprint, Purpose};
use clawd_tests::wish::{RELAY, TICKET, challenge, wanting};
use clawd_tests::{Client, Crash, LegStage, NONCE, World, signature};
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

fn kind(world: &mut World, client: Client) -> String {
    world.relay(client)["error"]["kind"].as_str().unwrap_or_default().to_owned()
}

/// How long the daemon waits before it dials again.
fn wait(world: &World) -> Duration {
    assert_eq!(world.control(), None, "it waits");
    let mono = world.now().mono;
    world.deadline().expect("a deadline").since(mono)
}

mod registration {
    use super::*;

    #[test]
    fn g5_a_registration_is_signed_for_this_relay_this_nonce_and_this_daemon() {
        let (mut world, owner) = wanting();
        let leg = world.control().expect("it dials at once");
        let dial = &world.legs()[&leg].dial;
        assert_eq!(dial.target, format!("/clawd/v1/host/{}", world.daemon_id()));
        assert_eq!((dial.relay.to_string().as_str(), dial.purpose), (RELAY, Purpose::Control));
        assert_eq!(world.relay(owner)["state"], "connecting");
        world.dial_succeeds(leg);
        world.settle();
        assert!(world.said(leg).is_empty(), "nothing is said before the challenge");
        world.relay_says(leg, &challenge());
        world.settle();
        let said = world.said(leg);
        let message = signed(NONCE, "relay.example.org", &world.daemon_id());
        let right = BASE64URL_NOPAD.encode(&signature(&message));
        assert_eq!(said.len(), 1);
        assert_eq!(said[0]["type"], "register");
        assert_eq!(said[0]["signature"], json!(right));
        let key = BASE64URL_NOPAD.decode(said[0]["publicKey"].as_str().expect("a key").as_bytes());
        assert_eq!(Fingerprint::of(&key.expect("base64url")), world.daemon_id());
        assert_eq!(said[0].get("accessToken"), None);
    }

    #[test]
    fn it_registers_is_told_and_can_be_reached() {
        let (mut world, owner) = wanting();
        world.events(owner);
        let leg = world.relay_registers();
        let events = world.events(owner);
        assert_eq!(events.len(), 1, "{events:?}");
        assert_eq!(
            (events[0].name.as_str(), &events[0].params["url"]),
            ("relay.connected", &json!(RELAY))
        );
        let status = world.relay(owner);
        assert_eq!(status["state"], "registered", "{status}");
        assert_eq!((&status["error"], &status["tunnels"]), (&Value::Null, &json!(0)));
        assert!(status["since"].is_string() && status["rttMs"] == 0, "{status}");
        world.relay_invites(leg, TICKET, "198.51.100.7");
        let tunnel = world.tunnels()[0];
        let dial = &world.legs()[&tunnel].dial;
        let from = Some("198.51.100.7".parse().expect("an address"));
        assert_eq!(dial.purpose, Purpose::Tunnel { from });
        assert_eq!(dial.target, format!("/clawd/v1/accept/{}/{TICKET}", world.daemon_id()));
        assert_eq!(dial.timeout, Duration::from_secs(10));
        world.tunnel_opens(tunnel).expect("a connection");
        assert_eq!(world.relay(owner)["tunnels"], 1);
    }

    #[test]
    fn the_access_token_is_said_once_and_shown_to_nobody() {
        let (mut world, owner) = wanting();
        let params = json!({"accessToken": "open sesame"});
        let set = world.wish_relay(owner, params).expect("set");
        assert_eq!(set, json!({"enabled": true, "url": RELAY, "pin": null}));
        let leg = world.relay_registers();
        let said = world.said(leg);
        assert_eq!(said[0]["accessToken"], "open sesame");
        assert_eq!(said[1], json!({"type": "ping"}));
        assert!(!world.relay(owner).to_string().contains("sesame"));
        assert!(world.store.audit.iter().all(|line| !line.contains("sesame")));
    }

    #[test]
    fn a_key_that_does_not_sign_is_no_registration() {
        let (mut world, owner) = wanting();
        let leg = world.control().expect("a leg");
        world.hold_questions();
        world.dial_succeeds(leg);
        world.relay_says(leg, &challenge());
        world.advance(Duration::from_secs(11));
        assert_eq!(kind(&mut world, owner), "late");
        assert_eq!(world.legs()[&leg].stage, LegStage::Gone);
        // The signature comes after all, and nobody is there to hear it.
        world.release_questions();
        assert!(world.said(leg).is_empty());
    }

    #[test]
    fn a_restart_registers_again_from_what_is_stored() {
        let (mut world, _) = wanting();
        world.relay_registers();
        world.crash(Crash::Power);
        let owner = world.owner();
        assert_eq!(world.relay(owner)["state"], "connecting");
        world.relay_registers();
        assert_eq!(world.relay(owner)["state"], "registered");
        world.wish_relay(owner, json!({"enabled": false})).expect("set");
        world.crash(Crash::Power);
        assert_eq!(world.control(), None);
        let owner = world.owner();
        assert_eq!(world.relay(owner)["state"], "off");
    }
}

mod trouble {
    use super::*;

    #[test]
    fn waits_grow_with_jitter_and_begin_anew_only_after_a_registration() {
        let (mut world, owner) = wanting();
        let mut longest = 1;
        for _ in 0..9 {
            let leg = world.control().expect("it never gives up");
            // There, and greeting: that alone is no reason to come back sooner.
            world.dial_succeeds(leg);
            world.relay_says(leg, &challenge());
            world.settle();
            world.relay_hangs_up(leg);
            let waits = wait(&world);
            let range = Duration::from_millis(longest * 500)..=Duration::from_secs(longest);
            assert!(range.contains(&waits), "{waits:?}, not in {range:?}");
            let told = world.relay(owner)["retryInSecs"].as_u64().expect("when");
            assert!(told <= longest && told >= longest / 2, "{told}");
            longest = (longest * 2).min(60);
            world.advance(waits);
        }
        let leg = world.relay_registers();
        world.relay_hangs_up(leg);
        assert!(wait(&world) <= Duration::from_secs(1));
        world.advance(Duration::from_secs(1));
        assert!(world.control().is_some());
    }

    #[test]
    fn the_owner_sees_what_is_wrong_and_what_to_do() {
        let faults = [
            (DialFault::Unresolved, "unresolved", "address"),
            (DialFault::Unreachable("no route".to_owned()), "unreachable", "port"),
            (DialFault::TimedOut, "timed_out", "firewall"),
            (DialFault::TooOld, "tls_too_old", "proxy in front"),
            (DialFault::NotYetValid, "certificate_not_yet_valid", "clock"),
            (DialFault::Expired, "certificate_expired", "clock"),
            (DialFault::Tls("UnknownIssuer".to_owned()), "tls", "SSL_CERT_FILE"),
            (DialFault::WrongPin, "wrong_pin", "in between"),
            (DialFault::Redirected, "redirected", "really"),
            (DialFault::Rejected(404), "rejected", "path"),
            (DialFault::Rejected(403), "rejected", "who may"),
            (DialFault::Rejected(503), "rejected", "too much"),
            (DialFault::NotWebSocket, "not_a_relay", "path"),
            (DialFault::Busy, "no_room", "by itself"),
        ];
        let (mut world, owner) = wanting();
        for (fault, kind, hint) in faults {
            let leg = world.control().expect("a leg");
            world.dial_fails(leg, fault);
            let status = world.relay(owner);
            assert_eq!(status["state"], "waiting");
            assert_eq!(status["error"]["kind"], kind);
            let said = status["error"]["hint"].as_str().expect("a hint");
            assert!(said.contains(hint), "{said}");
            let message = status["error"]["message"].as_str().expect("a message");
            assert!(!message.is_empty() && !message.contains("UnknownIssuer"), "{message}");
            world.advance(Duration::from_secs(61));
        }
        world.relay_registers();
        assert_eq!(world.relay(owner)["error"], Value::Null);
    }

    #[test]
    fn g7_a_wrong_pin_is_dialled_with_the_pin_each_time() {
        let (mut world, owner) = wanting();
        let key = Fingerprint::of(b"the relay's key");
        let text = pin::format(&key);
        let answer = world.wish_relay(owner, json!({ "pin": text })).expect("set");
        assert_eq!(answer["pin"], json!(text));
        for _ in 0..3 {
            let leg = world.control().expect("a leg");
            assert_eq!(world.legs()[&leg].dial.pin, Some(key));
            world.dial_fails(leg, DialFault::WrongPin);
            world.advance(Duration::from_secs(61));
        }
        let leg = world.relay_registers();
        world.relay_invites(leg, TICKET, "");
        assert_eq!(world.legs()[&world.tunnels()[0]].dial.pin, Some(key));
    }

    /// Brings the link to where `stage` messages have been exchanged.
    fn at_stage(stage: usize) -> (World, Client, clawd_protocol::LegId) {
        let (mut world, owner) = wanting();
        let leg = world.control().expect("a leg");
        if stage == 3 {
            world.relay_registers();
            return (world, owner, leg);
        }
        world.dial_succeeds(leg);
        world.hold_questions();
        if stage > 0 {
            world.relay_says(leg, &challenge());
        }
        if stage > 1 {
            world.release_questions();
        }
        (world, owner, leg)
    }

    #[test]
    fn g3_what_no_relay_says_or_not_then_is_the_end_of_the_leg() {
        let challenge = challenge();
        let registered = r#"{"type":"registered","pingSecs":30}"#;
        let invite = format!(r#"{{"type":"invite","ticket":"{TICKET}"}}"#);
        let pong = r#"{"type":"pong"}"#;
        let short = r#"{"type":"challenge","nonce":"AAAA"}"#;
        let split =
            r#"{"type":"challenge","nonce":"AAAAAAAAAAAAAAAAAAAAAAAAAAAA\u0000AAAAAAAAAAAAAA"}"#;
        let path = r#"{"type":"invite","ticket":"../../../../../../../../etc"}"#;
        let lines = "{\"type\":\"invite\",\"ticket\":\"AAAAAAAAAAAAAAAAAAAAAA\\r\\nX: y\"}";
        let long = format!(r#"{{"type":"pong","more":"{}"}}"#, "x".repeat(16 * 1024));
        let always = ["", "{}", "[]", "null", "\u{1b}[2J", r#"{"type":"connected"}"#, &long];
        let turns: [&[&str]; 4] = [
            &[registered, &invite, pong, short, split],
            &[&challenge, registered, &invite, pong],
            &[&challenge, &invite, pong],
            &[&challenge, registered, pong, path, lines],
        ];
        for (stage, wrong) in turns.iter().enumerate() {
            for text in always.iter().chain(*wrong) {
                let (mut world, owner, leg) = at_stage(stage);
                world.relay_says(leg, text);
                world.release_questions();
                assert_eq!(kind(&mut world, owner), "garbled", "{stage}: {text}");
                assert_eq!(world.legs()[&leg].stage, LegStage::Gone, "{stage}: {text}");
                assert!(world.tunnels().is_empty());
                assert!(!world.trace().to_string().contains("no relay: garbled"));
            }
            // A newer relay may say more.
            let (mut world, owner, leg) = at_stage(stage);
            world.relay_says(leg, r#"{"type":"weather","rain":true}"#);
            world.release_questions();
            assert_eq!(kind(&mut world, owner), "", "{stage}");
            assert_eq!(world.legs()[&leg].stage, LegStage::Up, "{stage}");
        }
    }

    #[test]
    fn a_relay_that_says_nothing_is_left() {
        for stage in 0..3 {
            let (mut world, owner, leg) = at_stage(stage);
            world.advance(Duration::from_secs(9));
            assert_eq!(world.legs()[&leg].stage, LegStage::Up);
            world.advance(Duration::from_millis(1001));
            assert_eq!(kind(&mut world, owner), "late", "{stage}");
            assert_eq!(world.legs()[&leg].stage, LegStage::Gone);
        }
    }

    #[test]
    fn a_relay_that_answers_no_ping_is_left() {
        let (mut world, owner, leg) = at_stage(3);
        assert_eq!(world.said(leg).len(), 2);
        world.advance(Duration::from_secs(29));
        assert_eq!(world.said(leg).len(), 2);
        world.advance(Duration::from_secs(1));
        assert_eq!(world.said(leg)[2], json!({"type": "ping"}));
        world.advance(Duration::from_millis(40));
        world.relay_says(leg, r#"{"type":"pong"}"#);
        assert_eq!(world.relay(owner)["rttMs"], 40);
        world.advance(Duration::from_secs(30));
        world.events(owner);
        world.advance(Duration::from_secs(10));
        assert_eq!(kind(&mut world, owner), "silent");
        let event = world.events(owner).pop().expect("an event");
        assert_eq!(
            (event.name.as_str(), &event.params["kind"]),
            ("relay.disconnected", &json!("silent"))
        );
        assert_eq!(
            (&event.params["url"], &event.params["retryInSecs"]),
            (&json!(RELAY), &json!(1))
        );
    }

    #[test]
    fn the_relay_does_not_say_how_busy_we_are() {
        for (wished, every) in [(0, 5), (7, 7), (u64::MAX, 60)] {
            let (mut world, _, leg) = at_stage(2);
            world.relay_says(leg, &json!({"type": "registered", "pingSecs": wished}).to_string());
            world.relay_says(leg, r#"{"type":"pong"}"#);
            world.advance(Duration::from_secs(every) - Duration::from_millis(1));
            assert_eq!(world.said(leg).len(), 2, "{wished}");
            world.advance(Duration::from_millis(1));
            assert_eq!(world.said(leg).len(), 3, "{wished}");
        }
    }

    #[test]
    fn one_whose_place_was_taken_waits_long_before_it_takes_it_back() {
        let (mut world, owner, leg) = at_stage(3);
        let replaced = r#"{"type":"error","code":"replaced","message":"\u001b[2J"}"#;
        world.relay_says(leg, replaced);
        assert_eq!(kind(&mut world, owner), "replaced");
        assert_eq!(wait(&world), Duration::from_secs(60));
        assert!(world.trace().to_string().contains("has taken our place"), "the owner's log");
        world.advance(Duration::from_secs(60));
        assert!(world.control().is_some());
    }

    #[test]
    fn a_relay_that_refuses_says_why_in_a_word_and_we_in_ours() {
        for (code, kind) in [
            ("busy", "busy"),
            ("refused", "refused"),
            ("going_away", "going_away"),
            ("offline", "refused"),
            ("never heard of", "refused"),
        ] {
            let (mut world, owner, leg) = at_stage(2);
            let error = json!({"type": "error", "code": code, "message": "<script>"});
            world.relay_says(leg, &error.to_string());
            let status = world.relay(owner);
            assert_eq!(status["error"]["kind"], kind);
            assert!(!status.to_string().contains("script"), "{status}");
            assert!(wait(&world) <= Duration::from_secs(1));
        }
    }

    #[test]
    fn a_link_that_flaps_does_not_fill_the_log() {
        let (mut world, _) = wanting();
        for _ in 0..20 {
            let leg = world.relay_registers();
            world.relay_hangs_up(leg);
            world.advance(Duration::from_secs(1));
        }
        let lines = world.trace().to_string().matches("Log {").count();
        assert!(lines <= 1 + 5 * 2, "{lines}");
    }
}

mod tunnels {
    use super::*;

    #[test]
    fn e2_devices_come_through_the_relay_all_at_once() {
        let (mut world, owner) = wanting();
        let leg = world.relay_registers();
        let devices: Vec<_> =
            ["a", "b", "c"].iter().map(|name| world.pair(owner, "full", name)).collect();
        let coming: Vec<_> = (0..3)
            .map(|at| {
                world.relay_invites(leg, &format!("{TICKET}{at}"), "198.51.100.7");
                world.tunnels()[at]
            })
            .collect();
        // They are there in another order than they were announced.
        let mut clients = Vec::new();
        for (device, tunnel) in devices.iter().zip(coming).rev() {
            let conn = world.tunnel_opens(tunnel).expect("a connection");
            let client = world.upgrade(conn);
            let answer = world.auth(client, &device.token).expect("in");
            assert_eq!(answer["deviceId"], json!(device.id));
            clients.push(client);
        }
        assert_eq!(world.relay(owner)["tunnels"], 3);
        let list = world.call(owner, "device.list", json!({})).expect("a list");
        assert!(list.as_array().expect("devices").iter().all(|it| it["via"] == "relay"), "{list}");
        // The control connection goes; they stay.
        world.relay_hangs_up(leg);
        world.call(clients[0], "daemon.status", json!({})).expect("still there");
    }

    #[test]
    fn e4_a_revocation_ends_a_device_at_the_relay_too() {
        let (mut world, owner) = wanting();
        let leg = world.relay_registers();
        let phone = world.pair(owner, "full", "phone");
        world.relay_invites(leg, TICKET, "198.51.100.7");
        let conn = world.tunnel_opens(world.tunnels()[0]).expect("a connection");
        let client = world.upgrade(conn);
        world.auth(client, &phone.token).expect("in");
        world.call(owner, "device.revoke", json!({"id": phone.id})).expect("revoked");
        assert_eq!(world.close_code(client), Some(1008));
        assert_eq!(world.relay(owner)["tunnels"], 0);
    }

    #[test]
    fn f2_the_local_token_is_nothing_at_the_relay() {
        let (mut world, _) = wanting();
        let leg = world.relay_registers();
        world.relay_invites(leg, TICKET, "127.0.0.1");
        let conn = world.tunnel_opens(world.tunnels()[0]).expect("a connection");
        let client = world.upgrade(conn);
        let token = world.token();
        assert_eq!(world.auth(client, &token).expect_err("refused").code, -32004);
    }

    #[test]
    fn c6_only_so_many_tunnels_are_made_at_once() {
        let (mut world, owner) = wanting();
        let leg = world.relay_registers();
        for at in 0..40 {
            world.relay_invites(leg, &format!("{TICKET}{at}"), "not an address");
        }
        assert_eq!(world.tunnels().len(), 16);
        for tunnel in world.tunnels() {
            world.dial_fails(tunnel, DialFault::Rejected(404));
        }
        assert_eq!(world.relay(owner)["state"], "registered", "only they were lost");
        world.relay_invites(leg, TICKET, "198.51.100.7");
        assert_eq!(world.tunnels().len(), 1);
        let lines = world.trace().to_string().matches("InviteLost").count();
        assert!((1..=5).contains(&lines), "{lines}");
    }

    #[test]
    fn c6_only_so_many_tunnels_are_begun_in_a_minute() {
        let (mut world, _) = wanting();
        let leg = world.relay_registers();
        let max = world.limits().relay_accepts_per_minute;
        let announce = |world: &mut World, at: u32| {
            world.relay_invites(leg, &format!("{TICKET}{at}"), "198.51.100.7");
            let tunnel = world.tunnels().first().copied();
            if let Some(tunnel) = tunnel {
                world.dial_fails(tunnel, DialFault::Rejected(404));
            }
            tunnel.is_some()
        };
        let begun = (0..max + 20).filter(|at| announce(&mut world, *at)).count();
        assert_eq!(begun, usize::try_from(max).expect("few"));
    }

    #[test]
    fn a_tunnel_is_made_to_the_end_whatever_becomes_of_the_control_connection() {
        let (mut world, owner) = wanting();
        let leg = world.relay_registers();
        world.relay_invites(leg, TICKET, "198.51.100.7");
        let tunnel = world.tunnels()[0];
        world.relay_hangs_up(leg);
        world.advance(Duration::from_secs(1));
        world.relay_registers();
        assert!(world.tunnel_opens(tunnel).is_some());
        assert_eq!(world.relay(owner)["tunnels"], 1);
    }
}
