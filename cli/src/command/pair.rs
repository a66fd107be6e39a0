//! `pair` and `token qr`: a pairing window, shown until a device has come through it.
//!
//! Invariant (security K3): PIN and QR code are drawn on the terminal's alternate screen and nowhere else; however the
//! command ends, that screen is cleared.

use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use clawd_protocol::text::visible_line;
use serde_json::{Map, Value, json};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::typed;
use crate::args::Pair as Args;
use crate::connection::{Connection, Event, Woken};
use crate::exit::{Exit, Failure};
use crate::home::Home;
use crate::interrupts::Interrupts;
use crate::qr::{Drawing, Ink};
use crate::render::Screen;
use crate::render::style::Mark;
use crate::wire::Pairing;

const CLEAR_LINE: &str = "\r\x1b[2K";
const ONLY_HERE: &str = "for programs on this machine only: phones cannot reach it yet";
/// Above and below a code: PIN, address, a remark and the countdown.
const LINES_BESIDE: usize = 4;

/// `pair`: the PIN, and a QR code where there is room for it.
pub(super) fn pair(home: &Home, screen: &Screen, args: &Args) -> Result<Exit, Failure> {
    let mut daemon = home.connect()?;
    let mut params = Map::new();
    if let Some(role) = args.role {
        params.insert("role".to_owned(), role.word().into());
    }
    if args.unlock {
        params.insert("unlock".to_owned(), true.into());
    }
    let answer = daemon.call("daemon.pairPin", params)?;
    if screen.is_json() {
        screen.json(&answer)?;
        return Ok(Exit::Ok);
    }
    let pairing: Pairing = typed(&answer)?;
    if !screen.is_tty {
        screen.say(ONLY_HERE);
        screen.line(&pairing.payload())?;
        return Ok(Exit::Ok);
    }
    show_until_paired(&mut daemon, screen, &Poster::of(&pairing, args.ascii, screen)?)
}

/// `token qr`: the same, for those who want the QR code.
pub(super) fn qr(home: &Home, screen: &Screen, ascii: bool) -> Result<Exit, Failure> {
    let mut daemon = home.connect()?;
    let answer = daemon.call("daemon.pairPin", json!({}))?;
    let pairing: Pairing = typed(&answer)?;
    if screen.is_json() || !screen.is_tty {
        screen.line(&pairing.payload())?;
        return Ok(Exit::Ok);
    }
    let poster = Poster::of(&pairing, ascii, screen)?;
    if let Err(failure) = check_size(&poster.drawing, poster.ink, window()) {
        daemon.call("daemon.pairCancel", json!({}))?;
        return Err(failure);
    }
    show_until_paired(&mut daemon, screen, &poster)
}

/// What a pairing window shows.
struct Poster {
    drawing: Drawing,
    ink: Ink,
    is_coloured: bool,
    headline: Vec<String>,
    expires: Instant,
}

impl Poster {
    fn of(pairing: &Pairing, ascii: bool, screen: &Screen) -> Result<Self, Failure> {
        let ink = ink(ascii, screen);
        let headline = vec![
            format!("PIN  {}", screen.out.bold(&pairing.grouped_pin())),
            format!("at   {}", visible_line(&pairing.url)),
            ONLY_HERE.to_owned(),
        ];
        Ok(Self {
            drawing: Drawing::of(&pairing.payload())?,
            ink,
            is_coloured: is_coloured(ink, screen),
            headline,
            expires: Instant::now() + Duration::from_secs(pairing.expires_in_seconds),
        })
    }

    /// As much as fits: half a QR code is none, and the PIN must not be pushed off the screen by it.
    fn lines(&self, window: (usize, usize)) -> Vec<String> {
        let code = match check_size(&self.drawing, self.ink, window) {
            Ok(()) => self.drawing.lines(self.ink, self.is_coloured),
            Err(failure) => vec![format!("({})", failure.message)],
        };
        [self.headline.clone(), code].concat()
    }
}

