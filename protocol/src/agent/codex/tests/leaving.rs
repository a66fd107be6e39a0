//! Interrupts, and conversations that are left.

use super::*;

#[test]
fn an_interrupt_stops_the_turn_and_its_commands() {
    let mut desk = Desk::turn();
    desk.said.clear();
    desk.say(Say::Interrupt(LANE));
    assert_eq!(desk.said[0]["params"], json!({"threadId": "t1", "turnId": "u1"}));
    assert_eq!(desk.methods(), ["turn/interrupt", "thread/backgroundTerminals/clean"]);
    desk.notify("turn/completed", json!({"turn": {"id": "u1", "status": "interrupted"}}));
    assert_eq!(desk.methods(), ["thread/backgroundTerminals/clean"]);
    desk.tells(&[ended(Outcome::Interrupted, "")]);
}

#[test]
fn an_interrupt_waits_until_there_is_something_to_interrupt() {
    // Before the conversation is open: the prompt is never said.
    let mut desk = Desk::new();
    desk.begin(LANE, None);
    desk.prompt(LANE, "hello");
    desk.say(Say::Interrupt(LANE));
    desk.greet();
    desk.vet();
    desk.opened("t1");
    desk.tells(&[ended(Outcome::Interrupted, "")]);
    assert!(!desk.methods().contains(&"turn/start".to_string()));
    // Before the turn has a name.
    desk.prompt(LANE, "hello");
    desk.say(Say::Interrupt(LANE));
    assert_eq!(desk.methods(), ["turn/start"]);
    let mut desk = Desk::open();
    desk.prompt(LANE, "hello");
    desk.say(Say::Interrupt(LANE));
    desk.reply("turn/start", &json!({"turn": {"id": "u7"}}));
    assert_eq!(desk.said[desk.said.len() - 2]["params"]["turnId"], "u7");
    // Without any turn, only commands are left to be ended.
    let mut desk = Desk::open();
    desk.said.clear();
    desk.say(Say::Interrupt(LANE));
    assert_eq!(desk.methods(), ["thread/backgroundTerminals/clean"]);
}

#[test]
fn i4_what_is_left_is_stopped_even_if_that_takes_time() {
    let gone = ["thread/backgroundTerminals/clean", "thread/unsubscribe"];
    // Nothing is under way.
    let mut desk = Desk::open();
    desk.said.clear();
    desk.say(Say::Close(LANE));
    assert_eq!(desk.methods(), gone);
    assert!(desk.codex.threads.is_empty() && desk.codex.lanes.is_empty());
    // It asks.
    let mut desk = Desk::turn();
    ask_for_ls(&mut desk, &json!(0));
    desk.said.clear();
    desk.say(Say::Close(LANE));
    assert_eq!(desk.said[0], json!({"id": 0, "result": {"decision": "decline"}}));
    assert_eq!(desk.methods(), ["answer", "turn/interrupt", gone[0]]);
    ask_for_ls(&mut desk, &json!(1));
    assert!(desk.said.pop().unwrap()["error"].is_object());
    desk.clear();
    desk.notify("turn/completed", json!({"turn": {"id": "u1", "status": "interrupted"}}));
    assert_eq!(desk.methods(), gone);
    desk.tells(&[]);
    assert!(desk.codex.threads.is_empty() && desk.codex.asks.is_empty());
    // Its turn has no name yet.
    let mut desk = Desk::open();
    desk.prompt(LANE, "hello");
    desk.say(Say::Close(LANE));
    desk.reply("turn/start", &json!({"turn": {"id": "u1"}}));
    assert!(desk.methods().contains(&"turn/interrupt".to_string()));
    // It is being opened.
    let mut desk = Desk::new();
    desk.begin(LANE, None);
    desk.greet();
    desk.vet();
    desk.say(Say::Close(LANE));
    desk.said.retain(|line| line["method"] == "thread/start");
    desk.opened("t1");
    assert_eq!(desk.methods()[1..], gone);
    // It is not even that.
    let mut desk = Desk::new();
    desk.begin(LANE, None);
    desk.say(Say::Close(LANE));
    assert!(desk.codex.threads.is_empty());
}

#[test]
fn conversations_do_not_mix() {
    let mut desk = Desk::turn();
    desk.begin(Lane(1), None);
    desk.vet();
    desk.reply("thread/start", &agreed("t2"));
    desk.clear();
    let text = |thread: &str| {
        json!({"method": "item/agentMessage/delta",
        "params": {"threadId": thread, "itemId": "a", "delta": thread}})
    };
    desk.hear(&text("t2"));
    desk.hear(&text("t1"));
    desk.hear(&text("t3"));
    let told: Vec<_> = desk.told.iter().map(|(lane, _)| *lane).collect();
    assert_eq!(told, [Some(Lane(1)), Some(LANE), None]);
}
