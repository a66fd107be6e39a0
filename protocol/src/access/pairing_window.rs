//! The pairing window as its opener sees it.
//!
//! Owns `daemon.pairPin` and `daemon.pairCancel`, what a code holds, and how long an opener's right carries his window;
//! refuses to know how guesses are counted ([`pairing`](super::pairing) does) and who comes.
//!
//! A window opens once the world has said at which addresses we are reached, so that nobody is shown a code that leads
//! nowhere without being told.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;

use serde::Serialize;
use serde_json::value::RawValue;

use super::addresses::Wanted;
use super::ctx::Ctx;
use super::pairing::{Opening, Window};
use super::pairing_calls::checked_name;
use super::peers::{Call, Caller, Who};
use super::witness::of_caller;
use super::{Access, After};
use crate::contract::effect::{Change, Sync};
use crate::contract::fingerprint::Fingerprint;
use crate::contract::record::{AuditKind, Role};
use crate::contract::time::Now;
use crate::engine::Timer;
use crate::invitation::Invitation;
use crate::relay::RelayUrl;
use crate::wire::event::Event;
use crate::wire::params::Params;
use crate::wire::rpc::RpcError;

/// Addresses in a code: with more it becomes too dense to be scanned.
const CODE_URLS_MAX: usize = 4;

/// A window that somebody wants, until we know where we are reached.
#[derive(Debug)]
pub(crate) struct Wish {
    call: Call,
    role: Role,
    name: Option<String>,
    unlock: bool,
    confirm: bool,
}

/// The result of `daemon.pairPin`; both casings, since clients differ.
#[derive(Serialize)]
struct WindowView<'a> {
    pin: &'a str,
    pairing_id: &'a str,
    #[serde(rename = "pairingId")]
    pairing_id_camel: &'a str,
    expires_in_seconds: u64,
    #[serde(rename = "expiresInSeconds")]
    expires_in_seconds_camel: u64,
    #[serde(rename = "expiresAt")]
    expires_at: u64,
    daemon_id: &'a str,
    #[serde(rename = "daemonId")]
    daemon_id_camel: &'a str,
    host_name: &'a str,
    #[serde(rename = "hostName")]
    host_name_camel: &'a str,
    relay_url: Option<&'a RelayUrl>,
    #[serde(rename = "relayUrl")]
    relay_url_camel: Option<&'a RelayUrl>,
    url: &'a str,
    urls: &'a [String],
    reachable: bool,
    #[serde(rename = "qrPayload")]
    qr_payload: &'a str,
    role: Role,
    confirm: bool,
}

impl Access {
    pub(crate) fn on_pair_pin(
        &mut self,
        cx: &mut Ctx<'_>,
        call: Call,
        caller: Caller,
        params: &Params<'_>,
    ) {
        let wish = match read_wish(cx, caller, params) {
            Ok((role, name, unlock, confirm)) => Wish { call, role, name, unlock, confirm },
            Err(error) => return cx.refuse(call, &error),
        };
        self.want_addresses(cx, Wanted::Window(wish));
    }

    /// Where we are is known, as well as it will be.
    pub(super) fn on_place(&mut self, cx: &mut Ctx<'_>, wish: Wish, urls: &[String]) {
        let Wish { call, role, name, unlock, confirm } = wish;
        let Some(call) = cx.still_welcome(call) else { return };
        let Some(caller) = cx.peers.caller(call.conn) else { return };
        let opening = Opening { by: caller.who, role, name, unlock, confirm };
        match self.open_window(cx, &call, caller, opening, urls) {
            Ok(view) => cx.answer(call, &view),
            Err(error) => cx.refuse(call, &error),
        }
    }

