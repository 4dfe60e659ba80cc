//! Claims: lines are derived from the due jobs each time that admission reads them.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::convert::Infallible;

use wharf_core::admission::{Admitted, LaneId, Line, QueueView, Ready, admit};
use wharf_core::bounds;
use wharf_core::ids::{Group, JobId, TaskName};
use wharf_core::job::LeasedJob;
use wharf_core::key::Lane;
use wharf_core::lease::Lease;
use wharf_core::lifecycle::Event;
use wharf_core::time::Timestamp;

use super::queue::MemoryQueue;
use crate::store::{Claim, Claimed, wake_at};

impl MemoryQueue {
    /// Leases jobs that may start now.
    pub(super) fn claim(&mut self, claim: Claim, now: Timestamp) -> Claimed {
        self.declared = claim.declared.clone();
        for _ in 0..bounds::PROMOTE_BATCH {
            let Some(&(due, id)) = self.delayed.first().filter(|(due, _)| *due <= now) else { break };
            self.delayed.remove(&(due, id));
            self.make_ready(id);
        }
        let next_due = self.delayed.first().map(|(due, _)| (*due).max(now));
        let wake_at = wake_at(next_due, self.holds.next_end(now));

        let limits = self.limits();
        let claim = &*claim.without_held_tasks(&self.holds, now);
        let mut context =
            ClaimContext { queue: self, claim, now, lanes: Vec::new(), closed: BTreeSet::new(), leased: Vec::new() };
        let Ok(admitted) = admit(&mut context, &claim.offer(), &limits);
        let wake_at = if admitted.cut { Some(now) } else { wake_at };
        let Admitted { quota_reached, short_of_room, overtook, .. } = admitted;
        Claimed { leased: context.leased, wake_at, quota_reached, short_of_room, overtook }
    }
}

/// A claim in progress.
struct ClaimContext<'q> {
    queue: &'q mut MemoryQueue,
    claim: &'q Claim,
    now: Timestamp,
    /// The lanes that were read; a lane's id is its index.
    lanes: Vec<Lane>,
    /// Lanes that this claim has closed. The next claim reads them again: closing saves work and changes no decision.
    closed: BTreeSet<Lane>,
    leased: Vec<LeasedJob>,
}

impl ClaimContext<'_> {
    fn lane_id(&mut self, lane: &Lane) -> LaneId {
        let index = self.lanes.iter().position(|known| known == lane).unwrap_or_else(|| {
            self.lanes.push(lane.clone());
            self.lanes.len() - 1
        });
        LaneId(index as u64)
    }

    fn lane(&self, id: LaneId) -> Lane {
        self.lanes[id.0 as usize].clone()
    }

    fn line(&mut self, lane: &Lane, task: &TaskName, top: i32) -> Line {
        Line {
            lane_id: self.lane_id(lane),
            lane: lane.clone(),
            task: task.clone(),
            top,
            turn: self.queue.ready[lane].turn,
            holders: self.queue.running.get(lane).map_or(0, |holders| holders.len() as u32),
            held: self.queue.holds.is_on_lane(lane, self.now),
        }
    }
}

/// Returns the highest priority of a line's jobs.
fn top(line: &BTreeSet<(Reverse<i32>, Timestamp, JobId)>) -> i32 {
    line.first().map_or(i32::MIN, |(Reverse(priority), ..)| *priority)
}

impl QueueView for ClaimContext<'_> {
    type Error = Infallible;

    fn lines(&mut self, task: &TaskName, max: u32) -> Result<Vec<Line>, Infallible> {
        let open = self.queue.ready.iter().filter(|(lane, _)| !self.closed.contains(*lane));
        let tops: Vec<(Lane, i32)> =
            open.filter_map(|(lane, ready)| Some((lane.clone(), top(ready.lines.get(task)?)))).collect();
        let mut lines: Vec<Line> = tops.iter().map(|(lane, top)| self.line(lane, task, *top)).collect();
        lines.sort_by_key(|line| (Reverse(line.top), line.turn));
        lines.truncate(max as usize);
        Ok(lines)
    }

    fn siblings(&mut self, lane: LaneId, task: &TaskName, tasks: &[TaskName]) -> Result<Vec<Line>, Infallible> {
        let lane = self.lane(lane);
        let Some(ready) = self.queue.ready.get(&lane).filter(|_| !self.closed.contains(&lane)) else {
            return Ok(Vec::new());
        };
        let others = ready.lines.iter().filter(|(other, _)| *other != task && tasks.contains(other));
        let tops: Vec<(TaskName, i32)> = others.map(|(other, line)| (other.clone(), top(line))).collect();
        Ok(tops.iter().map(|(other, top)| self.line(&lane, other, *top)).collect())
    }

    fn heads(&mut self, lane: LaneId, task: &TaskName, max: u32) -> Result<Vec<Ready>, Infallible> {
        let line = self.queue.ready.get(&self.lanes[lane.0 as usize]).and_then(|ready| ready.lines.get(task));
        let heads = line.into_iter().flatten();
        let payload_bytes = |id| self.queue.jobs[id].job.payload.len() as u64;
        let heads = heads.map(|(Reverse(priority), due, id)| Ready {
            id: *id,
            priority: *priority,
            due: *due,
            bytes: payload_bytes(id),
        });
        Ok(heads.take(max as usize).collect())
    }

    fn group_holders(&mut self, group: &Group) -> Result<u32, Infallible> {
        let of_group = self.queue.running.iter().filter(|(lane, _)| lane.group == *group);
        Ok(of_group.map(|(_, holders)| holders.len() as u32).sum())
    }

    fn next_turn(&mut self) -> Result<u64, Infallible> {
        self.queue.turn += 1;
        Ok(self.queue.turn)
    }

    fn lease(&mut self, _line: &Line, ready: &Ready) -> Result<(), Infallible> {
        let status = self.queue.jobs[&ready.id].job.status;
        let lease = Lease {
            job: ready.id,
            attempt: status.attempt + 1,
            node: self.claim.node,
            until: self.now + self.claim.lease,
        };
        self.queue.apply(ready.id, Event::Claimed { lease }, self.now).expect("a due job can be claimed");
        let job = &self.queue.jobs[&ready.id].job;
        self.leased.push(LeasedJob {
            lease,
            task: job.task.clone(),
            lane: job.lane.clone(),
            payload: job.payload.clone(),
            batch: job.batch.clone(),
            generation: job.lineage.generation,
            failures: status.failures,
            crashes: status.crashes,
            due: ready.due,
            claimed_at: self.now,
            tick: job.tick.clone(),
        });
        Ok(())
    }

    fn leave(&mut self, lane: LaneId, turn: u64, open: bool) -> Result<(), Infallible> {
        let lane = self.lane(lane);
        if let Some(ready) = self.queue.ready.get_mut(&lane) {
            ready.turn = turn;
        }
        if !open {
            self.closed.insert(lane);
        }
        Ok(())
    }
    fn hold(&mut self, lane: LaneId) -> Result<(), Infallible> {
        let lane = self.lane(lane);
        self.closed.insert(lane);
        Ok(())
    }
}
