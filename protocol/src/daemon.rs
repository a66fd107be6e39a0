//! The daemon: one value, two functions. Dispatch only.
//!
//! Owns the order in which an input is handled: time first, then due timers, then the input. Refuses to know what any
//! of it means; the rooms do.

use alloc::string::String;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::access::Access;
use crate::access::account::empty;
use crate::access::ctx::Ctx;
use crate::access::doorstep::Gauges;
use crate::access::peers::{Call, Caller, Peers, Phase, Secured, Who, close};
use crate::access::witness::of_caller;
use crate::contract::config::Config;
use crate::contract::effect::{Effect, Effects, Sync};
use crate::contract::id::ConnId;
use crate::contract::input::Input;
use crate::contract::note::Note;
use crate::contract::record::{AuditKind, AuditRecord};
use crate::contract::snapshot::Snapshot;
use crate::contract::time::{Instant, Now};
use crate::engine::{Engine, Timer};
use crate::link::Link;
use crate::link::view::LinkView;
use crate::wire::method::{self, Method};
use crate::wire::params::Params;
use crate::wire::rpc::{self, Envelope, Invalid, Request, RpcError, RpcId};
use crate::work::Work;

/// Longest that the daemon waits for its agents and its store when it is told to end.
const SHUTDOWN_TIMEOUT: core::time::Duration = core::time::Duration::from_secs(6);

/// The daemon: everything between bytes and hands, as one value. See the [crate's documentation](crate) for the
/// contract with its runtime.
#[derive(Debug)]
pub struct Daemon {
    engine: Engine,
    peers: Peers,
    rooms: Rooms,
}

/// Whom an input may be for, and whether they are still open.
#[derive(Debug)]
struct Rooms {
    access: Access,
    work: Work,
    link: Link,
    life: Life,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Running,
    /// Waits for agents to exit and for the store.
    Ending,
    Stopped,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusView<'a> {
    version: &'a str,
    daemon_id: &'a str,
    uptime: u64,
    uptime_secs: u64,
    active_sessions: usize,
    total_sessions: usize,
    port: u16,
    pid: u32,
    host_name: &'a str,
    pending_approvals: usize,
    devices: usize,
    connections: usize,
    relay: Option<LinkView>,
    providers: &'a RawValue,
}

impl Daemon {
    /// Makes a daemon. `entropy` comes from the operating system in production; it is an argument so that a run can be
    /// repeated. `restored` is what the store knew.
    #[must_use]
    pub fn new(config: Config, entropy: [u8; 32], mut restored: Snapshot) -> Self {
        let engine = Engine::new(config, entropy, &mut restored);
        let link = Link::new(&restored);
        let limits = &engine.config.limits;
        let work = Work::new(&mut restored);
        let access = Access::new(&mut restored, limits);
        let peers = Peers::new(limits.queue_bytes_max);
        Self { engine, peers, rooms: Rooms { access, work, link, life: Life::Running } }
    }

    /// Advances the machine by one input and pushes what is to be done. Total: it never blocks, never fails, and never
    /// panics on a peer's bytes.
    pub fn handle(&mut self, now: Now, input: Input<'_>, effects: &mut Effects) {
        if self.rooms.life == Life::Stopped {
            return;
        }
        self.engine.advance(now);
        let Self { engine, peers, rooms } = self;
        let mut cx = Ctx { engine, peers, fx: effects };
        // Before the input is looked at, so that an extra `Tick` changes nothing.
        while let Some(timer) = cx.engine.timers.expire(cx.engine.now.mono) {
            on_timer(&mut cx, rooms, timer);
        }
        on_input(&mut cx, rooms, input);
        for device in cx.peers.take_distrusted() {
            rooms.work.on_distrusted(&mut cx, device);
        }
        for conn in cx.peers.take_caught_up() {
            rooms.work.on_caught_up(&mut cx, conn);
        }
        if let Some(record) = rooms.access.take_reset() {
            shut_down(&mut cx, rooms, record);
        }
        let Rooms { access, work, link, life } = rooms;
        if *life == Life::Ending && work.is_idle() && access.is_idle() && link.is_idle() {
            stop(&mut cx, life);
        }
    }

    /// When [`Self::handle`] must be called again even if nothing happens.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.engine.timers.next()
    }
}