fn show_until_paired(
    daemon: &mut Connection,
    screen: &Screen,
    poster: &Poster,
) -> Result<Exit, Failure> {
    let mut signals = signals()?;
    let mut page = Page::open(screen)?;
    let outcome = wait(daemon, &mut page, &mut signals, poster);
    drop(page);
    match outcome? {
        Outcome::Paired { id, name, platform, role } => {
            let role =
                role.map_or_else(String::new, |role| format!(", role: {}", visible_line(&role)));
            screen.note(
                Mark::Ok,
                &format!(
                    "paired \"{}\" ({}){role}      undo: clawd device revoke {}",
                    visible_line(&name),
                    visible_line(&platform),
                    visible_line(&id)
                ),
            );
            Ok(Exit::Ok)
        }
        Outcome::Expired => {
            Err(Failure::new(Exit::Failure, "expired", "nobody came before the PIN expired")
                .hint("show a new one with `clawd pair`"))
        }
        Outcome::Closed(why) => Err(Failure::new(
            Exit::Failure,
            "pairing_closed",
            format!("the pairing window was closed: {}", visible_line(&why)),
        )
        .hint("show a new PIN with `clawd pair`")),
        Outcome::Interrupted => {
            daemon.call("daemon.pairCancel", json!({}))?;
            screen.say("the pairing window is closed");
            Ok(Exit::Interrupted)
        }
    }
}

enum Outcome {
    Paired { id: String, name: String, platform: String, role: Option<String> },
    Expired,
    Closed(String),
    Interrupted,
}

fn wait(
    daemon: &mut Connection,
    page: &mut Page,
    signals: &mut Interrupts,
    poster: &Poster,
) -> Result<Outcome, Failure> {
    let mut state = String::new();
    let mut drawn = None;
    loop {
        let left = poster.expires.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Outcome::Expired);
        }
        // Looked at each second: a window that was made larger shows the code.
        let now = window();
        if drawn != Some(now) {
            page.draw(&poster.lines(now))?;
            drawn = Some(now);
        }
        let (minutes, seconds) = (left.as_secs() / 60, left.as_secs() % 60);
        page.last_line(&format!("expires in {minutes}:{seconds:02}   Ctrl-C to stop{state}"))?;
        let tick = poster.expires.min(Instant::now() + Duration::from_secs(1));
        match daemon.wait(&[signals.as_fd()], Some(tick))? {
            Woken::Other(_) if signals.take() > 0 => return Ok(Outcome::Interrupted),
            Woken::Event(event) => match understand(&event) {
                Progress::Over(outcome) => return Ok(outcome),
                Progress::State(new) => state = format!("   ! {new}"),
                Progress::Other => {}
            },
            Woken::Other(_) | Woken::Answer(..) | Woken::Timeout => {}
        }
    }
}

enum Progress {
    Over(Outcome),
    State(String),
    Other,
}

fn understand(event: &Event) -> Progress {
    let text =
        |key: &str| event.params.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    match event.method.as_str() {
        "device.paired" => Progress::Over(Outcome::Paired {
            id: text("device_id"),
            name: text("name"),
            platform: text("platform"),
            role: event.params.get("role").and_then(Value::as_str).map(str::to_owned),
        }),
        "pairing.progress" => match text("state").as_str() {
            "expired" => Progress::Over(Outcome::Expired),
            "closed" | "cancelled" | "declined" | "failed" => {
                Progress::Over(Outcome::Closed(text("detail")))
            }
            state => {
                let detail = text("detail");
                let line = if detail.is_empty() { state } else { &detail };
                Progress::State(visible_line(line).into_owned())
            }
        },
        _ => Progress::Other,
    }
}

/// Everything that would end the process and leave a secret on the screen.
pub(super) fn signals() -> Result<Interrupts, Failure> {
    Interrupts::catch(&[SIGINT, SIGTERM, SIGHUP])
}

/// What to draw with: half blocks, unless the user or the locale says otherwise.
pub(super) fn ink(ascii: bool, screen: &Screen) -> Ink {
    if ascii || !screen.out.utf8 { Ink::Ascii } else { Ink::Blocks }
}

/// Black on white needs saying even to those who want no colours: without it dark themes show a negative.
const fn is_coloured(ink: Ink, screen: &Screen) -> bool {
    matches!(ink, Ink::Blocks) || screen.out.colour
}

