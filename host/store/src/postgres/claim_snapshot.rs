//! Page: what a claim may choose from, read at once, and the desk where admission chooses in memory.
//!
//! Admission is not told how much was read. Where it asks for more than that, it is given up, more is read, and it begins
//! anew: it has no effect before its choice is written.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use wharf_core::admission::{LaneId, Line, QueueView, Ready};
use wharf_core::ids::{Group, TaskName};
use wharf_core::job::{Batch, JobStatus, State};
use wharf_core::key::Lane;

use super::lane_rows::LaneRow;
use super::ledger::Ledger;
use super::ready_rows::rank;
use super::rows::{self, job_id, key_of, micros, parse, signed};
use super::running_rows::Counts;
use super::session::SessionError;
use crate::store::Claim;

/// For each task the first open lines; of their lanes all open lines with tasks of the claim; of each line the first jobs.
/// A lane's fair share of the slots is read, and `share` times as much where that was too little.
/// Of a line so many rows of `queued` are opened; where there are more, only what comes before the next one, the edge, counts.
/// As many rows as jobs are wanted are always enough.
/// A column with something added is one whose index is not meant here.
const READ: &str = "WITH paged AS MATERIALIZED (
        SELECT line.* FROM unnest($1::int[]) AS named (task) CROSS JOIN LATERAL (
            SELECT id, grp, key FROM wharf.lines
            WHERE task = named.task AND closed_by IS NULL AND grp + 0 = ANY($2) ORDER BY top DESC, turn LIMIT $3) AS line
    ), lanes AS MATERIALIZED (
        SELECT DISTINCT grp, key FROM paged
    ), shared AS MATERIALIZED (
        SELECT least($3, $4 * (1 + 2 * $3 / greatest(count(*), 1))) AS most FROM lanes
    ), deep AS MATERIALIZED (
        SELECT most, CASE WHEN most <= 32 THEN most ELSE least(most, $4 * (16 + most / 100)) END AS rows FROM shared
    )
    SELECT lines.id AS line, lanes.grp, lanes.key, lines.task, top, turn, edge, heads.id, heads.rank, heads.due, heads.first,
        heads.length, attempt, failures, crashes, batch, topic, bytes, payload
    FROM lanes CROSS JOIN LATERAL (
        SELECT id, task, top, turn, CASE WHEN (SELECT rows < most FROM deep) THEN (
                SELECT ARRAY[queued.rank, queued.due, queued.first] FROM wharf.queued WHERE queued.line = lines.id
                ORDER BY queued.rank, queued.due, queued.first OFFSET (SELECT rows FROM deep) LIMIT 1) END AS edge
        FROM wharf.lines
        WHERE lines.grp = lanes.grp AND lines.key = lanes.key AND task + 0 = ANY($1) AND closed_by IS NULL OFFSET 0) AS lines
    LEFT JOIN LATERAL (
        SELECT jobs.id, front.rank, front.due, front.first, front.length, attempt, failures, crashes, batch, topic, bytes,
            CASE WHEN bytes <= 1024 THEN payload END AS payload
        FROM (
            SELECT nearest.rank, nearest.due, nearest.first, cardinality(nearest.ids) AS length, each.id FROM (
                SELECT rank, due, first, ids FROM wharf.queued WHERE queued.line = lines.id
                ORDER BY rank, due, first LIMIT (SELECT rows FROM deep)
            ) AS nearest CROSS JOIN LATERAL unnest(nearest.ids) AS each (id)
            ORDER BY nearest.rank, nearest.due, each.id LIMIT (SELECT most FROM deep)
        ) AS front JOIN wharf.jobs ON jobs.id = front.id) AS heads ON true
    ORDER BY lines.id, heads.rank, heads.due, heads.id";

/// Groups of which no job has another task than those of the claim: of their lanes all lines are read.
const READ_WHOLE: &str =
    "SELECT grp FROM wharf.places WHERE grp = ANY($2) GROUP BY grp HAVING bool_and(task = ANY($1))";

