//! `remote pair`: becoming a device of another daemon, by what its QR code says or by its PIN.
//!
//! Invariants: a ticket goes only to the key that the code names (security G1); by PIN, nothing that the daemon says is
//! believed before it has proved that it knows the PIN and saw the same keys (D6); what it gave is on the disk before
//! anybody is told that it worked.

use std::io::{self, Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use clawd_protocol::Fingerprint;
use clawd_protocol::access::token::Secret;
use clawd_protocol::invitation::Invitation;
use clawd_protocol::pake::{Device, comparison_code};
use clawd_protocol::relay::RelayUrl;
use clawd_protocol::text::visible_line;
use clawd_runtime_mio::tls::{Identity, Trusted};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::typed;
use crate::args::RemotePair as Args;
use crate::connection::Stranger;
use crate::exit::{Exit, Failure};
use crate::remote::path::{DirectUrl, Way, ways};
use crate::remote::store::{checked_name, name_taken, sanitised};
use crate::remote::{Away, Remote, Remotes, reach};
use crate::render::Screen;
use crate::render::style::Mark;
use crate::render::time;

/// Nobody has to be asked for an answer that is there so soon.
const SOON: Duration = Duration::from_millis(300);
/// The person there has a minute, and the network its time.
const LATE: Duration = Duration::from_secs(75);
/// More is neither a payload nor a PIN.
const STDIN_BYTES_MAX: u64 = 4096;
const NAME_CHARS_MAX: usize = 64;

/// What the daemon says once we are one of its devices. Both spellings are on the wire.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Paired {
    device_id: String,
    device_token: String,
    role: String,
    #[serde(default)]
    host_name: String,
    daemon_id: String,
    #[serde(default)]
    relay_url: Option<RelayUrl>,
    #[serde(default)]
    expires_at: Option<u64>,
}

/// Where it is, as far as we were told.
struct Place {
    urls: Vec<DirectUrl>,
    relay: Option<RelayUrl>,
    trusted: Trusted,
    /// For people, until it says its name itself.
    called: String,
}

/// How we are let in.
enum By {
    Ticket(Box<Invitation>),
    Pin,
}

/// `remote pair`.
pub(super) fn pair(remotes: &Remotes, screen: &Screen, args: &Args) -> Result<(), Failure> {
    let name = args.name.as_deref().map(checked_name).transpose()?;
    let (place, by) = place(screen, args)?;
    if let Some(name) = &name {
        check_free(remotes, name, place.trusted)?;
    }
    let own = Arc::new(remotes.identity()?);
    let (secure, way) =
        reach::first(ways(&place.urls, place.relay.as_ref()), place.trusted, &own, &place.called)?;
    let mut daemon = Stranger::new(secure)?;
    let me = json!({"name": device_name(args), "platform": std::env::consts::OS});
    let asker = Asker { screen, own: &own };
    let paired = match &by {
        By::Ticket(invitation) => asker.by_ticket(&mut daemon, invitation, me),
        By::Pin => asker.by_pin(&mut daemon, &pin(args)?, me),
    };
    let paired = paired.map_err(explained)?;
    if paired.daemon_id != daemon.daemon.to_string() {
        return Err(Failure::new(
            Exit::Failure,
            "wrong_daemon",
            "it says that it is another daemon",
        )
        .hint("nothing was kept; look what answers at that address"));
    }
    let remote = remote_of(paired, place, &way, daemon.daemon, name.as_deref());
    let shown = remote.to_json();
    let (urls, relay) = (remote.urls.clone(), remote.relay.clone());
    let role = visible_line(&remote.role).into_owned();
    let host = visible_line(&remote.host_name).into_owned();
    let (kept, before) = remotes.keep(remote, name.is_some())?;
    // The pairing before this one would stay in the owner's list, and nobody could say what it is.
    let before = before.map(|before| Remote { urls, relay, ..before });
    if let Some(before) = before.map(|before| Away::of(remotes, before, &own))
        && !before.leave()
    {
        let id = visible_line(&before.remote.device_id);
        let what = format!("the pairing before this one is still known there as {id}");
        screen.note(Mark::Warn, &format!("{what}; there: `clawd device revoke {id}`"));
    }
    if screen.is_json() {
        let mut shown = shown;
        shown["name"] = kept.into();
        return screen.json(&shown);
    }
    screen.note(Mark::Ok, &format!("paired with \"{host}\" as {kept}, role {role}"));
    screen.say(&screen.err.dim(&format!("clawd -R {kept} status")));
    Ok(())
}

