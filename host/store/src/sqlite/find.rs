//! Finding jobs: rows are looked at by their numbers first, and those that may meet the query are read as a whole.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use rusqlite::{Connection, OptionalExtension, Row, params};
use wharf_core::bounds;
use wharf_core::find::{JobCursor, JobOrder, JobQuery, WaitView};
use wharf_core::hold::HoldScope;
use wharf_core::ids::{JobId, TaskName};
use wharf_core::job::State;
use wharf_core::key::Lane;
use wharf_core::limits::LimitTable;
use wharf_core::time::Timestamp;

use super::hold_rows;
use super::large_values::PAYLOADS;
use super::read::{JOB_COLUMNS, JOB_JOINS, ahead_of_rows, few_waiting, overrides, with_claim};
use super::rows::{self, InternedNames};
use super::unsynced_claims::{self, UnsyncedClaim, UnsyncedClaims};
use super::wait_rows;
use crate::columns::{READY, RUNNING, job_id, key, key_text, signed, timestamp, unsigned};
use crate::search::{Offered, Search};
use crate::search_source::{Rest, Source, numbers_of, state_numbers};
use crate::store::{FindPage, FindRequest};

/// Finds jobs.
pub(super) fn find(
    conn: &Connection,
    claims: &Mutex<UnsyncedClaims>,
    request: &FindRequest,
    now: Timestamp,
) -> rusqlite::Result<FindPage> {
    let claims = unsynced_claims::lock(claims).all();
    let snapshot = conn.unchecked_transaction()?;
    let ahead = ahead_of_rows(&snapshot, claims)?;
    let view = match request.as_of {
        _ if !request.query.needs_wait_view() => WaitView::default(),
        None => wait_view(&snapshot, &ahead, &request.declared, now)?,
        Some(as_of) => match wait_rows::view(&snapshot, as_of)? {
            Some(view) => view,
            None => return Ok(FindPage::default()),
        },
    };
    let Some(filter) = RowFilter::new(&snapshot, &request.query, now)? else { return Ok(FindPage::default()) };
    let source = resolved(&snapshot, Source::of(request), &ahead)?;
    let mut reader = JobReader { conn: &snapshot, ahead: &ahead, held: HashSet::new(), now };
    let mut search = Search::new(request, view);
    loop {
        let rows = rows(&snapshot, &source, search.place(), (&request.query, filter.ids_are_ahead))?;
        let is_last = rows.len() < bounds::FIND_BATCH as usize;
        for row in rows {
            let id = job_id(row.id)?;
            let finished_at = (request.order == JobOrder::Finished).then(|| timestamp(row.at));
            search.look_at(1, JobCursor { id, finished_at }, timestamp(row.at));
            let state = if ahead.contains_key(&id) { RUNNING } else { row.state };
            if !filter.admits(state, &row) {
                continue;
            }
            if let Some(offered) = reader.read(id, &mut search)?
                && search.offer(offered)
            {
                return Ok(search.paused());
            }
            if search.is_over() {
                return Ok(search.paused());
            }
        }
        if is_last {
            return Ok(search.ended());
        }
        if search.is_over() {
            return Ok(search.paused());
        }
    }
}

/// The columns of a job that decide quickly whether it may meet a query.
struct LightRow {
    id: i64,
    state: i16,
    task: i64,
    key: Option<String>,
    /// When it was enqueued or finished, by the order of the list.
    at: i64,
}

impl LightRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<LightRow> {
        Ok(LightRow { id: row.get(0)?, state: row.get(1)?, task: row.get(2)?, key: row.get(3)?, at: row.get(4)? })
    }
}

/// The conditions of a query on single columns. A job that it rejects does not meet the query.
struct RowFilter<'q> {
    states: Vec<i16>,
    tasks: Option<HashSet<i64>>,
    keys: Vec<&'q str>,
    /// True if IDs are ahead of the clock; only known if the query has an upper end.
    ids_are_ahead: bool,
}

