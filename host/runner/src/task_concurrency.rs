//! How many attempts of each task run here at once.
//!
//! Attempts that compute share the processors. Started all at once, each would take as long as all of them together and might
//! run into its timeout. So attempts of a task are started only as fast as the processors finish them. An attempt that waits
//! for something else takes no processor and is not counted.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use wharf_core::ids::TaskName;
use wharf_core::job::LeasedJob;

/// A task starts no more attempts than the processors finish in this time.
const AHEAD: Duration = Duration::from_secs(2);
/// The minimum of attempts per thread, however long they compute: a task may have long attempts and short ones.
const PER_THREAD_MIN: u32 = 4;
/// The attempts per thread until the mean CPU time of the task counts as measured.
const PER_THREAD_UNMEASURED: u32 = 16;
/// The mean CPU time counts as measured once this many attempts have ended.
const MEASURED_AFTER: u32 = 8;
/// The mean is over about this many attempts, the last ones.
const MEAN_OVER: u32 = 16;

/// Interval at which a task is checked whose quota held jobs back: an attempt that starts to wait sends no message.
const CHECK_INTERVAL: Duration = Duration::from_millis(10);

/// The number of attempts of each task, and how long they compute.
pub(crate) struct TaskConcurrency {
    threads: u32,
    tasks: HashMap<TaskName, TaskLoad>,
}

#[derive(Default)]
struct TaskLoad {
    running: u32,
    /// Attempts that have ended, counted up to `MEAN_OVER`.
    ended: u32,
    /// The mean CPU time of an attempt, in seconds.
    cpu: f64,
}

impl TaskConcurrency {
    /// `threads` is the number of threads that run guests.
    pub(crate) fn new(threads: usize) -> TaskConcurrency {
        TaskConcurrency { threads: u32::try_from(threads).unwrap_or(u32::MAX).max(1), tasks: HashMap::new() }
    }

    fn started(&mut self, task: &TaskName) {
        match self.tasks.get_mut(task) {
            Some(load) => load.running += 1,
            None => _ = self.tasks.insert(task.clone(), TaskLoad { running: 1, ..TaskLoad::default() }),
        }
    }

    /// `cpu` is how long the attempt computed, if that is typical of the task.
    fn finished(&mut self, task: &TaskName, cpu: Option<Duration>) {
        let Some(load) = self.tasks.get_mut(task) else { return };
        load.running = load.running.saturating_sub(1);
        if let Some(cpu) = cpu {
            load.ended = MEAN_OVER.min(load.ended + 1);
            load.cpu += (cpu.as_secs_f64() - load.cpu) / f64::from(load.ended);
        }
    }

    /// Returns how many more attempts of a task may start. `suspended` counts those running ones that take no processor; it is
    /// called only if that matters.
    fn free(&self, task: &TaskName, suspended: impl FnOnce() -> u32) -> u32 {
        let load = self.tasks.get(task);
        let running = load.map_or(0, |load| load.running);
        let max = match load.filter(|load| load.ended >= MEASURED_AFTER) {
            Some(load) => {
                // The conversion saturates, which is as good as no limit.
                let ahead = AHEAD.as_secs_f64() * f64::from(self.threads) / load.cpu;
                (ahead as u32).max(PER_THREAD_MIN.saturating_mul(self.threads))
            }
            None => PER_THREAD_UNMEASURED.saturating_mul(self.threads),
        };
        if running < max / 2 {
            return max - running;
        }
        max.saturating_sub(running.saturating_sub(suspended()))
    }
}

/// The quotas of tasks in claims, and when to claim again because one has grown.
pub(crate) struct ClaimQuotas {
    concurrency: TaskConcurrency,
    /// The tasks whose quota in the last claim was below the free slots, each with its quota. Once the store has returned, only
    /// those that have used it up.
    limited: Vec<(TaskName, u32)>,
    /// When to check whether one of these may start more by now; `None` if none of their jobs can have been left behind.
    check_at: Option<Instant>,
}

impl ClaimQuotas {
    pub(crate) fn new(concurrency: TaskConcurrency) -> ClaimQuotas {
        ClaimQuotas { concurrency, limited: Vec::new(), check_at: None }
    }

    /// Returns when `has_grown` must be called.
    pub(crate) fn check_at(&self) -> Option<Instant> {
        self.check_at
    }

    /// Counts an attempt that starts.
    pub(crate) fn started(&mut self, task: &TaskName) {
        self.concurrency.started(task);
    }

