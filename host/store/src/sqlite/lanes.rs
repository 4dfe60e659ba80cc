//! The lanes, as the one writer of this file knows them without asking again: of each, who waits in it and who runs.
//!
//! All of it stands in the tables too, and is read from them when the file is opened (`Ledger::open`). What a transaction
//! changes here is taken back if it is undone.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::mem;

use wharf_core::ids::JobId;
use wharf_core::job::{Standing, State};
use wharf_core::key::Lane;
use wharf_core::lease::Lease;
use wharf_core::time::Timestamp;

/// A lane's place in memory. Good until the transaction ends, and longer for a lane in which jobs wait or run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LaneNo(pub(super) u32);

#[derive(Debug)]
struct LaneState {
    lane: Lane,
    stand: Stand,
    /// One for each task that has ready jobs in it: mostly one.
    lines: Vec<Line>,
    /// The jobs that run.
    holders: Vec<JobId>,
    /// The row of `turns` that is kept for it: of which line, and the turn.
    kept: Option<(i64, u64)>,
    touched: bool,
}

/// How a lane stands among others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stand {
    turn: u64,
    /// A closed lane had no slot when last looked at.
    open: bool,
}

/// The ready jobs of one task in a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// How `ready` calls it; also the turn at which it came to be.
    pub(super) number: i64,
    pub(super) task: i64,
    pub(super) count: u64,
    /// The highest priority of its jobs.
    pub(super) top: i32,
    /// None of its jobs has a lower priority.
    pub(super) low: i32,
}

/// A job that runs.
#[derive(Clone, Debug)]
pub(super) struct Hot {
    pub(super) standing: Standing,
    pub(super) lane: LaneNo,
    pub(super) task: i64,
    pub(super) priority: i32,
    pub(super) started_at: Timestamp,
    /// The row of `claims` that says so; `None` once the job's own row does.
    pub(super) claim: Option<i64>,
}

impl Hot {
    pub(super) fn lease(&self) -> Option<Lease> {
        match self.standing.state {
            State::Running { lease } => Some(lease),
            _ => None,
        }
    }
}

/// How it was before.
#[derive(Debug)]
enum Undo {
    Stand(LaneNo, Stand),
    Line(LaneNo, i64, Option<Line>),
    Job(JobId, Option<Box<Hot>>),
    Kept(LaneNo, Option<(i64, u64)>),
}

/// Room for so many changes stays from one transaction to the next.
const UNDO_KEPT: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: Vec<LaneState>,
    /// Places in `lanes` that nobody has.
    free: Vec<LaneNo>,
    places: HashMap<Lane, LaneNo>,
    /// The lines of open lanes, by task, in the order in which they are served.
    ring: BTreeSet<(i64, Reverse<i32>, u64, LaneNo)>,
    jobs: HashMap<JobId, Hot>,
    /// How many jobs each row of `claims` speaks for; none that speaks for nobody.
    claims: HashMap<i64, u32>,
    turn: u64,
    undo: Vec<Undo>,
    /// Lanes that this transaction has touched.
    touched: Vec<LaneNo>,
}

impl Lanes {
    /// The lane's place; it is given one if it has none.
    pub(super) fn enter(&mut self, lane: &Lane) -> LaneNo {
        if let Some(no) = self.places.get(lane) {
            return *no;
        }
        let stand = Stand { turn: 0, open: true };
        let fresh =
            LaneState { lane: lane.clone(), stand, lines: Vec::new(), holders: Vec::new(), kept: None, touched: false };
        let no = match self.free.pop() {
            Some(no) => {
                self.lanes[no.0 as usize] = fresh;
                no
            }
            None => {
                self.lanes.push(fresh);
                LaneNo(self.lanes.len() as u32 - 1)
            }
        };
        self.places.insert(lane.clone(), no);
        self.touch(no);
        no
    }

    pub(super) fn lane(&self, no: LaneNo) -> &Lane {
        &self.of(no).lane
    }

    pub(super) fn turn(&self, no: LaneNo) -> u64 {
        self.of(no).stand.turn
    }

    pub(super) fn is_open(&self, no: LaneNo) -> bool {
        self.of(no).stand.open
    }

    pub(super) fn holders(&self, no: LaneNo) -> &[JobId] {
        &self.of(no).holders
    }

    pub(super) fn lines(&self, no: LaneNo) -> &[Line] {
        &self.of(no).lines
    }

    pub(super) fn line(&self, no: LaneNo, task: i64) -> Option<Line> {
        self.of(no).lines.iter().find(|line| line.task == task).copied()
    }

