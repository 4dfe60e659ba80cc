//! The log of a job: what its attempts write while they run.

use std::sync::Arc;

use crate::shared_bytes::SharedBytes;
use crate::time::Timestamp;

/// Something that a running attempt writes to its job's log.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// A part of a streamed result.
    Chunk(SharedBytes),
    /// A log line.
    Log {
        /// The stream it was written to.
        stream: Stream,
        /// The text of the line.
        line: Arc<str>,
    },
    /// Log lines were dropped at this place, because they came faster than they could be stored or exceeded a bound.
    LogDropped {
        /// Number of lines that were dropped.
        lines: u64,
    },
    /// The attempt's progress.
    Progress {
        /// The completed part of the work, from 0 to 1.
        fraction: f32,
        /// A message for users.
        note: String,
    },
}

impl Entry {
    /// Returns the size in bytes of what the attempt wrote.
    pub fn bytes(&self) -> usize {
        match self {
            Entry::Chunk(bytes) => bytes.len(),
            Entry::Log { line, .. } => line.len(),
            Entry::LogDropped { .. } => 0,
            Entry::Progress { note, .. } => note.len(),
        }
    }
}

/// The output stream of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// An entry of a job's log, as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct NumberedEntry {
    /// The entry's number. A job's entries are numbered from 1 without gaps.
    pub number: u64,
    /// The number of the attempt that wrote it.
    pub attempt: u32,
    /// When it was stored.
    pub at: Timestamp,
    /// The entry.
    pub entry: Entry,
}