fn on_input(cx: &mut Ctx<'_>, rooms: &mut Rooms, input: Input<'_>) {
    let Rooms { access, work, link, life } = rooms;
    match input {
        Input::Started { port } => {
            cx.engine.port = port;
            cx.engine.started = cx.engine.now;
            let record = AuditRecord::new(cx.engine.now.unix, AuditKind::Started, "daemon");
            access.note(cx, record, Sync::Disk);
            cx.note(Note::Started { port });
            cx.open_journal();
            work.on_started(cx);
            link.start(cx);
        }
        Input::Opened { conn, source } => {
            access.on_opened(cx, conn, source);
            if *life != Life::Running {
                cx.peers.close(conn, close::GOING_AWAY, "shutting down", cx.fx);
            }
            Link::on_opened(cx, conn, source);
        }
        Input::Secured { conn, key, local } => {
            access.on_secured(cx, conn, Secured { key, local });
        }
        Input::Requested { conn, head } => {
            let gauges = Gauges {
                active_sessions: work.active(),
                total_sessions: work.total(),
                pending_approvals: work.pending_approvals(),
                agents: work.agents(),
            };
            access.on_requested(cx, conn, head, gauges);
        }
        Input::Began { conn } => access.on_began(cx, conn),
        Input::Text { conn, text } => {
            cx.peers.listen_to(Some(conn));
            on_text(cx, rooms, conn, text);
            cx.peers.listen_to(None);
        }
        Input::Broke { conn, fault } => access.on_broke(cx, conn, fault),
        Input::Flushed { conn, bytes } => cx.on_flushed(conn, bytes),
        Input::Closed { conn } => {
            access.forget_timers(cx, conn);
            cx.engine.timers.disarm(Timer::Lag(conn));
            access.on_closed(cx, conn);
            cx.peers.remove(conn);
        }
        Input::Stored { op, result } => {
            if let Err(fault) = &result {
                cx.note_store_failed(fault);
            }
            if !access.on_stored(cx, op, &result) && !link.on_stored(cx, op, &result) {
                work.on_stored(cx, op, result);
            }
        }
        Input::Answered { ask, answer } => {
            let answer = cx.on_answered(ask, answer);
            let answer = answer.and_then(|answer| access.on_answered(cx, ask, answer));
            let answer = answer.and_then(|answer| link.on_answered(cx, ask, answer));
            if let Some(answer) = answer {
                work.on_answered(cx, ask, answer);
            }
        }
        Input::Spawned { proc, result } => work.on_spawned(cx, proc, result),
        Input::Fed { proc, bytes } => work.on_fed(cx, proc, bytes),
        Input::Output { proc, stream, bytes } => work.on_output(cx, proc, stream, bytes),
        Input::Exited { proc, code } => work.on_exited(cx, proc, code),
        Input::Dialed { leg, result } => link.on_dialed(cx, leg, result),
        Input::Heard { leg, text } => link.on_heard(cx, leg, text),
        Input::HungUp { leg } => link.on_hung_up(cx, leg),
        Input::Tick => {}
        Input::Shutdown => {
            let record = AuditRecord::new(cx.engine.now.unix, AuditKind::Stopped, "daemon");
            shut_down(cx, rooms, record);
        }
    }
}

fn on_timer(cx: &mut Ctx<'_>, rooms: &mut Rooms, timer: Timer) {
    let Rooms { access, work, link, life } = rooms;
    match timer {
        Timer::Stranger(conn) => access.on_stranger_late(cx, conn),
        Timer::Penalty(conn) => access.on_penalty_over(cx, conn),
        Timer::Message(conn) => access.on_message_late(cx, conn),
        Timer::Expiry => access.on_expiry_due(cx),
        Timer::Pairing => access.on_pairing_late(cx),
        Timer::PairingConfirm => access.on_confirm_late(cx),
        Timer::OldToken => access.on_old_token_late(cx),
        Timer::Witness => access.on_witness_due(cx),
        Timer::Stream(id) => work.on_stream_due(cx, id),
        Timer::Announce(id, tool) => work.on_announce_due(cx, id, tool),
        Timer::Approval(id, tool) => work.on_approval_late(cx, id, tool),
        Timer::Interrupt(id) => work.on_interrupt_late(cx, id),
        Timer::AgentIdle(id) => work.on_agent_idle(cx, id),
        Timer::AgentExit(proc) => work.on_exit_late(cx, proc),
        Timer::Ask(ask) => {
            if !cx.on_ask_late(ask) && !access.on_ask_late(cx, ask) {
                work.on_ask_late(cx, ask);
            }
        }
        Timer::Lag(conn) => cx.on_lag_late(conn),
        Timer::Prune => cx.prune(),
        Timer::Link => link.on_due(cx),
        Timer::Shutdown => stop(cx, life),
    }
}

// --- messages ---------------------------------------------------------------------------------------------------

