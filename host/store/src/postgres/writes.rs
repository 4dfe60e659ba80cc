//! Writes: what a transaction has decided and not yet written. Written together, a statement for each kind of row.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::types::Type;
use wharf_core::ids::JobId;
use wharf_core::job::{Entry, State};
use wharf_core::lease::Lease;
use wharf_core::outcome::{Bill, Report};

use super::ledger::{Hot, Ledger, LineRow, columns};
use super::names::LaneRow;
use super::rows::{self, micros, signed};
use super::session::Fault;

#[derive(Debug, Default)]
pub(super) struct Writes {
    pub(super) new_lines: Vec<(LaneRow, LineRow)>,
    /// Lines with a higher top.
    pub(super) raised: BTreeMap<i64, i32>,
    /// New jobs, in their order.
    pub(super) inserted: Vec<JobId>,
    /// Jobs that stand otherwise than their rows say.
    pub(super) changed: BTreeSet<JobId>,
    pub(super) claimed: Vec<Lease>,
    pub(super) ends: BTreeMap<JobId, End>,
    pub(super) entries: Vec<(JobId, i64, u32, Entry)>,
    /// Lines of which jobs are ready no more: to go, or to have the top of the first job left.
    pub(super) settle: BTreeSet<i64>,
    /// Lanes that have a slot again.
    pub(super) reopen: BTreeSet<LaneRow>,
    /// Lanes as a claim left them: the turn, and by which limit they are closed.
    pub(super) left: BTreeMap<LaneRow, (i64, Option<i32>)>,
}

/// What is left on a job when an attempt ended, or when it ended without one.
#[derive(Debug, Default)]
pub(super) struct End {
    pub(super) report: Option<Report>,
    /// Of an attempt: takes the place of what an earlier one left.
    pub(super) attempt: Option<(Option<Bill>, Option<Vec<u8>>)>,
}

