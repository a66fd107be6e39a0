//! What is known of other daemons: where they are, how to know them, and what lets us in.
//!
//! Owns the names that people type and the two files in the private directory; refuses to know how a daemon is reached.
//! Invariants: a token leaves this file only for a connection that the daemon's key has answered; each change is made to what
//! the file says at that moment, so that two at once lose nothing.

use std::path::{Path, PathBuf};

use clawd_protocol::Fingerprint;
use clawd_protocol::access::token::Secret;
use clawd_protocol::relay::RelayUrl;
use clawd_runtime_mio::files::{Changing, Documents};
use clawd_runtime_mio::tls::Identity;
use serde::Deserialize;
use serde_json::{Value, json};

use super::path::DirectUrl;
use crate::daemon;
use crate::exit::{Exit, Failure};
use crate::home::shorten;

/// In the data directory, where no agent may work.
const DIR: &str = "remotes";
const LIST: &str = "remotes.json";
const KEY: &str = "device.key";
const LIST_BYTES_MAX: usize = 1024 * 1024;
const KEY_BYTES_MAX: usize = 4096;
/// More is no list that anybody keeps.
const REMOTES_MAX: usize = 100;
/// Places of one daemon that are kept.
const URLS_MAX: usize = 12;
const NAME_CHARS_MAX: usize = 32;
const VERSION: u64 = 1;

/// Another daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remote {
    /// What it is called here.
    pub(crate) name: String,
    /// The key that must answer.
    pub(crate) daemon_id: Fingerprint,
    /// Where it may be reached directly; what worked last is first.
    pub(crate) urls: Vec<DirectUrl>,
    pub(crate) relay: Option<RelayUrl>,
    /// What it calls us.
    pub(crate) device_id: String,
    pub(crate) token: Secret,
    pub(crate) role: String,
    /// What it calls itself.
    pub(crate) host_name: String,
    /// Seconds since 1970.
    pub(crate) paired_at: u64,
    pub(crate) expires_at: Option<u64>,
}

impl Remote {
    /// The same device of the same daemon: a daemon chooses the device's id, so that alone says nothing.
    pub(crate) fn is_same_pairing(&self, other: &Self) -> bool {
        (self.daemon_id, &self.device_id) == (other.daemon_id, &other.device_id)
    }

    /// All but the token.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "daemonId": self.daemon_id,
            "urls": self.urls,
            "relay": self.relay,
            "deviceId": self.device_id,
            "role": self.role,
            "hostName": self.host_name,
            "pairedAt": self.paired_at,
            "expiresAt": self.expires_at,
        })
    }
}

/// As it is written.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    name: String,
    daemon_id: Fingerprint,
    urls: Vec<DirectUrl>,
    relay: Option<RelayUrl>,
    device_id: String,
    token: String,
    role: String,
    host_name: String,
    paired_at: u64,
    expires_at: Option<u64>,
}

impl From<Written> for Remote {
    fn from(it: Written) -> Self {
        Self {
            name: it.name,
            daemon_id: it.daemon_id,
            urls: it.urls,
            relay: it.relay,
            device_id: it.device_id,
            token: Secret::new(it.token),
            role: it.role,
            host_name: it.host_name,
            paired_at: it.paired_at,
            expires_at: it.expires_at,
        }
    }
}

/// The remotes of one data directory.
#[derive(Debug, Clone)]
pub(crate) struct Remotes {
    dir: PathBuf,
}

impl Remotes {
    pub(crate) fn of(data_dir: &Path) -> Self {
        Self { dir: data_dir.join(DIR) }
    }

    /// All of them, in the order in which they came.
    pub(crate) fn list(&self) -> Result<Vec<Remote>, Failure> {
        match Documents::open(&self.dir).map_err(daemon::failed)? {
            Some(documents) => read(&documents),
            None => Ok(Vec::new()),
        }
    }

