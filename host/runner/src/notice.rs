//! What the host reports to its listener. The log and the metrics are made of notices alone, so that they count the same
//! things.
//!
//! Notices are not durable, and nothing buffers them: a listener that is slow slows the host down.

use std::sync::Arc;
use std::time::Duration;

use wharf_core::ids::{JobId, PluginId, TaskName};
use wharf_core::job::{StateName, Stream};
use wharf_core::outcome::{OutcomeKind, Usage};
use wharf_core::topic::Topic;
use wharf_engine::Progress;

/// The function that receives the notices of a host. Clones share it.
#[derive(Clone)]
pub(crate) struct Listener(Arc<dyn Fn(&Notice) + Send + Sync>);

impl Listener {
    pub(crate) fn new(on_notice: impl Fn(&Notice) + Send + Sync + 'static) -> Listener {
        Listener(Arc::new(on_notice))
    }

    pub(crate) fn notify(&self, notice: &Notice) {
        (self.0)(notice);
    }
}

/// Something that happened in a host.
#[derive(Clone, Debug)]
pub enum Notice {
    /// Jobs were added to the queue, by clients or by attempts.
    JobsEnqueued {
        /// The task of all these jobs.
        task: TaskName,
        /// How many jobs were added.
        count: u64,
    },
    /// Requests were answered with a job that existed already under their token.
    JobsDeduplicated {
        /// The task of all these requests.
        task: TaskName,
        /// How many requests there were.
        count: u64,
    },
    /// Requests were discarded because their lane was full and their task says `discard`.
    JobsDiscarded {
        /// The task of all these requests.
        task: TaskName,
        /// How many requests there were.
        count: u64,
    },
    /// An attempt of a job started on this node.
    AttemptStarted {
        /// The task of the job.
        task: TaskName,
        /// The job.
        job: JobId,
        /// The number of the attempt, from 1.
        number: u32,
        /// How long the job had waited since it was due.
        queue_wait: Duration,
    },
    /// A job runs alone, since so many of its attempts ended with their hosts that it may be what kills them.
    SuspectStarted {
        /// The task of the job.
        task: TaskName,
        /// The job.
        job: JobId,
        /// How many of its attempts ended with their hosts.
        crashes: u32,
    },
    /// An attempt ended on this node. Its end is recorded next.
    AttemptEnded(Box<AttemptEnded>),
    /// The store refused the end of an attempt: another attempt had the job by then. Nothing of this attempt counts.
    AttemptStale {
        /// The task of the job.
        task: TaskName,
        /// The job.
        job: JobId,
        /// The number of the attempt, from 1.
        number: u32,
    },
    /// A job reached its final state.
    JobEnded {
        /// The task of the job.
        task: TaskName,
        /// The job.
        job: JobId,
        /// The final state.
        state: StateName,
    },
    /// A cancel of a job was requested.
    CancelRequested {
        /// The job.
        job: JobId,
    },
    /// A waiting job was cancelled because a newer one of its lane replaced it.
    JobReplaced {
        /// The job that was cancelled.
        job: JobId,
    },
    /// A retry of a finished job was requested.
    RetryRequested {
        /// The job.
        job: JobId,
    },
    /// Lines of an attempt's log were dropped.
    LogDropped {
        /// The task of the job.
        task: TaskName,
        /// The job.
        job: JobId,
        /// How many lines were dropped in the whole attempt.
        lines: u64,
    },
    /// A live broadcast ended: every subscriber has its reply.
    BroadcastEnded(Box<BroadcastEnded>),
    /// A live broadcast was refused because as many are open as may be.
    BroadcastRefused {
        /// The topic of the broadcast.
        topic: Topic,
    },
    /// A subscriber of a live broadcast, which has no log of its own, wrote a line to stdout or stderr.
    SubscriberLog {
        /// The subscriber.
        plugin: PluginId,
        /// The topic of the broadcast.
        topic: Topic,
        /// Whether it was stdout or stderr.
        stream: Stream,
        /// The line, without its end.
        line: String,
    },
    /// Lines of a subscriber in a live broadcast were dropped.
    SubscriberLogDropped {
        /// The subscriber.
        plugin: PluginId,
        /// The topic of the broadcast.
        topic: Topic,
        /// How many lines were dropped.
        lines: u64,
    },
    /// A plugin came to another step of loading; sent once for each step.
    PluginLoading {
        /// The plugin.
        plugin: PluginId,
        /// The step that has started.
        step: Progress,
    },
    /// A plugin was loaded.
    PluginLoaded {
        /// The plugin.
        plugin: PluginId,
        /// The version in its manifest.
        version: String,
        /// SHA-256 of its file, in hex.
        digest: String,
        /// How many tasks it has.
        tasks: usize,
        /// How many topics it subscribes to.
        topics: usize,
        /// How long loading took, compiling included.
        took: Duration,
    },
    /// A file is not a plugin that can run.
    PluginRefused {
        /// The path of the file.
        file: String,
        /// Why it was refused, and what to do.
        why: String,
        /// The version that was loaded before stays loaded.
        kept: bool,
    },
    /// A plugin was removed because its file is gone. Attempts that run on it finish.
    PluginRetired {
        /// The plugin.
        plugin: PluginId,
    },
    /// Every file that was in the plugin folder at the start was loaded or refused.
    FirstScanDone {
        /// How many plugins are loaded.
        loaded: usize,
        /// How many files were refused.
        refused: usize,
    },
    /// The plugin folder could not be read; the plugins that are loaded stay.
    FolderUnreadable {
        /// The reason.
        why: String,
    },
    /// A call of the store failed or hangs; it is made again.
    StoreFailed {
        /// What the call was for, such as "recording".
        doing: &'static str,
        /// The error.
        why: String,
    },
    /// The store works again after [`Notice::StoreFailed`].
    StoreRecovered,
    /// Another program keeps a log of the store from being merged into its file; sent again each time the log has doubled.
    StoreLogPinned {
        /// The path of the log.
        log: String,
        /// The size of the log in bytes.
        bytes: u64,
    },
    /// The log of [`Notice::StoreLogPinned`] can be merged again.
    StoreLogReleased,
    /// An operator set or cleared a limit on this node.
    LimitSet {
        /// The limit group.
        group: String,
        /// The key, if the limit is for one key.
        key: Option<String>,
    },
    /// A round of upkeep ended.
    Upkeep {
        /// How many expired leases were ended.
        reclaimed: u64,
        /// How many finished jobs were deleted.
        deleted: u64,
        /// How long the round took.
        took: Duration,
    },
    /// The host started to drain: it claims no more jobs.
    DrainStarted {
        /// How long running attempts may go on.
        timeout: Duration,
        /// How many attempts were running.
        running: u32,
    },
    /// The drain ended: nothing runs any more, and everything is recorded.
    DrainEnded,
    /// A bug of the host: what it was doing failed.
    HostFault {
        /// What the host was doing.
        doing: &'static str,
        /// What is known of the failure, and whether to restart the host.
        why: String,
    },
}