pub(super) struct Page {
    pub(super) seats: Vec<Seat>,
    pub(super) lines: Vec<Seen>,
    /// How many lines of each task were looked for, and found.
    asked: usize,
    /// How many jobs of each line were looked for.
    deep: usize,
    found: HashMap<TaskName, usize>,
    /// Running jobs of each group.
    groups: HashMap<Group, u32>,
    /// Groups of which all lines of a lane are read.
    whole: HashSet<i32>,
}

/// A lane.
pub(super) struct Seat {
    pub(super) row: LaneRow,
    pub(super) lane: Lane,
    holders: u32,
    /// Places of its lines.
    lines: Vec<usize>,
}

/// A line.
pub(super) struct Seen {
    pub(super) id: i64,
    pub(super) seat: usize,
    pub(super) task: TaskName,
    top: i32,
    turn: i64,
    paged: bool,
    /// Not all of its rows were opened.
    cut: bool,
    pub(super) heads: Vec<Head>,
}

/// A job at the head of a line.
pub(super) struct Head {
    pub(super) ready: Ready,
    pub(super) before: JobStatus,
    pub(super) batch: Option<Batch>,
    /// Of the row of `queued` that it stands in.
    pub(super) first: i64,
    /// How many jobs stand in that row.
    pub(super) length: usize,
    /// Unless it is large.
    pub(super) payload: Option<Arc<[u8]>>,
}

impl Head {
    /// By number: to find a dozen columns by name is a good part of what it costs to read a row.
    fn of(row: &Row) -> Result<Option<Head>, SessionError> {
        let Some(id) = row.get::<_, Option<i64>>(7) else { return Ok(None) };
        let priority = !row.get::<_, i32>(8);
        let due = rows::stamp(row.get(9));
        let ready = Ready { id: job_id(id)?, priority, due, bytes: row.get::<_, i64>(17) as u64 };
        let before = JobStatus {
            state: State::Waiting { due },
            attempt: row.get::<_, i32>(12) as u32,
            failures: row.get::<_, i32>(13) as u32,
            crashes: row.get::<_, i32>(14) as u32,
            cancel_asked: false,
        };
        let batch = if row.get::<_, Option<i64>>(15).is_some() { rows::batch(row)? } else { None };
        let payload = row.get::<_, Option<&[u8]>>(18).map(Arc::from);
        Ok(Some(Head { ready, before, batch, first: row.get(10), length: row.get::<_, i32>(11) as usize, payload }))
    }
}

impl Head {
    /// What lines are sorted by.
    fn place(&self) -> Vec<i64> {
        let ready = &self.ready;
        vec![i64::from(rank(ready.priority)), micros(ready.due), signed(ready.id.number())]
    }
}

impl Page {
    pub(super) async fn read(ledger: &Ledger<'_>, claim: &Claim, share: i64) -> Result<Page, SessionError> {
        let mut page = Page {
            seats: Vec::new(),
            lines: Vec::new(),
            asked: claim.free as usize,
            deep: 0,
            found: HashMap::new(),
            groups: HashMap::new(),
            whole: HashSet::new(),
        };
        if claim.free == 0 {
            return Ok(page);
        }
        let tasks: Vec<i32> =
            claim.tasks.iter().map(|(task, _)| ledger.names.number(task.as_str())).collect::<Result<_, _>>()?;
        let free = i64::from(claim.free);
        let read_args = [
            (&tasks as _, Type::INT4_ARRAY),
            (&ledger.locked as _, Type::INT4_ARRAY),
            (&free as _, Type::INT8),
            (&share as _, Type::INT8),
        ];
        let whole_args = [(&tasks as _, Type::INT4_ARRAY), (&ledger.locked as _, Type::INT4_ARRAY)];
        let (found, whole) = futures_util::try_join!(
            ledger.session.ask(READ, &read_args),
            ledger.session.ask(READ_WHOLE, &whole_args),
        )?;
        page.whole = whole.iter().map(|row| row.get(0)).collect();
        let counts = ledger.held.counts();
        for number in &ledger.locked {
            page.groups.insert(ledger.names.group(*number)?, counts.of_group(*number));
        }
        let mut places: HashMap<LaneRow, usize> = HashMap::new();
        for row in &found {
            page.take(row, ledger, &counts, &mut places)?;
        }
        page.mark_paged();
        page.deep = free.min(share * (1 + 2 * free / page.seats.len().max(1) as i64)) as usize;
        Ok(page)
    }

