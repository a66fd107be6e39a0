//! Every kind of ask is one object: tool calls, questions and plans; bound to what was shown, and judged by the policy.

use clawd_protocol::Limits;
use clawd_protocol::policy::{Mode, Policy, Verdict, WhenNobodyListens};
use clawd_tests::client::names;
use clawd_tests::story::{Story, about_to_use, asks, line};
use clawd_tests::{Act, Crash, World};
use serde_json::{Value, json};

fn make() -> Story {
    Story::with(vec![vec![Act::bash("make"), Act::say("made")]])
}

fn question() -> Value {
    json!({"questions": [
        {"question": "Which color?", "header": "Color", "multiSelect": false,
            "options": [{"label": "Blue", "description": "as the sky"}]},
        {"question": "Which size?", "header": "Size", "multiSelect": false, "options": []},
    ]})
}

fn asked(name: &str, input: Value) -> Story {
    Story::with(vec![vec![Act::Ask { name: name.to_owned(), input }]])
}

fn kind(refused: &clawd_tests::RpcError) -> &str {
    refused.data["kind"].as_str().unwrap_or_default()
}

// --- one object -------------------------------------------------------------------------------------------------

#[test]
fn an_approval_says_all_that_a_decision_needs() {
    let mut story = make();
    let listed = story.waiting()[0].clone();
    let events = story.world.events(story.owner);
    let told = events.iter().find(|event| event.name == "tool.approvalRequested").expect("told");
    for key in [
        "approval_id",
        "sessionId",
        "sessionTitle",
        "toolCallId",
        "kind",
        "tool",
        "args_summary",
        "risk",
        "rule",
        "reason",
        "requested_at",
        "expires_at",
    ] {
        assert_eq!(told.params[key], listed[key], "{key}");
    }
    assert_eq!(listed["input"], json!({"command": "make"}));
    assert_eq!(told.params["toolCall"]["input"], listed["input"]);
    assert_eq!(told.params["toolCall"]["approvalId"], listed["approval_id"]);
    assert_eq!(listed["sessionTitle"], "repo");
    assert_eq!(listed["kind"], "tool");
    assert_eq!(listed["args_summary"], r#"{"command":"make"}"#);
    assert_eq!(listed["reason"], "it may change something, and no rule allows it");
    let id = listed["approval_id"].as_str().expect("an id");
    assert!(id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
}

#[test]
fn h6_all_methods_act_on_one_object() {
    let mut story = make();
    let id = story.approval();
    let grant = json!({"approval_id": id, "decision": "grant"});
    let answer = story.ask("approval.respond", grant.clone()).expect("granted");
    assert_eq!(answer, json!({"approval_id": id, "decision": "grant"}));
    assert_eq!(story.deeds(), 1);
    let params = story.params();
    assert_eq!(story.ask("tool.approve", params.clone()).expect("the same")["approved"], true);
    assert_eq!(story.ask("approval.respond", grant).expect("the same"), answer);
    let late = story.ask("tool.reject", params).expect_err("decided");
    assert_eq!((kind(&late), &late.data["by"]), ("already_decided", &json!("owner")));
    let deny = json!({"approval_id": id, "decision": "deny"});
    let late = story.ask("approval.respond", deny).expect_err("decided");
    assert_eq!(kind(&late), "already_decided");
    assert!(late.data["at"].is_string() && late.data["decision"] == "allow_once", "{late:?}");
    assert_eq!(story.deeds(), 1);
}

#[test]
fn h6_a_bad_answer_names_its_field_and_decides_nothing() {
    let mut story = make();
    let id = story.approval();
    for (params, field) in [
        (json!({"decision": "grant"}), "approval_id"),
        (json!({"approval_id": "x", "decision": "grant"}), "approval_id"),
        (json!({"approval_id": id}), "decision"),
        (json!({"approval_id": id, "decision": "allow"}), "decision"),
        (json!({"approval_id": id, "decision": "grant", "scope": "ever"}), "scope"),
        (json!({"approval_id": id, "decision": "grant", "answers": {"a": "b"}}), "answers"),
        (json!({"approval_id": id, "decision": "grant", "answers": ["a"]}), "answers"),
        (json!({"approval_id": id, "decision": "deny", "reason": 7}), "reason"),
        (json!({"approval_id": id, "decision": "deny", "reason": "x".repeat(20_000)}), "reason"),
    ] {
        let refused = story.ask("approval.respond", params).expect_err(field);
        assert_eq!(refused.data["field"], field, "{refused:?}");
    }
    let unknown = json!({"approval_id": "0".repeat(64), "decision": "grant"});
    let refused = story.ask("approval.respond", unknown).expect_err("unknown");
    assert_eq!(kind(&refused), "not_pending");
    assert_eq!((story.deeds(), story.waiting().len()), (0, 1));
}

#[test]
fn h6_only_those_who_may_decide_respond() {
    let mut story = make();
    let id = story.approval();
    let params = json!({"approval_id": id, "decision": "grant"});
    let reader = story.world.pair(story.owner, "read", "tv");
    story.world.call(reader.client, "approval.respond", params.clone()).expect_err("role");
    assert_eq!(story.deeds(), 0);
    let phone = story.world.pair(story.owner, "approve", "phone");
    story.world.call(phone.client, "approval.respond", params).expect("granted");
    assert_eq!(story.deeds(), 1);
}

// --- questions and plans ----------------------------------------------------------------------------------------

#[test]
fn h3_a_question_runs_with_its_answers_and_nothing_else() {
    let mut story = asked("AskUserQuestion", question());
    let listed = story.waiting()[0].clone();
    assert_eq!((&listed["kind"], &listed["input"]), (&json!("question"), &question()));
    let params = json!({"approval_id": listed["approval_id"], "decision": "grant",
        "answers": {"Which size?": "XL", "Which color?": "Blue"}, "updatedInput": {"x": 1}});
    story.ask("approval.respond", params).expect("answered");
    let mut answered = question();
    answered["answers"] = json!({"Which color?": "Blue", "Which size?": "XL"});
    assert_eq!(story.done(), [answered.clone()]);
    assert_eq!(story.stored()["answers"], answered["answers"]);
    assert_eq!(story.stored()["input"], question(), "what was asked stays as it was");
}

#[test]
fn h3_a_question_is_not_granted_without_its_answers() {
    let mut story = asked("AskUserQuestion", question());
    let id = story.approval();
    let long = "x".repeat(20_000);
    for answers in [
        Value::Null,
        json!({}),
        json!("Blue"),
        json!({"Which color?": "Blue"}),
        json!({"Which color?": "Blue", "Which size?": "  "}),
        json!({"Which color?": "Blue", "Which size?": 7}),
        json!({"Which color?": "Blue", "Which size?": "XL", "Which root password?": "x"}),
        json!({"Which color?": "Blue", "Which size?": long}),
    ] {
        let params = json!({"approval_id": id, "decision": "grant", "answers": answers});
        let refused = story.ask("approval.respond", params).expect_err("no answer");
        assert_eq!(refused.data["field"], "answers", "{refused:?}");
    }
    let params = story.params();
    let refused = story.ask("tool.approve", params).expect_err("no answers");
    assert_eq!(refused.data["field"], "answers");
    let mut params = json!({"approval_id": id, "decision": "grant", "scope": "session",
        "answers": {"Which size?": "XL", "Which color?": "Blue"}});
    let refused = story.ask("approval.respond", params.clone()).expect_err("for the session");
    assert_eq!(refused.data["field"], "scope");
    assert_eq!((story.deeds(), story.waiting().len()), (0, 1), "it still waits");
    params["decision"] = json!("deny");
    story.ask("approval.respond", params).expect("denied");
    assert_eq!(story.deeds(), 0);
}

#[test]
fn h1_a_plan_waits_for_a_person_in_every_mode() {
    let plan = json!({"plan": "1. rewrite everything"});
    for mode in [Mode::None, Mode::Destructive, Mode::All] {
        let policy = Policy { mode, ..Policy::default() };
        for (name, kind, input) in
            [("ExitPlanMode", "plan", plan.clone()), ("AskUserQuestion", "question", question())]
        {
            let ask = Act::Ask { name: name.to_owned(), input };
            let rules = [(Verdict::Allow, "Read")];
            let mut story = Story::under(policy.clone(), &rules, vec![vec![ask]]);
            assert_eq!(story.waiting()[0]["kind"], kind, "{mode:?}");
            assert_eq!(story.deeds(), 0);
        }
    }
    let mut story = asked("ExitPlanMode", plan.clone());
    story.respond("grant").expect("granted");
    assert_eq!(story.done(), [plan]);
}

// --- bound to what was shown ------------------------------------------------------------------------------------

#[test]
fn h3_an_ask_with_another_input_is_another_approval() {
    let script = vec![asks("ask_1", "toolu_x", "make"), asks("ask_2", "toolu_x", "make install")];
    let mut story = Story::with(vec![[script, vec![Act::Hang]].concat()]);
    let waiting = story.waiting();
    assert_eq!(waiting.len(), 2);
    assert_ne!(waiting[0]["approval_id"], waiting[1]["approval_id"]);
    let make = waiting.iter().find(|it| it["input"]["command"] == "make").expect("make");
    let params = json!({"approval_id": make["approval_id"], "decision": "grant"});
    // The agent hangs, so nobody is told that it has taken the answer; it is given to it all the same.
    story.world.ask(story.owner, "approval.respond", params);
    story.world.settle();
    let fed = story.fed();
    assert!(fed.contains("ask_1") && !fed.contains("ask_2"), "{fed}");
    let left = story.waiting();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0]["input"]["command"], "make install");
}

