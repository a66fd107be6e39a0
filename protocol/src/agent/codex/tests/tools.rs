//! What codex does, how it asks, and what it is told.

use super::*;

#[test]
fn a_command_is_a_call_of_bash() {
    let mut desk = Desk::turn();
    desk.item("started", &command("c1", "/bin/bash -lc ls"));
    ask_for_ls(&mut desk, &json!(0));
    desk.tells(&[
        AgentEvent::ToolUsed { id: "c1", name: "Bash", input: LS },
        AgentEvent::Asked {
            request: "0",
            tool_id: "c1",
            tool: "Bash",
            input: LS,
            reason: Some("to look"),
        },
    ]);
    desk.say(Say::Allow { request: "0".into(), input: LS.into() });
    assert_eq!(desk.last(), &json!({"id": 0, "result": {"decision": "accept"}}));
    desk.notify("serverRequest/resolved", json!({"requestId": 0}));
    let mut done = command("c1", "/bin/bash -lc ls");
    done["aggregatedOutput"] = json!("a\nb\n");
    done["exitCode"] = json!(0);
    done["status"] = json!("completed");
    desk.item("completed", &done);
    desk.tells(&[AgentEvent::ToolEnded { id: "c1", output: "a\nb\n", is_error: false }]);
}

#[test]
fn calls_end_with_what_they_said() {
    for (status, code, output, told, is_error) in [
        ("completed", json!(0), json!(null), "", false),
        ("completed", json!(1), json!("no"), "no", true),
        ("failed", json!(128), json!(null), "exit code 128", true),
        ("failed", json!(-1), json!("half"), "half", true),
        ("declined", json!(null), json!(null), "declined", true),
    ] {
        let mut desk = Desk::turn();
        let mut done = command("c1", "/bin/bash -lc ls");
        done["status"] = json!(status);
        done["exitCode"] = code;
        done["aggregatedOutput"] = output;
        desk.item("completed", &done);
        // Codex may say nothing of a call before it has ended.
        desk.tells(&[
            AgentEvent::ToolUsed { id: "c1", name: "Bash", input: LS },
            AgentEvent::ToolEnded { id: "c1", output: told, is_error },
        ]);
    }
}

#[test]
fn h4_a_change_of_files_is_shown_whole_or_not_approved() {
    let changes = json!([{"path": "/repo/a", "kind": {"type": "add"}, "diff": "hi\n"},
        {"path": "/repo/b", "kind": {"type": "update", "move_path": "/repo/c"}, "diff": "@@\n"}]);
    let shown = r#"{"changes":[{"path":"/repo/a","kind":{"type":"add"},"diff":"hi\n"},{"path":"/repo/b","kind":{"move_path":"/repo/c","type":"update"},"diff":"@@\n"}]}"#;
    let mut desk = Desk::turn();
    desk.item("started", &json!({"type": "fileChange", "id": "p1", "changes": changes}));
    let method = "item/fileChange/requestApproval";
    desk.request(&json!("x"), method, json!({"itemId": "p1", "reason": null, "grantRoot": null}));
    desk.tells(&[
        AgentEvent::ToolUsed { id: "p1", name: "ApplyPatch", input: shown },
        AgentEvent::Asked {
            request: "\"x\"",
            tool_id: "p1",
            tool: "ApplyPatch",
            input: shown,
            reason: None,
        },
    ]);
    desk.say(Say::Allow { request: "\"x\"".into(), input: shown.into() });
    assert_eq!(desk.last(), &json!({"id": "x", "result": {"decision": "accept"}}));
    for (item, params) in [
        // What was never shown, and what would allow more than is shown.
        (json!(null), json!({"itemId": "p2"})),
        (json!({"type": "fileChange", "id": "p2", "changes": []}), json!({"itemId": "p2"})),
        (
            json!({"type": "fileChange", "id": "p2", "changes": [{"path": "a"}]}),
            json!({"itemId": "p2"}),
        ),
        (
            json!({"type": "fileChange", "id": "p2", "changes": changes}),
            json!({"itemId": "p2", "grantRoot": "/"}),
        ),
        (json!({"type": "fileChange", "id": "p2", "changes": changes}), json!({})),
    ] {
        let mut desk = Desk::turn();
        desk.item("started", &item);
        desk.request(&json!(3), method, params.clone());
        assert!(desk.last()["error"]["message"].is_string(), "{item} {params}");
        assert!(!desk.told.iter().any(|(_, event)| event.starts_with("Asked")), "{item} {params}");
    }
}

#[test]
fn h3_only_what_was_shown_is_allowed_and_once() {
    for (allowed, decision) in [(LS, "accept"), ("{}", "decline"), ("", "decline")] {
        let mut desk = Desk::turn();
        ask_for_ls(&mut desk, &json!(0));
        desk.said.clear();
        desk.say(Say::Allow { request: "0".into(), input: allowed.into() });
        desk.say(Say::Allow { request: "0".into(), input: LS.into() });
        desk.say(Say::Deny { request: "0".into(), message: "no".into() });
        assert_eq!(desk.said, [json!({"id": 0, "result": {"decision": decision}})]);
    }
    let mut desk = Desk::turn();
    desk.said.clear();
    desk.say(Say::Allow { request: "0".into(), input: LS.into() });
    assert!(desk.said.is_empty(), "nobody asked");
}

