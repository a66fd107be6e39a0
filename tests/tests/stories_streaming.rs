//! An answer while it is written: whole, as what is new, and for those who come late.

use std::time::Duration;

use clawd_protocol::{Limits, Stream};
use clawd_tests::client::{Event, names};
use clawd_tests::{Act, Client, LOOPBACK, World};
use serde_json::{Value, json};

fn line(event: &Value) -> Act {
    let line = json!({"type": "stream_event", "event": event, "session_id": "s"});
    Act::Write(Stream::Out, format!("{line}\n").into_bytes())
}

fn chunk(text: &str) -> Act {
    let delta = json!({"type": "text_delta", "text": text});
    line(&json!({"type": "content_block_delta", "index": 0, "delta": delta}))
}

fn restart() -> Act {
    line(&json!({"type": "message_start", "message": {}}))
}

/// The events of a connection without its greeting.
fn events(world: &mut World, client: Client) -> Vec<Event> {
    let all = world.events(client).into_iter();
    all.filter(|event| event.name != "daemon.ready").collect()
}

const PAUSE: Duration = Duration::from_millis(100);

/// A world in which an answer will stream with these pauses between its pieces, and two who watch: one wants whole
/// texts, the other one deltas.
fn streaming(limits: Limits, pieces: Vec<Act>) -> (World, Client, Client) {
    let mut world = World::new(limits);
    let acts = pieces.into_iter().flat_map(|piece| [piece, Act::Wait(PAUSE)]).collect();
    world.machine.scripts.push_back(vec![acts]);
    let (whole, deltas) = (world.owner(), world.owner());
    subscribe_deltas(&mut world, deltas);
    (world, whole, deltas)
}

/// The answer begins.
fn begin(world: &mut World, client: Client) {
    let params = json!({"repoPath": "/repo", "initialMessage": "hi"});
    world.call(client, "session.create", params).expect("a session");
    world.settle();
}

fn subscribe_deltas(world: &mut World, client: Client) {
    world.call(client, "events.subscribe", json!({"deltas": true})).expect("subscribed");
}

/// The text as a client puts it together.
fn put_together(text: &mut String, events: &[Event]) {
    for event in events {
        if event.name == "session.messageDelta" {
            let offset = event.params["offset"].as_u64().and_then(|at| usize::try_from(at).ok());
            text.truncate(offset.expect("an offset"));
            text.push_str(event.params["text"].as_str().expect("a text"));
        } else if event.name == "session.messageUpdated" {
            event.params["content"].as_str().expect("a content").clone_into(text);
        }
    }
}

fn deltas<'a>(events: &'a [Event]) -> Vec<(u64, &'a str)> {
    let deltas = events.iter().filter(|event| event.name == "session.messageDelta");
    let part =
        |event: &'a Event| Some((event.params["offset"].as_u64()?, event.params["text"].as_str()?));
    deltas.map(|event| part(event).expect("offset and text")).collect()
}

#[test]
fn deltas_are_what_is_new_and_the_last_word_is_whole() {
    let pieces = vec![chunk("Grüße"), chunk(" aus"), chunk(" dem"), Act::say("Grüße aus dem Tal")];
    let (mut world, whole, client) = streaming(Limits::default(), pieces);
    begin(&mut world, whole);
    let (mut text, mut other) = (String::new(), String::new());
    let mut seen = Vec::new();
    for _ in 0..8 {
        let heard = events(&mut world, client);
        put_together(&mut text, &heard);
        seen.extend(heard);
        put_together(&mut other, &events(&mut world, whole));
        assert_eq!(text, other);
        world.advance(PAUSE);
    }
    assert_eq!(deltas(&seen)[..3], [(0, "Grüße"), (7, " aus"), (11, " dem")]);
    let last: Vec<_> = seen.iter().filter(|event| event.name == "session.messageUpdated").collect();
    assert_eq!(last.len(), 1, "{:?}", names(&seen));
    assert_eq!((&last[0].params["status"], &*text), (&json!("done"), "Grüße aus dem Tal"));
}

#[test]
fn a_text_that_begins_anew_is_taken_back() {
    let pieces = vec![chunk("one two"), restart(), chunk("one three"), Act::Hang];
    let (mut world, whole, client) = streaming(Limits::default(), pieces);
    begin(&mut world, whole);
    for _ in 0..4 {
        world.advance(PAUSE);
    }
    assert_eq!(deltas(&events(&mut world, client)), [(0, "one two"), (0, ""), (0, "one three")]);
}