#[test]
fn h3_identical_asks_in_a_row_stay_apart() {
    let mut story = Story::with(vec![vec![Act::bash("make"), Act::bash("make")]]);
    let first = story.approval();
    let grant = json!({"approval_id": first, "decision": "grant"});
    story.ask("approval.respond", grant.clone()).expect("granted");
    let second = story.approval();
    assert_ne!(first, second);
    story.ask("approval.respond", grant).expect("the same answer again");
    assert_eq!((story.deeds(), story.waiting().len()), (1, 1), "the second still waits");
    let deny = json!({"approval_id": second, "decision": "deny"});
    story.ask("approval.respond", deny).expect("denied");
    assert_eq!(story.deeds(), 1);
}

#[test]
fn h3_a_call_that_is_asked_for_twice_is_decided_on_once() {
    for second in ["ask_1", "ask_2"] {
        let asks = vec![asks("ask_1", "toolu_x", "make"), asks(second, "toolu_x", "make")];
        let wait = Act::Wait(std::time::Duration::from_secs(600));
        let mut story = Story::with(vec![[asks, vec![wait]].concat()]);
        assert_eq!(story.waiting().len(), 1, "one ask of {second} and its twin");
        story.respond("grant").expect("granted");
        let fed = story.fed();
        let allowed: Vec<_> = fed.lines().filter(|line| line.contains("\"allow\"")).collect();
        assert!(allowed.len() == 1 && allowed[0].contains("ask_1"), "{fed}");
        let denied = fed.lines().filter(|line| line.contains("\"deny\"")).count();
        assert_eq!(denied, usize::from(second == "ask_2"), "{fed}");
        assert!(story.waiting().is_empty());
    }
}

