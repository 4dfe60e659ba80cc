//! The lanes in memory: the ready lines and the running jobs of each. The file has one writer, so that it need not query them.
//!
//! Everything here follows from the tables, and is read from them when the file is opened (`SqliteLedger::open`). Changes are
//! rolled back with their transaction.

mod numbers;
mod chunked_list;
mod ready_order;
mod lane_state;
mod slab;
mod running;

use std::mem;

use wharf_core::ids::{Group, JobId};
use wharf_core::key::{Key, Lane};

pub(super) use self::lane_state::Line;
use self::lane_state::Position;
pub(super) use self::numbers::LaneNo;
use self::ready_order::ReadyOrder;
pub(super) use self::running::RunningJob;
use self::running::RunningJobs;
use self::slab::LaneSlab;

/// A change, as what was there before it.
#[derive(Debug)]
enum Undo {
    Position(LaneNo, Position),
    Line(LaneNo, i64, Option<Line>),
    Job(JobId, LaneNo, Option<Box<RunningJob>>),
}

/// Capacity, in changes, that is kept from one transaction to the next.
const UNDO_CAPACITY_KEPT: usize = 4096;

/// A row of the table `turns`: a line, and the turn of its lane. `None` if the lane needs no row.
type TurnRow = Option<(i64, u64)>;

#[derive(Debug, Default)]
pub(super) struct Lanes {
    slab: LaneSlab,
    ready: ReadyOrder,
    running: RunningJobs,
    last_turn: u64,
    undo: Vec<Undo>,
    /// Lanes that this transaction has changed, each with the row of `turns` that it had before.
    touched: Vec<(LaneNo, TurnRow)>,
}

impl Lanes {
    /// Returns the number of a lane, and adds the lane if it is not there.
    pub(super) fn find_or_add(&mut self, lane: &Lane) -> LaneNo {
        self.slab.find(lane).unwrap_or_else(|| {
            let no = self.slab.add(lane);
            self.touch(no);
            no
        })
    }

    /// Returns a lane's name.
    pub(super) fn lane(&self, no: LaneNo) -> Lane {
        self.slab.name(no)
    }

    /// Returns the name of a lane's group.
    pub(super) fn group(&self, no: LaneNo) -> &Group {
        self.slab.group(no)
    }

    /// Returns the turn at which a lane was last served or joined.
    pub(super) fn turn(&self, no: LaneNo) -> u64 {
        self.slab[no].position().turn
    }

    /// Returns false if a lane had no free slot, or was held, when it was last checked.
    pub(super) fn is_open(&self, no: LaneNo) -> bool {
        self.slab[no].position().open
    }

    /// Returns a lane's running jobs in no particular order.
    pub(super) fn holders(&self, no: LaneNo) -> &[JobId] {
        self.slab[no].holders()
    }

    /// Returns a lane's lines in no particular order.
    pub(super) fn lines(&self, no: LaneNo) -> impl Iterator<Item = Line> {
        self.slab[no].lines()
    }

    /// Returns the line of a task in a lane.
    pub(super) fn line(&self, no: LaneNo, task: i64) -> Option<Line> {
        self.slab[no].line(task)
    }

    /// Returns the lanes of the first `max` lines of a task whose lanes are open, in the order in which they are served.
    pub(super) fn open_lines(&self, task: i64, max: usize) -> impl Iterator<Item = LaneNo> {
        self.ready.of_task(task).take(max)
    }

    /// Returns a job, if it runs.
    pub(super) fn running(&self, id: JobId) -> Option<&RunningJob> {
        self.running.get(id)
    }

    /// Returns all running jobs in no particular order.
    pub(super) fn all_running(&self) -> impl Iterator<Item = (JobId, &RunningJob)> {
        self.running.iter()
    }

    /// Returns a turn that is higher than all before.
    pub(super) fn next_turn(&mut self) -> u64 {
        self.last_turn += 1;
        self.last_turn
    }

    // Loading, when the file is opened.

    /// Records that turns up to `turn` are in use: all that follow are higher.
    pub(super) fn load_turn(&mut self, turn: u64) {
        self.last_turn = self.last_turn.max(turn);
    }

