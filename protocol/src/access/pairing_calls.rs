//! Pairing as a device sees it: a stranger comes through the window once.
//!
//! Owns `device.pair`, `device.pairStart` and `device.pairFinish`, and what a new device is given; refuses to know how guesses
//! are counted ([`pairing`](super::pairing) does) and what the opener is asked. Invariant: a token leaves only after its
//! device's row is on disk (security J2).
//!
//! What a stranger can see (security D6): every refusal is the same, whatever its reason. `pairStart` is always answered and
//! says nothing, also without a window. A PIN in clear is looked at only where nobody is in between; elsewhere it is refused
//! unseen, and costs no guess. Only a window that has failed is refused later than others, by one write to the disk.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use serde::Serialize;

use super::ctx::Ctx;
use super::limiter::Key;
use super::pairing::{Keys, Outcome, Window};
use super::peers::{Call, Caller, Peer, Phase, Who};
use super::token::{self, TokenDigest};
use super::witness::{Doubt, of_stranger};
use super::{Access, After, Grant};
use crate::contract::effect::{Change, Effect, Sync};
use crate::contract::id::{ConnId, DeviceId};
use crate::contract::input::Source;
use crate::contract::record::{AuditKind, DeviceRecord, Role};
use crate::engine::{Entry, Timer};
use crate::pake::Message;
use crate::relay::RelayUrl;
use crate::wire::event::Event;
use crate::wire::params::Params;
use crate::wire::rpc::{self, Request, RpcError, RpcId};

/// A device that knew the PIN or had the ticket.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) call: Call,
    /// The window through which it came.
    pub(super) window: Window,
    /// The run by which it did, or the window's id: what its code is made from.
    pub(super) run_id: String,
    pub(super) name: String,
    pub(super) platform: String,
    /// What the daemon proves in return, after a run.
    confirm: Option<String>,
}

/// The result of `device.pair` and `device.pairFinish`.
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
    relay_url: Option<&'a RelayUrl>,
    #[serde(rename = "relayUrl")]
    relay_url_camel: Option<&'a RelayUrl>,
    expires_at: Option<u64>,
    #[serde(rename = "expiresAt")]
    expires_at_camel: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    confirm: Option<&'a str>,
}

/// The result of `device.pairStart`.
#[derive(Serialize)]
struct Started<'a> {
    #[serde(rename = "pairingId")]
    pairing_id: &'a str,
    message: &'a str,
}

impl Access {
    /// `device.pair` of a stranger.
    pub(super) fn on_pair(&mut self, cx: &mut Ctx<'_>, conn: ConnId, request: &Request<'_>) {
        let Some((id, (credential, wanted))) = self.read_guest(cx, conn, request, read_pair) else {
            return;
        };
        let raw_id = request.id.unwrap_or("null");
        let now = self.clock(cx);
        let (outcome, is_pin) = match &credential {
            Credential::Pin(pin) => {
                if !cx.peers.peer(conn).is_some_and(Peer::is_local) {
                    let detail = "a PIN came in clear from afar; it was not looked at";
                    self.progress_refused(cx, detail);
                    let doubt = Doubt::new("a PIN in clear from afar");
                    return self.turn_away_for(cx, conn, refused(raw_id), doubt);
                }
                (self.pairing.attempt_pin(now, pin.expose()), true)
            }
            Credential::Ticket { pairing_id, ticket } => {
                (self.pairing.attempt_ticket(now, pairing_id, ticket.expose()), false)
            }
        };
        self.on_outcome(cx, conn, id, outcome, wanted, is_pin, None);
    }

