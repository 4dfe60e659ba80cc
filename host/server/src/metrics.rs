//! Counts the host's notices, and writes `/metrics` in the text format of OpenMetrics.
//!
//! Labels are tasks, groups, topics and fixed words: never keys or IDs, whose number is not bounded.

mod tasks;
mod process;
mod known_tasks;
mod gauges;
mod exposition;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use wharf_runner::{BroadcastEnded, Notice};

pub(crate) use exposition::Format;
pub(crate) use gauges::Gauges;
use known_tasks::KnownTasks;
use tasks::TaskMetrics;

/// Labels of one series: names are fixed, and values are few.
type Labels = Vec<(&'static str, String)>;
type Counters = Family<Labels, Counter>;
type Histograms = Family<Labels, Histogram, fn() -> Histogram>;

/// Upper bounds of histogram buckets, in seconds: from a fresh sandbox (0.1 ms) to a long attempt (minutes).
const SECONDS: [f64; 16] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 120.0, 600.0];

/// Counters and histograms that are fed by notices.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    tasks: TaskMetrics,
    plugin_loads: Counters,
    store_errors: Counters,
    store_log_pinned: Gauge,
    host_faults: Counters,
    leases_reclaimed: Counter,
    jobs_deleted: Counter,
    jobs_replaced: Counter,
    broadcasts: Topics,
    broadcasts_refused: Counter,
    /// Requests with a token that is not valid.
    pub(crate) wrong_tokens: Counter,
    settings_reloads: Counters,
    hold_changes: Counters,
    schedule_ticks: Counters,
    placeholders_sent: Counters,
    /// Counted by the log itself: a notice of it would be one more line.
    pub(crate) host_log_lines_dropped: Counter,
    /// The tasks that gauges have shown.
    pub(crate) known_tasks: KnownTasks,
}

impl Metrics {
    /// Returns metrics that have counted nothing yet.
    pub(crate) fn new() -> Metrics {
        let mut registry = Registry::with_prefix("wharf");
        let tasks = TaskMetrics::new(&mut registry);
        let mut counters = |name: &str, help: &str| {
            let counters = Counters::default();
            registry.register(name, help, counters.clone());
            counters
        };
        let plugin_loads = counters("plugin_loads", "Plugin files loaded or refused, by result");
        let store_errors = counters("store_errors", "Calls of the store that failed and were retried, by operation");
        let settings_reloads = counters("settings_reloads", "Times that the settings were read again, by result");
        let hold_changes = counters("hold_changes", "Holds set and released on this host, by change");
        let schedule_ticks =
            counters("schedule_ticks", "Ticks of schedules that this host fired or found missed, by outcome");
        let placeholders_sent = counters(
            "secret_placeholders_sent",
            "Placeholders of secrets that went out as they are in requests of plugins, by plugin and part of the request",
        );
        let host_faults = counters("host_faults", "Bugs that the host survived, by operation");
        let (leases_reclaimed, jobs_deleted, jobs_replaced) =
            (Counter::default(), Counter::default(), Counter::default());
        registry.register(
            "leases_reclaimed",
            "Leases that expired, after which their jobs were reclaimed",
            leases_reclaimed.clone(),
        );
        registry.register("jobs_deleted", "Finished jobs deleted after their retention time", jobs_deleted.clone());
        registry.register(
            "jobs_replaced",
            "Waiting jobs cancelled for a newer job with their key",
            jobs_replaced.clone(),
        );
        let store_log_pinned = Gauge::default();
        registry.register_with_unit(
            "store_log_pinned",
            "Last reported size of the store's write-ahead log while another program keeps it from being merged into the database file, otherwise 0",
            Unit::Bytes,
            store_log_pinned.clone(),
        );
        let wrong_tokens = Counter::default();
        registry.register("wrong_tokens", "Requests with a token that is not valid", wrong_tokens.clone());
        let broadcasts = Topics::new(&mut registry);
        let broadcasts_refused = Counter::default();
        registry.register(
            "broadcasts_refused",
            "Live broadcasts refused, as too many were open",
            broadcasts_refused.clone(),
        );
        let host_log_lines_dropped = Counter::default();
        registry.register(
            "host_log_lines_dropped",
            "Lines of the host's own log that were dropped, as its reader was too slow or gone",
            host_log_lines_dropped.clone(),
        );
        Metrics {
            registry,
            tasks,
            plugin_loads,
            store_errors,
            store_log_pinned,
            host_faults,
            leases_reclaimed,
            jobs_deleted,
            jobs_replaced,
            broadcasts,
            broadcasts_refused,
            wrong_tokens,
            settings_reloads,
            hold_changes,
            schedule_ticks,
            placeholders_sent,
            host_log_lines_dropped,
            known_tasks: KnownTasks::default(),
        }
    }

