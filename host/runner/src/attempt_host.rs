//! Where an attempt lays down what it writes, until the store has it: in order, and bounded.
//!
//! A chunk waits for room; a log line that finds none is dropped and counted. So a flood of log lines never delays
//! output, and an attempt never waits for anything but room for its own chunks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, TryFutureExt};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedSender;
use wharf_core::bounds;
use wharf_core::job::{Entry, NewJob, Stream};
use wharf_core::kv::KvChanges;
use wharf_core::outcome::{Interruption, Outcome};
use wharf_core::planner::{AttemptId, Input};
use wharf_core::rollcall::Reply;
use wharf_engine::{AttemptHandle, GuestJob, HostCalls, KvAccess};

use crate::broadcast::{Broadcasts, CallChain};
use crate::child_jobs::Children;
use crate::kv_view::KvView;
use crate::loop_message::LoopMessage;
use crate::store_wait::StoreWait;

/// So that the bytes that may wait bound the entries that may wait, too.
const ENTRY_BYTES_MIN: usize = bounds::UNWRITTEN_BYTES_MAX as usize / bounds::UNWRITTEN_ENTRIES_MAX;

/// What an entry takes of the room on a desk.
pub(crate) fn room(entry: &Entry) -> usize {
    entry.bytes().max(ENTRY_BYTES_MIN)
}

pub(crate) struct AttemptHost {
    attempt: AttemptId,
    control: AttemptHandle,
    words: UnboundedSender<LoopMessage>,
    room: Semaphore,
    /// A chunk waits for room.
    is_full: AtomicBool,
    waits: StoreWait,
    /// Locked for a few assignments and never across an await; the guest and the loop's timer both come here.
    held_back: Mutex<HeldBack>,
    children: Children,
    broadcasts: Arc<Broadcasts>,
    chain: CallChain,
    kept: Option<KvView>,
}

/// What an attempt leaves when it is over.
pub(crate) struct Left {
    pub(crate) children: Vec<NewJob>,
    pub(crate) changes: Option<Arc<KvChanges>>,
    pub(crate) lines_dropped: u64,
}

#[derive(Default)]
struct HeldBack {
    /// Not yet said in the log.
    lines_dropped: u64,
    lines_dropped_in_all: u64,
    progress: Option<Entry>,
    progress_at: Option<Instant>,
    /// Someone comes for the progress when its time is there.
    awaited: bool,
}

impl AttemptHost {
    pub(crate) fn new(
        attempt: AttemptId,
        control: AttemptHandle,
        words: UnboundedSender<LoopMessage>,
        broadcasts: Arc<Broadcasts>,
        chain: CallChain,
        kept: Option<KvView>,
    ) -> AttemptHost {
        AttemptHost {
            attempt,
            control,
            words,
            room: Semaphore::new(bounds::UNWRITTEN_BYTES_MAX as usize),
            is_full: AtomicBool::new(false),
            waits: StoreWait::default(),
            held_back: Mutex::default(),
            children: Children::default(),
            broadcasts,
            chain,
            kept,
        }
    }

    /// What was written down has left the desk.
    pub(crate) fn clear(&self, bytes: usize) {
        self.room.add_permits(bytes);
    }

    /// Writes progress that was held back, if no newer one was written since.
    pub(crate) fn write_progress(&self) {
        let mut held_back = self.held_back();
        held_back.awaited = false;
        self.flush_progress(&mut held_back);
    }

    /// The attempt is over: nothing is held back any more.
    pub(crate) fn close(&self) -> Left {
        let mut held_back = self.held_back();
        // These two may go past the bound: nobody waits for room any more.
        if let Some(progress) = held_back.progress.take() {
            self.send(progress);
        }
        if held_back.lines_dropped > 0 {
            self.send(Entry::LogDropped { lines: held_back.lines_dropped });
        }
        let children = self.children.take();
        let changes = self.kept.as_ref().and_then(KvView::changes);
        Left { children, changes, lines_dropped: held_back.lines_dropped_in_all }
    }

    /// The store has failed to write what was laid down here.
    pub(crate) fn store_failed(&self) {
        self.waits.failed();
    }

