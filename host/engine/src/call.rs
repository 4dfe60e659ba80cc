//! What goes into one attempt, what it may ask while it runs, and what comes out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use wharf_core::bounds;
use wharf_core::job::Stream;
use wharf_core::kv::{KvKey, KvKeyQuery};
use wharf_core::outcome::{Bill, Outcome};
use wharf_core::rollcall::Reply;

use crate::spec::task::Task;

/// One attempt: what is asked of the plugin, and what it may use.
#[derive(Clone, Debug)]
pub struct Call {
    pub asked: CallInput,
    pub limits: AttemptLimits,
}

/// What the plugin's handler or subscriber sees.
#[derive(Clone, Debug)]
pub enum CallInput {
    /// One attempt at one job, for the handler.
    Job {
        id: String,
        /// Without the plugin's name: "count".
        task: String,
        key: Option<String>,
        payload: Arc<[u8]>,
        /// 1 for the first attempt.
        attempt: u32,
    },
    /// One broadcast, for the subscriber.
    Message { id: String, topic: String, payload: Arc<[u8]> },
}

impl CallInput {
    pub fn payload(&self) -> &Arc<[u8]> {
        match self {
            CallInput::Job { payload, .. } | CallInput::Message { payload, .. } => payload,
        }
    }
}

/// How much of everything an attempt may use.
#[derive(Clone, Debug)]
pub struct AttemptLimits {
    pub timeout: Duration,
    pub cpu: Duration,
    pub stall: Option<Duration>,
    pub memory_bytes: u64,
    /// From the request to cancel until the sandbox is stopped.
    pub cancel_grace: Duration,
    /// Until when its lease is trusted, if there is one; `AttemptHandle::trust_until` moves it on.
    pub deadline: Option<Instant>,
}

impl AttemptLimits {
    /// What the task's manifest and the operator say, without a lease.
    pub fn of(task: &Task) -> AttemptLimits {
        AttemptLimits {
            timeout: task.timeout,
            cpu: task.cpu,
            stall: task.stall,
            memory_bytes: task.memory_bytes,
            cancel_grace: bounds::CANCEL_GRACE,
            deadline: None,
        }
    }
}

/// A job that a guest wants enqueued, as it said it: nothing of it is checked but its size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestJob {
    pub task: String,
    pub payload: Vec<u8>,
    pub key: Option<String>,
    pub delay: Option<Duration>,
    pub priority: i32,
    pub token: Option<String>,
}

/// What an attempt tells its host and asks of it. Called on the threads that run guests.
pub trait HostCalls: Send + Sync + 'static {
    /// Takes one chunk of output, in order. May wait for room; the guest waits with it, at no cost of guest time.
    /// The error is what the guest is told.
    fn emit(&self, chunk: Vec<u8>) -> BoxFuture<'_, Result<(), String>>;
    /// Takes one line of the guest's stdout or stderr. Never waits.
    fn log(&self, stream: Stream, line: String);
    /// Says that this many lines were dropped, since the attempt's log had reached its bound.
    fn log_dropped(&self, lines: u64);
    fn progress(&self, fraction: f32, note: String);
    /// Takes jobs to be enqueued with the attempt's success; answers with the ids under which they will stand. May ask which of
    /// them stand already; the guest waits with it, at no cost of guest time. Polled as `broadcast` is.
    fn enqueue(&self, jobs: Vec<GuestJob>) -> BoxFuture<'_, Result<Vec<String>, String>>;
    /// Asks every subscriber of `topic`, no longer than `timeout`, which is within `remaining`: what the attempt has left.
    /// Answers with one reply for each, ordered by plugin; the error is what the guest is told. The guest waits meanwhile,
    /// at no cost of guest time. If the attempt is ended, the answer is dropped: nobody waits for the replies any more.
    /// Polled on the threads that run guests, which have no timers: what needs one belongs on the host's own.
    fn broadcast(
        &self,
        topic: String,
        payload: Vec<u8>,
        timeout: Duration,
        remaining: Duration,
    ) -> BoxFuture<'_, Result<Vec<Reply>, String>>;
    /// Where the plugin keeps its values; `None` where it can keep none.
    fn keeping(&self) -> Option<&dyn KvAccess> {
        None
    }
}

/// What an attempt reads and changes of what its plugin keeps: the committed values with its own changes on top, which come
/// with its success. The errors are what the guest is told. The guest waits meanwhile, at no cost of guest time; polled as
/// `broadcast` is.
pub trait KvAccess: Send + Sync + 'static {
    fn value(&self, key: KvKey) -> BoxFuture<'_, Result<Option<Vec<u8>>, String>>;
    /// Puts a value under a key, or takes it away.
    fn change(&self, key: KvKey, value: Option<Vec<u8>>) -> BoxFuture<'_, Result<(), String>>;
    fn keys(&self, wanted: KvKeyQuery) -> BoxFuture<'_, Result<Vec<KvKey>, String>>;
}

/// How an attempt ended, and what it cost.
#[derive(Clone, Debug)]
pub struct AttemptEnd {
    pub outcome: Outcome,
    /// `queue_wait` is not the engine's to know: zero.
    pub bill: Bill,
    /// Making the sandbox and taking it away.
    pub sandbox: Duration,
}
