//! Going the ways to a daemon until one leads there.
//!
//! Owns who is trusted on the way and what is said when all fail; refuses to know what is done with the connection.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clawd_protocol::Fingerprint;
use clawd_protocol::client::Bookmark;
use clawd_protocol::relay::control::Refusal;
use clawd_protocol::text::visible_line;
use clawd_runtime_mio::tls::{Identity, Trusted};
use serde_json::json;

use super::path::{DirectUrl, Way};
use super::race::{HEAD_START, Race};
use super::{Remote, Remotes};
use crate::connection::{Connection, Fault, Secure};
use crate::exit::{Exit, Failure};

/// More addresses than that no machine has that anybody pairs with.
const URLS_MAX: usize = 16;
/// Nobody waits longer for a comfort.
const ADDRESSES_TIMEOUT: Duration = Duration::from_secs(2);

/// Another daemon, with all that is needed to go there.
#[derive(Debug)]
pub(crate) struct Away {
    remotes: Remotes,
    pub(crate) remote: Remote,
    own: Arc<Identity>,
}

impl Away {
    /// The remote of that name.
    pub(crate) fn to(data_dir: &Path, name: &str) -> Result<Self, Failure> {
        let remotes = Remotes::of(data_dir);
        let remote = remotes.find(name)?;
        let own = Arc::new(remotes.identity()?);
        Ok(Self { remotes, remote, own })
    }

    /// One that need not be known by its name any more.
    pub(crate) fn of(remotes: &Remotes, remote: Remote, own: &Arc<Identity>) -> Self {
        Self { remotes: remotes.clone(), remote, own: Arc::clone(own) }
    }

    /// Has the daemon forget this device; whether it knows it no more.
    pub(crate) fn leave(&self) -> bool {
        let id = json!({"id": self.remote.device_id});
        let told = self.connect(None).and_then(|mut daemon| daemon.call("device.revoke", id));
        match told {
            Ok(_) => true,
            // It closes the connection of a device that it has shut out, and may be quicker than its answer.
            Err(failure) => matches!(&*failure.kind, "unauthorized" | "closed"),
        }
    }

    /// A connection, by the first way that leads there.
    pub(crate) fn connect(&self, from: Option<&Bookmark>) -> Result<Connection, Failure> {
        // As it is known now: another command, or an earlier connection of this one, may have learnt more.
        let known = self.remotes.find(&self.remote.name).ok();
        let known = known.filter(|it| it.is_same_pairing(&self.remote));
        self.connect_by(known.as_ref().unwrap_or(&self.remote).ways(), from)
    }

    /// A connection, if it is there; from now on this address is tried first.
    pub(crate) fn connect_at(&self, url: &DirectUrl) -> Result<Connection, Failure> {
        let daemon = self.connect_by(vec![Way::Direct(url.clone())], None)?;
        self.remotes.prefer(&self.remote, url)?;
        Ok(daemon)
    }

    fn connect_by(&self, ways: Vec<Way>, from: Option<&Bookmark>) -> Result<Connection, Failure> {
        let mut failed = Vec::new();
        for (way, opened) in race(ways, Trusted::Key(self.remote.daemon_id), &self.own) {
            let fault = match opened {
                Err(fault) => fault,
                Ok(secure) => {
                    match Connection::over_tls(secure, self.remote.token.clone(), from.cloned()) {
                        Ok(mut daemon) => {
                            self.remember(&way, &mut daemon);
                            daemon.way = Some(way.to_string());
                            return Ok(daemon);
                        }
                        Err(failure) if failure.exit == Exit::NotRunning => {
                            Fault::Unreachable(failure.message)
                        }
                        Err(failure) => return Err(self.refused(failure)),
                    }
                }
            };
            failed.push((way, fault));
        }
        Err(unreachable(&self.remote.name, Known::Remote(self.remote.daemon_id), &failed))
    }

    /// What works is tried first the next time; who came through the relay asks for a shorter way. That is a comfort: failing
    /// at it is no failure.
    fn remember(&self, way: &Way, daemon: &mut Connection) {
        if let Some(relay) = daemon.welcome.relay_url.as_deref().and_then(|url| url.parse().ok()) {
            let _ = self.remotes.learn_relay(&self.remote, &relay);
        }
        let _ = match way {
            Way::Direct(url) => self.remotes.prefer(&self.remote, url),
            Way::Relay(_) => self.ask_for_urls(daemon),
        };
    }

    fn ask_for_urls(&self, daemon: &mut Connection) -> Result<(), Failure> {
        let said = daemon.call_within(ADDRESSES_TIMEOUT, "daemon.addresses", json!({}))?;
        let urls = said["urls"].as_array().into_iter().flatten();
        // A daemon has addresses; names would be looked up, and who knows what answers on this machine.
        let urls =
            urls.filter_map(|url| url.as_str()?.parse().ok()).filter(DirectUrl::is_elsewhere);
        let urls: Vec<DirectUrl> = urls.take(URLS_MAX).collect();
        self.remotes.learn_urls(&self.remote, &urls)
    }

