//! How long pairing takes: from the start of a device's `clawd remote pair` until the owner is told `device.paired` and
//! the device has its token on disk.
//!
//! Owns a daemon, and a new device for each time; refuses to know what is said between them. Nobody reads a code or presses
//! a key: the owner says yes as soon as he is asked.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use clawd_tests::daemon::{Client, Daemon, Process, Site, write_private};
use clawd_tests::relay::Relay;
use serde_json::{Value, json};

use super::{Outcome, median, pin};

const TIMES: usize = 15;

/// How a device is let in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Ticket,
    Pin,
}

/// A daemon and the way to it.
pub(crate) struct Scene {
    owner: Client,
    /// Where it is, as it is typed with a PIN.
    typed: Vec<String>,
    /// Where it is, as the code says it, if it does not say so by itself.
    url: Option<String>,
    /// What the relay's certificate is checked with.
    authority: Option<String>,
    _daemon: Daemon,
    _relay: Option<Relay>,
    _desk: Site,
}

impl Scene {
    /// Over TLS on loopback.
    pub(crate) fn straight() -> Self {
        let desk = Site::new();
        let daemon = desk.start();
        pin("0", daemon.process.pid());
        let url = format!("wss://127.0.0.1:{}", daemon.port);
        Self {
            owner: daemon.owner(),
            typed: vec!["--url".to_owned(), url.clone()],
            url: Some(url),
            authority: None,
            _daemon: daemon,
            _relay: None,
            _desk: desk,
        }
    }

    /// Through a relay with TLS of its own, that the daemon is at already.
    pub(crate) fn relayed(tls: &[String], authority: &Path) -> Outcome<Self> {
        let flags: Vec<&str> = tls.iter().map(String::as_str).collect();
        let relay = Relay::start(&flags);
        pin("0", relay.process.pid());
        let authority = authority.display().to_string();
        let mut desk = Site::new();
        desk.env.push(("SSL_CERT_FILE".to_owned(), authority.clone()));
        let daemon = desk.start();
        pin("0", daemon.process.pid());
        let url = format!("wss://127.0.0.1:{}", relay.port);
        let (code, _, said) = desk.run(&["relay", "enable", "--url", &url]);
        if code != Some(0) || !said.contains("connected") {
            return Err(said.into());
        }
        let id = daemon.key().to_string();
        Ok(Self {
            owner: daemon.owner(),
            typed: ["--relay", &url, "--id", &id].map(str::to_owned).to_vec(),
            url: None,
            authority: Some(authority),
            _daemon: daemon,
            _relay: Some(relay),
            _desk: desk,
        })
    }

    /// The median of many times, in milliseconds.
    pub(crate) fn median(&mut self, by: By) -> Outcome<f64> {
        let times = (0..TIMES).map(|_| self.pair(by)).collect::<Outcome<Vec<_>>>()?;
        Ok(median(times))
    }

    fn pair(&mut self, by: By) -> Outcome<f64> {
        let mut laptop = Site::new();
        let authority = self.authority.iter();
        laptop.env.extend(authority.map(|path| ("SSL_CERT_FILE".to_owned(), path.clone())));
        let window = self.owner.call("daemon.pairPin", json!({}));
        let window = window.map_err(|failure| format!("no window: {failure:?}"))?;
        let (args, stdin) = self.command_line(by, &window, &laptop)?;
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut command = laptop.command(&[&["remote", "pair", "--as", "desk"], &*args].concat());
        command.stdin(stdin);
        let began = Instant::now();
        let mut device = Process::spawn(&mut command);
        // Who scanned the owner's screen, over no relay, is in without asking.
        if by == By::Pin || self.url.is_none() {
            let asked = self.owner.wait_event("pairing.progress", |it| it["state"] == "confirm");
            let yes = json!({"pairingId": asked["pairingId"], "accept": true});
            let said = self.owner.call("daemon.pairConfirm", yes);
            said.map_err(|failure| format!("no yes: {failure:?}"))?;
        }
        self.owner.wait_event("device.paired", |_| true);
        // It says so when it has written down what it got.
        let has_token = device.wait_for(|said| said.contains("paired with").then_some(()));
        let took = began.elapsed().as_secs_f64() * 1e3;
        has_token.ok_or_else(|| device.output())?;
        Ok(took)
    }

    /// The rest of the device's command line, and what it reads.
    fn command_line(&self, by: By, window: &Value, laptop: &Site) -> Outcome<(Vec<String>, Stdio)> {
        if by == By::Pin {
            let file = laptop.home().join("pin");
            write_private(&file, window["pin"].as_str().ok_or("no PIN")?.as_bytes());
            let args = self.typed.iter().cloned().chain(["--pin-stdin".to_owned()]);
            return Ok((args.collect(), File::open(file)?.into()));
        }
        let mut code: Value = serde_json::from_str(window["qrPayload"].as_str().ok_or("no code")?)?;
        if let Some(url) = &self.url {
            code["url"] = json!(url);
            code["urls"] = json!([url]);
        }
        Ok((vec![code.to_string()], Stdio::null()))
    }
}

/// What starting the program alone takes of it, in milliseconds.
pub(crate) fn start_alone() -> f64 {
    let site = Site::new();
    let times = (0..TIMES).map(|_| {
        let began = Instant::now();
        let mut process = Process::spawn(&mut site.command(&["--version"]));
        let _: Option<()> = process.wait_for(|_| None);
        began.elapsed().as_secs_f64() * 1e3
    });
    median(times.collect())
}

/// What the disk takes to have a small write for certain, in milliseconds; both sides wait for that some times.
pub(crate) fn sync_alone() -> Outcome<f64> {
    let site = Site::new();
    let mut file = File::create(site.home().join("file"))?;
    let times = (0..TIMES).map(|_| {
        let began = Instant::now();
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        Ok(began.elapsed().as_secs_f64() * 1e3)
    });
    Ok(median(times.collect::<Outcome<Vec<_>>>()?))
}
