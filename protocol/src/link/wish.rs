//! What the owner wants of a relay: `daemon.setRelay`.
//!
//! Owns the reading of the wish and what follows once it is stored; refuses to dial. Invariants: nothing of a wish takes
//! effect before it is on disk, and there is one on its way at most; another relay is never shown the access token that was
//! meant for the one before, and is not held to its pin.

use alloc::format;
use alloc::string::String;
use alloc::vec;

use super::view::WantedView;
use super::{Link, State};
use crate::access::ctx::Ctx;
use crate::access::peers::{Call, Caller, close};
use crate::access::token::Secret;
use crate::access::witness::of_caller;
use crate::contract::effect::{Change, Sync};
use crate::contract::error::StoreFault;
use crate::contract::id::OpId;
use crate::contract::record::{AuditKind, RelaySettings};
use crate::relay::{RelayUrl, pin};
use crate::wire::params::Params;
use crate::wire::rpc::RpcError;

/// Longer than any token that one is given.
const ACCESS_TOKEN_BYTES_MAX: usize = 1024;

/// A wish on its way to the disk.
#[derive(Debug)]
pub(super) struct Wish {
    op: OpId,
    call: Call,
    wanted: RelaySettings,
}

impl Link {
    pub(crate) fn on_set_relay(
        &mut self,
        cx: &mut Ctx<'_>,
        call: Call,
        caller: Caller,
        params: &Params<'_>,
    ) {
        if self.wish.is_some() {
            let error = RpcError::new(-32029, "rate_limited", "another change is being stored")
                .hint("wait for its answer")
                .retry_after(core::time::Duration::from_millis(100));
            return cx.refuse(call, &error);
        }
        let wanted = match read(cx.engine.relay.as_ref(), params) {
            Ok(Some(wanted)) => wanted,
            // Off, and nothing is known of any relay: so it was.
            Ok(None) => return cx.answer(call, &WantedView::from(None)),
            Err(error) => return cx.refuse(call, &error),
        };
        let mut audit = of_caller(cx, AuditKind::RelayChanged, caller, call.conn);
        let is_on = if wanted.enabled { "on" } else { "off" };
        audit.note = Some(format!("{is_on}, {}", wanted.url));
        let changes = vec![Change::PutRelay(wanted.clone()), Change::Audit(audit)];
        let op = cx.store(changes, Sync::Disk);
        self.wish = Some(Wish { op, call, wanted });
    }

    /// Goes on with the wish, if this was its operation.
    pub(crate) fn on_stored(
        &mut self,
        cx: &mut Ctx<'_>,
        op: OpId,
        result: &Result<(), StoreFault>,
    ) -> bool {
        let Some(Wish { call, wanted, .. }) = self.wish.take_if(|wish| wish.op == op) else {
            return false;
        };
        match result {
            Ok(()) => {
                cx.answer(call, &WantedView::from(Some(&wanted)));
                self.follow(cx, wanted);
            }
            Err(fault) => cx.refuse(call, &RpcError::storage(fault)),
        }
        true
    }

    /// Does what is wanted now. Said once more while it rests, it is tried at once.
    fn follow(&mut self, cx: &mut Ctx<'_>, wanted: RelaySettings) {
        let before = cx.engine.relay.as_ref();
        let is_resting = matches!(self.state, State::Off | State::Waiting { .. });
        if before == Some(&wanted) && !is_resting {
            return;
        }
        let is_same = before.is_some_and(|it| it.url == wanted.url && it.pin == wanted.pin);
        let stays = is_same && wanted.enabled;
        self.stop(cx);
        cx.engine.relay = Some(wanted);
        if !stays {
            cx.peers.close_through_relay(close::GOING_AWAY, "the relay is off", cx.fx);
        }
        self.start(cx);
    }
}

/// What is wanted from now on; `None` if it is nothing, as before.
fn read(
    before: Option<&RelaySettings>,
    params: &Params<'_>,
) -> Result<Option<RelaySettings>, RpcError> {
    let enabled = params.maybe_flag("enabled")?;
    let url = params.text("url")?.map(|text| text.parse::<RelayUrl>()).transpose();
    let url = url.map_err(|error| RpcError::bad_params("url", &format!("is wrong: {error}")))?;
    let pin = params.maybe_text("pin")?.map(|text| text.map(|text| pin::parse(&text)).transpose());
    let pin = pin.transpose();
    let pin = pin.map_err(|error| RpcError::bad_params("pin", &format!("is wrong: {error}")))?;
    let token = params.maybe_text("accessToken")?;
    let token = token.map(|text| text.map(access_token).transpose()).transpose()?;
    let is_asking =
        enabled == Some(true) || pin.flatten().is_some() || token.iter().any(Option::is_some);
    let mut wanted = match (before, url) {
        (None, None) if is_asking => {
            return Err(RpcError::bad_params("url", "is missing, and no relay was set before"));
        }
        (None, None) => return Ok(None),
        (Some(before), None) => before.clone(),
        (Some(before), Some(url)) if before.url == url => before.clone(),
        (before, Some(url)) => RelaySettings {
            enabled: before.is_some_and(|it| it.enabled),
            url,
            pin: None,
            access_token: None,
        },
    };
    wanted.enabled = enabled.unwrap_or(wanted.enabled);
    wanted.pin = pin.unwrap_or(wanted.pin);
    if let Some(token) = token {
        wanted.access_token = token;
    }
    Ok(Some(wanted))
}

fn access_token(text: String) -> Result<Secret, RpcError> {
    let secret = Secret::new(text);
    let text = secret.expose();
    let is_long = text.is_empty() || text.len() > ACCESS_TOKEN_BYTES_MAX;
    if is_long || text.chars().any(char::is_control) {
        let must = "must be 1 to 1024 bytes, and none of them a control character";
        return Err(RpcError::bad_params("accessToken", must));
    }
    Ok(secret)
}
