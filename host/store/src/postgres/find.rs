//! Finding jobs: the server looks at a bounded number of rows at a time, and sends those that may meet the query.

use std::collections::HashSet;

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use wharf_core::bounds;
use wharf_core::find::{DigestPrefix, JobCursor, JobOrder, JobQuery, WaitView};
use wharf_core::hold::HoldScope;
use wharf_core::ids::JobId;
use wharf_core::job::{Job, State};
use wharf_core::key::Lane;
use wharf_core::limits::LimitTable;
use wharf_core::time::Timestamp;

use super::hold_rows;
use super::read::{JOB, JOB_NAMES, has_few_waiting, overrides};
use super::rows::{self, STATUS_COLUMNS};
use super::session::{Arg, Session, SessionError, computed, value};
use super::wait_rows;
use crate::columns::{self, READY, key_text, parse, signed, timestamp, unsigned};
use crate::search::{Offered, Search, listed_at};
use crate::search_source::{Rest, Source, numbers_of, state_numbers};
use crate::store::{FindPage, FindRequest};

/// One moment of the database for the whole search. A server that is slow ends a statement long before it holds up others.
pub(super) const BEGIN: &str =
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = '5s'; SET LOCAL jit = off;
    SET LOCAL max_parallel_workers_per_gather = 0; SET LOCAL idle_in_transaction_session_timeout = '10s';
    SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_hashjoin = off;
    SET LOCAL enable_mergejoin = off";

/// The maximum number of rows that the server looks at for one statement: some tens of milliseconds.
const ROWS_MAX: i64 = 4096;
/// The maximum where each row is on a page of its own.
const SCATTERED_ROWS_MAX: i64 = 1024;
/// The maximum size in bytes of the payloads that the server sends for one statement; one payload may be larger.
const PAYLOAD_BYTES_MAX: i64 = 2 << 20;

/// Finds jobs.
pub(super) async fn find(session: &Session, request: &FindRequest, now: Timestamp) -> Result<FindPage, SessionError> {
    session.execute(BEGIN).await?;
    let found = search(session, request, now).await?;
    session.execute("COMMIT").await?;
    Ok(found)
}

async fn search(session: &Session, request: &FindRequest, now: Timestamp) -> Result<FindPage, SessionError> {
    let needs_view = request.query.needs_wait_view();
    let view = match request.as_of {
        _ if !needs_view => WaitView::default(),
        None => wait_view(session, &request.declared, now).await?,
        Some(as_of) => match wait_rows::view(session, as_of).await? {
            Some(view) => view,
            None => return Ok(FindPage::default()),
        },
    };
    let Some(filter) = RowFilter::new(session, &request.query, now).await? else { return Ok(FindPage::default()) };
    let source = resolved(session, Source::of(request)).await?;
    let mut search = Search::new(request, view);
    let mut held = HashSet::new();
    let mut size = first_size(&source);
    loop {
        let chunk = read(session, &source, search.place(), (request, &filter), size).await?;
        if needs_view {
            add_holds(session, &chunk.candidates, &mut held, &mut search).await?;
        }
        let candidates = chunk.candidates;
        let (back, looked_at, is_over) = if request.query.reads_texts() {
            // Texts take milliseconds: a thread for that looks through them, and the host's other work goes on.
            let looked = tokio::task::spawn_blocking(move || look_through(search, candidates, now)).await;
            looked.map_err(|_| SessionError::Damaged("a search panicked: see the host's log".to_owned()))?
        } else {
            look_through(search, candidates, now)
        };
        search = back;
        if is_over {
            return Ok(search.paused());
        }
        if !chunk.is_cut {
            if let Some((cursor, at)) = chunk.last {
                search.look_at(chunk.rows - looked_at, cursor, at);
            }
            if chunk.is_last {
                return Ok(search.ended());
            }
        }
        if search.is_over() {
            return Ok(search.paused());
        }
        size = next_size(&source, size, chunk.rows, chunk.is_cut);
    }
}