    /// Counts that the settings were read again.
    pub(crate) fn settings_reloaded(&self, result: &'static str) {
        add(&self.settings_reloads, label("result", result), 1);
    }

    /// Counts a notice. It is called on the host's threads, so it only adds.
    pub(crate) fn record(&self, notice: &Notice) {
        match notice {
            Notice::JobsEnqueued { task, count } => self.tasks.enqueued(task, *count),
            Notice::JobsDeduplicated { task, count } => self.tasks.deduplicated(task, *count),
            Notice::JobsDiscarded { task, count } => self.tasks.discarded(task, *count),
            Notice::AttemptStarted { task, queue_wait, .. } => self.tasks.attempt_started(task, *queue_wait),
            Notice::AttemptEnded(ended) => self.tasks.attempt_ended(ended),
            Notice::AttemptStale { task, .. } => self.tasks.attempt_stale(task),
            Notice::JobEnded { task, state, .. } => self.tasks.ended(task, *state),
            Notice::LogDropped { task, lines, .. } => self.tasks.log_lines_dropped(task, *lines),
            Notice::PluginLoaded { .. } => add(&self.plugin_loads, label("result", "loaded"), 1),
            Notice::PluginRefused { .. } => add(&self.plugin_loads, label("result", "refused"), 1),
            Notice::StoreFailed { doing, .. } => add(&self.store_errors, label("doing", doing), 1),
            Notice::StoreLogPinned { bytes, .. } => _ = self.store_log_pinned.set(bytes.cast_signed()),
            Notice::StoreLogReleased => _ = self.store_log_pinned.set(0),
            Notice::HostFault { doing, .. } => add(&self.host_faults, label("doing", doing), 1),
            Notice::Upkeep { reclaimed, deleted, .. } => {
                self.leases_reclaimed.inc_by(*reclaimed);
                self.jobs_deleted.inc_by(*deleted);
            }
            Notice::JobReplaced { .. } => {
                self.jobs_replaced.inc();
            }
            Notice::FailureRegressed { task, .. } => self.tasks.regressed(task),
            Notice::HoldSet { .. } => add(&self.hold_changes, label("change", "set"), 1),
            Notice::HoldReleased { .. } => add(&self.hold_changes, label("change", "released"), 1),
            Notice::ScheduleTicked { ticks, .. } => {
                for tick in ticks {
                    add(&self.schedule_ticks, label("outcome", tick.outcome.as_str()), tick.count);
                }
            }
            Notice::PlaceholderSent { plugin, part, .. } => {
                add(&self.placeholders_sent, vec![("plugin", plugin.to_string()), ("part", (*part).to_owned())], 1);
            }
            Notice::BroadcastEnded(ended) => self.broadcasts.ended(ended),
            Notice::BroadcastRefused { .. } => {
                self.broadcasts_refused.inc();
            }
            Notice::CancelRequested { .. }
            | Notice::JobFailed(_)
            | Notice::SuspectStarted { .. }
            | Notice::SubscriberLog { .. }
            | Notice::SubscriberLogDropped { .. }
            | Notice::RetryRequested { .. }
            | Notice::PluginLoading { .. }
            | Notice::PluginRetired { .. }
            | Notice::FirstScanDone { .. }
            | Notice::FolderUnreadable { .. }
            | Notice::FolderUnwatched { .. }
            | Notice::StoreRecovered
            | Notice::OperationStarted { .. }
            | Notice::OperationEnded { .. }
            | Notice::ScheduleTired { .. }
            | Notice::ScheduleUnreadable { .. }
            | Notice::ScheduleChanged { .. }
            | Notice::ScheduleDiffers { .. }
            | Notice::SchedulesRewound { .. }
            | Notice::LimitSet { .. }
            | Notice::FailureStateSet { .. }
            | Notice::NodeDrained { .. }
            | Notice::ClockDoubted { .. }
            | Notice::DrainStarted { .. }
            | Notice::DrainEnded => {}
        }
    }

    /// Writes all counters and histograms, and these gauges, in the text format of OpenMetrics.
    pub(crate) fn encode(&self, gauges: &Gauges) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode_registry(&mut text, &self.registry)?;
        encode_registry(&mut text, &gauges.registry)?;
        encode_registry(&mut text, &gauges.of_process)?;
        encode_eof(&mut text)?;
        Ok(text)
    }
}

