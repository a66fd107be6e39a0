//! Devices that try to pair, in any order and with secrets that are right or wrong (security D).
//!
//! Owns an idea of its own of which window may have made a device: one through which the right secret was shown, and to
//! which somebody said yes where somebody had to be asked. Refuses to look at how the daemon counts.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use clawd_protocol::{Fingerprint, Source};
use serde_json::{Value, json};

use super::dice::Dice;
use crate::client::Client;
use crate::phone::{Begun, Phone};
use crate::world::{Crash, LOOPBACK, World};

const KEYS: [Option<&[u8]>; 3] = [None, Some(b"the phone's key"), Some(b"another key")];

/// What we know of a window.
#[derive(Debug)]
struct Window {
    id: String,
    pin: String,
    ticket: String,
    confirm: bool,
    /// The right secret was shown where nobody is asked, or where somebody is.
    is_shown: bool,
    is_shown_to_ask: bool,
    /// Somebody said yes.
    is_accepted: bool,
}

impl Window {
    const fn may_have_made_one(&self) -> bool {
        self.is_shown || self.is_shown_to_ask && (!self.confirm || self.is_accepted)
    }
}

#[derive(Debug)]
struct Guest {
    phone: Phone,
    source: Source,
    /// A run under way; whether its secret and its keys are right, and for which window.
    run: Option<(Begun, Option<usize>)>,
}

#[derive(Debug)]
struct Stage<'a> {
    world: World,
    dice: Dice<'a>,
    owner: Client,
    windows: Vec<Window>,
    guests: Vec<Guest>,
}

/// Runs the steps in `bytes`.
///
/// # Panics
///
/// If a device was made that nothing explains, or an invariant of the world is violated.
#[must_use]
pub fn run_pairing(bytes: &[u8]) -> World {
    let mut world = World::default();
    let owner = world.owner();
    let (windows, guests) = (Vec::new(), Vec::new());
    let mut stage = Stage { world, dice: Dice(bytes), owner, windows, guests };
    while !stage.dice.0.is_empty() {
        stage.step();
        stage.check();
    }
    stage.world.release_store();
    stage.world.advance(Duration::from_secs(120));
    stage.check();
    stage.world
}

