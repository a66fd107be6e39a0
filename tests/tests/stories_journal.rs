//! Coming back: what was missed is told again, or it is said that it cannot be.

use std::time::Duration;

use clawd_protocol::record::{EventRecord, Role};
use clawd_protocol::{Limits, StoreFault};
use clawd_tests::client::{Event, names};
use clawd_tests::story::line;
use clawd_tests::{Act, Client, Crash, LOOPBACK, World};
use serde_json::{Value, json};

/// Where somebody was: the number of the last event it heard, and the journal.
#[derive(Debug, Clone)]
struct Place {
    after: u64,
    journal: Value,
}

/// The owner, and what the daemon said on letting it in.
fn owner(world: &mut World) -> (Client, Value) {
    let client = world.stranger(LOOPBACK);
    let token = world.token();
    let welcome = world.auth(client, &token).expect("the owner gets in");
    (client, welcome)
}

/// The owner, who was at this place before.
fn back(world: &mut World, place: &Place) -> (Client, Value) {
    let client = world.stranger(LOOPBACK);
    let params = json!({"token": world.token(), "after": place.after, "journal": place.journal});
    let welcome = world.call(client, "daemon.auth", params).expect("the owner gets in");
    (client, welcome)
}

fn place(welcome: &Value) -> Place {
    let after = welcome["cursor"].as_u64().expect("a cursor");
    Place { after, journal: welcome["journal"].clone() }
}

fn session(world: &mut World, client: Client) -> String {
    let session = world.call(client, "session.create", json!({"repoPath": "/repo"}));
    session.expect("a session")["id"].as_str().expect("an id").to_owned()
}

/// So many durable events.
fn rename(world: &mut World, client: Client, session: &str, times: usize) {
    for n in 0..times {
        let params = json!({"sessionId": session, "title": format!("title {n}")});
        world.call(client, "session.rename", params).expect("renamed");
    }
}

/// The events of a connection without its greeting.
fn events(world: &mut World, client: Client) -> Vec<Event> {
    let all = world.events(client).into_iter();
    all.filter(|event| event.name != "daemon.ready").collect()
}

fn last_seq(events: &[Event]) -> u64 {
    events.last().and_then(|event| event.params["seq"].as_u64()).expect("events")
}

fn resets(events: &[Event]) -> Vec<&str> {
    let resets = events.iter().filter(|event| event.name == "events.reset");
    resets.filter_map(|event| event.params["reason"].as_str()).collect()
}

// --- what was missed --------------------------------------------------------------------------------------------

#[test]
fn what_was_missed_is_told_once_in_order_and_then_what_happens() {
    let mut world = World::new(Limits::tiny());
    let (stayed, welcome) = owner(&mut world);
    let missed = session(&mut world, stayed);
    rename(&mut world, stayed, &missed, 10);
    let all = events(&mut world, stayed);
    assert_eq!(all.len(), 11);

    let (late, told) = back(&mut world, &place(&welcome));
    assert_eq!(told["replayed"], true);
    assert_eq!(told["cursor"], last_seq(&all));
    world.settle();
    rename(&mut world, stayed, &missed, 2);
    let mut expected = all;
    expected.extend(events(&mut world, stayed));
    assert_eq!(events(&mut world, late), expected);
}

#[test]
fn daemon_ready_comes_first_and_says_no_more_than_was_heard() {
    let mut world = World::default();
    let (stayed, welcome) = owner(&mut world);
    session(&mut world, stayed);
    let (late, _) = back(&mut world, &place(&welcome));
    let all = world.events(late);
    assert_eq!(names(&all), ["daemon.ready", "session.created"]);
    assert_eq!(all[0].params["seq"], place(&welcome).after);
}

#[test]
fn one_who_missed_nothing_is_told_nothing() {
    let mut world = World::default();
    let (stayed, _) = owner(&mut world);
    let missed = session(&mut world, stayed);
    let (_, now) = owner(&mut world);
    let (late, told) = back(&mut world, &place(&now));
    assert_eq!(told["replayed"], true);
    assert_eq!(events(&mut world, late), []);
    rename(&mut world, stayed, &missed, 1);
    assert_eq!(names(&events(&mut world, late)), ["session.updated"]);
}

