//! How many attempts of each task run here at once.
//!
//! Attempts that compute share the processors. Started all at once, each would take as long as all of them together, and might
//! well run out of its time; a task's attempts are therefore started only as fast as the processors get through them. What
//! waits for something else takes no processor, and is not counted.

use std::collections::HashMap;
use std::time::Duration;

use wharf_core::ids::TaskName;

/// Of one task no more is begun than the processors have done after so long.
const AHEAD: Duration = Duration::from_secs(2);
/// But always so many for each thread: a task may have long attempts and short ones.
const LEAST: u32 = 4;
/// And so many for each thread until it is known how long they compute.
const UNKNOWN: u32 = 16;
/// That is known once so many have ended.
const KNOWN: u32 = 8;
/// And is the mean of about so many that ended last.
const REMEMBERED: u32 = 16;

pub(crate) struct TaskConcurrency {
    threads: u32,
    tasks: HashMap<TaskName, Pace>,
}

#[derive(Default)]
struct Pace {
    running: u32,
    /// Counted up to `REMEMBERED`.
    ended: u32,
    /// Mean guest time of an attempt, in seconds.
    guest: f64,
}

impl TaskConcurrency {
    pub(crate) fn new(threads: usize) -> TaskConcurrency {
        TaskConcurrency { threads: u32::try_from(threads).unwrap_or(u32::MAX).max(1), tasks: HashMap::new() }
    }

    pub(crate) fn begins(&mut self, task: &TaskName) {
        match self.tasks.get_mut(task) {
            Some(pace) => pace.running += 1,
            None => _ = self.tasks.insert(task.clone(), Pace { running: 1, ..Pace::default() }),
        }
    }

    /// `guest` is how long it computed, where that says something about others.
    pub(crate) fn ends(&mut self, task: &TaskName, guest: Option<Duration>) {
        let Some(pace) = self.tasks.get_mut(task) else { return };
        pace.running = pace.running.saturating_sub(1);
        if let Some(guest) = guest {
            pace.ended = REMEMBERED.min(pace.ended + 1);
            pace.guest += (guest.as_secs_f64() - pace.guest) / f64::from(pace.ended);
        }
    }

    /// How many more of a task may begin, if `waiting` of those that run take no processor. That is asked only where it
    /// matters.
    pub(crate) fn room(&self, task: &TaskName, waiting: impl FnOnce() -> u32) -> u32 {
        let pace = self.tasks.get(task);
        let running = pace.map_or(0, |pace| pace.running);
        let max = match pace.filter(|pace| pace.ended >= KNOWN) {
            Some(pace) => {
                // Too many for the type are as many as there may be.
                let ahead = AHEAD.as_secs_f64() * f64::from(self.threads) / pace.guest;
                (ahead as u32).max(LEAST.saturating_mul(self.threads))
            }
            None => UNKNOWN.saturating_mul(self.threads),
        };
        if running < max / 2 {
            return max - running;
        }
        max.saturating_sub(running.saturating_sub(waiting()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task() -> TaskName {
        "p/t".parse().unwrap()
    }

    fn begin(paces: &mut TaskConcurrency, count: u32) {
        (0..count).for_each(|_| paces.begins(&task()));
    }

    fn end(paces: &mut TaskConcurrency, count: u32, guest: Duration) {
        (0..count).for_each(|_| paces.ends(&task(), Some(guest)));
    }

    #[test]
    fn of_a_task_that_is_not_known_a_few_begin_and_more_as_these_wait() {
        let mut paces = TaskConcurrency::new(2);
        assert_eq!(paces.room(&task(), || 0), 32);
        begin(&mut paces, 32);
        assert_eq!(paces.room(&task(), || 0), 0);
        assert_eq!(paces.room(&task(), || 30), 30);
    }

    #[test]
    fn short_attempts_begin_without_bounds_and_long_ones_as_the_processors_bear_them() {
        let mut paces = TaskConcurrency::new(2);
        begin(&mut paces, 32);
        end(&mut paces, 7, Duration::from_micros(10));
        assert_eq!(paces.room(&task(), || 0), 7, "a few say little");
        end(&mut paces, 25, Duration::from_micros(10));
        assert!(paces.room(&task(), || 0) > 100_000);
        // Four seconds of two processors.
        begin(&mut paces, 300);
        end(&mut paces, 300, Duration::from_millis(101));
        assert_eq!(paces.room(&task(), || 0), 39);
        begin(&mut paces, 39);
        assert_eq!(paces.room(&task(), || 0), 0);
        assert_eq!(paces.room(&task(), || 39), 39, "what waits is not counted");
        begin(&mut paces, 100);
        end(&mut paces, 139, Duration::from_secs(60));
        assert_eq!(paces.room(&task(), || 0), 8, "the least");
        begin(&mut paces, 60);
        assert_eq!(paces.room(&task(), || 0), 0);
    }

    #[test]
    fn what_says_nothing_about_others_is_not_remembered() {
        let mut paces = TaskConcurrency::new(2);
        begin(&mut paces, 1);
        paces.ends(&task(), None);
        assert_eq!(paces.room(&task(), || 0), 32);
    }
}
