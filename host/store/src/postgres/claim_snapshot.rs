//! A snapshot of the lines and jobs that a claim may choose from, and the context in which admission chooses in memory.
//!
//! Admission does not know how much was read. If it needs more than that, its choice is dropped, more is read, and it starts
//! again: it has no effect until its choice is written.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use wharf_core::admission::{LaneId, Line, QueueView, Ready};
use wharf_core::ids::{Group, TaskName};
use wharf_core::job::{Batch, JobStatus, State};
use wharf_core::key::Lane;
use wharf_core::retry::FailureCount;
use wharf_core::shared_bytes::SharedBytes;
use wharf_core::tick::JobTick;

use super::job_row::rank;
use super::lane_rows::LaneRow;
use super::ledger::PostgresLedger;
use super::rows;
use super::running_rows::SlotCounts;
use super::session::{SessionError, value};
use crate::columns::{self, parse, signed, timestamp_us};
use crate::store::Claim;

/// Reads the first open lines of each task; all open lines of their lanes with tasks of the claim; and the first jobs of each
/// line. It reads a lane's fair share of the free slots, times `$4` if that was too little.
/// It opens a limited number of rows of `ready` for each line. If there are more, only jobs before the next row, the edge,
/// count. As many rows as wanted jobs are always enough.
/// Columns with `+ 0` are those whose index must not be used here.
const READ: &str = "WITH listed AS MATERIALIZED (
        SELECT line.* FROM unnest($1::int[]) AS named (task) CROSS JOIN LATERAL (
            SELECT id, limit_group, key FROM $schema.lines
            WHERE task = named.task AND closed_by_limit IS NULL AND held_until_at IS NULL AND limit_group + 0 = ANY($2)
            ORDER BY top_priority DESC, turn LIMIT $3) AS line
    ), lanes AS MATERIALIZED (
        SELECT DISTINCT limit_group, key FROM listed
    ), share AS MATERIALIZED (
        SELECT least($3, $4 * (1 + 2 * $3 / greatest(count(*), 1))) AS jobs_max FROM lanes
    ), depth AS MATERIALIZED (
        SELECT jobs_max, CASE WHEN jobs_max <= 32 THEN jobs_max ELSE least(jobs_max, $4 * (16 + jobs_max / 100)) END AS rows_max
        FROM share
    )
    SELECT lines.id AS line, lanes.limit_group, lanes.key, lines.task, top_priority, turn, edge, heads.id, heads.rank,
        heads.due_at, heads.first_id, heads.length, attempt, failures, crashes, batch, topic, payload_bytes, payload,
        generation, tick
    FROM lanes CROSS JOIN LATERAL (
        SELECT id, task, top_priority, turn, CASE WHEN (SELECT rows_max < jobs_max FROM depth) THEN (
                SELECT ARRAY[ready.rank, ready.due_at, ready.first_id] FROM $schema.ready WHERE ready.line = lines.id
                ORDER BY ready.rank, ready.due_at, ready.first_id OFFSET (SELECT rows_max FROM depth) LIMIT 1) END AS edge
        FROM $schema.lines
        WHERE lines.limit_group = lanes.limit_group AND lines.key = lanes.key AND task + 0 = ANY($1) AND closed_by_limit IS NULL
            AND held_until_at IS NULL
        OFFSET 0) AS lines
    LEFT JOIN LATERAL (
        SELECT jobs.id, front.rank, front.due_at, front.first_id, front.length, attempt, failures, crashes, batch, topic,
            payload_bytes, CASE WHEN payload_bytes <= 1024 THEN payload END AS payload, generation, tick
        FROM (
            SELECT nearest.rank, nearest.due_at, nearest.first_id, cardinality(nearest.ids) AS length, each.id FROM (
                SELECT rank, due_at, first_id, ids FROM $schema.ready WHERE ready.line = lines.id
                ORDER BY rank, due_at, first_id LIMIT (SELECT rows_max FROM depth)
            ) AS nearest CROSS JOIN LATERAL unnest(nearest.ids) AS each (id)
            ORDER BY nearest.rank, nearest.due_at, each.id LIMIT (SELECT jobs_max FROM depth)
        ) AS front JOIN $schema.jobs ON jobs.id = front.id) AS heads ON true
    ORDER BY lines.id, heads.rank, heads.due_at, heads.id";

