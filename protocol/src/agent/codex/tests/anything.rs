//! Whatever codex may say.

use super::*;

#[test]
fn what_is_no_message_is_garbage() {
    for (line, event) in [
        ("", "Ignored"),
        ("  ", "Ignored"),
        ("x", "Garbage"),
        ("[]", "Garbage"),
        ("7", "Garbage"),
        ("{}", "Ignored"),
        ("{\"id\":1}", "Ignored"),
        ("{\"method\":\"x\"}", "Ignored"),
        ("{\"method\":\"x\",\"params\":[]}", "Ignored"),
        ("{\"jsonrpc\":\"2.0\",\"method\":7}", "Ignored"),
    ] {
        let mut desk = Desk::open();
        desk.hear_bytes(line.as_bytes());
        assert_eq!(desk.told, [(None, event.to_string())], "{line}");
    }
    let mut desk = Desk::open();
    desk.hear_bytes(b"\xff{}");
    assert_eq!(desk.told, [(None, "Garbage".to_string())]);
}

/// Words that codex uses, in any order.
fn value() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "t1",
        "u1",
        "c1",
        "agentMessage",
        "commandExecution",
        "fileChange",
        "completed",
        "failed",
        "interrupted",
        "untrusted",
        "user",
        "/bin/bash -lc ls",
        "command",
        "writeStdin",
        "ls",
    ]);
    let leaf = prop_oneof![
        word.prop_map(|word| json!(word)),
        (0..9_u64).prop_map(|n| json!(n)),
        any::<bool>().prop_map(|b| json!(b)),
        Just(json!(null)),
    ];
    let key = prop::sample::select(vec![
        "id",
        "threadId",
        "turnId",
        "itemId",
        "item",
        "turn",
        "type",
        "status",
        "error",
        "message",
        "delta",
        "text",
        "command",
        "cwd",
        "changes",
        "path",
        "kind",
        "diff",
        "requestId",
        "thread",
        "willRetry",
        "approvalId",
        "tokenUsage",
        "total",
        "inputTokens",
        "outputTokens",
        "entries",
        "fileName",
        "config",
        "codexHome",
        "approvalPolicy",
        "sandbox",
        "codexErrorInfo",
    ]);
    leaf.prop_recursive(4, 24, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(key.clone(), inner, 0..6)
                .prop_map(|map| map.into_iter().map(|(k, v)| (k.to_string(), v)).collect()),
        ]
    })
}

fn method() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "turn/started",
        "turn/completed",
        "item/started",
        "item/completed",
        "error",
        "item/agentMessage/delta",
        "thread/tokenUsage/updated",
        "serverRequest/resolved",
        "thread/closed",
        "item/commandExecution/requestApproval",
        "item/fileChange/requestApproval",
    ])
}

proptest! {
    #[test]
    fn h1_whatever_codex_says_it_gets_no_yes_that_nobody_said(
        lines in prop::collection::vec((prop::option::of(method()), 0..12_u64, any::<bool>(), value()), 0..40),
        has_turn in any::<bool>(),
    ) {
        let mut desk = if has_turn { Desk::turn() } else { Desk::open() };
        for (method, id, has_id, value) in lines {
            let line = match method {
                Some(method) if has_id => json!({"method": method, "id": id, "params": value}),
                Some(method) => json!({"method": method, "params": value}),
                None if has_id => json!({"id": id, "result": value}),
                None => json!({"id": id, "error": value}),
            };
            let before = desk.told.len();
            desk.hear(&line);
            prop_assert!(desk.told.len() > before, "a line that means nothing at all");
            for said in &desk.said {
                prop_assert!(said["result"]["decision"] != "accept");
            }
        }
    }

    #[test]
    fn any_bytes_are_heard(line in prop::collection::vec(any::<u8>(), 0..64)) {
        let mut desk = Desk::turn();
        desk.told.clear();
        desk.hear_bytes(&line);
        prop_assert_eq!(desk.told.len(), 1);
    }
}
