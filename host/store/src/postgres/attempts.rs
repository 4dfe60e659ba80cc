//! The attempts of jobs that ended without a result.

use async_trait::async_trait;
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use wharf_core::attempt::{Attempt, AttemptOrigin, EndedAttempt, dropped_attempt};
use wharf_core::fingerprint::Fingerprint;
use wharf_core::ids::JobId;

use super::PostgresStore;
use super::session::{Arg, Session, SessionError, value};
use super::unnest::unnest;
use super::write_set::Flush;
use crate::attempt_columns::AttemptColumns;
use crate::columns::{signed, timestamp_us, usage_columns};
use crate::store::{AttemptStore, StoreError};

/// A job, its attempt, and the fingerprint of an attempt that failed.
pub(super) type EndedWithoutResult = (JobId, Box<EndedAttempt>, Option<Fingerprint>);

/// Adds the attempts that ended without a result to those that their jobs keep, in place of others if these are too many.
pub(super) async fn write_attempts(flush: &Flush<'_>) -> Result<(), SessionError> {
    let attempts = &flush.writes.attempts;
    if attempts.is_empty() {
        return Ok(());
    }
    // In a box, since few transactions have any: the future of every flush would have room for it.
    Box::pin(async { futures_util::try_join!(insert(flush, attempts), delete_dropped(flush, attempts)).map(drop) })
        .await
}

async fn insert(flush: &Flush<'_>, attempts: &[EndedWithoutResult]) -> Result<(), SessionError> {
    let ends = || attempts.iter().map(|(_, end, _)| end);
    let origins = |pick: fn(&AttemptOrigin) -> &str| -> Vec<Option<&str>> {
        ends().map(|end| end.origin.as_deref().map(pick)).collect()
    };
    let jobs: Vec<i64> = attempts.iter().map(|(id, ..)| signed(id.number())).collect();
    let fingerprints: Vec<Option<String>> =
        attempts.iter().map(|(.., fingerprint)| fingerprint.map(|fingerprint| fingerprint.to_string())).collect();
    let numbers: Vec<i32> = ends().map(|end| end.number as i32).collect();
    let nodes: Vec<i64> = ends().map(|end| signed(end.node.0)).collect();
    let (names, versions, digests) = (
        origins(|origin| &origin.node_name),
        origins(|origin| &origin.plugin_version),
        origins(|origin| &origin.digest),
    );
    let outcomes: Vec<&str> = ends().map(|end| end.report.kind.as_str()).collect();
    let reports: Vec<&[u8]> = ends().map(|end| end.report.text.as_bytes()).collect();
    let mut usages: [Vec<Option<i64>>; 6] = Default::default();
    for end in ends() {
        for (column, value) in usages.iter_mut().zip(usage_columns(end.usage.as_ref())) {
            column.push(value);
        }
    }
    let now = timestamp_us(flush.now);
    // A job that ends was claimed in an earlier transaction, which wrote when.
    let text = format!(
        "INSERT INTO $schema.attempts (job, number, node, node_name, plugin_version, digest, outcome, report, fingerprint, queue_wait_us,
             cpu_us, wall_us, memory_peak_bytes, in_bytes, out_bytes, began_at, ended_at)
         SELECT new.*, jobs.started_at, $16::bigint FROM {} AS new JOIN $schema.jobs ON jobs.id = new.job",
        unnest(
            "job bigint, number int, node bigint, node_name text, plugin_version text, digest text, outcome text, report bytea,
             fingerprint text,             queue_wait_us bigint, cpu_us bigint, wall_us bigint, memory_peak_bytes bigint, in_bytes bigint, out_bytes bigint"
        )
    );
    let mut args: Vec<Arg<'_>> = vec![
        (&jobs, Type::INT8_ARRAY),
        (&numbers, Type::INT4_ARRAY),
        (&nodes, Type::INT8_ARRAY),
        (&names, Type::TEXT_ARRAY),
        (&versions, Type::TEXT_ARRAY),
        (&digests, Type::TEXT_ARRAY),
        (&outcomes, Type::TEXT_ARRAY),
        (&reports, Type::BYTEA_ARRAY),
        (&fingerprints, Type::TEXT_ARRAY),
    ];
    args.extend(usages.iter().map(|column| (column as _, Type::INT8_ARRAY)));
    args.push((&now, Type::INT8));
    flush.session.query(&text, &args).await.map(drop)
}

async fn delete_dropped(flush: &Flush<'_>, attempts: &[EndedWithoutResult]) -> Result<(), SessionError> {
    let dropped =
        attempts.iter().filter_map(|(id, end, _)| Some((signed(id.number()), dropped_attempt(end.number)? as i32)));
    let (jobs, numbers): (Vec<i64>, Vec<i32>) = dropped.unzip();
    let text = format!(
        "DELETE FROM $schema.attempts USING {} AS dropped
         WHERE attempts.job = dropped.job AND attempts.number = dropped.number",
        unnest("job bigint, number int")
    );
    let args = [(&jobs as _, Type::INT8_ARRAY), (&numbers as _, Type::INT4_ARRAY)];
    flush.session.query_if(!jobs.is_empty(), &text, &args).await.map(drop)
}

/// Returns the attempts that a job keeps, in ascending order.
pub(super) async fn of_job(session: &Session, id: JobId) -> Result<Vec<Attempt>, SessionError> {
    let text =
        "SELECT number, node, node_name, plugin_version, digest, began_at, ended_at, outcome, report, fingerprint, queue_wait_us,
                    cpu_us, wall_us, memory_peak_bytes, in_bytes, out_bytes
                FROM $schema.attempts WHERE job = $1 ORDER BY number";
    let id = signed(id.number());
    session.query(text, &[(&id, Type::INT8)]).await?.iter().map(attempt).collect()
}

fn attempt(row: &Row) -> Result<Attempt, SessionError> {
    let table = "attempts";
    let mut usage = [None; 6];
    for (column, read) in usage.iter_mut().enumerate() {
        *read = value(row, table, 10 + column)?;
    }
    let columns = AttemptColumns {
        number: value::<i32>(row, table, 0)? as u32,
        node: value(row, table, 1)?,
        node_name: value(row, table, 2)?,
        plugin_version: value(row, table, 3)?,
        digest: value(row, table, 4)?,
        began_at: value(row, table, 5)?,
        ended_at: value(row, table, 6)?,
        outcome: value(row, table, 7)?,
        report: String::from_utf8_lossy(value(row, table, 8)?).into_owned(),
        fingerprint: value(row, table, 9)?,
        usage,
    };
    Ok(columns.attempt()?)
}

#[async_trait]
impl AttemptStore for PostgresStore {
    async fn attempts(&self, id: JobId) -> Result<Vec<Attempt>, StoreError> {
        let session = self.reader().await?;
        let attempts = of_job(&session, id).await;
        self.finish(session, attempts)
    }
}
