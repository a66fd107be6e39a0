//! Pairing as clients see it: the owner opens a window, a stranger comes through it once.
//!
//! Owns `daemon.pairPin`, `daemon.pairCancel` and `device.pair`; refuses to know how guesses are counted
//! ([`pairing`](super::pairing) does). Invariant: a token leaves only after its device's row is on disk (security J2).
//!
//! The opener is not asked again before the token is issued (security D5): on this machine there is nobody in the middle,
//! and whoever types the PIN was shown it. All are told with `device.paired`. That question comes with remote access.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use serde::Serialize;

use super::ctx::Ctx;
use super::pairing::{Opening, Outcome, Window};
use super::peers::{Call, Caller, Peer, Phase, Who};
use super::token::{self, TokenDigest};
use super::witness::{Doubt, of_caller, of_stranger};
use super::{Access, After};
use crate::contract::effect::{Change, Effect, Sync};
use crate::contract::id::{ConnId, DeviceId};
use crate::contract::record::{AuditKind, DeviceRecord, Role};
use crate::contract::time::Now;
use crate::engine::{Entry, Timer};
use crate::wire::event::Event;
use crate::wire::params::Params;
use crate::wire::rpc::{self, Request, RpcError, RpcId};

/// The result of `daemon.pairPin`; both casings, since clients differ.
#[derive(Serialize)]
struct WindowView<'a> {
    pin: &'a str,
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
    relay_url: Option<&'a str>,
    #[serde(rename = "relayUrl")]
    relay_url_camel: Option<&'a str>,
    url: &'a str,
    #[serde(rename = "qrPayload")]
    qr_payload: &'a str,
    role: Role,
}

/// What a QR code holds: nothing that lives longer than the window (security D7).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct QrPayload<'a> {
    v: u32,
    host: &'a str,
    url: &'a str,
    daemon_id: &'a str,
    pairing_id: &'a str,
    ticket: &'a str,
    exp: u64,
}

/// The result of `device.pair`.
#[derive(Serialize)]
struct PairedView<'a> {
    device_id: DeviceId,
    #[serde(rename = "deviceId")]
    device_id_camel: DeviceId,
    device_token: &'a str,
    #[serde(rename = "deviceToken")]
    device_token_camel: &'a str,
    role: Role,
    host_name: &'a str,
    #[serde(rename = "hostName")]
    host_name_camel: &'a str,
    daemon_id: &'a str,
    #[serde(rename = "daemonId")]
    daemon_id_camel: &'a str,
    relay_url: Option<&'a str>,
    #[serde(rename = "relayUrl")]
    relay_url_camel: Option<&'a str>,
    expires_at: Option<u64>,
    #[serde(rename = "expiresAt")]
    expires_at_camel: Option<u64>,
}

impl Access {
    // --- the owner's side ---------------------------------------------------------------------------------------

    pub(crate) fn on_pair_pin(
        &mut self,
        cx: &mut Ctx<'_>,
        call: Call,
        caller: Caller,
        params: &Params<'_>,
    ) {
        match self.open_window(cx, &call, caller, params) {
            Ok(view) => cx.answer(call, &view),
            Err(error) => cx.refuse(call, &error),
        }
    }

