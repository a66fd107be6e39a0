//! What the owner wants of a relay and of the daemon's identity: said, written down, and only then done.

use std::time::Duration;

use clawd_protocol::relay::pin;
use clawd_protocol::{DialFault, Fingerprint, StoreFault};
use clawd_tests::wish::{RELAY, TICKET, challenge, wanting};
use clawd_tests::{Client, Crash, LegStage, World};
use serde_json::{Value, json};

mod wishes {
    use super::*;

    #[test]
    fn nothing_is_dialled_before_the_wish_is_on_disk() {
        let mut world = World::default();
        let owner = world.owner();
        assert_eq!(world.relay(owner), Value::Null);
        assert_eq!(world.control(), None);
        world.hold_store();
        let asked = world.ask(owner, "daemon.setRelay", json!({"url": RELAY, "enabled": true}));
        let twice = world.wish_relay(owner, json!({"enabled": false})).expect_err("one at a time");
        assert_eq!(twice.kind, "rate_limited");
        world.settle();
        assert_eq!(world.control(), None);
        assert_eq!(world.relay(owner), Value::Null);
        world.release_store();
        let answer = world.answer(owner, &asked).expect("an answer").expect("set");
        assert_eq!(answer, json!({"enabled": true, "url": RELAY, "pin": null}));
        assert!(world.control().is_some());
        let line = world.store.audit.iter().find(|line| line.contains("relay_changed"));
        assert!(
            line.is_some_and(|line| line.contains("owner") && line.contains(RELAY)),
            "{line:?}"
        );
    }

    #[test]
    fn what_cannot_be_stored_is_not_done() {
        let (mut world, owner) = wanting();
        let leg = world.relay_registers();
        world.fail_store(Some(StoreFault::Full));
        let refused = world.wish_relay(owner, json!({"enabled": false})).expect_err("not stored");
        assert_eq!(refused.kind, "storage_failed");
        assert_eq!(world.legs()[&leg].stage, LegStage::Up);
        assert_eq!(world.relay(owner)["enabled"], true);
        world.fail_store(None);
        world.wish_relay(owner, json!({"enabled": false})).expect("set");
        assert_eq!(world.legs()[&leg].stage, LegStage::Gone);
    }

    #[test]
    fn b8_only_the_owner_says_which_relay() {
        let (mut world, owner) = wanting();
        let admin = world.pair(owner, "admin", "laptop");
        for (method, params) in
            [("daemon.setRelay", json!({"enabled": false})), ("daemon.resetIdentity", json!({}))]
        {
            let refused = world.call(admin.client, method, params).expect_err(method);
            assert_eq!((refused.kind.as_str(), &refused.data["needs"]), ("role", &json!("owner")));
        }
        assert_eq!(world.relay(admin.client)["enabled"], true, "all may see it");
    }

    #[test]
    fn a_wish_that_is_none_names_what_is_wrong() {
        let mut world = World::default();
        let owner = world.owner();
        let unset = world.wish_relay(owner, json!({"enabled": false})).expect("as it was");
        assert_eq!(unset, json!({"enabled": false, "url": null, "pin": null}));
        for (params, field, words) in [
            (json!({"enabled": true}), "url", "missing"),
            (json!({"accessToken": "x"}), "url", "missing"),
            (json!({"url": "ws://relay.example.org"}), "url", "this machine only"),
            (json!({"url": "https://relay.example.org"}), "url", "begins with wss://"),
            (json!({"url": "wss://u:p@relay.example.org"}), "url", "wss://HOST"),
            (json!({"url": 7}), "url", "string"),
            (json!({"url": RELAY, "enabled": "yes"}), "enabled", "true or false"),
            (json!({"url": RELAY, "pin": "sha256/AAAA"}), "pin", "44 characters"),
            (json!({"url": RELAY, "pin": [1]}), "pin", "string"),
            (json!({"url": RELAY, "accessToken": ""}), "accessToken", "1024"),
            (json!({"url": RELAY, "accessToken": "a\nb"}), "accessToken", "control"),
            (json!({"url": RELAY, "access_token": "x".repeat(2000)}), "accessToken", "1024"),
        ] {
            let refused = world.wish_relay(owner, params.clone()).expect_err("refused");
            assert_eq!(refused.code, -32602, "{params}");
            assert_eq!(refused.data["field"], field, "{params}");
            assert!(refused.message.contains(words), "{params}: {}", refused.message);
        }
        assert_eq!(world.store.relay, None);
    }

