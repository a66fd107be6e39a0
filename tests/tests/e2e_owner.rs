//! What an owner types to be reached: pairing at the terminal, addresses, the identity, the relay.

use std::process::Command;

use clawd_tests::daemon::{Client, Daemon, Session, Site, Terminal, skip};
use serde_json::{Value, json};

/// The end of the question before a device is let in.
const ASKED: &str = "in? [y/N] ";
const ALTERNATE_ON: &str = "\x1b[?1049h";
const ALTERNATE_OFF: &str = "\x1b[?1049l";
const QR: [char; 3] = ['█', '▀', '▄'];
/// The address that a namespace of ours has beside loopback.
const ADDRESS: &str = "192.168.77.1";

fn site() -> Site {
    let mut site = Site::new();
    site.env.push(("NO_COLOR".to_owned(), "1".to_owned()));
    site
}

fn terminal(test: &str) -> Option<Terminal> {
    let terminal = Terminal::open(120, 60);
    if terminal.is_none() {
        skip(test, "there is no setsid of util-linux");
    }
    terminal
}

/// The PIN that is shown last.
fn pin(shown: &mut Session) -> String {
    shown.wait_for("expires in");
    let output = shown.process.output();
    let (_, rest) = output.rsplit_once("PIN  ").expect("a PIN is shown");
    rest.chars().take(7).filter(char::is_ascii_digit).collect()
}

/// A device that has typed the PIN and waits.
struct Guest {
    client: Client,
    call: u64,
}

impl Guest {
    fn knocks(daemon: &Daemon, pin: &str) -> Self {
        let mut client = daemon.connect();
        let params = json!({"pin": pin, "name": "Ana's phone", "platform": "ios"});
        let call = client.begin("device.pair", &params);
        Self { client, call }
    }

    fn let_in(mut self) -> bool {
        self.client.finish(self.call).is_ok()
    }
}

fn devices(daemon: &Daemon) -> usize {
    let listed = daemon.owner().call("device.list", json!({})).expect("a list");
    listed.as_array().map_or(0, Vec::len)
}

/// `clawd pair` at a terminal, up to the question.
fn asked(daemon: &Daemon, site: &Site, terminal: Terminal) -> (Session, Guest) {
    let mut shown = terminal.run(&site.command(&["pair", "--local"]));
    let pin = pin(&mut shown);
    let guest = Guest::knocks(daemon, &pin);
    shown.wait_for(ASKED);
    (shown, guest)
}

#[test]
fn d5_a_device_that_leaves_while_somebody_is_asked_is_not_let_in() {
    let site = Site::new();
    let daemon = site.start();
    let mut owner = daemon.owner();
    let window = owner.call("daemon.pairPin", json!({})).expect("a window");
    let guest = Guest::knocks(&daemon, window["pin"].as_str().expect("a PIN"));
    owner.wait_event("pairing.progress", |it| it["state"] == "confirm");
    drop(guest);
    let left = owner.wait_event("pairing.progress", |it| it["state"] == "declined");
    assert_eq!(left["detail"], "the device has left");
    let yes = json!({"pairingId": window["pairingId"], "accept": true});
    assert!(owner.call("daemon.pairConfirm", yes).is_err());
    assert_eq!(devices(&daemon), 0);
}

#[test]
fn d5_a_device_is_let_in_by_an_explicit_yes_and_shown_before() {
    let Some(terminal) = terminal("d5_a_device_is_let_in_by_an_explicit_yes") else { return };
    let site = site();
    let daemon = site.start();
    let (mut shown, guest) = asked(&daemon, &site, terminal);
    assert_eq!(devices(&daemon), 0, "it was let in before anybody said so");
    shown.press("y\n");
    let (code, output) = shown.end();
    assert_eq!(code, Some(0), "{output}");
    assert!(guest.let_in());
    assert_eq!(devices(&daemon), 1);
    for shown in ["name       Ana's phone", "platform   ios", "code       "] {
        assert!(output.contains(shown), "{shown}: {output}");
    }
    let (_, after) = output.rsplit_once(ALTERNATE_OFF).expect("the alternate screen is left");
    assert!(after.contains("paired \"Ana's phone\" (ios)"), "{after}");
}

