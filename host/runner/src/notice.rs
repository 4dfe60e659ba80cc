//! What the host reports to its listener. The log and the metrics are made of notices alone, so that they count the same
//! things.
//!
//! Notices are not durable, and nothing buffers them: a listener that is slow slows the host down.

use std::sync::Arc;
use std::time::Duration;

use wharf_core::attempt::Attempt;
use wharf_core::audit::ActKind;
use wharf_core::bulk::BulkOperation;
use wharf_core::clock_watch::ClockDoubt;
use wharf_core::failure::FailureState;
use wharf_core::fingerprint::Fingerprint;
use wharf_core::hold::{Hold, HoldScope};
use wharf_core::ids::{JobId, PluginId, ScheduleId, TaskName};
use wharf_core::job::{Job, StateName, Stream};
use wharf_core::limits::Limits;
use wharf_core::outcome::{OutcomeKind, Usage};
use wharf_core::schedule::TickRecord;
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
        /// Number of jobs that were added.
        count: u64,
    },
    /// Requests were answered with a job that existed already under their token.
    JobsDeduplicated {
        /// The task of all these requests.
        task: TaskName,
        /// Number of requests.
        count: u64,
    },
    /// Requests were discarded because their lane was full and their task says `discard`.
    JobsDiscarded {
        /// The task of all these requests.
        task: TaskName,
        /// Number of requests.
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
        /// Time for which the job had waited since it was due.
        queue_wait: Duration,
    },
    /// A job runs alone, since so many of its attempts ended with their hosts that it may be what kills them.
    SuspectStarted {
        /// The task of the job.
        task: TaskName,
        /// The job.
        job: JobId,
        /// Number of its attempts that ended with their hosts.
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
    /// A job failed, and no attempt follows. Sent after [`Notice::JobEnded`], with what the store has of it.
    JobFailed(Box<FailedJob>),
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
        /// Number of lines that were dropped in the whole attempt.
        lines: u64,
    },
    /// The placeholder of a secret went out as it is, in a request of a plugin.
    PlaceholderSent {
        /// The plugin.
        plugin: PluginId,
        /// The name of the secret.
        secret: String,
        /// The part of the request: "header", "url" or "body".
        part: &'static str,
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
        /// The stream: stdout or stderr.
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
        /// Number of lines that were dropped.
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
        /// Number of its tasks.
        tasks: usize,
        /// Number of topics that it subscribes to.
        topics: usize,
        /// Time that loading took, compiling included.
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
        /// The reason may pass: the host tries again, and reports it again only if the reason changes.
        passing: bool,
    },
    /// A plugin was removed because its file is gone. Attempts that run on it finish.
    PluginRetired {
        /// The plugin.
        plugin: PluginId,
    },
    /// Every file that was in the plugin folder at the start was loaded or refused.
    FirstScanDone {
        /// Number of plugins that are loaded.
        loaded: usize,
        /// Number of files that were refused.
        refused: usize,
    },
    /// The plugin folder could not be read; the plugins that are loaded stay.
    FolderUnreadable {
        /// The reason.
        why: String,
    },
    /// The plugin folder could not be watched: changes in it are found by scanning it at intervals.
    FolderUnwatched {
        /// The reason.
        why: String,
    },
    /// A call of the store failed or hangs; it is made again.
    StoreFailed {
        /// Purpose of the call, such as "recording".
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
        /// The limits that were set; none if the declared ones hold again.
        limits: Limits,
        /// The name of the operator's token, if the host knows it.
        by: Option<String>,
    },
    /// An operator set a hold on this node.
    HoldSet {
        /// The hold.
        hold: Box<Hold>,
    },
    /// An operator released a hold on this node.
    HoldReleased {
        /// The scope of the hold.
        scope: HoldScope,
        /// The name of the operator's token, if the host knows it.
        by: Option<String>,
    },
    /// A job failed whose failure group was resolved, by a plugin that was loaded first after that: the group is open again.
    FailureRegressed {
        /// The task of the job.
        task: TaskName,
        /// The job.
        job: JobId,
        /// The fingerprint of the group.
        fingerprint: Fingerprint,
    },
    /// An operator changed the state of a failure group on this node.
    FailureStateSet {
        /// The fingerprint of the group.
        fingerprint: Fingerprint,
        /// The new state.
        state: FailureState,
        /// The name of the operator's token, if the host knows it.
        by: Option<String>,
    },

    /// An operator started a bulk operation on this node.
    OperationStarted {
        /// The operation.
        operation: Box<BulkOperation>,
    },
    /// A bulk operation ended: it went through all jobs, was halted, or an operator cancelled it on this node.
    OperationEnded {
        /// The operation.
        operation: Box<BulkOperation>,
    },
    /// A schedule ticked: this host fired it, or found that its ticks were missed.
    ScheduleTicked {
        /// The schedule.
        schedule: ScheduleId,
        /// The outcome of each tick.
        ticks: Vec<TickRecord>,
        /// Number of ticks with the last outcome, one after the other, up to the last one.
        in_a_row: u64,
    },
    /// This host cannot work out the moments of a schedule, and leaves it as it is.
    ScheduleUnreadable {
        /// The schedule.
        schedule: ScheduleId,
        /// The reason.
        why: String,
    },
    /// A schedule paused by itself.
    ScheduleTired {
        /// The schedule.
        schedule: ScheduleId,
        /// The reason.
        reason: String,
    },
    /// A schedule was changed on this node, by an operator or for its settings file.
    ScheduleChanged {
        /// The schedule.
        schedule: ScheduleId,
        /// The kind of the act: "schedule-set", or another one.
        act: ActKind,
        /// The name of the operator's token, if the host knows it.
        by: Option<String>,
    },
    /// A schedule of the settings file does not hold, and another definition does.
    ScheduleDiffers {
        /// The schedule.
        schedule: ScheduleId,
        /// Why the file's definition does not hold, and what to do.
        why: String,
    },
    /// The next moments of schedules were worked out anew: the clock was ahead before.
    SchedulesRewound {
        /// Number of schedules.
        count: usize,
    },
    /// A round of upkeep ended.
    Upkeep {
        /// Number of expired leases that were ended.
        reclaimed: u64,
        /// Number of finished jobs that were deleted.
        deleted: u64,
        /// Time that the round took.
        took: Duration,
    },
    /// The clock is doubted: for a time nothing is deleted for its age.
    ClockDoubted {
        /// Why.
        why: ClockDoubt,
    },
    /// An operator drained this node, or let it claim jobs again.
    NodeDrained {
        /// True if it was drained.
        drained: bool,
        /// The name of the operator's token, if the host knows it.
        by: Option<String>,
    },
    /// The host started to stop: it claims no more jobs.
    DrainStarted {
        /// Time for which running attempts may go on.
        timeout: Duration,
        /// Number of attempts that were running.
        running: u32,
    },
    /// The drain ended: nothing runs any more, and everything is recorded.
    DrainEnded,
    /// A bug of the host: what it was doing failed.
    HostFault {
        /// The host's activity at that time.
        doing: &'static str,
        /// Description of the failure, and whether to restart the host.
        why: String,
    },
}

/// The end of an attempt, with its resource usage.
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
    /// Time to create the sandbox and to remove it.
    pub sandbox: Duration,
}

/// A job that failed.
#[derive(Clone, Debug)]
pub struct FailedJob {
    /// The task of the job.
    pub task: TaskName,
    /// The ID of the job.
    pub id: JobId,
    /// The job as the store has it; `None` if it could not be read in time.
    pub job: Option<Job>,
    /// The attempts that the job keeps, in ascending order.
    pub attempts: Vec<Attempt>,
}

/// The end of a live broadcast.
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
    /// Time from its start to its end.
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
