//! Which jobs met a query at an earlier moment, as far as the jobs that are there now tell.

use super::query::{Candidate, JobQuery, StateFilter};
use super::wait_kind::{WaitKind, WaitView};
use crate::ids::JobId;
use crate::job::{State, StateName};
use crate::time::Timestamp;

/// The moment at which a bulk operation began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsOf {
    /// The operation, with which a store keeps what decided then why jobs waited.
    pub operation: JobId,
    /// The moment, by the store's clock.
    pub at: Timestamp,
}

/// A job and a query at an earlier moment, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtStart {
    /// The job met the query then, and is as it was.
    Met,
    /// The job existed then, and has started, ended or come back to wait since. It may have met the query.
    MovedOn,
    /// The job did not meet the query then, or does not now.
    NotMet,
}

impl JobQuery {
    /// Returns if a job met the query at an earlier moment. `view` is what decided then why jobs waited.
    ///
    /// A job that moved on is left out even if it meets the query again. The one exception is a query that asks for waiting and running
    /// jobs alike: between these two states, its jobs come and go.
    pub fn at_start(&self, candidate: Candidate<'_>, view: &WaitView, at: Timestamp) -> AtStart {
        let job = candidate.job;
        if !self.meets_all_but_kinds(candidate) || job.enqueued_at > at {
            return AtStart::NotMet;
        }
        let is_since = |moment: Option<Timestamp>| moment.is_some_and(|moment| moment > at);
        // A job that certainly was in none of the query's states has not moved on from them.
        let may_have_been = |states: &[StateName]| {
            let may_be = states.iter().any(|state| self.may_be(*state));
            if may_be { AtStart::MovedOn } else { AtStart::NotMet }
        };
        if is_since(job.retried_at) {
            return AtStart::MovedOn;
        }
        if is_since(job.finished_at) {
            return may_have_been(&[StateName::Waiting, StateName::Running]);
        }
        if job.status.state.name().is_final() || self.is_about_all_unfinished() {
            return AtStart::Met;
        }
        if is_since(job.requeued_at) {
            let ran = !is_since(job.started_at);
            return if ran { may_have_been(&[StateName::Running]) } else { AtStart::MovedOn };
        }
        let has = |state| self.states.contains(&state);
        let whole = |state| self.states.is_empty() || has(StateFilter::State(state));
        let is_met = match job.status.state {
            State::Waiting { .. } if whole(StateName::Waiting) => true,
            State::Waiting { due } if due > at => has(StateFilter::Waiting(WaitKind::of_delayed(job.status.attempt))),
            State::Waiting { .. } => has(StateFilter::Waiting(view.kind_of_due(&job.task, &job.lane))),
            // It waited then.
            State::Running { .. } if is_since(job.started_at) && !whole(StateName::Waiting) => {
                let asks_for_kinds = self.states.iter().any(|state| matches!(state, StateFilter::Waiting(_)));
                return if asks_for_kinds { AtStart::MovedOn } else { AtStart::NotMet };
            }
            _ => true,
        };
        if is_met { AtStart::Met } else { AtStart::NotMet }
    }

