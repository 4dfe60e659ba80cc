//! Statements that write the rows of jobs, one for each step that a job takes, and their log entries.

use std::collections::HashSet;

use tokio_postgres::types::Type;
use wharf_core::ids::JobId;
use wharf_core::job::{NewJob, State};
use wharf_core::lease::Lease;
use wharf_core::outcome::{Report, Usage};
use wharf_core::shared_bytes::SharedBytes;

use super::job_row::JobRow;
use super::lane_rows::lane_columns;
use super::session::{Arg, SessionError};
use super::unnest::unnest;
use super::write_set::Flush;
use crate::columns::{self, SUCCEEDED, signed, timestamp_us};

/// The columns of `StatusColumns`, and those of each job's report.
const STATUS_AND_REPORT: &str =
    "id bigint, state smallint, due_at bigint, failures int, crashes int, cancel_requested boolean, finished_at bigint,
    line bigint, fingerprint text, requeued_at bigint, retried_at bigint, report_outcome text, report_text bytea";

/// The columns of an attempt's resource usage.
const USAGE: &str = "queue_wait_us bigint, cpu_us bigint, wall_us bigint, memory_peak_bytes bigint,
    in_bytes bigint, out_bytes bigint";

/// Assignments that add an attempt's resource usage to that of its job, as `Usage::plus` does. Nulls are not measured.
const USAGE_ADDED: &str =
    "queue_wait_us = coalesce(jobs.queue_wait_us + new.queue_wait_us, new.queue_wait_us, jobs.queue_wait_us),
    cpu_us = coalesce(jobs.cpu_us + new.cpu_us, new.cpu_us, jobs.cpu_us),
    wall_us = coalesce(jobs.wall_us + new.wall_us, new.wall_us, jobs.wall_us),
    memory_peak_bytes = greatest(jobs.memory_peak_bytes, new.memory_peak_bytes),
    in_bytes = coalesce(jobs.in_bytes + new.in_bytes, new.in_bytes, jobs.in_bytes),
    out_bytes = coalesce(jobs.out_bytes + new.out_bytes, new.out_bytes, jobs.out_bytes)";

/// The statuses of jobs as columns.
struct StatusColumns {
    ids: Vec<i64>,
    states: Vec<i16>,
    due_ats: Vec<Option<i64>>,
    failures: Vec<i32>,
    crashes: Vec<i32>,
    cancel_requested: Vec<bool>,
    finished_ats: Vec<Option<i64>>,
    lines: Vec<Option<i64>>,
    fingerprints: Vec<Option<String>>,
    requeued_ats: Vec<Option<i64>>,
    retried_ats: Vec<Option<i64>>,
}

impl StatusColumns {
    fn new(jobs: &[(i64, &JobRow)]) -> StatusColumns {
        let due_at = |state| match state {
            State::Waiting { due } => Some(timestamp_us(due)),
            _ => None,
        };
        let statuses = || jobs.iter().map(|(_, job)| job.status);
        StatusColumns {
            ids: jobs.iter().map(|(id, _)| *id).collect(),
            states: jobs.iter().map(|(_, job)| job.state).collect(),
            due_ats: statuses().map(|status| due_at(status.state)).collect(),
            failures: statuses().map(|status| status.failures.number() as i32).collect(),
            crashes: statuses().map(|status| status.crashes as i32).collect(),
            cancel_requested: statuses().map(|status| status.cancel_requested).collect(),
            finished_ats: jobs.iter().map(|(_, job)| job.finished_at.map(timestamp_us)).collect(),
            lines: jobs.iter().map(|(_, job)| job.line).collect(),
            fingerprints: jobs
                .iter()
                .map(|(_, job)| job.fingerprint.map(|fingerprint| fingerprint.to_string()))
                .collect(),
            requeued_ats: jobs.iter().map(|(_, job)| job.requeued_at.map(timestamp_us)).collect(),
            retried_ats: jobs.iter().map(|(_, job)| job.retried_at.map(timestamp_us)).collect(),
        }
    }

    fn args(&self) -> Vec<Arg<'_>> {
        vec![
            (&self.ids, Type::INT8_ARRAY),
            (&self.states, Type::INT2_ARRAY),
            (&self.due_ats, Type::INT8_ARRAY),
            (&self.failures, Type::INT4_ARRAY),
            (&self.crashes, Type::INT4_ARRAY),
            (&self.cancel_requested, Type::BOOL_ARRAY),
            (&self.finished_ats, Type::INT8_ARRAY),
            (&self.lines, Type::INT8_ARRAY),
            (&self.fingerprints, Type::TEXT_ARRAY),
            (&self.requeued_ats, Type::INT8_ARRAY),
            (&self.retried_ats, Type::INT8_ARRAY),
        ]
    }
}

