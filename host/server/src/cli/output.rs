//! What commands print: tables for people, JSON for programs, and nothing of a guest's that a terminal would obey.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use console::{Term, measure_text_width, truncate_str};
use serde::Serialize;
use wharf_core::time::Timestamp;

use super::spread::spread;

/// A table with aligned columns. On a terminal, rows are cut at its edge.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(headings: &[&str]) -> Table {
        Table { rows: vec![headings.iter().map(|&heading| heading.to_owned()).collect()] }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into_iter().map(|cell| harmless(&cell).replace('\n', " ")).collect());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    pub(crate) fn print(&self) -> io::Result<()> {
        let out = io::stdout();
        let width =
            out.is_terminal().then(|| Term::stdout().size_checked()).flatten().map(|(_, columns)| usize::from(columns));
        self.write(&mut out.lock(), width)
    }

    fn write(&self, to: &mut impl Write, width: Option<usize>) -> io::Result<()> {
        let columns = self.rows[0].len();
        let widest = |column: usize| self.rows.iter().map(|row| measure_text_width(&row[column])).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(widest).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                line.push_str(cell);
                if column + 1 < columns {
                    line.push_str(&" ".repeat(widths[column] - measure_text_width(cell) + 2));
                }
            }
            let line = line.trim_end();
            let cut = width.map_or(Cow::Borrowed(line), |width| truncate_str(line, width, "…"));
            writeln!(to, "{cut}")?;
        }
        Ok(())
    }
}

/// A table whose rows are printed as they come, so that all columns but the last have their width beforehand.
#[derive(Debug)]
pub(crate) struct Columns<const N: usize> {
    widths: [usize; N],
}

impl<const N: usize> Columns<N> {
    pub(crate) fn new(widths: [usize; N]) -> Columns<N> {
        Columns { widths }
    }

    /// One row: a cell for each width, and one more.
    pub(crate) fn print<const M: usize>(&self, cells: [&str; M]) -> io::Result<()> {
        let mut line = String::new();
        for (column, cell) in cells.into_iter().enumerate() {
            let cell = harmless(cell).replace('\n', " ");
            line.push_str(&cell);
            if let Some(width) = self.widths.get(column) {
                line.push_str(&" ".repeat(width.saturating_sub(measure_text_width(&cell)) + 2));
            }
        }
        let out = io::stdout();
        let width =
            out.is_terminal().then(|| Term::stdout().size_checked()).flatten().map(|(_, columns)| usize::from(columns));
        let line = line.trim_end();
        writeln!(out.lock(), "{}", width.map_or(Cow::Borrowed(line), |width| truncate_str(line, width, "…")))
    }
}

/// JSON, spread out for people where one looks.
pub(crate) fn print_json(value: &(impl Serialize + ?Sized)) -> anyhow::Result<()> {
    // Written by ourselves: serde_json would hide that the reader has closed its end.
    let text = serde_json::to_string(value)?;
    let mut text = if io::stdout().is_terminal() { spread(&text) } else { text };
    text.push('\n');
    Ok(print_bytes(text.as_bytes())?)
}

/// One line on the standard output.
pub(crate) fn print_line(line: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{line}")
}

/// Bytes on the standard output, as they are.
pub(crate) fn print_bytes(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    // A prompt belongs on a line of its own; a file gets what was returned and no more.
    if out.is_terminal() && bytes.last().is_some_and(|last| *last != b'\n') {
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// A guest's text without what a terminal would obey: escape sequences, and control characters but tab and newline.
pub(crate) fn harmless(text: &str) -> Cow<'_, str> {
    let bad = |c: char| c.is_control() && c != '\n' && c != '\t';
    if text.contains(bad) {
        Cow::Owned(text.chars().map(|c| if bad(c) { char::REPLACEMENT_CHARACTER } else { c }).collect())
    } else {
        Cow::Borrowed(text)
    }
}

/// How long ago a moment was: "12s", "5m", "3h", "2d".
pub(crate) fn age(moment: Timestamp, now: Timestamp) -> String {
    match now.since(moment).as_secs() {
        seconds @ 0..=119 => format!("{seconds}s"),
        seconds @ 120..=7199 => format!("{}m", seconds / 60),
        seconds @ 7200..=172_799 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// A number of milliseconds for people.
pub(crate) fn millis(ms: f64) -> String {
    match ms {
        ms if ms < 10.0 => format!("{ms:.2} ms"),
        ms if ms < 1000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.2} s", ms / 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(table: &Table, width: Option<usize>) -> String {
        let mut out = Vec::new();
        table.write(&mut out, width).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_align_by_what_is_seen() {
        let mut table = Table::new(&["KEY", "STATE"]);
        table.row(["größe".to_owned(), "waiting".to_owned()]);
        table.row(["日本".to_owned(), "running".to_owned()]);
        assert_eq!(written(&table, None), "KEY    STATE\ngröße  waiting\n日本   running\n");
        assert_eq!(written(&table, Some(9)), "KEY    S…\ngröße  w…\n日本   r…\n");
    }

    #[test]
    fn what_a_terminal_would_obey_is_made_harmless() {
        assert_eq!(harmless("\x1b[2Jgone\tx\n"), "\u{fffd}[2Jgone\tx\n");
        assert!(matches!(harmless("plain"), Cow::Borrowed(_)));
    }

    #[test]
    fn ages_have_one_unit() {
        let now = Timestamp::from_millis(1_000_000_000);
        let ago = |seconds: u64| age(now - std::time::Duration::from_secs(seconds), now);
        assert_eq!([ago(5), ago(300), ago(7200), ago(200_000)], ["5s", "5m", "2h", "2d"]);
    }
}