    /// The first lines of a task whose lanes are open, in the order in which they are served.
    pub(super) fn open_lines(&self, task: i64, most: usize) -> impl Iterator<Item = LaneNo> {
        let first = (task, Reverse(i32::MAX), 0, LaneNo(0));
        let of_task = self.ring.range(first..).take_while(move |line| line.0 == task);
        of_task.take(most).map(|line| line.3)
    }

    pub(super) fn running(&self, id: JobId) -> Option<&Hot> {
        self.jobs.get(&id)
    }

    pub(super) fn all_running(&self) -> impl Iterator<Item = (JobId, &Hot)> {
        self.jobs.iter().map(|(id, hot)| (*id, hot))
    }

    pub(super) fn next_turn(&mut self) -> u64 {
        self.turn += 1;
        self.turn
    }

    // What stands in the file when it is opened.

    /// Turns that were given out before: all that follow are higher.
    pub(super) fn turns_up_to(&mut self, turn: u64) {
        self.turn = self.turn.max(turn);
    }

    /// A line, with the turn that is kept for it. Those of one lane come in the order of their numbers.
    pub(super) fn restore(&mut self, no: LaneNo, line: Line, turn: Option<u64>) {
        self.turns_up_to(line.number as u64);
        if self.of(no).lines.is_empty() {
            self.of_mut(no).kept = turn.map(|turn| (line.number, turn));
            self.set_stand(no, Stand { turn: turn.unwrap_or(line.number as u64), open: true });
        }
        self.set_line(no, line.task, Some(line));
    }

    // Changes. Each notes how it was.

    /// A job became ready. Answers the number of its line. A lane joins at the back of the ring; a line joins its lane as
    /// that stands.
    pub(super) fn add(&mut self, no: LaneNo, task: i64, priority: i32) -> i64 {
        let line = match self.line(no, task) {
            Some(line) => {
                Line { count: line.count + 1, top: line.top.max(priority), low: line.low.min(priority), ..line }
            }
            None => {
                let turn = self.next_turn();
                if self.of(no).lines.is_empty() {
                    self.stand(no, Stand { turn, open: true });
                }
                Line { number: turn as i64, task, count: 1, top: priority, low: priority }
            }
        };
        self.change_line(no, task, Some(line));
        line.number
    }

    /// Puts a line where it is found to be; where none of its jobs is left, it goes.
    pub(super) fn change_line(&mut self, no: LaneNo, task: i64, line: Option<Line>) {
        let line = line.filter(|line| line.count > 0);
        let before = self.set_line(no, task, line);
        if before != line {
            self.undo.push(Undo::Line(no, task, before));
            self.touch(no);
        }
    }

    pub(super) fn leave(&mut self, no: LaneNo, turn: u64, open: bool) {
        self.stand(no, Stand { turn, open });
    }

    pub(super) fn open(&mut self, no: LaneNo) {
        self.stand(no, Stand { open: true, ..self.of(no).stand });
    }

    pub(super) fn open_all(&mut self) {
        for place in 0..self.lanes.len() {
            self.open(LaneNo(place as u32));
        }
    }

    /// The job runs and stands like this, or it runs no more.
    pub(super) fn change_job(&mut self, id: JobId, hot: Option<Hot>) {
        let no = hot.as_ref().or_else(|| self.jobs.get(&id)).map(|hot| hot.lane);
        let before = self.set_job(id, hot);
        self.undo.push(Undo::Job(id, before.map(Box::new)));
        if let Some(no) = no {
            self.touch(no);
        }
    }

    fn stand(&mut self, no: LaneNo, stand: Stand) {
        let before = self.of(no).stand;
        if before != stand {
            self.set_stand(no, stand);
            self.undo.push(Undo::Stand(no, before));
            self.touch(no);
        }
    }

    // The end of a transaction.

    /// Rows of `turns` that have to change: of each, the line of the one that goes, and the one that comes.
    /// A lane has its turn from the first of its lines that came to be, but for one that was served or lost that line since.
    pub(super) fn turns_to_keep(&mut self) -> Vec<(Option<i64>, Option<(i64, u64)>)> {
        let mut changes = Vec::new();
        for place in 0..self.touched.len() {
            let no = self.touched[place];
            let state = self.of(no);
            let first = state.lines.iter().map(|line| line.number).min();
            let keep = first.filter(|first| *first != state.stand.turn as i64).map(|first| (first, state.stand.turn));
            let kept = state.kept;
            if kept != keep {
                let goes = kept.map(|(line, _)| line).filter(|line| keep.is_none_or(|(first, _)| first != *line));
                changes.push((goes, keep));
                self.of_mut(no).kept = keep;
                self.undo.push(Undo::Kept(no, kept));
            }
        }
        changes
    }

