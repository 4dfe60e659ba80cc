//! Admission: decides which waiting jobs a claim starts, and in which order.
//!
//! Fairness between tenants is decided here. Jobs of a higher priority come first. Among equal priorities, lanes (a tenant
//! each) take turns. Within a lane, the job that became due first comes first. A lane without a free slot, or one that an
//! operator holds, is closed in its store and not read again until that changes. So the cost of a claim depends on how
//! many jobs it starts, never on how many are waiting.
//!
//! A job starts only if the node has room for it and for its payload. One that comes to its turn and does not fit keeps its turn, and holds
//! up nobody: others may overtake it, as far as [`Room`] lets them.
//!
//! [`admit`] decides, and a store carries it out through [`QueueView`].

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};

use crate::bounds;
use crate::ids::{Group, JobId, TaskName};
use crate::key::Lane;
use crate::limits::LimitTable;
use crate::room::{Room, TaskCost};
use crate::time::Timestamp;

/// A store's own number for a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId(pub u64);

/// The due jobs of one task in one lane. Most lanes have one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The store's number for the lane.
    pub lane_id: LaneId,
    /// The lane.
    pub lane: Lane,
    /// The task.
    pub task: TaskName,
    /// The highest priority of the line's jobs.
    pub top: i32,
    /// When the lane was last served, or got its first due job after that. The lane with the lowest turn is next.
    /// All lines of a lane have the same turn.
    pub turn: u64,
    /// Number of jobs of the lane that are running. A store may stop counting at the lane's limit.
    pub holders: u32,
    /// True if the lane is held, by its group or its key.
    pub held: bool,
}

/// A job at the head of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The job's ID.
    pub id: JobId,
    /// The job's priority.
    pub priority: i32,
    /// When the job became due.
    pub due: Timestamp,
    /// Size of the payload in bytes.
    pub bytes: u64,
}

/// The capacity that a node offers in one claim.
#[derive(Clone, Copy, Debug)]
pub struct ClaimBudget<'a> {
    /// The tasks that the node can run, each with its group.
    pub tasks: &'a [(TaskName, Group)],
    /// Number of jobs that may start.
    pub free: u32,
    /// The node's room for attempts.
    pub room: Room,
    /// The costs of tasks; a task that is not listed costs [`TaskCost::ORDINARY`].
    pub costs: &'a HashMap<TaskName, TaskCost>,
    /// Caps below `free` for single tasks.
    pub task_quotas: &'a [(TaskName, u32)],
}

/// The result of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Number of jobs that were leased.
    pub taken: u32,
    /// True if the claim reached `bounds::CLAIM_BYTES_MAX` before it used `free`: another claim can start more jobs at
    /// once.
    pub cut: bool,
    /// True if a quota of `task_quotas` is used up: there may be more jobs of that task.
    pub quota_reached: bool,
    /// True if the room did not suffice: there may be more jobs once an attempt ends.
    pub short_of_room: bool,
    /// Number of leased jobs, the last ones, that overtook a job that did not fit.
    pub overtook: u32,
}

