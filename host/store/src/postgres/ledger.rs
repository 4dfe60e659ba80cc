//! One transaction of the writer. It reads what it needs at once, lets the rules work on that in memory, and writes the changes
//! at once.
//!
//! It locks every limit group that it touches, in the order of their numbers, so transactions wait for each other and never in
//! a circle. Limits are counted under these locks: no other transaction starts or ends a job of the group.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use wharf_core::bounds;
use wharf_core::fingerprint::Fingerprint;
use wharf_core::ids::JobId;
use wharf_core::limits::{LimitTable, Override};
use wharf_core::time::Timestamp;

use super::failures::FailureWrites;
use super::id_source::IdSource;
use super::job_row::{JOB_COLUMNS, JobRow, LineRow, TokenRow};
use super::kv::KvWrites;
use super::lane_rows::{LaneNames, LaneRow, lane_columns};
use super::prepared::SESSION_MARK;
use super::read::read_override;
use super::read_set::ReadSet;
use super::rows::job_id;
use super::running_rows::{READ_RUNNING, RunningRows};
use super::schema::{OLDEST_HOST, may_use};
use super::session::{Session, SessionError, computed, value};
use super::time::{NOW, Time};
use super::waiting_rows::WaitingWrites;
use super::write_set::{Flush, WriteSet};
use super::{attempts, job_updates, line_updates, ready_rows};
use crate::columns::{self, DamagedData, timestamp_us};

/// If a host stops in the middle, its locks are free again after two seconds. Its own steps take milliseconds, and if it was only
/// slow it starts again; meanwhile others wait, and lose nothing: leases are renewed without these locks.
/// Plans use the indexes whatever the server's statistics are: tables are fuller, or emptier, than at their last analysis.
const BEGIN: &str =
    "BEGIN ISOLATION LEVEL READ COMMITTED; SELECT set_config('lock_timeout', '10s', true), set_config('statement_timeout', '60s', true),
    set_config('idle_in_transaction_session_timeout', '2s', true), set_config('enable_seqscan', 'off', true),
    set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true),
    set_config('enable_bitmapscan', 'off', true), set_config('jit', 'off', true),
    set_config('plan_cache_mode', 'force_generic_plan', true)";

/// The increment of the sequence `line_numbers`: each of its values is the first of this many numbers.
const NUMBERS_PER_VALUE: i64 = 4096;
const NUMBERS: &str = "SELECT nextval('$schema.line_numbers') FROM generate_series(1, $1)";

/// Locks limit groups. They are also set as `wharf.locked` in the transaction, for statements that are sent together with this
/// one.
const LOCK: &str = "SELECT coalesce(array_agg(limit_group), '{}'), count(lock),
         set_config('wharf.locked', coalesce(array_agg(limit_group), '{}')::text, true)
     FROM (SELECT limit_group,
               pg_advisory_xact_lock(('$schema.jobs'::regclass::oid::bigint << 32) | limit_group::bigint) AS lock FROM (
         SELECT DISTINCT limit_group FROM (
             SELECT limit_group FROM $schema.jobs WHERE id = ANY($1)
             UNION ALL SELECT unnest($2::int[])
             UNION ALL SELECT limit_group FROM $schema.task_groups WHERE task = ANY($3)
             UNION ALL SELECT limit_group FROM (
                 SELECT limit_group FROM $schema.jobs WHERE delayed AND due_at <= $4 ORDER BY due_at, id LIMIT $5) AS delayed
         ) AS touched ORDER BY limit_group OFFSET 0) AS sorted) AS taken";

const HAS_CLOSED_LANES: &str = "SELECT EXISTS (SELECT FROM $schema.lines
     WHERE limit_group = ANY(current_setting('wharf.locked')::int[]) AND closed_by_limit IS NOT NULL)";