fn on_text(cx: &mut Ctx<'_>, rooms: &mut Rooms, conn: ConnId, text: &str) {
    let access = &mut rooms.access;
    let Some(peer) = cx.peers.peer(conn) else { return };
    let caller = match peer.phase {
        Phase::Known(caller) => caller,
        Phase::Stranger => return access.on_stranger_text(cx, conn, text),
        Phase::Head | Phase::Waiting | Phase::Closing => return,
    };
    cx.engine.timers.disarm(Timer::Message(conn));
    if let Who::Device(id) = caller.who {
        access.touch(cx, conn, id);
    }
    let limits = &cx.engine.config.limits;
    match rpc::read(text, limits.json_depth_max, limits.batch_max) {
        Ok(Envelope::One(request)) => {
            on_request(cx, rooms, conn, caller, None, request);
        }
        Ok(Envelope::Batch(requests)) => {
            let batch = cx.peers.batch(conn, requests.len());
            for request in requests {
                // A request before it may have changed who the caller is, or whether it still is anybody.
                let Some(caller) = cx.peers.caller(conn) else { return };
                on_request(cx, rooms, conn, caller, Some(batch), request);
            }
        }
        Err(error) => cx.peers.send(conn, rpc::error(None, &error), cx.fx),
    }
}

fn on_request(
    cx: &mut Ctx<'_>,
    rooms: &mut Rooms,
    conn: ConnId,
    caller: Caller,
    batch: Option<u64>,
    request: Result<Request<'_>, Invalid<'_>>,
) {
    let request = match request {
        Ok(request) => request,
        Err(Invalid { id, error }) => {
            let text = rpc::error_text(id.unwrap_or("null"), &error);
            return match batch {
                Some(batch) => cx.peers.settle_in_batch(conn, batch, Some(text), cx.fx),
                None => cx.peers.send(conn, text, cx.fx),
            };
        }
    };
    let method = Method::from_name(&request.method);
    // The commonest call by far, and it waits for nothing.
    if let (Some(Method::Ping), None, Some(id)) = (method, batch, request.id) {
        let text = rooms.access.ping_text(cx, conn, id, &request);
        return cx.peers.send(conn, text, cx.fx);
    }
    let id = request.id.map(RpcId::new);
    let limits = &cx.engine.config.limits;
    let Some(call) = cx.peers.accept(conn, id, batch, limits, cx.fx) else { return };
    let Some(method) = method else { return cx.refuse(call, &RpcError::unknown_method()) };
    if rooms.life != Life::Running {
        let error = RpcError::new(-32603, "shutting_down", "the daemon is shutting down");
        return cx.refuse(call, &error.hint("start it again with `clawd up`"));
    }
    if let Err(error) = allow(cx, method, caller, conn) {
        return cx.refuse(call, &error);
    }
    let call = match method.access() {
        method::Access::From(role) => call.needing(role),
        method::Access::Anybody | method::Access::Device | method::Access::SelfOr(_) => call,
    };
    on_call(cx, rooms, call, caller, method, &request);
}

/// The one gate for calls: the table of methods, the caller's role, and the burst of costly calls (security B8, C6).
fn allow(cx: &mut Ctx<'_>, method: Method, caller: Caller, conn: ConnId) -> Result<(), RpcError> {
    let is_device = matches!(caller.who, Who::Device(_));
    match method.access() {
        method::Access::Anybody => {}
        method::Access::From(role) if caller.role >= role => {}
        method::Access::Device | method::Access::SelfOr(_) if is_device => {}
        method::Access::SelfOr(role) if caller.role >= role => {}
        method::Access::From(role) | method::Access::SelfOr(role) => {
            return Err(RpcError::role(role.as_str()));
        }
        method::Access::Device => return Err(RpcError::role("device")),
    }
    if method.is_costly() {
        let limits = &cx.engine.config.limits;
        cx.peers.pay(conn, cx.engine.now.mono, limits).map_err(|after| {
            RpcError::new(-32029, "rate_limited", "too many costly calls")
                .hint("wait a little")
                .retry_after(after)
        })?;
    }
    Ok(())
}

