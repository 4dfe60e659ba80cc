//! Counts what the host tells, and answers `/metrics` in Prometheus' text format.
//!
//! Labels are tasks, groups, topics and fixed words: never keys or ids, whose number nobody bounds.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use wharf_core::ids::TaskName;
use wharf_runner::{AttemptEnded, BroadcastEnded, Notice};

/// The labels of one series: names that are fixed, values that are few.
type Labels = Vec<(&'static str, String)>;
type Counts = Family<Labels, Counter>;
type Times = Family<Labels, Histogram, fn() -> Histogram>;

/// From a tenth of a millisecond, where a fresh sandbox is, to the minutes of a long attempt.
const SECONDS: [f64; 16] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 120.0, 600.0];

/// Everything that is counted from notices.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    jobs_enqueued: Counts,
    jobs_known: Counts,
    jobs_discarded: Counts,
    jobs_ended: Counts,
    attempts_started: Counts,
    attempts_ended: Counts,
    attempts_stale: Counts,
    queue_wait: Times,
    wall: Times,
    guest: Times,
    sandbox: Times,
    log_lines_dropped: Counts,
    plugin_loads: Counts,
    store_trouble: Counts,
    store_log_held: Gauge,
    host_faults: Counts,
    leases_reclaimed: Counter,
    jobs_forgotten: Counter,
    jobs_replaced: Counter,
    broadcasts: Topics,
    broadcasts_refused: Counter,
    /// Counted by the log itself, which has no notice of it: that would be a line more.
    pub(crate) host_log_lines_dropped: Counter,
}

impl Metrics {
    pub(crate) fn new() -> Metrics {
        let mut registry = Registry::with_prefix("wharf");
        let mut counts = |name: &str, help: &str| {
            let counts = Counts::default();
            registry.register(name, help, counts.clone());
            counts
        };
        let jobs_enqueued = counts("jobs_enqueued", "Jobs that were added to the queue");
        let jobs_known = counts("jobs_known", "Requests that were answered with the job of the same token");
        let jobs_discarded = counts("jobs_discarded", "Jobs that were not taken, as their lane was full");
        let jobs_ended = counts("jobs_ended", "Jobs that came to their final state");
        let attempts_started = counts("attempts_started", "Attempts that began");
        let attempts_ended = counts("attempts_ended", "Attempts that ended, by outcome");
        let attempts_stale = counts("attempts_stale", "Attempts whose end was refused, as their job was with another");
        let log_lines_dropped = counts("log_lines_dropped", "Lines of attempts' logs that were not kept");
        let plugin_loads = counts("plugin_loads", "Plugin files that were loaded or refused");
        let store_trouble = counts("store_trouble", "Calls of the store that failed and were made again");
        let host_faults = counts("host_faults", "Bugs of the host that it survived");
        let mut times = |name: &str, help: &str| {
            let times: Times = Family::new_with_constructor(|| Histogram::new(SECONDS));
            registry.register_with_unit(name, help, Unit::Seconds, times.clone());
            times
        };
        let queue_wait = times("queue_wait", "From when a job was due until it was claimed");
        let wall = times("attempt_wall", "From the claim of an attempt until its end");
        let guest = times("attempt_guest", "Time in the plugin's code");
        let sandbox = times("attempt_sandbox", "Making an attempt's sandbox and taking it away");
        let (leases_reclaimed, jobs_forgotten, jobs_replaced) =
            (Counter::default(), Counter::default(), Counter::default());
        registry.register("leases_reclaimed", "Leases that ran out and were ended", leases_reclaimed.clone());
        registry.register("jobs_forgotten", "Finished jobs that were removed", jobs_forgotten.clone());
        registry.register(
            "jobs_replaced",
            "Waiting jobs that were cancelled for a newer one of their key",
            jobs_replaced.clone(),
        );
        let store_log_held = Gauge::default();
        registry.register_with_unit(
            "store_log_held",
            "How long the store's log is that another program keeps from being carried into its file, when it was last told",
            Unit::Bytes,
            store_log_held.clone(),
        );
        let broadcasts = Topics::new(&mut registry);
        let broadcasts_refused = Counter::default();
        registry.register(
            "broadcasts_refused",
            "Live broadcasts that were not begun, as as many were open as may be",
            broadcasts_refused.clone(),
        );
        let host_log_lines_dropped = Counter::default();
        registry.register(
            "host_log_lines_dropped",
            "Lines of the host's own log that were dropped, as whoever reads it was slower than they came, or gone",
            host_log_lines_dropped.clone(),
        );
        Metrics {
            registry,
            jobs_enqueued,
            jobs_known,
            jobs_discarded,
            jobs_ended,
            attempts_started,
            attempts_ended,
            attempts_stale,
            queue_wait,
            wall,
            guest,
            sandbox,
            log_lines_dropped,
            plugin_loads,
            store_trouble,
            store_log_held,
            host_faults,
            leases_reclaimed,
            jobs_forgotten,
            jobs_replaced,
            broadcasts,
            broadcasts_refused,
            host_log_lines_dropped,
        }
    }

