//! What a line of claude means.
//!
//! Owns the shapes of its lines; refuses to keep anything from one line to the next.

use alloc::borrow::Cow;
use alloc::string::String;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::speak::PRE_TOOL_USE;
use crate::agent::event::{AgentEvent, INPUT_DEPTH_MAX, Outcome, TurnEnd, UNREADABLE_INPUT};
use crate::agent::json::{Raw, each, is_object_within, is_true, micro_usd, object, read, text};
use crate::contract::record::Usage;

type Tell<'t> = &'t mut dyn FnMut(AgentEvent<'_>);

/// Tells what a line means: at least one event for every line, in the order of its parts.
pub fn parse(line: &[u8], tell: Tell<'_>) {
    if line.trim_ascii().is_empty() {
        return tell(AgentEvent::Ignored);
    }
    let raw = core::str::from_utf8(line).ok().and_then(|line| serde_json::from_str(line).ok());
    let Some(line) = object::<Line<'_>>(raw) else {
        return tell(AgentEvent::Garbage);
    };
    let mut has_told = false;
    on_line(&line, &mut |event| {
        has_told = true;
        tell(event);
    });
    if !has_told {
        tell(AgentEvent::Ignored);
    }
}

/// The fields of any line. Their types are looked at only once the kind of line is known, so that a field of an unknown
/// kind cannot spoil a line.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow, rename = "type")]
    kind: Raw<'a>,
    #[serde(borrow)]
    subtype: Raw<'a>,
    #[serde(borrow)]
    parent_tool_use_id: Raw<'a>,
    #[serde(borrow)]
    session_id: Raw<'a>,
    #[serde(borrow)]
    request_id: Raw<'a>,
    #[serde(borrow)]
    message: Raw<'a>,
    #[serde(borrow)]
    event: Raw<'a>,
    #[serde(borrow)]
    request: Raw<'a>,
    #[serde(borrow)]
    response: Raw<'a>,
    #[serde(borrow)]
    abandoned_blocks: Raw<'a>,
    #[serde(borrow)]
    error: Raw<'a>,
    #[serde(borrow)]
    model: Raw<'a>,
    #[serde(borrow)]
    claude_code_version: Raw<'a>,
    #[serde(borrow, rename = "apiKeySource")]
    api_key_source: Raw<'a>,
    #[serde(borrow)]
    attempt: Raw<'a>,
    #[serde(borrow)]
    max_retries: Raw<'a>,
    #[serde(borrow)]
    retry_delay_ms: Raw<'a>,
    #[serde(borrow)]
    error_status: Raw<'a>,
    #[serde(borrow)]
    is_error: Raw<'a>,
    #[serde(borrow)]
    terminal_reason: Raw<'a>,
    #[serde(borrow)]
    api_error_status: Raw<'a>,
    #[serde(borrow)]
    result: Raw<'a>,
    #[serde(borrow)]
    errors: Raw<'a>,
    #[serde(borrow)]
    total_cost_usd: Raw<'a>,
    #[serde(borrow, rename = "modelUsage")]
    model_usage: Raw<'a>,
}

fn on_line(line: &Line<'_>, tell: Tell<'_>) {
    let kind = text(line.kind);
    match kind.as_deref() {
        Some("system") => on_system(line, tell),
        Some("stream_event") if line.parent_tool_use_id.is_none() => on_stream(line, tell),
        Some("assistant") => on_assistant(line, tell),
        Some("user") => on_user(line, tell),
        Some("control_request") => on_request(line, tell),
        Some("control_response") => on_response(line, tell),
        Some("control_cancel_request") => {
            if let Some(request) = text(line.request_id) {
                tell(AgentEvent::AskWithdrawn { request: &request });
            }
        }
        Some("result") => on_result(line, tell),
        Some(_) | None => {}
    }
}

fn on_system(line: &Line<'_>, tell: Tell<'_>) {
    let subtype = text(line.subtype);
    match subtype.as_deref() {
        Some("init") => tell(AgentEvent::Began {
            conversation: text(line.session_id).as_deref().unwrap_or_default(),
            model: text(line.model).as_deref(),
            version: text(line.claude_code_version).as_deref(),
            api_key_source: text(line.api_key_source).as_deref(),
        }),
        Some("api_retry") => tell(AgentEvent::Retrying {
            attempt: read(line.attempt).unwrap_or(1),
            max: read(line.max_retries).unwrap_or(0),
            delay_ms: read(line.retry_delay_ms).unwrap_or(0),
            status: read(line.error_status),
        }),
        Some(_) | None => {}
    }
}

/// An event of the model's own stream, which claude passes on.
#[derive(Deserialize)]
struct StreamEvent<'a> {
    #[serde(borrow, rename = "type")]
    kind: Raw<'a>,
    #[serde(borrow)]
    delta: Raw<'a>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow, rename = "type")]
    kind: Raw<'a>,
    #[serde(borrow)]
    text: Raw<'a>,
}