/// A transaction of the writer: the rows that it read, as its operations changed them, and the changes to write.
pub(super) struct PostgresLedger<'t> {
    pub(super) session: &'t Session,
    pub(super) names: &'t mut LaneNames,
    pub(super) now: Timestamp,
    /// Makes a new id for a job whose id belongs to another job.
    pub(super) source: &'t IdSource,
    /// The transaction's id, for querying its status if the response to its commit is lost.
    pub(super) transaction: String,
    /// The locked limit groups.
    pub(super) locked: Vec<i32>,
    pub(super) declared: Arc<LimitTable>,
    pub(super) overrides: Vec<Override>,
    pub(super) jobs: HashMap<JobId, JobRow>,
    /// True if some of `jobs` are from the cache and were not read.
    pub(super) uses_cache: bool,
    /// Jobs that this transaction claims, for the cache.
    pub(super) claimed: Vec<(JobId, JobRow)>,
    pub(super) tokens: HashMap<TokenRow, JobId>,
    pub(super) last_entries: HashMap<JobId, i64>,
    /// The lines of the lanes that were read.
    pub(super) lanes: HashMap<LaneRow, Vec<LineRow>>,
    /// True if a lane of the locked limit groups may be closed. If none is, none has to be opened when attempts end.
    pub(super) has_closed_lanes: bool,
    /// True if there is a hold. If there is none, nothing looks for one.
    pub(super) has_holds: bool,
    /// The number of holds there are; `None` before they are counted.
    pub(super) hold_count: Option<i64>,
    /// The column `held_until_at` for new lanes, of those of `lanes` that are held.
    pub(super) lane_holds: HashMap<LaneRow, i64>,
    /// Unused numbers of `line_numbers`.
    pub(super) numbers: VecDeque<i64>,
    pub(super) running: RunningRows,
    pub(super) writes: WriteSet,
    pub(super) failures: FailureWrites,
    /// Finished jobs that an operator deletes.
    pub(super) deleted: Vec<i64>,
    pub(super) values: KvWrites,
    pub(super) waiting: WaitingWrites,
}

impl<'t> PostgresLedger<'t> {
    /// Starts a transaction, in one round trip.
    pub(super) async fn begin(
        session: &'t Session,
        names: &'t mut LaneNames,
        (time, source): (&Time, &'t IdSource),
        declared: Arc<LimitTable>,
        reads: &ReadSet,
        cached: HashMap<JobId, JobRow>,
    ) -> Result<PostgresLedger<'t>, SessionError> {
        let jobs: Vec<i64> = reads.jobs.iter().copied().collect();
        let returning: Vec<i64> = reads.returning.iter().copied().collect();
        let wrote: Vec<i64> = reads.wrote.iter().copied().collect();
        let groups: Vec<i32> = reads.groups.iter().copied().collect();
        let tasks: Vec<i32> = reads.tasks.iter().copied().collect();
        let due = if reads.has_claims { timestamp_us(time.now()) } else { i64::MIN };
        let promoted_max = i64::from(bounds::PROMOTE_BATCH);
        let tokens: Vec<&[u8]> = reads.tokens.iter().map(|row| row.token.as_slice()).collect();
        let token_tasks: Vec<i32> = reads.tokens.iter().map(|row| row.task).collect();
        let token_keys: Vec<&str> = reads.tokens.iter().map(|row| row.key.as_str()).collect();
        let (lane_groups, lane_keys) = lane_columns(&reads.lanes);
        // A new line needs a number and perhaps a turn for its lane; a claim needs a turn for each job.
        let numbers = sequence_values(2 * (reads.lanes.len() + returning.len()) + reads.free as usize);

        let lock_args = [
            (&jobs as _, Type::INT8_ARRAY),
            (&groups as _, Type::INT4_ARRAY),
            (&tasks as _, Type::INT4_ARRAY),
            (&due as _, Type::INT8),
            (&promoted_max as _, Type::INT8),
        ];
        let moment = format!(
            "SELECT {NOW}, pg_current_xact_id()::text, {SESSION_MARK}, {OLDEST_HOST}, EXISTS (SELECT FROM $schema.holds)"
        );
        // The locks of limit groups keep all others off these rows but renewals, which only matter to the end of a lease, and the
        // deletion of old jobs, which only matters to finished ones.
        let locked_rows: Vec<i64> = reads.locked.iter().copied().collect();
        let lock_rows = "SELECT FROM $schema.jobs WHERE id = ANY($1) ORDER BY id FOR UPDATE";
        let job_rows = format!("SELECT {JOB_COLUMNS} FROM $schema.jobs WHERE id = ANY($1)");
        let lines = "SELECT id, limit_group, key, task, top_priority, turn, closed_by_limit, held_until_at FROM $schema.lines JOIN (
                         SELECT * FROM unnest($1::int[], $2::text[]) AS named (limit_group, key)
                         UNION SELECT limit_group, key FROM $schema.jobs WHERE id = ANY($3)) AS lanes USING (limit_group, key)";
        let by_token = "SELECT jobs.id, jobs.token, jobs.task, jobs.key
                     FROM unnest($1::bytea[], $2::int[], $3::text[]) AS wanted (token, task, key)
                     JOIN $schema.jobs ON jobs.token IS NOT NULL AND jobs.token = wanted.token AND jobs.task = wanted.task
                         AND jobs.key = wanted.key";
        let last_entries =
            "SELECT job, coalesce((SELECT max(number) FROM $schema.entries WHERE entries.job = wanted.job), 0)
             FROM unnest($1::bigint[]) AS wanted (job)";
        let lines_args = [
            (&lane_groups as _, Type::INT4_ARRAY),
            (&lane_keys as _, Type::TEXT_ARRAY),
            (&returning as _, Type::INT8_ARRAY),
        ];
        let by_token_args = [
            (&tokens as _, Type::BYTEA_ARRAY),
            (&token_tasks as _, Type::INT4_ARRAY),
            (&token_keys as _, Type::TEXT_ARRAY),
        ];
        let (jobs_args, wrote_args) = ([(&jobs as _, Type::INT8_ARRAY)], [(&wrote as _, Type::INT8_ARRAY)]);
        let (numbers_args, locked_args) = ([(&numbers as _, Type::INT8)], [(&locked_rows as _, Type::INT8_ARRAY)]);
        let has_lanes = !(reads.lanes.is_empty() && returning.is_empty());
        let sent = Instant::now();
        let ((), locked, moment, overrides, _, job_rows, lines, by_token, last_entries, numbers, running, closed) = futures_util::try_join!(
            session.execute(BEGIN),
            session.query_one(LOCK, &lock_args),
            session.query_one(&moment, &[]),
            session.query("SELECT limit_group, key, per_key, total FROM $schema.overrides", &[]),
            session.query_if(!locked_rows.is_empty(), lock_rows, &locked_args),
            session.query_if(!jobs.is_empty(), &job_rows, &jobs_args),
            session.query_if(has_lanes, lines, &lines_args),
            session.query_if(!tokens.is_empty(), by_token, &by_token_args),
            session.query_if(!wrote.is_empty(), last_entries, &wrote_args),
            session.query_if(numbers > 0, NUMBERS, &numbers_args),
            session.query_if(reads.slot_holders, READ_RUNNING, &[]),
            session.query_if(reads.slot_holders, HAS_CLOSED_LANES, &[]),
        )?;