    /// Counts what the host tells. Called on the host's threads: it only adds.
    pub(crate) fn hear(&self, notice: &Notice) {
        match notice {
            Notice::JobsEnqueued { task, count } => add(&self.jobs_enqueued, of(task), *count),
            Notice::JobsDeduplicated { task, count } => add(&self.jobs_known, of(task), *count),
            Notice::JobsDiscarded { task, count } => add(&self.jobs_discarded, of(task), *count),
            Notice::AttemptStarted { task, queue_wait, .. } => {
                add(&self.attempts_started, of(task), 1);
                observe(&self.queue_wait, task, *queue_wait);
            }
            Notice::AttemptEnded(ended) => self.attempt_ended(ended),
            Notice::AttemptStale { task, .. } => add(&self.attempts_stale, of(task), 1),
            Notice::JobEnded { task, state, .. } => add(&self.jobs_ended, of_and(task, "state", state.as_str()), 1),
            Notice::LogDropped { task, lines, .. } => add(&self.log_lines_dropped, of(task), *lines),
            Notice::PluginLoaded { .. } => add(&self.plugin_loads, word("result", "loaded"), 1),
            Notice::PluginRefused { .. } => add(&self.plugin_loads, word("result", "refused"), 1),
            Notice::StoreFailed { doing, .. } => add(&self.store_trouble, word("doing", doing), 1),
            Notice::StoreLogPinned { bytes, .. } => _ = self.store_log_held.set(bytes.cast_signed()),
            Notice::StoreLogReleased => _ = self.store_log_held.set(0),
            Notice::HostFault { doing, .. } => add(&self.host_faults, word("doing", doing), 1),
            Notice::Upkeep { reclaimed, deleted, .. } => {
                self.leases_reclaimed.inc_by(*reclaimed);
                self.jobs_forgotten.inc_by(*deleted);
            }
            Notice::JobReplaced { .. } => {
                self.jobs_replaced.inc();
            }
            Notice::BroadcastEnded(ended) => self.broadcasts.ended(ended),
            Notice::BroadcastRefused { .. } => {
                self.broadcasts_refused.inc();
            }
            Notice::CancelRequested { .. }
            | Notice::SuspectStarted { .. }
            | Notice::SubscriberLog { .. }
            | Notice::SubscriberLogDropped { .. }
            | Notice::RetryRequested { .. }
            | Notice::PluginLoading { .. }
            | Notice::PluginRetired { .. }
            | Notice::FirstScanDone { .. }
            | Notice::FolderUnreadable { .. }
            | Notice::StoreRecovered
            | Notice::LimitSet { .. }
            | Notice::DrainStarted { .. }
            | Notice::DrainEnded => {}
        }
    }

    fn attempt_ended(&self, ended: &AttemptEnded) {
        add(&self.attempts_ended, of_and(&ended.task, "outcome", ended.kind.as_str()), 1);
        observe(&self.wall, &ended.task, ended.bill.wall);
        observe(&self.guest, &ended.task, ended.bill.guest);
        observe(&self.sandbox, &ended.task, ended.sandbox);
    }

    /// The page: what was counted, and `now`, what is so at this moment.
    pub(crate) fn page(&self, now: &Gauges) -> Result<String, fmt::Error> {
        let mut page = String::new();
        encode_registry(&mut page, &self.registry)?;
        encode_registry(&mut page, &now.registry)?;
        encode_eof(&mut page)?;
        Ok(page)
    }
}

/// What is counted by topic. Whoever may broadcast may make up topics: after so many, new ones are counted together.
#[derive(Debug)]
struct Topics {
    /// Locked for one look, never across an await.
    known: Mutex<BTreeSet<String>>,
    ended: Counts,
    replies: Counts,
    took: Times,
}

const TOPICS_MAX: usize = 200;

