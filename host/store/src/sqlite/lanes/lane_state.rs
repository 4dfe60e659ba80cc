//! What is known of one lane: 64 bytes if jobs of one task wait in it and none runs, which is so for most of many lanes.

use std::num::NonZeroU32;

use smallvec::SmallVec;
use wharf_core::ids::JobId;
use wharf_core::key::Key;

use super::numbers::GroupNo;

/// A lane's position among the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) turn: u64,
    /// False if the lane had no free slot, or was held, when it was last checked.
    pub(super) open: bool,
}

/// The ready jobs of one task in a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sqlite) struct Line {
    /// The line's number in the table `ready`, which is also the turn at which it was created.
    pub(in crate::sqlite) number: i64,
    pub(in crate::sqlite) task: i64,
    /// The number of its jobs.
    pub(in crate::sqlite) count: u64,
    /// The highest priority of its jobs.
    pub(in crate::sqlite) top: i32,
    /// A lower bound of its jobs' priorities.
    pub(in crate::sqlite) low: i32,
}

#[derive(Debug)]
pub(super) struct LaneState {
    pub(super) key: Option<Key>,
    turn: u64,
    line: Option<CompactLine>,
    /// State that only a few lanes have.
    extra: Option<Box<Extra>>,
    pub(super) group: GroupNo,
    open: bool,
    /// True if the current transaction has changed the lane.
    pub(super) touched: bool,
}

const _: () = assert!(size_of::<LaneState>() == 64);

/// A line whose task and count fit into 32 bits, as in practice they always do; others are in `Extra::lines`.
#[derive(Clone, Copy, Debug)]
struct CompactLine {
    number: i64,
    task: u32,
    count: NonZeroU32,
    top: i32,
    low: i32,
}

#[derive(Debug, Default)]
struct Extra {
    /// The lines of further tasks that have ready jobs in the lane.
    lines: Vec<Line>,
    /// The running jobs.
    holders: SmallVec<[JobId; 2]>,
}

impl LaneState {
    pub(super) fn new(group: GroupNo, key: Option<Key>) -> LaneState {
        LaneState { key, turn: 0, line: None, extra: None, group, open: true, touched: false }
    }

    /// Returns true if this is the lane of `group` and `key`.
    pub(super) fn is_named(&self, group: GroupNo, key: &Option<Key>) -> bool {
        self.group == group && self.key == *key
    }

    pub(super) fn position(&self) -> Position {
        Position { turn: self.turn, open: self.open }
    }

    pub(super) fn set_position(&mut self, position: Position) {
        self.turn = position.turn;
        self.open = position.open;
    }

    /// Returns the lane's lines in no particular order.
    pub(super) fn lines(&self) -> impl Iterator<Item = Line> {
        let others = self.extra.iter().flat_map(|extra| &extra.lines).copied();
        self.line.map(Line::from).into_iter().chain(others)
    }

    /// Returns the line of a task.
    pub(super) fn line(&self, task: i64) -> Option<Line> {
        self.lines().find(|line| line.task == task)
    }

    /// Replaces the line of a task, or removes it; returns the previous one.
    pub(super) fn set_line(&mut self, task: i64, line: Option<Line>) -> Option<Line> {
        let before = self.take_line(task);
        if let Some(line) = line {
            match CompactLine::try_from(line) {
                Ok(compact) if self.line.is_none() => self.line = Some(compact),
                _ => self.extra().lines.push(line),
            }
        }
        self.trim();
        before
    }

    fn take_line(&mut self, task: i64) -> Option<Line> {
        if let Some(line) = self.line.map(Line::from).filter(|line| line.task == task) {
            self.line = None;
            return Some(line);
        }
        let lines = &mut self.extra.as_mut()?.lines;
        let index = lines.iter().position(|line| line.task == task)?;
        Some(lines.swap_remove(index))
    }

    /// Returns the running jobs, which hold the lane's slots, in no particular order.
    pub(super) fn holders(&self) -> &[JobId] {
        self.extra.as_ref().map_or(&[], |extra| &extra.holders)
    }

    /// Returns the running jobs for a change. [`LaneState::trim`] must be called after it.
    pub(super) fn holders_mut(&mut self) -> &mut SmallVec<[JobId; 2]> {
        &mut self.extra().holders
    }

    fn extra(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    /// Frees the extra state if it is empty.
    pub(super) fn trim(&mut self) {
        if self.extra.as_ref().is_some_and(|extra| extra.lines.is_empty() && extra.holders.is_empty()) {
            self.extra = None;
        }
    }

    /// Returns true if the lane has neither ready nor running jobs.
    pub(super) fn is_empty(&self) -> bool {
        self.line.is_none() && self.extra.is_none()
    }
}

impl From<CompactLine> for Line {
    fn from(line: CompactLine) -> Line {
        let CompactLine { number, task, count, top, low } = line;
        Line { number, task: task.into(), count: u32::from(count).into(), top, low }
    }
}

impl TryFrom<Line> for CompactLine {
    type Error = std::num::TryFromIntError;
    fn try_from(line: Line) -> Result<CompactLine, Self::Error> {
        let count = NonZeroU32::try_from(u32::try_from(line.count)?)?;
        Ok(CompactLine { number: line.number, task: line.task.try_into()?, count, top: line.top, low: line.low })
    }
}
