//! What nodes have written down of themselves, for whoever finds that their leases have run out.

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use wharf_core::ids::{JobId, NodeId};
use wharf_core::lease::{NodeMark, StartedSuspect};

use super::rows::{job_id, length, signed};
use super::session::{Session, SessionError};
use super::time::{NOW, Time};
use crate::node_list::MARKS_KEPT;

/// The columns of a mark, for `mark`.
pub(super) const MARK: &str = "mark.draining, mark.job, mark.attempt, mark.alone";

/// An attempt whose lease had run out when it was looked at, with what its node has written down about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expired {
    pub(super) job: JobId,
    pub(super) attempt: u32,
    pub(super) mark: NodeMark,
}

pub(super) async fn write(session: &Session, time: &Time, node: NodeId, mark: NodeMark) -> Result<(), SessionError> {
    let text = format!(
        "WITH moment AS MATERIALIZED (SELECT coalesce($1::bigint, {NOW}) AS now),
              gone AS (DELETE FROM wharf.node_marks USING moment WHERE at < now - $2 AND node <> $3)
         INSERT INTO wharf.node_marks (at, node, draining, job, attempt, alone)
         SELECT now, $3, $4, $5, $6, $7 FROM moment
         ON CONFLICT (node) DO UPDATE SET at = excluded.at, draining = excluded.draining, job = excluded.job,
             attempt = excluded.attempt, alone = excluded.alone"
    );
    let (now, kept, node) = (time.given(), length(MARKS_KEPT), signed(node.0));
    let job = mark.suspect.map(|begun| signed(begun.job.number()));
    let attempt = mark.suspect.map(|begun| begun.attempt as i32);
    let alone = mark.suspect.map(|begun| begun.alone);
    let args = [
        (&now as _, Type::INT8),
        (&kept as _, Type::INT8),
        (&node as _, Type::INT8),
        (&mark.draining as _, Type::BOOL),
        (&job as _, Type::INT8),
        (&attempt as _, Type::INT4),
        (&alone as _, Type::BOOL),
    ];
    session.ask(&text, &args).await.map(drop)
}

/// A mark whose columns begin at `first`; none was written where they are null.
pub(super) fn mark(row: &Row, first: usize) -> Result<NodeMark, SessionError> {
    let suspect = match (row.get::<_, Option<i64>>(first + 1), row.get(first + 2), row.get(first + 3)) {
        (Some(job), Some::<i32>(attempt), Some(alone)) => {
            Some(StartedSuspect { job: job_id(job)?, attempt: attempt as u32, alone })
        }
        _ => None,
    };
    Ok(NodeMark { draining: row.get::<_, Option<bool>>(first).unwrap_or_default(), suspect })
}