    /// `device.pairStart` of a stranger. It is answered whether or not a window is open.
    pub(super) fn on_pair_start(&mut self, cx: &mut Ctx<'_>, conn: ConnId, request: &Request<'_>) {
        let Some((id, message)) = self.read_guest(cx, conn, request, read_start) else { return };
        let (now, daemon) = (self.clock(cx), self.fingerprint());
        let keys = Keys { device: cx.peers.peer(conn).and_then(Peer::key), daemon };
        let run = self.pairing.start(now, conn, &message, keys, &mut cx.engine.entropy);
        let Some((pairing_id, message)) = run else {
            let refusal = refused(request.id.unwrap_or("null"));
            return self.turn_away_for(cx, conn, refusal, Doubt::new("a second pairing at once"));
        };
        let view = Started { pairing_id: &pairing_id, message: &message };
        cx.peers.send(conn, rpc::result(&id, &view), cx.fx);
    }

    /// `device.pairFinish` of a stranger.
    pub(super) fn on_pair_finish(&mut self, cx: &mut Ctx<'_>, conn: ConnId, request: &Request<'_>) {
        let read = self.read_guest(cx, conn, request, read_finish);
        let Some((id, (run_id, confirm, wanted))) = read else { return };
        let now = self.clock(cx);
        let outcome = self.pairing.finish(now, conn, &run_id, &confirm);
        self.on_outcome(cx, conn, id, outcome, wanted, true, Some(run_id));
    }

