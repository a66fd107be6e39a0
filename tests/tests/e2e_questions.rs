//! Questions and plans: asked in `clawd run`, `attach` and `approve`, answered at a terminal and without one.

use clawd_tests::daemon::{Client, Daemon, Session, Site, Terminal, skip};
use serde_json::{Value, json};

/// The end of the question; what is typed before it is there does not count.
const ASKED: &str = "(Enter alone denies): ";
const CTRL_D: &str = "\x04";
/// What a model might say to a terminal.
const EVIL: &str = "\u{1b}[2J\u{202e}\n[y] once";

/// A daemon, and a session in it.
struct Desk {
    site: Site,
    _daemon: Daemon,
    owner: Client,
    session: String,
}

fn two_questions() -> String {
    let list = json!([
        {"question": "Which color?", "header": "Color", "multiSelect": false, "options": [
            {"label": "Blue", "description": "calm"}, {"label": "Red", "description": "loud"}]},
        {"question": "Which sizes?", "header": "Size", "multiSelect": true, "options": [
            {"label": "Small", "description": ""}, {"label": "Large", "description": ""}]},
    ]);
    format!("question {list}")
}

fn one_question(question: &str) -> String {
    let list = json!([{"question": question, "header": "Name", "options": []}]);
    format!("question {list}")
}

impl Desk {
    fn new() -> Self {
        let mut site = Site::new();
        site.env.push(("NO_COLOR".to_owned(), "1".to_owned()));
        let daemon = site.start();
        let mut owner = daemon.owner();
        let session = owner.create_session(&site.repo());
        Self { site, _daemon: daemon, owner, session }
    }

    /// The agent asks this; the approval's id.
    fn ask(&mut self, prompt: &str) -> String {
        let session = self.session.clone();
        self.owner.prompt(&session, prompt).expect("taken");
        let asked =
            self.owner.wait_event("tool.approvalRequested", |it| it["sessionId"] == *session);
        asked["approval_id"].as_str().expect("an id").to_owned()
    }

    fn run(&self, code: i32, args: &[&str]) -> (String, String) {
        let (got, out, err) = self.site.run(args);
        assert_eq!(got, Some(code), "clawd {args:?}\n{out}\n{err}");
        (out, err)
    }

    /// What came of the call: its status, and what the agent was told.
    fn outcome(&mut self) -> Value {
        let session = self.session.clone();
        self.owner.wait_idle(&session);
        let calls = self.owner.call("session.toolCalls", json!({"sessionId": session})).unwrap();
        calls[0].clone()
    }

    fn at_terminal(&self, test: &str, args: &[&str]) -> Option<Session> {
        let terminal = Terminal::open(80, 50);
        if terminal.is_none() {
            skip(test, "there is no setsid of util-linux");
        }
        terminal.map(|terminal| terminal.run(&self.site.command(args)))
    }
}

fn wait_asked(shown: &mut Session, times: usize) {
    let found = shown.process.wait_for(|all| (all.matches(ASKED).count() >= times).then_some(()));
    assert!(found.is_some(), "asked fewer than {times} times:\n{}", shown.process.output());
}

