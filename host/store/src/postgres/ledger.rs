//! Ledger: one transaction. Reads what it needs at once, lets the rules work on that in memory, writes what came of it at once.
//!
//! It holds the lock of every group that it touches, taken in the order of their numbers, so that transactions wait for
//! each other and never in a circle. Limits are counted under that lock: nobody else starts or ends a job of the group.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use wharf_core::bounds;
use wharf_core::ids::JobId;
use wharf_core::job::{JobStatus, NewJob};
use wharf_core::limits::{LimitTable, Override};
use wharf_core::time::Timestamp;

use super::id_source::Source;
use super::kv::Values;
use super::lane_rows::{LaneRow, Names};
use super::prepared::MARK;
use super::read::override_of;
use super::read_set::Needs;
use super::rows::{self, job_id, micros};
use super::running_rows::{Held, READ_HELD};
use super::schema::{OLDEST_HOST, may_use};
use super::session::{Session, SessionError};
use super::time::{NOW, Time};
use super::write_set::Writes;

/// Where a host stops in the middle, its locks are free again after two seconds. Its own steps take milliseconds, and if it
/// was only slow it begins anew; meanwhile others wait, and lose nothing: leases are prolonged without these locks.
/// Plans go through the indexes whatever the server believes of the tables: they are fuller, or emptier, than when it last looked.
const BEGIN: &str =
    "BEGIN ISOLATION LEVEL READ COMMITTED; SELECT set_config('lock_timeout', '10s', true), set_config('statement_timeout', '60s', true),
    set_config('idle_in_transaction_session_timeout', '2s', true), set_config('enable_seqscan', 'off', true),
    set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true),
    set_config('enable_bitmapscan', 'off', true), set_config('jit', 'off', true),
    set_config('plan_cache_mode', 'force_generic_plan', true)";

/// How many numbers there are from one that is drawn to the next.
const NUMBERS_APART: i64 = 4096;
const NUMBERS: &str = "SELECT nextval('wharf.numbers') FROM generate_series(1, $1)";

/// The groups are left in the transaction, for the statements that are sent together with this one.
const LOCK: &str =
    "SELECT coalesce(array_agg(grp), '{}'), count(lock), set_config('wharf.locked', coalesce(array_agg(grp), '{}')::text, true)
     FROM (SELECT grp, pg_advisory_xact_lock(('wharf.jobs'::regclass::oid::bigint << 32) | grp::bigint) AS lock FROM (
         SELECT DISTINCT grp FROM (
             SELECT grp FROM wharf.jobs WHERE id = ANY($1)
             UNION ALL SELECT unnest($2::int[])
             UNION ALL SELECT grp FROM wharf.places WHERE task = ANY($3)
             UNION ALL SELECT grp FROM (
                 SELECT grp FROM wharf.jobs WHERE delayed AND due <= $4 ORDER BY due, id LIMIT $5) AS delayed
         ) AS touched ORDER BY grp OFFSET 0) AS sorted) AS taken";

const SOME_CLOSED: &str = "SELECT EXISTS (SELECT FROM wharf.lines
     WHERE grp = ANY(current_setting('wharf.locked')::int[]) AND closed_by IS NOT NULL)";

/// The columns of a `JobRow`.
pub(super) const HOT: &str =
    "id, state, due, attempt, failures, crashes, cancel_asked, node, lease_until, grp, key, task, line, priority";

/// The part of a job's row that events change.
#[derive(Clone, Debug)]
pub(super) struct JobRow {
    pub(super) standing: JobStatus,
    /// As it is written: a delayed job that is due stays delayed until a claim makes it ready.
    pub(super) state: i16,
    pub(super) lane: LaneRow,
    pub(super) task: i32,
    pub(super) line: Option<i64>,
    pub(super) priority: i32,
    pub(super) finished_at: Option<Timestamp>,
    /// Not written yet.
    pub(super) new: Option<Box<NewJob>>,
}

impl JobRow {
    pub(super) fn of(row: &Row) -> Result<(JobId, JobRow), SessionError> {
        let id = job_id(row.get("id"))?;
        let lane = LaneRow { group: row.get("grp"), key: row.get("key") };
        let hot = JobRow {
            standing: rows::standing(id, row)?,
            state: row.get("state"),
            lane,
            task: row.get("task"),
            line: row.get("line"),
            priority: row.get("priority"),
            finished_at: None,
            new: None,
        };
        Ok((id, hot))
    }
}