    fn open_window(
        &mut self,
        cx: &mut Ctx<'_>,
        call: &Call,
        caller: Caller,
        opening: Opening,
        urls: &[String],
    ) -> Result<Box<RawValue>, RpcError> {
        let role = opening.role;
        check_grant(caller, role)?;
        let is_unlocking = opening.unlock && caller.who == Who::Owner && self.pairing.is_locked();
        let now = self.clock(cx);
        let replaced = self.pairing.name().map(String::from);
        let window =
            self.pairing.open(now, opening, &mut cx.engine.entropy).map_err(|_| locked())?;
        cx.engine.timers.arm(Timer::Pairing, window.expires);
        let relay = cx.engine.relay.as_ref().filter(|relay| relay.enabled);
        let host = self.name.as_deref().unwrap_or(&cx.engine.config.host_name);
        let seconds = cx.engine.config.limits.pairing_window.as_secs();
        let relay = relay.map(|relay| relay.url.clone());
        let place = Place { daemon_id: &self.daemon_id, host, urls, relay, port: cx.engine.port };
        let view = describe(window, &place, seconds)?;
        let mut audit = of_caller(cx, AuditKind::PairingOpened, caller, call.conn);
        audit.role = Some(role);
        self.note(cx, audit, Sync::Disk);
        if let Some(replaced) = replaced {
            self.progress_of(cx, &replaced, "cancelled", "a newer window has taken its place");
        }
        // Who still waits came through the window before this one.
        self.decline(cx, "cancelled", "another window was opened");
        if is_unlocking {
            // Until this is stored a crash locks again: the safe side.
            let history = self.pairing.history().clone();
            let audit = of_caller(cx, AuditKind::PairingUnlocked, caller, call.conn);
            let changes = vec![Change::PutPairing(history), Change::Audit(audit)];
            let op = cx.store(changes, Sync::Disk);
            self.pending.await_(op, After::Noted);
        }
        Ok(view)
    }

    /// The clocks by which a window is judged: a wall clock set back does not make it live longer.
    pub(super) const fn clock(&self, cx: &Ctx<'_>) -> Now {
        Now { mono: cx.engine.now.mono, unix: cx.engine.unix_high() }
    }

    /// Our own key's name.
    pub(super) fn fingerprint(&self) -> Fingerprint {
        // It was made from one; another would only make runs fail.
        self.daemon_id.parse().unwrap_or_else(|_| Fingerprint::from_bytes([0; 32]))
    }

    pub(crate) fn on_pair_cancel(&mut self, cx: &mut Ctx<'_>, call: Call, params: &Params<'_>) {
        let wanted = match params.text("pairingId") {
            Ok(wanted) => wanted,
            Err(error) => return cx.refuse(call, &error),
        };
        let waiting = self.asking.as_ref().map(|asking| asking.name());
        let present = self.pairing.name().or(waiting);
        // Who names a window means no other: that one may be somebody else's by now.
        if wanted.is_none() || wanted.as_deref() == present {
            self.close_window(cx, "the window was closed");
        }
        cx.answer(call, &Empty {});
    }

    /// Closes the window of somebody who might not open one now.
    pub(super) fn close_window_without_standing(&mut self, cx: &mut Ctx<'_>) {
        let has_standing = |who| match who {
            Who::Owner => !self.is_resetting,
            Who::Device(id) => self.role_of_living(cx, id) >= Some(Role::Admin),
        };
        if self.opener().is_some_and(|who| !has_standing(who)) {
            self.close_window(cx, "whoever opened the window has lost the right to");
        }
    }

    /// Closes the owner's window: its local token was replaced, and whoever opened it may not have been the owner.
    pub(super) fn close_window_of_owner(&mut self, cx: &mut Ctx<'_>) {
        if self.opener() == Some(Who::Owner) {
            self.close_window(cx, "whoever opened the window has lost the right to");
        }
    }

    /// Who opened the window that is open, or the one through which somebody came who still waits.
    fn opener(&self) -> Option<Who> {
        self.pairing.opener().or_else(|| self.asking.as_ref().map(|asking| asking.opener()))
    }

    fn close_window(&mut self, cx: &mut Ctx<'_>, detail: &str) {
        self.pairing.cancel();
        cx.engine.timers.disarm(Timer::Pairing);
        if !self.decline(cx, "cancelled", detail) {
            self.progress(cx, "cancelled", detail);
        }
    }

    pub(crate) fn on_pairing_late(&mut self, cx: &mut Ctx<'_>) {
        if self.pairing.cancel() {
            self.progress(cx, "expired", "nobody came in time");
        }
    }

    pub(super) fn progress(&self, cx: &mut Ctx<'_>, state: &str, detail: &str) {
        cx.tell_in_passing(&Event::PairingProgress {
            state,
            detail,
            pairing_id: None,
            tries_left: None,
            guest: None,
        });
    }

