//! Page: what a claim may choose from, read at once, and the desk where admission chooses in memory.
//!
//! Admission is not told how much was read. Where it asks for more than that, it is given up, more is read, and it begins
//! anew: it has no effect before its choice is written.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use wharf_core::admission::{LaneId, Line, Ready, Waiting};
use wharf_core::ids::{Group, TaskName};
use wharf_core::job::{Batch, Standing, State};
use wharf_core::key::Lane;
use wharf_core::limits::LimitTable;

use super::ledger::Ledger;
use super::names::LaneRow;
use super::rows::{self, job_id, key_of, moment, parse};
use super::session::Fault;
use crate::store::Claim;

/// For each task the first open lines; of their lanes all open lines with tasks of the claim; of each line the first jobs.
/// A lane's fair share of the slots is read, and `share` times as much where that was too little.
/// A column with something added is one whose index is not meant here.
const READ: &str = "WITH paged AS MATERIALIZED (
        SELECT line.* FROM unnest($1::int[]) AS named (task) CROSS JOIN LATERAL (
            SELECT id, grp, key FROM wharf.lines
            WHERE task = named.task AND closed_by IS NULL AND grp + 0 = ANY($2) ORDER BY top DESC, turn LIMIT $3) AS line
    ), lanes AS MATERIALIZED (
        SELECT grp, key, (SELECT count(*) FROM (
            SELECT FROM wharf.jobs WHERE state = 2 AND jobs.grp = named.grp AND jobs.key = named.key LIMIT $4) AS held) AS holders
        FROM (SELECT DISTINCT grp, key FROM paged) AS named
    )
    SELECT lines.id AS line, lanes.grp, lanes.key, lines.task, top, turn, holders, heads.*,
        lines.id IN (SELECT id FROM paged) AS paged
    FROM lanes CROSS JOIN LATERAL (
        SELECT id, task, top, turn FROM wharf.lines
        WHERE lines.grp = lanes.grp AND lines.key = lanes.key AND task + 0 = ANY($1) AND closed_by IS NULL OFFSET 0) AS lines
    LEFT JOIN LATERAL (
        SELECT id, priority, due, bytes, attempt, failures, crashes, batch, topic FROM wharf.jobs
        WHERE state = 1 AND jobs.line = lines.id ORDER BY priority DESC, due, id
        LIMIT least($3, $5 * (1 + 2 * $3 / (SELECT greatest(count(*), 1) FROM lanes)))) AS heads ON true
    ORDER BY lines.id, heads.priority DESC, heads.due, heads.id";

pub(super) struct Page {
    pub(super) seats: Vec<Seat>,
    pub(super) lines: Vec<Seen>,
    /// How many lines of each task were looked for, and found.
    asked: usize,
    /// How many jobs of each line were looked for.
    deep: usize,
    found: HashMap<TaskName, usize>,
    /// Running jobs of groups that have a total.
    groups: HashMap<Group, u32>,
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
    pub(super) heads: Vec<Head>,
}

/// A job at the head of a line.
pub(super) struct Head {
    pub(super) ready: Ready,
    pub(super) before: Standing,
    pub(super) batch: Option<Batch>,
}

impl Head {
    fn of(row: &Row) -> Result<Option<Head>, Fault> {
        let Some(id) = row.get::<_, Option<i64>>("id") else { return Ok(None) };
        let due = moment(row, "due");
        let ready =
            Ready { id: job_id(id)?, priority: row.get("priority"), due, bytes: row.get::<_, i64>("bytes") as u64 };
        let before = Standing {
            state: State::Waiting { due },
            attempt: row.get::<_, i32>("attempt") as u32,
            failures: row.get::<_, i32>("failures") as u32,
            crashes: row.get::<_, i32>("crashes") as u32,
            cancel_asked: false,
        };
        Ok(Some(Head { ready, before, batch: rows::batch(row)? }))
    }
}

