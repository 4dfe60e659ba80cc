//! The lanes, as the one writer of this file knows them without asking again: of each, who waits in it and who runs.
//!
//! All of it stands in the tables too, and is read from them when the file is opened (`Ledger::open`). What a transaction
//! changes here is taken back if it is undone.

mod slab;
mod ready_order;
mod running;
mod lane_state;
mod chunked_list;

use std::mem;

use wharf_core::ids::{Group, JobId};
use wharf_core::key::Lane;

use self::ready_order::Ring;
pub(super) use self::running::Hot;
use self::running::Running;
pub(super) use self::slab::LaneNo;
use self::slab::Places;

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

/// How it was before.
#[derive(Debug)]
enum Undo {
    Stand(LaneNo, Stand),
    Line(LaneNo, i64, Option<Line>),
    Job(JobId, LaneNo, Option<Box<Hot>>),
}

/// Room for so many changes stays from one transaction to the next.
const UNDO_KEPT: usize = 4096;

/// A row of `turns`: a line, and the turn of its lane.
type Kept = Option<(i64, u64)>;

#[derive(Debug, Default)]
pub(super) struct Lanes {
    places: Places,
    ring: Ring,
    running: Running,
    turn: u64,
    undo: Vec<Undo>,
    /// Lanes that this transaction has touched, each with the row that was kept for it before.
    touched: Vec<(LaneNo, Kept)>,
}

impl Lanes {
    /// The lane's place; it is given one if it has none.
    pub(super) fn enter(&mut self, lane: &Lane) -> LaneNo {
        self.places.find(lane).unwrap_or_else(|| {
            let no = self.places.add(lane);
            self.touch(no);
            no
        })
    }

    pub(super) fn lane(&self, no: LaneNo) -> Lane {
        self.places.name(no)
    }

    pub(super) fn group(&self, no: LaneNo) -> &Group {
        self.places.group(no)
    }

    pub(super) fn turn(&self, no: LaneNo) -> u64 {
        self.places[no].stand().turn
    }

    pub(super) fn is_open(&self, no: LaneNo) -> bool {
        self.places[no].stand().open
    }

    pub(super) fn holders(&self, no: LaneNo) -> &[JobId] {
        self.places[no].holders()
    }

    /// In no order.
    pub(super) fn lines(&self, no: LaneNo) -> impl Iterator<Item = Line> {
        self.places[no].lines()
    }

    pub(super) fn line(&self, no: LaneNo, task: i64) -> Option<Line> {
        self.places[no].line(task)
    }

    /// The first lines of a task whose lanes are open, in the order in which they are served.
    pub(super) fn open_lines(&self, task: i64, max: usize) -> impl Iterator<Item = LaneNo> {
        self.ring.of_task(task).take(max)
    }

    pub(super) fn running(&self, id: JobId) -> Option<&Hot> {
        self.running.get(id)
    }