/// Reads the limit groups whose jobs all have tasks of the claim: all lines of their lanes are read.
const READ_WHOLE_GROUPS: &str = "SELECT limit_group FROM $schema.task_groups WHERE limit_group = ANY($2)
    GROUP BY limit_group HAVING bool_and(task = ANY($1))";

/// The lines and jobs that a claim may choose from.
pub(super) struct ClaimSnapshot {
    pub(super) lanes: Vec<SnapshotLane>,
    pub(super) lines: Vec<SnapshotLine>,
    /// The maximum number of lines that were listed for each task.
    lines_max: usize,
    /// The maximum number of jobs that were read for each line.
    jobs_max: usize,
    /// The number of lines that were listed for each task.
    listed: HashMap<TaskName, usize>,
    /// The number of running jobs of each limit group.
    running: HashMap<Group, u32>,
    /// Limit groups for which all lines of a lane are read.
    whole_groups: HashSet<i32>,
}

/// A lane of a snapshot.
pub(super) struct SnapshotLane {
    pub(super) row: LaneRow,
    pub(super) lane: Lane,
    /// The number of its running jobs.
    running: u32,
    /// The indexes of its lines in `ClaimSnapshot::lines`.
    lines: Vec<usize>,
}

/// A line of a snapshot.
pub(super) struct SnapshotLine {
    pub(super) id: i64,
    /// The index of its lane in `ClaimSnapshot::lanes`.
    pub(super) lane: usize,
    pub(super) task: TaskName,
    top_priority: i32,
    turn: i64,
    /// True if it is among the first open lines of its task.
    is_listed: bool,
    /// True if not all of its rows in `ready` were opened.
    is_cut: bool,
    /// Its first jobs, in order.
    pub(super) heads: Vec<Head>,
}

/// A job at the head of a line.
pub(super) struct Head {
    pub(super) ready: Ready,
    pub(super) status: JobStatus,
    pub(super) batch: Option<Batch>,
    pub(super) tick: Option<Box<JobTick>>,
    pub(super) generation: u32,
    /// The first id of the row of `ready` that contains it.
    pub(super) first_id: i64,
    /// The number of jobs in that row.
    pub(super) row_length: usize,
    /// `None` for a large payload, which is read when the job is leased.
    pub(super) payload: Option<SharedBytes>,
}

impl Head {
    /// Reads a row of `READ`; `None` for a line without jobs. Columns are read by position, since finding a dozen columns by
    /// name is a good part of the cost of reading a row.
    fn read(row: &Row) -> Result<Option<Head>, SessionError> {
        let Some(id) = value::<Option<i64>>(row, "jobs", 7)? else { return Ok(None) };
        let priority = !value::<i32>(row, "ready", 8)?;
        let due = columns::timestamp(value(row, "ready", 9)?);
        let ready = Ready { id: columns::job_id(id)?, priority, due, bytes: value::<i64>(row, "jobs", 17)? as u64 };
        let status = JobStatus {
            state: State::Waiting { due },
            attempt: value::<i32>(row, "jobs", 12)? as u32,
            failures: FailureCount::from_number(value::<i32>(row, "jobs", 13)? as u32),
            crashes: value::<i32>(row, "jobs", 14)? as u32,
            cancel_requested: false,
        };
        let batch = if value::<Option<i64>>(row, "jobs", 15)?.is_some() { rows::batch(row)? } else { None };
        let payload = value::<Option<&[u8]>>(row, "jobs", 18)?.map(SharedBytes::from);
        let generation = value::<i32>(row, "jobs", 19)? as u32;
        let tick = columns::tick(value(row, "jobs", 20)?)?;
        let (first_id, row_length) = (value(row, "ready", 10)?, value::<i32>(row, "ready", 11)? as usize);
        Ok(Some(Head { ready, status, batch, tick, generation, first_id, row_length, payload }))
    }

