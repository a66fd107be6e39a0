//! The other end of the same protocol: what a program says to a daemon, and what it hears.
//!
//! Owns the handshake (prove, authenticate), request ids, the sorting of what comes in and the place in the journal;
//! refuses to know sockets, clocks and what the methods mean. Give it each text that arrives, send each text it returns.
//!
//! ```text
//! state           | opening()                     | hears                    | becomes
//! Proving         | daemon.ping {nonce}           | a right proof            | Authenticating, and says daemon.auth
//!                 |                               | anything else            | Violation, for ever
//! Authenticating  | daemon.auth {token}           | a result                 | Ready
//!                 |                               | an error                 | Refused
//! Ready           | –                             | answers and events       | Ready
//! ```
//!
//! The next connection goes on where this one ends: give it the [`Bookmark`] that this one has. Then every durable event is
//! heard once and in order over all of them, or an `events.reset` says that it is not so. A gap (this end did not read
//! fast enough) is asked for again and closed before anybody sees it.
//!
//! Invariants: under [`Trust::DemandProof`] the token is in no text before the daemon has proved that it knows it
//! (security A7); no call leaves before the daemon has let us in; each call is answered at most once.

use alloc::borrow::Cow;
use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::string::String;
use core::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::access::token::{Secret, TokenDigest};

/// How sure we are of who is at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// The operating system has said that it is our own user.
    PeerVerified,
    /// It might be anybody who took the port: it must prove that it knows the token before it is shown.
    DemandProof {
        /// Fresh and unguessable.
        nonce: String,
        /// The port that was connected to; 0 for the Unix socket.
        port: u16,
    },
}

/// A call that has been made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(u64);

/// What a text from the daemon meant.
#[derive(Debug)]
pub enum Happening {
    /// Send this now. It may hold the token.
    Send(Secret),
    /// Nothing that anybody needs to know.
    Nothing,
    /// We are in: calls may be made, events flow.
    Ready(Welcome),
    /// We are not let in, or no more.
    Refused(RpcError),
    /// The answer to a call.
    Answer {
        /// Which.
        call: CallId,
        /// What came of it.
        result: Result<Box<RawValue>, RpcError>,
    },
    /// Something happened over there.
    Event {
        /// What.
        method: String,
        /// Its particulars.
        params: Box<RawValue>,
    },
}

/// The daemon's answer to `daemon.auth`. Fields it did not send are empty.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Welcome {
    /// What we may do: `owner`, `admin`, `full`, `approve` or `read`.
    pub role: String,
    /// Its version.
    pub version: String,
    /// Its own id.
    pub daemon_id: String,
    /// The relay at which it is found, if it uses one.
    pub relay_url: Option<String>,
    /// Our id, if we are a device.
    pub device_id: Option<String>,
    /// The protocol's version.
    pub protocol_version: u32,
    /// The last event before we came.
    pub cursor: u64,
    /// The chapter of the journal that is being written; see [`Bookmark`].
    pub journal: String,
    /// Whether what was missed follows, where a [`Bookmark`] was shown. If not, an `events.reset` does.
    pub replayed: Option<bool>,
}

/// The last event that was heard, as a place in a daemon's journal.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Bookmark {
    /// The journal. Empty: the daemon's, whichever that is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub journal: String,
    /// The event's number.
    #[serde(rename = "after")]
    pub seq: u64,
}

/// A refusal: a valid question whose answer is no.
#[derive(Debug, Clone)]
pub struct RpcError {
    /// The number.
    pub code: i64,
    /// For people. Another's text: see [`crate::text`].
    pub message: String,
    /// One word for programs.
    pub kind: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// All particulars, the two above among them.
    pub data: Option<Box<RawValue>>,
}

/// The other end broke the protocol; there is nothing more to say to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    /// Not JSON, or not JSON-RPC 2.0.
    NotJsonRpc,
    /// It could not prove that it knows the token: it is not our daemon.
    NotProved,
    /// An answer to a call that was never made, or was answered before.
    UnknownCall,
    /// An event before we were let in.
    Early,
    /// An event from before one that it had sent already.
    Backwards,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotJsonRpc => "it does not speak JSON-RPC 2.0",
            Self::NotProved => "it could not prove that it knows our token",
            Self::UnknownCall => "it answered a question that was not asked",
            Self::Early => "it sent an event before it let us in",
            Self::Backwards => "it sent an event again",
        })
    }
}

impl core::error::Error for Violation {}

/// The caller did something wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misuse {
    /// A call before [`Happening::Ready`].
    NotReady,
    /// Parameters that have no JSON form.
    Unserialisable,
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotReady => "a call before the daemon let us in",
            Self::Unserialisable => "parameters that have no JSON form",
        })
    }
}

impl core::error::Error for Misuse {}

#[derive(Debug)]
enum State {
    Proving { nonce: String, port: u16 },
    Authenticating,
    Ready,
    Over,
}

/// Whether the numbers of events say where we are.
#[derive(Debug, PartialEq, Eq)]
enum Hearing {
    /// They do.
    InOrder,
    /// The daemon cannot tell us what we missed; an `events.reset` is to come.
    Lost,
    /// There was a gap, and this call closes it: what comes before its answer comes again.
    Closing(u64),
}