/// The end of an attempt: its report if it has one, its resource usage and its output.
type Ended<'w> = (JobId, Option<&'w Report>, &'w (Option<Usage>, Option<SharedBytes>));

/// Resource usages and outputs as columns.
fn result_columns<'w>(ended: &[Ended<'w>]) -> ([Vec<Option<i64>>; 6], Vec<Option<&'w [u8]>>) {
    let mut usages: [Vec<Option<i64>>; 6] = Default::default();
    for (_, _, (usage, _)) in ended {
        for (column, value) in usages.iter_mut().zip(columns::usage_columns(usage.as_ref())) {
            column.push(value);
        }
    }
    (usages, ended.iter().map(|(_, _, (_, output))| output.as_deref()).collect())
}

/// Inserts new jobs.
pub(super) async fn write_inserted(flush: &Flush<'_>) -> Result<(), SessionError> {
    let jobs = flush.job_rows(flush.writes.inserted.iter().copied());
    if jobs.is_empty() {
        return Ok(());
    }
    let new = || jobs.iter().map(|(_, job)| job.new.as_deref());
    let ids: Vec<i64> = jobs.iter().map(|(id, _)| *id).collect();
    let states: Vec<i16> = jobs.iter().map(|(_, job)| job.state).collect();
    let (groups, keys) = lane_columns(jobs.iter().map(|(_, job)| &job.lane));
    let tasks: Vec<i32> = jobs.iter().map(|(_, job)| job.task).collect();
    let lines: Vec<Option<i64>> = jobs.iter().map(|(_, job)| job.line).collect();
    let priorities: Vec<i32> = jobs.iter().map(|(_, job)| job.priority).collect();
    let due = |job: Option<&NewJob>| job.map_or(flush.now, |job| job.due_at(flush.now));
    let due_ats: Vec<i64> = new().map(|job| timestamp_us(due(job))).collect();
    let finished_ats: Vec<Option<i64>> = jobs.iter().map(|(_, job)| job.finished_at.map(timestamp_us)).collect();
    let tokens: Vec<Option<&[u8]>> =
        new().map(|job| job.and_then(|job| job.token.as_ref()).map(|token| token.as_str().as_bytes())).collect();
    let batch = |job: Option<&NewJob>| job.and_then(|job| job.batch.clone());
    let batches: Vec<Option<i64>> = new().map(|job| batch(job).map(|batch| signed(batch.id.number()))).collect();
    let topics: Vec<Option<String>> =
        new().map(|job| batch(job).map(|batch| batch.topic.as_str().to_owned())).collect();
    let payloads: Vec<&[u8]> = new().map(|job| job.map_or(&[][..], |job| &*job.payload)).collect();
    let lineage = |job: Option<&NewJob>| job.map(|job| job.lineage).unwrap_or_default();
    let parents: Vec<Option<i64>> =
        new().map(|job| lineage(job).parent.map(|parent| signed(parent.number()))).collect();
    let generations: Vec<i32> = new().map(|job| i32::try_from(lineage(job).generation).unwrap_or(i32::MAX)).collect();
    let ticks: Vec<Option<String>> =
        new().map(|job| job.and_then(|job| job.tick.as_ref()).map(ToString::to_string)).collect();
    let now = timestamp_us(flush.now);
    let text = format!(
        "INSERT INTO $schema.jobs (id, state, limit_group, key, task, line, priority, due_at, finished_at, token, batch, topic,
             payload, parent, generation, tick, payload_bytes, enqueued_at)
         SELECT new.*, length(new.payload), $17::bigint FROM {} AS new",
        unnest(
            "id bigint, state smallint, limit_group int, key text, task int, line bigint, priority int, due_at bigint,
             finished_at bigint, token bytea, batch bigint, topic text, payload bytea, parent bigint, generation int,
             tick text"
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
        (&due_ats as _, Type::INT8_ARRAY),
        (&finished_ats as _, Type::INT8_ARRAY),
        (&tokens as _, Type::BYTEA_ARRAY),
        (&batches as _, Type::INT8_ARRAY),
        (&topics as _, Type::TEXT_ARRAY),
        (&payloads as _, Type::BYTEA_ARRAY),
        (&parents as _, Type::INT8_ARRAY),
        (&generations as _, Type::INT4_ARRAY),
        (&ticks as _, Type::TEXT_ARRAY),
        (&now as _, Type::INT8),
    ];
    flush.session.query(&text, &args).await.map(drop)
}

