//! What is known of one lane: 64 bytes where jobs of one task wait and none runs, as it is in most of many lanes.

use std::num::NonZeroU32;

use smallvec::SmallVec;
use wharf_core::ids::JobId;
use wharf_core::key::Key;

use super::slab::GroupNo;
use super::{Line, Stand};

#[derive(Debug)]
pub(super) struct LaneState {
    pub(super) key: Option<Key>,
    turn: u64,
    line: Option<SmallLine>,
    /// What few lanes have.
    more: Option<Box<More>>,
    pub(super) group: GroupNo,
    open: bool,
    /// Whether the transaction under way has changed it.
    pub(super) touched: bool,
}

const _: () = assert!(size_of::<LaneState>() == 64);

/// A line with numbers as small as they are but for wonders; others stand among `More::lines`.
#[derive(Clone, Copy, Debug)]
struct SmallLine {
    number: i64,
    task: u32,
    count: NonZeroU32,
    top: i32,
    low: i32,
}

#[derive(Debug, Default)]
struct More {
    /// One for each further task that has ready jobs here.
    lines: Vec<Line>,
    /// The jobs that run.
    holders: SmallVec<[JobId; 2]>,
}

impl LaneState {
    pub(super) fn new(group: GroupNo, key: Option<Key>) -> LaneState {
        LaneState { key, turn: 0, line: None, more: None, group, open: true, touched: false }
    }

    pub(super) fn is_called(&self, group: GroupNo, key: &Option<Key>) -> bool {
        self.group == group && self.key == *key
    }

    pub(super) fn stand(&self) -> Stand {
        Stand { turn: self.turn, open: self.open }
    }

    pub(super) fn set_stand(&mut self, stand: Stand) {
        self.turn = stand.turn;
        self.open = stand.open;
    }

    /// In no order.
    pub(super) fn lines(&self) -> impl Iterator<Item = Line> {
        let others = self.more.iter().flat_map(|more| &more.lines).copied();
        self.line.map(Line::from).into_iter().chain(others)
    }

    pub(super) fn line(&self, task: i64) -> Option<Line> {
        self.lines().find(|line| line.task == task)
    }

    /// Answers how the line was before.
    pub(super) fn set_line(&mut self, task: i64, line: Option<Line>) -> Option<Line> {
        let before = self.take_line(task);
        if let Some(line) = line {
            match SmallLine::try_from(line) {
                Ok(small) if self.line.is_none() => self.line = Some(small),
                _ => self.more().lines.push(line),
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
        let lines = &mut self.more.as_mut()?.lines;
        let place = lines.iter().position(|line| line.task == task)?;
        Some(lines.swap_remove(place))
    }

    pub(super) fn holders(&self) -> &[JobId] {
        self.more.as_ref().map_or(&[], |more| &more.holders)
    }

    /// `trim` is to be called when they have changed.
    pub(super) fn holders_mut(&mut self) -> &mut SmallVec<[JobId; 2]> {
        &mut self.more().holders
    }

    fn more(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }

    pub(super) fn trim(&mut self) {
        if self.more.as_ref().is_some_and(|more| more.lines.is_empty() && more.holders.is_empty()) {
            self.more = None;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.line.is_none() && self.more.is_none()
    }
}

impl From<SmallLine> for Line {
    fn from(line: SmallLine) -> Line {
        let SmallLine { number, task, count, top, low } = line;
        Line { number, task: task.into(), count: u32::from(count).into(), top, low }
    }
}

impl TryFrom<Line> for SmallLine {
    type Error = std::num::TryFromIntError;
    fn try_from(line: Line) -> Result<SmallLine, Self::Error> {
        let count = NonZeroU32::try_from(u32::try_from(line.count)?)?;
        Ok(SmallLine { number: line.number, task: line.task.try_into()?, count, top: line.top, low: line.low })
    }
}