/// Offers the candidates to a search, until the search is over. Returns the search, how many rows it has looked at, and true if it is
/// over.
fn look_through(mut search: Search, candidates: Vec<Found>, now: Timestamp) -> (Search, u64, bool) {
    let (mut looked_at, order) = (0, search.request.order);
    for Found { place, job, digests, is_ready } in candidates {
        if search.is_over() {
            return (search, looked_at, true);
        }
        search.look_at(place - looked_at, JobCursor::behind(&job, order), listed_at(&job, order));
        looked_at = place;
        let is_due = match job.status.state {
            State::Waiting { due } => is_ready || due <= now,
            _ => true,
        };
        if search.offer(Offered { job, digests, is_due }) {
            return (search, looked_at, true);
        }
    }
    (search, looked_at, false)
}

/// A job that may meet the query.
struct Found {
    /// Its place among the rows that were looked at, from 1.
    place: u64,
    job: Job,
    digests: Vec<String>,
    is_ready: bool,
}

/// The rows that one statement looked at.
struct Chunk {
    candidates: Vec<Found>,
    /// Number of rows that were looked at.
    rows: u64,
    /// The place behind them, and when the last one was enqueued or finished.
    last: Option<(JobCursor, Timestamp)>,
    /// True if there are no more rows.
    is_last: bool,
    /// True if more rows may meet the query than were sent: the search goes on behind the last one that was.
    is_cut: bool,
}

/// The conditions of a query on single columns. A job that it rejects does not meet the query.
struct RowFilter<'q> {
    states: Vec<i16>,
    tasks: Option<Vec<i32>>,
    keys: Vec<&'q str>,
    parent: Option<i64>,
    digests: Vec<&'q str>,
    payload: bool,
    /// True if IDs are ahead of the clock; only known if the query has an upper end.
    ids_are_ahead: bool,
}

impl<'q> RowFilter<'q> {
    /// Returns `None` if no job meets the query, since the store has no job of its tasks.
    async fn new(
        session: &Session,
        query: &'q JobQuery,
        now: Timestamp,
    ) -> Result<Option<RowFilter<'q>>, SessionError> {
        let states = state_numbers(query);
        let tasks = task_numbers(session, query).await?;
        if tasks.as_ref().is_some_and(Vec::is_empty) {
            return Ok(None);
        }
        let mut ids_are_ahead = false;
        if query.has_until() {
            let highest = session.query_one("SELECT max(id) FROM $schema.jobs", &[]).await?;
            let highest: Option<i64> = computed(&highest, 0)?;
            ids_are_ahead = highest.is_some_and(|highest| JobId::is_ahead(unsigned(highest), now));
        }
        Ok(Some(RowFilter {
            ids_are_ahead,
            states,
            tasks,
            keys: query.keys().iter().map(|key| key_text(key.as_ref())).collect(),
            parent: query.parent().map(|parent| signed(parent.number())),
            digests: query.digests().iter().map(DigestPrefix::as_str).collect(),
            payload: query.needs_payload(),
        }))
    }
}

/// Returns the numbers of the tasks to which a query is limited; `None` if it is not.
async fn task_numbers(session: &Session, query: &JobQuery) -> Result<Option<Vec<i32>>, SessionError> {
    let (tasks, plugins) = query.tasks_and_plugins();
    if tasks.is_empty() && plugins.is_empty() {
        return Ok(None);
    }
    let tasks: Vec<&str> = tasks.iter().map(|task| task.as_str()).collect();
    let plugins: Vec<&str> = plugins.iter().map(|plugin| plugin.as_str()).collect();
    let text = "SELECT id FROM $schema.names WHERE text LIKE '%/%' AND (cardinality($1::text[]) = 0 OR text = ANY($1))
                AND (cardinality($2::text[]) = 0 OR split_part(text, '/', 1) = ANY($2))";
    let found = session.query(text, &[(&tasks, Type::TEXT_ARRAY), (&plugins, Type::TEXT_ARRAY)]).await?;
    Ok(Some(found.iter().map(|row| value(row, "names", 0)).collect::<Result<_, _>>()?))
}

