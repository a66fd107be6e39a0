//! What the demo says: claude's lines, as far as the daemon reads them.
//!
//! Owns standard output, and counts words where a model would count tokens; refuses to know why something is said.

use std::io::{self, Write as _};
use std::process;

use serde_json::{Value, json};

/// How a turn ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Completed,
    /// Interrupted while it spoke.
    InSpeech,
    /// Interrupted while it waited for a tool.
    InTool,
    /// The provider would have failed.
    Refused,
}

#[derive(Debug)]
pub(super) struct Voice {
    conversation: String,
    pub(super) model: String,
    ids: u64,
    words_heard: usize,
    words_said: usize,
}

impl Voice {
    pub(super) fn new(conversation: String, model: String) -> Self {
        Self { conversation, model, ids: 0, words_heard: 0, words_said: 0 }
    }

    /// A name that nobody has had, not even in an earlier life.
    pub(super) fn id(&mut self) -> String {
        self.ids += 1;
        format!("demo-{}-{}", process::id(), self.ids)
    }

    fn line(&self, mut line: Value) -> io::Result<()> {
        line["session_id"] = json!(self.conversation);
        let mut out = io::stdout().lock();
        writeln!(out, "{line}")?;
        out.flush()
    }

    // --- turns --------------------------------------------------------------------------------------------------

    /// A turn begins, because of this message.
    pub(super) fn begin(&mut self, text: &str) -> io::Result<()> {
        self.words_heard += text.split_whitespace().count();
        self.line(json!({"type": "system", "subtype": "init", "model": self.model,
            "tools": ["LS", "Write"], "permissionMode": "default", "apiKeySource": "none",
            "claude_code_version": env!("CARGO_PKG_VERSION")}))
    }

    /// The turn ends. The counts are those of the whole process, as claude's are.
    pub(super) fn end(&self, end: End) -> io::Result<()> {
        let (subtype, reason) = match end {
            End::Completed => ("success", "completed"),
            End::InSpeech => ("error_during_execution", "aborted_streaming"),
            End::InTool => ("error_during_execution", "aborted_tools"),
            End::Refused => ("success", "api_error"),
        };
        let mut line = json!({"type": "result", "subtype": subtype, "terminal_reason": reason,
            "is_error": end != End::Completed, "result": "", "total_cost_usd": 0,
            "modelUsage": {"demo": {"inputTokens": self.words_heard,
                "outputTokens": self.words_said}}});
        if end == End::Refused {
            line["api_error_status"] = json!(500);
            line["result"] =
                json!("This is what a failure of the model's provider looks like (demo).");
        }
        self.line(line)
    }

    // --- text ---------------------------------------------------------------------------------------------------

    pub(super) fn begin_text(&self) -> io::Result<()> {
        self.stream(&json!({"type": "message_start"}))
    }

    /// More of the text, provisionally.
    pub(super) fn delta(&mut self, text: &str) -> io::Result<()> {
        self.words_said += text.split_whitespace().count();
        let delta = json!({"type": "text_delta", "text": text});
        self.stream(&json!({"type": "content_block_delta", "index": 0, "delta": delta}))
    }

    fn stream(&self, event: &Value) -> io::Result<()> {
        self.line(json!({"type": "stream_event", "event": event, "parent_tool_use_id": null}))
    }

    /// The whole text.
    pub(super) fn text(&self, text: &str) -> io::Result<()> {
        self.assistant(&json!({"type": "text", "text": text}))
    }

    fn assistant(&self, block: &Value) -> io::Result<()> {
        let message = json!({"role": "assistant", "model": self.model, "content": [block]});
        self.line(json!({"type": "assistant", "message": message, "parent_tool_use_id": null}))
    }

    // --- tools --------------------------------------------------------------------------------------------------

    /// It calls a tool.
    pub(super) fn call(&self, id: &str, tool: &str, input: &Value) -> io::Result<()> {
        self.assistant(&json!({"type": "tool_use", "id": id, "name": tool, "input": input}))
    }

    /// What came of the call.
    pub(super) fn result(&self, id: &str, text: &str, is_error: bool) -> io::Result<()> {
        let block = json!({"type": "tool_result", "tool_use_id": id, "content": text,
            "is_error": is_error});
        let message = json!({"role": "user", "content": [block]});
        self.line(json!({"type": "user", "message": message, "parent_tool_use_id": null}))
    }

    // --- requests -----------------------------------------------------------------------------------------------

    /// Asks the host something; its answer will have the same id.
    pub(super) fn ask(&mut self, request: &Value) -> io::Result<String> {
        let id = self.id();
        self.line(json!({"type": "control_request", "request_id": id, "request": request}))?;
        Ok(id)
    }

    /// What the host wanted is done.
    pub(super) fn reply(&self, id: &str) -> io::Result<()> {
        let response = json!({"subtype": "success", "request_id": id, "response": {}});
        self.line(json!({"type": "control_response", "response": response}))
    }

    /// What the host wanted cannot be done.
    pub(super) fn refuse(&self, id: &str, why: &str) -> io::Result<()> {
        let response = json!({"subtype": "error", "request_id": id, "error": why});
        self.line(json!({"type": "control_response", "response": response}))
    }
}
