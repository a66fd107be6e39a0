//! `demo-agent`: an agent that is no model, so that a machine without any account sees a whole turn.
//!
//! Owns the program that the daemon starts in an agent's place; refuses to know that it is part of clawd: it speaks
//! claude's lines on standard input and output, as far as the daemon uses them, and remembers nothing. All that it says
//! says so. Its one effect is the file [`tool::FILE`] in its directory, after it was asked for and allowed.
//!
//! | module | owns |
//! |---|---|
//! | `inbox` | what it is told, and waiting for that |
//! | `voice` | the lines it says |
//! | `tool` | its two tools, and asking for them |
//! | `script` | what it answers to what |

mod inbox;
mod script;
mod tool;
mod voice;

use std::env;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;

use inbox::{Inbox, News};
use voice::{End, Voice};

/// Runs with everything that follows `demo-agent` on the command line.
pub(crate) fn run(args: &[OsString]) -> ExitCode {
    let words: Vec<&str> = args.iter().map(|arg| arg.to_str().unwrap_or_default()).collect();
    let result = match words.as_slice() {
        ["--version"] => {
            writeln!(io::stdout(), "{} (clawd demo)", env!("CARGO_PKG_VERSION"))
        }
        words if words.contains(&"stream-json") => Demo::new(words).serve(),
        _ => Err(io::Error::other("this is for clawd itself; type: clawd run -p demo hello")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "clawd demo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Why a turn stops before its end.
#[derive(Debug)]
enum Stop {
    /// It was interrupted.
    Interrupted(End),
    /// Its provider fails, as one does that is no demo.
    Refused,
    /// Nobody listens any more, or talks any more.
    Over,
    /// The pipe is broken.
    Broken(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

#[derive(Debug)]
struct Demo {
    inbox: Inbox,
    voice: Voice,
    /// The name of the host's hook, if it wants to be told before a tool is used.
    hook: Option<String>,
    /// Nobody has said anything in this conversation.
    is_new: bool,
}

impl Demo {
    /// Other options of claude's are taken and mean nothing here.
    fn new(args: &[&str]) -> Self {
        let value = |name: &str| {
            args.iter().skip_while(|arg| **arg != name).nth(1).map(|value| (*value).to_owned())
        };
        let resumed = value("--resume");
        let is_new = resumed.is_none();
        let conversation = resumed.or_else(|| value("--session-id")).unwrap_or_default();
        let model = value("--model").unwrap_or_else(|| "demo".to_owned());
        Self { inbox: Inbox::open(), voice: Voice::new(conversation, model), hook: None, is_new }
    }

    /// Until its input ends.
    fn serve(&mut self) -> io::Result<()> {
        loop {
            match self.inbox.next() {
                News::Message(text) => match self.turn(&text) {
                    Ok(()) | Err(Stop::Interrupted(_) | Stop::Refused) => {}
                    Err(Stop::Over) => return Ok(()),
                    Err(Stop::Broken(error)) => return Err(error),
                },
                News::Request { id, request } => self.answer(&id, &request)?,
                News::Answer { .. } | News::Nothing => {}
                News::Over => return Ok(()),
            }
        }
    }

    fn turn(&mut self, text: &str) -> Result<(), Stop> {
        self.voice.begin(text)?;
        let end = match self.play(text) {
            Ok(()) => End::Completed,
            Err(Stop::Interrupted(end)) => end,
            Err(Stop::Refused) => End::Refused,
            Err(stop @ (Stop::Over | Stop::Broken(_))) => return Err(stop),
        };
        self.is_new = false;
        Ok(self.voice.end(end)?)
    }

    /// Answers what needs no turn.
    fn answer(&mut self, id: &str, request: &serde_json::Value) -> io::Result<()> {
        match request["subtype"].as_str() {
            Some("initialize") => {
                let hook = &request["hooks"]["PreToolUse"][0]["hookCallbackIds"][0];
                self.hook = hook.as_str().map(str::to_owned);
            }
            Some("set_model") => {
                request["model"].as_str().unwrap_or("demo").clone_into(&mut self.voice.model);
            }
            Some("interrupt") => {}
            Some(_) | None => return self.voice.refuse(id, "the demo does not know this request"),
        }
        self.voice.reply(id)
    }
}
