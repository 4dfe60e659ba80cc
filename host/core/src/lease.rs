//! The right of one node to run one attempt of one job until a moment.

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
