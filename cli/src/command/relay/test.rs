//! `relay test`: the way to the relay and through it back to ourselves, step by step.
//!
//! Owns the steps; refuses to know how a daemon holds its registration. What comes back must have our own key, so that a
//! relay that lies is found out here as it is by every device (security G1).

use std::io;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use clawd_protocol::relay::RelayUrl;
use clawd_protocol::relay::control::{FromRelay, Refusal};
use clawd_protocol::relay::pin;
use clawd_protocol::text::visible_line;
use clawd_protocol::{Dial, DialFault, Fingerprint, Purpose};
use clawd_runtime_mio::dial::{Dialled, dial};
use clawd_runtime_mio::tls::{Trusted, client_config, server_name};
use clawd_runtime_mio::tunnel::Tunnel;
use rustls::ClientConnection;
use serde_json::{Value, json};

use super::{line, look};
use crate::command::typed;
use crate::exit::{Exit, Failure, without_os_error};
use crate::home::Home;
use crate::render::Screen;
use crate::render::style::Mark;
use crate::wire::{Relay, Status};

/// A relay that works answers long before.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// A daemon has ten seconds to come to whom the relay announces.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(12);

/// What is found out on the way, in order.
const NAME: &str = "its name has an address";
const ANSWERS: &str = "it answers";
const TLS: &str = "it speaks TLS 1.3, and its certificate is vouched for";
const PINNED: &str = "its key is the pinned one";
const SPEAKS: &str = "it takes connections as a relay does";
const REGISTERED: &str = "this daemon is registered there";
const THROUGH: &str = "the way through it leads back to this daemon's key";

/// What this process trusts is by its own environment.
const OTHER_ROOTS: &str =
    "the daemon itself is connected: set SSL_CERT_FILE here as it was where clawd was started";

/// The steps so far, each said as soon as it is known.
struct Steps<'a> {
    screen: &'a Screen,
    done: Vec<Value>,
    is_well: bool,
}

impl Steps<'_> {
    fn take(&mut self, name: &str, result: Result<String, String>) {
        let is_ok = result.is_ok();
        let (Ok(detail) | Err(detail)) = result;
        let detail = visible_line(&without_os_error(detail)).into_owned();
        self.done.push(json!({"name": name, "ok": is_ok, "detail": detail}));
        self.is_well &= is_ok;
        if !self.screen.is_json() {
            let mark = if is_ok { Mark::Ok } else { Mark::Fail };
            let detail = if detail.is_empty() { detail } else { format!(": {detail}") };
            self.screen.note(mark, &format!("{name}{detail}"));
        }
    }
}

/// `relay test`.
pub(super) fn test(home: &Home, screen: &Screen) -> Result<Exit, Failure> {
    let mut daemon = home.connect()?;
    let status: Status = typed(&daemon.call("daemon.status", json!({}))?)?;
    let relay = look(&mut daemon)?.1.filter(|relay| relay.enabled).ok_or_else(|| {
        Failure::new(Exit::Failure, "relay_off", "no relay is used")
            .hint("let this machine be found at one: `clawd relay enable`")
    })?;
    let internal =
        || Failure::new(Exit::Failure, "internal", "the daemon's answer is not understood");
    let url: RelayUrl = relay.url.parse().map_err(|_| internal())?;
    let key: Fingerprint = status.daemon_id.parse().map_err(|_| internal())?;
    let pinned = relay.pin.as_deref().map(pin::parse).transpose().map_err(|_| internal())?;
    let mut steps = Steps { screen, done: Vec::new(), is_well: true };
    walk(&mut steps, &url, pinned, &relay, key);
    if screen.is_json() {
        screen.json(&json!({"ok": steps.is_well, "url": relay.url, "steps": steps.done}))?;
    } else if !steps.is_well {
        let of_daemon = relay.error.as_ref().and_then(|error| error.hint.as_deref());
        let is_untrusted_here = steps.done.last().is_some_and(|step| step["name"] == TLS);
        let of_us = (is_untrusted_here && relay.state == "registered").then_some(OTHER_ROOTS);
        if let Some(hint) = of_daemon.or(of_us) {
            screen.say(&format!("  hint: {}", visible_line(hint)));
        }
    }
    Ok(if steps.is_well { Exit::Ok } else { Exit::Failure })
}

