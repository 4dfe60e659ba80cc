//! Entries of a job's log, as server-sent events carry them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wharf_core::job::{Entry, NumberedEntry};

use super::moment::Moment;
use super::values::{JobEventName, LogStream};
use crate::http::bytes::to_base64;

/// One entry of a job's log, as the data of a server-sent event.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
pub(crate) struct LogEntry {
    /// Number of the attempt that wrote it.
    pub(crate) attempt: u32,
    /// When it was written.
    pub(crate) at: Option<Moment>,
    /// The chunk, if it is UTF-8; with `chunk`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) text: Option<String>,
    /// The chunk in base64, if it is not UTF-8; with `chunk`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) base64: Option<String>,
    /// The stream to which the line was written; with `log`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stream: Option<LogStream>,
    /// The line; with `log`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) line: Option<String>,
    /// Number of log lines that were dropped; with `log-dropped`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lines: Option<u64>,
    /// Progress from 0 to 1; with `progress`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fraction: Option<f32>,
    /// The guest's note on its progress; with `progress`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
}

impl LogEntry {
    /// Returns the name of the entry's event, and its data.
    pub(crate) fn event(numbered: &NumberedEntry) -> (JobEventName, LogEntry) {
        let common = LogEntry { attempt: numbered.attempt, at: Some(Moment(numbered.at)), ..LogEntry::default() };
        match &numbered.entry {
            Entry::Chunk(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => (JobEventName::Chunk, LogEntry { text: Some(text.to_owned()), ..common }),
                Err(_) => (JobEventName::Chunk, LogEntry { base64: Some(to_base64(bytes)), ..common }),
            },
            Entry::Log { stream, line } => {
                let stream = Some(LogStream::from(*stream));
                (JobEventName::Log, LogEntry { stream, line: Some(line.to_string()), ..common })
            }
            Entry::LogDropped { lines } => (JobEventName::LogDropped, LogEntry { lines: Some(*lines), ..common }),
            Entry::Progress { fraction, note } => {
                let entry = LogEntry { fraction: Some(*fraction), note: Some(note.clone()), ..common };
                (JobEventName::Progress, entry)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wharf_core::time::Timestamp;

    fn chunk(bytes: &[u8]) -> (JobEventName, LogEntry) {
        let at = Timestamp::from_millis(1_900_000_000_000);
        LogEntry::event(&NumberedEntry { number: 7, attempt: 2, at, entry: Entry::Chunk(bytes.into()) })
    }

    #[test]
    fn chunks_are_text_if_they_are_utf8() {
        let (name, data) = chunk(b"caf\xc3\xa9");
        assert_eq!((name, data.text.as_deref(), data.base64), (JobEventName::Chunk, Some("café"), None));
        let (_, data) = chunk(&[0xff, 0]);
        assert_eq!((data.text, data.base64.as_deref()), (None, Some("/wA=")));
    }
}