fn on_stream(line: &Line<'_>, tell: Tell<'_>) {
    let Some(event) = object::<StreamEvent<'_>>(line.event) else { return };
    match text(event.kind).as_deref() {
        Some("message_start") => tell(AgentEvent::TextRestarted),
        // The message broke off; what claude asks the model for instead may come without any stream.
        Some("message_stop") if line.abandoned_blocks.is_some() => tell(AgentEvent::TextRestarted),
        Some("content_block_delta") => {
            let Some(delta) = object::<Delta<'_>>(event.delta) else { return };
            if text(delta.kind).as_deref() == Some("text_delta")
                && let Some(delta) = text(delta.text)
            {
                tell(AgentEvent::Text { delta: &delta });
            }
        }
        Some(_) | None => {}
    }
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    model: Raw<'a>,
    #[serde(borrow)]
    content: Raw<'a>,
}

/// A block of a message: the union of the kinds that matter.
#[derive(Deserialize)]
struct Block<'a> {
    #[serde(borrow, rename = "type")]
    kind: Raw<'a>,
    #[serde(borrow)]
    text: Raw<'a>,
    #[serde(borrow)]
    id: Raw<'a>,
    #[serde(borrow)]
    name: Raw<'a>,
    #[serde(borrow)]
    input: Raw<'a>,
    #[serde(borrow)]
    tool_use_id: Raw<'a>,
    #[serde(borrow)]
    content: Raw<'a>,
    #[serde(borrow)]
    is_error: Raw<'a>,
}

fn on_assistant(line: &Line<'_>, tell: Tell<'_>) {
    let Some(message) = object::<Message<'_>>(line.message) else { return };
    // claude words an API error as a message of its own; the turn's end says the same text again.
    let is_error = line.error.is_some() && text(message.model).as_deref() == Some("<synthetic>");
    let is_subagent = line.parent_tool_use_id.is_some();
    each(message.content, &mut |block| {
        let Some(block) = object::<Block<'_>>(Some(block)) else { return };
        match text(block.kind).as_deref() {
            Some("text") if !is_error && !is_subagent => {
                if let Some(text) = text(block.text) {
                    tell(AgentEvent::TextDone { text: &text });
                }
            }
            Some("tool_use" | "server_tool_use" | "mcp_tool_use") => {
                if let (Some(id), Some(name)) = (text(block.id), text(block.name)) {
                    let input = readable(block.input).unwrap_or(UNREADABLE_INPUT);
                    tell(AgentEvent::ToolUsed { id: &id, name: &name, input });
                }
            }
            Some(_) => on_tool_result(&block, tell),
            None => {}
        }
    });
}

fn on_user(line: &Line<'_>, tell: Tell<'_>) {
    let Some(message) = object::<Message<'_>>(line.message) else { return };
    each(message.content, &mut |block| {
        if let Some(block) = object::<Block<'_>>(Some(block)) {
            on_tool_result(&block, tell);
        }
    });
}

fn on_tool_result(block: &Block<'_>, tell: Tell<'_>) {
    // The results of tools that the provider runs come inside the assistant's own message.
    let is_result = matches!(
        text(block.kind).as_deref(),
        Some(
            "tool_result" | "mcp_tool_result" | "web_search_tool_result" | "web_fetch_tool_result"
        )
    );
    if is_result && let Some(id) = text(block.tool_use_id) {
        let output = flat_text(block.content);
        tell(AgentEvent::ToolEnded { id: &id, output: &output, is_error: is_true(block.is_error) });
    }
}

/// The text of a content that is a string or a list of blocks. What is no text is named in brackets.
fn flat_text(content: Raw<'_>) -> Cow<'_, str> {
    if let Some(text) = text(content) {
        return text;
    }
    let mut flat = String::new();
    each(content, &mut |block| {
        let Some(block) = object::<Block<'_>>(Some(block)) else { return };
        if !flat.is_empty() {
            flat.push('\n');
        }
        if let Some(text) = text(block.text) {
            flat.push_str(&text);
        } else {
            flat.push('[');
            flat.push_str(text(block.kind).as_deref().unwrap_or("unknown"));
            flat.push(']');
        }
    });
    Cow::Owned(flat)
}

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    subtype: Raw<'a>,
    #[serde(borrow)]
    tool_name: Raw<'a>,
    #[serde(borrow)]
    tool_use_id: Raw<'a>,
    #[serde(borrow)]
    input: Raw<'a>,
    #[serde(borrow)]
    decision_reason: Raw<'a>,
    #[serde(borrow)]
    callback_id: Raw<'a>,
}

/// What a hook is called with.
#[derive(Deserialize)]
struct HookInput<'a> {
    #[serde(borrow)]
    tool_name: Raw<'a>,
    #[serde(borrow)]
    tool_input: Raw<'a>,
}