/// Lists the jobs that wait or run, if few wait; otherwise a search looks among all jobs.
async fn resolved(session: &Session, source: Source) -> Result<Source, SessionError> {
    let Source::Unfinished { waiting, running } = source else { return Ok(source) };
    if waiting && !has_few_waiting(session).await? {
        return Ok(Source::All);
    }
    let mut lists = Vec::new();
    if running {
        lists.push("SELECT unnest(ids) FROM $schema.running");
    }
    if waiting {
        lists.push("SELECT unnest(ids) FROM $schema.ready UNION ALL SELECT id FROM $schema.jobs WHERE delayed");
    }
    let found = session.query(&lists.join(" UNION ALL "), &[]).await?;
    Ok(Source::listed(found.iter().map(|row| computed(row, 0)).collect::<Result<_, _>>()?))
}

/// Returns how much the first statement looks at: a number of jobs; of finished ones, a number of lists.
fn first_size(source: &Source) -> i64 {
    if matches!(source, Source::Finished) { 64 } else { i64::from(bounds::FIND_BATCH) }
}

/// Returns how much the next statement looks at: about as much as is sent, and not too much at once.
fn next_size(source: &Source, size: i64, rows: u64, is_cut: bool) -> i64 {
    let max = if matches!(source, Source::All) { ROWS_MAX } else { SCATTERED_ROWS_MAX };
    let is_large = rows > max as u64;
    if is_cut || is_large { (size / 2).max(first_size(source)) } else { (size * 2).min(max) }
}

