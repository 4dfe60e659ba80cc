//! A guest's stdout and stderr, line by line. Nothing here ever makes the guest wait or fails it:
//! a line that is too long is cut, and what comes past the bound of the whole log is dropped and counted.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};
use wharf_core::bounds;
use wharf_core::job::Stream;

use crate::call::HostCalls;
use crate::schedule::attempt_handle::AttemptHandle;

/// As many last lines of stderr stand in a report.
const LAST_LINES_MAX: usize = 20;
const LAST_LINE_BYTES_MAX: usize = 400;
/// What a guest may write in one go.
const WRITE_BYTES_MAX: usize = 64 * 1024;
const CUT: &str = " ... (cut: the line is longer than 64 KiB)";

/// The log of one attempt.
#[derive(Clone)]
pub(crate) struct Log(Arc<Inner>);

struct Inner {
    attending: Arc<dyn HostCalls>,
    control: AttemptHandle,
    /// Held for the time of one write; nothing is awaited inside.
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
}

/// A line that has not ended.
#[derive(Default)]
struct Partial {
    bytes: Vec<u8>,
    cut: bool,
}

/// One of the two streams.
#[derive(Clone)]
pub(crate) struct Writer {
    log: Log,
    stream: Stream,
}

impl Log {
    pub(crate) fn new(attending: Arc<dyn HostCalls>, control: AttemptHandle) -> Log {
        Log(Arc::new(Inner { attending, control, lines: Mutex::default() }))
    }

    pub(crate) fn writer(&self, stream: Stream) -> Writer {
        Writer { log: self.clone(), stream }
    }

    /// A line that the host itself adds to the attempt's stderr.
    pub(crate) fn host_line(&self, text: &str) {
        self.write(Stream::Stderr, format!("{text}\n").as_bytes());
    }

    /// Hands on lines that were begun and not ended, and says what was dropped. Returns how many bytes the log has.
    pub(crate) fn finish(&self) -> u64 {
        let mut lines = self.0.lines.lock().unwrap_or_else(PoisonError::into_inner);
        for stream in [Stream::Stdout, Stream::Stderr] {
            if !lines.partial(stream).bytes.is_empty() {
                self.end_line(&mut lines, stream);
            }
        }
        if lines.dropped > 0 && self.0.control.ending().is_none_or(|ending| !ending.is_interruption()) {
            self.0.attending.log_dropped(lines.dropped);
        }
        lines.bytes
    }

    /// The last lines of stderr.
    pub(crate) fn last_lines(&self) -> Vec<String> {
        let lines = self.0.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.last.iter().cloned().collect()
    }

    fn write(&self, stream: Stream, mut bytes: &[u8]) {
        let mut lines = self.0.lines.lock().unwrap_or_else(PoisonError::into_inner);
        while !bytes.is_empty() {
            let newline = bytes.iter().position(|byte| *byte == b'\n');
            let (line, rest) = match newline {
                Some(place) => (&bytes[..place], &bytes[place + 1..]),
                None => (bytes, &bytes[bytes.len()..]),
            };
            lines.partial(stream).push(line);
            if newline.is_some() {
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
            lines.last.push_back(text[..text.floor_char_boundary(LAST_LINE_BYTES_MAX)].to_owned());
        }
        let bytes = text.len() as u64 + 1;
        // What an attempt says after it was ended is not the job's any more.
        let refused = self.0.control.ending().is_some_and(crate::schedule::attempt_handle::Ending::is_interruption);
        if refused {
            return;
        }
        if lines.dropped > 0 || lines.kept == bounds::LOG_LINES_MAX || lines.bytes + bytes > bounds::LOG_BYTES_MAX {
            lines.dropped += 1;
            return;
        }
        lines.bytes += bytes;
        lines.kept += 1;
        self.0.attending.log(stream, text);
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
        let room = (bounds::LOG_LINE_BYTES_MAX as usize - CUT.len()).saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.cut |= bytes.len() > room;
    }

    fn take(&mut self) -> String {
        let mut text = String::from_utf8_lossy(&self.bytes).into_owned();
        // Bytes that are no UTF-8 become longer by being replaced.
        let whole = text.len();
        text.truncate(text.floor_char_boundary(bounds::LOG_LINE_BYTES_MAX as usize - CUT.len()));
        if self.cut || text.len() < whole {
            text.push_str(CUT);
        } else if text.ends_with('\r') {
            text.pop();
        }
        // The room of one odd long line is not kept.
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

    /// Of WASI 0.3 only, which no plugin is linked with.
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
