//! `token show|qr|rotate|path`.

use std::io::{self, Write as _};

use serde_json::json;

use super::{confirm, pair};
use crate::args::{Global, Token as Args};
use crate::daemon;
use crate::exit::{Exit, Failure};
use crate::home::{self, Home};
use crate::interrupts::Interrupts;
use crate::qr::Drawing;
use crate::render::Screen;
use crate::render::style::Mark;

/// `token …`.
pub(super) fn token(global: &Global, screen: &Screen, args: &Args) -> Result<Exit, Failure> {
    match args {
        Args::Path => {
            let path = home::data_dir(global)?.join(daemon::TOKEN).display().to_string();
            if screen.is_json() {
                screen.json(&json!({"path": path}))?;
            } else {
                screen.line(&path)?;
            }
        }
        Args::Show => show(&Home::of(global)?, screen)?,
        Args::Rotate => rotate(&Home::of(global)?, screen)?,
        Args::Qr { token: true, yes, ascii } => {
            let home = Home::of(global)?;
            confirm("Anyone who photographs this owns your machine. Continue?", *yes)?;
            draw_token(&home, screen, *ascii)?;
        }
        Args::Qr { token: false, ascii, .. } => {
            return pair::qr(&Home::of(global)?, screen, *ascii);
        }
    }
    Ok(Exit::Ok)
}

/// The token and a newline, and nothing else (security K3).
fn show(home: &Home, screen: &Screen) -> Result<(), Failure> {
    let token = home.token()?;
    if screen.is_json() {
        return screen.json(&json!({"token": token.expose()}));
    }
    screen.line(token.expose())
}

fn rotate(home: &Home, screen: &Screen) -> Result<(), Failure> {
    let was_running = match home.connect() {
        Ok(mut daemon) => {
            daemon.call("daemon.rotateToken", json!({}))?;
            true
        }
        Err(failure) if failure.kind == "not_running" => {
            home.token()?;
            daemon::rotate(&home.dir)?;
            false
        }
        Err(failure) => return Err(failure),
    };
    if screen.is_json() {
        return screen.json(&json!({"rotated": true, "disconnected": was_running}));
    }
    let who = if was_running {
        "; every client that used the old one was disconnected"
    } else {
        "; the old one is worthless"
    };
    screen.note(Mark::Ok, &format!("the token was replaced{who}"));
    Ok(())
}

/// The local token as a QR code, until Enter or Ctrl-C. Off a terminal: the text that would be in it.
fn draw_token(home: &Home, screen: &Screen, ascii: bool) -> Result<(), Failure> {
    let token = home.token()?;
    if !screen.is_tty {
        return screen.line(token.expose());
    }
    let drawing = Drawing::of(token.expose())?;
    let ink = pair::ink(ascii, screen);
    pair::check_size(&drawing, ink, 1, pair::window())?;
    let mut signals = pair::signals()?;
    let mut page = pair::Page::open(screen)?;
    let mut lines = drawing.lines(ink, screen.out.colour || !ascii);
    lines.push("This is the local token itself. Press Enter to hide it.".to_owned());
    page.draw(&lines)?;
    wait_for_enter(&mut signals)
}

fn wait_for_enter(signals: &mut Interrupts) -> Result<(), Failure> {
    use rustix::event::{PollFd, PollFlags};
    let stdin = io::stdin();
    let _ = io::stdout().flush();
    loop {
        let mut fds = [PollFd::new(&stdin, PollFlags::IN), PollFd::new(&*signals, PollFlags::IN)];
        match rustix::event::poll(&mut fds, None) {
            Ok(_) => break,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Failure::io("cannot wait", &error.into())),
        }
    }
    if signals.take() == 0 {
        let mut line = String::new();
        let _ = stdin.read_line(&mut line);
    }
    Ok(())
}