    /// Returns the values by which the jobs of a line are sorted.
    fn sort_key(&self) -> Vec<i64> {
        let ready = &self.ready;
        vec![i64::from(rank(ready.priority)), timestamp_us(ready.due), signed(ready.id.number())]
    }
}

impl ClaimSnapshot {
    /// Reads a snapshot for a claim, of these limit groups. `share` multiplies how many jobs of each line are read.
    pub(super) async fn read(
        ledger: &PostgresLedger<'_>,
        claim: &Claim,
        groups: &[i32],
        share: i64,
    ) -> Result<ClaimSnapshot, SessionError> {
        let mut snapshot = ClaimSnapshot {
            lanes: Vec::new(),
            lines: Vec::new(),
            lines_max: claim.free as usize,
            jobs_max: 0,
            listed: HashMap::new(),
            running: HashMap::new(),
            whole_groups: HashSet::new(),
        };
        if claim.free == 0 {
            return Ok(snapshot);
        }
        let tasks: Vec<i32> =
            claim.tasks.iter().map(|(task, _)| ledger.names.number(task.as_str())).collect::<Result<_, _>>()?;
        let free = i64::from(claim.free);
        let read_args = [
            (&tasks as _, Type::INT4_ARRAY),
            (&groups as _, Type::INT4_ARRAY),
            (&free as _, Type::INT8),
            (&share as _, Type::INT8),
        ];
        let whole_args = [(&tasks as _, Type::INT4_ARRAY), (&groups as _, Type::INT4_ARRAY)];
        let (found, whole) = futures_util::try_join!(
            ledger.session.query(READ, &read_args),
            ledger.session.query(READ_WHOLE_GROUPS, &whole_args),
        )?;
        for row in &whole {
            snapshot.whole_groups.insert(value(row, "task_groups", 0)?);
        }
        let counts = ledger.running.counts();
        for number in &ledger.locked {
            snapshot.running.insert(ledger.names.group(*number)?, counts.of_group(*number));
        }
        let mut lane_indexes: HashMap<LaneRow, usize> = HashMap::new();
        for row in &found {
            snapshot.add(row, ledger, &counts, &mut lane_indexes)?;
        }
        snapshot.mark_listed();
        snapshot.jobs_max = free.min(share * (1 + 2 * free / snapshot.lanes.len().max(1) as i64)) as usize;
        Ok(snapshot)
    }

    /// Marks the first lines of each task. Its other lines were only read because they share a lane with a line of another
    /// task.
    fn mark_listed(&mut self) {
        let mut of_task: HashMap<TaskName, Vec<usize>> = HashMap::new();
        for (index, line) in self.lines.iter().enumerate() {
            of_task.entry(line.task.clone()).or_default().push(index);
        }
        for (task, mut indexes) in of_task {
            indexes.sort_by_key(|index| (Reverse(self.lines[*index].top_priority), self.lines[*index].turn));
            indexes.truncate(self.lines_max);
            indexes.iter().for_each(|index| self.lines[*index].is_listed = true);
            self.listed.insert(task, indexes.len());
        }
    }

    /// Returns true if all jobs of a line were read, or as many as there are free slots.
    fn is_whole(&self, line: usize) -> bool {
        let line = &self.lines[line];
        !line.is_cut && (line.heads.len() < self.jobs_max || self.jobs_max >= self.lines_max)
    }