#[test]
fn whoever_is_here_may_hear_it_again() {
    let mut world = World::default();
    let (here, welcome) = owner(&mut world);
    session(&mut world, here);
    let first = events(&mut world, here);
    let place = place(&welcome);
    let params = json!({"after": place.after, "journal": place.journal});
    let told = world.call(here, "events.subscribe", params).expect("subscribed");
    assert_eq!(
        told,
        json!({"cursor": last_seq(&first), "journal": place.journal, "replayed": true})
    );
    assert_eq!(events(&mut world, here), first);
    let plain = world.call(here, "events.subscribe", json!({})).expect("subscribed");
    assert_eq!(plain["replayed"], false);
    assert_eq!(events(&mut world, here), []);
}

#[test]
fn a_place_that_is_none_is_an_error_that_names_the_field() {
    let mut world = World::default();
    let (here, _) = owner(&mut world);
    for (params, field) in [
        (json!({"after": -1}), "after"),
        (json!({"after": "5"}), "after"),
        (json!({"after": 1, "journal": 5}), "journal"),
        (json!({"deltas": 1}), "deltas"),
    ] {
        let refused = world.call(here, "events.subscribe", params).expect_err(field);
        assert_eq!((refused.code, &refused.data["field"]), (-32602, &json!(field)));
    }
    // A stranger with a right token and a wrong place may try again.
    let stranger = world.stranger(LOOPBACK);
    let params = json!({"token": world.token(), "after": "5"});
    assert_eq!(world.call(stranger, "daemon.auth", params).expect_err("no place").code, -32602);
    assert_eq!(world.events(stranger), []);
    let token = world.token();
    world.auth(stranger, &token).expect("the owner gets in");
}

// --- what cannot be told ----------------------------------------------------------------------------------------

#[test]
fn what_was_forgotten_is_a_reset_and_then_life_goes_on() {
    let mut world = World::new(Limits::tiny());
    let (stayed, welcome) = owner(&mut world);
    let missed = session(&mut world, stayed);
    rename(&mut world, stayed, &missed, 60);
    assert!(world.store.db.events.len() <= 40, "{}", world.store.db.events.len());
    let cursor = last_seq(&events(&mut world, stayed));

    let (late, _) = back(&mut world, &place(&welcome));
    world.settle();
    rename(&mut world, stayed, &missed, 1);
    let heard = events(&mut world, late);
    assert_eq!(names(&heard), ["events.reset", "session.updated"]);
    assert_eq!((resets(&heard), &heard[0].params["cursor"]), (vec!["forgotten"], &json!(cursor)));
}

#[test]
fn old_events_are_forgotten_by_their_age() {
    let mut world = World::default();
    let (stayed, welcome) = owner(&mut world);
    let missed = session(&mut world, stayed);
    world.advance(world.limits().journal_age + Duration::from_secs(10));
    rename(&mut world, stayed, &missed, 1);
    world.advance(world.limits().prune_every);
    let kept: Vec<_> = world.store.db.events.iter().map(|event| event.text.clone()).collect();
    assert!(kept.len() == 1 && kept[0].contains("title 0"), "{kept:?}");
    let (late, _) = back(&mut world, &place(&welcome));
    world.settle();
    assert_eq!(resets(&events(&mut world, late)), ["forgotten"]);
}

#[test]
fn a_place_in_another_journal_or_in_the_future_is_a_reset() {
    let mut world = World::default();
    let (stayed, welcome) = owner(&mut world);
    let here = place(&welcome);
    session(&mut world, stayed);
    let future = Place { after: 1_000_000, ..here.clone() };
    let foreign = Place { journal: json!("of another database"), ..here };
    for place in [future, foreign] {
        let (late, told) = back(&mut world, &place);
        assert_eq!(told["replayed"], false);
        assert_eq!(names(&world.events(late)), ["daemon.ready", "events.reset"]);
    }
}

#[test]
fn a_deleted_session_is_told_of_no_more() {
    let mut world = World::default();
    let (stayed, welcome) = owner(&mut world);
    let (gone, kept) = (session(&mut world, stayed), session(&mut world, stayed));
    rename(&mut world, stayed, &gone, 2);
    world.call(stayed, "session.delete", json!({"sessionId": gone})).expect("deleted");
    assert!(world.store.db.events.iter().all(|event| !event.text.contains("title 1")));
    let (late, _) = back(&mut world, &place(&welcome));
    world.settle();
    let heard = events(&mut world, late);
    assert_eq!(names(&heard), ["session.created", "session.deleted"]);
    assert_eq!(heard[0].params["session"]["id"], kept);
}

// --- who may hear it --------------------------------------------------------------------------------------------

/// An event that only admins are told, as a later version might make one.
fn keep_secret(world: &mut World, seq: u64) {
    let text = json!({"jsonrpc": "2.0", "method": "for.admins", "params": {"seq": seq}});
    world.store.db.events.push(EventRecord {
        seq,
        at: world.now().unix,
        least_role: Role::Admin,
        session: None,
        text: text.to_string(),
    });
    world.store.db.seq = seq;
}

