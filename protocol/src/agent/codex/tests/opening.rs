//! Conversations are opened on our terms, or not at all.

use super::*;

#[test]
fn a_conversation_is_opened_when_all_that_matters_is_known() {
    let mut desk = Desk::new();
    desk.begin(LANE, None);
    desk.prompt(LANE, "hello");
    assert_eq!(desk.methods(), ["initialize"]);
    // Nothing but its own answer makes codex ready.
    desk.hear(&json!({"id": 7, "result": {"codexHome": "/x"}}));
    desk.hear(&json!({"id": "1", "result": {"codexHome": "/x"}}));
    assert_eq!(desk.methods(), Vec::<String>::new());
    let mut desk = Desk::new();
    desk.begin(LANE, None);
    desk.prompt(LANE, "hello");
    desk.greet();
    desk.vet();
    let start = desk.last().clone();
    assert_eq!(start["method"], "thread/start");
    assert_eq!(start["params"]["approvalPolicy"], "untrusted");
    assert_eq!(start["params"]["approvalsReviewer"], "user");
    assert_eq!(start["params"]["sandbox"], "read-only");
    let untrusted = json!({"trust_level": "untrusted"});
    let projects = json!({"/repo": untrusted, "/trusted": untrusted});
    assert_eq!(start["params"]["config"]["projects"], projects);
    desk.opened("t1");
    let turn = desk.last();
    assert_eq!(
        (&turn["method"], &turn["params"]["threadId"]),
        (&json!("turn/start"), &json!("t1"))
    );
    assert_eq!(turn["params"]["input"], json!([{"type": "text", "text": "hello"}]));
    desk.clear();
    desk.reply("turn/start", &json!({"turn": {"id": "u1"}}));
    desk.notify("turn/started", json!({"turn": {"id": "u1"}}));
    desk.tells(&[AgentEvent::Began {
        conversation: "t1",
        model: Some("gpt-5.5"),
        version: Some("0.169.0"),
        api_key_source: None,
    }]);
}

#[test]
fn a_conversation_is_continued_by_its_name() {
    let mut desk = Desk::new();
    desk.greet();
    desk.begin(LANE, Some("t9"));
    desk.vet();
    assert_eq!(desk.last()["method"], "thread/resume");
    assert_eq!(desk.last()["params"]["threadId"], "t9");
    assert_eq!(desk.last()["params"]["excludeTurns"], true);
    desk.prompt(LANE, "go on");
    desk.clear();
    desk.refuse("thread/resume", "no rollout found for thread id t9");
    let error = "no rollout found for thread id t9";
    let missing = TurnEnd { is_not_found: true, ..end(Outcome::Failed, error) };
    desk.tells(&[AgentEvent::TurnEnded(missing)]);
    // The next turn begins a new one.
    desk.said.clear();
    desk.prompt(LANE, "again");
    desk.vet();
    assert_eq!(desk.last()["method"], "thread/start");
}

#[test]
fn h1_codex_has_to_agree_to_ask() {
    for (field, value) in [
        ("approvalPolicy", json!("never")),
        ("approvalPolicy", json!("on-request")),
        ("approvalPolicy", json!({"granular": {}})),
        ("approvalPolicy", json!(null)),
        ("approvalsReviewer", json!("auto_review")),
        ("sandbox", json!({"type": "dangerFullAccess"})),
        ("thread", json!({})),
    ] {
        let mut desk = Desk::new();
        desk.begin(LANE, None);
        desk.prompt(LANE, "hello");
        desk.greet();
        desk.vet();
        desk.clear();
        let mut answer = agreed("t1");
        answer[field] = value.clone();
        desk.reply("thread/start", &answer);
        assert!(desk.told.iter().any(|(_, event)| event.contains("TurnEnded")), "{field} {value}");
        assert!(!desk.said.iter().any(|line| line["method"] == "turn/start"), "{field} {value}");
    }
}

#[test]
fn h1_rules_of_its_own_end_the_turn_before_it_begins() {
    let mut desk = Desk::new();
    desk.greet();
    desk.begin(LANE, None);
    desk.prompt(LANE, "hello");
    desk.reply("account/read", &json!({}));
    desk.reply("config/read", &json!({"config": {}}));
    desk.reply("fs/readDirectory", &json!({"entries": []}));
    let own =
        desk.said.iter().find(|line| line["params"]["path"] == "/h/rules").unwrap()["id"].clone();
    desk.hear(&json!({"id": own, "result": {"entries": [{"fileName": "default.rules"}]}}));
    assert_eq!(desk.last()["params"]["path"], "/h/rules/default.rules");
    desk.clear();
    // prefix_rule(pattern=['touch'])
    let rule = "cHJlZml4X3J1bGUocGF0dGVybj1bJ3RvdWNoJ10pCg==";
    desk.reply("fs/readFile", &json!({"dataBase64": rule}));
    assert!(desk.told[0].1.contains("/h/rules/default.rules"), "{:?}", desk.told);
    assert!(!desk.said.iter().any(|line| line["method"] == "thread/start"));
}

#[test]
fn codex_that_cannot_be_greeted_fails_the_turn_and_is_greeted_again() {
    let mut desk = Desk::new();
    desk.begin(LANE, None);
    desk.prompt(LANE, "hello");
    desk.refuse("initialize", "no");
    desk.tells(&[ended(Outcome::Failed, "codex did not say how it is set up")]);
    desk.said.clear();
    desk.prompt(LANE, "hello");
    assert_eq!(desk.methods(), ["initialize"]);
}
