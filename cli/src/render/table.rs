//! Rows and columns: aligned for people, tab-separated for programs.
//!
//! Invariant: a cell never leaves its column, whoever chose its text: cells pass `text::visible_line`.

use std::cmp::Reverse;

use clawd_protocol::text::visible_line;

use super::style::Style;

/// A table. The cell that may be cut to the terminal's width is the widest of those marked so.
#[derive(Debug)]
pub(crate) struct Table {
    headers: Vec<&'static str>,
    /// Which columns may be cut.
    cuttable: Vec<bool>,
    /// Which columns people can do without in a narrow window; the last goes first.
    dispensable: Vec<bool>,
    rows: Vec<Vec<Cell>>,
}

/// A cell: what people see, and what programs get.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    shown: String,
    full: String,
    /// So many characters of `shown` stand out, the rest is dim.
    bright: Option<usize>,
}

impl Cell {
    /// The same for people and programs.
    pub(crate) fn text(text: &str) -> Self {
        Self::both(text, text)
    }

    /// Short for people, full for programs.
    pub(crate) fn both(shown: &str, full: &str) -> Self {
        Self {
            shown: visible_line(shown).into_owned(),
            full: visible_line(full).into_owned(),
            bright: None,
        }
    }

    /// What has passed `text::visible_line` already.
    pub(crate) fn safe(shown: &str) -> Self {
        Self { shown: shown.to_owned(), full: shown.to_owned(), bright: None }
    }

    /// An id whose first `unique` characters are enough.
    pub(crate) fn id(id: &str, unique: usize) -> Self {
        let shown: String = id.chars().take(unique.max(8)).collect();
        Self { bright: Some(unique), ..Self::both(&shown, id) }
    }
}

impl Table {
    /// Headers that end in `…` may be cut, those that end in `?` left out where there is no room.
    pub(crate) fn new(headers: &[&'static str]) -> Self {
        Self {
            cuttable: headers.iter().map(|header| header.ends_with('…')).collect(),
            dispensable: headers.iter().map(|header| header.ends_with('?')).collect(),
            headers: headers.iter().map(|header| header.trim_end_matches(['…', '?'])).collect(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// One line per row, full values, tabs between, no header. A column without a name is for the eye only.
    pub(crate) fn tabbed(&self) -> String {
        let line = |row: &Vec<Cell>| {
            let named = row.iter().zip(&self.headers).filter(|(_, header)| !header.is_empty());
            named.map(|(cell, _)| cell.full.as_str()).collect::<Vec<_>>().join("\t") + "\n"
        };
        self.rows.iter().map(line).collect()
    }

    /// Aligned, two spaces between, within `columns` if ids and numbers allow it.
    pub(crate) fn aligned(&self, style: Style, columns: usize, with_headers: bool) -> String {
        let widths = self.widths(columns, with_headers);
        let mut out = String::new();
        if with_headers {
            let cells = self.headers.iter().zip(&widths);
            let line: Vec<String> = cells
                .filter_map(|(header, width)| Some((header, (*width)?)))
                .map(|(header, width)| format!("{header:<width$}"))
                .collect();
            out.push_str(&style.dim(line.join("  ").trim_end()));
            out.push('\n');
        }
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let Some(width) = *width else { continue };
                let shown = cut(&cell.shown, width);
                let padding = " ".repeat(width.saturating_sub(shown.chars().count()) + 2);
                match cell.bright.map(|bright| shown.chars().take(bright).collect::<String>()) {
                    Some(bright) => {
                        line.push_str(&style.bold(&bright));
                        line.push_str(&style.dim(shown.get(bright.len()..).unwrap_or_default()));
                    }
                    None => line.push_str(&shown),
                }
                line.push_str(&padding);
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }

    /// Nothing for a column that is left out.
    fn widths(&self, columns: usize, with_headers: bool) -> Vec<Option<usize>> {
        let mut widths: Vec<Option<usize>> = (0..self.headers.len())
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                let widest = cells.map(|cell| cell.shown.chars().count()).max().unwrap_or(0);
                let header = if with_headers { self.headers[column].chars().count() } else { 0 };
                Some(widest.max(header))
            })
            .collect();
        loop {
            let whole: usize = widths.iter().flatten().map(|width| width + 2).sum();
            let surplus = whole.saturating_sub(columns + 2);
            let widest = (0..widths.len())
                .filter(|&column| self.cuttable[column])
                .max_by_key(|&column| (widths[column], Reverse(column)));
            let spare = widest.and_then(|column| widths[column]).unwrap_or(0).saturating_sub(8);
            let dispensed = (0..widths.len())
                .rfind(|&column| self.dispensable[column] && widths[column].is_some());
            match dispensed {
                Some(column) if surplus > spare => widths[column] = None,
                Some(_) | None => {
                    if let Some(width) = widest.and_then(|column| widths[column].as_mut()) {
                        *width -= surplus.min(spare);
                    }
                    return widths;
                }
            }
        }
    }
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let text: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{}…", text.trim_end())
}

/// How many characters of `id` tell it from all others; at least four.
pub(crate) fn unique_len<'a>(id: &str, all: impl Iterator<Item = &'a str>) -> usize {
    let shared = |other: &str| id.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
    all.filter(|&other| other != id).map(|other| shared(other) + 1).max().unwrap_or(0).max(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Style = Style { colour: false, utf8: true };

    fn table() -> Table {
        let mut table = Table::new(&["ID", "NAME…", "SEEN"]);
        table.row(vec![Cell::id("abcdefghij", 4), Cell::text("desk's phone"), Cell::text("now")]);
        table.row(vec![Cell::text("b"), Cell::text("two\nlines\tand more"), Cell::text("3d ago")]);
        table
    }

    #[test]
    fn people_get_columns_within_their_terminal() {
        assert_eq!(
            table().aligned(PLAIN, 40, true),
            "ID        NAME                    SEEN\n\
             abcdefgh  desk's phone            now\n\
             b         two\\u{a}lines\\u{9}and…  3d ago\n"
        );
        let widest = table().aligned(PLAIN, 30, true);
        assert!(widest.lines().all(|line| line.chars().count() <= 30), "{widest}");
    }

    #[test]
    fn a_narrow_window_goes_without_what_can_be_spared() {
        let mut table = Table::new(&["ID", "AGENT?", "TITLE…", "CHANGED?"]);
        table.row(["7f3a", "claude", "a rather long title", "3m ago"].map(Cell::text).into());
        assert!(table.aligned(PLAIN, 40, true).starts_with("ID    AGENT   TITLE"));
        let narrow = table.aligned(PLAIN, 24, true);
        assert_eq!(narrow, "ID    AGENT   TITLE\n7f3a  claude  a rather…\n");
        assert_eq!(table.aligned(PLAIN, 15, false), "7f3a  a rather…\n");
    }

    #[test]
    fn programs_get_tabs_and_full_values() {
        assert_eq!(
            table().tabbed(),
            "abcdefghij\tdesk's phone\tnow\nb\ttwo\\u{a}lines\\u{9}and more\t3d ago\n"
        );
    }

    #[test]
    fn ids_are_as_long_as_they_must_be() {
        let all = ["7f3a11", "7f3a12", "b21c00"];
        assert_eq!(unique_len("7f3a11", all.into_iter()), 6);
        assert_eq!(unique_len("b21c00", all.into_iter()), 4);
    }
}
