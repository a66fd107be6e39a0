//! `clawd attach` on a pseudo-terminal: typing, deciding, interrupting, leaving, while others drive the session too.

use std::path::PathBuf;

use clawd_tests::daemon::{Client, Daemon, PATIENCE, Session, Site, Terminal, skip, wait_until};
use serde_json::json;

/// The end of the question; what is typed before it is there does not count.
const ASKED: &str = "(Enter alone denies): ";
const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";

/// A daemon, a session in it, and its owner, who watches from elsewhere.
struct Desk {
    site: Site,
    _daemon: Daemon,
    owner: Client,
    session: String,
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

    fn mark(&self) -> PathBuf {
        self.site.repo().join("mark")
    }

    fn ask(&self) -> String {
        format!("tool touch {}", self.mark().display())
    }

    /// Attached, with the prompt or the turn on the screen; nothing where there is no `setsid`.
    fn attach(&self, test: &str) -> Option<Session> {
        let Some(terminal) = Terminal::open(100, 50) else {
            skip(test, "there is no setsid of util-linux");
            return None;
        };
        let mut seat = terminal.run(&self.site.command(&["attach", &self.session[..6]]));
        seat.wait_for("Ctrl-D detaches");
        Some(seat)
    }

    fn wait_pending(&mut self) -> String {
        let session = self.session.clone();
        let asked =
            self.owner.wait_event("tool.approvalRequested", |it| it["sessionId"] == session);
        asked["toolCall"]["id"].as_str().expect("an id").to_owned()
    }
}

/// Waits until `text` has been written so many times.
fn wait_times(seat: &mut Session, text: &str, times: usize) {
    let found = seat.process.wait_for(|all| (all.matches(text).count() >= times).then_some(()));
    assert!(found.is_some(), "ended without {times} × `{text}`:\n{}", seat.process.output());
}

#[test]
fn a_typed_line_is_said_and_its_answer_streamed() {
    let desk = Desk::new();
    let Some(mut seat) = desk.attach("a_typed_line_is_said") else { return };
    seat.wait_for("> ");
    seat.press("say first answer\n");
    seat.wait_for("first answer\r\n✓ done in");
    seat.press("say second answer\n");
    seat.wait_for("second answer\r\n✓ done in");
    seat.press(CTRL_D);
    let (code, output) = seat.end();
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("detached from session"), "{output}");
    assert_eq!(output.matches("first answer").count(), 2, "typed and said, once each: {output}");
}

#[test]
fn the_end_of_the_conversation_comes_first_and_once() {
    let mut desk = Desk::new();
    let session = desk.session.clone();
    desk.owner.turn(&session, "say what was said");
    let Some(mut seat) = desk.attach("the_end_of_the_conversation") else { return };
    seat.wait_for("> ");
    seat.press(CTRL_D);
    let (_, output) = seat.end();
    let words = "what was said";
    assert_eq!(output.matches(words).count(), 2, "asked and answered: {output}");
}

#[test]
fn k2_attach_runs_a_tool_after_an_explicit_yes_only() {
    let mut desk = Desk::new();
    let Some(mut seat) = desk.attach("k2_attach_runs_a_tool") else { return };
    seat.wait_for("> ");
    seat.press(&format!("{}\n", desk.ask()));
    seat.wait_for(ASKED);
    desk.wait_pending();
    assert!(!desk.mark().exists(), "it ran before it was allowed");
    seat.press("y\n");
    seat.wait_for("done in");
    assert!(desk.mark().exists());
    seat.press(CTRL_D);
    assert_eq!(seat.end().0, Some(0));
}

#[test]
fn k2_attach_denies_with_n_with_enter_and_with_ctrl_d() {
    for key in ["n\n", "\n", CTRL_D] {
        let desk = Desk::new();
        let Some(mut seat) = desk.attach("k2_attach_denies") else { return };
        seat.wait_for("> ");
        seat.press(&format!("{}\n", desk.ask()));
        seat.wait_for(ASKED);
        seat.press(key);
        seat.wait_for("Bash denied");
        seat.wait_for("done in");
        assert!(!desk.mark().exists());
        seat.press(CTRL_D);
        assert_eq!(seat.end().0, Some(0));
    }
}

#[test]
fn k2_attach_takes_nothing_typed_ahead_for_an_answer() {
    let mut desk = Desk::new();
    let session = desk.session.clone();
    let Some(mut seat) = desk.attach("k2_attach_typed_ahead") else { return };
    seat.wait_for("> ");
    // Half a line, typed before anybody knew that a question would come.
    seat.press("y");
    let ask = desk.ask();
    desk.owner.prompt(&session, &ask).expect("taken");
    seat.wait_for(ASKED);
    seat.press("\n");
    seat.wait_for("Bash denied");
    seat.wait_for("done in");
    assert!(!desk.mark().exists());
}

#[test]
fn k2_attach_a_closed_terminal_denies_what_it_asked() {
    let mut desk = Desk::new();
    let session = desk.session.clone();
    let Some(mut seat) = desk.attach("k2_attach_a_closed_terminal") else { return };
    seat.wait_for("> ");
    let ask = desk.ask();
    desk.owner.prompt(&session, &ask).expect("taken");
    seat.wait_for(ASKED);
    let mut process = seat.close();
    let resolved = desk.owner.wait_event("tool.approvalResolved", |_| true);
    assert_eq!(resolved["kind"], "deny", "{resolved}");
    process.wait();
    assert!(!desk.mark().exists());
}

