//! Statements that write the table `lines`.

use tokio_postgres::types::Type;

use super::lane_rows::lane_columns;
use super::session::SessionError;
use super::unnest::unnest;
use super::write_set::{Flush, ShrunkLine};

/// Writes new lines, and raises the top priority of others.
pub(super) async fn write_joined(flush: &Flush<'_>) -> Result<(), SessionError> {
    let writes = flush.writes;
    let (groups, keys) = lane_columns(writes.new_lines.iter().map(|(lane, _)| lane));
    let lines = || writes.new_lines.iter().map(|(_, line)| line);
    let ids: Vec<i64> = lines().map(|line| line.id).collect();
    let tasks: Vec<i32> = lines().map(|line| line.task).collect();
    let tops: Vec<i32> = lines().map(|line| line.top_priority).collect();
    let turns: Vec<i64> = lines().map(|line| line.turn).collect();
    let closed: Vec<Option<i32>> = lines().map(|line| line.closed_by_limit).collect();
    let held: Vec<Option<i64>> = lines().map(|line| line.held_until_at).collect();
    let insert =
        "INSERT INTO $schema.lines (id, limit_group, key, task, top_priority, turn, closed_by_limit, held_until_at)
                  SELECT unnest($1::bigint[]), unnest($2::int[]), unnest($3::text[]), unnest($4::int[]), unnest($5::int[]),
                      unnest($6::bigint[]), unnest($7::int[]), unnest($8::bigint[])";
    let insert_args = [
        (&ids as _, Type::INT8_ARRAY),
        (&groups as _, Type::INT4_ARRAY),
        (&keys as _, Type::TEXT_ARRAY),
        (&tasks as _, Type::INT4_ARRAY),
        (&tops as _, Type::INT4_ARRAY),
        (&turns as _, Type::INT8_ARRAY),
        (&closed as _, Type::INT4_ARRAY),
        (&held as _, Type::INT8_ARRAY),
    ];
    let (raise_groups, raise_keys) = lane_columns(writes.raised.keys().map(|(lane, _)| lane));
    let raise_tasks: Vec<i32> = writes.raised.keys().map(|(_, task)| *task).collect();
    let raise_to: Vec<i32> = writes.raised.values().copied().collect();
    let raise = format!(
        "UPDATE $schema.lines SET top_priority = raised.top_priority
                 FROM {} AS raised
                 WHERE lines.limit_group = raised.limit_group AND lines.key = raised.key AND lines.task = raised.task
                 AND lines.top_priority < raised.top_priority",
        unnest("limit_group int, key text, task int, top_priority int")
    );
    let raise_args = [
        (&raise_groups as _, Type::INT4_ARRAY),
        (&raise_keys as _, Type::TEXT_ARRAY),
        (&raise_tasks as _, Type::INT4_ARRAY),
        (&raise_to as _, Type::INT4_ARRAY),
    ];
    futures_util::try_join!(
        flush.session.query_if(!ids.is_empty(), insert, &insert_args),
        flush.session.query_if(!raise_to.is_empty(), &raise, &raise_args),
    )?;
    Ok(())
}

/// Deletes empty lines, and lowers the top priority of others that lost jobs.
pub(super) async fn write_shrunk(flush: &Flush<'_>) -> Result<(), SessionError> {
    let (empty, others): (Vec<_>, Vec<_>) = flush.writes.shrunk_lines.iter().partition(|(_, line)| line.is_empty);
    let columns = "id bigint, limit_group int, key text, task int";
    let delete_empty = format!(
        "DELETE FROM $schema.lines USING {} AS old
         WHERE lines.limit_group = old.limit_group AND lines.key = old.key AND lines.task = old.task AND lines.id = old.id",
        unnest(columns)
    );
    let shrink = format!(
        "WITH shrunk AS MATERIALIZED (
             SELECT line.*, (SELECT ~rank FROM $schema.ready WHERE ready.line = line.id
                             ORDER BY rank, due_at, first_id LIMIT 1) AS first_priority
             FROM {} AS line
         ), gone AS (
             DELETE FROM $schema.lines USING shrunk AS old WHERE old.first_priority IS NULL
             AND lines.limit_group = old.limit_group AND lines.key = old.key AND lines.task = old.task AND lines.id = old.id)
         UPDATE $schema.lines SET top_priority = remaining.first_priority FROM shrunk AS remaining
         WHERE lines.limit_group = remaining.limit_group AND lines.key = remaining.key AND lines.task = remaining.task
         AND lines.top_priority <> remaining.first_priority",
        unnest(columns)
    );
    futures_util::try_join!(write_lines(flush, &delete_empty, &empty), write_lines(flush, &shrink, &others))?;
    Ok(())
}

/// Runs a statement on shrunk lines, if there are any.
async fn write_lines(flush: &Flush<'_>, text: &str, lines: &[(&i64, &ShrunkLine)]) -> Result<(), SessionError> {
    let ids: Vec<i64> = lines.iter().map(|(id, _)| **id).collect();
    let (groups, keys) = lane_columns(lines.iter().map(|(_, line)| &line.lane));
    let tasks: Vec<i32> = lines.iter().map(|(_, line)| line.task).collect();
    let args = [
        (&ids as _, Type::INT8_ARRAY),
        (&groups as _, Type::INT4_ARRAY),
        (&keys as _, Type::TEXT_ARRAY),
        (&tasks as _, Type::INT4_ARRAY),
    ];
    flush.session.query_if(!ids.is_empty(), text, &args).await.map(drop)
}

/// Opens lanes that have a free slot again.
pub(super) async fn write_reopened(flush: &Flush<'_>) -> Result<(), SessionError> {
    let (groups, keys) = lane_columns(&flush.writes.reopened);
    // The lanes are known: `+ 0` keeps the server from using the index of closed lanes.
    let text = format!(
        "UPDATE $schema.lines SET closed_by_limit = NULL FROM {} AS freed
         WHERE lines.limit_group = freed.limit_group AND lines.key = freed.key AND closed_by_limit + 0 IS NOT NULL",
        unnest("limit_group int, key text")
    );
    let args = [(&groups as _, Type::INT4_ARRAY), (&keys as _, Type::TEXT_ARRAY)];
    flush.session.query_if(flush.has_closed_lanes && !groups.is_empty(), &text, &args).await.map(drop)
}

/// Writes the turns of lanes after a claim, and the limits that close them.
pub(super) async fn write_left(flush: &Flush<'_>) -> Result<(), SessionError> {
    let lanes = &flush.writes.left_lanes;
    let (groups, keys) = lane_columns(lanes.keys());
    let turns: Vec<i64> = lanes.values().map(|(turn, _)| *turn).collect();
    let closed: Vec<Option<i32>> = lanes.values().map(|(_, closed)| *closed).collect();
    let text = format!(
        "UPDATE $schema.lines SET turn = claimed.turn, closed_by_limit = claimed.closed_by_limit
         FROM {} AS claimed
         WHERE lines.limit_group = claimed.limit_group AND lines.key = claimed.key",
        unnest("limit_group int, key text, turn bigint, closed_by_limit int")
    );
    let args = [
        (&groups as _, Type::INT4_ARRAY),
        (&keys as _, Type::TEXT_ARRAY),
        (&turns as _, Type::INT8_ARRAY),
        (&closed as _, Type::INT4_ARRAY),
    ];
    flush.session.query_if(!groups.is_empty(), &text, &args).await.map(drop)
}