#[test]
fn a_finished_block_replaces_what_streamed_from_where_they_differ() {
    let block = json!([{"type": "text", "text": "one three"}]);
    let done = json!({"type": "assistant", "message": {"id": "m", "content": block}});
    let done = Act::Write(Stream::Out, format!("{done}\n").into_bytes());
    let pieces = vec![chunk("one two"), done, Act::Hang];
    let (mut world, whole, client) = streaming(Limits::default(), pieces);
    begin(&mut world, whole);
    world.advance(2 * PAUSE);
    assert_eq!(deltas(&events(&mut world, client)), [(0, "one two"), (5, "hree")]);
}

#[test]
fn whoever_joins_late_is_sent_all_of_it_first() {
    let pieces = vec![chunk("one"), chunk(" two"), chunk(" three"), Act::Hang];
    let (mut world, whole, _) = streaming(Limits::default(), pieces);
    begin(&mut world, whole);
    world.advance(PAUSE);
    let client = world.owner();
    subscribe_deltas(&mut world, client);
    world.advance(PAUSE);
    assert_eq!(deltas(&events(&mut world, client)), [(0, "one two three")]);
}

#[test]
fn one_who_comes_back_in_the_middle_of_an_answer_is_shown_the_text_so_far() {
    let pieces = vec![chunk("one"), chunk(" two"), chunk(" three"), Act::Hang];
    let (mut world, stayed, _) = streaming(Limits::default(), pieces);
    begin(&mut world, stayed);
    world.advance(PAUSE);
    let late = world.stranger(LOOPBACK);
    let params = json!({"token": world.token(), "after": 0});
    let told = world.call(late, "daemon.auth", params).expect("the owner gets in");
    assert_eq!(told["replayed"], true);
    world.settle();
    let mut text = String::new();
    let heard = events(&mut world, late);
    put_together(&mut text, &heard);
    assert_eq!(heard.last().map(|event| &*event.name), Some("session.messageUpdated"));
    assert_eq!(text, "one two");
    // The same, for one who wants deltas: the next one fits to what it was shown.
    world.call(late, "events.subscribe", json!({"after": 0, "deltas": true})).expect("subscribed");
    world.settle();
    assert_eq!(deltas(&events(&mut world, late)), [(0, "one two")]);
    world.advance(PAUSE);
    assert_eq!(deltas(&events(&mut world, late)), [(7, " three")]);
}

#[test]
fn one_who_missed_a_delta_is_sent_all_of_it_again() {
    let long = "x".repeat(500);
    let pieces = vec![chunk(&long), chunk("a"), chunk("b"), chunk("c"), Act::Hang];
    let limits = Limits { queue_bytes_soft: 600, ..Limits::default() };
    let (mut world, whole, client) = streaming(limits, pieces);
    begin(&mut world, whole);
    events(&mut world, client);
    // Its queue is full of something else while "a" comes, and it has room for "b".
    world.stall(client.conn);
    world.ask(client, "session.list", json!({}));
    world.ask(client, "session.list", json!({}));
    world.advance(PAUSE);
    world.unstall(client.conn);
    world.settle();
    assert_eq!(deltas(&events(&mut world, client)), []);
    world.advance(PAUSE);
    assert_eq!(deltas(&events(&mut world, client)), [(0, &*format!("{long}ab"))]);
    world.advance(PAUSE);
    assert_eq!(deltas(&events(&mut world, client)), [(502, "c")]);
}

#[test]
fn what_was_said_before_a_tool_call_is_read_before_it() {
    let words = "one two three four";
    let soon = Act::Wait(Duration::from_millis(5));
    let tool = Act::Ask { name: "Bash".to_owned(), input: json!({"command": "true"}) };
    let acts = vec![chunk("one"), soon.clone(), chunk(" two three"), soon, Act::say(words), tool];
    let mut world = World::default();
    world.machine.scripts.push_back(vec![acts]);
    let owner = world.owner();
    begin(&mut world, owner);
    world.advance(Duration::from_millis(20));
    let heard = events(&mut world, owner);
    let is_tool = |event: &Event| event.name == "session.toolCallCreated";
    let at = heard.iter().position(is_tool).expect("it is asked for");
    let (before, _) = heard.split_at(at);
    let text = before.iter().rev().find(|event| event.name == "session.messageUpdated");
    assert_eq!(text.expect("some of it").params["content"], words, "{:?}", names(&heard));
}
