//! The host as an attempt of a job sees it. It buffers what the attempt writes until the store has it: in order, and bounded.
//!
//! A chunk waits for free bytes; a log line that finds none is dropped and counted. So a flood of log lines never delays
//! output, and an attempt waits for nothing but free bytes for its own chunks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, ready};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedSender;
use tracing::Span;
use wharf_core::author::Author;
use wharf_core::bounds;
use wharf_core::hold::{HoldLength, HoldReason, HoldScope, NewHold};
use wharf_core::ids::PluginId;
use wharf_core::job::{Entry, Stream};
use wharf_core::key::Lane;
use wharf_core::outcome::Outcome;
use wharf_core::planner::{AttemptId, Input};
use wharf_core::rollcall::Reply;
use wharf_engine::{GuestJob, HostCalls, KvAccess};

use crate::broadcast::{Effects, GuestCalls};
use crate::loop_message::LoopMessage;
use crate::store_wait::StoreWait;

/// The least that an entry counts, so that the bound of the buffered bytes bounds the buffered entries, too.
const ENTRY_BYTES_MIN: usize = bounds::UNWRITTEN_BYTES_MAX as usize / bounds::UNWRITTEN_ENTRIES_MAX;

/// Returns how many bytes of the buffer an entry occupies.
pub(crate) fn buffered_bytes(entry: &Entry) -> usize {
    entry.bytes().max(ENTRY_BYTES_MIN)
}

/// The host of one attempt.
pub(crate) struct AttemptHost {
    attempt: AttemptId,
    plugin: PluginId,
    /// The lane of its job.
    lane: Lane,
    span: Span,
    to_loop: UnboundedSender<LoopMessage>,
    calls: GuestCalls,
    /// One permit for each free byte of the buffer.
    free_bytes: Semaphore,
    /// A chunk waits for free bytes.
    is_full: AtomicBool,
    waits: StoreWait,
    /// Locked for a few assignments and never across an await; the guest and the loop's timer both come here.
    deferred: Mutex<Deferred>,
}

/// Entries that are not written yet.
#[derive(Default)]
struct Deferred {
    /// Dropped lines that the log does not mention yet.
    lines_dropped: u64,
    /// Dropped lines since the start of the attempt.
    lines_dropped_in_all: u64,
    progress: Option<Entry>,
    /// When progress was last written.
    progress_at: Option<Instant>,
    /// The loop will call `write_progress` when the interval is over.
    is_scheduled: bool,
}

impl AttemptHost {
    /// The host of `attempt`, which runs a job of `lane` with `plugin`. `span` is entered for what happens on behalf of the attempt.
    pub(crate) fn new(
        attempt: AttemptId,
        (plugin, lane): (PluginId, Lane),
        calls: GuestCalls,
        to_loop: UnboundedSender<LoopMessage>,
        span: Span,
    ) -> AttemptHost {
        AttemptHost {
            attempt,
            plugin,
            lane,
            span,
            to_loop,
            calls,
            free_bytes: Semaphore::new(bounds::UNWRITTEN_BYTES_MAX as usize),
            is_full: AtomicBool::new(false),
            waits: StoreWait::default(),
            deferred: Mutex::default(),
        }
    }

    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    /// Frees buffer bytes: the entries that occupied them are recorded.
    pub(crate) fn free(&self, bytes: usize) {
        self.free_bytes.add_permits(bytes);
    }

    /// Returns how many bytes its entries occupy that the store does not have yet.
    pub(crate) fn unwritten_bytes(&self) -> u64 {
        bounds::UNWRITTEN_BYTES_MAX.saturating_sub(self.free_bytes.available_permits() as u64)
    }

    /// Writes deferred progress, if no newer one was written since.
    pub(crate) fn write_progress(&self) {
        let mut deferred = self.deferred();
        deferred.is_scheduled = false;
        self.flush_progress(&mut deferred);
    }

    /// Writes everything that was deferred, when the attempt is over. Returns how many log lines were dropped in all.
    pub(crate) fn close(&self) -> u64 {
        let mut deferred = self.deferred();
        // These two may exceed the bound: nothing waits for free bytes any more.
        if let Some(progress) = deferred.progress.take() {
            self.send(progress);
        }
        if deferred.lines_dropped > 0 {
            self.send(Entry::LogDropped { lines: deferred.lines_dropped });
        }
        deferred.lines_dropped_in_all
    }

    /// Takes out what the attempt leaves if it succeeds.
    pub(crate) fn take_effects(&self) -> Effects {
        self.calls.take_effects()
    }

    /// The store has failed to record what the attempt wrote.
    pub(crate) fn store_failed(&self) {
        self.waits.failed();
    }

    /// Returns the outcome as it counts: time that the attempt waited for a store that was away is not its own.
    pub(crate) fn judge(&self, outcome: Outcome) -> Outcome {
        if self.is_full.load(Ordering::Relaxed) && self.calls.store().failure().is_some() {
            self.waits.failed();
        }
        self.calls.judge(self.waits.judge(outcome))
    }