    /// Returns true if the query is about waiting and running jobs alike, and about nothing that an attempt changes: an unfinished job
    /// meets it as long as it is unfinished.
    fn is_about_all_unfinished(&self) -> bool {
        let has = |state| self.states.contains(&StateFilter::State(state));
        let is_about_attempts = !(self.outcomes.is_empty() && self.fingerprints.is_empty() && self.digests.is_empty())
            || self.text.is_some();
        !is_about_attempts && (self.states.is_empty() || (has(StateName::Waiting) && has(StateName::Running)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::find::WaitFact;
    use crate::hold::HoldScope;
    use crate::ids::NodeId;
    use crate::job::{Job, JobStatus, NewJob};
    use crate::lease::Lease;
    use crate::outcome::{OutcomeKind, Report};

    const START: Timestamp = Timestamp::from_millis(1_000_000);
    const BEFORE: Timestamp = Timestamp::from_millis(999_000);
    const AFTER: Timestamp = Timestamp::from_millis(1_001_000);
    const LATER: Timestamp = Timestamp::from_millis(1_002_000);
    const DUE: Timestamp = Timestamp::from_millis(2_000_000);

    fn job(state: State) -> Job {
        let new = NewJob::ready(JobId::from_number(7).unwrap(), "a/b".parse().unwrap(), None, [].into());
        let new = Job::inserted(new, BEFORE);
        Job { status: JobStatus { state, ..new.status }, ..new }
    }

    fn waiting(due: Timestamp) -> Job {
        job(State::Waiting { due })
    }

    fn running(started_at: Timestamp) -> Job {
        let lease = Lease { job: JobId::from_number(7).unwrap(), attempt: 1, node: NodeId(1), until: LATER };
        let running = job(State::Running { lease });
        Job { started_at: Some(started_at), status: JobStatus { attempt: 1, ..running.status }, ..running }
    }

    /// A job that waits for its second attempt since its first one failed at a moment.
    fn retrying(requeued_at: Timestamp) -> Job {
        let waiting = waiting(DUE);
        let report = Some(Report { kind: OutcomeKind::Failed, text: "why".to_owned() });
        let status = JobStatus { attempt: 1, ..waiting.status };
        Job { started_at: Some(BEFORE), requeued_at: Some(requeued_at), report, status, ..waiting }
    }

    fn ended(state: State, finished_at: Timestamp) -> Job {
        Job { started_at: Some(BEFORE), finished_at: Some(finished_at), ..job(state) }
    }

    fn with(filter: &str, job: &Job, view: &WaitView) -> AtStart {
        let query = JobQuery::parse(filter, START).unwrap();
        // If it is due now says nothing about the start.
        query.at_start(Candidate { job, payload: &[], digests: &[], is_due: true }, view, START)
    }

    fn of(filter: &str, job: &Job) -> AtStart {
        with(filter, job, &WaitView::default())
    }

    #[test]
    fn a_job_is_judged_as_it_was() {
        use AtStart::{Met, MovedOn, NotMet};
        let retried = |job: Job, at| Job { requeued_at: Some(at), retried_at: Some(at), ..job };
        for (filter, job, expected) in [
            ("state:delayed", waiting(DUE), Met),
            ("state:ready", waiting(DUE), NotMet),
            ("state:delayed", waiting(AFTER), Met),
            ("state:ready", waiting(AFTER), NotMet),
            ("state:ready", waiting(START), Met),
            ("state:delayed", waiting(START), NotMet),
            ("state:waiting", waiting(START), Met),
            ("key:\"\"", waiting(START), Met),
            ("key:a", waiting(START), NotMet),
            ("state:retrying", retrying(BEFORE), Met),
            ("state:retrying", retrying(START), Met),
            ("state:retrying", retrying(AFTER), NotMet),
            ("state:delayed", retrying(BEFORE), NotMet),
            ("state:waiting", retrying(AFTER), NotMet),
            ("state:running,retrying", retrying(AFTER), MovedOn),
            ("state:retrying", Job { started_at: Some(AFTER), ..retrying(LATER) }, MovedOn),
            ("state:waiting", running(AFTER), NotMet),
            ("state:running", running(START), Met),
            ("state:running", running(AFTER), NotMet),
            ("state:running,held", running(AFTER), MovedOn),
            ("state:running", Job { requeued_at: Some(AFTER), ..running(LATER) }, MovedOn),
            ("state:failed", ended(State::Failed, START), Met),
            ("state:failed", ended(State::Failed, AFTER), NotMet),
            ("state:failed,running", ended(State::Failed, AFTER), MovedOn),
            ("state:succeeded", ended(State::Failed, START), NotMet),
            ("state:failed", retried(ended(State::Failed, LATER), AFTER), MovedOn),
            ("state:waiting", retried(waiting(AFTER), AFTER), MovedOn),
            ("state:waiting", retried(waiting(BEFORE), BEFORE), Met),
        ] {
            assert_eq!(of(filter, &job), expected, "{filter} {job:?}");
        }
    }

    #[test]
    fn an_unfinished_job_stays_one_whatever_it_does_next() {
        use AtStart::{Met, MovedOn, NotMet};
        for filter in ["key:\"\"", "state:waiting,running"] {
            for job in [retrying(AFTER), running(AFTER), Job { requeued_at: Some(AFTER), ..running(LATER) }] {
                assert_eq!(of(filter, &job), Met, "{filter} {job:?}");
            }
            let since = waiting(AFTER);
            assert_eq!(
                of(filter, &Job { retried_at: Some(AFTER), requeued_at: Some(AFTER), ..since.clone() }),
                MovedOn
            );
            assert_eq!(of(filter, &Job { enqueued_at: AFTER, ..since }), NotMet);
        }
        for filter in ["text:why", "outcome:failed", "text:why state:waiting,running"] {
            assert_eq!(of(filter, &retrying(AFTER)), MovedOn, "{filter}: its report may have come since");
            assert_eq!(of(filter, &retrying(BEFORE)), Met, "{filter}");
            let again = Job { started_at: Some(AFTER), ..running(AFTER) };
            assert_eq!(of(filter, &Job { report: retrying(BEFORE).report, ..again }), Met, "{filter}");
        }
    }

    #[test]
    fn a_due_job_waited_for_what_the_view_has() {
        let mut view = WaitView::default();
        view.add(WaitFact::Held(HoldScope::Task("a/b".parse().unwrap())));
        assert_eq!(with("state:held", &waiting(BEFORE), &view), AtStart::Met);
        assert_eq!(with("state:ready", &waiting(BEFORE), &view), AtStart::NotMet);
        assert_eq!(with("state:held", &waiting(DUE), &view), AtStart::NotMet, "it was not due");
        assert_eq!(with("state:held,delayed", &waiting(DUE), &view), AtStart::Met);
    }
}