    /// What a stranger's request says, if it is one that is looked at.
    fn read_guest<T>(
        &mut self,
        cx: &mut Ctx<'_>,
        conn: ConnId,
        request: &Request<'_>,
        read: impl FnOnce(&Ctx<'_>, &Params<'_>) -> Result<T, RpcError>,
    ) -> Option<(RpcId, T)> {
        // A pairing that nobody could be told of makes no device.
        let Some(id) = request.id.map(RpcId::new) else {
            self.turn_away(cx, conn, refused("null"));
            return None;
        };
        let params = Params::read(request.params);
        let wanted = match params.and_then(|params| read(cx, &params)) {
            Ok(wanted) => wanted,
            Err(error) => {
                // A mistake in the form is not a guess: it is named, and the peer may try again.
                cx.peers.send(conn, rpc::error(Some(&id), &error), cx.fx);
                return None;
            }
        };
        if self.is_penalised(cx, conn) {
            self.turn_away(cx, conn, refused(request.id.unwrap_or("null")));
            return None;
        }
        self.close_window_without_standing(cx);
        Some((id, wanted))
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one guess: who made it, how, and what came of it"
    )]
    fn on_outcome(
        &mut self,
        cx: &mut Ctx<'_>,
        conn: ConnId,
        id: RpcId,
        outcome: Outcome,
        wanted: Wanted,
        is_pin: bool,
        run_id: Option<String>,
    ) {
        match outcome {
            Outcome::Matched(window, confirm) => {
                cx.engine.timers.disarm(Timer::Pairing);
                let Some(call) = self.wait(cx, conn, id) else { return };
                let is_relayed =
                    cx.peers.peer(conn).is_some_and(|peer| matches!(peer.source, Source::Relay(_)));
                let is_asked = window.confirm && (is_pin || is_relayed);
                let run_id = run_id.unwrap_or_else(|| window.pairing_id.clone());
                let Wanted { name, platform } = wanted;
                let guest = Guest { call, window, run_id, name, platform, confirm };
                if !self.has_room(cx) {
                    self.on_no_room(cx, guest.call);
                } else if is_asked {
                    self.ask_about(cx, guest);
                } else {
                    self.let_in(cx, guest, None);
                }
            }
            Outcome::Refused => {
                self.progress_refused(cx, "a wrong code was tried");
                let text = rpc::error(Some(&id), &refusal());
                self.turn_away_for(cx, conn, text, Doubt::new("a wrong pairing code"));
            }
            Outcome::RefusedAndClosed => {
                let changes = self.failed_window(cx, conn);
                let Some(call) = self.wait(cx, conn, id) else { return };
                let op = cx.store(changes, Sync::Disk);
                self.pending.await_(op, After::PairingRefused { call });
            }
        }
    }

    fn has_room(&self, cx: &Ctx<'_>) -> bool {
        let on_their_way =
            self.pending.values().filter(|after| matches!(after, After::Paired { .. }));
        let devices = self.living_devices(cx).saturating_add(on_their_way.count());
        devices < cx.engine.config.limits.devices_max
    }

    fn on_no_room(&mut self, cx: &mut Ctx<'_>, call: Call) {
        self.progress(cx, "failed", "there are too many devices; revoke one");
        self.turn_away_guest(cx, call);
    }

    /// Makes the device, and its token once that is stored.
    pub(super) fn let_in(&mut self, cx: &mut Ctx<'_>, guest: Guest, note: Option<String>) {
        let Guest { call, window, name, platform, confirm, .. } = guest;
        // While it waited others may have come.
        if !self.has_room(cx) {
            return self.on_no_room(cx, call);
        }
        let device = loop {
            let device = cx.engine.entropy.device_id();
            if self.devices.find(device).is_none() {
                break device;
            }
        };
        let token = token::device(device, &mut cx.engine.entropy);
        let at = cx.engine.unix_high();
        let peer = cx.peers.peer(call.conn);
        let record = DeviceRecord {
            id: device,
            name: window.name.unwrap_or(name),
            platform,
            role: window.role,
            token_sha256: TokenDigest::of(token.expose()).to_bytes(),
            next_token_sha256: None,
            rotated_at: None,
            created_at: at,
            last_seen_at: at,
            last_via: peer.map(|peer| String::from(peer.via())).unwrap_or_default(),
            expires_at: Some(at + cx.engine.config.limits.device_expiry),
            revoked_at: None,
            key: peer.and_then(Peer::key),
        };
        let notice = cx.engine.number(&Event::DevicePaired((&record).into()));
        let mut audit = of_stranger(cx, AuditKind::Paired, call.conn);
        audit.device = Some(device);
        audit.role = Some(record.role);
        audit.note = note;
        let changes = vec![Change::PutDevice(record.clone()), Change::Audit(audit)];
        let (op, entries) = cx.store_telling(changes, vec![notice], Sync::Disk);
        let grant = Grant { token, confirm };
        let after = After::Paired { call, record: Box::new(record), grant, entries };
        self.pending.await_(op, after);
    }

    /// The last guess was wrong: written down before it is answered, so that a restart forgives nothing (security D2).
    fn failed_window(&self, cx: &mut Ctx<'_>, conn: ConnId) -> Vec<Change> {
        cx.engine.timers.disarm(Timer::Pairing);
        self.progress(cx, "closed", "too many wrong codes; open a new window");
        let is_locked = self.pairing.is_locked();
        let kind = if is_locked { AuditKind::PairingLocked } else { AuditKind::PairingClosed };
        let audit = of_stranger(cx, kind, conn);
        vec![Change::PutPairing(self.pairing.history().clone()), Change::Audit(audit)]
    }

    /// A connection has taken its run with it: that was a guess, and may have been the last. Its source has failed like one
    /// that guessed wrong (security C1), or hanging up would be the way to close window after window for nothing.
    pub(super) fn abandon_run(&mut self, cx: &mut Ctx<'_>, conn: ConnId) {
        let now = self.clock(cx);
        let Some(is_closed) = self.pairing.abandon(now, conn) else { return };
        if let Some(peer) = cx.peers.peer(conn) {
            self.failures.failed(Key::of(peer.source), cx.engine.now.mono);
        }
        if is_closed {
            let changes = self.failed_window(cx, conn);
            let op = cx.store(changes, Sync::Disk);
            self.pending.await_(op, After::Noted);
        } else if self.pairing.name().is_some() {
            self.progress_refused(cx, "a device has left before its code was checked");
        }
    }

    /// The peer is not heard until somebody has answered.
    fn wait(&mut self, cx: &mut Ctx<'_>, conn: ConnId, id: RpcId) -> Option<Call> {
        self.forget_timers(cx, conn);
        let peer = cx.peers.peer_mut(conn)?;
        peer.phase = Phase::Waiting;
        cx.fx.push(Effect::Pause { conn });
        cx.peers.accept(conn, Some(id), None, &cx.engine.config.limits, cx.fx)
    }

    /// Refuses one that was told to wait.
    pub(super) fn turn_away_guest(&mut self, cx: &mut Ctx<'_>, call: Call) {
        let conn = call.conn;
        let is_there = cx.peers.peer(conn).is_some_and(|peer| peer.phase == Phase::Waiting);
        if let Some(text) = call.refusal_text(&refusal()).filter(|_| is_there) {
            self.turn_away_for(cx, conn, text, Doubt::new("not let in"));
        }
    }

    pub(super) fn on_paired(
        &mut self,
        cx: &mut Ctx<'_>,
        call: Call,
        record: DeviceRecord,
        grant: &Grant,
        entries: Vec<Entry>,
    ) {
        let conn = call.conn;
        let caller = Caller { who: Who::Device(record.id), role: record.role };
        self.devices.put(record.clone());
        if cx.peers.peer(conn).is_some_and(|peer| peer.phase == Phase::Waiting) {
            self.welcome(cx, conn, caller);
            let host = self.name.as_deref().unwrap_or(&cx.engine.config.host_name);
            let relay = cx.engine.relay.as_ref().filter(|relay| relay.enabled);
            let relay = relay.map(|relay| &relay.url);
            let expires_at = record.expires_at.map(crate::Unix::as_secs);
            let view = PairedView {
                device_id: record.id,
                device_id_camel: record.id,
                device_token: grant.token.expose(),
                device_token_camel: grant.token.expose(),
                role: record.role,
                host_name: host,
                host_name_camel: host,
                daemon_id: &self.daemon_id,
                daemon_id_camel: &self.daemon_id,
                relay_url: relay,
                relay_url_camel: relay,
                expires_at,
                expires_at_camel: expires_at,
                confirm: grant.confirm.as_deref(),
            };
            cx.peers.answer(call, &view, cx.fx);
            cx.fx.push(Effect::Resume { conn });
            self.greet(cx, conn);
        }
        cx.tell(entries);
        self.progress(cx, "paired", &record.name);
    }
}

