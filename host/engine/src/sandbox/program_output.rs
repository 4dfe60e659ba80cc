//! The standard output of a program: its result, or a chunk for each of its lines. Bounded as what a plugin of the contract
//! returns and emits is, and counted in the host's budget of memory: a program that writes faster than there is room waits.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::io::AsyncWrite;
use tokio::sync::{Mutex, TryLockError};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};
use wharf_core::bounds;
use wharf_core::budget::MemoryUse;

use crate::call::HostCalls;
use crate::schedule::attempt_handle::{AttemptHandle, EndReason};
use crate::schedule::budget::{Account, Asker, Budget, TooMuch};
use crate::schedule::metered::Stopped;

/// Maximum number of bytes that a program may write at once.
const WRITE_BYTES_MAX: usize = 64 * 1024;
/// Room for the largest result, and for the write that is too much.
const ROOM_MAX: usize = bounds::OUTPUT_BYTES_MAX as usize + WRITE_BYTES_MAX;
/// Bytes of a result that are not counted: the room of an attempt covers them.
const UNCOUNTED_BYTES: usize = 4096;

/// Everything that a program is called with, besides its environment.
pub(crate) struct ProgramIo {
    /// Arguments, without the program's name.
    pub(crate) args: Arc<[String]>,
    pub(crate) stdin: Bytes,
    pub(crate) output: ProgramOutput,
    /// The program is a core module for WASI preview 1.
    pub(crate) is_module: bool,
}

/// The standard output of one attempt. Clones write to the same output.
#[derive(Clone)]
pub(crate) struct ProgramOutput(Arc<Mutex<Output>>);

/// The receiver of the output, and the attempt that answers for it.
pub(crate) struct OutputTarget {
    pub(crate) host_calls: Arc<dyn HostCalls>,
    pub(crate) handle: AttemptHandle,
    pub(crate) budget: Budget,
    pub(crate) of: MemoryUse,
    /// Each line is a chunk.
    pub(crate) lines: bool,
}

struct Output {
    target: OutputTarget,
    account: Account,
    /// The result so far; or lines that were not emitted, and the one that has not ended.
    bytes: Vec<u8>,
    /// Bytes of the result for which there is room.
    room: usize,
    /// Bytes at the start of `bytes` that were emitted.
    emitted: usize,
    /// Bytes after those in which there is no newline.
    searched: usize,
    /// A chunk on its way. It is kept here, so that a program that stops waiting for it loses no line.
    in_flight: Option<BoxFuture<'static, Result<(), String>>>,
    chunks: u64,
    chunk_bytes: u64,
    /// Why no more chunks are taken.
    refused: Option<String>,
}

/// The output of a program that has ended.
pub(crate) struct Written {
    pub(crate) result: Vec<u8>,
    /// Why some of its lines were not taken.
    pub(crate) refused: Option<String>,
}

impl ProgramOutput {
    pub(crate) fn new(target: OutputTarget) -> ProgramOutput {
        let account = Account::new(target.of, 0, 0);
        let room = if target.lines { 0 } else { UNCOUNTED_BYTES };
        ProgramOutput(Arc::new(Mutex::new(Output {
            target,
            account,
            bytes: Vec::new(),
            room,
            emitted: 0,
            searched: 0,
            in_flight: None,
            chunks: 0,
            chunk_bytes: 0,
            refused: None,
        })))
    }

    /// Counts together with the account of its sandbox, before the program starts.
    pub(crate) fn count_with(&self, account: &mut Account) {
        if let Ok(mut output) = self.0.try_lock() {
            output.account.count_with(account);
        }
    }

    /// Emits the lines that are left, also one without a newline, and takes what was written. Its room stays reserved until the
    /// last clone is dropped.
    pub(crate) async fn finish(&self) -> Written {
        let mut output = self.0.lock().await;
        if output.target.lines {
            output.emit_lines(true).await;
        }
        let result = if output.target.lines { Vec::new() } else { std::mem::take(&mut output.bytes) };
        Written { result, refused: output.refused.take() }
    }

    /// Returns the bytes of its chunks. The attempt has ended, so that nobody else looks at the output.
    pub(crate) fn chunk_bytes(&self) -> u64 {
        self.0.try_lock().map_or(0, |output| output.chunk_bytes)
    }

    /// Returns the most bytes that it held.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.0.try_lock().map_or(0, |output| output.account.peak())
    }
}

impl Output {
    /// Refuses to go on for an attempt that was ended.
    fn refuse_if_ended(&self) -> StreamResult<()> {
        if self.target.handle.end_reason().is_some() {
            return Err(StreamError::Trap(Stopped.into()));
        }
        if self.refused.is_some() { Err(StreamError::Closed) } else { Ok(()) }
    }

    fn end_at_output_bound(&self, what: String) -> StreamError {
        self.target.handle.end(EndReason::OutputBound(what));
        StreamError::Trap(Stopped.into())
    }

    fn permit(&self) -> usize {
        if self.target.lines {
            // The lines before are emitted first.
            if self.in_flight.is_some() || self.next_line(false).is_some() { 0 } else { WRITE_BYTES_MAX }
        } else {
            self.room.saturating_sub(self.bytes.len()).min(WRITE_BYTES_MAX)
        }
    }

