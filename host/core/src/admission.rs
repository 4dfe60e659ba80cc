//! Which waiting jobs may start now, and in which order.
//!
//! Higher priority first; among equals, lanes take turns; inside a lane, first come, first served.
//! A lane whose slots are all held is closed by its store and is not looked at again until a slot is free,
//! so that what a claim costs depends on how many jobs it takes, never on how many wait.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};

use crate::bounds;
use crate::ids::{Group, JobId, TaskName};
use crate::key::Lane;
use crate::limits::LimitTable;
use crate::time::Timestamp;

/// A store's own number for a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId(pub u64);

/// The jobs of one task in one lane that are due, seen from outside. Most lanes have one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub lane_id: LaneId,
    pub lane: Lane,
    pub task: TaskName,
    /// The highest priority of its jobs.
    pub top: i32,
    /// When the lane was last served, or first had a due job since: the lowest is next. All lines of a lane have the same.
    pub turn: u64,
    /// How many jobs of the lane run now, counted; counting may stop at the lane's limit.
    pub holders: u32,
}

/// A job at the head of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    pub id: JobId,
    pub priority: i32,
    pub due: Timestamp,
    /// Of its payload.
    pub bytes: u64,
}

/// What is to be had.
#[derive(Clone, Copy, Debug)]
pub struct ClaimBudget<'a> {
    /// Each with its group.
    pub tasks: &'a [(TaskName, Group)],
    /// How many jobs may start.
    pub free: u32,
    /// Tasks of which fewer may start, each with how many.
    pub task_quotas: &'a [(TaskName, u32)],
}

/// What a claim came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    pub taken: u32,
    /// It ended at the bytes that one claim may take, with slots to spare: there is more to be had at once.
    pub cut: bool,
    /// A task had no room left: there may be more of it.
    pub held_back: bool,
}

/// What admission asks of a store, inside the claiming transaction.
pub trait Waiting {
    type Error;
    /// The first `max` open lines of `task`, by descending `top`, then ascending `turn`.
    fn lines(&mut self, task: &TaskName, max: u32) -> Result<Vec<Line>, Self::Error>;
    /// The open lines of a lane with tasks other than `task`: those of `tasks` only.
    fn siblings(&mut self, lane: LaneId, task: &TaskName, tasks: &[TaskName]) -> Result<Vec<Line>, Self::Error>;
    /// The first `max` due jobs of a line, by descending priority, then ascending due time, then ascending id.
    /// Jobs that this claim has leased are not among them.
    fn heads(&mut self, lane: LaneId, task: &TaskName, max: u32) -> Result<Vec<Ready>, Self::Error>;
    /// How many jobs of the group run now, counted; counting may stop at the group's limit.
    fn group_holders(&mut self, group: &Group) -> Result<u32, Self::Error>;
    /// The next number of a count that only grows.
    fn next_turn(&mut self) -> Result<u64, Self::Error>;
    /// Leases the job.
    fn lease(&mut self, line: &Line, job: &Ready) -> Result<(), Self::Error>;
    /// Writes down how a lane was left: its turn, and whether it is open. Tops are the store's to keep.
    fn leave(&mut self, lane: LaneId, turn: u64, open: bool) -> Result<(), Self::Error>;
}

/// Whether a lane with this many holders has a slot.
pub fn has_free_slot(holders: u32, per_key: Option<u32>) -> bool {
    per_key.is_none_or(|limit| holders < limit)
}