fn place(screen: &Screen, args: &Args) -> Result<(Place, By), Failure> {
    if let Some(payload) = &args.payload {
        let text = if payload == "-" { stdin("the code")? } else { payload.clone() };
        let invitation = Invitation::read(text.trim()).map_err(|error| {
            Failure::usage(error.to_string())
                .hint("paste all of what the QR code says, in single quotes")
        })?;
        // The clocks may differ: only the other one decides.
        if invitation.exp < time::now() {
            let why = "by this machine's clock the code has expired; trying it all the same";
            screen.note(Mark::Warn, why);
        }
        let mut urls: Vec<DirectUrl> = Vec::new();
        for url in invitation.url.iter().chain(&invitation.urls) {
            // What is none of ours is another's: plain addresses are for programs on the same machine.
            if let Ok(url) = url.parse()
                && !urls.contains(&url)
            {
                urls.push(url);
            }
        }
        if urls.is_empty() && invitation.relay.is_none() {
            return Err(Failure::usage("the code names no place that can be reached from elsewhere")
                .hint("there, listen in the network (`clawd help pair`) or use a relay (`clawd relay enable`)"));
        }
        let place = Place {
            urls,
            relay: invitation.relay.clone(),
            trusted: Trusted::Key(invitation.daemon_id),
            called: invitation.host.clone(),
        };
        return Ok((place, By::Ticket(Box::new(invitation))));
    }
    let usage = |what: &str, why: &dyn std::fmt::Display| Failure::usage(format!("{what}: {why}"));
    let id = args.id.as_deref().map(str::parse::<Fingerprint>).transpose();
    let id = id.map_err(|error| usage("--id", &error))?;
    let url = args.url.as_deref().map(str::parse::<DirectUrl>).transpose();
    let url = url.map_err(|error| usage("--url", &error))?;
    let relay = args.relay.as_deref().map(str::parse::<RelayUrl>).transpose();
    let relay = relay.map_err(|error| usage("--relay", &error))?;
    let called = url.as_ref().map_or_else(|| "that daemon".to_owned(), |url| url.host().to_owned());
    let trusted = id.map_or(Trusted::AnyKey, Trusted::Key);
    Ok((Place { urls: url.into_iter().collect(), relay, trusted, called }, By::Pin))
}

/// The name is not another daemon's; said before a code is spent on it.
fn check_free(remotes: &Remotes, name: &str, trusted: Trusted) -> Result<(), Failure> {
    let all = remotes.list()?;
    let holder = all.iter().find(|remote| remote.name == name);
    match holder {
        Some(holder) if trusted != Trusted::Key(holder.daemon_id) => Err(name_taken(name)),
        Some(_) | None => Ok(()),
    }
}

fn remote_of(
    paired: Paired,
    place: Place,
    way: &Way,
    daemon_id: Fingerprint,
    name: Option<&str>,
) -> Remote {
    let mut urls = place.urls;
    if let Way::Direct(url) = way {
        urls.retain(|other| other != url);
        urls.insert(0, url.clone());
    }
    Remote {
        name: name.map_or_else(|| sanitised(&paired.host_name), str::to_owned),
        daemon_id,
        urls,
        relay: paired.relay_url.or(place.relay),
        device_id: paired.device_id,
        token: Secret::new(paired.device_token),
        role: paired.role,
        host_name: paired.host_name,
        paired_at: time::now(),
        expires_at: paired.expires_at,
    }
}

/// The conversation with a daemon that does not know us yet.
struct Asker<'a> {
    screen: &'a Screen,
    own: &'a Identity,
}

