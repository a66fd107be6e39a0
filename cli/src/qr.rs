//! QR codes on a terminal.
//!
//! Owns the drawing; refuses to know what is inside. Two modules share a character cell; black on white is said in so many
//! words, so that a dark theme scans as well; four modules of quiet zone, as ISO/IEC 18004 wants.

use qrcode::{Color, EcLevel, QrCode};

use crate::exit::{Exit, Failure};

const QUIET: usize = 4;

/// How a code is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ink {
    /// `▀▄█`, two modules above each other in one cell.
    Blocks,
    /// `##`, one module in two cells.
    Ascii,
}

/// A code, ready to be drawn.
#[derive(Debug)]
pub(crate) struct Drawing {
    /// Side length in modules, quiet zone included.
    side: usize,
    dark: Vec<bool>,
}

impl Drawing {
    pub(crate) fn of(payload: &str) -> Result<Self, Failure> {
        let code = QrCode::with_error_correction_level(payload.as_bytes(), EcLevel::L)
            .map_err(|_| Failure::new(Exit::Failure, "qr", "this does not fit into a QR code"))?;
        let width = code.width();
        let side = width + 2 * QUIET;
        let mut dark = vec![false; side * side];
        for (at, color) in code.to_colors().into_iter().enumerate() {
            let (x, y) = (at % width + QUIET, at / width + QUIET);
            dark[y * side + x] = color == Color::Dark;
        }
        Ok(Self { side, dark })
    }

    /// Columns and lines that it needs.
    pub(crate) const fn size(&self, ink: Ink) -> (usize, usize) {
        match ink {
            Ink::Blocks => (self.side, self.side.div_ceil(2)),
            Ink::Ascii => (self.side * 2, self.side),
        }
    }

    fn is_dark(&self, x: usize, y: usize) -> bool {
        self.dark.get(y * self.side + x).copied().unwrap_or(false)
    }

    /// The lines; with `colour`, in black on white whatever the theme.
    pub(crate) fn lines(&self, ink: Ink, colour: bool) -> Vec<String> {
        let rows = self.size(ink).1;
        (0..rows)
            .map(|row| {
                let cells = (0..self.side).map(|x| match ink {
                    Ink::Blocks => match (self.is_dark(x, 2 * row), self.is_dark(x, 2 * row + 1)) {
                        (true, true) => "█",
                        (true, false) => "▀",
                        (false, true) => "▄",
                        (false, false) => " ",
                    },
                    Ink::Ascii => {
                        if self.is_dark(x, row) {
                            "##"
                        } else {
                            "  "
                        }
                    }
                });
                let line: String = cells.collect();
                if colour { format!("\x1b[38;5;16;48;5;231m{line}\x1b[0m") } else { line }
            })
            .collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Reads a drawn code as a camera would: from the characters on the screen.
    pub(crate) fn read_back(lines: &[String], ink: Ink) -> String {
        let plain = |line: &String| {
            line.trim_start_matches("\x1b[38;5;16;48;5;231m").trim_end_matches("\x1b[0m").to_owned()
        };
        let cells: Vec<Vec<char>> =
            lines.iter().map(|line| plain(line).chars().collect()).collect();
        let is_dark = |x: usize, y: usize| match ink {
            Ink::Ascii => cells[y][2 * x] == '#',
            Ink::Blocks => match cells[y / 2][x] {
                '█' => true,
                '▀' => y.is_multiple_of(2),
                '▄' => y % 2 == 1,
                _ => false,
            },
        };
        let side = match ink {
            Ink::Blocks => cells[0].len(),
            Ink::Ascii => cells.len(),
        };
        let scale = 4;
        let mut image =
            rqrr::PreparedImage::prepare_from_greyscale(side * scale, side * scale, |x, y| {
                if is_dark(x / scale, y / scale) { 0 } else { 255 }
            });
        image.detect_grids()[0].decode().unwrap().1
    }

    #[test]
    fn a_reader_reads_what_was_drawn() {
        for payload in ["x".to_owned(), "{\"v\":1,\"pin\":\"482913\"}".to_owned(), "é".repeat(140)]
        {
            let drawing = Drawing::of(&payload).unwrap();
            for ink in [Ink::Blocks, Ink::Ascii] {
                for colour in [true, false] {
                    assert_eq!(read_back(&drawing.lines(ink, colour), ink), payload);
                }
            }
        }
    }

    #[test]
    fn what_is_too_long_is_refused() {
        assert!(Drawing::of(&"x".repeat(4000)).is_err());
    }
}