    /// Rows of `claims` that speak for nobody any more.
    pub(super) fn claims_over(&mut self) -> Vec<i64> {
        let mut over = Vec::new();
        for undo in &self.undo {
            if let Undo::Job(_, Some(before)) = undo
                && let Some(claim) = before.claim
                && !self.claims.contains_key(&claim)
            {
                over.push(claim);
            }
        }
        over.sort_unstable();
        over.dedup();
        over
    }

    /// What was changed stands. Answers the jobs that changed.
    pub(super) fn committed(&mut self) -> Vec<JobId> {
        let undo = mem::take(&mut self.undo);
        let changed = undo.iter().filter_map(|undo| match undo {
            Undo::Job(id, _) => Some(*id),
            _ => None,
        });
        let changed = changed.collect();
        self.undo = undo;
        self.undo.clear();
        self.undo.shrink_to(UNDO_KEPT);
        self.tidy();
        changed
    }

    /// What was changed is as it was.
    pub(super) fn undone(&mut self) {
        while let Some(undo) = self.undo.pop() {
            match undo {
                Undo::Stand(no, stand) => self.set_stand(no, stand),
                Undo::Line(no, task, line) => drop(self.set_line(no, task, line)),
                Undo::Job(id, hot) => drop(self.set_job(id, hot.map(|hot| *hot))),
                Undo::Kept(no, kept) => self.of_mut(no).kept = kept,
            }
        }
        self.tidy();
    }

    /// Lanes in which nobody waits or runs are forgotten.
    fn tidy(&mut self) {
        for no in mem::take(&mut self.touched) {
            let state = self.of_mut(no);
            state.touched = false;
            if state.lines.is_empty() && state.holders.is_empty() {
                state.stand.open = true;
                let lane = state.lane.clone();
                self.places.remove(&lane);
                self.free.push(no);
            }
        }
    }

    fn touch(&mut self, no: LaneNo) {
        if !mem::replace(&mut self.of_mut(no).touched, true) {
            self.touched.push(no);
        }
    }

    fn of(&self, no: LaneNo) -> &LaneState {
        &self.lanes[no.0 as usize]
    }

    fn of_mut(&mut self, no: LaneNo) -> &mut LaneState {
        &mut self.lanes[no.0 as usize]
    }

    // What keeps the parts in step, on the way there and back.

    fn set_stand(&mut self, no: LaneNo, stand: Stand) {
        let Lanes { lanes, ring, .. } = self;
        let state = &mut lanes[no.0 as usize];
        let before = mem::replace(&mut state.stand, stand);
        for line in &state.lines {
            if before.open {
                ring.remove(&(line.task, Reverse(line.top), before.turn, no));
            }
            if stand.open {
                ring.insert((line.task, Reverse(line.top), stand.turn, no));
            }
        }
    }

    fn set_line(&mut self, no: LaneNo, task: i64, line: Option<Line>) -> Option<Line> {
        let Lanes { lanes, ring, .. } = self;
        let state = &mut lanes[no.0 as usize];
        let place = state.lines.iter().position(|line| line.task == task);
        let before = place.map(|place| state.lines[place]);
        match (place, line) {
            (Some(place), Some(line)) => state.lines[place] = line,
            (Some(place), None) => drop(state.lines.swap_remove(place)),
            (None, Some(line)) => {
                // Mostly the only one, and there may be as many lanes as keys.
                state.lines.reserve_exact(1);
                state.lines.push(line);
            }
            (None, None) => {}
        }
        if state.stand.open && before.map(|line| line.top) != line.map(|line| line.top) {
            if let Some(before) = before {
                ring.remove(&(task, Reverse(before.top), state.stand.turn, no));
            }
            if let Some(line) = line {
                ring.insert((task, Reverse(line.top), state.stand.turn, no));
            }
        }
        before
    }

    fn set_job(&mut self, id: JobId, hot: Option<Hot>) -> Option<Hot> {
        if let Some(hot) = &hot {
            if !self.jobs.contains_key(&id) {
                self.of_mut(hot.lane).holders.push(id);
            }
            if let Some(claim) = hot.claim {
                *self.claims.entry(claim).or_default() += 1;
            }
        }
        let is_over = hot.is_none();
        let before = match hot {
            Some(hot) => self.jobs.insert(id, hot),
            None => self.jobs.remove(&id),
        };
        if let Some(before) = &before {
            if is_over {
                let holders = &mut self.of_mut(before.lane).holders;
                if let Some(place) = holders.iter().position(|holder| *holder == id) {
                    holders.swap_remove(place);
                }
            }
            if let Some(claim) = before.claim
                && let Some(jobs) = self.claims.get_mut(&claim)
            {
                *jobs -= 1;
                if *jobs == 0 {
                    self.claims.remove(&claim);
                }
            }
        }
        before
    }
}

#[cfg(test)]
mod tests;