    #[test]
    fn another_relay_is_shown_nothing_that_was_meant_for_the_one_before() {
        let (mut world, owner) = wanting();
        let key = pin::format(&Fingerprint::of(b"k"));
        world.wish_relay(owner, json!({"pin": key, "accessToken": "open sesame"})).expect("set");
        world.relay_registers();
        let other = json!({"url": "wss://other.example.org"});
        let answer = world.wish_relay(owner, other).expect("set");
        assert_eq!(answer, json!({"enabled": true, "url": "wss://other.example.org", "pin": null}));
        let leg = world.relay_registers();
        assert_eq!(world.said(leg)[0].get("accessToken"), None);
        // The same one once more keeps both; `null` takes them away.
        world.wish_relay(owner, json!({"pin": key, "accessToken": "a"})).expect("set");
        let same = json!({"url": "wss://OTHER.example.org:443/"});
        assert_eq!(world.wish_relay(owner, same).expect("set")["pin"], json!(key));
        let none = json!({"pin": null, "accessToken": null});
        assert_eq!(world.wish_relay(owner, none).expect("set")["pin"], Value::Null);
        let leg = world.relay_registers();
        assert_eq!(world.said(leg)[0].get("accessToken"), None);
    }

    #[test]
    fn said_once_more_it_is_tried_at_once_and_a_link_that_stands_is_left() {
        let (mut world, owner) = wanting();
        let leg = world.control().expect("a leg");
        world.dial_fails(leg, DialFault::TimedOut);
        assert_eq!(world.control(), None);
        world.wish_relay(owner, json!({"enabled": true})).expect("set");
        let leg = world.relay_registers();
        world.wish_relay(owner, json!({"enabled": true})).expect("set");
        assert_eq!(world.legs()[&leg].stage, LegStage::Up);
    }

    #[test]
    fn switched_off_it_is_off_wherever_it_was() {
        for stage in 0..6 {
            let (mut world, owner) = wanting();
            let leg = world.control().expect("a leg");
            if stage > 0 {
                world.dial_succeeds(leg);
            }
            if stage > 1 {
                world.hold_questions();
                world.relay_says(leg, &challenge());
            }
            if stage > 2 {
                world.release_questions();
            }
            let mut through = None;
            if stage > 3 {
                world.relay_says(leg, r#"{"type":"registered","pingSecs":30}"#);
                world.relay_invites(leg, TICKET, "198.51.100.7");
                world.relay_invites(leg, &format!("{TICKET}x"), "198.51.100.7");
                through = world.tunnel_opens(world.tunnels()[0]);
                assert!(world.link(through.expect("a connection")).is_open());
            }
            if stage > 4 {
                world.relay_hangs_up(leg);
            }
            world.events(owner);
            let answer = world.wish_relay(owner, json!({"enabled": false})).expect("set");
            assert_eq!(answer["enabled"], false);
            world.release_questions();
            assert_eq!(world.legs()[&leg].stage, LegStage::Gone, "{stage}");
            assert!(world.tunnels().is_empty(), "{stage}");
            if let Some(conn) = through {
                assert_eq!(world.close_code(Client { conn }), Some(1001), "{stage}");
            }
            let is_told = world.events(owner).iter().any(|it| it.name == "relay.disconnected");
            assert_eq!(is_told, stage == 4, "{stage}");
            // Whatever comes late finds nobody.
            world.relay_says(leg, &challenge());
            world.advance(Duration::from_secs(600));
            assert_eq!(world.control(), None);
            let late = world.open(clawd_protocol::Source::Relay(None));
            assert!(!world.link(late).is_open(), "{stage}");
            assert_eq!(world.relay(owner)["state"], "off");
        }
    }

    #[test]
    fn a_daemon_that_ends_hangs_up_and_dials_no_more() {
        let (mut world, _) = wanting();
        world.machine.scripts.push_back(vec![vec![clawd_tests::Act::Hang]]);
        let leg = world.relay_registers();
        world.hold_store();
        world.shut_down();
        assert_eq!(world.legs()[&leg].stage, LegStage::Gone);
        world.advance(Duration::from_secs(3));
        assert_eq!(world.control(), None);
    }
}

mod identity {
    use super::*;

