//! The JSON-RPC 2.0 envelope: requests in, responses and errors out.
//!
//! Owns the envelope's form, the error codes and their kinds (<https://www.jsonrpc.org/specification>); refuses to know
//! the methods. An id is echoed exactly as it was sent.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::json;
use super::params::Key;
use crate::contract::error::StoreFault;

/// One request or notification, borrowed from the text it came in.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    /// The id's JSON text; `None` for a notification.
    pub(crate) id: Option<&'a str>,
    /// The method's name.
    pub(crate) method: Cow<'a, str>,
    /// The raw parameters.
    pub(crate) params: Option<&'a RawValue>,
}

/// What a text message holds.
#[derive(Debug)]
pub(crate) enum Envelope<'a> {
    One(Result<Request<'a>, Invalid<'a>>),
    Batch(Vec<Result<Request<'a>, Invalid<'a>>>),
}

/// A JSON value that is no JSON-RPC 2.0 request, with its id where there is a usable one.
#[derive(Debug)]
pub(crate) struct Invalid<'a> {
    pub(crate) id: Option<&'a str>,
    pub(crate) error: RpcError,
}

/// The members of a request that have a meaning.
#[derive(Default)]
struct Members<'a> {
    jsonrpc: Option<&'a RawValue>,
    method: Option<&'a RawValue>,
    /// `null` is an id, and not the same as none.
    id: Option<&'a RawValue>,
    params: Option<&'a RawValue>,
    /// There are others, which mean nothing.
    has_more: bool,
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Members::default();
        while let Some(Key(key)) = map.next_key()? {
            let place = match &*key {
                "jsonrpc" => &mut members.jsonrpc,
                "method" => &mut members.method,
                "id" => &mut members.id,
                "params" => &mut members.params,
                _ => {
                    members.has_more = true;
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            if place.replace(map.next_value()?).is_some() {
                return Err(A::Error::custom("a key twice"));
            }
        }
        Ok(members)
    }
}

impl Members<'_> {
    /// Nothing in it is nested, and no key is there twice: what [`json::check`] would find has been found.
    fn is_plain(&self) -> bool {
        let is_scalar = |raw: &RawValue| !raw.get().starts_with(['{', '[']);
        let all = [self.jsonrpc, self.method, self.id, self.params];
        !self.has_more && all.into_iter().flatten().all(is_scalar)
    }
}

/// Reads a text message.
pub(crate) fn read(
    text: &str,
    depth_max: usize,
    batch_max: usize,
) -> Result<Envelope<'_>, RpcError> {
    // The commonest calls have no parameters: one pass is enough for them.
    if let Ok(members) = serde_json::from_str::<Members<'_>>(text)
        && members.is_plain()
    {
        return Ok(Envelope::One(request(&members)));
    }
    json::check(text, depth_max).map_err(|fault| RpcError::parse(fault.as_str()))?;
    if !text.trim_start().starts_with('[') {
        return Ok(Envelope::One(one(text)));
    }
    let parts: Vec<&RawValue> =
        serde_json::from_str(text).map_err(|_| RpcError::parse("is not JSON"))?;
    if parts.is_empty() {
        return Err(RpcError::invalid("a batch must hold at least one request"));
    }
    if parts.len() > batch_max {
        return Err(RpcError::invalid(&format!("a batch may hold {batch_max} requests at most")));
    }
    Ok(Envelope::Batch(parts.into_iter().map(|part| one(part.get())).collect()))
}

fn one(text: &str) -> Result<Request<'_>, Invalid<'_>> {
    match serde_json::from_str::<Members<'_>>(text) {
        Ok(members) => request(&members),
        Err(_) => Err(Invalid { id: None, error: RpcError::invalid("a request is a JSON object") }),
    }
}

fn request<'a>(members: &Members<'a>) -> Result<Request<'a>, Invalid<'a>> {
    let id = members.id.map(RawValue::get);
    if id.is_some_and(|id| !is_id(id)) {
        let error = RpcError::invalid("`id` must be a string, a whole number or null");
        return Err(Invalid { id: None, error });
    }
    let invalid = |why| Err(Invalid { id, error: RpcError::invalid(why) });
    if members.jsonrpc.map(RawValue::get) != Some("\"2.0\"") {
        return invalid("`jsonrpc` must be \"2.0\"");
    }
    let Some(method) = members.method.and_then(|raw| text_of(raw.get())) else {
        return invalid("`method` must be a string");
    };
    Ok(Request { id, method, params: members.params })
}