#[test]
fn h6_an_approval_that_expired_is_not_granted_any_more() {
    let mut story = make();
    let id = story.approval();
    story.later(601);
    let params = json!({"approval_id": id, "decision": "grant"});
    let refused = story.ask("approval.respond", params).expect_err("too late");
    assert_eq!(kind(&refused), "already_decided");
    assert_eq!(
        (&refused.data["by"], &refused.data["decision"]),
        (&json!("daemon"), &json!("expired"))
    );
    assert_eq!(story.deeds(), 0);
}

#[test]
fn h6_what_an_agent_says_after_a_cancel_changes_nothing() {
    let mut story = Story::with(vec![vec![Act::bash("make")]]);
    let id = story.approval();
    let params = json!({"sessionId": story.session});
    story.ask("session.cancel", params).expect("cancelled");
    story.later(1);
    let proc = *story.world.agents().first_key_value().expect("an agent").0;
    let ask = json!({"type": "control_request", "request_id": "late", "request": {
        "subtype": "can_use_tool", "tool_name": "Bash", "input": {"command": "make"},
        "tool_use_id": "toolu_late"}});
    let result = json!({"type": "user", "message": {"role": "user", "content": [
        {"tool_use_id": "toolu_late", "type": "tool_result", "content": "done"}]}});
    for line in [ask, result] {
        let bytes = format!("{line}\n");
        let stream = clawd_protocol::Stream::Out;
        let input = clawd_protocol::Input::Output { proc, stream, bytes: bytes.as_bytes() };
        story.world.input(input);
        story.world.settle();
    }
    assert!(story.waiting().is_empty());
    let fed = story.fed();
    let answer = fed.lines().find(|line| line.contains("\"late\"")).expect("it is answered");
    assert!(answer.contains("\"deny\""), "{answer}");
    let params = json!({"approval_id": id, "decision": "grant"});
    story.ask("approval.respond", params).expect_err("cancelled");
    assert_eq!((story.deeds(), story.calls().len()), (0, 1));
}

