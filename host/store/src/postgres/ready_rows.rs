//! Statements that write the tables `ready` and `finished`: lists of jobs, many to a row, in order.

use std::collections::BTreeMap;

use tokio_postgres::types::Type;
use wharf_core::ids::JobId;

use super::job_row::ReadyPosition;
use super::session::{Session, SessionError};
use super::unnest::unnest;
use super::write_set::Flush;
use crate::columns::{signed, timestamp_us};

/// The maximum number of jobs in one row: as many as the server stores in the row itself.
const ROW_MAX: usize = 128;

/// Lists of ids that follow each other in one array, each from a start to a stop.
#[derive(Default)]
struct IdLists {
    starts: Vec<i32>,
    stops: Vec<i32>,
    first_ids: Vec<i64>,
    ids: Vec<i64>,
}

impl IdLists {
    fn add(&mut self, ids: &[i64]) {
        self.starts.push(self.ids.len() as i32 + 1);
        self.first_ids.push(ids[0]);
        self.ids.extend(ids);
        self.stops.push(self.ids.len() as i32);
    }
}

/// Rows of `ready` as columns, each with the number of jobs that a claim takes from its front.
#[derive(Default)]
struct TakenRows {
    lines: Vec<i64>,
    ranks: Vec<i32>,
    due_ats: Vec<i64>,
    first_ids: Vec<i64>,
    counts: Vec<i32>,
}

impl TakenRows {
    fn add(&mut self, ((line, rank, due_at), first_id): &(ReadyPosition, i64), count: usize) {
        self.lines.push(*line);
        self.ranks.push(*rank);
        self.due_ats.push(*due_at);
        self.first_ids.push(*first_id);
        self.counts.push(count as i32);
    }

    async fn write(&self, session: &Session, text: &str) -> Result<(), SessionError> {
        let args = [
            (&self.lines as _, Type::INT8_ARRAY),
            (&self.ranks as _, Type::INT4_ARRAY),
            (&self.due_ats as _, Type::INT8_ARRAY),
            (&self.first_ids as _, Type::INT8_ARRAY),
            (&self.counts as _, Type::INT4_ARRAY),
        ];
        session.query_if(!self.lines.is_empty(), text, &args).await.map(drop)
    }
}

/// Adds the jobs that became ready.
pub(super) async fn write_joined(flush: &Flush<'_>) -> Result<(), SessionError> {
    let mut positions: BTreeMap<(ReadyPosition, i32), Vec<i64>> = BTreeMap::new();
    for id in &flush.writes.joined {
        if let Some(job) = flush.jobs.get(id)
            && let Some(position) = job.ready_position()
        {
            // `joined` is sorted by id, so each list is.
            positions.entry((position, job.task)).or_default().push(signed(id.number()));
        }
    }
    let (mut lines, mut ranks, mut due_ats, mut tasks) = (vec![], vec![], vec![], vec![]);
    let mut lists = IdLists::default();
    for (((line, rank, due_at), task), ids) in &positions {
        for ids in ids.chunks(ROW_MAX) {
            lines.push(*line);
            ranks.push(*rank);
            due_ats.push(*due_at);
            tasks.push(*task);
            lists.add(ids);
        }
    }
    let text = format!(
        "INSERT INTO $schema.ready (line, rank, due_at, first_id, task, ids)
         SELECT line, rank, due_at, first_id, task, ($8::bigint[])[start:stop]
         FROM {} AS new",
        unnest("line bigint, rank int, due_at bigint, first_id bigint, task int, start int, stop int")
    );
    let args = [
        (&lines as _, Type::INT8_ARRAY),
        (&ranks as _, Type::INT4_ARRAY),
        (&due_ats as _, Type::INT8_ARRAY),
        (&lists.first_ids as _, Type::INT8_ARRAY),
        (&tasks as _, Type::INT4_ARRAY),
        (&lists.starts as _, Type::INT4_ARRAY),
        (&lists.stops as _, Type::INT4_ARRAY),
        (&lists.ids as _, Type::INT8_ARRAY),
    ];
    flush.session.query_if(!lines.is_empty(), &text, &args).await.map(drop)
}