#[test]
fn d5_whatever_else_is_typed_keeps_a_device_out() {
    for keys in ["\n", "n\n", "yy\n", "\x04"] {
        let Some(terminal) = terminal("d5_whatever_else_is_typed_keeps_out") else { return };
        let site = site();
        let daemon = site.start();
        let (mut shown, guest) = asked(&daemon, &site, terminal);
        shown.press(keys);
        let (code, output) = shown.end();
        assert!(code == Some(1) || code == Some(130), "{keys:?}: {output}");
        assert!(!guest.let_in(), "{keys:?}");
        assert_eq!(devices(&daemon), 0, "{keys:?}");
    }
}

#[test]
fn d2_a_wrong_pin_is_shown_with_the_tries_that_are_left() {
    let Some(terminal) = terminal("d2_a_wrong_pin_is_shown") else { return };
    let site = site();
    let daemon = site.start();
    let mut shown = terminal.run(&site.command(&["pair", "--local"]));
    let pin = pin(&mut shown);
    let wrong = if pin == "000000" { "000001" } else { "000000" };
    for left in ["2 tries are left", "1 try is left"] {
        assert!(!Guest::knocks(&daemon, wrong).let_in());
        shown.wait_for(left);
    }
    assert!(!Guest::knocks(&daemon, wrong).let_in());
    let (code, output) = shown.end();
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("too many wrong codes"), "{output}");
}

#[test]
fn k2_keys_typed_before_the_question_let_nobody_in() {
    let Some(terminal) = terminal("k2_keys_typed_before_the_question") else { return };
    let site = site();
    let daemon = site.start();
    let mut shown = terminal.run(&site.command(&["pair", "--local"]));
    let pin = pin(&mut shown);
    shown.press("y\ny\ny");
    let guest = Guest::knocks(&daemon, &pin);
    shown.wait_for(ASKED);
    shown.press("\n");
    let (code, output) = shown.end();
    assert_eq!(code, Some(1), "{output}");
    assert!(!guest.let_in());
    assert_eq!(devices(&daemon), 0);
}

#[test]
fn k2_a_piped_yes_lets_nobody_in() {
    let Some(terminal) = terminal("k2_a_piped_yes_lets_nobody_in") else { return };
    let site = site();
    let daemon = site.start();
    let pair = site.command(&["pair", "--local"]);
    let mut piped = Command::new("/bin/sh");
    piped.args(["-c", "printf 'y\\ny\\n' | \"$0\" \"$@\""]).arg(pair.get_program());
    piped.args(pair.get_args()).env_clear().current_dir(site.repo());
    piped.envs(pair.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut shown = terminal.run(&piped);
    let pin = pin(&mut shown);
    let guest = Guest::knocks(&daemon, &pin);
    shown.wait_for(ASKED);
    shown.press("\n");
    let (code, output) = shown.end();
    assert_eq!(code, Some(1), "{output}");
    assert!(!guest.let_in());
}

#[test]
fn k2_a_closed_terminal_lets_nobody_in() {
    let Some(terminal) = terminal("k2_a_closed_terminal_lets_nobody_in") else { return };
    let site = site();
    let daemon = site.start();
    let (shown, guest) = asked(&daemon, &site, terminal);
    let mut process = shown.close();
    process.wait();
    assert!(!guest.let_in());
    assert_eq!(devices(&daemon), 0);
}

#[test]
fn d5_yes_beforehand_lets_in_without_a_question_and_says_so() {
    let Some(terminal) = terminal("d5_yes_beforehand") else { return };
    let site = site();
    let daemon = site.start();
    let mut shown = terminal.run(&site.command(&["pair", "--local", "--yes", "--name", "desk"]));
    let pin = pin(&mut shown);
    assert!(Guest::knocks(&daemon, &pin).let_in());
    let (code, output) = shown.end();
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("without being asked about"), "{output}");
    assert!(output.contains("paired \"desk\"") && !output.contains(ASKED), "{output}");
}