#[test]
fn b8_what_a_role_may_not_hear_is_not_told_again_either() {
    let mut world = World::default();
    let (admin, welcome) = owner(&mut world);
    let device = world.pair(admin, "read", "phone");
    let seq = world.store.db.seq + 1;
    keep_secret(&mut world, seq);
    world.crash(Crash::Lost);
    let place = place(&welcome);
    for (token, is_told) in [(world.token(), true), (device.token, false)] {
        let client = world.stranger(LOOPBACK);
        let params = json!({"token": token, "after": place.after, "journal": place.journal});
        world.call(client, "daemon.auth", params).expect("in");
        world.settle();
        let heard = events(&mut world, client);
        assert_eq!(names(&heard).contains(&"for.admins"), is_told, "{:?}", names(&heard));
        assert!(names(&heard).contains(&"device.paired"));
    }
}

#[test]
fn b8_one_who_was_demoted_while_it_catches_up_hears_what_it_may_hear_now() {
    let mut world = World::new(Limits::tiny());
    let (admin, welcome) = owner(&mut world);
    let device = world.pair(admin, "admin", "tablet");
    let busy = session(&mut world, admin);
    rename(&mut world, admin, &busy, 3);
    let seq = world.store.db.seq + 1;
    keep_secret(&mut world, seq);
    world.crash(Crash::Lost);

    let (admin, _) = owner(&mut world);
    let client = world.device_again(&device.token);
    world.stall(client.conn);
    let place = place(&welcome);
    let params = json!({"after": place.after, "journal": place.journal});
    world.ask(client, "events.subscribe", params);
    world.settle();
    let params = json!({"id": device.id, "role": "read"});
    world.call(admin, "device.setRole", params).expect("demoted");
    world.unstall(client.conn);
    world.settle();
    let heard = events(&mut world, client);
    assert!(names(&heard).contains(&"device.updated"), "{:?}", names(&heard));
    assert!(!names(&heard).contains(&"for.admins"));
}

#[test]
fn e4_one_who_was_revoked_while_it_catches_up_hears_nothing_more() {
    let mut world = World::new(Limits::tiny());
    let (admin, welcome) = owner(&mut world);
    let device = world.pair(admin, "full", "tablet");
    let busy = session(&mut world, admin);
    rename(&mut world, admin, &busy, 9);
    let client = world.device_again(&device.token);
    world.events(client);
    world.hold_store();
    let place = place(&welcome);
    let params = json!({"after": place.after, "journal": place.journal});
    world.ask(client, "events.subscribe", params);
    world.settle();
    let revoked = world.ask(admin, "device.revoke", json!({"id": device.id}));
    world.release_store();
    world.settle();
    world.answer(admin, &revoked).expect("an answer").expect("revoked");
    assert_eq!(world.close_code(client), Some(1008));
    assert_eq!(events(&mut world, client), [], "its page came after it was shut out");
}

// --- slow readers -----------------------------------------------------------------------------------------------

#[test]
fn c5_one_who_does_not_read_while_it_catches_up_costs_no_more_than_a_page() {
    let mut world = World::new(Limits {
        journal_events_max: 500,
        journal_bytes_max: 1 << 20,
        ..Limits::tiny()
    });
    let (stayed, welcome) = owner(&mut world);
    let busy = session(&mut world, stayed);
    rename(&mut world, stayed, &busy, 20);
    let (slow, _) = owner(&mut world);
    world.events(slow);
    world.stall(slow.conn);
    let place = place(&welcome);
    let params = json!({"after": place.after, "journal": place.journal});
    world.ask(slow, "events.subscribe", params);
    for _ in 0..10 {
        world.settle();
        rename(&mut world, stayed, &busy, 5);
        let bytes = world.link(slow.conn).queued_bytes();
        assert!(bytes <= 2 * world.limits().replay_page_bytes_max, "{bytes} bytes are queued");
    }
    world.advance(Duration::from_secs(300));
    assert_eq!(world.close_code(slow), None, "it costs nothing");
    world.unstall(slow.conn);
    world.settle();
    assert_eq!(events(&mut world, slow), events(&mut world, stayed));
}

