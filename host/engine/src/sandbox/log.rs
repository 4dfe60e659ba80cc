//! A guest's stdout and stderr, line by line. A carriage return ends a line as well: what a progress display overwrites on a
//! terminal is a line each here, and seen while it is current. Nothing here makes the guest wait or fails it: a line that is too long is
//! cut, and lines beyond the limit of the whole log are dropped and counted.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};
use wharf_core::bounds;
use wharf_core::job::Stream;

use crate::call::HostCalls;
use crate::sandbox::guest_error::GuestError;
use crate::schedule::attempt_handle::{AttemptHandle, EndReason};

/// Number of last lines of stderr in a report.
const LAST_LINES_MAX: usize = 20;
const LAST_LINE_BYTES_MAX: usize = 400;
/// Maximum number of bytes that a guest may write at once.
const WRITE_BYTES_MAX: usize = 64 * 1024;
const CUT: &str = " ... (cut: the line is longer than 64 KiB)";
const _: () = assert!(bounds::LOG_LINE_BYTES_MAX == 64 * bounds::KIB, "`CUT` states this limit");

/// The log of one attempt.
#[derive(Clone)]
pub(crate) struct Log(Arc<Inner>);

struct Inner {
    host_calls: Arc<dyn HostCalls>,
    handle: AttemptHandle,
    /// Locked for one write; nothing is awaited inside.
    lines: Mutex<Lines>,
}

#[derive(Default)]
struct Lines {
    stdout: Partial,
    stderr: Partial,
    bytes: u64,
    kept: u64,
    dropped: u64,
    last: VecDeque<String>,
    error: GuestError,
}

/// A line that has not ended.
#[derive(Default)]
struct Partial {
    bytes: Vec<u8>,
    cut: bool,
    /// The line before was ended by a carriage return, and nothing came since: a newline belongs to it.
    after_return: bool,
}

/// The guest's end of one of the two streams.
#[derive(Clone)]
pub(crate) struct Writer {
    log: Log,
    stream: Stream,
}

impl Log {
    pub(crate) fn new(host_calls: Arc<dyn HostCalls>, handle: AttemptHandle) -> Log {
        Log(Arc::new(Inner { host_calls, handle, lines: Mutex::default() }))
    }

    /// Returns the guest's end of a stream.
    pub(crate) fn writer(&self, stream: Stream) -> Writer {
        Writer { log: self.clone(), stream }
    }

    /// Adds a line of the host's own to the attempt's stderr.
    pub(crate) fn host_line(&self, text: &str) {
        self.write(Stream::Stderr, format!("{text}\n").as_bytes());
    }

    /// Passes on lines that have no newline yet, and reports how many were dropped. Returns the size of the log in
    /// bytes.
    pub(crate) fn finish(&self) -> u64 {
        let mut lines = self.0.lines.lock().unwrap_or_else(PoisonError::into_inner);
        for stream in [Stream::Stdout, Stream::Stderr] {
            if !lines.partial(stream).bytes.is_empty() {
                self.end_line(&mut lines, stream);
            }
        }
        if lines.dropped > 0 && self.0.handle.end_reason().is_none_or(|end_reason| !end_reason.is_interruption()) {
            self.0.host_calls.log_dropped(lines.dropped);
        }
        lines.bytes
    }

    /// Returns the last lines of stderr.
    pub(crate) fn last_lines(&self) -> Vec<String> {
        let lines = self.0.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.last.iter().cloned().collect()
    }

    /// Returns the last panic or exception that the guest's runtime wrote to stderr, in one line.
    pub(crate) fn last_error(&self) -> Option<String> {
        self.0.lines.lock().unwrap_or_else(PoisonError::into_inner).error.last()
    }

    fn write(&self, stream: Stream, mut bytes: &[u8]) {
        let mut lines = self.0.lines.lock().unwrap_or_else(PoisonError::into_inner);
        while !bytes.is_empty() {
            let end = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let (line, rest) = match end {
                Some(place) => (&bytes[..place], &bytes[place + 1..]),
                None => (bytes, &bytes[bytes.len()..]),
            };
            let partial = lines.partial(stream);
            partial.push(line);
            if let Some(place) = end
                && partial.is_ended_by(bytes[place])
            {
                self.end_line(&mut lines, stream);
            }
            bytes = rest;
        }
    }