    fn refused(&self, failure: Failure) -> Failure {
        if failure.kind != "unauthorized" {
            return failure;
        }
        let name = &self.remote.name;
        let mut refused =
            Failure::new(failure.exit, &failure.kind, format!("{name} no longer knows this device"))
                .hint("it was revoked or its time is over; open a window there with `clawd pair`, then `clawd remote pair` here");
        refused.rpc_code = failure.rpc_code;
        refused
    }
}

/// By the first way that leads to the trusted key; to whom, if all fail, is `name`.
pub(crate) fn first(
    ways: Vec<Way>,
    trusted: Trusted,
    own: &Arc<Identity>,
    name: &str,
) -> Result<(Secure, Way), Failure> {
    let mut failed = Vec::new();
    for (way, opened) in race(ways, trusted, own) {
        match opened {
            Ok(secure) => return Ok((secure, way)),
            Err(fault) => failed.push((way, fault)),
        }
    }
    Err(unreachable(name, Known::Stranger, &failed))
}

fn race(ways: Vec<Way>, trusted: Trusted, own: &Arc<Identity>) -> Race<Way, Result<Secure, Fault>> {
    let own = Arc::clone(own);
    Race::new(ways, HEAD_START, Result::is_err, move |way| Secure::open(way, trusted, &own))
}

/// Whether it was reached before.
#[derive(Debug, Clone, Copy)]
enum Known {
    Remote(Fingerprint),
    Stranger,
}

/// No way leads there: each of them, and why.
fn unreachable(name: &str, known: Known, failed: &[(Way, Fault)]) -> Failure {
    let name = visible_line(name);
    let is = |wanted: fn(&Fault) -> bool| failed.iter().any(|(_, fault)| wanted(fault));
    let tried: Vec<String> = failed
        .iter()
        .map(|(way, fault)| format!("\n    {way}: {}", visible_line(&fault.to_string())))
        .collect();
    let of = |kind: &str, what: String, hint: String| {
        let message = format!("{what}{}", tried.concat());
        Failure::new(Exit::NotRunning, kind, message).hint(hint)
    };
    if is(|fault| matches!(fault, Fault::WrongKey(_))) {
        let (what, hint) = match known {
            Known::Remote(wanted) => (
                format!("cannot reach {name}, whose key is {wanted}; nothing was said to others"),
                format!(
                    "another machine has its address, or its identity was reset (compare with `clawd identity show` there); \
                     if so, `clawd remote remove {name}` and pair again"
                ),
            ),
            Known::Stranger => (
                format!("cannot reach {name}; nothing was said to others"),
                "another machine has its address: are both in the same network?".to_owned(),
            ),
        };
        return of("wrong_key", what, hint);
    }
    let hint = if failed.is_empty() {
        format!("no address of it is known: `clawd remote remove {name}` and pair again")
    } else if is(|fault| matches!(fault, Fault::Relay(Refusal::Offline))) {
        "is it on, and does clawd run there? `clawd relay status` there says more".to_owned()
    } else if is(|fault| *fault == Fault::TooOld) {
        "update what answers there".to_owned()
    } else {
        format!(
            "is it on, and in the same network? If it has another address now: `clawd remote move {name} ADDRESS`; \
             elsewhere it needs a relay: `clawd relay enable` there"
        )
    };
    of("unreachable", format!("cannot reach {name}"), hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(faults: &[Fault]) -> Failure {
        let ways = ["wss://192.168.1.2:4300", "wss://10.0.0.2:4300"];
        let mut failed: Vec<(Way, Fault)> = ways
            .iter()
            .zip(faults)
            .map(|(url, fault)| (Way::Direct(url.parse().unwrap()), fault.clone()))
            .collect();
        if let Some(fault) = faults.get(2) {
            let relay = Way::Relay("wss://relay.example.org".parse().unwrap());
            failed.push((relay, fault.clone()));
        }
        unreachable("desk", Known::Remote(Fingerprint::of(b"desk")), &failed)
    }

    #[test]
    fn each_way_that_failed_is_named_with_its_reason() {
        let failure = failure(&[
            Fault::Unreachable("nobody answers there".to_owned()),
            Fault::Unreachable("\u{1b}[2Jhi".to_owned()),
            Fault::Relay(Refusal::Offline),
        ]);
        assert_eq!((failure.exit, &*failure.kind), (Exit::NotRunning, "unreachable"));
        for part in [
            "cannot reach desk",
            "wss://192.168.1.2:4300: nobody answers there",
            "the relay wss://relay.example.org: it is not connected to the relay",
        ] {
            assert!(failure.message.contains(part), "{part}: {}", failure.message);
        }
        assert!(!failure.message.contains('\u{1b}'));
        assert!(failure.hint.unwrap().contains("is it on"));
    }

    #[test]
    fn another_key_is_told_of_whatever_else_failed() {
        let other = Fingerprint::of(b"other");
        let failure =
            failure(&[Fault::WrongKey(other), Fault::TooOld, Fault::Relay(Refusal::Busy)]);
        assert_eq!(failure.kind, "wrong_key");
        assert!(failure.message.contains(&other.to_string()), "{}", failure.message);
        assert!(failure.message.contains(&Fingerprint::of(b"desk").to_string()));
    }
}