/// Columns and rows of the terminal.
pub(super) fn window() -> (usize, usize) {
    rustix::termios::tcgetwinsize(io::stdout())
        .map(|size| (usize::from(size.ws_col), usize::from(size.ws_row)))
        .ok()
        .filter(|&(columns, rows)| columns > 0 && rows > 0)
        .unwrap_or((100, 50))
}

/// Whether the code fits into the window, with the lines that stand beside it.
pub(super) fn check_size(
    drawing: &Drawing,
    ink: Ink,
    (columns, rows): (usize, usize),
) -> Result<(), Failure> {
    let (needed, lines) = drawing.size(ink);
    let lines = lines + LINES_BESIDE;
    if needed <= columns && lines <= rows {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Failure,
        "small",
        format!("a QR code needs {needed}x{lines} characters, the window has {columns}x{rows}"),
    )
    .hint("make it larger, or use `clawd pair` and type the PIN"))
}

/// The terminal's alternate screen, which leaves nothing in the scrollback.
pub(super) struct Page(io::Stdout);

impl Page {
    pub(super) fn open(screen: &Screen) -> Result<Self, Failure> {
        debug_assert!(screen.is_tty);
        let mut page = Self(io::stdout());
        page.write("\x1b[?1049h")?;
        page.draw(&[])?;
        Ok(page)
    }

    /// Draws all anew, from the top; the cursor is below.
    pub(super) fn draw(&mut self, lines: &[String]) -> Result<(), Failure> {
        let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        self.write(&format!("\x1b[2J\x1b[H{lines}"))
    }

    fn last_line(&mut self, line: &str) -> Result<(), Failure> {
        self.write(&format!("{CLEAR_LINE}{line}"))
    }

    fn write(&mut self, text: &str) -> Result<(), Failure> {
        self.0
            .write_all(text.as_bytes())
            .and_then(|()| self.0.flush())
            .map_err(|error| Failure::io("cannot draw", &error))
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = self.write("\x1b[2J\x1b[3J\x1b[H\x1b[?1049l");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qr::tests::read_back;
    use clawd_protocol::access::token::mint_local;

    #[test]
    fn d7_what_a_qr_code_holds_by_default_is_short_lived() {
        let token = mint_local([7; 32]);
        let answer = json!({
            "pin": "482913", "expires_in_seconds": 300,
            "qrPayload": {"v": 1, "daemonId": "d-1", "pin": "482913", "url": "ws://127.0.0.1:4300",
                          "expiresAt": "2026-11-22T10:40:00.000Z"},
        });
        let pairing: Pairing = typed(&answer).unwrap();
        assert_eq!(pairing.grouped_pin(), "482 913");
        let drawing = Drawing::of(&pairing.payload()).unwrap();
        let read = read_back(&drawing.lines(Ink::Blocks, true), Ink::Blocks);
        assert_eq!(serde_json::from_str::<Value>(&read).unwrap(), answer["qrPayload"]);
        assert!(!read.contains("clawd_l_") && !read.contains("clawd_d_"));
        assert!(!read.contains(token.expose()));
    }

    #[test]
    fn a_small_window_is_refused_with_a_hint() {
        let drawing = Drawing::of("x").unwrap();
        assert!(check_size(&drawing, Ink::Blocks, (29, 19)).is_ok());
        assert!(check_size(&drawing, Ink::Blocks, (29, 18)).is_err());
        let failure = check_size(&drawing, Ink::Ascii, (57, 99)).unwrap_err();
        assert!(failure.message.contains("58x33"), "{}", failure.message);
    }

    #[test]
    fn events_of_a_window_are_understood() {
        let event = |method: &str, params| Event { method: method.to_owned(), params };
        let paired =
            event("device.paired", json!({"device_id": "a", "name": "n", "platform": "p"}));
        assert!(matches!(understand(&paired), Progress::Over(Outcome::Paired { .. })));
        let wrong = event("pairing.progress", json!({"state": "wrong", "detail": "2\u{1b}left"}));
        assert!(matches!(understand(&wrong), Progress::State(line) if line == r"2\u{1b}left"));
        assert!(matches!(understand(&event("session.created", json!({}))), Progress::Other));
    }
}