    /// Loads a line, with its lane's turn if the table `turns` has a row for the line. The lines of one lane must be loaded in
    /// the order of their numbers.
    pub(super) fn load_line(&mut self, lane: &Lane, line: Line, turn: Option<u64>) {
        let no = self.slab.find(lane).unwrap_or_else(|| self.slab.add(lane));
        self.load_turn(line.number as u64);
        if self.lines(no).next().is_none() {
            self.apply_position(no, Position { turn: turn.unwrap_or(line.number as u64), open: true });
        }
        self.apply_line(no, line.task, Some(line));
    }

    // Changes. Each is added to the undo list.

    /// Adds a ready job to a lane and returns the number of its line. A lane joins at the end of the order; a line joins its
    /// lane at the lane's position.
    pub(super) fn add_ready(&mut self, no: LaneNo, task: i64, priority: i32) -> i64 {
        let line = match self.line(no, task) {
            Some(line) => {
                Line { count: line.count + 1, top: line.top.max(priority), low: line.low.min(priority), ..line }
            }
            None => {
                let turn = self.next_turn();
                if self.lines(no).next().is_none() {
                    self.set_position(no, Position { turn, open: true });
                }
                Line { number: turn as i64, task, count: 1, top: priority, low: priority }
            }
        };
        self.set_line(no, task, Some(line));
        line.number
    }

    /// Replaces the line of a task; a line without jobs is removed.
    pub(super) fn set_line(&mut self, no: LaneNo, task: i64, line: Option<Line>) {
        let line = line.filter(|line| line.count > 0);
        let before = self.line(no, task);
        if before != line {
            self.touch(no);
            self.undo.push(Undo::Line(no, task, before));
            self.apply_line(no, task, line);
        }
    }

    /// Gives a lane the turn at which it was last served, and opens or closes it.
    pub(super) fn set_turn(&mut self, no: LaneNo, turn: u64, open: bool) {
        self.set_position(no, Position { turn, open });
    }

    pub(super) fn open(&mut self, no: LaneNo) {
        self.set_position(no, Position { open: true, ..self.slab[no].position() });
    }

    pub(super) fn close(&mut self, no: LaneNo) {
        self.set_position(no, Position { open: false, ..self.slab[no].position() });
    }

    pub(super) fn open_all(&mut self) {
        for no in self.slab.numbers() {
            self.open(no);
        }
    }

    /// Opens the lanes of a group.
    pub(super) fn open_group(&mut self, group: &Group) {
        for no in self.slab.numbers() {
            if self.slab.group(no) == group {
                self.open(no);
            }
        }
    }

    /// Opens the lanes of a key: that of one group, or those of all groups.
    pub(super) fn open_key(&mut self, group: Option<&Group>, key: &Key) {
        let groups = group.map_or_else(|| self.slab.groups().to_vec(), |group| vec![group.clone()]);
        for group in groups {
            if let Some(no) = self.slab.find(&Lane { group, key: Some(key.clone()) }) {
                self.open(no);
            }
        }
    }

    /// Adds or replaces a running job; `None` removes it.
    pub(super) fn set_running(&mut self, id: JobId, job: Option<RunningJob>) {
        let Some(no) = job.as_ref().or_else(|| self.running(id)).map(|job| job.lane) else { return };
        self.touch(no);
        let before = self.apply_job(id, no, job);
        self.undo.push(Undo::Job(id, no, before.map(Box::new)));
    }

    fn set_position(&mut self, no: LaneNo, position: Position) {
        let before = self.slab[no].position();
        if before != position {
            self.touch(no);
            self.undo.push(Undo::Position(no, before));
            self.apply_position(no, position);
        }
    }

    // The end of a transaction.

    /// Returns the changes to the table `turns`: for each, the line whose row is deleted, and the row that is written.
    pub(super) fn turn_changes(&self) -> impl Iterator<Item = (Option<i64>, TurnRow)> {
        self.touched.iter().filter_map(|(no, before)| {
            let after = self.turn_row(*no);
            let deleted = before.map(|(line, _)| line).filter(|line| after.is_none_or(|(first, _)| first != *line));
            (*before != after).then_some((deleted, after))
        })
    }