impl Page {
    pub(super) async fn read(
        ledger: &Ledger<'_>,
        claim: &Claim,
        limits: &LimitTable,
        share: i64,
    ) -> Result<Page, Fault> {
        let mut page = Page {
            seats: Vec::new(),
            lines: Vec::new(),
            asked: claim.free as usize,
            deep: 0,
            found: HashMap::new(),
            groups: HashMap::new(),
        };
        if claim.free == 0 {
            return Ok(page);
        }
        let tasks: Vec<i32> =
            claim.tasks.iter().map(|(task, _)| ledger.names.number(task.as_str())).collect::<Result<_, _>>()?;
        let free = i64::from(claim.free);
        // What has no limit need not be counted, and no limit is told apart from the highest.
        let per_key = limits.declared().map(|(_, limits)| limits).chain(limits.overrides().map(|set| set.limits));
        let counted = i64::from(per_key.filter_map(|limits| limits.per_key).max().unwrap_or(0));
        let mut totals = Vec::new();
        for number in &ledger.locked {
            if let Some(total) = limits.of(&ledger.names.group(*number)?).total {
                totals.push((*number, i64::from(total)));
            }
        }
        let (groups, most): (Vec<i32>, Vec<i64>) = totals.into_iter().unzip();
        let read_args = [
            (&tasks as _, Type::INT4_ARRAY),
            (&ledger.locked as _, Type::INT4_ARRAY),
            (&free as _, Type::INT8),
            (&counted as _, Type::INT8),
            (&share as _, Type::INT8),
        ];
        let count = "SELECT named.grp, (SELECT count(*) FROM (
                         SELECT FROM wharf.jobs WHERE state = 2 AND jobs.grp = named.grp LIMIT named.most) AS held)
                     FROM unnest($1::int[], $2::bigint[]) AS named (grp, most)";
        let count_args = [(&groups as _, Type::INT4_ARRAY), (&most as _, Type::INT8_ARRAY)];
        let (found, counts) = futures_util::try_join!(
            ledger.session.ask(READ, &read_args),
            ledger.session.ask_if(!groups.is_empty(), count, &count_args),
        )?;
        for row in &counts {
            page.groups.insert(ledger.names.group(row.get(0))?, row.get::<_, i64>(1) as u32);
        }
        let mut places: HashMap<LaneRow, usize> = HashMap::new();
        for row in &found {
            page.take(row, ledger, &mut places)?;
        }
        page.deep = free.min(share * (1 + 2 * free / page.seats.len().max(1) as i64)) as usize;
        Ok(page)
    }

    /// Whether the line has no jobs but those that were read, or more were read than there are slots.
    fn is_whole(&self, place: usize) -> bool {
        self.lines[place].heads.len() < self.deep || self.deep >= self.asked
    }

    fn take(&mut self, row: &Row, ledger: &Ledger<'_>, places: &mut HashMap<LaneRow, usize>) -> Result<(), Fault> {
        let id: i64 = row.get("line");
        if self.lines.last().is_none_or(|line| line.id != id) {
            let lane_row = LaneRow { group: row.get("grp"), key: row.get("key") };
            let seat = match places.get(&lane_row) {
                Some(seat) => *seat,
                None => {
                    let lane = Lane { group: ledger.names.group(lane_row.group)?, key: key_of(&lane_row.key)? };
                    let holders = row.get::<_, i64>("holders") as u32;
                    places.insert(lane_row.clone(), self.seats.len());
                    self.seats.push(Seat { row: lane_row, lane, holders, lines: Vec::new() });
                    self.seats.len() - 1
                }
            };
            let task: TaskName = parse("a task", ledger.names.text(row.get("task"))?)?;
            let paged = row.get("paged");
            *self.found.entry(task.clone()).or_default() += usize::from(paged);
            let (top, turn) = (row.get("top"), row.get("turn"));
            self.seats[seat].lines.push(self.lines.len());
            self.lines.push(Seen { id, seat, task, top, turn, paged, heads: Vec::new() });
        }
        if let (Some(line), Some(head)) = (self.lines.last_mut(), Head::of(row)?) {
            line.heads.push(head);
        }
        Ok(())
    }
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

impl Waiting for Desk<'_> {
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

    fn heads(&mut self, lane: LaneId, task: &TaskName, most: u32) -> Result<Vec<Ready>, Missing> {
        let Some(place) = self.place(lane, task) else { return Ok(Vec::new()) };
        let heads = &self.page.lines[place].heads;
        let handed = self.handed.entry(place).or_default();
        let wanted = *handed + most as usize;
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