/// Reads the rows behind a place, and the jobs of those that the filter admits.
async fn read(
    session: &Session,
    source: &Source,
    place: Option<JobCursor>,
    (request, filter): (&FindRequest, &RowFilter<'_>),
    size: i64,
) -> Result<Chunk, SessionError> {
    let rest = Rest::behind(place, &request.query, filter.ids_are_ahead);
    let (at, at_id) = rest.ended_before;
    let ids: Vec<i64> = match source {
        Source::Listed(all) => rest.of(all).take(size as usize).collect(),
        _ => Vec::new(),
    };
    let batch = if let Source::Batch(batch) = source { signed(batch.number()) } else { 0 };
    let fingerprints: Vec<String> = match source {
        Source::Fingerprints(fingerprints) => fingerprints.iter().map(ToString::to_string).collect(),
        _ => Vec::new(),
    };
    let (bytes_max, jobs_max) = (PAYLOAD_BYTES_MAX, i64::from(bounds::PAGE_MAX) + 1);
    let args: [Arg<'_>; 17] = [
        (&size, Type::INT8),
        (&rest.below, Type::INT8),
        (&rest.lowest, Type::INT8),
        (&at, Type::INT8),
        (&at_id, Type::INT8),
        (&rest.ended_since, Type::INT8),
        (&ids, Type::INT8_ARRAY),
        (&batch, Type::INT8),
        (&filter.states, Type::INT2_ARRAY),
        (&filter.tasks, Type::INT4_ARRAY),
        (&filter.keys, Type::TEXT_ARRAY),
        (&filter.parent, Type::INT8),
        (&filter.payload, Type::BOOL),
        (&bytes_max, Type::INT8),
        (&jobs_max, Type::INT8),
        (&filter.digests, Type::TEXT_ARRAY),
        (&fingerprints, Type::TEXT_ARRAY),
    ];
    Chunk::read(&session.query(&text(source), &args).await?, request)
}

/// The columns that are read of each row that is looked at.
const LIGHT: &str = "id, state, task, key, parent, payload_bytes";

/// Returns the statement that reads the rows of a source.
fn text(source: &Source) -> String {
    let by_id = format!("SELECT {LIGHT}, enqueued_at AS at FROM $schema.jobs WHERE id < $2 AND id >= $3");
    let rows = match source {
        // Some lists name a job that was tried again since, and two may name one that ended twice at one moment.
        Source::Finished => format!(
            "SELECT DISTINCT {LIGHT}, at FROM lists CROSS JOIN LATERAL unnest(ids) AS each (job)
             CROSS JOIN LATERAL (SELECT {LIGHT}, jobs.finished_at AS at FROM $schema.jobs
                 WHERE jobs.id = each.job AND jobs.finished_at = lists.finished_at OFFSET 0) AS job
             WHERE (at, id) < ($4, $5)"
        ),
        Source::All | Source::Unfinished { .. } => format!("{by_id} ORDER BY id DESC LIMIT $1"),
        Source::Unsuccessful(states) => {
            let of_state = |state: &i16| format!("({by_id} AND unsuccessful = {state} ORDER BY id DESC LIMIT $1)");
            let states: Vec<String> = states.iter().flat_map(|state| numbers_of(*state)).map(of_state).collect();
            format!("SELECT * FROM ({}) AS each ORDER BY id DESC LIMIT $1", states.join(" UNION ALL "))
        }
        Source::Fingerprints(_) => format!(
            "SELECT each.* FROM (SELECT DISTINCT unnest($17::text[]) COLLATE \"C\" AS fingerprint) AS wanted
             CROSS JOIN LATERAL ({by_id} AND jobs.fingerprint IS NOT NULL AND jobs.fingerprint = wanted.fingerprint
                 ORDER BY id DESC LIMIT $1) AS each ORDER BY id DESC LIMIT $1"
        ),
        Source::Batch(_) => {
            format!("SELECT * FROM ({by_id} AND batch = $8 OFFSET 0) AS of_batch ORDER BY id DESC LIMIT $1")
        }
        Source::Listed(_) => format!("{by_id} AND id = ANY($7)"),
    };
    let lists = "lists AS MATERIALIZED (SELECT finished_at, ids FROM $schema.finished
             WHERE finished_at <= $4 AND finished_at >= $6 ORDER BY finished_at DESC FETCH FIRST $1 ROWS WITH TIES),";
    let last_of_rows = "(array_agg(id ORDER BY place DESC))[1], (array_agg(at ORDER BY place DESC))[1]";
    let (lists, order, is_last, last) = match source {
        // All jobs of the earliest moment are among them.
        Source::Finished => (
            lists,
            "at DESC, id DESC",
            "(SELECT count(*) FROM lists) < $1",
            "(SELECT 1::bigint FROM lists LIMIT 1), (SELECT min(finished_at) FROM lists)",
        ),
        Source::Listed(_) => ("", "id DESC", "cardinality($7) < $1", last_of_rows),
        _ => ("", "id DESC", "count(*) < $1", last_of_rows),
    };
    format!(
        "WITH {lists} looked AS MATERIALIZED (
             SELECT row_number() OVER (ORDER BY {order}) AS place, * FROM ({rows}) AS rows
         ), fit AS MATERIALIZED (
             SELECT place, id, (sum(bytes) OVER (ORDER BY place) - bytes)::bigint AS bytes_before
             FROM (SELECT *, CASE WHEN $13 THEN payload_bytes ELSE 0 END AS bytes FROM looked) AS measured
             WHERE state = ANY($9) AND ($10 IS NULL OR task = ANY($10)) AND (cardinality($11) = 0 OR key = ANY($11))
                 AND ($12 IS NULL OR parent = $12)
                 AND (cardinality($16) = 0 OR EXISTS (SELECT FROM $schema.attempts, unnest($16) AS wanted (digest)
                     WHERE attempts.job = measured.id AND starts_with(attempts.digest, wanted.digest)))
         ), chosen AS MATERIALIZED (
             SELECT place, id FROM fit WHERE bytes_before <= $14 ORDER BY place LIMIT $15
         )
         SELECT {STATUS_COLUMNS}, looked_at.*, chosen.place, {JOB}, CASE WHEN $13 THEN payload END AS payload,
             CASE WHEN cardinality($16) > 0 THEN ARRAY(SELECT attempts.digest FROM $schema.attempts
                 WHERE attempts.job = chosen.id AND attempts.digest IS NOT NULL) END AS digests,
             NULL::bytea AS output
         FROM (SELECT count(*), {is_last}, {last}, (SELECT count(*) FROM fit) FROM looked)
             AS looked_at (rows_looked_at, is_last, last_id, last_at, fitting)
         LEFT JOIN (chosen JOIN $schema.jobs ON jobs.id = chosen.id {JOB_NAMES}) ON true
         ORDER BY chosen.place"
    )
}

