//! Leases: the right of one node to run one attempt of one job until a given time; and the marks by which expired ones
//! are judged.

use std::time::Duration;

use crate::bounds;
use crate::ids::{JobId, NodeId};
use crate::time::Timestamp;

/// A running attempt's right to a slot of its lane. The attempt number is a fencing token: a write with another number
/// has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The job that is leased.
    pub job: JobId,
    /// The number of the attempt: 1 for a job's first. It grows with every claim and is never used twice.
    pub attempt: u32,
    /// The node that runs the attempt.
    pub node: NodeId,
    /// When the lease expires, by the store's clock.
    pub until: Timestamp,
}

/// The report of an attempt that its own node stopped because its lease was not confirmed in time.
pub const LEASE_LOST: &str =
    "the host could not renew its lease in time, so it stopped the attempt before another host could start the job";

impl Lease {
    /// Returns true if the lease has expired: any node may end it from now on.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.until <= now
    }

    /// Returns this lease extended to `until`, or `None` if it belongs to an attempt other than `attempt`.
    pub fn renewed(&self, attempt: u32, until: Timestamp) -> Option<Lease> {
        (self.attempt == attempt).then_some(Lease { until, ..*self })
    }
}

/// Returns true if a lease of this length leaves time to repeat a failed renewal, when attempts are stopped `margin`
/// before the lease expires.
pub const fn is_margin_valid(lease: Duration, margin: Duration) -> bool {
    margin.as_nanos() * (bounds::LEASE_RENEWALS as u128) < lease.as_nanos()
}

const _: () = assert!(is_margin_valid(bounds::LEASE, bounds::LEASE_MARGIN), "a failed renewal can be repeated in time");

/// A node mark: what a node has recorded about itself in the store. When leases of the node expire, it decides what
/// that says about their jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct NodeMark {
    /// The node claims no more jobs and releases those that it has. If it is killed now, its shutdown merely took too
    /// long.
    pub draining: bool,
    /// The suspect that the node started last.
    pub suspect: Option<StartedSuspect>,
}

/// An attempt of a suspect job that a node has started, or is about to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StartedSuspect {
    /// The suspect job.
    pub job: JobId,
    /// The number of the attempt.
    pub attempt: u32,
    /// True if no other job runs on the node.
    pub alone: bool,
}

/// Which job a node's unexpected end is blamed on, from the view of one of its jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Blame {
    /// No job: the node was shutting down, or had not started this job.
    Nobody,
    /// One of several: the job ran beside others, any of which may have killed the node.
    OneOfMany,
    /// This job: no other job ran on the node.
    ThisOne,
}

/// Returns true if a job with this many crashes may be what kills hosts. Such a suspect runs alone on its node.
pub const fn is_suspect(crashes: u32) -> bool {
    crashes >= bounds::SUSPECT_CRASHES
}

impl NodeMark {
    /// Returns the mark without a suspect that is not this attempt.
    pub fn about(self, job: JobId, attempt: u32) -> NodeMark {
        NodeMark { suspect: self.suspect.filter(|started| (started.job, started.attempt) == (job, attempt)), ..self }
    }

    /// Returns whom the end of this node is blamed on, for an attempt of `job` that it had leased.
    /// `crashes` is how many earlier attempts of the job ended with their hosts.
    pub fn blame(&self, job: JobId, attempt: u32, crashes: u32) -> Blame {
        if self.draining {
            return Blame::Nobody;
        }
        if !is_suspect(crashes) {
            return Blame::OneOfMany;
        }
        match self.about(job, attempt).suspect {
            Some(started) if started.alone => Blame::ThisOne,
            Some(_) => Blame::OneOfMany,
            // The job was parked: a suspect starts only after the node mark that names it is durable.
            None => Blame::Nobody,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(number: u64) -> JobId {
        JobId::from_number(number).unwrap()
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn a_lease_has_expired_from_its_end_on() {
        let lease = Lease { job: job(1), attempt: 1, node: NodeId(1), until: at(10) };
        assert_eq!([9, 10, 11].map(|now| lease.is_expired(at(now))), [false, true, true]);
    }

    #[test]
    fn a_renewal_moves_only_the_end_and_only_for_the_attempt_that_owns_the_lease() {
        let lease = Lease { job: job(1), attempt: 2, node: NodeId(1), until: at(10) };
        assert_eq!(lease.renewed(2, at(20)), Some(Lease { until: at(20), ..lease }));
        assert_eq!((lease.renewed(1, at(20)), lease.renewed(3, at(20))), (None, None));
    }

    #[test]
    fn a_margin_below_the_time_between_two_renewals_is_valid() {
        let lease = Duration::from_secs(30);
        let between = lease / bounds::LEASE_RENEWALS;
        let tick = Duration::from_nanos(1);
        assert_eq!([between - tick, between, between + tick].map(|m| is_margin_valid(lease, m)), [true, false, false]);
    }

    #[test]
    fn a_job_is_a_suspect_from_its_third_crash_on() {
        assert_eq!([0, 2, 3, 4].map(is_suspect), [false, false, true, true]);
    }

    #[test]
    fn a_mark_about_one_attempt_names_no_other_and_still_says_that_the_node_drains() {
        let started = StartedSuspect { job: job(1), attempt: 2, alone: true };
        for draining in [false, true] {
            let mark = NodeMark { draining, suspect: Some(started) };
            assert_eq!(mark.about(job(1), 2), mark);
            for (other, attempt) in [(1, 1), (2, 2)] {
                assert_eq!(mark.about(job(other), attempt), NodeMark { draining, suspect: None });
            }
        }
    }

    #[test]
    fn only_a_suspect_that_ran_alone_on_a_node_that_was_not_draining_is_to_blame() {
        let mark =
            |alone| NodeMark { draining: false, suspect: Some(StartedSuspect { job: job(1), attempt: 2, alone }) };
        let blame = |mark: NodeMark, crashes| mark.blame(job(1), 2, crashes);
        assert_eq!(blame(mark(true), bounds::SUSPECT_CRASHES), Blame::ThisOne);
        assert_eq!(blame(mark(false), bounds::SUSPECT_CRASHES), Blame::OneOfMany);
        assert_eq!(blame(mark(true), bounds::SUSPECT_CRASHES - 1), Blame::OneOfMany, "it was not a suspect");
        assert_eq!(blame(NodeMark::default(), bounds::SUSPECT_CRASHES), Blame::Nobody, "it had not been started");
        assert_eq!(blame(NodeMark { draining: true, ..mark(true) }, bounds::SUSPECT_CRASHES), Blame::Nobody);
    }
}
