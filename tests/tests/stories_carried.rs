//! Approvals that outlive the daemon: what waited waits on, and is done at most once, whatever ends when.

use clawd_protocol::StoreFault;
use clawd_tests::story::Story;
use clawd_tests::{Act, Crash};
use serde_json::{Value, json};

const ALL: [Crash; 2] = [Crash::Lost, Crash::Done];

fn make() -> Vec<Vec<Act>> {
    vec![vec![Act::bash("make"), Act::say("made")]]
}

/// A call waits, and the daemon has died and started again since.
fn carried(how: Crash) -> Story {
    let mut story = Story::with(make());
    story.restart(how, make());
    story
}

fn kind(refused: &clawd_tests::RpcError) -> &str {
    refused.data["kind"].as_str().unwrap_or_default()
}

fn messages(story: &mut Story) -> Vec<Value> {
    let params = json!({"sessionId": story.session});
    let all = story.ask("session.getMessages", params).expect("messages");
    all.as_array().expect("an array").clone()
}

#[test]
fn h1_what_waited_waits_on_after_a_restart() {
    for how in ALL {
        let mut story = Story::with(make());
        let before = story.waiting();
        story.later(100);
        story.restart(how, make());
        assert_eq!(story.waiting(), before, "the same approval, to the last field");
        assert_eq!(story.view()["waitingFor"], "approval");
        assert_eq!(story.view()["status"], "idle");
        let status = story.ask("daemon.status", json!({})).expect("a status");
        assert_eq!(status["pendingApprovals"], 1);
        story.later(490);
        assert_eq!(story.waiting().len(), 1);
        story.later(11);
        assert_eq!(story.waiting(), [] as [Value; 0], "its time is the one that was stored");
        assert_eq!(story.stored()["decision"]["kind"], "expired");
        assert_eq!((story.deeds(), &story.view()["waitingFor"]), (0, &Value::Null));
    }
}

#[test]
fn h1_a_shutdown_keeps_what_waits() {
    let mut story = Story::with(make());
    let before = story.waiting();
    story.world.shut_down();
    story.later(10);
    story.world.machine.scripts.push_back(make());
    story.world.restart();
    story.owner = story.world.owner();
    assert_eq!(story.waiting(), before);
    story.respond("grant").expect("granted");
    story.later(1);
    assert_eq!(story.deeds(), 1);
}

#[test]
fn h1_a_grant_after_a_restart_is_done_once_by_the_resumed_agent() {
    for how in ALL {
        let mut story = carried(how);
        let id = story.approval();
        let answer = story.respond("grant").expect("granted");
        assert_eq!(answer, json!({"approval_id": id, "decision": "grant"}));
        story.later(1);
        assert_eq!(story.done(), [json!({"command": "make"})]);
        assert!(story.waiting().is_empty(), "nobody is asked again");
        let last = story.world.children().next_back().expect("an agent");
        assert!(last.command.args.iter().any(|arg| arg == "--resume"), "{:?}", last.command.args);
        assert!(story.fed().contains("Make each of these calls again"), "{}", story.fed());
        let told = messages(&mut story);
        let ours = told.iter().find(|message| message["role"] == "system").expect("ours");
        let content = ours["content"].as_str().expect("text");
        assert!(content.contains("restarted") && content.contains("- Bash"), "{content}");
        let calls = story.calls();
        assert_eq!(calls.len(), 2);
        assert_eq!((&calls[0]["status"], &calls[1]["status"]), (&json!("error"), &json!("done")));
        assert_eq!(calls[1]["decision"]["by"], "owner");
        assert_eq!(story.view()["status"], "idle");
    }
}

#[test]
fn h1_a_grant_is_good_for_one_ask_only() {
    let mut story = Story::with(make());
    story.restart(Crash::Lost, vec![vec![Act::bash("make"), Act::bash("make")]]);
    story.respond("grant").expect("granted");
    story.later(1);
    assert_eq!((story.deeds(), story.waiting().len()), (1, 1), "the second is asked for");
}