impl<'q> RowFilter<'q> {
    /// Returns `None` if no job meets the query, since the store has no job of its tasks.
    fn new(conn: &Connection, query: &'q JobQuery, now: Timestamp) -> rusqlite::Result<Option<RowFilter<'q>>> {
        let states = state_numbers(query);
        let tasks = task_numbers(conn, query)?;
        if tasks.as_ref().is_some_and(HashSet::is_empty) {
            return Ok(None);
        }
        let keys = query.keys().iter().map(|key| key_text(key.as_ref())).collect();
        let ids_are_ahead = query.has_until() && {
            let highest: Option<i64> = conn.query_row("SELECT max(id) FROM jobs", [], |row| row.get(0))?;
            highest.is_some_and(|highest| JobId::is_ahead(unsigned(highest), now))
        };
        Ok(Some(RowFilter { states, tasks, keys, ids_are_ahead }))
    }

    fn admits(&self, state: i16, row: &LightRow) -> bool {
        self.states.contains(&state)
            && self.tasks.as_ref().is_none_or(|tasks| tasks.contains(&row.task))
            && (self.keys.is_empty() || row.key.as_deref().is_some_and(|key| self.keys.contains(&key)))
    }
}

/// Returns the numbers of the tasks to which a query is limited; `None` if it is not.
fn task_numbers(conn: &Connection, query: &JobQuery) -> rusqlite::Result<Option<HashSet<i64>>> {
    let (tasks, plugins) = query.tasks_and_plugins();
    if tasks.is_empty() && plugins.is_empty() {
        return Ok(None);
    }
    let mut named = HashSet::new();
    let mut find = conn.prepare_cached("SELECT id FROM names WHERE text = ?1")?;
    for task in tasks {
        named.extend(find.query_row([task.as_str()], |row| row.get::<_, i64>(0)).optional()?);
    }
    if plugins.is_empty() {
        return Ok(Some(named));
    }
    // The tasks of a plugin are its name, a slash and more: `0` follows the slash.
    let mut of_plugins = HashSet::new();
    let mut find = conn.prepare_cached("SELECT id FROM names WHERE text >= ?1 || '/' AND text < ?1 || '0'")?;
    for plugin in plugins {
        for number in find.query_map([plugin.as_str()], |row| row.get::<_, i64>(0))? {
            of_plugins.insert(number?);
        }
    }
    if !tasks.is_empty() {
        of_plugins.retain(|number| named.contains(number));
    }
    Ok(Some(of_plugins))
}

/// Lists the jobs that wait or run, if few wait; otherwise a search looks among all jobs.
fn resolved(conn: &Connection, source: Source, ahead: &HashMap<JobId, UnsyncedClaim>) -> rusqlite::Result<Source> {
    let Source::Unfinished { waiting, running } = source else { return Ok(source) };
    if waiting && !few_waiting(conn)? {
        return Ok(Source::All);
    }
    let mut ids: Vec<i64> = ahead.keys().map(|id| signed(id.number())).collect();
    let mut add = |sql: &str| -> rusqlite::Result<()> {
        let mut find = conn.prepare_cached(sql)?;
        for id in find.query_map([], |row| row.get(0))? {
            ids.push(id?);
        }
        Ok(())
    };
    if running {
        add("SELECT id FROM jobs INDEXED BY jobs_running WHERE state = 2")?;
    }
    if waiting {
        add("SELECT id FROM ready UNION ALL SELECT id FROM jobs INDEXED BY jobs_delayed WHERE state = 0")?;
    }
    Ok(Source::listed(ids))
}

/// Reads the next rows behind a place, in the order of the list; fewer than `bounds::FIND_BATCH` if there are no more.
fn rows(
    conn: &Connection,
    source: &Source,
    place: Option<JobCursor>,
    (query, ids_are_ahead): (&JobQuery, bool),
) -> rusqlite::Result<Vec<LightRow>> {
    let (rest, max) = (Rest::behind(place, query, ids_are_ahead), bounds::FIND_BATCH);
    let (below, lowest) = (rest.below, rest.lowest);
    // A key is text: it is only read where it decides.
    let key = if query.keys().is_empty() { "NULL" } else { "key" };
    match source {
        Source::Finished => {
            let (at, id) = rest.ended_before;
            let mut find = conn.prepare_cached(&format!(
                "SELECT id, state, task, {key}, finished_at FROM jobs INDEXED BY jobs_finished
                 WHERE state >= 3 AND finished_at <= ?1 AND finished_at >= ?3 AND (finished_at < ?1 OR id < ?2)
                 ORDER BY finished_at DESC, id DESC LIMIT ?4"
            ))?;
            find.query_map(params![at, id, rest.ended_since, max], LightRow::read)?.collect()
        }
        Source::All | Source::Unfinished { .. } => {
            let mut find = conn.prepare_cached(&format!(
                "SELECT id, state, task, {key}, enqueued_at FROM jobs WHERE id < ?1 AND id >= ?2
                 ORDER BY id DESC LIMIT ?3"
            ))?;
            find.query_map(params![below, lowest, max], LightRow::read)?.collect()
        }
        Source::Unsuccessful(states) => {
            let mut parts = Vec::new();
            for state in states.iter().flat_map(|state| numbers_of(*state)) {
                let mut find = conn.prepare_cached(&format!(
                    "SELECT id, state, task, {key}, enqueued_at FROM jobs INDEXED BY jobs_unsuccessful
                     WHERE state = {state} AND state >= 4 AND id < ?1 AND id >= ?2 ORDER BY id DESC LIMIT ?3"
                ))?;
                parts.push(find.query_map(params![below, lowest, max], LightRow::read)?.collect::<Result<_, _>>()?);
            }
            Ok(merged(parts))
        }
        Source::Fingerprints(fingerprints) => {
            let mut parts = Vec::new();
            for fingerprint in fingerprints {
                // `CROSS JOIN`: the index of fingerprints is read first, and each job by its ID.
                let mut find = conn.prepare_cached(&format!(
                    "SELECT id, state, task, {key}, enqueued_at FROM reports INDEXED BY reports_fingerprint
                     CROSS JOIN jobs ON jobs.id = reports.job
                     WHERE reports.fingerprint = ?4 AND reports.fingerprint IS NOT NULL AND job < ?1 AND job >= ?2
                     ORDER BY job DESC LIMIT ?3"
                ))?;
                let args = params![below, lowest, max, fingerprint.to_string()];
                parts.push(find.query_map(args, LightRow::read)?.collect::<Result<_, _>>()?);
            }
            Ok(merged(parts))
        }
        Source::Batch(batch) => {
            let mut find = conn.prepare_cached(&format!(
                "SELECT id, state, task, {key}, enqueued_at FROM jobs INDEXED BY jobs_batch
                 WHERE batch = ?4 AND batch IS NOT NULL AND id < ?1 AND id >= ?2 ORDER BY id DESC LIMIT ?3"
            ))?;
            find.query_map(params![below, lowest, max, signed(batch.number())], LightRow::read)?.collect()
        }
        Source::Listed(ids) => {
            let mut rows = Vec::new();
            let mut find =
                conn.prepare_cached(&format!("SELECT id, state, task, {key}, enqueued_at FROM jobs WHERE id = ?1"))?;
            for id in rest.of(ids) {
                rows.extend(find.query_row([id], LightRow::read).optional()?);
                if rows.len() == max as usize {
                    break;
                }
            }
            Ok(rows)
        }
    }
}

/// Returns the first rows of several lists together, each job once.
fn merged(parts: Vec<Vec<LightRow>>) -> Vec<LightRow> {
    let mut rows: Vec<LightRow> = parts.into_iter().flatten().collect();
    rows.sort_unstable_by_key(|row| std::cmp::Reverse(row.id));
    rows.dedup_by_key(|row| row.id);
    rows.truncate(bounds::FIND_BATCH as usize);
    rows
}

/// Reads jobs that may meet a query.
struct JobReader<'s> {
    conn: &'s Connection,
    ahead: &'s HashMap<JobId, UnsyncedClaim>,
    /// The tasks and lanes whose holds are known.
    held: HashSet<(TaskName, Lane)>,
    now: Timestamp,
}

