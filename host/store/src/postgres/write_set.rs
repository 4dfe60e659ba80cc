//! Writes: what a transaction has decided and not yet written. Written together, a statement for each kind of row.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use tokio_postgres::types::Type;
use wharf_core::ids::JobId;
use wharf_core::job::Entry;
use wharf_core::lease::Lease;
use wharf_core::outcome::{Bill, Report};

use super::lane_rows::LaneRow;
use super::ledger::{Ledger, LineRow, columns};
use super::session::{SessionError, damaged};
use super::unnest::unnested;

/// Where a job stands in its line: the line, the rank (`~priority`) and when it was due.
pub(super) type Place = (i64, i32, i64);

#[derive(Debug, Default)]
pub(super) struct Writes {
    pub(super) new_lines: Vec<(LaneRow, LineRow)>,
    /// Lines, by lane and task, with a higher top.
    pub(super) raised: BTreeMap<(LaneRow, i32), i32>,
    /// New jobs, in their order.
    pub(super) inserted: Vec<JobId>,
    /// Jobs that stand otherwise than their rows say.
    pub(super) changed: BTreeSet<JobId>,
    pub(super) ends: BTreeMap<JobId, End>,
    /// Jobs that became ready, each with a line.
    pub(super) joined: BTreeSet<JobId>,
    /// Jobs that are ready no more, and were not claimed, with the places that they leave.
    pub(super) unqueued: Vec<(Place, i64)>,
    /// What a claim takes: how many from the front of which row of `queued`, and of how many.
    pub(super) taken: BTreeMap<(Place, i64), (usize, usize)>,
    /// The leases of a claim.
    pub(super) claimed: Vec<Lease>,
    /// Jobs that gave their slot back.
    pub(super) released: HashSet<i64>,
    /// Jobs that ended for good.
    pub(super) finished: BTreeSet<JobId>,
    pub(super) entries: Vec<(JobId, i64, u32, Entry)>,
    /// Lines of which jobs are ready no more: to go, or to have the top of the first job left.
    pub(super) settle: BTreeMap<i64, Settle>,
    /// Lanes that have a slot again.
    pub(super) reopen: BTreeSet<LaneRow>,
    /// Lanes as a claim left them: the turn, and by which limit they are closed.
    pub(super) left: BTreeMap<LaneRow, (i64, Option<i32>)>,
}

/// A line of which jobs are ready no more.
#[derive(Debug)]
pub(super) struct Settle {
    pub(super) lane: LaneRow,
    pub(super) task: i32,
    /// It is known that none is left.
    pub(super) is_empty: bool,
}

/// What is left on a job when an attempt ended, or when it ended without one.
#[derive(Debug, Default)]
pub(super) struct End {
    pub(super) report: Option<Report>,
    /// Of an attempt: takes the place of what an earlier one left.
    pub(super) attempt: Option<(Option<Bill>, Option<Arc<[u8]>>)>,
}

