//! What a model writes to be taken for something else, through the real daemon to every command that shows it (security
//! H4, K1).

use std::process::Command;

use clawd_tests::daemon::{Client, Daemon, Session, Site, Terminal, skip};
use serde_json::{Value, json};

/// The end of the question.
const ASKED: &str = "(Enter alone denies): ";
/// Titles a window, clears a screen, turns text around, colours, hides, and goes back to the beginning of a line.
const EVIL: &str = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{202e}txt\u{9b}31m\u{200b}\u{2066}\rroot";

struct Desk {
    site: Site,
    _daemon: Daemon,
    owner: Client,
    session: String,
}

impl Desk {
    fn new(section: &str) -> Self {
        let mut site = Site::new();
        site.env.push(("NO_COLOR".to_owned(), "1".to_owned()));
        site.configure(section);
        let daemon = site.start();
        let mut owner = daemon.owner();
        let session = owner.create_session(&site.repo());
        Self { site, _daemon: daemon, owner, session }
    }

    fn wait_asked(&mut self) -> Value {
        self.owner.wait_event("tool.approvalRequested", |_| true)
    }

    fn deny(&mut self, asked: &Value) {
        let params = json!({"approval_id": asked["approval_id"], "decision": "deny"});
        self.owner.call("approval.respond", params).expect("denied");
    }
}

/// Nothing that a terminal would act on, or that nobody sees. Its own line ends are its own.
fn assert_k1(what: &str, text: &str) {
    let text = text.replace("\r\n", "\n");
    let hidden = text.chars().find(|&char| char != '\n' && clawd_protocol::text::is_hidden(char));
    assert!(hidden.is_none_or(|char| char == '\t'), "{what} lets {hidden:?} through: {text:?}");
}

/// Waits until the question was put so many times; what is typed before does not count.
fn wait_asked(shown: &mut Session, times: usize) {
    let is_so = |all: &str| (all.matches(ASKED).count() == times).then_some(());
    shown.process.wait_for(is_so).expect("it is asked again");
}

/// `program` without any terminal; both of its outputs.
fn without_terminal(program: &Command) -> Option<String> {
    let mut alone = Command::new("/usr/bin/setsid");
    alone.arg("--wait").arg(program.get_program()).args(program.get_args()).env_clear();
    alone.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    alone.current_dir(program.get_current_dir().expect("set by the site"));
    let output = alone.stdin(std::process::Stdio::null()).output().ok()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some(text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn k1_no_command_obeys_what_a_model_wrote() {
    let mut desk = Desk::new("");
    let session = desk.session.clone();
    let prompt = format!("say text {EVIL}\ntool true {EVIL}");
    desk.owner
        .call("session.rename", json!({"sessionId": session, "title": "a\tb"}))
        .expect("named");
    desk.owner.prompt(&session, &prompt).expect("taken");
    let asked = desk.wait_asked();
    assert!(asked["toolCall"]["input"]["command"].as_str().expect("it").contains(EVIL), "exactly");
    let (code, waiting, _) = desk.site.run(&["approvals"]);
    assert_eq!(code, Some(0));
    assert!(waiting.contains(r"\u{1b}]0;owned"), "{waiting}");
    desk.deny(&asked);
    desk.owner.wait_idle(&session);
    let (run, send) = (["run", prompt.as_str()], ["send", &session, "--wait", prompt.as_str()]);
    for args in [
        &["session", "list"][..],
        &["session", "show", &session],
        &["approvals"],
        &["audit", "list"],
        &["audit", "export"],
        &["audit", "verify"],
        &["policy", "test", "Bash", EVIL],
        &["open", &session],
        &["status"],
        &["logs"],
        &run,
        &send,
    ] {
        let mut both = args.to_vec();
        for json in [false, true] {
            if json {
                both.insert(usize::from(both[0] == "session" || both[0] == "audit") + 1, "--json");
            }
            let Some(output) = without_terminal(&desk.site.command(&both)) else {
                return skip("k1_no_command_obeys", "there is no setsid of util-linux");
            };
            assert_k1(&format!("{both:?}"), &output);
        }
    }
}

#[test]
fn k1_neither_run_nor_tail_obeys_it_on_a_terminal() {
    let desk = Desk::new("");
    let open = || Terminal::open(100, 50);
    let (Some(one), Some(two)) = (open(), open()) else {
        return skip("k1_neither_run_nor_tail", "there is no setsid of util-linux");
    };
    // What is typed is echoed by the terminal itself; what is an argument is not.
    let prompt = format!("say text {EVIL}\ntool true {EVIL}");
    let repo = desk.site.repo();
    let repo = repo.to_str().expect("UTF-8");
    let mut run = one.run(&desk.site.command(&["run", "-p", "claude", "-C", repo, &prompt]));
    run.wait_for(ASKED);
    run.press("n\n");
    let (_, shown) = run.end();
    assert!(
        shown.contains(r"text \u{1b}]0;owned") && shown.contains(r"true \u{1b}]0;owned"),
        "{shown}"
    );
    assert_k1("run", &shown);
    let mut tail = two.run(&desk.site.command(&["tail", "--since", "0"]));
    tail.wait_for("idle");
    let shown = tail.process.output();
    assert!(shown.contains(r"\u{1b}]0;owned"), "{shown}");
    assert_k1("tail", &shown);
}

#[test]
fn h4_a_megabyte_is_shown_whole_before_it_can_be_allowed() {
    let mut desk = Desk::new("[approvals]\nmode = \"all\"");
    let session = desk.session.clone();
    let path = format!("/{}{EVIL}END", "x".repeat(1_000_000));
    desk.owner.prompt(&session, &format!("read {path}")).expect("taken");
    let asked = desk.wait_asked();
    assert!(asked["toolCall"]["input"]["file_path"] == path.as_str(), "whole, in the event");
    let listed = desk.owner.call("approval.list", json!({})).expect("a list");
    assert!(listed["approvals"][0]["input"]["file_path"] == path.as_str(), "whole, in the list");
    let id = asked["approval_id"].as_str().expect("an id").to_owned();
    let (_, table, _) = desk.site.run(&["approvals"]);
    assert!(table.len() < 1000 && table.contains(" …\t"), "{table:.2000}");
    let Some(terminal) = Terminal::open(200, 50) else {
        return skip("h4_a_megabyte", "there is no setsid of util-linux");
    };
    let mut approve = terminal.run(&desk.site.command(&["approve", &id]));
    approve.wait_for(ASKED);
    let shown = approve.process.output();
    assert!(shown.contains("more bytes  [?] show them") && !shown.contains("END"), "{shown:.2000}");
    approve.press("y\n");
    approve.wait_for("only one of these letters is an answer");
    wait_asked(&mut approve, 2);
    approve.press("?\n");
    wait_asked(&mut approve, 3);
    approve.press("y\n");
    let (code, shown) = approve.end();
    assert_eq!(code, Some(0));
    assert_k1("approve", &shown);
    let letters = shown.chars().filter(|&char| char == 'x').count();
    assert!(letters >= 1_000_000 && shown.contains("END"), "{letters} were shown");
    desk.owner.wait_idle(&session);
    let calls = desk.owner.call("session.toolCalls", json!({"sessionId": session})).expect("calls");
    assert_eq!(calls[0]["decision"]["kind"], "allow_once");
    assert!(calls[0]["input"]["file_path"] == path.as_str(), "whole, on record");
    // The log has a summary of it, which says that it is one.
    let (code, _, complaint) = desk.site.run(&["audit", "verify"]);
    assert_eq!(code, Some(0), "{complaint}");
}
