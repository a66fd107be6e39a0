//! What the command line asks and shows at a terminal, on a pseudo-terminal.

use std::path::PathBuf;
use std::process::Command;

use clawd_tests::daemon::{Client, Daemon, Session, Site, Terminal, skip};
use rustix::process::Signal;
use serde_json::json;

/// The end of the question; what is typed before it is there does not count.
const ASKED: &str = "(Enter alone denies): ";
const ALTERNATE_ON: &str = "\x1b[?1049h";
const ALTERNATE_OFF: &str = "\x1b[?1049l";

/// A daemon and the file that its agent will want to make.
struct Desk {
    site: Site,
    daemon: Daemon,
}

impl Desk {
    fn new() -> Self {
        let mut site = Site::new();
        site.env.push(("NO_COLOR".to_owned(), "1".to_owned()));
        let daemon = site.start();
        Self { site, daemon }
    }

    fn mark(&self) -> PathBuf {
        self.site.repo().join("mark")
    }

    /// `clawd run` with an agent that wants to make the mark.
    fn run(&self) -> Command {
        let mark = self.mark();
        let (dir, prompt) = (self.site.repo(), format!("tool touch {}", mark.display()));
        self.site.command(&["run", "-C", &dir.display().to_string(), &prompt])
    }

    /// The same behind a shell's pipe, from which it reads `y`.
    fn run_with_yes_piped(&self) -> Command {
        let run = self.run();
        let mut shell = self.site.command(&[]);
        let mut piped = Command::new("/bin/sh");
        piped.args(["-c", "printf 'y\\ny\\ny\\n' | \"$0\" \"$@\""]);
        piped.arg(run.get_program()).args(run.get_args()).env_clear();
        piped.envs(shell.get_envs().filter_map(|(name, value)| Some((name, value?))));
        piped.current_dir(self.site.repo());
        shell = piped;
        shell
    }
}

/// A wide and high terminal, or a loud word that there is none.
fn terminal(test: &str) -> Option<Terminal> {
    let terminal = Terminal::open(100, 50);
    if terminal.is_none() {
        skip(test, "there is no setsid of util-linux");
    }
    terminal
}

#[test]
fn k2_an_explicit_yes_allows() {
    let Some(terminal) = terminal("k2_an_explicit_yes_allows") else { return };
    let desk = Desk::new();
    let mut run = terminal.run(&desk.run());
    run.wait_for(ASKED);
    assert!(!desk.mark().exists(), "it ran before it was allowed");
    run.press("y\n");
    let (code, output) = run.end();
    assert_eq!(code, Some(0), "{output}");
    assert!(desk.mark().exists(), "{output}");
}

#[test]
fn k2_enter_alone_denies() {
    let Some(terminal) = terminal("k2_enter_alone_denies") else { return };
    let desk = Desk::new();
    let mut run = terminal.run(&desk.run());
    run.wait_for(ASKED);
    run.press("\n");
    let (_, output) = run.end();
    assert!(!desk.mark().exists(), "{output}");
    assert!(output.contains("denied"), "{output}");
}

#[test]
fn k2_a_piped_yes_is_no_answer() {
    let Some(terminal) = terminal("k2_a_piped_yes_is_no_answer") else { return };
    let desk = Desk::new();
    let mut run = terminal.run(&desk.run_with_yes_piped());
    run.wait_for(ASKED);
    run.press("\n");
    let (_, output) = run.end();
    assert!(!desk.mark().exists(), "{output}");
}

#[test]
fn k2_keys_typed_ahead_are_no_answer() {
    let Some(mut terminal) = terminal("k2_keys_typed_ahead_are_no_answer") else { return };
    let desk = Desk::new();
    terminal.type_ahead("y\ny\ny");
    let mut run = terminal.run(&desk.run());
    run.wait_for(ASKED);
    run.press("\n");
    let (_, output) = run.end();
    assert!(!desk.mark().exists(), "{output}");
}

