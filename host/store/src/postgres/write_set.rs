//! The changes that a transaction has decided and not yet written. They are written together, by one statement for each kind
//! of row.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use wharf_core::attempt::EndedAttempt;
use wharf_core::fingerprint::Fingerprint;
use wharf_core::ids::JobId;
use wharf_core::job::Entry;
use wharf_core::lease::Lease;
use wharf_core::outcome::{Report, Usage};
use wharf_core::shared_bytes::SharedBytes;
use wharf_core::time::Timestamp;

use super::job_row::{JobRow, LineRow, ReadyPosition};
use super::lane_rows::LaneRow;
use super::session::Session;
use crate::columns::signed;

/// Changes of a transaction that are not written yet.
#[derive(Debug, Default)]
pub(super) struct WriteSet {
    pub(super) new_lines: Vec<(LaneRow, LineRow)>,
    /// Lines with a higher top priority, by lane and task.
    pub(super) raised: BTreeMap<(LaneRow, i32), i32>,
    /// New jobs, in the order in which they were added.
    pub(super) inserted: Vec<JobId>,
    /// Jobs whose status differs from their rows.
    pub(super) changed: BTreeSet<JobId>,
    /// Waiting jobs that got another priority.
    pub(super) priorities: BTreeMap<JobId, i32>,
    pub(super) ends: BTreeMap<JobId, JobEnd>,
    /// Attempts that ended without a result.
    pub(super) attempts: Vec<(JobId, Box<EndedAttempt>, Option<Fingerprint>)>,
    /// Jobs that became ready, each with a line.
    pub(super) joined: BTreeSet<JobId>,
    /// Jobs that left the table `ready` without being claimed, with the positions that they had.
    pub(super) unready: Vec<(ReadyPosition, i64)>,
    /// The jobs that a claim takes from each row of `ready` (by position and first id): how many, and of how many.
    pub(super) taken: BTreeMap<(ReadyPosition, i64), (usize, usize)>,
    /// The leases of a claim.
    pub(super) claimed: Vec<Lease>,
    /// Jobs that released their slot.
    pub(super) released: HashSet<i64>,
    /// Jobs that ended for good.
    pub(super) finished: BTreeSet<JobId>,
    /// New log entries: the job, the number, the attempt, the entry.
    pub(super) entries: Vec<(JobId, i64, u32, Entry)>,
    /// Lines that lost ready jobs, by id: deleted if they are empty, otherwise their top priority is computed again.
    pub(super) shrunk_lines: BTreeMap<i64, ShrunkLine>,
    /// Lanes that have a free slot again.
    pub(super) reopened: BTreeSet<LaneRow>,
    /// Lanes as a claim left them: the turn, and the limit that closes them.
    pub(super) left_lanes: BTreeMap<LaneRow, (i64, Option<i32>)>,
}

/// A line that lost ready jobs.
#[derive(Debug)]
pub(super) struct ShrunkLine {
    pub(super) lane: LaneRow,
    pub(super) task: i32,
    /// True if it is known to have no ready jobs. If false, it may have some.
    pub(super) is_empty: bool,
}

/// The results on a job's row after an attempt ended, or after the job ended without one.
#[derive(Debug, Default)]
pub(super) struct JobEnd {
    pub(super) report: Option<Report>,
    /// The resource usage of an attempt, which is added to that of earlier ones, and its output, which replaces theirs.
    pub(super) attempt: Option<(Option<Usage>, Option<SharedBytes>)>,
}

/// One flush: a write set, and what its statements need besides it.
pub(super) struct Flush<'a> {
    pub(super) session: &'a Session,
    pub(super) now: Timestamp,
    /// The jobs of the transaction as they are now.
    pub(super) jobs: &'a HashMap<JobId, JobRow>,
    /// True if a lane of the locked limit groups may be closed.
    pub(super) has_closed_lanes: bool,
    pub(super) writes: &'a WriteSet,
}

impl Flush<'_> {
    /// Returns the rows of jobs, by id.
    pub(super) fn job_rows(&self, ids: impl Iterator<Item = JobId>) -> Vec<(i64, &JobRow)> {
        ids.filter_map(|id| Some((signed(id.number()), self.jobs.get(&id)?))).collect()
    }
}