    fn write(&mut self, bytes: &[u8]) -> StreamResult<()> {
        self.refuse_if_ended()?;
        if bytes.len() > self.permit() {
            return Err(StreamError::trap("more was written than `check-write` allows"));
        }
        self.target.handle.note_activity();
        let line_max = bounds::CHUNK_BYTES_MAX as usize;
        if self.target.lines {
            self.searched = self.bytes.len();
            self.bytes.extend_from_slice(bytes);
            if !bytes.contains(&b'\n') && self.bytes.len() - self.emitted > line_max {
                let mib = bounds::CHUNK_BYTES_MAX / bounds::MIB;
                return Err(self.end_at_output_bound(format!("a line of standard output has at most {mib} MiB")));
            }
            return Ok(());
        }
        let max = bounds::OUTPUT_BYTES_MAX;
        if (self.bytes.len() + bytes.len()) as u64 > max {
            return Err(self.end_at_output_bound(format!(
                "the result on standard output has at most {} MiB; with stream = \"lines\" each line is a chunk of its own",
                max / bounds::MIB
            )));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    async fn wait(&mut self) {
        if self.target.lines {
            self.emit_lines(false).await;
        } else if self.permit() == 0 {
            // As much again as there is, since a buffer that is full is doubled.
            let more = self.room.max(WRITE_BYTES_MAX).min(ROOM_MAX - self.room);
            let asker = Asker { budget: &self.target.budget, handle: &self.target.handle };
            match self.account.add(asker, more as u64).await {
                Ok(()) => {
                    self.room += more;
                    self.bytes.reserve_exact(self.room - self.bytes.len());
                }
                Err(TooMuch) => drop(self.end_at_output_bound(self.too_much())),
            }
        }
    }

    fn too_much(&self) -> String {
        format!(
            "its standard output is more than this host's budget of memory can hold: {} for all (`memory.budget`)",
            bytesize::ByteSize(self.target.budget.total()).display().iec()
        )
    }

    /// Returns the end of the next line, and where the line after it begins. At the end of the program what has no newline is a
    /// line as well.
    fn next_line(&self, at_end: bool) -> Option<(usize, usize)> {
        let from = self.searched.max(self.emitted);
        match self.bytes[from..].iter().position(|byte| *byte == b'\n') {
            Some(place) => Some((from + place, from + place + 1)),
            None if at_end && self.emitted < self.bytes.len() => Some((self.bytes.len(), self.bytes.len())),
            None => None,
        }
    }

    async fn emit_lines(&mut self, at_end: bool) {
        loop {
            if let Some(in_flight) = &mut self.in_flight {
                let stall_pause = self.target.handle.pause_stall();
                let taken = in_flight.await;
                drop(stall_pause);
                self.in_flight = None;
                if let Err(why) = taken {
                    self.refused = Some(why);
                }
            }
            if self.refuse_if_ended().is_err() {
                return;
            }
            let Some((end, next)) = self.next_line(at_end) else { break };
            let line = &self.bytes[self.emitted..end];
            let chunk = line.strip_suffix(b"\r").unwrap_or(line).to_vec();
            (self.emitted, self.searched) = (next, next);
            if self.start(chunk).await.is_err() {
                return;
            }
        }
        // What is left is the line that has not ended.
        self.bytes.drain(..self.emitted);
        (self.emitted, self.searched) = (0, self.bytes.len());
    }

    /// Begins to emit a chunk, within the bounds of what an attempt may send.
    async fn start(&mut self, chunk: Vec<u8>) -> StreamResult<()> {
        if self.target.handle.is_cancel_requested() {
            self.refused = Some("the attempt is cancelled".to_owned());
            return Err(StreamError::Closed);
        }
        let bytes = chunk.len() as u64;
        if bytes > bounds::CHUNK_BYTES_MAX {
            let mib = bounds::CHUNK_BYTES_MAX / bounds::MIB;
            return Err(self.end_at_output_bound(format!("a line of standard output has at most {mib} MiB")));
        }
        if self.chunks == bounds::CHUNKS_MAX || self.chunk_bytes + bytes > bounds::CHUNKS_BYTES_MAX {
            return Err(self.end_at_output_bound(format!(
                "an attempt can send at most {} chunks, {} MiB in all",
                bounds::CHUNKS_MAX,
                bounds::CHUNKS_BYTES_MAX / bounds::MIB
            )));
        }
        // So much of what it sends may wait for the store.
        let unwritten = |sent: u64| sent.min(bounds::UNWRITTEN_BYTES_MAX);
        let more = unwritten(self.chunk_bytes + bytes) - unwritten(self.chunk_bytes);
        let host_calls = Arc::clone(&self.target.host_calls);
        self.in_flight = Some(Box::pin(async move { host_calls.emit(chunk).await }));
        self.chunks += 1;
        self.chunk_bytes += bytes;
        let asker = Asker { budget: &self.target.budget, handle: &self.target.handle };
        match self.account.add_present(asker, more).await {
            Ok(()) => Ok(()),
            Err(TooMuch) => Err(self.end_at_output_bound(self.too_much())),
        }
    }
}

fn busy(_: TryLockError) -> StreamError {
    StreamError::trap("standard output is waited for and written to at once")
}

#[async_trait::async_trait]
impl Pollable for ProgramOutput {
    async fn ready(&mut self) {
        self.0.lock().await.wait().await;
    }
}

impl OutputStream for ProgramOutput {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.0.try_lock().map_err(busy)?.write(&bytes)
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        let output = self.0.try_lock().map_err(busy)?;
        output.refuse_if_ended()?;
        Ok(output.permit())
    }
}

impl IsTerminal for ProgramOutput {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for ProgramOutput {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    /// Used by WASI 0.3 only, which no plugin is linked with.
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }
}
