//! The activity of a node: which attempts began and ended on it in the last minute and the last hour, by task, and which keys used
//! the most. In bounded space; the activities of several nodes can be summed up.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::bounds;
use crate::histogram::Histogram;
use crate::ids::TaskName;
use crate::key::Key;
use crate::outcome::{OutcomeKind, Usage};
use crate::top_keys::TopKeys;

/// The length of the short window.
pub const MINUTE: Duration = Duration::from_secs(60);
/// The length of the long window.
pub const HOUR: Duration = Duration::from_secs(3600);
/// The number of slots of a window: the oldest one is dropped whole, so a window is up to a twelfth too short.
const SLOTS: usize = 12;

/// Counts of the attempts that ended in a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndedAttempts {
    /// Number of attempts that ended.
    pub ended: u64,
    /// Number of these that failed: their guests failed, trapped, or exceeded a limit.
    pub failed: u64,
    /// Processor time of their guests.
    pub cpu: Duration,
    /// The greatest peak of memory of one attempt, in bytes.
    pub memory_peak_bytes: u64,
}

impl EndedAttempts {
    /// Adds the counts of another node or time.
    pub fn add(&mut self, other: &EndedAttempts) {
        self.ended = self.ended.saturating_add(other.ended);
        self.failed = self.failed.saturating_add(other.failed);
        self.cpu = self.cpu.saturating_add(other.cpu);
        self.memory_peak_bytes = self.memory_peak_bytes.max(other.memory_peak_bytes);
    }
}

/// The activity of one task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskActivity {
    /// Number of attempts that began in the last minute.
    pub started: u64,
    /// The attempts of the last minute.
    pub minute: EndedAttempts,
    /// The attempts of the last hour.
    pub hour: EndedAttempts,
    /// Times for which the jobs of the last hour waited before their attempts began, from when they were due.
    pub wait: Histogram,
    /// Times for which the attempts of the last hour ran.
    pub run: Histogram,
}

impl TaskActivity {
    /// Adds the activity of another node.
    pub fn add(&mut self, other: &TaskActivity) {
        self.started = self.started.saturating_add(other.started);
        self.minute.add(&other.minute);
        self.hour.add(&other.hour);
        self.wait.merge(&other.wait);
        self.run.merge(&other.run);
    }
}

/// The activity of a node, as it announces it, or of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activity {
    /// The time that the counts cover, at most an hour. The counts of a window that is longer are not known.
    pub covers: Duration,
    /// The tasks, at most `bounds::ACTIVE_TASKS_MAX`.
    pub tasks: BTreeMap<TaskName, TaskActivity>,
    /// The keys that used the most processor time in the last half hour to hour, in microseconds.
    pub keys: TopKeys,
}

impl Default for Activity {
    fn default() -> Activity {
        Activity { covers: Duration::ZERO, tasks: BTreeMap::new(), keys: TopKeys::new(bounds::TOP_KEYS_MAX) }
    }
}

impl Activity {
    /// Returns the sum of the activities of all live nodes; `None` if there are none, or if one does not announce its own.
    pub fn sum<'a>(nodes: impl IntoIterator<Item = Option<&'a Activity>>) -> Option<Activity> {
        let mut sum: Option<Activity> = None;
        for node in nodes {
            let node = node?;
            let Some(sum) = &mut sum else {
                sum = Some(node.clone());
                continue;
            };
            sum.covers = sum.covers.min(node.covers);
            for (task, activity) in &node.tasks {
                sum.tasks.entry(task.clone()).or_default().add(activity);
            }
            sum.keys.merge(&node.keys);
        }
        sum
    }
}

/// Slots of a window, each for a twelfth of its length.
#[derive(Clone, Debug)]
struct Window<T> {
    slots: [T; SLOTS],
    /// The number of the newest slot, counted from the node's start.
    newest: u64,
}

impl<T: Default> Default for Window<T> {
    fn default() -> Window<T> {
        Window { slots: std::array::from_fn(|_| T::default()), newest: 0 }
    }
}

impl<T: Default> Window<T> {
    /// Returns the slot for `at`, a time since the node's start that never goes back.
    fn slot(&mut self, at: Duration, length: Duration) -> &mut T {
        let number = (at.as_micros() / (length / SLOTS as u32).as_micros()) as u64;
        for skipped in (self.newest + 1..=number).rev().take(SLOTS) {
            self.slots[skipped as usize % SLOTS] = T::default();
        }
        self.newest = self.newest.max(number);
        &mut self.slots[self.newest as usize % SLOTS]
    }