    /// Returns true if this claim empties all lines of a lane, which removes the lane.
    pub(super) fn is_removed(&self, lane: usize, emptied: &HashSet<usize>) -> bool {
        let lane = &self.lanes[lane];
        self.whole_groups.contains(&lane.row.group) && lane.lines.iter().all(|line| emptied.contains(line))
    }

    /// Returns the remainder of a line after its first `taken` jobs were chosen.
    pub(super) fn remainder(&self, line: usize, taken: usize) -> Remainder {
        let line = &self.lines[line];
        match line.heads.get(taken) {
            Some(next) if next.ready.priority == line.top_priority => Remainder::SameTop,
            None if !line.is_cut && line.heads.len() < self.jobs_max => Remainder::Empty,
            _ => Remainder::Unknown,
        }
    }

    fn add(
        &mut self,
        row: &Row,
        ledger: &PostgresLedger<'_>,
        counts: &SlotCounts<'_>,
        lane_indexes: &mut HashMap<LaneRow, usize>,
    ) -> Result<(), SessionError> {
        let id: i64 = value(row, "lines", 0)?;
        let edge: Option<Vec<i64>> = value(row, "ready", 6)?;
        if self.lines.last().is_none_or(|line| line.id != id) {
            let lane_row = LaneRow { group: value(row, "lines", 1)?, key: value(row, "lines", 2)? };
            let lane = match lane_indexes.get(&lane_row) {
                Some(lane) => *lane,
                None => {
                    let lane = Lane { group: ledger.names.group(lane_row.group)?, key: columns::key(&lane_row.key)? };
                    let running = counts.of_lane(&lane_row);
                    lane_indexes.insert(lane_row.clone(), self.lanes.len());
                    self.lanes.push(SnapshotLane { row: lane_row, lane, running, lines: Vec::new() });
                    self.lanes.len() - 1
                }
            };
            let task: TaskName = parse("task", ledger.names.text(value(row, "lines", 3)?)?)?;
            let (top_priority, turn) = (value(row, "lines", 4)?, value(row, "lines", 5)?);
            self.lanes[lane].lines.push(self.lines.len());
            let is_cut = edge.is_some();
            let heads = Vec::new();
            self.lines.push(SnapshotLine { id, lane, task, top_priority, turn, is_listed: false, is_cut, heads });
        }
        if let (Some(line), Some(head)) = (self.lines.last_mut(), Head::read(row)?)
            && edge.is_none_or(|edge| head.sort_key() < edge)
        {
            line.heads.push(head);
        }
        Ok(())
    }
}

/// The remainder of a line after a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remainder {
    /// It has jobs, and the highest priority among them is unchanged.
    SameTop,
    Empty,
    Unknown,
}

/// The part of the queue that admission needs and the snapshot lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotRead {
    Lines,
    Heads,
}

/// The choice of admission.
#[derive(Default)]
pub(super) struct Choice {
    /// The chosen jobs, in order: the index of a line, and that of a head in it.
    pub(super) heads: Vec<(usize, usize)>,
    /// Lanes after the claim: the index of a lane, its turn, and whether it is open.
    pub(super) left_lanes: Vec<(usize, u64, bool)>,
    /// The number of turns that were used.
    pub(super) turns: usize,
}

/// A claim in progress.
pub(super) struct ClaimContext<'s> {
    snapshot: &'s ClaimSnapshot,
    /// Unused turns.
    turns: Vec<i64>,
    /// The indexes of lanes that were closed.
    closed: HashSet<usize>,
    /// The number of heads of each line that were returned.
    returned: HashMap<usize, usize>,
    choice: Choice,
}