/// Counters and histograms by topic. Clients choose topics, so after [`TOPICS_MAX`] of them, new ones are counted together.
#[derive(Debug)]
struct Topics {
    /// Topics that have a label of their own. Locked for one lookup, never across an await.
    known: Mutex<BTreeSet<String>>,
    ended: Counters,
    replies: Counters,
    elapsed: Histograms,
}

/// Number of topics that have labels of their own.
const TOPICS_MAX: usize = 200;

impl Topics {
    fn new(registry: &mut Registry) -> Topics {
        let (ended, replies) = (Counters::default(), Counters::default());
        let elapsed: Histograms = Family::new_with_constructor(|| Histogram::new(SECONDS));
        registry.register("broadcasts", "Live broadcasts ended, by topic and reason", ended.clone());
        registry.register("broadcast_replies", "Replies to live broadcasts, by topic and outcome", replies.clone());
        registry.register_with_unit(
            "broadcast",
            "Time from the start of a live broadcast to its end",
            Unit::Seconds,
            elapsed.clone(),
        );
        Topics { known: Mutex::default(), ended, replies, elapsed }
    }

    fn ended(&self, ended: &BroadcastEnded) {
        let topic = self.label(ended.topic.as_str());
        let labels = |name, value: &str| vec![("topic", topic.clone()), (name, value.to_owned())];
        add(&self.ended, labels("ending", ended.ending.as_str()), 1);
        for (kind, count) in &ended.answers {
            add(&self.replies, labels("outcome", kind), *count);
        }
        self.elapsed.get_or_create(&vec![("topic", topic.clone())]).observe(ended.took.as_secs_f64());
    }

    /// Returns the label of a topic.
    fn label(&self, topic: &str) -> String {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.contains(topic) {
            if known.len() >= TOPICS_MAX {
                return "(others)".to_owned();
            }
            known.insert(topic.to_owned());
        }
        topic.to_owned()
    }
}

fn label(name: &'static str, value: &str) -> Labels {
    vec![(name, value.to_owned())]
}

fn add(counters: &Counters, labels: Labels, count: u64) {
    counters.get_or_create(&labels).inc_by(count);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use wharf_core::ids::TaskName;
    use wharf_core::job::StateName;
    use wharf_core::outcome::{OutcomeKind, Usage};
    use wharf_runner::AttemptEnded;

    use super::*;

    #[test]
    fn the_text_has_what_was_counted_and_the_gauges() {
        let metrics = Metrics::new();
        let task: TaskName = "words/count".parse().unwrap();
        let job = "0000000000001".parse().unwrap();
        metrics.record(&Notice::JobsEnqueued { task: task.clone(), count: 3 });
        metrics.record(&Notice::JobEnded { task: task.clone(), job, state: StateName::Succeeded });
        metrics.record(&Notice::AttemptEnded(Box::new(AttemptEnded {
            task,
            job,
            number: 1,
            kind: OutcomeKind::Trapped,
            report: String::new(),
            usage: Usage { wall: Duration::from_millis(3), ..Usage::default() },
            sandbox: Duration::from_micros(20),
        })));
        for topic in (0..TOPICS_MAX + 5).map(|n| format!("t.{n}")) {
            metrics.record(&Notice::BroadcastEnded(Box::new(BroadcastEnded {
                id: job,
                topic: topic.parse().unwrap(),
                depth: 1,
                ending: wharf_runner::BroadcastEnding::Deadline,
                answers: vec![("replied", 2), ("timed-out", 1)],
                took: Duration::from_millis(20),
            })));
        }
        let mut gauges = Gauges::new();
        gauges.labelled("jobs_waiting", "Waiting jobs", "task", [("words/count".to_owned(), 2)]);
        gauges.seconds("oldest_due_age", "Age", Duration::from_millis(1500));
        let text = metrics.encode(&gauges).unwrap();
        for line in [
            "wharf_jobs_enqueued_total{task=\"words/count\"} 3",
            "wharf_jobs_ended_total{task=\"words/count\",state=\"succeeded\"} 1",
            "wharf_attempts_ended_total{task=\"words/count\",outcome=\"trapped\"} 1",
            "wharf_attempt_wall_seconds_bucket{le=\"0.005\",task=\"words/count\"} 1",
            "wharf_broadcasts_total{topic=\"t.0\",ending=\"deadline\"} 1",
            "wharf_broadcast_replies_total{topic=\"t.0\",outcome=\"replied\"} 2",
            "wharf_broadcast_replies_total{topic=\"(others)\",outcome=\"timed-out\"} 5",
            "wharf_jobs_waiting{task=\"words/count\"} 2",
            "wharf_oldest_due_age_seconds 1.5",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