    /// Returns all slots, after those that are too old were emptied.
    fn all(&mut self, at: Duration, length: Duration) -> &[T; SLOTS] {
        self.slot(at, length);
        &self.slots
    }
}

/// The windows of one task.
#[derive(Clone, Debug, Default)]
struct TaskWindows {
    started: Window<u64>,
    minute: Window<EndedAttempts>,
    hour: Window<EndedAttempts>,
    times: Window<(Histogram, Histogram)>,
}

/// Collects the activity of this node.
#[derive(Clone, Debug)]
pub struct ActivityLog {
    tasks: HashMap<TaskName, Box<TaskWindows>>,
    /// The sketches of this half hour and of the one before.
    keys: [TopKeys; 2],
    /// The number of this half hour, counted from the node's start.
    half_hour: u64,
}

impl Default for ActivityLog {
    fn default() -> ActivityLog {
        let keys = [TopKeys::new(bounds::TOP_KEYS_MAX), TopKeys::new(bounds::TOP_KEYS_MAX)];
        ActivityLog { tasks: HashMap::new(), keys, half_hour: 0 }
    }
}

impl ActivityLog {
    /// Adds an attempt that began at `at`, a time since the node's start that never goes back.
    pub fn add_start(&mut self, task: &TaskName, at: Duration) {
        if let Some(windows) = self.windows(task) {
            *windows.started.slot(at, MINUTE) += 1;
        }
    }

    /// Returns the windows of a task; `None` if there are too many tasks.
    fn windows(&mut self, task: &TaskName) -> Option<&mut TaskWindows> {
        if !self.tasks.contains_key(task) {
            if self.tasks.len() >= bounds::ACTIVE_TASKS_MAX {
                return None;
            }
            self.tasks.insert(task.clone(), Box::default());
        }
        self.tasks.get_mut(task).map(|windows| &mut **windows)
    }

    /// Adds an attempt that ended at `at`, a time since the node's start that never goes back.
    pub fn add(&mut self, task: &TaskName, key: Option<&Key>, kind: OutcomeKind, usage: &Usage, at: Duration) {
        let is_failure = !matches!(kind, OutcomeKind::Returned | OutcomeKind::Cancelled | OutcomeKind::Interrupted);
        let ended = EndedAttempts {
            ended: 1,
            failed: u64::from(is_failure),
            cpu: usage.cpu,
            memory_peak_bytes: usage.memory_peak_bytes,
        };
        if let Some(windows) = self.windows(task) {
            windows.minute.slot(at, MINUTE).add(&ended);
            windows.hour.slot(at, HOUR).add(&ended);
            let (wait, run) = windows.times.slot(at, HOUR);
            wait.add(usage.queue_wait);
            run.add(usage.wall);
        }
        if let Some(key) = key {
            self.turn(at);
            self.keys[0].add(key, u64::try_from(usage.cpu.as_micros()).unwrap_or(u64::MAX));
        }
    }

    /// Begins a new sketch each half hour.
    fn turn(&mut self, at: Duration) {
        let half_hour = at.as_secs() / (HOUR.as_secs() / 2);
        if half_hour > self.half_hour {
            let before = std::mem::replace(&mut self.keys[0], TopKeys::new(bounds::TOP_KEYS_MAX));
            let is_next = half_hour == self.half_hour + 1;
            self.keys[1] = if is_next { before } else { TopKeys::new(bounds::TOP_KEYS_MAX) };
            self.half_hour = half_hour;
        }
    }