    /// The one of that name.
    pub(crate) fn find(&self, name: &str) -> Result<Remote, Failure> {
        let mut all = self.list()?;
        let at = all.iter().position(|remote| remote.name == name);
        at.map(|at| all.swap_remove(at)).ok_or_else(|| {
            let names: Vec<&str> = all.iter().map(|remote| remote.name.as_str()).collect();
            let hint = match names.as_slice() {
                [] => "there are none yet; add one with `clawd remote pair`".to_owned(),
                names => format!("there are {}; see `clawd remote list`", names.join(", ")),
            };
            Failure::new(
                Exit::NotFound,
                "remote_not_found",
                format!("no remote is called `{name}`"),
            )
            .hint(hint)
        })
    }

    /// The key by which other daemons know this command line; made at first use.
    pub(crate) fn identity(&self) -> Result<Identity, Failure> {
        let documents = Documents::open_or_make(&self.dir).map_err(daemon::failed)?;
        let changing = documents.change().map_err(daemon::failed)?;
        if let Some(pkcs8) = documents.read(KEY, KEY_BYTES_MAX).map_err(daemon::failed)? {
            return Identity::from_pkcs8(&pkcs8).map_err(|error| {
                let path = documents.path().join(KEY);
                Failure::new(Exit::Token, "device_key", format!("{}: {error}", shorten(&path)))
                    .hint("remove it and pair with each daemon again")
            });
        }
        let identity = Identity::generate()
            .map_err(|error| Failure::new(Exit::Failure, "entropy", error.to_string()))?;
        changing.replace(KEY, identity.pkcs8()).map_err(daemon::failed)?;
        Ok(identity)
    }

    /// Keeps it, under its name if that is given and else under one that is free; gives that name. What was known of the same
    /// daemon under that name is replaced, and given back too.
    pub(crate) fn keep(
        &self,
        mut remote: Remote,
        is_named: bool,
    ) -> Result<(String, Option<Remote>), Failure> {
        self.change(|all| {
            let wanted = remote.name.clone();
            let same = |other: &Remote| other.daemon_id == remote.daemon_id;
            if is_named && all.iter().any(|other| other.name == wanted && !same(other)) {
                return Err(name_taken(&wanted));
            }
            let is_before = |other: &Remote| same(other) && (!is_named || other.name == wanted);
            let before = all.iter().position(is_before).map(|at| all.remove(at));
            match &before {
                Some(before) => remote.name.clone_from(&before.name),
                None if is_named => {}
                None => remote.name = free_name(&wanted, all),
            }
            if all.len() >= REMOTES_MAX {
                return Err(Failure::usage(format!("there are {REMOTES_MAX} remotes already"))
                    .hint("remove one with `clawd remote remove NAME`"));
            }
            let name = remote.name.clone();
            all.push(remote);
            Ok((name, before))
        })
    }

    /// Forgets it; whether it was known.
    pub(crate) fn forget(&self, remote: &Remote) -> Result<bool, Failure> {
        self.change(|all| {
            let before = all.len();
            all.retain(|it| it.name != remote.name || it.device_id != remote.device_id);
            Ok(all.len() < before)
        })
    }

    /// From now on this way to it is the first that is tried.
    pub(crate) fn prefer(&self, remote: &Remote, url: &DirectUrl) -> Result<(), Failure> {
        self.edit(remote, |known| {
            known.urls.retain(|other| other != url);
            known.urls.insert(0, url.clone());
        })
    }

    /// The daemon has said where in its network it is now: what is new comes first, and what it did not say last. A person may
    /// have named a place that the daemon cannot know; what is never right again falls off the end.
    pub(crate) fn learn_urls(&self, remote: &Remote, urls: &[DirectUrl]) -> Result<(), Failure> {
        self.edit(remote, |known| {
            let old = std::mem::take(&mut known.urls);
            let (said, unsaid): (Vec<_>, Vec<_>) = old.iter().partition(|url| urls.contains(url));
            let new = urls.iter().filter(|url| !old.contains(url));
            for url in new.chain(said).chain(unsaid) {
                if known.urls.len() < URLS_MAX && !known.urls.contains(url) {
                    known.urls.push(url.clone());
                }
            }
        })
    }