/// A line of a lane that was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct LineRow {
    pub(super) id: i64,
    pub(super) task: i32,
    pub(super) top: i32,
    pub(super) turn: i64,
    pub(super) closed_by: Option<i32>,
}

pub(super) struct Ledger<'t> {
    pub(super) session: &'t Session,
    pub(super) names: &'t mut Names,
    pub(super) now: Timestamp,
    /// Where ids come from, for a job whose own is another's.
    pub(super) source: &'t Source,
    /// The transaction's own name, by which its fate can be asked for when the answer to its commit is lost.
    pub(super) transaction: String,
    /// The groups whose lock is held.
    pub(super) locked: Vec<i32>,
    pub(super) declared: Arc<LimitTable>,
    pub(super) overrides: Vec<Override>,
    pub(super) jobs: HashMap<JobId, JobRow>,
    /// Some of these are remembered, and were not read.
    pub(super) relies: bool,
    /// Jobs that were claimed, as they stand since.
    pub(super) began: Vec<(JobId, JobRow)>,
    pub(super) tokens: HashMap<(Vec<u8>, i32), JobId>,
    pub(super) last_entries: HashMap<JobId, i64>,
    /// The lines of lanes that were read.
    pub(super) lanes: HashMap<LaneRow, Vec<LineRow>>,
    /// Whether any lane of the locked groups is closed: where none is, none is to be opened when attempts end.
    pub(super) some_closed: bool,
    pub(super) numbers: VecDeque<i64>,
    pub(super) held: Held,
    pub(super) writes: Writes,
    pub(super) values: Values,
}

impl<'t> Ledger<'t> {
    /// Begins a transaction: all in one way there and back.
    pub(super) async fn begin(
        session: &'t Session,
        names: &'t mut Names,
        (time, source): (&Time, &'t Source),
        declared: Arc<LimitTable>,
        needs: &Needs,
        remembered: HashMap<JobId, JobRow>,
    ) -> Result<Ledger<'t>, SessionError> {
        let jobs: Vec<i64> = needs.jobs.iter().copied().collect();
        let returning: Vec<i64> = needs.returning.iter().copied().collect();
        let wrote: Vec<i64> = needs.wrote.iter().copied().collect();
        let groups: Vec<i32> = needs.groups.iter().copied().collect();
        let tasks: Vec<i32> = needs.tasks.iter().copied().collect();
        let due = if needs.claims { micros(time.now()) } else { i64::MIN };
        let promoted = i64::from(bounds::PROMOTE_BATCH);
        let (tokens, token_tasks): (Vec<&[u8]>, Vec<i32>) =
            needs.tokens.iter().map(|(token, task)| (token.as_slice(), *task)).unzip();
        let (lane_groups, lane_keys) = columns(&needs.lanes);
        // A new line has a number and perhaps its lane's turn; a claim gives out a turn for each job.
        let numbers = blocks(2 * (needs.lanes.len() + returning.len()) + needs.free as usize);

        let lock_args = [
            (&jobs as _, Type::INT8_ARRAY),
            (&groups as _, Type::INT4_ARRAY),
            (&tasks as _, Type::INT4_ARRAY),
            (&due as _, Type::INT8),
            (&promoted as _, Type::INT8),
        ];
        let moment = format!("SELECT {NOW}, pg_current_xact_id()::text, {MARK}, {OLDEST_HOST}");
        // The groups' locks keep all others off these rows but renewals, and only one who ends a lease minds those.
        let expiring: Vec<i64> = needs.expiring.iter().copied().collect();
        let hold = "SELECT FROM wharf.jobs WHERE id = ANY($1) ORDER BY id FOR UPDATE";
        let hot = format!("SELECT {HOT} FROM wharf.jobs WHERE id = ANY($1)");
        let lines = "SELECT id, grp, key, task, top, turn, closed_by FROM wharf.lines JOIN (
                         SELECT * FROM unnest($1::int[], $2::text[]) AS named (grp, key)
                         UNION SELECT grp, key FROM wharf.jobs WHERE id = ANY($3)) AS lanes USING (grp, key)";
        let known = "SELECT jobs.id, jobs.token, jobs.task FROM unnest($1::bytea[], $2::int[]) AS asked (token, task)
                     JOIN wharf.jobs ON jobs.token IS NOT NULL AND jobs.token = asked.token AND jobs.task = asked.task";
        let last = "SELECT job, coalesce((SELECT max(number) FROM wharf.entries WHERE entries.job = asked.job), 0)
                    FROM unnest($1::bigint[]) AS asked (job)";
        let lines_args = [
            (&lane_groups as _, Type::INT4_ARRAY),
            (&lane_keys as _, Type::TEXT_ARRAY),
            (&returning as _, Type::INT8_ARRAY),
        ];
        let known_args = [(&tokens as _, Type::BYTEA_ARRAY), (&token_tasks as _, Type::INT4_ARRAY)];
        let (jobs_args, wrote_args) = ([(&jobs as _, Type::INT8_ARRAY)], [(&wrote as _, Type::INT8_ARRAY)]);
        let (numbers_args, hold_args) = ([(&numbers as _, Type::INT8)], [(&expiring as _, Type::INT8_ARRAY)]);
        let asked = Instant::now();
        let ((), locked, moment, overrides, _, hot, lines, known, last, numbers, held, closed) = futures_util::try_join!(
            session.run(BEGIN),
            session.ask_one(LOCK, &lock_args),
            session.ask_one(&moment, &[]),
            session.ask("SELECT grp, key, per_key, total FROM wharf.overrides", &[]),
            session.ask_if(!expiring.is_empty(), hold, &hold_args),
            session.ask_if(!jobs.is_empty(), &hot, &jobs_args),
            session.ask_if(!(needs.lanes.is_empty() && returning.is_empty()), lines, &lines_args),
            session.ask_if(!tokens.is_empty(), known, &known_args),
            session.ask_if(!wrote.is_empty(), last, &wrote_args),
            session.ask_if(numbers > 0, NUMBERS, &numbers_args),
            session.ask_if(needs.holders, READ_HELD, &[]),
            session.ask_if(needs.holders, SOME_CLOSED, &[]),
        )?;