/// A string, `null`, or a number without fraction and exponent.
fn is_id(raw: &str) -> bool {
    let is_text = raw.starts_with('"') && raw.len() <= 256;
    let is_number = raw.len() <= 20
        && raw.starts_with(|first: char| first == '-' || first.is_ascii_digit())
        && raw.bytes().skip(1).all(|byte| byte.is_ascii_digit());
    is_text || is_number || raw == "null"
}

fn text_of(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        return serde_json::from_str(raw).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(inner))
}

/// Why a call was refused: what goes into the `error` member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RpcError {
    pub(crate) code: i32,
    pub(crate) kind: &'static str,
    pub(crate) message: Cow<'static, str>,
    /// Apart, since most results are no errors and all carry this size.
    more: Box<More>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct More {
    hint: Option<Cow<'static, str>>,
    retry_after: Option<Duration>,
    /// More members of `data`, such as who decided before.
    details: Vec<(&'static str, String)>,
}

impl RpcError {
    pub(crate) fn new(
        code: i32,
        kind: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { code, kind, message: message.into(), more: Box::default() }
    }

    pub(crate) fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.more.hint = Some(hint.into());
        self
    }

    pub(crate) fn retry_after(mut self, after: Duration) -> Self {
        self.more.retry_after = Some(after);
        self
    }

    pub(crate) fn detail(mut self, name: &'static str, value: impl ToString) -> Self {
        self.more.details.push((name, value.to_string()));
        self
    }

    pub(crate) fn parse(why: &str) -> Self {
        Self::new(-32700, "parse_error", format!("the message {why}"))
            .hint("send one JSON-RPC 2.0 request per text frame")
    }

    pub(crate) fn invalid(why: &str) -> Self {
        Self::new(-32600, "invalid_request", format!("not a JSON-RPC 2.0 request: {why}"))
    }

    pub(crate) fn unknown_method() -> Self {
        // The name is the peer's text: it is not repeated.
        Self::new(-32601, "method_not_found", "this daemon has no such method")
            .hint("names are case-sensitive, such as `session.sendMessage`")
    }

    pub(crate) fn bad_params(field: &str, why: &str) -> Self {
        Self::new(-32602, "bad_params", format!("`{field}` {why}")).detail("field", field)
    }

    pub(crate) fn storage(fault: &StoreFault) -> Self {
        let (message, hint) = if *fault == StoreFault::Full {
            ("the disk is full: nothing was changed", "free some space and try again")
        } else {
            ("it could not be stored: nothing was changed", "see the daemon's log")
        };
        Self::new(-32603, "storage_failed", message).hint(hint).retry_after(Duration::from_secs(1))
    }

    /// The caller's role does not allow it.
    pub(crate) fn role(need: &'static str) -> Self {
        let hint = match need {
            "owner" => "do it on the machine itself, with the `clawd` command",
            "device" => "this is for devices; the local token is changed with `clawd token rotate`",
            _ => "ask the owner for a greater role: `clawd device role`",
        };
        Self::new(-32002, "role", "your role does not allow this").detail("needs", need).hint(hint)
    }

    /// The one refusal that strangers, and those who are no longer welcome, get (security A5).
    pub(crate) fn unauthorized() -> Self {
        Self::new(-32004, "unauthorized", "unauthorized")
            .hint("present a valid token with `daemon.auth`")
    }
}

#[derive(Serialize)]
struct ErrorView<'a> {
    code: i32,
    message: &'a str,
    data: DataView<'a>,
}

struct DataView<'a>(&'a RpcError);