/// As far as there is a way.
fn walk(
    steps: &mut Steps<'_>,
    url: &RelayUrl,
    pinned: Option<Fingerprint>,
    relay: &Relay,
    key: Fingerprint,
) {
    let dialled = dial(&Dial {
        relay: url.clone(),
        target: url.connect_target(&key),
        pin: pinned,
        purpose: Purpose::Control,
        timeout: DIAL_TIMEOUT,
    });
    let fault = dialled.as_ref().err().map(fault);
    for name in names(url.is_secure(), pinned.is_some()) {
        match &fault {
            Some((at, why)) if *at == name => return steps.take(name, Err((*why).clone())),
            Some(_) | None => steps.take(name, Ok(String::new())),
        }
    }
    let is_registered = relay.state == "registered";
    let said = line(relay, steps.screen.err);
    steps.take(REGISTERED, if is_registered { Ok(String::new()) } else { Err(said) });
    if let (true, Ok(dialled)) = (is_registered, dialled) {
        let began = Instant::now();
        let through = through(dialled, key);
        steps.take(THROUGH, through.map(|()| format!("{} ms", began.elapsed().as_millis())));
    }
}

/// The steps that a dial is made of.
fn names(is_secure: bool, is_pinned: bool) -> impl Iterator<Item = &'static str> {
    [
        (NAME, true),
        (ANSWERS, true),
        (TLS, is_secure),
        (PINNED, is_secure && is_pinned),
        (SPEAKS, true),
    ]
    .into_iter()
    .filter_map(|(name, is_one)| is_one.then_some(name))
}

/// The step at which a dial failed, and why.
fn fault(fault: &DialFault) -> (&'static str, String) {
    match fault {
        DialFault::Unresolved => (NAME, "there is none".to_owned()),
        DialFault::Unreachable(why) => (ANSWERS, why.clone()),
        DialFault::TimedOut => (ANSWERS, "not in time".to_owned()),
        DialFault::Busy => (ANSWERS, "there is no room for one more connection".to_owned()),
        DialFault::TooOld => (TLS, "it has nothing newer than TLS 1.2".to_owned()),
        DialFault::NotYetValid => {
            (TLS, "by this machine's clock, its certificate is not valid yet".to_owned())
        }
        DialFault::Expired => {
            (TLS, "by this machine's clock, its certificate has expired".to_owned())
        }
        DialFault::Tls(why) => (TLS, why.clone()),
        DialFault::WrongPin => (PINNED, "it has another".to_owned()),
        DialFault::Redirected => (SPEAKS, "it wants us to go elsewhere".to_owned()),
        DialFault::Rejected(status) => (SPEAKS, format!("it answers with status {status}")),
        DialFault::NotWebSocket => (SPEAKS, "what it says is no WebSocket".to_owned()),
    }
}

/// As a device comes: announced by the relay, then TLS to the daemon's key, over which nothing is said.
fn through(dialled: Dialled, key: Fingerprint) -> Result<(), String> {
    let said = |error: io::Error| {
        let is_late = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
        if is_late { "no answer in time".to_owned() } else { error.to_string() }
    };
    let tcp: &TcpStream = dialled.link.get_ref();
    tcp.set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(said)?;
    tcp.set_write_timeout(Some(ANSWER_TIMEOUT)).map_err(said)?;
    let mut tunnel = Tunnel::new(dialled.link, dialled.tail);
    let text = tunnel.read_text().map_err(said)?;
    match serde_json::from_str(&text) {
        Ok(FromRelay::Connected) => {}
        Ok(FromRelay::Error { code: Refusal::Offline, .. }) => {
            return Err("the relay does not know this daemon".to_owned());
        }
        Ok(FromRelay::Error { code, .. }) => return Err(format!("the relay says: {code}")),
        Ok(_) | Err(_) => return Err("what it says is not what a relay says".to_owned()),
    }
    let config = client_config(Trusted::Key(key), None).map_err(|error| error.to_string())?;
    let mut tls =
        ClientConnection::new(config, server_name()).map_err(|error| error.to_string())?;
    while tls.is_handshaking() {
        tls.complete_io(&mut tunnel).map_err(said)?;
    }
    tls.send_close_notify();
    let _ = tls.complete_io(&mut tunnel);
    let _ = tunnel.close();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dial_fails_at_one_of_its_own_steps() {
        let faults = [
            DialFault::Unresolved,
            DialFault::Unreachable(String::new()),
            DialFault::TimedOut,
            DialFault::Busy,
            DialFault::TooOld,
            DialFault::NotYetValid,
            DialFault::Expired,
            DialFault::Tls(String::new()),
            DialFault::WrongPin,
            DialFault::Redirected,
            DialFault::Rejected(404),
            DialFault::NotWebSocket,
        ];
        let steps: Vec<&str> = names(true, true).collect();
        for one in faults {
            assert!(steps.contains(&fault(&one).0), "{one:?}");
        }
        assert_eq!(names(false, false).count(), 3);
        assert_eq!(names(true, false).count(), 4);
    }
}