    /// The same of this window, which need not be the open one.
    pub(super) fn progress_of(&self, cx: &mut Ctx<'_>, id: &str, state: &str, detail: &str) {
        cx.tell_in_passing(&Event::PairingProgress {
            state,
            detail,
            pairing_id: Some(id),
            tries_left: None,
            guest: None,
        });
    }

    /// Somebody was refused who wanted to come in through the open window, if there is one, and it goes on.
    pub(super) fn progress_refused(&self, cx: &mut Ctx<'_>, detail: &str) {
        cx.tell_in_passing(&Event::PairingProgress {
            state: "refused",
            detail,
            pairing_id: self.pairing.name(),
            tries_left: self.pairing.tries_left(),
            guest: None,
        });
    }
}

/// Where devices find us, and what we are called.
struct Place<'a> {
    daemon_id: &'a str,
    host: &'a str,
    urls: &'a [String],
    relay: Option<RelayUrl>,
    port: u16,
}

fn describe(window: &Window, place: &Place<'_>, seconds: u64) -> Result<Box<RawValue>, RpcError> {
    let internal = || RpcError::new(-32603, "internal", "the window could not be described");
    let Place { daemon_id, host, urls, relay, port } = place;
    let url = urls.first().cloned().unwrap_or_else(|| format!("ws://127.0.0.1:{port}"));
    let shown =
        if urls.len() > 1 { urls.iter().take(CODE_URLS_MAX).cloned().collect() } else { vec![] };
    let invitation = Invitation {
        v: 1,
        host: (*host).to_string(),
        url: (!urls.is_empty() || relay.is_none()).then(|| url.clone()),
        urls: shown,
        relay: relay.clone(),
        daemon_id: daemon_id.parse().map_err(|_| internal())?,
        pairing_id: window.pairing_id.clone(),
        ticket: window.ticket.expose().to_string(),
        exp: window.expires_at.as_secs(),
    };
    let view = WindowView {
        pin: window.pin.expose(),
        pairing_id: &window.pairing_id,
        pairing_id_camel: &window.pairing_id,
        expires_in_seconds: seconds,
        expires_in_seconds_camel: seconds,
        expires_at: window.expires_at.as_secs(),
        daemon_id,
        daemon_id_camel: daemon_id,
        host_name: host,
        host_name_camel: host,
        relay_url: relay.as_ref(),
        relay_url_camel: relay.as_ref(),
        url: &url,
        urls,
        reachable: !urls.is_empty() || relay.is_some(),
        qr_payload: &serde_json::to_string(&invitation).map_err(|_| internal())?,
        role: window.role,
        confirm: window.confirm,
    };
    serde_json::value::to_raw_value(&view).map_err(|_| internal())
}

fn read_wish(
    cx: &Ctx<'_>,
    caller: Caller,
    params: &Params<'_>,
) -> Result<(Role, Option<String>, bool, bool), RpcError> {
    let role = role_param(params)?.unwrap_or(Role::Full);
    check_grant(caller, role)?;
    let name = params.text("name")?.map(|name| checked_name(cx, "name", name)).transpose()?;
    let confirm = params.maybe_flag("confirm")?.unwrap_or(true);
    Ok((role, name, params.flag("unlock")?, confirm))
}

/// A result with nothing in it.
#[derive(Serialize)]
pub(crate) struct Empty {}

pub(super) fn role_param(params: &Params<'_>) -> Result<Option<Role>, RpcError> {
    let Some(word) = params.text("role")? else { return Ok(None) };
    let role = Role::from_word(&word).filter(|role| *role != Role::Owner);
    let must = "must be `read`, `approve`, `full` or `admin`";
    role.map(Some).ok_or_else(|| RpcError::bad_params("role", must))
}

/// Nobody gives away what only the owner may give.
pub(super) fn check_grant(caller: Caller, role: Role) -> Result<(), RpcError> {
    if role == Role::Admin && caller.who != Who::Owner {
        return Err(RpcError::new(-32002, "role", "only the owner makes an admin")
            .hint("do it on the machine itself, with the `clawd` command"));
    }
    Ok(())
}

fn locked() -> RpcError {
    RpcError::new(-32021, "pairing_locked", "pairing is off: too many wrong codes in a day")
        .hint("if that was you, open the next window with `clawd pair --unlock`")
}
