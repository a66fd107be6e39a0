//! What is said to claude: each function makes one line.
//!
//! Owns the encoding; refuses to know when something is said. No line ever holds a raw line separator, so no text can
//! pass for a message: claude reads each line as one message, and whatever a person typed is inside a JSON string.

use alloc::vec::Vec;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::agent::json::line;

/// The name of our hook.
pub(super) const PRE_TOOL_USE: &str = "pre_tool_use";

/// Makes claude ready, and hooks us in before every use of a tool: what the owner's own settings allow, claude would
/// run without asking (security H1, H2). To be said first of all; its answer shows that claude is ready.
#[must_use]
pub fn initialize(request: &str) -> Vec<u8> {
    #[derive(Serialize)]
    struct Hooks {
        #[serde(rename = "PreToolUse")]
        pre_tool_use: [Hook; 1],
    }
    #[derive(Serialize)]
    struct Hook {
        matcher: &'static str,
        #[serde(rename = "hookCallbackIds")]
        callbacks: [&'static str; 1],
    }
    let hooks = Hooks { pre_tool_use: [Hook { matcher: "*", callbacks: [PRE_TOOL_USE] }] };
    ask(request, &Subtype { subtype: "initialize", hooks: Some(hooks), model: None })
}

/// It has to ask before it uses the tool, whatever its own rules say.
#[must_use]
pub fn must_ask(request: &str) -> Vec<u8> {
    #[derive(Serialize)]
    struct Output {
        #[serde(rename = "hookSpecificOutput")]
        specific: Specific,
    }
    #[derive(Serialize)]
    struct Specific {
        #[serde(rename = "hookEventName")]
        event: &'static str,
        #[serde(rename = "permissionDecision")]
        decision: &'static str,
        #[serde(rename = "permissionDecisionReason")]
        reason: &'static str,
    }
    let reason = "clawd asks before this tool";
    let specific = Specific { event: "PreToolUse", decision: "ask", reason };
    answer(request, &Output { specific })
}

/// Its own rules decide whether it has to ask before it uses the tool.
#[must_use]
pub fn may_decide(request: &str) -> Vec<u8> {
    #[derive(Serialize)]
    struct NoOpinion {}
    answer(request, &NoOpinion {})
}

/// Stops the turn in progress.
#[must_use]
pub fn interrupt(request: &str) -> Vec<u8> {
    ask(request, &Subtype { subtype: "interrupt", hooks: None::<()>, model: None })
}

/// Changes the model. Costs a small call to the model's provider.
#[must_use]
pub fn set_model(request: &str, model: &str) -> Vec<u8> {
    ask(request, &Subtype { subtype: "set_model", hooks: None::<()>, model: Some(model) })
}

/// A person's message. `uuid` names it in claude's own history.
#[must_use]
pub fn user_message(text: &str, uuid: &str) -> Vec<u8> {
    #[derive(Serialize)]
    struct User<'a> {
        r#type: &'static str,
        message: Message<'a>,
        parent_tool_use_id: Option<&'a str>,
        session_id: &'static str,
        uuid: &'a str,
    }
    #[derive(Serialize)]
    struct Message<'a> {
        role: &'static str,
        content: [Text<'a>; 1],
    }
    #[derive(Serialize)]
    struct Text<'a> {
        r#type: &'static str,
        text: &'a str,
    }
    line(&User {
        r#type: "user",
        message: Message { role: "user", content: [Text { r#type: "text", text }] },
        parent_tool_use_id: None,
        session_id: "",
        uuid,
    })
}

/// Lets a tool run with this input: the very text of [`Asked`](crate::agent::AgentEvent::Asked) (security H3). A text
/// that is no JSON cannot have been asked for, and is denied.
#[must_use]
pub fn allow(request: &str, input: &str) -> Vec<u8> {
    #[derive(Serialize)]
    struct Allow<'a> {
        behavior: &'static str,
        #[serde(rename = "updatedInput")]
        updated_input: &'a RawValue,
    }
    match serde_json::from_str::<&RawValue>(input) {
        Ok(updated_input) => answer(request, &Allow { behavior: "allow", updated_input }),
        Err(_) => deny(request, "the approved input was damaged", false),
    }
}

/// Forbids a tool call. The agent is told why; `interrupt` ends its turn as well.
#[must_use]
pub fn deny(request: &str, message: &str, interrupt: bool) -> Vec<u8> {
    #[derive(Serialize)]
    struct Deny<'a> {
        behavior: &'static str,
        message: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        interrupt: Option<bool>,
    }
    answer(request, &Deny { behavior: "deny", message, interrupt: interrupt.then_some(true) })
}

/// Answers a request that nobody here can answer, so that claude does not wait for ever.
#[must_use]
pub fn error_reply(request: &str, message: &str) -> Vec<u8> {
    respond(&Response::<()> {
        subtype: "error",
        request_id: request,
        response: None,
        error: Some(message),
    })
}