impl Asker<'_> {
    fn by_ticket(
        &self,
        daemon: &mut Stranger,
        invitation: &Invitation,
        mut params: Value,
    ) -> Result<Paired, Failure> {
        params["pairingId"] = invitation.pairing_id.as_str().into();
        params["ticket"] = invitation.ticket.as_str().into();
        let code = self.code(daemon, &invitation.pairing_id);
        typed(&daemon.call("device.pair", &params, (SOON, LATE), || self.wait(&code))?)
    }

    fn by_pin(
        &self,
        daemon: &mut Stranger,
        pin: &Secret,
        mut params: Value,
    ) -> Result<Paired, Failure> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Started {
            pairing_id: String,
            message: String,
        }
        let mut entropy = [0; 32];
        getrandom::fill(&mut entropy)
            .map_err(|error| Failure::new(Exit::Failure, "entropy", error.to_string()))?;
        let own = Some(self.own.fingerprint());
        let (device, message) = Device::start(pin.expose(), own, daemon.daemon, entropy);
        let message = json!({"message": message});
        let started = daemon.call("device.pairStart", &message, (LATE, LATE), || {})?;
        let Started { pairing_id, message } = typed(&started)?;
        let (device, confirm) = device.finish(&message).map_err(|_| not_the_one())?;
        let code = self.code(daemon, &pairing_id);
        params["pairingId"] = pairing_id.into();
        params["confirm"] = confirm.into();
        let finished =
            daemon.call("device.pairFinish", &params, (SOON, LATE), || self.wait(&code))?;
        if !finished["confirm"].as_str().is_some_and(|confirm| device.check(confirm)) {
            return Err(not_the_one());
        }
        typed(&finished)
    }

    fn code(&self, daemon: &Stranger, pairing_id: &str) -> String {
        comparison_code(&daemon.daemon, Some(&self.own.fingerprint()), pairing_id)
    }

    /// The person there is being asked.
    fn wait(&self, code: &str) {
        self.screen.say(&format!(
            "code {}: waiting for the other side to say yes; it must show the same code",
            self.screen.err.bold(code)
        ));
    }
}

/// Whoever answers does not know the PIN.
fn not_the_one() -> Failure {
    Failure::new(
        Exit::Failure,
        "not_proved",
        "what answers there has not proved that it knows the PIN; nothing was kept",
    )
    .hint("somebody may be in between: open a new window there with `clawd pair`, and use its QR code's text")
}

/// A refusal, in words for who stands at this end.
fn explained(failure: Failure) -> Failure {
    if failure.rpc_code != Some(-32021) {
        return failure;
    }
    let mut explained = Failure::new(
        Exit::Token,
        &failure.kind,
        "it does not let us in: the code is wrong, expired or used, or somebody there said no",
    )
    .hint("open a new window there with `clawd pair`, and try its code within five minutes");
    explained.rpc_code = failure.rpc_code;
    explained
}

/// The six digits, however they are grouped.
fn pin(args: &Args) -> Result<Secret, Failure> {
    let typed = if args.pin_stdin {
        stdin("the PIN")?
    } else if Screen::can_ask() {
        let _ = write!(io::stderr().lock(), "PIN shown there: ");
        let mut line = String::new();
        io::stdin().read_line(&mut line).map_err(|error| Failure::io("cannot read", &error))?;
        line
    } else {
        return Err(Failure::usage("there is no terminal to ask for the PIN on")
            .hint("give it on stdin, with `--pin-stdin`"));
    };
    let digits: String = typed.chars().filter(|char| !char.is_whitespace()).collect();
    if digits.len() != 6 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Failure::usage("the PIN has six digits").hint("`clawd pair` there shows it"));
    }
    Ok(Secret::new(digits))
}

fn stdin(what: &str) -> Result<String, Failure> {
    let mut text = String::new();
    let read = io::stdin().take(STDIN_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|error| Failure::io(&format!("cannot read {what} from stdin"), &error))?;
    Ok(text)
}

fn device_name(args: &Args) -> String {
    let own = || rustix::system::uname().nodename().to_string_lossy().into_owned();
    let name = args.device_name.clone().unwrap_or_else(own);
    let name: String =
        name.chars().filter(|char| !char.is_control()).take(NAME_CHARS_MAX).collect();
    if name.trim().is_empty() { "clawd".to_owned() } else { name }
}