#[test]
fn h3_a_grant_is_no_leave_for_another_input() {
    for other in [
        Act::bash("make install"),
        Act::Ask { name: "Shell".to_owned(), input: json!({"command": "make"}) },
    ] {
        let mut story = Story::with(make());
        story.restart(Crash::Lost, vec![vec![other]]);
        story.respond("grant").expect("granted");
        story.later(1);
        assert_eq!((story.deeds(), story.waiting().len()), (0, 1), "it is a new ask");
        story.respond("deny").expect("denied");
        story.later(1);
        assert_eq!(story.deeds(), 0);
        let first = story.stored();
        assert_eq!(first["status"], "error");
        assert_eq!(first["output"], "the agent did not ask for it again");
        assert!(story.waiting().is_empty() && story.view()["waitingFor"].is_null());
    }
}

#[test]
fn h1_two_asks_at_once_do_not_share_a_grant() {
    let wait = Act::Wait(std::time::Duration::from_secs(600));
    let twice = vec![
        clawd_tests::story::asks("ask_a", "toolu_a", "make"),
        clawd_tests::story::asks("ask_b", "toolu_b", "make"),
        wait,
    ];
    let mut story = Story::with(make());
    story.restart(Crash::Lost, vec![twice]);
    let id = story.approval();
    let params = json!({"approval_id": id, "decision": "grant"});
    let asked = story.world.ask(story.owner, "approval.respond", params);
    story.later(1);
    story.world.answer(story.owner, &asked).expect("an answer").expect("granted");
    let fed = story.fed();
    let allowed = fed.lines().filter(|line| line.contains("\"allow\"")).count();
    assert_eq!((allowed, story.waiting().len()), (1, 1), "{fed}");
}

#[test]
fn h6_a_denial_after_a_restart_runs_nothing() {
    for method in ["deny", "reject", "cancel"] {
        let mut story = carried(Crash::Lost);
        let id = story.approval();
        let session = json!({"sessionId": story.session});
        match method {
            "deny" => story.respond("deny").expect("denied"),
            "reject" => {
                story.call = story.waiting()[0]["toolCallId"].clone();
                let params = story.params();
                story.ask("tool.reject", params).expect("rejected")
            }
            _ => story.ask("session.cancel", session).expect("cancelled"),
        };
        story.later(1);
        assert_eq!((story.deeds(), story.waiting().len()), (0, 0), "{method}");
        assert_eq!(story.world.agents().len(), 0, "no agent is started for that");
        let params = json!({"approval_id": id, "decision": "grant"});
        let refused = story.ask("approval.respond", params).expect_err("decided");
        assert_eq!(kind(&refused), "already_decided");
        story.restart(Crash::Lost, make());
        assert_eq!((story.deeds(), story.waiting().len()), (0, 0), "{method}");
        assert_eq!(story.stored()["status"], "error");
    }
}

#[test]
fn h1_where_the_agent_cannot_be_resumed_it_has_expired() {
    // Killed before the agent had begun its conversation.
    let mut story = Story::with(vec![vec![Act::bash("make")]]);
    for session in story.world.store.db.sessions.values_mut() {
        session.agent_resumable = false;
    }
    story.restart(Crash::Lost, make());
    assert!(story.waiting().is_empty());
    let call = story.stored();
    assert_eq!((&call["status"], &call["decision"]["kind"]), (&json!("error"), &json!("expired")));
    assert_eq!(call["output"], "the agent that asked ended and cannot be resumed");
}

#[test]
fn h1_nothing_is_decided_while_the_agent_cannot_be_started() {
    let mut story = Story::with(make());
    story.world.machine.claude = clawd_tests::Claude::LoggedOut;
    story.restart(Crash::Lost, make());
    let refused = story.respond("grant").expect_err("nobody is logged in");
    assert_eq!(kind(&refused), "provider_not_available");
    assert_eq!(story.waiting().len(), 1, "it still waits");
    story.world.machine.claude = clawd_tests::Claude::Ready;
    story.respond("grant").expect("granted");
    story.later(1);
    assert_eq!(story.deeds(), 1);
}

