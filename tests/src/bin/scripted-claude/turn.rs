//! A session and its turns: the steps of the script, played in claude's order.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use signal_hook::consts::SIGTERM;

use crate::conversation::Conversation;
use crate::has_quirk;
use crate::inbox::{Inbox, News};
use crate::launch::Launch;
use crate::outbox::Outbox;

mod tool;

pub(crate) use tool::RUN_TOOL;

/// Why a turn ended before its script did.
#[derive(Debug)]
enum Stop {
    /// Interrupted while it spoke or was silent.
    Streaming,
    /// Interrupted, or denied with an interrupt, while a tool was asked for or ran.
    Tools,
    /// The model's provider refused.
    Api { status: Option<u16>, text: String },
    /// Nothing can be written any more, or the host wrote nonsense.
    Broken(String),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

#[derive(Debug)]
struct Session {
    launch: Launch,
    conversation: Conversation,
    inbox: Inbox,
    out: Outbox,
    /// SIGTERM ends the process while this is set.
    is_mortal: Arc<AtomicBool>,
    /// `slow MS`.
    delay: Duration,
    /// `later TEXT`: the next turn, which nobody asks for.
    later: Option<String>,
    /// The id of the host's hook, if it has one.
    hook: Option<String>,
    denials: Vec<Value>,
    has_failed: bool,
}

/// Serves a session until its input ends.
pub(crate) fn serve(launch: Launch) -> Result<ExitCode, String> {
    let is_mortal = Arc::new(AtomicBool::new(true));
    signal_hook::flag::register_conditional_shutdown(SIGTERM, 143, Arc::clone(&is_mortal))
        .map_err(|error| error.to_string())?;
    let id = &launch.conversation;
    let mut out = Outbox::new(id, &launch.model, launch.partial);
    let found =
        if launch.resume { Conversation::resume(id)? } else { Some(Conversation::begin(id)?) };
    let Some(conversation) = found else {
        let text = format!("No conversation found with session ID: {id}");
        let line = json!({"type": "result", "subtype": "error_during_execution", "is_error": true,
            "total_cost_usd": 0, "modelUsage": {}, "errors": [text]});
        out.line(line).map_err(|error| error.to_string())?;
        return Err(text);
    };
    let mut session = Session {
        launch,
        conversation,
        inbox: Inbox::open(),
        out,
        is_mortal,
        delay: Duration::ZERO,
        later: None,
        hook: None,
        denials: Vec::new(),
        has_failed: false,
    };
    match session.run() {
        Ok(()) => Ok(ExitCode::from(u8::from(session.has_failed))),
        Err(Stop::Broken(why)) => Err(why),
        Err(Stop::Streaming | Stop::Tools | Stop::Api { .. }) => Ok(ExitCode::FAILURE),
    }
}

impl Session {
    fn run(&mut self) -> Result<(), Stop> {
        loop {
            match self.inbox.next() {
                News::User { text, uuid } => {
                    self.conversation.prompt(&text)?;
                    self.turn(&text, uuid.as_deref())?;
                    while let Some(text) = self.later.take() {
                        self.turn(&format!("say {text}"), None)?;
                    }
                }
                News::Request { id, request } => self.on_request(&id, &request)?,
                News::Bad(line) => return Err(bad_line(&line)),
                News::Eof => return Ok(()),
                News::Answer { .. } | News::ToolEnded { .. } | News::Silence => {}
            }
        }
    }

    /// Waits in the middle of a turn. An interrupt is answered by whoever waits: in what order depends on what goes on.
    fn wait(&mut self, within: Option<Duration>) -> Result<News, Stop> {
        loop {
            let news = self.inbox.next_in_turn(within);
            if let News::Bad(line) = news {
                return Err(bad_line(&line));
            } else if let News::Request { id, request } = &news
                && request["subtype"] != "interrupt"
            {
                self.on_request(id, request)?;
            } else {
                return Ok(news);
            }
        }
    }

    fn on_request(&mut self, id: &str, request: &Value) -> io::Result<()> {
        let response = match request["subtype"].as_str() {
            Some("initialize") => {
                let hook = &request["hooks"]["PreToolUse"][0]["hookCallbackIds"][0];
                self.hook = hook.as_str().map(str::to_owned);
                Ok(
                    json!({"commands": [], "models": [{"value": "default"}], "pid": std::process::id(),
                    "account": {"apiKeySource": self.key_source()}}),
                )
            }
            Some("interrupt") => Ok(json!({"still_queued": []})),
            Some("set_model") => {
                self.out.model = request["model"].as_str().unwrap_or_default().to_owned();
                Ok(json!({}))
            }
            Some(_) | None => Err("Unsupported control request subtype"),
        };
        self.out.reply(id, response)
    }