/// One connection's client side.
#[derive(Debug)]
pub struct Client {
    token: Secret,
    state: State,
    hearing: Hearing,
    /// What was heard so far, by this connection and those before it.
    bookmark: Option<Bookmark>,
    /// The journal's name for what this connection hears.
    journal: String,
    next_id: u64,
    open: BTreeSet<u64>,
}

/// The handshake's request id; calls count from the next.
const HANDSHAKE: u64 = 0;

impl Client {
    /// A client that will show `token`, and the first text to send.
    #[must_use]
    pub fn new(token: Secret, trust: Trust) -> (Self, Secret) {
        Self::resuming(token, trust, None)
    }

    /// A client that goes on where another one ended, and the first text to send.
    #[must_use]
    pub fn resuming(token: Secret, trust: Trust, from: Option<Bookmark>) -> (Self, Secret) {
        let client = |state| Self {
            token,
            state,
            hearing: Hearing::InOrder,
            bookmark: from,
            journal: String::new(),
            next_id: HANDSHAKE + 1,
            open: BTreeSet::new(),
        };
        match trust {
            Trust::PeerVerified => {
                let client = client(State::Authenticating);
                let opening = client.auth();
                (client, opening)
            }
            Trust::DemandProof { nonce, port } => {
                let ping = text_of(HANDSHAKE, "daemon.ping", &Nonce { nonce: &nonce });
                (client(State::Proving { nonce, port }), Secret::new(ping.unwrap_or_default()))
            }
        }
    }

    /// Makes a call: its name and the text to send.
    ///
    /// # Errors
    /// Before [`Happening::Ready`], and when `params` has no JSON form.
    pub fn call(
        &mut self,
        method: &str,
        params: impl Serialize,
    ) -> Result<(CallId, String), Misuse> {
        if !matches!(self.state, State::Ready) {
            return Err(Misuse::NotReady);
        }
        let id = self.next_id;
        let text = text_of(id, method, &params).ok_or(Misuse::Unserialisable)?;
        self.next_id = id.saturating_add(1);
        self.open.insert(id);
        Ok((CallId(id), text))
    }

    /// Takes one text that came from the daemon.
    ///
    /// # Errors
    /// When the other end broke the protocol: close, and trust nothing of it.
    pub fn handle_text(&mut self, text: &str) -> Result<Happening, Violation> {
        let happening = self.on_text(text);
        if happening.is_err() {
            self.state = State::Over;
        }
        happening
    }

    fn on_text(&mut self, text: &str) -> Result<Happening, Violation> {
        let message: Message<'_> = serde_json::from_str(text).map_err(|_| Violation::NotJsonRpc)?;
        if message.jsonrpc != "2.0" {
            return Err(Violation::NotJsonRpc);
        }
        match message {
            Message {
                method: Some(method), id: None, result: None, error: None, params, ..
            } => self.on_event(method, params),
            Message { id: Some(id), method: None, result: Some(result), error: None, .. } => {
                self.on_answer(id, Ok(result.to_owned()))
            }
            Message { id, method: None, result: None, error: Some(error), .. } => {
                let error = RpcError::from(error);
                match id {
                    Some(id) => self.on_answer(id, Err(error)),
                    None if matches!(self.state, State::Proving { .. }) => {
                        Err(Violation::NotProved)
                    }
                    None => Ok(Happening::Refused(error)),
                }
            }
            _ => Err(Violation::NotJsonRpc),
        }
    }

    /// Where the next connection goes on.
    #[must_use]
    pub const fn bookmark(&self) -> Option<&Bookmark> {
        self.bookmark.as_ref()
    }

    fn on_event(
        &mut self,
        method: Cow<'_, str>,
        params: Option<&RawValue>,
    ) -> Result<Happening, Violation> {
        match self.state {
            State::Ready => {}
            State::Proving { .. } | State::Authenticating | State::Over => {
                return Err(Violation::Early);
            }
        }
        let params = params.ok_or(Violation::NotJsonRpc)?;
        let Numbers { seq, cursor, from } = serde_json::from_str(params.get()).unwrap_or_default();
        match (&*method, &self.hearing) {
            ("events.reset", _) => {
                self.hearing = Hearing::InOrder;
                self.put_bookmark(cursor);
            }
            (_, Hearing::Closing(_)) => return Ok(Happening::Nothing),
            (_, Hearing::Lost) => {}
            ("events.gap", Hearing::InOrder) => return Ok(self.close_gap(from)),
            (_, Hearing::InOrder) => self.advance(seq)?,
        }
        Ok(Happening::Event { method: method.into_owned(), params: params.to_owned() })
    }

    fn advance(&mut self, seq: Option<u64>) -> Result<(), Violation> {
        let (Some(seq), Some(bookmark)) = (seq, &mut self.bookmark) else { return Ok(()) };
        if seq < bookmark.seq {
            return Err(Violation::Backwards);
        }
        bookmark.seq = seq;
        Ok(())
    }

