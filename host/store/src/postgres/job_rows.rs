//! Steps: the rows of jobs, each written once for every step that its job takes, and what attempts wrote.

use std::collections::HashSet;
use std::sync::Arc;

use tokio_postgres::types::Type;
use wharf_core::ids::JobId;
use wharf_core::job::State;
use wharf_core::lease::Lease;
use wharf_core::outcome::{Bill, Report};

use super::ledger::{JobRow, Ledger, columns};
use super::rows::{self, SUCCEEDED, job_id, micros, signed};
use super::session::{Arg, SessionError};
use super::unnest::unnested;
use super::write_set::Writes;

/// The columns of `Standings`, and of the report of each.
const STANDINGS: &str =
    "id bigint, state smallint, due bigint, failures int, crashes int, asked boolean, finished bigint,
    line bigint, kind text, report bytea";

/// Those of a bill.
const BILL: &str =
    "queue_wait bigint, guest bigint, wall bigint, memory_peak bigint, bytes_in bigint, bytes_out bigint";

/// Where jobs stand, as columns.
struct Standings {
    ids: Vec<i64>,
    states: Vec<i16>,
    dues: Vec<Option<i64>>,
    failures: Vec<i32>,
    crashes: Vec<i32>,
    asked: Vec<bool>,
    finished: Vec<Option<i64>>,
    lines: Vec<Option<i64>>,
}

impl Standings {
    fn of(jobs: &[(i64, &JobRow)]) -> Standings {
        let due = |state| match state {
            State::Waiting { due } => Some(micros(due)),
            _ => None,
        };
        let standings = || jobs.iter().map(|(_, hot)| hot.standing);
        Standings {
            ids: jobs.iter().map(|(id, _)| *id).collect(),
            states: jobs.iter().map(|(_, hot)| hot.state).collect(),
            dues: standings().map(|standing| due(standing.state)).collect(),
            failures: standings().map(|standing| standing.failures as i32).collect(),
            crashes: standings().map(|standing| standing.crashes as i32).collect(),
            asked: standings().map(|standing| standing.cancel_asked).collect(),
            finished: jobs.iter().map(|(_, hot)| hot.finished_at.map(micros)).collect(),
            lines: jobs.iter().map(|(_, hot)| hot.line).collect(),
        }
    }

    fn args(&self) -> Vec<Arg<'_>> {
        vec![
            (&self.ids, Type::INT8_ARRAY),
            (&self.states, Type::INT2_ARRAY),
            (&self.dues, Type::INT8_ARRAY),
            (&self.failures, Type::INT4_ARRAY),
            (&self.crashes, Type::INT4_ARRAY),
            (&self.asked, Type::BOOL_ARRAY),
            (&self.finished, Type::INT8_ARRAY),
            (&self.lines, Type::INT8_ARRAY),
        ]
    }
}

/// The end of an attempt: its report, and what else it leaves.
type Ended<'w> = (JobId, Option<&'w Report>, &'w (Option<Bill>, Option<Arc<[u8]>>));

/// Bills and results, as columns.
fn left<'w>(ended: &[Ended<'w>]) -> ([Vec<Option<i64>>; 6], Vec<Option<&'w [u8]>>) {
    let mut bills: [Vec<Option<i64>>; 6] = Default::default();
    for (_, _, (bill, _)) in ended {
        for (column, value) in bills.iter_mut().zip(rows::bill_columns(bill.as_ref())) {
            column.push(value);
        }
    }
    (bills, ended.iter().map(|(_, _, (_, output))| output.as_deref()).collect())
}