#[test]
fn d5_who_has_a_window_printed_is_told_that_nobody_will_be_asked() {
    let site = site();
    let _daemon = site.start();
    for (args, is_told) in [(&["pair", "--json"][..], true), (&["pair", "--json", "--yes"], false)]
    {
        let (code, out, err) = site.run(args);
        assert_eq!(code, Some(0), "{err}");
        let window: Value = serde_json::from_str(&out).expect("JSON");
        assert_eq!(window["confirm"], is_told);
        assert_eq!(err.contains("nobody is asked here"), is_told, "{err}");
    }
}

#[test]
fn d7_no_code_is_drawn_that_cannot_work() {
    let site = site();
    let daemon = site.start();
    for command in [&["pair"][..], &["token", "qr"]] {
        let (code, out, err) = site.run(command);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
        assert!(err.contains("clawd pair --lan") && err.contains("relay enable"), "{err}");
        let Some(terminal) = terminal("d7_no_code_is_drawn_that_cannot_work") else { return };
        let (code, output) = terminal.run(&site.command(command)).end();
        assert_eq!(code, Some(1), "{output}");
        assert!(!output.contains(ALTERNATE_ON) && !output.contains(QR), "{output}");
    }
    let opened = daemon.owner().call("daemon.status", json!({})).expect("it goes on");
    assert!(opened.is_object());
}

/// A shell that runs `script` in a network of its own, in which this machine has one address beside loopback; nothing
/// where that is not allowed.
fn alone(site: &Site, script: &str) -> Option<Command> {
    let tried = Command::new("unshare").args(["-rn", "ip", "link", "set", "lo", "up"]).output();
    if !tried.is_ok_and(|output| output.status.success()) {
        skip(script, "there are no namespaces for us");
        return None;
    }
    let clawd = site.command(&[]);
    let mut alone = Command::new("unshare");
    let setup = format!("ip link set lo up && ip addr add {ADDRESS}/32 dev lo");
    alone.args(["-rn", "/bin/sh", "-c", &format!("{setup} && {script}")]).arg(clawd.get_program());
    alone.args(clawd.get_args()).env_clear().current_dir(site.repo());
    let set: Vec<_> = clawd.get_envs().filter_map(|(name, value)| Some((name, value?))).collect();
    alone.envs(set).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    Some(alone)
}

#[test]
fn k3_codes_are_renewed_and_leave_nothing_on_the_main_screen() {
    let name = "k3_codes_are_renewed_and_leave_nothing";
    for command in ["pair", "token qr"] {
        let Some(terminal) = terminal(name) else { return };
        let site = site();
        let script = format!(
            "\"$0\" start -q --bind 0.0.0.0 \"$@\" && \"$0\" {command} \"$@\"; code=$?; \"$0\" -q stop \"$@\"; exit $code"
        );
        let Some(alone) = alone(&site, &script) else { return };
        let mut shown = terminal.run(&alone);
        let first = pin(&mut shown);
        let output = shown.process.output();
        assert!(output.contains(&format!("✓ {ADDRESS}:4300")), "{output}");
        assert!(output.contains(&format!("wss://{ADDRESS}:4300")) && output.contains(QR));
        shown.press("t");
        let text = |output: &str| {
            let (_, rest) = output.rsplit_once("clawd remote pair '")?;
            Some(rest.split_once('\'')?.0.to_owned())
        };
        let text = shown.process.wait_for(text).expect("the code as text");
        let payload: Value = serde_json::from_str(&text).expect("JSON, in one piece");
        let ticket = payload["ticket"].as_str().expect("a ticket");
        shown.wait_for("t as code");
        shown.press("r");
        let other = |output: &str| {
            let (_, rest) = output.rsplit_once("PIN  ")?;
            let pin: String = rest.chars().take(7).filter(char::is_ascii_digit).collect();
            (pin != first && rest.contains("expires in")).then_some(pin)
        };
        let second = shown.process.wait_for(other).expect("another PIN");
        shown.press("q");
        let (code, output) = shown.end();
        assert_eq!(code, Some(130), "{output}");
        let parts: Vec<&str> = output.split(ALTERNATE_ON).collect();
        let [before, page] = parts.as_slice() else { panic!("one page: {output}") };
        let (page, after) = page.split_once(ALTERNATE_OFF).expect("the alternate screen is left");
        assert!(page.ends_with("\x1b[2J\x1b[3J\x1b[H"), "{page}");
        let log = std::fs::read_to_string(site.data().join("clawd.log")).expect("a log");
        assert!(!log.contains(ticket), "{log}");
        for pin in [first, second] {
            let grouped = format!("{} {}", &pin[..3], &pin[3..]);
            for main in [before, after] {
                assert!(!main.contains(&pin) && !main.contains(&grouped), "{main}");
                assert!(!main.contains(QR) && !main.contains(ticket), "{main}");
            }
        }
    }
}

