//! What goes out: claude's lines, in claude's words.

use std::io::{self, Write};
use std::process;

use serde_json::{Value, json};

/// Writes lines, and counts what needs a number.
#[derive(Debug)]
pub(crate) struct Outbox {
    /// The conversation's id, which stands in every line.
    pub(crate) session: String,
    /// The model, which a host may change.
    pub(crate) model: String,
    /// Deltas are wanted.
    partial: bool,
    count: u64,
    message: String,
}

impl Outbox {
    /// For this conversation.
    pub(crate) fn new(session: &str, model: &str, partial: bool) -> Self {
        let (session, model) = (session.to_owned(), model.to_owned());
        Self { session, model, partial, count: 0, message: String::new() }
    }

    /// An id that no other process and no other call gives.
    pub(crate) fn id(&mut self, prefix: &str) -> String {
        self.count += 1;
        format!("{prefix}_{}_{}", process::id(), self.count)
    }

    /// Writes one line.
    pub(crate) fn line(&mut self, mut line: Value) -> io::Result<()> {
        line["session_id"] = json!(self.session);
        line["uuid"] = json!(self.id("line"));
        self.raw(&format!("{line}\n"))
    }

    /// Writes text as it is.
    pub(crate) fn raw(&mut self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    /// An event of the model's stream, if the host wants them.
    pub(crate) fn stream(&mut self, event: Value, more: Value) -> io::Result<()> {
        if !self.partial {
            return Ok(());
        }
        let mut line = json!({"type": "stream_event", "event": event, "parent_tool_use_id": null});
        if let Value::Object(more) = more {
            for (key, value) in more {
                line[key] = value;
            }
        }
        self.line(line)
    }

    /// The model is called, and begins a message with this block.
    pub(crate) fn begin_message(&mut self, block: Value) -> io::Result<()> {
        self.message = self.id("msg");
        if self.partial {
            self.line(json!({"type": "system", "subtype": "status", "status": "requesting"}))?;
        }
        let message = json!({"id": self.message, "type": "message", "role": "assistant",
            "model": self.model, "content": [], "stop_reason": null});
        self.stream(json!({"type": "message_start", "message": message}), json!({}))?;
        let start = json!({"type": "content_block_start", "index": 0, "content_block": block});
        self.stream(start, json!({}))
    }

    /// A piece of the block.
    pub(crate) fn delta(&mut self, delta: Value) -> io::Result<()> {
        self.stream(json!({"type": "content_block_delta", "index": 0, "delta": delta}), json!({}))
    }

    /// The finished block, which comes before the stream says that it is finished.
    pub(crate) fn block(&mut self, block: Value, is_aborted: bool) -> io::Result<()> {
        let message = json!({"id": self.message, "type": "message", "role": "assistant",
            "model": self.model, "content": [block], "stop_reason": null});
        let mut line = json!({"type": "assistant", "message": message, "parent_tool_use_id": null});
        if is_aborted {
            line["aborted"] = json!(true);
        }
        self.line(line)
    }

    /// The stream says that block and message are finished, except for `message_stop`.
    pub(crate) fn end_block(&mut self, reason: Value) -> io::Result<()> {
        self.stream(json!({"type": "content_block_stop", "index": 0}), json!({}))?;
        let delta = json!({"type": "message_delta", "delta": {"stop_reason": reason},
            "usage": {"output_tokens": 20}});
        self.stream(delta, json!({}))
    }

    /// The stream's last word on a message.
    pub(crate) fn end_message(&mut self) -> io::Result<()> {
        self.stream(json!({"type": "message_stop"}), json!({}))
    }

    /// A line of the user's: the result of a tool, or a remark of claude's in the user's name.
    pub(crate) fn user(&mut self, content: Value) -> io::Result<()> {
        let message = json!({"role": "user", "content": [content]});
        self.line(json!({"type": "user", "message": message, "parent_tool_use_id": null}))
    }

    /// The result of a tool call.
    pub(crate) fn tool_result(&mut self, id: &str, text: &str, is_error: bool) -> io::Result<()> {
        self.user(json!({"type": "tool_result", "tool_use_id": id, "content": text,
            "is_error": is_error}))
    }

    /// The answer to a request of the host's.
    pub(crate) fn reply(&mut self, id: &str, response: Result<Value, &str>) -> io::Result<()> {
        let response = match response {
            Ok(response) => json!({"subtype": "success", "request_id": id, "response": response}),
            Err(error) => json!({"subtype": "error", "request_id": id, "error": error}),
        };
        self.raw(&format!("{}\n", json!({"type": "control_response", "response": response})))
    }

    /// A request to the host.
    pub(crate) fn request(&mut self, id: &str, request: &Value) -> io::Result<()> {
        let line = json!({"type": "control_request", "request_id": id, "request": request});
        self.raw(&format!("{line}\n"))
    }
}
