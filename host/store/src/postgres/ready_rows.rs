//! Queued: the ready jobs of lines, and which jobs ended when. Many of them stand in one row, in order.

use std::collections::BTreeMap;

use tokio_postgres::types::Type;
use wharf_core::ids::JobId;
use wharf_core::job::State;

use super::ledger::{JobRow, Ledger};
use super::rows::{micros, signed};
use super::session::{Session, SessionError};
use super::unnest::unnested;
use super::write_set::{Place, Writes};

/// Jobs in one row: as many as the server keeps in the row itself.
const ROW_MAX: usize = 128;

/// All that is of one rank sorts by what came first, and ranks ascend with falling priority.
pub(super) const fn rank(priority: i32) -> i32 {
    !priority
}

/// The place of a ready job.
pub(super) fn place(hot: &JobRow) -> Option<Place> {
    match hot.standing.state {
        State::Waiting { due } => Some((hot.line?, rank(hot.priority), micros(due))),
        _ => None,
    }
}

/// Lists in one column, each from a start to a stop.
#[derive(Default)]
struct Lists {
    starts: Vec<i32>,
    stops: Vec<i32>,
    firsts: Vec<i64>,
    ids: Vec<i64>,
}

impl Lists {
    fn add(&mut self, ids: &[i64]) {
        self.starts.push(self.ids.len() as i32 + 1);
        self.firsts.push(ids[0]);
        self.ids.extend(ids);
        self.stops.push(self.ids.len() as i32);
    }
}

/// Rows of which jobs are taken.
#[derive(Default)]
struct Taken {
    lines: Vec<i64>,
    ranks: Vec<i32>,
    dues: Vec<i64>,
    firsts: Vec<i64>,
    counts: Vec<i32>,
}

impl Taken {
    fn add(&mut self, ((line, rank, due), first): &(Place, i64), count: usize) {
        self.lines.push(*line);
        self.ranks.push(*rank);
        self.dues.push(*due);
        self.firsts.push(*first);
        self.counts.push(count as i32);
    }

    async fn write(&self, session: &Session, text: &str) -> Result<(), SessionError> {
        let args = [
            (&self.lines as _, Type::INT8_ARRAY),
            (&self.ranks as _, Type::INT4_ARRAY),
            (&self.dues as _, Type::INT8_ARRAY),
            (&self.firsts as _, Type::INT8_ARRAY),
            (&self.counts as _, Type::INT4_ARRAY),
        ];
        session.ask_if(!self.lines.is_empty(), text, &args).await.map(drop)
    }
}

