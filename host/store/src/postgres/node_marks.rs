//! The notes of nodes about themselves, read when their leases expire.

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use wharf_core::ids::{JobId, NodeId};
use wharf_core::lease::{NodeMark, StartedSuspect};

use super::session::{Session, SessionError, value};
use super::time::{NOW, Time};
use crate::columns::{self, duration_us, signed};
use crate::node_list::MARKS_KEPT;

/// The columns that `mark` reads.
pub(super) const MARK_COLUMNS: &str = "mark.draining, mark.suspect_job, mark.suspect_attempt, mark.suspect_alone";

/// An attempt whose lease had expired when it was read, with its node's mark about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ExpiredLease {
    pub(super) job: JobId,
    pub(super) attempt: u32,
    pub(super) mark: NodeMark,
}

/// Replaces the mark of a node, and deletes old marks of others.
pub(super) async fn write(session: &Session, time: &Time, node: NodeId, mark: NodeMark) -> Result<(), SessionError> {
    let text = format!(
        "WITH moment AS MATERIALIZED (SELECT coalesce($1::bigint, {NOW}) AS now),
              old AS (DELETE FROM $schema.node_marks USING moment WHERE marked_at < now - $2 AND node <> $3)
         INSERT INTO $schema.node_marks (marked_at, node, draining, suspect_job, suspect_attempt, suspect_alone)
         SELECT now, $3, $4, $5, $6, $7 FROM moment
         ON CONFLICT (node) DO UPDATE SET marked_at = excluded.marked_at, draining = excluded.draining,
             suspect_job = excluded.suspect_job, suspect_attempt = excluded.suspect_attempt,
             suspect_alone = excluded.suspect_alone"
    );
    let (now, kept, node) = (time.manual_micros(), duration_us(MARKS_KEPT), signed(node.0));
    let job = mark.suspect.map(|suspect| signed(suspect.job.number()));
    let attempt = mark.suspect.map(|suspect| suspect.attempt as i32);
    let alone = mark.suspect.map(|suspect| suspect.alone);
    let args = [
        (&now as _, Type::INT8),
        (&kept as _, Type::INT8),
        (&node as _, Type::INT8),
        (&mark.draining as _, Type::BOOL),
        (&job as _, Type::INT8),
        (&attempt as _, Type::INT4),
        (&alone as _, Type::BOOL),
    ];
    session.query(&text, &args).await.map(drop)
}

/// Reads a mark from `MARK_COLUMNS`, which start at column `first`. They are null if the node wrote none.
pub(super) fn mark(row: &Row, first: usize) -> Result<NodeMark, SessionError> {
    let table = "node_marks";
    let job = value::<Option<i64>>(row, table, first + 1)?;
    let attempt = value::<Option<i32>>(row, table, first + 2)?;
    let alone = value::<Option<bool>>(row, table, first + 3)?;
    let suspect = match (job, attempt, alone) {
        (Some(job), Some(attempt), Some(alone)) => {
            Some(StartedSuspect { job: columns::job_id(job)?, attempt: attempt as u32, alone })
        }
        _ => None,
    };
    Ok(NodeMark { draining: value::<Option<bool>>(row, table, first)?.unwrap_or_default(), suspect })
}
