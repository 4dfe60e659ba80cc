//! The input of an attempt, the calls that it makes to its host while it runs, and its end.

use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, ready};
use wharf_core::bounds;
use wharf_core::job::Stream;
use wharf_core::kv::{KvKey, KvKeyQuery};
use wharf_core::rollcall::Reply;
use wharf_core::shared_bytes::SharedBytes;
use wharf_core::tick::JobTick;

use crate::spec::task::Task;

/// One attempt: its input and its limits.
#[derive(Clone, Debug)]
pub struct Call {
    /// The guest function's input.
    pub input: CallInput,
    /// Limits of the attempt.
    pub limits: AttemptLimits,
}

/// The input of a plugin's handler or subscriber.
#[derive(Clone, Debug)]
pub enum CallInput {
    /// One attempt of a job, for the handler.
    Job {
        /// The id of the job.
        id: String,
        /// The task's name within the plugin, such as "count".
        task: String,
        /// The key of the job, if it has one.
        key: Option<String>,
        /// The payload.
        payload: SharedBytes,
        /// The number of the attempt; 1 for the first.
        attempt: u32,
        /// The tick that a schedule enqueued the job for.
        tick: Option<Box<JobTick>>,
    },
    /// One broadcast, for the subscriber.
    Message {
        /// The id of the broadcast.
        id: String,
        /// The topic.
        topic: String,
        /// The payload.
        payload: SharedBytes,
    },
}

impl CallInput {
    /// Returns the tick that a schedule enqueued the job for.
    pub(crate) fn tick(&self) -> Option<&JobTick> {
        match self {
            CallInput::Job { tick, .. } => tick.as_deref(),
            CallInput::Message { .. } => None,
        }
    }

    /// Returns the payload of the job or of the broadcast.
    pub fn payload(&self) -> &SharedBytes {
        match self {
            CallInput::Job { payload, .. } | CallInput::Message { payload, .. } => payload,
        }
    }
}

/// The limits of one attempt.
#[derive(Clone, Debug)]
pub struct AttemptLimits {
    /// Maximum wall time.
    pub timeout: Duration,
    /// Maximum CPU time: the processor time that the guest uses.
    pub cpu: Duration,
    /// Maximum time without output and without progress, if there is such a limit.
    pub stall: Option<Duration>,
    /// Maximum size of all memories together, in bytes.
    pub memory_bytes: u64,
    /// Time between the request to cancel and the moment when the sandbox is stopped.
    pub cancel_grace: Duration,
    /// The end of the lease with which it starts, if there is one; [`AttemptHandle::trust_until`](crate::AttemptHandle::trust_until) moves
    /// it.
    pub first_lease_end: Option<Instant>,
}

impl AttemptLimits {
    /// Returns the limits of a task as its manifest and the operator set them, without a lease.
    pub fn of(task: &Task) -> AttemptLimits {
        AttemptLimits {
            timeout: task.timeout,
            cpu: task.cpu,
            stall: task.stall,
            memory_bytes: task.memory_bytes,
            cancel_grace: bounds::CANCEL_GRACE,
            first_lease_end: None,
        }
    }
}

/// A job that a guest wants to enqueue, as the guest gave it: only its size is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestJob {
    /// The full name of the task, such as "words/count".
    pub task: String,
    /// The payload.
    pub payload: Vec<u8>,
    /// The key, if the guest set one.
    pub key: Option<String>,
    /// Time until the job is due, if the guest set one.
    pub delay: Option<Duration>,
    /// The priority; 0 unless the guest set one.
    pub priority: i32,
    /// The idempotency token, if the guest set one.
    pub token: Option<String>,
}

/// The calls that an attempt makes to its host. They run on the threads that run guests.
pub trait HostCalls: Send + Sync + 'static {
    /// Takes one chunk of output, in order. May wait until the host has capacity; the guest waits with it, which costs
    /// no CPU time.
    ///
    /// # Errors
    /// The text that the guest receives.
    fn emit(&self, chunk: Vec<u8>) -> BoxFuture<'_, Result<(), String>>;
    /// Takes one line of the guest's stdout or stderr. Never waits.
    fn log(&self, stream: Stream, line: String);
    /// Takes the number of lines that were dropped because the attempt's log had reached its limit.
    fn log_dropped(&self, lines: u64);
    /// Takes the progress that the guest reports: a fraction between 0 and 1, and a note.
    fn progress(&self, fraction: f32, note: String);
    /// Takes jobs to be enqueued with the attempt's success, and returns the ids that they will have. May query which
    /// of them exist already; the guest waits meanwhile, which costs no CPU time. Polled on the threads that run
    /// guests, which have no timers.
    ///
    /// # Errors
    /// The text that the guest receives.
    fn enqueue(&self, jobs: Vec<GuestJob>) -> BoxFuture<'_, Result<Vec<String>, String>>;
    /// Calls every subscriber of `topic` and returns one reply for each, ordered by plugin. Takes no longer than
    /// `timeout`, which is within `remaining`, the time that the attempt has left.
    ///
    /// The guest waits meanwhile, which costs no CPU time. If the attempt is ended, the future is dropped and the
    /// replies with it. Polled on the threads that run guests, which have no timers: a call that needs one runs it on
    /// the host's own runtime.
    ///
    /// # Errors
    /// The text that the guest receives.
    fn broadcast(
        &self,
        topic: String,
        payload: Vec<u8>,
        timeout: Duration,
        remaining: Duration,
    ) -> BoxFuture<'_, Result<Vec<Reply>, String>>;
    /// Holds the waiting jobs of this job's key in its limit group for a time, unless they are held for longer already. It is durable
    /// when this returns. The length is within what the operator grants.
    ///
    /// # Errors
    /// The text that the guest receives.
    fn hold_key(&self, length: Duration, reason: String) -> BoxFuture<'_, Result<(), String>> {
        let _ = (length, reason);
        Box::pin(ready(Err("a key can be held only while a job with a key is handled".to_owned())))
    }
    /// Takes note that the placeholder of a secret went out as it is, in this part of a request. Never waits.
    fn placeholder_sent(&self, secret: &str, part: &'static str) {
        let _ = (secret, part);
    }
    /// Returns access to the plugin's values in the store; `None` if it has no grant for any.
    fn kv(&self) -> Option<&dyn KvAccess> {
        None
    }
}

/// Reads and changes of a plugin's values in the store: the committed values with the attempt's own changes on top,
/// which are committed with its success.
///
/// The guest waits meanwhile, which costs no CPU time. The futures are polled on the threads that run guests, which
/// have no timers. The errors are texts that the guest receives.
pub trait KvAccess: Send + Sync + 'static {
    /// Returns the value of a key, if there is one.
    fn value(&self, key: KvKey) -> BoxFuture<'_, Result<Option<Vec<u8>>, String>>;
    /// Sets the value of a key, or removes it if `value` is `None`.
    fn change(&self, key: KvKey, value: Option<Vec<u8>>) -> BoxFuture<'_, Result<(), String>>;
    /// Returns the keys that match the query, in order.
    fn keys(&self, wanted: KvKeyQuery) -> BoxFuture<'_, Result<Vec<KvKey>, String>>;
}