    /// How the attempt ended, if time that it waited for the store is none of its own.
    pub(crate) fn judge(&self, outcome: Outcome) -> Outcome {
        if self.is_full.load(Ordering::Relaxed) && self.broadcasts.inserting.shared.store_trouble().is_some() {
            self.waits.failed();
        }
        let outcome = self.waits.judge(outcome);
        match &self.kept {
            Some(kept) => kept.judge(outcome),
            None => outcome,
        }
    }

    fn held_back(&self) -> MutexGuard<'_, HeldBack> {
        self.held_back.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, entry: Entry) {
        // The loop outlives every attempt unless the process ends at once; then nothing is written anyway.
        let _ = self.words.send(LoopMessage::Input(Input::Wrote { attempt: self.attempt, entry }));
    }

    /// Lays down an entry if there is room.
    fn try_send(&self, entry: Entry) -> Result<(), Entry> {
        match self.room.try_acquire_many(room(&entry) as u32) {
            Ok(permit) => {
                permit.forget();
                self.send(entry);
                Ok(())
            }
            Err(_) => Err(entry),
        }
    }

    fn flush_dropped(&self, held_back: &mut HeldBack) -> bool {
        let lines = held_back.lines_dropped;
        if lines > 0 && self.try_send(Entry::LogDropped { lines }).is_ok() {
            held_back.lines_dropped = 0;
        }
        held_back.lines_dropped == 0
    }

    fn flush_progress(&self, held_back: &mut HeldBack) {
        if let Some(progress) = held_back.progress.take() {
            match self.try_send(progress) {
                Ok(()) => held_back.progress_at = Some(Instant::now()),
                Err(progress) => held_back.progress = Some(progress),
            }
        }
    }
}

impl HostCalls for AttemptHost {
    fn emit(&self, chunk: Vec<u8>) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let entry = Entry::Chunk(chunk.into());
            self.is_full.store(true, Ordering::Relaxed);
            let permit = self.room.acquire_many(room(&entry) as u32).await;
            self.is_full.store(false, Ordering::Relaxed);
            match permit {
                Ok(permit) => permit.forget(),
                Err(_) => return Err("the attempt is over".to_owned()),
            }
            self.flush_dropped(&mut self.held_back());
            self.send(entry);
            Ok(())
        })
    }

    fn log(&self, stream: Stream, line: String) {
        let mut held_back = self.held_back();
        if !self.flush_dropped(&mut held_back) || self.try_send(Entry::Log { stream, line }).is_err() {
            held_back.lines_dropped += 1;
            held_back.lines_dropped_in_all += 1;
        }
    }

    fn log_dropped(&self, lines: u64) {
        let mut held_back = self.held_back();
        held_back.lines_dropped += lines;
        held_back.lines_dropped_in_all += lines;
    }

    fn progress(&self, fraction: f32, note: String) {
        let mut held_back = self.held_back();
        held_back.progress = Some(Entry::Progress { fraction, note });
        let due = held_back.progress_at.is_none_or(|at| at.elapsed() >= bounds::PROGRESS_EVERY);
        if due {
            self.flush_progress(&mut held_back);
        }
        if held_back.progress.is_some() && !std::mem::replace(&mut held_back.awaited, true) {
            let _ = self.words.send(LoopMessage::ProgressLater(self.attempt));
        }
    }

    fn enqueue(&self, jobs: Vec<GuestJob>) -> BoxFuture<'_, Result<Vec<String>, String>> {
        let shared = &self.broadcasts.inserting.shared;
        let added = self.children.add(&shared.view(), shared, jobs).map_err(|not| {
            // Given back, it costs the job no attempt.
            if not.passes {
                self.control.stop(Interruption::Host, format!("it was given back: it enqueues a job, and {}", not.why));
            }
            not.why
        });
        added.boxed()
    }

    fn broadcast(
        &self,
        topic: String,
        payload: Vec<u8>,
        timeout: Duration,
        remaining: Duration,
    ) -> BoxFuture<'_, Result<Vec<Reply>, String>> {
        let asked = self.broadcasts.from_guest(topic, payload, timeout.min(remaining), &self.chain);
        Box::pin(asked.map_err(|error| error.to_guest(&self.control)))
    }

    fn kv(&self) -> Option<&dyn KvAccess> {
        self.kept.as_ref().map(|kept| kept as &dyn KvAccess)
    }
}