impl Stage<'_> {
    fn step(&mut self) {
        match self.dice.below(16) {
            0 | 1 => self.open(),
            2 | 3 => self.come(),
            4..=6 => self.begin(),
            7 | 8 => self.finish(),
            9 => self.say_pin(),
            10 => self.scan(),
            11 | 12 => self.decide(),
            13 => {
                let seconds = u64::from(self.dice.byte()) / 4;
                self.world.advance(Duration::from_secs(seconds));
            }
            14 => self.mishap(),
            _ => self.babble(),
        }
    }

    /// Each device has a window of its own that explains it.
    fn check(&self) {
        let devices = self.world.store.db.devices.len();
        let explained = self.windows.iter().filter(|window| window.may_have_made_one()).count();
        assert!(
            devices <= explained,
            "{devices} devices, {explained} explained\n{}",
            self.world.trace()
        );
    }

    fn open(&mut self) {
        let confirm = self.dice.below(3) > 0;
        let params = json!({"confirm": confirm, "unlock": true});
        let Ok(opened) = self.world.call(self.owner, "daemon.pairPin", params) else { return };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let payload: Value = serde_json::from_str(&text(&opened["qrPayload"])).unwrap_or_default();
        self.windows.push(Window {
            id: text(&opened["pairingId"]),
            pin: text(&opened["pin"]),
            ticket: text(&payload["ticket"]),
            confirm,
            is_shown: false,
            is_shown_to_ask: false,
            is_accepted: false,
        });
    }

    fn come(&mut self) {
        let last = self.dice.byte();
        let lan = Source::Tcp(IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)));
        let sources = [lan, lan, LOOPBACK, Source::Unix, Source::Relay(None)];
        let source = self.dice.one_of(&sources).unwrap_or(lan);
        let key = self.dice.one_of(&KEYS).flatten();
        let mut phone = self.world.phone(source, key);
        if matches!(source, Source::Unix) || source == LOOPBACK && self.dice.below(2) == 0 {
            phone.client = self.world.stranger(source);
            phone.key = None;
        }
        self.guests.push(Guest { phone, source, run: None });
    }

    fn guest(&mut self) -> Option<usize> {
        let open = self.world.open_links();
        self.guests.retain(|guest| open.contains(&guest.phone.client.conn));
        let at = self.dice.below(self.guests.len());
        (at < self.guests.len()).then_some(at)
    }

    /// A PIN; of the last window if it is right.
    fn pin(&mut self) -> (String, Option<usize>) {
        let last = self.windows.len().checked_sub(1);
        let right = last.map(|at| self.windows[at].pin.clone());
        match (right, self.dice.below(4)) {
            (Some(pin), 1..) => (pin, last),
            _ => {
                let guess = format!("{:06}", u32::from(self.dice.byte()) * 3917);
                let is_lucky = last.filter(|at| self.windows[*at].pin == guess);
                (guess, is_lucky)
            }
        }
    }

    fn begin(&mut self) {
        let Some(at) = self.guest() else { return };
        let (pin, mut window) = self.pin();
        let mut phone = self.guests[at].phone;
        if self.dice.below(5) == 0 {
            // Somebody is in between.
            phone.sees = Fingerprint::of(b"in between");
            window = None;
        }
        if self.guests[at].run.is_none()
            && let Some(run) = phone.try_begin(&mut self.world, &pin)
        {
            self.guests[at].run = Some((run, window));
        }
    }

    fn finish(&mut self) {
        let Some(at) = self.guest() else { return };
        let Some((run, window)) = self.guests[at].run.take() else { return };
        let mut params = run.params();
        let mut is_right = true;
        match self.dice.below(8) {
            0 => {
                params["pairingId"] = json!("another");
                is_right = false;
            }
            1 => {
                params["confirm"] = json!(run.message);
                is_right = false;
            }
            _ => {}
        }
        if let Some(window) = window.filter(|_| is_right) {
            self.windows[window].is_shown_to_ask = true;
        }
        self.world.ask(self.guests[at].phone.client, "device.pairFinish", params);
        self.world.settle();
    }

    fn say_pin(&mut self) {
        let Some(at) = self.guest() else { return };
        let (pin, window) = self.pin();
        let guest = &self.guests[at];
        let is_plain = guest.phone.key.is_none() && guest.is_here();
        if let Some(window) = window.filter(|_| is_plain) {
            self.windows[window].is_shown_to_ask = true;
        }
        let params = json!({"pin": pin, "name": "n"});
        self.world.ask(guest.phone.client, "device.pair", params);
        self.world.settle();
    }

    fn scan(&mut self) {
        let Some(at) = self.guest() else { return };
        let which = self.dice.below(self.windows.len());
        let Some(window) = self.windows.get_mut(which) else { return };
        let mut params = json!({"ticket": window.ticket, "pairingId": window.id, "name": "n"});
        if self.dice.below(4) == 0 {
            params["ticket"] = json!(window.pin);
        } else if matches!(self.guests[at].source, Source::Relay(_)) {
            window.is_shown_to_ask = true;
        } else {
            window.is_shown = true;
        }
        self.world.ask(self.guests[at].phone.client, "device.pair", params);
        self.world.settle();
    }

    fn decide(&mut self) {
        let which = self.dice.below(self.windows.len() + 1);
        let accept = self.dice.below(3) > 0;
        let id = self.windows.get(which).map_or("another", |window| window.id.as_str());
        let params = json!({"pairingId": id, "accept": accept});
        let said = self.world.call(self.owner, "daemon.pairConfirm", params);
        if let Some(window) = self.windows.get_mut(which).filter(|_| said.is_ok()) {
            window.is_accepted |= accept;
        }
    }

    fn mishap(&mut self) {
        match self.dice.below(6) {
            0 => drop(self.world.call(self.owner, "daemon.pairCancel", json!({}))),
            1 => self.world.skew(i64::from(self.dice.byte()) * 2_000),
            2 => {
                let how = self.dice.one_of(&[Crash::Lost, Crash::Done, Crash::Power]);
                self.world.crash(how.unwrap_or(Crash::Lost));
                self.owner = self.world.owner();
            }
            3 => self.world.hold_store(),
            4 => self.world.release_store(),
            _ => {
                if let Some(at) = self.guest() {
                    self.world.hang_up(self.guests[at].phone.client.conn);
                }
            }
        }
    }

    /// Something that is no message of a run, or no answer to one.
    fn babble(&mut self) {
        let Some(at) = self.guest() else { return };
        let len = usize::from(self.dice.byte() % 64);
        let text = String::from_utf8_lossy(self.dice.take(len)).into_owned();
        let client = self.guests[at].phone.client;
        let methods = ["device.pairStart", "device.pairFinish", "device.pair"];
        let method = self.dice.one_of(&methods).unwrap_or("device.pair");
        let params = json!({"message": text, "confirm": text, "pairingId": text, "name": "n",
            "ticket": text});
        self.world.ask(client, method, params);
        self.world.settle();
    }
}

impl Guest {
    fn is_here(&self) -> bool {
        self.source == LOOPBACK || self.source == Source::Unix
    }
}