impl Chunk {
    fn read(found: &[Row], request: &FindRequest) -> Result<Chunk, SessionError> {
        let first = found.first().ok_or_else(|| SessionError::Damaged("a search returned no row".to_owned()))?;
        let mut candidates = Vec::with_capacity(found.len());
        for row in found {
            if let Some(place) = computed::<Option<i64>>(row, "place")? {
                let is_ready = value::<i16>(row, "jobs", "state")? == READY;
                let digests: Option<Vec<String>> = computed(row, "digests")?;
                let digests = digests.unwrap_or_default();
                candidates.push(Found { place: place as u64, job: rows::job(row)?, digests, is_ready });
            }
        }
        let (last_id, last_at) =
            (computed::<Option<i64>>(first, "last_id")?, computed::<Option<i64>>(first, "last_at")?);
        let last = match (last_id, last_at) {
            (Some(id), Some(at)) => {
                let finished_at = (request.order == JobOrder::Finished).then(|| timestamp(at));
                Some((JobCursor { id: columns::job_id(id)?, finished_at }, timestamp(at)))
            }
            _ => None,
        };
        let fitting = computed::<i64>(first, "fitting")?;
        Ok(Chunk {
            is_cut: fitting > candidates.len() as i64,
            rows: computed::<i64>(first, "rows_looked_at")? as u64,
            is_last: computed(first, "is_last")?,
            candidates,
            last,
        })
    }
}

/// Reads the limits and counts the running jobs, which are few.
pub(super) async fn wait_view(
    session: &Session,
    declared: &LimitTable,
    now: Timestamp,
) -> Result<WaitView, SessionError> {
    let limits = declared.with_overrides(overrides(session).await?);
    let mut view = WaitView { limits, now, ..WaitView::default() };
    let text = "SELECT text, key, count(*) FROM $schema.running
                CROSS JOIN LATERAL unnest(ids, CASE WHEN cardinality(keys) = 1 THEN array_fill(keys[1], ARRAY[cardinality(ids)]) ELSE keys END)
                    AS each (id, key)
                JOIN $schema.names ON names.id = limit_group GROUP BY text, key";
    for row in session.query(text, &[]).await? {
        let lane = Lane {
            group: parse("limit group", value(&row, "names", 0)?)?,
            key: columns::key(value(&row, "running", 1)?)?,
        };
        view.add_running(&lane, computed::<i64>(&row, 2)? as u32);
    }
    Ok(view)
}

/// Reads the holds on jobs that may meet the query, those of each task and lane once.
async fn add_holds(
    session: &Session,
    candidates: &[Found],
    known: &mut HashSet<HoldScope>,
    search: &mut Search,
) -> Result<(), SessionError> {
    let waiting = candidates.iter().filter(|found| matches!(found.job.status.state, State::Waiting { .. }));
    let scopes = waiting.flat_map(|found| HoldScope::of_job(&found.job.task, &found.job.lane));
    let new: Vec<HoldScope> = scopes.filter(|scope| known.insert(scope.clone())).collect();
    match search.request.as_of {
        _ if new.is_empty() => {}
        None => {
            let holds = hold_rows::of_scopes(session, &new, search.view.now).await?;
            holds.into_iter().for_each(|hold| search.view.holds.set(hold));
        }
        Some(as_of) => {
            let held = wait_rows::holds(session, as_of, &new).await?;
            held.into_iter().for_each(|held| search.view.add(held));
        }
    }
    Ok(())
}
