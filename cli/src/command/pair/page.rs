//! What a pairing window shows, and the screen that it is shown on.
//!
//! Invariant (security K3): what is drawn here is on the terminal's alternate screen and nowhere else, and cleared from there
//! when the page is dropped.

use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use clawd_protocol::text::visible_line;

use crate::command::open::quoted;
use crate::exit::{Exit, Failure};
use crate::qr::{Drawing, Ink};
use crate::render::Screen;
use crate::wire::Pairing;

const CLEAR_LINE: &str = "\r\x1b[2K";
const ONLY_HERE: &str = "for programs on this machine only; phones: clawd pair";

/// What a pairing window shows.
#[derive(Debug)]
pub(super) struct Poster {
    drawing: Option<Drawing>,
    ink: Ink,
    is_coloured: bool,
    headline: Vec<String>,
    /// What to type on a device that cannot see the code.
    command: Option<String>,
    pub(super) expires: Instant,
}

impl Poster {
    /// With a code for phones.
    pub(super) fn of(pairing: &Pairing, ascii: bool, screen: &Screen) -> Result<Self, Failure> {
        let label = |at: usize, word: &'static str| if at == 0 { word } else { "" };
        let mut places: Vec<String> = Vec::new();
        for (at, url) in pairing.urls.iter().enumerate() {
            places.push(format!("{:<4} {}", label(at, "at"), visible_line(url)));
        }
        if let Some(relay) = &pairing.relay {
            places.push(format!("via  {}", visible_line(relay)));
        }
        let payload = pairing.payload();
        let drawing = Some(Drawing::of(&payload)?);
        let command = Some(format!("clawd remote pair {}", quoted(&payload)));
        Ok(Self { command, ..Self::with(pairing, drawing, places, ascii, screen) })
    }

    /// With the PIN alone, for programs on this machine.
    pub(super) fn local(pairing: &Pairing, url: &str, screen: &Screen) -> Self {
        let places = vec![format!("at   {url}"), ONLY_HERE.to_owned()];
        Self::with(pairing, None, places, false, screen)
    }

    fn with(
        pairing: &Pairing,
        drawing: Option<Drawing>,
        places: Vec<String>,
        ascii: bool,
        screen: &Screen,
    ) -> Self {
        let ink = ink(ascii, screen);
        let pin = format!("PIN  {}", screen.out.bold(&pairing.grouped_pin()));
        Self {
            drawing,
            ink,
            is_coloured: is_coloured(ink, screen),
            headline: std::iter::once(pin).chain(places).collect(),
            command: None,
            expires: Instant::now() + Duration::from_secs(pairing.expires_in_seconds),
        }
    }

    /// Whether the code fits into the window with all that stands beside it.
    pub(super) fn check_size(&self, window: (usize, usize)) -> Result<(), Failure> {
        let Some(drawing) = &self.drawing else { return Ok(()) };
        // Below it are what has happened and the countdown.
        check_size(drawing, self.ink, self.headline.len() + 2, window)
    }

    /// There is a code, which can be shown as text as well.
    pub(super) const fn has_text(&self) -> bool {
        self.command.is_some()
    }

    /// As much as fits: half a QR code is none, and the PIN must not be pushed off the screen by it.
    pub(super) fn lines(&self, window: (usize, usize)) -> Vec<String> {
        let code = match (&self.drawing, self.check_size(window)) {
            (Some(drawing), Ok(())) => drawing.lines(self.ink, self.is_coloured),
            (_, Err(failure)) => vec![format!("({})", failure.message)],
            (None, Ok(())) => Vec::new(),
        };
        [self.headline.clone(), code].concat()
    }

    /// The same for a device at which it is pasted: in one piece, so that it can be copied.
    pub(super) fn text(&self) -> Vec<String> {
        let command = self.command.clone().unwrap_or_default();
        let text = ["On the other device:".to_owned(), String::new(), command, String::new()];
        [self.headline.as_slice(), &text].concat()
    }
}

/// What to draw with: half blocks, unless the user or the locale says otherwise.
pub(in crate::command) fn ink(ascii: bool, screen: &Screen) -> Ink {
    if ascii || !screen.out.utf8 { Ink::Ascii } else { Ink::Blocks }
}

/// Black on white needs saying even to those who want no colours: without it dark themes show a negative.
const fn is_coloured(ink: Ink, screen: &Screen) -> bool {
    matches!(ink, Ink::Blocks) || screen.out.colour
}

/// Columns and rows of the terminal.
pub(in crate::command) fn window() -> (usize, usize) {
    rustix::termios::tcgetwinsize(io::stdout())
        .map(|size| (usize::from(size.ws_col), usize::from(size.ws_row)))
        .ok()
        .filter(|&(columns, rows)| columns > 0 && rows > 0)
        .unwrap_or((100, 50))
}

/// Whether a code fits into the window, with so many lines beside it.
pub(in crate::command) fn check_size(
    drawing: &Drawing,
    ink: Ink,
    beside: usize,
    (columns, rows): (usize, usize),
) -> Result<(), Failure> {
    let (needed, lines) = drawing.size(ink);
    let lines = lines + beside;
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
#[derive(Debug)]
pub(in crate::command) struct Page(io::Stdout);

impl Page {
    pub(in crate::command) fn open(screen: &Screen) -> Result<Self, Failure> {
        debug_assert!(screen.is_tty);
        let mut page = Self(io::stdout());
        page.write("\x1b[?1049h")?;
        page.draw(&[])?;
        Ok(page)
    }

    /// Draws all anew, from the top; the cursor is below.
    pub(in crate::command) fn draw(&mut self, lines: &[String]) -> Result<(), Failure> {
        let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        self.write(&format!("\x1b[2J\x1b[H{lines}"))
    }

    pub(super) fn last_line(&mut self, line: &str) -> Result<(), Failure> {
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
    use crate::command::typed;
    use crate::qr::tests::read_back;
    use clawd_protocol::access::token::mint_local;
    use serde_json::{Value, json};

    #[test]
    fn d7_what_a_qr_code_holds_by_default_is_short_lived() {
        let token = mint_local([7; 32]);
        let answer = json!({
            "pin": "482913", "expires_in_seconds": 300,
            "qrPayload": {"v": 1, "daemonId": "d-1", "ticket": "t", "url": "wss://192.0.2.2:4300",
                          "exp": 1_795_000_000},
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
        assert!(check_size(&drawing, Ink::Blocks, 4, (29, 19)).is_ok());
        assert!(check_size(&drawing, Ink::Blocks, 4, (29, 18)).is_err());
        assert!(check_size(&drawing, Ink::Blocks, 5, (29, 19)).is_err());
        let failure = check_size(&drawing, Ink::Ascii, 4, (57, 99)).unwrap_err();
        assert!(failure.message.contains("58x33"), "{}", failure.message);
    }
}
