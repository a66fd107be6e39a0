//! Two machines and a relay between them: a daemon on one, this CLI as its device on the other, with the LAN cut in
//! the middle of a turn. Real sockets, real addresses, real TLS; needs the right to make network namespaces.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use clawd_tests::daemon::{
    Client, Daemon, PATIENCE, Process, Site, port_in, skip, wait_until, write_private,
};
use clawd_tests::net::{HOST, Machine, Net, RELAY};
use data_encoding::BASE64;
use serde_json::{Value, json};

/// What must never be seen on a wire.
const CANARY: &str = "canary-7f3a9c";
/// What the device calls itself.
const DEVICE_NAME: &str = "canary device";

/// A host with its daemon, a relay, and a device.
struct Country {
    host: Site,
    device: Site,
    daemon: Daemon,
    _relay: Process,
    relay_port: u16,
    net: Net,
}

impl Country {
    fn found(test: &str) -> Option<Self> {
        Self::listening(test, HOST)
    }

    /// The daemon listens at this address.
    fn listening(test: &str, bind: &str) -> Option<Self> {
        let net = match Net::new() {
            Ok(net) => net,
            Err(why) => {
                skip(test, &why);
                return None;
            }
        };
        let (mut host, mut device) = (Site::new(), Site::new());
        host.before = Some(net.before(Machine::Host));
        device.before = Some(net.before(Machine::Device));
        let (authority, certificate, key) = relay_certificate(&host.home());
        for site in [&mut host, &mut device] {
            site.env.push(("SSL_CERT_FILE".to_owned(), authority.display().to_string()));
            site.env.push(("NO_COLOR".to_owned(), "1".to_owned()));
        }
        let (relay, relay_port) = start_relay(&net, &certificate, &key);
        let daemon = start_daemon(&host, bind);
        Some(Self { host, device, daemon, _relay: relay, relay_port, net })
    }

    fn relay_url(&self) -> String {
        format!("wss://{RELAY}:{}", self.relay_port)
    }

    fn enable_relay(&self) {
        let (code, out, err) = self.host.run(&["relay", "enable", "--url", &self.relay_url()]);
        assert_eq!(code, Some(0), "{out}\n{err}");
    }

    /// The owner's own connection, on the host.
    fn owner(&self) -> Client {
        let mut owner = self.daemon.connect_unix();
        owner.auth(&self.daemon.token()).expect("the owner is let in");
        owner
    }

    /// The device's command, which must end with this exit code: stdout, stderr.
    fn on_device(&self, code: i32, args: &[&str]) -> (String, String) {
        let (got, out, err) = self.device.run(args);
        assert_eq!(got, Some(code), "clawd {args:?}\n{out}\n{err}");
        (out, err)
    }

    /// The device's command, left running.
    fn start_on_device(&self, args: &[&str]) -> Process {
        Process::spawn(&mut self.device.command(args))
    }

    fn pair_by_payload(&self, name: &str) {
        let mut owner = self.owner();
        let window = owner.call("daemon.pairPin", json!({})).expect("a window");
        let payload = window["qrPayload"].as_str().expect("a payload");
        let (out, err) = self.on_device(0, &["remote", "pair", payload, "--as", name]);
        assert!(!format!("{out}{err}").contains("clawd_d_"), "no token is shown");
    }

    /// By PIN, with the owner's yes once both sides show the same code. `to` says where the daemon is. The PIN.
    fn pair_by_pin(&self, name: &str, to: &[&str]) -> String {
        let mut owner = self.owner();
        let window = owner.call("daemon.pairPin", json!({})).expect("a window");
        let pin = window["pin"].as_str().expect("a PIN").to_owned();
        let file = self.device.home().join("pin");
        write_private(&file, format!("{pin}\n").as_bytes());
        let name = ["--as", name, "--device-name", DEVICE_NAME];
        let args = [&["remote", "pair", "--pin-stdin"], to, &name].concat();
        let mut command = self.device.command(&args);
        command.stdin(std::fs::File::open(&file).expect("just written"));
        let mut pairing = Process::spawn(&mut command);
        let asked = owner.wait_event("pairing.progress", |it| it["state"] == "confirm");
        let code = asked["code"].as_str().expect("a code to compare").to_owned();
        assert!(pairing.wait_for(|said| said.contains(&code).then_some(())).is_some());
        let answer = json!({"pairingId": asked["pairingId"], "accept": true});
        owner.call("daemon.pairConfirm", answer).expect("it is said");
        let (status, said) = pairing.end();
        assert!(status.success(), "{said}");
        assert!(!said.contains("clawd_d_"), "no token is shown");
        pin
    }