#[test]
fn a_question_is_answered_by_number_and_by_text() {
    let mut desk = Desk::new();
    let session = desk.session.clone();
    let args = ["send", &session, "--wait", &two_questions()];
    let Some(mut shown) = desk.at_terminal("a_question_is_answered", &args) else { return };
    wait_asked(&mut shown, 1);
    let output = shown.process.output();
    assert!(output.contains("The agent asks (1 of 2)"), "{output}");
    assert!(output.contains("│ Which color?") && output.contains("│   2  Red: loud"), "{output}");
    assert!(output.contains("[1-2] choose one, or type an answer"), "{output}");
    shown.press("7\n");
    shown.wait_for("there is no choice 7");
    wait_asked(&mut shown, 2);
    shown.press("2\n");
    wait_asked(&mut shown, 3);
    shown.press("1,2\n");
    let (code, output) = shown.end();
    assert_eq!(code, Some(0), "{output}");
    let outcome = desk.outcome();
    let answers = json!({"Which color?": "Red", "Which sizes?": "Small, Large"});
    assert_eq!((&outcome["status"], &outcome["answers"]), (&json!("done"), &answers), "{outcome}");
    assert!(outcome["output"].as_str().unwrap().contains(r#""Red""#), "{outcome}");
}

#[test]
fn attach_answers_a_question_with_what_is_typed() {
    let mut desk = Desk::new();
    let session = desk.session.clone();
    let Some(mut seat) = desk.at_terminal("attach_answers", &["attach", &session]) else { return };
    seat.wait_for("> ");
    seat.press(&format!("{}\n", one_question("What is it called?")));
    wait_asked(&mut seat, 1);
    assert!(seat.process.output().contains("type an answer  [n] deny"));
    seat.press("the 2nd one\n");
    seat.wait_for("done in");
    seat.press(CTRL_D);
    assert_eq!(seat.end().0, Some(0));
    assert_eq!(desk.outcome()["answers"], json!({"What is it called?": "the 2nd one"}));
}

#[test]
fn k2_enter_alone_and_n_leave_a_question_unanswered() {
    for key in ["\n", "n\n", CTRL_D] {
        let mut desk = Desk::new();
        let id = desk.ask(&two_questions());
        let Some(mut shown) = desk.at_terminal("k2_enter_alone", &["approve", &id]) else { return };
        wait_asked(&mut shown, 1);
        shown.press("1\n");
        wait_asked(&mut shown, 2);
        shown.press(key);
        let (code, output) = shown.end();
        assert_eq!(code, Some(7), "{output}");
        let outcome = desk.outcome();
        assert_eq!(outcome["status"], "error", "{outcome}");
        assert_eq!(outcome["answers"], Value::Null, "half an answer is none: {outcome}");
    }
}

#[test]
fn approve_takes_an_answer_for_each_question() {
    let mut desk = Desk::new();
    let id = desk.ask(&two_questions());
    let (out, _) = desk.run(0, &["approvals"]);
    assert!(out.contains("AskUserQuestion\tWhich color?"), "{out}");
    let (_, err) = desk.run(2, &["approve", &id]);
    assert!(err.contains("no terminal") && err.contains("--answer TEXT"), "{err}");
    let (_, err) = desk.run(2, &["approve", &id, "--yes"]);
    assert!(err.contains("needs an answer") && err.contains("--answer TEXT"), "{err}");
    let (_, err) = desk.run(2, &["approve", &id, "--session"]);
    assert!(err.contains("cannot be allowed for the session"), "{err}");
    let (_, err) = desk.run(2, &["approve", &id, "--answer", "Blue"]);
    assert!(err.contains("Which color?") && err.contains("Which sizes?"), "{err}");
    let (_, err) = desk.run(2, &["approve", &id, "--answer", "3", "--answer", "1"]);
    assert!(err.contains("there is no choice 3"), "{err}");
    let args = ["approve", &id, "--answer", "Green", "--answer", "2"];
    let (_, err) = desk.run(0, &args);
    assert!(err.contains("answered (delivered in "), "{err}");
    let answers = json!({"Which color?": "Green", "Which sizes?": "Large"});
    assert_eq!(desk.outcome()["answers"], answers);
    let (_, err) = desk.run(9, &["deny", &id]);
    assert!(err.contains("was allowed once"), "{err}");
}

#[test]
fn without_a_terminal_a_question_is_denied() {
    let desk = Desk::new();
    let dir = desk.site.repo().display().to_string();
    let (_, err) = desk.run(7, &["run", "-C", &dir, &two_questions()]);
    assert!(err.contains("there is no terminal to ask on"), "{err}");
}

#[test]
fn h4_a_plan_is_shown_whole_and_agreed_to_with_y() {
    let mut desk = Desk::new();
    let session = desk.session.clone();
    let steps: Vec<String> = (1..=60).map(|step| format!("{step}. step")).collect();
    let prompt = format!("plan # The plan\\n{}", steps.join("\\n"));
    let args = ["send", &session, "--wait", &prompt];
    let Some(mut shown) = desk.at_terminal("h4_a_plan_is_shown", &args) else { return };
    wait_asked(&mut shown, 1);
    let output = shown.process.output();
    assert!(output.contains("May the agent go on with this plan?"), "{output}");
    assert!(output.contains("│ # The plan\r\n  │ 1. step"), "{output}");
    assert!(output.contains("more bytes  [?] show them") && !output.contains("60. step"));
    shown.press("y\n");
    wait_asked(&mut shown, 2);
    shown.press("?\n");
    wait_asked(&mut shown, 3);
    let output = shown.process.output();
    assert!(output.contains("60. step") && output.contains("[y] go on  [n] deny"), "{output}");
    shown.press("y\n");
    let (code, output) = shown.end();
    assert_eq!(code, Some(0), "{output}");
    let outcome = desk.outcome();
    assert!(outcome["output"].as_str().unwrap().contains("approved your plan"), "{outcome}");
}

#[test]
fn a_plan_is_approved_and_denied_like_a_tool() {
    let mut desk = Desk::new();
    let id = desk.ask("plan 1. look");
    let (_, err) = desk.run(2, &["approve", &id, "--answer", "yes"]);
    assert!(err.contains("is no question"), "{err}");
    let (_, err) = desk.run(2, &["approve", &id, "--session", "--yes"]);
    assert!(err.contains("a plan cannot be allowed for the session"), "{err}");
    desk.run(0, &["approve", &id, "--yes"]);
    assert_eq!(desk.outcome()["status"], "done");
    let id = desk.ask("plan 2. act");
    desk.run(0, &["deny", &id, "-m", "look again"]);
    let session = desk.session.clone();
    desk.owner.wait_idle(&session);
    let calls = desk.owner.call("session.toolCalls", json!({"sessionId": session})).unwrap();
    assert!(calls.to_string().contains("look again"), "{calls}");
}

#[test]
fn k1_a_question_does_not_act_on_the_terminal() {
    let mut desk = Desk::new();
    let id = desk.ask(&one_question(EVIL));
    let Some(mut shown) = desk.at_terminal("k1_a_question", &["approve", &id]) else { return };
    wait_asked(&mut shown, 1);
    shown.press("n\n");
    let (_, output) = shown.end();
    assert!(!output.contains(['\u{1b}', '\u{202e}']), "{output:?}");
    assert!(output.contains("│ [y] once"), "framed: {output}");
}