#[test]
fn f1_a_daemon_for_others_says_what_that_means_and_goes_back_to_loopback() {
    let site = site();
    let script = "\"$0\" start \"$@\" && \"$0\" pair --lan --yes \"$@\" && \"$0\" status \"$@\" \
        && \"$0\" stop \"$@\" && echo again && \"$0\" start \"$@\" && \"$0\" stop \"$@\"";
    let Some(mut alone) = alone(&site, script) else { return };
    let output = alone.output().expect("it runs");
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    assert!(output.status.success(), "{out}{err}");
    assert!(err.contains(&format!("✓ {ADDRESS}:4300")), "{err}");
    let payload: Value =
        serde_json::from_str(out.lines().next().unwrap_or_default()).expect("JSON");
    assert_eq!(payload["url"], format!("wss://{ADDRESS}:4300"));
    assert!(payload["ticket"].is_string() && payload.get("pin").is_none(), "{payload}");
    let listening = out.lines().find(|line| line.contains("listening")).expect("a status");
    assert!(listening.contains("127.0.0.1:4300") && listening.contains(ADDRESS), "{listening}");
    let last = err.lines().rfind(|line| line.contains("is running on")).expect("started again");
    assert!(last.contains("127.0.0.1:4300") && !last.contains(ADDRESS), "{last}");
}

#[test]
fn f1_the_start_warns_and_says_how_to_pair() {
    let site = site();
    let script = format!("\"$0\" start --bind {ADDRESS} \"$@\" && \"$0\" stop \"$@\"");
    let Some(mut alone) = alone(&site, &script) else { return };
    let err = String::from_utf8_lossy(&alone.output().expect("it runs").stderr).into_owned();
    assert!(err.contains(&format!("127.0.0.1:4300, [::1]:4300 and {ADDRESS}:4300")), "{err}");
    assert!(err.contains(&format!("other machines can connect to {ADDRESS}:4300")), "{err}");
    assert!(err.contains("only TLS with a paired device's token") && err.contains("clawd pair"));
}

#[test]
fn f1_who_wants_a_daemon_elsewhere_than_it_runs_is_told_how() {
    let site = site();
    let daemon = site.start();
    let stays = "stays where it listens";
    for command in ["up", "start"] {
        for more in [&[][..], &["--json"]] {
            let elsewhere = [&[command, "--bind", "0.0.0.0"], more].concat();
            let (_, _, err) = site.run(&elsewhere);
            assert!(err.contains(stays), "{elsewhere:?}: {err}");
            assert!(err.contains("clawd stop && clawd up --bind 0.0.0.0\n"), "{err}");
            let (_, _, err) = site.run(&[&[command, "--port", "1"], more].concat());
            assert!(err.contains("clawd stop && clawd up --port 1\n"), "{err}");
            for there in [&[command][..], &[command, "--bind", "127.0.0.1"]] {
                let (_, _, err) = site.run(&[there, more].concat());
                assert!(!err.contains(stays), "{there:?}: {err}");
            }
        }
    }
    site.configure("bind = \"0.0.0.0\"");
    let (_, _, err) = site.run(&["up"]);
    assert!(err.contains(stays) && err.contains("clawd stop && clawd up\n"), "{err}");
    drop(daemon);
}