#[test]
fn c5_after_a_gap_it_can_be_heard_from_its_beginning() {
    let mut world = World::new(Limits {
        journal_events_max: 500,
        journal_bytes_max: 1 << 20,
        ..Limits::tiny()
    });
    let (stayed, _) = owner(&mut world);
    let busy = session(&mut world, stayed);
    let (slow, _) = owner(&mut world);
    events(&mut world, stayed);
    world.events(slow);
    world.stall(slow.conn);
    rename(&mut world, stayed, &busy, 60);
    world.unstall(slow.conn);
    world.settle();
    let mut heard = events(&mut world, slow);
    let gap = heard.pop().expect("a gap");
    assert_eq!(gap.name, "events.gap");
    assert_eq!(gap.params["seq"], gap.params["from"], "it heard nothing after that");
    rename(&mut world, stayed, &busy, 1);
    assert_eq!(names(&events(&mut world, slow)), ["session.updated"], "it is live");
    let params = json!({"after": gap.params["from"]});
    world.call(slow, "events.subscribe", params).expect("subscribed");
    world.settle();
    heard.extend(events(&mut world, slow));
    assert_eq!(heard, events(&mut world, stayed));
}

#[test]
fn c5_one_who_subscribes_over_and_over_is_read_for_once_at_a_time() {
    let mut world = World::new(Limits::tiny());
    let (here, welcome) = owner(&mut world);
    let busy = session(&mut world, here);
    rename(&mut world, here, &busy, 3);
    world.settle();
    events(&mut world, here);
    world.hold_store();
    let place = place(&welcome);
    for _ in 0..20 {
        let params = json!({"after": place.after, "journal": place.journal});
        world.call(here, "events.subscribe", params).expect("subscribed");
    }
    assert_eq!(world.trace().to_string().matches("question: Events").count(), 1);
    world.release_store();
    world.settle();
    assert_eq!(events(&mut world, here).len(), 4);
}

#[test]
fn a_store_that_cannot_read_is_a_reset() {
    let mut world = World::default();
    let (stayed, welcome) = owner(&mut world);
    session(&mut world, stayed);
    world.hold_store();
    let (late, told) = back(&mut world, &place(&welcome));
    assert_eq!(told["replayed"], true);
    world.advance(world.limits().replay_timeout);
    assert_eq!(resets(&events(&mut world, late)), ["storage_failed"]);
    world.release_store();
    world.settle();
    assert_eq!(events(&mut world, late), [], "what comes late is not told");
}

#[test]
fn what_could_not_be_stored_is_never_told() {
    let mut world = World::default();
    let (stayed, welcome) = owner(&mut world);
    let busy = session(&mut world, stayed);
    world.fail_store(Some(StoreFault::Full));
    let params = json!({"sessionId": busy, "title": "lost"});
    world.call(stayed, "session.rename", params).expect_err("not stored");
    world.fail_store(None);
    rename(&mut world, stayed, &busy, 1);
    let (late, _) = back(&mut world, &place(&welcome));
    world.settle();
    let heard = events(&mut world, late);
    assert_eq!(names(&heard), ["session.created", "session.updated"]);
    assert_eq!(heard, events(&mut world, stayed));
}

// --- the daemon's lives -----------------------------------------------------------------------------------------

#[test]
fn a_restart_in_between_loses_nothing() {
    for how in [Crash::Lost, Crash::Done] {
        let mut world = World::default();
        let (before, welcome) = owner(&mut world);
        let busy = session(&mut world, before);
        rename(&mut world, before, &busy, 3);
        let mut expected = events(&mut world, before);
        world.crash(how);
        let (after, now) = owner(&mut world);
        assert_ne!(now["journal"], welcome["journal"], "each life writes a chapter of its own");
        rename(&mut world, after, &busy, 2);
        expected.extend(events(&mut world, after));
        let (late, told) = back(&mut world, &place(&welcome));
        assert_eq!(told["replayed"], true);
        world.settle();
        assert_eq!(events(&mut world, late), expected);
    }
}

#[test]
fn what_a_loss_of_power_took_is_known_as_lost_even_if_its_numbers_are_used_again() {
    let mut world = World::default();
    let (before, welcome) = owner(&mut world);
    let busy = session(&mut world, before);
    world.call(before, "daemon.pairPin", json!({})).expect("a window");
    // What was told up to here is on the platter, by the grant; what follows is not.
    world.pair(before, "read", "phone");
    let kept = Place { after: last_seq(&events(&mut world, before)), ..place(&welcome) };
    rename(&mut world, before, &busy, 3);
    let lost = Place { after: last_seq(&events(&mut world, before)), ..kept.clone() };
    world.crash(Crash::Power);
    let (after, _) = owner(&mut world);
    rename(&mut world, after, &busy, 5);
    assert!(last_seq(&events(&mut world, after)) > lost.after, "the numbers are used again");
    let (late, told) = back(&mut world, &lost);
    assert_eq!(told["replayed"], false);
    assert_eq!(resets(&events(&mut world, late)), ["unknown"]);
    let (late, told) = back(&mut world, &kept);
    assert_eq!(told["replayed"], true);
    world.settle();
    assert_eq!(events(&mut world, late).len(), 5);
}

