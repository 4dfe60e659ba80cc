//! The right of one node to run one attempt of one job until a moment.

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