    fn key_source(&self) -> &'static str {
        if has_quirk("logged-out") { "none" } else { "ANTHROPIC_API_KEY" }
    }

    /// One whole turn, from the message to the result.
    fn turn(&mut self, prompt: &str, uuid: Option<&str>) -> Result<(), Stop> {
        self.lifecycle(uuid, "queued")?;
        self.lifecycle(uuid, "started")?;
        self.out.line(json!({"type": "system", "subtype": "init", "tools": ["Bash", "Read"],
            "cwd": std::env::current_dir()?, "mcp_servers": [], "model": self.out.model,
            "permissionMode": self.launch.mode, "apiKeySource": self.key_source(),
            "claude_code_version": crate::version()}))?;
        self.delay = Duration::ZERO;
        self.denials.clear();
        let end = if has_quirk("logged-out") {
            let text = "Not logged in · Please run /login".to_owned();
            Err(Stop::Api { status: None, text })
        } else {
            prompt.lines().try_for_each(|step| self.step(step))
        };
        let state = if end.is_ok() { "completed" } else { "cancelled" };
        self.result(end)?;
        self.lifecycle(uuid, state)?;
        Ok(())
    }

    fn lifecycle(&mut self, uuid: Option<&str>, state: &str) -> io::Result<()> {
        match uuid {
            Some(uuid) => self
                .out
                .line(json!({"type": "command_lifecycle", "command_uuid": uuid, "state": state})),
            None => Ok(()),
        }
    }

    fn result(&mut self, end: Result<(), Stop>) -> Result<(), Stop> {
        let (subtype, reason, status, text) = match end {
            Ok(()) => ("success", "completed", None, None),
            Err(Stop::Streaming) => ("error_during_execution", "aborted_streaming", None, None),
            Err(Stop::Tools) => ("error_during_execution", "aborted_tools", None, None),
            Err(Stop::Api { status, text }) => {
                let block = json!({"type": "text", "text": text});
                let message = json!({"id": "synthetic", "type": "message", "role": "assistant",
                    "model": "<synthetic>", "content": [block]});
                self.out.line(json!({"type": "assistant", "message": message,
                    "parent_tool_use_id": null, "error": "server_error"}))?;
                ("success", "api_error", status, Some(text))
            }
            Err(stop @ Stop::Broken(_)) => return Err(stop),
        };
        self.has_failed = reason != "completed";
        let calls = self.conversation.calls;
        let model = json!({"inputTokens": calls * 100, "outputTokens": calls * 20,
            "cacheReadInputTokens": 0, "cacheCreationInputTokens": 0});
        let mut line = json!({"type": "result", "subtype": subtype, "is_error": self.has_failed,
            "terminal_reason": reason, "api_error_status": status,
            "permission_denials": self.denials, "modelUsage": {}, "total_cost_usd": 0});
        if calls > 0 {
            line["modelUsage"] = json!({ &self.out.model: model });
            // As claude does it: a sum of floats.
            line["total_cost_usd"] = json!((0..calls).map(|_| 0.0008).sum::<f64>());
        }
        match text {
            Some(text) => line["result"] = json!(text),
            None if self.has_failed => line["errors"] = json!(["[ede_diagnostic] scripted"]),
            None => line["result"] = json!("done"),
        }
        Ok(self.out.line(line)?)
    }

    /// The last call of a tool that a prompt before this one asked for, once more.
    fn make_again(&mut self) -> Result<(), Stop> {
        let steps = self.conversation.prompts.iter().rev().flat_map(|prompt| prompt.lines());
        let command = steps.filter_map(|step| step.strip_prefix("tool ")).next();
        match command.map(str::to_owned) {
            Some(command) => self.tool(&command, false),
            None => self.say("there is nothing to make again"),
        }
    }

