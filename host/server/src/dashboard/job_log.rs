//! The log of a job: its lines, chunks and progress.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::StreamExt as _;
use maud::{Markup, html};
use wharf_core::ids::JobId;
use wharf_core::job::{Entry, NumberedEntry, Stream};
use wharf_runner::{Host, JobUpdate};

use crate::http::api::Moment;

use super::text::{clock, lines, size};

/// The number of entries that a page shows, the last ones.
pub(super) const ENTRIES_MAX: u64 = 300;
/// The bytes of one entry that are shown.
const ENTRY_BYTES_MAX: usize = 4096;
/// The bytes of all lines that a page shows.
const PAGE_BYTES_MAX: usize = 1024 * 1024;
/// The longest time for which a page waits for entries that the store has.
const READ_MAX: Duration = Duration::from_secs(3);

/// The last lines of a log.
#[derive(Default)]
pub(super) struct LogTail {
    /// Each line with the number of its entry.
    lines: VecDeque<(u64, Markup)>,
    /// The bytes of all lines.
    bytes: usize,
    /// False if some of the entries could not be read.
    is_whole: bool,
}

impl LogTail {
    /// Adds a line, and drops the first ones if there are too many.
    fn push(&mut self, number: u64, line: Markup) {
        self.bytes += line.0.len();
        self.lines.push_back((number, line));
        while self.bytes > PAGE_BYTES_MAX
            && let Some((_, first)) = self.lines.pop_front()
        {
            self.bytes -= first.0.len();
        }
    }

    /// Returns the number of the last entry; 0 if there is none.
    pub(super) fn last(&self) -> u64 {
        self.lines.back().map_or(0, |(number, _)| *number)
    }
}

/// Reads the last entries of a job whose log has this many.
pub(super) async fn read(host: &Host, id: JobId, entries: u64) -> LogTail {
    let mut log = LogTail { is_whole: entries == 0, ..LogTail::default() };
    if entries == 0 {
        return log;
    }
    let updates = host.follow(id, entries.saturating_sub(ENTRIES_MAX));
    let reading = async {
        let mut updates = std::pin::pin!(updates);
        while let Some(Ok(update)) = updates.next().await {
            let JobUpdate::Entry(entry) = update else { continue };
            // What is kept is cut: an entry may be long.
            log.push(entry.number, line(&entry));
            if entry.number >= entries {
                log.is_whole = true;
                return;
            }
        }
    };
    // What came until then is shown.
    let _ = tokio::time::timeout(READ_MAX, reading).await;
    log
}

/// Returns the section of a job's log.
pub(super) fn section(log: &LogTail, entries: u64) -> Markup {
    let left_out = log.lines.front().map_or(0, |(number, _)| number.saturating_sub(1));
    html! {
        section {
            header { h2 { "Log" } span class="dim" { (entries) @if entries == 1 { " entry" } @else { " entries" } } }
            @if left_out > 0 {
                p class="note" { "The first " (left_out) " are not shown; " code { "wharf job follow" } " prints all." }
            }
            pre id="log" tabindex="0" role="region" aria-label="Log" { @for (_, line) in &log.lines { (line) } }
            @if !log.is_whole {
                p class="note" { "The store did not give all entries in time. Load the page again to see the rest." }
            }
        }
    }
}

/// Returns an entry as a line of the log.
pub(super) fn line(numbered: &NumberedEntry) -> Markup {
    let (class, text) = match &numbered.entry {
        Entry::Log { stream: Stream::Stdout, line } => ("", cut(line)),
        Entry::Log { stream: Stream::Stderr, line } => ("err", cut(line)),
        Entry::LogDropped { lines } => ("note", format!("{lines} lines were dropped")),
        Entry::Progress { fraction, note } => ("note", format!("{:.0} % {}", f64::from(*fraction) * 100.0, cut(note))),
        Entry::Chunk(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => ("chunk", cut(text)),
            Err(_) => ("note", format!("a chunk of {}, not text", size(bytes.len() as u64))),
        },
    };
    html! {
        span class="l" data-n=(numbered.number) {
            span class="a" { (clock(Moment(numbered.at))) "  " (numbered.attempt) "  " }
            span class=(class) { (text) } "\n"
        }
    }
}

fn cut(text: &str) -> String {
    let at = text.floor_char_boundary(ENTRY_BYTES_MAX);
    let more = if at < text.len() { " …" } else { "" };
    format!("{}{more}", lines(&text[..at]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept() {
        let mut log = LogTail::default();
        for number in 1..=3 {
            log.push(number, maud::PreEscaped("x".repeat(PAGE_BYTES_MAX / 2)));
        }
        assert_eq!((log.lines.front().map(|(number, _)| *number), log.last()), (Some(2), 3));
        log.is_whole = true;
        let page = section(&log, 3).into_string();
        assert!(page.contains("The first 1 are not shown") && !page.contains("did not give"));
        log.is_whole = false;
        assert!(section(&log, 3).into_string().contains("did not give all entries"));
    }
}