#[test]
fn f1_a_door_that_stays_open_is_named() {
    let site = site();
    let script = "\"$0\" start -q --bind 0.0.0.0 \"$@\" && \"$0\" start \"$@\" \
        && echo then >&2 && \"$0\" start --bind 127.0.0.1 \"$@\"; \"$0\" -q stop \"$@\"";
    let Some(mut alone) = alone(&site, script) else { return };
    let err = String::from_utf8_lossy(&alone.output().expect("it runs").stderr).into_owned();
    let (before, after) = err.split_once("then").expect("it starts");
    assert!(!before.contains("stays where it listens"), "{err}");
    assert!(after.contains("stays where it listens"), "{err}");
    assert!(after.contains("clawd stop && clawd up --bind 127.0.0.1\n"), "{err}");
}

#[test]
fn f1_an_address_that_is_not_ours_is_refused_with_advice() {
    let site = site();
    // TEST-NET-1 (RFC 5737) is nobody's.
    for command in ["serve", "start", "up"] {
        for bind in ["192.0.2.1", "127.0.0.1,192.0.2.1"] {
            let (code, _, err) = site.run(&[command, "--bind", bind, "--port", "0"]);
            assert_eq!(code, Some(2), "{command} {bind}: {err}");
            assert!(err.contains("cannot listen on 192.0.2.1"), "{command} {bind}: {err}");
            assert!(err.contains("hint: "), "{command} {bind}: {err}");
        }
    }
    let (code, _, err) = site.run(&["start", "--bind", "here"]);
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("`here` is not an address to listen on"), "{err}");
}

#[test]
fn a_mistyped_list_of_addresses_keeps_nobody_from_a_daemon_that_runs() {
    let site = site();
    let daemon = site.start();
    site.configure("bind = [\"192.168.77,25\"]");
    let (code, _, err) = site.run(&["device", "list"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("192.168.77") && err.contains("what it read at its start"), "{err}");
    let (code, _, err) = site.run(&["stop"]);
    assert_eq!(code, Some(0), "{err}");
    drop(daemon);
    assert_eq!(site.run(&["start"]).0, Some(2), "a start goes by the list");
}

#[test]
fn an_identity_is_shown_with_the_daemon_on_and_off() {
    let site = site();
    let (code, _, err) = site.run(&["identity", "show"]);
    assert_eq!(code, Some(9), "{err}");
    let daemon = site.start();
    let of_status = daemon.owner().call("daemon.status", json!({})).expect("a status");
    let shown = || -> Value {
        let (code, out, err) = site.run(&["identity", "show", "--json"]);
        assert_eq!(code, Some(0), "{err}");
        serde_json::from_str(&out).expect("JSON")
    };
    let first = shown();
    assert_eq!(first["daemonId"], of_status["daemonId"]);
    assert!(first["pin"].as_str().expect("a pin").starts_with("sha256/"));
    daemon.stop();
    assert_eq!(shown(), first);
    let (_, out, _) = site.run(&["identity", "show"]);
    assert!(out.contains(first["grouped"].as_str().expect("grouped")), "{out}");
}

#[test]
fn an_identity_is_not_replaced_without_a_word() {
    let site = site();
    let daemon = site.start();
    let before = site.run(&["identity", "show"]).1;
    let (code, _, err) = site.run(&["identity", "reset"]);
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("--yes"), "{err}");
    assert_eq!(site.run(&["identity", "show"]).1, before);
    assert_eq!(devices(&daemon), 0);
}