enum Credential {
    Pin(token::Secret),
    Ticket { pairing_id: String, ticket: token::Secret },
}

/// How the device wants to be called.
struct Wanted {
    name: String,
    platform: String,
}

fn read_pair(cx: &Ctx<'_>, params: &Params<'_>) -> Result<(Credential, Wanted), RpcError> {
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
    Ok((credential, read_wanted(cx, params)?))
}

fn read_start(_: &Ctx<'_>, params: &Params<'_>) -> Result<Message, RpcError> {
    let message = params.need_text("message")?;
    let must = "must be the first message of SPAKE2, in base64url";
    Message::of_device(&message).map_err(|_| RpcError::bad_params("message", must))
}

fn read_finish(cx: &Ctx<'_>, params: &Params<'_>) -> Result<(String, String, Wanted), RpcError> {
    let run_id = params.need_text("pairingId")?;
    Ok((run_id, params.need_text("confirm")?, read_wanted(cx, params)?))
}

fn read_wanted(cx: &Ctx<'_>, params: &Params<'_>) -> Result<Wanted, RpcError> {
    let name = checked_name(cx, "name", params.need_text("name")?)?;
    let platform = params.text("platform")?.unwrap_or_else(|| String::from("unknown"));
    Ok(Wanted { name, platform: checked_name(cx, "platform", platform)? })
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

fn refusal() -> RpcError {
    RpcError::new(-32021, "pairing_refused", "pairing refused")
        .hint("open a new window on the host with `clawd pair` and try again")
}

fn refused(id: &str) -> String {
    rpc::error_text(id, &refusal())
}
