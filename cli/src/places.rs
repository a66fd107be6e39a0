//! Where a daemon is reached: from this machine, and from others.
//!
//! Owns the words for it, also for the risk (security F1); refuses to know how addresses were chosen.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::daemon;
use crate::home;
use crate::render::Screen;
use crate::render::style::Mark;

/// The places that come of listening on some addresses.
#[derive(Debug)]
pub(crate) struct Places {
    here: Vec<SocketAddr>,
    elsewhere: Vec<SocketAddr>,
    /// Other machines may connect, if not now then once a network is up.
    is_open: bool,
}

impl Places {
    pub(crate) fn of(bind: &[IpAddr], port: u16) -> Self {
        let at = |address| SocketAddr::from((address, port));
        Self {
            here: bind.iter().filter_map(|address| home::here(*address)).map(at).collect(),
            elsewhere: daemon::reachable(bind).into_iter().map(at).collect(),
            is_open: bind.iter().any(|address| !address.is_loopback()),
        }
    }

    /// All of them, as text.
    pub(crate) fn all(&self) -> Vec<String> {
        self.here.iter().chain(&self.elsewhere).map(SocketAddr::to_string).collect()
    }

    /// What it means that others can connect, if they can, and what to do next.
    pub(crate) fn warn(&self, screen: &Screen) {
        if !self.is_open {
            return;
        }
        let to = match self.elsewhere.as_slice() {
            [] => "it, once a network is up".to_owned(),
            some => listed(&some.iter().map(SocketAddr::to_string).collect::<Vec<_>>()),
        };
        screen.note(Mark::Warn, &format!("other machines can connect to {to}"));
        screen.say("  only TLS with a paired device's token is accepted there; next: clawd pair");
    }
}

/// `a`, `a and b`, `a, b and c`.
fn listed(words: &[String]) -> String {
    match words.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
        None => String::new(),
    }
}

impl fmt::Display for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&listed(&self.all()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(bind: &[&str]) -> Places {
        let bind: Vec<IpAddr> = bind.iter().map(|address| address.parse().unwrap()).collect();
        Places::of(&bind, 4300)
    }

    #[test]
    fn f1_who_listens_for_this_machine_only_is_not_open() {
        let both = places(&["127.0.0.1", "::1"]);
        assert!(!both.is_open && both.elsewhere.is_empty());
        assert_eq!(both.to_string(), "127.0.0.1:4300 and [::1]:4300");
    }

    #[test]
    fn places_are_listed_as_in_a_sentence() {
        let of = |count| listed(&["a", "b", "c"].map(str::to_owned)[..count]);
        assert_eq!([of(0), of(1), of(2), of(3)], ["", "a", "a and b", "a, b and c"]);
    }

    #[test]
    fn f1_who_listens_for_others_is_open_also_without_a_network() {
        for bind in [&["0.0.0.0", "::1"][..], &["203.0.113.9", "127.0.0.1"], &["::"]] {
            assert!(places(bind).is_open, "{bind:?}");
        }
        assert!(places(&["0.0.0.0", "::1"]).all().starts_with(&["127.0.0.1:4300".to_owned()]));
    }
}