#[test]
fn h1_an_agent_that_dies_between_ask_and_answer_does_nothing() {
    for (is_known_first, why) in [(true, "already_decided"), (false, "provider_not_available")] {
        let mut story = make();
        let id = story.approval();
        story.world.hold_store();
        let params = json!({"approval_id": id, "decision": "grant"});
        let asked = story.world.ask(story.owner, "approval.respond", params);
        let proc = *story.world.agents().first_key_value().expect("an agent").0;
        story.world.execute(clawd_protocol::Effect::Kill { proc });
        if is_known_first {
            story.world.settle();
        }
        story.world.release_store();
        let answer = story.world.answer(story.owner, &asked).expect("an answer");
        assert_eq!(kind(&answer.expect_err("nobody took it")), why);
        story.later(5);
        assert_eq!((story.deeds(), story.waiting().len()), (0, 0));
        assert_eq!(story.stored()["status"], "error");
        assert_eq!(story.view()["status"], "error");
    }
}

// --- shown whole ------------------------------------------------------------------------------------------------

#[test]
fn h4_a_payload_is_on_the_wire_exactly_and_its_summary_is_safe() {
    let payload = "echo \u{1b}[2J\u{202e}txt.exe\u{202c}\r\n# nothing to see\u{200b} \"\\u{1b}\"";
    let mut story = Story::with(vec![vec![Act::bash(payload)]]);
    let listed = story.waiting()[0].clone();
    assert_eq!(listed["input"]["command"], payload);
    let summary = listed["args_summary"].as_str().expect("a summary");
    assert!(!summary.chars().any(clawd_protocol::text::is_hidden), "{summary:?}");
    story.respond("grant").expect("granted");
    assert_eq!(story.done(), [json!({"command": payload})]);
}