impl Ledger<'_> {
    pub(super) async fn write_joined(&self, writes: &Writes) -> Result<(), SessionError> {
        let mut places: BTreeMap<(Place, i32), Vec<i64>> = BTreeMap::new();
        for id in &writes.joined {
            if let Some(hot) = self.jobs.get(id)
                && let Some(place) = place(hot)
            {
                // They come in the order of their ids.
                places.entry((place, hot.task)).or_default().push(signed(id.number()));
            }
        }
        let (mut lines, mut ranks, mut dues, mut tasks, mut lists) = (vec![], vec![], vec![], vec![], Lists::default());
        for (((line, rank, due), task), ids) in &places {
            for ids in ids.chunks(ROW_MAX) {
                lines.push(*line);
                ranks.push(*rank);
                dues.push(*due);
                tasks.push(*task);
                lists.add(ids);
            }
        }
        let text = format!(
            "INSERT INTO wharf.queued (line, rank, due, first, task, ids)
                    SELECT line, rank, due, first, task, ($8::bigint[])[start:stop]
                    FROM {} AS new",
            unnested("line bigint, rank int, due bigint, first bigint, task int, start int, stop int")
        );
        let args = [
            (&lines as _, Type::INT8_ARRAY),
            (&ranks as _, Type::INT4_ARRAY),
            (&dues as _, Type::INT8_ARRAY),
            (&lists.firsts as _, Type::INT8_ARRAY),
            (&tasks as _, Type::INT4_ARRAY),
            (&lists.starts as _, Type::INT4_ARRAY),
            (&lists.stops as _, Type::INT4_ARRAY),
            (&lists.ids as _, Type::INT8_ARRAY),
        ];
        self.session.ask_if(!lines.is_empty(), &text, &args).await.map(drop)
    }

    /// Jobs that are ready no more, and were not claimed.
    pub(super) async fn write_unqueued(&self, writes: &Writes) -> Result<(), SessionError> {
        let lines: Vec<i64> = writes.unqueued.iter().map(|((line, ..), _)| *line).collect();
        let ranks: Vec<i32> = writes.unqueued.iter().map(|((_, rank, _), _)| *rank).collect();
        let dues: Vec<i64> = writes.unqueued.iter().map(|((.., due), _)| *due).collect();
        let ids: Vec<i64> = writes.unqueued.iter().map(|(_, id)| *id).collect();
        let left_by = unnested("line bigint, rank int, due bigint");
        let gone = format!(
            "DELETE FROM wharf.queued USING (SELECT DISTINCT line, rank, due FROM {left_by} AS named) AS left_by
             WHERE queued.line = left_by.line AND queued.rank = left_by.rank AND queued.due = left_by.due
             AND queued.ids <@ $4::bigint[]"
        );
        let left = format!(
            "UPDATE wharf.queued SET (first, ids) = (
                 SELECT min(id), array_agg(id ORDER BY id) FROM unnest(queued.ids) AS each (id) WHERE id <> ALL($4::bigint[]))
             FROM (SELECT DISTINCT line, rank, due FROM {left_by} AS named) AS left_by
             WHERE queued.line = left_by.line AND queued.rank = left_by.rank AND queued.due = left_by.due
             AND queued.ids && $4::bigint[]"
        );
        let args = [
            (&lines as _, Type::INT8_ARRAY),
            (&ranks as _, Type::INT4_ARRAY),
            (&dues as _, Type::INT8_ARRAY),
            (&ids as _, Type::INT8_ARRAY),
        ];
        futures_util::try_join!(
            self.session.ask_if(!ids.is_empty(), &gone, &args),
            self.session.ask_if(!ids.is_empty(), &left, &args),
        )?;
        Ok(())
    }

    /// Claims take from the front of rows.
    pub(super) async fn write_taken(&self, writes: &Writes) -> Result<(), SessionError> {
        let (mut whole, mut part) = (Taken::default(), Taken::default());
        for (row, (count, length)) in &writes.taken {
            if count == length { whole.add(row, *count) } else { part.add(row, *count) }
        }
        let gone = format!(
            "DELETE FROM wharf.queued USING {} AS taken
                    WHERE queued.line = taken.line AND queued.rank = taken.rank AND queued.due = taken.due
                    AND queued.first = taken.first",
            unnested("line bigint, rank int, due bigint, first bigint, count int")
        );
        let left = format!(
            "UPDATE wharf.queued SET first = ids[taken.count + 1], ids = ids[taken.count + 1:]
                    FROM {} AS taken
                    WHERE queued.line = taken.line AND queued.rank = taken.rank AND queued.due = taken.due
                    AND queued.first = taken.first",
            unnested("line bigint, rank int, due bigint, first bigint, count int")
        );
        futures_util::try_join!(whole.write(self.session, &gone), part.write(self.session, &left))?;
        Ok(())
    }

    /// Jobs that ended in this transaction: those that `forget` will look for.
    pub(super) async fn write_finished(&self, writes: &Writes) -> Result<(), SessionError> {
        let ids: Vec<i64> = writes.finished.iter().map(|id: &JobId| signed(id.number())).collect();
        let mut lists = Lists::default();
        ids.chunks(ROW_MAX).for_each(|ids| lists.add(ids));
        let at = micros(self.now);
        let text = format!(
            "INSERT INTO wharf.ended (at, first, ids) SELECT $5::bigint, first, ($4::bigint[])[start:stop]
                    FROM {} AS new",
            unnested("first bigint, start int, stop int")
        );
        let args = [
            (&lists.firsts as _, Type::INT8_ARRAY),
            (&lists.starts as _, Type::INT4_ARRAY),
            (&lists.stops as _, Type::INT4_ARRAY),
            (&lists.ids as _, Type::INT8_ARRAY),
            (&at as _, Type::INT8),
        ];
        self.session.ask_if(!ids.is_empty(), &text, &args).await.map(drop)
    }
}