    /// Returns the activity at `at`. Tasks of which no attempt ended in the last hour, and none began in the last
    /// minute, are forgotten.
    pub fn activity(&mut self, at: Duration) -> Activity {
        self.turn(at);
        let mut keys = self.keys[0].clone();
        keys.merge(&self.keys[1]);
        let mut tasks = BTreeMap::new();
        for (task, windows) in &mut self.tasks {
            let started = windows.started.all(at, MINUTE).iter().sum();
            let mut activity = TaskActivity { started, ..TaskActivity::default() };
            windows.minute.all(at, MINUTE).iter().for_each(|slot| activity.minute.add(slot));
            windows.hour.all(at, HOUR).iter().for_each(|slot| activity.hour.add(slot));
            for (wait, run) in windows.times.all(at, HOUR) {
                activity.wait.merge(wait);
                activity.run.merge(run);
            }
            if activity.hour.ended > 0 || activity.started > 0 {
                tasks.insert(task.clone(), activity);
            }
        }
        self.tasks.retain(|task, _| tasks.contains_key(task));
        Activity { covers: at.min(HOUR), tasks, keys }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(ms: u64) -> Usage {
        let length = Duration::from_millis(ms);
        Usage { queue_wait: length, cpu: length, wall: 2 * length, memory_peak_bytes: ms, in_bytes: 0, out_bytes: 0 }
    }

    fn task(name: &str) -> TaskName {
        name.parse().unwrap()
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn attempts_count_until_they_are_a_minute_and_an_hour_old() {
        let mut log = ActivityLog::default();
        let words = task("words/count");
        log.add(&words, None, OutcomeKind::Returned, &usage(5), SECOND);
        log.add(&words, None, OutcomeKind::Trapped, &usage(7), 30 * SECOND);
        let of = |log: &mut ActivityLog, at| log.activity(at).tasks.remove(&task("words/count"));
        let at_once = of(&mut log, 31 * SECOND).unwrap();
        let both = EndedAttempts { ended: 2, failed: 1, cpu: Duration::from_millis(12), memory_peak_bytes: 7 };
        assert_eq!((at_once.minute, at_once.hour), (both, both));
        assert_eq!((at_once.wait.count(), at_once.run.count()), (2, 2));
        let later = of(&mut log, 62 * SECOND).unwrap();
        assert_eq!((later.minute.ended, later.hour.ended), (1, 2));
        let much_later = of(&mut log, 3000 * SECOND).unwrap();
        assert_eq!((much_later.minute, much_later.hour), (EndedAttempts::default(), both));
        assert_eq!(of(&mut log, 3700 * SECOND), None, "an hour without an attempt");
        assert_eq!(log.tasks.len(), 0);
        log.add_start(&words, 3700 * SECOND);
        log.add_start(&words, 3730 * SECOND);
        assert_eq!(
            [3731, 3762].map(|at| of(&mut log, at * SECOND).map(|of| (of.started, of.hour.ended))),
            [Some((2, 0)), Some((1, 0))]
        );
        assert_eq!(of(&mut log, 3800 * SECOND), None, "it began more than a minute ago, and has not ended");
        log.add(&words, None, OutcomeKind::Cancelled, &usage(5), 900_000 * SECOND);
        assert_eq!(
            of(&mut log, 900_000 * SECOND).unwrap().hour,
            EndedAttempts { ended: 1, failed: 0, cpu: Duration::from_millis(5), memory_peak_bytes: 5 }
        );
    }

    #[test]
    fn a_sum_covers_what_all_nodes_cover_and_is_unknown_if_one_is_silent() {
        let (mut one, mut other) = (ActivityLog::default(), ActivityLog::default());
        let key: Key = "a".parse().unwrap();
        one.add(&task("a/b"), Some(&key), OutcomeKind::Returned, &usage(1), SECOND);
        other.add(&task("a/b"), Some(&key), OutcomeKind::Returned, &usage(2), SECOND);
        other.add(&task("c/d"), None, OutcomeKind::Failed, &usage(3), SECOND);
        let (one, other) = (one.activity(90 * SECOND), other.activity(2 * SECOND));
        let sum = Activity::sum([Some(&one), Some(&other)]).unwrap();
        assert_eq!((sum.covers, sum.tasks.len()), (2 * SECOND, 2));
        assert_eq!(sum.tasks[&task("a/b")].hour.ended, 2);
        assert_eq!(sum.keys.sorted()[0].1.weight, 3000);
        assert_eq!(Activity::sum([Some(&one), None]), None);
        assert_eq!(Activity::sum([]), None);
    }

    #[test]
    fn tasks_and_keys_are_bounded() {
        let mut log = ActivityLog::default();
        for number in 0..2 * bounds::ACTIVE_TASKS_MAX {
            let key: Key = format!("k{number}").parse().unwrap();
            log.add(&task(&format!("p{number}/t")), Some(&key), OutcomeKind::Returned, &usage(1), SECOND);
        }
        let activity = log.activity(SECOND);
        assert_eq!(activity.tasks.len(), bounds::ACTIVE_TASKS_MAX);
        assert!(activity.keys.sorted().len() <= bounds::TOP_KEYS_MAX);
    }

    #[test]
    fn keys_are_forgotten_after_an_hour() {
        let mut log = ActivityLog::default();
        let key: Key = "a".parse().unwrap();
        log.add(&task("a/b"), Some(&key), OutcomeKind::Returned, &usage(1), SECOND);
        assert_eq!(log.activity(3599 * SECOND).keys.sorted().len(), 1);
        assert_eq!(log.activity(3600 * SECOND).keys.sorted(), []);
    }
}