/// A store's queue, as [`admit`] reads and changes it inside the claiming transaction.
///
/// The calls of one claim come in this order:
///
/// 1. For each task of the budget: [`group_holders`](Self::group_holders) for its group (only if the group has a total,
///    and once for each group), then [`lines`](Self::lines). A line whose lane has no free slot is closed by
///    [`leave`](Self::leave), one whose lane is held by [`hold`](Self::hold), and `lines` is called again. For each new
///    lane: `group_holders` for the lane's own group, then [`siblings`](Self::siblings).
/// 2. For each job that starts: [`heads`](Self::heads) for those lines of the next lane of which no fetched job is
///    left, then [`lease`](Self::lease), then [`next_turn`](Self::next_turn) for the lane, unless it already has a turn
///    from this claim and no other lane is waiting.
/// 3. For each lane from which a job was leased: `leave`, with its new turn.
pub trait QueueView {
    /// The store's error.
    type Error;
    /// Returns the first `max` lines of `task` whose lanes are open, by descending `top`, then ascending `turn`.
    fn lines(&mut self, task: &TaskName, max: u32) -> Result<Vec<Line>, Self::Error>;
    /// Returns the lines of an open lane whose task is one of `tasks`, except the line of `task`.
    fn siblings(&mut self, lane: LaneId, task: &TaskName, tasks: &[TaskName]) -> Result<Vec<Line>, Self::Error>;
    /// Returns the first `max` due jobs of a line, by descending priority, then ascending due time, then ascending ID.
    /// Jobs that this claim has leased are not among them.
    fn heads(&mut self, lane: LaneId, task: &TaskName, max: u32) -> Result<Vec<Ready>, Self::Error>;
    /// Returns how many jobs of the group are running. A store may stop counting at the group's limit.
    fn group_holders(&mut self, group: &Group) -> Result<u32, Self::Error>;
    /// Returns the next number of a counter that only grows.
    fn next_turn(&mut self) -> Result<u64, Self::Error>;
    /// Leases the job.
    fn lease(&mut self, line: &Line, job: &Ready) -> Result<(), Self::Error>;
    /// Stores a lane's turn, and whether the lane is open. The store itself maintains `top` of its lines.
    fn leave(&mut self, lane: LaneId, turn: u64, open: bool) -> Result<(), Self::Error>;
    /// Closes a lane that is held. The store opens it when a hold on it ends, or is set or released.
    fn hold(&mut self, lane: LaneId) -> Result<(), Self::Error>;
}

/// Returns true if a lane with this many running jobs has a free slot. `per_key` is the lane's limit; `None` is no
/// limit.
pub fn has_free_slot(holders: u32, per_key: Option<u32>) -> bool {
    per_key.is_none_or(|limit| holders < limit)
}

/// The state of one lane during a claim.
struct Candidate {
    id: LaneId,
    /// The lane's lines of the claim's tasks.
    lines: Vec<CandidateLine>,
    /// The index of the lane's group in `GroupQuotas::left`.
    group: usize,
    /// Number of further jobs of the lane that may start.
    free_slots: u32,
    turn: u64,
    /// True if a job of the lane was leased.
    served: bool,
    /// The lane's turn when one of its jobs did not fit: it keeps this, whatever else of it starts.
    kept_turn: Option<u64>,
}

/// One of a lane's lines during a claim.
struct CandidateLine {
    line: Line,
    /// The jobs that were fetched and have not started.
    heads: VecDeque<Ready>,
    fetched: Fetched,
    cost: TaskCost,
}

/// The extent to which a line was fetched.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fetched {
    None,
    Some,
    All,
}

