//! Counters and histograms by task. A job adds to eight of them, so the series of a task are kept where one lookup finds them:
//! to find each by its labels costs several allocations.

use std::collections::HashMap;
use std::sync::{OnceLock, PoisonError, RwLock};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use wharf_core::ids::TaskName;
use wharf_core::job::StateName;
use wharf_core::outcome::OutcomeKind;
use wharf_runner::AttemptEnded;

use super::{Counters, Histograms, Labels, SECONDS};

/// Counters and histograms of each task.
#[derive(Debug)]
pub(super) struct TaskMetrics {
    enqueued: Counters,
    deduplicated: Counters,
    discarded: Counters,
    ended: Counters,
    attempts_started: Counters,
    attempts_ended: Counters,
    attempts_stale: Counters,
    log_lines_dropped: Counters,
    regressions: Counters,
    queue_wait: Histograms,
    wall: Histograms,
    cpu: Histograms,
    sandbox: Histograms,
    /// Locked for a lookup and an addition, never across an await.
    tasks: RwLock<HashMap<TaskName, TaskSeries>>,
}

/// The series of one task. Each is made when it first counts something: `/metrics` shows no others.
#[derive(Debug, Default)]
struct TaskSeries {
    enqueued: OnceLock<Counter>,
    deduplicated: OnceLock<Counter>,
    discarded: OnceLock<Counter>,
    ended: [OnceLock<Counter>; StateName::ALL.len()],
    attempts_started: OnceLock<Counter>,
    attempts_ended: [OnceLock<Counter>; OutcomeKind::ALL.len()],
    attempts_stale: OnceLock<Counter>,
    log_lines_dropped: OnceLock<Counter>,
    regressions: OnceLock<Counter>,
    queue_wait: OnceLock<Histogram>,
    wall: OnceLock<Histogram>,
    cpu: OnceLock<Histogram>,
    sandbox: OnceLock<Histogram>,
}

impl TaskMetrics {
    pub(super) fn new(registry: &mut Registry) -> TaskMetrics {
        let mut counters = |name: &str, help: &str| {
            let counters = Counters::default();
            registry.register(name, help, counters.clone());
            counters
        };
        let enqueued = counters("jobs_enqueued", "Jobs enqueued");
        let deduplicated = counters("jobs_deduplicated", "Requests answered with the existing job of the same token");
        let discarded = counters("jobs_discarded", "Jobs discarded, as their lane was full");
        let ended = counters("jobs_ended", "Jobs that reached a final state, by state");
        let attempts_started = counters("attempts_started", "Attempts started");
        let attempts_ended = counters("attempts_ended", "Attempts ended, by outcome");
        let attempts_stale =
            counters("attempts_stale", "Attempts whose result was refused, as another attempt owned their job");
        let log_lines_dropped = counters("log_lines_dropped", "Log lines of attempts that were dropped");
        let regressions =
            counters("failure_regressions", "Failures that came back after their group was resolved, by task");
        let mut histograms = |name: &str, help: &str| {
            let histograms: Histograms = Family::new_with_constructor(|| Histogram::new(SECONDS));
            registry.register_with_unit(name, help, Unit::Seconds, histograms.clone());
            histograms
        };
        TaskMetrics {
            enqueued,
            deduplicated,
            discarded,
            ended,
            attempts_started,
            attempts_ended,
            attempts_stale,
            log_lines_dropped,
            regressions,
            queue_wait: histograms("queue_wait", "Time from when a job was due until it was claimed"),
            wall: histograms("attempt_wall", "Time from the claim of an attempt until its end"),
            cpu: histograms("attempt_cpu", "CPU time of an attempt in the plugin's code"),
            sandbox: histograms("attempt_sandbox", "Time to create and remove the sandbox of an attempt"),
            tasks: RwLock::default(),
        }
    }

    pub(super) fn enqueued(&self, task: &TaskName, count: u64) {
        self.of(task, |series| add(&series.enqueued, &self.enqueued, task, count));
    }

    pub(super) fn deduplicated(&self, task: &TaskName, count: u64) {
        self.of(task, |series| add(&series.deduplicated, &self.deduplicated, task, count));
    }

    pub(super) fn discarded(&self, task: &TaskName, count: u64) {
        self.of(task, |series| add(&series.discarded, &self.discarded, task, count));
    }

    pub(super) fn log_lines_dropped(&self, task: &TaskName, lines: u64) {
        self.of(task, |series| add(&series.log_lines_dropped, &self.log_lines_dropped, task, lines));
    }

    pub(super) fn regressed(&self, task: &TaskName) {
        self.of(task, |series| add(&series.regressions, &self.regressions, task, 1));
    }

    pub(super) fn attempt_started(&self, task: &TaskName, queue_wait: Duration) {
        self.of(task, |series| {
            add(&series.attempts_started, &self.attempts_started, task, 1);
            observe(&series.queue_wait, &self.queue_wait, task, queue_wait);
        });
    }

    pub(super) fn attempt_ended(&self, ended: &AttemptEnded) {
        let AttemptEnded { task, kind, usage, sandbox, .. } = ended;
        self.of(task, |series| {
            let counter = &series.attempts_ended[*kind as usize];
            add_of(counter, &self.attempts_ended, || labels_and(task, "outcome", kind.as_str()), 1);
            observe(&series.wall, &self.wall, task, usage.wall);
            observe(&series.cpu, &self.cpu, task, usage.cpu);
            observe(&series.sandbox, &self.sandbox, task, *sandbox);
        });
    }

    pub(super) fn attempt_stale(&self, task: &TaskName) {
        self.of(task, |series| add(&series.attempts_stale, &self.attempts_stale, task, 1));
    }

    pub(super) fn ended(&self, task: &TaskName, state: StateName) {
        self.of(task, |series| {
            let counter = &series.ended[state as usize];
            add_of(counter, &self.ended, || labels_and(task, "state", state.as_str()), 1);
        });
    }

    /// Calls `count` with the series of a task.
    fn of(&self, task: &TaskName, count: impl Fn(&TaskSeries)) {
        if let Some(series) = self.tasks.read().unwrap_or_else(PoisonError::into_inner).get(task) {
            return count(series);
        }
        count(self.tasks.write().unwrap_or_else(PoisonError::into_inner).entry(task.clone()).or_default());
    }
}

fn labels(task: &TaskName) -> Labels {
    vec![("task", task.to_string())]
}

fn labels_and(task: &TaskName, name: &'static str, value: &str) -> Labels {
    vec![("task", task.to_string()), (name, value.to_owned())]
}

fn add(counter: &OnceLock<Counter>, family: &Counters, task: &TaskName, count: u64) {
    add_of(counter, family, || labels(task), count);
}

fn add_of(counter: &OnceLock<Counter>, family: &Counters, labels: impl Fn() -> Labels, count: u64) {
    counter.get_or_init(|| family.get_or_create_owned(&labels())).inc_by(count);
}

fn observe(histogram: &OnceLock<Histogram>, family: &Histograms, task: &TaskName, length: Duration) {
    histogram.get_or_init(|| family.get_or_create_owned(&labels(task))).observe(length.as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_and_each_outcome_has_a_place_of_its_own() {
        assert_eq!(StateName::ALL.map(|state| state as usize), [0, 1, 2, 3, 4]);
        assert_eq!(OutcomeKind::ALL.map(|kind| kind as usize), [0, 1, 2, 3, 4, 5, 6, 7]);
    }
}
