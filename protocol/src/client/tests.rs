//! Stories of one connection, told from the client's end.

use alloc::format;
use alloc::string::ToString;

use proptest::prelude::*;

use super::*;
use crate::access::token::mint_local;

fn token() -> Secret {
    mint_local([1; 32])
}

fn demanding() -> (Client, Secret) {
    Client::new(token(), Trust::DemandProof { nonce: "n0nce".to_string(), port: 4300 })
}

fn ready() -> Client {
    let (mut client, _) = Client::new(token(), Trust::PeerVerified);
    let welcome = r#"{"jsonrpc":"2.0","id":0,"result":{"authenticated":true,"role":"owner","version":"0.1.0","daemonId":"d","protocolVersion":1,"cursor":7}}"#;
    let Ok(Happening::Ready(welcome)) = client.handle_text(welcome) else { panic!("not ready") };
    assert_eq!((welcome.role.as_str(), welcome.cursor), ("owner", 7));
    client
}

#[test]
fn a_verified_peer_is_shown_the_token_at_once() {
    let (_, opening) = Client::new(token(), Trust::PeerVerified);
    assert!(opening.expose().contains("daemon.auth"));
    assert!(opening.expose().contains(token().expose()));
}

#[test]
fn a7_the_token_is_shown_only_to_who_knows_it() {
    let (mut client, opening) = demanding();
    assert!(!opening.expose().contains(token().expose()));
    let proof = TokenDigest::of(token().expose()).proof("n0nce", 4300);
    let pong = format!(r#"{{"jsonrpc":"2.0","id":0,"result":{{"pong":true,"proof":"{proof}"}}}}"#);
    let Ok(Happening::Send(auth)) = client.handle_text(&pong) else { panic!("no auth") };
    assert!(auth.expose().contains(token().expose()));
}

#[test]
fn a7_a_squatter_gets_nothing_and_no_second_try() {
    let guess = TokenDigest::of(mint_local([2; 32]).expose()).proof("n0nce", 4300);
    for answer in [
        r#"{"jsonrpc":"2.0","id":0,"result":{"pong":true}}"#.to_string(),
        format!(r#"{{"jsonrpc":"2.0","id":0,"result":{{"pong":true,"proof":"{guess}"}}}}"#),
        r#"{"jsonrpc":"2.0","id":0,"error":{"code":-32601,"message":"?"}}"#.to_string(),
        r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32601,"message":"?"}}"#.to_string(),
    ] {
        let (mut client, _) = demanding();
        assert_eq!(client.handle_text(&answer).unwrap_err(), Violation::NotProved, "{answer}");
        let proof = TokenDigest::of(token().expose()).proof("n0nce", 4300);
        let right = format!(r#"{{"jsonrpc":"2.0","id":0,"result":{{"proof":"{proof}"}}}}"#);
        assert!(client.handle_text(&right).is_err());
        assert_eq!(client.call("session.list", ()).unwrap_err(), Misuse::NotReady);
    }
}

#[test]
fn calls_are_answered_once_and_in_any_order() {
    let mut client = ready();
    let (first, text) = client.call("session.list", serde_json::json!({})).unwrap();
    let (second, _) = client.call("device.list", serde_json::json!({})).unwrap();
    assert_eq!(text, r#"{"jsonrpc":"2.0","id":1,"method":"session.list","params":{}}"#);
    let answer = client.handle_text(r#"{"jsonrpc":"2.0","id":2,"result":null}"#).unwrap();
    let Happening::Answer { call, result } = answer else { panic!("{answer:?}") };
    assert_eq!((call, result.unwrap().get()), (second, "null"));
    let refusal = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32001,"message":"no","data":{"kind":"session_not_found","hint":"h"}}}"#;
    let answer = client.handle_text(refusal).unwrap();
    let Happening::Answer { call, result: Err(error) } = answer else { panic!("{answer:?}") };
    assert_eq!((call, error.code), (first, -32001));
    assert_eq!(error.kind.as_deref(), Some("session_not_found"));
    assert_eq!(error.hint.as_deref(), Some("h"));
    assert_eq!(client.handle_text(refusal).unwrap_err(), Violation::UnknownCall);
}

#[test]
fn events_flow_only_once_we_are_in() {
    let event = r#"{"jsonrpc":"2.0","method":"session.created","params":{"seq":8}}"#;
    let Ok(Happening::Event { method, params }) = ready().handle_text(event) else {
        panic!("no event")
    };
    assert_eq!((method.as_str(), params.get()), ("session.created", r#"{"seq":8}"#));
    let (mut client, _) = Client::new(token(), Trust::PeerVerified);
    assert_eq!(client.handle_text(event).unwrap_err(), Violation::Early);
}

fn event(method: &str, rest: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{{{rest}}}}}"#)
}

fn bookmark(journal: &str, seq: u64) -> Bookmark {
    Bookmark { journal: journal.to_string(), seq }
}

/// A client that shows a bookmark and is told this about it.
fn resumed(replayed: bool) -> Client {
    let (mut client, opening) =
        Client::resuming(token(), Trust::PeerVerified, Some(bookmark("old", 5)));
    assert!(opening.expose().contains(r#""journal":"old","after":5"#), "{opening:?}");
    let welcome = format!(
        r#"{{"jsonrpc":"2.0","id":0,"result":{{"cursor":9,"journal":"new","replayed":{replayed}}}}}"#
    );
    assert!(matches!(client.handle_text(&welcome), Ok(Happening::Ready(_))));
    client
}

#[test]
fn the_bookmark_follows_the_events() {
    let (mut client, opening) = Client::new(token(), Trust::PeerVerified);
    assert!(!opening.expose().contains("after"));
    assert_eq!(client.bookmark(), None);
    let welcome = r#"{"jsonrpc":"2.0","id":0,"result":{"cursor":9,"journal":"j"}}"#;
    client.handle_text(welcome).unwrap();
    assert_eq!(client.bookmark(), Some(&bookmark("j", 9)));
    client.handle_text(&event("session.created", r#""seq":12"#)).unwrap();
    client.handle_text(&event("session.messageUpdated", r#""seq":12"#)).unwrap();
    assert_eq!(client.bookmark(), Some(&bookmark("j", 12)));
    let again = client.handle_text(&event("session.created", r#""seq":11"#));
    assert_eq!(again.unwrap_err(), Violation::Backwards);
}

#[test]
fn one_that_comes_back_goes_on_where_it_was() {
    let mut client = resumed(true);
    assert_eq!(client.bookmark(), Some(&bookmark("new", 5)));
    client.handle_text(&event("daemon.ready", r#""seq":5"#)).unwrap();
    client.handle_text(&event("session.created", r#""seq":7"#)).unwrap();
    assert_eq!(client.bookmark(), Some(&bookmark("new", 7)));
}

#[test]
fn one_that_cannot_go_on_keeps_its_old_bookmark_until_it_is_told_where_it_is() {
    let mut client = resumed(false);
    client.handle_text(&event("daemon.ready", r#""seq":9"#)).unwrap();
    assert_eq!(
        client.bookmark(),
        Some(&bookmark("old", 5)),
        "were it dropped now, it would ask again"
    );
    let reset =
        client.handle_text(&event("events.reset", r#""seq":9,"cursor":9,"reason":"unknown""#));
    assert!(matches!(reset, Ok(Happening::Event { method, .. }) if method == "events.reset"));
    assert_eq!(client.bookmark(), Some(&bookmark("new", 9)));
}

#[test]
fn a_gap_is_closed_before_anybody_sees_it() {
    let mut client = resumed(true);
    let Ok(Happening::Send(ask)) =
        client.handle_text(&event("events.gap", r#""seq":6,"from":6,"to":8"#))
    else {
        panic!("nothing was asked")
    };
    assert_eq!(
        ask.expose(),
        r#"{"jsonrpc":"2.0","id":1,"method":"events.subscribe","params":{"journal":"new","after":6}}"#
    );
    // What happens until the answer comes again after it.
    let live = client.handle_text(&event("session.updated", r#""seq":9"#));
    assert!(matches!(live, Ok(Happening::Nothing)));
    assert_eq!(client.bookmark(), Some(&bookmark("new", 6)));
    let answer =
        r#"{"jsonrpc":"2.0","id":1,"result":{"cursor":9,"journal":"new","replayed":true}}"#;
    assert!(matches!(client.handle_text(answer), Ok(Happening::Nothing)));
    for seq in [7, 8, 9] {
        let told = client.handle_text(&event("session.updated", &format!(r#""seq":{seq}"#)));
        assert!(matches!(told, Ok(Happening::Event { .. })), "{seq}");
    }
    assert_eq!(client.bookmark(), Some(&bookmark("new", 9)));
    assert_eq!(client.handle_text(answer).unwrap_err(), Violation::UnknownCall);
}

#[test]
fn a_refused_token_ends_it() {
    let (mut client, _) = Client::new(token(), Trust::PeerVerified);
    let no = r#"{"jsonrpc":"2.0","id":0,"error":{"code":-32004,"message":"unauthorized"}}"#;
    assert!(
        matches!(client.handle_text(no), Ok(Happening::Refused(error)) if error.code == -32004)
    );
    assert_eq!(client.call("session.list", ()).unwrap_err(), Misuse::NotReady);
}

#[test]
fn what_is_not_json_rpc_is_a_violation() {
    for text in [
        "",
        "[]",
        "{}",
        r#"{"jsonrpc":"1.0","id":1,"result":1}"#,
        r#"{"jsonrpc":"2.0","id":1}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":1,"error":{"code":1,"message":""}}"#,
        r#"{"jsonrpc":"2.0","id":1,"id":2,"result":1}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"do.this","params":{}}"#,
        r#"{"jsonrpc":"2.0","method":"no.params"}"#,
    ] {
        assert_eq!(ready().handle_text(text).unwrap_err(), Violation::NotJsonRpc, "{text}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic_or_show_the_token(texts in proptest::collection::vec(any::<String>(), 0..8)) {
        let (mut client, _) = demanding();
        for text in texts {
            prop_assert!(client.handle_text(&text).is_err());
        }
    }

    #[test]
    fn a7_no_forged_proof_opens(proof in "[0-9a-f]{64}") {
        let (mut client, _) = demanding();
        let pong = format!(r#"{{"jsonrpc":"2.0","id":0,"result":{{"proof":"{proof}"}}}}"#);
        prop_assert_eq!(client.handle_text(&pong).unwrap_err(), Violation::NotProved);
    }
}