    pub(super) fn all_running(&self) -> impl Iterator<Item = (JobId, &Hot)> {
        self.running.all()
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
    pub(super) fn restore(&mut self, lane: &Lane, line: Line, turn: Option<u64>) {
        let no = self.places.find(lane).unwrap_or_else(|| self.places.add(lane));
        self.turns_up_to(line.number as u64);
        if self.lines(no).next().is_none() {
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
                if self.lines(no).next().is_none() {
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
        let before = self.line(no, task);
        if before != line {
            self.touch(no);
            self.undo.push(Undo::Line(no, task, before));
            self.set_line(no, task, line);
        }
    }

    pub(super) fn leave(&mut self, no: LaneNo, turn: u64, open: bool) {
        self.stand(no, Stand { turn, open });
    }

    pub(super) fn open(&mut self, no: LaneNo) {
        self.stand(no, Stand { open: true, ..self.places[no].stand() });
    }

    pub(super) fn open_all(&mut self) {
        for no in self.places.all() {
            self.open(no);
        }
    }

    /// The job runs and stands like this, or it runs no more.
    pub(super) fn change_job(&mut self, id: JobId, hot: Option<Hot>) {
        let Some(no) = hot.as_ref().or_else(|| self.running(id)).map(|hot| hot.lane) else { return };
        self.touch(no);
        let before = self.set_job(id, no, hot);
        self.undo.push(Undo::Job(id, no, before.map(Box::new)));
    }

    fn stand(&mut self, no: LaneNo, stand: Stand) {
        let before = self.places[no].stand();
        if before != stand {
            self.touch(no);
            self.undo.push(Undo::Stand(no, before));
            self.set_stand(no, stand);
        }
    }

    // The end of a transaction.

    /// Rows of `turns` that have to change: of each, the line of the one that goes, and the one that comes.
    pub(super) fn turns_to_keep(&self) -> impl Iterator<Item = (Option<i64>, Kept)> {
        self.touched.iter().filter_map(|(no, kept)| {
            let keep = self.kept(*no);
            let goes = kept.map(|(line, _)| line).filter(|line| keep.is_none_or(|(first, _)| first != *line));
            (*kept != keep).then_some((goes, keep))
        })
    }

    /// A lane has its turn from the first of its lines that came to be, but for one that was served or lost that line since:
    /// for that, a row is kept.
    fn kept(&self, no: LaneNo) -> Kept {
        let turn = self.turn(no);
        let first = self.lines(no).map(|line| line.number).min();
        first.filter(|first| *first != turn as i64).map(|first| (first, turn))
    }

    /// Rows of `claims` that speak for nobody any more.
    pub(super) fn claims_over(&mut self) -> Vec<i64> {
        let mut over = Vec::new();
        for undo in &self.undo {
            if let Undo::Job(_, _, Some(before)) = undo
                && let Some(claim) = before.claim
                && !self.running.speaks_for_somebody(claim)
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
            Undo::Job(id, ..) => Some(*id),
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
                Undo::Line(no, task, line) => self.set_line(no, task, line),
                Undo::Job(id, no, hot) => drop(self.set_job(id, no, hot.map(|hot| *hot))),
            }
        }
        self.tidy();
    }

    /// Lanes in which nobody waits or runs are forgotten.
    fn tidy(&mut self) {
        let mut touched = mem::take(&mut self.touched);
        for (no, _) in touched.drain(..) {
            let state = &mut self.places[no];
            state.touched = false;
            if state.is_empty() {
                self.places.free(no);
            }
        }
        self.places.trim();
        self.touched = touched;
        self.touched.shrink_to(UNDO_KEPT);
    }

    /// To be called before a lane is changed.
    fn touch(&mut self, no: LaneNo) {
        if !self.places[no].touched {
            self.touched.push((no, self.kept(no)));
            self.places[no].touched = true;
        }
    }

    // What keeps the parts in step, on the way there and back.

    fn set_stand(&mut self, no: LaneNo, stand: Stand) {
        let state = &mut self.places[no];
        let before = state.stand();
        state.set_stand(stand);
        for line in state.lines() {
            if before.open {
                self.ring.remove(line.task, line.top, before.turn, no);
            }
            if stand.open {
                self.ring.insert(line.task, line.top, stand.turn, no);
            }
        }
    }

    fn set_line(&mut self, no: LaneNo, task: i64, line: Option<Line>) {
        let state = &mut self.places[no];
        let before = state.set_line(task, line).map(|line| line.top);
        let (stand, top) = (state.stand(), line.map(|line| line.top));
        if stand.open && before != top {
            if let Some(before) = before {
                self.ring.remove(task, before, stand.turn, no);
            }
            if let Some(top) = top {
                self.ring.insert(task, top, stand.turn, no);
            }
        }
    }

    fn set_job(&mut self, id: JobId, no: LaneNo, hot: Option<Hot>) -> Option<Hot> {
        let state = &mut self.places[no];
        let before = self.running.set(id, hot, state.holders_mut());
        state.trim();
        before
    }
}

#[cfg(test)]
mod tests;
