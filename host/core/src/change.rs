//! Works out all that an event changes on a job: the new status, and what the attempt leaves on the job.

use crate::attempt::{EndedAttempt, shortened};
use crate::fingerprint::Fingerprint;
use crate::ids::TaskName;
use crate::job::{JobStatus, State};
use crate::lifecycle::{Event, Refusal};
use crate::outcome::{Report, Usage};
use crate::time::Timestamp;

/// A change to a job that the lifecycle allows. A store writes these values as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The job's status after the event.
    pub status: JobStatus,
    /// True if the event took a lane's slot from a running attempt, so that the lane may have a free slot now.
    pub attempt_ended: bool,
    /// The new report, which replaces the job's report; `None` keeps the old one.
    pub report: Option<Report>,
    /// Resource usage of the attempt that ended, which is added to the job's usage; `None` if nobody measured it.
    pub usage: Option<Usage>,
    /// The attempt, if it ended without a result: it is added to the job's list of attempts.
    pub unsuccessful: Option<Box<EndedAttempt>>,
    /// True if the attempt failed, which counts against the job.
    pub is_failure: bool,
    /// When the job finished, if its new state is final.
    pub finished_at: Option<Timestamp>,
    /// When the job came back to wait, if it waits now and did not before.
    pub requeued_at: Option<Timestamp>,
    /// When an operator retried the job, if the event is that.
    pub retried_at: Option<Timestamp>,
}

impl Change {
    /// Returns what `event` at `now` changes on a job whose status is `before`.
    ///
    /// # Errors
    /// The refusal of [`JobStatus::after`] if the event may not happen to the job.
    pub fn of(before: &JobStatus, event: &Event, now: Timestamp) -> Result<Change, Refusal> {
        let status = before.after(event, now)?;
        let is_running = |status: &JobStatus| matches!(status.state, State::Running { .. });
        let attempt_ended = is_running(before) && !is_running(&status);
        // A request to cancel explains how an attempt ended only once the attempt has ended.
        let report = if is_running(&status) { None } else { event.report() };
        let usage = match event {
            Event::Succeeded { usage, .. } | Event::Failed { usage, .. } | Event::Cancelled { usage, .. } => {
                Some(*usage)
            }
            Event::Released { usage, .. } => *usage,
            _ => None,
        };
        let unsuccessful = match (&before.state, &report) {
            (State::Running { lease }, Some(report)) if attempt_ended => Some(Box::new(EndedAttempt {
                number: lease.attempt,
                node: lease.node,
                origin: event.origin(),
                report: shortened(report),
                usage,
            })),
            _ => None,
        };
        Ok(Change {
            status,
            attempt_ended,
            report,
            usage,
            unsuccessful,
            is_failure: attempt_ended
                && (status.failures.failed() > before.failures.failed() || status.state == State::Failed),
            finished_at: status.state.name().is_final().then_some(now),
            requeued_at: (is_waiting(&status) && !is_waiting(before)).then_some(now),
            retried_at: matches!(event, Event::RetryRequested { .. }).then_some(now),
        })
    }

    /// Returns the fingerprint of the attempt that failed; `None` if none did.
    pub fn fingerprint(&self, task: &TaskName) -> Option<Fingerprint> {
        self.report.as_ref().filter(|_| self.is_failure).map(|report| Fingerprint::of(task, report))
    }

    /// Returns how many waiting jobs there are more by this change of a job whose status was `before`: 1, 0 or -1.
    pub fn added_waiting(&self, before: &JobStatus) -> i64 {
        i64::from(is_waiting(&self.status)) - i64::from(is_waiting(before))
    }
}

