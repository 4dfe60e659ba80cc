//! The log of a job: its lines, chunks and progress.

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
/// The bytes of all entries that are read for a page.
const PAGE_BYTES_MAX: usize = 1024 * 1024;
/// The longest time for which a page waits for entries that the store has.
const READ_MAX: Duration = Duration::from_secs(3);

/// Reads the last entries of a job whose log has this many.
pub(super) async fn read(host: &Host, id: JobId, entries: u64) -> Vec<NumberedEntry> {
    let after = entries.saturating_sub(ENTRIES_MAX);
    let (mut found, mut bytes) = (Vec::new(), 0);
    if entries == 0 {
        return found;
    }
    let updates = host.follow(id, after);
    let reading = async {
        let mut updates = std::pin::pin!(updates);
        while let Some(Ok(update)) = updates.next().await {
            let JobUpdate::Entry(entry) = update else { continue };
            let number = entry.number;
            bytes += entry.entry.bytes();
            found.push(entry);
            if number >= entries || bytes > PAGE_BYTES_MAX {
                return;
            }
        }
    };
    // What came until then is shown: the rest follows on the stream of the page.
    let _ = tokio::time::timeout(READ_MAX, reading).await;
    found
}

/// Returns the section of a job's log.
pub(super) fn section(found: &[NumberedEntry], entries: u64) -> Markup {
    let left_out = entries.saturating_sub(ENTRIES_MAX);
    html! {
        section {
            header { h2 { "Log" } span class="dim" { (entries) @if entries == 1 { " entry" } @else { " entries" } } }
            @if left_out > 0 {
                p class="note" { "The first " (left_out) " are not shown; " code { "wharf job follow" } " prints all." }
            }
            pre id="log" tabindex="0" role="region" aria-label="Log" { @for entry in found { (line(entry)) } }
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