impl Ledger<'_> {
    /// Writes what was decided, in the order in which statements need each other.
    pub(super) async fn flush(&mut self) -> Result<(), SessionError> {
        self.flush_and(async |_| Ok(())).await
    }

    /// The same, and the end of the transaction with it.
    pub(super) async fn commit(&mut self) -> Result<(), SessionError> {
        let values = std::mem::take(&mut self.values);
        let end = async |this: &Ledger<'_>| {
            futures_util::try_join!(values.write(this.session), this.session.run("COMMIT")).map(drop)
        };
        self.flush_and(end).await
    }

    /// Writes what was decided and asks what needs it written, on one way there and back.
    pub(super) async fn flush_and<T>(
        &mut self,
        then: impl AsyncFnOnce(&Ledger<'_>) -> Result<T, SessionError>,
    ) -> Result<T, SessionError> {
        let writes = std::mem::take(&mut self.writes);
        if self.held.release(&writes.released) != writes.released.len() {
            if self.relies {
                return Err(SessionError::Outdated);
            }
            return Err(damaged("a running job that holds no slot", &format!("one of {:?}", writes.released)));
        }
        let held = self.held.take_changes();
        let this = &*self;
        let (.., answer) = futures_util::try_join!(
            this.write_lines(&writes),
            this.write_inserted(&writes),
            this.write_changed(&writes),
            this.write_ended(&writes),
            this.write_claimed(&writes),
            held.write(this.session),
            this.write_entries(&writes),
            this.write_unqueued(&writes),
            this.write_taken(&writes),
            this.write_joined(&writes),
            this.write_finished(&writes),
            this.settle(&writes),
            this.reopen(&writes),
            this.leave(&writes),
            then(this),
        )?;
        for id in &writes.inserted {
            self.jobs.get_mut(id).map(|hot| hot.new.take());
        }
        if !writes.settle.is_empty() {
            self.lanes.clear();
        }
        Ok(answer)
    }

    async fn write_lines(&self, writes: &Writes) -> Result<(), SessionError> {
        let (groups, keys) = columns(writes.new_lines.iter().map(|(lane, _)| lane));
        let lines = || writes.new_lines.iter().map(|(_, line)| line);
        let ids: Vec<i64> = lines().map(|line| line.id).collect();
        let tasks: Vec<i32> = lines().map(|line| line.task).collect();
        let tops: Vec<i32> = lines().map(|line| line.top).collect();
        let turns: Vec<i64> = lines().map(|line| line.turn).collect();
        let closed: Vec<Option<i32>> = lines().map(|line| line.closed_by).collect();
        let new = "INSERT INTO wharf.lines (id, grp, key, task, top, turn, closed_by)
                   SELECT unnest($1::bigint[]), unnest($2::int[]), unnest($3::text[]), unnest($4::int[]), unnest($5::int[]),
                       unnest($6::bigint[]), unnest($7::int[])";
        let new_args = [
            (&ids as _, Type::INT8_ARRAY),
            (&groups as _, Type::INT4_ARRAY),
            (&keys as _, Type::TEXT_ARRAY),
            (&tasks as _, Type::INT4_ARRAY),
            (&tops as _, Type::INT4_ARRAY),
            (&turns as _, Type::INT8_ARRAY),
            (&closed as _, Type::INT4_ARRAY),
        ];
        let (raise_groups, raise_keys) = columns(writes.raised.keys().map(|(lane, _)| lane));
        let raise_tasks: Vec<i32> = writes.raised.keys().map(|(_, task)| *task).collect();
        let to: Vec<i32> = writes.raised.values().copied().collect();
        let raise = format!(
            "UPDATE wharf.lines SET top = raised.top
                     FROM {} AS raised
                     WHERE lines.grp = raised.grp AND lines.key = raised.key AND lines.task = raised.task
                     AND lines.top < raised.top",
            unnested("grp int, key text, task int, top int")
        );
        let raise_args = [
            (&raise_groups as _, Type::INT4_ARRAY),
            (&raise_keys as _, Type::TEXT_ARRAY),
            (&raise_tasks as _, Type::INT4_ARRAY),
            (&to as _, Type::INT4_ARRAY),
        ];
        futures_util::try_join!(
            self.session.ask_if(!ids.is_empty(), new, &new_args),
            self.session.ask_if(!to.is_empty(), &raise, &raise_args),
        )?;
        Ok(())
    }

    async fn settle(&self, writes: &Writes) -> Result<(), SessionError> {
        let (empty, others): (Vec<_>, Vec<_>) = writes.settle.iter().partition(|(_, settle)| settle.is_empty);
        futures_util::try_join!(self.settle_empty(&empty), self.settle_others(&others))?;
        Ok(())
    }

    async fn settle_empty(&self, lines: &[(&i64, &Settle)]) -> Result<(), SessionError> {
        let ids: Vec<i64> = lines.iter().map(|(id, _)| **id).collect();
        let (groups, keys) = columns(lines.iter().map(|(_, settle)| &settle.lane));
        let tasks: Vec<i32> = lines.iter().map(|(_, settle)| settle.task).collect();
        let text = format!(
            "DELETE FROM wharf.lines USING {} AS old
                    WHERE lines.grp = old.grp AND lines.key = old.key AND lines.task = old.task AND lines.id = old.id",
            unnested("id bigint, grp int, key text, task int")
        );
        let args = [
            (&ids as _, Type::INT8_ARRAY),
            (&groups as _, Type::INT4_ARRAY),
            (&keys as _, Type::TEXT_ARRAY),
            (&tasks as _, Type::INT4_ARRAY),
        ];
        self.session.ask_if(!ids.is_empty(), &text, &args).await.map(drop)
    }

    async fn settle_others(&self, lines: &[(&i64, &Settle)]) -> Result<(), SessionError> {
        let ids: Vec<i64> = lines.iter().map(|(id, _)| **id).collect();
        let (groups, keys) = columns(lines.iter().map(|(_, settle)| &settle.lane));
        let tasks: Vec<i32> = lines.iter().map(|(_, settle)| settle.task).collect();
        let text = format!(
            "WITH settled AS MATERIALIZED (
                        SELECT line.*, (SELECT ~rank FROM wharf.queued WHERE queued.line = line.id
                                        ORDER BY rank, due, first LIMIT 1) AS first
                        FROM {} AS line
                    ), gone AS (
                        DELETE FROM wharf.lines USING settled AS old WHERE old.first IS NULL
                        AND lines.grp = old.grp AND lines.key = old.key AND lines.task = old.task AND lines.id = old.id)
                    UPDATE wharf.lines SET top = left_over.first FROM settled AS left_over
                    WHERE lines.grp = left_over.grp AND lines.key = left_over.key AND lines.task = left_over.task
                    AND lines.top <> left_over.first",
            unnested("id bigint, grp int, key text, task int")
        );
        let args = [
            (&ids as _, Type::INT8_ARRAY),
            (&groups as _, Type::INT4_ARRAY),
            (&keys as _, Type::TEXT_ARRAY),
            (&tasks as _, Type::INT4_ARRAY),
        ];
        self.session.ask_if(!ids.is_empty(), &text, &args).await.map(drop)
    }

    async fn reopen(&self, writes: &Writes) -> Result<(), SessionError> {
        let (groups, keys) = columns(&writes.reopen);
        // The lanes are named: the index of those that are closed is not what is meant.
        let text = format!(
            "UPDATE wharf.lines SET closed_by = NULL FROM {} AS freed
                    WHERE lines.grp = freed.grp AND lines.key = freed.key AND closed_by + 0 IS NOT NULL",
            unnested("grp int, key text")
        );
        let args = [(&groups as _, Type::INT4_ARRAY), (&keys as _, Type::TEXT_ARRAY)];
        self.session.ask_if(self.some_closed && !groups.is_empty(), &text, &args).await.map(drop)
    }

    async fn leave(&self, writes: &Writes) -> Result<(), SessionError> {
        let (groups, keys) = columns(writes.left.keys());
        let turns: Vec<i64> = writes.left.values().map(|(turn, _)| *turn).collect();
        let closed: Vec<Option<i32>> = writes.left.values().map(|(_, closed)| *closed).collect();
        let text = format!(
            "UPDATE wharf.lines SET turn = left_as.turn, closed_by = left_as.closed_by
                    FROM {} AS left_as
                    WHERE lines.grp = left_as.grp AND lines.key = left_as.key",
            unnested("grp int, key text, turn bigint, closed_by int")
        );
        let args = [
            (&groups as _, Type::INT4_ARRAY),
            (&keys as _, Type::TEXT_ARRAY),
            (&turns as _, Type::INT8_ARRAY),
            (&closed as _, Type::INT4_ARRAY),
        ];
        self.session.ask_if(!groups.is_empty(), &text, &args).await.map(drop)
    }
}