/// One lane in the course of one claim.
struct Candidate {
    id: LaneId,
    /// Its lines of the claim's tasks, each with the heads fetched so far.
    lines: Vec<(Line, VecDeque<Ready>, Fetched)>,
    /// Its group's place in `GroupQuotas`.
    group: usize,
    room: u32,
    turn: u64,
    served: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fetched {
    None,
    Some,
    All,
}

/// Leases what the offer allows, within `limits`, and of `bounds::CLAIM_BYTES_MAX` of payload; the first may be larger.
///
/// # Errors
/// Whatever the store answers; the claim is then to be undone as a whole.
pub fn admit<W: Waiting>(waiting: &mut W, offer: &ClaimBudget<'_>, limits: &LimitTable) -> Result<Admitted, W::Error> {
    let ClaimBudget { tasks, free, .. } = *offer;
    let mut of_tasks = TaskQuotas(offer.task_quotas.iter().cloned().collect());
    let names: Vec<TaskName> = tasks.iter().map(|(task, _)| task.clone()).collect();
    let mut task_quotas = GroupQuotas::default();
    let mut lanes: Vec<Candidate> = Vec::new();
    let mut known: HashSet<LaneId> = HashSet::new();
    // The last number is the place in `lanes`.
    let mut next: BinaryHeap<(i32, Reverse<u64>, Reverse<LaneId>, usize)> = BinaryHeap::new();

    for (task, group) in tasks {
        if free == 0 || of_tasks.left(task) == 0 || *task_quotas.of(group, waiting, limits)?.1 == 0 {
            continue;
        }
        // Not only as many as the task has room for: a lane may give its turn to another task.
        for line in open_lines(waiting, task, limits, free)? {
            if !known.insert(line.lane_id) {
                continue;
            }
            // A lane keeps the group that its jobs were enqueued under, also when the task has moved to another since.
            let (group, _) = task_quotas.of(&line.lane.group, waiting, limits)?;
            let room = limits.per_key(&line.lane).map_or(u32::MAX, |limit| limit.saturating_sub(line.holders));
            let siblings = waiting.siblings(line.lane_id, task, &names)?;
            let (id, turn) = (line.lane_id, line.turn);
            let top = siblings.iter().map(|s| s.top).fold(line.top, i32::max);
            let lines = std::iter::once(line).chain(siblings).map(|l| (l, VecDeque::new(), Fetched::None)).collect();
            next.push((top, Reverse(turn), Reverse(id), lanes.len()));
            lanes.push(Candidate { id, lines, group, room, turn, served: false });
        }
    }

    let (mut taken, mut bytes, mut cut) = (0, 0, false);
    while taken < free {
        let Some((top, _, Reverse(id), place)) = next.pop() else { break };
        let lane = &mut lanes[place];
        let group_room = &mut task_quotas.left[lane.group];
        if *group_room == 0 {
            continue;
        }
        // Where nobody else waits for a turn, the whole of a line can be fetched at once.
        let max = if next.is_empty() { (free - taken).min(lane.room).min(*group_room) } else { 1 };
        let Some(first) = first_in_lane(waiting, lane, &of_tasks, max)? else { continue };
        let (line, heads, _) = &mut lane.lines[first];
        // What put the lane here was of a task that has no room any more: it stands again as what is left of it does.
        if let Some(job) = heads.front()
            && job.priority < top
        {
            next.push((job.priority, Reverse(lane.turn), Reverse(id), place));
            continue;
        }
        // Who comes first starts first: a smaller job does not slip past one that is too large for now.
        let job = heads.pop_front().expect("first_in_lane found one");
        cut = taken > 0 && bytes + job.bytes > bounds::CLAIM_BYTES_MAX;
        if cut {
            break;
        }
        bytes += job.bytes;
        waiting.lease(line, &job)?;
        of_tasks.take(&line.task);
        taken += 1;
        *group_room -= u32::from(*group_room != u32::MAX);
        lane.room -= u32::from(lane.room != u32::MAX);
        if !lane.served || !next.is_empty() {
            lane.turn = waiting.next_turn()?;
            lane.served = true;
        }
        if taken < free
            && lane.room > 0
            && let Some(first) = first_in_lane(waiting, lane, &of_tasks, max)?
        {
            next.push((lane.lines[first].1[0].priority, Reverse(lane.turn), Reverse(id), place));
        }
    }

    for lane in lanes.iter().filter(|lane| lane.served) {
        waiting.leave(lane.id, lane.turn, lane.room > 0)?;
    }
    Ok(Admitted { taken, cut, held_back: of_tasks.is_one_used_up() })
}

/// How many more jobs of each task may start; few tasks have a bound.
struct TaskQuotas(HashMap<TaskName, u32>);

impl TaskQuotas {
    fn left(&self, task: &TaskName) -> u32 {
        if self.0.is_empty() { u32::MAX } else { self.0.get(task).copied().unwrap_or(u32::MAX) }
    }

    fn take(&mut self, task: &TaskName) {
        if !self.0.is_empty()
            && let Some(left) = self.0.get_mut(task)
        {
            *left -= 1;
        }
    }

    fn is_one_used_up(&self) -> bool {
        self.0.values().any(|left| *left == 0)
    }
}

/// How many more jobs of each group may start, each counted at the first question.
#[derive(Default)]
struct GroupQuotas {
    places: HashMap<Group, usize>,
    left: Vec<u32>,
    /// The one that was asked for last: mostly it is asked for again.
    last: Option<(Group, usize)>,
}

impl GroupQuotas {
    /// The group's place in `left`, and what stands there.
    fn of<W: Waiting>(
        &mut self,
        group: &Group,
        waiting: &mut W,
        limits: &LimitTable,
    ) -> Result<(usize, &mut u32), W::Error> {
        if let Some((last, place)) = &self.last
            && last == group
        {
            return Ok((*place, &mut self.left[*place]));
        }
        let place = match self.places.get(group) {
            Some(place) => *place,
            None => {
                let left = match limits.of(group).total {
                    Some(total) => total.saturating_sub(waiting.group_holders(group)?),
                    None => u32::MAX,
                };
                self.left.push(left);
                self.places.insert(group.clone(), self.left.len() - 1);
                self.left.len() - 1
            }
        };
        self.last = Some((group.clone(), place));
        Ok((place, &mut self.left[place]))
    }
}

/// The first `max` lines of `task` whose lanes have room. Lanes found full are closed, and the look is repeated:
/// who starts must not depend on how many full lanes stood before.
fn open_lines<W: Waiting>(
    waiting: &mut W,
    task: &TaskName,
    limits: &LimitTable,
    max: u32,
) -> Result<Vec<Line>, W::Error> {
    loop {
        let lines = waiting.lines(task, max)?;
        let mut closed = false;
        for line in &lines {
            if !has_free_slot(line.holders, limits.per_key(&line.lane)) {
                waiting.leave(line.lane_id, line.turn, false)?;
                closed = true;
            }
        }
        if !closed {
            return Ok(lines);
        }
    }
}

/// Which of a lane's lines has the job that came first, with its head fetched; of those whose task has room.
fn first_in_lane<W: Waiting>(
    waiting: &mut W,
    lane: &mut Candidate,
    task_quotas: &TaskQuotas,
    max: u32,
) -> Result<Option<usize>, W::Error> {
    lane.lines.retain(|(line, ..)| task_quotas.left(&line.task) > 0);
    for (line, heads, fetched) in &mut lane.lines {
        let max = max.min(task_quotas.left(&line.task));
        if heads.is_empty() && *fetched != Fetched::All {
            let found = waiting.heads(lane.id, &line.task, max)?;
            *fetched = if (found.len() as u32) < max { Fetched::All } else { Fetched::Some };
            heads.extend(found);
        }
    }
    let first = |heads: &VecDeque<Ready>| heads.front().map(|job| (Reverse(job.priority), job.due, job.id));
    Ok((0..lane.lines.len()).filter(|i| !lane.lines[*i].1.is_empty()).min_by_key(|i| first(&lane.lines[*i].1)))
}

#[cfg(test)]
mod tests;