    /// Counts an attempt that has ended; `cpu` is how long it computed, if that is typical of the task.
    pub(crate) fn finished(&mut self, task: &TaskName, cpu: Option<Duration>, now: Instant) {
        self.concurrency.finished(task, cpu);
        if self.check_at.is_some() && self.limited.iter().any(|(limited, _)| limited == task) {
            self.check_at = Some(now);
        }
    }

    /// Counts out an attempt that never ended here.
    pub(crate) fn removed(&mut self, task: &TaskName) {
        self.concurrency.finished(task, None);
    }

    /// Returns the quotas for a claim of `free` slots, of those tasks that may not use all of them.
    pub(crate) fn for_claim<'t>(
        &mut self,
        tasks: impl Iterator<Item = &'t TaskName>,
        free: u32,
        suspended: impl Fn(&TaskName) -> u32,
    ) -> Vec<(TaskName, u32)> {
        let quota = |task: &'t TaskName| {
            let quota = self.concurrency.free(task, || suspended(task));
            (quota < free).then(|| (task.clone(), quota))
        };
        self.limited = tasks.filter_map(quota).collect();
        self.limited.clone()
    }

    /// Takes in the result of the claim: `quota_reached` says that quotas left jobs behind.
    pub(crate) fn claimed(&mut self, leased: &[LeasedJob], quota_reached: bool, now: Instant) {
        let claimed = |task: &TaskName| leased.iter().filter(|leased| leased.task == *task).count();
        self.limited.retain(|(task, quota)| quota_reached && claimed(task) >= *quota as usize);
        self.check_at = (!self.limited.is_empty()).then(|| now + CHECK_INTERVAL);
    }

    /// Returns true if jobs were left behind and their task may start more by now.
    pub(crate) fn has_grown(&mut self, now: Instant, suspended: impl Fn(&TaskName) -> u32) -> bool {
        if self.check_at.is_none_or(|at| at > now) {
            return false;
        }
        let has_free = |(task, _): &(TaskName, u32)| self.concurrency.free(task, || suspended(task)) > 0;
        let has_grown = self.limited.iter().any(has_free);
        self.check_at = (!has_grown).then(|| now + CHECK_INTERVAL);
        has_grown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task() -> TaskName {
        "p/t".parse().unwrap()
    }

    fn start(concurrency: &mut TaskConcurrency, count: u32) {
        (0..count).for_each(|_| concurrency.started(&task()));
    }

    fn finish(concurrency: &mut TaskConcurrency, count: u32, cpu: Duration) {
        (0..count).for_each(|_| concurrency.finished(&task(), Some(cpu)));
    }

    #[test]
    fn an_unmeasured_task_starts_a_few_attempts_and_more_as_these_wait() {
        let mut concurrency = TaskConcurrency::new(2);
        assert_eq!(concurrency.free(&task(), || 0), 32);
        start(&mut concurrency, 32);
        assert_eq!(concurrency.free(&task(), || 0), 0);
        assert_eq!(concurrency.free(&task(), || 30), 30);
    }

    #[test]
    fn short_attempts_start_without_bounds_and_long_ones_as_the_processors_keep_up() {
        let mut concurrency = TaskConcurrency::new(2);
        start(&mut concurrency, 32);
        finish(&mut concurrency, 7, Duration::from_micros(10));
        assert_eq!(concurrency.free(&task(), || 0), 7, "a few attempts do not count as measured");
        finish(&mut concurrency, 25, Duration::from_micros(10));
        assert!(concurrency.free(&task(), || 0) > 100_000);
        // Two processors for two seconds.
        start(&mut concurrency, 300);
        finish(&mut concurrency, 300, Duration::from_millis(101));
        assert_eq!(concurrency.free(&task(), || 0), 39);
        start(&mut concurrency, 39);
        assert_eq!(concurrency.free(&task(), || 0), 0);
        assert_eq!(concurrency.free(&task(), || 39), 39, "attempts that wait are not counted");
        start(&mut concurrency, 100);
        finish(&mut concurrency, 139, Duration::from_secs(60));
        assert_eq!(concurrency.free(&task(), || 0), 8, "the minimum");
        start(&mut concurrency, 60);
        assert_eq!(concurrency.free(&task(), || 0), 0);
    }

    #[test]
    fn an_attempt_without_a_measured_time_does_not_count() {
        let mut concurrency = TaskConcurrency::new(2);
        start(&mut concurrency, 1);
        concurrency.finished(&task(), None);
        assert_eq!(concurrency.free(&task(), || 0), 32);
    }
}