        let mark: Option<&str> = computed(&moment, 2)?;
        if session.prepared.as_ref().is_some_and(|prepared| !prepared.is_same_session(mark)) {
            return Err(SessionError::Unreachable("a pooler replaced its session".to_owned()));
        }
        if !value::<Option<i64>>(&moment, "version", 3)?.is_none_or(may_use) {
            return Err(SessionError::Damaged(
                "a newer Wharf changed its tables: start that version here, too".to_owned(),
            ));
        }
        let mut ledger = PostgresLedger {
            session,
            names,
            now: time.observe(columns::timestamp(computed(&moment, 0)?), sent),
            source,
            transaction: computed(&moment, 1)?,
            locked: computed(&locked, 0)?,
            declared,
            overrides: overrides.iter().map(read_override).collect::<Result<_, _>>()?,
            uses_cache: !cached.is_empty(),
            claimed: Vec::new(),
            jobs: cached,
            tokens: HashMap::new(),
            last_entries: HashMap::new(),
            lanes: reads.lanes.iter().map(|lane| (lane.clone(), Vec::new())).collect(),
            has_closed_lanes: closed.first().map_or(Ok(true), |row| computed(row, 0))?,
            has_holds: computed(&moment, 4)?,
            hold_count: None,
            lane_holds: HashMap::new(),
            numbers: expand_numbers(&numbers)?,
            running: RunningRows::read(&running)?,
            writes: WriteSet::default(),
            failures: FailureWrites::default(),
            deleted: Vec::new(),
            values: KvWrites::default(),
            waiting: WaitingWrites::default(),
        };
        // Rows that were read are newer than the cache.
        for row in &job_rows {
            let (id, job) = JobRow::read(row)?;
            ledger.jobs.insert(id, job);
        }
        for id in &reads.returning {
            if let Some(job) = ledger.jobs.get(&columns::job_id(*id)?) {
                ledger.lanes.entry(job.lane.clone()).or_default();
            }
        }
        ledger.add_lines(&lines)?;
        let lanes: Vec<LaneRow> = ledger.lanes.keys().cloned().collect();
        ledger.read_lane_holds(&lanes).await?;
        for row in &by_token {
            let token =
                TokenRow { token: value(row, "jobs", 1)?, task: value(row, "jobs", 2)?, key: value(row, "jobs", 3)? };
            ledger.tokens.insert(token, job_id(row, "jobs", 0)?);
        }
        for row in &last_entries {
            ledger.last_entries.insert(columns::job_id(computed(row, 0)?)?, value(row, "entries", 1)?);
        }
        Ok(ledger)
    }

    fn add_lines(&mut self, found: &[Row]) -> Result<(), SessionError> {
        for row in found {
            let (lane, line) = LineRow::read(row)?;
            self.lanes.entry(lane).or_default().push(line);
        }
        Ok(())
    }

    /// Returns the limits in force: the declared ones and the overrides.
    pub(super) fn limits(&self) -> LimitTable {
        self.declared.with_overrides(self.overrides.iter().cloned())
    }

    /// Reads jobs that are not in memory yet.
    pub(super) async fn load(&mut self, ids: &[JobId]) -> Result<(), SessionError> {
        let ids: Vec<i64> =
            ids.iter().filter(|id| !self.jobs.contains_key(id)).map(|id| columns::signed(id.number())).collect();
        if !ids.is_empty() {
            let text = format!("SELECT {JOB_COLUMNS} FROM $schema.jobs WHERE id = ANY($1) ORDER BY id FOR UPDATE");
            for row in self.session.query(&text, &[(&ids, Type::INT8_ARRAY)]).await? {
                let (id, job) = JobRow::read(&row)?;
                self.jobs.insert(id, job);
            }
        }
        Ok(())
    }

    /// Reads the lines of lanes that are not in memory yet.
    pub(super) async fn load_lanes(&mut self, lanes: impl Iterator<Item = LaneRow>) -> Result<(), SessionError> {
        let lanes: BTreeSet<LaneRow> = lanes.filter(|lane| !self.lanes.contains_key(lane)).collect();
        if !lanes.is_empty() {
            let (groups, keys) = lane_columns(&lanes);
            let text = "SELECT id, limit_group, key, task, top_priority, turn, closed_by_limit, held_until_at
                        FROM unnest($1::int[], $2::text[]) AS named (limit_group, key) JOIN $schema.lines USING (limit_group, key)";
            let found = self.session.query(text, &[(&groups, Type::INT4_ARRAY), (&keys, Type::TEXT_ARRAY)]).await?;
            self.read_lane_holds(&lanes).await?;
            self.lanes.extend(lanes.into_iter().map(|lane| (lane, Vec::new())));
            self.add_lines(&found)?;
        }
        Ok(())
    }

    /// Draws numbers until at least `count` are at hand.
    pub(super) async fn reserve_numbers(&mut self, count: usize) -> Result<(), SessionError> {
        if self.numbers.len() < count {
            let values = sequence_values(count - self.numbers.len());
            self.numbers.extend(expand_numbers(&self.session.query(NUMBERS, &[(&values, Type::INT8)]).await?)?);
        }
        Ok(())
    }

    async fn next_number(&mut self) -> Result<i64, SessionError> {
        self.reserve_numbers(1).await?;
        Ok(self.numbers.pop_front().unwrap_or_default())
    }

    /// Returns the line for a job that becomes ready, with a top priority that is no lower than the job's.
    /// A new lane joins at the back of the ring; a new line gets the turn, the limit and the hold of its lane.
    pub(super) async fn join_line(&mut self, lane: &LaneRow, task: i32, priority: i32) -> Result<i64, SessionError> {
        self.load_lanes(std::iter::once(lane.clone())).await?;
        let shrunk = |line: &LineRow| self.writes.shrunk_lines.contains_key(&line.id);
        if self.lanes.get(lane).is_some_and(|lines| lines.iter().any(shrunk)) {
            // The lane only keeps its turn if it has other ready jobs: these are known after the flush.
            self.flush().await?;
            self.load_lanes(std::iter::once(lane.clone())).await?;
        }
        let lines = self.lanes.entry(lane.clone()).or_default();
        if let Some(line) = lines.iter_mut().find(|line| line.task == task) {
            if line.top_priority < priority {
                line.top_priority = priority;
                self.writes.raised.insert((lane.clone(), task), priority);
            }
            return Ok(line.id);
        }
        let sibling = lines.first().map(|line| (line.turn, line.closed_by_limit, line.held_until_at));
        let (turn, closed_by_limit, held_until_at) = match sibling {
            Some(sibling) => sibling,
            None => (self.next_number().await?, None, self.lane_holds.get(lane).copied()),
        };
        let id = self.next_number().await?;
        let line = LineRow { id, task, top_priority: priority, turn, closed_by_limit, held_until_at };
        self.lanes.entry(lane.clone()).or_default().push(line);
        self.writes.new_lines.push((lane.clone(), line));
        Ok(line.id)
    }

    /// Writes the changes so far, in the order in which statements need each other.
    pub(super) async fn flush(&mut self) -> Result<(), SessionError> {
        self.flush_and(async |_| Ok(())).await
    }

    /// Counts the jobs that failed in their groups, before the commit: from here on the groups are locked. Returns the jobs whose
    /// failures are regressions.
    pub(super) async fn count_failures(&mut self) -> Result<Vec<(JobId, Fingerprint)>, SessionError> {
        if self.failures.is_empty() {
            return Ok(Vec::new());
        }
        Box::pin(self.failures.count(self.session, self.now)).await
    }

    /// Writes the remaining changes and commits, in one round trip.
    pub(super) async fn commit(&mut self) -> Result<(), SessionError> {
        let (values, deleted) = (std::mem::take(&mut self.values), std::mem::take(&mut self.deleted));
        let end = async |this: &PostgresLedger<'_>| {
            futures_util::try_join!(
                this.failures.write(this.session, this.now),
                values.write(this.session),
                this.waiting.write(this.session, &this.transaction),
                this.delete_jobs(&deleted),
                this.session.execute("COMMIT"),
            )
            .map(drop)
        };
        self.flush_and(end).await
    }

    /// Writes the changes so far and runs `then`, which may read them, in one round trip.
    pub(super) async fn flush_and<T>(
        &mut self,
        then: impl AsyncFnOnce(&PostgresLedger<'_>) -> Result<T, SessionError>,
    ) -> Result<T, SessionError> {
        let writes = std::mem::take(&mut self.writes);
        if self.running.remove(&writes.released) != writes.released.len() {
            if self.uses_cache {
                return Err(SessionError::StaleCache);
            }
            return Err(
                DamagedData::invalid("running job without a slot", &format!("one of {:?}", writes.released)).into()
            );
        }
        let running = self.running.take_changes();
        let this = &*self;
        let flush = Flush {
            session: this.session,
            now: this.now,
            jobs: &this.jobs,
            has_closed_lanes: this.has_closed_lanes,
            writes: &writes,
        };
        let (.., result) = futures_util::try_join!(
            line_updates::write_joined(&flush),
            job_updates::write_inserted(&flush),
            job_updates::write_changed(&flush),
            job_updates::write_priorities(&flush),
            job_updates::write_ended(&flush),
            attempts::write_attempts(&flush),
            job_updates::write_claimed(&flush),
            running.write(this.session),
            job_updates::write_entries(&flush),
            ready_rows::write_unready(&flush),
            ready_rows::write_taken(&flush),
            ready_rows::write_joined(&flush),
            ready_rows::write_finished(&flush),
            line_updates::write_shrunk(&flush),
            line_updates::write_reopened(&flush),
            line_updates::write_left(&flush),
            then(this),
        )?;
        for id in &writes.inserted {
            self.jobs.get_mut(id).map(|job| job.new.take());
        }
        if !writes.shrunk_lines.is_empty() {
            self.lanes.clear();
        }
        Ok(result)
    }
}

/// Returns how many values of the sequence cover `count` numbers.
fn sequence_values(count: usize) -> i64 {
    (count as i64 + NUMBERS_PER_VALUE - 1) / NUMBERS_PER_VALUE
}

/// Returns the numbers that values of the sequence cover.
fn expand_numbers(rows: &[Row]) -> Result<VecDeque<i64>, SessionError> {
    let mut numbers = VecDeque::new();
    for row in rows {
        let first: i64 = computed(row, 0)?;
        numbers.extend(first..first + NUMBERS_PER_VALUE);
    }
    Ok(numbers)
}