#[test]
fn k2_a_closed_terminal_denies() {
    let Some(terminal) = terminal("k2_a_closed_terminal_denies") else { return };
    let desk = Desk::new();
    let mut owner = desk.daemon.owner();
    let mut run = terminal.run(&desk.run());
    run.wait_for(ASKED);
    let mut process = run.close();
    let resolved = owner.wait_event("tool.approvalResolved", |_| true);
    assert_eq!(resolved["kind"], "deny", "{resolved}");
    process.wait();
    assert!(!desk.mark().exists());
}

#[test]
fn k2_no_terminal_denies() {
    let desk = Desk::new();
    let run = desk.run();
    let mut alone = Command::new("setsid");
    alone.arg("--wait").arg(run.get_program()).args(run.get_args()).env_clear();
    alone.envs(run.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let Ok(output) = alone.stdin(std::process::Stdio::null()).output() else {
        return skip("k2_no_terminal_denies", "there is no setsid of util-linux");
    };
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert!(!desk.mark().exists());
}

/// What is left on the main screen, where scrollback keeps it.
fn main_screen(output: &str) -> String {
    let mut parts = output.split(ALTERNATE_ON);
    let before = parts.next().unwrap_or_default().to_owned();
    parts.fold(before, |main, part| {
        let (_, after) = part.split_once(ALTERNATE_OFF).expect("the alternate screen is left");
        main + after
    })
}

/// The PIN that is shown.
fn pin(shown: &mut Session) -> String {
    let find = |output: &str| {
        let (_, rest) = output.split_once("PIN  ")?;
        let pin = rest.get(..7)?;
        Some(pin.chars().filter(char::is_ascii_digit).collect::<String>())
    };
    let pin = shown.process.wait_for(find).expect("a PIN is shown");
    assert_eq!(pin.len(), 6, "{}", shown.process.output());
    shown.wait_for("expires in");
    pin
}

fn assert_nothing_is_left(output: &str, pin: &str) {
    assert!(output.contains(ALTERNATE_ON), "{output}");
    let main = main_screen(output);
    let grouped = format!("{} {}", &pin[..3], &pin[3..]);
    assert!(!main.contains(pin) && !main.contains(&grouped), "{main}");
    assert!(!main.contains(['█', '▀', '▄']), "{main}");
    let last = output.rsplit(ALTERNATE_ON).next().unwrap_or_default();
    let (page, _) = last.split_once(ALTERNATE_OFF).unwrap_or_default();
    assert!(page.trim_end().ends_with("\x1b[2J\x1b[3J\x1b[H"), "{page}");
}

#[test]
fn k3_pairing_leaves_no_pin_on_the_main_screen() {
    let name = "k3_pairing_leaves_no_pin_on_the_main_screen";
    type End = (&'static str, Option<i32>, fn(&Desk, &mut Session, &str));
    let ends: [End; 4] = [
        ("paired", Some(0), |desk, _, pin| {
            let mut device: Client = desk.daemon.connect();
            let params = json!({"pin": pin, "name": "phone", "platform": "ios"});
            device.call("device.pair", params).expect("paired");
        }),
        ("Ctrl-C", Some(130), |_, shown, _| shown.press("\x03")),
        ("SIGTERM", Some(130), |_, shown, _| shown.process.signal(Signal::TERM)),
        ("daemon killed", Some(6), |desk, _, _| desk.daemon.process.signal(Signal::KILL)),
    ];
    for (how, expected, end) in ends {
        let Some(terminal) = terminal(name) else { return };
        let desk = Desk::new();
        let mut shown = terminal.run(&desk.site.command(&["pair", "--local", "--yes"]));
        let pin = pin(&mut shown);
        end(&desk, &mut shown, &pin);
        let (code, output) = shown.end();
        assert_eq!(code, expected, "{how}: {output}");
        assert_nothing_is_left(&output, &pin);
    }
}

#[test]
fn k3_the_token_is_one_line_in_a_pipe_and_on_a_terminal() {
    let desk = Desk::new();
    let token = desk.site.token();
    let (code, out, err) = desk.site.run(&["token", "show"]);
    assert_eq!((code, out, err), (Some(0), format!("{token}\n"), String::new()));
    let Some(terminal) = terminal("k3_the_token_is_one_line") else { return };
    let (code, output) = terminal.run(&desk.site.command(&["token", "show"])).end();
    assert_eq!((code, output), (Some(0), format!("{token}\r\n")));
}