fn on_call(
    cx: &mut Ctx<'_>,
    rooms: &mut Rooms,
    call: Call,
    caller: Caller,
    method: Method,
    request: &Request<'_>,
) {
    let params = match Params::read(request.params) {
        Ok(params) => params,
        Err(error) => return cx.refuse(call, &error),
    };
    let params = &params;
    let Rooms { access, work, link, .. } = rooms;
    match method {
        Method::Ping => {
            let pong = access.ping(cx, call.conn, request);
            cx.answer(call, &pong);
        }
        Method::Auth => access.on_auth_again(cx, call, caller, request),
        Method::Pair | Method::PairStart | Method::PairFinish => cx.refuse(
            call,
            &RpcError::new(-32600, "already_authenticated", "this connection is somebody already")
                .hint("pair on a connection of its own"),
        ),
        Method::Status => on_status(cx, rooms, call),
        Method::Providers => work.on_providers(cx, call),
        Method::CheckProvider => work.on_check_provider(cx, call, params),
        Method::Addresses => access.on_addresses(cx, call),
        Method::SetName => access.on_set_name(cx, call, params),
        Method::PairPin => access.on_pair_pin(cx, call, caller, params),
        Method::PairCancel => access.on_pair_cancel(cx, call, params),
        Method::PairConfirm => access.on_pair_confirm(cx, call, caller, params),
        Method::RotateToken => access.on_rotate_local(cx, call, caller, params),
        Method::SetRelay => link.on_set_relay(cx, call, caller, params),
        Method::ResetIdentity => access.on_reset_identity(cx, call, caller),
        Method::Shutdown => {
            let record = of_caller(cx, AuditKind::Stopped, caller, call.conn);
            cx.answer(call, &empty());
            shut_down(cx, rooms, record);
        }
        Method::DeviceList => access.on_device_list(cx, call, caller, params),
        Method::DeviceRevoke => access.on_device_revoke(cx, call, caller, params),
        Method::DeviceRename => access.on_device_rename(cx, call, caller, params),
        Method::DeviceRotate => access.on_device_rotate(cx, call, caller),
        Method::DeviceSetRole => access.on_device_set_role(cx, call, caller, params),
        Method::SessionCreate => work.on_create(cx, call, params),
        Method::SessionList => work.on_list(cx, call),
        Method::SessionGet => work.on_session_get(cx, call, params),
        Method::SessionRename => work.on_rename(cx, call, params),
        Method::SessionDelete => work.on_delete(cx, call, params),
        Method::SendMessage => work.on_send(cx, call, params),
        Method::Messages => work.on_messages(cx, call, params),
        Method::SessionPause => work.on_pause(cx, call, params),
        Method::SessionResume => work.on_resume(cx, call, params),
        Method::SessionCancel => work.on_cancel(cx, call, params),
        Method::SetModel => work.on_set_model(cx, call, params),
        Method::ToolCalls => work.on_tool_calls(cx, call, params),
        Method::AuditList => work.on_audit_list(cx, call, params),
        Method::ToolCallAudit => work.on_tool_call_audit(cx, call, params),
        Method::ToolApprove => work.on_approve(cx, call, caller, params),
        Method::ToolReject => work.on_reject(cx, call, caller, params),
        Method::Approvals => work.on_approvals(cx, call),
        Method::Respond => work.on_respond(cx, call, caller, params),
        Method::PolicyTest => work.on_policy_test(cx, call, params),
        Method::Subscribe => access.on_subscribe(cx, call, params),
    }
}

fn on_status(cx: &mut Ctx<'_>, rooms: &Rooms, call: Call) {
    let Rooms { access, work, link, .. } = rooms;
    let uptime = cx.engine.now.mono.since(cx.engine.started.mono).as_secs();
    let host_name = String::from(access.host_name(cx));
    let view = StatusView {
        version: &cx.engine.config.version,
        daemon_id: access.daemon_id(),
        uptime,
        uptime_secs: uptime,
        active_sessions: work.active(),
        total_sessions: work.total(),
        port: cx.engine.port,
        pid: cx.engine.config.pid,
        host_name: &host_name,
        pending_approvals: work.pending_approvals(),
        devices: access.living_devices(cx),
        connections: cx.peers.known().count(),
        relay: link.view(cx),
        providers: &work.provider_views(),
    };
    cx.peers.answer(call, &view, cx.fx);
}

// --- the end ----------------------------------------------------------------------------------------------------

fn shut_down(cx: &mut Ctx<'_>, rooms: &mut Rooms, record: AuditRecord) {
    let Rooms { access, work, link, life } = rooms;
    if *life == Life::Running {
        *life = Life::Ending;
        access.note(cx, record, Sync::Disk);
        cx.note(Note::Ending);
        work.on_shutdown(cx);
        link.on_shutdown(cx);
        cx.engine.timers.arm(Timer::Shutdown, cx.engine.now.mono + SHUTDOWN_TIMEOUT);
    }
}

fn stop(cx: &mut Ctx<'_>, life: &mut Life) {
    if *life != Life::Stopped {
        *life = Life::Stopped;
        cx.peers.close_all(close::GOING_AWAY, "shutting down", cx.fx);
        cx.fx.push(Effect::Stop);
    }
}