#[test]
fn h1_a_grant_that_cannot_be_stored_allows_nothing() {
    let mut story = carried(Crash::Lost);
    story.world.fail_store(Some(StoreFault::Full));
    story.respond("grant").expect_err("not stored");
    story.later(5);
    assert_eq!(story.deeds(), 0);
    story.world.fail_store(None);
    assert_eq!(story.waiting().len(), 1, "nothing was decided");
    story.respond("grant").expect("granted");
    story.later(1);
    assert_eq!(story.deeds(), 1);
}

#[test]
fn h1_a_grant_outlives_one_more_crash() {
    for how in [Crash::Lost, Crash::Done, Crash::Power] {
        let mut story = Story::with(make());
        // The first restart's operations reach the platter with the next durable one.
        story.restart(Crash::Lost, vec![vec![Act::Hang]]);
        let id = story.approval();
        let params = json!({"approval_id": id, "decision": "grant"});
        story.world.ask(story.owner, "approval.respond", params.clone());
        story.world.settle();
        story.world.machine.scripts.clear();
        story.restart(how, make());
        story.later(1);
        assert_eq!(story.deeds(), 1, "{how:?}: the daemon goes on by itself");
        story.restart(how, make());
        story.later(1);
        assert_eq!(story.deeds(), 1, "{how:?}: and not twice");
        story.ask("approval.respond", params).expect("the same decision, the same answer");
        assert_eq!(story.deeds(), 1);
    }
}

/// The daemon dies after each single thing that happens between the grant and the deed.
#[test]
fn h1_however_often_the_daemon_dies_it_is_done_at_most_once() {
    let mut has_been_done = [false; 2];
    for how in [Crash::Lost, Crash::Done, Crash::Power] {
        for steps in 0..40 {
            let mut story = carried(Crash::Lost);
            let id = story.approval();
            let params = json!({"approval_id": id, "decision": "grant"});
            story.world.ask(story.owner, "approval.respond", params);
            for _ in 0..steps {
                story.world.settle_one(0);
            }
            let before = story.deeds();
            story.restart(how, make());
            story.later(1);
            let after = story.deeds();
            assert!(after <= 1, "{how:?} after {steps}: done {after} times");
            has_been_done[usize::from(before == 0)] |= after == 1;
            story.restart(how, make());
            story.later(1);
            assert_eq!(story.deeds(), after, "{how:?} after {steps}");
        }
    }
    assert_eq!(has_been_done, [true; 2], "before the crash, and after it");
}

#[test]
fn h1_what_was_allowed_before_the_crash_is_not_done_again() {
    let mut story = Story::with(make());
    story.respond("grant").expect("granted");
    assert_eq!(story.deeds(), 1);
    story.restart(Crash::Lost, make());
    story.later(5);
    assert_eq!((story.deeds(), story.waiting().len()), (1, 0));
    assert_eq!(story.world.agents().len(), 0);
}

#[test]
fn e4_a_revoked_devices_grant_is_not_taken_up() {
    for crashes in [false, true] {
        let mut story = Story::with(make());
        let phone = story.world.pair(story.owner, "approve", "phone");
        story.restart(Crash::Lost, vec![vec![Act::Hang]]);
        let id = story.approval();
        let client = story.world.stranger(clawd_tests::LOOPBACK);
        story.world.auth(client, &phone.token).expect("the phone gets in");
        let params = json!({"approval_id": id, "decision": "grant"});
        story.world.ask(client, "approval.respond", params);
        story.world.settle();
        if crashes {
            story.world.hold_store();
        }
        story.world.ask(story.owner, "device.revoke", json!({"id": phone.id}));
        story.world.settle();
        story.world.machine.scripts.clear();
        story.restart(if crashes { Crash::Done } else { Crash::Lost }, make());
        story.later(5);
        assert_eq!(story.deeds(), 0, "{crashes}");
        assert!(story.waiting().is_empty());
    }
}

