//! The output of commands: tables for users, JSON for programs. On a terminal, and in all that people read, text of others is
//! escaped; what a guest returns goes into a file or a pipe unchanged.

mod escape;
mod spread;

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use console::{Term, measure_text_width, truncate_str};
use serde::Serialize;
use wharf_core::time::Timestamp;

pub(crate) use escape::{escape_json, escape_line, escape_text};
pub(crate) use spread::spread;

use escape::escape_bytes;

/// A table with aligned columns. On a terminal, rows are cut off at its edge.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(headings: &[&str]) -> Table {
        Table { rows: vec![headings.iter().map(|&heading| heading.to_owned()).collect()] }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into_iter().map(|cell| escape_line(&cell).into_owned()).collect());
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

/// A table whose rows are printed one by one. The widths of all columns but the last are fixed in advance.
#[derive(Debug)]
pub(crate) struct StreamTable<const N: usize> {
    widths: [usize; N],
}

impl<const N: usize> StreamTable<N> {
    pub(crate) fn new(widths: [usize; N]) -> StreamTable<N> {
        StreamTable { widths }
    }

    /// Prints one row: a cell for each width, and one more.
    pub(crate) fn print<const M: usize>(&self, cells: [&str; M]) -> io::Result<()> {
        let mut line = String::new();
        for (column, cell) in cells.into_iter().enumerate() {
            let cell = escape_line(cell);
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

/// Prints JSON, laid out over many lines if the standard output is a terminal.
pub(crate) fn print_json(value: &(impl Serialize + ?Sized)) -> anyhow::Result<()> {
    // Serialized into memory first: serde_json would hide that the reader has closed the pipe.
    let text = serde_json::to_string(value)?;
    let mut text = if io::stdout().is_terminal() { escape_json(&spread(&text)).into_owned() } else { text };
    text.push('\n');
    Ok(print_bytes(text.as_bytes())?)
}

/// Prints a JSON document on one line.
pub(crate) fn print_json_line(json: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let shown = if out.is_terminal() { escape_json(json) } else { json.into() };
    writeln!(out, "{shown}")
}

/// Prints text for people on the standard output, escaped.
pub(crate) fn print_line(line: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{}", escape_text(line))
}

/// Writes bytes to the standard output: unchanged into a file or a pipe, escaped on a terminal, which would obey them.
pub(crate) fn print_bytes(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if !out.is_terminal() {
        out.write_all(bytes)?;
        return out.flush();
    }
    out.write_all(escape_bytes(bytes).as_bytes())?;
    // The next prompt gets a line of its own.
    if bytes.last().is_some_and(|last| *last != b'\n') {
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// Returns how long ago `moment` was, in one unit: "12s", "5m", "3h", "2d".
pub(crate) fn age(moment: Timestamp, now: Timestamp) -> String {
    match now.since(moment).as_secs() {
        seconds @ 0..=119 => format!("{seconds}s"),
        seconds @ 120..=7199 => format!("{}m", seconds / 60),
        seconds @ 7200..=172_799 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// Formats a number of milliseconds for users.
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
    fn columns_align_by_their_visible_width() {
        let mut table = Table::new(&["KEY", "STATE"]);
        table.row(["größe".to_owned(), "waiting".to_owned()]);
        table.row(["日本".to_owned(), "running".to_owned()]);
        assert_eq!(written(&table, None), "KEY    STATE\ngröße  waiting\n日本   running\n");
        assert_eq!(written(&table, Some(9)), "KEY    S…\ngröße  w…\n日本   r…\n");
    }

    #[test]
    fn a_cell_is_one_line_and_forges_no_other() {
        let mut table = Table::new(&["KEY", "STATE"]);
        table.row(["a\nb\x1b[2J".to_owned(), "\u{202e}x".to_owned()]);
        assert_eq!(written(&table, None), "KEY            STATE\na\\nb\\u{1b}[2J  \\u{202e}x\n");
    }

    #[test]
    fn ages_have_one_unit() {
        let now = Timestamp::from_millis(1_000_000_000);
        let ago = |seconds: u64| age(now - std::time::Duration::from_secs(seconds), now);
        assert_eq!([ago(5), ago(300), ago(7200), ago(200_000)], ["5s", "5m", "2h", "2d"]);
    }
}