#[test]
fn a_turn_that_died_with_the_daemon_is_told_to_have_ended() {
    let mut world = World::default();
    world.machine.scripts.push_back(vec![vec![Act::bash("make")]]);
    let (before, welcome) = owner(&mut world);
    let params = json!({"repoPath": "/repo", "initialMessage": "hi"});
    world.call(before, "session.create", params).expect("a session");
    world.settle();
    let mut expected = events(&mut world, before);
    assert!(names(&expected).contains(&"tool.approvalRequested"));
    world.crash(Crash::Lost);
    let (late, _) = back(&mut world, &place(&welcome));
    world.settle();
    let heard = events(&mut world, late);
    let news = heard.iter().skip(expected.len()).cloned().collect::<Vec<_>>();
    expected.extend(news.iter().cloned());
    assert_eq!(heard, expected);
    assert_eq!(names(&news), ["session.messageUpdated", "session.statusChanged"]);
    assert_eq!(
        (&news[0].params["status"], &news[1].params["status"]),
        (&json!("error"), &json!("idle"))
    );
}

/// The daemon dies after each single thing that happens to a call that nobody has to allow: before it is announced, while
/// that is being written down, and after it.
#[test]
fn a_tool_call_that_died_with_the_daemon_is_announced_once_and_then_told_to_have_ended() {
    let used = json!({"type": "assistant", "message": {"role": "assistant", "content": [
        {"type": "tool_use", "id": "toolu_a", "name": "Read", "input": {"file_path": "/repo/a"}}]}});
    let mut announced_by = [0, 0];
    for how in [Crash::Lost, Crash::Done] {
        for steps in 0..30 {
            let mut world = World::default();
            world.machine.scripts.push_back(vec![vec![line(&used), Act::Hang]]);
            let (before, welcome) = owner(&mut world);
            let session = session(&mut world, before);
            world.ask(
                before,
                "session.sendMessage",
                json!({"sessionId": session, "content": "hi"}),
            );
            let mut is_held = false;
            for _ in 0..steps {
                if world.settle_one(0) {
                    continue;
                }
                is_held = !is_held;
                if is_held {
                    world.hold_store();
                    world.advance(world.limits().tool_announce_after);
                } else {
                    world.release_store();
                }
            }
            let is_announced = names(&world.events(before)).contains(&"session.toolCallCreated");
            let is_stored = !world.store.db.tool_calls.is_empty();
            world.crash(how);
            let (late, _) = back(&mut world, &place(&welcome));
            world.settle();
            let mut heard = events(&mut world, late);
            heard.retain(|event| event.name.starts_with("session.toolCall"));
            let told = names(&heard);
            if is_stored || !told.is_empty() {
                let expected = ["session.toolCallCreated", "session.toolCallUpdated"];
                assert_eq!(told, expected, "{how:?} after {steps}");
                announced_by[usize::from(is_announced)] += 1;
            }
        }
    }
    assert!(announced_by.iter().all(|count| *count > 0), "both lives: {announced_by:?}");
}

#[test]
fn the_same_message_sent_again_after_a_restart_is_the_same_message() {
    let mut world = World::default();
    let (before, welcome) = owner(&mut world);
    let session = session(&mut world, before);
    let params = json!({"sessionId": session, "content": "hi", "clientMessageId": "m1"});
    let first = world.call(before, "session.sendMessage", params.clone()).expect("taken");
    world.settle();
    // Its answer was lost on the way: over a new connection, then over a new life of the daemon.
    let (again, _) = back(&mut world, &place(&welcome));
    assert_eq!(world.call(again, "session.sendMessage", params.clone()).expect("known"), first);
    world.crash(Crash::Lost);
    let (again, _) = back(&mut world, &place(&welcome));
    assert_eq!(world.call(again, "session.sendMessage", params).expect("known"), first);
    world.settle();
    let heard = events(&mut world, again);
    let said = heard.iter().filter(|event| {
        event.name == "session.messageCreated" && event.params["message"]["role"] == "user"
    });
    assert_eq!(said.count(), 1);
    assert_eq!(world.children().count(), 1, "there was one turn");
}