        if session.named.as_ref().is_some_and(|named| !named.is_here(moment.get(2))) {
            return Err(SessionError::Unreachable("its session was given to another".to_owned()));
        }
        if !moment.get::<_, Option<i64>>(3).is_none_or(may_use) {
            return Err(SessionError::Damaged(
                "a newer Wharf has changed its tables: start that one here, too".to_owned(),
            ));
        }
        let mut ledger = Ledger {
            session,
            names,
            now: time.heard(rows::stamp(moment.get(0)), asked),
            source,
            transaction: moment.get(1),
            locked: locked.get(0),
            declared,
            overrides: overrides.iter().map(override_of).collect::<Result<_, _>>()?,
            relies: !remembered.is_empty(),
            began: Vec::new(),
            jobs: remembered,
            tokens: HashMap::new(),
            last_entries: HashMap::new(),
            lanes: needs.lanes.iter().map(|lane| (lane.clone(), Vec::new())).collect(),
            some_closed: closed.first().is_none_or(|row| row.get(0)),
            numbers: drawn(&numbers),
            held: Held::of(&held),
            writes: Writes::default(),
            values: Values::default(),
        };
        // What was read is newer than what is remembered.
        for row in &hot {
            let (id, hot) = JobRow::of(row)?;
            ledger.jobs.insert(id, hot);
        }
        for id in &needs.returning {
            if let Some(hot) = ledger.jobs.get(&job_id(*id)?) {
                ledger.lanes.entry(hot.lane.clone()).or_default();
            }
        }
        ledger.keep_lines(&lines);
        for row in &known {
            ledger.tokens.insert((row.get(1), row.get(2)), job_id(row.get(0))?);
        }
        for row in &last {
            ledger.last_entries.insert(job_id(row.get(0))?, row.get(1));
        }
        Ok(ledger)
    }

    fn keep_lines(&mut self, found: &[Row]) {
        for row in found {
            let lane = LaneRow { group: row.get("grp"), key: row.get("key") };
            let line = LineRow {
                id: row.get("id"),
                task: row.get("task"),
                top: row.get("top"),
                turn: row.get("turn"),
                closed_by: row.get("closed_by"),
            };
            self.lanes.entry(lane).or_default().push(line);
        }
    }

    pub(super) fn limits(&self) -> LimitTable {
        self.declared.with_overrides(self.overrides.iter().cloned())
    }

    /// Reads jobs that are not in memory yet.
    pub(super) async fn load(&mut self, ids: &[JobId]) -> Result<(), SessionError> {
        let ids: Vec<i64> =
            ids.iter().filter(|id| !self.jobs.contains_key(id)).map(|id| rows::signed(id.number())).collect();
        if !ids.is_empty() {
            let text = format!("SELECT {HOT} FROM wharf.jobs WHERE id = ANY($1) ORDER BY id FOR UPDATE");
            for row in self.session.ask(&text, &[(&ids, Type::INT8_ARRAY)]).await? {
                let (id, hot) = JobRow::of(&row)?;
                self.jobs.insert(id, hot);
            }
        }
        Ok(())
    }

    /// Reads the lines of lanes that are not in memory yet.
    pub(super) async fn load_lanes(&mut self, lanes: impl Iterator<Item = LaneRow>) -> Result<(), SessionError> {
        let lanes: BTreeSet<LaneRow> = lanes.filter(|lane| !self.lanes.contains_key(lane)).collect();
        if !lanes.is_empty() {
            let (groups, keys) = columns(&lanes);
            let text = "SELECT id, grp, key, task, top, turn, closed_by
                        FROM unnest($1::int[], $2::text[]) AS named (grp, key) JOIN wharf.lines USING (grp, key)";
            let found = self.session.ask(text, &[(&groups, Type::INT4_ARRAY), (&keys, Type::TEXT_ARRAY)]).await?;
            self.lanes.extend(lanes.into_iter().map(|lane| (lane, Vec::new())));
            self.keep_lines(&found);
        }
        Ok(())
    }

    /// Has at least so many numbers at hand.
    pub(super) async fn stock_numbers(&mut self, count: usize) -> Result<(), SessionError> {
        if self.numbers.len() < count {
            let more = blocks(count - self.numbers.len());
            self.numbers.extend(drawn(&self.session.ask(NUMBERS, &[(&more, Type::INT8)]).await?));
        }
        Ok(())
    }

    pub(super) async fn number(&mut self) -> Result<i64, SessionError> {
        self.stock_numbers(1).await?;
        Ok(self.numbers.pop_front().unwrap_or_default())
    }

    /// The line of a job that becomes ready: it is there now, and its top is no lower than the job's priority.
    /// A lane joins at the back of the ring; a line joins its lane as that stands.
    pub(super) async fn join_line(&mut self, lane: &LaneRow, task: i32, priority: i32) -> Result<i64, SessionError> {
        self.load_lanes(std::iter::once(lane.clone())).await?;
        let settling = |line: &LineRow| self.writes.settle.contains_key(&line.id);
        if self.lanes.get(lane).is_some_and(|lines| lines.iter().any(settling)) {
            // Whether the lane still has its place depends on what is left in it.
            self.flush().await?;
            self.load_lanes(std::iter::once(lane.clone())).await?;
        }
        let lines = self.lanes.entry(lane.clone()).or_default();
        if let Some(line) = lines.iter_mut().find(|line| line.task == task) {
            if line.top < priority {
                line.top = priority;
                self.writes.raised.insert((lane.clone(), task), priority);
            }
            return Ok(line.id);
        }
        let beside = lines.first().map(|line| (line.turn, line.closed_by));
        let (turn, closed_by) = match beside {
            Some(beside) => beside,
            None => (self.number().await?, None),
        };
        let line = LineRow { id: self.number().await?, task, top: priority, turn, closed_by };
        self.lanes.entry(lane.clone()).or_default().push(line);
        self.writes.new_lines.push((lane.clone(), line));
        Ok(line.id)
    }
}

/// How often a number is to be drawn for so many.
fn blocks(count: usize) -> i64 {
    (count as i64 + NUMBERS_APART - 1) / NUMBERS_APART
}

fn drawn(rows: &[Row]) -> VecDeque<i64> {
    rows.iter().map(|row| row.get::<_, i64>(0)).flat_map(|first| first..first + NUMBERS_APART).collect()
}

/// Lanes as two columns.
pub(super) fn columns<'l>(lanes: impl IntoIterator<Item = &'l LaneRow>) -> (Vec<i32>, Vec<&'l str>) {
    lanes.into_iter().map(|lane| (lane.group, lane.key.as_str())).unzip()
}