/// The daemon dies after each single thing that a revocation does.
#[test]
fn e4_a_revoked_devices_grant_is_void_whenever_the_daemon_dies() {
    let mut outcomes = [0, 0];
    for steps in 0..12 {
        let mut story = Story::with(make());
        let phone = story.world.pair(story.owner, "approve", "phone");
        story.restart(Crash::Lost, vec![vec![Act::Hang]]);
        let id = story.approval();
        let client = story.world.stranger(clawd_tests::LOOPBACK);
        story.world.auth(client, &phone.token).expect("the phone gets in");
        let params = json!({"approval_id": id, "decision": "grant"});
        story.world.ask(client, "approval.respond", params);
        story.world.settle();
        story.world.ask(story.owner, "device.revoke", json!({"id": phone.id}));
        for _ in 0..steps {
            story.world.settle_one(0);
        }
        let is_revoked = story.world.store.is_buried(phone.id.parse().expect("an id"));
        story.restart(Crash::Lost, make());
        story.later(5);
        assert_eq!(story.deeds(), usize::from(!is_revoked), "after {steps}");
        outcomes[usize::from(is_revoked)] += 1;
    }
    assert!(outcomes[0] > 0 && outcomes[1] > 0, "{outcomes:?}");
}

#[test]
fn h1_a_clock_set_back_gives_nobody_a_day_more() {
    let mut story = Story::with(make());
    story.later(500);
    story.world.skew(-86_400_000);
    story.restart(Crash::Lost, make());
    // What was last stored is the time of the ask: from there it counts.
    story.later(601);
    assert_eq!((story.waiting().len(), story.deeds()), (0, 0));
}

#[test]
fn h1_a_message_waits_for_the_decision_or_a_cancel() {
    let mut story = carried(Crash::Lost);
    let params = json!({"sessionId": story.session, "content": "go on"});
    let refused = story.ask("session.sendMessage", params.clone()).expect_err("it waits");
    assert_eq!(kind(&refused), "session_busy");
    let session = json!({"sessionId": story.session});
    story.ask("session.cancel", session).expect("cancelled");
    story.ask("session.sendMessage", params).expect("sent");
    story.later(1);
    assert_eq!((story.deeds(), story.waiting().len()), (0, 1), "the agent asks anew");
}

#[test]
fn h3_a_question_keeps_its_answers_over_a_restart() {
    let input = json!({"questions": [{"question": "Which color?", "options": []}]});
    let ask = Act::Ask { name: "AskUserQuestion".to_owned(), input: input.clone() };
    let mut story = Story::with(vec![vec![ask.clone()]]);
    story.restart(Crash::Lost, vec![vec![ask]]);
    let id = story.approval();
    let params =
        json!({"approval_id": id, "decision": "grant", "answers": {"Which color?": "Red"}});
    story.ask("approval.respond", params).expect("answered");
    story.later(1);
    let mut answered = input;
    answered["answers"] = json!({"Which color?": "Red"});
    assert_eq!(story.done(), [answered]);
}

#[test]
fn h6_of_two_that_decide_after_a_restart_the_first_wins() {
    let mut story = carried(Crash::Lost);
    let phone = story.world.pair(story.owner, "approve", "phone");
    let id = story.approval();
    story.world.hold_store();
    let deny = json!({"approval_id": id, "decision": "deny"});
    let grant = json!({"approval_id": id, "decision": "grant"});
    let first = story.world.ask(phone.client, "approval.respond", deny);
    let second = story.world.ask(story.owner, "approval.respond", grant);
    story.world.release_store();
    story.later(1);
    story.world.answer(phone.client, &first).expect("an answer").expect("denied");
    let refused = story.world.answer(story.owner, &second).expect("an answer");
    assert_eq!(refused.expect_err("decided").data["by"], json!(phone.id));
    assert_eq!(story.deeds(), 0);
}
