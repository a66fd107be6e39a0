//! Lines written by hand after what claude was seen to say.

use super::*;
use crate::agent::lines::{Line as Cut, Lines};
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;
use proptest::prelude::*;

fn told(line: impl AsRef<[u8]>) -> Vec<String> {
    let mut events = Vec::new();
    parse(line.as_ref(), &mut |event| events.push(format!("{event:?}")));
    events
}

/// Checks that the line tells exactly these events.
fn tells(line: &str, expected: &[AgentEvent<'_>]) {
    let expected: Vec<String> = expected.iter().map(|event| format!("{event:?}")).collect();
    assert_eq!(told(line), expected, "{line}");
}

fn assistant(blocks: &str, rest: &str) -> String {
    format!(
        r#"{{"type":"assistant","message":{{"id":"m1","role":"assistant","model":"opus","content":[{blocks}]}}{rest}}}"#
    )
}

#[test]
fn a_turn_begins_with_what_the_agent_is() {
    let line = r#"{"type":"system","subtype":"init","cwd":"/r","session_id":"c1","tools":["Bash"],"model":"opus","permissionMode":"default","apiKeySource":"none","claude_code_version":"2.1.330"}"#;
    tells(
        line,
        &[AgentEvent::Began {
            conversation: "c1",
            model: Some("opus"),
            version: Some("2.1.330"),
            api_key_source: Some("none"),
        }],
    );
}

#[test]
fn text_streams_and_is_replaced_by_the_finished_block() {
    let stream = |event: &str| {
        format!(r#"{{"type":"stream_event","event":{event},"parent_tool_use_id":null}}"#)
    };
    tells(
        &stream(r#"{"type":"message_start","message":{"content":[]}}"#),
        &[AgentEvent::TextRestarted],
    );
    let delta =
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a\nb"}}"#;
    tells(&stream(delta), &[AgentEvent::Text { delta: "a\nb" }]);
    let stop =
        r#"{"type":"stream_event","event":{"type":"message_stop"},"parent_tool_use_id":null}"#;
    tells(stop, &[AgentEvent::Ignored]);
    let abandoned = stop.replace("null}", r#"null,"abandoned_blocks":{"from_block_index":1}}"#);
    tells(&abandoned, &[AgentEvent::TextRestarted]);
    for silent in [
        r#"{"type":"content_block_delta","delta":{"type":"thinking_delta","thinking":"hm"}}"#,
        r#"{"type":"content_block_delta","delta":{"type":"input_json_delta","partial_json":"{"}}"#,
        r#"{"type":"content_block_stop","index":0}"#,
    ] {
        tells(&stream(silent), &[AgentEvent::Ignored]);
    }
    tells(
        &assistant(r#"{"type":"text","text":"a\nb"}"#, ""),
        &[AgentEvent::TextDone { text: "a\nb" }],
    );
}

#[test]
fn several_blocks_of_a_message_are_told_in_order() {
    let blocks = r#"{"type":"thinking","thinking":"hm"},{"type":"text","text":"now"},{"name":"Bash","input":{"command":"ls", "n":[1]},"id":"t1","type":"tool_use"},{"type":"server_tool_use","id":"s1","name":"web_search","input":{}},{"type":"web_search_tool_result","tool_use_id":"s1","content":[{"type":"web_search_result","url":"u"}]}"#;
    tells(
        &assistant(blocks, r#","parent_tool_use_id":null"#),
        &[
            AgentEvent::TextDone { text: "now" },
            AgentEvent::ToolUsed { id: "t1", name: "Bash", input: r#"{"command":"ls", "n":[1]}"# },
            AgentEvent::ToolUsed { id: "s1", name: "web_search", input: "{}" },
            AgentEvent::ToolEnded { id: "s1", output: "[web_search_result]", is_error: false },
        ],
    );
}

#[test]
fn h8_a_subagents_tools_are_told_but_not_its_text() {
    let blocks = r#"{"type":"text","text":"inner"},{"type":"tool_use","id":"t2","name":"Read","input":{"p":1}}"#;
    tells(
        &assistant(blocks, r#","parent_tool_use_id":"t1""#),
        &[AgentEvent::ToolUsed { id: "t2", name: "Read", input: r#"{"p":1}"# }],
    );
    let delta = r#"{"type":"stream_event","event":{"type":"content_block_delta","delta":{"type":"text_delta","text":"inner"}},"parent_tool_use_id":"t1"}"#;
    tells(delta, &[AgentEvent::Ignored]);
}

#[test]
fn tool_results_come_as_text_or_blocks() {
    let user = |content: &str| {
        format!(
            r#"{{"type":"user","message":{{"role":"user","content":[{{"tool_use_id":"t1","type":"tool_result",{content}}}]}},"parent_tool_use_id":null}}"#
        )
    };
    let ended = |output, is_error| AgentEvent::ToolEnded { id: "t1", output, is_error };
    tells(&user(r#""content":"ok","is_error":false"#), &[ended("ok", false)]);
    tells(&user(r#""content":"User said no","is_error":true"#), &[ended("User said no", true)]);
    tells(
        &user(
            r#""content":[{"type":"text","text":"a"},{"type":"image","source":{}},{"type":"text","text":"b"}]"#,
        ),
        &[ended("a\n[image]\nb", false)],
    );
    tells(&user(r#""is_error":null"#), &[ended("", false)]);
    let typed =
        r#"{"type":"user","message":{"role":"user","content":"[Request interrupted by user]"}}"#;
    tells(typed, &[AgentEvent::Ignored]);
}

#[test]
fn an_ask_carries_the_input_as_it_was_sent() {
    let line = r#"{"request":{"tool_use_id":"t1","input":{"command":"a\u0020b"},"decision_reason":"outside","tool_name":"Bash","subtype":"can_use_tool"},"request_id":"r1","type":"control_request"}"#;
    tells(
        line,
        &[AgentEvent::Asked {
            request: "r1",
            tool_id: "t1",
            tool: "Bash",
            input: r#"{"command":"a\u0020b"}"#,
            reason: Some("outside"),
        }],
    );
    let cancel = r#"{"type":"control_cancel_request","request_id":"r1"}"#;
    tells(cancel, &[AgentEvent::AskWithdrawn { request: "r1" }]);
}

#[test]
fn h1_what_cannot_be_approved_is_a_request_to_refuse() {
    for request in [
        r#"{"subtype":"hook_callback","callback_id":"h"}"#.to_string(),
        r#"{"subtype":"can_use_tool","tool_name":"Bash","input":{}}"#.to_string(),
        r#"{"subtype":"can_use_tool","tool_use_id":"t","input":{}}"#.to_string(),
        r#"{"subtype":7}"#.to_string(),
        "{}".to_string(),
        "[]".to_string(),
        "null".to_string(),
    ] {
        let events =
            told(format!(r#"{{"type":"control_request","request_id":"r1","request":{request}}}"#));
        assert_eq!(events.len(), 1);
        assert!(events[0].starts_with(r#"UnknownRequest { request: "r1""#), "{events:?}");
    }
}

#[test]
fn h1_an_input_that_cannot_be_shown_is_told_as_such() {
    let deep = format!("{}1{}", r#"{"a":"#.repeat(60), "}".repeat(60));
    for input in [r#""ls""#, "null", "[]", &deep] {
        let line = format!(
            r#"{{"type":"control_request","request_id":"r1","request":{{"subtype":"can_use_tool","tool_name":"Bash","tool_use_id":"t1","input":{input}}}}}"#
        );
        let (tool_id, tool, input) = ("t1", "Bash", UNREADABLE_INPUT);
        tells(&line, &[AgentEvent::Asked { request: "r1", tool_id, tool, input, reason: None }]);
    }
}

#[test]
fn h2_our_hook_is_told_before_every_tool() {
    let line = r#"{"type":"control_request","request_id":"r1","request":{"subtype":"hook_callback","callback_id":"pre_tool_use","input":{"hook_event_name":"PreToolUse","tool_name":"Bash","tool_input":{"command":"ls"}},"tool_use_id":"t1"}}"#;
    let input = r#"{"command":"ls"}"#;
    tells(line, &[AgentEvent::AboutToUse { request: "r1", tool: "Bash", input }]);
    let nameless = line.replace("tool_name", "name");
    tells(&nameless, &[AgentEvent::AboutToUse { request: "r1", tool: "", input }]);
    let inputless = line.replace("tool_input", "input");
    let input = UNREADABLE_INPUT;
    tells(&inputless, &[AgentEvent::AboutToUse { request: "r1", tool: "Bash", input }]);
}

#[test]
fn replies_to_our_requests_are_matched_by_id() {
    let ok = r#"{"type":"control_response","response":{"subtype":"success","request_id":"i1","response":{"commands":[]}}}"#;
    tells(ok, &[AgentEvent::Replied { request: "i1", error: None }]);
    let no = r#"{"type":"control_response","response":{"subtype":"error","request_id":"m1","error":"unknown model"}}"#;
    tells(no, &[AgentEvent::Replied { request: "m1", error: Some("unknown model") }]);
}

#[test]
fn retries_say_when_and_why() {
    let line = r#"{"type":"system","subtype":"api_retry","attempt":2,"max_retries":10,"retry_delay_ms":1159,"error_status":529,"error":"overloaded"}"#;
    let retrying =
        |status, delay_ms| AgentEvent::Retrying { attempt: 2, max: 10, delay_ms, status };
    tells(line, &[retrying(Some(529), 1159)]);
    tells(&line.replace("529", "null").replace("1159", "1159.5"), &[retrying(None, 0)]);
}

fn ended(line: &str) -> (Outcome, Option<u16>, String, Option<Usage>, bool, bool) {
    let mut ends = Vec::new();
    parse(line.as_bytes(), &mut |event| {
        if let AgentEvent::TurnEnded(end) = event {
            let text = end.error.to_string();
            ends.push((
                end.outcome,
                end.api_status,
                text,
                end.usage,
                end.is_not_found,
                end.is_not_logged_in,
            ));
        }
    });
    assert_eq!(ends.len(), 1, "{line}");
    ends.remove(0)
}

#[test]
fn a_turn_ends_well_wherever_its_type_stands() {
    let line = r#"{"stop_reason":"end_turn","total_cost_usd":8e-4,"usage":{"input_tokens":1},"modelUsage":{"opus":{"inputTokens":100,"outputTokens":20,"cacheReadInputTokens":3,"cacheCreationInputTokens":4,"costUSD":0.0008},"haiku":{"inputTokens":5,"outputTokens":1}},"terminal_reason":"completed","is_error":false,"subtype":"success","api_error_status":null,"result":"Hello","type":"result"}"#;
    let usage = Usage { input_tokens: 112, output_tokens: 21, cost_micro_usd: Some(800) };
    let expected = (Outcome::Completed, None, String::new(), Some(usage), false, false);
    assert_eq!(ended(line), expected);
}

#[test]
fn a_turn_that_ends_badly_says_how() {
    let result = |rest: &str| ended(&format!(r#"{{"type":"result","is_error":true,{rest}}}"#));
    let (outcome, status, error, usage, ..) = result(
        r#""subtype":"success","terminal_reason":"api_error","api_error_status":529,"result":"API Error: 529","modelUsage":{}"#,
    );
    assert_eq!(
        (outcome, status, &*error, usage),
        (Outcome::ApiError, Some(529), "API Error: 529", None)
    );

    for reason in ["aborted_streaming", "aborted_tools"] {
        let end = result(&format!(
            r#""subtype":"error_during_execution","terminal_reason":"{reason}","errors":["a","b"]"#
        ));
        assert_eq!((end.0, &*end.2), (Outcome::Interrupted, "a; b"));
    }
    let end = result(r#""subtype":"error_max_turns","terminal_reason":"max_turns""#);
    assert_eq!((end.0, &*end.2), (Outcome::Failed, ""));
}

#[test]
fn a_missing_conversation_and_a_missing_login_are_recognised() {
    let missing = r#"{"type":"result","subtype":"error_during_execution","is_error":true,"modelUsage":{},"total_cost_usd":0,"errors":["No conversation found with session ID: c1"]}"#;
    let (outcome, _, _, usage, is_not_found, is_not_logged_in) = ended(missing);
    assert_eq!(
        (outcome, usage, is_not_found, is_not_logged_in),
        (Outcome::Failed, None, true, false)
    );

    let logged_out = r#"{"type":"result","subtype":"success","is_error":true,"terminal_reason":"api_error","api_error_status":null,"result":"Not logged in · Please run /login"}"#;
    let (outcome, _, _, _, is_not_found, is_not_logged_in) = ended(logged_out);
    assert_eq!((outcome, is_not_found, is_not_logged_in), (Outcome::ApiError, false, true));

    let quoted = r#"{"type":"result","is_error":false,"result":"Not logged in","errors":["No conversation found"]}"#;
    assert_eq!(ended(quoted), (Outcome::Completed, None, String::new(), None, false, false));
}

#[test]
fn an_api_errors_message_is_no_part_of_the_answer() {
    let line = r#"{"type":"assistant","message":{"model":"<synthetic>","content":[{"type":"text","text":"API Error"}]},"parent_tool_use_id":null,"error":"server_error"}"#;
    tells(line, &[AgentEvent::Ignored]);
    tells(
        &line.replace(r#","error":"server_error""#, ""),
        &[AgentEvent::TextDone { text: "API Error" }],
    );
}

#[test]
fn what_is_unknown_is_ignored_and_what_is_no_json_is_garbage() {
    for line in [
        "",
        " \r",
        "{}",
        r#"{"type":7}"#,
        r#"{"type":"command_lifecycle","state":"queued"}"#,
        r#"{"type":"system","subtype":"thinking_tokens"}"#,
        r#"{"type":"assistant","message":7}"#,
        r#"{"type":"assistant","message":{"content":[7,{"type":"tool_use"},{"type":null}]}}"#,
        r#"{"type":"control_request"}"#,
        r#"{"type":"stream_event","event":{"type":"content_block_delta","delta":{"type":"text_delta","text":5}}}"#,
    ] {
        tells(line, &[AgentEvent::Ignored]);
    }
    for line in
        ["x", "7", "[", "\"type\"", "{\"type\":", "{} {}", "{\"type\":\"a\",\"type\":\"b\"}"]
    {
        tells(line, &[AgentEvent::Garbage]);
    }
    let fields_in_a_list = format!("[\"system\",\"init\"{}]", ",null".repeat(23));
    tells(&fields_in_a_list, &[AgentEvent::Garbage]);
    assert_eq!(told(b"{\"type\":\"\xff\"}"), ["Garbage"]);
}

#[test]
fn nesting_costs_no_stack() {
    for open in ["[", r#"{"a":"#] {
        let deep = open.repeat(500_000);
        told(&deep);
        for field in ["type", "message", "event", "request", "modelUsage", "errors", "x"] {
            told(format!(r#"{{"{field}":{deep}"#));
        }
        let close = if open == "[" { "]" } else { "}" };
        let value = format!("{deep}1{}", close.repeat(500_000));
        told(format!(
            r#"{{"type":"assistant","message":{{"content":[{{"type":"text","text":{value}}}]}}}}"#
        ));
        told(format!(r#"{{"type":"result","errors":{value},"modelUsage":{value}}}"#));
    }
    let input = format!("{}1{}", r#"{"a":"#.repeat(500_000), "}".repeat(500_000));
    let line =
        assistant(&format!(r#"{{"type":"tool_use","id":"t","name":"B","input":{input}}}"#), "");
    tells(&line, &[AgentEvent::ToolUsed { id: "t", name: "B", input: UNREADABLE_INPUT }]);
}

/// One of each kind of line, to be damaged.
fn seeds() -> Vec<String> {
    [
        r#"{"type":"system","subtype":"init","session_id":"c1","model":"opus","apiKeySource":"none"}"#,
        r#"{"type":"stream_event","event":{"type":"content_block_delta","delta":{"type":"text_delta","text":"hé"}},"parent_tool_use_id":null}"#,
        r#"{"type":"assistant","message":{"content":[{"type":"text","text":"a"},{"type":"tool_use","id":"t1","name":"Bash","input":{"c":"ls"}}]}}"#,
        r#"{"type":"user","message":{"content":[{"type":"tool_result","tool_use_id":"t1","content":[{"type":"text","text":"x"}]}]}}"#,
        r#"{"type":"control_request","request_id":"r","request":{"subtype":"can_use_tool","tool_name":"B","tool_use_id":"t","input":{}}}"#,
        r#"{"type":"control_response","response":{"subtype":"error","request_id":"r","error":"e"}}"#,
        r#"{"is_error":true,"errors":["e"],"total_cost_usd":1.5e-3,"modelUsage":{"o":{"inputTokens":1}},"type":"result"}"#,
    ]
    .map(ToString::to_string)
    .into()
}

proptest! {
    #[test]
    fn any_bytes_tell_at_least_one_event(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(!told(&bytes).is_empty());
    }

    #[test]
    fn damaged_lines_tell_at_least_one_event(
        seed in prop::sample::select(seeds()),
        hits in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![
            any::<u8>(), prop::sample::select(b"{}[]\":,\\0e-".to_vec()),
        ]), 1..6),
    ) {
        let mut bytes = seed.into_bytes();
        for (at, byte) in hits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        prop_assert!(!told(&bytes).is_empty());
    }

    #[test]
    fn chunks_change_no_event(
        picked in prop::collection::vec(prop::sample::select(seeds()), 1..6),
        size in 1..90_usize,
    ) {
        let stream = picked.join("\n");
        let read = |chunks: Vec<&[u8]>| {
            let mut lines = Lines::new(4096);
            let mut events = Vec::new();
            let mut on_line = |line: Cut<'_>| match line {
                Cut::Whole(bytes) => events.extend(told(bytes)),
                Cut::TooLong => events.push("too long".to_string()),
            };
            for chunk in chunks {
                lines.push(chunk, &mut on_line);
            }
            lines.finish(&mut on_line);
            events
        };
        prop_assert_eq!(read(Vec::from([stream.as_bytes()])), read(stream.as_bytes().chunks(size).collect()));
    }
}
