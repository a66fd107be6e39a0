//! The demo: an agent that is no model, spoken to alone and through the daemon.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use clawd_tests::daemon::{PATIENCE, Session, Site, Terminal, skip, wait_until, write_private};
use serde_json::{Value, json};

const FILE: &str = "clawd-demo.txt";

/// The demo without a daemon.
struct Demo {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Demo {
    fn command(site: &Site, args: &[&str]) -> Command {
        let mut command = Command::new(site.command(&[]).get_program());
        command.arg("demo-agent").args(args).current_dir(site.repo());
        command
    }

    /// In a conversation of which `--resume` says that it is old.
    fn start(site: &Site, conversation: &str) -> Self {
        let args = ["-p", "--input-format", "stream-json", "--output-format", "stream-json"];
        let id = "00000000-0000-4000-8000-000000000000";
        let mut child = Self::command(site, &args)
            .args([conversation, id])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let mut demo = Self { child, input, output };
        demo.request(
            "r1",
            &json!({"subtype": "initialize",
            "hooks": {"PreToolUse": [{"matcher": "*", "hookCallbackIds": ["h"]}]}}),
        );
        assert_eq!(demo.next()["response"]["request_id"], "r1");
        demo
    }

    fn tell(&mut self, line: &Value) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    fn request(&mut self, id: &str, request: &Value) {
        self.tell(&json!({"type": "control_request", "request_id": id, "request": request}));
    }

    fn answer(&mut self, ask: &Value, response: &Value) {
        let id = &ask["request_id"];
        let response = json!({"subtype": "success", "request_id": id, "response": response});
        self.tell(&json!({"type": "control_response", "response": response}));
    }

    fn say(&mut self, text: &str) {
        let content = json!([{"type": "text", "text": text}]);
        self.tell(&json!({"type": "user", "message": {"role": "user", "content": content}}));
    }

    fn next(&mut self) -> Value {
        let mut line = String::new();
        assert!(self.output.read_line(&mut line).unwrap() > 0, "it ended");
        line.parse().unwrap()
    }

    /// The next line of this kind, and what was said in whole texts before.
    fn until(&mut self, is_it: impl Fn(&Value) -> bool) -> (Value, String) {
        let mut said = String::new();
        loop {
            let line = self.next();
            if let Some(text) = line["message"]["content"][0]["text"].as_str() {
                said.push_str(text);
            }
            if is_it(&line) {
                return (line, said);
            }
        }
    }

    fn ask(&mut self, subtype: &str) -> Value {
        self.until(|line| line["request"]["subtype"] == subtype).0
    }

    fn result(&mut self) -> (Value, String) {
        self.until(|line| line["type"] == "result")
    }