    fn devices(&self) -> Vec<Value> {
        let list = self.owner().call("device.list", json!({})).expect("a list");
        list.as_array().expect("an array").clone()
    }

    /// How the devices came last, as the daemon has it.
    fn vias(&self) -> Vec<String> {
        let via = |it: &Value| it["via"].as_str().unwrap_or_default().to_owned();
        self.devices().iter().map(via).collect()
    }

    /// The device that is here this way, once one is.
    fn connected_via(&self, via: &str) -> Value {
        let mut found = None;
        wait_until("the device is here", PATIENCE, || {
            let devices = self.devices();
            found = devices.into_iter().find(|it| it["via"] == via && it["connected"] == true);
            found.is_some()
        });
        found.expect("just found")["id"].clone()
    }

    /// The numbers of all events that the daemon has written down from here to there.
    fn written(&self, from: u64, through: u64) -> Vec<u64> {
        let mut owner = self.owner();
        owner.call("events.subscribe", json!({"after": from - 1})).expect("a replay");
        let mut numbers = Vec::new();
        while numbers.last().is_none_or(|last| *last < through) {
            let deadline = Instant::now() + PATIENCE;
            let event = owner.next(deadline).expect("it stays").expect("an event");
            numbers.extend(event["params"]["seq"].as_u64().filter(|seq| *seq >= from));
        }
        numbers
    }

    /// From the device, a tool is asked for and allowed, and it runs on the host.
    fn approves(&self, name: &str) {
        let mut owner = self.owner();
        let made = json!({"repoPath": self.repo(), "provider": "demo"});
        let session = owner.call("session.create", made).expect("a session")["id"].clone();
        let id = session.as_str().expect("an id").to_owned();
        self.on_device(0, &["-R", name, "send", &id, "ask"]);
        let asked = owner.wait_event("tool.approvalRequested", |it| it["sessionId"] == session);
        let approval = asked["approval_id"].as_str().expect("an id").to_owned();
        self.on_device(0, &["-R", name, "approve", "--yes", &approval]);
        owner.wait_event("session.statusChanged", |it| {
            it["sessionId"] == session && it["status"] == "idle"
        });
        assert!(self.host.repo().join("clawd-demo.txt").exists(), "the tool has run");
    }

    fn repo(&self) -> String {
        self.host.repo().display().to_string()
    }
}

/// An authority of our own, and a certificate for the relay's address by it.
fn relay_certificate(dir: &Path) -> (PathBuf, PathBuf, PathBuf) {
    let [authority, certificate, key] = ["ca.pem", "relay.pem", "relay.key"].map(|it| dir.join(it));
    let script = format!(
        "set -e; cd {dir}
         new='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
         openssl req -x509 $new -keyout ca.key -out ca.pem -days 2 -subj /CN=authority \
           -addext basicConstraints=critical,CA:TRUE
         openssl req $new -keyout relay.key -out relay.csr -subj /CN=relay
         printf 'subjectAltName=IP:{RELAY}' > extensions
         openssl x509 -req -in relay.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out relay.pem \
           -days 2 -extfile extensions",
        dir = dir.display()
    );
    let output = Command::new("/bin/sh").args(["-c", &script]).output().expect("a shell");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (authority, certificate, key)
}

fn start_relay(net: &Net, certificate: &Path, key: &Path) -> (Process, u16) {
    let clawd = PathBuf::from(Site::new().command(&[]).get_program());
    let mut command = net.command(Machine::Relay, &clawd);
    command.args(["relay", "serve", "--bind", &format!("{RELAY}:0"), "--host", RELAY]);
    command.arg("--tls-cert").arg(certificate).arg("--tls-key").arg(key);
    let mut relay = Process::spawn(&mut command);
    let port = relay.wait_for(|said| {
        let (_, rest) = said.split_once(&format!("{RELAY}:"))?;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok().filter(|port| *port > 0)
    });
    (relay, port.expect("the relay says where it listens"))
}

fn start_plain_relay(net: &Net) -> (Process, u16) {
    let clawd = PathBuf::from(Site::new().command(&[]).get_program());
    let mut command = net.command(Machine::Host, &clawd);
    let mut relay = Process::spawn(command.args(["relay", "serve", "--bind", "127.0.0.1:0"]));
    let port = relay.wait_for(port_in);
    (relay, port.expect("the relay says where it listens"))
}

fn start_daemon(site: &Site, bind: &str) -> Daemon {
    let args = ["serve", "--port", "0", "--bind", bind];
    site.start_with(&args).unwrap_or_else(|(status, said)| panic!("{status}: {said}"))
}