/// Writes the jobs whose status changed without the end of an attempt, and the reports of those that ended so.
pub(super) async fn write_changed(flush: &Flush<'_>) -> Result<(), SessionError> {
    let writes = flush.writes;
    let inserted: HashSet<&JobId> = writes.inserted.iter().collect();
    let attempt_ended = |id: &JobId| writes.ends.get(id).is_some_and(|end| end.attempt.is_some());
    let changed = writes.changed.iter().filter(|id| !inserted.contains(id) || writes.ends.contains_key(id));
    let jobs = flush.job_rows(changed.copied().filter(|id| !attempt_ended(id)));
    if jobs.is_empty() {
        return Ok(());
    }
    let statuses = StatusColumns::new(&jobs);
    let report = |id: &i64| writes.ends.get(&columns::job_id(*id).ok()?)?.report.as_ref();
    let reports = || jobs.iter().map(|(id, _)| report(id));
    let kinds: Vec<Option<&str>> = reports().map(|report| report.map(|report| report.kind.as_str())).collect();
    let texts: Vec<Option<&[u8]>> = reports().map(|report| report.map(|report| report.text.as_bytes())).collect();
    let text = format!(
        "UPDATE $schema.jobs SET state = new.state, due_at = coalesce(new.due_at, jobs.due_at), failures = new.failures,
             crashes = new.crashes, cancel_requested = new.cancel_requested, finished_at = new.finished_at, line = new.line,
             fingerprint = new.fingerprint, requeued_at = coalesce(new.requeued_at, jobs.requeued_at),
             retried_at = coalesce(new.retried_at, jobs.retried_at),
             report_outcome = coalesce(new.report_outcome, jobs.report_outcome),
             report_text = coalesce(new.report_text, jobs.report_text)
         FROM {} AS new
         WHERE jobs.id = new.id",
        unnest(STATUS_AND_REPORT)
    );
    let mut args = statuses.args();
    args.extend([(&kinds as _, Type::TEXT_ARRAY), (&texts as _, Type::BYTEA_ARRAY)]);
    flush.session.query(&text, &args).await.map(drop)
}

/// Writes the priorities that waiting jobs got.
pub(super) async fn write_priorities(flush: &Flush<'_>) -> Result<(), SessionError> {
    let ids: Vec<i64> = flush.writes.priorities.keys().map(|id| signed(id.number())).collect();
    let priorities: Vec<i32> = flush.writes.priorities.values().copied().collect();
    let text = format!(
        "UPDATE $schema.jobs SET priority = new.priority FROM {} AS new WHERE jobs.id = new.id",
        unnest("id bigint, priority int")
    );
    let args = [(&ids as _, Type::INT8_ARRAY), (&priorities as _, Type::INT4_ARRAY)];
    flush.session.query_if(!ids.is_empty(), &text, &args).await.map(drop)
}

/// Writes the jobs whose attempts ended, with the results: the resource usage, the output, and a report on failure.
pub(super) async fn write_ended(flush: &Flush<'_>) -> Result<(), SessionError> {
    let ends = flush.writes.ends.iter();
    let attempts = ends.filter_map(|(id, end)| Some((*id, end.report.as_ref(), end.attempt.as_ref()?)));
    let succeeded = |id: &JobId| flush.jobs.get(id).is_some_and(|job| job.state == SUCCEEDED);
    let (succeeded, others): (Vec<Ended<'_>>, Vec<Ended<'_>>) = attempts.partition(|(id, ..)| succeeded(id));
    futures_util::try_join!(write_succeeded(flush, &succeeded), write_unsuccessful(flush, &others))?;
    Ok(())
}

/// Writes successful ends: the common case, which changes few columns.
async fn write_succeeded(flush: &Flush<'_>, ended: &[Ended<'_>]) -> Result<(), SessionError> {
    if ended.is_empty() {
        return Ok(());
    }
    let ids: Vec<i64> = ended.iter().map(|(id, ..)| signed(id.number())).collect();
    let attempts: Vec<i32> =
        ended.iter().map(|(id, ..)| flush.jobs.get(id).map_or(0, |job| job.status.attempt as i32)).collect();
    let count = ids.len() as i64;
    let (usages, outputs) = result_columns(ended);
    let now = timestamp_us(flush.now);
    // `require_rows` rolls the transaction back if some job is no longer in its attempt.
    let text = format!(
        "WITH written AS (
             UPDATE $schema.jobs SET state = 3, cancel_requested = false, finished_at = $10,
                 {USAGE_ADDED},
                 output = new.output
             FROM {} AS new
             WHERE jobs.id = new.id AND jobs.state = 2 AND jobs.attempt = new.attempt RETURNING 1)
         SELECT $schema.require_rows(count(*), $11) FROM written",
        unnest(&format!("id bigint, {USAGE}, output bytea, attempt int"))
    );
    let mut args: Vec<Arg<'_>> = vec![(&ids, Type::INT8_ARRAY)];
    args.extend(usages.iter().map(|column| (column as _, Type::INT8_ARRAY)));
    args.extend([(&outputs as _, Type::BYTEA_ARRAY), (&attempts as _, Type::INT4_ARRAY)]);
    args.extend([(&now as _, Type::INT8), (&count as _, Type::INT8)]);
    flush.session.query(&text, &args).await.map(drop)
}