    /// Answers both hooks of the tour and leaves it where it asks for its file.
    fn tour(&mut self) -> Value {
        self.say("hello");
        let hook = self.ask("hook_callback");
        assert_eq!(hook["request"]["input"]["tool_name"], "LS");
        self.answer(&hook, &json!({}));
        let hook = self.ask("hook_callback");
        assert_eq!(hook["request"]["input"]["tool_name"], "Write");
        self.answer(&hook, &json!({"hookSpecificOutput": {"permissionDecision": "ask"}}));
        self.ask("can_use_tool")
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn it_says_what_it_is() {
    let site = Site::new();
    let output = Demo::command(&site, &["--version"]).output().unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().ends_with(" (clawd demo)\n"));
    let output = Demo::command(&site, &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("clawd run -p demo"), "{said}");
}

#[test]
fn h1_it_writes_only_what_it_asked_for_and_only_after_an_allow() {
    let site = Site::new();
    let file = site.repo().join(FILE);
    for (number, answer) in [
        json!({"behavior": "deny", "message": "no"}),
        json!({"behavior": "allow", "updatedInput": {"file_path": "/tmp/else", "content": "x"}}),
        json!({"behavior": "allow"}),
        json!({"behavior": "perhaps"}),
        json!({}),
    ]
    .iter()
    .enumerate()
    {
        let mut demo = Demo::start(&site, "--session-id");
        let ask = demo.tour();
        assert!(!file.exists(), "before it was allowed");
        demo.answer(&ask, answer);
        let (result, said) = demo.result();
        assert_eq!(result["is_error"], false);
        assert!(said.contains("not allowed"), "{number}: {said}");
        assert!(!file.exists(), "{answer}");
    }
    let mut demo = Demo::start(&site, "--session-id");
    let ask = demo.tour();
    // What the name leads to is not what was asked for.
    let elsewhere = site.home().join("precious");
    std::fs::write(&elsewhere, "mine").unwrap();
    std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
    let input = ask["request"]["input"].clone();
    demo.answer(&ask, &json!({"behavior": "allow", "updatedInput": input}));
    let (result, said) = demo.result();
    assert!(said.contains("You allowed it"), "{said}");
    assert_eq!(result["total_cost_usd"], 0);
    assert!(result["modelUsage"]["demo"]["outputTokens"].as_u64().unwrap() > 20);
    assert!(std::fs::read_to_string(&file).unwrap().contains("No model was asked"));
    assert_eq!(std::fs::read_to_string(&elsewhere).unwrap(), "mine");
    assert_eq!(std::fs::read_dir(site.repo()).unwrap().count(), 1, "nothing beside it");
}

#[test]
fn it_streams_word_by_word_and_knows_its_commands() {
    let site = Site::new();
    let mut demo = Demo::start(&site, "--resume");
    for (message, answer) in [
        ("help", "no model"),
        ("stream 40", "demo-40"),
        ("three little words", "You wrote 3 words, and this is only the demo"),
        ("", "You wrote 0 words"),
    ] {
        demo.say(message);
        let mut deltas = String::new();
        let (result, said) = loop {
            let line = demo.next();
            if let Some(delta) = line["event"]["delta"]["text"].as_str() {
                deltas.push_str(delta);
            }
            if line["type"] == "assistant" {
                let said = line["message"]["content"][0]["text"].as_str().unwrap().to_owned();
                break (demo.result().0, said);
            }
        };
        assert_eq!(deltas, said, "what streams is what is said");
        assert!(said.contains(answer), "{message}: {said}");
        assert_eq!(result["terminal_reason"], "completed");
    }
    demo.say("fail");
    let (result, _) = demo.result();
    assert_eq!((&result["is_error"], &result["api_error_status"]), (&json!(true), &json!(500)));
}

#[test]
fn an_interrupt_acts_at_once() {
    let site = Site::new();
    let mut demo = Demo::start(&site, "--session-id");
    demo.say("slow");
    demo.until(|line| line["event"]["delta"]["text"].is_string());
    let asked = Instant::now();
    demo.request("r2", &json!({"subtype": "interrupt"}));
    assert_eq!(demo.result().0["terminal_reason"], "aborted_streaming");
    // A word comes each second.
    assert!(asked.elapsed() < Duration::from_millis(900), "{:?}", asked.elapsed());
    demo.say("ask");
    let hook = demo.ask("hook_callback");
    demo.answer(&hook, &json!({}));
    demo.ask("can_use_tool");
    demo.request("r3", &json!({"subtype": "interrupt"}));
    assert_eq!(demo.result().0["terminal_reason"], "aborted_tools");
    demo.request("r4", &json!({"subtype": "no_such"}));
    assert_eq!(demo.next()["response"]["subtype"], "error");
    // The end of its input is its end, also in a turn.
    demo.say("slow");
    demo.until(|line| line["event"]["delta"]["text"].is_string());
    demo.input = None;
    wait_until("it ends", PATIENCE, || demo.child.try_wait().unwrap().is_some());
    assert!(demo.child.wait().unwrap().success());
}

/// A machine without any agent.
fn bare_site() -> Site {
    let mut site = Site::new();
    write_private(&site.data().join("config.toml"), b"");
    site.env.push(("NO_COLOR".to_owned(), "1".to_owned()));
    site
}

fn run_demo(site: &Site, test: &str, keys: &str) -> Option<(Option<i32>, String)> {
    let Some(terminal) = Terminal::open(100, 50) else {
        skip(test, "there is no setsid of util-linux");
        return None;
    };
    let dir = site.repo().display().to_string();
    let mut run: Session = terminal.run(&site.command(&["run", "-C", &dir, "-p", "demo", "hello"]));
    run.wait_for("(Enter alone denies): ");
    assert!(!site.repo().join(FILE).exists(), "before it was allowed");
    run.press(keys);
    Some(run.end())
}

#[test]
fn a_machine_without_agents_sees_a_whole_turn() {
    let site = bare_site();
    let daemon = site.start();
    let file = site.repo().join(FILE);
    let test = "a_machine_without_agents_sees_a_whole_turn";
    let Some((code, output)) = run_demo(&site, test, "n\n") else { return };
    assert!(output.contains("did not write"), "{code:?}: {output}");
    assert!(!file.exists(), "{output}");
    let Some((code, output)) = run_demo(&site, test, "y\n") else { return };
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("No model answers here") && output.contains("You allowed it"));
    assert!(file.exists(), "{output}");
    let mut owner = daemon.owner();
    let sessions = owner.call("session.list", json!({})).unwrap();
    let session = sessions[0]["id"].as_str().unwrap();
    let tools = owner.call("session.toolCalls", json!({"sessionId": session})).unwrap();
    assert!(tools.to_string().contains("\"LS\""), "it looked around: {tools}");
    assert_eq!(
        owner.turn(session, "two words").split('.').next(),
        Some("You wrote 2 words, and this is only the demo: no model has read them")
    );
}

#[test]
fn up_suggests_the_demo_where_there_is_nothing_else() {
    let site = bare_site();
    let daemon = site.start();
    let (code, output, complaint) = site.run(&["up"]);
    assert_eq!(code, Some(8), "{output}{complaint}");
    assert!(complaint.contains("clawd run -p demo \"hello\""), "{complaint}");
    assert!(output.contains("a script, no model"), "{output}");
    assert!(daemon.stop().success());
}