impl Ledger<'_> {
    fn hot(&self, ids: impl Iterator<Item = JobId>) -> Vec<(i64, &JobRow)> {
        ids.filter_map(|id| Some((signed(id.number()), self.jobs.get(&id)?))).collect()
    }

    pub(super) async fn write_inserted(&self, writes: &Writes) -> Result<(), SessionError> {
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
        let dues: Vec<i64> =
            new().map(|job| micros(job.and_then(|job| job.due).map_or(self.now, |due| due.from(self.now)))).collect();
        let finished: Vec<Option<i64>> = jobs.iter().map(|(_, hot)| hot.finished_at.map(micros)).collect();
        let tokens: Vec<Option<&[u8]>> =
            new().map(|job| job.and_then(|job| job.token.as_ref()).map(|token| token.as_str().as_bytes())).collect();
        let batch = |job: Option<&wharf_core::job::NewJob>| job.and_then(|job| job.batch.clone());
        let batches: Vec<Option<i64>> = new().map(|job| batch(job).map(|batch| signed(batch.id.number()))).collect();
        let topics: Vec<Option<String>> =
            new().map(|job| batch(job).map(|batch| batch.topic.as_str().to_owned())).collect();
        let payloads: Vec<&[u8]> = new().map(|job| job.map_or(&[][..], |job| &*job.payload)).collect();
        let now = micros(self.now);
        let text = format!(
            "INSERT INTO wharf.jobs (id, state, grp, key, task, line, priority, due, finished_at, token, batch, topic, payload, bytes, enqueued_at)
             SELECT new.*, length(new.payload), $14::bigint FROM {} AS new",
            unnested(
                "id bigint, state smallint, grp int, key text, task int, line bigint, priority int, due bigint, finished bigint,
                 token bytea, batch bigint, topic text, payload bytea"
            )
        );
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
            (&payloads as _, Type::BYTEA_ARRAY),
            (&now as _, Type::INT8),
        ];
        self.session.ask(&text, &args).await.map(drop)
    }

    /// Jobs that stand otherwise, and what is left on those that ended while no attempt ran.
    pub(super) async fn write_changed(&self, writes: &Writes) -> Result<(), SessionError> {
        let inserted: HashSet<&JobId> = writes.inserted.iter().collect();
        let attempted = |id: &JobId| writes.ends.get(id).is_some_and(|end| end.attempt.is_some());
        let changed = writes.changed.iter().filter(|id| !inserted.contains(id) || writes.ends.contains_key(id));
        let jobs = self.hot(changed.copied().filter(|id| !attempted(id)));
        if jobs.is_empty() {
            return Ok(());
        }
        let standings = Standings::of(&jobs);
        let report = |id: &i64| writes.ends.get(&job_id(*id).ok()?)?.report.as_ref();
        let reports = || jobs.iter().map(|(id, _)| report(id));
        let kinds: Vec<Option<&str>> = reports().map(|report| report.map(|report| report.kind.as_str())).collect();
        let texts: Vec<Option<&[u8]>> = reports().map(|report| report.map(|report| report.text.as_bytes())).collect();
        let text = format!(
            "UPDATE wharf.jobs SET state = new.state, due = coalesce(new.due, jobs.due), failures = new.failures,
                        crashes = new.crashes, cancel_asked = new.asked, finished_at = new.finished, line = new.line,
                        kind = coalesce(new.kind, jobs.kind), report = coalesce(new.report, jobs.report)
                    FROM {} AS new
                    WHERE jobs.id = new.id",
            unnested(STANDINGS)
        );
        let mut args = standings.args();
        args.extend([(&kinds as _, Type::TEXT_ARRAY), (&texts as _, Type::BYTEA_ARRAY)]);
        self.session.ask(&text, &args).await.map(drop)
    }

    /// Jobs of which an attempt ended, with what that left: its bill, its result, its report if it did not return.
    pub(super) async fn write_ended(&self, writes: &Writes) -> Result<(), SessionError> {
        let attempts =
            writes.ends.iter().filter_map(|(id, end)| Some((*id, end.report.as_ref(), end.attempt.as_ref()?)));
        let returned = |id: &JobId| self.jobs.get(id).is_some_and(|hot| hot.state == SUCCEEDED);
        let (returned, others): (Vec<Ended<'_>>, Vec<Ended<'_>>) = attempts.partition(|(id, ..)| returned(id));
        futures_util::try_join!(self.write_returned(&returned), self.write_unreturned(&others))?;
        Ok(())
    }

    /// The common case, of which little changes.
    async fn write_returned(&self, ended: &[Ended<'_>]) -> Result<(), SessionError> {
        if ended.is_empty() {
            return Ok(());
        }
        let ids: Vec<i64> = ended.iter().map(|(id, ..)| signed(id.number())).collect();
        let attempts: Vec<i32> =
            ended.iter().map(|(id, ..)| self.jobs.get(id).map_or(0, |hot| hot.standing.attempt as i32)).collect();
        let count = ids.len() as i64;
        let (bills, outputs) = left(ended);
        let now = micros(self.now);
        // A division by zero undoes the transaction: some job is not with its attempt any more.
        let text = format!(
            "WITH written AS (
                 UPDATE wharf.jobs SET state = 3, cancel_asked = false, finished_at = $10, queue_wait = new.queue_wait,
                     guest = new.guest, wall = new.wall, memory_peak = new.memory_peak, bytes_in = new.bytes_in,
                     bytes_out = new.bytes_out, output = new.output
                 FROM {} AS new
                 WHERE jobs.id = new.id AND jobs.state = 2 AND jobs.attempt = new.attempt RETURNING 1)
             SELECT 1 / (count(*) = $11)::int FROM written",
            unnested(&format!("id bigint, {BILL}, output bytea, attempt int"))
        );
        let mut args: Vec<Arg<'_>> = vec![(&ids, Type::INT8_ARRAY)];
        args.extend(bills.iter().map(|column| (column as _, Type::INT8_ARRAY)));
        args.extend([(&outputs as _, Type::BYTEA_ARRAY), (&attempts as _, Type::INT4_ARRAY)]);
        args.extend([(&now as _, Type::INT8), (&count as _, Type::INT8)]);
        self.session.ask(&text, &args).await.map(drop)
    }

    async fn write_unreturned(&self, ended: &[Ended<'_>]) -> Result<(), SessionError> {
        if ended.is_empty() {
            return Ok(());
        }
        let jobs = self.hot(ended.iter().map(|(id, ..)| *id));
        let standings = Standings::of(&jobs);
        let kinds: Vec<Option<&str>> = ended.iter().map(|(_, report, _)| report.map(|r| r.kind.as_str())).collect();
        let texts: Vec<Option<&[u8]>> = ended.iter().map(|(_, report, _)| report.map(|r| r.text.as_bytes())).collect();
        let (bills, outputs) = left(ended);
        let text = format!(
            "UPDATE wharf.jobs SET state = new.state, due = coalesce(new.due, jobs.due), failures = new.failures,
                        crashes = new.crashes, cancel_asked = new.asked, finished_at = new.finished, line = new.line,
                        kind = coalesce(new.kind, jobs.kind), report = coalesce(new.report, jobs.report),
                        queue_wait = new.queue_wait, guest = new.guest, wall = new.wall, memory_peak = new.memory_peak,
                        bytes_in = new.bytes_in, bytes_out = new.bytes_out, output = new.output
                    FROM {} AS new
                    WHERE jobs.id = new.id",
            unnested(&format!("{STANDINGS}, {BILL}, output bytea"))
        );
        let mut args = standings.args();
        args.extend([(&kinds as _, Type::TEXT_ARRAY), (&texts as _, Type::BYTEA_ARRAY)]);
        args.extend(bills.iter().map(|column| (column as _, Type::INT8_ARRAY)));
        args.push((&outputs, Type::BYTEA_ARRAY));
        self.session.ask(&text, &args).await.map(drop)
    }

    pub(super) async fn write_claimed(&self, writes: &Writes) -> Result<(), SessionError> {
        let leases = || writes.claimed.iter();
        let Some(Lease { node, until, .. }) = leases().next() else { return Ok(()) };
        let ids: Vec<i64> = leases().map(|lease| signed(lease.job.number())).collect();
        let attempts: Vec<i32> = leases().map(|lease| lease.attempt as i32).collect();
        let (node, until, now) = (signed(node.0), micros(*until), micros(self.now));
        let text = format!(
            "UPDATE wharf.jobs SET state = 2, attempt = new.attempt, cancel_asked = false, node = $3,
                        lease_until = $4, started_at = $5
                    FROM {} AS new WHERE jobs.id = new.id",
            unnested("id bigint, attempt int")
        );
        let args = [
            (&ids as _, Type::INT8_ARRAY),
            (&attempts as _, Type::INT4_ARRAY),
            (&node as _, Type::INT8),
            (&until as _, Type::INT8),
            (&now as _, Type::INT8),
        ];
        self.session.ask(&text, &args).await.map(drop)
    }

    pub(super) async fn write_entries(&self, writes: &Writes) -> Result<(), SessionError> {
        let ids: Vec<i64> = writes.entries.iter().map(|(id, ..)| signed(id.number())).collect();
        let numbers: Vec<i64> = writes.entries.iter().map(|(_, number, ..)| *number).collect();
        let attempts: Vec<i32> = writes.entries.iter().map(|(_, _, attempt, _)| *attempt as i32).collect();
        let what: Vec<_> = writes.entries.iter().map(|(.., entry)| rows::entry_columns(entry)).collect();
        let kinds: Vec<i16> = what.iter().map(|(kind, ..)| *kind).collect();
        let amounts: Vec<Option<f64>> = what.iter().map(|(_, amount, _)| *amount).collect();
        let data: Vec<Option<&[u8]>> = what.iter().map(|(.., data)| *data).collect();
        let now = micros(self.now);
        let text = "INSERT INTO wharf.entries (job, number, attempt, kind, amount, data, at)
                    SELECT unnest($1::bigint[]), unnest($2::bigint[]), unnest($3::int[]), unnest($4::smallint[]), unnest($5::float8[]),
                        unnest($6::bytea[]), $7::bigint";
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
}