impl<'s> ClaimContext<'s> {
    pub(super) fn new(snapshot: &'s ClaimSnapshot, turns: Vec<i64>) -> ClaimContext<'s> {
        ClaimContext { snapshot, turns, closed: HashSet::new(), returned: HashMap::new(), choice: Choice::default() }
    }

    pub(super) fn into_choice(self) -> Choice {
        self.choice
    }

    fn line(&self, line: &SnapshotLine) -> Line {
        let lane = &self.snapshot.lanes[line.lane];
        Line {
            lane_id: LaneId(line.lane as u64),
            lane: lane.lane.clone(),
            task: line.task.clone(),
            top: line.top_priority,
            turn: line.turn as u64,
            holders: lane.running,
            // Held lanes are closed by those who set holds and add lanes, and are not read.
            held: false,
        }
    }

    fn line_index(&self, lane: LaneId, task: &TaskName) -> Option<usize> {
        let lines = &self.snapshot.lanes[lane.0 as usize].lines;
        lines.iter().copied().find(|line| self.snapshot.lines[*line].task == *task)
    }
}

impl QueueView for ClaimContext<'_> {
    type Error = NotRead;

    fn lines(&mut self, task: &TaskName, _: u32) -> Result<Vec<Line>, NotRead> {
        let listed = || self.snapshot.lines.iter().filter(|line| line.is_listed && line.task == *task);
        let open: Vec<&SnapshotLine> = listed().filter(|line| !self.closed.contains(&line.lane)).collect();
        // There may be more lines after those that were closed.
        if open.len() < self.snapshot.listed.get(task).copied().unwrap_or_default()
            && self.snapshot.listed.get(task) == Some(&self.snapshot.lines_max)
        {
            return Err(NotRead::Lines);
        }
        let mut lines: Vec<Line> = open.into_iter().map(|line| self.line(line)).collect();
        lines.sort_by_key(|line| (Reverse(line.top), line.turn));
        Ok(lines)
    }

    fn siblings(&mut self, lane: LaneId, task: &TaskName, tasks: &[TaskName]) -> Result<Vec<Line>, NotRead> {
        let lines = self.snapshot.lanes[lane.0 as usize].lines.iter().map(|line| &self.snapshot.lines[*line]);
        let others = lines.filter(|line| line.task != *task && tasks.contains(&line.task));
        Ok(others.map(|line| self.line(line)).collect())
    }

    fn heads(&mut self, lane: LaneId, task: &TaskName, max: u32) -> Result<Vec<Ready>, NotRead> {
        let Some(line) = self.line_index(lane, task) else { return Ok(Vec::new()) };
        let heads = &self.snapshot.lines[line].heads;
        let returned = self.returned.entry(line).or_default();
        let wanted = *returned + max as usize;
        if wanted > heads.len() && !self.snapshot.is_whole(line) {
            return Err(NotRead::Heads);
        }
        let ready: Vec<Ready> = heads[*returned..wanted.min(heads.len())].iter().map(|head| head.ready).collect();
        *returned += ready.len();
        Ok(ready)
    }

    fn group_holders(&mut self, group: &Group) -> Result<u32, NotRead> {
        // Every locked limit group was counted; tasks of other groups have no line here.
        Ok(self.snapshot.running.get(group).copied().unwrap_or_default())
    }

    fn next_turn(&mut self) -> Result<u64, NotRead> {
        let turn = self.turns.get(self.choice.turns).copied().unwrap_or_default();
        self.choice.turns += 1;
        Ok(turn as u64)
    }

    fn lease(&mut self, line: &Line, job: &Ready) -> Result<(), NotRead> {
        if let Some(line) = self.line_index(line.lane_id, &line.task)
            && let Some(head) = self.snapshot.lines[line].heads.iter().position(|head| head.ready.id == job.id)
        {
            self.choice.heads.push((line, head));
        }
        Ok(())
    }

    fn leave(&mut self, lane: LaneId, turn: u64, open: bool) -> Result<(), NotRead> {
        let lane = lane.0 as usize;
        if !open {
            self.closed.insert(lane);
        }
        self.choice.left_lanes.push((lane, turn, open));
        Ok(())
    }
    fn hold(&mut self, lane: LaneId) -> Result<(), NotRead> {
        self.closed.insert(lane.0 as usize);
        Ok(())
    }
}