fn on_request(line: &Line<'_>, tell: Tell<'_>) {
    // Without an id nobody could answer.
    let Some(id) = text(line.request_id) else { return };
    let mut refuse = |why| tell(AgentEvent::UnknownRequest { request: &id, why });
    let Some(request) = object::<Request<'_>>(line.request) else {
        return refuse("the request is not an object");
    };
    let subtype = text(request.subtype);
    if subtype.as_deref() == Some("hook_callback")
        && text(request.callback_id).as_deref() == Some(PRE_TOOL_USE)
    {
        // A hook without a tool is about nothing that we know, so it is treated as about what we do not.
        let hook = object::<HookInput<'_>>(request.input);
        let tool = hook.as_ref().and_then(|hook| text(hook.tool_name));
        let tool = tool.as_deref().unwrap_or_default();
        let input = hook.and_then(|hook| readable(hook.tool_input)).unwrap_or(UNREADABLE_INPUT);
        return tell(AgentEvent::AboutToUse { request: &id, tool, input });
    }
    if subtype.as_deref() != Some("can_use_tool") {
        return refuse("requests of this kind are not supported");
    }
    let (Some(tool), Some(tool_id)) = (text(request.tool_name), text(request.tool_use_id)) else {
        return refuse("a tool call without tool_name or tool_use_id cannot be approved");
    };
    let input = readable(request.input).unwrap_or(UNREADABLE_INPUT);
    let reason = text(request.decision_reason);
    tell(AgentEvent::Asked {
        request: &id,
        tool_id: &tool_id,
        tool: &tool,
        input,
        reason: reason.as_deref(),
    });
}

/// A tool's input as it was sent, if it can be shown and given back.
fn readable(input: Raw<'_>) -> Option<&str> {
    input.filter(|input| is_object_within(input, INPUT_DEPTH_MAX)).map(RawValue::get)
}

#[derive(Deserialize)]
struct Response<'a> {
    #[serde(borrow)]
    subtype: Raw<'a>,
    #[serde(borrow)]
    request_id: Raw<'a>,
    #[serde(borrow)]
    error: Raw<'a>,
}

fn on_response(line: &Line<'_>, tell: Tell<'_>) {
    let Some(response) = object::<Response<'_>>(line.response) else { return };
    let Some(request) = text(response.request_id) else { return };
    let has_failed = text(response.subtype).as_deref() != Some("success");
    let error = text(response.error).unwrap_or(Cow::Borrowed("claude gave no reason"));
    tell(AgentEvent::Replied { request: &request, error: has_failed.then_some(&*error) });
}

fn on_result(line: &Line<'_>, tell: Tell<'_>) {
    // `subtype` says "success" for API errors too, so the outcome is read from the other two.
    let reason = text(line.terminal_reason);
    let status = read::<u16>(line.api_error_status);
    let outcome = match (is_true(line.is_error), reason.as_deref()) {
        (false, _) => Outcome::Completed,
        (true, Some("aborted_streaming" | "aborted_tools")) => Outcome::Interrupted,
        (true, Some("api_error")) => Outcome::ApiError,
        (true, Some(_) | None) if status.is_some() => Outcome::ApiError,
        (true, Some(_) | None) => Outcome::Failed,
    };
    let mut error = String::new();
    if outcome != Outcome::Completed {
        error.push_str(text(line.result).as_deref().unwrap_or_default());
        each(line.errors, &mut |item| {
            if let Some(item) = text(Some(item)) {
                error.push_str(if error.is_empty() { "" } else { "; " });
                error.push_str(&item);
            }
        });
    }
    tell(AgentEvent::TurnEnded(TurnEnd {
        outcome,
        api_status: status,
        retry_after_ms: None,
        error: &error,
        usage: usage(line),
        is_not_found: error.starts_with("No conversation found"),
        is_not_logged_in: outcome == Outcome::ApiError && is_about_login(&error, status),
    }));
}

fn is_about_login(error: &str, status: Option<u16>) -> bool {
    status == Some(401)
        || ["Not logged in", "Invalid API key", "Please run /login"]
            .iter()
            .any(|words| error.contains(words))
}

#[derive(Deserialize)]
struct ModelUsage<'a> {
    #[serde(borrow, rename = "inputTokens")]
    input: Raw<'a>,
    #[serde(borrow, rename = "cacheReadInputTokens")]
    cache_read: Raw<'a>,
    #[serde(borrow, rename = "cacheCreationInputTokens")]
    cache_creation: Raw<'a>,
    #[serde(borrow, rename = "outputTokens")]
    output: Raw<'a>,
}

/// The totals over all models; `None` if no model was used, as in the answer to an unknown conversation.
fn usage(line: &Line<'_>) -> Option<Usage> {
    let mut total: Option<Usage> = None;
    each(line.model_usage, &mut |model| {
        let Some(model) = object::<ModelUsage<'_>>(Some(model)) else { return };
        let usage = total.get_or_insert_default();
        for tokens in [model.input, model.cache_read, model.cache_creation] {
            usage.input_tokens = usage.input_tokens.saturating_add(read(tokens).unwrap_or(0));
        }
        usage.output_tokens = usage.output_tokens.saturating_add(read(model.output).unwrap_or(0));
    });
    let mut total = total?;
    total.cost_micro_usd = line.total_cost_usd.and_then(|cost| micro_usd(cost.get()));
    Some(total)
}

#[cfg(test)]
mod tests;