    #[test]
    fn g9_a_new_identity_lets_nobody_in_who_knew_the_old_one() {
        let (mut world, owner) = wanting();
        let leg = world.relay_registers();
        let phone = world.pair(owner, "full", "phone");
        let admin = world.pair(owner, "admin", "laptop");
        let gone = world.pair(owner, "read", "gone");
        world.call(owner, "device.revoke", json!({"id": gone.id})).expect("revoked");
        world.events(owner);
        let asked = world.ask(owner, "daemon.resetIdentity", json!({}));
        assert_eq!(world.close_code(phone.client), Some(1008), "at once");
        world.advance(Duration::from_secs(10));
        let answer = world.answer(owner, &asked).expect("an answer").expect("reset");
        assert_eq!(answer, json!({"reset": true, "devices": 2}));
        let told = world.events(owner).iter().filter(|it| it.name == "device.revoked").count();
        assert_eq!(told, 2);
        assert_eq!(world.legs()[&leg].stage, LegStage::Gone);
        assert!(world.is_stopped(), "it has to start again");
        assert_eq!(world.store.identities, 1);
        let lines = |kind: &str| world.store.audit.iter().filter(|it| it.contains(kind)).count();
        assert_eq!((lines("\"identity_reset\""), lines("\"revoked\"")), (1, 3));
        // Neither an old database nor a loss of power brings them back.
        world.crash(Crash::Power);
        for token in [&phone.token, &admin.token, &gone.token] {
            let stranger = world.stranger(clawd_tests::LOOPBACK);
            assert_eq!(world.auth(stranger, token).expect_err("out").code, -32004);
        }
    }

    #[test]
    fn g9_it_is_all_or_nothing() {
        let (mut world, owner) = wanting();
        let phone = world.pair(owner, "full", "phone");
        world.fail_store(Some(StoreFault::Full));
        let refused = world.call(owner, "daemon.resetIdentity", json!({})).expect_err("not stored");
        assert_eq!(refused.kind, "storage_failed");
        world.fail_store(None);
        assert_eq!(world.store.identities, 0);
        assert!(!world.is_stopped());
        // As with one revocation: out as long as this daemon lives.
        let stranger = world.stranger(clawd_tests::LOOPBACK);
        assert_eq!(world.auth(stranger, &phone.token).expect_err("out").code, -32004);
    }

    #[test]
    fn g9_whoever_is_being_paired_meanwhile_is_out_too() {
        let mut world = World::default();
        let owner = world.owner();
        let window =
            world.call(owner, "daemon.pairPin", json!({"confirm": false})).expect("a window");
        let device = world.stranger(clawd_tests::LOOPBACK);
        world.hold_store();
        let params = json!({"pin": window["pin"], "name": "phone", "platform": "ios"});
        let pairing = world.ask(device, "device.pair", params);
        world.ask(owner, "daemon.resetIdentity", json!({}));
        let twice = world.call(owner, "daemon.resetIdentity", json!({})).expect_err("once");
        assert_eq!(twice.kind, "rate_limited");
        let window = world.call(owner, "daemon.pairPin", json!({})).expect("a window");
        let late = world.stranger(clawd_tests::LOOPBACK);
        let params = json!({"pin": window["pin"], "name": "late", "platform": "ios"});
        let refused = world.ask(late, "device.pair", params);
        world.release_store();
        for (client, asked) in [(device, pairing), (late, refused)] {
            let answer = world.answer(client, &asked);
            assert!(answer.is_none_or(|answer| answer.is_err()), "nobody gets in");
        }
        world.advance(Duration::from_secs(10));
        assert!(world.is_stopped());
        let all = world.store.db.devices.values();
        assert!(all.clone().count() == 1 && all.clone().all(|it| it.revoked_at.is_some()));
    }
}