impl Ledger<'_> {
    /// Writes what was decided, in the order in which statements need each other.
    pub(super) async fn flush(&mut self) -> Result<(), Fault> {
        self.write(false).await
    }

    /// The same, and the end of the transaction with it.
    pub(super) async fn commit(&mut self) -> Result<(), Fault> {
        self.write(true).await
    }

    async fn write(&mut self, commit: bool) -> Result<(), Fault> {
        let writes = std::mem::take(&mut self.writes);
        let this = &*self;
        let commit = async { if commit { this.session.run("COMMIT").await } else { Ok(()) } };
        futures_util::try_join!(
            this.write_lines(&writes),
            this.write_inserted(&writes),
            this.write_payloads(&writes),
            this.write_changed(&writes),
            this.write_claimed(&writes),
            this.write_ends(&writes),
            this.write_reports(&writes),
            this.write_entries(&writes),
            this.settle(&writes),
            this.reopen(&writes),
            this.leave(&writes),
            commit,
        )?;
        for id in &writes.inserted {
            self.jobs.get_mut(id).map(|hot| hot.new.take());
        }
        if !writes.settle.is_empty() {
            self.lanes.clear();
        }
        Ok(())
    }

    async fn write_lines(&self, writes: &Writes) -> Result<(), Fault> {
        let (groups, keys) = columns(writes.new_lines.iter().map(|(lane, _)| lane));
        let lines = || writes.new_lines.iter().map(|(_, line)| line);
        let ids: Vec<i64> = lines().map(|line| line.id).collect();
        let tasks: Vec<i32> = lines().map(|line| line.task).collect();
        let tops: Vec<i32> = lines().map(|line| line.top).collect();
        let turns: Vec<i64> = lines().map(|line| line.turn).collect();
        let closed: Vec<Option<i32>> = lines().map(|line| line.closed_by).collect();
        let new = "INSERT INTO wharf.lines (id, grp, key, task, top, turn, closed_by)
                   SELECT * FROM unnest($1::bigint[], $2::int[], $3::text[], $4::int[], $5::int[], $6::bigint[], $7::int[])";
        let new_args = [
            (&ids as _, Type::INT8_ARRAY),
            (&groups as _, Type::INT4_ARRAY),
            (&keys as _, Type::TEXT_ARRAY),
            (&tasks as _, Type::INT4_ARRAY),
            (&tops as _, Type::INT4_ARRAY),
            (&turns as _, Type::INT8_ARRAY),
            (&closed as _, Type::INT4_ARRAY),
        ];
        let (raised, to): (Vec<i64>, Vec<i32>) = writes.raised.iter().unzip();
        let raise = "UPDATE wharf.lines SET top = raised.top FROM unnest($1::bigint[], $2::int[]) AS raised (id, top)
                     WHERE lines.id = raised.id AND lines.top < raised.top";
        let raise_args = [(&raised as _, Type::INT8_ARRAY), (&to as _, Type::INT4_ARRAY)];
        futures_util::try_join!(
            self.session.ask_if(!ids.is_empty(), new, &new_args),
            self.session.ask_if(!raised.is_empty(), raise, &raise_args),
        )?;
        Ok(())
    }

    fn hot(&self, ids: impl Iterator<Item = JobId>) -> Vec<(i64, &Hot)> {
        ids.filter_map(|id| Some((signed(id.number()), self.jobs.get(&id)?))).collect()
    }

    async fn write_inserted(&self, writes: &Writes) -> Result<(), Fault> {
        let jobs = self.hot(writes.inserted.iter().copied());
        if jobs.is_empty() {
            return Ok(());
        }
        let new = || jobs.iter().map(|(_, hot)| hot.new.as_deref());
        let ids: Vec<i64> = jobs.iter().map(|(id, _)| *id).collect();
        let states: Vec<i16> = jobs.iter().map(|(_, hot)| hot.state).collect();
        let (groups, keys) = columns(jobs.iter().map(|(_, hot)| &hot.lane));
        let tasks: Vec<i32> = jobs.iter().map(|(_, hot)| hot.task).collect();
        let lines: Vec<Option<i64>> = jobs.iter().map(|(_, hot)| hot.line).collect();
        let priorities: Vec<i32> = jobs.iter().map(|(_, hot)| hot.priority).collect();
        let dues: Vec<i64> = new().map(|job| micros(job.and_then(|job| job.due).unwrap_or(self.now))).collect();
        let finished: Vec<Option<i64>> = jobs.iter().map(|(_, hot)| hot.finished_at.map(micros)).collect();
        let tokens: Vec<Option<&[u8]>> =
            new().map(|job| job.and_then(|job| job.token.as_ref()).map(|token| token.as_str().as_bytes())).collect();
        let batch = |job: Option<&wharf_core::job::NewJob>| job.and_then(|job| job.batch.clone());
        let batches: Vec<Option<i64>> = new().map(|job| batch(job).map(|batch| signed(batch.id.number()))).collect();
        let topics: Vec<Option<String>> =
            new().map(|job| batch(job).map(|batch| batch.topic.as_str().to_owned())).collect();
        let bytes: Vec<i64> = new().map(|job| job.map_or(0, |job| job.payload.len() as i64)).collect();
        let now = micros(self.now);
        let text = "INSERT INTO wharf.jobs (id, state, grp, key, task, line, priority, due, finished_at, token, batch, topic, bytes, enqueued_at)
                    SELECT *, $14::bigint FROM unnest($1::bigint[], $2::smallint[], $3::int[], $4::text[], $5::int[],
                        $6::bigint[], $7::int[], $8::bigint[], $9::bigint[], $10::bytea[], $11::bigint[], $12::text[], $13::bigint[])";
        let args = [
            (&ids as _, Type::INT8_ARRAY),
            (&states as _, Type::INT2_ARRAY),
            (&groups as _, Type::INT4_ARRAY),
            (&keys as _, Type::TEXT_ARRAY),
            (&tasks as _, Type::INT4_ARRAY),
            (&lines as _, Type::INT8_ARRAY),
            (&priorities as _, Type::INT4_ARRAY),
            (&dues as _, Type::INT8_ARRAY),
            (&finished as _, Type::INT8_ARRAY),
            (&tokens as _, Type::BYTEA_ARRAY),
            (&batches as _, Type::INT8_ARRAY),
            (&topics as _, Type::TEXT_ARRAY),
            (&bytes as _, Type::INT8_ARRAY),
            (&now as _, Type::INT8),
        ];
        self.session.ask(text, &args).await.map(drop)
    }

    async fn write_payloads(&self, writes: &Writes) -> Result<(), Fault> {
        let jobs = self.hot(writes.inserted.iter().copied());
        let payload = |(id, hot): &(i64, &Hot)| Some((*id, hot.new.as_ref()?.payload.clone()));
        let full: Vec<_> = jobs.iter().filter_map(payload).filter(|(_, payload)| !payload.is_empty()).collect();
        let ids: Vec<i64> = full.iter().map(|(id, _)| *id).collect();
        let payloads: Vec<&[u8]> = full.iter().map(|(_, payload)| &**payload).collect();
        let text = "INSERT INTO wharf.payloads (job, payload) SELECT * FROM unnest($1::bigint[], $2::bytea[])";
        let args = [(&ids as _, Type::INT8_ARRAY), (&payloads as _, Type::BYTEA_ARRAY)];
        self.session.ask_if(!ids.is_empty(), text, &args).await.map(drop)
    }

    async fn write_changed(&self, writes: &Writes) -> Result<(), Fault> {
        let jobs = self.hot(writes.changed.iter().copied().filter(|id| !writes.inserted.contains(id)));
        if jobs.is_empty() {
            return Ok(());
        }
        let standings = || jobs.iter().map(|(_, hot)| hot.standing);
        let ids: Vec<i64> = jobs.iter().map(|(id, _)| *id).collect();
        let states: Vec<i16> = jobs.iter().map(|(_, hot)| hot.state).collect();
        let due = |state| match state {
            State::Waiting { due } => Some(micros(due)),
            _ => None,
        };
        let dues: Vec<Option<i64>> = standings().map(|standing| due(standing.state)).collect();
        let failures: Vec<i32> = standings().map(|standing| standing.failures as i32).collect();
        let crashes: Vec<i32> = standings().map(|standing| standing.crashes as i32).collect();
        let asked: Vec<bool> = standings().map(|standing| standing.cancel_asked).collect();
        let finished: Vec<Option<i64>> = jobs.iter().map(|(_, hot)| hot.finished_at.map(micros)).collect();
        let lines: Vec<Option<i64>> = jobs.iter().map(|(_, hot)| hot.line).collect();
        let text =
            "UPDATE wharf.jobs SET state = new.state, due = coalesce(new.due, jobs.due), failures = new.failures,
                        crashes = new.crashes, cancel_asked = new.asked, finished_at = new.finished, line = new.line
                    FROM unnest($1::bigint[], $2::smallint[], $3::bigint[], $4::int[], $5::int[], $6::boolean[],
                        $7::bigint[], $8::bigint[]) AS new (id, state, due, failures, crashes, asked, finished, line)
                    WHERE jobs.id = new.id";
        let args = [
            (&ids as _, Type::INT8_ARRAY),
            (&states as _, Type::INT2_ARRAY),
            (&dues as _, Type::INT8_ARRAY),
            (&failures as _, Type::INT4_ARRAY),
            (&crashes as _, Type::INT4_ARRAY),
            (&asked as _, Type::BOOL_ARRAY),
            (&finished as _, Type::INT8_ARRAY),
            (&lines as _, Type::INT8_ARRAY),
        ];
        self.session.ask(text, &args).await.map(drop)
    }

    async fn write_claimed(&self, writes: &Writes) -> Result<(), Fault> {
        let ids: Vec<i64> = writes.claimed.iter().map(|lease| signed(lease.job.number())).collect();
        let attempts: Vec<i32> = writes.claimed.iter().map(|lease| lease.attempt as i32).collect();
        let nodes: Vec<i64> = writes.claimed.iter().map(|lease| signed(lease.node.0)).collect();
        let until: Vec<i64> = writes.claimed.iter().map(|lease| micros(lease.until)).collect();
        let now = micros(self.now);
        let text = "UPDATE wharf.jobs SET state = 2, attempt = new.attempt, cancel_asked = false, node = new.node,
                        lease_until = new.until, started_at = $5
                    FROM unnest($1::bigint[], $2::int[], $3::bigint[], $4::bigint[]) AS new (id, attempt, node, until)
                    WHERE jobs.id = new.id";
        let args = [
            (&ids as _, Type::INT8_ARRAY),
            (&attempts as _, Type::INT4_ARRAY),
            (&nodes as _, Type::INT8_ARRAY),
            (&until as _, Type::INT8_ARRAY),
            (&now as _, Type::INT8),
        ];
        self.session.ask_if(!ids.is_empty(), text, &args).await.map(drop)
    }

    /// What ended attempts leave: their bill, their result, and their report if they did not return.
    async fn write_ends(&self, writes: &Writes) -> Result<(), Fault> {
        let ended = writes.ends.iter().filter_map(|(id, end)| Some((id, end.report.as_ref(), end.attempt.as_ref()?)));
        let ended: Vec<_> = ended.collect();
        if ended.is_empty() {
            return Ok(());
        }
        let ids: Vec<i64> = ended.iter().map(|(id, ..)| signed(id.number())).collect();
        let kinds: Vec<Option<&str>> = ended.iter().map(|(_, report, _)| report.map(|r| r.kind.as_str())).collect();
        let texts: Vec<Option<&[u8]>> = ended.iter().map(|(_, report, _)| report.map(|r| r.text.as_bytes())).collect();
        let mut bills: [Vec<Option<i64>>; 6] = Default::default();
        for (_, _, (bill, _)) in &ended {
            for (column, value) in bills.iter_mut().zip(rows::bill_columns(bill.as_ref())) {
                column.push(value);
            }
        }
        let outputs: Vec<Option<&[u8]>> = ended.iter().map(|(_, _, (_, output))| output.as_deref()).collect();
        let text = "INSERT INTO wharf.ends (job, kind, report, queue_wait, guest, wall, memory_peak, bytes_in, bytes_out, output)
                    SELECT * FROM unnest($1::bigint[], $2::text[], $3::bytea[], $4::bigint[], $5::bigint[], $6::bigint[],
                        $7::bigint[], $8::bigint[], $9::bigint[], $10::bytea[])
                    ON CONFLICT (job) DO UPDATE SET
                        kind = coalesce(excluded.kind, ends.kind), report = coalesce(excluded.report, ends.report),
                        queue_wait = excluded.queue_wait, guest = excluded.guest, wall = excluded.wall,
                        memory_peak = excluded.memory_peak, bytes_in = excluded.bytes_in, bytes_out = excluded.bytes_out,
                        output = excluded.output";
        let mut args: Vec<super::session::Arg<'_>> =
            vec![(&ids, Type::INT8_ARRAY), (&kinds, Type::TEXT_ARRAY), (&texts, Type::BYTEA_ARRAY)];
        args.extend(bills.iter().map(|column| (column as _, Type::INT8_ARRAY)));
        args.push((&outputs, Type::BYTEA_ARRAY));
        self.session.ask(text, &args).await.map(drop)
    }

    /// What is left on jobs that ended while no attempt ran.
    async fn write_reports(&self, writes: &Writes) -> Result<(), Fault> {
        let alone = writes.ends.iter().filter(|(_, end)| end.attempt.is_none());
        let alone: Vec<(i64, &Report)> =
            alone.filter_map(|(id, end)| Some((signed(id.number()), end.report.as_ref()?))).collect();
        let ids: Vec<i64> = alone.iter().map(|(id, _)| *id).collect();
        let kinds: Vec<&str> = alone.iter().map(|(_, report)| report.kind.as_str()).collect();
        let texts: Vec<&[u8]> = alone.iter().map(|(_, report)| report.text.as_bytes()).collect();
        let text =
            "INSERT INTO wharf.ends (job, kind, report) SELECT * FROM unnest($1::bigint[], $2::text[], $3::bytea[])
                    ON CONFLICT (job) DO UPDATE SET kind = excluded.kind, report = excluded.report";
        let args = [(&ids as _, Type::INT8_ARRAY), (&kinds as _, Type::TEXT_ARRAY), (&texts as _, Type::BYTEA_ARRAY)];
        self.session.ask_if(!ids.is_empty(), text, &args).await.map(drop)
    }

    async fn write_entries(&self, writes: &Writes) -> Result<(), Fault> {
        let ids: Vec<i64> = writes.entries.iter().map(|(id, ..)| signed(id.number())).collect();
        let numbers: Vec<i64> = writes.entries.iter().map(|(_, number, ..)| *number).collect();
        let attempts: Vec<i32> = writes.entries.iter().map(|(_, _, attempt, _)| *attempt as i32).collect();
        let what: Vec<_> = writes.entries.iter().map(|(.., entry)| rows::entry_columns(entry)).collect();
        let kinds: Vec<i16> = what.iter().map(|(kind, ..)| *kind).collect();
        let amounts: Vec<Option<f64>> = what.iter().map(|(_, amount, _)| *amount).collect();
        let data: Vec<Option<&[u8]>> = what.iter().map(|(.., data)| *data).collect();
        let now = micros(self.now);
        let text = "INSERT INTO wharf.entries (job, number, attempt, kind, amount, data, at)
                    SELECT *, $7::bigint FROM unnest($1::bigint[], $2::bigint[], $3::int[], $4::smallint[], $5::float8[], $6::bytea[])";
        let args = [
            (&ids as _, Type::INT8_ARRAY),
            (&numbers as _, Type::INT8_ARRAY),
            (&attempts as _, Type::INT4_ARRAY),
            (&kinds as _, Type::INT2_ARRAY),
            (&amounts as _, Type::FLOAT8_ARRAY),
            (&data as _, Type::BYTEA_ARRAY),
            (&now as _, Type::INT8),
        ];
        self.session.ask_if(!ids.is_empty(), text, &args).await.map(drop)
    }

    async fn settle(&self, writes: &Writes) -> Result<(), Fault> {
        let lines: Vec<i64> = writes.settle.iter().copied().collect();
        let some = !lines.is_empty();
        let args = [(&lines as _, Type::INT8_ARRAY)];
        let go = "DELETE FROM wharf.lines WHERE id = ANY($1)
                  AND NOT EXISTS (SELECT FROM wharf.jobs WHERE state = 1 AND line = lines.id)";
        let lower = "UPDATE wharf.lines SET top = first.priority FROM unnest($1::bigint[]) AS settled (id)
                     CROSS JOIN LATERAL (SELECT priority FROM wharf.jobs WHERE state = 1 AND line = settled.id
                                         ORDER BY priority DESC, due, id LIMIT 1) AS first
                     WHERE lines.id = settled.id AND lines.top <> first.priority";
        futures_util::try_join!(self.session.ask_if(some, go, &args), self.session.ask_if(some, lower, &args))?;
        Ok(())
    }

    async fn reopen(&self, writes: &Writes) -> Result<(), Fault> {
        let (groups, keys) = columns(&writes.reopen);
        let text = "UPDATE wharf.lines SET closed_by = NULL
                    WHERE closed_by IS NOT NULL AND (grp, key) IN (SELECT * FROM unnest($1::int[], $2::text[]))";
        let args = [(&groups as _, Type::INT4_ARRAY), (&keys as _, Type::TEXT_ARRAY)];
        self.session.ask_if(!groups.is_empty(), text, &args).await.map(drop)
    }

    async fn leave(&self, writes: &Writes) -> Result<(), Fault> {
        let (groups, keys) = columns(writes.left.keys());
        let turns: Vec<i64> = writes.left.values().map(|(turn, _)| *turn).collect();
        let closed: Vec<Option<i32>> = writes.left.values().map(|(_, closed)| *closed).collect();
        let text = "UPDATE wharf.lines SET turn = left_as.turn, closed_by = left_as.closed_by
                    FROM unnest($1::int[], $2::text[], $3::bigint[], $4::int[]) AS left_as (grp, key, turn, closed_by)
                    WHERE lines.grp = left_as.grp AND lines.key = left_as.key";
        let args = [
            (&groups as _, Type::INT4_ARRAY),
            (&keys as _, Type::TEXT_ARRAY),
            (&turns as _, Type::INT8_ARRAY),
            (&closed as _, Type::INT4_ARRAY),
        ];
        self.session.ask_if(!groups.is_empty(), text, &args).await.map(drop)
    }
}
