//! What a relay's runtime says to the rendezvous, and what the rendezvous wants done.
//!
//! Owns both vocabularies and the settings; refuses to know what follows from what.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use super::limits::RelayLimits;
use crate::access::token::TokenDigest;
use crate::contract::effect::Response;
use crate::contract::error::HeadFault;
use crate::contract::fingerprint::Fingerprint;
use crate::contract::id::ConnId;
use crate::contract::input::Head;

/// The settings of a relay.
#[derive(Debug, Clone, Default)]
pub struct RelayConfig {
    /// By which names daemons reach it, as [`RelayUrl::host`](crate::relay::RelayUrl::host) has them. One of them is in every
    /// signature that registers. They are configured and never taken from `Host`, which whoever sends it chooses; so a
    /// signature that another relay was given is good for nothing here. Without any, nobody can register.
    pub hosts: Vec<String>,
    /// What the paths begin with, such as `/relay`; usually nothing.
    pub prefix: String,
    /// A daemon must show one of these to register, if there are any.
    pub access_tokens: Vec<TokenDigest>,
    /// Only these may register, if there are any.
    pub allowed: Vec<Fingerprint>,
    /// Whoever connects from this machine is a proxy, and the last entry of its `X-Forwarded-For` says for whom.
    pub trusts_proxy: bool,
    /// The bounds.
    pub limits: RelayLimits,
}

/// One thing that happened.
#[derive(Debug)]
pub enum Input<'a> {
    /// Somebody connected.
    Opened {
        /// The connection's name; never one that was used before.
        conn: ConnId,
        /// From where.
        address: IpAddr,
    },
    /// The request head is whole, or is none.
    Requested {
        /// The connection.
        conn: ConnId,
        /// The head, or what is wrong with it.
        head: Result<Head<'a>, HeadFault>,
    },
    /// A text message on a connection that speaks [`Speech::Text`].
    Text {
        /// The connection.
        conn: ConnId,
        /// The text.
        text: &'a str,
    },
    /// The connection broke a rule: of framing, or it sent what its [`Speech`] does not allow, or bytes before it was
    /// spliced.
    Broke {
        /// The connection.
        conn: ConnId,
    },
    /// The answer to [`Effect::Verify`].
    Verified {
        /// The connection.
        conn: ConnId,
        /// The signature is of this key and one of the messages.
        is_right: bool,
    },
    /// So much came from one leg of a splice since this was last said; a ping or pong counts as nothing, but is said.
    Moved {
        /// The leg.
        conn: ConnId,
        /// Bytes, as they were passed on.
        bytes: u64,
    },
    /// The connection is over: its peer ended it and all it sent was passed on, or it was closed as we wanted.
    Closed {
        /// The connection.
        conn: ConnId,
    },
    /// Time has passed.
    Tick,
    /// The relay is to stop.
    Shutdown,
}

/// What may be said on a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speech {
    /// Text messages up to this many bytes.
    Text {
        /// Bytes.
        bytes_max: usize,
    },
    /// Binary messages, and only once it is spliced.
    Bytes,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Answer the request head, flush, and close.
    Respond {
        /// The connection.
        conn: ConnId,
        /// What to answer.
        response: Response,
    },
    /// Answer the request head with 101 and speak WebSocket from then on.
    Upgrade {
        /// The connection.
        conn: ConnId,
        /// The peer's `Sec-WebSocket-Key`.
        key: String,
        /// What is to be heard.
        speech: Speech,
    },
    /// Send a text message.
    Send {
        /// To whom.
        conn: ConnId,
        /// The text.
        text: String,
    },
    /// Look whether `signature` is `public_key`'s over one of `messages` (ECDSA, P-256, SHA-256, ASN.1 DER), and say so
    /// with [`Input::Verified`].
    Verify {
        /// For whom.
        conn: ConnId,
        /// DER of a `SubjectPublicKeyInfo`.
        public_key: Vec<u8>,
        /// What may have been signed.
        messages: Vec<Vec<u8>>,
        /// The signature.
        signature: Vec<u8>,
    },
    /// From now on what one says the other hears: payloads of binary messages, in order, as a stream of bytes.
    Splice {
        /// The client.
        client: ConnId,
        /// The daemon's leg.
        daemon: ConnId,
    },
    /// Flush what was sent or passed on before, then end the connection: with this close code if it speaks WebSocket.
    Close {
        /// The connection.
        conn: ConnId,
        /// RFC 6455, section 7.4.
        code: u16,
    },
    /// The end; nothing comes after it.
    Stop,
}

/// A sink for effects.
#[derive(Debug, Default)]
pub struct Effects {
    list: Vec<Effect>,
}

impl Effects {
    /// An empty sink. Use one for the whole life of a runtime: its memory is kept.
    #[must_use]
    pub const fn new() -> Self {
        Self { list: Vec::new() }
    }

    /// Takes everything out, in order.
    pub fn drain(&mut self) -> alloc::vec::Drain<'_, Effect> {
        self.list.drain(..)
    }

    pub(super) fn push(&mut self, effect: Effect) {
        self.list.push(effect);
    }
}