    fn step(&mut self, step: &str) -> Result<(), Stop> {
        let (word, rest) = step.split_once(' ').unwrap_or((step, ""));
        let number = rest.parse::<usize>().unwrap_or(0);
        match word {
            "say" => self.say(rest),
            "stream" => self.speak((0..number).map(|n| format!("word{n} "))),
            "slow" => {
                self.delay = Duration::from_millis(number.try_into().unwrap_or(0));
                Ok(())
            }
            "tool" => self.tool(rest, false),
            // So says the daemon when what waited before it was restarted has been allowed.
            "Make" if rest.starts_with("each of these calls again") => self.make_again(),
            "ask-twice" => self.tool(rest, true),
            "read" => self.read(rest),
            "question" => self.ask_people("AskUserQuestion", &questions(rest)),
            "plan" => self.ask_people("ExitPlanMode", &json!({"plan": rest.replace("\\n", "\n")})),
            "ask-odd" => self.ask_odd(),
            "recall" => self.say(&self.conversation.prompts.join(" | ")),
            "env" => {
                let mut names: Vec<String> = std::env::vars().map(|(name, _)| name).collect();
                names.sort();
                let args: Vec<String> = std::env::args().skip(1).collect();
                self.say(&format!("env: {}\nargs: {}", names.join(" "), args.join(" ")))
            }
            "flood" => self.speak(std::iter::once("x".repeat(number))),
            "garbage" => {
                let odd = "\n{\"type\":\"no_such_type\",\"deep\":[[[{}]]]}\n{\"type\":7}\n[]\nnot json {\n";
                Ok(self.out.raw(odd)?)
            }
            "fail" => {
                let status = u16::try_from(number).ok();
                Err(Stop::Api { status, text: format!("API Error: {number} as scripted") })
            }
            "later" => {
                self.later = Some(rest.to_owned());
                Ok(())
            }
            "hang" => self.hang(),
            "crash" => Err(Stop::Broken("crashed as scripted".to_owned())),
            "exit-never" => {
                self.is_mortal.store(false, Ordering::SeqCst);
                loop {
                    thread::park();
                }
            }
            _ => self.say(&format!("you said: {step}")),
        }
    }

    fn say(&mut self, text: &str) -> Result<(), Stop> {
        let middle = text.char_indices().nth(text.chars().count() / 2).map_or(0, |(at, _)| at);
        let (first, second) = text.split_at(middle);
        self.speak([first.to_owned(), second.to_owned()].into_iter())
    }

    /// One message of text, a delta for each piece.
    fn speak(&mut self, pieces: impl Iterator<Item = String>) -> Result<(), Stop> {
        self.conversation.call()?;
        self.out.begin_message(json!({"type": "text", "text": ""}))?;
        let mut text = String::new();
        for piece in pieces {
            if let News::Request { id, .. } = self.wait(Some(self.delay))? {
                self.out.reply(&id, Ok(json!({"still_queued": []})))?;
                self.out.block(json!({"type": "text", "text": text}), true)?;
                self.remark("[Request interrupted by user]")?;
                self.out.end_block(Value::Null)?;
                let abandoned = json!({"abandoned_blocks": {"from_block_index": 1}});
                self.out.stream(json!({"type": "message_stop"}), abandoned)?;
                return Err(Stop::Streaming);
            }
            self.out.delta(json!({"type": "text_delta", "text": piece}))?;
            text.push_str(&piece);
        }
        self.out.block(json!({"type": "text", "text": text}), false)?;
        self.out.end_block(json!("end_turn"))?;
        Ok(self.out.end_message()?)
    }

    fn remark(&mut self, text: &str) -> io::Result<()> {
        self.out.user(json!({"type": "text", "text": text}))
    }

    /// The model says nothing at all.
    fn hang(&mut self) -> Result<(), Stop> {
        loop {
            if let News::Request { id, .. } = self.wait(None)? {
                self.out.reply(&id, Ok(json!({"still_queued": []})))?;
                self.remark("[Request interrupted by user]")?;
                return Err(Stop::Streaming);
            }
        }
    }

    fn ask_odd(&mut self) -> Result<(), Stop> {
        let ask = self.out.id("ask");
        self.out.request(&ask, &json!({"subtype": "no_such_request"}))?;
        while !self.inbox.is_over {
            let news = self.wait(None)?;
            if let News::Request { id, .. } = news {
                self.out.reply(&id, Ok(json!({"still_queued": []})))?;
                return Err(Stop::Streaming);
            } else if let News::Answer { id, reply } = news
                && id == ask
            {
                return match reply {
                    Ok(reply) => self.say(&format!("answered: {reply}")),
                    Err(error) => self.say(&format!("refused: {error}")),
                };
            }
        }
        Ok(())
    }
}

fn questions(list: &str) -> Value {
    let list: Value = serde_json::from_str(list).unwrap_or_default();
    json!({ "questions": list })
}

fn bad_line(line: &str) -> Stop {
    Stop::Broken(format!("Error parsing streaming input line: {line}"))
}