#[test]
fn h1_more_than_a_command_is_never_approved() {
    for (field, value) in [
        ("kind", json!("humanCommand")),
        ("kind", json!("somethingNew")),
        ("networkApprovalContext", json!({"host": "x"})),
        ("additionalPermissions", json!({"network": {}})),
        ("environmentId", json!("remote")),
        ("command", json!(null)),
        ("command", json!(["ls"])),
        ("itemId", json!(null)),
        ("itemId", json!("x".repeat(300))),
        ("command", json!("x".repeat(3 << 20))),
    ] {
        let mut desk = Desk::turn();
        let mut params =
            json!({"kind": "command", "itemId": "c1", "command": "ls", "cwd": "/repo"});
        params[field] = value;
        desk.said.clear();
        desk.request(&json!(5), "item/commandExecution/requestApproval", params);
        assert!(desk.last()["error"]["message"].is_string(), "{field}");
        assert!(desk.told.iter().any(|(_, event)| event.starts_with("UnknownRequest")), "{field}");
        desk.say(Say::Allow { request: "5".into(), input: LS.into() });
        assert_eq!(desk.said.len(), 1, "{field}");
    }
}

#[test]
fn a_text_for_a_running_command_is_a_call_of_its_own() {
    let mut desk = Desk::turn();
    let input = r#"{"write":"write_stdin --session-id 1 'y\n'","cwd":"/repo","to":"c1"}"#;
    for verdict in [true, false] {
        let params = json!({"kind": "writeStdin", "itemId": "c1", "approvalId": "w1",
            "command": "write_stdin --session-id 1 'y\n'", "cwd": "/repo"});
        desk.request(&json!(4), "item/commandExecution/requestApproval", params);
        let request = String::from("4");
        desk.say(match verdict {
            true => Say::Allow { request, input: input.into() },
            false => Say::Deny { request, message: String::new() },
        });
        desk.notify("serverRequest/resolved", json!({"requestId": 4}));
        let output = if verdict { "" } else { "denied" };
        desk.tells(&[
            AgentEvent::ToolUsed { id: "w1", name: "WriteStdin", input },
            AgentEvent::Asked {
                request: "4",
                tool_id: "w1",
                tool: "WriteStdin",
                input,
                reason: None,
            },
            AgentEvent::ToolEnded { id: "w1", output, is_error: !verdict },
        ]);
    }
}

#[test]
fn tools_of_other_kinds_are_seen() {
    let mut desk = Desk::turn();
    let mcp = json!({"type": "mcpToolCall", "id": "m1", "server": "s", "tool": "t", "arguments": {"a": 1}});
    desk.item("started", &mcp);
    let other = json!({"type": "somethingNew", "id": "n1"});
    desk.item("started", &other);
    desk.item("started", &json!({"type": "userMessage", "id": "q1"}));
    desk.tells(&[
        AgentEvent::ToolUsed { id: "m1", name: "mcp__s__t", input: r#"{"a":1}"# },
        AgentEvent::ToolUsed {
            id: "n1",
            name: "somethingNew",
            input: r#"{"id":"n1","type":"somethingNew"}"#,
        },
    ]);
}

#[test]
fn what_nobody_can_answer_is_refused_at_once() {
    for method in [
        "item/tool/requestUserInput",
        "item/permissions/requestApproval",
        "mcpServer/elicitation/request",
        "item/tool/call",
        "applyPatchApproval",
        "execCommandApproval",
        "account/chatgptAuthTokens/refresh",
        "somethingNew",
    ] {
        let mut desk = Desk::turn();
        desk.request(&json!(9), method, json!({"itemId": "i"}));
        assert_eq!(desk.last()["id"], 9, "{method}");
        assert!(desk.last()["error"]["message"].is_string(), "{method}");
    }
    // Nobody watches these: another conversation, none at all, and one whose turn is over.
    let mut desk = Desk::turn();
    let ask = "item/commandExecution/requestApproval";
    desk.hear(&json!({"method": ask, "id": 1, "params": {"threadId": "t2", "itemId": "c", "command": "ls"}}));
    assert!(desk.last()["error"]["message"].is_string());
    desk.hear(&json!({"method": ask, "id": 2}));
    assert!(desk.last()["error"]["message"].is_string());
    let mut desk = Desk::open();
    ask_for_ls(&mut desk, &json!(3));
    assert!(desk.last()["error"]["message"].is_string());
}

#[test]
fn asks_are_withdrawn_and_end_with_the_turn() {
    let mut desk = Desk::turn();
    desk.item("started", &command("c1", "/bin/bash -lc ls"));
    ask_for_ls(&mut desk, &json!(0));
    desk.clear();
    desk.notify("serverRequest/resolved", json!({"requestId": 0}));
    desk.tells(&[AgentEvent::AskWithdrawn { request: "0" }]);
    ask_for_ls(&mut desk, &json!(1));
    desk.notify("turn/completed", json!({"turn": {"id": "u1", "status": "interrupted"}}));
    desk.said.clear();
    desk.say(Say::Allow { request: "1".into(), input: LS.into() });
    assert!(desk.said.is_empty());
}

#[test]
fn h1_two_asks_of_one_name_are_both_denied() {
    let mut desk = Desk::turn();
    ask_for_ls(&mut desk, &json!(0));
    desk.clear();
    ask_for_ls(&mut desk, &json!(0));
    assert_eq!(desk.last(), &json!({"id": 0, "result": {"decision": "decline"}}));
    desk.tells(&[AgentEvent::AskWithdrawn { request: "0" }]);
    desk.said.clear();
    desk.say(Say::Allow { request: "0".into(), input: LS.into() });
    assert!(desk.said.is_empty());
}
