//! The right of one node to run one attempt of one job until a moment.

use std::time::Duration;

use crate::bounds;
use crate::ids::{JobId, NodeId};
use crate::time::Timestamp;

/// One holder of a lane's slot. The attempt number fences: a writer with another number changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    pub job: JobId,
    /// 1 for a job's first attempt; grows with every claim and is never used twice.
    pub attempt: u32,
    pub node: NodeId,
    pub until: Timestamp,
}

/// The report of an attempt that its own node stopped because the lease was not confirmed in time.
pub const LEASE_LOST: &str =
    "the host could not renew its lease in time, so it stopped the attempt before another host could start the job";

impl Lease {
    /// Returns true if the lease has run out: any node may end it from now on.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.until <= now
    }

    /// Returns this lease extended to `until`, or `None` if it belongs to another attempt than `attempt`.
    pub fn renewed(&self, attempt: u32, until: Timestamp) -> Option<Lease> {
        (self.attempt == attempt).then_some(Lease { until, ..*self })
    }
}

/// Returns true if a lease of this length leaves time for another renewal after one failed, when attempts are stopped `margin`
/// before the lease ends.
pub const fn is_margin_valid(lease: Duration, margin: Duration) -> bool {
    margin.as_nanos() * (bounds::LEASE_RENEWALS as u128) < lease.as_nanos()
}

const _: () = assert!(is_margin_valid(bounds::LEASE, bounds::LEASE_MARGIN), "a failed renewal can be repeated in time");

/// What a node has written down of itself, by which those of its leases are judged that run out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct NodeMark {
    /// It claims no more and gives back what it holds: whoever kills it now ends a stop that took too long.
    pub draining: bool,
    /// The suspect that it began last.
    pub suspect: Option<StartedSuspect>,
}

/// A suspect whose attempt was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StartedSuspect {
    pub job: JobId,
    pub attempt: u32,
    /// No other job runs on the node.
    pub alone: bool,
}

/// What the end of a node says about a job that it held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The node was being stopped, or had not begun the job: nothing.
    Nobody,
    /// The job ran beside others, any of which may have killed the node.
    OneOfMany,
    /// No other job ran there.
    ThisOne,
}

/// Whether a job may be what kills hosts, so that it runs alone.
pub const fn is_suspect(crashes: u32) -> bool {
    crashes >= bounds::SUSPECT_CRASHES
}

impl NodeMark {
    /// What of it is about one attempt.
    pub fn about(self, job: JobId, attempt: u32) -> NodeMark {
        NodeMark { suspect: self.suspect.filter(|begun| (begun.job, begun.attempt) == (job, attempt)), ..self }
    }

    /// What the end of this node says about `job`, of whose attempts `crashes` had ended with their hosts before.
    pub fn blame(&self, job: JobId, attempt: u32, crashes: u32) -> Blame {
        if self.draining {
            return Blame::Nobody;
        }
        if !is_suspect(crashes) {
            return Blame::OneOfMany;
        }
        match self.about(job, attempt).suspect {
            Some(begun) if begun.alone => Blame::ThisOne,
            Some(_) => Blame::OneOfMany,
            // It was held back: a suspect is begun only after that is written down.
            None => Blame::Nobody,
        }
    }
}