    fn put_bookmark(&mut self, seq: u64) {
        self.bookmark = Some(Bookmark { journal: self.journal.clone(), seq });
    }

    /// We did not read, and missed something: it is asked for again.
    fn close_gap(&mut self, from: u64) -> Happening {
        let id = self.next_id;
        self.next_id = id.saturating_add(1);
        self.hearing = Hearing::Closing(id);
        self.put_bookmark(from);
        let text = text_of(id, "events.subscribe", &self.bookmark);
        Happening::Send(Secret::new(text.unwrap_or_default()))
    }

    fn on_gap_closed(&mut self, result: Result<Box<RawValue>, RpcError>) -> Happening {
        let subscribed = match result {
            Ok(result) => serde_json::from_str::<Welcome>(result.get()).unwrap_or_default(),
            Err(error) => return Happening::Refused(error),
        };
        let is_known = subscribed.replayed == Some(true);
        self.hearing = if is_known { Hearing::InOrder } else { Hearing::Lost };
        Happening::Nothing
    }

    /// We are in. Our bookmark is one of this journal now, unless the daemon does not know it.
    fn on_welcome(&mut self, welcome: &Welcome) {
        self.state = State::Ready;
        self.journal.clone_from(&welcome.journal);
        match (&mut self.bookmark, welcome.replayed) {
            (Some(bookmark), Some(true)) => bookmark.journal.clone_from(&welcome.journal),
            (Some(_), _) => self.hearing = Hearing::Lost,
            (None, _) => self.put_bookmark(welcome.cursor),
        }
    }

    fn on_answer(
        &mut self,
        id: u64,
        result: Result<Box<RawValue>, RpcError>,
    ) -> Result<Happening, Violation> {
        match &self.state {
            State::Proving { nonce, port } => {
                self.check_proof(id, (nonce, *port), &result)?;
                self.state = State::Authenticating;
                Ok(Happening::Send(self.auth()))
            }
            State::Authenticating if id == HANDSHAKE => match result {
                Ok(result) => {
                    let welcome =
                        serde_json::from_str(result.get()).map_err(|_| Violation::NotJsonRpc)?;
                    self.on_welcome(&welcome);
                    Ok(Happening::Ready(welcome))
                }
                Err(error) => {
                    self.state = State::Over;
                    Ok(Happening::Refused(error))
                }
            },
            State::Ready if self.open.remove(&id) => {
                Ok(Happening::Answer { call: CallId(id), result })
            }
            State::Ready if self.hearing == Hearing::Closing(id) => Ok(self.on_gap_closed(result)),
            State::Authenticating | State::Ready | State::Over => Err(Violation::UnknownCall),
        }
    }

    fn check_proof(
        &self,
        id: u64,
        (nonce, port): (&str, u16),
        result: &Result<Box<RawValue>, RpcError>,
    ) -> Result<(), Violation> {
        #[derive(Deserialize)]
        struct Pong<'a> {
            #[serde(borrow)]
            proof: Cow<'a, str>,
        }
        let pong: Option<Pong<'_>> =
            result.as_ref().ok().and_then(|result| serde_json::from_str(result.get()).ok());
        let digest = TokenDigest::of(self.token.expose());
        match pong {
            Some(pong) if id == HANDSHAKE && digest.is_proved_by(nonce, port, &pong.proof) => {
                Ok(())
            }
            Some(_) | None => Err(Violation::NotProved),
        }
    }

    fn auth(&self) -> Secret {
        #[derive(Serialize)]
        struct Auth<'a> {
            token: &'a str,
            #[serde(flatten)]
            from: Option<&'a Bookmark>,
        }
        let auth = Auth { token: self.token.expose(), from: self.bookmark.as_ref() };
        Secret::new(text_of(HANDSHAKE, "daemon.auth", &auth).unwrap_or_default())
    }
}

/// What the parameters of an event say about its place.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Numbers {
    seq: Option<u64>,
    cursor: u64,
    from: u64,
}

#[derive(Serialize)]
struct Nonce<'a> {
    nonce: &'a str,
}

fn text_of(id: u64, method: &str, params: &impl Serialize) -> Option<String> {
    #[derive(Serialize)]
    struct Request<'a, P: Serialize> {
        jsonrpc: &'static str,
        id: u64,
        method: &'a str,
        params: &'a P,
    }
    serde_json::to_string(&Request { jsonrpc: "2.0", id, method, params }).ok()
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    jsonrpc: Cow<'a, str>,
    id: Option<u64>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    // `null` is a result like any other: only a missing one is `None`.
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<WireError<'a>>,
}

fn present<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

#[derive(Deserialize)]
struct WireError<'a> {
    code: i64,
    message: String,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

impl From<WireError<'_>> for RpcError {
    fn from(error: WireError<'_>) -> Self {
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Data {
            kind: Option<String>,
            hint: Option<String>,
        }
        let Data { kind, hint } =
            error.data.and_then(|data| serde_json::from_str(data.get()).ok()).unwrap_or_default();
        let data = error.data.map(ToOwned::to_owned);
        Self { code: error.code, message: error.message, kind, hint, data }
    }
}

#[cfg(test)]
mod tests;
