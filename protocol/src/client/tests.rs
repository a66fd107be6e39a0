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
    let event = r#"{"jsonrpc":"2.0","method":"session.created","params":{"seq":1}}"#;
    let Ok(Happening::Event { method, params }) = ready().handle_text(event) else {
        panic!("no event")
    };
    assert_eq!((method.as_str(), params.get()), ("session.created", r#"{"seq":1}"#));
    let (mut client, _) = Client::new(token(), Trust::PeerVerified);
    assert_eq!(client.handle_text(event).unwrap_err(), Violation::Early);
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