async fn write_unsuccessful(flush: &Flush<'_>, ended: &[Ended<'_>]) -> Result<(), SessionError> {
    if ended.is_empty() {
        return Ok(());
    }
    let jobs = flush.job_rows(ended.iter().map(|(id, ..)| *id));
    let statuses = StatusColumns::new(&jobs);
    let kinds: Vec<Option<&str>> = ended.iter().map(|(_, report, _)| report.map(|r| r.kind.as_str())).collect();
    let texts: Vec<Option<&[u8]>> = ended.iter().map(|(_, report, _)| report.map(|r| r.text.as_bytes())).collect();
    let (usages, outputs) = result_columns(ended);
    let text = format!(
        "UPDATE $schema.jobs SET state = new.state, due_at = coalesce(new.due_at, jobs.due_at), failures = new.failures,
             crashes = new.crashes, cancel_requested = new.cancel_requested, finished_at = new.finished_at, line = new.line,
             fingerprint = new.fingerprint, requeued_at = coalesce(new.requeued_at, jobs.requeued_at),
             retried_at = coalesce(new.retried_at, jobs.retried_at),
             report_outcome = coalesce(new.report_outcome, jobs.report_outcome),
             report_text = coalesce(new.report_text, jobs.report_text),
             {USAGE_ADDED},
             output = new.output
         FROM {} AS new
         WHERE jobs.id = new.id",
        unnest(&format!("{STATUS_AND_REPORT}, {USAGE}, output bytea"))
    );
    let mut args = statuses.args();
    args.extend([(&kinds as _, Type::TEXT_ARRAY), (&texts as _, Type::BYTEA_ARRAY)]);
    args.extend(usages.iter().map(|column| (column as _, Type::INT8_ARRAY)));
    args.push((&outputs, Type::BYTEA_ARRAY));
    flush.session.query(&text, &args).await.map(drop)
}

/// Writes the leases of a claim.
pub(super) async fn write_claimed(flush: &Flush<'_>) -> Result<(), SessionError> {
    let leases = || flush.writes.claimed.iter();
    let Some(Lease { node, until, .. }) = leases().next() else { return Ok(()) };
    let ids: Vec<i64> = leases().map(|lease| signed(lease.job.number())).collect();
    let attempts: Vec<i32> = leases().map(|lease| lease.attempt as i32).collect();
    let (node, until, now) = (signed(node.0), timestamp_us(*until), timestamp_us(flush.now));
    let text = format!(
        "UPDATE $schema.jobs SET state = 2, attempt = new.attempt, cancel_requested = false, node = $3,
             lease_expires_at = $4, started_at = $5
         FROM {} AS new WHERE jobs.id = new.id",
        unnest("id bigint, attempt int")
    );
    let args = [
        (&ids as _, Type::INT8_ARRAY),
        (&attempts as _, Type::INT4_ARRAY),
        (&node as _, Type::INT8),
        (&until as _, Type::INT8),
        (&now as _, Type::INT8),
    ];
    flush.session.query(&text, &args).await.map(drop)
}

/// Inserts log entries.
pub(super) async fn write_entries(flush: &Flush<'_>) -> Result<(), SessionError> {
    let entries = &flush.writes.entries;
    let ids: Vec<i64> = entries.iter().map(|(id, ..)| signed(id.number())).collect();
    let numbers: Vec<i64> = entries.iter().map(|(_, number, ..)| *number).collect();
    let attempts: Vec<i32> = entries.iter().map(|(_, _, attempt, _)| *attempt as i32).collect();
    let columns: Vec<_> = entries.iter().map(|(.., entry)| columns::entry_columns(entry)).collect();
    let kinds: Vec<i16> = columns.iter().map(|(kind, ..)| *kind).collect();
    let amounts: Vec<Option<f64>> = columns.iter().map(|(_, amount, _)| *amount).collect();
    let data: Vec<Option<&[u8]>> = columns.iter().map(|(.., data)| *data).collect();
    let now = timestamp_us(flush.now);
    let text = "INSERT INTO $schema.entries (job, number, attempt, kind, amount, data, written_at)
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
    flush.session.query_if(!ids.is_empty(), text, &args).await.map(drop)
}