    fn deferred(&self) -> MutexGuard<'_, Deferred> {
        self.deferred.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, entry: Entry) {
        // The loop outlives every attempt unless the process ends at once; then nothing is written anyway.
        let _ = self.to_loop.send(LoopMessage::Input(Input::Wrote { attempt: self.attempt, entry }));
    }

    /// Writes an entry if there are free bytes for it; otherwise returns it.
    fn try_send(&self, entry: Entry) -> Result<(), Entry> {
        match self.free_bytes.try_acquire_many(buffered_bytes(&entry) as u32) {
            Ok(permit) => {
                permit.forget();
                self.send(entry);
                Ok(())
            }
            Err(_) => Err(entry),
        }
    }

    /// Writes how many lines were dropped. Returns false if it found no free bytes.
    fn flush_dropped(&self, deferred: &mut Deferred) -> bool {
        let lines = deferred.lines_dropped;
        if lines > 0 && self.try_send(Entry::LogDropped { lines }).is_ok() {
            deferred.lines_dropped = 0;
        }
        deferred.lines_dropped == 0
    }

    fn flush_progress(&self, deferred: &mut Deferred) {
        if let Some(progress) = deferred.progress.take() {
            match self.try_send(progress) {
                Ok(()) => deferred.progress_at = Some(Instant::now()),
                Err(progress) => deferred.progress = Some(progress),
            }
        }
    }

    /// Writes a line that the attempt's log takes to the host's own log, too.
    fn trace_line(&self, stream: Stream, line: &str) {
        self.span.in_scope(|| {
            tracing::debug!(target: "wharf::guest", job = %self.attempt.job, plugin = %self.plugin, ?stream, "{line}");
        });
    }
}

impl HostCalls for AttemptHost {
    fn emit(&self, chunk: Vec<u8>) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let entry = Entry::Chunk(chunk.into());
            self.is_full.store(true, Ordering::Relaxed);
            let permit = self.free_bytes.acquire_many(buffered_bytes(&entry) as u32).await;
            self.is_full.store(false, Ordering::Relaxed);
            match permit {
                Ok(permit) => permit.forget(),
                Err(_) => return Err("the attempt is over".to_owned()),
            }
            self.flush_dropped(&mut self.deferred());
            self.send(entry);
            Ok(())
        })
    }

    fn log(&self, stream: Stream, line: String) {
        let mut deferred = self.deferred();
        let line: Arc<str> = line.into();
        // Written to the host's own log only if the attempt's log takes it, which bounds both.
        let entry = Entry::Log { stream, line: Arc::clone(&line) };
        if self.flush_dropped(&mut deferred) && self.try_send(entry).is_ok() {
            self.trace_line(stream, &line);
        } else {
            deferred.lines_dropped += 1;
            deferred.lines_dropped_in_all += 1;
        }
    }

    fn log_dropped(&self, lines: u64) {
        let mut deferred = self.deferred();
        deferred.lines_dropped += lines;
        deferred.lines_dropped_in_all += lines;
    }

    fn progress(&self, fraction: f32, note: String) {
        let mut deferred = self.deferred();
        deferred.progress = Some(Entry::Progress { fraction, note });
        let due = deferred.progress_at.is_none_or(|at| at.elapsed() >= bounds::PROGRESS_EVERY);
        if due {
            self.flush_progress(&mut deferred);
        }
        if deferred.progress.is_some() && !std::mem::replace(&mut deferred.is_scheduled, true) {
            let _ = self.to_loop.send(LoopMessage::ProgressLater(self.attempt));
        }
    }

    fn enqueue(&self, jobs: Vec<GuestJob>) -> BoxFuture<'_, Result<Vec<String>, String>> {
        self.calls.enqueue(jobs, "it was given back")
    }

    fn broadcast(
        &self,
        topic: String,
        payload: Vec<u8>,
        timeout: Duration,
        remaining: Duration,
    ) -> BoxFuture<'_, Result<Vec<Reply>, String>> {
        self.calls.broadcast(topic, payload, timeout.min(remaining))
    }

    fn hold_key(&self, length: Duration, reason: String) -> BoxFuture<'_, Result<(), String>> {
        let Lane { group, key } = self.lane.clone();
        let Some(key) = key else {
            return Box::pin(ready(Err("the job is without a key, so that none can be held".to_owned())));
        };
        let scope = HoldScope::Key { group: Some(group), key };
        let (reason, by) = (HoldReason::of_guest(&reason), Author::plugin(&self.plugin));
        Box::pin(self.calls.hold(NewHold { scope, length: Some(HoldLength::For(length)), reason, by }))
    }

    fn placeholder_sent(&self, secret: &str, part: &'static str) {
        self.calls.placeholder_sent(&self.plugin, secret, part);
    }

    fn kv(&self) -> Option<&dyn KvAccess> {
        self.calls.kv()
    }
}
