use super::*;

fn event(method: &str, params: Value) -> Event {
    Event { method: method.to_owned(), params }
}

fn tool_call(status: &str) -> Value {
    json!({"id": "t1", "name": "Bash", "input": {"command": "ls"}, "status": status})
}

#[test]
fn a_call_that_waits_is_asked_about_once_and_withdrawn_when_decided() {
    let screen = Screen::bare(true);
    let mut turn = Turn::new(&screen, "s".to_owned());
    let created = event(
        "session.toolCallCreated",
        json!({"seq": 3, "sessionId": "s", "toolCall": tool_call("pending")}),
    );
    let asked = event(
        "tool.approvalRequested",
        json!({"seq": 4, "sessionId": "s", "toolCall": tool_call("pending")}),
    );
    assert!(matches!(turn.on_event(&created).unwrap(), Seen::Asks(call) if call.id == "t1"));
    assert!(matches!(turn.on_event(&asked).unwrap(), Seen::Nothing));
    let resolved = event("tool.approvalResolved", json!({"sessionId": "s", "toolCallId": "t1"}));
    assert!(matches!(turn.on_event(&resolved).unwrap(), Seen::Decided(id) if id == "t1"));
}

#[test]
fn a_call_that_ran_already_may_still_come_to_wait() {
    let screen = Screen::bare(true);
    let mut turn = Turn::new(&screen, "s".to_owned());
    let params = json!({"sessionId": "s", "toolCall": tool_call("running")});
    assert!(matches!(
        turn.on_event(&event("session.toolCallCreated", params)).unwrap(),
        Seen::Nothing
    ));
    let params = json!({"sessionId": "s", "toolCall": tool_call("pending")});
    let seen = turn.on_event(&event("tool.approvalRequested", params)).unwrap();
    assert!(matches!(seen, Seen::Asks(call) if call.name == "Bash"));
}

#[test]
fn the_turn_is_over_when_its_own_session_is_idle_again_or_in_error() {
    let screen = Screen::bare(true);
    let mut turn = Turn::new(&screen, "s".to_owned());
    let mut status = |session: &str, status: &str| {
        let params = json!({"sessionId": session, "status": status, "reason": "401"});
        turn.on_event(&event("session.statusChanged", params)).unwrap()
    };
    assert!(matches!(status("s", "idle"), Seen::Nothing), "it has not begun");
    assert!(matches!(status("s", "running"), Seen::Nothing));
    assert!(matches!(status("other", "idle"), Seen::Nothing));
    assert!(matches!(status("s", "completed"), Seen::Nothing));
    assert!(matches!(status("s", "idle"), Seen::Over(Outcome::Ended)));
    assert!(matches!(status("s", "error"), Seen::Over(Outcome::Failed(why)) if why == "401"));
}
