//! What the host tells whoever listens. Log and metrics are made of this alone, so that they count the same things.
//! Not durable, and not waited for: a listener that is slow slows the host down.

use std::sync::Arc;
use std::time::Duration;

use wharf_core::ids::{JobId, PluginId, TaskName};
use wharf_core::job::{StateName, Stream};
use wharf_core::outcome::{Bill, OutcomeKind};
use wharf_core::topic::Topic;
use wharf_engine::Progress;

/// Whoever listens.
pub(crate) type Listener = Arc<dyn Fn(&Notice) + Send + Sync>;

#[derive(Clone, Debug)]
pub enum Notice {
    /// Jobs were added to the queue, by people or by attempts.
    JobsEnqueued {
        task: TaskName,
        count: u64,
    },
    /// Requests were answered with a job that stood already, by their token.
    JobsKnown {
        task: TaskName,
        count: u64,
    },
    /// Requests were not taken, since their lane was full and their task says so.
    JobsDiscarded {
        task: TaskName,
        count: u64,
    },
    AttemptStarted {
        task: TaskName,
        job: JobId,
        number: u32,
        queue_wait: Duration,
    },
    /// A job runs alone, since so many of its attempts ended with their hosts that it may be what kills them.
    SuspectStarted {
        task: TaskName,
        job: JobId,
        crashes: u32,
    },
    AttemptEnded(Box<AttemptEnded>),
    /// The store refused the end of an attempt: the job was with another by then. Nothing of it counts.
    AttemptStale {
        task: TaskName,
        job: JobId,
        number: u32,
    },
    /// A job came to its final state.
    JobEnded {
        task: TaskName,
        job: JobId,
        state: StateName,
    },
    CancelAsked {
        job: JobId,
    },
    /// A waiting job was cancelled for a newer one of its lane.
    JobReplaced {
        job: JobId,
    },
    RetryAsked {
        job: JobId,
    },
    /// Lines of an attempt's log that were not kept.
    LogDropped {
        task: TaskName,
        job: JobId,
        lines: u64,
    },
    /// Every subscriber of a live broadcast has its reply.
    BroadcastEnded(Box<BroadcastEnded>),
    /// A live broadcast was not begun, since as many are open as may be.
    BroadcastRefused {
        topic: Topic,
    },
    /// A line of stdout or stderr of a subscriber in a live broadcast, which has no log of its own.
    SubscriberLog {
        plugin: PluginId,
        topic: Topic,
        stream: Stream,
        line: String,
    },
    SubscriberLogDropped {
        plugin: PluginId,
        topic: Topic,
        lines: u64,
    },
    /// A plugin is being made ready; told once for each step that it comes to.
    PluginLoading {
        plugin: PluginId,
        step: Progress,
    },
    PluginLoaded {
        plugin: PluginId,
        version: String,
        digest: String,
        tasks: usize,
        topics: usize,
        took: Duration,
    },
    /// A file is not a plugin that can run. `kept` says that the version loaded before goes on.
    PluginRefused {
        file: String,
        why: String,
        kept: bool,
    },
    /// A plugin's file is gone. Attempts that run on it finish.
    PluginRetired {
        plugin: PluginId,
    },
    /// Every file that was in the folder at the start was loaded or refused.
    FirstScanDone {
        loaded: usize,
        refused: usize,
    },
    /// The plugin folder cannot be read; the plugins that are loaded stay.
    FolderTrouble {
        why: String,
    },
    /// The store failed a call; it is made again.
    StoreTrouble {
        doing: &'static str,
        why: String,
    },
    /// The store works again.
    StoreMended,
    /// Another program keeps a log of the store from being carried into its file; told again each time it has doubled.
    StoreLogHeld {
        log: String,
        bytes: u64,
    },
    /// It is carried in.
    StoreLogFree,
    LimitSet {
        group: String,
        key: Option<String>,
    },
    Upkeep {
        reclaimed: u64,
        forgotten: u64,
        took: Duration,
    },
    DrainBegan {
        patience: Duration,
        running: u32,
    },
    DrainEnded,
    /// A bug of the host: what it was doing went wrong, and goes on.
    HostFault {
        doing: &'static str,
        why: String,
    },
}

#[derive(Clone, Debug)]
pub struct AttemptEnded {
    pub task: TaskName,
    pub job: JobId,
    pub number: u32,
    pub kind: OutcomeKind,
    /// What people read of an attempt that did not return.
    pub report: String,
    pub bill: Bill,
    /// Making the sandbox and taking it away.
    pub sandbox: Duration,
}

#[derive(Clone, Debug)]
pub struct BroadcastEnded {
    pub id: JobId,
    pub topic: Topic,
    /// 1 where people asked for it, or a job.
    pub depth: u32,
    pub ending: BroadcastEnding,
    /// How many gave each kind of answer; kinds that nobody gave are left out.
    pub answers: Vec<(&'static str, u64)>,
    pub took: Duration,
}

/// Why a live broadcast was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BroadcastEnding {
    AllAnswered,
    /// As many had replied as were wanted.
    Enough,
    Deadline,
    CallerGone,
    /// The host has stopped.
    Stopping,
}

impl BroadcastEnding {
    pub const fn as_str(self) -> &'static str {
        match self {
            BroadcastEnding::AllAnswered => "all-answered",
            BroadcastEnding::Enough => "enough",
            BroadcastEnding::Deadline => "deadline",
            BroadcastEnding::CallerGone => "caller-gone",
            BroadcastEnding::Stopping => "stopping",
        }
    }
}
