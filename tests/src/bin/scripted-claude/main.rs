//! `scripted-claude`: stands in for claude in end-to-end tests, on machines that have no npm and no key.
//!
//! It speaks the same lines in the same order on standard input and output as claude 2.1.330 was seen to do, takes
//! exactly the options that the daemon may give it (any other ends it, as with the real one), and keeps a file for each
//! conversation where claude keeps it. What it says is scripted by the prompt: each line of it is one step.
//!
//! | step | what it does |
//! |---|---|
//! | `say TEXT` | answers TEXT, streamed in pieces; what is no step is answered as `you said: …` |
//! | `stream N` | answers N words, one delta each |
//! | `slow MS` | from here on waits so long before each delta |
//! | `tool CMD` | asks to run CMD with Bash; runs it once, by `sh -c` in a session of its own, and only if allowed |
//! | `ask-twice CMD` | the same, but having been allowed it asks for a changed CMD under the same call |
//! | `read PATH` | uses Read without asking, as claude does inside its directory |
//! | `question JSON` | uses AskUserQuestion with this list of questions, and is answered |
//! | `plan TEXT` | uses ExitPlanMode with this plan, in which `\\n` ends a line |
//! | `ask-odd` | asks something that no host can answer, and says whether it was refused |
//! | `recall` | says the earlier prompts of the conversation, which shows that it was resumed |
//! | `env` | says the names of its variables and its arguments |
//! | `flood BYTES` | answers in one line of so many bytes |
//! | `garbage` | writes a blank line, lines of unknown types and a line that is no JSON |
//! | `fail STATUS` | ends the turn as a refusal of the model's provider does |
//! | `later TEXT` | when this turn is over, begins another one unasked, which says TEXT |
//! | `hang` | is silent until interrupted |
//! | `crash` | exits at once with code 1 |
//! | `exit-never` | is silent and ignores interrupts, end of input and SIGTERM |
//!
//! The variable `SCRIPTED_CLAUDE` holds words that change it before any prompt: `logged-out`, `version=V`, `mute` (the
//! probes never end). Where it is not like the real one: a message that comes while a tool runs begins its own turn, where
//! claude may fold it into the running one; SIGTERM ends it without its tools, where claude ends
//! them too; and the only hook it knows is `PreToolUse`.
#![cfg(unix)]

mod conversation;
mod inbox;
mod launch;
mod outbox;
mod turn;

use std::env;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::thread;

/// Words of `SCRIPTED_CLAUDE`.
fn has_quirk(word: &str) -> bool {
    env::var("SCRIPTED_CLAUDE").is_ok_and(|words| words.split(' ').any(|w| w == word))
}

/// The version it pretends to be.
fn version() -> String {
    let words = env::var("SCRIPTED_CLAUDE").unwrap_or_default();
    words.split(' ').find_map(|w| w.strip_prefix("version=")).unwrap_or("2.1.330").to_owned()
}

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match *words {
        ["--version"] => probe(&format!("{} (Claude Code)\n", version()), 0),
        ["auth", "status"] if has_quirk("logged-out") => {
            probe("{\n  \"loggedIn\": false,\n  \"authMethod\": \"none\"\n}\n", 1)
        }
        ["auth", "status"] => {
            probe("{\n  \"loggedIn\": true,\n  \"authMethod\": \"api_key\"\n}\n", 0)
        }
        [turn::RUN_TOOL, command] => Err(run_tool(command)),
        _ => launch::Launch::parse(&words).and_then(turn::serve),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

fn probe(text: &str, code: u8) -> Result<ExitCode, String> {
    while has_quirk("mute") {
        thread::park();
    }
    io::stdout().write_all(text.as_bytes()).map_err(|error| error.to_string())?;
    Ok(ExitCode::from(code))
}

/// Becomes the tool's shell, in a session of its own like claude's: killing the agent's group does not reach it.
fn run_tool(command: &str) -> String {
    match rustix::process::setsid() {
        Ok(_) => Command::new("/bin/sh").args(["-c", command]).exec().to_string(),
        Err(error) => error.to_string(),
    }
}
