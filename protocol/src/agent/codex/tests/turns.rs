//! Text, retries, errors, and the ends of turns.

use super::*;

#[test]
fn text_streams_and_is_replaced_by_the_finished_piece() {
    let mut desk = Desk::turn();
    desk.item("started", &json!({"type": "agentMessage", "id": "a1", "text": ""}));
    desk.notify("item/agentMessage/delta", json!({"itemId": "a1", "delta": "he"}));
    desk.notify("item/agentMessage/delta", json!({"itemId": "a1", "delta": "llo\n"}));
    desk.item("completed", &json!({"type": "agentMessage", "id": "a1", "text": "hello\n"}));
    desk.item("started", &json!({"type": "reasoning", "id": "r1", "summary": []}));
    desk.notify("item/reasoning/summaryTextDelta", json!({"itemId": "r1", "delta": "hm"}));
    let total = json!({"totalTokens": 240, "inputTokens": 200, "outputTokens": 40});
    desk.notify("thread/tokenUsage/updated", json!({"tokenUsage": {"total": total}}));
    desk.notify(
        "turn/completed",
        json!({"turn": {"id": "u1", "status": "completed", "error": null}}),
    );
    let usage = Usage { input_tokens: 200, output_tokens: 40, cost_micro_usd: None };
    desk.tells(&[
        AgentEvent::Text { delta: "he" },
        AgentEvent::Text { delta: "llo\n" },
        AgentEvent::TextDone { text: "hello\n" },
        AgentEvent::TurnEnded(TurnEnd { usage: Some(usage), ..end(Outcome::Completed, "") }),
    ]);
}

#[test]
fn what_streamed_before_a_retry_is_void() {
    let mut desk = Desk::turn();
    desk.notify("item/agentMessage/delta", json!({"itemId": "a1", "delta": "half"}));
    let error = json!({"message": "Reconnecting... 1/5",
        "codexErrorInfo": {"responseStreamDisconnected": {"httpStatusCode": null}}});
    desk.notify("error", json!({"error": error, "willRetry": true}));
    desk.notify("item/agentMessage/delta", json!({"itemId": "a2", "delta": "whole"}));
    // Without any word of a retry, another piece voids the first as well.
    desk.item("started", &json!({"type": "agentMessage", "id": "a3", "text": ""}));
    desk.notify("item/agentMessage/delta", json!({"itemId": "a4", "delta": "x"}));
    desk.tells(&[
        AgentEvent::Text { delta: "half" },
        AgentEvent::TextRestarted,
        AgentEvent::Retrying { attempt: 1, max: 5, delay_ms: 0, status: None },
        AgentEvent::Text { delta: "whole" },
        AgentEvent::TextRestarted,
        AgentEvent::TextRestarted,
        AgentEvent::Text { delta: "x" },
    ]);
}

#[test]
fn errors_end_the_turn_with_what_is_known() {
    let mut desk = Desk::turn();
    let retried = json!({"message": "Reconnecting... 2/5", "additionalDetails": "see http://x/y",
        "codexErrorInfo": {"responseStreamDisconnected": {"httpStatusCode": 401}}});
    desk.notify("error", json!({"error": retried, "willRetry": true}));
    let error = json!({"message": "unexpected status 401 Unauthorized",
        "codexErrorInfo": {"httpConnectionFailed": {"httpStatusCode": 401}}});
    desk.notify("error", json!({"error": error, "willRetry": false}));
    desk.notify(
        "turn/completed",
        json!({"turn": {"id": "u1", "status": "failed", "error": error}}),
    );
    let refused = TurnEnd {
        api_status: Some(401),
        is_not_logged_in: true,
        ..end(Outcome::ApiError, "unexpected status 401 Unauthorized")
    };
    desk.tells(&[
        AgentEvent::Retrying { attempt: 2, max: 5, delay_ms: 0, status: Some(401) },
        AgentEvent::TurnEnded(refused),
    ]);
    // It cannot even begin: the conversation is opened again for the next one.
    let mut desk = Desk::open();
    desk.prompt(LANE, "hi");
    desk.refuse("turn/start", "thread not found: t1");
    desk.tells(&[ended(Outcome::Failed, "thread not found: t1")]);
    desk.said.clear();
    desk.prompt(LANE, "hi");
    desk.vet();
    assert_eq!(desk.last()["method"], "thread/resume");
}

#[test]
fn the_end_of_another_turn_ends_nothing() {
    let mut desk = Desk::turn();
    for turn in
        [json!({"id": "u0", "status": "completed"}), json!({"status": "completed"}), json!(1)]
    {
        desk.notify("turn/completed", json!({ "turn": turn }));
    }
    desk.tells(&[]);
    desk.notify("turn/completed", json!({"turn": {"id": "u1", "status": "completed"}}));
    desk.notify("turn/completed", json!({"turn": {"id": "u1", "status": "completed"}}));
    desk.tells(&[ended(Outcome::Completed, "")]);
}