const fn is_waiting(status: &JobStatus) -> bool {
    matches!(status.state, State::Waiting { .. })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ids::{JobId, NodeId};
    use crate::lease::{Lease, NodeMark};
    use crate::outcome::{CANCELLED, OutcomeKind};

    const NOW: Timestamp = Timestamp::from_millis(1_000);
    const BILL: Usage = Usage {
        queue_wait: Duration::ZERO,
        cpu: Duration::from_millis(1),
        wall: Duration::from_millis(2),
        memory_peak_bytes: 3,
        in_bytes: 4,
        out_bytes: 5,
    };

    fn running() -> JobStatus {
        let lease = Lease { job: JobId::from_number(1).unwrap(), attempt: 1, node: NodeId(1), until: NOW };
        JobStatus::new(NOW).after(&Event::Claimed { lease }, NOW).unwrap()
    }

    fn report() -> Report {
        Report { kind: OutcomeKind::Trapped, text: "why".to_owned() }
    }

    fn failed(retry_in: Option<Duration>) -> Event {
        Event::Failed { attempt: 1, report: report(), retry_in, usage: BILL, origin: None }
    }

    #[test]
    fn an_attempt_that_ends_frees_its_slot_and_leaves_its_report_and_usage() {
        let change = Change::of(&running(), &failed(None), NOW).unwrap();
        assert!(change.attempt_ended);
        assert_eq!((change.report, change.usage, change.finished_at), (Some(report()), Some(BILL), Some(NOW)));
    }

    #[test]
    fn a_job_that_waits_for_its_retry_has_not_finished() {
        let change = Change::of(&running(), &failed(Some(Duration::from_secs(1))), NOW).unwrap();
        assert_eq!((change.attempt_ended, change.finished_at), (true, None));
    }

    #[test]
    fn a_job_waits_no_more_once_it_is_claimed_and_waits_again_for_its_retry() {
        let (waiting, running) = (JobStatus::new(NOW), running());
        let State::Running { lease } = running.state else { panic!("{running:?}") };
        let added = |before: &JobStatus, event| Change::of(before, &event, NOW).unwrap().added_waiting(before);
        assert_eq!(added(&waiting, Event::Claimed { lease }), -1);
        assert_eq!(added(&waiting, Event::CancelRequested), -1);
        assert_eq!(added(&running, failed(Some(Duration::ZERO))), 1);
        assert_eq!(added(&running, failed(None)), 0);
    }

    #[test]
    fn a_job_comes_back_to_wait_by_an_attempt_that_is_tried_again_or_by_an_operator() {
        let running = running();
        let lease = Lease { job: JobId::from_number(1).unwrap(), attempt: 1, node: NodeId(1), until: NOW };
        let of = |before: &JobStatus, event| {
            let change = Change::of(before, &event, NOW).unwrap();
            (change.requeued_at, change.retried_at, change.status)
        };
        assert_eq!(of(&running, failed(Some(Duration::ZERO))).0, Some(NOW));
        let (requeued, retried, failed) = of(&running, failed(None));
        assert_eq!((requeued, retried), (None, None));
        let retry = Event::RetryRequested { delay: Duration::ZERO, attempts: 1 };
        let (requeued, retried, waiting) = of(&failed, retry);
        assert_eq!((requeued, retried), (Some(NOW), Some(NOW)));
        for event in [Event::Claimed { lease }, Event::RunRequested] {
            let (requeued, retried, _) = of(&waiting, event);
            assert_eq!((requeued, retried), (None, None), "it waited before, or waits no more");
        }
    }

    #[test]
    fn the_end_of_a_host_leaves_no_usage_because_nobody_measured_it() {
        let expired = Event::LeaseExpired { attempt: 1, mark: NodeMark::default() };
        let change = Change::of(&running(), &expired, NOW).unwrap();
        assert_eq!((change.attempt_ended, change.usage), (true, None));
        assert!(change.report.is_some());
    }

    #[test]
    fn a_request_to_cancel_explains_nothing_while_the_attempt_still_runs() {
        let change = Change::of(&running(), &Event::CancelRequested, NOW).unwrap();
        assert_eq!((change.attempt_ended, change.report, change.finished_at), (false, None, None));
        let ended =
            Change::of(&change.status, &Event::Cancelled { attempt: 1, usage: BILL, origin: None }, NOW).unwrap();
        assert_eq!(ended.report.map(|report| report.text).as_deref(), Some(CANCELLED));
        assert_eq!(ended.usage, Some(BILL));
    }

    #[test]
    fn a_job_that_is_cancelled_before_it_ran_frees_no_slot() {
        let change = Change::of(&JobStatus::new(NOW), &Event::CancelRequested, NOW).unwrap();
        assert_eq!((change.attempt_ended, change.usage, change.finished_at), (false, None, Some(NOW)));
    }
}
