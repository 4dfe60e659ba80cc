//! Decides what happens to a new job whose lane has no free slot: the concurrency limit of its key is reached, and its task
//! says in `on-conflict` whether it waits, is discarded, or replaces others.

use std::time::Duration;

use crate::admission::has_free_slot;
use crate::ids::JobId;
use crate::job::{Due, NewJob, NotEnqueued};
use crate::lifecycle::Event;
use crate::limits::OnConflict;

/// Counts of a lane's unfinished jobs.
#[derive(Clone, Copy, Debug)]
pub struct LaneCounts {
    /// Running jobs, including those of `leaving`.
    pub running: u32,
    /// Running jobs that are being cancelled already.
    pub leaving: u32,
    /// Waiting jobs, due or not. A store may stop counting at the lane's limit.
    pub waiting: u32,
}

/// The decision about a new job, given the other jobs of its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConflictDecision {
    /// Enqueue it.
    Enqueue,
    /// Do not enqueue it.
    Discard,
    /// Cancel all waiting jobs of the lane, then enqueue it.
    Replace {
        /// Number of running jobs of the lane to cancel as well, oldest first. Those that are already being cancelled
        /// are skipped.
        cancel_running: u32,
    },
}

/// Applies the rule `on_conflict` to a new job of a lane with these `counts`. `per_key` is the lane's limit, `None` is
/// no limit.
///
/// There is a conflict if the lane's running and waiting jobs together reach the limit.
pub fn resolve(on_conflict: OnConflict, counts: LaneCounts, per_key: Option<u32>) -> ConflictDecision {
    let Some(limit) = per_key else { return ConflictDecision::Enqueue };
    if has_free_slot(counts.running.saturating_add(counts.waiting), per_key) {
        return ConflictDecision::Enqueue;
    }
    match on_conflict {
        OnConflict::Wait => ConflictDecision::Enqueue,
        OnConflict::Discard => ConflictDecision::Discard,
        OnConflict::ReplaceWaiting => ConflictDecision::Replace { cancel_running: 0 },
        OnConflict::CancelRunning => {
            let staying = counts.running.saturating_sub(counts.leaving);
            ConflictDecision::Replace { cancel_running: (staying + 1).saturating_sub(limit).min(staying) }
        }
    }
}

/// Returns the events that make room for a new job, in the order in which a store applies them: waiting jobs are
/// `replaced`, and running ones are asked to cancel.
pub fn make_room(replaced: &[JobId], cancel_requested: &[JobId]) -> impl Iterator<Item = (JobId, Event)> {
    let replaced = replaced.iter().map(|id| (*id, Event::Replaced));
    replaced.chain(cancel_requested.iter().map(|id| (*id, Event::CancelRequested)))
}

/// Returns the job to write under the ID of `new` if that one is not enqueued, and the event that ends it then, so that
/// a reader of the ID finds a cancelled job with the reason. The job has no token and occupies no place in a line.
pub fn placeholder(new: &NewJob, why: NotEnqueued) -> (NewJob, Event) {
    let due = Some(Due::In(Duration::from_secs(1)));
    (NewJob { token: None, due, on_conflict: OnConflict::Wait, ..new.clone() }, Event::NotEnqueued(why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Group, TaskName};
    use crate::key::Lane;

    const RULES: [OnConflict; 4] =
        [OnConflict::Wait, OnConflict::Discard, OnConflict::ReplaceWaiting, OnConflict::CancelRunning];

    fn counts(running: u32, leaving: u32, waiting: u32) -> LaneCounts {
        LaneCounts { running, leaving, waiting }
    }

    #[test]
    fn a_lane_without_a_limit_or_with_a_free_slot_takes_every_job() {
        for rule in RULES {
            assert_eq!(resolve(rule, counts(9, 0, 9), None), ConflictDecision::Enqueue, "{rule:?}");
            assert_eq!(resolve(rule, counts(1, 0, 1), Some(3)), ConflictDecision::Enqueue, "{rule:?}");
        }
    }

    #[test]
    fn running_and_waiting_jobs_together_are_a_conflict_once_they_reach_the_limit() {
        for (running, waiting) in [(2, 0), (1, 1), (0, 2)] {
            let decided = RULES.map(|rule| resolve(rule, counts(running, 0, waiting), Some(2)));
            let [wait, discard, replace, _] = decided;
            assert_eq!((wait, discard), (ConflictDecision::Enqueue, ConflictDecision::Discard));
            assert_eq!(replace, ConflictDecision::Replace { cancel_running: 0 }, "running jobs stay");
        }
    }

    #[test]
    fn cancel_running_frees_one_slot_and_cancels_no_job_without_need() {
        let cancelled = |counts, limit| match resolve(OnConflict::CancelRunning, counts, Some(limit)) {
            ConflictDecision::Replace { cancel_running } => cancel_running,
            other => panic!("{other:?}"),
        };
        assert_eq!(cancelled(counts(3, 0, 0), 3), 1);
        assert_eq!(cancelled(counts(3, 1, 0), 3), 0, "a job that is being cancelled frees its slot soon");
        assert_eq!(cancelled(counts(1, 0, 2), 3), 0, "the jobs that wait are replaced, so a slot is free");
        assert_eq!(cancelled(counts(5, 1, 0), 3), 2, "the limit was lowered while five were running");
        assert_eq!(cancelled(counts(2, 0, 0), 0), 2, "a paused lane has no slot to free");
    }

    #[test]
    fn waiting_jobs_are_replaced_before_running_ones_are_asked_to_cancel() {
        let [a, b, c] = [1, 2, 3].map(|number| JobId::from_number(number).unwrap());
        let events: Vec<_> = make_room(&[b, c], &[a]).collect();
        assert_eq!(events, [(b, Event::Replaced), (c, Event::Replaced), (a, Event::CancelRequested)]);
    }

    #[test]
    fn a_placeholder_keeps_the_job_but_neither_its_token_nor_its_place() {
        let task: TaskName = "p/t".parse().unwrap();
        let new = NewJob {
            id: JobId::from_number(7).unwrap(),
            lane: Lane { group: Group::from(&task), key: None },
            task,
            payload: [1].into(),
            priority: 3,
            due: None,
            token: Some("once".parse().unwrap()),
            on_conflict: OnConflict::Discard,
            batch: None,
            lineage: Default::default(),
            tick: None,
        };
        let why = NotEnqueued::Duplicate(JobId::from_number(5).unwrap());
        let (placeholder, end) = placeholder(&new, why.clone());
        assert_eq!(end, Event::NotEnqueued(why));
        assert_eq!(placeholder.token, None, "another job with this token may still be enqueued");
        assert!(
            matches!(placeholder.due, Some(Due::In(delay)) if !delay.is_zero()),
            "no claim finds it before its end"
        );
        assert_eq!(placeholder.on_conflict, OnConflict::Wait, "it replaces no other job");
        assert_eq!(NewJob { token: new.token.clone(), due: None, on_conflict: new.on_conflict, ..placeholder }, new);
    }
}