/// How an attempt ended, with its resource usage.
#[derive(Clone, Debug)]
pub struct AttemptEnded {
    /// The task of the job.
    pub task: TaskName,
    /// The job.
    pub job: JobId,
    /// The number of the attempt, from 1.
    pub number: u32,
    /// The kind of the outcome.
    pub kind: OutcomeKind,
    /// The report of an attempt that did not return, for its users; empty for one that did.
    pub report: String,
    /// The resources that the attempt used.
    pub usage: Usage,
    /// How long it took to create the sandbox and to remove it.
    pub sandbox: Duration,
}

/// How a live broadcast ended.
#[derive(Clone, Debug)]
pub struct BroadcastEnded {
    /// The ID of the broadcast.
    pub id: JobId,
    /// The topic.
    pub topic: Topic,
    /// 1 for a broadcast by a client or by a job, one more for each broadcast around it.
    pub depth: u32,
    /// Why it ended.
    pub ending: BroadcastEnding,
    /// The number of answers of each kind; kinds without an answer are left out.
    pub answers: Vec<(&'static str, u64)>,
    /// How long it took, from its start.
    pub took: Duration,
}

/// Why a live broadcast ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BroadcastEnding {
    /// Every subscriber has replied.
    AllReplied,
    /// As many subscribers had replied as its mode wanted.
    Enough,
    /// Its timeout was over.
    Deadline,
    /// Nobody waits for the replies any more.
    CallerGone,
    /// The host is stopping.
    Stopping,
}

impl BroadcastEnding {
    /// Returns the name that metrics carry. Never changed once released.
    pub const fn as_str(self) -> &'static str {
        match self {
            BroadcastEnding::AllReplied => "all-answered",
            BroadcastEnding::Enough => "enough",
            BroadcastEnding::Deadline => "deadline",
            BroadcastEnding::CallerGone => "caller-gone",
            BroadcastEnding::Stopping => "stopping",
        }
    }
}