    fn open_window(
        &mut self,
        cx: &mut Ctx<'_>,
        call: &Call,
        caller: Caller,
        params: &Params<'_>,
    ) -> Result<Box<serde_json::value::RawValue>, RpcError> {
        let role = role_param(params)?.unwrap_or(Role::Full);
        check_grant(caller, role)?;
        let name = params.text("name")?.map(|name| checked_name(cx, "name", name)).transpose()?;
        let unlock = params.flag("unlock")?;
        let is_unlocking = unlock && caller.who == Who::Owner && self.pairing.is_locked();
        let now = self.clock(cx);
        let opening = Opening { by: caller.who, role, name, unlock };
        let window =
            self.pairing.open(now, opening, &mut cx.engine.entropy).map_err(|_| locked())?;
        let seconds = cx.engine.config.limits.pairing_window.as_secs();
        cx.engine.timers.arm(Timer::Pairing, window.expires);
        let expires_at = window.expires_at;
        let url = format!("ws://127.0.0.1:{}", cx.engine.port);
        let host = self.name.as_deref().unwrap_or(&cx.engine.config.host_name);
        let qr = serde_json::to_string(&QrPayload {
            v: 1,
            host,
            url: &url,
            daemon_id: &self.daemon_id,
            pairing_id: &window.pairing_id,
            ticket: window.ticket.expose(),
            exp: expires_at.as_secs(),
        })
        .unwrap_or_default();
        let view = WindowView {
            pin: window.pin.expose(),
            expires_in_seconds: seconds,
            expires_in_seconds_camel: seconds,
            expires_at: expires_at.as_secs(),
            daemon_id: &self.daemon_id,
            daemon_id_camel: &self.daemon_id,
            host_name: host,
            host_name_camel: host,
            relay_url: None,
            relay_url_camel: None,
            url: &url,
            qr_payload: &qr,
            role,
        };
        let view = serde_json::value::to_raw_value(&view)
            .map_err(|_| RpcError::new(-32603, "internal", "the window could not be described"))?;
        let mut audit = of_caller(cx, AuditKind::PairingOpened, caller, call.conn);
        audit.role = Some(role);
        self.note(cx, audit, Sync::Disk);
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
    const fn clock(&self, cx: &Ctx<'_>) -> Now {
        Now { mono: cx.engine.now.mono, unix: cx.engine.unix_high() }
    }

    pub(crate) fn on_pair_cancel(&mut self, cx: &mut Ctx<'_>, call: Call) {
        self.pairing.cancel();
        cx.engine.timers.disarm(Timer::Pairing);
        self.progress(cx, "cancelled", "the window was closed");
        cx.answer(call, &Empty {});
    }

    /// Closes the window of somebody who might not open one now.
    pub(super) fn close_window_without_standing(&mut self, cx: &mut Ctx<'_>) {
        let has_standing = |who| match who {
            Who::Owner => true,
            Who::Device(id) => self.role_of_living(cx, id) >= Some(Role::Admin),
        };
        if self.pairing.opener().is_some_and(|who| !has_standing(who)) {
            self.close_window(cx);
        }
    }

    /// Closes the owner's window: its local token was replaced, and whoever opened it may not have been the owner.
    pub(super) fn close_window_of_owner(&mut self, cx: &mut Ctx<'_>) {
        if self.pairing.opener() == Some(Who::Owner) {
            self.close_window(cx);
        }
    }

    fn close_window(&mut self, cx: &mut Ctx<'_>) {
        self.pairing.cancel();
        cx.engine.timers.disarm(Timer::Pairing);
        self.progress(cx, "cancelled", "whoever opened the window has lost the right to");
    }

    pub(crate) fn on_pairing_late(&mut self, cx: &mut Ctx<'_>) {
        if self.pairing.cancel() {
            self.progress(cx, "expired", "nobody came in time");
        }
    }

    fn progress(&self, cx: &mut Ctx<'_>, state: &str, detail: &str) {
        cx.tell_in_passing(&Event::PairingProgress { state, detail });
    }

    // --- the device's side --------------------------------------------------------------------------------------

    /// `device.pair` of a stranger.
    pub(super) fn on_pair(&mut self, cx: &mut Ctx<'_>, conn: ConnId, request: &Request<'_>) {
        // A pairing that nobody could be told of makes no device.
        let Some(id) = request.id.map(RpcId::new) else {
            return self.turn_away(cx, conn, refused("null"));
        };
        let raw_id = request.id.unwrap_or("null");
        let asked = match read_pair(cx, request) {
            Ok(asked) => asked,
            Err(error) => {
                // A mistake in the form is not a guess: it is named, and the peer may try again.
                return cx.peers.send(conn, rpc::error(Some(&id), &error), cx.fx);
            }
        };
        if self.is_penalised(cx, conn) {
            return self.turn_away(cx, conn, refused(raw_id));
        }
        self.close_window_without_standing(cx);
        let now = self.clock(cx);
        let outcome = match &asked.credential {
            Credential::Pin(pin) => self.pairing.attempt_pin(now, pin.expose()),
            Credential::Ticket { pairing_id, ticket } => {
                self.pairing.attempt_ticket(now, pairing_id, ticket.expose())
            }
        };
        match outcome {
            Outcome::Matched(window) => self.on_matched(cx, conn, id, window, asked),
            Outcome::Refused => {
                self.progress(cx, "refused", "a wrong code was tried");
                self.turn_away_for(cx, conn, refused(raw_id), Doubt::new("a wrong pairing code"));
            }
            Outcome::RefusedAndClosed => self.on_window_failed(cx, conn, id),
        }
    }

    fn on_matched(
        &mut self,
        cx: &mut Ctx<'_>,
        conn: ConnId,
        id: RpcId,
        window: Window,
        asked: Asked,
    ) {
        cx.engine.timers.disarm(Timer::Pairing);
        let on_their_way =
            self.pending.values().filter(|after| matches!(after, After::Paired { .. }));
        let devices = self.living_devices(cx).saturating_add(on_their_way.count());
        if devices >= cx.engine.config.limits.devices_max {
            self.progress(cx, "failed", "there are too many devices; revoke one");
            return self.turn_away(cx, conn, rpc::error(Some(&id), &refusal()));
        }
        let device = loop {
            let device = cx.engine.entropy.device_id();
            if self.devices.find(device).is_none() {
                break device;
            }
        };
        let token = token::device(device, &mut cx.engine.entropy);
        let at = cx.engine.unix_high();
        let record = DeviceRecord {
            id: device,
            name: window.name.unwrap_or(asked.name),
            platform: asked.platform,
            role: window.role,
            token_sha256: TokenDigest::of(token.expose()).to_bytes(),
            next_token_sha256: None,
            rotated_at: None,
            created_at: at,
            last_seen_at: at,
            last_via: cx.peers.peer(conn).map(|peer| String::from(peer.via())).unwrap_or_default(),
            expires_at: Some(at + cx.engine.config.limits.device_expiry),
            revoked_at: None,
            key: cx.peers.peer(conn).and_then(Peer::key),
        };
        let Some(call) = self.wait(cx, conn, id) else { return };
        let notice = cx.engine.number(&Event::DevicePaired((&record).into()));
        let mut audit = of_stranger(cx, AuditKind::Paired, conn);
        audit.device = Some(device);
        audit.role = Some(record.role);
        let changes = vec![Change::PutDevice(record.clone()), Change::Audit(audit)];
        let (op, entries) = cx.store_telling(changes, vec![notice], Sync::Disk);
        let after = After::Paired { call, record: Box::new(record), token, entries };
        self.pending.await_(op, after);
    }

    /// The third wrong guess: written down before it is answered, so that a restart forgives nothing (security D2).
    fn on_window_failed(&mut self, cx: &mut Ctx<'_>, conn: ConnId, id: RpcId) {
        cx.engine.timers.disarm(Timer::Pairing);
        self.progress(cx, "closed", "too many wrong codes; open a new window");
        let Some(call) = self.wait(cx, conn, id) else { return };
        let is_locked = self.pairing.is_locked();
        let kind = if is_locked { AuditKind::PairingLocked } else { AuditKind::PairingClosed };
        let audit = of_stranger(cx, kind, conn);
        let history = self.pairing.history().clone();
        let op = cx.store(vec![Change::PutPairing(history), Change::Audit(audit)], Sync::Disk);
        self.pending.await_(op, After::PairingRefused { call });
    }

    /// The peer is not heard until the disk has answered.
    fn wait(&mut self, cx: &mut Ctx<'_>, conn: ConnId, id: RpcId) -> Option<Call> {
        self.forget_timers(cx, conn);
        let peer = cx.peers.peer_mut(conn)?;
        peer.phase = Phase::Waiting;
        cx.fx.push(Effect::Pause { conn });
        cx.peers.accept(conn, Some(id), None, &cx.engine.config.limits, cx.fx)
    }

    pub(super) fn on_paired(
        &mut self,
        cx: &mut Ctx<'_>,
        call: Call,
        record: DeviceRecord,
        token: &token::Secret,
        entries: Vec<Entry>,
    ) {
        let conn = call.conn;
        let caller = Caller { who: Who::Device(record.id), role: record.role };
        self.devices.put(record.clone());
        if cx.peers.peer(conn).is_some_and(|peer| peer.phase == Phase::Waiting) {
            self.welcome(cx, conn, caller);
            let host = self.name.as_deref().unwrap_or(&cx.engine.config.host_name);
            let expires_at = record.expires_at.map(crate::Unix::as_secs);
            let view = PairedView {
                device_id: record.id,
                device_id_camel: record.id,
                device_token: token.expose(),
                device_token_camel: token.expose(),
                role: record.role,
                host_name: host,
                host_name_camel: host,
                daemon_id: &self.daemon_id,
                daemon_id_camel: &self.daemon_id,
                relay_url: None,
                relay_url_camel: None,
                expires_at,
                expires_at_camel: expires_at,
            };
            cx.peers.answer(call, &view, cx.fx);
            cx.fx.push(Effect::Resume { conn });
            self.greet(cx, conn);
        }
        cx.tell(entries);
        self.progress(cx, "paired", &record.name);
    }
}

/// A result with nothing in it.
#[derive(Serialize)]
pub(crate) struct Empty {}

enum Credential {
    Pin(token::Secret),
    Ticket { pairing_id: String, ticket: token::Secret },
}

struct Asked {
    credential: Credential,
    name: String,
    platform: String,
}

fn read_pair(cx: &Ctx<'_>, request: &Request<'_>) -> Result<Asked, RpcError> {
    let params = Params::read(request.params)?;
    let pin = params.text("pin")?.map(token::Secret::new);
    let ticket = params.text("ticket")?.map(token::Secret::new);
    let credential = match (pin, ticket) {
        (Some(pin), None) => Credential::Pin(pin),
        (None, Some(ticket)) => {
            Credential::Ticket { pairing_id: params.need_text("pairingId")?, ticket }
        }
        (Some(_), Some(_)) => {
            return Err(RpcError::bad_params("ticket", "cannot be given together with `pin`"));
        }
        (None, None) => return Err(RpcError::bad_params("pin", "is missing")),
    };
    let name = checked_name(cx, "name", params.need_text("name")?)?;
    let platform = params.text("platform")?.unwrap_or_else(|| String::from("unknown"));
    let platform = checked_name(cx, "platform", platform)?;
    Ok(Asked { credential, name, platform })
}

/// A name that somebody typed: not empty, not long, on one line.
pub(super) fn checked_name(cx: &Ctx<'_>, field: &str, name: String) -> Result<String, RpcError> {
    let chars_max = cx.engine.config.limits.name_chars_max;
    if name.trim().is_empty() {
        return Err(RpcError::bad_params(field, "must not be empty"));
    }
    if name.chars().count() > chars_max {
        return Err(RpcError::bad_params(
            field,
            &format!("must have {chars_max} characters or fewer"),
        ));
    }
    if name.chars().any(char::is_control) {
        return Err(RpcError::bad_params(field, "must not have control characters"));
    }
    Ok(name)
}

pub(super) fn role_param(params: &Params<'_>) -> Result<Option<Role>, RpcError> {
    let Some(word) = params.text("role")? else { return Ok(None) };
    let role = Role::from_word(&word).filter(|role| *role != Role::Owner);
    let must = "must be `read`, `approve`, `full` or `admin`";
    role.map(Some).ok_or_else(|| RpcError::bad_params("role", must))
}

/// Nobody gives away what only the owner may give.
fn check_grant(caller: Caller, role: Role) -> Result<(), RpcError> {
    if role == Role::Admin && caller.who != Who::Owner {
        return Err(RpcError::new(-32002, "role", "only the owner makes an admin")
            .hint("do it on the machine itself, with the `clawd` command"));
    }
    Ok(())
}

fn refusal() -> RpcError {
    RpcError::new(-32021, "pairing_refused", "pairing refused")
        .hint("open a new window on the host with `clawd pair` and try again")
}

fn refused(id: &str) -> String {
    rpc::error_text(id, &refusal())
}

pub(super) fn pairing_refused() -> RpcError {
    refusal()
}

fn locked() -> RpcError {
    RpcError::new(-32021, "pairing_locked", "pairing is off: too many wrong codes in a day")
        .hint("if that was you, open the next window with `clawd pair --unlock`")
}