#[test]
fn a_turn_that_runs_already_is_joined_and_asked_about() {
    let mut desk = Desk::new();
    let session = desk.session.clone();
    let ask = format!("say before\n{}", desk.ask());
    desk.owner.prompt(&session, &ask).expect("taken");
    desk.wait_pending();
    let Some(mut seat) = desk.attach("a_turn_that_runs_already") else { return };
    seat.wait_for(ASKED);
    seat.press("y\n");
    seat.wait_for("done in");
    assert!(desk.mark().exists());
    seat.press(CTRL_D);
    let (_, output) = seat.end();
    assert!(output.contains("before\r\n"), "what was said before we came: {output}");
}

#[test]
fn somebody_elses_prompt_and_decision_are_seen() {
    let mut desk = Desk::new();
    let session = desk.session.clone();
    let Some(mut seat) = desk.attach("somebody_elses_prompt") else { return };
    seat.wait_for("> ");
    let ask = desk.ask();
    desk.owner.prompt(&session, &ask).expect("taken");
    seat.wait_for(&format!("> {ask}"));
    seat.wait_for(ASKED);
    let call = desk.wait_pending();
    let params = json!({"sessionId": session, "toolCallId": call});
    desk.owner.call("tool.approve", params).expect("first");
    seat.wait_for("this was decided elsewhere");
    seat.wait_for("done in");
    assert!(desk.mark().exists());
    seat.press("say still here\n");
    seat.wait_for("still here\r\n✓ done in");
}

#[test]
fn ctrl_c_interrupts_and_the_session_goes_on() {
    let desk = Desk::new();
    let Some(mut seat) = desk.attach("ctrl_c_interrupts") else { return };
    seat.wait_for("> ");
    seat.press("hang\n");
    seat.wait_for("hang\r\n");
    // Only a turn that is seen to run can be interrupted.
    wait_until("the turn runs", PATIENCE, || {
        let (_, out, _) = desk.site.run(&["session", "list", "--json=status"]);
        out.contains("running")
    });
    seat.press(CTRL_C);
    seat.wait_for("interrupting the turn; Ctrl-C again to detach");
    seat.wait_for("interrupted after");
    seat.press("say on we go\n");
    seat.wait_for("on we go\r\n✓ done in");
    seat.press(CTRL_C);
    seat.wait_for("Ctrl-C again or Ctrl-D to detach");
    seat.press(CTRL_C);
    let (code, output) = seat.end();
    assert_eq!(code, Some(0), "{output}");
}

#[test]
fn what_is_typed_while_a_turn_runs_is_said_after_it() {
    let mut desk = Desk::new();
    let session = desk.session.clone();
    let Some(mut seat) = desk.attach("what_is_typed_while_a_turn_runs") else { return };
    seat.wait_for("> ");
    desk.owner.prompt(&session, "say now\nhang").expect("taken");
    seat.wait_for("now");
    seat.press("say afterwards\n");
    seat.wait_for("sent when this turn is over");
    desk.owner.call("session.cancel", json!({"sessionId": session})).expect("cancelled");
    wait_times(&mut seat, "afterwards", 2);
    wait_times(&mut seat, "done in", 2);
    let texts = desk.owner.call("session.getMessages", json!({"sessionId": session})).unwrap();
    assert!(texts.to_string().contains("\"say afterwards\""), "{texts}");
}

#[test]
fn a_pasted_text_is_one_message() {
    let desk = Desk::new();
    let Some(mut seat) = desk.attach("a_pasted_text") else { return };
    seat.wait_for("> ");
    seat.press("say one\nsay two\n");
    seat.wait_for("done in");
    seat.press(CTRL_D);
    let (_, output) = seat.end();
    assert!(output.contains("two"), "{output}");
    assert_eq!(output.matches("done in").count(), 1, "{output}");
}

#[test]
fn k1_attach_shows_what_models_say_and_does_not_obey_it() {
    let mut desk = Desk::new();
    let session = desk.session.clone();
    let evil = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{202e}\u{9b}31m";
    desk.owner.turn(&session, &format!("say past {evil}"));
    let Some(mut seat) = desk.attach("k1_attach") else { return };
    seat.wait_for("> ");
    desk.owner.turn(&session, &format!("say present {evil}"));
    seat.wait_for("done in");
    let command = format!("true {evil}");
    desk.owner.prompt(&session, &format!("tool {command}")).expect("taken");
    seat.wait_for(ASKED);
    seat.press("n\n");
    wait_times(&mut seat, "done in", 2);
    seat.press(CTRL_D);
    let (_, output) = seat.end();
    assert!(output.contains(r"past \u{1b}]0;owned\u{7}"), "{output}");
    assert!(output.contains(r"present \u{1b}]0;owned\u{7}"), "{output}");
    for char in ['\u{1b}', '\u{7}', '\u{202e}', '\u{9b}'] {
        assert!(!output.contains(char), "{char:?} reached the terminal: {output:?}");
    }
}

#[test]
fn a_deleted_session_and_a_dead_daemon_end_it_with_a_word() {
    let mut desk = Desk::new();
    let session = desk.session.clone();
    let Some(mut seat) = desk.attach("a_deleted_session") else { return };
    seat.wait_for("> ");
    desk.owner.call("session.delete", json!({"sessionId": session})).expect("deleted");
    let (code, output) = seat.end();
    assert_eq!(code, Some(9), "{output}");
    assert!(output.contains("the session was deleted"), "{output}");
    let desk = Desk::new();
    let Some(mut seat) = desk.attach("a_dead_daemon") else { return };
    seat.wait_for("> ");
    let Desk { site: _site, _daemon, .. } = desk;
    _daemon.kill();
    let (code, output) = seat.end();
    assert_eq!(code, Some(6), "{output}");
    assert!(output.contains("the daemon has ended"), "{output}");
}
