//! How long finished jobs are kept, by how they ended and by task.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::bounds;
use crate::ids::{JobId, TaskName};
use crate::job::StateName;
use crate::time::Timestamp;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A place among finished jobs, which are in the order in which they finished, and then in that of their IDs: behind the job with
/// this ID, or before all that finished at the moment.
pub type FinishedPlace = (Timestamp, Option<JobId>);

/// The time for which finished jobs are kept, by how they ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Time for which jobs that succeeded are kept.
    pub succeeded: Duration,
    /// Time for which jobs that failed are kept.
    pub failed: Duration,
    /// Time for which cancelled jobs are kept.
    pub cancelled: Duration,
}

impl Keep {
    /// Keeps every finished job equally long.
    pub const fn all(length: Duration) -> Keep {
        Keep { succeeded: length, failed: length, cancelled: length }
    }

    /// Returns the time for which a job in this state is kept; `None` if the state is not final.
    pub const fn of(&self, state: StateName) -> Option<Duration> {
        match state {
            StateName::Succeeded => Some(self.succeeded),
            StateName::Failed => Some(self.failed),
            StateName::Cancelled => Some(self.cancelled),
            StateName::Waiting | StateName::Running => None,
        }
    }
}

impl Default for Keep {
    fn default() -> Keep {
        Keep::all(bounds::KEEP_FINISHED)
    }
}

/// The rules of how long finished jobs are kept, by task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeepRules {
    /// The rule for tasks without one of their own.
    pub of_all: Keep,
    /// The rules of single tasks.
    pub of_tasks: BTreeMap<TaskName, Keep>,
}

impl KeepRules {
    /// Returns true if a job that finished at `finished` has been kept long enough.
    pub fn is_expired(&self, task: &TaskName, state: StateName, finished: Timestamp, now: Timestamp) -> bool {
        let keep = self.of_tasks.get(task).unwrap_or(&self.of_all);
        keep.of(state).is_some_and(|length| finished + length <= now)
    }

    /// Returns the age at which even the newest job makes one doubt the clock: of the times for which jobs are kept whose task has no rule
    /// of its own, the shortest that is a day or more; a day if there is none. What is kept for less than a day is soon gone by any clock.
    pub fn doubtful_age(&self) -> Duration {
        let Keep { succeeded, failed, cancelled } = self.of_all;
        [succeeded, failed, cancelled].into_iter().filter(|length| *length >= DAY).min().unwrap_or(DAY)
    }

    /// Returns every length of time that a rule has, the longest first.
    fn lengths(&self) -> Vec<Duration> {
        let all = self.of_tasks.values().chain([&self.of_all]);
        let lengths: BTreeSet<Duration> = all.flat_map(|keep| [keep.succeeded, keep.failed, keep.cancelled]).collect();
        lengths.into_iter().rev().collect()
    }
}

/// A part of the finished jobs to look through for expired ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepWalk {
    /// The walk begins with the jobs that finished at this moment.
    pub from: Timestamp,
    /// The walk ends before the jobs that finished at this moment.
    pub before: Timestamp,
    length: Duration,
}

/// Remembers how far the finished jobs were looked through, so that those that are kept long are not looked at in each round.
///
/// Among the jobs that finished in the last hour, those can be expired that are kept for less than an hour. So each length of time
/// has a walk of its own, which goes on where it ended in the last round; a longer one has looked through everything before it.
/// Now and then all walks begin at the first job: a job that was referred to may have expired since, and a clock may have been set.
#[derive(Debug, Default)]
pub struct KeepWalks {
    rules: KeepRules,
    /// The moment before which the walk of each length has looked at every job.
    done: BTreeMap<Duration, Timestamp>,
    /// When the walks began at the first job.
    began: Timestamp,
    last: Timestamp,
}

