//! A relay's process, and those who meet there: hosts with a real identity, and the two ends of a stream.

mod host;
mod leg;

use crate::daemon::{Process, Site, port_in};

pub use host::{Host, registration};
pub use leg::{Leg, Wire};

/// What the simulated daemons take the relay's name for.
pub const NAME: &str = "127.0.0.1";

/// `clawd relay serve`, ready.
#[derive(Debug)]
pub struct Relay {
    /// Its process.
    pub process: Process,
    /// Where it listens on 127.0.0.1.
    pub port: u16,
    _site: Site,
}

impl Relay {
    /// On any port, with these flags.
    ///
    /// # Panics
    /// If it ends instead.
    #[must_use]
    pub fn start(flags: &[&str]) -> Self {
        Self::start_on(0, flags)
    }

    /// On this port, with these flags.
    ///
    /// # Panics
    /// If it ends instead.
    #[must_use]
    pub fn start_on(port: u16, flags: &[&str]) -> Self {
        let site = Site::new();
        let bind = format!("127.0.0.1:{port}");
        let args = [&["relay", "serve", "--bind", &bind][..], flags].concat();
        let mut process = Process::spawn(&mut site.command(&args));
        let Some(port) = process.wait_for(port_in) else {
            panic!("clawd relay serve ended with {:?}", process.end());
        };
        Self { process, port, _site: site }
    }

    /// One number of `/metrics`.
    ///
    /// # Panics
    /// If there is none of this name.
    #[must_use]
    pub fn metric(&self, name: &str) -> u64 {
        let text = crate::daemon::Raw::exchange(
            self.port,
            b"GET /metrics HTTP/1.1\r\nHost: relay\r\n\r\n",
        );
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(&format!("clawd_relay_{name} ")));
        value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name}: {text}"))
    }

    /// Its memory in bytes: what is resident and its own.
    ///
    /// # Panics
    /// If it has ended.
    #[must_use]
    pub fn memory(&self) -> usize {
        let path = format!("/proc/{}/status", self.process.pid());
        let text = std::fs::read_to_string(path).expect("it runs");
        let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        kilobytes.map_or(0, |kilobytes: usize| kilobytes * 1024)
    }
}