    /// Of the lines of a task the first were looked for; what else was found of it stands beside one of another task.
    fn mark_paged(&mut self) {
        let mut of_task: HashMap<TaskName, Vec<usize>> = HashMap::new();
        for (place, line) in self.lines.iter().enumerate() {
            of_task.entry(line.task.clone()).or_default().push(place);
        }
        for (task, mut places) in of_task {
            places.sort_by_key(|place| (Reverse(self.lines[*place].top), self.lines[*place].turn));
            places.truncate(self.asked);
            places.iter().for_each(|place| self.lines[*place].paged = true);
            self.found.insert(task, places.len());
        }
    }

    /// Whether the line has no jobs but those that were read, or more were read than there are slots.
    fn is_whole(&self, place: usize) -> bool {
        let line = &self.lines[place];
        !line.cut && (line.heads.len() < self.deep || self.deep >= self.asked)
    }

    /// Whether a lane is gone with the lines of which this claim took all jobs.
    pub(super) fn is_gone(&self, seat: usize, emptied: &HashSet<usize>) -> bool {
        let seat = &self.seats[seat];
        self.whole.contains(&seat.row.group) && seat.lines.iter().all(|line| emptied.contains(line))
    }

    /// What is left of a line of which the first `taken` jobs were chosen.
    pub(super) fn left_of(&self, place: usize, taken: usize) -> Left {
        let line = &self.lines[place];
        match line.heads.get(taken) {
            Some(next) if next.ready.priority == line.top => Left::AsItWas,
            None if !line.cut && line.heads.len() < self.deep => Left::Nothing,
            _ => Left::Unknown,
        }
    }

    fn take(
        &mut self,
        row: &Row,
        ledger: &Ledger<'_>,
        counts: &Counts<'_>,
        places: &mut HashMap<LaneRow, usize>,
    ) -> Result<(), SessionError> {
        let id: i64 = row.get(0);
        let edge: Option<Vec<i64>> = row.get(6);
        if self.lines.last().is_none_or(|line| line.id != id) {
            let lane_row = LaneRow { group: row.get(1), key: row.get(2) };
            let seat = match places.get(&lane_row) {
                Some(seat) => *seat,
                None => {
                    let lane = Lane { group: ledger.names.group(lane_row.group)?, key: key_of(&lane_row.key)? };
                    let holders = counts.of_lane(&lane_row);
                    places.insert(lane_row.clone(), self.seats.len());
                    self.seats.push(Seat { row: lane_row, lane, holders, lines: Vec::new() });
                    self.seats.len() - 1
                }
            };
            let task: TaskName = parse("a task", ledger.names.text(row.get(3))?)?;
            let (top, turn) = (row.get(4), row.get(5));
            self.seats[seat].lines.push(self.lines.len());
            let cut = edge.is_some();
            self.lines.push(Seen { id, seat, task, top, turn, paged: false, cut, heads: Vec::new() });
        }
        if let (Some(line), Some(head)) = (self.lines.last_mut(), Head::of(row)?)
            && edge.is_none_or(|edge| head.place() < edge)
        {
            line.heads.push(head);
        }
        Ok(())
    }
}

/// What a claim leaves of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Its highest priority is what it was.
    AsItWas,
    Nothing,
    Unknown,
}

/// What admission asked for and the page does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    Lines,
    Heads,
}

/// What admission chose.
#[derive(Default)]
pub(super) struct Picked {
    /// Jobs, in their order: places of a line and of a head in it.
    pub(super) heads: Vec<(usize, usize)>,
    /// Seats as they were left: the turn, and whether open.
    pub(super) left: Vec<(usize, u64, bool)>,
    /// How many turns were given out.
    pub(super) turns: usize,
}

