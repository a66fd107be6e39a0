//! How an agent says what it does: lines of JSON, as they were recorded from the real program.
//!
//! Owns the form of each line and the ids in it; refuses to know why it is said.

use clawd_protocol::Stream;
use serde_json::{Value, json};

use super::Child;

impl Child {
    pub(super) fn speak(&mut self, text: &str) {
        let id = self.id("msg");
        let message = json!({"id": id, "type": "message", "role": "assistant",
            "model": "claude-opus-5-5", "content": [], "stop_reason": null});
        self.stream(&json!({"type": "message_start", "message": message}));
        let block = json!({"type": "text", "text": ""});
        self.stream(&json!({"type": "content_block_start", "index": 0, "content_block": block}));
        for word in text.split_inclusive(' ') {
            let delta = json!({"type": "text_delta", "text": word});
            self.stream(&json!({"type": "content_block_delta", "index": 0, "delta": delta}));
        }
        self.assistant(&id, &json!([{"type": "text", "text": text}]));
        self.stream(&json!({"type": "content_block_stop", "index": 0}));
        self.stream(&json!({"type": "message_stop"}));
    }

    pub(super) fn tool_use(&mut self, name: &str, input: &Value) -> String {
        let (message, tool) = (self.id("msg"), self.id("toolu"));
        let block = json!({"type": "tool_use", "id": tool, "name": name, "input": input});
        self.assistant(&message, &json!([block]));
        tool
    }

    pub(super) fn tool_result(&mut self, tool: &str, is_error: bool, text: &str) {
        let block = json!({"tool_use_id": tool, "type": "tool_result", "content": text,
            "is_error": is_error});
        self.say(&json!({"type": "user", "message": {"role": "user", "content": [block]},
            "parent_tool_use_id": null, "session_id": self.session.clone()}));
    }

    fn assistant(&mut self, id: &str, content: &Value) {
        let message = json!({"id": id, "type": "message", "role": "assistant",
            "model": "claude-opus-5-5", "content": content, "stop_reason": null});
        self.say(&json!({"type": "assistant", "message": message, "parent_tool_use_id": null,
            "session_id": self.session.clone()}));
    }

    fn stream(&mut self, event: &Value) {
        self.say(&json!({"type": "stream_event", "event": event, "parent_tool_use_id": null,
            "session_id": self.session.clone()}));
    }

    /// Usage is the turn's, money is the conversation's.
    pub(super) fn result(&mut self, outcome: &Value) {
        let mut line = outcome.clone();
        line["session_id"] = json!(self.session);
        line["total_cost_usd"] = json!(0.0008 * self.turns as f64);
        line["usage"] = json!({"input_tokens": 100, "output_tokens": 20});
        line["modelUsage"] = json!({"claude-opus-5-5": {"inputTokens": 100 * self.turns,
            "outputTokens": 20 * self.turns, "costUSD": 0.0008 * self.turns as f64}});
        line["num_turns"] = json!(1);
        line["type"] = json!("result");
        self.say(&line);
    }

    pub(super) fn id(&mut self, prefix: &str) -> String {
        self.ids += 1;
        format!("{prefix}_{}", self.ids)
    }

    pub(super) fn say(&mut self, line: &Value) {
        self.write(Stream::Out, format!("{line}\n").into_bytes());
    }
}