/// Removes the jobs that left without being claimed.
pub(super) async fn write_unready(flush: &Flush<'_>) -> Result<(), SessionError> {
    let unready = &flush.writes.unready;
    let lines: Vec<i64> = unready.iter().map(|((line, ..), _)| *line).collect();
    let ranks: Vec<i32> = unready.iter().map(|((_, rank, _), _)| *rank).collect();
    let due_ats: Vec<i64> = unready.iter().map(|((.., due_at), _)| *due_at).collect();
    let ids: Vec<i64> = unready.iter().map(|(_, id)| *id).collect();
    let positions = unnest("line bigint, rank int, due_at bigint");
    let delete = format!(
        "DELETE FROM $schema.ready USING (SELECT DISTINCT line, rank, due_at FROM {positions} AS named) AS left_by
         WHERE ready.line = left_by.line AND ready.rank = left_by.rank AND ready.due_at = left_by.due_at
         AND ready.ids <@ $4::bigint[]"
    );
    let update = format!(
        "UPDATE $schema.ready SET (first_id, ids) = (
             SELECT min(id), array_agg(id ORDER BY id) FROM unnest(ready.ids) AS each (id) WHERE id <> ALL($4::bigint[]))
         FROM (SELECT DISTINCT line, rank, due_at FROM {positions} AS named) AS left_by
         WHERE ready.line = left_by.line AND ready.rank = left_by.rank AND ready.due_at = left_by.due_at
         AND ready.ids && $4::bigint[]"
    );
    let args = [
        (&lines as _, Type::INT8_ARRAY),
        (&ranks as _, Type::INT4_ARRAY),
        (&due_ats as _, Type::INT8_ARRAY),
        (&ids as _, Type::INT8_ARRAY),
    ];
    futures_util::try_join!(
        flush.session.query_if(!ids.is_empty(), &delete, &args),
        flush.session.query_if(!ids.is_empty(), &update, &args),
    )?;
    Ok(())
}

/// Removes the jobs that a claim takes, from the front of rows.
pub(super) async fn write_taken(flush: &Flush<'_>) -> Result<(), SessionError> {
    let (mut whole, mut part) = (TakenRows::default(), TakenRows::default());
    for (row, (count, length)) in &flush.writes.taken {
        if count == length { whole.add(row, *count) } else { part.add(row, *count) }
    }
    let rows = unnest("line bigint, rank int, due_at bigint, first_id bigint, count int");
    let delete = format!(
        "DELETE FROM $schema.ready USING {rows} AS taken
         WHERE ready.line = taken.line AND ready.rank = taken.rank AND ready.due_at = taken.due_at
         AND ready.first_id = taken.first_id"
    );
    let update = format!(
        "UPDATE $schema.ready SET first_id = ids[taken.count + 1], ids = ids[taken.count + 1:]
         FROM {rows} AS taken
         WHERE ready.line = taken.line AND ready.rank = taken.rank AND ready.due_at = taken.due_at
         AND ready.first_id = taken.first_id"
    );
    futures_util::try_join!(whole.write(flush.session, &delete), part.write(flush.session, &update))?;
    Ok(())
}

/// Adds the jobs that finished in this transaction to `finished`, which `lease::delete_finished` reads.
pub(super) async fn write_finished(flush: &Flush<'_>) -> Result<(), SessionError> {
    let ids: Vec<i64> = flush.writes.finished.iter().map(|id: &JobId| signed(id.number())).collect();
    let mut lists = IdLists::default();
    ids.chunks(ROW_MAX).for_each(|ids| lists.add(ids));
    let finished_at = timestamp_us(flush.now);
    let text = format!(
        "INSERT INTO $schema.finished (finished_at, first_id, ids)
         SELECT $5::bigint, first_id, ($4::bigint[])[start:stop]
         FROM {} AS new",
        unnest("first_id bigint, start int, stop int")
    );
    let args = [
        (&lists.first_ids as _, Type::INT8_ARRAY),
        (&lists.starts as _, Type::INT4_ARRAY),
        (&lists.stops as _, Type::INT4_ARRAY),
        (&lists.ids as _, Type::INT8_ARRAY),
        (&finished_at as _, Type::INT8),
    ];
    flush.session.query_if(!ids.is_empty(), &text, &args).await.map(drop)
}