    /// The daemon has said at which relay it is found now.
    pub(crate) fn learn_relay(&self, remote: &Remote, relay: &RelayUrl) -> Result<(), Failure> {
        self.edit(remote, |known| known.relay = Some(relay.clone()))
    }

    /// Changes what is known of this one, if it is still known.
    fn edit(&self, remote: &Remote, change: impl FnOnce(&mut Remote)) -> Result<(), Failure> {
        self.change(|all| {
            if let Some(known) = all.iter_mut().find(|it| it.is_same_pairing(remote)) {
                change(known);
            }
            Ok(())
        })
    }

    fn change<T>(
        &self,
        change: impl FnOnce(&mut Vec<Remote>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let documents = Documents::open_or_make(&self.dir).map_err(daemon::failed)?;
        let changing = documents.change().map_err(daemon::failed)?;
        let mut all = read(&documents)?;
        let before = all.clone();
        let done = change(&mut all)?;
        if all != before {
            write(&changing, &all)?;
        }
        Ok(done)
    }
}

fn read(documents: &Documents) -> Result<Vec<Remote>, Failure> {
    #[derive(Deserialize)]
    struct List {
        v: u64,
        remotes: Vec<Written>,
    }
    let found = documents.read(LIST, LIST_BYTES_MAX).map_err(daemon::failed)?;
    let Some(bytes) = found else { return Ok(Vec::new()) };
    match serde_json::from_slice::<List>(&bytes) {
        Ok(list) if list.v == VERSION => Ok(list.remotes.into_iter().map(Remote::from).collect()),
        Ok(_) | Err(_) => {
            let path = shorten(&documents.path().join(LIST));
            let why = format!("{path} is not a list of remotes that this clawd understands");
            // serde's own words could quote a token.
            Err(Failure::new(Exit::Token, "remotes", why)
                .hint("move it away and pair with each daemon again"))
        }
    }
}

fn write(changing: &Changing<'_>, all: &[Remote]) -> Result<(), Failure> {
    let entry = |remote: &Remote| {
        let mut entry = remote.to_json();
        entry["token"] = remote.token.expose().into();
        entry
    };
    let list = json!({"v": VERSION, "remotes": all.iter().map(entry).collect::<Vec<_>>()});
    let text = Secret::new(serde_json::to_string_pretty(&list).unwrap_or_default() + "\n");
    changing.replace(LIST, text.expose().as_bytes()).map_err(daemon::failed)
}

/// That name is another daemon's.
pub(crate) fn name_taken(name: &str) -> Failure {
    Failure::usage(format!("another daemon is called `{name}` here"))
        .hint("choose another name with `--as`, or remove that one with `clawd remote remove`")
}

/// A name that can be typed without quotes, if this is one.
pub(crate) fn checked_name(name: &str) -> Result<String, Failure> {
    if name.is_empty() || sanitised(name) != name {
        return Err(Failure::usage(format!("`{name}` cannot be the name of a remote"))
            .hint("use up to 32 letters, digits, dots, dashes and underscores"));
    }
    Ok(name.to_owned())
}

/// What another calls itself, as a name that can be typed without quotes.
pub(crate) fn sanitised(name: &str) -> String {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "._-".contains(char);
    let dashed = |char| if is_plain(char) { char } else { '-' };
    let name: String = name.trim().chars().take(NAME_CHARS_MAX).map(dashed).collect();
    let name = name.trim_matches(['-', '.']);
    if name.is_empty() { "remote".to_owned() } else { name.to_owned() }
}

/// `wanted`, or `wanted-2` and so on.
fn free_name(wanted: &str, all: &[Remote]) -> String {
    let is_free = |name: &String| all.iter().all(|remote| remote.name != *name);
    let numbered = (2..).map(|n| format!("{wanted}-{n}"));
    let mut names = std::iter::once(wanted.to_owned()).chain(numbered);
    names.find(is_free).unwrap_or_else(|| wanted.to_owned())
}

#[cfg(test)]
mod tests;