/// What must not be on a wire in any spelling that somebody could read.
fn nothing_readable(bytes: &[u8], secrets: &[&str]) {
    assert!(bytes.len() > 5000, "a session was captured: {} bytes", bytes.len());
    for word in ["daemon.auth", "clawd_d_", CANARY].iter().chain(secrets) {
        let hex: String = word.bytes().map(|byte| format!("{byte:02x}")).collect();
        // Whatever stands before it, one of the three alignments of base64 shows its middle.
        let base64 = (0..3).map(|shift| {
            let shifted = [&b"   "[..shift], word.as_bytes()].concat();
            let text = BASE64.encode(&shifted);
            text[4..text.len() - 4].to_owned()
        });
        let spellings = base64.filter(|text| text.len() >= 4).chain([hex, (*word).to_owned()]);
        for spelling in spellings {
            let found = bytes.windows(spelling.len()).any(|window| window == spelling.as_bytes());
            assert!(!found, "{word} was seen on the wire, as {spelling}");
        }
    }
}

/// All events that a `tail --json` has printed, by number.
fn numbers_in(said: &str) -> Vec<u64> {
    let events = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.filter_map(|event| event["seq"].as_u64()).collect()
}

#[test]
fn f1_paired_by_payload_it_works_over_the_lan_and_the_wire_shows_nothing() {
    let Some(country) = Country::found("f1_paired_by_payload") else { return };
    let capture = country.net.capture(Machine::Host, "lan");
    country.pair_by_payload("desk");
    let prompt = format!("stream 40 {CANARY}");
    let args = ["-R", "desk", "run", "-p", "demo", "-C", &country.repo(), &prompt];
    let (out, _) = country.on_device(0, &args);
    assert!(out.contains("demo-1 ") && out.contains("demo-40"), "{out}");
    country.approves("desk");
    assert_eq!(country.vias(), ["lan"]);
    nothing_readable(&capture.end(), &[]);
    // Who speaks plainly from there is told what to do, and nothing else.
    let script = format!(
        "import socket; s = socket.create_connection(('{HOST}', {port})); \
         s.sendall(b'GET / HTTP/1.1\\r\\nHost: {HOST}\\r\\n\\r\\n'); print(s.recv(999))",
        port = country.daemon.port
    );
    let mut python = country.net.command(Machine::Device, Path::new("python3"));
    let said = python.args(["-c", &script]).output().expect("python3 runs").stdout;
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("426 Upgrade Required") && said.contains("wss://"), "{said}");
}

#[test]
fn d6_paired_by_pin_it_works_through_the_relay_and_the_wires_show_nothing() {
    let Some(country) = Country::found("d6_paired_by_pin") else { return };
    country.enable_relay();
    let capture = country.net.capture(Machine::Relay, "wan");
    let road = country.net.capture(Machine::Relay, "road");
    let lan = country.net.capture(Machine::Host, "lan");
    let url = format!("wss://{HOST}:{}", country.daemon.port);
    let pin = country.pair_by_pin("desk", &["--url", &url]);
    nothing_readable(&lan.end(), &[&pin]);
    country.net.cut_lan();
    let prompt = format!("stream 40 {CANARY}");
    let args = ["-R", "desk", "run", "-p", "demo", "-C", &country.repo(), &prompt];
    let (out, _) = country.on_device(0, &args);
    assert!(out.contains("demo-40"), "{out}");
    assert_eq!(country.vias(), ["relay"]);
    // Here it is TLS within TLS; what the relay itself has in its hands is the next test's.
    nothing_readable(&capture.end(), &[]);
    nothing_readable(&road.end(), &[]);
}

/// Daemon, relay and device on one machine, where the relay is plain: what it passes on is on that machine's loopback, with
/// no mask and no TLS but the one between device and daemon.
#[test]
fn g8_the_relay_is_blind() {
    let Some(net) = Net::new().map_err(|why| skip("g8_the_relay_is_blind", &why)).ok() else {
        return;
    };
    let (mut host, mut device) = (Site::new(), Site::new());
    for site in [&mut host, &mut device] {
        site.before = Some(net.before(Machine::Host));
        site.env.push(("NO_COLOR".to_owned(), "1".to_owned()));
    }
    let (relay, relay_port) = start_plain_relay(&net);
    let daemon = host.start();
    let country = Country { host, device, daemon, _relay: relay, relay_port, net };
    let relay_url = format!("ws://127.0.0.1:{relay_port}");
    let capture = country.net.capture(Machine::Host, "lo");
    let (code, out, err) = country.host.run(&["relay", "enable", "--url", &relay_url]);
    assert_eq!(code, Some(0), "{out}\n{err}");
    let id = country.owner().call("daemon.status", json!({})).expect("a status");
    let id = id["daemonId"].as_str().expect("an id").to_owned();
    let pin = country.pair_by_pin("desk", &["--relay", &relay_url, "--id", &id]);
    let repo = country.repo();
    let prompt = format!("stream 40 {CANARY}");
    let (out, _) = country.on_device(0, &["-R", "desk", "run", "-p", "demo", "-C", &repo, &prompt]);
    assert!(out.contains("demo-40"), "{out}");
    assert_eq!(country.vias(), ["relay"]);
    let bytes = capture.end();
    // What is known to pass in clear is found, or the capture would prove nothing.
    assert!(bytes.windows(id.len()).any(|window| window == id.as_bytes()), "the id is in a path");
    let token = country.daemon.token();
    nothing_readable(&bytes, &[&pin, &repo, DEVICE_NAME, &token, "demo-39"]);
}

