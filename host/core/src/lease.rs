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