#[test]
fn h4_a_megabyte_is_shown_whole_and_its_summary_says_how_much_it_leaves_out() {
    let payload = format!("echo {}; rm -rf /", "x".repeat(1_000_000));
    let mut story = Story::with(vec![vec![Act::bash(&payload)]]);
    let listed = story.waiting()[0].clone();
    assert!(listed["input"]["command"] == payload, "it is whole");
    let summary = listed["args_summary"].as_str().expect("a summary");
    assert!(summary.len() < 200 && summary.ends_with(" more bytes"), "{summary}");
    let events = story.world.events(story.owner);
    let told = events.iter().find(|event| event.name == "tool.approvalRequested").expect("told");
    assert!(told.params["toolCall"]["input"]["command"] == payload, "it is whole");
    story.respond("grant").expect("granted");
    assert!(story.done() == [json!({"command": payload})], "it is whole");
}

#[test]
fn h4_what_cannot_be_shown_is_denied_on_record() {
    let limits = Limits { tool_input_max: 100, ..Limits::default() };
    let large = asks("ask_x", "toolu_x", &"x".repeat(200));
    let malformed = line(&json!({"type": "control_request", "request_id": "ask_x", "request": {
        "subtype": "can_use_tool", "tool_name": "Bash", "tool_use_id": "toolu_x", "input": "ls"}}));
    for (ask, why) in [(large, "more than the 100"), (malformed, "not an object")] {
        let script = vec![vec![ask, Act::bash("make")]];
        let mut story = Story::in_world(World::new(limits.clone()), script);
        assert_eq!(story.waiting().len(), 1, "only the other one");
        let first = story.stored();
        assert_eq!(first["decision"]["kind"], "deny");
        assert_eq!((&first["decision"]["by"], &first["name"]), (&json!("daemon"), &json!("Bash")));
        let fed = story.fed();
        let answer = fed.lines().find(|line| line.contains("\"ask_x\"")).expect("an answer");
        assert!(answer.contains("\"deny\"") && answer.contains(why), "{answer}");
    }
}

#[test]
fn h4_a_list_that_leaves_something_out_says_so() {
    let limits = Limits { page_bytes_max: 10, ..Limits::default() };
    let asks = (0..3).map(|n| asks(&format!("ask_{n}"), &format!("toolu_{n}"), "make"));
    let script = vec![asks.chain([Act::Hang]).collect()];
    let mut story = Story::in_world(World::new(limits), script);
    let list = story.ask("approval.list", json!({})).expect("a list");
    assert_eq!((list["approvals"].as_array().map(Vec::len), &list["more"]), (Some(1), &json!(2)));
}

// --- the policy -------------------------------------------------------------------------------------------------

#[test]
fn h6_what_a_rule_allows_is_done_unasked_and_on_record() {
    let rules = [(Verdict::Allow, "Bash(make)")];
    let script = vec![vec![Act::bash("make"), Act::bash("make install")]];
    let mut story = Story::under(Policy::default(), &rules, script);
    assert_eq!(story.done(), [json!({"command": "make"})]);
    let first = story.stored();
    assert_eq!(first["decision"]["by"], "policy");
    assert_eq!(
        (&first["decision"]["kind"], &first["rule"]),
        (&json!("allow_once"), &json!("allow Bash(make)"))
    );
    assert_eq!(first["requiresApproval"], false);
    assert_eq!(story.waiting().len(), 1, "the second is asked for");
    let events = story.world.events(story.owner);
    let asked = names(&events).iter().filter(|name| **name == "tool.approvalRequested").count();
    assert_eq!(asked, 1);
}

#[test]
fn h1_what_a_rule_allows_is_done_only_once_that_is_on_disk() {
    let rules = [(Verdict::Allow, "Bash(make)")];
    let wait = Act::Wait(std::time::Duration::from_secs(1));
    let script = vec![vec![wait, Act::bash("make")]];
    let mut story = Story::under(Policy::default(), &rules, script);
    story.world.hold_store();
    story.later(5);
    assert_eq!(story.deeds(), 0);
    story.world.release_store();
    assert_eq!(story.deeds(), 1);
    let script = vec![vec![Act::Wait(std::time::Duration::from_secs(1)), Act::bash("make")]];
    let mut story = Story::under(Policy::default(), &rules, script);
    story.world.fail_store(Some(clawd_protocol::StoreFault::Full));
    story.later(5);
    assert_eq!(story.deeds(), 0);
}