impl Topics {
    fn new(registry: &mut Registry) -> Topics {
        let (ended, replies) = (Counts::default(), Counts::default());
        let took: Times = Family::new_with_constructor(|| Histogram::new(SECONDS));
        registry.register("broadcasts", "Live broadcasts that ended, by topic and why", ended.clone());
        registry.register("broadcast_replies", "Replies to live broadcasts, by topic and outcome", replies.clone());
        registry.register_with_unit(
            "broadcast",
            "From a live broadcast's begin to its end",
            Unit::Seconds,
            took.clone(),
        );
        Topics { known: Mutex::default(), ended, replies, took }
    }

    fn ended(&self, ended: &BroadcastEnded) {
        let topic = self.label(ended.topic.as_str());
        let with = |name, value: &str| vec![("topic", topic.clone()), (name, value.to_owned())];
        add(&self.ended, with("ending", ended.ending.as_str()), 1);
        for (kind, count) in &ended.answers {
            add(&self.replies, with("outcome", kind), *count);
        }
        self.took.get_or_create(&vec![("topic", topic.clone())]).observe(ended.took.as_secs_f64());
    }

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

/// What is so at the moment of a scrape.
#[derive(Debug)]
pub(crate) struct Gauges {
    registry: Registry,
}

/// More series than this of one gauge are not shown.
const SERIES_MAX: usize = 2000;

impl Gauges {
    pub(crate) fn new() -> Gauges {
        Gauges { registry: Registry::with_prefix("wharf") }
    }

    /// One gauge, with one series for each label value.
    pub(crate) fn labelled(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = (String, u64)>,
    ) {
        let family = Family::<Labels, Gauge>::default();
        for (value, number) in values.into_iter().take(SERIES_MAX) {
            family.get_or_create(&vec![(label, value)]).set(number.cast_signed());
        }
        self.registry.register(name, help, family);
    }

    pub(crate) fn plain(&mut self, name: &str, help: &str, number: u64) {
        let gauge = Gauge::<i64>::default();
        gauge.set(number.cast_signed());
        self.registry.register(name, help, gauge);
    }

    pub(crate) fn seconds(&mut self, name: &str, help: &str, length: Duration) {
        let gauge = Gauge::<f64, std::sync::atomic::AtomicU64>::default();
        gauge.set(length.as_secs_f64());
        self.registry.register_with_unit(name, help, Unit::Seconds, gauge);
    }
}

fn of(task: &TaskName) -> Labels {
    vec![("task", task.to_string())]
}

fn of_and(task: &TaskName, name: &'static str, value: &str) -> Labels {
    vec![("task", task.to_string()), (name, value.to_owned())]
}

fn word(name: &'static str, value: &str) -> Labels {
    vec![(name, value.to_owned())]
}

fn add(counts: &Counts, labels: Labels, count: u64) {
    counts.get_or_create(&labels).inc_by(count);
}

fn observe(times: &Times, task: &TaskName, length: Duration) {
    times.get_or_create(&of(task)).observe(length.as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;
    use wharf_core::job::StateName;
    use wharf_core::outcome::{Bill, OutcomeKind};

    #[test]
    fn the_page_has_what_was_told_and_what_is_so() {
        let metrics = Metrics::new();
        let task: TaskName = "words/count".parse().unwrap();
        let job = "0000000000001".parse().unwrap();
        metrics.hear(&Notice::JobsEnqueued { task: task.clone(), count: 3 });
        metrics.hear(&Notice::JobEnded { task: task.clone(), job, state: StateName::Succeeded });
        metrics.hear(&Notice::AttemptEnded(Box::new(AttemptEnded {
            task,
            job,
            number: 1,
            kind: OutcomeKind::Trapped,
            report: String::new(),
            bill: Bill { wall: Duration::from_millis(3), ..Bill::default() },
            sandbox: Duration::from_micros(20),
        })));
        for topic in (0..TOPICS_MAX + 5).map(|n| format!("t.{n}")) {
            metrics.hear(&Notice::BroadcastEnded(Box::new(BroadcastEnded {
                id: job,
                topic: topic.parse().unwrap(),
                depth: 1,
                ending: wharf_runner::BroadcastEnding::Deadline,
                answers: vec![("replied", 2), ("timed-out", 1)],
                took: Duration::from_millis(20),
            })));
        }
        let mut now = Gauges::new();
        now.labelled("jobs_waiting", "Jobs that wait", "task", [("words/count".to_owned(), 2)]);
        now.seconds("oldest_due_age", "How long", Duration::from_millis(1500));
        let page = metrics.page(&now).unwrap();
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
            assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
        }
    }
}