#[test]
fn g7_a_relay_that_cannot_be_is_refused_before_anybody_is_told() {
    let site = site();
    for (args, why) in [
        (&["--url", "ws://relay.example.org"][..], "use wss://"),
        (&["--url", "https://relay.example.org"], "begins with wss://"),
        (&["--url", "wss://user@relay.example.org"], "wss://HOST"),
        (&["--pin", "sha256/AAAA"], "44 characters of base64"),
        (&["--access-token-file", "/nonexistent"], "--access-token-file"),
    ] {
        let (code, _, err) = site.run(&[&["relay", "enable"], args].concat());
        assert_eq!(code, Some(2), "{args:?}: {err}");
        assert!(err.contains(why), "{args:?}: {err}");
    }
    assert!(!site.data().join("clawd.lock").exists(), "a daemon was started for nothing");
}

/// A port on which nobody listens.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    format!("ws://{}", listener.local_addr().expect("it is bound"))
}

#[test]
fn a_relay_is_enabled_tried_and_left_again() {
    let site = site();
    let daemon = site.start();
    let url = nobody();
    let (code, out, err) = site.run(&["relay", "enable", "--url", &url]);
    assert_eq!((code, out.as_str()), (Some(0), ""), "{err}");
    assert!(err.contains("it learns this daemon's id, addresses, sizes and times"), "{err}");
    assert!(err.contains(&format!("not connected to {url}")) && err.contains("hint: "), "{err}");
    let (code, out, _) = site.run(&["status"]);
    assert_eq!(code, Some(0));
    assert!(out.contains(&format!("relay      not connected to {url}")), "{out}");
    let (code, out, err) = site.run(&["relay", "test", "--json"]);
    assert_eq!(code, Some(1), "{err}");
    let test: Value = serde_json::from_str(&out).expect("JSON");
    let steps = test["steps"].as_array().expect("steps");
    assert_eq!((test["ok"].as_bool(), steps.len()), (Some(false), 2), "{test}");
    assert_eq!((&steps[0]["ok"], &steps[1]["ok"]), (&json!(true), &json!(false)), "{test}");
    let (code, out, err) = site.run(&["pair"]);
    assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
    assert!(err.contains("✗ relay not connected") && err.contains("clawd pair --lan"), "{err}");
    let (code, _, err) = site.run(&["relay", "disable"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("no other machine can come in now"), "{err}");
    let of_status = daemon.owner().call("daemon.status", json!({})).expect("a status");
    assert_eq!(of_status["relay"]["enabled"], false, "{of_status}");
    assert_eq!(site.run(&["relay", "test"]).0, Some(1));
}

#[test]
fn a_daemon_that_is_started_for_a_relay_is_named() {
    let site = site();
    site.configure("port = 0");
    let enable = ["relay", "enable", "--url", &nobody()];
    let [(code, out, first), (_, _, second)] = [site.run(&enable), site.run(&enable)];
    assert_eq!(site.run(&["stop"]).0, Some(0));
    assert_eq!((code, out.as_str()), (Some(0), ""), "{first}");
    assert!(first.starts_with("✓ clawd is running on 127.0.0.1:"), "{first}");
    assert!(!second.contains("running") && second.contains("not connected"), "{second}");
}

#[test]
fn g9_a_new_identity_shuts_every_device_out_and_the_daemon_runs_again_where_it_did() {
    let site = site();
    let daemon = site.start();
    let port = daemon.port;
    let mut owner = daemon.owner();
    let (_, token) = daemon.connect().pair(&mut owner, "full");
    let before = site.run(&["identity", "show"]).1;
    let (code, out, err) = site.run(&["identity", "reset", "--yes"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("1 device was revoked"), "{err}");
    assert!(out.starts_with("id ") && out != before, "{out}");
    assert_eq!(site.run(&["identity", "show"]).1, out);
    let mut stranger = Client::tcp(port).expect("it listens where it did");
    assert!(stranger.auth(&token).is_err(), "the device is let in");
    assert_eq!(site.run(&["stop"]).0, Some(0));
}