    fn end_line(&self, lines: &mut Lines, stream: Stream) {
        let text = lines.partial(stream).take();
        if stream == Stream::Stderr {
            if lines.last.len() == LAST_LINES_MAX {
                lines.last.pop_front();
            }
            let line = &text[..text.floor_char_boundary(LAST_LINE_BYTES_MAX)];
            lines.error.read(line);
            lines.last.push_back(line.to_owned());
        }
        let bytes = text.len() as u64 + 1;
        // Output of an attempt that was interrupted does not belong to the job any more.
        let refused = self.0.handle.end_reason().is_some_and(EndReason::is_interruption);
        if refused {
            return;
        }
        if lines.dropped > 0 || lines.kept == bounds::LOG_LINES_MAX || lines.bytes + bytes > bounds::LOG_BYTES_MAX {
            lines.dropped += 1;
            return;
        }
        lines.bytes += bytes;
        lines.kept += 1;
        self.0.host_calls.log(stream, text);
    }
}

impl Lines {
    fn partial(&mut self, stream: Stream) -> &mut Partial {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

impl Partial {
    fn push(&mut self, bytes: &[u8]) {
        let free = (bounds::LOG_LINE_BYTES_MAX as usize - CUT.len()).saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(free)]);
        self.cut |= bytes.len() > free;
        self.after_return &= bytes.is_empty();
    }

    /// Returns true if this newline or carriage return ends a line. A return at the beginning of a line does not: displays write
    /// it before each text, or behind. It is followed by a newline only where the line is empty.
    fn is_ended_by(&mut self, end: u8) -> bool {
        let is_return = end == b'\r';
        let ends = if is_return { !self.bytes.is_empty() } else { !self.after_return };
        self.after_return = is_return && ends;
        ends
    }

    fn take(&mut self) -> String {
        let mut text = String::from_utf8_lossy(&self.bytes).into_owned();
        // Bytes that are not UTF-8 become longer when they are replaced.
        let whole = text.len();
        text.truncate(text.floor_char_boundary(bounds::LOG_LINE_BYTES_MAX as usize - CUT.len()));
        if self.cut || text.len() < whole {
            text.push_str(CUT);
        }
        // The buffer of one odd long line is not kept.
        if self.bytes.capacity() > 4096 {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        self.cut = false;
        text
    }
}

impl IsTerminal for Writer {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Writer {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    /// Used by WASI 0.3 only, which no plugin is linked with.
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }
}

#[async_trait::async_trait]
impl Pollable for Writer {
    async fn ready(&mut self) {}
}

impl OutputStream for Writer {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.log.write(self.stream, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the lines of what is written in these pieces, and the rest that has not ended.
    fn lines(pieces: &[&str]) -> (Vec<String>, String) {
        let (mut partial, mut lines) = (Partial::default(), Vec::new());
        for piece in pieces {
            for part in piece.split_inclusive(['\n', '\r']) {
                let end = part.bytes().last().filter(|end| b"\n\r".contains(end));
                partial.push(part.trim_end_matches(['\n', '\r']).as_bytes());
                if end.is_some_and(|end| partial.is_ended_by(end)) {
                    lines.push(partial.take());
                }
            }
        }
        (lines, partial.take())
    }

    #[test]
    fn a_carriage_return_ends_a_line_and_with_a_newline_one_line() {
        let is = |pieces: &[&str], expected: &[&str], rest: &str| {
            assert_eq!(
                lines(pieces),
                (expected.iter().map(|line| (*line).to_owned()).collect(), rest.to_owned()),
                "{pieces:?}"
            );
        };
        is(&["1 %\r", "2 %\r", "3 %"], &["1 %", "2 %"], "3 %");
        is(&["\r1 %", "\r2 %", "\n"], &["1 %", "2 %"], "");
        is(&["a\r\nb\r", "\n\nc"], &["a", "b", ""], "c");
        is(&["\r\n\r\n", "\r\rx\n"], &["", "", "x"], "");
        is(&["a\r", "b\n"], &["a", "b"], "");
    }
}