    /// Returns the row of `turns` that a lane needs. The number of a lane's first line is its turn, unless the lane was served
    /// or lost that line since: only then is there a row.
    fn turn_row(&self, no: LaneNo) -> TurnRow {
        let turn = self.turn(no);
        let first = self.lines(no).map(|line| line.number).min();
        first.filter(|first| *first != turn as i64).map(|first| (first, turn))
    }

    /// Returns the rows of `claims` that record no running job any more.
    pub(super) fn obsolete_claims(&mut self) -> Vec<i64> {
        let mut obsolete = Vec::new();
        for undo in &self.undo {
            if let Undo::Job(_, _, Some(before)) = undo
                && let Some(claim) = before.claim
                && !self.running.needs_claim(claim)
            {
                obsolete.push(claim);
            }
        }
        obsolete.sort_unstable();
        obsolete.dedup();
        obsolete
    }

    /// Keeps the changes of the transaction. Returns the jobs that started, ended or changed while running.
    pub(super) fn commit(&mut self) -> Vec<JobId> {
        let undo = mem::take(&mut self.undo);
        let changed = undo.iter().filter_map(|undo| match undo {
            Undo::Job(id, ..) => Some(*id),
            _ => None,
        });
        let changed = changed.collect();
        self.undo = undo;
        self.undo.clear();
        self.undo.shrink_to(UNDO_CAPACITY_KEPT);
        self.remove_empty();
        changed
    }

    /// Undoes the changes of the transaction.
    pub(super) fn roll_back(&mut self) {
        while let Some(undo) = self.undo.pop() {
            match undo {
                Undo::Position(no, position) => self.apply_position(no, position),
                Undo::Line(no, task, line) => self.apply_line(no, task, line),
                Undo::Job(id, no, job) => drop(self.apply_job(id, no, job.map(|job| *job))),
            }
        }
        self.remove_empty();
    }

    /// Removes the lanes in which no job waits or runs any more.
    fn remove_empty(&mut self) {
        let mut touched = mem::take(&mut self.touched);
        for (no, _) in touched.drain(..) {
            let state = &mut self.slab[no];
            state.touched = false;
            if state.is_empty() {
                self.slab.remove(no);
            }
        }
        self.slab.trim();
        self.touched = touched;
        self.touched.shrink_to(UNDO_CAPACITY_KEPT);
    }

    /// Records that a lane changes. Must be called before the change.
    fn touch(&mut self, no: LaneNo) {
        if !self.slab[no].touched {
            self.touched.push((no, self.turn_row(no)));
            self.slab[no].touched = true;
        }
    }

    // The same changes without the undo list, for rolling back. They keep the slab, the order and the running jobs consistent.

    fn apply_position(&mut self, no: LaneNo, position: Position) {
        let state = &mut self.slab[no];
        let before = state.position();
        state.set_position(position);
        for line in state.lines() {
            if before.open {
                self.ready.remove(line.task, line.top, before.turn, no);
            }
            if position.open {
                self.ready.insert(line.task, line.top, position.turn, no);
            }
        }
    }

    fn apply_line(&mut self, no: LaneNo, task: i64, line: Option<Line>) {
        let state = &mut self.slab[no];
        let before = state.set_line(task, line).map(|line| line.top);
        let (position, top) = (state.position(), line.map(|line| line.top));
        if position.open && before != top {
            if let Some(before) = before {
                self.ready.remove(task, before, position.turn, no);
            }
            if let Some(top) = top {
                self.ready.insert(task, top, position.turn, no);
            }
        }
    }

    fn apply_job(&mut self, id: JobId, no: LaneNo, job: Option<RunningJob>) -> Option<RunningJob> {
        let state = &mut self.slab[no];
        let before = self.running.set(id, job, state.holders_mut());
        state.trim();
        before
    }
}

#[cfg(test)]
mod tests;