impl Serialize for DataView<'_> {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap as _;
        let More { hint, retry_after, details } = &*self.0.more;
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("kind", self.0.kind)?;
        if let Some(hint) = hint {
            map.serialize_entry("hint", hint)?;
        }
        if let Some(after) = retry_after {
            map.serialize_entry("retryable", &true)?;
            map.serialize_entry(
                "retryAfterMs",
                &u64::try_from(after.as_millis()).unwrap_or(u64::MAX),
            )?;
        }
        for (name, value) in details {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// A request's id, kept for the answer: its JSON text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RpcId(Box<str>);

impl RpcId {
    pub(crate) fn new(raw: &str) -> Self {
        Self(raw.into())
    }
}

/// A response with a result. `None` for the id is `null`.
pub(crate) fn result(id: &RpcId, result: &impl Serialize) -> String {
    let body = serde_json::to_string(result).unwrap_or_else(|_| String::from("null"));
    result_text(&id.0, &body)
}

/// A response whose result is JSON text already.
pub(crate) fn result_text(id: &str, body: &str) -> String {
    let mut text = String::with_capacity(40 + id.len() + body.len());
    text.push_str("{\"jsonrpc\":\"2.0\",\"id\":");
    text.push_str(id);
    text.push_str(",\"result\":");
    text.push_str(body);
    text.push('}');
    text
}

/// A response with an error.
pub(crate) fn error(id: Option<&RpcId>, error: &RpcError) -> String {
    error_text(id.map_or("null", |id| &id.0), error)
}

/// A response with an error, for an id that is JSON text still.
pub(crate) fn error_text(id: &str, error: &RpcError) -> String {
    let view = ErrorView { code: error.code, message: &error.message, data: DataView(error) };
    let body = serde_json::to_string(&view).unwrap_or_else(|_| String::from("{}"));
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{body}}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn single(text: &str) -> Result<Request<'_>, Invalid<'_>> {
        match read(text, 64, 32).unwrap() {
            Envelope::One(one) => one,
            Envelope::Batch(_) => panic!("a batch"),
        }
    }

    #[test]
    fn requests_are_read() {
        let request = single(r#"{"jsonrpc":"2.0","id":"a","method":"daemon.p\u0069ng"}"#).unwrap();
        assert_eq!((request.id, &*request.method), (Some("\"a\""), "daemon.ping"));
        let request = single(r#"{"method":"x","jsonrpc":"2.0","params":{"a":1}}"#).unwrap();
        assert_eq!((request.id, request.params.unwrap().get()), (None, r#"{"a":1}"#));
        assert_eq!(single(r#"{"jsonrpc":"2.0","id":null,"method":"x"}"#).unwrap().id, Some("null"));
        assert_eq!(single(r#"{"jsonrpc":"2.0","id":-7,"method":"x"}"#).unwrap().id, Some("-7"));
    }

    #[test]
    fn b6_what_is_no_request_is_refused_with_its_reason() {
        for (text, why) in [
            (r#"{"id":1,"method":"x"}"#, "jsonrpc"),
            (r#"{"jsonrpc":"1.0","id":1,"method":"x"}"#, "jsonrpc"),
            (r#"{"jsonrpc":"2.0","id":1}"#, "method"),
            (r#"{"jsonrpc":"2.0","id":1,"method":5}"#, "method"),
            (r#"{"jsonrpc":"2.0","id":1.5,"method":"x"}"#, "id"),
            (r#"{"jsonrpc":"2.0","id":1e3,"method":"x"}"#, "id"),
            (r#"{"jsonrpc":"2.0","id":{},"method":"x"}"#, "id"),
            (r#"{"jsonrpc":"2.0","id":true,"method":"x"}"#, "id"),
            ("5", "object"),
        ] {
            let invalid = single(text).unwrap_err();
            assert_eq!(invalid.error.code, -32600, "{text}");
            assert!(invalid.error.message.contains(why), "{text}: {}", invalid.error.message);
        }
    }

    #[test]
    fn b6_batches_are_bounded() {
        assert_eq!(read("[]", 64, 2).unwrap_err().code, -32600);
        assert_eq!(read("[1,2,3]", 64, 2).unwrap_err().code, -32600);
        assert!(matches!(read("[1,2]", 64, 2), Ok(Envelope::Batch(parts)) if parts.len() == 2));
    }

    #[test]
    fn errors_have_their_form() {
        let text = error(None, &RpcError::unauthorized());
        assert_eq!(
            text,
            "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32004,\"message\":\"unauthorized\",\
             \"data\":{\"kind\":\"unauthorized\",\"hint\":\"present a valid token with `daemon.auth`\"}}}"
        );
    }
}