#[test]
fn h6_what_a_rule_denies_is_denied_at_once_with_its_reason() {
    let rules = [(Verdict::Deny, "Bash(rm)"), (Verdict::Allow, "Bash(rm)")];
    let script = vec![vec![Act::bash("rm x"), Act::say("sorry")]];
    let mut story = Story::under(Policy::default(), &rules, script);
    assert_eq!((story.deeds(), story.waiting().len()), (0, 0));
    let first = story.stored();
    assert_eq!(
        (&first["decision"]["by"], &first["rule"]),
        (&json!("policy"), &json!("deny Bash(rm)"))
    );
    assert!(story.fed().contains("The owner's policy denies this (Bash(rm))"), "{}", story.fed());
    assert_eq!(story.view()["status"], "idle", "the agent goes on");
}

#[test]
fn h2_whether_the_agent_may_pass_depends_on_mode_and_rules() {
    let read = json!({"file_path": "/repo/a"});
    let secret = json!({"file_path": "/repo/.env"});
    let all = Policy { mode: Mode::All, ..Policy::default() };
    let rules = [(Verdict::Deny, "Read(.env)")];
    for (policy, rules, input, must_ask) in [
        (Policy::default(), &rules[..], &read, false),
        (Policy::default(), &rules[..], &secret, true),
        (all, &[][..], &read, true),
    ] {
        let hook = about_to_use("Read", input);
        let story = Story::under(policy, rules, vec![vec![hook, Act::Hang]]);
        let fed = story.fed();
        let answer = fed.lines().find(|line| line.contains("hook_x")).expect("an answer");
        assert_eq!(answer.contains("\"permissionDecision\":\"ask\""), must_ask, "{answer}");
    }
}

#[test]
fn h1_where_nobody_listens_the_answer_may_be_no() {
    let wait = Act::Wait(std::time::Duration::from_secs(1));
    for (when, role, waits) in [
        (WhenNobodyListens::Deny, None, 0),
        (WhenNobodyListens::Deny, Some("read"), 0),
        (WhenNobodyListens::Deny, Some("approve"), 1),
        (WhenNobodyListens::Wait, None, 1),
    ] {
        let policy = Policy { when_nobody_listens: when, ..Policy::default() };
        let script = vec![vec![wait.clone(), Act::bash("make")]];
        let mut story = Story::under(policy, &[], script);
        if let Some(role) = role {
            story.world.pair(story.owner, role, "phone");
        }
        story.world.hang_up(story.owner.conn);
        story.later(5);
        story.owner = story.world.owner();
        assert_eq!((story.waiting().len(), story.deeds()), (waits, 0), "{when:?} {role:?}");
        if waits == 0 {
            assert!(story.fed().contains("Nobody is connected"), "{}", story.fed());
            assert_eq!(story.stored()["decision"]["kind"], "deny");
        }
    }
}

#[test]
fn h6_what_is_denied_by_now_is_blocked_whoever_allows_it() {
    let mut story = make();
    let deny = clawd_protocol::policy::Rule::parse(Verdict::Deny, "Bash(make)").expect("a rule");
    story.world.change_policy(Policy { rules: vec![deny], ..Policy::default() });
    story.restart(Crash::Lost, vec![vec![Act::bash("make")]]);
    let refused = story.respond("grant").expect_err("blocked");
    assert_eq!((refused.code, kind(&refused)), (-32028, "tool_blocked"));
    story.later(5);
    assert_eq!((story.deeds(), story.waiting().len()), (0, 0));
    assert_eq!(story.stored()["decision"]["by"], "policy");
}