/// Leases the jobs that fit `budget`, `limits` and `bounds::CLAIM_BYTES_MAX` of payload; the first job may be larger
/// than that.
///
/// # Errors
/// The first error of the store; the whole claim must then be rolled back.
pub fn admit<Q: QueueView>(queue: &mut Q, budget: &ClaimBudget<'_>, limits: &LimitTable) -> Result<Admitted, Q::Error> {
    let ClaimBudget { tasks, .. } = *budget;
    let mut allowance = Allowance {
        task_quotas: TaskQuotas(budget.task_quotas.iter().cloned().collect()),
        costs: budget.costs,
        room: budget.room,
        waiting: None,
    };
    // Every attempt takes a sandbox.
    let free = budget.free.min(budget.room.free.sandboxes);
    let names: Vec<TaskName> = tasks.iter().map(|(task, _)| task.clone()).collect();
    let mut group_quotas = GroupQuotas::default();
    let mut lanes: Vec<Candidate> = Vec::new();
    let mut known: HashSet<LaneId> = HashSet::new();
    // The last number is the index in `lanes`.
    let mut next: BinaryHeap<(i32, Reverse<u64>, Reverse<LaneId>, usize)> = BinaryHeap::new();

    for (task, group) in tasks {
        if free == 0 || allowance.task_quotas.left(task) == 0 || *group_quotas.of(group, queue, limits)?.1 == 0 {
            continue;
        }
        // `free` lines and not just the task's quota: a lane may give its turn to another task.
        for line in open_lines(queue, task, limits, free)? {
            if !known.insert(line.lane_id) {
                continue;
            }
            // A lane keeps the group under which its jobs were enqueued, even if the task has moved to another group
            // since.
            let (group, _) = group_quotas.of(&line.lane.group, queue, limits)?;
            let free_slots = limits.per_key(&line.lane).map_or(u32::MAX, |limit| limit.saturating_sub(line.holders));
            let siblings = queue.siblings(line.lane_id, task, &names)?;
            let (id, turn) = (line.lane_id, line.turn);
            let top = siblings.iter().map(|s| s.top).fold(line.top, i32::max);
            let candidate = |line: Line| {
                let cost = allowance.cost(&line.task);
                CandidateLine { line, heads: VecDeque::new(), fetched: Fetched::None, cost }
            };
            let lines = std::iter::once(line).chain(siblings).map(candidate).collect();
            next.push((top, Reverse(turn), Reverse(id), lanes.len()));
            lanes.push(Candidate { id, lines, group, free_slots, turn, served: false, kept_turn: None });
        }
    }

    let (mut taken, mut overtook, mut bytes, mut cut) = (0, 0, 0, false);
    while taken < free && allowance.room.free.sandboxes > 0 {
        let Some((top, _, Reverse(id), place)) = next.pop() else { break };
        let lane = &mut lanes[place];
        let group_left = &mut group_quotas.left[lane.group];
        if *group_left == 0 {
            continue;
        }
        // If no other lane is waiting for a turn, a whole line can be fetched at once.
        let max = if next.is_empty() { (free - taken).min(lane.free_slots).min(*group_left) } else { 1 };
        let Some(first) = first_in_lane(queue, lane, &allowance, max)? else { continue };
        let CandidateLine { line, heads, cost, .. } = &mut lane.lines[first];
        let payload_bytes = heads.front().map_or(0, |job| job.bytes);
        let cost = allowance.room.bounded(cost.with_payload(payload_bytes));
        // The lane got its place by a job of a task whose quota is used up now: it goes back to the place of its other
        // jobs.
        if let Some(job) = heads.front()
            && job.priority < top
        {
            next.push((job.priority, Reverse(lane.turn), Reverse(id), place));
            continue;
        }
        if !allowance.may_start(cost) {
            allowance.waiting = Some(cost);
            lane.kept_turn = Some(lane.turn);
            lane.lines.remove(first);
            if let Some(first) = first_in_lane(queue, lane, &allowance, max)? {
                next.push((lane.lines[first].heads[0].priority, Reverse(lane.turn), Reverse(id), place));
            }
            continue;
        }
        // The first job starts first: a smaller one does not overtake one that is too large for this claim.
        let job = heads.pop_front().expect("first_in_lane found one");
        cut = taken > 0 && bytes + job.bytes > bounds::CLAIM_BYTES_MAX;
        if cut {
            break;
        }
        bytes += job.bytes;
        queue.lease(line, &job)?;
        overtook += u32::from(allowance.take(&line.task, cost));
        taken += 1;
        *group_left -= u32::from(*group_left != u32::MAX);
        lane.free_slots -= u32::from(lane.free_slots != u32::MAX);
        if !lane.served || !next.is_empty() {
            lane.turn = queue.next_turn()?;
            lane.served = true;
        }
        if taken < free
            && lane.free_slots > 0
            && let Some(first) = first_in_lane(queue, lane, &allowance, max)?
        {
            next.push((lane.lines[first].heads[0].priority, Reverse(lane.turn), Reverse(id), place));
        }
    }

    for lane in lanes.iter().filter(|lane| lane.served) {
        queue.leave(lane.id, lane.kept_turn.unwrap_or(lane.turn), lane.free_slots > 0)?;
    }
    let quota_reached = allowance.task_quotas.is_one_used_up();
    let short_of_room = allowance.waiting.is_some() || (taken < budget.free && allowance.room.free.sandboxes == 0);
    Ok(Admitted { taken, cut, quota_reached, short_of_room, overtook })
}

/// The jobs that a claim may still start, as far as its node is concerned.
struct Allowance<'a> {
    task_quotas: TaskQuotas,
    costs: &'a HashMap<TaskName, TaskCost>,
    room: Room,
    /// The cost of the first job that came to its turn and did not fit.
    waiting: Option<TaskCost>,
}