impl KeepWalks {
    /// Starts a round at `now`. Returns its walks, to be taken in this order.
    pub fn round(&mut self, rules: &KeepRules, now: Timestamp) -> Vec<KeepWalk> {
        let restarts = self.rules != *rules || now < self.last || now >= self.began + bounds::KEEP_WALK_EVERY;
        if restarts || self.done.is_empty() {
            *self = KeepWalks { rules: rules.clone(), began: now, ..KeepWalks::default() };
        }
        self.last = now;
        let mut looked_through = Timestamp::ZERO;
        let mut walks = Vec::new();
        for length in rules.lengths() {
            let before = now - length;
            let from = self.done.get(&length).copied().unwrap_or(Timestamp::ZERO).max(looked_through);
            if before > from {
                walks.push(KeepWalk { from, before, length });
            }
            looked_through = before;
        }
        walks
    }

    /// Notes that a walk has come to its end.
    pub fn ended(&mut self, walk: &KeepWalk) {
        self.done.insert(walk.length, walk.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn rules() -> KeepRules {
        let of_all = Keep { succeeded: seconds(10), failed: seconds(1000), cancelled: seconds(10) };
        let own = ("words/count".parse().unwrap(), Keep { succeeded: seconds(100), ..of_all });
        KeepRules { of_all, of_tasks: [own].into() }
    }

    #[test]
    fn a_job_is_kept_as_long_as_the_rule_of_its_task_and_its_state_says() {
        let (rules, own, other) = (rules(), "words/count".parse().unwrap(), "words/list".parse().unwrap());
        let kept = |task: &TaskName, state, age: u64| !rules.is_expired(task, state, at(5000), at(5000 + age));
        assert!(kept(&other, StateName::Succeeded, 9) && !kept(&other, StateName::Succeeded, 10));
        assert!(kept(&own, StateName::Succeeded, 99) && !kept(&own, StateName::Succeeded, 100));
        assert!(kept(&own, StateName::Failed, 999) && !kept(&own, StateName::Failed, 1000));
        assert!(kept(&own, StateName::Waiting, 9999), "it has not finished");
    }

    #[test]
    fn a_round_looks_only_at_what_may_have_expired_since_the_last_one() {
        let (mut walks, rules) = (KeepWalks::default(), rules());
        let spans = |walks: &[KeepWalk]| walks.iter().map(|walk| (walk.from, walk.before)).collect::<Vec<_>>();
        let first = walks.round(&rules, at(5000));
        assert_eq!(spans(&first), [(at(0), at(4000)), (at(4000), at(4900)), (at(4900), at(4990))]);
        first.iter().for_each(|walk| walks.ended(walk));
        let second = walks.round(&rules, at(5060));
        assert_eq!(spans(&second), [(at(4000), at(4060)), (at(4900), at(4960)), (at(4990), at(5050))]);
        // The store failed in the second walk: it is taken again, from where it began.
        walks.ended(&second[0]);
        assert_eq!(spans(&walks.round(&rules, at(5060))), [(at(4900), at(4960)), (at(4990), at(5050))]);

        let all = |walks: &[KeepWalk]| walks[0].from == at(0);
        assert!(all(&walks.round(&KeepRules::default(), at(900_000_000))), "other rules");
        assert!(all(&walks.round(&KeepRules::default(), at(899_999_999))), "the clock was set back");
        let later = at(899_999_999) + bounds::KEEP_WALK_EVERY;
        assert!(all(&walks.round(&KeepRules::default(), later)), "now and then");
    }

    #[test]
    fn a_short_time_of_one_task_is_no_reason_to_doubt_the_clock() {
        assert_eq!(rules().doubtful_age(), DAY);
        let long = KeepRules { of_all: Keep { failed: 30 * DAY, ..Keep::all(7 * DAY) }, ..rules() };
        assert_eq!(long.doubtful_age(), 7 * DAY, "a clock that is 8 days ahead must not cost those that succeeded");
        let mixed = KeepRules { of_all: Keep { failed: 30 * DAY, ..Keep::all(DAY / 24) }, ..rules() };
        assert_eq!(mixed.doubtful_age(), 30 * DAY);
    }

    #[test]
    fn one_length_for_all_is_one_walk() {
        let rules = KeepRules { of_all: Keep::all(seconds(60)), of_tasks: BTreeMap::new() };
        assert_eq!(KeepWalks::default().round(&rules, at(100)).len(), 1);
        assert_eq!(KeepWalks::default().round(&rules, at(30)), [], "nothing is as old as that");
    }
}