#[test]
fn a_turn_goes_on_through_the_relay_when_the_lan_is_cut_and_nothing_is_lost() {
    let Some(country) = Country::found("a_turn_goes_on_through_the_relay") else { return };
    // Paired while there was no relay: the device learns of it when it next comes.
    country.pair_by_payload("desk");
    country.enable_relay();
    let mut tail = country.start_on_device(&["-R", "desk", "tail", "--json"]);
    let repo = country.repo();
    let words = "stream 5000";
    let mut run = country.start_on_device(&["-R", "desk", "run", "-p", "demo", "-C", &repo, words]);
    assert!(run.wait_for(|said| said.contains("demo-100 ").then_some(())).is_some());
    country.net.cut_lan();
    let (status, said) = run.end();
    assert!(status.success(), "{said}");
    let expected: Vec<String> = (1..=5000).map(|n| format!("demo-{n}")).collect();
    let got: Vec<&str> = said.split_whitespace().filter(|it| it.starts_with("demo-")).collect();
    assert!(got.iter().eq(expected.iter()), "{} words, {:?}", got.len(), got.last());
    // A call that waits for a yes is decided over the relay.
    country.approves("desk");
    assert_eq!(country.vias(), ["relay"]);
    // Who followed all the time has heard what the host has written down, once and in order.
    let last =
        country.owner().call("events.subscribe", json!({})).expect("a cursor")["cursor"].clone();
    let last = last.as_u64().expect("a number");
    let heard = tail.wait_for(|said| {
        let numbers = numbers_in(said);
        numbers.last().is_some_and(|number| *number >= last).then_some(numbers)
    });
    let heard = heard.expect("all of it");
    assert!(heard.is_sorted(), "out of order: {heard:?}");
    let mut durable = heard;
    durable.dedup();
    let first = *durable.first().expect("some");
    for seq in country.written(first, last) {
        assert!(durable.binary_search(&seq).is_ok(), "{seq} was not heard: {durable:?}");
    }
}

#[test]
fn a_host_that_moved_is_found_through_the_relay_and_then_straight_again() {
    let Some(country) = Country::listening("a_host_that_moved", "0.0.0.0") else { return };
    country.enable_relay();
    country.pair_by_payload("desk");
    country.on_device(0, &["-R", "desk", "status"]);
    assert_eq!(country.vias(), ["lan"]);
    country.net.move_host("10.77.1.77");
    for via in ["relay", "lan"] {
        country.on_device(0, &["-R", "desk", "status"]);
        assert_eq!(country.vias(), [via]);
    }
    let (out, _) = country.on_device(0, &["remote", "list"]);
    assert!(out.contains("wss://10.77.1.77:"), "where it is tried first: {out}");
}

#[test]
fn e4_a_revoked_device_is_out_within_a_second_on_the_lan_and_at_the_relay() {
    let Some(country) = Country::found("e4_a_revoked_device") else { return };
    country.enable_relay();
    for path in ["lan", "relay"] {
        country.pair_by_payload(path);
        if path == "relay" {
            country.net.cut_lan();
        }
        let mut tail = country.start_on_device(&["-R", path, "tail", "--json"]);
        let mut owner = country.owner();
        let device = country.connected_via(path);
        let revoked = Instant::now();
        owner.call("device.revoke", json!({"id": device})).expect("it is revoked");
        let (status, said) = tail.end();
        assert!(revoked.elapsed() < Duration::from_secs(1), "{:?}", revoked.elapsed());
        assert!(!status.success(), "{said}");
        assert!(said.contains("pair"), "what to do next: {said}");
        let (_, err) = country.on_device(5, &["-R", path, "status"]);
        assert!(err.contains("pair"), "{err}");
        country.net.mend_lan();
    }
}