impl JobReader<'_> {
    /// Reads a job that may meet the query, with what the query needs of it.
    fn read(&mut self, id: JobId, search: &mut Search) -> rusqlite::Result<Option<Offered>> {
        let number = signed(id.number());
        let wanted = search.request.query.digests();
        let digests = if wanted.is_empty() { Vec::new() } else { self.digests(number)? };
        if !wanted.is_empty() && !wanted.iter().any(|wanted| digests.iter().any(|digest| wanted.begins(digest))) {
            return Ok(None);
        }
        let needs_payload = search.request.query.needs_payload();
        let payload = if needs_payload { "jobs.payload" } else { "NULL" };
        let sql = format!(
            "SELECT {JOB_COLUMNS}, {}, {payload} AS payload, NULL AS output, payload_bytes FROM jobs {JOB_JOINS}
             WHERE jobs.id = ?1",
            rows::STATUS
        );
        let read = |row: &Row<'_>| {
            Ok((rows::job(row)?, row.get::<_, i16>("state")? == READY, row.get::<_, i64>("payload_bytes")?))
        };
        let found = self.conn.prepare_cached(&sql)?.query_row([number], read).optional()?;
        let Some((mut job, is_ready, bytes)) = found else { return Ok(None) };
        if needs_payload && job.payload.is_empty() && bytes > 0 {
            job.payload = PAYLOADS.read(self.conn, number, unsigned(bytes))?.unwrap_or_default();
        }
        let job = match self.ahead.get(&id) {
            Some(claim) => with_claim(job, claim),
            None => job,
        };
        let State::Waiting { due } = job.status.state else {
            return Ok(Some(Offered { job, digests, is_due: true }));
        };
        if search.request.query.needs_wait_view() && self.held.insert((job.task.clone(), job.lane.clone())) {
            let scopes = HoldScope::of_job(&job.task, &job.lane);
            match search.request.as_of {
                None => hold_rows::of_scopes(self.conn, &scopes, self.now)?
                    .into_iter()
                    .for_each(|hold| search.view.holds.set(hold)),
                Some(as_of) => {
                    wait_rows::holds(self.conn, as_of, &scopes)?.into_iter().for_each(|held| search.view.add(held))
                }
            }
        }
        Ok(Some(Offered { job, digests, is_due: is_ready || due <= self.now }))
    }

    /// Reads the digests of a job's plugin in its attempts that ended without a result.
    fn digests(&self, job: i64) -> rusqlite::Result<Vec<String>> {
        let mut find = self.conn.prepare_cached("SELECT digest FROM attempts WHERE job = ?1 AND digest IS NOT NULL")?;
        find.query_map([job], |row| row.get(0))?.collect()
    }
}

/// Reads the limits and counts the running jobs, which are few. Holds are read for the lanes that are looked at.
pub(super) fn wait_view(
    conn: &Connection,
    ahead: &HashMap<JobId, UnsyncedClaim>,
    declared: &LimitTable,
    now: Timestamp,
) -> rusqlite::Result<WaitView> {
    let limits = declared.with_overrides(overrides(conn)?);
    let mut view = WaitView { limits, now, ..WaitView::default() };
    ahead.values().for_each(|claim| view.add_running(&claim.lane, 1));
    let mut names = InternedNames::default();
    let mut count = conn.prepare_cached(
        "SELECT limit_group, key, count(*) FROM jobs INDEXED BY jobs_running WHERE state = 2 GROUP BY limit_group, key",
    )?;
    let mut rows = count.query([])?;
    while let Some(row) = rows.next()? {
        let lane = Lane { group: names.group(conn, row.get(0)?)?, key: key(row.get_ref(1)?.as_str()?)? };
        view.add_running(&lane, row.get(2)?);
    }
    Ok(view)
}