#[derive(Serialize)]
struct Subtype<'a, H> {
    subtype: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hooks: Option<H>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
}

fn ask(request_id: &str, request: &impl Serialize) -> Vec<u8> {
    #[derive(Serialize)]
    struct Control<'a, R> {
        r#type: &'static str,
        request_id: &'a str,
        request: &'a R,
    }
    line(&Control { r#type: "control_request", request_id, request })
}

#[derive(Serialize)]
struct Response<'a, R> {
    subtype: &'static str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<&'a R>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

fn answer(request: &str, response: &impl Serialize) -> Vec<u8> {
    respond(&Response {
        subtype: "success",
        request_id: request,
        response: Some(response),
        error: None,
    })
}

fn respond<R: Serialize>(response: &Response<'_, R>) -> Vec<u8> {
    #[derive(Serialize)]
    struct Control<'a, R> {
        r#type: &'static str,
        response: &'a Response<'a, R>,
    }
    line(&Control { r#type: "control_response", response })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use proptest::prelude::*;

    fn text(line: Vec<u8>) -> String {
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn each_message_is_what_claude_reads() {
        let input = r#"{"command":"echo hi > out.txt","n":1.0}"#;
        let table = [
            (
                initialize("r1"),
                r#"{"type":"control_request","request_id":"r1","request":{"subtype":"initialize","hooks":{"PreToolUse":[{"matcher":"*","hookCallbackIds":["pre_tool_use"]}]}}}"#,
            ),
            (
                must_ask("r8"),
                r#"{"type":"control_response","response":{"subtype":"success","request_id":"r8","response":{"hookSpecificOutput":{"hookEventName":"PreToolUse","permissionDecision":"ask","permissionDecisionReason":"clawd asks before this tool"}}}}"#,
            ),
            (
                may_decide("r9"),
                r#"{"type":"control_response","response":{"subtype":"success","request_id":"r9","response":{}}}"#,
            ),
            (
                interrupt("r2"),
                r#"{"type":"control_request","request_id":"r2","request":{"subtype":"interrupt"}}"#,
            ),
            (
                set_model("r3", "opus"),
                r#"{"type":"control_request","request_id":"r3","request":{"subtype":"set_model","model":"opus"}}"#,
            ),
            (
                user_message("hi", "u1"),
                r#"{"type":"user","message":{"role":"user","content":[{"type":"text","text":"hi"}]},"parent_tool_use_id":null,"session_id":"","uuid":"u1"}"#,
            ),
            (
                allow("r4", input),
                r#"{"type":"control_response","response":{"subtype":"success","request_id":"r4","response":{"behavior":"allow","updatedInput":{"command":"echo hi > out.txt","n":1.0}}}}"#,
            ),
            (
                deny("r5", "no", false),
                r#"{"type":"control_response","response":{"subtype":"success","request_id":"r5","response":{"behavior":"deny","message":"no"}}}"#,
            ),
            (
                deny("r6", "no", true),
                r#"{"type":"control_response","response":{"subtype":"success","request_id":"r6","response":{"behavior":"deny","message":"no","interrupt":true}}}"#,
            ),
            (
                error_reply("r7", "why"),
                r#"{"type":"control_response","response":{"subtype":"error","request_id":"r7","error":"why"}}"#,
            ),
        ];
        for (line, expected) in table {
            assert_eq!(text(line).strip_suffix('\n'), Some(expected));
        }
    }

    #[test]
    fn h3_the_input_goes_back_exactly_as_it_came() {
        let input = r#"{ "b":1e3, "a":"\u00e9\/", "b2":[ ] }"#;
        assert!(text(allow("r", input)).contains(input));
    }

    #[test]
    fn h1_a_damaged_input_is_denied() {
        for input in ["", "{", "{}}", r#"{}}}},"x":{"#, "{}\n{}"] {
            let line = text(allow("r", input));
            assert!(line.contains(r#""behavior":"deny""#) && !line.contains("allow"), "{input}");
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_out_of_its_line(
            words in prop::collection::vec(
                prop_oneof![
                    any::<String>(),
                    Just("\n".into()), Just("\r".into()), Just("\u{2028}".into()),
                    Just("\u{2029}".into()), Just("\\".into()), Just("\"".into()),
                ],
                0..8,
            ),
        ) {
            let said = words.concat();
            let input = serde_json::to_string(&[&said]).unwrap().replace(',', ",\n");
            for line in [user_message(&said, "u"), deny("r", &said, true), allow("r", &input)] {
                let line = text(line);
                let inner = line.strip_suffix('\n').unwrap();
                let is_split = inner.contains(['\n', '\r', '\u{2028}', '\u{2029}']);
                prop_assert!(!is_split);
                prop_assert!(serde_json::from_str::<&RawValue>(inner).is_ok());
            }
            let line = text(user_message(&said, "u"));
            let value: serde_json::Value = serde_json::from_str(&line).unwrap();
            prop_assert_eq!(value["message"]["content"][0]["text"].as_str(), Some(&*said));
        }
    }
}