impl Allowance<'_> {
    fn cost(&self, task: &TaskName) -> TaskCost {
        let known = if self.costs.is_empty() { None } else { self.costs.get(task) };
        self.room.bounded(known.copied().unwrap_or(TaskCost::ORDINARY))
    }

    fn may_start(&self, cost: TaskCost) -> bool {
        self.waiting.map_or_else(|| self.room.fits(cost), |waiting| self.room.may_overtake(cost, waiting))
    }

    /// Takes what a job of the task takes. Returns true if the job overtakes one that does not fit.
    fn take(&mut self, task: &TaskName, cost: TaskCost) -> bool {
        self.task_quotas.take(task);
        self.room.take(cost, self.waiting.is_some());
        self.waiting.is_some()
    }

    /// Returns true if a line is worth reading: its first job may start, or come to its turn as the first that does not
    /// fit.
    fn concerns(&self, line: &CandidateLine) -> bool {
        self.task_quotas.left(&line.line.task) > 0 && (self.waiting.is_none() || self.may_start(line.cost))
    }
}

/// Number of further jobs that may start, for each task. Few tasks have a quota.
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

/// Number of further jobs that may start, for each group. A group's running jobs are counted when the group is first needed.
#[derive(Default)]
struct GroupQuotas {
    places: HashMap<Group, usize>,
    left: Vec<u32>,
    /// The group that was looked up last: most lookups repeat it.
    last: Option<(Group, usize)>,
}

impl GroupQuotas {
    /// Returns the group's index in `left`, and the number there.
    fn of<Q: QueueView>(
        &mut self,
        group: &Group,
        queue: &mut Q,
        limits: &LimitTable,
    ) -> Result<(usize, &mut u32), Q::Error> {
        if let Some((last, place)) = &self.last
            && last == group
        {
            return Ok((*place, &mut self.left[*place]));
        }
        let place = match self.places.get(group) {
            Some(place) => *place,
            None => {
                let left = match limits.of(group).total {
                    Some(total) => total.saturating_sub(queue.group_holders(group)?),
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

/// Returns the first `max` lines of `task` whose lanes have a free slot and are not held. Other lanes are closed, and the
/// query is repeated: which jobs start must not depend on how many of these were ahead of them.
fn open_lines<Q: QueueView>(
    queue: &mut Q,
    task: &TaskName,
    limits: &LimitTable,
    max: u32,
) -> Result<Vec<Line>, Q::Error> {
    loop {
        let lines = queue.lines(task, max)?;
        let mut closed = false;
        for line in &lines {
            if line.held {
                queue.hold(line.lane_id)?;
                closed = true;
            } else if !has_free_slot(line.holders, limits.per_key(&line.lane)) {
                queue.leave(line.lane_id, line.turn, false)?;
                closed = true;
            }
        }
        if !closed {
            return Ok(lines);
        }
    }
}

/// Returns the index of the lane's line whose first job comes first, with that job fetched. Lines of which nothing may
/// start any more in this claim are removed.
fn first_in_lane<Q: QueueView>(
    queue: &mut Q,
    lane: &mut Candidate,
    allowance: &Allowance<'_>,
    max: u32,
) -> Result<Option<usize>, Q::Error> {
    lane.lines.retain(|line| allowance.concerns(line));
    for CandidateLine { line, heads, fetched, cost } in &mut lane.lines {
        let max = max.min(allowance.task_quotas.left(&line.task)).min(allowance.room.count_of(*cost).max(1));
        if heads.is_empty() && *fetched != Fetched::All {
            let found = queue.heads(lane.id, &line.task, max)?;
            *fetched = if (found.len() as u32) < max { Fetched::All } else { Fetched::Some };
            heads.extend(found);
        }
    }
    let first = |line: &CandidateLine| line.heads.front().map(|job| (Reverse(job.priority), job.due, job.id));
    let with_jobs = (0..lane.lines.len()).filter(|i| !lane.lines[*i].heads.is_empty());
    Ok(with_jobs.min_by_key(|i| first(&lane.lines[*i])))
}

#[cfg(test)]
mod tests;
