//! What goes into one attempt, what it may ask while it runs, and what comes out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use wharf_core::bounds;
use wharf_core::job::Stream;
use wharf_core::outcome::{Bill, Outcome};

use crate::manifest::Task;

/// One attempt at one job, as the plugin's handler sees it.
#[derive(Clone, Debug)]
pub struct Call {
    pub job: String,
    /// Without the plugin's name: "count".
    pub task: String,
    pub key: Option<String>,
    pub payload: Arc<[u8]>,
    /// 1 for the first attempt.
    pub attempt: u32,
    pub allowance: Allowance,
}

/// How much of everything an attempt may use.
#[derive(Clone, Debug)]
pub struct Allowance {
    pub timeout: Duration,
    pub cpu: Duration,
    pub stall: Option<Duration>,
    pub memory_bytes: u64,
    /// From the request to cancel until the sandbox is stopped.
    pub cancel_grace: Duration,
    /// Until when its lease is trusted, if there is one; `Control::trust_until` moves it on.
    pub deadline: Option<Instant>,
}

impl Allowance {
    /// What the task's manifest and the operator say, without a lease.
    pub fn of(task: &Task) -> Allowance {
        Allowance {
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
pub trait Attending: Send + Sync + 'static {
    /// Takes one chunk of output, in order. May wait for room; the guest waits with it, at no cost of guest time.
    /// The error is what the guest is told.
    fn emit(&self, chunk: Vec<u8>) -> BoxFuture<'_, Result<(), String>>;
    /// Takes one line of the guest's stdout or stderr. Never waits.
    fn log(&self, stream: Stream, line: String);
    /// Says that this many lines were dropped, since the attempt's log had reached its bound.
    fn log_dropped(&self, lines: u64);
    fn progress(&self, fraction: f32, note: String);
    /// Takes jobs to be enqueued with the attempt's success; answers with the ids that they will have.
    fn enqueue(&self, jobs: Vec<GuestJob>) -> Result<Vec<String>, String>;
}

/// How an attempt ended, and what it cost.
#[derive(Clone, Debug)]
pub struct Ended {
    pub outcome: Outcome,
    /// `queue_wait` is not the engine's to know: zero.
    pub bill: Bill,
    /// Making the sandbox and taking it away.
    pub sandbox: Duration,
}