/// One claim in progress.
pub(super) struct Desk<'p> {
    page: &'p Page,
    numbers: Vec<i64>,
    closed: HashSet<usize>,
    /// How many heads of each line were handed out.
    handed: HashMap<usize, usize>,
    picked: Picked,
}

impl<'p> Desk<'p> {
    pub(super) fn of(page: &'p Page, numbers: Vec<i64>) -> Desk<'p> {
        Desk { page, numbers, closed: HashSet::new(), handed: HashMap::new(), picked: Picked::default() }
    }

    pub(super) fn picked(self) -> Picked {
        self.picked
    }

    fn line(&self, line: &Seen) -> Line {
        let seat = &self.page.seats[line.seat];
        Line {
            lane_id: LaneId(line.seat as u64),
            lane: seat.lane.clone(),
            task: line.task.clone(),
            top: line.top,
            turn: line.turn as u64,
            holders: seat.holders,
        }
    }

    fn place(&self, lane: LaneId, task: &TaskName) -> Option<usize> {
        let places = &self.page.seats[lane.0 as usize].lines;
        places.iter().copied().find(|place| self.page.lines[*place].task == *task)
    }
}

impl QueueView for Desk<'_> {
    type Error = Missing;

    fn lines(&mut self, task: &TaskName, _most: u32) -> Result<Vec<Line>, Missing> {
        let of_task = || self.page.lines.iter().filter(|line| line.paged && line.task == *task);
        let open: Vec<&Seen> = of_task().filter(|line| !self.closed.contains(&line.seat)).collect();
        // Behind those that were closed there may be others.
        if open.len() < self.page.found.get(task).copied().unwrap_or_default()
            && self.page.found.get(task) == Some(&self.page.asked)
        {
            return Err(Missing::Lines);
        }
        let mut lines: Vec<Line> = open.into_iter().map(|line| self.line(line)).collect();
        lines.sort_by_key(|line| (Reverse(line.top), line.turn));
        Ok(lines)
    }

    fn siblings(&mut self, lane: LaneId, task: &TaskName, tasks: &[TaskName]) -> Result<Vec<Line>, Missing> {
        let lines = self.page.seats[lane.0 as usize].lines.iter().map(|place| &self.page.lines[*place]);
        let others = lines.filter(|line| line.task != *task && tasks.contains(&line.task));
        Ok(others.map(|line| self.line(line)).collect())
    }

    fn heads(&mut self, lane: LaneId, task: &TaskName, max: u32) -> Result<Vec<Ready>, Missing> {
        let Some(place) = self.place(lane, task) else { return Ok(Vec::new()) };
        let heads = &self.page.lines[place].heads;
        let handed = self.handed.entry(place).or_default();
        let wanted = *handed + max as usize;
        if wanted > heads.len() && !self.page.is_whole(place) {
            return Err(Missing::Heads);
        }
        let ready: Vec<Ready> = heads[*handed..wanted.min(heads.len())].iter().map(|head| head.ready).collect();
        *handed += ready.len();
        Ok(ready)
    }

    fn group_holders(&mut self, group: &Group) -> Result<u32, Missing> {
        // Every group whose lock is held was counted; a task of any other has no line here.
        Ok(self.page.groups.get(group).copied().unwrap_or_default())
    }

    fn next_turn(&mut self) -> Result<u64, Missing> {
        let turn = self.numbers.get(self.picked.turns).copied().unwrap_or_default();
        self.picked.turns += 1;
        Ok(turn as u64)
    }

    fn lease(&mut self, line: &Line, job: &Ready) -> Result<(), Missing> {
        if let Some(place) = self.place(line.lane_id, &line.task)
            && let Some(head) = self.page.lines[place].heads.iter().position(|head| head.ready.id == job.id)
        {
            self.picked.heads.push((place, head));
        }
        Ok(())
    }

    fn leave(&mut self, lane: LaneId, turn: u64, open: bool) -> Result<(), Missing> {
        let seat = lane.0 as usize;
        if !open {
            self.closed.insert(seat);
        }
        self.picked.left.push((seat, turn, open));
        Ok(())
    }
}
